"""A lab's own table of images: which row belongs to which file."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from metaseg_monai.errors import DataError
from metaseg_monai.prepare.found import OWN_COLUMNS, composed, without_suffix
from metaseg_monai.prepare.problems import Problem
from metaseg_monai.tables.columns import SPLITS
from metaseg_monai.tables.lines import read_lines

KEYS = ("image", "file", "filename", "file_name", "image_name", "image_id", "name", "stem", "id")
SPLIT_NAMES: Mapping[str, str] = {
    **{split: split for split in SPLITS},
    "training": "train",
    "validation": "val",
    "valid": "val",
    "testing": "test",
}


class TableRows(NamedTuple):
    """What a table tells of the images.

    Attributes:
        cells: of each image that has exactly one row, by its name.
        problems: rows without image or of several, images without row or of several rows.
        remarks: what becomes of columns that the prepared table has itself, in words.
    """

    cells: dict[str, dict[str, str]]
    problems: list[Problem]
    remarks: list[str]


def find_lab_table(source: Path, metadata: str | Path | None) -> Path | None:
    """The table named, else the one CSV file of the source folder, or None where it has none.

    Raises:
        DataError: the named file is missing, or the folder has several CSV files.
    """
    if metadata is not None:
        given = Path(metadata)
        path = given if given.is_file() else source / given
        if not path.is_file():
            raise DataError(f"{metadata}: no such table, here or in {source}; check --metadata")
        return path
    tables = [path for path in sorted(source.glob("*.csv")) if not path.name.startswith(".")]
    if len(tables) > 1:
        raise DataError(
            f"{source}: several CSV files ({', '.join(path.name for path in tables)}); name the "
            "one that holds the metadata with --metadata"
        )
    return tables[0] if tables else None


def rows_of_images(
    table: Path | None,
    key: str | None,
    split: str | None,
    group: Sequence[str],
    names: Sequence[str],
) -> TableRows:
    """Give every image its row of the table.

    Args:
        table: CSV file; without one every image has a row without cells.
        key: column that names the images, by path, by file name, or either without its suffix;
            None takes the first of `KEYS` that the table has.
        split: column of the split, see `split_of`.
        group: columns that make the group, where they are named.
        names: paths of the images relative to their folder.

    Raises:
        DataError: the table cannot be read or has no such column, no row fits any image, or a
            column is named without a table.
    """
    if table is None:
        idle = [f"{name}={value!r}" for name, value in (("key", key), ("split", split)) if value]
        if idle:
            raise DataError(
                f"{', '.join(idle)}: there is no table that has columns; name it with --metadata, "
                "or leave this out"
            )
        return TableRows({name: {} for name in names}, [], [])
    header, lines, broken = read_lines(table)
    column = _key_column(table, header, key)
    if split is not None and split not in header:
        raise DataError(
            f"{table}: no column {split!r}; it has {', '.join(header)}: name the split's with "
            "--split"
        )
    ways: dict[str, list[str]] = defaultdict(list)
    for name in names:
        last = PurePosixPath(name).name
        for way in dict.fromkeys((name, without_suffix(name), last, without_suffix(last))):
            ways[composed(way)].append(name)
    rows: dict[str, list[tuple[int, dict[str, str]]]] = defaultdict(list)
    problems = [Problem("", table.name, text, "mend the row") for text in broken]
    for number, cells in lines:
        value = composed(cells[column].strip().replace("\\", "/"))
        found = ways.get(value) or ways.get(PurePosixPath(value).name, [])
        if len(found) == 1:
            rows[found[0]].append((number, {name: cells[name] for name in header if name}))
            continue
        told = f"row {number}: {column}={value!r} names " + (
            f"several images ({', '.join(found)})" if found else "no image"
        )
        problems.append(Problem(value, table.name, told, "mend the row, or get the image"))
    if not rows:
        raise DataError(
            f"{table}: no row of {len(lines)} fits any of {len(names)} images by its column "
            f"{column!r} (row {lines[0][0]}: {lines[0][1][column]!r}, first image: {names[0]!r}); "
            "name the right column with --key"
            if lines and names
            else f"{table}: no row fits any image; check the folder of the images"
        )
    for name in names:
        if len(rows[name]) != 1:
            numbers = ", ".join(str(number) for number, _ in rows[name])
            told = f"is in rows {numbers}" if numbers else "has no row"
            problems.append(Problem(name, table.name, told, "give every image one row"))
    cells_of = {name: found[0][1] for name, found in rows.items() if len(found) == 1}
    return TableRows(cells_of, problems, _remarks(header, {column, split or "split"}, group))


def as_columns(cells: Mapping[str, str]) -> dict[str, str]:
    """The cells that become columns of the prepared table: all but those it has itself."""
    return {name: composed(text.strip()) for name, text in cells.items() if name not in OWN_COLUMNS}


def group_of(cells: Mapping[str, str]) -> str:
    """The group that a row gives; "" where there is no such column, or nothing in it."""
    return composed(cells.get("group", "").strip())


def split_of(cells: Mapping[str, str], column: str | None, case: str) -> str | Problem:
    """The split that a row gives; "" where there is no such column.

    Args:
        cells: of the row.
        column: None takes `split` where the table has it.
        case: for the problem.
    """
    name = column or "split"
    if name not in cells:
        return ""
    text = cells[name].strip()
    found = SPLIT_NAMES.get(text.lower())
    if found is None:
        told = f"column {name!r}: unknown split {text!r}, expected {', '.join(SPLIT_NAMES)}"
        return Problem(case, "", told, "mend the row")
    return found


def _remarks(header: Sequence[str], used: set[str], group: Sequence[str]) -> list[str]:
    """What is told of columns of the table that the prepared one has itself."""
    remarks = []
    if "group" in header and not group:
        remarks.append(
            "the table's column group makes the groups, which stay in one split; name other "
            "columns with --group"
        )
    if not group or "group" in group:
        used = {*used, "group"}
    lost = [name for name in header if name in OWN_COLUMNS and name not in used]
    if lost:
        remarks.append(
            f"columns of the table that are left out, as table.csv has its own of these names: "
            f"{', '.join(lost)}; rename them to keep them"
        )
    return remarks


def _key_column(table: Path, header: Sequence[str], key: str | None) -> str:
    if key is not None:
        if key not in header:
            raise DataError(
                f"{table}: no column {key!r}; it has {', '.join(header)}: name one with --key"
            )
        return key
    known = {name.lower(): name for name in reversed(header)}
    for name in KEYS:
        if name in known:
            return known[name]
    raise DataError(
        f"{table}: which column names the images? It has {', '.join(header)}; say it with --key"
    )
