"""Where the planes of a DICOM series lie: their order, and one affine for all of them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from metaseg_monai.errors import DataError

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts toward left and back, NIfTI right and front
SAME_DIRECTION = 1e-3  # of unit vectors; some scanners round them to three decimals
GAP_RATIO = 0.01
ROUNDED_MM = 0.011  # what positions written with two decimals can be off by between two planes
SIDEWAYS_PIXELS = 0.1
SHOWN = 3


class PlanePlace(NamedTuple):
    """Where one plane lies, as its file tells.

    Attributes:
        file: its name, for messages.
        instance: its own identity (SOPInstanceUID).
        frame: the identity of the space its position is in (FrameOfReferenceUID), or "".
        shape: rows, columns.
        spacing_mm: distance of rows, distance of columns (PixelSpacing).
        orientation: unit vectors along a row and down a column (ImageOrientationPatient).
        position_mm: middle of its first pixel, toward left, back, head (ImagePositionPatient).
    """

    file: str
    instance: str
    frame: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    position_mm: tuple[float, ...]


class SeriesGrid(NamedTuple):
    """The grid that the planes of a series make.

    Attributes:
        order: which plane comes first, second ...: along the normal (row x column direction),
            whatever the order of the files.
        shape: columns, rows, planes.
        affine: (4, 4) float64, index (column, row, plane) to mm (R, A, S).
        spacing_mm: distance of columns, rows and planes.
    """

    order: tuple[int, ...]
    shape: tuple[int, int, int]
    affine: np.ndarray
    spacing_mm: tuple[float, float, float]


def series_grid(folder: str, places: Sequence[PlanePlace]) -> SeriesGrid:
    """Order planes and see that they make one regular, straight grid.

    Planes that lack at an end of the series leave no gap and cannot be noticed.

    Args:
        folder: for messages.
        places: of the planes, in any order.

    Raises:
        DataError: there are fewer than two planes, they differ in shape, spacing, orientation or
            frame of reference, two lie at one position, gaps differ by more than 1 % (or 0.01
            mm), or they shift sideways as with a tilted gantry; names the files.

    >>> front = {"shape": (4, 6), "spacing_mm": (0.8, 0.7), "orientation": (1, 0, 0, 0, 1, 0)}
    >>> grid = series_grid("ct", [
    ...     PlanePlace(f"{z}.dcm", str(z), "", position_mm=(5, 2, z), **front) for z in (9, 3, 6)
    ... ])
    >>> grid.order, grid.shape, grid.spacing_mm
    ((1, 2, 0), (6, 4, 3), (0.7, 0.8, 3.0))
    >>> grid.affine[2].tolist()
    [0.0, 0.0, 3.0, 3.0]
    """
    if len(places) < 2:
        raise DataError(
            f"{folder}: {len(places)} plane, so the distance of planes is unknown; expected a "
            "whole series of CT or MR"
        )
    for keyword, name, tolerance in (
        ("FrameOfReferenceUID", "frame", 0.0),
        ("Rows and Columns", "shape", 0.0),
        ("PixelSpacing", "spacing_mm", 1e-4),
        ("ImageOrientationPatient", "orientation", SAME_DIRECTION),
    ):
        _check_agreement(folder, places, keyword, name, tolerance)
    first = places[0]
    along_row, down_column = _directions(folder, first)
    normal = np.cross(along_row, down_column)
    positions = np.array([place.position_mm for place in places], dtype=np.float64)
    heights = positions @ normal
    order = np.argsort(heights, kind="stable")
    ordered = [places[index] for index in order]
    _check_gaps(folder, ordered, heights[order])
    offsets = positions[order] - positions[order[0]]
    _check_straight(folder, ordered, offsets, normal)
    step = offsets[-1] / (len(places) - 1)
    rows_mm, columns_mm = first.spacing_mm
    lps = np.eye(4)
    lps[:3] = np.stack(
        [along_row * columns_mm, down_column * rows_mm, step, positions[order[0]]], axis=1
    )
    return SeriesGrid(
        tuple(order.tolist()),
        (first.shape[1], first.shape[0], len(places)),
        TO_RAS @ lps,
        (float(columns_mm), float(rows_mm), float(np.linalg.norm(step))),
    )


def _check_agreement(
    folder: str, places: Sequence[PlanePlace], keyword: str, name: str, tolerance: float
) -> None:
    values: list[Any] = [getattr(place, name) for place in places]
    usual = Counter(values).most_common(1)[0][0]
    typical = places[values.index(usual)]
    odd = [place for place, value in zip(places, values, strict=True) if value != usual]
    if tolerance:
        odd = [p for p in odd if not np.allclose(getattr(p, name), usual, rtol=0, atol=tolerance)]
    if odd:
        raise DataError(
            f"{folder}: {len(odd)} of {len(places)} planes differ in {keyword}: {odd[0].file} has "
            f"{getattr(odd[0], name)}, {typical.file} has {usual}; move localisers and other scans "
            "into folders of their own"
        )


def _directions(folder: str, plane: PlanePlace) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors at a right angle; rounding of the file's text is taken out."""
    along_row, down_column = np.array(plane.orientation, dtype=np.float64).reshape(2, 3)
    sizes = np.linalg.norm(along_row), np.linalg.norm(down_column)
    lean = float(along_row @ down_column)
    if max(abs(size - 1) for size in sizes) > SAME_DIRECTION or abs(lean) > SAME_DIRECTION:
        raise DataError(
            f"{folder}: {plane.file}: ImageOrientationPatient {plane.orientation} is no pair of "
            "unit vectors at a right angle; export the series anew"
        )
    along_row = along_row / sizes[0]
    down_column = down_column - (down_column @ along_row) * along_row
    return along_row, down_column / np.linalg.norm(down_column)


