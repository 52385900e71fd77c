"""What the report says of whole volumes: scores of patients rather than of slices."""

from collections.abc import Mapping, Sequence
from itertools import pairwise, product

import numpy as np
import pandas as pd

from metaseg_monai.evaluation.per_case import SPACING
from metaseg_monai.metrics.agreement import Limits, bland_altman
from metaseg_monai.metrics.leakage import volume_values
from metaseg_monai.metrics.scores import DRAWS
from metaseg_monai.metrics.statistics import rate_interval, share_interval
from metaseg_monai.metrics.volumes import FOUND_SHARE, KITS_REGIONS, TOLERANCE_MM
from metaseg_monai.reporting.comparisons import compared_again, lacking
from metaseg_monai.reporting.figures.ranking import Panel, agreement
from metaseg_monai.reporting.page import Details, Figure, Part, Section
from metaseg_monai.reporting.runs import (
    TRAINING,
    Results,
    by_replicate,
    given_values,
    listed,
    other_values,
)
from metaseg_monai.reporting.scores import ENDS, over_groups, rows_of
from metaseg_monai.reporting.tables import Table
from metaseg_monai.study.design import Protocol

MEASURES = {"dice": "Dice", "surface_dice": "surface Dice", "hd95_mm": "HD95 (mm)"}
SIZE_EDGES: Mapping[str, Sequence[float]] = {
    "tumour_size_mm": (40, 70)  # T1a, T1b and T2 of the TNM stages of renal cancer
}
LESION_RATES = {  # each by its columns, and the interval of its kind
    "found": ("lesions_found", "lesions", share_interval),
    "false per volume": ("lesions_false", "volumes", rate_interval),
    "false ml": ("false_ml", "volumes", rate_interval),
}
ORGANS = ("kidney_and_masses",)  # regions whose components are organs, not lesions
UNKNOWN_SIZE = "size unknown"
ML = 1000.0  # mm3
PANELS = 6


def volume_section(results: Results, protocol: Protocol, ranked: bool = True) -> Section:
    """Scores of volumes.

    Args:
        results: some of which have volumes in mode normal.
        protocol: whose comparisons are made on the Dice of the most special region as well.
        ranked: say which condition is highest and lowest; False where they cannot be compared.
    """
    scores = results.normal_volumes
    volumes, regions = averaged(scores), regions_of(scores)
    target = regions[-1]
    note = (
        "Dice and surface Dice: 1 where a region is empty in label and prediction, 0 where it is "
        "in one of them, as in the official KiTS scores. HD95: 95 % of the surfaces lie closer "
        "than this; undefined where the region is empty in either, then left out and counted over "
        "all trainings, so read it with the Dice and the number of patients that it is of. Mean "
        "over patients with its 95 % interval over patients, none below five of them; seeds "
        "averaged within a volume."
    )
    about = [
        completeness(volumes),
        lacking(results, scores, "volumes"),
        how_scored(results, regions),
        _dice_words(volumes, target, ranked),
    ]
    parts: list[Part] = [*filter(None, about)]
    for region in reversed(regions):
        title, told = f"Whole volumes: {region}", note if region == target else "As above."
        table = region_table(volumes, region)
        parts.append(Table(f"volumes_{region}", title, told, table, first="condition"))
    everywhere = protocol.model_copy(update={"domain": None})
    spoken = (f"Dice of {target}", f"Dice of {target} of whole volumes", "volume", "patient")
    parts += compared_again(results, everywhere, dice_scores(scores, target), "volumes", *spoken)
    lesions = [region for region in regions if region not in ORGANS]
    if lesions:
        note = (
            "found: share of the true lesions, pooled over all volumes, of whose voxels at least "
            f"{100 * FOUND_SHARE:g} % were predicted, of the patients with any; false per volume: "
            "predicted lesions that touch no true one; false ml: mean volume predicted on planes "
            "whose label has none of the region. low and high: 95 % interval over "
            "patients with all their volumes; none below five of them. Seeds averaged within a "
            "volume."
        )
        of_lesions = lesion_table(volumes, lesions)
        parts.append(
            Table("volumes_lesions", "Lesions", note, of_lesions, first="condition, region")
        )
    parts += _subgroups(results, volumes, regions)
    parts += agreement_parts(scores, volumes, target)
    intro = "Slices stacked back into volumes and scored for each patient."
    return Section("Whole volumes", intro, parts)


