"""Which cases of a table a study uses: some domains, fewer of a rare one, fewer empty slices."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import floor
from typing import Any

import numpy as np

from metaseg_monai.errors import ConfigError, DataError, Problem, listing
from metaseg_monai.images.geometry import Axis
from metaseg_monai.images.read import slice_items
from metaseg_monai.metadata.fields import read_number, said
from metaseg_monai.rows import read_lines
from metaseg_monai.tables.columns import EVERY_SPLIT
from metaseg_monai.tables.table import CaseTable

Item = dict[str, Any]

logger = logging.getLogger(__name__)


def select_cases(
    table: CaseTable,
    only: Mapping[str, Sequence[str]] | None = None,
    share: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    seed: int = 0,
    splits: Sequence[str] = EVERY_SPLIT,
) -> CaseTable:
    """Return the table with the rows of some metadata values only, and with thinned values.

    Args:
        table: the whole table.
        only: ``{field: values}``; rows of `splits` with another value are left out. An expert is a
            network trained on one value (thesis 3.3).
        share: ``{field: {value: {"of": "own", "part": 0.2}}}`` or ``{"count": 64}``: of the
            training rows with that value this part, above 0 and at most 1, rounded, or this number
            is kept; one at least (thesis 4.3: an under-represented domain). The log tells counts.
        seed: draws which rows `share` keeps. A smaller part is contained in a larger one.
        splits: the splits in which `only` counts; those it leaves whole.

    Raises:
        ConfigError: a field or value that no row has, or a part outside of 0..1.
        DataError: a split that had rows has none left.

    >>> rows = [{"split": "train", "metadata": {"task": name}} for name in "aabb"]
    >>> table = CaseTable(path="table.csv", rows=tuple(rows))
    >>> half = {"of": "own", "part": 0.5}
    >>> [row["metadata"]["task"] for row in select_cases(table, share={"task": {"b": half}}).rows]
    ['a', 'a', 'b']
    """
    rows = list(table.rows)
    for field, values in (only or {}).items():
        _check_values("only", field, values, table)
        kept = {str(value) for value in values}
        rows = [row for row in rows if row.get("split") not in splits or _value(row, field) in kept]
    for field, parts in (share or {}).items():
        _check_values("share", field, parts, table)
        for value, part in parts.items():
            found = [n for n in _training(rows) if _value(rows[n], field) == str(value)]
            kept_rows = _kept(part, len(found), f"{field}={value}")
            rows = _thinned(rows, found, kept_rows, seed)
            logger.info("%s=%s: %d of %d training cases kept", field, value, kept_rows, len(found))
    selected = replace(table, rows=tuple(rows))
    if emptied := [split for split in table.splits if split not in selected.splits]:
        raise DataError(
            f"{table.path}: only={dict(only or {})} leaves no case in {', '.join(emptied)}; "
            "choose values that every split has"
        )
    return selected


FOREGROUND = "foreground_planes"  # column: which axial planes of a volume have any, see `slices`


def planes_text(planes: Iterable[int]) -> str:
    """Numbers of planes as a cell has them.

    >>> planes_text([3, 4, 5, 9]), planes_text([])
    ('3-5;9', 'none')
    """
    runs: list[list[int]] = []
    for plane in sorted(planes):
        if runs and runs[-1][1] == plane - 1:
            runs[-1][1] = plane
        else:
            runs.append([plane, plane])
    return ";".join(f"{a}-{b}" if b > a else f"{a}" for a, b in runs) or "none"


def _planes_of_text(cell: str, where: str) -> set[int]:
    """What `planes_text` wrote."""
    found: set[int] = set()
    for part in cell.split(";") if cell != "none" else ():
        ends = part.split("-")
        if len(ends) > 2 or not all(one.isascii() and one.isdecimal() for one in ends):
            raise DataError(
                f"{where}: {FOREGROUND} {cell!r}, expected planes from 0 such as 3-5;9, or none; "
                "mend it, or remove the column"
            )
        found |= {*range(int(ends[0]), int(ends[-1]) + 1)}
    return found


def slices(
    table: CaseTable, axis: Axis = "axial", problems: list[Problem] | None = None
) -> CaseTable:
    """Return the table with a row for each plane of its volumes, for networks of planes.

    The planes are read from the volume's own file (NIfTI, or a DICOM series) when they are asked
    for, see `LoadCased`; masks are volumes again, and counts and scores are those of volumes.

    Args:
        table: whose images are volumes, as a table for a network of three dimensions has them.
        axis: that the planes are across.
        problems: gets the volumes that cannot be read, which are left out, unless all are.

    Raises:
        ConfigError: no row is a volume, as where the planes have files or rows of their own.
        DataError: see `slice_items`.
    """
    rows = slice_items(table.rows, problems=problems, axis=axis)
    if not any("plane" in row for row in rows) or any("plane" in row for row in table.rows):
        raise ConfigError(
            f"{table.path}: no row is a whole volume (a NIfTI file of three axes, or a DICOM "
            "series), of which slices could be made; leave slices out of the configuration"
        )
    told = {row["case"]: said(row.get("columns", {}).get(FOREGROUND)) for row in table.rows}
    full = {
        case: _planes_of_text(cell, f"{table.path}: case {case!r}")
        for case, cell in told.items()
        if cell and axis == "axial"
    }
    for row in rows:
        if row.get("volume") in full:
            row["foreground"] = row["plane"] in full[row["volume"]]
    return replace(table, rows=tuple(rows))


def around_objects(
    table: CaseTable, file: str = "nuclei.csv", splits: Sequence[str] = ("train",)
) -> CaseTable:
    """Return the table with a row for each object of its images, for crops around them.

    Such a row has its object's middle as `centre_px`, (row, column) from 0, for `CropAtCentred`; an
    image without objects has none (adipocyte report, 2).

    Args:
        table: with the column instances, as `prepare adipocyte` makes it.
        file: beside the table, with the columns instances, y_px and x_px.
        splits: whose rows become rows of objects; others stay.

    Raises:
        ConfigError: the table has no column instances.
        DataError: the file cannot be read, lacks a column or has no numbers there, or names no
            object of any row.
    """
    if not any(row.get("split") in splits for row in table.rows):
        return table
    if not all("instances" in row.get("columns", {}) for row in table.rows):
        raise ConfigError(
            f"{table.path}: no column instances, whose objects the crops would be around; leave "
            "around_objects out of the configuration"
        )
    path = table.path.parent / file
    if not path.is_file():
        raise DataError(
            f"{path}: no such file, where the centres of objects would stand; no nucleus was found "
            "when the data were prepared (mend the size of a pixel, as camera_pixel_um), or they "
            "were prepared in another way"
        )
    header, lines, broken = read_lines(path)
    lacking = [name for name in ("instances", "y_px", "x_px") if name not in header]
    if lacking or broken:
        told = f"no column {', '.join(lacking)}" if lacking else broken[0]
        raise DataError(f"{path}: {told}; prepare the data anew")
    centres: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number, cells in lines:
        place = [read_number(cells[name]) for name in ("y_px", "x_px")]
        if place[0] is None or place[1] is None:
            raise DataError(f"{path}: row {number}: no numbers in y_px and x_px; mend the row")
        centres[cells["instances"]].append((place[0], place[1]))
    rows: list[Item] = []
    for row in table.rows:
        own = centres.get(row["columns"]["instances"], [])
        divided = row.get("split") in splits
        rows += [{**row, "centre_px": centre} for centre in own] if divided else [row]
    if not any("centre_px" in row for row in rows):
        raise DataError(
            f"{path}: no object in any of the rows of {', '.join(splits)}; prepare the data anew"
        )
    return replace(table, rows=tuple(rows))


def fold_cases(
    table: CaseTable,
    fold: int | None,
    validation: float = 0.15,
    seed: int = 0,
    column: str = "fold",
) -> CaseTable:
    """Return the table with the split of one fold of a cross-validation.

    The rows of the fold are `test`, a drawn share of the other groups `val`, the rest `train`. So
    over all folds every case is tested once, by weights that were trained and chosen on others.
    Rows without a fold are a fixed test set, which no fold sees, and are left out.

    Args:
        table: with the column, whose cells are 0, 1, ... or empty; its own splits do not count.
        fold: that is tested; None for the fixed test set alone, on which an ensemble over the folds
            is tested.
        validation: share of the groups that are not tested, above 0 and below 1; one at least.
        seed: draws which groups they are; another fold draws anew.
        column: of the folds.

    Raises:
        ConfigError: the table has no such column, or the fold or share is out of its range.
        DataError: cells that are no folds, a group in several folds, rows without a fold that are
            of another split than test, too few groups, or no fixed test set.

    >>> rows = [
    ...     {"case": name, "group": name, "split": "train", "columns": {"fold": str(number % 3)}}
    ...     for number, name in enumerate("abcdef")
    ... ]
    >>> table = fold_cases(CaseTable(path="table.csv", rows=tuple(rows)), fold=1)
    >>> [row["split"] for row in table.rows].count("val"), [
    ...     row["case"] for row in table.rows if row["split"] == "test"
    ... ]
    (1, ['b', 'e'])
    """
    if not _is_number(validation) or not 0 < validation < 1:
        raise ConfigError(f"validation={validation!r}: expected a share above 0 and below 1")
    folds = folds_of(table, column)
    known = sorted(set(folds.values()))
    if fold is None:
        fixed = tuple(row for row in table.rows if row["group"] not in folds)
        if not fixed:
            raise DataError(
                f"{table.path}: every case is in a fold, so that networks of several folds were "
                "trained on it; evaluate each on its own fold, whose cases the report of all folds "
                "has once, or add a fixed test set: rows of the split test without a fold"
            )
        return replace(table, rows=fixed)
    if isinstance(fold, bool) or fold not in known:
        raise ConfigError(
            f"fold={fold!r}: {table.path} has the folds {', '.join(map(str, known))} in its column "
            f"{column!r}"
        )
    others = sorted(group for group, of_group in folds.items() if of_group != fold)
    if len(others) < 2:
        raise DataError(
            f"{table.path}: {len(others)} group(s) outside of fold {fold}, expected two at least, "
            "one to train on and one to choose the weights by; give more folds"
        )
    chosen = chosen_by(others, fold, validation, seed)
    rows = [
        {
            **row,
            "split": "test"
            if folds[row["group"]] == fold
            else ("val" if row["group"] in chosen else "train"),
        }
        for row in table.rows
        if row["group"] in folds
    ]
    return replace(table, rows=tuple(rows), fold=fold, folds=tuple(known))


def chosen_by(
    groups: Sequence[str], fold: int, validation: float = 0.15, seed: int = 0
) -> set[str]:
    """The groups, of all that a fold does not test, on which its weights are chosen.

    Args:
        groups: two at least.
        fold: that is tested.
        validation: share of the groups; one at least.
        seed: draws which they are; another fold draws anew.
    """
    others = sorted(groups)
    count = min(max(1, floor(validation * len(others) + 0.5)), len(others) - 1)
    drawn = np.random.default_rng([seed, fold]).permutation(len(others))[:count]
    return {others[place] for place in drawn}


def dealt_folds(table: CaseTable, column: str = "fold") -> list[int]:
    """The folds that a table deals its groups out to; none where no row has one.

    Raises:
        ConfigError, DataError: as `folds_of`.
    """
    if not any(said(row["columns"].get(column)) for row in table.rows):
        return []
    return sorted(set(folds_of(table, column).values()))


def folds_of(table: CaseTable, column: str = "fold") -> dict[str, int]:
    """The fold of each group; groups of a fixed test set have none.

    Args:
        table: with the column.
        column: of the folds.

    Raises:
        ConfigError: the table has no such column, or only one fold.
        DataError: cells that are no folds, a group in several, or rows without a fold that are of
            another split than test.
    """
    told: dict[str, dict[str, str]] = {}  # of a group: the cells, and a case of each
    for row in table.rows:
        cell = said(row["columns"].get(column))
        if column not in row["columns"]:
            raise ConfigError(
                f"{table.path}: no column {column!r}, which gives each group its fold (0, 1, ...); "
                "add it, or make the bundle with new-bundle --folds 5"
            )
        if not cell and row.get("split") != "test":
            raise DataError(
                f"{table.path}: case {row['case']!r} has no {column}, and is no fixed test case "
                f"(its split is {row.get('split')}); give its group a fold, or the split test"
            )
        if cell and not (cell.isascii() and cell.isdecimal()):
            raise DataError(
                f"{table.path}: case {row['case']!r}: {column} {cell!r}, expected 0, 1, ..., or "
                "nothing for a fixed test case; mend it, or rename the column if it tells no folds"
            )
        told.setdefault(row["group"], {}).setdefault(cell and str(int(cell)), row["case"])
    for group, cells in told.items():
        if len(cells) > 1:
            shown = ", ".join(f"{cell or 'none'} (case {case})" for cell, case in cells.items())
            raise DataError(
                f"{table.path}: group {group!r} is in several folds: {shown}; keep it in one"
            )
    folds = {group: int(cell) for group, cells in told.items() for cell in cells if cell}
    if len(known := {*folds.values()}) < 2:
        raise ConfigError(
            f"{table.path}: expected two folds or more in its column {column!r}, got "
            f"{listing(known) or 'none'}; deal more, or empty the column"
        )
    return folds


def fill_epoch(items: Sequence[Item], length: int | None) -> list[Item]:
    """Repeat items, in their order, until an epoch holds `length` of them; None changes nothing.

    With the length of the joint training set an expert takes as many steps as the network for all
    domains (contract 5).

    Raises:
        ConfigError: `length` is less than the number of items, of which some would be lost.

    >>> fill_epoch([{"case": "a"}, {"case": "b"}], length=3)
    [{'case': 'a'}, {'case': 'b'}, {'case': 'a'}]
    """
    if length is None:
        return list(items)
    if length < len(items):
        raise ConfigError(f"an epoch of {length} cases would leave out some of {len(items)}")
    return [items[number % len(items)] for number in range(length)]


def limit_empty(
    table: CaseTable, share: float | None, columns: Sequence[str], seed: int = 0
) -> CaseTable:
    """Return the table with so many empty training slices that they make up a share of them.

    For networks that must see whole volumes: trained on slices with a tumour only (the paper's
    rule) a network has never met a slice without one, and finds one everywhere.

    Args:
        table: the whole table, with rule "all": empty slices are there to be chosen from.
        share: of the training slices that are to be empty, from 0, below 1; None keeps all.
            Where the table has fewer of them, all are kept, and the log says so.
        columns: of the table, with the area of each target class; a slice is empty where all are 0.
        seed: draws which empty slices are kept; all patients together.

    Raises:
        ConfigError: the share is out of its range, the table has not these columns, or no
            training slice is empty.
        DataError: no training slice holds the target.
    """
    if share is None:
        return table
    if not _is_number(share) or not 0 <= share < 1:
        raise ConfigError(f"empty_share={share!r}: expected a number from 0, below 1, or null")
    training = _training(table.rows)
    empty = [number for number in training if _is_empty(table.rows[number], columns)]
    full = len(training) - len(empty)
    if full == 0:
        raise DataError(f"{table.path}: no training slice has {' or '.join(columns)} above 0")
    wanted = floor(full * share / (1 - share) + 0.5)
    if wanted and not empty:
        raise ConfigError(
            f"empty_share={share}: {table.path} has no training slice without "
            f"{' and '.join(columns)}; prepare with --slice-rule all, or set empty_share to null"
        )
    if wanted > len(empty):
        logger.warning(
            "empty_share=%g: only %d training slices are empty, which is a share of %.2f",
            *(share, len(empty), len(empty) / len(training)),
        )
    return replace(table, rows=tuple(_thinned(table.rows, empty, wanted, seed)))


def _kept(share: Any, own: int, what: str) -> int:
    """How many of a value's own training cases a share keeps."""
    count = share.get("count") if isinstance(share, Mapping) and set(share) == {"count"} else None
    if isinstance(count, int) and not isinstance(count, bool) and 0 < count <= own:
        return count
    is_part = isinstance(share, Mapping) and set(share) == {"of", "part"} and share["of"] == "own"
    if is_part and _is_number(share["part"]) and 0 < share["part"] <= 1:
        return max(1, floor(share["part"] * own + 0.5))
    raise ConfigError(
        f'share of {what} is {share!r}; expected {{"of": "own", "part": 0.2}}, a part above 0 and '
        f'at most 1 of its own {own} training cases, or {{"count": 64}}, at most {own}'
    )


