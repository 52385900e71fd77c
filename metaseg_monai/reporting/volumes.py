"""The numbers of whole volumes: seeds averaged within a volume, intervals over groups."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from metaseg_monai.metrics.agreement import Limits, bland_altman
from metaseg_monai.metrics.bootstrap import ratio_interval
from metaseg_monai.metrics.leakage import volume_values
from metaseg_monai.metrics.statistics import bootstrap_interval
from metaseg_monai.metrics.volumes import FOUND_SHARE, KITS_REGIONS
from metaseg_monai.reporting.comparisons import Scores, compare_all
from metaseg_monai.reporting.figures.agreement import Panel, agreement
from metaseg_monai.reporting.page import Details, Figure, Part, Section
from metaseg_monai.reporting.runs import (
    Results,
    cases_of,
    continuous_fields,
    given_values,
    listed,
    other_values,
    volumes_of,
)
from metaseg_monai.reporting.scores import rows_of
from metaseg_monai.reporting.tables import Table
from metaseg_monai.reporting.words import TESTS, compared_row, compared_text
from metaseg_monai.study.design import Protocol

MEASURES = {"dice": "Dice", "surface_dice": "surface Dice", "hd95_mm": "HD95 (mm)"}
SIZE_EDGES: Mapping[str, Sequence[float]] = {
    "tumour_size_mm": (40, 70)  # T1a, T1b and T2 of the TNM stages of renal cancer
}
LESION_RATES = {  # each by its columns
    "found": ("lesions_found", "lesions"),
    "false per volume": ("lesions_false", "volumes"),
    "false ml": ("false_ml", "volumes"),
}
DRAWS = 2000
UNKNOWN_SIZE = "size unknown"
ML = 1000.0  # mm3


def volume_tables(results: Results, mode: str = "normal") -> Scores:
    """The volumes of a test mode, by condition and replicate; only of runs that wrote any."""
    found: dict[str, dict[Any, pd.DataFrame]] = {}
    for name, by_seed in results.conditions.items():
        for key, result in by_seed.items():
            table = volumes_of(result, key)
            if table is not None and (table["mode"] == mode).any():
                found.setdefault(name, {})[key] = table[table["mode"] == mode]
    return found


def averaged(by_seed: Mapping[Any, pd.DataFrame]) -> pd.DataFrame:
    """Mean over seeds of every number of a volume and region; undefined ones are left out.

    Returns:
        A row a volume and region, with a further column ``undefined``: seeds without an HD95.
    """
    names = ["volume", "group", "region"]
    table = pd.concat(by_seed.values())
    table = table.assign(undefined=table["hd95_mm"].isna())
    by_volume = table.groupby(names, sort=False)
    means = by_volume.mean(numeric_only=True)
    return means.assign(undefined=by_volume["undefined"].sum()).reset_index()


def regions_of(tables: Mapping[str, pd.DataFrame]) -> list[str]:
    """The regions of all conditions, the most special of those with the most regions last."""
    told = sorted(([*map(str, t["region"].unique())] for t in tables.values()), key=len)
    rare = [region for regions in told for region in regions if region not in told[-1]]
    return [*dict.fromkeys(rare), *told[-1]]


def mean_over_groups(table: pd.DataFrame, column: str) -> tuple[float, float, float]:
    """Mean over groups of the mean of their volumes, with its 95 % `bootstrap_interval`."""
    means = table.groupby("group")[column].mean().dropna().to_numpy(float)
    if not len(means):
        return (float("nan"),) * 3
    return (float(means.mean()), *bootstrap_interval(means, DRAWS, seed=0))


def region_table(tables: Mapping[str, pd.DataFrame], region: str) -> pd.DataFrame:
    """Overlap and surface scores of a region: conditions x (measure; mean, low, high).

    Args:
        tables: of `averaged`, by condition.
        region: whose rows are taken.
    """
    rows: dict[str, dict[tuple[str, str], Any]] = {}
    for name, table in tables.items():
        part = table[table["region"] == region]
        row: dict[tuple[str, str], Any] = {}
        for column, measure in MEASURES.items():
            ends = mean_over_groups(part, column)
            row |= {(measure, k): v for k, v in zip(("mean", "low", "high"), ends, strict=True)}
        row["HD95 (mm)", "undefined"] = int(part["undefined"].sum())
        row["HD95 (mm)", "patients"] = part.loc[part["hd95_mm"].notna(), "group"].nunique()
        row["n", "volumes"], row["n", "patients"] = len(part), part["group"].nunique()
        rows[name] = row
    return _two_levels(rows)


def lesion_table(tables: Mapping[str, pd.DataFrame], regions: Sequence[str]) -> pd.DataFrame:
    """Lesions found and false ones: (condition, region) x (measure; mean, low, high) and n.

    Means are sums over all volumes, of lesions or of volumes; intervals are over patients. What is
    found rests on the patients with any lesion.
    """
    rows: dict[str, dict[tuple[str, str], Any]] = {}
    for name, table in tables.items():
        for region in regions:
            part = table[table["region"] == region]
            part = part.assign(volumes=1, false_ml=part["false_mm3"] / ML)
            sums = part.groupby("group").sum(numeric_only=True)
            row: dict[tuple[str, str], Any] = {}
            for measure, (column, of) in LESION_RATES.items():
                ends = _rate(sums[column].to_numpy(float), sums[of].to_numpy(float))
                row |= {(measure, k): v for k, v in zip(("mean", "low", "high"), ends, strict=True)}
            row["n", "lesions"] = round(sums["lesions"].sum())
            row["n", "patients with any"] = int((sums["lesions"] > 0).sum())
            row["n", "patients"] = len(sums)
            rows[f"{name}, {region}"] = row
    return _two_levels(rows)


def _rate(parts: np.ndarray, wholes: np.ndarray) -> tuple[float, float, float]:
    """Sum of parts over sum of wholes, one of each group, with its 95 % `ratio_interval`."""
    rate = float(parts.sum() / wholes.sum()) if wholes.any() else float("nan")
    return (rate, *ratio_interval(parts, wholes, DRAWS, seed=0))


def subgroup_table(
    tables: Mapping[str, pd.DataFrame], regions: Sequence[str], values: pd.Series, unit: str,
    edges: Sequence[float],
) -> pd.DataFrame:  # fmt: skip
    """Dice of volumes by the size of a value: (condition, subgroup) x regions and n.

    Args:
        tables: of `averaged`, by condition.
        regions: columns.
        values: value by group and volume; volumes without one are a subgroup of their own.
        unit: of the values.
        edges: ascending; a value equal to an edge belongs below it.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, table in tables.items():
        known = values.reindex(pd.MultiIndex.from_frame(table[["group", "volume"]]))
        within = np.array([size_group(float(v), edges, unit) for v in known])
        for label in (*size_labels(edges, unit), UNKNOWN_SIZE):
            part = table[within == label]
            if part.empty:
                continue
            means = {
                region: mean_over_groups(part[part["region"] == region], "dice")[0]
                for region in regions
            }
            ends = mean_over_groups(part[part["region"] == regions[-1]], "dice")[1:]
            rows[f"{name}, {label}"] = {
                **means,
                f"{regions[-1]}, low": ends[0],
                f"{regions[-1]}, high": ends[1],
                "patients": part["group"].nunique(),
            }
    return rows_of(rows)


