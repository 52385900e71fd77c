import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.leakage import (
    associate,
    label_diameters,
    spearman,
    volume_values,
)
from metaseg_monai.metrics.scores import COUNT_COLUMNS


def table(*rows):
    """Rows of (case, group, class, tp, fp, fn)."""
    filled = [(c, g, "test", "normal", "all", k, tp, fp, fn, 0) for c, g, k, tp, fp, fn in rows]
    return pd.DataFrame(filled, columns=COUNT_COLUMNS)


def r_squared(first, second, log=False):
    return associate(pd.Series(first), pd.Series(second), log).r_squared


def test_r_squared_by_hand():
    # about their means: -1 0 1 and -1 1 0; product 1, squares 2 and 2
    assert r_squared([1, 2, 3], [1, 3, 2]) == pytest.approx(0.25)
    assert r_squared([1, 2, 3], [3, 1, 2]) == pytest.approx(0.25)
    assert r_squared([1, 2, 3], [6, 4, 2]) == 1


def test_a_power_law_is_a_line_of_logarithms_only():
    values = np.array([1.0, 2.0, 4.0, 8.0])
    assert r_squared(values, 3 * values**2, log=True) == pytest.approx(1)
    assert r_squared(values, 3 * values**2) < 0.98


def test_spearman_by_hand():
    # 1 - 6 x (0 + 1 + 1) / (3 x 8)
    assert spearman([10, 20, 30], [1, 3, 2]) == pytest.approx(0.5)
    # ranks 1.5 1.5 3 and 1 2 3: product 1.5, squares 1.5 and 2
    assert spearman([1, 1, 2], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(3))
    # ranks 1.5 1.5 3 4, which are -1 -1 0.5 1.5 about their mean: product 4.5, squares 4.5 and 5
    assert spearman([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_what_does_not_vary_or_is_too_few_has_no_association():
    for found in (
        r_squared([1, 1, 1], [1, 2, 3]),
        r_squared([], [], log=True),
        spearman([1, 2, 3], [5, 5, 5]),
        spearman([1, 2], [1, 2]),
    ):
        assert math.isnan(found)


def test_wrong_numbers_are_refused():
    with pytest.raises(DataError, match="finite numbers"):
        spearman([1, 2, 3], [1, 2, float("nan")])


def test_diameter_of_the_largest_slice_by_hand():
    counts = table(
        ("a0", "a", 2, 3, 9, 1),  # 4 pixels of the label, the false 9 are none of it
        ("a1", "a", 2, 10, 0, 6),  # 16
        ("b0", "b", 2, 0, 5, 0),
    )
    alone = pd.Series({"a0": "", "a1": "", "b0": ""})
    sizes = label_diameters(counts, pd.Series({"a0": 1, "a1": 1, "b0": 1}), alone)
    assert sizes.loc[("a", ""), 2] == pytest.approx(2 * math.sqrt(16 / math.pi))
    assert math.isnan(sizes.loc[("b", ""), 2])
    # in mm2 the first slice is the larger one: 4 x 9 against 16 x 1
    spacing = pd.Series({"a0": 9.0, "a1": 1.0, "b0": 1.0})
    in_mm = label_diameters(counts, spacing, alone)
    assert in_mm.loc[("a", ""), 2] == pytest.approx(2 * math.sqrt(36 / math.pi))
    ball = label_diameters(counts[:1], spacing * math.pi, alone, dims=3)
    assert ball.loc[("a", ""), 2] == pytest.approx(6)  # 36 pi mm3: radius 3
    with pytest.raises(DataError, match="case b0 has no pixel spacing"):
        label_diameters(counts, spacing[:2], alone)


def test_diameters_of_the_volumes_of_a_patient_are_told_apart():
    counts = table(("a0", "a", 2, 4, 0, 0), ("a1", "a", 2, 9, 0, 0), ("a2", "a", 2, 16, 0, 0))
    names = pd.Series({"a0": "one", "a1": "one", "a2": "two"})
    sizes = label_diameters(counts, pd.Series(1, names.index), names)
    assert sizes[2].to_dict() == {
        ("a", "one"): pytest.approx(6 / math.sqrt(math.pi)),
        ("a", "two"): pytest.approx(8 / math.sqrt(math.pi)),
    }


def test_values_are_those_of_each_volume_and_leave_out_what_is_no_number():
    cases = pd.DataFrame({"group": list("aabc"), "volume": "", "size": ["10", "20", "", ">=90"]})
    assert volume_values(cases, "size").to_dict() == {("a", ""): 15.0}
    slices = pd.DataFrame(
        {"group": "a", "volume": ["one"] * 9 + ["two"], "size": ["30"] * 9 + ["9"]}
    )
    assert volume_values(slices, "size").to_dict() == {("a", "one"): 30, ("a", "two"): 9}


def test_volumes_of_a_patient_are_one_piece_of_evidence():
    rng = np.random.default_rng(5)
    one, two = rng.random(20), rng.random(20)
    alone = associate(pd.Series(one), pd.Series(two), draws=400)
    index = pd.MultiIndex.from_product([range(20), list("abcdef")], names=["group", "volume"])
    sixfold = associate(*(pd.Series(np.repeat(v, 6), index) for v in (one, two)), draws=400)
    assert (sixfold.groups, sixfold.volumes) == (20, 120)
    assert sixfold.spearman == pytest.approx(alone.spearman, abs=0.01)
    assert sixfold.high - sixfold.low == pytest.approx(alone.high - alone.low, rel=0.1)
    few = index.get_level_values("group") < 3
    assert math.isnan(associate(*(pd.Series(np.arange(18.0), index[few]),) * 2).low)


def test_association_of_the_groups_that_have_both():
    values = pd.Series({"a": 1.0, "b": 2.0, "c": 4.0, "d": 8.0, "e": 16.0, "f": 32.0})
    sizes = pd.Series({"a": 1.0, "b": 4.0, "c": 16.0, "d": 64.0, "e": 256.0, "g": 3.0})
    one = associate(values, sizes, log=True)
    assert (one.groups, one.r_squared, one.spearman) == (5, 1.0, 1.0)
    # of the plain values a line explains less, in every sample of more than two
    assert (one.r_squared_low, one.r_squared_high) == pytest.approx((1, 1))
    assert one.low == one.high == pytest.approx(1)
    assert one == associate(values, sizes, log=True)
    # a size of 0 has no logarithm: its group is left out
    assert associate(values, sizes.replace(1.0, 0.0), log=True).groups == 4


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    covariance = [[1, 0.6], [0.6, 1]]
    truth = 6 / math.pi * math.asin(0.6 / 2)  # Spearman of a bivariate normal
    held = 0
    for seed in range(60):
        pairs = np.random.default_rng(seed).multivariate_normal([0, 0], covariance, 40)
        one = associate(pd.Series(pairs[:, 0]), pd.Series(pairs[:, 1]), draws=300)
        held += one.low <= truth <= one.high
    assert held >= 52


def test_the_interval_is_that_of_samples_of_whole_groups():
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(12), 2)
    index = pd.MultiIndex.from_arrays([groups, [*"ab"] * 12], names=["group", "volume"])
    first = pd.Series(rng.integers(1, 9, 24).astype(float), index)  # with ties
    second = first + pd.Series(rng.integers(0, 9, 24).astype(float), index)
    made = associate(first, second, log=True, draws=5000)
    ranks, shares = [], []
    for drawn in rng.integers(12, size=(2000, 12)):
        rows = (2 * drawn[:, None] + [0, 1]).ravel()
        one, two = first.to_numpy()[rows], second.to_numpy()[rows]
        ranks.append(stats.spearmanr(one, two).statistic)
        shares.append(np.corrcoef(np.log(one), np.log(two))[0, 1] ** 2)
    tail = stats.norm.sf(2.200985 * math.sqrt(12 / 11))  # t of 11 degrees of freedom, of a table
    ends = [tail, 1 - tail]
    assert (made.low, made.high) == pytest.approx(np.quantile(ranks, ends), abs=0.03)
    of_share = (made.r_squared_low, made.r_squared_high)
    assert of_share == pytest.approx(np.quantile(shares, ends), abs=0.03)
    plain = associate(first, second, draws=5000)
    assert plain.r_squared_low > made.r_squared_low + 0.1
