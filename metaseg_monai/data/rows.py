"""From the lines of a table to items, with every problem found on the way."""

import csv
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from metaseg_monai.data.columns import SPLITS, ColumnMap
from metaseg_monai.data.place import disagreements, place_of
from metaseg_monai.data.readable import readable
from metaseg_monai.data.readers import image_suffix
from metaseg_monai.errors import DataError
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.metadata.quantities import read_number


@dataclass
class Row:
    """One image x one value of `rows_per`, as the table gives it.

    Attributes:
        number: row of the table as a spreadsheet counts them (the header is 1).
        images: image paths relative to the table's folder.
        label: label path relative to the table's folder, or None.
        metadata: raw value by schema field.
        group: what must stay in one split.
        split: train, val or test; None where the table has no split column.
        case: unique name.
        label_values: pixel values that count as foreground, "instances" for all above 0, or None.
        cells: every cell of the line by its column.
        place: where the image lies in its volume, see `place_of`.
        problems: what is wrong in this row alone.
    """

    number: int
    images: tuple[str, ...]
    label: str | None
    metadata: dict[str, Any]
    group: str
    split: str | None
    case: str
    label_values: list[int] | str | None = None
    problems: list[str] = field(default_factory=list)
    cells: Mapping[str, str] = field(default_factory=dict)
    place: Mapping[str, Any] = field(default_factory=dict)


def read_lines(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]], list[str]]:
    """Read a CSV file as text, cell by cell, exactly.

    Args:
        path: the table, UTF-8, comma-separated, one header line.

    Returns:
        The header, the rows as (number, {column: cell}), and problems of rows whose number of
        cells is not the header's.

    Raises:
        DataError: the file may not be read, is not UTF-8, empty, without rows, or repeats a column.
    """
    try:
        with readable(path), path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not readable as UTF-8 CSV ({error}); save it anew") from error
    if not lines:
        raise DataError(f"{path}: empty; expected a header line and one row a case")
    header = [name.strip() for name in lines[0]]
    if len(header) == 1 and re.search(r"[;\t]", header[0]):
        raise DataError(f"{path}: separated by semicolons or tabs; save it comma-separated")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: columns {twice} appear more than once; rename or remove them")
    rows, problems = [], []
    for number, cells in enumerate(lines[1:], start=2):
        if len(cells) == len(header):
            rows.append((number, dict(zip(header, cells, strict=True))))
        elif cells:  # a blank line is no row
            problems.append(f"row {number}: {len(cells)} cells, the header has {len(header)}")
    if not rows and not problems:
        raise DataError(f"{path}: a header without rows; expected one row a case")
    return header, rows, problems


def make_rows(
    number: int,
    cells: Mapping[str, str],
    schema: MetadataSchema | None,
    columns: ColumnMap,
    fixed: Mapping[str, Any],
) -> list[Row]:
    """Turn one line of the table into its rows; more than one only with `rows_per`.

    Args:
        number: row of the table.
        cells: cell by column.
        schema: names the metadata fields to read; None reads none.
        columns: where they are.
        fixed: raw metadata that take the place of the table's.
    """
    metadata: dict[str, Any] = {}
    for name in schema.names if schema else ():
        if columns.column_of(name) in cells:
            metadata[name] = _in_unit(cells[columns.column_of(name)], columns.factors.get(name))
    metadata.update(fixed)
    if columns.rows_per is None or columns.rows_per in fixed or not metadata[columns.rows_per]:
        return [_make_row(number, cells, metadata, columns)]
    values = metadata[columns.rows_per].split(columns.separator)
    return [
        _make_row(number, cells, {**metadata, columns.rows_per: value.strip()}, columns)
        for value in values
    ]


def _in_unit(cell: str, factor: float | None) -> str:
    """The cell in the field's unit; what is no number is left for the schema to refuse."""
    number = read_number(cell)
    return cell if factor is None or number is None else f"{number * factor:.9g}"


