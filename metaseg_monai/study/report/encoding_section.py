"""What networks do at values that no training case had: between those it had, and beyond.

For the proposal's question (section 3.2): does a network that is told the magnification interpolate
to 15x and extrapolate to 64x, and does it depend on how the number is encoded?
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd

from metaseg_monai.evaluation.cases import NAMES, SPACING
from metaseg_monai.evaluation.paired_tests import bootstrap_interval
from metaseg_monai.metadata import Continuous
from metaseg_monai.metadata.quantities import read_number
from metaseg_monai.study.report.document import Details, Figure, Part, Section
from metaseg_monai.study.report.figures.by_value import value_curves
from metaseg_monai.study.report.run_files import (
    CASES,
    cases_of,
    fields_of,
    given_values,
    listed,
    other_values,
)
from metaseg_monai.study.report.tables import Table
from metaseg_monai.study.results import Results

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
            parts += _of_field(results, field, values, score)
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
    return [name for name in names if name not in (*NAMES, *SPACING)]


def _of_field(results: Results, field: str, values: Values, score: str) -> list[Part]:
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
    hollow = f" Hollow: {_numbers(values.unseen)}, which no training case had."
    table = _table(curves, values, "score")
    parts: list[Part] = [
        _words(field, values, curves, score),
        Figure(f"by_{stem}", note + hollow, figure),
        Table(f"by_{stem}", f"{score} by {field}", note, table, first=head),
    ]
    if differences := _differences(results, values):
        title = f"Planned comparisons at each {field}"
        told = (
            f"Difference of the {score}, first minus second, of the cases that both were tested "
            "on; 95 % interval over groups, not corrected for the number of values."
        )
        numbers = _table(differences, values, "difference")
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


def _table(curves: Mapping[str, pd.DataFrame], values: Values, score: str) -> pd.DataFrame:
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


def _words(field: str, values: Values, curves: Mapping[str, pd.DataFrame], score: str) -> str:
    """What was trained, and how every condition does at each value that was not."""
    low, high = min(values.trained), max(values.trained)
    told = [f"Training cases have {field} {_numbers(list(values.trained))}."]
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


def _numbers(values: list[float]) -> str:
    return listed([f"{value:g}" for value in values])
