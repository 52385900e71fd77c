"""Drawing the six shapes of thesis 4.6: one image, six targets, and only metadata tells which."""

from collections.abc import Callable
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from metaseg_monai.errors import DataError

SMALLEST_SIDE = 32  # below, a shape of 6 % of the side is no larger than a pixel
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
        thesis_name: the thesis' class name.
        zoom: factor on the drawn size.
        target: pixels of the shape's mask, from row and column offsets to the centre and a size.
        every_other: only pixels with both indices odd are seen, counted from 1 in the box; the
            target is the whole box.
    """

    thesis_name: str
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
        "triangle": Shape("TRIANG", 1.0, _triangle),
        "ring": Shape("CIRCLE", 0.7, _ring),
        "disc": Shape("FCIRCL", 0.5, _disc),
        "mesh_square": Shape("MSQUAR", 1.0, _mesh_box, every_other=True),
        "square": Shape("SQUARE", 0.8, _box),
        "cross": Shape("CROSS", 1.2, _cross),
    }
)


def draw_placements(
    random: np.random.Generator, side: int, overlap: float = 1.0
) -> dict[str, Placement]:
    """Draw where each of the six shapes lies in an image of `side` x `side` pixels.

    Args:
        random: the stream to draw from.
        side: of the image in pixels.
        overlap: a placement is drawn again while it and an earlier shape share more than this
            part of the smaller one's pixels; 1 never draws again.
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

    Raises:
        DataError: the count is negative.

    >>> sorted(balanced_tasks(np.random.default_rng(0), 6)) == sorted(SHAPES)
    True
    """
    if count < 0:
        raise DataError(f"{count} images asked for; expected none or more")
    names = list(SHAPES)
    tasks = [names[place % len(names)] for place in range(count)]
    return [tasks[place] for place in random.permutation(count)]
