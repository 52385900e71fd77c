"""Is one condition better than another? Intervals and paired tests that know of groups.

The unit is the group (patient, plate and well): cases of one group are alike, so that each group
gives one difference, the mean over its cases (contract, Scores 12). Intervals draw whole groups,
tests are two-sided. Both speak of other cases for the networks that were trained, and say nothing
of other trainings of the same networks: that is what `joint_interval` counts as well.

How often each interval holds the truth is measured by scripts/simulate_intervals.py.
"""

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations_with_replacement
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import pandas as pd
from scipy import stats

from metaseg_monai.errors import DataError

# 95 % intervals of any number that is made of groups. Percentiles of the bootstrap are set wider
# for few groups (Hesterberg 2015, "expanded percentile"): plain ones are too narrow below some 40
# groups, so they are moved outwards as if for t and n - 1.

NAN = math.nan
FEWEST = 5  # groups; not even the range of 2, 3 or 4 holds the truth 95 times of 100
EXACT = 9  # groups; they make 24,310 different samples, one group more makes 92,378
IN_TAIL = 30  # draws beyond each end; fewer would make the ends a matter of the seed
BATCH = 1000
ROUNDED = 1e-18  # a variance below is that of rounding

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
    else:
        samples = _drawn(groups, max(draws, math.ceil(IN_TAIL / tail)), seed)
        values = np.concatenate([statistic(times) for times in samples])
        ways = None
    known = ~np.isnan(values)
    if not known.any():
        return NAN, NAN
    if ways is None:
        low, high = np.quantile(values[known], [tail, 1 - tail])
        return float(low), float(high)
    values, ways = values[known], ways[known]
    return _lowest(values, ways, tail), -_lowest(-values, ways, tail)


def bootstrap_interval(differences: np.ndarray, draws: int, seed: int) -> tuple[float, float]:
    """95 % interval of a mean: the wider of `group_interval` and Student's, at each end.

    Of five units not even all samples reach far enough (91 of 100 intervals held the truth), and
    Student's does not know of skew. BCa, the usual remedy for skew, is narrower: in simulated
    studies of 20 units it missed the truth as often as plain percentiles, and more often under
    heavy tails. Without spread both ends are the common value; below 5 units they are NaN, because
    too little is known of the spread.
    """
    units = len(differences)
    if units >= FEWEST and np.ptp(differences) == 0:  # resampled means would differ by rounding
        return float(differences[0]), float(differences[0])
    low, high = group_interval(lambda times: times @ differences / units, units, draws, seed)
    if math.isnan(low):
        return low, high
    mean = float(differences.mean())
    half = float(stats.t.ppf(0.975, units - 1) * differences.std(ddof=1) / np.sqrt(units))
    return min(low, mean - half), max(high, mean + half)


# 95 % intervals of rates. Where all or none of few lesions are found, every sample of the bootstrap
# says the same and its interval has no width: of a true share of 0.95 in ten patients it held 58 of
# 100. So rates are taken as if of independent trials, of as many as give their variance over groups
# (Korn and Graubard 1998), fewer by the t of their groups; then the exact intervals of such trials.


def share_interval(parts: np.ndarray, wholes: np.ndarray) -> tuple[float, float]:
    """95 % interval of a share, 0 to 1: the sum of parts over the sum of wholes (Korn, Graubard).

    Args:
        parts: of each group (n,), found lesions for instance.
        wholes: of each group (n,), true lesions; groups without any are left out.

    Returns:
        NaN below 5 groups with any.

    >>> low, high = share_interval(np.ones(20), np.ones(20))  # 20 of 20 found
    >>> round(low, 2), high
    (0.81, 1.0)
    """
    held = wholes > 0
    parts, wholes = parts[held], wholes[held]
    if len(parts) < FEWEST:
        return NAN, NAN
    share, variance, fewer = _variance(parts, wholes)
    most = float(wholes.sum())
    trials = min(most, share * (1 - share) / variance) if variance else most
    return _exact_share(share, trials * fewer)


def rate_interval(parts: np.ndarray, wholes: np.ndarray) -> tuple[float, float]:
    """95 % interval of a rate from 0 on: the sum of parts over the sum of wholes.

    That of a gamma distribution of the variance over groups (Fay and Feuer 1997), which is exact
    for independent counts. Amounts of very heavy tails are held less often than said.

    Args:
        parts: of each group (n,), false lesions for instance.
        wholes: of each group (n,), volumes; groups without any are left out.

    Returns:
        NaN below 5 groups with any. Of no part at all the upper end is that of a count of 0.

    >>> low, high = rate_interval(np.zeros(20), np.ones(20))
    >>> low, round(high, 2)
    (0.0, 0.18)
    """
    held = wholes > 0
    parts, wholes = parts[held], wholes[held]
    if len(parts) < FEWEST:
        return NAN, NAN
    rate, variance, fewer = _variance(parts, wholes)
    if rate == 0:
        return 0.0, float(-math.log(0.025) / wholes.sum())
    if variance == 0:
        return rate, rate
    count = rate**2 / variance * fewer
    low, high = stats.gamma.ppf([0.025, 0.975], [count, count + 1]) * rate / count
    return float(low), float(high)


