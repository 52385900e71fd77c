"""Magnifications that nobody acquired, made by resampling those that somebody did.

For the proposal's question (section 3.2, experiment settings): what does a network trained at 10x,
20x and 40x do at 15x, between them, and at 64x, beyond them?
"""

import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

import numpy as np
import tifffile
import torch
from tqdm import tqdm

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import read_lines, replacing, write_table
from metaseg_monai.images.geometry import resampled_shape, resize_label, resize_stored
from metaseg_monai.images.image import image_suffix
from metaseg_monai.images.read import read_image
from metaseg_monai.metadata.fields import read_number
from metaseg_monai.simulate.generated import write_generated
from metaseg_monai.tables.columns import SPLITS, ColumnMap, as_column_map
from metaseg_monai.tables.table import Row, find_table, make_rows, refuse

# Where a number lies among the few that a network was trained with.


def nearest_level(value: float, levels: Sequence[float]) -> float:
    """The level with the smallest ratio to a value; of two the higher.

    >>> nearest_level(15, [10, 20, 40]), nearest_level(64, [10, 20, 40]), nearest_level(2, [1, 4])
    (20, 40, 4)
    """
    return min(levels, key=lambda level: (round(abs(math.log2(value / level)), 9), -level))


def level_codes(value: float, levels: Sequence[float]) -> tuple[list[float], list[float]]:
    """Codes of a value between the levels that a one-hot or thermometer code was trained with.

    Shares are those of its two neighbours, by the distance of logarithms: one-hot on a level.
    Steps are the thermometer of these: 1 up to the level below, a fraction of the next. Beyond the
    levels both stay at the last, because such codes have nothing further to say.

    Args:
        value: above 0.
        levels: ascending, above 0.

    >>> [[round(share, 3) for share in code] for code in level_codes(15, [10, 20, 40])]
    [[0.415, 0.585, 0.0], [1.0, 0.585, 0.0]]
    >>> level_codes(64, [10, 20, 40])
    ([0.0, 0.0, 1.0], [1.0, 1.0, 1.0])
    """
    place = np.interp(math.log2(value), np.log2(levels), np.arange(len(levels)))
    shares = np.clip(1 - np.abs(place - np.arange(len(levels))), 0, 1)
    return shares.tolist(), np.clip(1 + place - np.arange(len(levels)), 0, 1).tolist()


# An image or label file written anew with more or fewer pixels.

Size = Literal["whole", "crop"]


def resample_file(path: Path, made: Path, scale: float, image: bool, size: Size) -> None:
    """Write an image, or a label, with `scale` pixels in place of one.

    Args:
        path: a 2D image or label that `read_image` takes.
        made: TIFF to write.
        scale: pixels of the new image for one of the old, along each axis.
        image: True interpolates linearly; False takes the nearest pixel, for labels.
        size: "whole", or "crop" for the middle of an enlarged image, as large as its source.

    Raises:
        DataError: the file cannot be read as a 2D image.
    """
    planes = read_image(path, 2, palette="colours" if image else "indices").array
    if planes.dtype == bool:
        planes = planes.astype(np.uint8)
    shape = resampled_shape(planes.shape[1:], (scale, scale), 1.0)
    if image:
        resized = np.stack([resize_stored(plane, shape) for plane in planes])
    else:  # through int64, because torch takes no rows of 16-bit numbers without a sign
        numbers = torch.from_numpy(planes if planes.dtype.kind == "f" else planes.astype(np.int64))
        resized = resize_label(numbers[None], shape)[0].numpy().astype(planes.dtype)
    if size == "crop" and scale > 1:
        (row, column), (height, width) = _middle(shape, planes.shape[1:]), planes.shape[1:]
        resized = resized[:, row : row + height, column : column + width]
    with replacing(made) as part:
        grey, axes = len(resized) == 1, "YX" if len(resized) == 1 else "CYX"
        tifffile.imwrite(
            part,
            resized[0] if grey else resized,
            photometric="minisblack",
            compression="zlib",
            metadata={"axes": axes},
        )


def _middle(shape: tuple[int, int], of: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0] - of[0]) // 2, (shape[1] - of[1]) // 2


FURTHER_LABELS = ("instances",)  # columns of label files beside the label's own
PIXEL_SIZES = ("pixel_um", "spacing_y_mm", "spacing_x_mm")