def size_labels(edges: Sequence[float], unit: str) -> list[str]:
    """Name the subgroups between edges.

    >>> size_labels((40, 70), "mm")
    ['<= 40 mm', '40-70 mm', '> 70 mm']
    """
    between = [f"{a:g}-{b:g} {unit}" for a, b in pairwise(edges)]
    return [f"<= {edges[0]:g} {unit}", *between, f"> {edges[-1]:g} {unit}"]


def size_group(value: float, edges: Sequence[float], unit: str) -> str:
    """Name the subgroup of a value.

    >>> [size_group(value, (40, 70), "mm") for value in (40.0, 40.1, 71.0, float("nan"))]
    ['<= 40 mm', '40-70 mm', '> 70 mm', 'size unknown']
    """
    if np.isnan(value):
        return UNKNOWN_SIZE
    return size_labels(edges, unit)[int(np.searchsorted(edges, value, side="left"))]


def dice_scores(tables: Scores, region: str) -> Scores:
    """Dice of a region in the form that comparisons take, a volume a case."""
    return {
        name: {
            key: table.loc[table["region"] == region, ["volume", "group", "dice"]]
            .rename(columns={"volume": "case", "dice": "f1"})
            .assign(domain="all")
            for key, table in by_seed.items()
        }
        for name, by_seed in tables.items()
    }


