import pandas as pd
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.scores import COUNT_COLUMNS, pooled_f1
from metaseg_monai.reporting.scores import (
    missing_share_curve,
    perturbation_curve,
    reliance,
    wrong_share_curve,
)


def table(*rows):
    """Rows of (case, mode, class, tp, fp, fn)."""
    filled = [(c, c, "test", m, "x", k, tp, fp, fn, 100) for c, m, k, tp, fp, fn in rows]
    return pd.DataFrame(filled, columns=COUNT_COLUMNS)


NORMAL = (("a", "normal", 1, 90, 10, 10), ("b", "normal", 1, 10, 0, 0))
SHUFFLE = (("a", "shuffle", 1, 20, 60, 80), ("b", "shuffle", 1, 0, 20, 10))


def test_half_wrong_by_hand():
    curve = wrong_share_curve(table(*NORMAL, *SHUFFLE), [0, 0.5, 1])
    # halves of the pooled counts: tp (100 + 20) / 2, fp (10 + 80) / 2, fn (10 + 90) / 2
    assert list(curve["f1"]) == pytest.approx([200 / 220, 120 / (120 + 45 + 50), 40 / 210])
    assert list(curve["share"]) == [0, 0.5, 1]
    assert set(curve["mode"]) == {"shuffle"}


def test_expected_counts_are_the_mean_over_all_ways_to_swap_one_case_of_two():
    counts = table(*NORMAL, *SHUFFLE)
    swaps = [table(NORMAL[0], SHUFFLE[1]), table(SHUFFLE[0], NORMAL[1])]
    curve = wrong_share_curve(counts, [0.5])
    assert curve["f1"][0] == pytest.approx(pooled_f1(pd.concat(swaps)))


def test_several_classes_are_averaged_after_mixing():
    counts = table(
        ("a", "normal", 1, 10, 0, 0),
        ("a", "normal", 2, 10, 0, 0),
        ("a", "shuffle", 1, 0, 10, 10),
        ("a", "shuffle", 2, 10, 0, 0),
    )
    assert wrong_share_curve(counts, [0.5])["f1"][0] == pytest.approx((0.5 + 1) / 2)


def test_missing_is_preferred_and_zeros_stand_in():
    zeros = ("a", "zeros", 1, 45, 10, 55), ("b", "zeros", 1, 5, 0, 5)
    missing = ("a", "missing", 1, 80, 10, 20), ("b", "missing", 1, 5, 0, 5)
    both = missing_share_curve(table(*NORMAL, *zeros, *missing))
    assert set(both["mode"]) == {"missing"}
    assert both["f1"].iloc[-1] == pytest.approx(170 / (170 + 10 + 25))
    assert set(missing_share_curve(table(*NORMAL, *zeros))["mode"]) == {"zeros"}


def test_perturbation_is_sorted_with_normal_at_one():
    counts = table(
        *NORMAL,
        ("a", "perturb:2", 1, 50, 0, 50),
        ("b", "perturb:2", 1, 0, 0, 10),
        ("a", "perturb:0.5", 1, 100, 0, 0),
        ("b", "perturb:0.5", 1, 10, 0, 0),
    )
    curve = perturbation_curve(counts)
    assert list(curve["factor"]) == [0.5, 1, 2]
    assert list(curve["f1"]) == pytest.approx([1, 200 / 220, 100 / 160])


def test_reliance_holds_only_the_modes_that_were_run():
    lost = reliance(table(*NORMAL, *SHUFFLE))
    assert lost == {"normal - shuffle": pytest.approx(200 / 220 - 40 / 210)}
    assert reliance(table(*NORMAL)) == {}


def test_absent_modes_and_other_cases_are_refused():
    with pytest.raises(DataError, match=r"no mode shuffle \(they have normal\)"):
        wrong_share_curve(table(*NORMAL))
    with pytest.raises(DataError, match="no mode normal"):
        reliance(table(*SHUFFLE))
    with pytest.raises(DataError, match="no mode zeros"):
        missing_share_curve(table(*NORMAL))
    with pytest.raises(DataError, match="no mode perturb:<factor>"):
        perturbation_curve(table(*NORMAL))
    with pytest.raises(DataError, match="Mode shuffle was counted on other cases"):
        wrong_share_curve(table(*NORMAL, SHUFFLE[0]))
    with pytest.raises(DataError, match=r"lies in 0\.\.1; got 1\.5"):
        wrong_share_curve(table(*NORMAL, *SHUFFLE), [1.5])
