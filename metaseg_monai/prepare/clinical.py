"""The clinical table of KiTS: one flat row of text a case, tumour size in mm."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from metaseg_monai.errors import DataError
from metaseg_monai.metadata.fields import read_number
from metaseg_monai.tables.table import read_lines

# The entries of a clinical file, JSON or CSV, each with the case that it is of.

CASE = "case_id"
WORDS: Mapping[str, bool | None] = {  # as a cell of a CSV file
    "true": True,
    "false": False,
    **dict.fromkeys(("", "null", "none", "nan")),
}


class Repeated(list[Any]):
    """The values of a key that one object of a JSON file has several times."""


def entries_of(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every entry with its case.

    Args:
        path: `.json`, a list of objects with a `case_id` each, or `.csv`. Of a key that an object
            has several times, the value is `Repeated`.

    Raises:
        DataError: the file is missing or no such table, a column is there twice, or an entry names
            no case or several.
    """
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
        yield case.strip(), entry


def _json_entries(path: Path) -> list[Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_object)
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
    """The lines of a CSV file; empty cells and words for "missing" become None."""
    _, lines, problems = read_lines(path)
    if problems:
        raise DataError(f"{path}: {'; '.join(problems)}; mend these rows")
    return [
        {name: WORDS.get(cell.strip().lower(), cell.strip()) for name, cell in cells.items()}
        for _, cells in lines
    ]


SizeSource = Literal["radiographic", "pathologic"]

SIZE, CENSORED = "tumour_size_mm", "_censored"
MM_PER_CM = 10
SAME_NAME: Mapping[str, str] = {"bmi": "body_mass_index"}  # KiTS23 -> KiTS19 and KiTS21
BOUND = re.compile(r"\s*([<>])=?\s*([-+]?\d+(?:\.\d+)?)\s*")


class ClinicalTable(NamedTuple):
    """A clinical table as far as it is right.

    Attributes:
        rows: {case: {column: text}}; all rows have the same columns in the same order, first
            `tumour_size_mm` where the file has a size; missing values are "".
        problems: {case: what is wrong with its row, in words}; these cases have no row.
        path: the file; None where there is none.
    """

    rows: dict[str, dict[str, str]]
    problems: dict[str, list[str]]
    path: Path | None = None


def read_clinical(path: str | Path, size: SizeSource = "radiographic") -> dict[str, dict[str, str]]:
    """Read kits.json of KiTS19, KiTS21 or KiTS23, or a CSV file with a column `case_id`.

    Objects within a case become columns joined by "_" (comorbidities_copd), null becomes "",
    true and false stay words, `bmi` becomes `body_mass_index`. A bound such as ">=90" becomes
    "90", and its column gets a neighbour named <column>_censored: 1 where the true value is at
    least the given one, -1 where it is at most that, 0 where it is exact.

    `tumour_size_mm` is the radiographic size (of the largest lesion, measured before surgery) or
    the pathologic size (measured on the specimen, after surgery), given there in cm, or a column
    of this name in mm; "" in the cases without one. A file with neither column gives rows without
    `tumour_size_mm`. Its range is left to the schema, or to `metaseg_monai.prepare.clinical`.

    Args:
        path: `.json`, a list of objects with a `case_id` each, or `.csv`.
        size: the measurement that becomes `tumour_size_mm`.

    Returns:
        {case: {column: text}}, all cases with the same columns.

    Raises:
        DataError: the file is missing or no such table, repeats a column, a case or a key, or
            holds values that are no text, number, true, false or null; names the cases.
    """
    table = scan_clinical(path, size)
    if table.problems:
        told = [f"  {case}: {'; '.join(found)}" for case, found in table.problems.items()]
        raise DataError("\n".join([f"{path}: mend the clinical table:", *told]))
    return table.rows


def scan_clinical(path: str | Path, size: SizeSource = "radiographic") -> ClinicalTable:
    """Read a clinical table as `read_clinical`; a wrong row is told and the others are kept.

    Raises:
        DataError: the file is missing or no such table.
    """
    path = Path(path)
    if size not in get_args(SizeSource):
        raise DataError(f"size={size!r}: expected one of {', '.join(get_args(SizeSource))}")
    rows: dict[str, dict[str, str]] = {}
    problems: dict[str, list[str]] = {}
    for case, entry in entries_of(path):
        row, found = _flat_row(entry, size)
        if case in rows or case in problems:
            rows.pop(case, None)
            found = [f"{CASE} {case} appears more than once; keep the right entry"]
        if found:
            problems.setdefault(case, []).extend(f for f in found if f not in problems[case])
        else:
            rows[case] = row
    return ClinicalTable(_same_columns(rows), problems, path)


def check_columns(path: Path, table: ClinicalTable, names: Sequence[str], size: SizeSource) -> None:
    """Raise DataError where a table lacks a column, which would be missing in every case."""
    columns = next(iter(table.rows.values()), dict.fromkeys(names))
    lacking = [name for name in names if name not in columns]
    if lacking:
        known = f" ({SIZE} is made of {size}_size in cm)" if SIZE in lacking else ""
        raise DataError(
            f"{path}: no column {', '.join(lacking)}{known}, but {', '.join(columns)}; add it, "
            "empty where the value is unknown"
        )


