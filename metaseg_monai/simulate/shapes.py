"""The synthetic shapes data of thesis 4.6 as files: TIFF images and labels beside a table."""

import itertools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from metaseg_monai.rows import write_table
from metaseg_monai.simulate.generated import (
    is_whole,
    require,
    require_whole,
    write_generated,
    write_tiff,
)
from metaseg_monai.tables.columns import SPLITS

# Drawing the six shapes of thesis 4.6: one image, six targets, and only metadata tells which.

PLACE_RANGE = (0.1, 0.9)  # centres, as a fraction of the side
SIZE_RANGE = (0.06, 0.12)  # sizes before the zoom, as a fraction of the side


class Placement(NamedTuple):
    """Where a shape lies and how large it is: centre (row, column) and size in pixels."""

    row: int
    column: int
    size: float


class Shape(NamedTuple):
    """A kind of shape.

    Attributes:
        zoom: factor on the drawn size.
        target: pixels of the shape's mask, from row and column offsets to the centre and a size.
        every_other: only pixels with both indices odd are seen, counted from 1 in the box; the
            target is the whole box.
    """

    zoom: float
    target: Callable[[np.ndarray, np.ndarray, float], np.ndarray]
    every_other: bool = False


def _within(offset: np.ndarray, width: int) -> np.ndarray:
    """Offsets of `width` neighbouring pixels around the centre."""
    return (offset >= -(width // 2)) & (offset < width - width // 2)


def _box(rows: np.ndarray, columns: np.ndarray, size: float) -> np.ndarray:
    width = round(size)
    return _within(rows, width) & _within(columns, width)


def _mesh_box(rows: np.ndarray, columns: np.ndarray, size: float) -> np.ndarray:
    """A box that begins and ends with a pixel that is seen, so that the image tells its extent."""
    half = max(1, round((size - 1) / 2))
    return (abs(rows) <= half) & (abs(columns) <= half)


def _triangle(rows: np.ndarray, columns: np.ndarray, size: float) -> np.ndarray:
    return _box(rows, columns, size) & (columns <= rows)


def _disc(rows: np.ndarray, columns: np.ndarray, size: float) -> np.ndarray:
    radius = max(size, 2.01)  # smaller, it would be a square of nine pixels
    corner = abs(rows) + abs(columns) >= 1.35 * radius  # of a square, too, near a radius of 2.9
    return (np.hypot(rows, columns) < radius) & ~corner


def _ring(rows: np.ndarray, columns: np.ndarray, size: float) -> np.ndarray:
    radius = np.hypot(rows, columns)
    return (radius >= 0.7 * size) & (radius < size)


def _cross(rows: np.ndarray, columns: np.ndarray, size: float) -> np.ndarray:
    length = max(4, round(size))  # shorter, its two 2-pixel bars would be a square
    upright = _within(rows, length) & _within(columns, 2)
    lying = _within(rows, 2) & _within(columns, length)
    return upright | lying


SHAPES = MappingProxyType(
    {
        "triangle": Shape(1.0, _triangle),  # TRIANG in the thesis
        "ring": Shape(0.7, _ring),  # CIRCLE
        "disc": Shape(0.5, _disc),  # FCIRCL
        "mesh_square": Shape(1.0, _mesh_box, every_other=True),  # MSQUAR
        "square": Shape(0.8, _box),  # SQUARE
        "cross": Shape(1.2, _cross),  # CROSS
    }
)


def draw_placements(
    random: np.random.Generator, side: int, overlap: float = 1.0
) -> dict[str, Placement]:
    """Draw where each of the six shapes lies in an image of `side` x `side` pixels.

    A placement is drawn again while it and an earlier shape share more than the part `overlap` of
    the smaller one's pixels; 1 never draws again.
    """
    placements: dict[str, Placement] = {}
    targets: list[np.ndarray] = []
    for name, shape in SHAPES.items():
        while True:
            row, column = (int(place * side) for place in random.uniform(*PLACE_RANGE, size=2))
            size = random.uniform(*SIZE_RANGE) * side * shape.zoom
            placement = Placement(row, column, float(size))
            target = shape_target(name, placement, side)
            if all(_shared(target, other) <= overlap for other in targets):
                break
        placements[name] = placement
        targets.append(target)
    return placements


def _shared(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / min(first.sum(), second.sum()))


def shape_target(name: str, placement: Placement, side: int) -> np.ndarray:
    """The mask (side, side) bool of one shape.

    >>> int(shape_target("square", Placement(3, 3, 2.0), 6).sum())
    4
    """
    rows, columns = np.ogrid[:side, :side]
    return SHAPES[name].target(rows - placement.row, columns - placement.column, placement.size)


def draw_image(placements: dict[str, Placement], side: int) -> np.ndarray:
    """All shapes OR-ed into an image (side, side) bool; they may overlap."""
    canvas = np.zeros((side, side), dtype=bool)
    for name, placement in placements.items():
        seen = shape_target(name, placement, side)
        if SHAPES[name].every_other:
            both_odd = np.zeros_like(seen)
            first_row, first_column = seen.any(1).argmax(), seen.any(0).argmax()
            both_odd[first_row::2, first_column::2] = True
            seen = seen & both_odd
        canvas |= seen
    return canvas


def balanced_tasks(random: np.random.Generator, count: int) -> list[str]:
    """Names of the shape asked for in each of `count` images: equally often, in random order.

    >>> sorted(balanced_tasks(np.random.default_rng(0), 6)) == sorted(SHAPES)
    True
    """
    tasks = list(itertools.islice(itertools.cycle(SHAPES), count))
    return [tasks[place] for place in random.permutation(count)]


def generate_synthetic_shapes(
    output: str | Path,
    train: int = 600,  # thesis 4.6: 100 / 20 / 20 images a class
    val: int = 120,
    test: int = 120,
    size: int = 64,
    seed: int = 0,
    overlap: float = 0.1,
) -> Path:
    """Write images of six shapes, each with the mask of the one its task names (thesis 4.6).

    Example:
        python -m metaseg_monai generate synthetic-shapes --output shapes --size 64 --seed 0

    Images are 0/255 and labels 0/1, uint8, (size, size). The tasks are balanced within a split
    and in random order. The same arguments give the same bytes. The folder appears complete or
    not at all.

    Args:
        output: folder to make; it may exist if it is empty, or was made with these arguments.
        train: number of training images; `val` and `test` likewise.
        val: number of validation images.
        test: number of test images.
        size: side of an image in pixels, at least 32.
        seed: of the one random stream per image.
        overlap: largest part of a shape that another one may cover, 0 to 1. At 1 about one shape
            in six is touched and some are hidden, which no network can undo.

    Returns:
        The path of the table.

    Raises:
        ConfigError: `size` is too small, `seed` or a count is negative, or all counts are 0.
        DataError: the folder holds other files.
    """
    require_whole(train=(train, 0), val=(val, 0), test=(test, 0), seed=(seed, 0))
    is_share = isinstance(overlap, int | float) and not isinstance(overlap, bool)
    require(
        (is_whole(size, 32), f"size={size!r}: shapes need a whole number of pixels, at least 32"),
        (train + val + test > 0, "train, val and test are all 0; ask for at least one image"),
        (
            is_share and 0 <= overlap <= 1,
            f"overlap={overlap!r}: expected a number from 0 to 1",
        ),
    )
    settings: dict[str, Any] = {"train": train, "val": val, "test": test, "size": size}
    settings |= {"seed": seed, "overlap": float(overlap)}
    write = partial(_write_shapes, settings=settings)
    names = {0: "background", 1: "the named shape"}
    write_generated(Path(output), settings, write, once=True, class_names=names)
    return Path(output) / "table.csv"


def _write_shapes(folder: Path, settings: dict[str, Any]) -> None:
    size, seed = settings["size"], settings["seed"]
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    rows = []
    total = sum(settings[split] for split in SPLITS)
    with tqdm(total=total, desc="synthetic shapes", unit="image", disable=None) as bar:
        for stream, split in enumerate(SPLITS):
            tasks = balanced_tasks(np.random.default_rng([seed, stream]), settings[split])
            for number, task in enumerate(tasks):
                random = np.random.default_rng([seed, stream, number])
                placements = draw_placements(random, size, settings["overlap"])
                name = f"{split}_{number:05d}"
                image, label = f"images/{name}.tif", f"labels/{name}.tif"
                write_tiff(folder / image, draw_image(placements, size) * np.uint8(255))
                target = shape_target(task, placements[task], size)
                write_tiff(folder / label, target.astype(np.uint8))
                rows.append(
                    {"image": image, "label": label, "task": task, "group": name, "split": split}
                )
                bar.update()
    write_table(rows, folder / "table.csv")
