import math

import pandas as pd
import pytest

from metaseg_monai.metrics.scores import (
    COUNT_COLUMNS,
    average_f1,
    case_mean_f1,
    f1,
    iou,
    mode_matrix,
    pooled_f1,
    summarise,
)


def table(*rows):
    """Rows of (case, group, mode, domain, class, tp, fp, fn)."""
    filled = [(c, g, "test", m, d, k, tp, fp, fn, 100) for c, g, m, d, k, tp, fp, fn in rows]
    return pd.DataFrame(filled, columns=COUNT_COLUMNS)


def test_empty_masks_give_nan_and_one_empty_gives_zero():
    assert math.isnan(f1(0, 0, 0))
    assert math.isnan(iou(0, 0, 0))
    assert f1(0, 5, 0) == 0
    assert f1(0, 0, 5) == 0


def test_three_aggregates_differ_as_defined():
    counts = table(
        ("a", "a", "normal", "x", 1, 90, 10, 10),  # F1 0.9
        ("b", "b", "normal", "x", 1, 1, 1, 1),  # F1 0.5
        ("c", "c", "normal", "y", 1, 0, 0, 10),  # F1 0
    )
    assert pooled_f1(counts) == pytest.approx(182 / 214)
    assert average_f1(counts) == pytest.approx((182 / 204 + 0) / 2)
    assert case_mean_f1(counts).mean == pytest.approx((0.9 + 0.5 + 0) / 3)


def test_several_classes_are_averaged_over_the_classes():
    counts = table(("a", "a", "normal", "x", 1, 1, 0, 0), ("a", "a", "normal", "x", 2, 0, 1, 0))
    assert pooled_f1(counts) == 0.5


def test_empty_cases_are_left_out_of_the_case_mean_and_counted():
    counts = table(("a", "a", "normal", "x", 1, 1, 0, 0), ("b", "b", "normal", "x", 1, 0, 0, 0))
    mean = case_mean_f1(counts)
    assert (mean.mean, mean.cases, mean.empty) == (1.0, 1, 1)


def test_interval_draws_whole_groups():
    within = [("a", 1.0), ("b", 0.0), ("c", 1.0), ("d", 0.0), ("e", 1.0), ("f", 0.0)]
    rows = [
        (f"{group}{i}", group, "normal", "x", 1, int(score), 0, int(1 - score))
        for group, score in within
        for i in range(50)
    ]
    mean = case_mean_f1(table(*rows))
    assert mean.low < 0.1 < 0.9 < mean.high  # six groups: by cases it would be 0.4 to 0.6
    alone = [(case, case, *rest) for case, _, *rest in rows]
    narrow = case_mean_f1(table(*alone))
    assert 0.35 < narrow.low < narrow.high < 0.65
    few = case_mean_f1(table(*rows[:200]))  # of four groups
    assert few.mean == 0.5
    assert math.isnan(few.low)
    assert math.isnan(few.high)


def test_mode_matrix_keeps_the_true_domain_and_the_order():
    counts = table(
        ("a", "a", "normal", "x", 1, 1, 0, 0),
        ("b", "b", "normal", "y", 1, 1, 0, 0),
        ("a", "a", "shuffle", "x", 1, 0, 1, 1),
        ("b", "b", "shuffle", "y", 1, 1, 0, 0),
    )
    matrix = mode_matrix(counts)
    assert list(matrix.columns) == ["normal", "shuffle"]
    assert list(matrix.index) == ["combined", "x", "y"]
    assert matrix["shuffle"].tolist() == [0.5, 0.0, 1.0]


def test_domains_stand_in_the_order_of_the_fixed_labels():
    rows = [
        (case, case, mode, domain, 1, 1, 0, 0)
        for mode in ("normal", "fixed:line=x", "fixed:line=y")
        for case, domain in (("a", "y"), ("b", "other"), ("c", "x"))
    ]
    assert list(mode_matrix(table(*rows)).index) == ["combined", "x", "y", "other"]


def test_summary_has_what_the_demo_promises():
    summary = summarise(table(("a", "a", "normal", "x", 1, 3, 1, 1)))
    assert summary["pooled_f1"] == 0.75
    assert summary["per_class"] == {"x": 0.75}
    assert summary["modes"]["normal"]["pooled_f1"] == 0.75
    assert summary["pooled"] == [
        {"class": 1, "tp": 3, "fp": 1, "fn": 1, "f1": 0.75, "f1_error": 0.25, "iou": 0.6}
    ]
