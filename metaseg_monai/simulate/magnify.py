"""Magnifications that nobody acquired, made by resampling those that somebody did.

For the proposal's question (section 3.2, experiment settings): what does a network trained at 10x,
20x and 40x do at 15x, between them, and at 64x, beyond them?
"""

import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images.geometry import resampled_shape, resize_label, resize_stored
from metaseg_monai.images.image import Meaning, image_suffix
from metaseg_monai.images.read import read_image, read_label
from metaseg_monai.metadata.fields import read_number
from metaseg_monai.prepare.pipeline import write_tiff
from metaseg_monai.rows import write_table
from metaseg_monai.simulate.generated import (
    INSTANCES,
    Stored,
    read_stored,
    require,
    write_generated,
)
from metaseg_monai.tables.columns import SPLITS, ColumnMap, as_column_map
from metaseg_monai.tables.licenses import data_license
from metaseg_monai.tables.table import refuse


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


PIXEL_SIZES = ("pixel_um", "spacing_y_mm", "spacing_x_mm")


def magnify_table(
    source: str | Path,
    output: str | Path,
    targets: Sequence[float] = (15, 64),
    magnification: str = "magnification",
    splits: Sequence[str] = ("test",),
    columns: ColumnMap | Mapping[str, Any] | str | Path | None = None,
) -> Path:
    """Add rows at magnifications that nobody acquired, made by resampling.

    Example:
        python -m metaseg_monai prepare magnify --source cells --output more --targets 15,64

    The table is copied with its files. Each target is made of the rows of the trained magnification
    with the smallest ratio to it (of two equal ratios the higher, which only loses detail). Images
    are interpolated linearly, and averaged where they shrink; labels, object numbers too, take the
    nearest pixel. Data types are kept, and all is written as TIFF. Enlarging adds no detail that
    the objective did not resolve.

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

    Returns:
        The new table.

    Raises:
        ConfigError: a setting is wrong, or a target is trained already.
        DataError: a column or file is missing, a magnification is no number above 0, no row can
            be resampled, or the output holds files.
    """
    numbers = {target for target in targets if isinstance(target, (int, float))}
    require(
        (
            0 < len(numbers) == len(targets) and min(read_number(n) or 0 for n in numbers) > 0,
            f"targets={list(targets)}: expected different numbers above 0",
        ),
        (
            bool(splits) and set(splits) <= set(SPLITS),
            f"splits={list(splits)}: expected some of {', '.join(SPLITS)}",
        ),
    )
    columns = as_column_map(columns)
    table, rows = read_stored(source, columns)
    name = columns.column_of(magnification)
    new_columns = "resampled_from", "scale", f"nearest_{name}", f"{name}_shares", f"{name}_steps"
    at = _magnifications(table.path, rows, name, new_columns)
    levels = sorted({value for row, value in zip(rows, at, strict=True) if row.split == "train"})
    if again := [target for target in targets if target in levels]:
        raise ConfigError(
            f"targets: {', '.join(f'{target:g}' for target in again)} is trained already (the "
            f"training rows have {', '.join(f'{level:g}' for level in levels)}); leave it out"
        )
    plan: list[tuple[Stored, float, float]] = []
    for target in targets:
        level = nearest_level(target, levels)
        chosen = [
            row
            for row, value in zip(rows, at, strict=True)
            if row.split in splits and value == level
        ]
        if not chosen:
            raise DataError(
                f"{table.path}: no row of {', '.join(splits)} has {name} {level:g}, of which "
                f"{target:g} would be made; choose other splits or targets"
            )
        plan += [(row, target, level) for row in chosen]
    source_of = _source_of(table.path, rows, plan)

    def line(cells: dict[str, str], value: float, *made: str) -> dict[str, str]:
        nearest, codes = nearest_level(value, levels), level_codes(value, levels)
        told = [";".join(f"{part:.6g}" for part in code) for code in codes]
        return cells | dict(zip(new_columns, (*made, f"{nearest:g}", *told), strict=True))

    def write(folder: Path) -> None:
        for path in {path for row in rows for path in row.files}:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(table.path.parent / path, folder / path)
        for made, (path, is_image, scale) in tqdm(
            source_of.items(), desc="magnify", unit="image", disable=None
        ):
            resample_file(
                table.path.parent / path, folder / made, scale, is_image, columns.mask_values
            )
        lines = [line(row.cells, value, "", "") for row, value in zip(rows, at, strict=True)]
        lines += [
            line(_resampled(row, columns, name, target, target / level), target,
                 f"{level:g}", f"{target / level:.9g}")
            for row, target, level in plan
        ]  # fmt: skip
        write_table(lines, folder / columns.table)

    settings = {"of": table.path.parent.name, "targets": list(targets), "splits": list(splits)}
    licenses = data_license(table.path.parent, table.folder)
    write_generated(Path(output), settings, write, class_names=table.class_names, licenses=licenses)
    return Path(output) / columns.table


