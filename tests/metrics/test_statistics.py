import importlib.util
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metrics.statistics import (
    compare_cases,
    compare_subgroups,
    group_differences,
    holm,
    paired_t,
    seed_differences,
    seed_interval,
    worst_subgroup,
)

MIXED = np.array([0.031, -0.012, 0.054, 0.008, 0.027, -0.003, 0.041, 0.019])


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
    assert (made.low, made.high) == pytest.approx(tuple(ends), abs=0.001)


def test_equal_conditions_have_p_one_and_no_effect_size():
    made = compare_cases(*differing([0.0] * 6))
    assert (made.mean, made.low, made.high) == (0, 0, 0)
    assert (made.p_t, made.p_wilcoxon, made.p_permutation) == (1, 1, 1)
    assert math.isnan(made.effect)
    assert math.isnan(made.t)


def test_one_difference_for_all_has_no_spread_for_a_t_test_but_signs():
    made = compare_cases(*differing([0.1] * 6))
    assert (made.mean, made.low, made.high) == (0.1, 0.1, 0.1)
    assert (made.p_wilcoxon, made.p_permutation) == (2 / 64, 2 / 64)
    assert [math.isnan(value) for value in (made.effect, made.t, made.p_t)] == [True] * 3


def test_one_group_shows_nothing():
    made = compare_cases(*differing([0.1]))
    assert (made.mean, made.groups, made.p_wilcoxon, made.p_permutation) == (0.1, 1, 1, 1)
    unknown = (made.low, made.high, made.effect, made.t, made.p_t)
    assert [math.isnan(value) for value in unknown] == [True] * 5


def test_no_scored_case_gives_nothing_at_all():
    first = single([float("nan")] * 2)
    made = compare_cases(first, first)
    assert made[:3] == (0, 0, 2)
    assert [math.isnan(value) for value in made[3:]] == [True] * 8


def test_rounding_is_no_difference():
    base = single([0.1 + 0.2] * 4)
    made = compare_cases(base, base.assign(f1=0.3))
    assert (made.mean, made.p_t, made.p_wilcoxon, made.p_permutation) == (0, 1, 1, 1)


def test_small_differences_are_kept():
    made = compare_cases(*differing([0.0004, 0.0003, 0.0002, 0.0004, 0.0002, 0.0003]))
    assert made.mean == pytest.approx(0.0003)
    assert 0 < made.low < 0.0003 < made.high


def test_holm_by_hand():
    # 0.01 * 4; 0.02 * 3; 0.03 * 2 = 0.06; 0.5 * 1
    assert holm([0.03, 0.5, 0.01, 0.02]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    # 0.04 * 2 = 0.08 holds 0.05 * 1 up; nothing is larger than 1
    assert holm([0.05, 0.04]) == pytest.approx([0.08, 0.08])
    assert holm([0.9, 0.6]) == [1, 1]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_holm_does_not_count_what_was_not_tested():
    adjusted = holm([float("nan"), 0.04, 0.01])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.02])


@pytest.mark.parametrize("test", ["t", "wilcoxon", "permutation"])
def test_subgroups_are_compared_each_and_corrected_together(test):
    in_x, in_y = differing(MIXED, "x"), differing(-MIXED[:5], "y")
    first, second = (pd.concat(pair) for pair in zip(in_y, in_x, strict=True))
    table = compare_subgroups(first, second, test=test)
    assert list(table.index) == ["y", "x"]
    alone = [compare_cases(*in_y), compare_cases(*in_x)]
    assert table.drop(columns="p_holm").to_numpy().tolist() == [list(made) for made in alone]
    assert table["p_holm"].tolist() == holm([getattr(made, f"p_{test}") for made in alone])


def test_subgroups_by_another_column_and_wrong_names():
    first, second = differing(MIXED)
    table = compare_subgroups(first.assign(site=["k", "l"] * 4), second, column="site")
    assert table["cases"].to_dict() == {"k": 4, "l": 4}
    with pytest.raises(ConfigError, match="no column 'site'; use case, group"):
        compare_subgroups(first, second, column="site")
    with pytest.raises(ConfigError, match="no test 'holm'"):
        compare_subgroups(first, second, test="holm")
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
    with pytest.raises(DataError, match="no case has a score"):
        worst_subgroup(table[-2:])


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


def test_the_t_test_seldom_finds_what_is_not_there(simulation):
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(200):
        first, second = simulation.draw_study(simulation.SCENARIOS[0], rng)
        differences = group_differences(first[0], second[0])["difference"].to_numpy()
        found += paired_t(differences).p < 0.05
    # 99.9 % of Binomial(200, 0.05): also too few would be a fault
    assert stats.binom.ppf(0.0005, 200, 0.05) <= found <= stats.binom.ppf(0.9995, 200, 0.05)


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
