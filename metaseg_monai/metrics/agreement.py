"""How far predicted quantities lie from true ones: limits of agreement, and errors of estimates."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import spearmanr

from metaseg_monai.metrics.statistics import NAN, Statistic, group_interval

WIDTH = 1.96  # standard deviations, between which 95 % of normal differences lie


class Limits(NamedTuple):
    """Bland and Altman's numbers of differences, predicted minus true, in the unit given.

    ``..._low`` and ``..._high`` are the ends of 95 % intervals, NaN below 5 groups.

    Attributes:
        volumes: differences.
        groups: independent units.
        bias: mean difference.
        lower: lower limit of agreement, bias - 1.96 standard deviations; NaN below 2 volumes.
        upper: upper limit of agreement, bias + 1.96 standard deviations.
        slope: of a straight line through the differences over the means of predicted and true:
            where it is not 0 the bias grows or shrinks with size; NaN where the means do not vary.
    """

    volumes: int
    groups: int
    bias: float
    bias_low: float
    bias_high: float
    lower: float
    lower_low: float
    lower_high: float
    upper: float
    upper_low: float
    upper_high: float
    slope: float
    slope_low: float
    slope_high: float


def bland_altman(
    true: Sequence[float],
    pred: Sequence[float],
    groups: Sequence[Hashable],
    draws: int = 9999,
    seed: int = 0,
) -> Limits:
    """Bias and 95 % limits of agreement (Bland and Altman 1986), intervals clustered by group.

    Intervals are those of `group_interval`. Every volume has the same weight. The limits suppose
    that differences do not grow with size: look at the slope and the plot, or give logarithms. For
    what to expect of one training give the volumes of every training, not their mean, whose errors
    are smaller.

    Args:
        true: N finite volumes, at least one, in ml for instance; one for each volume and training.
        pred: N finite volumes.
        groups: N names, patients for instance.
        draws: bootstrap samples.
        seed: of the bootstrap.

    >>> made = bland_altman([10, 20, 30], [11, 22, 33], ["a", "b", "c"])
    >>> made.bias, round(made.lower, 2), round(made.upper, 2)  # standard deviation 1
    (2.0, 0.04, 3.96)
    """
    one, other = np.asarray(true, dtype=float), np.asarray(pred, dtype=float)
    differences, means = other - one, (other + one) / 2
    bias = float(differences.mean())
    half = WIDTH * float(differences.std(ddof=1)) if len(differences) > 1 else NAN
    means = means - means.mean()
    number = {name: place for place, name in enumerate(dict.fromkeys(groups))}
    centred = differences - bias
    slope = float(_slopes(*_sums(centred, means, np.zeros(len(means), int)).T)[0])
    sums = _sums(centred, means, np.array([number[name] for name in groups], dtype=int))

    def of_samples(place: int) -> Statistic:
        return lambda times: _of_samples(times @ sums)[place]

    ends = [group_interval(of_samples(place), len(number), draws, seed) for place in range(4)]
    ends[:3] = [(bias + low, bias + high) for low, high in ends[:3]]
    found = zip((bias, bias - half, bias + half, slope), ends, strict=True)
    numbers = [value for centre, (low, high) in found for value in (centre, low, high)]
    return Limits(len(differences), len(number), *numbers)


def _sums(centred: np.ndarray, means: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Sums within each group (groups, 6): count, d, d2, m, m2, dm."""
    one = np.ones_like(centred)
    weights = (one, centred, centred**2, means, means**2, centred * means)
    return np.stack([np.bincount(number, w, minlength=1) for w in weights], axis=1)


def _of_samples(sums: np.ndarray) -> tuple[np.ndarray, ...]:
    """Bias and both limits (S,), relative to the bias of all, and slopes from sums (S, 6)."""
    sizes, totals, squares, *_ = sums.T
    means = totals / sizes
    variances = np.clip(squares - sizes * means**2, 0, None) / (sizes - 1)
    half = WIDTH * np.sqrt(variances)
    return means, means - half, means + half, _slopes(*sums.T)


def _slopes(
    sizes: np.ndarray, totals: np.ndarray, squares: np.ndarray, means: np.ndarray,
    mean_squares: np.ndarray, products: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Slopes of differences over means from their sums; NaN where the means do not vary."""
    spread = mean_squares - means**2 / sizes
    varies = spread > 1e-12 * np.maximum(mean_squares, 1e-300)
    shared = products - totals * means / sizes
    return np.where(varies, shared / np.where(varies, spread, 1), NAN)


def agreement(predicted: ArrayLike, true: ArrayLike, log: bool = False) -> dict[str, float | None]:
    """Mean absolute error, R2 and Spearman's rank correlation of estimates of a quantity.

    Args:
        predicted: N values in one unit.
        true: N values in the same unit.
        log: R2 of the logarithms.

    Returns:
        `mae` in that unit; `r2`, 1 - squared errors / squared distances from the mean of
        `true`, so 0 for that mean and negative for worse; `spearman`. None where undefined: `mae`
        of no values, `r2` where all true values are one, `spearman` where either side is constant.

    >>> agreement([1, 10, 1000], [1, 100, 1000], log=True)
    {'mae': 30.0, 'r2': 0.785714, 'spearman': 1.0}
    """
    scores: dict[str, float | None] = dict.fromkeys(("mae", "r2", "spearman"))
    guess, truth = np.asarray(predicted, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if truth.size:
        scores["mae"] = round(float(np.abs(guess - truth).mean()), 6)
    if truth.size and np.ptp(truth) > 0:
        x, y = (np.log(values) if log else values for values in (guess, truth))
        explained = 1 - ((x - y) ** 2).sum() / ((y - y.mean()) ** 2).sum()
        scores["r2"] = round(float(explained), 6)
        if np.ptp(guess) > 0:
            scores["spearman"] = round(float(spearmanr(guess, truth).statistic), 6)
    return scores