def _make_row(
    number: int, cells: Mapping[str, str], metadata: dict[str, Any], columns: ColumnMap
) -> Row:
    problems: list[str] = []
    images = tuple(
        _relative(path, columns.image, problems)
        for path in cells[columns.image].split(columns.separator)
    )
    label = None
    if columns.label is not None and cells.get(columns.label):
        label = _relative(cells[columns.label], columns.label, problems)
    group = cells.get(columns.group, "").strip() if columns.group is not None else images[0]
    split = None
    if columns.split in cells:
        given = cells[columns.split].strip()
        split = columns.split_names.get(given, given)
        if split not in SPLITS:
            problems.append(
                f"column {columns.split!r}: unknown split {given!r}, expected "
                f"{', '.join(SPLITS)} or a name in the column map's split_names"
            )
    case = cells[columns.case].strip() if columns.case is not None else ""
    if columns.case is not None and not re.fullmatch(r"[^/\\]*[^/\\.][^/\\]*", case):
        problems.append(
            f"column {columns.case!r}: {case!r} cannot name a file; expected text without slashes"
        )
    place, misplaced = place_of(cells, columns.place)
    return Row(
        number, images, label, metadata, group, split, case,
        _foreground_values(metadata, columns, problems), [*problems, *misplaced], cells, place,
    )  # fmt: skip


def _foreground_values(
    metadata: Mapping[str, Any], columns: ColumnMap, problems: list[str]
) -> list[int] | str | None:
    """The pixel values that are foreground in this row; None where label values are classes."""
    if isinstance(columns.label_values, str):
        return columns.label_values
    if isinstance(columns.label_values, list):
        return list(columns.label_values) or None
    for name, values in columns.label_values.items():
        if metadata.get(name) in values:
            return list(values[metadata[name]])
        problems.append(
            f"field {name!r}: no label_values for {metadata.get(name)!r} in the column map, "
            f"which has {', '.join(values)}"
        )
    return None


def _relative(path: str, column: str, problems: list[str]) -> str:
    """A path inside the table's folder, normalised; anything else is a problem."""
    if not path.strip():
        problems.append(f"column {column!r}: an empty path; expected one relative to the table")
    elif (
        PurePosixPath(path).is_absolute()
        or PureWindowsPath(path).anchor
        or ".." in re.split(r"[/\\]", path)
    ):
        problems.append(
            f"column {column!r}: {path!r} leaves the table's folder; expected a path relative to "
            "the table, without '..' (a symbolic link inside the folder may lead elsewhere)"
        )
    return str(PurePosixPath(path.strip()))


def name_cases(rows: Sequence[Row]) -> None:
    """Name every row that has no case: its first image's path, then the metadata that differ.

    >>> rows = [Row(n, ("a/b.png",), None, {"task": t}, "", None, "") for n, t in
    ...         enumerate(["disc", "ring"])]
    >>> name_cases(rows)
    >>> [row.case for row in rows]
    ['a_b__disc', 'a_b__ring']
    """
    of_stem: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if not row.case:
            path = row.images[0].replace("\\", "/")
            of_stem[path[: len(path) - len(image_suffix(path))].replace("/", "_")].append(row)
    for stem, sharing in of_stem.items():
        differing = [
            name
            for name in sharing[0].metadata
            if len({str(row.metadata.get(name)) for row in sharing}) > 1
        ]
        for row in sharing:
            values = [re.sub(r"[^\w.+-]+", "-", str(row.metadata[name])) for name in differing]
            row.case = "__".join([stem, *values])


def problems_between(rows: Sequence[Row]) -> list[str]:
    """Problems that no row shows alone: repeated rows and cases, groups and images in two splits.

    A row that repeats another is told once, not again by its case name.
    """
    problems = []
    first_of_content: dict[tuple[Any, ...], Row] = {}
    first_of_case: dict[str, Row] = {}
    splits_of: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for row in rows:
        same = first_of_content.setdefault((row.images, *map(str, row.metadata.values())), row)
        namesake = first_of_case.setdefault(row.case, row)
        if same is not row:
            problems.append(
                f"row {row.number} ({row.case}): the same image and metadata as row {same.number}"
            )
        elif namesake is not row:
            problems.append(
                f"row {row.number}: the case {row.case!r} is also row {namesake.number}; "
                "rename an image, or name the cases in a column of their own"
            )
        if row.split is not None:
            owners = [("image", image) for image in dict.fromkeys(row.images)]
            if row.group and row.group not in row.images:
                owners.append(("group", row.group))
            for owner in owners:
                splits_of[owner].setdefault(row.split, row.number)
    problems += disagreements([(r.place, r.group, r.images[0], r.number) for r in rows])
    for (kind, name), splits in splits_of.items():
        if len(splits) > 1:
            where = ", ".join(f"{split} (row {number})" for split, number in splits.items())
            problems.append(f"{kind} {name!r} is in several splits: {where}; keep it in one")
    return problems
