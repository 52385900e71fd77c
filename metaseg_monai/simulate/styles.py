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
from metaseg_monai.files import read_lines, write_table
from metaseg_monai.images.image import image_suffix
from metaseg_monai.images.read import read_image
from metaseg_monai.images.write import mask_suffix, write_mask
from metaseg_monai.metadata.fields import Categorical, said
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.simulate.generated import write_generated
from metaseg_monai.simulate.polygons import Labels, object_diameters, polygonise, scaled_tolerance
from metaseg_monai.tables.check import image_files
from metaseg_monai.tables.columns import ColumnMap, as_column_map
from metaseg_monai.tables.table import CaseTable, find_table, read_table

# One label drawn again in an annotation style, and what that changed.


class Drawing(NamedTuple):
    """The files of a case that hold its mask.

    Attributes:
        label: (H, W) label as stored; 0 is background.
        objects: (H, W) object numbers; 0 is background.
        of_label: attributes of the label's file.
        of_objects: attributes of the file of object numbers, or None where the label gave them.
    """

    label: Labels
    objects: Labels
    of_label: Mapping[str, Any]
    of_objects: Mapping[str, Any] | None


class Change(NamedTuple):
    """What a style did to the objects of one mask, in pixels.

    Attributes:
        areas: (N,) of the objects before.
        redrawn: (N,) of the same objects after.
        tp: foreground pixels of both.
        fp: foreground pixels of the style alone.
        fn: foreground pixels of the exact mask alone.
    """

    areas: np.ndarray
    redrawn: np.ndarray
    tp: int
    fp: int
    fn: int


def read_drawing(label: Path, instances: Path | None, numbered: bool) -> Drawing:
    """Read a label and tell its objects apart.

    Args:
        label: the label's file.
        instances: file of object numbers beside the label, where there is one.
        numbered: the label itself holds object numbers. Where neither is so, the objects are the
            connected parts of one value, pixels that touch at their corners included.

    Raises:
        DataError: a file is no plane of whole numbers, or the two files disagree.
    """
    values, attributes = _read_plane(label)
    if instances is None:
        objects = values if numbered else connected_components(values, connectivity=2)
        return Drawing(values, objects, attributes, None)
    objects, of_objects = _read_plane(instances)
    if objects.shape != values.shape or bool(((objects > 0) != (values > 0)).any()):
        raise DataError(
            f"{instances}: its objects cover other pixels than the label {label}; save both from "
            "one mask, or leave the cell of the column instances empty where it tells no objects"
        )
    return Drawing(values, objects, attributes, of_objects)


def redraw(drawing: Drawing, tolerance_px: float) -> tuple[Drawing, Change]:
    """Draw every object again, see `polygonise`; each keeps its number and its label value."""
    objects = polygonise(drawing.objects, tolerance_px)
    label = objects
    if drawing.objects is not drawing.label:
        # An object has one label value: its parts were told apart by value, or all are foreground.
        numbers, places = np.unique(drawing.objects, return_index=True)
        found = drawing.label.ravel()[places]
        label = found[np.searchsorted(numbers, objects)]
        if numbers[0] != 0:  # no background before, but there may be some now
            label = np.where(objects == 0, 0, label)
    return drawing._replace(label=label, objects=objects), _change(drawing.objects, objects)


def _change(before: Labels, after: Labels) -> Change:
    truth, drawn = before > 0, after > 0
    return Change(
        np.unique(before[truth], return_counts=True)[1],
        np.unique(after[drawn], return_counts=True)[1],  # of the same objects: none vanishes
        int((truth & drawn).sum()),
        int((drawn & ~truth).sum()),
        int((truth & ~drawn).sum()),
    )


def _read_plane(path: Path) -> tuple[Labels, Mapping[str, Any]]:
    image = read_image(path, palette="indices")
    array = image.array
    if array.ndim != 3 or len(array) != 1:
        raise DataError(
            f"{path}: shape {array.shape}, expected one plane of whole numbers (1, H, W); cut "
            "volumes into planes first"
        )
    plane = array[0]
    if plane.dtype.kind == "f" and bool(np.all(np.isfinite(plane) & (plane % 1 == 0))):
        plane = plane.astype(np.int64)
    if plane.dtype.kind not in "bui" or plane.min() < 0:
        raise DataError(f"{path}: expected whole numbers from 0; save the label anew")
    return plane, image.attributes


# What tells the rows of one image apart, where no schema says it.

ROW = "row"