def averaged(scores: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of every number of a volume and region; undefined ones are left out.

    Args:
        scores: rows as of `Results.volumes`, of one mode.

    Returns:
        A row a condition, volume and region, with a further column ``undefined``: seeds without an
        HD95.
    """
    names = ["condition", "volume", "group", "region"]
    scores = scores.assign(undefined=scores["hd95_mm"].isna())
    by_volume = scores.drop(columns=TRAINING[1:]).groupby(names, sort=False)
    means = by_volume.mean(numeric_only=True)
    return means.assign(undefined=by_volume["undefined"].sum()).reset_index()


def regions_of(scores: pd.DataFrame) -> list[str]:
    """The regions of all conditions, the most special of those with the most regions last."""
    of_conditions = scores.groupby("condition", sort=False)["region"]
    told = sorted((list(regions.unique()) for _, regions in of_conditions), key=len)
    rare = [region for regions in told for region in regions if region not in told[-1]]
    return [*dict.fromkeys(rare), *told[-1]]


def region_table(volumes: pd.DataFrame, region: str) -> pd.DataFrame:
    """Overlap and surface scores of a region: conditions x (measure; mean, low, high).

    Args:
        volumes: of `averaged`.
        region: whose rows are taken.
    """
    names = volumes["condition"].unique()
    part = volumes[volumes["region"] == region]
    columns: dict[tuple[str, str], pd.Series] = {}
    for column, measure in MEASURES.items():
        of_groups = part.groupby(["condition", "group"])[column].mean()
        means = over_groups(of_groups, bounded=column != "hd95_mm")
        columns |= {(measure, end): means[end] for end in ENDS}
    of, defined = (rows.groupby("condition") for rows in (part, part.dropna(subset="hd95_mm")))
    counts = {
        ("HD95 (mm)", "undefined"): of["undefined"].sum(),
        ("HD95 (mm)", "patients"): defined["group"].nunique(),
        ("n", "volumes"): of.size(),
        ("n", "patients"): of["group"].nunique(),
    }
    columns |= {head: count.reindex(names, fill_value=0) for head, count in counts.items()}
    return pd.DataFrame(columns).reindex(names)


def lesion_table(volumes: pd.DataFrame, regions: Sequence[str]) -> pd.DataFrame:
    """Lesions found and false ones: (condition, region) x (measure; mean, low, high) and n.

    Means are sums over all volumes, of lesions or of volumes; intervals are over patients. What is
    found rests on the patients with any lesion.
    """
    table = volumes.assign(volumes=1, false_ml=volumes["false_mm3"] / ML)
    sums = table.groupby(["condition", "region", "group"]).sum(numeric_only=True)
    rows = {}
    for name in volumes["condition"].unique():
        for region in regions:
            row: dict[tuple[str, str], float] = {}
            of_groups = sums[sums.index.isin([name], 0) & sums.index.isin([region], 1)]
            for measure, (column, of, interval) in LESION_RATES.items():
                parts, wholes = (of_groups[one].to_numpy(float) for one in (column, of))
                rate = float(parts.sum() / wholes.sum()) if wholes.any() else float("nan")
                ends = (rate, *interval(parts, wholes))
                row |= {(measure, end): value for end, value in zip(ENDS, ends, strict=True)}
            row["n", "lesions"] = round(of_groups["lesions"].sum())
            row["n", "patients with any"] = int((of_groups["lesions"] > 0).sum())
            row["n", "patients"] = len(of_groups)
            rows[f"{name}, {region}"] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def subgroup_table(
    volumes: pd.DataFrame, regions: Sequence[str], values: pd.Series, unit: str,
    edges: Sequence[float],
) -> pd.DataFrame:  # fmt: skip
    """Dice of volumes by the size of a value: (condition, subgroup) x regions and n.

    Args:
        volumes: of `averaged`.
        regions: columns.
        values: value by group and volume; volumes without one are a subgroup of their own.
        unit: of the values.
        edges: ascending; a value equal to an edge belongs below it.
    """
    of_volumes = values.reindex(pd.MultiIndex.from_frame(volumes[["group", "volume"]]))
    labels, ends = size_labels(edges, unit), [-np.inf, *edges, np.inf]
    sizes = pd.cut(of_volumes.to_numpy(float), ends, labels=labels).astype(object)
    table = volumes.assign(size=pd.Series(sizes, volumes.index).fillna(UNKNOWN_SIZE))
    place = ["condition", "size"]
    dice = over_groups(table.groupby([*place, "region", "group"])["dice"].mean(), bounded=True)
    last = dice.xs(regions[-1], level="region")
    shown = dice["mean"].unstack("region").reindex(columns=list(regions))
    shown[[f"{regions[-1]}, low", f"{regions[-1]}, high"]] = last[["low", "high"]]
    shown["patients"] = table.groupby(place)["group"].nunique()
    order = product(table["condition"].unique(), [*labels, UNKNOWN_SIZE])
    shown = shown.loc[[row for row in order if row in shown.index]]
    return shown.set_axis([f"{name}, {size}" for name, size in shown.index])


def size_labels(edges: Sequence[float], unit: str) -> list[str]:
    """Name the subgroups between edges.

    >>> size_labels((40, 70), "mm")
    ['<= 40 mm', '40-70 mm', '> 70 mm']
    """
    between = [f"{a:g}-{b:g} {unit}" for a, b in pairwise(edges)]
    return [f"<= {edges[0]:g} {unit}", *between, f"> {edges[-1]:g} {unit}"]


def dice_scores(scores: pd.DataFrame, region: str) -> pd.DataFrame:
    """Dice of a region in the form that comparisons take, a volume a case."""
    of_region = scores.loc[scores["region"] == region, [*TRAINING, "volume", "group", "dice"]]
    return of_region.rename(columns={"volume": "case", "dice": "f1"}).assign(domain="all")


def _dice_words(volumes: pd.DataFrame, region: str, ranked: bool) -> str:
    """The mean Dice of the conditions; without saying which is highest where not `ranked`."""
    known = region_table(volumes, region)["Dice", "mean"].dropna()
    if known.empty:
        return f"No volume has a Dice of {region}."
    told = f"The mean Dice of {region} over patients is"
    shown = known.map("{:.3f}".format)  # what looks alike is alike
    best, worst = (end(shown, key=float) for end in (max, min))
    highest, lowest = (listed(list(shown.index[shown == end])) for end in (best, worst))
    if len(shown) == 1:
        return f"{told} {best} for {highest}."
    if not ranked:
        return f"{told} {listed([f'{mean} for {name}' for name, mean in shown.items()])}."
    if best == worst:
        return f"{told} alike for {highest}: {best}."
    return f"{told} {best} for {highest}, the highest; the lowest is {worst}, for {lowest}."


def _subgroups(results: Results, volumes: pd.DataFrame, regions: Sequence[str]) -> list[Part]:
    parts: list[Part] = []
    for name, field in results.continuous.items():
        given = given_values(results, name) if name in SIZE_EDGES else []
        if not given:
            continue
        values = volume_values(given[0].cases, name)
        table = subgroup_table(volumes, regions, values, field.unit, SIZE_EDGES[name])
        note = (
            "Mean Dice over patients; low and high: 95 % interval over patients. With few patients "
            "in a row nothing can be said of it."
        )
        if others := other_values(given, name):
            note += f" {others} The volumes are grouped by the values of the latter for all."
        title = f"Dice by {name}"
        parts.append(Table(f"volumes_by_{name}", title, note, table, first="condition, subgroup"))
    return parts


def agreement_parts(scores: pd.DataFrame, volumes: pd.DataFrame, region: str) -> list[Part]:
    """How well predicted volumes of a region agree with true ones, as a figure and as numbers.

    Args:
        scores: volumes of every training, of which bias and limits are: a user has one network,
            and the mean of several errs less.
        volumes: of `averaged`, of which the dots are.
        region: whose volumes are taken.
    """
    sides = ["true_mm3", "pred_mm3"]
    panels, rows = {}, {}
    for name in volumes["condition"].unique():
        part, every = (
            rows[(rows["region"] == region) & (rows["condition"] == name)]
            for rows in (volumes, scores)
        )
        if part.empty:
            continue
        true, pred = ((every[side] / ML).tolist() for side in sides)
        limits = bland_altman(true, pred, every["group"].tolist(), DRAWS)
        dots = [part[side].to_numpy(float) / ML for side in sides]
        panels[name] = Panel(dots[0], dots[1], limits)
        limited = {"lower": "lower limit", "upper": "upper limit"}
        ends = {k: value for k, value in limits._asdict().items() if k not in ("volumes", "groups")}
        rows[name] = {
            **{limited.get(key, key.replace("_", ", ")): value for key, value in ends.items()},
            "volumes": len(part),
            "trainings": len(by_replicate(scores, name)),
        }
    if not rows:
        return []
    shown = sorted(panels, key=lambda name: name.endswith("-dummy"))[:PANELS]
    caption = (
        f"Volume of {region}, predicted minus true, over the mean of both; a dot for each volume, "
        "seeds averaged. Solid: bias, dashed: limits of agreement, between which 95 % of the "
        "differences of a single training are expected, so they are of all trainings' volumes and "
        "wider than the dots where trainings differ; bars on the right: their 95 % intervals, for "
        "which patients are drawn with all their trainings."
    )
    if left := [name for name in panels if name not in shown]:
        caption += f" Not drawn, but among the numbers: {listed(left)}."
    png = agreement({name: panel for name, panel in panels.items() if name in shown})
    numbers = Table(
        "volumes_agreement",
        f"Agreement of volumes of {region} (ml)",
        "Predicted minus true, every volume with every training. bias: mean difference; limits: "
        "bias ± 1.96 standard deviations of the differences; slope: change of the difference with "
        "each ml of the mean of both; each with its 95 % interval, which draws patients with all "
        "their trainings; none below five of them. The limits suppose a slope of 0.",
        rows_of(rows),
        digits=2,
        first="condition",
    )
    return [
        *_slopes({name: panel.limits for name, panel in panels.items()}),
        Figure("volumes_agreement", caption, png),
        Details("Agreement as numbers", [numbers]),
    ]


def _slopes(limits: Mapping[str, Limits]) -> list[str]:
    """Say that the differences of some conditions depend on the size of the volume."""
    told = [
        f"{name} {one.slope:+.2f} [{one.slope_low:+.2f}, {one.slope_high:+.2f}]"
        for name, one in limits.items()
        if one.slope_low > 0 or one.slope_high < 0
    ]
    if not told:
        return []
    return [
        "Predicted minus true changes with the volume, in ml for each ml of the mean of both: "
        f"{', '.join(told)}. There one bias and one pair of limits do not hold for small and large "
        "volumes alike: below 0, large volumes are underestimated more."
    ]


def completeness(volumes: pd.DataFrame) -> str:
    """Say of how many volumes every plane was scored, by every condition that scored them."""
    known = volumes.groupby(["group", "volume"])["complete"].min()
    whole, count = int((known == 1).sum()), len(known)
    every = "the only volume" if count == 1 else f"all {count} volumes"
    if whole == count:
        return f"Every plane of {every} was scored."
    told = (
        f"Every plane was scored of {whole} of {count} volumes; of the others only some were"
        if whole
        else f"Of {every} only some planes were scored"
    )
    return (
        f"{told}, such as those with a mass. Their scores are not those of whole patients: false "
        "findings elsewhere in the body were not looked for."
    )


def how_scored(results: Results, regions: Sequence[str]) -> str:
    """State pixel size and tolerances, and that the scores are not the official ones."""
    known = results.cases[list(SPACING)].dropna()
    where = "pixels of a size that the runs do not tell"
    if len(known):
        rows, columns = (_range(known[f"spacing_{axis}_mm"]) for axis in "yx")
        pixels = rows if rows == columns else f"{rows} by {columns}"
        planes = _range(known["spacing_z_mm"])
        where = f"pixels of {pixels} mm in planes {planes} mm apart, as the network saw them"
    told = f"All scores of volumes are on {where}."
    official = [region for region in regions if region in KITS_REGIONS]
    if official:
        tolerances = [f"{KITS_REGIONS[r]['tolerance_mm']:g} mm for {r}" for r in official]
        told += (
            f" Surface Dice forgives {listed(tolerances)}. They are not the official KiTS scores, "
            'which are made on the files\' own pixels: "python -m metaseg_monai score" makes '
            "those from predicted masks in the geometry of the files."
        )
    if len(official) < len(regions):  # others than KiTS' own
        told += f" Of a class that is scored alone, surface Dice forgives {TOLERANCE_MM:g} mm."
    return told


def _range(values: pd.Series) -> str:
    """One number, or the lowest to the highest."""
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"
