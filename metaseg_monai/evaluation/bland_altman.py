"""How far predicted volumes lie from true ones: bias and limits of agreement."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.differences import NAN

WIDTH = 1.96  # standard deviations, between which 95 % of normal differences lie


class Limits(NamedTuple):
    """Bland and Altman's numbers of differences, predicted minus true, in the unit given.

    Attributes:
        volumes: differences.
        groups: independent units.
        bias: mean difference; NaN without a volume.
        bias_low: lower end of its 95 % interval; all intervals are NaN below 2 groups.
        bias_high: upper end.
        lower: lower limit of agreement, bias - 1.96 standard deviations; NaN below 2 volumes.
        lower_low: lower end of its 95 % interval.
        lower_high: upper end.
        upper: upper limit of agreement, bias + 1.96 standard deviations.
        upper_low: lower end of its 95 % interval.
        upper_high: upper end.
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


def bland_altman(
    true: Sequence[float],
    pred: Sequence[float],
    groups: Sequence[Hashable],
    draws: int = 9999,
    seed: int = 0,
) -> Limits:
    """Bias and 95 % limits of agreement (Bland and Altman 1986), intervals clustered by group.

    The bootstrap draws whole groups; its percentiles are set wider for few groups as in
    `bootstrap_interval`. Every volume has the same weight. The limits suppose that differences do
    not grow with size: look at the plot, or give logarithms.

    Args:
        true: N volumes, in ml for instance.
        pred: N volumes.
        groups: N names, patients for instance.
        draws: bootstrap samples.
        seed: of the bootstrap.

    Raises:
        DataError: the lengths differ, or a volume is no finite number.

    >>> made = bland_altman([10, 20, 30], [11, 22, 33], ["a", "b", "c"])
    >>> made.bias, round(made.lower, 2), round(made.upper, 2)  # standard deviation 1
    (2.0, 0.04, 3.96)
    """
    if not len(true) == len(pred) == len(groups):
        raise DataError(
            f"{len(true)} true and {len(pred)} predicted volumes of {len(groups)} groups: give "
            "one of each for every volume"
        )
    differences = np.asarray(pred, dtype=float) - np.asarray(true, dtype=float)
    if not np.isfinite(differences).all():
        place = int(np.flatnonzero(~np.isfinite(differences))[0])
        raise DataError(
            f"group {groups[place]}: volumes {true[place]} and {pred[place]} are not both numbers; "
            "leave out what was not measured"
        )
    names = list(dict.fromkeys(groups))
    number = {name: place for place, name in enumerate(names)}
    bias = float(differences.mean()) if len(differences) else NAN
    half = WIDTH * float(differences.std(ddof=1)) if len(differences) > 1 else NAN
    ends = [(NAN, NAN)] * 3
    if len(names) > 1:
        drawn = _drawn(differences - bias, np.array([number[name] for name in groups]), draws, seed)
        ends = [_interval(bias + values, len(names)) for values in drawn]
    found = zip((bias, bias - half, bias + half), ends, strict=True)
    numbers = [value for centre, (low, high) in found for value in (centre, low, high)]
    return Limits(len(differences), len(names), *numbers)


def _drawn(
    centred: np.ndarray, number: np.ndarray, draws: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bias and both limits (draws,) of bootstrap samples, relative to the bias of all."""
    groups = int(number.max()) + 1
    sums = np.stack(
        [np.bincount(number, weights) for weights in (np.ones_like(centred), centred, centred**2)],
        axis=1,
    )
    times = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=draws)
    sizes, totals, squares = (times @ sums).T
    means = totals / sizes
    variances = np.clip(squares - sizes * means**2, 0, None) / (sizes - 1)
    half = WIDTH * np.sqrt(variances)
    return means, means - half, means + half


def _interval(values: np.ndarray, units: int) -> tuple[float, float]:
    """Percentiles for few units, see `bootstrap_interval`."""
    tail = stats.norm.sf(stats.t.ppf(0.975, units - 1) * np.sqrt(units / (units - 1)))
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
