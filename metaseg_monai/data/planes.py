"""Planes of another pixel size: images linearly, labels by the nearest pixel."""

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
    sides = [
        size if abs(step / target_mm - 1) < SAME_SPACING else max(1, round(size * step / target_mm))
        for size, step in zip(shape, spacing_mm, strict=True)
    ]
    return sides[0], sides[1]


def resize_image(image: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize planes linearly, averaging where pixels become larger.

    Args:
        image: (B, C, H, W) float32; intensities, or logits on their way back.
        shape: wanted (H, W).
    """
    if tuple(image.shape[-2:]) == shape:
        return image
    shrinks = any(new < old for new, old in zip(shape, image.shape[-2:], strict=True))
    return F.interpolate(image, shape, mode="bilinear", align_corners=False, antialias=shrinks)


def resize_label(label: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize planes of classes (B, C, H, W), each pixel from its nearest."""
    if tuple(label.shape[-2:]) == shape:
        return label
    rows, columns = (
        torch.clamp(((torch.arange(new) + 0.5) * old / new).long(), max=old - 1)
        for old, new in zip(label.shape[-2:], shape, strict=True)
    )
    return label.index_select(-2, rows).index_select(-1, columns)


def resize_stored(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize one stored plane (H, W) linearly and keep its data type, rounding whole numbers."""
    if plane.shape == shape:
        return plane
    pixels = torch.from_numpy(np.ascontiguousarray(plane, dtype=np.float32))[None, None]
    resized = resize_image(pixels, shape)[0, 0].numpy()
    if plane.dtype.kind in "iu":
        resized = np.rint(resized)
    return resized.astype(plane.dtype)
