"""The numbers of volumes by hand: patients with several of them, and lesions of several."""

import math

import pandas as pd
import pytest

from metaseg_monai.reporting.volumes import (
    SIZE_EDGES,
    lesion_table,
    mean_over_groups,
    region_table,
    size_group,
    subgroup_table,
)


def averaged(**columns):
    """Volumes of six patients, the first of whom has two; the same region."""
    groups = ["a", "a", "b", "c", "d", "e", "f"]
    table = pd.DataFrame({"group": groups, "volume": [f"v{n}" for n in range(7)]})
    return table.assign(
        region="tumour", dice=0.5, surface_dice=0.5, hd95_mm=3.0, undefined=0, lesions=1,
        lesions_found=1.0, lesions_false=0.0, false_mm3=0.0,
    ).assign(**columns)  # fmt: skip


def test_a_patient_counts_once_however_many_volumes_he_has():
    table = averaged(dice=[0.0, 0.2, 0.6, 0.6, 0.6, 0.6, 0.6])
    mean, low, high = mean_over_groups(table, "dice")
    assert mean == pytest.approx((0.1 + 5 * 0.6) / 6)
    # of 6^6 samples 6.7 hold the first patient more often than four times, one five times of six
    assert (low, high) == pytest.approx(((4 * 0.1 + 2 * 0.6) / 6, 0.6))
    row = region_table({"se": table}, "tumour").loc["se"]
    assert row["Dice", "mean"] == mean
    assert (row["n", "volumes"], row["n", "patients"]) == (7, 6)


def test_patients_behind_each_distance_are_counted():
    known = [math.nan, 3.0, math.nan, 5.0, math.nan, 7.0, math.nan]
    row = region_table({"se": averaged(hd95_mm=known)}, "tumour").loc["se"]
    assert row["HD95 (mm)", "mean"] == pytest.approx(5)
    assert (row["HD95 (mm)", "patients"], row["n", "patients"]) == (3, 6)
    assert math.isnan(row["HD95 (mm)", "low"])  # of three
    assert not math.isnan(row["Dice", "low"])


def test_lesions_are_pooled_with_an_interval_over_patients():
    table = averaged(
        lesions=[1, 2, 9, 1, 1, 2, 0], lesions_found=[1.0, 2.0, 0.0, 1.0, 0.5, 1.0, 0.0],
        lesions_false=[0.0, 3.0, 1.0, 0.0, 0.0, 0.0, 3.0], false_mm3=[0.0, 7000.0, *[0.0] * 5],
    )  # fmt: skip
    row = lesion_table({"se": table}, ["tumour"]).loc["se, tumour"]
    assert row["found", "mean"] == pytest.approx(5.5 / 16)  # mean of the shares: 0.6
    assert row["n"].tolist() == [16, 5, 6]
    # one of 3125 samples of those with a lesion holds b alone, five b four times and d
    assert row["found", "low"] == pytest.approx(0.5 / 37)
    assert row["found", "high"] == pytest.approx(1)
    assert row["false per volume", "mean"] == 1
    assert row["false per volume", "low"] == pytest.approx(0)
    assert 2 < row["false per volume", "high"] < 3
    assert row["false ml", "mean"] == 1
    assert row["false ml", "low"] == 0 < row["false ml", "high"] < 3.5


def test_few_patients_have_no_interval_of_their_lesions():
    few = averaged().iloc[:5]  # four patients
    row = lesion_table({"se": few}, ["tumour"]).loc["se, tumour"]
    assert (row["found", "mean"], row["n", "patients"]) == (1, 4)
    ends = [value for name, value in row.items() if name[1] in ("low", "high")]
    assert [math.isnan(value) for value in ends] == [True] * 6
    none = lesion_table({"se": averaged(lesions=0, lesions_found=0.0)}, ["tumour"])
    assert math.isnan(none.loc["se, tumour", ("found", "mean")])


def test_the_stages_end_at_40_and_70_mm():
    edges = SIZE_EDGES["tumour_size_mm"]
    told = [size_group(size, edges, "mm") for size in (40, 40.5, 70, 70.5)]
    assert told == ["<= 40 mm", "40-70 mm", "40-70 mm", "> 70 mm"]
    assert [size_group(70.5, e, "mm") for e in SIZE_EDGES.values()] == ["> 70 mm"]


def test_patients_of_a_size_are_counted_not_their_volumes():
    table = averaged()
    sizes = pd.Series(30.0, pd.MultiIndex.from_frame(table[["group", "volume"]]))
    by_size = subgroup_table({"se": table}, ["tumour"], sizes, "mm", (40, 70))
    assert by_size["patients"].to_dict() == {"se, <= 40 mm": 6}
