"""What a label volume says about the tumour by itself: lesions, and the largest diameter."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import pdist

TUMOUR = 2
SMALLEST_MM3 = 65.0  # a ball of 5 mm, the smallest size of the range; less is a speck


class TumourMeasures(NamedTuple):
    """Of one label volume.

    Attributes:
        components: lesions of at least 65 mm3 that do not touch each other, not even by a corner.
        diameter_mm: the largest distance of two edge points within one axial plane of one
            lesion (the largest Feret diameter, as a radiologist measures); 0 without a lesion.
    """

    components: int
    diameter_mm: float


def measure_tumour(planes: np.ndarray, spacing_mm: tuple[float, float, float]) -> TumourMeasures:
    """Count the tumour's lesions and measure the largest one across.

    Args:
        planes: (D, H, W) classes, of which 2 is tumour.
        spacing_mm: (z, y, x).

    >>> planes = np.zeros((3, 20, 20), np.uint8)
    >>> planes[1, 2, 2:6] = 2  # 4 pixels of 3 mm in a row
    >>> measure_tumour(planes, (5.0, 3.0, 3.0))
    TumourMeasures(components=1, diameter_mm=12.0)
    """
    tumour = planes == TUMOUR
    for axis in range(3):  # crop: a tumour is a small part of its volume
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(tumour.any(axis=others))
        if not len(filled):
            return TumourMeasures(0, 0.0)
        tumour = tumour[(slice(None),) * axis + (slice(filled[0], filled[-1] + 1),)]
    labels, _ = ndimage.label(tumour, np.ones((3, 3, 3)))
    volumes = np.bincount(labels.ravel())[1:] * float(np.prod(spacing_mm))
    lesions = np.flatnonzero(volumes >= SMALLEST_MM3) + 1
    largest = 0.0
    y, x = spacing_mm[1:]
    parts = ndimage.find_objects(labels)
    cuts = [(plane, lesion) for lesion in lesions for plane in labels[parts[lesion - 1]] == lesion]
    for cut, _ in sorted(cuts, key=lambda pair: -_diagonal(pair[0].shape, y, x)):
        if _diagonal(cut.shape, y, x) > largest and cut.any():
            largest = max(largest, _feret(cut, y, x))
    return TumourMeasures(len(lesions), largest)


def _diagonal(shape: tuple[int, ...], y: float, x: float) -> float:
    return float(np.hypot(shape[0] * y, shape[1] * x))


def _feret(cut: np.ndarray, y: float, x: float) -> float:
    """The largest distance between the middles of outer pixel edges; only row ends can be it."""
    rows = np.flatnonzero(cut.any(axis=1))
    left = cut[rows].argmax(axis=1)
    right = cut.shape[1] - 1 - cut[rows][:, ::-1].argmax(axis=1)
    points = np.concatenate(
        [
            np.stack([rows + dy, ends + dx], axis=1)
            for ends in (left, right)
            for dy, dx in ((-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5))
        ]
    )
    return float(pdist(points * (y, x)).max())
