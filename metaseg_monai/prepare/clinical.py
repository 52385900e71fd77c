"""The clinical table of KiTS: one flat row of text a case, tumour size in mm."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from metaseg_monai.errors import DataError
from metaseg_monai.metadata.fields import read_number
from metaseg_monai.tables.clinical import CENSORED, Adapt, ClinicalTable
from metaseg_monai.tables.clinical import read_clinical as read_any_clinical
from metaseg_monai.tables.clinical import scan_clinical as scan_any_clinical

SizeSource = Literal["radiographic", "pathologic"]

SIZE = "tumour_size_mm"
MM_PER_CM = 10
SAME_NAME: Mapping[str, str] = {"bmi": "body_mass_index"}  # KiTS23 -> KiTS19 and KiTS21


def read_clinical(path: str | Path, size: SizeSource = "radiographic") -> dict[str, dict[str, str]]:
    """Read kits.json of KiTS19, KiTS21 or KiTS23, or a CSV file with a column `case_id`.

    As `metaseg_monai.tables.read_clinical`; `bmi` becomes `body_mass_index`.

    `tumour_size_mm` is the radiographic size (of the largest lesion, measured before surgery) or
    the pathologic size (measured on the specimen, after surgery), given there in cm, or a column
    of this name in mm; "" in the cases without one. A file with neither column gives rows without
    `tumour_size_mm`. Its range is left to the schema, or to `size_problem`.

    Args:
        path: `.json`, a list of objects with a `case_id` each, or `.csv`.
        size: the measurement that becomes `tumour_size_mm`.

    Returns:
        {case: {column: text}}, all cases with the same columns, first `tumour_size_mm` where the
        file has a size.

    Raises:
        DataError: the file is missing or no such table, repeats a column, a case or a key, or
            holds values that are no text, number, true, false or null; names the cases.
    """
    return _size_first(read_any_clinical(path, _adapt(size), SAME_NAME))


def scan_clinical(path: str | Path, size: SizeSource = "radiographic") -> ClinicalTable:
    """Read a clinical table as `read_clinical`; a wrong row is told and the others are kept.

    Raises:
        DataError: the file is missing or no such table.
    """
    table = scan_any_clinical(path, _adapt(size), SAME_NAME)
    return table._replace(rows=_size_first(table.rows))


def _size_first(rows: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The size of the tumour, which perhaps not the first case has, before all other columns."""
    return {case: {SIZE: row[SIZE], **row} if SIZE in row else row for case, row in rows.items()}


def _adapt(size: SizeSource) -> Adapt:
    """What becomes of an entry beside columns of text: its size in mm."""
    if size not in get_args(SizeSource):
        raise DataError(f"size={size!r}: expected one of {', '.join(get_args(SizeSource))}")

    def adapt(row: dict[str, str], entry: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
        problems = [
            f"{name} = {entry[name]!r:.60}: expected one number, or null"
            for name in (SIZE, *(f"{one}_size" for one in get_args(SizeSource)))
            if isinstance(entry.get(name), Mapping)
        ]
        try:
            if SIZE in row or f"{size}_size" in row:
                given = row.pop(SIZE, "")
                row = {SIZE: _size_mm(row, f"{size}_size", given), **row}
        except DataError as error:
            problems.append(str(error))
        return row, problems

    return adapt


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
