"""What the words say of a comparison, whatever score it is of."""

import math

import pytest

from metaseg_monai.metrics.statistics import Comparison, SeedInterval
from metaseg_monai.reporting.comparisons import Compared
from metaseg_monai.reporting.runs import Replicate
from metaseg_monai.reporting.words import compared_text
from metaseg_monai.study.design import Protocol

PROTOCOL = Protocol(comparisons=[["sme", "se"]])
NAN = math.nan


def compared(p=0.01, mean=0.1, seeds=(0.1, 0.1), trainings=(0.05, 0.15), cases=9, groups=9):
    overall = Comparison(cases, groups, 0, mean, mean - 0.05, mean + 0.05, 1, 1, p, p, p)
    by_seed = {Replicate(0, seed): value for seed, value in enumerate(seeds)}
    interval = SeedInterval(len(seeds), mean, *trainings)
    return Compared("sme", "se", overall, p, by_seed, interval, None, (cases, cases))


@pytest.mark.parametrize(
    ("one", "told"),
    [
        (compared(), "sme has a higher Dice of tumour than se: +0.100 [+0.050, +0.150]"),
        (
            compared(mean=-0.1, trainings=(-0.15, -0.05)),
            "sme has a lower Dice of tumour than se: -0.100",
        ),
        (compared(p=0.2), "No difference of sme and se in the Dice of tumour was shown: +0.100"),
        (
            compared(trainings=(-0.1, 0.3)),
            "sme had a higher Dice of tumour than se in each of these trainings (seed 0: +0.100, "
            "seed 1: +0.100; over trainings [-0.100, +0.300]; over cases [+0.050",
        ),
        (
            compared(seeds=(0.3, -0.1), trainings=(-2.0, 2.2)),
            "sme and se differ in the Dice of tumour, but not in the same direction",
        ),
        (
            compared(seeds=(0.1,), trainings=(NAN, NAN)),
            "sme had a higher Dice of tumour than se in this one training: +0.100",
        ),
        (
            compared(p=NAN, groups=1),
            "sme and se cannot be compared in the Dice of tumour: there is only one group.",
        ),
        (
            compared(p=NAN, groups=0),
            "sme and se cannot be compared in the Dice of tumour: no case has a score in both.",
        ),
    ],
)
def test_every_strength_of_any_score(one, told):
    text = compared_text(one, PROTOCOL, "Dice of tumour")
    assert text.replace("over cases +0.100 [", "over cases [").startswith(told)
    assert text.endswith(".")


def test_a_training_that_is_the_only_one_is_not_called_several():
    text = compared_text(compared(seeds=(0.1,), trainings=(NAN, NAN)), PROTOCOL)
    assert "in this one training" in text
    assert "each of these" not in text
    assert "Whether other trainings would is not tested" in text


def test_intervals_are_over_groups_where_these_hold_several_cases():
    one = compared(trainings=(-0.1, 0.3), cases=20, groups=9)
    assert "over groups (patients, wells) +0.100 [+0.050, +0.150]" in compared_text(one, PROTOCOL)


def test_the_domain_of_the_protocol_is_named():
    on_cross = PROTOCOL.model_copy(update={"domain": "cross"})
    assert compared_text(compared(), on_cross).startswith("sme has a higher F1 than se on cross: ")


def test_too_few_groups_are_said_to_have_no_interval():
    few = compared(p=0.2, groups=4)
    few = few._replace(overall=few.overall._replace(low=NAN, high=NAN))
    text = compared_text(few, PROTOCOL)
    assert text.endswith("was shown: +0.100 (too few groups for an interval), p = 0.200.")
