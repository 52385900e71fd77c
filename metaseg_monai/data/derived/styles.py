"""A data set whose training masks were drawn in several annotation styles (paper 3.2)."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg_monai.data.cases import image_files
from metaseg_monai.data.columns import ColumnMap, as_column_map
from metaseg_monai.data.derived.redraw import Change, Drawing, read_drawing, redraw
from metaseg_monai.data.derived.repeats import schema_of_repeats
from metaseg_monai.data.derived.style_settings import (
    INSTANCES,
    check_column,
    check_map,
    check_numbers,
    check_tolerances,
)
from metaseg_monai.data.derived.style_shares import share_styles
from metaseg_monai.data.generated import write_generated
from metaseg_monai.data.polygons import Labels, object_diameters, scaled_tolerance
from metaseg_monai.data.readers import image_suffix
from metaseg_monai.data.table import CaseTable, find_table, read_table
from metaseg_monai.data.writers import mask_suffix, write_mask, write_table
from metaseg_monai.errors import DataError

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
    write_mask(output / path, mask, like)
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
