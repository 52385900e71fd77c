import importlib.util
import math
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from metaseg_monai.errors import DataError
from metaseg_monai.metrics import statistics
from metaseg_monai.metrics.statistics import (
    MeanSquares,
    bootstrap_interval,
    compare_cases,
    compare_subgroups,
    group_differences,
    group_interval,
    holm,
    joint_freedom,
    joint_half,
    joint_interval,
    mean_squares,
    paired_t,
    rate_interval,
    score_interval,
    seed_differences,
    seed_interval,
    seed_table,
    share_interval,
    sign_flips,
    signed_rank,
    worst_subgroup,
)

MIXED = np.array([0.031, -0.012, 0.054, 0.008, 0.027, -0.003, 0.041, 0.019])
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
    monkeypatch.setattr(statistics, "EXACT", 0)
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
    for ends in (
        group_interval(mean(VALUES[:groups]), groups, 99, 0),
        bootstrap_interval(VALUES[:groups], 99, 0),
        bootstrap_interval(np.full(groups, 0.1), 99, 0),  # alike or not
        share_interval(np.ones(groups), np.ones(groups)),
        rate_interval(np.ones(groups), np.ones(groups)),
        score_interval(np.full(groups, 0.5)),
        joint_interval(0.1, np.ones((groups, 3))),
    ):
        assert np.isnan(ends).all()


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
    off = found[held] - 7 / 11 * lesions[held]
    variance = (off**2).sum() * 5 / 4 / 11**2
    trials = min(11, 7 / 11 * 4 / 11 / variance) * (1.959964 / 2.776445) ** 2  # t of a table
    expected = stats.binomtest  # of whole numbers only: the beta distribution says the same
    low, high = stats.beta.ppf(
        [0.025, 0.975], [7 / 11 * trials, 7 / 11 * trials + 1],
        [4 / 11 * trials + 1, 4 / 11 * trials],
    )  # fmt: skip
    assert share_interval(found, lesions) == pytest.approx((low, high), rel=1e-5)
    exact = expected(20, 20).proportion_ci()
    alike = share_interval(np.ones(20), np.ones(20))
    assert alike[1] == 1
    assert 0.78 < alike[0] < exact.low  # the t of 20 groups counts them as fewer
    assert share_interval(np.zeros(9), np.ones(9))[0] == 0
    four = np.array([1.0, 1, 1, 1, 0, 0])  # lesions in four of six patients
    assert np.isnan(share_interval(four, four)).all()


def test_a_rate_of_counts_is_about_that_of_poisson():
    counts = np.random.default_rng(0).poisson(2, 400).astype(float)
    total = counts.sum()
    low, high = (stats.chi2.ppf([0.025, 0.975], [2 * total, 2 * total + 2]) / 2 / 400).tolist()
    assert rate_interval(counts, np.ones(400)) == pytest.approx((low, high), rel=0.02)
    assert rate_interval(np.zeros(10), np.full(10, 2.0)) == (0, pytest.approx(3.689 / 20, rel=1e-3))
    assert rate_interval(np.full(6, 3.0), np.ones(6)) == (3, 3)


def test_scores_stay_between_0_and_1_and_lean_to_where_there_is_room():
    scores = np.array([0.99, 0.98, 1.0, 0.97, 0.6])
    low, high = score_interval(scores)
    assert 0 < low < scores.mean() < high <= 1
    assert scores.mean() - low > high - scores.mean()
    assert score_interval(np.full(5, 0.8)) == (0.8, 0.8)
    assert score_interval(scores, np.full(5, 7.0)) == pytest.approx((low, high))


def test_patients_and_trainings_by_hand():
    table = np.array([[1.0, 2], [3, 8], [5, 2]])  # mean 3.5, of rows 1.5 5.5 3.5, of columns 3 4
    squares = mean_squares(table)
    assert squares == pytest.approx((2 * 4.0, 3 * 0.5, 16 / 2))
    of_tables = 12.7062, 4.30265  # t of 1 and 2 degrees of freedom
    wide = of_tables[0] ** 2 * 2 + of_tables[1] ** 2 * 8
    assert float(joint_half((9.0, 2.0, 1.0), 3, 2)) == pytest.approx(math.sqrt(wide / 6), rel=1e-4)
    assert joint_freedom(MeanSquares(9.0, 2.0, 1.0), 2) == pytest.approx(10**2 / 2**2)
    assert joint_freedom(MeanSquares(9.0, 0.0, 0.0), 2) == math.inf