def _magnifications(
    file: Path, rows: Sequence[Stored], name: str, new_columns: Sequence[str]
) -> list[float]:
    """The magnification of every row of a table that was not resampled before."""
    header = rows[0].cells
    if name not in header:
        raise DataError(
            f"{file}: no column {name!r}; the table has {', '.join(header)}. Name another, or give "
            "a column map"
        )
    if taken := [column for column in new_columns if column in header]:
        raise DataError(
            f"{file}: has the column {', '.join(taken)}, so it was resampled before; take the "
            "table of stored images"
        )
    values = [read_number(row.cells[name]) or 0.0 for row in rows]
    problems = [
        f"case {row.case!r}: column {name!r}: {row.cells[name]!r}, expected a number above 0"
        for row, value in zip(rows, values, strict=True)
        if value <= 0
    ]
    refuse(file, problems)
    return values


def _source_of(
    file: Path, rows: Sequence[Stored], plan: Sequence[tuple[Stored, float, float]]
) -> dict[str, tuple[str, bool, float]]:
    """New file -> the stored one, whether it is an image, and the scale; two never share a name."""
    stored = {path for row in rows for path in row.files}
    made: dict[str, tuple[str, bool, float]] = {}
    for row, target, level in plan:
        for path in row.files:
            new = _renamed(path, target)
            other = new if new in stored else made.get(new, (path,))[0]
            if other != path:  # such as of a.png and a.tif
                raise DataError(
                    f"{file}: {path} and {other} would both give {new}; rename one of them"
                )
            made[new] = path, path in row.images, target / level
    return made


def _renamed(path: str, target: float) -> str:
    return f"{path[: len(path) - len(image_suffix(path))]}_{target:g}x.tif"


def _resampled(
    row: Stored, columns: ColumnMap, name: str, target: float, scale: float
) -> dict[str, str]:
    """The cells of a row made anew."""
    cells = {**row.cells, name: f"{target:g}"}
    for column in PIXEL_SIZES:
        if (pixel := read_number(cells.get(column, ""))) is not None:
            cells[column] = f"{pixel / scale:.9g}"
    cells[columns.image] = columns.separator.join(_renamed(path, target) for path in row.images)
    for own, file in ((columns.label, row.label), (INSTANCES, row.instances)):
        if own is not None and file is not None:
            cells[own] = _renamed(file, target)
    if columns.case is not None:
        cells[columns.case] += f"_{target:g}x"
    return cells


def resample_file(
    path: Path, made: Path, scale: float, image: bool, values: Meaning | None = None
) -> None:
    """Write an image, or a label by nearest pixels, with `scale` pixels in place of one each way.

    Raises:
        DataError: the file cannot be read as a 2D image.
    """
    planes = (read_image(path, 2) if image else read_label(path, 2, values)).array
    if planes.dtype == bool:
        planes = planes.astype(np.uint8)
    shape = resampled_shape(planes.shape[1:], (scale, scale), 1.0)
    if image:
        resized = np.stack([resize_stored(plane, shape) for plane in planes])
    else:  # through int64, because torch takes no rows of 16-bit numbers without a sign
        numbers = torch.from_numpy(planes if planes.dtype.kind == "f" else planes.astype(np.int64))
        resized = resize_label(numbers[None], shape)[0].numpy().astype(planes.dtype)
    made.parent.mkdir(parents=True, exist_ok=True)
    write_tiff(made, resized)
