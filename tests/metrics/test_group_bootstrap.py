import math
from itertools import product

import numpy as np
import pytest
from scipy import stats

from metaseg_monai.metrics import bootstrap as group_bootstrap
from metaseg_monai.metrics.agreement import bland_altman
from metaseg_monai.metrics.bootstrap import group_interval, ratio_interval
from metaseg_monai.metrics.statistics import bootstrap_interval

VALUES = np.array([0.3, -1.2, 2.5, 0.9, 4.0, -0.4, 1.1])


def mean(values):
    return lambda times: times @ values / len(values)


def every_mean(values):
    """Means of all n^n samples in order."""
    return np.sort([np.mean(sample) for sample in product(values, repeat=len(values))])


@pytest.mark.parametrize("groups", [5, 6])
def test_few_groups_have_the_percentiles_of_all_samples(groups):
    values = VALUES[:groups]
    quantile = {5: 2.776445, 6: 2.570582}[groups]  # t of n - 1 degrees of freedom, of a table
    beyond = math.floor(groups**groups * stats.norm.sf(quantile * math.sqrt(groups / (groups - 1))))
    means = every_mean(values)
    low, high = group_interval(mean(values), groups, draws=1, seed=0)
    assert (low, high) == pytest.approx((means[beyond], means[-1 - beyond]))


def test_the_seed_decides_nothing_up_to_nine_groups():
    many = np.random.default_rng(0).exponential(size=10)
    for groups in (5, 9):
        one, other = (group_interval(mean(many[:groups]), groups, 2000, s) for s in (0, 1))
        assert one == other
    assert group_interval(mean(many), 10, 2000, 0) != group_interval(mean(many), 10, 2000, 1)


def test_drawn_and_every_sample_agree(monkeypatch):
    values = np.random.default_rng(0).exponential(size=9)
    exact = group_interval(mean(values), 9, 1, 0)
    monkeypatch.setattr(group_bootstrap, "EXACT", 0)
    drawn = group_interval(mean(values), 9, 200_000, 0)
    assert drawn == pytest.approx(exact, abs=0.02)


def test_few_draws_grow_until_enough_lie_beyond_each_end():
    seen = []

    def counted(times):
        seen.append(len(times))
        return mean(np.arange(10.0))(times)

    group_interval(counted, 10, 100, 0)
    beyond = stats.norm.sf(2.262157 * math.sqrt(10 / 9))  # 0.86 % in place of 2.5 %
    assert sum(seen) == math.ceil(30 / beyond)
    assert max(seen) <= 1000  # little memory
    seen.clear()
    group_interval(counted, 10, 6000, 0)
    assert sum(seen) == 6000


@pytest.mark.parametrize("groups", range(5))
def test_below_five_groups_there_is_no_interval(groups):
    for low, high in (
        group_interval(mean(VALUES[:groups]), groups, 99, 0),
        bootstrap_interval(VALUES[:groups], 99, 0),
        ratio_interval(VALUES[:groups], np.ones(groups), 99, 0),
    ):
        assert math.isnan(low)
        assert math.isnan(high)


def test_what_is_undefined_in_a_sample_is_left_out():
    def known(times):  # of samples with the first group alone
        return np.where(times[:, 0] > 0, mean(np.arange(7.0))(times), np.nan)

    low, high = group_interval(known, 7, 99, 0)
    assert 0 < low < high < 6
    nothing = group_interval(lambda times: np.full(len(times), np.nan), 7, 99, 0)
    assert np.isnan(nothing).all()
    assert np.isnan(group_interval(lambda times: times[:, 0] * np.nan, 12, 99, 0)).all()


def test_a_share_is_that_of_sums_and_of_the_groups_that_have_any():
    found, lesions = np.array([1.0, 0, 2, 3, 0, 1]), np.array([1.0, 1, 4, 3, 0, 2])
    held = lesions > 0
    shares = [
        found[held][list(drawn)].sum() / lesions[held][list(drawn)].sum()
        for drawn in product(range(5), repeat=5)
    ]
    beyond = math.floor(5**5 * stats.norm.sf(2.776445 * math.sqrt(5 / 4)))
    low, high = ratio_interval(found, lesions, 99, 0)
    assert (low, high) == pytest.approx((np.sort(shares)[beyond], np.sort(shares)[-1 - beyond]))
    four = np.array([1.0, 1, 1, 1, 0, 0])  # lesions in four of six patients
    assert np.isnan(ratio_interval(four, four, 99, 0)).all()


def test_the_interval_holds_the_truth_of_few_groups_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    for groups in (5, 6, 9):
        ends = [bootstrap_interval(rng.normal(size=groups), 99, 0) for _ in range(600)]
        assert 0.92 < np.mean([low <= 0 <= high for low, high in ends]) < 0.985


def test_a_slope_of_few_patients_is_not_clear_by_the_luck_of_the_draw():
    rng = np.random.default_rng(5)
    true = np.repeat(rng.uniform(10, 200, 6), 2)
    pred = true * rng.uniform(0.2, 0.9, 12)
    ends = {bland_altman(true, pred, np.repeat(range(6), 2), 2000, seed)[-2:] for seed in range(4)}
    assert len(ends) == 1
