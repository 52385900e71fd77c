import math

import numpy as np
import pytest

from metaseg_monai.metrics.agreement import agreement, bland_altman
from metaseg_monai.metrics.statistics import bootstrap_interval


def test_bias_and_limits_by_hand():
    # differences 1, 3, 5, 7, 9: mean 5, variance (16 + 4 + 0 + 4 + 16) / 4
    made = bland_altman([10, 20, 30, 40, 50], [11, 23, 35, 47, 59], list("abcde"))
    deviation = math.sqrt(10)
    assert (made.volumes, made.groups, made.bias) == (5, 5, 5)
    assert made.lower == pytest.approx(5 - 1.96 * deviation)
    assert made.upper == pytest.approx(5 + 1.96 * deviation)
    assert made.bias_low < made.bias < made.bias_high
    assert made.lower_low < made.lower < made.lower_high
    assert made.upper_low < made.upper < made.upper_high


def test_one_volume_a_group_has_the_interval_of_the_other_bootstrap():
    rng = np.random.default_rng(0)
    true, error = rng.uniform(10, 200, 30), rng.normal(2, 5, 30)
    made = bland_altman(true, true + error, range(30), draws=20_000)
    low, high = bootstrap_interval(error, 20_000, seed=1)
    assert (made.bias_low, made.bias_high) == pytest.approx((low, high), abs=0.1)


def test_few_volumes_have_every_bootstrap_sample_whatever_the_seed():
    pred = [0, 0, 0, 0, 5]
    made = bland_altman([0] * 5, pred, list("abcde"))
    # 1 of 3125 samples holds the 5 five times, 20 hold it four times; the tail is 3 of 3125
    assert (made.bias_low, made.bias_high) == pytest.approx((0, 4))
    # four of five 5: mean 4, variance 25 x 4 / 5 / 4; one of five: mean 1, the same
    assert made.upper_high == pytest.approx(4 + 1.96 * math.sqrt(5))
    assert made.lower_low == pytest.approx(1 - 1.96 * math.sqrt(5))
    assert made == bland_altman([0] * 5, pred, list("abcde"), draws=10, seed=5)


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_too_few_groups_have_no_interval_however_many_volumes(groups):
    pred = np.random.default_rng(0).normal(size=3 * groups)
    made = bland_altman(np.zeros(3 * groups), pred, np.repeat(np.arange(groups), 3))
    ends = [value for name, value in made._asdict().items() if name.endswith(("_low", "_high"))]
    assert len(ends) == 8
    assert np.isnan(ends).all()
    assert not np.isnan([made.bias, made.lower, made.upper, made.slope]).any()


def test_slope_by_hand():
    # means 10.5, 21.5, 32.5, 43.5, 54.5, differences 1, 3, 5, 7, 9
    made = bland_altman([10, 20, 30, 40, 50], [11, 23, 35, 47, 59], list("abcde"))
    assert (made.slope, made.slope_low, made.slope_high) == pytest.approx((2 / 11,) * 3)
    few = bland_altman([10, 20, 30], [11, 23, 35], list("abc"))
    assert few.slope == pytest.approx(2 / 11)
    assert math.isnan(few.slope_low)
    level = bland_altman([10, 12, 14, 16], [14, 12, 10, 8], list("abcd"))  # all means are 12
    assert math.isnan(level.slope)


def test_the_slope_of_errors_that_do_not_grow_is_not_clear():
    rng = np.random.default_rng(4)
    held = 0
    for seed in range(60):
        true = rng.uniform(10, 200, 40)
        even = bland_altman(true, true + rng.normal(5, 5, 40), range(40), draws=300, seed=seed)
        held += even.slope_low < 0 < even.slope_high
    assert held >= 52
    short = bland_altman(true, 0.5 * true + rng.normal(0, 5, 40), range(40))
    assert short.slope_high < -0.5  # of the mean, 0.75 of the true: -0.67
    assert short.slope == pytest.approx(-2 / 3, abs=0.05)


def test_volumes_of_one_group_are_one_piece_of_evidence():
    rng = np.random.default_rng(1)
    error = rng.normal(0, 5, 12)
    alone = bland_altman(np.zeros(12), error, range(12))
    tenfold = bland_altman(np.zeros(120), np.repeat(error, 10), np.repeat(np.arange(12), 10))
    assert tenfold.bias == pytest.approx(alone.bias)
    assert tenfold.bias_high - tenfold.bias_low == pytest.approx(
        alone.bias_high - alone.bias_low, rel=0.05
    )
    taken_apart = bland_altman(np.zeros(120), np.repeat(error, 10), range(120))
    assert taken_apart.bias_high - taken_apart.bias_low < 0.5 * (alone.bias_high - alone.bias_low)


def test_the_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(2)
    held = np.zeros(3)
    for seed in range(300):
        shift = np.repeat(rng.normal(0, 3, 20), 2)  # two volumes of each of 20 patients
        error = 1 + shift + rng.normal(0, 4, 40)
        made = bland_altman(np.zeros(40), error, np.repeat(np.arange(20), 2), draws=500, seed=seed)
        held += [
            made.bias_low < 1 < made.bias_high,
            made.lower_low < 1 - 1.96 * 5 < made.lower_high,
            made.upper_low < 1 + 1.96 * 5 < made.upper_high,
        ]
    assert (held / 300 > 0.88).all()  # percentiles of a standard deviation are narrow
    assert (held / 300 < 0.99).all()


def test_what_few_volumes_leave_unknown():
    one = bland_altman([10], [12], ["a"])
    assert one[:3] == (1, 1, 2)
    assert all(math.isnan(value) for value in one[3:])
    patient = bland_altman([10, 20], [12, 24], ["a", "a"])
    assert (patient.bias, patient.groups) == (3, 1)
    assert patient.upper == pytest.approx(3 + 1.96 * math.sqrt(2))
    assert math.isnan(patient.bias_low)


def test_agreement_by_hand():
    scores = agreement([10, 10, 30, 40], [10, 20, 30, 40])
    assert scores["mae"] == 2.5
    assert scores["r2"] == pytest.approx(1 - 100 / 500)
    assert scores["spearman"] == pytest.approx(4.5 / math.sqrt(4.5 * 5), abs=1e-6)  # one tie
    # on a log field a factor counts the same everywhere: 10 for 100 as 100 for 1000
    low, high = (agreement(pred, [100, 1000], log=True) for pred in ([10, 1000], [100, 100]))
    assert low["r2"] == high["r2"] == pytest.approx(-1)
    assert agreement([], []) == {"mae": None, "r2": None, "spearman": None}
