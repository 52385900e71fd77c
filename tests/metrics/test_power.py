"""The smallest effect that a study finds: right where it can be calculated, and in simulation."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from metaseg_monai.metrics.power import expected_squares, smallest_effect
from metaseg_monai.metrics.statistics import MeanSquares, Spread

PATIENTS = expected_squares(Spread(0.05, 0.0, 0.0), groups=30, seeds=3)


@pytest.fixture(scope="module")
def simulation():
    """The script that simulates intervals and power, as a module."""
    path = Path(__file__).parents[2] / "scripts" / "simulate_intervals.py"
    spec = importlib.util.spec_from_file_location("simulate_intervals", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_where_only_patients_differ_it_is_that_of_the_t_test():
    effect = smallest_effect(PATIENTS, 30, 3, "t", level=0.01, studies=4000)
    size = effect / (0.05 / math.sqrt(30))  # non-centrality
    power = stats.nct.sf(stats.t.ppf(0.995, 29), 29, size)
    assert power == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("test", ["t", "wilcoxon", "permutation"])
def test_every_test_finds_about_the_same(test):
    t = smallest_effect(PATIENTS, 30, 3, "t")
    assert smallest_effect(PATIENTS, 30, 3, test, studies=400) == pytest.approx(t, rel=0.08)


def test_more_patients_trainings_or_a_milder_level_find_less_and_a_seed_replays():
    squares = [expected_squares(Spread(0.05, 0.02, 0.03), 20, seeds) for seeds in (3, 9)]
    few, more = (
        smallest_effect(one, 20, seeds) for one, seeds in zip(squares, (3, 9), strict=True)
    )
    assert more < few < smallest_effect(squares[0], 20, 3, level=0.001)
    many = expected_squares(Spread(0.05, 0.0, 0.03), 80, 3)
    assert smallest_effect(many, 80, 3) < few / 2
    assert smallest_effect(squares[0], 20, 3) == few
    assert smallest_effect(squares[0], 20, 3, seed=1) != few


def test_what_is_known_of_one_study_only_needs_a_larger_effect():
    squares = expected_squares(Spread(0.0, 0.03, 0.0), 20, 3)
    assert smallest_effect(squares, 20, 3, freedom=2) > 1.3 * smallest_effect(squares, 20, 3)


@pytest.mark.parametrize(
    ("groups", "seeds", "test"),
    [(30, 1, "t"), (4, 3, "t"), (5, 3, "permutation"), (5, 3, "wilcoxon")],
)
def test_some_studies_find_nothing_however_large(groups, seeds, test):
    assert smallest_effect(PATIENTS, groups, seeds, test) == math.inf


def test_without_spread_everything_is_found_and_without_knowledge_nothing_is_said():
    assert smallest_effect(MeanSquares(0, 0, 0), 9, 3) == 0
    assert math.isnan(smallest_effect(MeanSquares(math.nan, 1, 1), 9, 3))


def test_a_stated_power_and_the_intervals_keep_their_promise(simulation):
    spread = simulation.SPREADS["both differ"]
    # 300 studies: two standard errors are 4.6 points, the statement may be off by 5
    assert simulation.power_stated(spread, 12, 3, 300, seed=1) == pytest.approx(0.8, abs=0.08)
    wanted = ("mean Dice", "paired", "difference over patients and 3 trainings, both", "share of")
    kinds = [one for one in simulation.KINDS if one.asked and one.text.startswith(wanted)]
    assert len(kinds) == 6
    for kind in kinds:
        assert simulation.coverage(kind, 8, 200, seed=1) > 0.90, kind.text  # 2 errors below .93


@pytest.mark.slow
@pytest.mark.parametrize("groups", [5, 12, 20])
def test_every_interval_holds_the_truth_as_often_as_asked(simulation, groups):
    for kind in simulation.KINDS:
        if kind.asked:
            share = simulation.coverage(kind, groups, 2000, seed=3)
            assert share > simulation.ASKED - 0.011, kind.text  # two standard errors


@pytest.mark.slow
@pytest.mark.parametrize("size", [(8, 3), (20, 3), (60, 3)])
def test_every_stated_power_is_right_within_five_points(simulation, size):
    for spread in simulation.SPREADS.values():
        share = simulation.power_stated(spread, *size, 1000, seed=3)
        assert 0.75 <= share <= 0.85


def test_a_broken_interval_would_be_seen(simulation, monkeypatch):
    monkeypatch.setattr(simulation, "score_interval", lambda x: tuple(np.quantile(x, [0.4, 0.6])))
    assert simulation.coverage(simulation.KINDS[0], 8, 100, seed=1) < 0.9