def test_where_trainings_are_alike_the_joint_interval_is_that_of_patients():
    alike = np.repeat(MIXED[:, None], 3, axis=1)
    expected = stats.ttest_1samp(MIXED, 0).confidence_interval()
    ends = joint_interval(MIXED.mean(), alike)
    assert ends == pytest.approx((expected.low, expected.high))


def test_where_patients_are_alike_the_joint_interval_is_that_of_trainings():
    trainings = {0: 0.02, 1: 0.05, 2: 0.03}
    table = np.tile(list(trainings.values()), (8, 1))
    assert joint_interval(0.1 / 3, table) == pytest.approx(seed_interval(trainings)[2:])


def test_a_seed_table_has_the_groups_that_all_trainings_know():
    first = {0: single([0.5, 0.7, 0.9]), 1: single([0.6, math.nan, 0.4])}
    second = {0: single([0.4, 0.4, 0.4]), 1: single([0.4, 0.4, 0.4])}
    assert seed_table(first, second) == pytest.approx(np.array([[0.1, 0.2], [0.5, 0.0]]))


def test_the_interval_holds_the_truth_of_few_groups_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    for groups in (5, 6, 9):
        ends = [bootstrap_interval(rng.normal(size=groups), 99, 0) for _ in range(600)]
        assert 0.93 < np.mean([low <= 0 <= high for low, high in ends]) < 0.985


def test_the_three_tests_by_hand():
    # of the 8 sums of +-1 +-2 +-3 only 6 and -6 are as far from 0 as 6
    assert sign_flips(np.array([1.0, 2.0, 3.0]), draws=9999, seed=0) == 2 / 8
    # -1 + 2 + 3 is 4; the sums as far from 0 are 6, 4, -4 and -6
    assert sign_flips(np.array([-1.0, 2.0, 3.0]), draws=9999, seed=0) == 4 / 8
    # ranks 1 2 3 4, the negative one has rank 1: rank sums 0 and 1 on either side of 2^4
    assert signed_rank(np.array([-0.1, 0.2, 0.3, 0.4])) == pytest.approx(4 / 16)
    # the same after the zeros are dropped
    assert signed_rank(np.array([0, -0.1, 0.2, 0, 0.3, 0.4])) == pytest.approx(4 / 16)
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


