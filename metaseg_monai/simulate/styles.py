"""A data set whose training masks were drawn in several annotation styles (paper 3.2)."""

import math
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from skimage.measure import label as connected_components

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images.image import Meaning, image_suffix
from metaseg_monai.images.read import read_label
from metaseg_monai.images.write import mask_suffix, write_mask
from metaseg_monai.rows import write_table
from metaseg_monai.simulate.generated import (
    INSTANCES,
    Stored,
    is_whole,
    read_stored,
    require,
    write_generated,
)
from metaseg_monai.simulate.polygons import Labels, polygonise
from metaseg_monai.tables.columns import ColumnMap, as_column_map
from metaseg_monai.tables.licenses import data_license

TOLERANCES: Mapping[str, float] = {"exact": 0.0, "fine": 2.0, "coarse": 3.5}  # paper figure S2
EXAMPLE = "as {'exact': 0, 'fine': 2, 'coarse': 3.5}"
SUMMARY_FILE = "styles.csv"


class StyleSummary(NamedTuple):
    """What one style did to its training masks.

    Attributes:
        style: its name.
        tolerance_px: with which its outlines were simplified, in pixels.
        rows: training rows drawn so.
        objects: in these rows.
        area_change: mean over the objects of (new area - exact area) / exact area.
        f1: of all pixels of these rows together, against the exact masks.
    """

    style: str
    tolerance_px: float
    rows: int
    objects: int
    area_change: float
    f1: float

    def __str__(self) -> str:
        """One line, for the command line."""
        return (
            f"{self.style}: {self.rows} masks, {self.objects} objects, tolerance "
            f"{self.tolerance_px:.2f} px, area {self.area_change:+.1%}, F1 {self.f1:.3f} against "
            "exact"
        )


def prepare_styles(
    source: str | Path,
    output: str | Path,
    tolerances: Mapping[str, float] | None = None,
    seed: int = 0,
    columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
    balance: str | None = None,
    unit: str = "group",
    column: str = "style",
) -> list[StyleSummary]:
    """Copy a folder, its training masks drawn in equal shares of several annotation styles.

    Example:
        python -m metaseg_monai prepare styles --source cells --output styled --balance cell_line

    Validation and test masks stay exact, as in paper 3.2. Objects are told apart by the column
    ``instances`` (a file of object numbers, drawn again too), by a label of object numbers, or as
    connected parts. Images are copied byte for byte, and so are labels that stay exact. The folder
    appears complete or not at all; the same arguments give the same bytes. An image may have
    several rows, such as one for each task: they have one style, and each its own label.

    Args:
        source: folder with a table, or the table.
        output: a new or empty folder. Gets the table with the new column, styles.csv (the change
            of every style) and, where a column map was given, columns.json, to use from then on.
        tolerances: '{"exact": 0, "fine": 2, "coarse": 3.5}' by default (paper figure S2), the
            tolerance in pixels of each style, see `polygonise`; exactly one is 0. The texts' are
            of 1080 x 1080 pixels.
        seed: draws who is drawn in which style.
        columns: the column map, its settings, or its JSON file; None is the plain form.
        balance: column of the table, such as cell_line, within whose values the shares are equal.
        unit: "group" draws all images of a group in one style, as one person would; "image" only
            all rows of an image, for shares that are equal where groups are few.
        column: name of the new column, where the table has a column style already.

    Returns:
        One summary for each style, in the order of `tolerances`.

    Raises:
        ConfigError: a setting is wrong or names a column that the table has not.
        DataError: `output` holds files, the table has problems, no label or no training rows, or a
            label is no plane of whole numbers.
    """
    tolerances = dict(_checked(TOLERANCES if tolerances is None else tolerances))
    require(
        (is_whole(seed), f"seed={seed!r}: expected a whole number, 0 or more"),
        (unit in ("group", "image"), f"unit={unit!r}: expected group or image"),
    )
    given, columns = columns is not None, as_column_map(columns)
    require(
        (
            columns.label is not None,
            "column map: label is null; styles need a column of label files",
        ),
        (
            not isinstance(columns.label_values, dict),
            "column map: label_values that a metadata field decides give one label several masks; "
            "save each mask as a label of its own first",
        ),
    )
    table, rows = read_stored(source, columns)
    own = [columns.image, columns.label, columns.group, columns.split, columns.case, INSTANCES]
    told = ", ".join(sorted({str(row.cells.get(column)) for row in rows}))
    header = rows[0].cells
    require(
        (
            isinstance(column, str) and bool(column.strip()) and column not in own,
            f"column={column!r}: expected a new column's name, such as style",
        ),
        (
            len({row.cells.get(column) for row in rows}) == 1,
            f"{table.path}: its column {column!r} already tells rows apart ({told}); give the "
            "styles another column (column, or --column on the command line)",
        ),
        (
            balance is None or balance in header,
            f"balance={balance!r}: no such column; the table has {', '.join(header)}",
        ),
    )
    home = table.path.parent.resolve()
    training = [row for row in rows if row.split == "train"]
    style_of = share_styles(training, list(tolerances), seed, balance, unit)
    (exact,) = (name for name, tolerance in tolerances.items() if tolerance == 0)
    summary: list[StyleSummary] = []

    def write(folder: Path) -> None:
        changes: dict[str, list[Change]] = {name: [] for name in tolerances}
        lines = []
        for row in rows:
            style = style_of[row.images] if row.split == "train" else exact
            cells, copied = {**row.cells, column: style}, list(row.images)
            if row.split == "train":
                drawing, change = redraw(_read(row, home, columns), tolerances[style])
                changes[style].append(change)
            if style == exact:
                copied = row.files
            else:  # under a name that tells the style, as another row may use the exact one
                for name, path, mask, like in (
                    (str(columns.label), row.label, drawing.label, drawing.of_label),
                    (INSTANCES, row.instances, drawing.objects, drawing.of_objects),
                ):
                    if path is not None:
                        stem = path[: len(path) - len(image_suffix(path))]
                        cells[name] = f"{stem}__{style}{mask_suffix(like)}"
                        write_mask(mask, folder / cells[name], like)
            for path in copied:
                if not (folder / path).exists():  # several rows may share an image
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(home / path, folder / path)
            lines.append(cells)
        write_table(lines, folder / table.path.name)
        if given:  # what it excludes is not in the new table
            columns.model_copy(update={"exclude": []}).save(folder / "columns.json")
        summary.extend(_summarise(name, tolerances[name], changes[name]) for name in tolerances)
        write_table([row._asdict() for row in summary], folder / SUMMARY_FILE)

    settings = {
        "tolerances_px": tolerances,
        "seed": seed,
        "balance": balance,
        "unit": unit,
        "source": table.digest,
    }
    licenses = data_license(table.path.parent, table.folder)
    write_generated(Path(output), settings, write, class_names=table.class_names, licenses=licenses)
    return summary


