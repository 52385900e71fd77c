"""A table of cases: one row is one image x one task (contract 7)."""

import difflib
import hashlib
import inspect
import json
import logging
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from pydoc import locate
from typing import Any, get_args

from metaseg_monai.errors import ConfigError, DataError, MetadataError, Problem, listing, typed
from metaseg_monai.files import read_json, readable, write_json, written_at
from metaseg_monai.images.dicom import is_dicom_folder
from metaseg_monai.images.image import FORMAT_OF_SUFFIX, MISSING, Meaning, image_suffix, unusable
from metaseg_monai.images.ome_zarr import is_zarr
from metaseg_monai.images.read import slice_items
from metaseg_monai.metadata.fields import UNKNOWN, MetadataWarning, read_number, said
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.naming import Folder, composed, likened
from metaseg_monai.rows import read_lines
from metaseg_monai.tables.columns import (
    EVERY_SPLIT,
    ROOT,
    ColumnMap,
    Columns,
    LabelValues,
    Place,
    as_column_map,
    folder_of,
)
from metaseg_monai.tables.tags import with_tags

PLACE_COLUMNS: tuple[str, ...] = get_args(Place)
SPACING_COLUMNS = PLACE_COLUMNS[3:]
GENERATED = "generated.json"  # in a folder that a simulator filled: the settings it had
CLASSES = "classes.json"  # beside a table, and in a run's folder: the names of its classes
DECATHLON = "dataset.json"  # where the Decathlon and nnU-Net name them, under "labels"
OF_LABELS = ("label", "mask", "label_values", "mask_values")  # of an item, for whoever has labels
SHOWN_PROBLEMS = 30
MOST_VALUES = 12

