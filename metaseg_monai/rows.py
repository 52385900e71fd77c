"""Rows of CSV as we read and write them: exact text, and no cell is a spreadsheet's formula."""

import csv
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaseg_monai.errors import DataError, Problem, one_line
from metaseg_monai.files import MOST_TABLE, readable, replacing, text_file
from metaseg_monai.naming import composed

if TYPE_CHECKING:
    import pandas as pd


def write_table(rows: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Write rows as a UTF-8 CSV table, columns in the order of the first row, each by `as_cell`.

    Args:
        rows: one mapping a row, all with the same keys.
        path: file to write; its folder is made where it is missing.

    Returns:
        The path.

    Raises:
        DataError: there are no rows, or one has other columns than the first.
    """
    path = Path(path)
    if not rows:
        raise DataError(f"{path}: no rows to write")
    columns = list(rows[0])
    for number, row in enumerate(rows, start=2):
        if set(row) != set(columns):
            raise DataError(f"{path}: row {number} has the columns {list(row)}, not {columns}")
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(map(as_cell, columns))
        writer.writerows([as_cell(row[name]) for name in columns] for row in rows)
    return path


# A spreadsheet runs a cell that begins so, and takes what follows an apostrophe as text.
_FORMULA = re.compile(r"'*[=+\-@\t\r\uff0b\uff0d\uff1d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


def as_cell(value: Any) -> Any:
    """A value as it stands in every CSV file of ours: text is never a spreadsheet's formula.

    Text that begins as a formula gets an apostrophe; numbers stay numbers. `of_cell` takes it away.

    >>> [as_cell(value) for value in ("=1+1", "@a", "-3.2", -3.2, "-b", "a=b", "'=")]
    ["'=1+1", "'@a", '-3.2', -3.2, "'-b", 'a=b', "''="]
    """
    plain = not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value)
    return value if plain else f"'{value}"


def of_cell(value: Any) -> Any:
    """The value that `as_cell` wrote.

    >>> [of_cell(as_cell(value)) for value in ("=1+1", "-3.2", "'=", "it's")]
    ['=1+1', '-3.2', "'=", "it's"]
    """
    quoted = isinstance(value, str) and value.startswith("'") and _FORMULA.match(value)
    return value[1:] if quoted and not _NUMBER.fullmatch(value[1:]) else value


def frame_csv(frame: "pd.DataFrame", index: bool = False, **settings: Any) -> str:
    """A frame as CSV, each cell by `as_cell`; settings as of `DataFrame.to_csv`."""
    frame = frame.copy()
    for name in frame.columns[[kind.kind not in "biufcmM" for kind in frame.dtypes]]:
        frame[name] = frame[name].map(as_cell)
    frame = frame.rename(columns=as_cell, index=as_cell if index else None)
    settings = {"lineterminator": "\n", **settings}
    return frame.to_csv(index=index, **settings)


PROBLEMS = "problems.csv"


def problems_of(file: Path) -> Path:
    """Where the problems of one file are told, whose folder may have a problems.csv of another.

    >>> problems_of(Path("masks/page.html")).as_posix()
    'masks/page.problems.csv'
    """
    return file.with_name(f"{file.stem}.{PROBLEMS}")


def write_problems(
    folder: str | Path, problems: Sequence[Problem], name: str = PROBLEMS
) -> list[Path]:
    """Write ``problems.csv`` into a folder of results; without problems, remove an earlier one.

    Args:
        folder: of the results.
        problems: one a row, with the columns case, file, problem, next_step.
        name: in the place of problems.csv, where the folder is not the result's; see `problems_of`.

    Returns:
        The file, if there is one.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(folder) / name
    if problems:
        rows = [{k: one_line(v) for k, v in one._asdict().items()} for one in problems]
        return [write_table(rows, path)]
    with suppress(FileNotFoundError):
        with path.open(encoding="utf-8", errors="replace") as stream:
            ours = stream.readline().strip() == ",".join(Problem._fields)
        if ours:
            path.unlink()
    return []


NO_CSV: Mapping[bytes, str] = {
    b"PK\3\4": "a workbook of Excel or LibreOffice",
    b"\xd0\xcf\x11\xe0": "a workbook of an old Excel",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"\x1f\x8b": "compressed (gzip)",
}


SEPARATORS = ",;\t"
MOST_LINES = 50  # that tell which one
WITH_COMMA = re.compile(r"[+-]?\d+,\d+")


def separator_of(path: str | Path) -> str:
    """What stands between the cells of a table: of comma, semicolon and tab that which divides.

    It is in the header, and gives the first rows as many cells as the header; of several that do,
    the one that gives most.
    """
    with readable(path), Path(path).open(encoding="utf-8-sig", errors="replace") as stream:
        lines = [line for _, line in zip(range(MOST_LINES), stream, strict=False)]
    cells = {
        one: [len(row) for row in csv.reader(lines, delimiter=one) if row] for one in SEPARATORS
    }
    having = [one for one in SEPARATORS if lines and cells[one][:1] > [1]]
    alike = [one for one in having if len(set(cells[one])) == 1]
    return max(alike or having or [","], key=lambda one: cells[one][0] if one in having else 1)


def _points(header: Sequence[str], rows: Sequence[dict[str, str]]) -> None:
    """Write 1,5 as 1.5 in columns of such numbers; thousands (1,234) stay what they are.

    Three digits behind every comma are thousands, unless 0 stands before one (0,625).
    """
    for column in header:
        present = [cell for row in rows if (cell := row[column].strip())]
        commas = [cell for cell in present if WITH_COMMA.fullmatch(cell)]
        parts = [cell.lstrip("+-").split(",") for cell in commas]
        thousands = all(len(after) == 3 and before[0] != "0" for before, after in parts)
        for row in rows if commas and not thousands else ():
            if WITH_COMMA.fullmatch(row[column].strip()):
                row[column] = row[column].strip().replace(",", ".")


def has_decimal_commas(path: str | Path) -> bool:
    """Whether a table writes decimals with commas, so that a point may stand for thousands."""
    separator = separator_of(path)
    if separator == ",":
        return False
    with readable(path), Path(path).open(encoding="utf-8-sig", newline="") as stream:
        lines = csv.reader(stream, delimiter=separator)
        return any(WITH_COMMA.fullmatch(cell.strip()) for line in lines for cell in line)


def read_lines(
    path: str | Path,
) -> tuple[list[str], list[tuple[int, dict[str, str]]], list[str]]:
    """Read a CSV file as text, cell by cell; rows without any text are no rows.

    Cells are divided by what `separator_of` finds; where that is no comma, as in a spreadsheet of
    Germany or France, decimals are written with points. What `as_cell` put before a formula is
    taken away. Everything else is exact.

    Args:
        path: the table, UTF-8, one header line.

    Returns:
        The header, the rows as (number, {column: cell}), and problems of rows whose number of
        cells is not the header's.

    Raises:
        DataError: the file may not be read, is no regular file or larger than 1 GB, is not UTF-8,
            empty, without rows, or repeats a column.
    """
    path = Path(path)
    try:
        with readable(path), text_file(path, MOST_TABLE).open("rb") as start:
            mark = start.read(4)
    except ValueError as error:
        raise DataError(f"{path}: {error}; give a table as a CSV file") from error
    if found := next((what for begin, what in NO_CSV.items() if mark.startswith(begin)), None):
        raise DataError(
            f'{path}: is {found}, expected CSV as text in UTF-8; save the sheet as "CSV UTF-8 '
            '(comma delimited)"'
        )
    try:
        separator = separator_of(path)
        with readable(path), path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream, delimiter=separator, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not readable as UTF-8 CSV ({error}); save it anew") from error
    if not lines:
        raise DataError(f"{path}: empty; expected a header line and one row a case")
    if re.fullmatch(r"sep=.?", "".join(lines[0]).strip()):
        raise DataError(f"{path}: its first line is Excel's sep=, no header; remove the line")
    lines = [[of_cell(cell) for cell in line] for line in lines]
    header = [composed(name.strip()) for name in lines[0]]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: columns {twice} appear more than once; rename or remove them")
    rows, problems = [], []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(map(str.strip, cells)):  # Excel leaves such rows below a table
            continue
        if len(cells) == len(header):
            rows.append((number, dict(zip(header, cells, strict=True))))
        else:
            problems.append(f"row {number}: {len(cells)} cells, the header has {len(header)}")
    if not rows and not problems:
        raise DataError(f"{path}: a header without rows; expected one row a case")
    if separator != ",":
        _points(header, [cells for _, cells in rows])
    return header, rows, problems
