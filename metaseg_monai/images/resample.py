"""Planes of another pixel size: images linearly, labels by the nearest pixel."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metaseg_monai.errors import DataError
from metaseg_monai.images.nifti import LARGEST_BYTES

LARGEST_PIXELS = LARGEST_BYTES // 4  # as float32
SAME_SPACING = 1e-3  # relative


def resampled_shape(
    shape: tuple[int, int], spacing_mm: tuple[float, float], target_mm: float
) -> tuple[int, int]:
    """Pixels of a plane of the same extent with square pixels of another size.

    Args:
        shape: (H, W) pixels.
        spacing_mm: (y, x) of a pixel.
        target_mm: side of the wanted pixel.

    Raises:
        DataError: as `resampled_grid`.

    >>> resampled_shape((512, 512), (0.78, 0.78), 1.56), resampled_shape((10, 20), (1, 1), 1)
    ((256, 256), (10, 20))
    """
    rows, columns = resampled_grid(shape, spacing_mm, (target_mm, target_mm))
    return rows, columns


def resampled_grid(
    shape: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float]
) -> tuple[int, ...]:
    """Pixels along every axis of the same extent, with steps of other lengths.

    Args:
        shape: pixels along each axis.
        spacing_mm: distance of pixels along each axis.
        target_mm: wanted distances.

    Raises:
        DataError: there would be more pixels than are read from any file.
    """
    sizes = tuple(map(resampled_size, shape, spacing_mm, target_mm))
    if math.prod(sizes) > max(LARGEST_PIXELS, math.prod(shape)):
        old, new, given, wanted = (
            " x ".join(f"{number:g}" for number in numbers)
            for numbers in (shape, sizes, spacing_mm, target_mm)
        )
        raise DataError(
            f"{old} pixels of {given} mm would become {new} of {wanted} mm, expected at most "
            f"{LARGEST_PIXELS >> 20} million; mend the pixel size of the file, or ask for "
            "larger pixels (spacing_mm)"
        )
    return sizes


def resampled_size(size: int, step_mm: float, target_mm: float) -> int:
    """Pixels along one axis of the same extent, with steps of another length.

    >>> resampled_size(512, 0.78, 1.56)
    256
    """
    if abs(step_mm / target_mm - 1) < SAME_SPACING:
        return size
    return max(1, round(size * step_mm / target_mm))


def resize_image(image: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize planes or volumes linearly; in planes, averaging where pixels become larger.

    Args:
        image: (B, C, H, W) or (B, C, H, W, D) float32; intensities, or logits on their way back.
        shape: wanted (H, W) or (H, W, D).
    """
    if tuple(image.shape[2:]) == tuple(shape):
        return image
    if len(shape) == 3:
        return F.interpolate(image, tuple(shape), mode="trilinear", align_corners=False)
    shrinks = any(new < old for new, old in zip(shape, image.shape[2:], strict=True))
    return F.interpolate(
        image, tuple(shape), mode="bilinear", align_corners=False, antialias=shrinks
    )


def resize_label(label: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize classes (B, C, H, W) or (B, C, H, W, D), each pixel from its nearest."""
    for axis, (old, new) in enumerate(zip(label.shape[2:], shape, strict=True), start=2):
        if old != new:
            nearest = ((torch.arange(new, device=label.device) + 0.5) * old / new).long()
            label = label.index_select(axis, nearest.clamp(max=old - 1))
    return label


def resize_stored(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize one stored plane (H, W) linearly and keep its data type, rounding whole numbers."""
    if plane.shape == shape:
        return plane
    pixels = torch.from_numpy(np.ascontiguousarray(plane, dtype=np.float32))[None, None]
    resized = resize_image(pixels, shape)[0, 0].numpy()
    if plane.dtype.kind in "iu":
        resized = np.rint(resized)
    return resized.astype(plane.dtype)