def schema_of_repeats(
    table: Path, columns: ColumnMap
) -> tuple[MetadataSchema | None, dict[str, str]]:
    """Find the column, such as task, whose values differ between the rows of each image.

    Of several the one with the fewest values is taken, and of these the first.

    Args:
        table: the table's file.
        columns: of the table.

    Returns:
        A schema of that column as its only field, and the field's place in a column map
        (`ColumnMap.metadata`). None and {} where no image has several rows, or no column tells
        them apart; `read_table` then refuses them as repeated.

    Raises:
        DataError: the table is no readable CSV file.
    """
    _, lines, _ = read_lines(table)
    rows = [cells for _, cells in lines if cells.get(columns.image) not in columns.exclude]
    images = [cells.get(columns.image, "").strip() for cells in rows]
    if len(set(images)) == len(images):
        return None, {}
    values = {name: [said(cells[name]) for cells in rows] for name in rows[0]}
    telling = [
        name for name, cells in values.items()
        if len(set(zip(images, cells, strict=True))) == len(images)
    ]  # fmt: skip
    if not telling:
        return None, {}
    column = min(telling, key=lambda name: len(set(values[name])))
    field = Categorical(
        name=ROW, values=tuple(sorted({*values[column]} - {""})), missing="unknown",
        provenance="acquisition", availability="acquisition",
    )  # fmt: skip
    return MetadataSchema([field]), {ROW: column}


# What is asked of annotation styles, checked before anything is read or written.

INSTANCES = "instances"  # column with the file of object numbers of a row
EXAMPLE = "as {'exact': 0, 'fine': 2, 'coarse': 3.5}"


def check_tolerances(tolerances: object) -> tuple[dict[str, float], str]:
    """Give the tolerances in pixels by style, and the style that is exact.

    Raises:
        ConfigError: they are no mapping of names to numbers from 0, a name cannot be in that of
            a file, or not exactly one is 0.
    """
    if not isinstance(tolerances, Mapping):
        raise ConfigError(
            f"tolerances={tolerances!r}: expected the tolerance in pixels of each style, {EXAMPLE}"
        )
    for name, tolerance in tolerances.items():
        if not (isinstance(name, str) and re.fullmatch(r"[\w-]+", name)):
            raise ConfigError(
                f"tolerances: {name!r} cannot name files; use letters, digits, - and _"
            )
        if not _is_number(tolerance) or tolerance < 0:
            raise ConfigError(
                f"tolerances: {name!r} is {tolerance!r}, expected a number of pixels from 0, "
                f"{EXAMPLE}"
            )
    exact = [name for name, tolerance in tolerances.items() if tolerance == 0]
    if len(exact) != 1:
        raise ConfigError(
            f"tolerances={dict(tolerances)}: expected one style of tolerance 0, that of the "
            f"validation and test masks, {EXAMPLE}"
        )
    return dict(tolerances), exact[0]