def _checked(tolerances: object) -> Mapping[str, float]:
    """The tolerances in pixels by style, of which exactly one is 0."""
    if not isinstance(tolerances, Mapping):
        raise ConfigError(
            f"tolerances={tolerances!r}: expected the tolerance in pixels of each style, {EXAMPLE}"
        )
    for name, tolerance in tolerances.items():
        require(
            (
                isinstance(name, str) and bool(re.fullmatch(r"[\w-]+", name)),
                f"tolerances: {name!r} cannot name files; use letters, digits, - and _",
            ),
            (
                _is_number(tolerance) and tolerance >= 0,
                f"tolerances: {name!r} is {tolerance!r}, expected a number of pixels from 0, "
                f"{EXAMPLE}",
            ),
        )
    require(
        (
            list(tolerances.values()).count(0) == 1,
            f"tolerances={dict(tolerances)}: expected one style of tolerance 0, that of the "
            f"validation and test masks, {EXAMPLE}",
        )
    )
    return tolerances


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def share_styles(
    rows: Sequence[Stored], styles: Sequence[str], seed: int, balance: str | None, unit: str
) -> dict[tuple[str, ...], str]:
    """Give every image a style, so that each style has its share of the rows.

    In an order drawn by the seed, each unit takes the style that has the fewest rows so far among
    the units with its value of `balance`, then in all. Shares differ by a unit at most.

    Returns:
        {files of an image: its style}.
    """
    unit_of: dict[tuple[str, ...], Any] = {}
    members: dict[Any, list[Stored]] = defaultdict(list)
    for row in rows:
        own = row.group if unit == "group" else row.images
        members[unit_of.setdefault(row.images, own)].append(row)
    units, drawn = list(members), {}
    taken: Counter[tuple[str, str]] = Counter()
    in_all: Counter[str] = Counter()
    for place in np.random.default_rng(seed).permutation(len(units)):
        own_rows = members[units[place]]
        value = "\n".join(sorted({row.cells[balance] for row in own_rows})) if balance else ""
        style = min(styles, key=lambda name: (taken[value, name], in_all[name]))
        drawn[units[place]] = style
        taken[value, style] += len(own_rows)
        in_all[style] += len(own_rows)
    return {images: drawn[own] for images, own in unit_of.items()}