def test_the_interval_of_many_units_is_that_of_plain_percentiles_and_replays():
    many = np.random.default_rng(0).exponential(size=400)
    plain = stats.bootstrap(
        (many,), np.mean, n_resamples=2000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    low, high = bootstrap_interval(many, draws=2000, seed=5)
    assert (low, high) == pytest.approx((plain.low, plain.high), abs=0.01)
    assert low <= plain.low < plain.high <= high
    assert (low, high) == bootstrap_interval(many, draws=2000, seed=5)


def cases(*rows):
    """Rows of (case, group, domain, f1)."""
    return pd.DataFrame(rows, columns=["case", "group", "domain", "f1"])


def single(scores, domain="x"):
    """One case for each group."""
    return cases(*[(f"{domain}{i}", f"{domain}{i}", domain, f1) for i, f1 in enumerate(scores)])


def differing(differences, domain="x"):
    """Two conditions whose cases differ by these."""
    base = np.linspace(0.3, 0.7, len(differences))
    return single(base + np.asarray(differences), domain), single(base, domain)


def test_a_group_gives_the_mean_of_its_cases():
    first = cases(("a", "g", "x", 0.9), ("b", "g", "x", 0.6), ("c", "h", "x", 0.5))
    second = cases(("c", "h", "x", 0.6), ("a", "g", "x", 0.5), ("b", "g", "x", 0.4))
    table = group_differences(first, second)
    assert table.columns.tolist() == ["group", "difference", "cases", "empty"]
    assert table.to_numpy().tolist() == [["g", 0.3, 2, 0], ["h", -0.1, 1, 0]]


def test_the_mean_is_over_groups_not_over_cases():
    first = cases(*[(f"g{i}", "g", "x", 0.6) for i in range(9)], ("h", "h", "x", 0.9))
    made = compare_cases(first, first.assign(f1=0.5))
    assert (made.mean, made.cases, made.groups) == (0.25, 10, 2)


def test_cases_without_a_score_in_either_are_left_out_and_counted():
    nan = float("nan")
    first = cases(("a", "g", "x", nan), ("b", "g", "x", 0.6), ("c", "h", "x", 0.5))
    second = cases(("a", "g", "x", 0.0), ("b", "g", "x", 0.4), ("c", "h", "x", nan))
    table = group_differences(first, second)
    assert table["difference"].tolist() == [0.2, pytest.approx(nan, nan_ok=True)]
    assert table[["cases", "empty"]].to_numpy().tolist() == [[1, 1], [0, 1]]
    made = compare_cases(first, second)
    assert (made.cases, made.groups, made.empty, made.mean) == (1, 1, 2, 0.2)


def test_tables_that_cannot_be_paired_are_refused():
    first = single([0.5, 0.6])
    with pytest.raises(DataError, match="different cases, such as x1"):
        compare_cases(first, first[:1])
    with pytest.raises(DataError, match="x0 stands twice"):
        compare_cases(first, pd.concat([first, first[:1]]))
    with pytest.raises(DataError, match="x1 is in different groups"):
        compare_cases(first, first.assign(group=["x0", "other"]))


def test_a_comparison_is_what_scipy_gives_for_the_two_lists_of_scores():
    first, second = differing(MIXED)
    made = compare_cases(first, second)
    t = stats.ttest_rel(first["f1"], second["f1"])
    assert (made.t, made.p_t) == (pytest.approx(t.statistic), pytest.approx(t.pvalue))
    assert made.p_wilcoxon == pytest.approx(stats.wilcoxon(first["f1"], second["f1"]).pvalue)
    flips = stats.permutation_test(
        (first["f1"], second["f1"]),
        lambda one, two, axis: (one - two).mean(axis),
        permutation_type="samples",
        n_resamples=np.inf,
    )
    assert made.p_permutation == pytest.approx(flips.pvalue)
    assert made.effect == pytest.approx(MIXED.mean() / MIXED.std(ddof=1))
    tail = stats.norm.sf(2.364624 * np.sqrt(8 / 7))  # t of 7 degrees of freedom, from a table
    draw = np.random.default_rng(1).integers(8, size=(50_000, 8))
    ends = np.quantile(MIXED[draw].mean(axis=1), [tail, 1 - tail])
    student = stats.ttest_1samp(MIXED, 0).confidence_interval()  # the wider at each end
    wide = min(ends[0], student.low), max(ends[1], student.high)
    assert (made.low, made.high) == pytest.approx(wide, abs=0.001)


NOTHING = pytest.approx(math.nan, nan_ok=True)


@pytest.mark.parametrize(
    ("differences", "of_mean", "of_t", "of_ranks"),
    [
        ([0.0] * 6, (0, 0, 0), (NOTHING, NOTHING, 1), (1, 1)),
        # one difference for all has no spread for a t test, but signs
        ([0.1] * 6, (0.1, 0.1, 0.1), (NOTHING,) * 3, (2 / 64, 2 / 64)),
        ([0.1], (0.1, NOTHING, NOTHING), (NOTHING,) * 3, (1, 1)),
        ([math.nan] * 2, (NOTHING,) * 3, (NOTHING,) * 3, (NOTHING,) * 2),
    ],
)
def test_what_does_not_vary_or_is_too_little(differences, of_mean, of_t, of_ranks):
    made = compare_cases(*differing(differences))
    assert (made.mean, made.low, made.high) == of_mean
    assert (made.effect, made.t, made.p_t) == of_t
    assert (made.p_wilcoxon, made.p_permutation) == of_ranks
    known = 0 if math.isnan(differences[0]) else len(differences)
    assert (made.cases, made.groups, made.empty) == (known, known, len(differences) - known)


def test_rounding_is_no_difference_and_small_differences_are():
    base = single([0.1 + 0.2] * 4)
    made = compare_cases(base, base.assign(f1=0.3))
    assert (made.mean, made.p_t, made.p_wilcoxon, made.p_permutation) == (0, 1, 1, 1)
    made = compare_cases(*differing([0.0004, 0.0003, 0.0002, 0.0004, 0.0002, 0.0003]))
    assert made.mean == pytest.approx(0.0003)
    assert 0 < made.low < 0.0003 < made.high


def test_holm_by_hand():
    # 0.01 * 4; 0.02 * 3; 0.03 * 2 = 0.06; 0.5 * 1
    assert holm([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    # 0.04 * 2 = 0.08 holds 0.05 * 1 up; nothing is larger than 1
    assert holm([0.05, 0.04]) == pytest.approx([0.08, 0.08])
    assert holm([0.9, 0.6]) == [1, 1]
    assert holm([]) == []
    # what was not tested is not counted
    assert holm([math.nan, 0.04, 0.01]) == pytest.approx([math.nan, 0.04, 0.02], nan_ok=True)


@pytest.mark.parametrize("test", ["t", "wilcoxon", "permutation"])
def test_subgroups_are_compared_each_and_corrected_together(test):
    in_x, in_y = differing(MIXED, "x"), differing(-MIXED[:5], "y")
    first, second = (pd.concat(pair) for pair in zip(in_y, in_x, strict=True))
    table = compare_subgroups(first, second, test=test)
    assert list(table.index) == ["y", "x"]
    alone = [compare_cases(*in_y), compare_cases(*in_x)]
    assert table.drop(columns="p_holm").to_numpy().tolist() == [list(made) for made in alone]
    assert table["p_holm"].tolist() == holm([getattr(made, f"p_{test}") for made in alone])


def test_subgroups_that_cannot_be_compared_are_refused():
    first, second = differing(MIXED)
    with pytest.raises(DataError, match="different cases"):
        compare_subgroups(first[:3], second)


def test_the_worst_subgroup_is_found_by_the_means_of_groups():
    table = cases(
        *[(f"a{i}", "a", "x", 0.1) for i in range(8)],
        ("b", "b", "x", 0.9),
        ("c", "c", "y", 0.4),
        ("d", "d", "y", float("nan")),
        ("e", "e", "z", float("nan")),
    )
    assert worst_subgroup(table) == ("y", 0.4)  # x: (0.1 + 0.9) / 2, though its cases' mean is 0.19


def test_seed_differences_are_of_the_seeds_that_both_have():
    first = {0: single([0.5, 0.7]), 1: single([0.6, 0.4]), 2: single([0.6, 0.6])}
    second = {2: single([0.6, 0.7]), 0: single([0.4, 0.6]), 5: single([0, 0])}
    assert seed_differences(first, second) == pytest.approx({0: 0.1, 2: -0.05})
    assert list(seed_differences(first, second)) == [0, 2]


def test_the_seed_interval_is_that_of_student():
    made = seed_interval({0: 0.02, 1: 0.05, 2: 0.03, 3: float("nan")})
    expected = stats.ttest_1samp([0.02, 0.05, 0.03], 0).confidence_interval()
    assert made.seeds == 3
    assert made[1:] == pytest.approx((0.1 / 3, expected.low, expected.high))
    one = seed_interval({0: 0.02})
    assert one[:2] == (1, 0.02)
    assert math.isnan(one.low)
    assert math.isnan(one.high)


@pytest.fixture(scope="module")
def simulation():
    """The script that simulates studies, as a module."""
    path = Path(__file__).parents[2] / "scripts" / "simulate_studies.py"
    spec = importlib.util.spec_from_file_location("simulate_studies", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_clear_effect_is_found_by_every_test(simulation):
    rng = np.random.default_rng(0)
    for scenario in simulation.SCENARIOS[:3]:
        first, second = simulation.draw_study(scenario, rng, effect=0.06)
        made = compare_cases(first[0], second[0], draws=999)
        assert max(made.p_t, made.p_wilcoxon, made.p_permutation) < 0.01
        assert 0 < made.low < 0.06 < made.high


@pytest.mark.slow
@pytest.mark.parametrize("place", [0, 1, 2])
def test_every_test_and_the_interval_keep_their_promise(simulation, place):
    scenario = simulation.SCENARIOS[place]
    assert scenario.accepted
    shares = simulation.found(scenario, studies=1000, seed=1).drop(columns="claimed").mean()
    assert shares.between(0.03, 0.07).all(), shares.to_dict()