def check_numbers(seed: object, reference_diameter_px: object) -> None:
    """Refuse a seed that is no whole number from 0, or a diameter that is no number above 0.

    Raises:
        ConfigError: so.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed={seed!r}: expected a whole number, 0 or more")
    diameter = reference_diameter_px
    if diameter is not None and not (_is_number(diameter) and diameter > 0):
        raise ConfigError(
            f"reference_diameter_px is {diameter!r}: expected the median diameter of a nucleus in "
            "pixels, a number above 0; leave it out to take the tolerances as they are"
        )


def _is_number(value: Any) -> TypeGuard[float]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def check_map(columns: ColumnMap) -> None:
    """Refuse a column map whose labels are not one drawing each.

    Raises:
        ConfigError: there are no labels, or a metadata field decides what a label's values mean.
    """
    if columns.label is None:
        raise ConfigError("column map: label is null; styles need a column of label files")
    if isinstance(columns.label_values, dict):
        raise ConfigError(
            "column map: label_values that a metadata field decides give one label several masks; "
            "save each mask as a label of its own first"
        )


def check_column(table: CaseTable, column: str, columns: ColumnMap) -> None:
    """Refuse a name for the new column that would replace what the table says.

    Raises:
        ConfigError: the column has a meaning of its own, or tells rows apart.
    """
    own = [columns.image, columns.label, columns.group, columns.split, columns.case, INSTANCES]
    if not isinstance(column, str) or not column.strip() or column in own:
        raise ConfigError(f"column={column!r}: expected a new column's name, such as style")
    values = {item["columns"].get(column) for item in table.rows}
    if len(values) > 1:
        told = ", ".join(sorted(map(str, values)))
        raise ConfigError(
            f"{table.path}: its column {column!r} already tells rows apart ({told}); give the "
            "styles another column (column, or --column on the command line)"
        )


# Who draws in which annotation style: equal shares, seeded, one style for an image or a group.

SharedItem = dict[str, Any]


def share_styles(
    items: Sequence[SharedItem],
    styles: Sequence[str],
    seed: int,
    balance: str | None,
    unit: str,
) -> dict[tuple[str, ...], str]:
    """Give every image a style, so that each style has its share of the rows.

    In an order drawn by the seed, each unit takes the style that has the fewest rows so far among
    the units with its value of `balance`, then in all. Shares differ by a unit at most.

    Args:
        items: rows of a table.
        styles: names.
        seed: draws the order.
        balance: column within whose values the shares are equal, or None.
        unit: "group" gives all images of a group one style, "image" the rows of an image.

    Returns:
        {files of an image: its style}.

    Raises:
        ConfigError: the column is not in the table, or there is no such unit.
    """
    if unit not in ("group", "image"):
        raise ConfigError(f"unit={unit!r}: expected group or image")
    if balance is not None and any(balance not in item["columns"] for item in items):
        known = ", ".join(items[0]["columns"])
        raise ConfigError(f"balance={balance!r}: no such column; the table has {known}")
    unit_of: dict[tuple[str, ...], str] = {}
    members: dict[str, list[SharedItem]] = defaultdict(list)
    for item in items:
        own = item["group"] if unit == "group" else "\n".join(image_files(item))
        members[unit_of.setdefault(image_files(item), own)].append(item)
    units = list(members)
    drawn: dict[str, str] = {}
    taken: Counter[tuple[str, str]] = Counter()
    in_all: Counter[str] = Counter()
    for place in np.random.default_rng(seed).permutation(len(units)):
        rows = members[units[place]]
        value = "\n".join(sorted({row["columns"][balance] for row in rows})) if balance else ""
        fewest = min((taken[value, name], in_all[name], at) for at, name in enumerate(styles))
        style = styles[fewest[2]]
        drawn[units[place]] = style
        taken[value, style] += len(rows)
        in_all[style] += len(rows)
    return {files: drawn[name] for files, name in unit_of.items()}


TOLERANCES: Mapping[str, float] = {"exact": 0.0, "fine": 2.0, "coarse": 3.5}  # paper figure S2
SUMMARY_FILE = "styles.csv"

Item = dict[str, Any]


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


def prepare_styles(
    source: str | Path,
    output: str | Path,
    tolerances: Mapping[str, float] | None = None,
    seed: int = 0,
    columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
    balance: str | None = None,
    unit: str = "group",
    reference_diameter_px: float | None = None,
    column: str = "style",
) -> list[StyleSummary]:
    """Copy a folder, its training masks drawn in equal shares of several styles.

    Validation and test masks stay exact, as in paper 3.2. Objects are told apart by the column
    ``instances`` (a file of object numbers, drawn again too), by a label of object numbers, or as
    connected parts. Images are copied byte for byte, and so are labels that stay exact. The folder
    appears complete or not at all; the same arguments give the same bytes. An image may have
    several rows, such as one for each task: they have one style, and each its own label.

    Args:
        source: folder with a table, or the table.
        output: folder to make; it may exist if it is empty. Gets the table with the new column,
            styles.csv (the summary) and columns.json (where a column map was given: use it).
        tolerances: style -> tolerance in pixels, see `polygonise`; exactly one is 0. By default
            exact 0, fine 2 and coarse 3.5 (paper figure S2).
        seed: draws who is drawn in which style.
        columns: the column map, its settings, or its JSON file; None is the plain form.
        balance: column of the table, such as cell_line, within whose values the shares are equal.
        unit: "group" draws all images of a group in one style, as one person would; "image" only
            all rows of an image, for shares that are equal where groups are few.
        reference_diameter_px: median diameter of a nucleus in the images that the tolerances were
            made for; they are then scaled by the median of the training objects here (see
            `scaled_tolerance`). None takes the tolerances as pixels of these images.
        column: name of the new column.

    Returns:
        One summary for each style, in the order of `tolerances`.

    Raises:
        ConfigError: a setting is wrong or names a column that the table has not.
        DataError: `output` holds files, the table has problems, no label or no training rows, or a
            label is no plane of whole numbers.
    """
    tolerances, exact = check_tolerances(TOLERANCES if tolerances is None else tolerances)
    check_numbers(seed, reference_diameter_px)
    given, columns = columns is not None, as_column_map(columns)
    check_map(columns)
    table = _read_rows(source, columns)
    check_column(table, column, columns)
    training, home = table.items("train"), table.path.parent.resolve()
    style_of = share_styles(training, list(tolerances), seed, balance, unit)
    if reference_diameter_px is not None:
        diameter = _median_diameter(training, home, columns)
        tolerances = {
            name: scaled_tolerance(tolerance, diameter, reference_diameter_px)
            for name, tolerance in tolerances.items()
        }
    summary: list[StyleSummary] = []

    def write(folder: Path) -> None:
        changes: dict[str, list[Change]] = {name: [] for name in tolerances}
        rows = []
        for item in table.rows:
            style = style_of[image_files(item)] if item["split"] == "train" else exact
            cells, change = _write_case(item, home, folder, columns, style, tolerances[style])
            rows.append({**cells, column: style})
            if change is not None:
                changes[style].append(change)
        write_table(rows, folder / table.path.name)
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
    write_generated(Path(output), settings, write)
    return summary


def _read_rows(source: str | Path, columns: ColumnMap) -> CaseTable:
    """Read the rows without what needs a schema: a label is drawn the same whatever it means."""
    schema, place = schema_of_repeats(find_table(source, columns), columns)
    plain = {"metadata": place, "factors": {}, "rows_per": None}
    return read_table(source, schema, columns.model_copy(update=plain))


def _paths(item: Item, folder: Path) -> tuple[Path, Path | None]:
    """Label and file of object numbers of a row, relative to the table's folder."""
    label = Path(item["label"]).relative_to(folder)
    cell = str(item["columns"].get(INSTANCES, "")).strip()
    if Path(cell).is_absolute() or ".." in Path(cell).parts:
        raise DataError(
            f"case {item['case']!r}: column {INSTANCES!r}: {cell!r} leaves the table's folder; "
            "expected a path relative to the table, without '..'"
        )
    return label, Path(cell) if cell else None


