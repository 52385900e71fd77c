"""Which predicted object is which true one, and how many were found, split and merged."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.objects.instances import bands, object_areas

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))  # 0.9 is 9 / 10 exactly


class Overlaps(NamedTuple):
    """Areas of true and predicted objects, and of every pair that shares a pixel.

    Attributes:
        true_px: (T,) pixels of each true object.
        pred_px: (P,) pixels of each predicted object.
        true: (N,) place of the true object of each pair.
        pred: (N,) place of its predicted object.
        shared_px: (N,) pixels of both.
    """

    true_px: np.ndarray
    pred_px: np.ndarray
    true: np.ndarray
    pred: np.ndarray
    shared_px: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each pair (N,)."""
        both = self.true_px[self.true] + self.pred_px[self.pred]
        return np.asarray(self.shared_px / (both - self.shared_px))


class ObjectMatch(NamedTuple):
    """Counts of one image and class.

    Attributes:
        true: objects of the truth.
        pred: predicted objects.
        found: matched pairs at each of `THRESHOLDS`.
        matched_iou: mean IoU of the pairs matched at 0.5; NaN without any.
        splits: true objects that were predicted in parts, see `match_objects`.
        merges: predicted objects that join several true ones.
        ignored: true objects that are smaller than those looked for; in no other count.
    """

    true: int
    pred: int
    found: tuple[int, ...]
    matched_iou: float
    splits: int
    merges: int
    ignored: int = 0


def match_objects(true: np.ndarray, pred: np.ndarray, smallest_px: int = 1) -> ObjectMatch:
    """Compare the objects of an image with the true ones.

    A pair matches at an IoU of the threshold or above, each object once, as in StarDist (Schmidt
    et al. 2018); of the Data Science Bowl 2018 it differs by counting the threshold itself.
    A split is a true object in which two or more predicted objects lie, each with more than half
    of its own pixels; a merge is a predicted object in which two or more true ones lie so.

    Where predictions leave small objects out, the truth must not count them: true objects of fewer
    pixels than `smallest_px` are ignored, and with them each predicted object that reaches an IoU
    of 0.5 with one, or that lies in them with more than half of its pixels.

    Args:
        true: (H, W) whole numbers, 0 background, objects 1 to T without gaps.
        pred: (H, W) likewise.
        smallest_px: of the predicted objects, see `ObjectSettings`.

    Raises:
        DataError: the shapes differ.

    >>> match_objects(np.array([[1, 1, 1, 0, 2]]), np.array([[1, 1, 0, 0, 0]])).found[:4]
    (1, 1, 1, 1)
    """
    every = overlaps(true, pred)
    pairs = without_small(every, smallest_px)
    iou = pairs.iou
    at_half = match_pairs(pairs, THRESHOLDS[0])
    return ObjectMatch(
        true=len(pairs.true_px),
        pred=len(pairs.pred_px),
        found=tuple(len(match_pairs(pairs, threshold)) for threshold in THRESHOLDS),
        matched_iou=float(iou[at_half].mean()) if len(at_half) else float("nan"),
        splits=_hosts(pairs.true, 2 * pairs.shared_px > pairs.pred_px[pairs.pred]),
        merges=_hosts(pairs.pred, 2 * pairs.shared_px > pairs.true_px[pairs.true]),
        ignored=len(every.true_px) - len(pairs.true_px),
    )


def overlaps(true: np.ndarray, pred: np.ndarray) -> Overlaps:
    """Count the pixels of all pairs that overlap; the others take no memory.

    Args:
        true: (H, W) whole numbers, 0 background, objects 1 to T.
        pred: (H, W) likewise.

    Raises:
        DataError: the shapes differ.
    """
    if true.shape != pred.shape:
        raise DataError(
            f"true objects of shape {true.shape}, predicted ones of {pred.shape}; evaluate whole "
            "images on the grid of their labels"
        )
    shape = (int(true.max(initial=0)), int(pred.max(initial=0)))
    counted = csr_array(shape, dtype=np.int64)
    for rows in bands(len(true)):
        both = (true[rows] > 0) & (pred[rows] > 0)
        places = (true[rows][both].astype(np.int64) - 1, pred[rows][both].astype(np.int64) - 1)
        counted = counted + coo_array((np.ones(len(places[0]), np.int64), places), shape).tocsr()
    pairs = counted.tocoo()
    areas = object_areas(true, shape[0]), object_areas(pred, shape[1])
    return Overlaps(*areas, pairs.row, pairs.col, pairs.data)


