"""A clinical table: one flat row of text a case, from CSV or nested JSON."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from metaseg_monai.errors import DataError
from metaseg_monai.files import text_file
from metaseg_monai.metadata.fields import MISSING_WORDS
from metaseg_monai.naming import composed
from metaseg_monai.rows import read_lines

CASE = "case_id"
CENSORED = "_censored"
BOUND = re.compile(r"\s*([<>])=?\s*([-+]?\d+(?:\.\d+)?)\s*")
WORDS: Mapping[str, bool] = {"true": True, "false": False}
Adapt = Callable[[dict[str, str], Mapping[str, Any]], tuple[dict[str, str], list[str]]]


class ClinicalTable(NamedTuple):
    """A clinical table as far as it is right.

    Attributes:
        rows: {case: {column: text}}; all rows have the same columns in the same order; missing
            values are "".
        problems: {case: what is wrong with its row, in words}; these cases have no row.
        path: the file; None where there is none.
    """

    rows: dict[str, dict[str, str]]
    problems: dict[str, list[str]]
    path: Path | None = None


class Repeated(list[Any]):
    """The values of a key that one object of a JSON file has several times."""


def read_clinical(
    path: str | Path,
    adapt: Adapt | None = None,
    same_name: Mapping[str, str] | None = None,
    declared: Collection[str] = (),
) -> dict[str, dict[str, str]]:
    """Read a table of one entry a case, JSON or CSV, as text.

    Objects within a case become columns joined by "_" (comorbidities_copd), null and the words
    for "missing" become "", true and false stay words. A bound such as ">=90" becomes "90", and
    its column gets a neighbour named <column>_censored: 1 where the true value is at least the
    given one, -1 where it is at most that, 0 where it is exact.

    Args:
        path: `.json`, a list of objects with a `case_id` each, or `.csv` with that column.
        adapt: what else a data set makes of a row and the entry it came from: the row as it is to
            be, and what is wrong with it, in words.
        same_name: names of columns -> the one name that they get.
        declared: words that say something here, though they could mean "missing", such as "none".

    Returns:
        {case: {column: text}}, all cases with the same columns.

    Raises:
        DataError: the file is missing or no such table, repeats a column, a case or a key, or
            holds values that are no text, number, true, false or null; names the cases.
    """
    table = scan_clinical(path, adapt, same_name, declared)
    if table.problems:
        told = [f"  {case}: {'; '.join(found)}" for case, found in table.problems.items()]
        raise DataError("\n".join([f"{path}: mend the clinical table:", *told]))
    return table.rows


def scan_clinical(
    path: str | Path,
    adapt: Adapt | None = None,
    same_name: Mapping[str, str] | None = None,
    declared: Collection[str] = (),
) -> ClinicalTable:
    """Read a clinical table as `read_clinical`; a wrong row is told and the others are kept.

    Raises:
        DataError: the file is missing or no such table.
    """
    path = Path(path)
    rows: dict[str, dict[str, str]] = {}
    problems: dict[str, list[str]] = {}
    for case, entry in _entries(path):
        row, found = _flat_row(entry, same_name or {}, declared)
        if adapt is not None:
            row, more = adapt(row, entry)
            found += more
        if case in rows or case in problems:
            rows.pop(case, None)
            found = [f"{CASE} {case} appears more than once; keep the right entry"]
        if found:
            problems.setdefault(case, []).extend(f for f in found if f not in problems[case])
        else:
            rows[case] = row
    return ClinicalTable(_same_columns(rows), problems, path)


def check_cases(table: ClinicalTable, cases: Sequence[str]) -> None:
    """Raise DataError where a table has a row for none of the cases, as one of another source."""
    known = [*table.rows, *table.problems]
    if not set(cases) & set(known):
        raise DataError(
            f"{table.path}: no row for any of {len(cases)} cases such as {cases[0]}; it has "
            f"{len(known)} rows, such as {known[0]}: name the cases in it ({CASE}) as their "
            "folders, or give the table of this source (clinical)"
        )


def _entries(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every entry with its case; of a key that an object has several times all values."""
    suffix = path.suffix.lower()
    if suffix not in (".json", ".csv"):
        raise DataError(f"{path}: expected a clinical table named .json or .csv")
    if not path.is_file():
        raise DataError(f"{path}: no clinical table (no such file); give kits.json or a CSV")
    entries = _json_entries(path) if suffix == ".json" else _csv_entries(path)
    for number, entry in enumerate(entries, start=1):
        case = entry.get(CASE) if isinstance(entry, Mapping) else None
        if isinstance(case, Repeated):
            raise DataError(f"{path}: entry {number} has {CASE} twice {case}; keep the right one")
        if not isinstance(case, str) or not case.strip():
            raise DataError(
                f"{path}: entry {number} names no {CASE}; expected one such as 'case_00000'"
            )
        others = {name: value for name, value in entry.items() if name != CASE}
        yield composed(case.strip()), others


