"""Bounds that hold with a stated probability, from cases that were set apart (split conformal).

Cases of one group (patient, well) are alike, so that groups are the units: each counts once, its
cases share its weight, and one further group, that of the case to come, counts as the worst
(hierarchical conformal prediction, Lee, Barber and Willett 2023). With one case a group this is
plain split conformal prediction. What is promised holds for cases of new groups, drawn as those of
the calibration were, whatever the network does.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage, stats

from metaseg_monai.errors import ConfigError, DataError

Array = npt.NDArray[Any]
Numbers = Sequence[float] | Array | pd.Series
Names = Sequence[Hashable] | Array | pd.Series
FEWEST = 20  # groups; a value with fewer takes the bound of all
POOLED = "all"  # the name of all values together
ROUNDING = 1e-9
DIGITS = 9


class Weights(NamedTuple):
    """What each case counts, and the group to come.

    Attributes:
        cases: (N,), their sum is K / (K + 1) of K groups.
        rest: 1 / (K + 1).
    """

    cases: Array
    rest: float


def group_weights(groups: Names) -> Weights:
    """Each group counts once, its cases alike, and the group to come once.

    >>> group_weights(["a", "a", "b"]).cases.round(3).tolist()
    [0.167, 0.167, 0.333]
    """
    codes, names = pd.factorize(np.asarray(groups, dtype=object))
    of_group = np.bincount(codes, minlength=len(names))
    return Weights(1.0 / ((len(names) + 1) * of_group[codes]), 1.0 / (len(names) + 1))


def bound(scores: Numbers, groups: Names, level: float) -> float:
    """What the score of a case to come does not exceed, with a probability of at least `level`.

    Args:
        scores: (N,) of the calibration's cases; larger is stranger.
        groups: (N,) of the cases.
        level: above 0 and below 1.

    Returns:
        One of the scores; infinity where the groups are too few, below 9 for 0.9.

    Raises:
        ConfigError: another level.

    >>> bound(range(1, 20), range(19), 0.9), bound([1.0, 2.0], ["a", "b"], 0.9)
    (18.0, inf)
    """
    checked_level(level)
    values = np.asarray(list(scores), dtype=float)
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(group_weights(groups).cases[order]) if len(values) else np.zeros(0)
    place = int(np.searchsorted(reached, level - ROUNDING))
    return float(values[order[place]]) if place < len(values) else math.inf


def p_values(found: Numbers, scores: Numbers, groups: Names) -> Array:
    """How often cases of the calibration are at least as strange as each of some others.

    Of cases like those of the calibration at most a share of `a` has a p-value of `a` or less.

    Args:
        found: (M,) scores of the others.
        scores: (N,) of the calibration's cases; larger is stranger.
        groups: (N,) of these.

    Returns:
        (M,), from 1 / (K + 1) of K groups to 1.

    >>> p_values([0.5, 3.0, 9.0], [1.0, 2.0, 3.0], ["a", "b", "c"]).tolist()
    [1.0, 0.5, 0.25]
    """
    values, weights = np.asarray(list(scores), dtype=float), group_weights(groups)
    order = np.argsort(values, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(weights.cases[order])])
    before = np.searchsorted(values[order], np.asarray(found, dtype=float), side="left")
    strange = np.minimum(1.0, below[-1] - below[before] + weights.rest)
    return np.asarray(strange.round(DIGITS))  # sums of weights, to be held against a level


def cutoff(losses: Array, groups: Names, allowed: float) -> int | None:
    """The last step at which the loss of a case to come is at most `allowed`, on average.

    Conformal risk control (Angelopoulos et al. 2022), for losses from 0 to 1 that grow with the
    step, such as the missed share of the foreground with a growing threshold.

    Args:
        losses: (N, T) of the calibration's cases at each step.
        groups: (N,) of the cases.
        allowed: above 0 and below 1.

    Returns:
        The place of the step; None where no step promises it, as with groups too few.

    Raises:
        ConfigError: another `allowed`.

    >>> steps = np.tile([0.0, 0.05, 0.2], (99, 1))
    >>> cutoff(steps, range(99), 0.1), cutoff(steps[:5], range(5), 0.1)
    (1, None)
    """
    checked_level(1 - allowed)
    weights = group_weights(groups)
    risk = weights.cases @ np.asarray(losses, dtype=float) + weights.rest
    kept = np.flatnonzero(np.maximum.accumulate(risk) <= allowed + ROUNDING)
    return int(kept[-1]) if len(kept) else None


def checked_level(level: Any) -> float:
    """Return a probability.

    Raises:
        ConfigError: it is no number above 0 and below 1.
    """
    is_number = isinstance(level, int | float) and not isinstance(level, bool)
    if not is_number or not 0 < level < 1:
        raise ConfigError(f"{level!r}: expected a share above 0 and below 1, such as 0.9")
    return float(level)


def coverage_band(
    cases: int, calibration: int, level: float, sure: float = 0.99
) -> tuple[float, float]:
    """Between which shares the coverage of one division lies if `level` is kept, exactly.

    One division scatters twice, by its calibration and by its test: the count that is covered is
    beta-binomial (Angelopoulos and Bates 2021), where each case is a group of its own and no two
    scores are equal.

    Args:
        cases: of the test.
        calibration: cases of the calibration.
        level: that was asked for.
        sure: probability of the band.

    >>> [round(end, 3) for end in coverage_band(200, 40, 0.9, sure=0.95)]
    [0.785, 0.98]
    """
    checked_level(level)
    rank = math.ceil((calibration + 1) * level - ROUNDING)
    if cases < 1 or rank > calibration:
        return 0.0, 1.0
    covered = stats.betabinom(cases, rank, calibration + 1 - rank)
    low, high = covered.ppf([(1 - sure) / 2, (1 + sure) / 2])
    return float(low) / cases, float(high) / cases


def coverage(inside: Names, groups: Names) -> float:
    """The share of cases within their bounds, each group counted once, as `bound` promises it.

    >>> coverage([True, True, False], ["a", "a", "b"])
    0.5
    """
    held = pd.Series(np.asarray(inside, dtype=float)).groupby(np.asarray(groups, dtype=object))
    return float(held.mean().mean())


# The area of a case, or its volume: how far off the predicted one may be.


def area_scores(predicted: Numbers, true: Numbers) -> Array:
    """How far off areas are: the size of the logarithm of their ratio, each one pixel larger.

    So one number serves small and large areas, in 2D and 3D, and an empty mask has a score.

    >>> area_scores(np.array([99.0, 0.0]), np.array([199.0, 0.0])).round(3).tolist()
    [0.693, 0.0]
    """
    ratio = (np.asarray(true, dtype=float) + 1) / (np.asarray(predicted, dtype=float) + 1)
    return np.asarray(np.abs(np.log(ratio)))


def area_interval(predicted: Numbers | float, bounds: Numbers | float) -> tuple[Array, Array]:
    """The areas whose score is within a bound; infinite bounds exclude nothing.

    >>> [float(end) for end in area_interval(99.0, math.log(2))]
    [49.0, 199.0]
    """
    sizes, factor = np.asarray(predicted, dtype=float) + 1, np.exp(np.asarray(bounds, dtype=float))
    return np.maximum(0.0, sizes / factor - 1), sizes * factor - 1


class OfValue(NamedTuple):
    """The bound of one metadata value.

    Attributes:
        bound: of the scores.
        cases: of the calibration that it rests on.
        groups: of these.
        pooled: whether these are all cases, as the value has too few groups of its own.
    """

    bound: float
    cases: int
    groups: int
    pooled: bool


def mondrian(scores: Numbers, groups: Names, values: Names, level: float) -> dict[str, OfValue]:
    """A bound for each metadata value by its own cases, and one of all (Vovk's Mondrian taxonomy).

    Args:
        scores: (N,) of the calibration's cases.
        groups: (N,) of the cases.
        values: (N,) by which they are kept apart; none is called "all".
        level: of `bound`.

    Returns:
        By value; a value of fewer than 20 groups has the bound of all, which stands under "all".

    Raises:
        DataError: there are no cases, or a value is called "all".
    """
    table = pd.DataFrame({"score": scores, "group": list(groups), "value": list(values)})
    if table.empty:
        raise DataError("there is no case to calibrate on; name another split")
    if (table["value"] == POOLED).any():
        raise DataError(f"a metadata value is called {POOLED!r}; give it another name")

    def of(rows: pd.DataFrame, pooled: bool) -> OfValue:
        count = int(rows["group"].nunique())
        return OfValue(bound(rows["score"], rows["group"], level), len(rows), count, pooled)

    every = of(table, True)
    found = {POOLED: every}
    for value, rows in table.groupby("value", sort=False):
        own = of(rows, False)
        found[str(value)] = own if own.groups >= FEWEST else every
    return found


def bin_edges(numbers: Sequence[float], bins: int) -> list[float]:
    """Ends between bins of a quantity, each with about as many cases; equal ends are one.

    >>> bin_edges([1, 2, 3, 4, 5, 6, 7, 8], 4)
    [2.75, 4.5, 6.25]
    """
    if bins < 1:
        raise ConfigError(f"bins is {bins}; expected a whole number from 1")
    places = np.linspace(0, 1, bins + 1)[1:-1]
    return sorted({float(f"{end:.4g}") for end in np.quantile(list(numbers), places)})


def bin_name(number: float, edges: Sequence[float]) -> str:
    """The bin of a number, as text.

    >>> [bin_name(number, [2.5, 10.0]) for number in (1, 2.5, 30)], bin_name(3, [])
    (['below 2.5', '2.5 to 10', '10 or more'], 'any')
    """
    if not edges:
        return "any"
    place = int(np.searchsorted(edges, number, side="right"))
    if place == 0:
        return f"below {edges[0]:g}"
    return (
        f"{edges[-1]:g} or more"
        if place == len(edges)
        else f"{edges[place - 1]:g} to {edges[place]:g}"
    )


# Of which class a pixel surely is, by class: a pixel's score is 1 minus the probability of its
# true class. Only counts by bins are kept of each image, so that a plate needs no memory.

BINS = 1000


def class_histograms(probabilities: Array, label: Array, bins: int = BINS) -> Array:
    """Count the pixels of each true class of an image by the probability of that class.

    Args:
        probabilities: (K, *S) of the classes.
        label: (*S) true classes; others than 0 to K - 1 are left out.
        bins: of equal width over 0..1.

    Returns:
        int64 (K, bins).

    Raises:
        DataError: the shapes differ.
    """
    if probabilities.shape[1:] != label.shape:
        raise DataError(f"probabilities {probabilities.shape} and label {label.shape} do not fit")
    counts = np.zeros((len(probabilities), bins), dtype=np.int64)
    for number, own in enumerate(probabilities):
        values = np.clip(own[label == number] * bins, 0, bins - 1).astype(np.int64)
        counts[number] = np.bincount(values, minlength=bins)
    return counts


class ClassConfidence:
    """Conformal p-values of each class, pixel by pixel, from images that were set apart.

    Of the pixels of a class in images of new groups (wells, patients), at most a share of `a` has a
    p-value of `a` or less of that class, on average over groups; so a class with a p-value of at
    most 0.1 is excluded with 90 % confidence. Groups without a pixel of a class say nothing of it.

    Args:
        histograms: of `class_histograms`, (K, bins) an image.
        groups: of the images.

    Raises:
        DataError: there are no images, or histograms of different shapes.

    Attributes:
        groups: how many hold each class (K,).
    """

    def __init__(self, histograms: Sequence[Array], groups: Names) -> None:
        shapes = {one.shape for one in histograms}
        if len(shapes) != 1 or len(histograms) != len(groups):
            raise DataError(
                f"{len(histograms)} histograms of {len(shapes)} shapes for {len(groups)} groups; "
                "give one of each image, all of the same classes and bins"
            )
        names = list(dict.fromkeys(groups))
        of_group = np.zeros((len(names), *next(iter(shapes))))
        for one, group in zip(histograms, groups, strict=True):
            of_group[names.index(group)] += one
        pixels = of_group.sum(2, keepdims=True)
        shares = np.divide(of_group, pixels, out=np.zeros_like(of_group), where=pixels > 0)
        held = (pixels[..., 0] > 0).sum(0)
        self.groups = held
        # a pixel is as strange as all of its bin, so that its p-value is never too small
        self._p = (shares.sum(0).cumsum(1) + 1) / (held[:, None] + 1)

    def p_values(self, probabilities: Array) -> Array:
        """float32 (K, *S) of probabilities (K, *S): how well each class fits each pixel."""
        if len(probabilities) != len(self._p):
            raise DataError(f"{len(probabilities)} classes, calibrated were {len(self._p)}")
        bins = self._p.shape[1]
        found = [
            own[np.clip(one * bins, 0, bins - 1).astype(np.int64)]
            for own, one in zip(self._p, probabilities, strict=True)
        ]
        return np.stack(found).astype(np.float32)

    def sets(self, probabilities: Array, level: float) -> Array:
        """Bool (K, *S): which classes are not excluded at a level, such as 0.9."""
        return np.asarray(self.p_values(probabilities) > 1 - checked_level(level) + ROUNDING)

    def confidence(self, probabilities: Array) -> Array:
        """float32 (*S): with which confidence all classes but the fittest are excluded."""
        return np.asarray(1 - np.sort(self.p_values(probabilities), axis=0)[-2])

    def seeds(self, probabilities: Array, level: float, smallest_px: int = 4) -> Array:
        """Number the confident centres of objects, from which a watershed can start.

        Args:
            probabilities: (K, *S), class 0 the background.
            level: all but one foreground class must be excluded with this confidence.
            smallest_px: smaller centres are left out.

        Returns:
            int32 (*S): 0, or the number of a centre: pixels that touch by side, edge or corner and
            are confidently of one foreground class. Give it as `markers` to
            `skimage.segmentation.watershed`.
        """
        kept = self.sets(probabilities, level)
        only, labels, count = kept.sum(0) == 1, np.zeros(kept.shape[1:], np.int32), 0
        for sure in kept[1:] & only:
            found, number = ndimage.label(sure, np.ones((3,) * sure.ndim))
            sizes = np.bincount(found.ravel(), minlength=number + 1)
            numbers = np.zeros(number + 1, np.int32)
            large = np.flatnonzero(sizes[1:] >= smallest_px) + 1
            numbers[large] = count + np.arange(1, len(large) + 1)
            labels += numbers[found]
            count += len(large)
        return labels

    def as_plain(self) -> Mapping[str, Any]:
        """What `of_plain` takes, as numbers and lists, to be stored with weights."""
        return {"p": self._p.round(6).tolist(), "groups": self.groups.tolist()}

    @classmethod
    def of_plain(cls, stored: Mapping[str, Any]) -> "ClassConfidence":
        """What `as_plain` gave, again."""
        made = cls.__new__(cls)
        made._p, made.groups = np.asarray(stored["p"], dtype=float), np.asarray(stored["groups"])
        return made
