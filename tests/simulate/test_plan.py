from collections import Counter
from operator import attrgetter

import pytest

from metaseg_monai.simulate.cells.plan import ANOMALIES, NUCLEI, RECIPES, make_plan

THESIS = {"train": None, "val": None, "test": None}
SPLITS = ("train", "val", "test")
A1 = {
    "A549": (286, 66, 80),
    "HT1080": (284, 78, 70),
    "HeLa": (293, 58, 81),
    "HepG2": (283, 82, 67),
    "MCF7": (290, 70, 72),
    "MDCK": (292, 79, 61),
    "NIH3T3": (288, 71, 73),
}
A3 = {10.0: (843, 218, 230), 20.0: (862, 215, 233), 40.0: (872, 209, 206)}
A4 = {
    "A549": (435, 97, 114),
    "NIH3T3": (437, 124, 123),
    "HeLa": (446, 106, 117),
    "HepG2": (409, 116, 107),
    "HT1080": (429, 86, 98),
    "MCF7": (421, 113, 110),
}


def counted(plans, key):
    found = Counter((key(plan), plan.split) for plan in plans)
    return {
        value: tuple(found[value, split] for split in SPLITS) for value in {v for v, _ in found}
    }


def rows(plans):
    found = Counter((task, plan.split) for plan in plans for task in plan.tasks)
    return {task: tuple(found[task, split] for split in SPLITS) for task in (NUCLEI, ANOMALIES)}


@pytest.mark.parametrize(
    ("recipe", "of", "expected"),
    [
        ("seven_lines", "line", A1),
        ("two_lines", "line", {line: A1[line] for line in ("HeLa", "MDCK")}),  # the pilot
        ("extended", "source", {"7LINES": (2016, 504, 504), "AZ": (628, 78, 78)}),  # A.2
        ("magnification", "magnification", A3),
        ("magnification", "line", A4),
        (
            "heterogeneous",  # A.5
            "line",
            {"CRACK": (333, 56, 56), "HeLa": A1["HeLa"], "HepG2": A1["HepG2"]},
        ),
    ],
)
def test_images_are_those_of_the_thesis_tables(recipe, of, expected):
    assert counted(make_plan(recipe, THESIS, 0), attrgetter(of)) == expected


def test_lines_and_magnifications_are_mixed():
    plans = make_plan("magnification", THESIS, 0)
    assert len({(plan.line, plan.magnification) for plan in plans}) == 18


def test_a_third_of_each_lines_training_masks_in_each_style_and_the_rest_exact():
    plans = make_plan("styles", THESIS, 0)
    found = counted(plans, attrgetter("style"))
    assert found == {"exact": (672, 504, 504), "fine": (672, 0, 0), "coarse": (672, 0, 0)}
    of_hela = Counter(p.style for p in plans if p.line == "HeLa" and p.split == "train")
    assert max(of_hela.values()) - min(of_hela.values()) <= 1


def test_anomalies_are_table_a7_on_images_of_the_same_pool():
    plans = make_plan("anomalies", THESIS, 0)
    assert rows(plans) == {NUCLEI: (2016, 504, 504), ANOMALIES: (194, 70, 101)}
    assert len(plans) == 3024


@pytest.mark.parametrize("apart", [False, True])
def test_the_curtailed_set_is_table_a8(apart):
    plans = make_plan("anomalies_curtailed" + "_apart" * apart, THESIS, 0)
    assert rows(plans) == {NUCLEI: (194, 70, 504), ANOMALIES: (194, 70, 101)}
    shared = sum(len(plan.tasks) == 2 for plan in plans if plan.split == "train")
    assert shared == (0 if apart else 194)


def test_the_proposals_imbalance_in_training_only():
    plans = make_plan("acquisition", {"train": 1000, "val": 100, "test": 100}, 0)
    assert counted(plans, attrgetter("magnification")) == {
        5.0: (200, 25, 25),
        10.0: (300, 25, 25),
        20.0: (10, 25, 25),
        40.0: (490, 25, 25),
    }


@pytest.mark.parametrize("recipe", RECIPES)
def test_smaller_sets_keep_the_proportions_and_the_test_images(recipe):
    small = make_plan(recipe, {"train": 30, "val": 9, "test": 12}, 3)
    other = make_plan(recipe, {"train": 60, "val": 9, "test": 12}, 3)
    assert [p for p in small if p.split == "test"] == [p for p in other if p.split == "test"]
    assert sum(p.split == "test" for p in small) == 12
    assert small == make_plan(recipe, {"train": 30, "val": 9, "test": 12}, 3)