def _two_levels(rows: Mapping[str, Mapping[tuple[str, str], Any]]) -> pd.DataFrame:
    heads = list(next(iter(rows.values())))
    table = rows_of({name: {str(head): row[head] for head in heads} for name, row in rows.items()})
    table.columns = pd.MultiIndex.from_tuples(heads)
    return table


# How well predicted volumes agree with true ones, as a figure and as numbers.

PANELS = 6


def agreement_parts(scores: Scores, tables: Mapping[str, pd.DataFrame], region: str) -> list[Part]:
    """Predicted against true volumes of a region.

    Args:
        scores: volumes of every training, of which bias and limits are: a user has one network,
            and the mean of several errs less.
        tables: of `averaged`, of which the dots are.
        region: whose volumes are taken.
    """
    panels, rows = {}, {}
    sloped: dict[str, Limits] = {}
    for name, table in tables.items():
        part = table[table["region"] == region]
        if part.empty:
            continue
        every = pd.concat(scores[name].values())
        every = every[every["region"] == region]
        true, pred = ((every[f"{side}_mm3"] / ML).tolist() for side in ("true", "pred"))
        limits = bland_altman(true, pred, every["group"].tolist(), DRAWS)
        dots = [part[f"{side}_mm3"].to_numpy(float) / ML for side in ("true", "pred")]
        panels[name] = Panel(dots[0], dots[1], limits)
        if limits.slope_low > 0 or limits.slope_high < 0:
            sloped[name] = limits
        rows[name] = {
            "bias": limits.bias,
            "bias, low": limits.bias_low,
            "bias, high": limits.bias_high,
            "lower limit": limits.lower,
            "lower, low": limits.lower_low,
            "lower, high": limits.lower_high,
            "upper limit": limits.upper,
            "upper, low": limits.upper_low,
            "upper, high": limits.upper_high,
            "slope": limits.slope,
            "slope, low": limits.slope_low,
            "slope, high": limits.slope_high,
            "volumes": len(part),
            "trainings": len(scores[name]),
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
    png = agreement({name: panels[name] for name in panels if name in shown})
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
        *([_slopes(sloped)] if sloped else []),
        Figure("volumes_agreement", caption, png),
        Details("Agreement as numbers", [numbers]),
    ]


def _slopes(sloped: Mapping[str, Limits]) -> str:
    """Say that the differences of some conditions depend on the size of the volume."""
    told = [
        f"{name} {one.slope:+.2f} [{one.slope_low:+.2f}, {one.slope_high:+.2f}]"
        for name, one in sloped.items()
    ]
    return (
        "Predicted minus true changes with the volume, in ml for each ml of the mean of both: "
        f"{', '.join(told)}. There one bias and one pair of limits do not hold for small and large "
        "volumes alike: below 0, large volumes are underestimated more."
    )


# Under what conditions volumes were scored: planes, runs, pixel size and tolerances.


