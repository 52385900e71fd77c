"""Object masks as a hasty hand would have drawn them: outlines of few straight sides."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.draw import polygon
from skimage.measure import approximate_polygon, find_contours, regionprops

from metaseg_monai.errors import ConfigError, DataError

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
            texts used 2 and 3.5 at 1080 x 1080 pixels; see `scaled_tolerance` for other sizes.

    Returns:
        (H, W) of the same type, with the same numbers.

    Raises:
        ConfigError: the tolerance is negative or not finite.
        DataError: labels are not (H, W) whole numbers from 0.

    >>> labels = np.zeros((12, 13), np.uint8)
    >>> labels[1:11, 1:11] = 7
    >>> labels[6, 11] = 7  # a bump of one pixel, which a straight side leaves out
    >>> drawn = polygonise(labels, 1.6)
    >>> int(drawn[6, 10]), int(drawn[6, 11])
    (7, 0)
    """
    if not math.isfinite(tolerance_px) or tolerance_px < 0:
        raise ConfigError(
            f"tolerance_px is {tolerance_px}: expected a distance in pixels from 0 (no change), "
            "for instance 2 or 3.5 at 1080 x 1080 pixels."
        )
    _check_labels(labels)
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


def scaled_tolerance(
    tolerance_at_1080: float, diameter_px: float, reference_diameter_px: float
) -> float:
    """Give the tolerance that cuts as deep into a nucleus as the texts' did at 1080 pixels.

    Args:
        tolerance_at_1080: tolerance in pixels of the texts' 1080 x 1080 images (2 fine, 3.5
            coarse; paper figure S2).
        diameter_px: median diameter of a nucleus in these images, in pixels.
        reference_diameter_px: median diameter of a nucleus in the 1080 x 1080 images, in pixels.

    Returns:
        The tolerance in pixels of these images.

    Raises:
        ConfigError: the tolerance is negative, or a diameter is not above 0.

    >>> scaled_tolerance(3.5, diameter_px=20, reference_diameter_px=40)
    1.75
    """
    if not math.isfinite(tolerance_at_1080) or tolerance_at_1080 < 0:
        raise ConfigError(
            f"tolerance_at_1080 is {tolerance_at_1080}: expected a distance in pixels from 0."
        )
    for name, diameter in (
        ("diameter_px", diameter_px),
        ("reference_diameter_px", reference_diameter_px),
    ):
        if not math.isfinite(diameter) or diameter <= 0:
            raise ConfigError(
                f"{name} is {diameter}: expected a diameter in pixels above 0; measure it with "
                "median_diameter over masks that hold at least one object."
            )
    return tolerance_at_1080 * diameter_px / reference_diameter_px


def object_diameters(labels: Labels) -> npt.NDArray[np.float64]:
    """Give the diameters of the circles that are as large as the objects, in pixels.

    Args:
        labels: (H, W) object numbers, 0 = background.

    Returns:
        (N,) one diameter for each object, by number.
    """
    _check_labels(labels)
    numbers, areas = np.unique(labels, return_counts=True)
    return np.asarray(np.sqrt(4 * areas[numbers != 0] / math.pi))


def _check_labels(labels: Labels) -> None:
    """Refuse what cannot be a picture of object numbers."""
    whole = labels.dtype == np.bool_ or np.issubdtype(labels.dtype, np.integer)
    if labels.ndim != 2 or labels.size == 0 or not whole:
        raise DataError(
            f"labels have shape {labels.shape} and type {labels.dtype}: expected (H, W) whole "
            "numbers, one for each object and 0 for the background."
        )
    if labels.min() < 0:
        raise DataError(
            f"labels hold {labels.min()}: expected object numbers from 1 and 0 for the background; "
            "set the pixels below 0 to 0."
        )


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
