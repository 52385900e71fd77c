"""95 % intervals of any number that is made of groups: a bootstrap that draws whole groups.

Its percentiles are set wider for few groups (Hesterberg 2015, "expanded percentile"): plain ones
are too narrow below some 40 groups, so they are moved outwards as if for t and n - 1.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations_with_replacement

import numpy as np
from scipy import stats

NAN = float("nan")
FEWEST = 5  # groups; not even the range of 2, 3 or 4 holds the truth 95 times of 100
EXACT = 9  # groups; they make 24,310 different samples, one group more makes 92,378
IN_TAIL = 30  # draws beyond each end; fewer would make the ends a matter of the seed
BATCH = 1000

Statistic = Callable[[np.ndarray], np.ndarray]
"""Takes how often each group stands in each sample (S, groups), gives its number (S,)."""


def group_interval(statistic: Statistic, groups: int, draws: int, seed: int) -> tuple[float, float]:
    """95 % interval of a number, from samples of as many groups as there are.

    Up to 9 groups every sample is taken, with its probability; above, samples are drawn.

    Args:
        statistic: the number of each sample; one in which it is undefined (NaN) is left out.
        groups: how many.
        draws: samples, more where less than 30 of them would lie beyond each end.
        seed: of the draws.

    Returns:
        NaN below 5 groups, or where no sample has a number.

    >>> values = np.arange(5.0)
    >>> low, high = group_interval(lambda times: times @ values / 5, 5, draws=2000, seed=0)
    >>> round(low, 2), round(high, 2)  # 0 0 0 0 1 and 3 4 4 4 4
    (0.2, 3.8)
    """
    if groups < FEWEST:
        return NAN, NAN
    tail = float(stats.norm.sf(stats.t.ppf(0.975, groups - 1) * np.sqrt(groups / (groups - 1))))
    if groups <= EXACT:
        times, ways = _every_sample(groups)
        values = statistic(times)
        known = ~np.isnan(values)
        if not known.any():
            return NAN, NAN
        values, ways = values[known], ways[known]
        return _lowest(values, ways, tail), -_lowest(-values, ways, tail)
    samples = _drawn(groups, max(draws, math.ceil(IN_TAIL / tail)), seed)
    values = np.concatenate([statistic(times) for times in samples])
    values = values[~np.isnan(values)]
    if not len(values):
        return NAN, NAN
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def ratio_interval(
    parts: np.ndarray, wholes: np.ndarray, draws: int, seed: int
) -> tuple[float, float]:
    """95 % `group_interval` of the sum of parts over the sum of wholes.

    Args:
        parts: of each group (n,), found lesions for instance.
        wholes: of each group (n,), true lesions; groups without any are left out.
        draws: samples.
        seed: of the draws.
    """
    held = wholes > 0
    parts, wholes = parts[held], wholes[held]
    return group_interval(lambda times: (times @ parts) / (times @ wholes), len(parts), draws, seed)


@cache
def _every_sample(groups: int) -> tuple[np.ndarray, np.ndarray]:
    """All samples (S, groups), and in how many ways each can be drawn (S,)."""
    drawn = np.array(list(combinations_with_replacement(range(groups), groups)))
    times = (drawn[:, :, None] == np.arange(groups)).sum(axis=1)
    orders = np.array([math.factorial(count) for count in range(groups + 1)])
    return times.astype(float), orders[groups] // orders[times].prod(axis=1)


def _drawn(groups: int, draws: int, seed: int) -> Iterator[np.ndarray]:
    """Random samples, some at a time, so that little memory is taken."""
    rng = np.random.default_rng(seed)
    for start in range(0, draws, BATCH):
        drawn = rng.integers(groups, size=(min(BATCH, draws - start), groups))
        places = drawn + groups * np.arange(len(drawn))[:, None]
        times = np.bincount(places.ravel(), minlength=drawn.size).reshape(drawn.shape)
        yield times.astype(float)


def _lowest(values: np.ndarray, ways: np.ndarray, tail: float) -> float:
    """The lowest value that a share `tail` of all ways does not exceed."""
    order = np.argsort(values)
    reached = np.cumsum(ways[order])
    return float(values[order][np.searchsorted(reached, tail * reached[-1])])