def score_interval(scores: np.ndarray, weights: np.ndarray | None = None) -> tuple[float, float]:
    """95 % interval of the mean of scores from 0 to 1, such as Dice, one of each group.

    As `share_interval`: it leans to the side where there is room, as such scores do, and does not
    leave 0 to 1. Where one group in ten fails altogether and there are fewer than 40, the truth is
    held less often than said, by every interval that knows nothing but the scores.

    Args:
        scores: mean of each group (n,).
        weights: of each group (n,), the number of its cases for instance; None for 1.

    Returns:
        NaN below 5 groups. Without spread both ends are the common value.
    """
    if len(scores) < FEWEST:
        return NAN, NAN
    if np.ptp(scores) == 0:
        return float(scores[0]), float(scores[0])
    wholes = np.ones(len(scores)) if weights is None else weights
    mean, variance, fewer = _variance(scores * wholes, wholes)
    return _exact_share(mean, mean * (1 - mean) / variance * fewer)


def auc_interval(
    low: np.ndarray, high: np.ndarray, of_low: np.ndarray, of_high: np.ndarray
) -> tuple[float, float, float]:
    """Area under the curve with its 95 % interval, of values that lie in groups.

    The share of pairs in which a value of `high` is above one of `low`, ties half. Its variance is
    Obuchowski's (1997) for clustered values; the interval is that of a share of such a variance.

    Args:
        low: values (n,).
        high: values (m,).
        of_low: the group of each (n,).
        of_high: the group of each (m,); groups may have values of both.

    Returns:
        The area, and NaN for the ends below 5 groups.

    >>> found = auc_interval(np.arange(9), np.arange(9) + 4.5, np.arange(9), np.arange(9))
    >>> [round(one, 2) for one in found]
    [0.88, 0.7, 0.97]
    """

    def above(own: np.ndarray, others: np.ndarray) -> np.ndarray:
        ends = (np.searchsorted(np.sort(others), own, side) for side in ("left", "right"))
        return np.asarray(sum(ends) / 2 / len(others))

    placed = above(high, low), 1 - above(low, high)
    area = float(placed[0].mean())
    names = np.unique(np.concatenate([of_low, of_high]))
    if len(names) < FEWEST:
        return area, NAN, NAN
    off = np.zeros((2, len(names)))
    for row, (values, groups) in enumerate(zip(placed, (of_high, of_low), strict=True)):
        np.add.at(off[row], np.searchsorted(names, groups), (values - area) / len(values))
    held = [len(np.unique(groups)) for groups in (of_high, of_low)]
    freed = [count / max(1, count - 1) for count in held]
    variance = freed[0] * off[0] @ off[0] + freed[1] * off[1] @ off[1]
    variance += 2 * len(names) / (len(names) - 1) * off[0] @ off[1]
    _, _, fewer = _variance(np.ones(len(names)), np.ones(len(names)))
    trials = area * (1 - area) / variance if variance > ROUNDED else min(held)
    return area, *_exact_share(area, float(trials) * fewer)


def _variance(parts: np.ndarray, wholes: np.ndarray) -> tuple[float, float, float]:
    """A ratio of sums, its variance over groups, and the share of trials that few groups count."""
    groups, whole = len(parts), float(wholes.sum())
    ratio = float(parts.sum()) / whole
    off = parts - ratio * wholes
    variance = float(off @ off) * groups / (groups - 1) / whole**2
    fewer = float(stats.norm.ppf(0.975) / stats.t.ppf(0.975, groups - 1)) ** 2
    return ratio, variance if variance > ROUNDED else 0.0, fewer


def _exact_share(share: float, trials: float) -> tuple[float, float]:
    """Ends of Clopper and Pearson (1934); trials need not be whole."""
    found, missed = share * trials, (1 - share) * trials
    low = float(stats.beta.ppf(0.025, found, missed + 1)) if found > 0 else 0.0
    high = float(stats.beta.ppf(0.975, found + 1, missed)) if missed > 0 else 1.0
    return low, high


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


# Is the mean of paired differences 0? Three two-sided tests of one array.


