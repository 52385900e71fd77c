"""Which lesions were found, and which were invented."""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from metaseg_monai.errors import ConfigError, DataError

FOUND_SHARE = 0.1
TOUCHING = np.ones((3, 3, 3), dtype=bool)  # by faces, edges or corners: 26 neighbours


class Lesions(NamedTuple):
    """Connected parts of the label, how many of them were found, and predicted parts off all."""

    lesions: int
    found: int
    false: int


def count_lesions(pred: np.ndarray, label: np.ndarray, found_share: float = FOUND_SHARE) -> Lesions:
    """Count lesions, connected over 26 neighbours.

    A lesion is found if at least `found_share` of its voxels are predicted; a predicted part is
    false if none of its voxels is labelled. So one predicted part may find several lesions.

    Args:
        pred: (D, H, W) bool.
        label: (D, H, W) bool.
        found_share: above 0, at most 1.

    Raises:
        ConfigError: another share.
        DataError: the shapes differ.

    >>> label = np.array([[[1, 0, 1, 1, 0, 0]]], dtype=bool)
    >>> count_lesions(np.array([[[0, 0, 1, 0, 0, 1]]], dtype=bool), label)
    Lesions(lesions=2, found=1, false=1)
    """
    check_share(found_share)
    if pred.shape != label.shape:
        raise DataError(f"prediction {pred.shape} and label {label.shape} differ in shape")
    covered = _covered_shares(label, pred)
    touched = _covered_shares(pred, label)
    found = int((covered >= found_share).sum())
    return Lesions(len(covered), found, int((touched == 0).sum()))


def check_share(found_share: float) -> None:
    """Raise ConfigError unless it is above 0 and at most 1."""
    if not 0 < found_share <= 1:
        raise ConfigError(f"found_share is {found_share}; expected above 0 and at most 1, as 0.1")


def _covered_shares(mask: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Share of the voxels of each connected part of `mask` that `by` covers."""
    parts, number = ndimage.label(mask, TOUCHING)
    sizes = np.bincount(parts[mask], minlength=number + 1)[1:]
    return np.bincount(parts[mask & by], minlength=number + 1)[1:] / sizes
