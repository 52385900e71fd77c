"""A lab's own table of images: which row belongs to which file."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from metaseg_monai.errors import DataError
from metaseg_monai.files import read_lines
from metaseg_monai.prepare.found import OWN_COLUMNS, FoundCase, Problem, composed, without_suffix
from metaseg_monai.tables.columns import SPLITS

KEYS = ("image", "file", "filename", "file_name", "image_name", "image_id", "name", "stem", "id")
SPLIT_NAMES: Mapping[str, str] = {
    **{split: split for split in SPLITS},
    "training": "train",
    "validation": "val",
    "valid": "val",
    "testing": "test",
}


@dataclass(frozen=True)
class LabTable:
    """What a table tells of the images.

    Attributes:
        cells: of each image that has exactly one row, by its name.
        split: column of the split; None takes `split` where the table has it.
        told: rows without image or of several, images without row or of several rows; and what
            becomes of columns that the prepared table has itself, in words.
    """

    cells: Mapping[str, Mapping[str, str]]
    split: str | None
    told: Sequence[Problem | str]

    def described(self, case: FoundCase, name: str) -> list[FoundCase | Problem]:
        """The case with columns, group and split of its image's row; [] where it has no one row."""
        if name not in self.cells:
            return []
        return [described(case, self.cells[name], self.split)]


def described(
    case: FoundCase, cells: Mapping[str, str], split: str | None = None
) -> FoundCase | Problem:
    """A case with the columns, the group and the split that cells give.

    Args:
        case: the case.
        cells: all but the table's own become columns; `group` gives the group.
        split: the cell that gives the split, see `LabTable`.
    """
    name = split or "split"
    text = cells.get(name, "").strip()
    if name in cells and text.lower() not in SPLIT_NAMES:
        told = f"column {name!r}: unknown split {text!r}, expected {', '.join(SPLIT_NAMES)}"
        return Problem(case.case, "", told, "mend the row")
    return replace(
        case,
        columns={
            name: composed(cell.strip()) for name, cell in cells.items() if name not in OWN_COLUMNS
        },
        group=composed(cells.get("group", "").strip()),
        split=SPLIT_NAMES.get(text.lower(), ""),
    )


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


def read_lab_table(
    table: Path | None,
    key: str | None,
    split: str | None,
    group: Sequence[str],
    names: Sequence[str],
) -> LabTable:
    """Give every image its row of the table.

    Args:
        table: CSV file; without one every image has a row without cells.
        key: column that names the images, by path, by file name, or either without its suffix;
            None takes the first of `KEYS` that the table has.
        split: column of the split, see `LabTable`.
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
        return LabTable({name: {} for name in names}, None, [])
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
    told: list[Problem | str] = [Problem("", table.name, text, "mend the row") for text in broken]
    for number, cells in lines:
        value = composed(cells[column].strip().replace("\\", "/"))
        found = ways.get(value) or ways.get(PurePosixPath(value).name, [])
        if len(found) == 1:
            rows[found[0]].append((number, {name: cells[name] for name in header if name}))
        else:
            which = f"several images ({', '.join(found)})" if found else "no image"
            problem = f"row {number}: {column}={value!r} names {which}"
            told.append(Problem(value, table.name, problem, "mend the row, or get the image"))
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
            problem = f"is in rows {numbers}" if numbers else "has no row"
            told.append(Problem(name, table.name, problem, "give every image one row"))
    told += _remarks(header, {column, split or "split"}, group)
    cells_of = {name: found[0][1] for name, found in rows.items() if len(found) == 1}
    return LabTable(cells_of, split, told)


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
