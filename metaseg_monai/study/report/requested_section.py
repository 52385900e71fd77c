"""What a requested label draws: how large the masks are and how sure the network is."""

import re
from collections.abc import Mapping, Sequence

import pandas as pd

from metaseg_monai.evaluation.calibration import read_calibration
from metaseg_monai.metadata import Categorical, Ordinal
from metaseg_monai.study.report.document import Figure, Part, Section
from metaseg_monai.study.report.figures.requested import requested_labels
from metaseg_monai.study.report.requested import (
    OWN,
    QUANTITIES,
    by_group,
    requested_modes,
    summarise_requested,
)
from metaseg_monai.study.report.run_files import (
    class_names,
    class_text,
    fields_of,
    listed,
    reads_metadata,
)
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.results import Result, Results

LITTLE = 0.01  # of the true area; what a mask may shake without meaning it


def requested_section(results: Results) -> Section | None:
    """What each label of each field draws; None where no condition was asked for any."""
    parts: list[Part] = []
    for field in fields_of(results).values():
        if isinstance(field, Categorical | Ordinal):
            parts += _of_field(results, field)
    if not parts:
        return None
    intro = (
        "The same images, each asked with one label after the other in place of its own. A network "
        "that learned a style with its label draws as large, and is as sure, as that style was "
        "(paper 3.2)."
    )
    return Section("What a requested label draws", intro, parts)


def _of_field(results: Results, field: Categorical | Ordinal) -> list[Part]:
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
        if words := _words(of_class, field.name):
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


def _words(of_class: Mapping[str, pd.DataFrame], field: str) -> str:
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
