"""Object masks as a hasty hand would have drawn them: outlines of few straight sides."""

from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.draw import polygon
from skimage.measure import approximate_polygon, find_contours, regionprops

Labels = npt.NDArray[Any]
"""(H, W) whole numbers, 0 is background."""

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]


def polygonise(labels: Labels, tolerance_px: float) -> Labels:
    """Redraw every object with outlines of fewer vertices (paper 3.2, figure S2).

    The outline of an object runs half-way between its pixels and their neighbours; vertices are
    dropped as long as none lies further than the tolerance from the new outline (Douglas and
    Peucker), and the pixels with their centre inside are the new object. What is fixed beyond that:

    - A hole is an outline too, and stays a hole; an island in a hole stays an island. Only a rim
      thinner than the tolerance can break open.
    - The foreground is the union of all polygons, each with its object's number. A pixel that
      several claim stays with the object it had, if that one claims it; else it goes to the
      smallest of them (the lower number where sizes are equal). So touching objects stay apart.
    - At the border of the image an outline is closed along the border.
    - An outline that would shrink to a line or to no pixel is left as it is, and so is an object
      that would lose every pixel of its own: nothing vanishes.

    Args:
        labels: (H, W) object numbers, 0 = background; the pixels of a number may be in parts.
        tolerance_px: largest distance between old and new outline in pixels; 0 = no change. The
            texts used 2 and 3.5 at 1080 x 1080 pixels.

    Returns:
        (H, W) of the same type, with the same numbers.

    >>> labels = np.zeros((12, 13), np.uint8)
    >>> labels[1:11, 1:11] = 7
    >>> labels[6, 11] = 7  # a bump of one pixel, which a straight side leaves out
    >>> drawn = polygonise(labels, 1.6)
    >>> int(drawn[6, 10]), int(drawn[6, 11])
    (7, 0)
    """
    if tolerance_px == 0:
        return labels.copy()
    numbers, order = np.unique(labels, return_inverse=True)
    # Numbers may be far apart; regionprops would make room for each one between.
    objects = order.reshape(labels.shape) + (0 if numbers[0] == 0 else 1)
    drawn = np.zeros_like(labels)
    kept: list[tuple[tuple[slice, slice], Mask]] = []
    # The largest first, so that the smallest claimant of a pixel is the last to paint it.
    for region in sorted(regionprops(objects), key=lambda region: (-region.area, -region.label)):
        outline = _redraw(region.image, tolerance_px)
        number = labels[region.slice][region.image][0]
        drawn[region.slice][outline] = number
        kept.append((region.slice, outline & region.image))
    for place, own in kept:
        drawn[place][own] = labels[place][own]
    return drawn


def _redraw(mask: Mask, tolerance_px: float) -> Mask:
    """Redraw one object, given and returned in its bounding box (h, w).

    A polygon lies in the hull of the outline it simplifies, so it never leaves the box.
    """
    # One ring of background closes every outline, also those at the border of the image.
    rings = find_contours(np.pad(mask, 1).astype(float), 0.5, fully_connected="high")
    drawn = np.zeros(mask.shape, dtype=np.bool_)
    # Outermost first: what lies inside (a hole, an island in it) is painted later.
    for ring in sorted(rings, key=lambda ring: -abs(_signed_area(ring))):
        drawn[_inside(ring - 1, mask.shape, tolerance_px)] = _signed_area(ring) > 0
    # An object in the shape of a thin bow can lie outside its own polygon.
    return drawn if bool((drawn & mask).any()) else mask


def _inside(ring: Points, shape: tuple[int, ...], tolerance_px: float) -> tuple[Points, Points]:
    """Give rows and columns of the pixels in the simplified ring, or in the ring itself if none."""
    simple = approximate_polygon(ring, tolerance_px)
    if len(simple) > 3:  # a triangle has four points, as the first is repeated
        rows, columns = polygon(simple[:, 0], simple[:, 1], shape)
        if len(rows):
            return rows, columns
    rows, columns = polygon(ring[:, 0], ring[:, 1], shape)
    return rows, columns


def _signed_area(ring: Points) -> float:
    """Give the area of a closed ring (V, 2), above 0 around an object, below 0 around a hole."""
    row, column = ring[:, 0], ring[:, 1]
    return float(np.sum(column[:-1] * row[1:] - column[1:] * row[:-1]) / 2)
