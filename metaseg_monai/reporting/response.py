"""What a network makes of the same image when a continuous value is set to each of a range.

Pure functions from the counts of the modes ``fixed:<field>=<value>`` (paper figure 2A).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import read_calibration, read_cases
from metaseg_monai.evaluation.per_case import PLACE, SPACING
from metaseg_monai.evaluation.samples import Sample, read_samples
from metaseg_monai.metadata.fields import Categorical, Continuous, Ordinal, read_number
from metaseg_monai.metrics.leakage import spearman
from metaseg_monai.metrics.statistics import bootstrap_interval
from metaseg_monai.reporting.figures.by_value import value_curves
from metaseg_monai.reporting.figures.montage import montage
from metaseg_monai.reporting.figures.requested import requested_labels
from metaseg_monai.reporting.figures.sweep import Response, response_curves
from metaseg_monai.reporting.page import Details, Figure, Part, Section
from metaseg_monai.reporting.runs import (
    CASES,
    Given,
    PixelSizes,
    Replicate,
    Result,
    Results,
    cases_of,
    class_names,
    class_text,
    continuous_fields,
    fields_of,
    given_values,
    listed,
    other_values,
    pixel_sizes,
    reads_metadata,
)
from metaseg_monai.reporting.scores import Spread, over_seeds, rows_of
from metaseg_monai.reporting.tables import Table
from metaseg_monai.reporting.volumes import ML

TOLERANCE = 0.02  # of a case's largest area; what a contour may shake without meaning it


class Monotonicity(NamedTuple):
    """How areas follow a growing value, over the cases whose label holds a class.

    Attributes:
        not_shrinking: mean share of the steps, from one value to the next, without a smaller area;
            of the cases with a predicted pixel at any value.
        spearman: mean over cases of the rank correlation of area and value; a case whose area
            never changes has none.
        monotone: share of cases that grow, by more than 2 % of their largest area from the lowest
            to the highest value, without a step that shrinks by more than that. One in which the
            class is never predicted does not grow.
        flat: share of cases whose area never changes by more than 2 % of the largest, among them
            those in which the class is never predicted.
        cases: whose label holds the class.
        empty: those of them without a predicted pixel at any value.
    """

    not_shrinking: float
    spearman: float
    monotone: float
    flat: float
    cases: int
    empty: int


def sweep_modes(counts: pd.DataFrame, field: str) -> dict[float, str]:
    """The modes that fix a field to a number, by that number, ascending.

    >>> table = pd.DataFrame({"mode": ["normal", "fixed:size=40", "fixed:size=7", "fixed:red"]})
    >>> sweep_modes(table, "size")
    {7.0: 'fixed:size=7', 40.0: 'fixed:size=40'}
    """
    start = f"fixed:{field}="
    found = {}
    for mode in map(str, counts["mode"].unique()):
        value = read_number(mode.removeprefix(start)) if mode.startswith(start) else None
        if value is not None:
            found[value] = mode
    return dict(sorted(found.items()))


def sweep_areas(
    counts: pd.DataFrame, field: str, pixel_mm2: pd.Series | None = None
) -> pd.DataFrame:
    """Predicted area (tp + fp) of each case and class at each value of a field.

    Args:
        counts: counts of one model and one training seed.
        field: name of a continuous field.
        pixel_mm2: area of a pixel by case; None measures in pixels.

    Returns:
        Columns ``case, group, class, value, area, label``, values ascending within a case and
        class; label is the true area.

    Raises:
        DataError: there are fewer than two values, or they were counted on different cases.
    """
    values = {mode: value for value, mode in sweep_modes(counts, field).items()}
    if len(values) < 2:
        raise DataError(
            f"A response to {field} needs two modes fixed:{field}=<value> or more; evaluate with "
            "them."
        )
    rows = counts[counts["mode"].isin(values)]
    scale = 1.0 if pixel_mm2 is None else rows["case"].map(pixel_mm2)
    table = pd.DataFrame(
        {
            "case": rows["case"],
            "group": rows["group"],
            "class": rows["class"],
            "value": rows["mode"].map(values),
            "area": (rows["tp"] + rows["fp"]) * scale,
            "label": (rows["tp"] + rows["fn"]) * scale,
        }
    )
    sizes = table.groupby(["case", "class"])["value"].agg(["size", "nunique"])
    if not (sizes == len(values)).all(axis=None):
        case = sizes.index[(sizes != len(values)).any(axis=1)][0][0]
        raise DataError(
            f"Case {case} was not counted once at each value of {field}; evaluate all in one run."
        )
    return table.sort_values(["case", "class", "value"], ignore_index=True)


def response_curve(of_seeds: Sequence[pd.DataFrame], draws: int = 2000) -> pd.DataFrame:
    """Mean area at each value, seeds averaged within a case and cases within their group.

    Args:
        of_seeds: table of `sweep_areas` of each training seed.
        draws: bootstrap samples, which draw groups.

    Returns:
        Columns ``class, value, area, low, high, groups``; low and high are the ends of the 95 %
        `bootstrap_interval`.
    """
    by_case = pd.concat(of_seeds).groupby(["class", "value", "group", "case"])["area"].mean()
    by_group = by_case.groupby(level=["class", "value", "group"]).mean()
    table = by_group.unstack("group")
    rows = []
    for (number, value), areas in zip(table.index.tolist(), table.to_numpy(float), strict=True):
        known = areas[~np.isnan(areas)]
        low, high = bootstrap_interval(known, draws, seed=0)
        rows.append((number, value, float(known.mean()), low, high, len(known)))
    return pd.DataFrame(rows, columns=["class", "value", "area", "low", "high", "groups"])


def monotonicity(areas: pd.DataFrame) -> dict[int, Monotonicity]:
    """Tell how the areas of each class follow the value, see `Monotonicity`.

    Args:
        areas: table of `sweep_areas`.
    """
    found = {}
    for number, of_class in areas.groupby("class"):
        held = of_class[of_class["label"] > 0]
        table = held.pivot(index="case", columns="value", values="area").sort_index(axis=1)
        found[int(str(number))] = _of_cases(table.to_numpy(float), table.columns.to_numpy(float))
    return found


def _of_cases(areas: np.ndarray, values: np.ndarray) -> Monotonicity:
    """Summarise areas (cases, values)."""
    nan = float("nan")
    if not len(areas):
        return Monotonicity(nan, nan, nan, nan, 0, 0)
    predicted = areas.max(axis=1) > 0
    steps = np.diff(areas, axis=1)
    allowed = TOLERANCE * areas.max(axis=1)
    grown = areas[:, -1] - areas[:, 0] > allowed
    monotone = grown & (steps >= -allowed[:, None]).all(axis=1)
    ranks = [spearman(values, row) for row in areas]
    known = [rank for rank in ranks if not np.isnan(rank)]
    return Monotonicity(
        float((steps[predicted] >= 0).mean()) if predicted.any() else nan,
        float(np.mean(known)) if known else nan,
        float(monotone.mean()),
        float((np.ptp(areas, axis=1) <= allowed).mean()),
        len(areas),
        int((~predicted).sum()),
    )


# What the runs say of a network that is asked with one value after the other, as tables.

UNITS: Mapping[int, str] = {0: "pixels", 2: "mm²", 3: "ml"}  # by the axes of a case, 0: unknown


class Swept(NamedTuple):
    """What was counted: areas by condition and replicate, counts with true metadata, and the unit.

    The areas of whole volumes, as 3D networks have them, are their volumes. Counts have a further
    column ``scale``, the area (volume) of a pixel in that unit. ``unasked``: conditions that read
    metadata, but were given no other value than their own; they are not among the counts, because
    nobody knows whether they are flat.
    """

    areas: dict[str, dict[Replicate, pd.DataFrame]]
    normal: dict[str, pd.DataFrame]
    unit: str
    unasked: list[str]

    @property
    def what(self) -> str:
        """What is measured: the area or the volume of a class."""
        return "volume" if self.unit == UNITS[3] else "area"


def swept_areas(results: Results, field: Continuous) -> Swept:
    """Areas in mm2, volumes in ml; in pixels unless every case has a spacing and all are alike."""
    places = [(n, key, r) for n, rs in results.conditions.items() for key, r in rs.items()]
    sizes = [pixel_sizes(cases_of(r, key), r.counts) for _, key, r in places]
    dims = {0 if size is None else size.dims for size in sizes}
    unit = UNITS[dims.pop() if len(dims) == 1 else 0]
    scales = [_scale(size, unit) for size in sizes]
    areas: dict[str, dict[Replicate, pd.DataFrame]] = {}
    normal: dict[str, list[pd.DataFrame]] = {}
    for (name, key, result), scale in zip(places, scales, strict=True):
        if len(sweep_modes(result.counts, field.name)) > 1:
            table = sweep_areas(result.counts, field.name, scale)
            areas.setdefault(name, {})[key] = table
        rows = result.in_mode("normal")
        used = 1.0 if scale is None else rows["case"].map(scale)
        normal.setdefault(name, []).append(rows.assign(scale=used))
    unasked = [name for name in normal if name not in areas and reads_metadata(results, name)]
    joined = {
        name: pd.concat(tables, ignore_index=True)
        for name, tables in normal.items()
        if name not in unasked
    }
    return Swept(areas, joined, unit, unasked)


def _scale(size: PixelSizes | None, unit: str) -> pd.Series | None:
    """What a pixel of each case measures in a unit; None where the unit is the pixel."""
    if size is None or unit == UNITS[0]:
        return None
    return size.of_case / ML if unit == UNITS[3] else size.of_case


def responses(
    swept: Swept, curves: Mapping[str, pd.DataFrame], names: Mapping[int, str]
) -> dict[str, Response]:
    """What is drawn, by class."""
    first = next(iter(swept.normal.values()))
    return {
        class_text(names, number): Response(
            {name: curve[curve["class"] == number] for name, curve in curves.items()},
            {
                name: _group_mean(rows, "tp", "fp", number)
                for name, rows in swept.normal.items()
                if name not in curves
            },
            _group_mean(first, "tp", "fn", number),
        )
        for number in sorted(first["class"].unique())
    }


def _group_mean(rows: pd.DataFrame, one: str, other: str, number: int) -> float:
    """Mean over groups of the mean area of their cases, all seeds alike."""
    chosen = rows[rows["class"] == number]
    areas = (chosen[one] + chosen[other]) * chosen["scale"]
    return float(areas.groupby(chosen["group"]).mean().mean())


def monotone_table(swept: Swept, names: Mapping[int, str]) -> tuple[Spread, pd.Series]:
    """How the areas of each condition and class follow the value, and the number of cases.

    The cases are those of all data whose label holds the class.
    """
    spreads, cases = [], {}
    for name, of_seeds in swept.areas.items():
        found = {key: monotonicity(areas) for key, areas in of_seeds.items()}
        spreads.append(over_seeds({key: _rows(name, one, names) for key, one in found.items()}))
        held = pd.concat(of_seeds.values()).query("label > 0").groupby("class")["case"].nunique()
        for number in next(iter(found.values())):
            cases[f"{name}, {class_text(names, number)}"] = int(held.get(number, 0))
    mean, half_range = (pd.concat(frames) for frames in zip(*spreads, strict=True))
    return Spread(mean, half_range), pd.Series(cases)


def _rows(name: str, found: Mapping[int, Monotonicity], names: Mapping[int, str]) -> pd.DataFrame:
    return rows_of(
        {
            f"{name}, {class_text(names, number)}": {
                "monotone": one.monotone,
                "flat": one.flat,
                "steps": one.not_shrinking,
                "Spearman": one.spearman,
                "never predicted": one.empty / one.cases if one.cases else float("nan"),
            }
            for number, one in found.items()
        }
    )


# The same slices under several values of a field, with the contours of what was predicted.

SHOWN_CASES, SHOWN_VALUES, SHOWN_CONDITIONS = 5, 9, 3
T = TypeVar("T")


def montages(
    results: Results,
    field: Continuous,
    stem: str,
    classes: Mapping[int, str],
    trained: tuple[float, float] | None = None,
) -> list[Figure]:
    """Contours of the first training of the conditions that respond, dummies last.

    Args:
        results: of the study.
        field: whose value is asked.
        stem: of the files' names.
        classes: names of the label's classes.
        trained: lowest and highest value of the training cases; values beyond them are marked.
    """
    drawn: list[Figure] = []
    names = sorted(results.conditions, key=lambda name: name.endswith("-dummy"))
    for name in names:
        result = next(iter(results.conditions[name].values()))
        modes = sweep_modes(result.counts, field.name)
        path = result.folder / "samples.npz"
        if len(modes) < 2 or not path.is_file() or len(drawn) == SHOWN_CONDITIONS:
            continue
        wanted = _spread_out(list(modes), SHOWN_VALUES)
        samples = [s for s in read_samples(path) if any(modes[v] in s.preds for v in wanted)]
        if not samples:
            continue
        own = _own_values(result.folder / CASES, samples, field)
        samples = _spread_out(sorted(samples, key=lambda s: own.get(s.case, np.inf)), SHOWN_CASES)
        titles = [_title(sample.case, own.get(sample.case), field) for sample in samples]
        heads = {_head(value, field): modes[value] for value in wanted}
        low, high = trained or (-np.inf, np.inf)
        beyond = [_head(value, field) for value in wanted if not low <= value <= high]
        caption = (
            f"{name}, first training: the same slices, asked with each {field.name} in turn. "
            "Colour: prediction, dashed white: label; the case's own value stands on its left."
        )
        if beyond:
            caption += f" Hollow dot: beyond the training values, {low:g} to {high:g} {field.unit}."
        png = montage(samples, heads, titles, classes, beyond)
        drawn.append(Figure(f"montage_{stem}_{name}", caption, png))
    return drawn


def _own_values(path: Path, samples: Sequence[Sample], field: Continuous) -> dict[str, float]:
    """What the cases of samples have in a field, where that is known."""
    if not path.is_file():
        return {}
    cases = read_cases(path)
    if field.name not in cases:
        return {}
    values = dict(zip(cases["case"], cases[field.name].map(read_number), strict=True))
    return {
        sample.case: float(values[sample.case])
        for sample in samples
        if pd.notna(values.get(sample.case))
    }


def _head(value: float, field: Continuous) -> str:
    return f"{value:g} {field.unit}"


def _title(case: str, own: float | None, field: Continuous) -> str:
    return f"{case}\n" + ("own value unknown" if own is None else f"own: {own:g} {field.unit}")


def _spread_out(values: Sequence[T], most: int) -> list[T]:
    """At most so many of the values, evenly chosen, with both ends.

    >>> _spread_out([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    if len(values) <= most:
        return list(values)
    return [values[place] for place in np.linspace(0, len(values) - 1, most).round().astype(int)]


# How predictions follow a continuous value: curves, how monotone they are, and contours.

FOLLOWS = 0.8  # share of the cases with the class; from which a network follows the value


def response_section(results: Results) -> Section | None:
    """What is predicted when a continuous value is set to each of a range (paper figure 2A)."""
    parts: list[Part] = []
    for field in continuous_fields(results).values():
        parts += _of_field(results, field)
    if not parts:
        return None
    intro = (
        "The same images, each given one value after the other in place of its own. A network that "
        "uses the value predicts more where the value is larger; one that does not stays flat."
    )
    return Section("Response to a continuous value", intro, parts)


def _of_field(results: Results, field: Continuous) -> list[Part]:
    swept, names = swept_areas(results, field), class_names(results)
    if not swept.areas:
        return []
    curves = {name: response_curve(list(tables.values())) for name, tables in swept.areas.items()}
    given = given_values(results, field.name, list(swept.areas))
    trained = _trained(given, field)
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", field.name)
    spread, cases = monotone_table(swept, names)
    values = spread.mean.assign(cases=cases)
    png = response_curves(
        responses(swept, curves, names),
        f"{field.name} ({field.unit})",
        swept.unit,
        trained,
        field.scale != "linear",
        swept.what,
    )
    caption = (
        f"Predicted {swept.what} over the {field.name} that is given; mean over groups with its "
        "95 % interval over groups, seeds averaged within a case. Level lines: networks that read "
        "no metadata."
    )
    if swept.unasked:
        caption += f" Not drawn, because asked with no other value: {listed(swept.unasked)}."
    if trained is not None:
        caption += (
            f" Training values: {trained[0]:g} to {trained[1]:g} {field.unit}; points beyond them "
            "are hollow and their ground is shaded: there a network guesses."
        )
        if others := other_values(given, field.name):
            caption += f" {others} The training values are those of {listed(given[0].conditions)}."
    note = (
        "Of the cases whose label holds the class, which the column cases counts. monotone: share "
        f"whose {swept.what} grows from the lowest to the highest value and which no step shrinks, "
        f"each by more than {100 * TOLERANCE:g} % of the case's largest; flat: share in which it "
        "never changes by more than that; never predicted: share without a pixel of the class at "
        "any value, which is flat and not monotone. Of the others: steps: share of all steps that "
        "do not shrink it; Spearman: mean of the cases' rank correlations with the value. Mean "
        "over trainings, ± half the distance between the lowest and the highest."
    )
    title = f"Does the {swept.what} grow with {field.name}?"
    return [
        _words(values, field, list(swept.areas)),
        Figure(f"response_{stem}", caption, png),
        Table(
            f"monotone_{stem}",
            title,
            note,
            values,
            spread.half_range.assign(cases=float("nan")),
            first="condition, class",
        ),
        *montages(results, field, stem, names, trained),
        Details(
            "Response as numbers",
            [
                _numbers(number, names, curves, trained, field, swept, f"response_{stem}")
                for number in sorted({int(n) for c in curves.values() for n in c["class"]})
            ],
        ),
    ]


def _trained(given: Sequence[Given], field: Continuous) -> tuple[float, float] | None:
    """Lowest and highest value of the training cases of the most conditions; None if unknown."""
    if not given:
        return None
    cases = given[0].cases
    values = cases.loc[cases["split"] == "train", field.name].map(read_number).dropna()
    return (float(values.min()), float(values.max())) if len(values) else None


def _words(values: pd.DataFrame, field: Continuous, names: Sequence[str]) -> str:
    """Say of each condition which class follows the value, and in how many of its cases."""
    told = []
    for name in names:
        rows = values[[str(row).startswith(f"{name}, ") for row in values.index]]
        share = rows["monotone"].dropna()
        if share.empty:
            told.append(f"No label holds a class, so {name} has nothing to follow.")
            continue
        if rows["never predicted"].min() == 1:
            told.append(f"{name} predicts nothing at any value.")
            continue
        best, most = str(share.idxmax()), float(share.max())
        grows = (
            f"{best.removeprefix(name + ', ')} grows with {field.name} in {100 * most:.0f} % of "
            f"the {int(rows['cases'].loc[best])} cases whose label holds it"
        )
        if most >= FOLLOWS:
            told.append(f"{name} follows {field.name}: {grows}.")
        elif rows["flat"].min() >= 1 - TOLERANCE:
            told.append(f"{name} does not respond to {field.name}.")
        else:
            told.append(f"{name} does not follow {field.name} reliably: {grows}.")
    return " ".join(told)


def _numbers(
    number: int,
    names: Mapping[int, str],
    curves: Mapping[str, pd.DataFrame],
    trained: tuple[float, float] | None,
    field: Continuous,
    swept: Swept,
    stem: str,
) -> Table:
    """The curves of a class: values x (condition; mean, low, high)."""
    columns: dict[tuple[str, str], pd.Series] = {}
    for name, curve in curves.items():
        part = curve[curve["class"] == number].set_index("value")
        for column, head in (("area", "mean"), ("low", "low"), ("high", "high")):
            columns[name, head] = part[column]
    table = pd.DataFrame(columns)
    if trained is not None:
        table["training", "holds it"] = table.index.to_series().between(*trained)
    table.index = pd.Index([f"{value:g}" for value in table.index])
    return Table(
        f"{stem}_class{number}",
        f"{swept.what.capitalize()} of {class_text(names, number)} ({swept.unit}) at each "
        f"{field.name}",
        "Mean over groups with the ends of its 95 % interval.",
        table,
        digits=1,
        first=f"{field.name} ({field.unit})",
    )


# What a network makes of the same images when it is asked for one label after the other.

OWN = "own value"  # what mode normal is called beside requested values
QUANTITIES = ("area", "inside", "outside")


def requested_modes(modes: Sequence[str], field: str, values: Sequence[str]) -> dict[str, str]:
    """The modes that ask for a label of a field, by mode, after that of the own label.

    >>> requested_modes(["normal", "zeros", "fixed:coarse"], "style", ["exact", "coarse"])
    {'normal': 'own value', 'fixed:coarse': 'coarse'}
    """
    found = {"normal": OWN}
    for value in values:
        found |= {m: value for m in (f"fixed:{value}", f"fixed:{field}={value}") if m in modes}
    return found


def by_group(
    counts: pd.DataFrame, bins: pd.DataFrame | None, modes: Mapping[str, str]
) -> pd.DataFrame:
    """Area and probability of each group of one trained network, its cases' pixels pooled.

    Args:
        counts: of the network.
        bins: its calibration bins of all modes; None where it wrote none.
        modes: what is asked for, by mode.

    Returns:
        Index (class, asked, group); columns ``area`` (predicted area over that of the labels),
        ``inside`` and ``outside`` (mean probability of the class in and out of the labels, 0..1).
        NaN where no label of the group holds the class, and of probabilities that were not kept.
    """
    index = ["class", "asked", "group"]
    asked = counts.assign(asked=counts["mode"].map(modes)).dropna(subset="asked")
    sums = asked.groupby(index)[["tp", "fp", "fn"]].sum()
    true = (sums["tp"] + sums["fn"]).astype(float).replace(0.0, np.nan)
    table = pd.DataFrame({"area": (sums["tp"] + sums["fp"]) / true})
    table[["inside", "outside"]] = np.nan
    if bins is not None:
        of_bins = bins.assign(asked=bins["mode"].map(modes)).dropna(subset="asked")
        columns = ["pixels", "confidence", "positives", "inside"]
        found = of_bins.groupby(index)[columns].sum(min_count=1).reindex(table.index)
        known = true.notna()
        table["inside"] = (found["inside"] / found["positives"])[known]
        rest = (found["pixels"] - found["positives"]).replace(0.0, np.nan)
        table["outside"] = ((found["confidence"] - found["inside"]) / rest)[known]
    return table


def summarise_requested(of_seeds: Sequence[pd.DataFrame], draws: int = 2000) -> pd.DataFrame:
    """Mean over groups, seeds averaged within each group before, with its interval.

    Args:
        of_seeds: table of `by_group` of each training.
        draws: bootstrap samples, which draw groups.

    Returns:
        Index (class, asked) in the order of the tables; columns (quantity; ``mean``, ``low``,
        ``high``, ``groups``): low and high are the ends of the 95 % `bootstrap_interval`.
    """
    groups = pd.concat(of_seeds).groupby(level=["class", "asked", "group"], sort=False).mean()
    rows = {}
    for place, of_place in groups.groupby(level=["class", "asked"], sort=False):
        row: dict[tuple[str, str], float] = {}
        for quantity in QUANTITIES:
            values = of_place[quantity].dropna().to_numpy(float)
            low, high = bootstrap_interval(values, draws, seed=0)
            row[quantity, "mean"] = float(values.mean()) if len(values) else float("nan")
            row[quantity, "low"], row[quantity, "high"] = low, high
            row[quantity, "groups"] = len(values)
        rows[place] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(list(rows), names=["class", "asked"])
    table.columns = pd.MultiIndex.from_tuples(list(next(iter(rows.values()))))
    return table


# What a requested label draws: how large the masks are and how sure the network is.

LITTLE = 0.01  # of the true area; what a mask may shake without meaning it


def requested_section(results: Results) -> Section | None:
    """What each label of each field draws; None where no condition was asked for any."""
    parts: list[Part] = []
    for field in fields_of(results).values():
        if isinstance(field, Categorical | Ordinal):
            parts += _of_field_requested_section(results, field)
    if not parts:
        return None
    intro = (
        "The same images, each asked with one label after the other in place of its own. A network "
        "that learned a style with its label draws as large, and is as sure, as that style was "
        "(paper 3.2)."
    )
    return Section("What a requested label draws", intro, parts)


def _of_field_requested_section(results: Results, field: Categorical | Ordinal) -> list[Part]:
    found, unasked = _summaries(results, field)
    if not found:
        return []
    if all(len(table.index.unique("asked")) < 2 for table in found.values()):
        return []
    names, parts = class_names(results), list[Part]()
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", field.name)
    known = [table["area", "mean"].dropna() for table in found.values()]  # held by some label
    numbers = sorted({int(n) for areas in known for n in areas.index.unique("class")})
    labels = [OWN, *(str(value) for value in field.values)]
    for number in numbers:
        of_class = {name: _ordered(table, number, labels) for name, table in found.items()}
        told = class_text(names, number) if len(numbers) > 1 else ""
        of, end = (f" of {told}", f"_class{number}") if told else ("", "")
        asked = [one for one in labels if any(one in table.index for table in of_class.values())]
        if words := _words_requested_section(of_class, field.name):
            parts.append(f"{told}: {words}" if told else words)
        caption = (
            f"Masks{of} for each {field.name} that is asked for; mean over groups with its 95 % "
            "interval over groups, seeds averaged before. Dotted: as large as the labels. The "
            "labels are those of the cases themselves, whatever is asked for. Level lines: "
            "networks that read no metadata."
        )
        if unasked:
            caption += f" Not drawn, because asked with no other label: {listed(unasked)}."
        png = requested_labels(of_class, asked, told)
        parts.append(Figure(f"requested_{stem}{end}", caption, png))
        parts.append(_table(of_class, f"requested_{stem}{end}", f"Masks{of} by {field.name}"))
    return parts


def _summaries(
    results: Results, field: Categorical | Ordinal
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Table of each condition, and the conditions with metadata that were asked with none."""
    found, unasked = {}, []
    for name, by_seed in results.conditions.items():
        tables = []
        for result in by_seed.values():
            present = [str(mode) for mode in result.counts["mode"].unique()]
            modes = requested_modes(present, field.name, [str(value) for value in field.values])
            tables.append(by_group(result.counts, _bins(result), modes))
        table = summarise_requested(tables)
        if len(table.index.unique("asked")) < 2 and reads_metadata(results, name):
            unasked.append(name)
        else:
            found[name] = table
    return found, unasked


def _ordered(table: pd.DataFrame, number: int, labels: Sequence[str]) -> pd.DataFrame:
    """The rows of a class in the order of the labels."""
    asked = [label for label in labels if (number, label) in table.index]
    rows = table.loc[[(number, label) for label in asked]]
    return rows.set_index(pd.Index(asked))


def _bins(result: Result) -> pd.DataFrame | None:
    """Bins of all modes; of experts, each on the domain that it was trained on."""
    tables = []
    for domain, folder in result.folders.items():
        if (folder / "calibration.csv").is_file():
            table = read_calibration(folder / "calibration.csv", mode=None)
            tables.append(table[table["domain"] == domain] if domain else table)
    return pd.concat(tables, ignore_index=True) if len(tables) == len(result.folders) else None


def _words_requested_section(of_class: Mapping[str, pd.DataFrame], field: str) -> str:
    """Say for which label each condition draws least and most."""
    told = []
    for name, table in of_class.items():
        asked = table.drop(index=OWN, errors="ignore")
        areas = asked["area", "mean"].dropna()
        if len(areas) < 2:
            continue
        if areas.max() - areas.min() <= LITTLE:
            told.append(f"{name} draws as much for every {field}.")
            continue
        ends = [
            f"{label} ({float(areas[label]):.2f} of the labels' area{_sure(asked, label)})"
            for label in (str(areas.idxmin()), str(areas.idxmax()))
        ]
        told.append(f"{name} draws least for {ends[0]} and most for {ends[1]}.")
    return " ".join(told)


def _sure(asked: pd.DataFrame, label: str) -> str:
    probability = float(asked["inside", "mean"][label])
    return "" if pd.isna(probability) else f", probability {probability:.2f}"


def _table(of_class: Mapping[str, pd.DataFrame], stem: str, title: str) -> Table:
    rows = {
        f"{name}, {label}": {
            ("groups", ""): int(table["area", "groups"][label]),
            **{
                (quantity, end): table[quantity, end][label]
                for quantity in QUANTITIES
                for end in ("mean", "low", "high")
            },
        }
        for name, table in of_class.items()
        for label in table.index
    }
    values = pd.DataFrame(list(rows.values()), index=list(rows))
    values.columns = pd.MultiIndex.from_tuples(list(next(iter(rows.values()))))
    note = (
        "area: predicted area over that of the labels; inside, outside: mean probability of the "
        "class in and out of the labels. Mean over groups with the ends of its 95 % interval. -: "
        "not recorded, or fewer than five groups."
    )
    return Table(stem, title, note, values, first="condition, asked for")


# What networks do at values that no training case had: between those it had, and beyond.

MOST_VALUES = 12  # of more distinct values hardly any is met twice: a continuum, see sweep_section
DRAWS = 2000


class Values(NamedTuple):
    """The true value of each case, and which there are.

    Attributes:
        of_case: value by tested case.
        trained: number of training cases by value, ascending.
        unseen: values of tested cases that no training case has, ascending.
    """

    of_case: Mapping[str, float]
    trained: Mapping[float, int]
    unseen: list[float]


def encoding_section(results: Results, score: str = "F1") -> Section | None:
    """F1 at each value of a number with values that were not trained; None where there is none.

    Args:
        results: of the class that the protocol is about.
        score: how its F1 is called.
    """
    parts: list[Part] = []
    for field in _numbers_told(results):
        values = unseen_values(results, field)
        if values is not None:
            parts += _of_field_encoding_section(results, field, values, score)
    if not parts:
        return None
    intro = (
        "Cases by their true value of a number. Some of these values no training case had: a "
        "network can only guess there, from how the value is encoded and from the image."
    )
    return Section("Values that were not trained", intro, parts)


def unseen_values(results: Results, field: str) -> Values | None:
    """The true values of a field, if it is a number of few values and some were not trained.

    Conditions may have been told the nearest trained value in place of the true one, where their
    code has no other. What any condition was told of unseen values is true for all.
    """
    tested = {
        case
        for by_seed in results.conditions.values()
        for result in by_seed.values()
        for case in result.in_mode("normal")["case"]
    }
    for given in given_values(results, field):
        numbers = given.cases[field].map(read_number)
        told = given.cases[field].str.strip() != ""
        train = told & (given.cases["split"] == "train")
        if numbers[told].isna().any() or not train.any():
            continue
        test = told & given.cases["case"].isin(tested)
        trained = numbers[train].astype(float).value_counts().sort_index()
        unseen = sorted(set(numbers[test].astype(float)) - set(trained.index))
        if unseen and len(trained) + len(unseen) <= MOST_VALUES:
            of_case = dict(zip(given.cases["case"][test], numbers[test].astype(float), strict=True))
            counts = {float(value): int(n) for value, n in trained.items()}  # type: ignore[arg-type]
            return Values(of_case, counts, unseen)
    return None


def curve_by_value(cases: pd.DataFrame, values: Values, column: str = "f1") -> pd.DataFrame:
    """Mean at each value, cases within their group first.

    Args:
        cases: ``case, group`` and the averaged column; NaN (empty cases) are left out.
        values: of the cases; others are left out.
        column: what is averaged.

    Returns:
        ``value, score, low, high, cases, groups``, values ascending; low and high are the ends of
        the 95 % `bootstrap_interval` over groups.
    """
    known = cases.assign(value=cases["case"].map(values.of_case)).dropna(subset=["value", column])
    rows = []
    for value, part in known.groupby("value"):
        groups = part.groupby("group")[column].mean().to_numpy(float)
        low, high = bootstrap_interval(groups, DRAWS, seed=0)
        rows.append((value, float(groups.mean()), low, high, len(part), len(groups)))
    return pd.DataFrame(rows, columns=["value", "score", "low", "high", "cases", "groups"])


def _numbers_told(results: Results) -> list[str]:
    """The columns of cases.csv that are metadata, of all conditions."""
    names: dict[str, None] = {}
    for by_seed in results.conditions.values():
        for key, result in by_seed.items():
            if (result.folder / CASES).is_file() and (cases := cases_of(result, key)) is not None:
                names |= dict.fromkeys(map(str, cases.columns))
    return [name for name in names if name not in (*PLACE, *SPACING)]


def _of_field_encoding_section(
    results: Results, field: str, values: Values, score: str
) -> list[Part]:
    curves = {name: curve_by_value(results.cases(name), values) for name in results.conditions}
    curves = {name: curve for name, curve in curves.items() if len(curve)}
    if not curves:
        return []
    known = fields_of(results).get(field)
    head = f"{field} ({known.unit})" if isinstance(known, Continuous) else field
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", field)
    note = (
        f"Mean {score} of the cases at each {field}, cases within a group first, seeds within a "
        "case; 95 % interval over groups, none below five of them."
    )
    if others := other_values(given_values(results, field), field):
        note += f" {others} Cases stand at their true {field}."
    figure = value_curves(curves, values.unseen, head, f"mean case {score}")
    hollow = f" Hollow: {_numbers_encoding_section(values.unseen)}, which no training case had."
    table = _table_encoding_section(curves, values, "score")
    parts: list[Part] = [
        _words_encoding_section(field, values, curves, score),
        Figure(f"by_{stem}", note + hollow, figure),
        Table(f"by_{stem}", f"{score} by {field}", note, table, first=head),
    ]
    if differences := _differences(results, values):
        title = f"Planned comparisons at each {field}"
        told = (
            f"Difference of the {score}, first minus second, of the cases that both were tested "
            "on; 95 % interval over groups, not corrected for the number of values."
        )
        numbers = _table_encoding_section(differences, values, "difference")
        parts.append(
            Details(title, [Table(f"differences_by_{stem}", title, told, numbers, first=head)])
        )
    return parts


def _differences(results: Results, values: Values) -> dict[str, pd.DataFrame]:
    pairs = [] if results.study is None else results.study.protocol.comparisons
    found = {}
    for first, second in pairs:
        if first in results.conditions and second in results.conditions:
            one, other = results.cases(first), results.cases(second)
            both = one.merge(other[["case", "f1"]], on="case", suffixes=("", "_second"))
            both["difference"] = both["f1"] - both["f1_second"]
            curve = curve_by_value(both, values, "difference")
            if len(curve):
                found[f"{first} - {second}"] = curve
    return found


def _table_encoding_section(
    curves: Mapping[str, pd.DataFrame], values: Values, score: str
) -> pd.DataFrame:
    """Values x (how many; condition: mean and the ends of its interval)."""
    every = sorted({float(v) for curve in curves.values() for v in curve["value"]})
    index = {name: curve.set_index("value").reindex(every) for name, curve in curves.items()}
    columns: dict[tuple[str, str], list[float] | list[int]] = {
        ("training", "cases"): [values.trained.get(value, 0) for value in every]
    }
    sizes = pd.concat(curves.values()).groupby("value")[["cases", "groups"]].max()
    for name in ("cases", "groups"):
        columns["tested", name] = sizes[name].astype(int).tolist()
    for name, curve in index.items():
        for column, label in (("score", score), ("low", "low"), ("high", "high")):
            columns[name, label] = curve[column].tolist()
    return pd.DataFrame(columns, index=pd.Index([f"{value:g}" for value in every]))


def _words_encoding_section(
    field: str, values: Values, curves: Mapping[str, pd.DataFrame], score: str
) -> str:
    """What was trained, and how every condition does at each value that was not."""
    low, high = min(values.trained), max(values.trained)
    told = [f"Training cases have {field} {_numbers_encoding_section(list(values.trained))}."]
    for value in values.unseen:
        place = "between them" if low < value < high else "beyond them"
        scores = {
            name: float(curve.loc[curve["value"] == value, "score"].iloc[0])
            for name, curve in curves.items()
            if (curve["value"] == value).any()
        }
        if scores:
            each = listed([f"{name} {number:.3f}" for name, number in scores.items()])
            told.append(f"At {value:g}, {place}, mean case {score}: {each}.")
    return " ".join(told)


def _numbers_encoding_section(values: list[float]) -> str:
    return listed([f"{value:g}" for value in values])
