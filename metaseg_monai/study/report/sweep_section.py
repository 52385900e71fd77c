"""How predictions follow a continuous value: curves, how monotone they are, and contours."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from metaseg_monai.metadata import Continuous
from metaseg_monai.metadata.quantities import read_number
from metaseg_monai.study.report.document import Details, Figure, Part, Section
from metaseg_monai.study.report.figures.sweep import Response, response_curves
from metaseg_monai.study.report.run_files import (
    all_cases,
    cases_of,
    continuous_fields,
    pixel_areas,
)
from metaseg_monai.study.report.scores import Spread, over_seeds, rows_of
from metaseg_monai.study.report.sweep import (
    TOLERANCE,
    Monotonicity,
    monotonicity,
    response_curve,
    sweep_areas,
    sweep_modes,
)
from metaseg_monai.study.report.sweep_pictures import montages
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.results import Replicate, Results

RARE = 0.5  # share of cases without a class, above which another class is told of
FOLLOWS = 0.8  # share of the cases; from which a network is said to follow the value


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


class Swept(NamedTuple):
    """What was counted: areas by condition and replicate, counts with true metadata, and the unit.

    Counts have a further column ``scale``, the area of a pixel in that unit.
    """

    areas: dict[str, dict[Replicate, pd.DataFrame]]
    normal: dict[str, pd.DataFrame]
    unit: str


def _of_field(results: Results, field: Continuous) -> list[Part]:
    swept = _swept(results, field)
    if not swept.areas:
        return []
    curves = {name: response_curve(list(tables.values())) for name, tables in swept.areas.items()}
    trained = _trained(results, field)
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", field.name)
    spread, cases = _monotone(swept)
    values = spread.mean.assign(cases=cases)
    png = response_curves(
        _responses(swept, curves),
        f"{field.name} ({field.unit})",
        swept.unit,
        trained,
        field.scale != "linear",
    )
    caption = (
        f"Predicted area over the {field.name} that is given; mean over groups with its 95 % "
        "interval over groups, seeds averaged within a case. Level lines: networks that were not "
        "given other values."
    )
    if trained is not None:
        caption += (
            f" Training values: {trained[0]:g} to {trained[1]:g} {field.unit}; points beyond them "
            "are hollow and their ground is shaded: there a network guesses."
        )
    note = (
        "Of the cases with any predicted pixel of the class. monotone: share whose area grows from "
        "the lowest to the highest value and which no step shrinks, each by more than "
        f"{100 * TOLERANCE:g} % of the case's largest area; flat: share whose area never changes "
        "by more than that; steps: share of all steps that do not shrink the area; Spearman: "
        "mean of the cases' rank correlations of area and value. never predicted: share of all "
        "cases. Mean over trainings, ± half the distance between the lowest and the highest."
    )
    title = f"Does the area grow with {field.name}?"
    return [
        _words(spread.mean, field, list(swept.areas)),
        Figure(f"response_{stem}", caption, png),
        Table(
            f"monotone_{stem}",
            title,
            note,
            values,
            spread.half_range.assign(cases=float("nan")),
            first="condition, class",
        ),
        *montages(results, field, stem),
        Details(
            "Response as numbers",
            [
                _numbers(number, curves, trained, field, swept.unit, f"response_{stem}")
                for number in sorted({int(n) for c in curves.values() for n in c["class"]})
            ],
        ),
    ]


def _swept(results: Results, field: Continuous) -> Swept:
    """Areas in mm2 where the spacing of every case is known, else in pixels."""
    places = [(n, key, r) for n, rs in results.conditions.items() for key, r in rs.items()]
    scales = [pixel_areas(cases_of(r, key), r.counts) for _, key, r in places]
    known = all(scale is not None for scale in scales)
    areas: dict[str, dict[Replicate, pd.DataFrame]] = {}
    normal: dict[str, list[pd.DataFrame]] = {}
    for (name, key, result), scale in zip(places, scales, strict=True):
        if len(sweep_modes(result.counts, field.name)) > 1:
            table = sweep_areas(result.counts, field.name, scale if known else None)
            areas.setdefault(name, {})[key] = table
        rows = result.in_mode("normal")
        used = rows["case"].map(scale) if known and scale is not None else 1.0
        normal.setdefault(name, []).append(rows.assign(scale=used))
    joined = {name: pd.concat(tables, ignore_index=True) for name, tables in normal.items()}
    return Swept(areas, joined, "mm²" if known else "pixels")


def _responses(swept: Swept, curves: Mapping[str, pd.DataFrame]) -> dict[str, Response]:
    """What is drawn, by class."""
    first = next(iter(swept.normal.values()))
    return {
        f"class {number}": Response(
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


def _trained(results: Results, field: Continuous) -> tuple[float, float] | None:
    """Lowest and highest value of the training cases; None where they are not known."""
    cases = all_cases(results)
    if cases is None or field.name not in cases:
        return None
    values = cases.loc[cases["split"] == "train", field.name].map(read_number).dropna()
    return (float(values.min()), float(values.max())) if len(values) else None


def _monotone(swept: Swept) -> tuple[Spread, pd.Series]:
    """How the areas of each condition and class follow the value, and the number of cases."""
    spreads, cases = [], {}
    for name, of_seeds in swept.areas.items():
        found = {key: monotonicity(areas) for key, areas in of_seeds.items()}
        spreads.append(over_seeds({key: _rows(name, one) for key, one in found.items()}))
        for number, one in next(iter(found.values())).items():
            cases[f"{name}, class {number}"] = one.cases + one.empty
    mean, half_range = (pd.concat(frames) for frames in zip(*spreads, strict=True))
    return Spread(mean, half_range), pd.Series(cases)


def _rows(name: str, found: Mapping[int, Monotonicity]) -> pd.DataFrame:
    return rows_of(
        {
            f"{name}, class {number}": {
                "monotone": one.monotone,
                "flat": one.flat,
                "steps": one.not_shrinking,
                "Spearman": one.spearman,
                "never predicted": one.empty / (one.cases + one.empty),
            }
            for number, one in found.items()
        }
    )


def _words(mean: pd.DataFrame, field: Continuous, names: Sequence[str]) -> str:
    """Say of each condition which class follows the value."""
    told = []
    for name in names:
        rows = mean[[str(row).rpartition(", ")[0] == name for row in mean.index]]
        often = rows["never predicted"] <= RARE
        share = rows["monotone"][often if often.any() else rows.index].dropna()
        if share.empty:
            told.append(f"{name} predicts nothing at any value.")
            continue
        best = str(share.idxmax()).rpartition(", ")[2]
        grows = f"{best} grows with {field.name} in {round(100 * share.max())} % of cases"
        if share.max() >= FOLLOWS:
            told.append(f"{name} follows {field.name}: {grows}.")
        elif rows["flat"].min() >= 1 - TOLERANCE:
            told.append(f"{name} does not respond to {field.name}.")
        else:
            told.append(f"{name} does not follow {field.name} reliably: {grows}.")
    return " ".join(told)


def _numbers(
    number: int,
    curves: Mapping[str, pd.DataFrame],
    trained: tuple[float, float] | None,
    field: Continuous,
    unit: str,
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
        f"Area of class {number} ({unit}) at each {field.name}",
        "Mean over groups with the ends of its 95 % interval.",
        table,
        digits=1,
        first=f"{field.name} ({field.unit})",
    )
