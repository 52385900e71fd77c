"""Can a predicted probability be taken at its word? Bins for each case, and errors from them."""

import math

import pandas as pd
import torch
from torch import Tensor

from metaseg_monai.errors import DataError


def bin_probabilities(logits: Tensor, label: Tensor, bins: int = 10) -> Tensor:
    """Sort the pixels of every image into bins of their predicted probability.

    Bin b of n holds the probabilities b / n <= p < (b + 1) / n; the last one also holds p = 1.

    Args:
        logits: network output (B, K, *S) before the softmax; class 0 is the background.
        label: target classes (B, *S).
        bins: number of bins of equal width over 0..1.

    Returns:
        float64 (B, K - 1, bins, 4): for each foreground class its pixels, the sum of their
        probabilities, how many of them are of the class, and the sum of those' probabilities.

    >>> bin_probabilities(torch.zeros(1, 2, 3), torch.tensor([[0, 1, 1]]), bins=2)[0, 0].tolist()
    [[0.0, 0.0, 0.0, 0.0], [3.0, 1.5, 2.0, 1.0]]
    """
    if logits.shape[:1] + logits.shape[2:] != label.shape:
        raise DataError(f"logits {tuple(logits.shape)} and target {tuple(label.shape)} do not fit")
    width, pixels, parts = math.prod(label.shape[2:]), math.prod(label.shape[1:]), []
    for start in range(0, pixels, PIXELS_AT_ONCE):
        stop = min(start + PIXELS_AT_ONCE, pixels)
        rows = slice(start // width, -(-stop // width))
        cut = slice(start - rows.start * width, stop - rows.start * width)
        found = logits[:, :, rows].flatten(2)[:, :, cut]
        parts.append(_bin_part(found, label[:, rows].flatten(1)[:, cut], bins))
    return torch.stack(parts).sum(0)


PIXELS_AT_ONCE = 1 << 22  # so that large images take little memory


def _bin_part(logits: Tensor, label: Tensor, bins: int) -> Tensor:
    """`bin_probabilities` of some pixels (B, K, P) with their classes (B, P)."""
    # float32 first: under autocast the logits are bfloat16, which has no more than 3 digits
    p = logits.float().softmax(1)[:, 1:]
    images, classes, _ = p.shape
    numbers = torch.arange(1, classes + 1, device=p.device).view(1, -1, 1)
    truth = label.unsqueeze(1) == numbers
    edges = torch.arange(1, bins, device=p.device) / bins
    # every image and class has its own range of bins, so that one pass counts them all
    first_bin = torch.arange(images * classes, device=p.device).view(images, classes, 1) * bins
    place = (torch.bucketize(p.contiguous(), edges, right=True) + first_bin).flatten()
    cells = images * classes * bins
    pixels = torch.bincount(place, minlength=cells).double()
    confidence = torch.bincount(place, weights=p.flatten().double(), minlength=cells)
    of_class = truth.flatten()
    positives = torch.bincount(place[of_class], minlength=cells).double()
    inside = torch.bincount(
        place[of_class], weights=p.flatten()[of_class].double(), minlength=cells
    )
    sums = torch.stack([pixels, confidence, positives, inside], dim=-1)
    return sums.view(images, classes, bins, 4)


def reliability(table: pd.DataFrame) -> pd.DataFrame:
    """Add the bins of all cases and classes: the points of a reliability diagram.

    Args:
        table: rows of `evaluation.read_calibration`, of one or more cases, classes and seeds.

    Returns:
        One row for each bin that is not empty: ``bin``, ``pixels``, ``confidence`` (mean
        probability, 0..1) and ``frequency`` (share of the pixels that are of the class, 0..1).
    """
    bins = table.groupby("bin")[["pixels", "confidence", "positives"]].sum().reset_index()
    bins["confidence"] /= bins["pixels"]
    bins["frequency"] = bins.pop("positives") / bins["pixels"]
    return bins


def expected_calibration_error(table: pd.DataFrame) -> float:
    """Mean of |frequency - confidence| over the bins, weighted by their pixels, 0..1.

    This is the error of Guo et al. (2017, section 2) on the probability of the foreground
    instead of that of the predicted class. It is small wherever most pixels are background with a
    probability near 0, which are right and hide the rest: read `foreground_calibration_error` too.

    Args:
        table: rows of `evaluation.read_calibration`.

    >>> row = {"bin": 9, "pixels": 10, "confidence": 9.5, "positives": 7}
    >>> round(expected_calibration_error(pd.DataFrame([row])), 3)
    0.25
    """
    return _error(reliability(table))


def foreground_calibration_error(table: pd.DataFrame) -> float:
    """`expected_calibration_error` without the first bin, that of the sure background.

    NaN where every pixel is in the first bin.

    Args:
        table: rows of `evaluation.read_calibration`.
    """
    return _error(reliability(table[table["bin"] > 0]))


def calibration_errors(table: pd.DataFrame) -> pd.DataFrame:
    """Both errors of each domain, in table order.

    Returns:
        Index: the domains; columns ``pixels``, ``error`` and ``foreground_error``.
    """
    rows = {
        str(name): {
            "pixels": int(part["pixels"].sum()),
            "error": expected_calibration_error(part),
            "foreground_error": foreground_calibration_error(part),
        }
        for name, part in table.groupby("domain", sort=False)
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("domain")


def _error(bins: pd.DataFrame) -> float:
    if bins.empty:
        return float("nan")
    distance = (bins["frequency"] - bins["confidence"]).abs()
    return float((bins["pixels"] * distance).sum() / bins["pixels"].sum())
