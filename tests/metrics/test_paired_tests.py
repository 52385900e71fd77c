import math

import numpy as np
import pytest
from scipy import stats

from metaseg_monai.metrics.statistics import bootstrap_interval, paired_t, sign_flips, signed_rank

MIXED = np.array([0.031, -0.012, 0.054, 0.008, 0.027, -0.003, 0.041, 0.019])


def test_sign_flips_by_hand():
    # of the 8 sums of +-1 +-2 +-3 only 6 and -6 are as far from 0 as 6
    assert sign_flips(np.array([1.0, 2.0, 3.0]), draws=9999, seed=0) == 2 / 8
    # -1 + 2 + 3 is 4; the sums as far from 0 are 6, 4, -4 and -6
    assert sign_flips(np.array([-1.0, 2.0, 3.0]), draws=9999, seed=0) == 4 / 8


def test_signed_ranks_by_hand():
    # ranks 1 2 3 4, the negative one has rank 1: rank sums 0 and 1 on either side of 2^4
    assert signed_rank(np.array([-0.1, 0.2, 0.3, 0.4])) == pytest.approx(4 / 16)
    # the same after the zeros are dropped
    assert signed_rank(np.array([0, -0.1, 0.2, 0, 0.3, 0.4])) == pytest.approx(4 / 16)


def test_paired_t_by_hand():
    # mean 2, standard deviation 1, n 3; with 2 degrees of freedom p is 1 - t / sqrt(2 + t^2)
    effect, t, p = paired_t(np.array([1.0, 2.0, 3.0]))
    assert (effect, t) == (2.0, pytest.approx(2 * math.sqrt(3)))
    assert p == pytest.approx(1 - t / math.sqrt(2 + t**2))


def test_drawn_sign_flips_come_near_to_all_of_them_and_replay():
    exact = sign_flips(MIXED, draws=2**8, seed=0)
    drawn = sign_flips(MIXED, draws=2**8 - 1, seed=3)
    assert exact * 2**8 == int(exact * 2**8)
    assert exact == sign_flips(MIXED, draws=2**8, seed=1)
    assert drawn == pytest.approx(exact, abs=0.04)
    assert drawn == sign_flips(MIXED, draws=2**8 - 1, seed=3)
    assert drawn * 2**8 == pytest.approx(round(drawn * 2**8))  # (found + 1) of (draws + 1)


def test_the_interval_of_units_that_are_alike_is_their_value():
    assert bootstrap_interval(np.full(5, 0.1), draws=99, seed=0) == (0.1, 0.1)
    for units in range(5):  # too few to tell, alike or not
        assert np.isnan(bootstrap_interval(np.full(units, 0.1), draws=99, seed=0)).all()


def test_the_interval_of_many_units_is_that_of_plain_percentiles_and_replays():
    many = np.random.default_rng(0).exponential(size=400)
    plain = stats.bootstrap(
        (many,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    low, high = bootstrap_interval(many, draws=2000, seed=5)
    assert (low, high) == pytest.approx((plain.low, plain.high), abs=0.01)
    assert low <= plain.low < plain.high <= high
    assert (low, high) == bootstrap_interval(many, draws=2000, seed=5)