class PairedT(NamedTuple):
    """Cohen's d_z (mean over standard deviation), t and its two-sided p-value."""

    effect: float
    t: float
    p: float


def paired_t(differences: np.ndarray) -> PairedT:
    """Paired t-test: mean 0, differences about normal.

    Effect and t are NaN below 2 units or without spread; then p is NaN too, but 1 if every
    difference is 0.

    >>> paired_t(np.array([1.0, 2.0, 3.0])).effect
    2.0
    """
    if len(differences) < 2 or np.ptp(differences) == 0:
        return PairedT(NAN, NAN, 1.0 if len(differences) and not differences.any() else NAN)
    result = stats.ttest_1samp(differences, 0)
    effect = float(differences.mean() / differences.std(ddof=1))
    return PairedT(effect, float(result.statistic), float(result.pvalue))


def signed_rank(differences: np.ndarray) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test: differences symmetric about 0.

    Zeros are dropped, as Wilcoxon (1945) did. Exact up to 50 units without ties and up to 13 with
    ties, else by the normal approximation. 1 if every difference is 0.

    >>> signed_rank(np.array([1.0, 2.0, 3.0, 0.0]))
    0.25
    """
    if not differences.any():
        return 1.0 if len(differences) else NAN
    return float(stats.wilcoxon(differences[differences != 0]).pvalue)


def sign_flips(differences: np.ndarray, draws: int, seed: int) -> float:
    """Two-sided p-value of the permutation test that flips signs: differences symmetric about 0.

    Exact where there are no more than `draws` ways to flip (2^n), else as many are drawn. 1 if
    every difference is 0, and for one unit, whose flip is as far from 0.

    >>> sign_flips(np.array([1.0, 2.0, 3.0]), draws=99, seed=0)  # +++ and --- of 8
    0.25
    """
    if len(differences) < 2 or not differences.any():
        return 1.0 if len(differences) else NAN
    result = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",  # of one sample: flips of its signs
        n_resamples=draws,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for several comparisons (Holm 1979), in the order given.

    The smallest of m is multiplied by m, the next by m - 1, and none is smaller than the one
    before it or larger than 1. NaN stays NaN and is not counted: nothing was tested there.

    >>> [round(p, 3) for p in holm([0.02, 0.01, 0.04])]
    [0.04, 0.03, 0.04]
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if not np.isnan(p))
    adjusted, largest = [NAN] * len(p_values), 0.0
    for rank, (p, place) in enumerate(known):
        largest = max(largest, min(1.0, float(p) * (len(known) - rank)))
        adjusted[place] = largest
    return adjusted


# Two conditions over the same cases, seeds averaged before.

DECIMALS = 12  # differences of F1 beyond are rounding, and would break ties and zeros
Test = Literal["t", "wilcoxon", "permutation"]
Key = TypeVar("Key", bound=Hashable)


class Comparison(NamedTuple):
    """Difference of two conditions, first minus second, over the same cases.

    Attributes:
        cases: cases with a score in both.
        groups: groups with such a case; the n of every test.
        empty: cases left out, because one of the conditions has no score for them.
        mean: mean over the groups of the mean difference of their cases.
        low: lower end of the 95 % `bootstrap_interval` of `mean`.
        high: upper end of the same.
        effect: Cohen's d_z, `mean` over the standard deviation of the groups' differences.
        t: statistic of the paired t-test, see `paired_t`.
        p_t: its p-value.
        p_wilcoxon: of `signed_rank`.
        p_permutation: of `sign_flips`.
    """

    cases: int
    groups: int
    empty: int
    mean: float
    low: float
    high: float
    effect: float
    t: float
    p_t: float
    p_wilcoxon: float
    p_permutation: float


def group_differences(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Mean difference of the F1 over the cases of each group, first minus second.

    A case without a score (empty in target and prediction) in one of them is left out and counted.
    So a false positive on an empty target, against a rightly empty prediction, does not count.

    Args:
        first: table of `case_f1`, averaged within each case where there are several seeds.
        second: the same cases of another condition, in any order.

    Returns:
        One row for each group, in table order: ``group``, ``difference`` (NaN where no case is
        left), ``cases`` (with a score in both), ``empty`` (left out).

    Raises:
        DataError: the tables do not hold the same cases in the same groups, each once.
    """
    for table in (first, second):
        twice = table["case"][table["case"].duplicated()]
        if not twice.empty:
            raise DataError(f"case {twice.iloc[0]} stands twice in the scores; name cases uniquely")
    other = second.set_index("case")
    if odd := sorted(map(str, set(first["case"]) ^ set(other.index))):
        raise DataError(f"the models were evaluated on different cases, such as {odd[0]}")
    moved = first["case"][(first["group"] != first["case"].map(other["group"])).to_numpy()]
    if not moved.empty:
        raise DataError(f"case {moved.iloc[0]} is in different groups; evaluate on one table")
    rows = first.assign(difference=first["f1"] - first["case"].map(other["f1"]))
    by_group = rows.groupby("group", sort=False)["difference"]
    table = by_group.agg(difference="mean", cases="count", size="size").reset_index()
    table["difference"] = table["difference"].round(DECIMALS)
    return table.assign(empty=table["size"] - table["cases"]).drop(columns="size")


