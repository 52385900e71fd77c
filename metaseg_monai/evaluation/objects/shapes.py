"""Size, shape and intensity of every object of an image."""

from typing import Any

import numpy as np
import pandas as pd
from skimage.measure import regionprops

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.objects.instances import Objects

LENGTHS = {
    "diameter": "equivalent_diameter_area",
    "perimeter": "perimeter",
    "major_axis": "axis_major_length",
    "minor_axis": "axis_minor_length",
}
DECIMALS = 4


def measure_objects(
    objects: Objects, image: np.ndarray | None, pixel_um: float | None
) -> pd.DataFrame:
    """Measure every object, one after the other, so that a whole slide needs no further copy.

    Shapes are those of scikit-image's `regionprops`: diameter of the disc of equal area,
    perimeter (0 for a single pixel), axes of the ellipse of equal moments, its eccentricity, and
    solidity, the share of the convex hull that is filled. The centroid is that of the pixels,
    whose centres have whole coordinates, from 0 of the upper left one.

    Args:
        objects: of the image.
        image: (C, H, W) as the file stores it, whose intensities are measured; None leaves them
            out.
        pixel_um: side of a pixel in micrometres; None leaves the columns in micrometres empty.

    Returns:
        A row an object, in the order of their numbers: `object`, `class`, `centroid_y_px`,
        `centroid_x_px`, `area_px`, lengths, `eccentricity`, `solidity`, `touches_border`, mean,
        sd, min and max intensity (of several channels each with its number, from 1), and sizes in
        micrometres.

    Raises:
        DataError: the image has another shape.
    """
    shape = objects.labels.shape
    if image is not None and image.shape[1:] != shape:
        raise DataError(
            f"the image has the shape {image.shape[1:]}, its objects {shape}; measure objects in "
            "whole images rather than crops"
        )
    regions = regionprops(objects.labels)
    rows = []
    for place, region in enumerate(regions):
        regions[place] = None  # with all that scikit-image keeps of it
        rows.append(_measured(region, shape, image))
    table = pd.DataFrame(rows, columns=None if rows else list(_no_row(image)))
    table.insert(1, "class", objects.classes[table["object"].to_numpy(dtype=np.int64) - 1])
    return _with_micrometres(table, pixel_um)


def _measured(region: Any, shape: tuple[int, ...], image: np.ndarray | None) -> dict[str, Any]:
    top, left, bottom, right = region.bbox
    y, x = region.centroid
    row = {"object": region.label, "centroid_y_px": y, "centroid_x_px": x}
    row["area_px"] = int(region.area)
    row |= {f"{name}_px": getattr(region, known) for name, known in LENGTHS.items()}
    row["eccentricity"] = region.eccentricity
    row["solidity"] = region.solidity
    row["touches_border"] = int(top == 0 or left == 0 or bottom == shape[0] or right == shape[1])
    if image is not None:
        for number, channel in enumerate(image, start=1):
            pixels = channel[region.slice][region.image].astype(np.float64)
            names = _intensities(number, len(image))
            row |= dict(
                zip(names, (pixels.mean(), pixels.std(), pixels.min(), pixels.max()), strict=True)
            )
    return row


def _intensities(channel: int, channels: int) -> list[str]:
    """Names of the columns of one channel.

    >>> _intensities(1, 1)[:2], _intensities(2, 3)[0]
    (['mean_intensity', 'sd_intensity'], 'mean_intensity_2')
    """
    suffix = f"_{channel}" if channels > 1 else ""
    return [f"{name}_intensity{suffix}" for name in ("mean", "sd", "min", "max")]


def _no_row(image: np.ndarray | None) -> dict[str, Any]:
    """The columns of an image without objects, as those of one with an object."""
    (pixel,) = regionprops(np.ones((1, 1), dtype=np.int32))
    one = None if image is None else np.zeros((len(image), 1, 1))
    return _measured(pixel, (1, 1), one)


def _with_micrometres(table: pd.DataFrame, pixel_um: float | None) -> pd.DataFrame:
    side = float("nan") if pixel_um is None else pixel_um
    lengths = ("centroid_y", "centroid_x", *LENGTHS)
    sizes = {f"{name}_um": table[f"{name}_px"].astype(float) * side for name in lengths}
    sizes["area_um2"] = table["area_px"].astype(float) * side**2
    return table.assign(**sizes).round(DECIMALS)