def check_cases(table: ClinicalTable, cases: Sequence[str]) -> None:
    """Raise DataError where a table has a row for none of the cases, as one of another source."""
    known = [*table.rows, *table.problems]
    if not set(cases) & set(known):
        raise DataError(
            f"{table.path}: no row for any of {len(cases)} cases such as {cases[0]}; it has "
            f"{len(known)} rows, such as {known[0]}: name the cases in it ({CASE}) as their "
            "folders, or give the table of this source (clinical)"
        )


def _flat_row(entry: Mapping[str, Any], size: SizeSource) -> tuple[dict[str, str], list[str]]:
    """One case as columns of text, and what is wrong with it."""
    row: dict[str, str] = {}
    problems = []
    for name, value in _leaves(entry):
        if name == CASE:
            continue
        column = SAME_NAME.get(name, name)
        try:
            text, censored = _text(value)
        except DataError as error:
            problems.append(f"{name} = {value!r:.60}: {error}")
            continue
        cells = {column: text, **({column + CENSORED: str(censored)} if censored else {})}
        for key, cell in cells.items():
            if cell and row.get(key, cell) not in ("", cell):
                problems.append(f"{name} {cell} and {key} {row[key]} disagree; keep one")
            row[key] = cell or row.get(key, "")
    for name in (SIZE, *(f"{one}_size" for one in get_args(SizeSource))):
        if isinstance(entry.get(name), Mapping):
            problems.append(f"{name} = {entry[name]!r:.60}: expected one number, or null")
    try:
        if SIZE in row or f"{size}_size" in row:
            given = row.pop(SIZE, "")
            row = {SIZE: _size_mm(row, f"{size}_size", given), **row}
    except DataError as error:
        problems.append(str(error))
    return row, problems


def _leaves(entry: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in entry.items():
        full = f"{prefix}{name}".replace(".", "_")
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{full}_")
        else:
            yield full, value


def _text(value: Any) -> tuple[str, int]:
    """A value as text, and 1 or -1 where it is only a lower or upper bound."""
    if isinstance(value, Repeated):
        raise DataError("given more than once; keep the right one")
    if value is None:
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
        return value.strip(), 0
    raise DataError("expected text, a number, true, false or null; split it into columns of these")


def _size_mm(row: Mapping[str, str], column: str, given: str) -> str:
    """The tumour's size: from a column in cm, or as given in mm where there is no such column."""
    if given and row.get(column):
        raise DataError(f"both {SIZE} and {column} are given; keep one of them")
    text, factor = (given, 1) if given else (row.get(column, ""), MM_PER_CM)
    if not text:
        return ""
    name, unit = (SIZE, "mm") if given else (column, "cm")
    value = read_number(text)
    if value is None or value <= 0:
        raise DataError(
            f"{name} {text!r} is no size; expected a positive number of {unit}, or null"
        )
    if row.get(name + CENSORED):
        raise DataError(f"{name} is only a bound ({text}); expected a number, or null")
    return f"{value * factor:.8g}"  # 4.1 cm is 41 mm, not 41.00000000000001


def _same_columns(rows: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Give every row the columns of all, a column of bounds beside its own column."""
    seen = dict.fromkeys(name for row in rows.values() for name in row)
    if SIZE in seen:  # perhaps not in the first case
        seen = {SIZE: None, **seen}
    bounds = {name for name in seen if name.endswith(CENSORED)}
    columns = [
        column
        for name in seen
        if name not in bounds
        for column in (name, name + CENSORED)
        if column == name or column in bounds
    ]

    def cell(row: Mapping[str, str], column: str) -> str:
        if column in bounds and column not in row:
            return "0" if row.get(column.removesuffix(CENSORED)) else ""
        return row.get(column, "")

    return {case: {column: cell(row, column) for column in columns} for case, row in rows.items()}


# Whether the size of a tumour can be right: by itself, and beside the label.

SIZE_RANGE_MM = (5.0, 250.0)
FURTHEST_FROM_LABEL = 4  # times; annotators and radiologists differ by a third (KiTS)


def size_problem(size_mm: str) -> str | None:
    """What is wrong with a `tumour_size_mm` as a size of a kidney tumour; None if nothing.

    >>> size_problem("41"), size_problem("")
    (None, None)
    >>> size_problem("410")
    'tumour_size_mm 410 is outside 5 to 250; the table gives cm, so look for a size given in mm'
    """
    if not size_mm or SIZE_RANGE_MM[0] <= float(size_mm) <= SIZE_RANGE_MM[1]:
        return None
    low, high = SIZE_RANGE_MM
    return (
        f"{SIZE} {size_mm} is outside {low:g} to {high:g}; the table gives cm, so look for a size "
        "given in mm"
    )


def size_remark(row: Mapping[str, str], size: SizeSource, label_mm: str) -> str | None:
    """What is odd about a `tumour_size_mm` beside its label; None if nothing.

    Args:
        row: of a `ClinicalTable`.
        size: the measurement that became `tumour_size_mm`.
        label_mm: the largest diameter of the tumour in the label; "" if it shows none.

    >>> size_remark({"tumour_size_mm": "41"}, "radiographic", "38")
    """
    size_mm = row.get(SIZE, "")
    if not size_mm or not label_mm:
        return None
    times = float(size_mm) / float(label_mm)
    if 1 / FURTHEST_FROM_LABEL <= times <= FURTHEST_FROM_LABEL:
        return None
    column = f"{size}_size" if row.get(f"{size}_size") else SIZE
    return (
        f"{column} {row[column]} is read as {size_mm} mm, but the label's tumour is "
        f"{float(label_mm):.3g} mm across: is it in cm, and of this case?"
    )