def _check_gaps(folder: str, ordered: Sequence[PlanePlace], heights: np.ndarray) -> None:
    gaps = np.diff(heights)
    told = [f"{p.file} at {height:g} mm" for p, height in zip(ordered, heights, strict=True)]
    same = np.flatnonzero(gaps < ROUNDED_MM)
    if len(same):
        index = int(same[0])
        copies = ordered[index].instance == ordered[index + 1].instance
        reason = (
            "they are copies of one image: delete one"
            if copies
            else "several phases, echoes or repeats in one series: keep one of them in the folder"
        )
        raise DataError(
            f"{folder}: {len(same)} planes lie where another one lies, such as {told[index]} and "
            f"{told[index + 1]}; {reason}"
        )
    usual = float(np.median(gaps))
    uneven = np.flatnonzero(np.abs(gaps - usual) > max(GAP_RATIO * usual, ROUNDED_MM))
    if len(uneven):
        shown = "; ".join(
            f"{gaps[index]:g} mm between {told[index]} and {told[index + 1]}"
            for index in uneven[:SHOWN]
        )
        lacking = int(sum(max(0, round(gaps[index] / usual) - 1) for index in uneven))
        lack = f"; about {lacking} planes lack: copy the series anew" if lacking else ""
        raise DataError(
            f"{folder}: planes are {usual:g} mm apart, but {len(uneven)} of {len(gaps)} gaps are "
            f"not: {shown}{lack or '; resample it to equal distances first'}"
        )


def _check_straight(
    folder: str, ordered: Sequence[PlanePlace], offsets: np.ndarray, normal: np.ndarray
) -> None:
    """Refuse planes that do not lie above each other."""
    sideways = np.linalg.norm(offsets - np.outer(offsets @ normal, normal), axis=1)
    worst = int(sideways.argmax())
    if sideways[worst] > SIDEWAYS_PIXELS * min(ordered[0].spacing_mm):
        tilt = np.degrees(np.arctan2(sideways[-1], offsets[-1] @ normal))
        raise DataError(
            f"{folder}: {ordered[worst].file} lies {sideways[worst]:.3g} mm sideways of "
            f"{ordered[0].file} (a gantry tilt of {tilt:.2g} degrees?); convert the series with "
            "dcm2niix, which straightens it, and give the NIfTI file"
        )
