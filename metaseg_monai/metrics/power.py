"""The smallest difference that a study of so many patients and trainings would find.

By simulation: studies are drawn with the standard deviations between patients, between trainings
and of the rest, and judged by the rule of the report: the protocol's test over patients below its
level, and the interval over patients and trainings on one side of 0. The smallest effect is the one
that so many of them find, in its true direction.
"""

import math

import numpy as np
from scipy import stats

from metaseg_monai.metrics.statistics import (
    FEWEST,
    NAN,
    MeanSquares,
    Spread,
    Test,
    joint_half,
)

POWER = 0.8
STUDIES = 1000  # the power of an effect is known within 2.5 points
ALL_FLIPS = 10  # groups; 1,024 ways to flip their signs, above as many are drawn
STEPS = 10  # of halving
MOST = 1e6  # times the standard error; no study finds what needs more
KNOWN = 1e4  # degrees of freedom from which nothing is drawn


def smallest_effect(
    squares: MeanSquares,
    groups: int,
    seeds: int,
    test: Test = "permutation",
    level: float = 0.05,
    freedom: float = math.inf,
    power: float = POWER,
    studies: int = STUDIES,
    seed: int = 0,
) -> float:
    """Find the smallest true difference that a share of studies finds.

    Args:
        squares: of the difference, in a study of these sizes: `expected_squares`, or its own.
        groups: patients.
        seeds: trainings.
        test: over the patients.
        level: its p must be below, after any correction.
        freedom: how well the squares are known, in degrees of freedom of the variance of the mean
            (see `joint_freedom`). Few trainings tell it badly. So where they are a study's own, the
            variances of each simulated study are drawn, as likely as that study makes them.
        power: share that must find it.
        studies: simulated.
        seed: of the simulation.

    Returns:
        In the unit of the differences. Infinite where no effect can be found, however large: below
        two trainings or five patients, or where the smallest p of the test is above the level. NaN
        where a mean square is unknown.

    >>> squares = expected_squares(Spread(0.1, 0.02, 0.05), groups=30, seeds=3)
    >>> round(smallest_effect(squares, groups=30, seeds=3), 2)
    0.09
    """
    if seeds < 2 or groups < FEWEST or not _can_find(groups, test, level):
        return math.inf
    if any(map(math.isnan, squares)):
        return NAN
    if not any(squares):
        return 0.0
    found = _Studies(squares, groups, seeds, test, level, freedom, studies, seed)
    least = high = math.sqrt(max(squares) / (groups * seeds))
    while found.share(high) < power:
        high *= 2
        if high > MOST * least:
            return math.inf
    low = 0.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if found.share(middle) >= power else (middle, high)
    return high


def expected_squares(spread: Spread, groups: int, seeds: int) -> MeanSquares:
    """The mean squares that a study of some size has on average."""
    patients, trainings, residual = (one**2 for one in spread[:3])
    return MeanSquares(seeds * patients + residual, groups * trainings + residual, residual)


def _can_find(groups: int, test: Test, level: float) -> bool:
    """Whether the smallest p that there is, all patients of one sign, is below the level."""
    return test == "t" or 2.0 ** (1 - groups) < level


class _Studies:
    """Simulated studies without an effect, to which any may be added."""

    def __init__(
        self, squares: MeanSquares, groups: int, seeds: int, test: Test, level: float,
        freedom: float, studies: int, seed: int,
    ) -> None:  # fmt: skip
        rng = np.random.default_rng(seed)
        self.test: Test = test
        self.level = level
        scale = np.ones((studies, 1))
        if freedom < KNOWN:
            scale = freedom / rng.chisquare(freedom, (studies, 1))
        of_groups, of_seeds, left = (scale * square for square in squares)
        together = np.sqrt(np.maximum(of_seeds - left, 0) / (groups * seeds))
        self.means = rng.normal(size=(studies, groups)) * np.sqrt(of_groups / seeds)
        self.means += rng.normal(size=(studies, 1)) * together
        of_patients = self.means.var(axis=1, ddof=1)
        each = (groups - 1) * (seeds - 1)
        drawn = np.stack(
            [
                seeds * of_patients,
                of_seeds[:, 0] * rng.chisquare(seeds - 1, studies) / (seeds - 1),
                left[:, 0] * rng.chisquare(each, studies) / each,
            ]
        )
        alone = stats.t.ppf(0.975, groups - 1) * np.sqrt(of_patients / groups)
        self.half = np.maximum(joint_half(drawn, groups, seeds), alone)
        if test == "permutation":
            if groups <= ALL_FLIPS:
                ways = np.arange(2**groups)[:, None] >> np.arange(groups) & 1
            else:
                ways = rng.integers(2, size=(2**ALL_FLIPS, groups))
                ways[0] = 0  # as they are
            self.flips = 1.0 - 2.0 * ways
            self.flipped = self.means @ self.flips.T
            self.signs = self.flips.sum(axis=1)

    def share(self, effect: float) -> float:
        """How many of them find an effect of this size."""
        above = self.means.mean(axis=1) + effect > self.half
        return float((above & (self._p(effect) < self.level)).mean())

    def _p(self, effect: float) -> np.ndarray:
        moved = self.means + effect
        if self.test == "t":
            return np.asarray(stats.ttest_1samp(moved, 0, axis=1).pvalue)
        if self.test == "wilcoxon":
            return np.asarray(stats.wilcoxon(moved, axis=1).pvalue)
        sums = np.abs(self.flipped + effect * self.signs)
        return np.asarray((sums >= sums[:, :1] * (1 - 1e-12)).mean(axis=1))
