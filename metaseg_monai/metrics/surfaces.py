"""How far the surfaces of prediction and label are apart in a volume, where it was evaluated."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from monai.metrics import get_mask_edges
from scipy import ndimage
from scipy.spatial import KDTree
from torch import Tensor

from metaseg_monai.errors import DataError

# Where a volume was evaluated: runs of consecutive planes, cut to what there is to compare.


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
    if pred.shape != label.shape or pred.ndim != 3:
        raise DataError(
            f"prediction {pred.shape} and label {label.shape}: expected one shape (planes, rows, "
            "columns); bring the prediction into the label's geometry"
        )
    places = np.arange(len(pred)) if at is None else np.asarray(at, dtype=int)
    count = len(pred) if count is None else count
    if len(places) != len(pred) or (np.diff(places) < 1).any():
        raise DataError(f"{len(pred)} planes at {places.tolist()}: give each its own, ascending")
    if len(places) and not 0 <= places[0] <= places[-1] < count:
        raise DataError(
            f"planes {places[0]} to {places[-1]} of a volume that has {count}; mend the columns "
            "plane and planes of the table"
        )
    both = pred | label
    starts = [0, *(np.flatnonzero(np.diff(places) > 1) + 1)] if len(places) else []
    runs = []
    for start, end in zip(starts, [*starts[1:], len(places)], strict=True):
        for box in ndimage.find_objects(both[start:end].view(np.int8)):  # one, or none if empty
            first = box[0].start == 0 and places[start] > 0
            last = box[0].stop == end - start and places[end - 1] < count - 1
            corner = (int(places[start]) + box[0].start, box[1].start, box[2].start)
            one, other = pred[start:end][box], label[start:end][box]
            runs.append(PlaneRun(one, other, corner, bool(first), bool(last)))
    return runs


# How far two surfaces are apart, in millimetres, however thick the planes are.

ROUNDING = 1e-9  # relative: differences of multiples of the spacing are not exact
PERCENTILE = 95
SLAB = 8  # planes at once


class SurfaceScores(NamedTuple):
    """Surface Dice at a tolerance (0 to 1) and the 95 % Hausdorff distance in mm."""

    surface_dice: float
    hd95_mm: float


def surface_scores(
    runs: Sequence[PlaneRun], spacing_mm: Sequence[float], tolerance_mm: float
) -> SurfaceScores:
    """Compare the surfaces of prediction and label.

    Surface Dice (Nikolov et al. 2018, as the KiTS challenge takes it): the area of both surfaces
    that lies within the tolerance of the other, over the area of both. Areas are those of marching
    cubes on the grid of voxel corners. MONAI's `compute_surface_dice` gives the same with
    ``use_subvoxels=True``; its default counts voxels, whatever their size.

    HD95: of the distances from each border voxel's centre to the nearest of the other mask, the
    95th percentile, the larger of both directions, as MONAI's `compute_hausdorff_distance`.

    Both masks empty: surface Dice 1; one empty: 0. In both cases there is no distance: NaN.

    Args:
        runs: of `cut_runs`.
        spacing_mm: of planes, rows and columns.
        tolerance_mm: the largest distance that counts as right.
    """
    known = [any(run.pred.any() for run in runs), any(run.label.any() for run in runs)]
    if not all(known):
        return SurfaceScores(0.0 if any(known) else 1.0, float("nan"))
    pred, label = (
        _Surface(*map(np.concatenate, zip(*sides, strict=True)))
        for sides in zip(*(part for run in runs for part in _slabs(run, spacing_mm)), strict=True)
    )
    limit = tolerance_mm * (1 + ROUNDING)
    near = pred.areas[_distances(pred.elements, label.elements) <= limit].sum()
    near += label.areas[_distances(label.elements, pred.elements) <= limit].sum()
    hd95 = max(
        np.percentile(_distances(one.voxels, other.voxels), PERCENTILE)
        for one, other in ((pred, label), (label, pred))
    )
    return SurfaceScores(float(near / (pred.areas.sum() + label.areas.sum())), float(hd95))


class _Surface(NamedTuple):
    """Elements (P, 3) in mm, their areas (P,) in mm2, and centres (Q, 3) in mm of border voxels."""

    elements: np.ndarray
    areas: np.ndarray
    voxels: np.ndarray


def _distances(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """From each of (P, 3) to the nearest of (Q, 3)."""
    return np.asarray(KDTree(others).query(points)[0])


def _slabs(run: PlaneRun, spacing_mm: Sequence[float]) -> Iterator[tuple[_Surface, _Surface]]:
    """The surfaces of pred and label, some planes at a time, so that little memory is taken."""
    padded = [_end(run, mask) for mask in (run.pred, run.label)]
    layers = len(padded[0]) - 1  # of elements: between each plane and the next
    spacing = tuple(float(size) for size in spacing_mm)
    for start in range(0, layers, SLAB):
        # elements need the next plane, border voxels both neighbours: the last two come again
        parts = [mask[start : start + SLAB + 2] for mask in padded]
        seen = (parts[0] | parts[1]).any(0)
        if not seen.any():
            continue
        rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
        box = np.s_[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        masks = [torch.from_numpy(np.pad(m[box], ((0, 0), (1, 1), (1, 1)))) for m in parts]
        corner = np.array(run.corner) + np.array((start, rows[0], columns[0])) - 1
        found = get_mask_edges(*masks, crop=False, spacing=spacing)
        borders = get_mask_edges(*masks, crop=False)
        weights = np.ones((min(SLAB, layers - start), 1, 1))
        # between a plane and its repetition, half of the wall is that of the repetition
        weights[0] *= 0.5 if run.open_before and start == 0 else 1
        weights[-1] *= 0.5 if run.open_after and start + SLAB >= layers else 1
        pred, label = (
            _surface(found[side], found[side + 2], borders[side], weights, corner, spacing)
            for side in (0, 1)
        )
        yield pred, label


def _surface(
    edges: Tensor,
    areas: Tensor,
    border: Tensor,
    weights: np.ndarray,
    corner: np.ndarray,
    spacing_mm: Sequence[float],
) -> _Surface:
    """What MONAI finds in one slab, at its place in the volume."""
    crossed = edges.numpy()[: len(weights)]
    weighted = areas.numpy()[: len(weights)].astype(np.float64) * weights
    return _Surface(
        (np.argwhere(crossed) + corner + 0.5) * spacing_mm,
        weighted[crossed],
        (np.argwhere(border.numpy()[1:-1]) + corner + (1, 0, 0)) * spacing_mm,
    )


def _end(run: PlaneRun, mask: np.ndarray) -> np.ndarray:
    """Put a plane at both ends: empty, or the last one again where the run is open."""
    ended = np.pad(mask, ((1, 1), (0, 0), (0, 0)))
    if run.open_before:
        ended[0] = ended[1]
    if run.open_after:
        ended[-1] = ended[-2]
    return ended
