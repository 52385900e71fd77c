import numpy as np
import pytest

from metaseg_monai.evaluation.samples import Sample
from metaseg_monai.reporting.pictures import shown


def stored(count, domains):
    blank = np.zeros((4, 4))
    return [
        Sample(f"c{n}", domains[n % len(domains)], blank, blank.astype(np.uint8), {})
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("count", "domains", "told"),
    [
        (1, ["all"], " on 1 test case"),
        (3, ["all"], " on 3 test cases"),
        (3, ["x", "y"], " on 3 test cases (2 of x, 1 of y)"),
        (12, ["x", "y"], " on 8 test cases of 12 that are stored"),
    ],
)
def test_a_picture_says_which_cases_it_shows(count, domains, told):
    assert shown({"se": stored(count, domains)}, ["se"]) == told


def test_a_picture_says_which_conditions_it_leaves_out():
    samples = {"se": stored(1, ["all"]), "sme": stored(1, ["all"])}
    assert shown(samples, ["se"]).endswith("; without sme")