def _read(item: Item, folder: Path, columns: ColumnMap) -> Drawing:
    label, instances = _paths(item, folder)
    numbered = columns.label_values == INSTANCES
    try:
        return read_drawing(folder / label, instances and folder / instances, numbered)
    except DataError as error:
        raise DataError(f"case {item['case']!r}: {error}") from error


def _median_diameter(items: Sequence[Item], folder: Path, columns: ColumnMap) -> float:
    """Median diameter of the objects of all these rows, in pixels; 0 where there are none."""
    found = [object_diameters(_read(item, folder, columns).objects) for item in items]
    diameters = np.concatenate(found)
    return float(np.median(diameters)) if diameters.size else 0.0


def _write_case(
    item: Item, source: Path, output: Path, columns: ColumnMap, style: str, tolerance_px: float
) -> tuple[dict[str, str], Change | None]:
    """Write images and label of a row; return its new cells, and what changed in training rows."""
    for file in image_files(item):
        _copy(Path(file).relative_to(source), source, output)
    cells = dict(item["columns"])
    label, instances = _paths(item, source)
    change = None
    if item["split"] == "train":
        drawing, change = redraw(_read(item, source, columns), tolerance_px)
    if tolerance_px == 0:
        for path in (label, instances):
            if path is not None:
                _copy(path, source, output)
        return cells, change
    cells[str(columns.label)] = _write_drawn(output, label, style, drawing.label, drawing.of_label)
    if instances is not None and drawing.of_objects is not None:
        cells[INSTANCES] = _write_drawn(
            output, instances, style, drawing.objects, drawing.of_objects
        )
    return cells, change


def _copy(path: Path, source: Path, output: Path) -> None:
    copy = output / path
    if not copy.exists():  # several rows may share an image
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, copy)


def _write_drawn(
    output: Path, exact: Path, style: str, mask: Labels, like: Mapping[str, Any]
) -> str:
    """Write a mask under a name that tells its style, as another row may use the exact one."""
    stem = exact.name[: len(exact.name) - len(image_suffix(exact))]
    path = exact.with_name(f"{stem}__{style}{mask_suffix(like)}")
    write_mask(mask, output / path, like)
    return path.as_posix()


def _summarise(style: str, tolerance_px: float, changes: Sequence[Change]) -> StyleSummary:
    none = np.zeros(0)
    before = np.concatenate([none, *(change.areas for change in changes)])
    after = np.concatenate([none, *(change.redrawn for change in changes)])
    tp = sum(change.tp for change in changes)
    wrong = sum(change.fp + change.fn for change in changes)
    nan = float("nan")
    return StyleSummary(
        style,
        tolerance_px,
        rows=len(changes),
        objects=len(before),
        area_change=float(((after - before) / before).mean()) if before.size else nan,
        f1=2 * tp / (2 * tp + wrong) if tp + wrong else nan,
    )
