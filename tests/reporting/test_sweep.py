import math

import numpy as np
import pandas as pd
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.reporting.response import monotonicity, response_curve, sweep_areas, sweep_modes


def table(areas, number=2, values=(10, 20, 40), groups=None, without=()):
    """Predicted areas by case at each value, half of them right; none where no label is."""
    rows = [
        (case, (groups or {}).get(case, case), "test", f"fixed:size={value}", "all", number,
         *((0, area, 0) if case in without else (area // 2, area - area // 2, 7)), 100)
        for case, of_case in areas.items()
        for value, area in zip(values, of_case, strict=True)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COUNT_COLUMNS)


def test_modes_of_a_field_by_number():
    modes = ["normal", "fixed:size=100", "fixed:size=9", "fixed:sizes=1", "fixed:line=HeLa"]
    assert list(sweep_modes(pd.DataFrame({"mode": modes}), "size")) == [9.0, 100.0]


def test_areas_are_all_that_is_predicted():
    areas = sweep_areas(table({"a": (4, 8, 12)}, values=(40, 10, 20)), "size")
    assert areas["value"].tolist() == [10, 20, 40]
    assert areas["area"].tolist() == [8, 12, 4]
    in_mm = sweep_areas(table({"a": (4, 8, 12)}), "size", pd.Series({"a": 0.25}))
    assert in_mm["area"].tolist() == [1, 2, 3]


def test_the_curve_weighs_groups_alike_and_averages_seeds_before():
    groups = {"a": "p", "b": "p", "c": "q"}
    first = sweep_areas(
        table({"a": (1, 2, 3), "b": (3, 4, 5), "c": (10, 10, 10)}, groups=groups), "size"
    )
    second = first.assign(area=first["area"] + 2)
    curve = response_curve([first, second])
    # group p: 2 3 4 and 1 more by the second seed, group q: 11
    assert curve["area"].tolist() == [7, 7.5, 8]
    assert curve["groups"].tolist() == [2, 2, 2]
    many = table({f"c{n}": (n, 2 * n, 3 * n) for n in range(1, 9)})
    curve = response_curve([sweep_areas(many, "size")])
    assert (curve["low"] < curve["area"]).all()
    assert (curve["area"] < curve["high"]).all()
    alone = response_curve([first[first["group"] == "q"]])
    assert alone["low"].isna().all()


def test_monotone_by_hand():
    areas = {
        "grows": (10, 50, 100),
        "starts late": (0, 0, 100),
        "shakes": (10, 100, 99),  # back by 1 % of the largest
        "shrinks once": (10, 100, 90),
        "flat": (100, 100, 101),
        "falls": (100, 50, 10),
        "never predicted": (0, 0, 0),
        "no label": (10, 50, 100),
    }
    one = monotonicity(sweep_areas(table(areas, without=["no label"]), "size"))[2]
    assert one.monotone == pytest.approx(3 / 7)
    assert one.flat == pytest.approx(2 / 7)
    assert (one.cases, one.empty) == (7, 1)
    # of two steps each: 2, 2, 1, 1, 2, 0 do not shrink
    assert one.not_shrinking == pytest.approx(8 / 12)
    late = 1.5 / math.sqrt(3)  # ranks 1.5 1.5 3
    assert one.spearman == pytest.approx(np.mean([1, late, 0.5, 0.5, late, -1]))


def test_a_contour_may_shake_by_two_percent_not_more():
    shakes = {"a": (100, 1000, 981)}
    grows = {"a": (100, 1000, 975)}
    stays = {"a": (1000, 1000, 975)}
    one, two, three = (
        monotonicity(sweep_areas(table(areas), "size"))[2] for areas in (shakes, grows, stays)
    )
    assert (one.monotone, two.monotone, three.flat) == (1, 0, 0)


def test_a_network_that_reads_nothing_is_flat_not_monotone():
    one = monotonicity(sweep_areas(table({"a": (5, 5, 5), "b": (7, 7, 7)}), "size"))[2]
    assert (one.monotone, one.flat, one.not_shrinking) == (0, 1, 1)
    assert math.isnan(one.spearman)


def test_a_class_that_is_never_predicted_is_not_monotone():
    one = monotonicity(sweep_areas(table({"a": (0, 0, 0)}), "size"))[2]
    assert (one.monotone, one.flat, one.cases, one.empty) == (0, 1, 1, 1)
    assert math.isnan(one.not_shrinking)


def test_a_class_that_no_label_holds_has_no_share():
    one = monotonicity(sweep_areas(table({"a": (1, 2, 3)}, without="a"), "size"))[2]
    assert math.isnan(one.monotone)
    assert (one.cases, one.empty) == (0, 0)


def test_classes_are_told_apart():
    both = pd.concat([table({"a": (1, 2, 3)}), table({"a": (30, 20, 10)}, number=1)])
    found = monotonicity(sweep_areas(both, "size"))
    assert (found[1].monotone, found[2].monotone) == (0, 1)


def test_an_incomplete_sweep_is_refused():
    counts = table({"a": (1, 2, 3), "b": (1, 2, 3)})
    with pytest.raises(DataError, match="needs two modes fixed:size=<value>"):
        sweep_areas(counts[counts["mode"] == "fixed:size=10"], "size")
    with pytest.raises(DataError, match="Case b was not counted once at each value of size"):
        sweep_areas(counts.iloc[:-1], "size")