def magnify_table(
    source: str | Path,
    output: str | Path,
    targets: Sequence[float] = (15, 64),
    magnification: str = "magnification",
    splits: Sequence[str] = ("test",),
    columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
    size: Size = "whole",
    only_new: bool = False,
) -> Path:
    """Copy a table with its files and add rows at further magnifications, made by resampling.

    Each target is made of the rows of the trained magnification with the smallest ratio to it (of
    two equal ratios the higher, which only loses detail). Images are interpolated linearly, and
    averaged where they shrink; labels, object numbers too, take the nearest pixel. Data types are
    kept, and all is written as TIFF. Enlarging adds no detail that the objective did not resolve.

    Every row gets the columns ``resampled_from`` and ``scale`` (empty for stored rows) and, for
    schemas whose code knows the trained magnifications only, ``nearest_<magnification>``,
    ``<magnification>_shares`` and ``<magnification>_steps``, see `level_codes`. The cells of
    ``pixel_um`` and of the spacing of pixels follow the scale.

    Args:
        source: a table, or the folder that holds it.
        output: a new or empty folder.
        targets: wanted magnifications.
        magnification: field or column of the magnification, numbers above 0.
        splits: of which rows are resampled; a group stays in its split.
        columns: the column map, its settings, or its JSON file; None is the plain form.
        size: "whole" keeps the extent, so that an image grows or shrinks with its pixels; "crop"
            cuts the middle of an enlarged image to the size of its source, as a camera does.
        only_new: leave out the stored rows and their files.

    Returns:
        The new table.

    Raises:
        ConfigError: a setting is wrong, or a target is trained already.
        DataError: a column or file is missing, a magnification is no number above 0, no row can
            be resampled, or the output holds files.
    """
    _check_settings(targets, splits, size)
    columns = as_column_map(columns)
    file = find_table(source, columns)
    name = columns.column_of(magnification)
    rows = _read_rows(file, name, columns)
    levels = sorted({_level(row, name) for row in rows if row.split == "train"})
    if not levels:
        raise DataError(f"{file}: no row of the split 'train'; nothing is known as trained")
    if again := [target for target in targets if target in levels]:
        raise ConfigError(
            f"targets: {', '.join(f'{target:g}' for target in again)} is trained already (the "
            f"training rows have {', '.join(f'{level:g}' for level in levels)}); leave it out"
        )
    plan = []
    for target in targets:
        level = nearest_level(target, levels)
        chosen = [r for r in rows if r.split in splits and _level(r, name) == level]
        if not chosen:
            raise DataError(
                f"{file}: no row of {', '.join(splits)} has {name} {level:g}, of which {target:g} "
                "would be made; choose other splits or targets"
            )
        plan += [(row, target, level) for row in chosen]
    _check_places(file, rows, plan)

    def write(folder: Path) -> None:
        stored = [] if only_new else rows
        for path in dict.fromkeys(path for row in stored for path in _files_of(row)):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.parent / path, folder / path)
        table = [_cells(row, name, _level(row, name), None, levels) for row in stored]
        done: set[str] = set()
        for row, target, level in tqdm(plan, desc="magnify", unit="image", disable=None):
            for path in _files_of(row):
                made = _renamed(path, target)
                if made not in done:
                    done.add(made)
                    image = path in row.images
                    resample_file(file.parent / path, folder / made, target / level, image, size)
            cells = _cells(row, name, target, level, levels)
            table.append(_with_paths(cells, row, columns, target))
        write_table(table, folder / columns.table)

    settings = {"of": file.parent.name, "targets": list(targets), "splits": list(splits)}
    write_generated(Path(output), {**settings, "size": size, "only_new": only_new}, write)
    return Path(output) / columns.table


def _check_settings(targets: Sequence[float], splits: Sequence[str], size: str) -> None:
    numbers = [
        target
        for target in targets
        if not isinstance(target, (str, bool)) and (read_number(target) or 0) > 0
    ]
    if not targets or len(numbers) < len(targets) or len(set(targets)) < len(targets):
        raise ConfigError(f"targets={list(targets)}: expected different numbers above 0")
    if not splits or set(splits) - set(SPLITS):
        raise ConfigError(f"splits={list(splits)}: expected some of {', '.join(SPLITS)}")
    if size not in get_args(Size):
        raise ConfigError(f"size={size!r}: expected one of {', '.join(get_args(Size))}")