def _training(rows: Sequence[Item]) -> list[int]:
    return [number for number, row in enumerate(rows) if row.get("split") == "train"]


def _thinned(rows: Sequence[Item], found: Sequence[int], kept: int, seed: int) -> list[Item]:
    """The rows without those found, of which some are kept; which ones is drawn."""
    order = np.random.default_rng(seed).permutation(len(found))
    dropped = {found[place] for place in order[kept:]}
    return [row for number, row in enumerate(rows) if number not in dropped]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(row: Item, field: str) -> str:
    return str(row["metadata"].get(field))


def _check_values(setting: str, field: str, values: Any, table: CaseTable) -> None:
    known = sorted({_value(row, field) for row in table.rows if field in row["metadata"]})
    unknown = [str(value) for value in values if str(value) not in known]
    if isinstance(values, str) or unknown or not list(values):
        fields = sorted({name for row in table.rows for name in row["metadata"]})
        told = f"its values are {', '.join(known)}" if known else f"fields: {', '.join(fields)}"
        raise ConfigError(
            f"{setting}={{{field!r}: {values!r}}}: expected values of a metadata field of "
            f"{table.path}; {told}."
        )


def _is_empty(row: Item, columns: Sequence[str]) -> bool:
    areas = [read_number(row.get("columns", {}).get(name, "")) for name in columns]
    if not areas or any(area is None for area in areas):
        raise ConfigError(
            f"case {row['case']!r}: no area in {', '.join(columns) or 'any column'}; set "
            "empty_columns to columns of the table that hold areas, or empty_share to null"
        )
    return not any(areas)