def without_small(pairs: Overlaps, smallest_px: int) -> Overlaps:
    """The pairs without small true objects and the predicted ones that stand for them.

    A predicted object that reaches an IoU of 0.5 with a larger true one always stays.

    Args:
        pairs: of `overlaps`.
        smallest_px: true objects of fewer pixels go, see `match_objects`.

    >>> pairs = overlaps(np.array([[1, 1, 1, 0, 2]]), np.array([[1, 1, 1, 2, 2]]))
    >>> [len(places) for places in without_small(pairs, 2)[:2]]
    [1, 1]
    """
    small = pairs.true_px < smallest_px
    of_small = small[pairs.true]
    inside = np.zeros_like(pairs.pred_px)
    np.add.at(inside, pairs.pred[of_small], pairs.shared_px[of_small])
    gone = 2 * inside > pairs.pred_px
    gone[pairs.pred[of_small & (pairs.iou >= THRESHOLDS[0])]] = True
    kept = ~of_small & ~gone[pairs.pred]
    return Overlaps(
        pairs.true_px[~small],
        pairs.pred_px[~gone],
        (np.cumsum(~small) - 1)[pairs.true[kept]],
        (np.cumsum(~gone) - 1)[pairs.pred[kept]],
        pairs.shared_px[kept],
    )


def match_pairs(pairs: Overlaps, threshold: float) -> np.ndarray:
    """Places of the pairs that are matched, every object at most once.

    As many pairs as possible, among those the ones of the highest total IoU. From 0.5 an object
    has one partner, or two that are its exact halves, of which either serves.

    Args:
        pairs: of `overlaps`.
        threshold: least IoU, above 0, at most 1.

    Raises:
        ConfigError: another threshold.

    >>> true, pred = np.array([[1, 1, 1, 2]]), np.array([[1, 2, 2, 2]])
    >>> [len(match_pairs(overlaps(true, pred), least)) for least in (0.5, 0.25)]
    [1, 2]
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"threshold is {threshold}; expected an IoU above 0 and at most 1")
    iou = pairs.iou
    good = np.flatnonzero(iou >= threshold)
    if threshold >= 0.5:
        for side in (pairs.true, pairs.pred):
            good = good[np.unique(side[good], return_index=True)[1]]
        return good
    size = (len(pairs.true_px), len(pairs.pred_px))
    ends = (pairs.true[good], size[0] + pairs.pred[good])
    graph = coo_array((np.ones(len(good)), ends), (sum(size),) * 2)
    groups = connected_components(graph, directed=False)[1][pairs.true[good]]
    chosen = [_assigned(pairs, good[groups == group], iou) for group in np.unique(groups)]
    return np.concatenate(chosen) if chosen else good


def object_f1(found: float, true: float, pred: float) -> float:
    """F1 of objects: 2 found / (true + pred); NaN where there are none at all.

    >>> object_f1(1, 2, 2), object_f1(0, 0, 3)
    (0.5, 0.0)
    """
    return 2 * found / (true + pred) if true + pred else float("nan")


def _assigned(pairs: Overlaps, group: np.ndarray, iou: np.ndarray) -> np.ndarray:
    """The best one-to-one matching of pairs that hang together."""
    rows, row_of = np.unique(pairs.true[group], return_inverse=True)
    columns, column_of = np.unique(pairs.pred[group], return_inverse=True)
    place = np.full((len(rows), len(columns)), -1)
    place[row_of, column_of] = group
    gain = np.zeros(place.shape)
    # a further pair counts more than any gain of IoU
    gain[row_of, column_of] = 1 + iou[group] / (2 * min(place.shape))
    best = place[linear_sum_assignment(gain, maximize=True)]
    return np.asarray(best[best >= 0])


def _hosts(host: np.ndarray, inside: np.ndarray) -> int:
    """How many objects hold two or more others."""
    return int((np.bincount(host[inside]) >= 2).sum())