def compare_cases(
    first: pd.DataFrame, second: pd.DataFrame, draws: int = 9999, seed: int = 0
) -> Comparison:
    """Compare two conditions over the same cases, see `Comparison`.

    Args:
        first: table of `case_f1`, averaged within each case where there are several seeds.
        second: the same cases of another condition.
        draws: bootstrap samples, and at most so many sign flips.
        seed: of both.

    Raises:
        DataError: see `group_differences`.

    >>> cases = pd.DataFrame({"case": list("abc"), "group": list("abc"), "f1": [0.5, 0.6, 0.7]})
    >>> better = compare_cases(cases.assign(f1=[0.6, 0.8, 1.0]), cases)
    >>> round(better.mean, 3), better.groups, better.p_permutation  # 2 of 2^3 flips
    (0.2, 3, 0.25)
    """
    table = group_differences(first, second)
    differences = table["difference"].dropna().to_numpy(dtype=float)
    return Comparison(
        int(table["cases"].sum()),
        len(differences),
        int(table["empty"].sum()),
        round(float(differences.mean()), DECIMALS) if len(differences) else NAN,
        *bootstrap_interval(differences, draws, seed),
        *paired_t(differences),
        signed_rank(differences),
        sign_flips(differences, draws, seed),
    )


def compare_subgroups(
    first: pd.DataFrame, second: pd.DataFrame, test: Test = "permutation"
) -> pd.DataFrame:
    """Compare two conditions within each domain, corrected for the number of domains.

    Args:
        first: this and `second` are those of `compare_cases`.
        test: whose p-values are corrected.

    Returns:
        Index: the domains in table order; columns: the fields of `Comparison` and ``p_holm``.

    Raises:
        DataError: see `group_differences`.
    """
    group_differences(first, second)  # refuses tables of different cases before they are split
    rows = {
        str(name): compare_cases(part, second[second["case"].isin(part["case"])])
        for name, part in first.groupby("domain", sort=False)
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(Comparison._fields))
    return table.assign(p_holm=holm(table[f"p_{test}"].tolist())).rename_axis("domain")


def worst_subgroup(cases: pd.DataFrame) -> tuple[str, float]:
    """Find the domain with the lowest score: the mean over groups of the mean over their cases.

    Args:
        cases: table of `case_f1`; cases without a score are left out, but one must have one.

    Returns:
        Its name and mean F1; the first of equals.
    """
    groups = cases.groupby(["domain", "group"], sort=False)["f1"].mean()
    means = groups.groupby(level=0, sort=False).mean()
    return str(means.idxmin()), float(means.min())


class SeedInterval(NamedTuple):
    """Mean over training seeds and its 95 % t interval, which is NaN below 2 seeds."""

    seeds: int
    mean: float
    low: float
    high: float


def seed_differences(
    first: Mapping[Key, pd.DataFrame], second: Mapping[Key, pd.DataFrame]
) -> dict[Key, float]:
    """Mean difference over groups for each training seed that both conditions have.

    Only these tell how trainings vary: a difference that changes its sign with the seed is not one
    of the conditions, however small its p-value over cases.

    Args:
        first: table of `case_f1` by seed.
        second: the same of another condition.

    Returns:
        Mean as in `Comparison` by seed, in the first's order; NaN where no case has a score.

    Raises:
        DataError: see `group_differences`.
    """
    return {
        seed: float(group_differences(first[seed], second[seed])["difference"].mean())
        for seed in first
        if seed in second
    }


def seed_table(first: Mapping[Key, pd.DataFrame], second: Mapping[Key, pd.DataFrame]) -> np.ndarray:
    """Differences of each group and training, (groups, trainings), of groups known in all.

    Args:
        first: table of `case_f1` by seed.
        second: the same of another condition.

    Raises:
        DataError: see `group_differences`.
    """
    columns = [
        group_differences(first[seed], second[seed]).set_index("group")["difference"]
        for seed in first
        if seed in second
    ]
    return pd.concat(columns, axis=1).dropna().to_numpy(float)