ClassNames = Mapping[Any, str] | str | None

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CaseTable:
    """The items of a validated table.

    Attributes:
        path: the table's file.
        rows: every item, in the table's order: `image` (path, or list of plane paths), `label`
            (path, or list of paths of its channels; absent where the table has none), `mask` (path;
            where the column map names the column), `case`, `group`, `split`, `metadata` (raw
            values by schema field), `label_values` and `mask_values` where the column map gives
            them, `volume`, `plane`, `planes` and `spacing_mm` (z, y, x) where the table has their
            columns, and `columns` (every cell as text).
        remarks: what is allowed but seldom meant, in words.
        class_names: of the label's classes by their numbers, as far as the data set or its user
            tells them; without a name a class is its number.
        root: folder that paths in the table's cells are relative to; None for the table's own.
        fold: that is the split test, of a cross-validation; None where there is none.
        folds: all of that cross-validation.
    """

    path: Path
    rows: tuple[dict[str, Any], ...]
    remarks: tuple[str, ...] = ()
    class_names: Mapping[int, str] = field(default_factory=dict)
    root: Path | None = None
    fold: int | None = None
    folds: tuple[int, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder that paths in the table's cells are relative to."""
        return self.path.parent if self.root is None else self.root

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have rows, in the order train, val, test, calibration."""
        present = {row.get("split") for row in self.rows}
        return tuple(split for split in EVERY_SPLIT if split in present)

    def items(self, split: str) -> list[dict[str, Any]]:
        """The items of a split, copied.

        Raises:
            DataError: the split has no rows.
        """
        items = [deepcopy(row) for row in self.rows if row.get("split") == split]
        if not items:
            raise DataError(
                f"{self.path}: no rows of the split {split!r}; the table has "
                f"{', '.join(self.splits) or 'no splits'}. Give rows that split, or name what the "
                "table calls it in the column map"
            )
        return items

    @property
    def digest(self) -> str:
        """SHA-256 of what the rows say (not of files, folders, and columns that nothing reads)."""
        rows = [
            {k: v for k, v in row.items() if k not in ("image", "label", "mask", "columns")}
            for row in self.rows
        ]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()

    def summary(self) -> str:
        """One line a split: cases, images, groups, and how often each metadata value occurs.

        Fields of more than 12 distinct values are told by their number of values.
        """
        lines = [f"{self.path}: {len(self.rows)} cases"]
        for split in self.splits:
            items = [row for row in self.rows if row.get("split") == split]
            images = {str(item["image"]) for item in items}
            groups = {item["group"] for item in items}
            told = [f"{len(items)} cases", f"{len(images)} images", f"{len(groups)} groups"]
            for name in items[0]["metadata"]:
                counts = Counter(str(item["metadata"][name]) or "missing" for item in items)
                values = ", ".join(f"{value} {n}" for value, n in sorted(counts.items()))
                few = len(counts) <= MOST_VALUES
                told.append(f"{name}: {values if few else f'{len(counts)} values'}")
            lines.append(f"  {split}: {'; '.join(told)}")
        return "\n".join(lines)


@typed
def read_table(
    path: str | Path,
    schema: MetadataSchema | None = None,
    columns: Columns = None,
    simulate: str | Path | None = None,
    class_names: ClassNames = None,
    mask_values: Meaning | None = None,
    problems: list[Problem] | None = None,
    split: str | None = None,
    given: Sequence[Mapping[str, Any]] | None = None,
) -> CaseTable:
    """Read and validate a table; every problem is told at once.

    Args:
        path: the table, or the folder that holds it.
        schema: of the metadata; None reads no metadata.
        columns: the column map, its settings, or its JSON file; None is the plain form.
        simulate: JSON file {"_target_": a simulator, "output": its folder, relative to the file,
            ...}; where `path` is that folder and missing or empty, it is filled once.
        class_names: see `known_class_names`; None takes those that the data set tells.
        mask_values: see `ColumnMap`, whose own it takes the place of.
        problems: gets the rows that are wrong by themselves, see `sift`; None refuses them.
        split: the one that is asked for; None for all.
        given: rows that an application gives instead, of `given_rows`; then no file is read.

    Raises:
        DataError: the table or columns are missing, or rows are wrong: missing files, repeated
            rows or cases, a group or image in two splits, unknown splits, metadata that the
            schema refuses, paths that leave the table's folder; or the folder was simulated with
            other settings.
        ConfigError: the column map or the file of the simulator is wrong.

    Warns:
        MetadataWarning: no training row gives a field.
    """
    if given is not None:
        place = Path(given[0]["image"]).parent / "table.csv"
        return CaseTable(place, tuple(map(dict, given)), class_names=parse_class_names(class_names))
    if simulate is not None:
        _simulate_once(Path(path), Path(simulate))
    columns = as_column_map(columns, mask_values)
    names = parse_class_names(class_names or columns.class_names)
    table, wrong = scan_table(path, schema, columns)
    sift(table, wrong, problems, split)
    tell(table)
    warn_never_given(table.path, table.rows, schema)
    if not names and not columns.label_values:  # else other numbers are the classes
        names = known_class_names(table.path.parent)
    return replace(table, class_names=names)


def parse_class_names(given: ClassNames) -> dict[int, str]:
    """Names of classes by their numbers, from what a user or a file gives.

    Args:
        given: a mapping of numbers to names, or text; None or empty is none.

    Raises:
        ConfigError: anything else, a number below 0, or a class or name that comes twice.

    >>> parse_class_names("1=kidney, 2=liver")
    {1: 'kidney', 2: 'liver'}
    """
    pairs: list[tuple[Any, Any]] = []
    if isinstance(given, str):
        split = (part.partition("=") for part in given.split(",") if "=" in part)
        pairs = [(number, name) for number, _, name in split]
        wrong = len(pairs) != len(given.split(",")) and bool(given.strip())
    else:
        wrong = given is not None and not isinstance(given, Mapping)
        pairs = list(given.items()) if isinstance(given, Mapping) else []
    told = [(str(number).strip(), str(name).strip()) for number, name in pairs]
    numbers = [int(number) if re.fullmatch("[0-9]{1,9}", number) else -1 for number, _ in told]
    names = [name for _, name in told]
    doubled = len(set(numbers)) < len(told) or len(set(names)) < len(told)
    if wrong or doubled or -1 in numbers or not all(names):
        raise ConfigError(
            f"class_names is {given!r}; expected each number once and each name once, as "
            '"1=kidney,2=liver"'
        )
    return dict(sorted(zip(numbers, names, strict=True)))


def given_rows(
    of_split: Mapping[str, Sequence[Mapping[str, Any]]], spatial_dims: int
) -> list[dict[str, Any]]:
    """Rows of a table of cases that are known by their image and label alone.

    They have no metadata, and each image is a group of its own.

    Args:
        of_split: items with the paths `image` and `label`, by split.
        spatial_dims: of the network; 2 makes a row of each axial plane of a volume.

    Raises:
        DataError: an item has no image or label that is there, or one name is that of two.
    """
    rows: list[dict[str, Any]] = []
    for split, items in of_split.items():
        for item in items:
            paths = {key: str(item.get(key) or "") for key in ("image", "label")}
            if lacking := [
                f"{key} {file!r}" for key, file in paths.items() if not Path(file).exists()
            ]:
                raise DataError(
                    f"the {split} cases of an application: {', '.join(lacking)} is not there; give "
                    "each image with its label, as files"
                )
            place = Path(paths["image"])
            case = case_name(place.name, place.is_dir())
            rows.append({**paths, "case": case, "group": case, "split": split, "metadata": {}})
    if twice := [name for name, n in Counter(row["case"] for row in rows).items() if n > 1]:
        raise DataError(f"two images are called {twice[0]}; rename one, or move it elsewhere")
    return slice_items([{**row, "columns": {}} for row in rows], spatial_dims)


def as_known(data: Sequence[dict[str, Any]], cases: CaseTable | None) -> Sequence[dict[str, Any]]:
    """What a table knows of items that an application gives by image and label alone.

    Args:
        data: items; those that have a `case` stay as they are.
        cases: of `given_rows` of these very items.
    """
    if cases is None or all("case" in item for item in data):
        return data
    images = {str(item["image"]) for item in data}
    return [deepcopy(row) for row in cases.rows if row["image"] in images]


def known_class_names(folder: str | Path) -> dict[int, str]:
    """What a data set itself tells of its classes: ``classes.json``, or Decathlon's dataset.json.

    Args:
        folder: that holds the table, or the labels.

    Raises:
        DataError: the file is there and cannot be read.
    """
    for name in (CLASSES, DECATHLON):
        file = Path(folder) / name
        try:
            content = read_json(file)
            if name == DECATHLON:
                content = content["labels"]  # nnU-Net has {name: number}, or regions
                if all(isinstance(value, int) for value in content.values()):
                    content = {number: label for label, number in content.items()}
                elif not all(isinstance(value, str) for value in content.values()):
                    continue
            return parse_class_names(content)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, ValueError, KeyError, AttributeError) as error:
            if name == DECATHLON and not isinstance(error, OSError):
                continue  # of something else
            raise DataError(
                f"{file}: no names of classes ({error}); expected "
                '{"0": "background", "1": "kidney"}; mend or remove it'
            ) from error
    return {}


def save_class_names(names: Mapping[int, str], path: str | Path) -> None:
    """Write names as ``classes.json``, whole or not at all."""
    told = {str(number): name for number, name in names.items()}
    write_json(path, told, indent=None, ensure_ascii=False)


def tell(table: CaseTable) -> None:
    """Put what is said of a table into the log."""
    for remark in table.remarks:
        logger.warning("%s: %s", table.path, remark)


def _simulate_once(folder: Path, recipe: Path) -> None:
    """Have the simulator fill its own folder, or see that it has these settings (contract 16)."""
    try:
        settings = read_json(recipe)
        target, output = settings.pop("_target_"), written_at(recipe.parent / settings["output"])
        if folder.resolve() != output:
            return
        room = f"{__name__.partition('.')[0]}.simulate"  # also where a bundle brings it along
        if not re.fullmatch(rf"{room}\.\w+", target):
            raise ValueError(f"{target} is no simulator of {room}")
        simulator: Any = locate(target)
        settings["output"] = output
        inspect.signature(simulator).bind(**settings)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise ConfigError(
            f"{recipe}: expected {{_target_: a simulator, output: its folder, settings}} "
            f"({type(error).__name__}: {error}); mend the file"
        ) from error
    empty = not folder.exists() or not any(folder.iterdir())
    if empty:
        logger.warning("%s is empty: generating data there, once", folder)
    if empty or (folder / GENERATED).is_file():  # else it is the user's
        simulator(**settings)


class Wrong(str):
    """What is wrong with a table, in words.

    Attributes:
        row: number of the row that is wrong by itself, else 0.
        case: of that row, or its number in words.
        text: what is wrong with it.
        of_split: of that row, as far as it is known.
    """

    row = 0
    case = ""
    text = ""
    of_split: str | None = None

    @classmethod
    def of_row(cls, text: str, row: int, case: str = "", split: str | None = None) -> "Wrong":
        """Of one row; others can be used without it."""
        wrong = cls(f"row {row} ({case}): {text}" if case else f"row {row}: {text}")
        wrong.text, wrong.row, wrong.case, wrong.of_split = text, row, case or f"row {row}", split
        return wrong


def scan_table(
    path: str | Path,
    schema: MetadataSchema | None,
    columns: Columns = None,
    metadata: Mapping[str, Any] | None = None,
    inference: bool = False,
    unknown_trained: bool = False,
    default: Mapping[str, Any] | None = None,
) -> tuple[CaseTable, list[Wrong]]:
    """Read a table; return the rows that are right by themselves, and all problems.

    Args:
        path: the table, or the folder that holds it.
        schema: of the metadata; None reads no metadata.
        columns: as in `read_table`.
        metadata: raw values that take the place of the table's, for all rows.
        inference: the label, group and split columns may be absent, and labels may be empty
            (one that is leaves the labels out of all items).
        unknown_trained: with `inference`, for a network that was trained with unknown metadata: a
            field whose policy is ``unknown`` needs no column, unless a column that nothing reads
            has nearly its name.
        default: with `inference`, raw values of fields that need no column.

    Raises:
        DataError: the table is missing or unreadable, or lacks columns.
        ConfigError: the column map is wrong or names fields that the schema has not.

    Warns:
        MetadataWarning: fields without a column are unknown for every case; names them.
    """
    columns = as_column_map(columns)
    file = find_table(path, columns)
    header, lines, broken = read_lines(file)
    if columns.image not in header and {*columns.channels} & {*header}:
        if absent := [name for name in columns.channels if name not in header]:
            raise DataError(
                f"{file}: no column {listing(absent)}; the images that the model knows have the "
                f"channels {listing(columns.channels)}, in this order: add it"
            )
        header = [columns.image, *(name for name in header if name not in columns.channels)]
        for _, cells in lines:
            planes = [cells.pop(name).strip() for name in columns.channels]
            cells[columns.image] = columns.separator.join(planes)
    root = folder_of(file)
    reading = _Reading(
        *(file, schema, columns, metadata or {}, inference, Folder(root), unknown_trained),
        default=default or {},
    )
    reading.check_header(header)
    excluded = {composed(name): name for name in columns.exclude}
    left_out = {composed(cells[columns.image]) for _, cells in lines} & set(excluded)
    absent = [name for key, name in excluded.items() if key not in left_out]
    problems = [
        Wrong.of_row(text, int(number.removeprefix("row ")))
        for number, _, text in (told.partition(": ") for told in broken)
    ]
    problems += [
        Wrong(f"the column map excludes {name!r}, which no row has") for name in sorted(absent)
    ]
    with readable(root):
        rows = [
            row
            for number, cells in lines
            if composed(cells[columns.image]) not in excluded
            if not reading.is_other_channel(cells)
            for row in reading.rows(number, cells)
        ]
    rows = _joined(rows, columns, inference)
    _name_cases(rows)
    between = _problems_between(rows)
    for row in rows:
        told = row.number, row.case, row.split
        problems += [Wrong.of_row(problem, *told) for problem in row.problems]
    problems += map(Wrong, between)
    right = [row for row in rows if not row.problems]
    labelled = all(row.labels for row in right)
    items = tuple(_as_item(row, root.resolve(), labelled, columns) for row in right)
    remarks = []
    if count := sum("\\" in cells[name] for _, cells in lines for name in reading.of_paths):
        remarks.append(
            f"{count} paths are written with backslashes, as on Windows, and read with / instead"
        )
    if columns.group is not None:
        remarks += _near_groups(rows)
    remarks += [f"case {row.case!r}: {doubt}" for row in rows for doubt in row.doubts]
    remarks += MetadataSchema.told_as(reading.joined)
    return CaseTable(file, items, tuple(remarks), root=root), problems


def find_table(path: str | Path, columns: ColumnMap) -> Path:
    """The table's file.

    Raises:
        DataError: there is none.
    """
    path = Path(path)
    file = path
    if path.is_dir():
        file = path / (Folder(path).find(columns.table) or columns.table)
    if not file.is_file():
        others = ", ".join(sorted(one.name for one in file.parent.glob("*.csv"))[:5])
        raise DataError(
            f"{file}: no such table; expected a folder with {columns.table}, or a CSV file"
            + (
                f". There is {others}: name it as table in a column map (columns_file)"
                if others
                else ". Make one with `python -m metaseg_monai prepare`, or `generate`"
            )
        )
    return file


def refuse(
    path: Path, problems: Sequence[str], kind: type[DataError | MetadataError] = DataError
) -> None:
    """Raise one error that lists the problems, if there are any.

    >>> refuse(Path("table.csv"), ["row 2: no label"])
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.DataError: table.csv: 1 problem
      row 2: no label
    """
    if problems:
        shown = [f"  {problem}" for problem in problems[:SHOWN_PROBLEMS]]
        if len(problems) > SHOWN_PROBLEMS:
            shown.append(f"  and {len(problems) - SHOWN_PROBLEMS} more")
        plural = "" if len(problems) == 1 else "s"
        raise kind("\n".join([f"{path}: {len(problems)} problem{plural}", *shown]))


def sift(
    table: CaseTable,
    wrong: Sequence[Wrong],
    problems: list[Problem] | None,
    split: str | None = None,
) -> None:
    """List the rows that are wrong by themselves, if the others can be used without them.

    Args:
        table: of `scan_table`, and what is `wrong` with it.
        wrong: see `table`.
        problems: gets one a row; None refuses the table.
        split: the one that is asked for: wrong rows of others are told in the log.

    Raises:
        DataError: the whole table is wrong, as where a group is in two splits, or no row is right.
    """
    if not wrong:
        return
    some = any(split in (None, row.get("split")) for row in table.rows)
    if problems is None or not some or not all(one.row for one in wrong):
        refuse(table.path, wrong)
        return
    of_row: dict[int, list[Wrong]] = defaultdict(list)
    for one in wrong:
        of_row[one.row].append(one)
    aside: list[tuple[Problem, str | None]] = []
    for row, told in of_row.items():
        parts = [one.text.rpartition("; ") for one in told]
        found = "; ".join(part[0] or part[2] for part in parts)
        steps = [*(part[2] for part in parts if part[0]), f"mend row {row}"]
        problem = Problem(told[0].case, str(table.path), found, "; ".join(steps))
        aside.append((problem, told[0].of_split))
    set_aside(aside, problems, split)


def set_aside(
    wrong: Iterable[tuple[Problem, str | None]], problems: list[Problem], split: str | None
) -> None:
    """Add to `problems` what is wrong in the split that is asked for (None: in all of them).

    Args:
        wrong: with the split of each, as far as it is known; of other splits it is told in the log.
        problems: gets the others.
        split: see above.
    """
    for problem, of_split in wrong:
        if split is not None and of_split in {*EVERY_SPLIT} - {split}:
            logger.warning("%s; left aside, as it is not of %s", problem, split)
        else:
            problems.append(problem)


def warn_never_given(
    path: Path, rows: Iterable[Mapping[str, Any]], schema: MetadataSchema | None
) -> None:
    """Warn of fields missing in every training row: a network would learn only "unknown" of them.

    A field whose policy is ``error`` is refused row by row before.

    Args:
        path: of the table, for the message.
        rows: with `metadata`, and `split` where the table has one; without, all are of training.
        schema: of the metadata; None has no fields.

    Warns:
        MetadataWarning: names the fields.
    """
    training = [row["metadata"] for row in rows if row.get("split", "train") == "train"]
    never = [
        field.name
        for field in (schema.fields if schema is not None else ())
        if training and all(field.is_missing(raw.get(field.name)) for raw in training)
    ]
    if never:
        warnings.warn(
            f"{path}: no {listing(never)} in any of {len(training)} training row(s), so that a "
            "network would only learn what unknown means; fill the column in, or leave the field "
            "out of the schema",
            MetadataWarning,
            stacklevel=3,
        )


# From the lines of a table to items, with every problem found on the way.


@dataclass
class _Row:
    """One image x one value of `rows_per`; paths are relative, `number` counts the header as 1."""

    number: int
    images: tuple[str, ...]
    labels: tuple[str, ...]
    mask: str | None
    metadata: dict[str, Any]
    group: str
    split: str | None
    case: str
    label_values: LabelValues | None
    problems: list[str]
    cells: Mapping[str, str]
    place: Mapping[str, Any]
    doubts: list[str]


@dataclass(frozen=True)
class _Reading:
    """How the lines of one table become rows; see `scan_table`."""

    file: Path
    schema: MetadataSchema | None
    columns: ColumnMap
    fixed: Mapping[str, Any]
    inference: bool
    files: Folder
    unknown_trained: bool
    default: Mapping[str, Any]
    joined: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # writings, by field

    @property
    def of_paths(self) -> list[str]:
        """The columns of paths."""
        of_training = () if self.inference else (self.columns.label, self.columns.mask)
        return [name for name in (self.columns.image, *of_training) if name is not None]

    @property
    def place(self) -> str:
        """What paths are relative to, in words."""
        return f"the root {self.files.root}" if self.elsewhere else "the table's folder"

    @property
    def elsewhere(self) -> bool:
        """Whether paths are relative to another folder than the table's."""
        return self.files.root != self.file.parent

    def check_header(self, header: Sequence[str]) -> None:
        columns, names = self.columns, self.schema.names if self.schema else ()
        if strangers := sorted(columns.fields_named() - set(names)):
            raise DataError(
                f"{self.file}: the column map names {', '.join(strangers)}, but the fields of the "
                f"schema are {', '.join(names) or 'none'}; mend the one or the other"
            )
        if both := sorted(set(columns.label_channels) & {*map(columns.column_of, names)}):
            raise ConfigError(
                f"{self.file}: label_channels of the column map joins rows by {both[0]}, which is "
                "a field of the schema, so that each row is a case; leave one of both out"
            )
        of_field = {name: columns.column_of(name) for name in names if name not in self.fixed}
        needed: list[str | None] = [columns.image, *of_field.values()]
        if not self.inference:
            needed += [columns.label, columns.mask, columns.group, columns.split]
            needed += columns.label_channels
        needed.append(columns.case)
        absent = {name: column for name, column in of_field.items() if column not in header}
        known = {*columns.place.values(), *PLACE_COLUMNS, columns.split, *needed}
        known |= {columns.label, columns.group}
        unread = [column for column in header if column not in known]
        near = {name: near_name(unread, name, column) for name, column in absent.items()}
        missing = [name for name in needed if name is not None and name not in header]
        spared = [name for name in absent if self._may_lack(name) and not near[name]]
        unknown = [name for name in spared if name not in self.default]
        lacking = [name for name in missing if name not in {absent[one] for one in spared}]
        if lacking:
            steps = [f"did you mean {one!r}?" for one in near.values() if one and self.inference]
            steps.append("Add it, rename the one that has it, or name the table's in a column map")
            text = f"{self.file}: no column {', '.join(map(repr, lacking))}; the table has "
            by_flag = self._by_flag([name for name in absent if absent[name] in lacking])
            raise DataError(f"{text}{', '.join(header)}. {' '.join(steps)}{by_flag}")
        tags = {name: self._tag(name) for name in unknown if self._tag(name)}
        if unknown := [name for name in unknown if name not in tags]:
            warnings.warn(
                f"{self.file}: no column {listing(unknown)}; taken as unknown for every case. Add "
                f"the column, or say that it is not known: --meta {_as_unknown(unknown)}",
                MetadataWarning,
                stacklevel=2,
            )
        if self.inference and names and unread:
            told = "%s: the network is told nothing of column(s) %s, which it was not trained with"
            logger.warning(told, self.file, listing(unread, 8))
        for name, tag in tags.items():
            logger.warning(
                "%s: no column %r; taken from %s of DICOM series, missing in other images",
                *(self.file, name, tag),
            )

    def is_other_channel(self, cells: Mapping[str, str]) -> bool:
        """Whether a line is of a label that is none of `label_channels`."""
        return any(
            column in cells and composed(cells[column].strip()) not in values
            for column, values in self.columns.label_channels.items()
        )

    def _may_lack(self, name: str) -> bool:
        """Whether a table may do without the column of a field."""
        if name in (self.columns.rows_per, *_deciding(self.columns)):
            return False
        if self._tag(name):
            return True
        if not self.inference:
            return False
        may_be_unknown = self.schema is not None and self.schema.field(name).missing == "unknown"
        return name in self.default or (self.unknown_trained and may_be_unknown)

    def _tag(self, name: str) -> str | None:
        """The DICOM element that tells a field's value, if there is one."""
        return None if self.schema is None else self.schema.field(name).tag

    def _by_flag(self, absent: Sequence[str]) -> str:
        """How a prediction is told values of fields that the table has no column of."""
        told = ""
        if unknown := [name for name in absent if self._may_lack(name) and not self._tag(name)]:
            told = f"; or say that it is not known: --meta {_as_unknown(unknown)}"
        if others := [name for name in absent if name not in unknown]:
            given = ",".join(f"{name}=VALUE" for name in others)
            told += f"; or give it for all images: --meta {given}" if self.inference else ""
        return told

    def rows(self, number: int, cells: Mapping[str, str]) -> list[_Row]:
        """The rows of one line; more than one only with `rows_per`."""
        columns = self.columns
        metadata: dict[str, Any] = {
            name: _in_unit(
                composed(cells[columns.column_of(name)].strip()), columns.factors.get(name)
            )
            for name in (self.schema.names if self.schema else ())
            if columns.column_of(name) in cells
        }
        if self.unknown_trained and self.schema is not None:  # no column: as an empty one
            metadata = {name: metadata.get(name, "") for name in self.schema.names}
        metadata.update(self.fixed)
        repeated = columns.rows_per
        if repeated is None or repeated in self.fixed or not metadata[repeated]:
            return [self._row(number, cells, metadata)]
        return [
            self._row(number, cells, {**metadata, repeated: value.strip()})
            for value in metadata[repeated].split(columns.separator)
        ]

    def _row(self, number: int, cells: Mapping[str, str], metadata: dict[str, Any]) -> _Row:
        columns, problems = self.columns, list[str]()
        if self.schema is not None:
            metadata = self.schema.as_declared(metadata, self.joined)
        planes = cells[columns.image].split(columns.separator)
        if len(planes) > 1 and self.files.holds(cells[columns.image].strip()):
            planes = [cells[columns.image]]  # one file, in whose name the separator stands
        images = tuple(self._found(path, columns.image, problems) for path in planes)
        named = (columns.label, columns.mask)
        label, mask = (
            self._found(cells[column], column, problems)
            if column is not None and said(cells.get(column))
            else None
            for column in named
        )
        for column, path in zip(named, (label, mask), strict=True):
            if path is not None and path in images:
                problems.append(f"column {column!r}: its image {path!r}; name its mask")
        group = composed(said(cells.get(columns.group or "", "")))
        group = images[0] if columns.group is None else group
        split = None
        if columns.split in cells:
            given = cells[columns.split].strip()
            split = columns.split_names.get(given, given)
            if split not in EVERY_SPLIT:
                problems.append(
                    f"column {columns.split!r}: unknown split {given!r}, expected "
                    f"{', '.join(EVERY_SPLIT)} or a name in the column map's split_names"
                )
        case = composed(cells[columns.case].strip()) if columns.case is not None else ""
        if columns.case is not None and not _NAMES_A_FILE.fullmatch(case):
            problems.append(
                f"column {columns.case!r}: {case!r} cannot name a file; expected text without "
                "slashes and line breaks"
            )
        foreground = _foreground_values(metadata, columns, problems)
        place = _place_of(cells, columns, problems)
        doubts: list[str] = []
        if len(images) == 1 and not problems:
            try:
                metadata, doubts = with_tags(self.files.root / images[0], metadata, self.schema)
            except DataError as error:  # of a series that cannot be read
                problems.append(str(error))
        if self.schema is not None:
            metadata |= {
                name: value
                for name, value in self.default.items()
                if name not in self.fixed
                and columns.column_of(name) not in cells
                and self.schema.field(name).is_missing(metadata.get(name))
            }
        if not self.inference and columns.label is not None and label is None:
            problems.append(f"column {columns.label!r}: no label; give one, or remove the row")
        if not self.inference and columns.mask is not None and mask is None:
            problems.append(f"column {columns.mask!r}: no mask; give one, or remove the row")
        if not self.inference and not group:
            problems.append(f"column {columns.group!r}: no group; name the patient or well")
        if self.schema is not None:
            problems += self.schema.problems(metadata, "")
        told = foreground, problems, cells, place, doubts
        labels = () if label is None else (label,)
        return _Row(number, images, labels, mask, metadata, group, split, case, *told)

    def _found(self, path: str, column: str, problems: list[str]) -> str:
        """The file inside the table's folder that a cell means; anything else is a problem."""
        path = path.strip()
        if not path:
            problems.append(
                f"column {column!r}: an empty path; expected one relative to {self.place}"
            )
        elif (
            PurePosixPath(path).is_absolute()
            or PureWindowsPath(path).anchor
            or ".." in re.split(r"[/\\]", path)
        ):
            problems.append(
                f"column {column!r}: {path!r} leaves {self.place}; expected a path relative to "
                "it, without '..' (a symbolic link inside the folder may lead elsewhere; images "
                f"that lie elsewhere have their folder in {ROOT})"
            )
        else:
            try:
                found = self.files.find(path)
            except DataError as error:
                problems.append(str(error))
            else:
                there = self.files.root / path
                if found is None and (is_dicom_folder(there) or is_zarr(there)):
                    return path.rstrip("/")  # a series or an image of OME-Zarr, which is one image
                if found is None:
                    problems.append(self._why_not(path, column))
                elif image_suffix(found) not in FORMAT_OF_SUFFIX:
                    problems.append(f"unsupported file type {path!r}")
                path = found or path
        return path

    def _why_not(self, path: str, column: str) -> str:
        """Why there is no file of a path: it is a link to nothing, say, or not there at all."""
        if not path:
            return f"column {column!r}: an empty cell; name a file, or remove the row"
        why = None
        with suppress(OSError):  # of a name too long for any file
            why = unusable(self.files.root / path) or ("is a folder", "name a file in it")
        if why is None or why[0] == MISSING:
            where = f"in {self.files.root}" if self.elsewhere else "beside the table"
            return f"no such file {path!r} {where}"
        return f"column {column!r}: {path!r} {'; '.join(why)}"


def _deciding(columns: ColumnMap) -> list[str]:
    """The field by whose value labels are read, if there is one."""
    return list(columns.label_values) if isinstance(columns.label_values, dict) else []


def _as_unknown(names: Iterable[str]) -> str:
    return ",".join(f"{name}={UNKNOWN}" for name in names)


def near_name(columns: Sequence[str], *names: str) -> str | None:
    """The column that was probably meant by one of the names, if there is one.

    >>> near_name(["AGE", "site"], "age"), near_name(["slice_thicknes"], "slice_thickness_mm")
    ('AGE', 'slice_thicknes')
    >>> near_name(["patient", "stage"], "age")
    """
    by_likeness = {likened(column): column for column in columns}
    for name in names:
        if close := difflib.get_close_matches(likened(name), by_likeness, 1, cutoff=0.8):
            return by_likeness[close[0]]
    return None


_NAMES_A_FILE = re.compile(r"[^/\\\0-\x1f]*[^/\\.\0-\x1f][^/\\\0-\x1f]*")


def _in_unit(cell: str, factor: float | None) -> str:
    """The cell, or both ends of a range, in the field's unit; all else is for the schema."""
    ends = [read_number(end) for end in cell.split("..")]
    if factor is None or len(ends) > 2 or None in ends:
        return cell
    return "..".join(f"{end * factor:.9g}" for end in ends if end is not None)


def _foreground_values(
    metadata: Mapping[str, Any], columns: ColumnMap, problems: list[str]
) -> LabelValues | None:
    """The pixel values that are foreground in this row; None where label values are classes."""
    if not isinstance(columns.label_values, dict):
        return columns.label_values or None
    for name, values in columns.label_values.items():
        if metadata.get(name) in values:
            return list(values[metadata[name]])
        problems.append(
            f"field {name!r}: no label_values for {metadata.get(name)!r} in the column map, "
            f"which has {', '.join(values)}"
        )
    return None


def _place_of(cells: Mapping[str, str], columns: ColumnMap, problems: list[str]) -> dict[str, Any]:
    """Where a row's image lies in its volume, as far as the table says it."""
    names: Mapping[Any, str] = columns.place
    given = {
        name: said(cells[names.get(name, name)])
        for name in PLACE_COLUMNS
        if names.get(name, name) in cells
    }
    place: dict[str, Any] = {}
    before = len(problems)
    if "volume" in given and "plane" in given:  # a column "volume" alone may mean anything
        if missing := [name for name in PLACE_COLUMNS if not given.get(name)]:
            problems.append(f"the place in its volume lacks {', '.join(missing)}; give the columns")
            return {}
        plane, planes = (
            int(text) if text.isascii() and text.isdecimal() else -1
            for text in (given["plane"], given["planes"])
        )
        if not 0 <= plane < planes:
            problems.append(
                f"plane {given['plane']!r} of {given['planes']!r} planes; expected whole numbers, "
                "planes counted from 0"
            )
        place = {"volume": given["volume"], "plane": plane, "planes": planes}
    if given.get("spacing_y_mm") or given.get("spacing_x_mm"):
        given.setdefault("spacing_z_mm", "1")  # of a single image it has no meaning
        sides = [read_number(given.get(name, "")) for name in SPACING_COLUMNS]
        if any(side is None or side <= 0 for side in sides):
            told = ", ".join(f"{name} {given.get(name)!r}" for name in SPACING_COLUMNS)
            problems.append(f"{told}: expected voxel sizes above 0 mm")
        place["spacing_mm"] = tuple(sides)
    return place if len(problems) == before else {}


def case_name(path: str, is_folder: bool = False) -> str:
    """The name of a case by the path of its image, relative to its source.

    >>> case_name("a/b.nii.gz"), case_name("p.1/s2.3", is_folder=True)
    ('a_b', 'p.1_s2.3')
    """
    stem = composed(path).replace("\\", "/")
    if not is_folder:
        stem = stem[: len(stem) - len(image_suffix(stem))]
    return stem.replace("/", "_")


def _name_cases(rows: Sequence[_Row]) -> None:
    """Name every row that has no case: its first image's path, then the metadata that differ."""
    of_stem: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        if not row.case:
            is_folder = image_suffix(row.images[0]) not in FORMAT_OF_SUFFIX  # as 1.2.840.1
            of_stem[case_name(row.images[0], is_folder)].append(row)
    for stem, sharing in of_stem.items():
        differing = [
            name
            for name in sharing[0].metadata
            if len({str(row.metadata.get(name)) for row in sharing}) > 1
        ]
        for row in sharing:
            values = [re.sub(r"[^\w.+-]+", "-", str(row.metadata[name])) for name in differing]
            row.case = "__".join([stem, *values])


def _joined(rows: Sequence[_Row], columns: ColumnMap, inference: bool) -> list[_Row]:
    """The rows, of which those of one image are one where the column map joins their labels."""
    if not columns.label_channels:
        return list(rows)
    ((column, values),) = columns.label_channels.items()
    of_image: dict[tuple[str, ...], list[_Row]] = defaultdict(list)
    for row in rows:
        of_image[row.images].append(row)
    joined = []
    for same in of_image.values():
        told = [composed(row.cells.get(column, "").strip()) for row in same]
        first, problems = same[0], [text for row in same for text in row.problems]
        complete = sorted(told) == sorted(values)
        if not complete and not inference:
            problems.append(
                f"{column} of the rows of its image: {', '.join(told)}, expected "
                f"{', '.join(values)} once each; give the image all of them, or remove its rows"
            )
        for what in ("metadata", "group", "split", "mask"):
            if any(getattr(row, what) != getattr(first, what) for row in same):
                problems.append(
                    f"the rows of its image differ in {what}; mend them, as all are one"
                )
        of_value = dict(zip(told, same, strict=True))
        in_order = [of_value[value] for value in values] if complete else []
        labels = tuple(label for row in in_order for label in row.labels)
        cells = {**first.cells, column: ";".join(values)}
        told_once = list(dict.fromkeys(problems))
        joined.append(replace(first, labels=labels, problems=told_once, cells=cells))
    return joined


def _problems_between(rows: Sequence[_Row]) -> list[str]:
    """Problems that no row shows alone: groups and images in two splits, volumes in two ways.

    A row that repeats another, or its case, is told as a problem of that row, and once.
    """
    problems = []
    first_of_content: dict[tuple[Any, ...], _Row] = {}
    first_of_case: dict[str, _Row] = {}
    for row in rows:
        same = first_of_content.setdefault((row.images, *map(str, row.metadata.values())), row)
        namesake = first_of_case.setdefault(row.case, row)
        if same is not row:
            row.problems.append(f"the same image and metadata as row {same.number}")
        elif namesake is not row:
            row.problems.append(
                f"the case {row.case!r} is also row {namesake.number}; rename an image, or name "
                "the cases in a column of their own"
            )
    placed = [row for row in rows if "volume" in row.place]
    doubles = _several(
        ((row.place["volume"], row.place["plane"]), row.images[0], row.number) for row in placed
    )
    problems += [
        f"plane {plane} of volume {volume!r} has two images: {where}; leave one out"
        for (volume, plane), where in doubles.items()
    ]
    for what in ("group", "planes", "spacing_mm"):
        told = [(r.place["volume"], {"group": r.group, **r.place}[what], r.number) for r in placed]
        problems += [
            f"volume {volume!r} has several values of {what}: {where}; mend one"
            for volume, where in _several(told).items()
        ]
    owners: list[tuple[tuple[str, str], str, int]] = []
    for row in rows:
        if row.split is not None:
            named = [("image", image) for image in dict.fromkeys(row.images)]
            if row.group and row.group not in row.images:
                named.append(("group", row.group))
            owners += [(owner, row.split, row.number) for owner in named]
    problems += [
        f"{kind} {name!r} is in several splits: {where}; keep it in one"
        for (kind, name), where in _several(owners).items()
    ]
    return problems


def _near_groups(rows: Sequence[_Row]) -> list[str]:
    """Names of groups that are probably of one, in several splits."""
    splits: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        if row.group and row.split is not None:
            splits[likened(row.group)].setdefault(row.group, row.split)
    near = [of_name for of_name in splits.values() if len(set(of_name.values())) > 1]
    told = (", ".join(f"{name!r} ({split})" for name, split in one.items()) for one in near)
    return [f"groups that are probably one: {names}; write it alike" for names in told]


def _several(told: Iterable[tuple[Any, Any, int]]) -> dict[Any, str]:
    """Names that have several values, with the first row of each value."""
    values: dict[Any, dict[Any, int]] = defaultdict(dict)
    for name, value, number in told:
        values[name].setdefault(value, number)
    return {
        name: ", ".join(f"{value} (row {number})" for value, number in rows.items())
        for name, rows in values.items()
        if len(rows) > 1
    }


def _as_item(row: _Row, folder: Path, labelled: bool, columns: ColumnMap) -> dict[str, Any]:
    images = [str(folder / image) for image in row.images]
    item: dict[str, Any] = {"image": images[0] if len(images) == 1 else images}
    if labelled and row.labels:
        labels = [str(folder / label) for label in row.labels]
        item["label"] = labels[0] if len(labels) == 1 else labels
        if row.mask is not None:
            item["mask"] = str(folder / row.mask)
        if row.label_values is not None:
            item["label_values"] = row.label_values
        if columns.mask_values is not None:
            item["mask_values"] = columns.mask_values
    item |= {"case": row.case, "group": row.group or row.case, "metadata": row.metadata}
    if row.split is not None:
        item["split"] = row.split
    return {**item, **row.place, "columns": dict(row.cells)}
