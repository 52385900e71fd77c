from collections import Counter

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


def counted(plans, key):
    found = Counter((key(plan), plan.split) for plan in plans)
    return {
        value: tuple(found[value, split] for split in SPLITS) for value in {v for v, _ in found}
    }


def rows(plans):
    found = Counter((task, plan.split) for plan in plans for task in plan.tasks)
    return {task: tuple(found[task, split] for split in SPLITS) for task in (NUCLEI, ANOMALIES)}


def test_seven_lines_are_table_a1():
    assert counted(make_plan("seven_lines", THESIS, 0), lambda plan: plan.line) == A1


def test_two_lines_are_the_pilots():
    found = counted(make_plan("two_lines", THESIS, 0), lambda plan: plan.line)
    assert found == {line: A1[line] for line in ("HeLa", "MDCK")}


def test_extended_is_table_a2():
    found = counted(make_plan("extended", THESIS, 0), lambda plan: plan.source)
    assert found == {"7LINES": (2016, 504, 504), "AZ": (628, 78, 78)}


def test_magnification_is_tables_a3_and_a4():
    plans = make_plan("magnification", THESIS, 0)
    assert counted(plans, lambda plan: plan.magnification) == {
        10.0: (843, 218, 230),
        20.0: (862, 215, 233),
        40.0: (872, 209, 206),
    }
    assert counted(plans, lambda plan: plan.line) == {
        "A549": (435, 97, 114),
        "NIH3T3": (437, 124, 123),
        "HeLa": (446, 106, 117),
        "HepG2": (409, 116, 107),
        "HT1080": (429, 86, 98),
        "MCF7": (421, 113, 110),
    }
    assert len({(plan.line, plan.magnification) for plan in plans}) == 18  # mixed, not aligned


def test_heterogeneous_is_table_a5():
    found = counted(make_plan("heterogeneous", THESIS, 0), lambda plan: plan.line)
    assert found == {"CRACK": (333, 56, 56), "HeLa": A1["HeLa"], "HepG2": A1["HepG2"]}


def test_a_third_of_each_lines_training_masks_in_each_style_and_the_rest_exact():
    plans = make_plan("styles", THESIS, 0)
    found = counted(plans, lambda plan: plan.style)
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
    assert counted(plans, lambda plan: plan.magnification) == {
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