def _json_entries(path: Path) -> list[Any]:
    try:
        entries = json.loads(text_file(path).read_text(encoding="utf-8"), object_pairs_hook=_object)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no clinical table ({error}); give kits.json or a CSV") from error
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{path}: expected a list of cases, at least one; give KiTS's kits.json")
    return entries


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, list[Any]] = defaultdict(list)
    for key, value in pairs:
        values[key].append(value)
    return {key: all_[0] if len(all_) == 1 else Repeated(all_) for key, all_ in values.items()}


def _csv_entries(path: Path) -> list[dict[str, Any]]:
    """The lines of a CSV file."""
    _, lines, problems = read_lines(path)
    if problems:
        raise DataError(f"{path}: {'; '.join(problems)}; mend these rows")
    return [
        {name: WORDS.get(cell.strip().lower(), cell.strip()) for name, cell in cells.items()}
        for _, cells in lines
    ]


def _flat_row(
    entry: Mapping[str, Any], same_name: Mapping[str, str], declared: Collection[str]
) -> tuple[dict[str, str], list[str]]:
    """One case as columns of text, and what is wrong with it."""
    row: dict[str, str] = {}
    problems = []
    for name, value in _leaves(entry):
        column = same_name.get(name, name)
        try:
            text, censored = _text(value, declared)
        except DataError as error:
            problems.append(f"{name} = {value!r:.60}: {error}")
            continue
        cells = {column: text, **({column + CENSORED: str(censored)} if censored else {})}
        for key, cell in cells.items():
            if cell and row.get(key, cell) not in ("", cell):
                problems.append(f"{name} {cell} and {key} {row[key]} disagree; keep one")
            row[key] = cell or row.get(key, "")
    return row, problems


def _leaves(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in entry.items():
        full = composed(f"{prefix}{name}").replace(".", "_")
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{full}_")
        else:
            yield full, value


def _text(value: Any, declared: Collection[str]) -> tuple[str, int]:
    """A value as text, and 1 or -1 where it is only a lower or upper bound."""
    if isinstance(value, Repeated):
        raise DataError("given more than once; keep the right one")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "", 0
    if isinstance(value, bool):
        return str(value).lower(), 0
    if isinstance(value, int):
        return str(value), 0
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DataError("not a finite number; expected a number, or null where it is missing")
        return f"{value:.10g}", 0
    if isinstance(value, str):
        bound = BOUND.fullmatch(value)
        if bound:
            return bound[2], 1 if bound[1] == ">" else -1
        text = composed(value.strip())
        says_nothing = text.lower() in MISSING_WORDS and text not in declared
        return "" if says_nothing else text, 0
    raise DataError("expected text, a number, true, false or null; split it into columns of these")


def _same_columns(rows: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Give every row the columns of all, a column of bounds beside its own column."""
    seen = list(dict.fromkeys(name for row in rows.values() for name in row))
    own = {name: name.removesuffix(CENSORED) for name in seen}
    place = {name: number for number, name in enumerate(seen)}
    columns = sorted(seen, key=lambda name: (place.get(own[name], place[name]), name))

    def cell(row: Mapping[str, str], column: str) -> str:
        exact = own[column] != column and row.get(own[column])
        return row.get(column, "0" if exact else "")

    return {case: {column: cell(row, column) for column in columns} for case, row in rows.items()}
