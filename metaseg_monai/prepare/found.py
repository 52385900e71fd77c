"""What a source holds before any pixel is read: cases, their rows of a lab's table, problems."""

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TypeVar

from metaseg_monai.errors import DataError, Problem, one_line
from metaseg_monai.images.image import FORMAT_OF_SUFFIX, PICTURES, SLIDES, image_suffix
from metaseg_monai.naming import composed
from metaseg_monai.rows import read_lines
from metaseg_monai.tables.columns import SPLITS

Item = TypeVar("Item")
KEYS = ("image", "file", "filename", "file_name", "image_name", "image_id", "name", "stem", "id")
SPLIT_NAMES: Mapping[str, str] = {
    **{split: split for split in SPLITS},
    "training": "train",
    "validation": "val",
    "valid": "val",
    "testing": "test",
}
SHOWN = 5  # names in a message
OWN_COLUMNS = ("image", "label", "instances", "group", "split")  # the table's, never a lab's


@dataclass(frozen=True)
class FoundCase:
    """The files of one case and what is known of it.

    Attributes:
        case: its name, which becomes the name of its files.
        images: one file, or one a plane in the order of the channels to be.
        masks: the files of its mask, as the mask's rule wants them; empty where there are none.
        columns: metadata as text by column.
        planes: a name for every image of several.
        group: what stays in one split; "" until it is decided.
        split: train, val or test; "" where it is to be drawn.
        targets: files of images that are to be predicted, by what they show. Each makes a row, its
            label the target and its mask, if there is one, in a column of its own.
        box: the part of all files that the case is, (top, left, bottom, right) in pixels; None for
            all.
    """

    case: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    planes: tuple[str, ...] = ()
    group: str = ""
    split: str = ""
    targets: Mapping[str, Path] = field(default_factory=dict)
    box: tuple[int, int, int, int] | None = None

    def problem(self, root: Path, problem: str, next_step: str) -> Problem:
        """A problem of its first image."""
        return Problem(self.case, relative(self.images[0], root), problem, next_step)

    def problem_of(self, root: Path, error: DataError) -> Problem:
        """The problem that an error tells, at the file with which its message begins."""
        files = (*self.images, *self.masks, *self.targets.values())
        told = [file for file in files if str(error).startswith(f"{file}:")]
        file = told[0] if told else self.images[0]
        return Problem.of_error(self.case, relative(file, root), file, error)


@dataclass(frozen=True)
class FoundFolder:
    """The cases of a source.

    Attributes:
        root: folder that messages name files relative to.
        cases: those that have all their files.
        problems: why others have not.
        remarks: what is allowed but seldom meant, in words.
    """

    root: Path
    cases: tuple[FoundCase, ...] = ()
    problems: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All cases, those with problems too."""
        return sorted({c.case for c in self.cases} | {p.case for p in self.problems})

    @classmethod
    def of(cls, root: Path, found: Iterable[FoundCase | Problem | str]) -> "FoundFolder":
        """Cases, problems and remarks as a layout comes upon them."""
        told = list(found)
        return cls(
            root,
            tuple(one for one in told if isinstance(one, FoundCase)),
            tuple(one for one in told if isinstance(one, Problem)),
            tuple(one for one in told if isinstance(one, str)),
        )


def source_folder(source: str | Path, expected: str) -> Path:
    """The source as a path.

    Raises:
        DataError: there is no such folder; says what it is expected to hold.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected {expected}")
    return folder


