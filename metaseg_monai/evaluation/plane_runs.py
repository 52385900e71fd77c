"""Where a volume was evaluated: runs of consecutive planes, cut to what there is to compare."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from metaseg_monai.errors import DataError


class PlaneRun(NamedTuple):
    """Consecutive evaluated planes, cut to the box around both masks.

    Attributes:
        pred: (n, H, W) bool.
        label: (n, H, W) bool.
        corner: plane, row and column of the first voxel in the volume.
        open_before: the plane before is one of the volume that was not evaluated, so that nobody
            knows whether the masks end here. False: both are empty there, or the volume ends.
        open_after: the same of the plane after.
    """

    pred: np.ndarray
    label: np.ndarray
    corner: tuple[int, int, int]
    open_before: bool
    open_after: bool


def cut_runs(
    pred: np.ndarray, label: np.ndarray, at: Sequence[int] | None = None, count: int | None = None
) -> list[PlaneRun]:
    """Cut a stack of evaluated planes into runs; those with both masks empty are left out.

    Args:
        pred: (N, H, W) bool.
        label: (N, H, W) bool.
        at: index (N,) of each plane in the volume, ascending; None for 0 to N - 1.
        count: planes of the volume; None for N.

    Raises:
        DataError: shapes differ, or the indices are not N ascending ones below `count`.

    >>> mask = np.ones((3, 1, 1), bool)
    >>> [(run.corner[0], len(run.pred)) for run in cut_runs(mask, mask, at=[1, 2, 5], count=6)]
    [(1, 2), (5, 1)]
    """
    places = check_planes(pred, label, at, count)
    count = len(pred) if count is None else count
    both = pred | label
    starts = [0, *(np.flatnonzero(np.diff(places) > 1) + 1)] if len(places) else []
    runs = []
    for start, end in zip(starts, [*starts[1:], len(places)], strict=True):
        box = _box(both[start:end])
        if box is None:
            continue
        first, last = places[start], places[end - 1]
        runs.append(
            PlaneRun(
                pred[start:end][box],
                label[start:end][box],
                (int(first + box[0].start), box[1].start, box[2].start),
                bool(box[0].start == 0 and first > 0),
                bool(box[0].stop == end - start and last < count - 1),
            )
        )
    return runs


def check_planes(
    pred: np.ndarray, label: np.ndarray, at: Sequence[int] | None, count: int | None
) -> np.ndarray:
    """Return the indices of the planes (N,); arguments and errors as those of `cut_runs`."""
    if pred.shape != label.shape or pred.ndim != 3:
        raise DataError(
            f"prediction {pred.shape} and label {label.shape}: expected one shape (planes, rows, "
            "columns); bring the prediction into the label's geometry"
        )
    places = np.arange(len(pred)) if at is None else np.asarray(at, dtype=int)
    last = len(pred) if count is None else count
    if len(places) != len(pred) or (np.diff(places) < 1).any():
        raise DataError(f"{len(pred)} planes at {places.tolist()}: give each its own, ascending")
    if len(places) and not 0 <= places[0] <= places[-1] < last:
        raise DataError(
            f"planes {places[0]} to {places[-1]} of a volume that has {last}; mend the columns "
            "plane and planes of the table"
        )
    return places


def _box(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The smallest box around a mask; None if it is empty."""
    rows, columns = np.flatnonzero(mask.any((0, 2))), np.flatnonzero(mask.any((0, 1)))
    planes = np.flatnonzero(mask.any((1, 2)))
    if not len(planes):
        return None
    first, second, third = (
        slice(int(where[0]), int(where[-1]) + 1) for where in (planes, rows, columns)
    )
    return first, second, third