# One label drawn again, and what that changed.


class Drawing(NamedTuple):
    """The files of a case that hold its mask.

    Attributes:
        label: (H, W) label as stored; 0 is background.
        objects: (H, W) object numbers; 0 is background.
        of_label: attributes of the label's file.
        of_objects: attributes of the file of object numbers; empty where the label gave them.
    """

    label: Labels
    objects: Labels
    of_label: Mapping[str, Any]
    of_objects: Mapping[str, Any]


class Change(NamedTuple):
    """What a style did to the objects of one mask, in pixels.

    Attributes:
        areas: (N,) of the objects before.
        redrawn: (N,) of the same objects after.
        tp: foreground pixels of both.
    """

    areas: np.ndarray
    redrawn: np.ndarray
    tp: int


def _read(row: Stored, home: Path, columns: ColumnMap) -> Drawing:
    """Read a label and tell its objects apart.

    They have a file of their own, or the label holds their numbers; else they are the connected
    parts of one value, pixels that touch at their corners included.
    """
    numbered, values = columns.label_values == INSTANCES, columns.mask_values
    try:
        label, of_label = _read_plane(home / str(row.label), values)
        if row.instances is None:
            objects = label if numbered else connected_components(label, connectivity=2)
            return Drawing(label, objects, of_label, {})
        objects, of_objects = _read_plane(home / row.instances, values)
    except DataError as error:
        raise DataError(f"case {row.case!r}: {error}") from error
    if objects.shape != label.shape or bool(((objects > 0) != (label > 0)).any()):
        raise DataError(
            f"case {row.case!r}: {row.instances}: its objects cover other pixels than the label "
            f"{row.label}; save both from one mask, or leave the cell of the column instances "
            "empty where it tells no objects"
        )
    return Drawing(label, objects, of_label, of_objects)


def _read_plane(path: Path, values: Meaning | None) -> tuple[Labels, Mapping[str, Any]]:
    image = read_label(path, values=values)
    if image.array.ndim != 3 or len(image.array) != 1:
        raise DataError(
            f"{path}: shape {image.array.shape}, expected one plane of whole numbers (1, H, W); "
            "cut volumes into planes first"
        )
    plane = image.array[0]
    if plane.min() < 0:
        raise DataError(f"{path}: expected whole numbers from 0; save the label anew")
    return plane, image.attributes


def _areas(objects: Labels) -> np.ndarray:
    return np.unique(objects[objects > 0], return_counts=True)[1]


def redraw(drawing: Drawing, tolerance_px: float) -> tuple[Drawing, Change]:
    """Draw every object again, see `polygonise`; each keeps its number and its label value."""
    objects = polygonise(drawing.objects, tolerance_px)
    label = objects
    if drawing.objects is not drawing.label:
        # An object has one label value: its parts were told apart by value, or all are foreground.
        numbers, places = np.unique(drawing.objects, return_index=True)
        label = drawing.label.ravel()[places][np.searchsorted(numbers, objects)]
        if numbers[0] != 0:  # no background before, but there may be some now
            label = np.where(objects == 0, 0, label)
    both = int(((drawing.objects > 0) & (objects > 0)).sum())
    change = Change(_areas(drawing.objects), _areas(objects), both)  # no object vanishes
    return drawing._replace(label=label, objects=objects), change


def _summarise(style: str, tolerance_px: float, changes: Sequence[Change]) -> StyleSummary:
    none = np.zeros(0)
    before = np.concatenate([none, *(change.areas for change in changes)])
    after = np.concatenate([none, *(change.redrawn for change in changes)])
    tp, pixels = sum(change.tp for change in changes), float(before.sum() + after.sum())
    return StyleSummary(
        style,
        tolerance_px,
        rows=len(changes),
        objects=len(before),
        area_change=float(((after - before) / before).mean()) if before.size else math.nan,
        f1=2 * tp / pixels if pixels else math.nan,
    )