def _read_rows(file: Path, name: str, columns: ColumnMap) -> list[Row]:
    """Every line once, whatever values of `rows_per` it holds, with its files found."""
    header, lines, problems = read_lines(file)
    needed = [name, columns.image, columns.split]
    if missing := [column for column in needed if column not in header]:
        raise DataError(
            f"{file}: no column {', '.join(map(repr, missing))}; the table has "
            f"{', '.join(header)}. Name another, or give a column map"
        )
    if taken := [column for column in _new_columns(name) if column in header]:
        raise DataError(
            f"{file}: has the column {', '.join(taken)}, so it was resampled before; take the "
            "table of stored images"
        )
    plain = columns.model_copy(update={"rows_per": None, "label_values": []})
    rows = []
    for number, cells in lines:
        if cells[columns.image] in columns.exclude:
            continue
        (row,) = make_rows(number, cells, None, plain, {})
        level = read_number(cells[name])
        if level is None or level <= 0:
            row.problems.append(f"column {name!r}: {cells[name]!r}, expected a number above 0")
        if not row.problems:
            row.problems += [
                f"{path!r} leaves the table's folder; expected a path relative to the table"
                for path in _files_of(row)
                if PurePosixPath(path).is_absolute() or ".." in re.split(r"[/\\]", path)
            ]
            absent = [path for path in _files_of(row) if not (file.parent / path).is_file()]
            row.problems += [f"no such file {path!r} beside the table" for path in absent]
        problems += [f"row {number}: {problem}" for problem in row.problems]
        rows.append(row)
    refuse(file, problems)
    return rows


def _check_places(
    file: Path, rows: Sequence[Row], plan: Sequence[tuple[Row, float, float]]
) -> None:
    """Refuse names of new files that are those of others, such as of a.png and a.tif."""
    source: dict[str, str] = {path: path for row in rows for path in _files_of(row)}
    for row, target, _ in plan:
        for path in _files_of(row):
            other = source.setdefault(_renamed(path, target), path)
            if other != path:
                raise DataError(
                    f"{file}: {path} and {other} would both give {_renamed(path, target)}; rename "
                    "one of them"
                )


def _level(row: Row, name: str) -> float:
    return float(row.cells[name])


def _files_of(row: Row) -> list[str]:
    further = [
        row.cells[name].strip() for name in FURTHER_LABELS if row.cells.get(name, "").strip()
    ]
    return [*row.images, *([row.label] if row.label else []), *further]


def _renamed(path: str, target: float) -> str:
    return f"{path[: len(path) - len(image_suffix(path))]}_{target:g}x.tif"


def _new_columns(name: str) -> tuple[str, ...]:
    return "resampled_from", "scale", f"nearest_{name}", f"{name}_shares", f"{name}_steps"


def _cells(
    row: Row, name: str, value: float, level: float | None, levels: Sequence[float]
) -> dict[str, str]:
    """Cells of a row at a magnification, resampled from a level or as stored (None)."""
    codes = [";".join(f"{part:.6g}" for part in code) for code in level_codes(value, levels)]
    nearest = nearest_level(value, levels) if level is None else level
    cells = dict(row.cells)
    scale = 1.0 if level is None else value / level
    if level is not None:
        cells[name] = f"{value:g}"
        for column in PIXEL_SIZES:
            if (pixel := read_number(cells.get(column, ""))) is not None:
                cells[column] = f"{pixel / scale:.9g}"
    made = ("", "") if level is None else (f"{level:g}", f"{scale:.9g}")
    new = (*made, f"{nearest:g}", *codes)
    return cells | dict(zip(_new_columns(name), new, strict=True))


def _with_paths(
    cells: dict[str, str], row: Row, columns: ColumnMap, target: float
) -> dict[str, str]:
    cells[columns.image] = columns.separator.join(_renamed(path, target) for path in row.images)
    if columns.label is not None and row.label:
        cells[columns.label] = _renamed(row.label, target)
    for name in FURTHER_LABELS:
        if cells.get(name, "").strip():
            cells[name] = _renamed(cells[name].strip(), target)
    if columns.case is not None:
        cells[columns.case] = f"{cells[columns.case]}_{target:g}x"
    return cells