def visible_files(folder: Path) -> list[Path]:
    """All files below a folder in the order of their paths, without hidden ones.

    And what is named as an image and is none, a link to nothing, a FIFO or an empty folder: who
    reads it says so.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if (path.is_file() or (is_image(path) and not (path.is_dir() and any(path.iterdir()))))
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def is_image(path: Path) -> bool:
    """Whether the name is that of an image that can be read."""
    return image_suffix(path) in FORMAT_OF_SUFFIX


def masks_of(paths: Sequence[Path], read: Collection[str] = FORMAT_OF_SUFFIX) -> list[Path]:
    """Those that are read; if there is none, pictures that are not, which who reads them says.

    Args:
        paths: of one case.
        read: suffixes.

    >>> [path.name for path in masks_of([Path("a.txt"), Path("a.gif")])]
    ['a.gif']
    """
    others = [path for path in paths if path.suffix.lower() in (*PICTURES, *SLIDES)]
    return [path for path in paths if image_suffix(path) in read] or others


def without_suffix(name: str) -> str:
    """A path as text without the suffix of an image.

    >>> without_suffix("a/b.nii.gz"), without_suffix("c.d.tif")
    ('a/b', 'c.d')
    """
    return name[: len(name) - len(image_suffix(name))]


def relative(path: Path, root: Path) -> str:
    """A path below a folder, with slashes."""
    return path.relative_to(root).as_posix()


def listed(names: Iterable[str], shown: int = SHOWN, rest: int = 0) -> str:
    """The first names, and how many more there are, with those that nobody named.

    >>> listed("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    names = list(names)
    rest += max(0, len(names) - shown)
    more = f" and {rest} more" if rest else ""
    return one_line(", ".join(names[:shown])) + more


# Searched for in a process of its own, as nothing else stops a pattern everywhere. One name a line.
_SEARCH = """
import json, re, sys
text, whole, names = json.load(sys.stdin)
pattern = re.compile(text)
for name in names:
    match = pattern.fullmatch(name) if whole else pattern.match(name)
    print(json.dumps(match and match.groups()), flush=True)
"""
SEARCH_S = 10.0  # 8,000 names take a tenth of a second


def compiled(setting: str, text: str) -> re.Pattern[str]:
    """A regular expression of the user's; DataError, with the setting's name, if it is none."""
    try:
        return re.compile(composed(text))
    except (re.error, RecursionError, OverflowError) as error:
        raise DataError(f"{setting}={text!r}: no regular expression ({error}); mend it") from error


def groups_of(
    setting: str, pattern: re.Pattern[str], names: Sequence[str], whole: bool = True
) -> list[tuple[str | None, ...] | None]:
    """The groups of a pattern in each name, None where it does not fit.

    Args:
        setting: name of the pattern, for the message.
        pattern: of `compiled`.
        names: compared in their composed form.
        whole: it fits the whole name, or only its beginning.

    Raises:
        DataError: the search is stopped after `SEARCH_S`, and 1 ms for each name; names the pattern
            and the name at which it went astray.
    """
    told = json.dumps([pattern.pattern, whole, [composed(name) for name in names]])
    limit_s = SEARCH_S + len(names) / 1000
    command = [sys.executable, "-I", "-c", _SEARCH]
    try:
        done = subprocess.run(command, input=told.encode(), capture_output=True, timeout=limit_s)
        lines = done.stdout.splitlines()
    except subprocess.TimeoutExpired as error:
        lines = (error.stdout or b"").splitlines()
    if len(lines) < len(names):
        raise DataError(
            f"{setting}={pattern.pattern!r}: stopped at {names[len(lines)]!r} after {limit_s:.0f} "
            "s, as it can be tried in endlessly many ways; leave out a repetition of what is "
            "repeated already, such as (x+)+, or tell the parts apart by a character between them"
        )
    found = map(json.loads, lines)
    return [None if groups is None else tuple(groups) for groups in found]


def alike(items: Iterable[Item], *keys: Callable[[Item], Hashable]) -> list[list[Item]]:
    """Items that are alike in every key, each with the others like it.

    Args:
        items: to compare.
        keys: the cheapest first: a later one is asked only where all earlier ones agree. An item
            whose key is "" is like no other.

    >>> alike(["a", "A", "b", "aa"], len, str.casefold)
    [['a', 'A']]
    """
    groups = [list(items)]
    for key in keys:
        parts = []
        for group in groups:
            of_key: dict[Hashable, list[Item]] = defaultdict(list)
            for item in group:
                of_key[key(item)].append(item)
            parts += [same for value, same in of_key.items() if len(same) > 1 and value != ""]
        groups = parts
    return groups


def without_namesakes(
    cases: Sequence[FoundCase], root: Path
) -> tuple[list[FoundCase], list[Problem]]:
    """Leave out cases of equal names, which are equal files where case does not count."""
    namesakes = alike(cases, lambda case: case.case.casefold())
    problems = []
    for same in namesakes:
        names = [relative(case.images[0], root) for case in same]
        for place, case in enumerate(same):
            few = [name for at, name in enumerate(names[: SHOWN + 1]) if at != place][:SHOWN]
            told = listed(few, rest=len(names) - 1 - len(few))
            step = "rename one, or remove the copy"
            problems.append(case.problem(root, f"gives the same case as {told}", step))
    left_out = {id(case) for same in namesakes for case in same}
    return [case for case in cases if id(case) not in left_out], problems


# A lab's own table of images: which row belongs to which file.


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
    """A case with the columns, the group and the split that cells give, see `LabTable`."""
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
