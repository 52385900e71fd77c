"""Planes of another pixel size: images linearly, labels by the nearest pixel."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SAME_SPACING = 1e-3  # relative


def resampled_shape(
    shape: tuple[int, int], spacing_mm: tuple[float, float], target_mm: float
) -> tuple[int, int]:
    """Pixels of a plane of the same extent with square pixels of another size.

    Args:
        shape: (H, W) pixels.
        spacing_mm: (y, x) of a pixel.
        target_mm: side of the wanted pixel.

    >>> resampled_shape((512, 512), (0.78, 0.78), 1.56), resampled_shape((10, 20), (1, 1), 1)
    ((256, 256), (10, 20))
    """
    rows, columns = (
        resampled_size(size, step, target_mm) for size, step in zip(shape, spacing_mm, strict=True)
    )
    return rows, columns


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