def seed_interval(differences: Mapping[Key, float]) -> SeedInterval:
    """Mean of `seed_differences` and its t interval: where another training may end up.

    >>> one = seed_interval({0: 0.01, 1: 0.02, 2: 0.03})
    >>> one.seeds, round(one.mean, 3), round(one.low, 4), round(one.high, 4)
    (3, 0.02, -0.0048, 0.0448)
    """
    known = np.array([value for value in differences.values() if not np.isnan(value)])
    seeds = len(known)
    mean, half = float(known.mean()) if seeds else NAN, NAN
    if seeds > 1:
        half = float(stats.t.ppf(0.975, seeds - 1) * known.std(ddof=1) / np.sqrt(seeds))
    return SeedInterval(seeds, mean, mean - half, mean + half)


# Patients and trainings at once: both are samples, of which a claim must not depend.


class Spread(NamedTuple):
    """Standard deviations of the difference of two conditions, in its own unit.

    Attributes:
        patients: between groups, whatever the training.
        trainings: between trainings, whatever the group.
        residual: what is left of a group and a training.
    """

    patients: float
    trainings: float
    residual: float


class MeanSquares(NamedTuple):
    """Mean squares of differences (groups x trainings), without replication."""

    patients: float
    trainings: float
    residual: float


def mean_squares(differences: np.ndarray) -> MeanSquares:
    """Take a table of differences apart (two-way analysis of variance, both at random).

    Args:
        differences: (groups, trainings), at least two of each, none NaN.
    """
    groups, seeds = differences.shape
    mean, of_groups = differences.mean(), differences.mean(axis=1)
    of_seeds = differences.mean(axis=0)
    left = differences - of_groups[:, None] - of_seeds + mean
    return MeanSquares(
        float(seeds * of_groups.var(ddof=1)),
        float(groups * of_seeds.var(ddof=1)),
        float((left**2).sum() / ((groups - 1) * (seeds - 1))),
    )


def spread_of(differences: np.ndarray) -> Spread:
    """Standard deviations between patients, between trainings and of the rest; 0 at least.

    >>> spread_of(np.array([[0.1, 0.2], [0.3, 0.4], [0.5, 0.6]]))  # sums of both, no rest
    Spread(patients=0.2, trainings=0.070710678119, residual=0.0)
    """
    groups, seeds = differences.shape
    squares = mean_squares(differences)
    variances = (
        (squares.patients - squares.residual) / seeds,
        (squares.trainings - squares.residual) / groups,
        squares.residual,
    )
    return Spread(*(round(math.sqrt(max(v, 0)), DECIMALS) for v in variances))


def joint_half(squares: MeanSquares | np.ndarray, groups: int, seeds: int) -> np.ndarray:
    """Half the 95 % interval of a mean over patients and trainings, both taken as samples.

    Its variance is (MS_trainings + max(MS_patients - MS_residual, 0)) / (groups * seeds), as in
    studies of readers and cases (Hillis 2007). Each of the two parts has its own t, of trainings
    and of groups, and their squares are added (Graybill and Wang 1980). One t for the sum, with
    degrees of freedom between both, held the truth 91 times of 100 for three trainings.

    Args:
        squares: mean squares of patients, trainings and residual, each a number or (n,).
        groups: number of groups, at least 2.
        seeds: number of trainings, at least 2.
    """
    of_groups, of_seeds, left = map(np.asarray, squares)
    wide = stats.t.ppf(0.975, seeds - 1) ** 2 * of_seeds
    wide = wide + stats.t.ppf(0.975, groups - 1) ** 2 * np.maximum(of_groups - left, 0)
    return np.asarray(np.sqrt(wide / (groups * seeds)))


def joint_freedom(squares: MeanSquares, seeds: int) -> float:
    """How well the variance of `joint_half` is known, in degrees of freedom (Hillis 2007).

    Infinite where trainings do not differ at all.
    """
    both = squares.trainings + max(squares.patients - squares.residual, 0)
    return (seeds - 1) * (both / squares.trainings) ** 2 if squares.trainings else math.inf


def joint_interval(mean: float, differences: np.ndarray) -> tuple[float, float]:
    """95 % interval of a difference, for other patients and other trainings.

    Args:
        mean: of the difference.
        differences: (groups, trainings), none NaN.

    Returns:
        NaN below 2 trainings or 5 groups.
    """
    groups, seeds = differences.shape
    if seeds < 2 or groups < FEWEST:
        return NAN, NAN
    half = float(joint_half(mean_squares(differences), groups, seeds))
    return mean - half, mean + half