def completeness(tables: Mapping[str, pd.DataFrame]) -> str:
    """Say of how many volumes every plane was scored, by every condition that scored them."""
    known = pd.concat(tables.values()).groupby(["group", "volume"])["complete"].min()
    whole, count = int((known == 1).sum()), len(known)
    volumes = "the only volume" if count == 1 else f"all {count} volumes"
    if whole == count:
        return f"Every plane of {volumes} was scored."
    told = (
        f"Every plane was scored of {whole} of {count} volumes; of the others only some were"
        if whole
        else f"Of {volumes} only some planes were scored"
    )
    return (
        f"{told}, such as those with a mass. Their scores are not those of whole patients: false "
        "findings elsewhere in the body were not looked for."
    )


def lacking(results: Results, scores: Scores) -> str:
    """Name the conditions, or how many of their trainings, that have no scores of volumes."""
    without = [name for name in results.conditions if name not in scores]
    told = [f"No volumes were scored of {listed(without)}."] if without else []
    for name, by_seed in scores.items():
        if len(by_seed) < len(results.conditions[name]):
            told.append(
                f"Of {name} only {len(by_seed)} of {len(results.conditions[name])} trainings have "
                "scores of volumes."
            )
    return " ".join(told)


def how_scored(results: Results, regions: Sequence[str]) -> str:
    """State pixel size and tolerances, and that the scores are not the official ones."""
    spacings = [
        cases[["spacing_z_mm", "spacing_y_mm", "spacing_x_mm"]].dropna()
        for by_seed in results.conditions.values()
        for key, result in by_seed.items()
        if (cases := cases_of(result, key)) is not None
    ]
    known = pd.concat(spacings) if spacings else pd.DataFrame()
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
    return told


def _range(values: pd.Series) -> str:
    """One number, or the lowest to the highest."""
    low, high = f"{values.min():.3g}", f"{values.max():.3g}"
    return low if low == high else f"{low} to {high}"


# What the report says of whole volumes: scores of patients rather than of slices.

ORGANS = ("kidney_and_masses",)  # regions whose components are organs, not lesions


def volume_section(
    results: Results,
    protocol: Protocol,
    edges: Mapping[str, Sequence[float]] = SIZE_EDGES,
    ranked: bool = True,
) -> Section | None:
    """Scores of volumes; None where no run wrote any.

    Args:
        results: of the study.
        protocol: whose comparisons are made on the Dice of the most special region as well.
        edges: of the size subgroups, by field.
        ranked: say which condition is highest and lowest; False where they cannot be compared.
    """
    scores = volume_tables(results)
    if not scores:
        return None
    tables = {name: averaged(by_seed) for name, by_seed in scores.items()}
    regions = regions_of(tables)
    target = regions[-1]
    note = (
        "Dice and surface Dice: 1 where a region is empty in label and prediction, 0 where it is "
        "in one of them, as in the official KiTS scores. HD95: 95 % of the surfaces lie closer "
        "than this; undefined where the region is empty in either, then left out and counted over "
        "all trainings, so read it with the Dice and the number of patients that it is of. Mean "
        "over patients with its 95 % interval over patients, none below five of them; seeds "
        "averaged within a volume."
    )
    about = [completeness(tables), lacking(results, scores), how_scored(results, regions)]
    parts: list[Part] = [*filter(None, about), _words(tables, target, ranked)]
    for region in reversed(regions):
        title, stem = f"Whole volumes: {region}", re.sub(r"[^A-Za-z0-9._-]", "_", region)
        told = note if region == target else "As above."
        of_region = region_table(tables, region)
        parts.append(Table(f"volumes_{stem}", title, told, of_region, first="condition"))
    parts += _compared(results, protocol, scores, target)
    lesions = [region for region in regions if region not in ORGANS]
    if lesions:
        note = (
            "found: share of the true lesions, pooled over all volumes, of whose voxels at least "
            f"{100 * FOUND_SHARE:g} % were predicted, of the patients with any; false per volume: "
            "predicted lesions that touch no true one; false ml: mean volume predicted on planes "
            "whose label has none of the region. low and high: 95 % interval, for which patients "
            "are drawn with all their volumes; none below five of them. Seeds averaged within a "
            "volume."
        )
        of_lesions = lesion_table(tables, lesions)
        parts.append(
            Table("volumes_lesions", "Lesions", note, of_lesions, first="condition, region")
        )
    parts += _subgroups(results, tables, regions, edges)
    parts += agreement_parts(scores, tables, target)
    intro = "Slices stacked back into volumes and scored for each patient."
    return Section("Whole volumes", intro, parts)


