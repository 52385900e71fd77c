"""How predictions follow a continuous value: curves, how monotone they are, and contours."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from metaseg_monai.metadata import Continuous
from metaseg_monai.metadata.quantities import read_number
from metaseg_monai.study.report.document import Details, Figure, Part, Section
from metaseg_monai.study.report.figures.sweep import response_curves
from metaseg_monai.study.report.run_files import (
    Given,
    class_names,
    class_text,
    continuous_fields,
    given_values,
    listed,
    other_values,
)
from metaseg_monai.study.report.sweep import TOLERANCE, response_curve
from metaseg_monai.study.report.sweep_numbers import Swept, monotone_table, responses, swept_areas
from metaseg_monai.study.report.sweep_pictures import montages
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.results import Results

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
