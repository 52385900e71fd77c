"""Scores of an image beside the one that it should be, and of the objects that both show."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import ks_2samp
from skimage.feature import graycomatrix, graycoprops
from skimage.measure import regionprops
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from metaseg_monai.errors import DataError

WINDOW_PX = 7  # of the structural similarity
SCALES_PX = (1, 4)  # distances at which texture is measured
GREYS = 32
ANGLES = (0, math.pi / 4, math.pi / 2, 3 * math.pi / 4)


class ImageScores(NamedTuple):
    """How near an image is to the one that it should be; NaN for what does not exist.

    Attributes:
        medmae: mean of |x - y| over the median of y, the adipocyte challenge's measure; none where
            that is not above 0. 0 is perfect.
        psnr: peak signal-to-noise ratio in dB, with the range of y as the peak; none of a constant
            y, and infinite, given as none, where nothing differs.
        ssim: structural similarity in windows of 7 pixels, with the range of y; 1 is perfect. None
            of smaller images and of a constant y.
        pearson: correlation of the pixels; none where one of both is constant.
        sharpness: mean step between neighbouring pixels of x over that of y; 1 is as sharp as the
            real image (or as noisy), less is blurred. None of a constant y.
        absolute_error: mean of |x - y|, in the unit of y.
        label_median: median of y.
        label_mean: mean of y.
        pred_mean: mean of x.
    """

    medmae: float
    psnr: float
    ssim: float
    pearson: float
    sharpness: float
    absolute_error: float
    label_median: float
    label_mean: float
    pred_mean: float


def score_image(pred: np.ndarray, label: np.ndarray) -> ImageScores:
    """Compare a predicted image (*S) with the true one (*S), in the values of their files.

    Raises:
        DataError: their shapes differ.

    >>> scores = score_image(np.array([[2.0, 2.0, 6.0]]), np.array([[1.0, 2.0, 3.0]]))
    >>> round(scores.medmae, 4), round(scores.pearson, 4)  # (1 + 0 + 3) / 3 / 2
    (0.6667, 0.866)
    """
    if pred.shape != label.shape:
        raise DataError(f"prediction {pred.shape} and target {label.shape} differ in shape")
    x, y = pred.astype(np.float64), label.astype(np.float64)
    error, median = float(np.abs(x - y).mean()), float(np.median(y))
    extent = float(np.ptp(y))
    psnr = ssim = pearson = sharpness = math.nan
    if extent and not np.array_equal(x, y):
        psnr = float(peak_signal_noise_ratio(y, x, data_range=extent))
    if extent and min(y.shape) >= WINDOW_PX:
        ssim = float(structural_similarity(y, x, win_size=WINDOW_PX, data_range=extent))
    if extent and np.ptp(x):
        pearson = float(np.corrcoef(x.ravel(), y.ravel())[0, 1])
    if extent:
        sharpness = _steps(x) / _steps(y)
    return ImageScores(
        error / median if median > 0 else math.nan,
        psnr,
        ssim,
        pearson,
        sharpness,
        error,
        median,
        float(y.mean()),
        float(x.mean()),
    )


def _steps(image: np.ndarray) -> float:
    """Sum over axes of the mean absolute difference of neighbours."""
    axes = (axis for axis, size in enumerate(image.shape) if size > 1)
    return float(sum(np.abs(np.diff(image, axis=axis)).mean() for axis in axes))


def texture_of(
    objects: np.ndarray,
    image: np.ndarray,
    ends: tuple[float, float],
    scales_px: Sequence[int] = SCALES_PX,
) -> np.ndarray:
    """Contrast of grey-level co-occurrence of each object, at some distances of pixels.

    It is the mean of (a - b)^2 over pairs of pixels of the object that are so far apart along rows,
    columns and both diagonals (there rounded), of 32 grey levels; 0 of what is even.

    Args:
        objects: (H, W) whole numbers, 0 background, 1 to N.
        image: (H, W) whose texture it is.
        ends: values that become the first and the last grey level; others are cut.
        scales_px: the distances.

    Returns:
        (N, scales), NaN where an object has no such pair.

    >>> stripes = np.tile([0.0, 31.0], (4, 2))
    >>> texture_of(np.ones((4, 4), int), stripes, (0, 31), [1]).round(2)  # 961 * 30 / 42 pairs
    array([[686.43]])
    """
    low, high = ends
    width = max(high - low, np.finfo(float).tiny)
    greys = 1 + np.clip((image - low) / width * (GREYS - 1), 0, GREYS - 1).round().astype(np.uint8)
    found = []
    for region in regionprops(objects):
        part = np.where(region.image, greys[region.slice], 0)
        pairs = graycomatrix(part, scales_px, ANGLES, levels=GREYS + 1, symmetric=True)
        inside = pairs[1:, 1:].sum(axis=3, keepdims=True).astype(np.float64)  # of all directions
        counts = inside.sum(axis=(0, 1))[:, 0]
        contrast = graycoprops(inside, "contrast")[:, 0]
        found.append(np.where(counts > 0, contrast, np.nan))
    return np.array(found).reshape(-1, len(scales_px))


class Agreement(NamedTuple):
    """How alike a feature of the objects of real and of generated images is.

    Attributes:
        real: mean over the objects of the real images.
        generated: likewise of the generated ones.
        relative_error: (generated - real) / |real|; NaN where real is 0.
        ks: Kolmogorov-Smirnov distance of both distributions, 0 to 1.
        correlation: Pearson's over images, of the mean of each; NaN of fewer than three.
    """

    real: float
    generated: float
    relative_error: float
    ks: float
    correlation: float


def agreement(
    real: np.ndarray, generated: np.ndarray, means: tuple[np.ndarray, np.ndarray]
) -> Agreement:
    """Compare the values of a feature; those that do not exist are left out.

    Args:
        real: (N,) of the objects of all real images.
        generated: (M,) of those of the generated ones.
        means: (I,) of each real image, and of each generated one, in one order.

    >>> one = agreement(np.array([1.0, 3]), np.array([2.0, 4]), (np.arange(3.0), np.arange(3.0)))
    >>> one.relative_error, one.ks, round(one.correlation, 6)
    (0.5, 0.5, 1.0)
    """
    ours, theirs = (values[np.isfinite(values)] for values in (real, generated))
    mean, other = (float(v.mean()) if len(v) else math.nan for v in (ours, theirs))
    ks = float(ks_2samp(ours, theirs).statistic) if len(ours) and len(theirs) else math.nan
    return Agreement(mean, other, (other - mean) / abs(mean) if mean else math.nan, ks,
                     correlation(*means))  # fmt: skip


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's correlation of the pairs that exist; NaN of fewer than three, or of constants."""
    both = np.isfinite(one) & np.isfinite(other)
    x, y = one[both].astype(float), other[both].astype(float)
    if len(x) < 3 or not np.ptp(x) or not np.ptp(y):
        return math.nan
    return float(np.corrcoef(x, y)[0, 1])