def _words(tables: Mapping[str, pd.DataFrame], region: str, ranked: bool) -> str:
    """The mean Dice of the conditions; without saying which is highest where not `ranked`."""
    means = {
        name: mean_over_groups(table[table["region"] == region], "dice")[0]
        for name, table in tables.items()
    }
    known = {name: mean for name, mean in means.items() if not math.isnan(mean)}
    if not known:
        return f"No volume has a Dice of {region}."
    told = f"The mean Dice of {region} over patients is"
    shown = {name: f"{mean:.3f}" for name, mean in known.items()}  # what looks alike is alike
    best, worst = (end(shown.values(), key=float) for end in (max, min))
    highest, lowest = (
        listed([name for name, mean in shown.items() if mean == end]) for end in (best, worst)
    )
    if len(shown) == 1:
        return f"{told} {best} for {highest}."
    if not ranked:
        return f"{told} {listed([f'{mean} for {name}' for name, mean in shown.items()])}."
    if best == worst:
        return f"{told} alike for {highest}: {best}."
    return f"{told} {best} for {highest}, the highest; the lowest is {worst}, for {lowest}."


def _compared(results: Results, protocol: Protocol, scores: Scores, region: str) -> list[Part]:
    """The planned comparisons, on the Dice of volumes."""
    if not protocol.comparisons:
        return []
    everywhere = protocol.model_copy(update={"domain": None})
    made, not_made = compare_all(results, everywhere, dice_scores(scores, region))
    parts: list[Part] = []
    if made:
        rows = {one.name: compared_row(one, "volumes", "patients") for one in made}
        note = (
            "Secondary to the planned comparisons above: the same pairs and test "
            f"({TESTS[protocol.test]}, corrected by Holm for {len(protocol.comparisons)} within "
            f"this table), with the Dice of {region} of each volume. Difference: first minus "
            "second, seeds averaged within a volume, volumes within a patient; 95 % interval over "
            "patients."
        )
        title = f"Planned comparisons on the Dice of {region}"
        score = f"Dice of {region} of whole volumes"
        parts.append(" ".join(compared_text(one, everywhere, score) for one in made))
        table = rows_of(rows)
        parts.append(Table("volumes_comparisons", title, note, table, first="comparison"))
    parts += [f"Planned but not made on volumes: {name} ({why})" for name, why in not_made.items()]
    return parts


def _subgroups(
    results: Results,
    tables: Mapping[str, pd.DataFrame],
    regions: Sequence[str],
    edges: Mapping[str, Sequence[float]],
) -> list[Part]:
    parts: list[Part] = []
    for name, field in continuous_fields(results).items():
        given = given_values(results, name) if name in edges else []
        if not given:
            continue
        values = volume_values(given[0].cases, name)
        table = subgroup_table(tables, regions, values, field.unit, edges[name])
        note = (
            "Mean Dice over patients; low and high: 95 % interval over patients. With few patients "
            "in a row nothing can be said of it."
        )
        if others := other_values(given, name):
            note += f" {others} The volumes are grouped by the values of the latter for all."
        title = f"Dice by {name}"
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", f"volumes_by_{name}")
        parts.append(Table(stem, title, note, table, first="condition, subgroup"))
    return parts
