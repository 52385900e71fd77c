"""Whether rows may be ranked, what is compared, and what the words say of it."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.metrics.statistics import Comparison, SeedInterval
from metaseg_monai.reporting.comparisons import (
    Compared,
    compare_all,
    compare_pair,
    compared_text,
    why_not_comparable,
)
from metaseg_monai.reporting.runs import Replicate
from metaseg_monai.reporting.words import Asked, facts, how_sure
from metaseg_monai.reporting.write import write_report
from metaseg_monai.study.design import Protocol

PROTOCOL = Protocol(comparisons=[["sme", "se"]])
NAN = math.nan


def counts(tp=40, of=100, split="test", cases=4, classes=(1,), first=0):
    rows = [
        (f"c{n}", f"g{n // 2}", split, "normal", "all", k, tp, 5, of - tp, 1000)
        for n in range(first, first + cases)
        for k in classes
    ]
    return pd.DataFrame(rows, columns=COUNT_COLUMNS)


@pytest.fixture
def results(results_of, made):
    """Results of counts, one training a condition."""
    return lambda **tables: results_of(**{name: [made(table)] for name, table in tables.items()})


@pytest.fixture
def report(tmp_path, bind):
    def of(**conditions):
        for name, table in conditions.items():
            (tmp_path / name).mkdir(parents=True)
            table.to_csv(tmp_path / name / "counts.csv", index=False)
            bind(tmp_path / name)
        write_report(tmp_path)
        return " ".join((tmp_path / "report.md").read_text(encoding="utf-8").split())

    return of


def test_the_same_cases_with_the_same_labels_are_ranked(tmp_path, results, report):
    same = {"se": counts(40), "sme": counts(60)}
    assert why_not_comparable(results(**same)) == []
    text = report(**same)
    assert "The highest F1 pooled over all cases is" in text
    assert "in bold" in text
    assert "ranking.png" in text
    assert json.loads((tmp_path / "summary.json").read_text())["not_comparable"] == []


def test_rounding_of_a_label_is_no_other_pixel_size(results):
    assert not why_not_comparable(results(se=counts(of=1000), sme=counts(of=1009)))
    assert not why_not_comparable(results(se=counts(1, of=1), sme=counts(1, of=2)))
    assert why_not_comparable(results(se=counts(1, of=1), sme=counts(1, of=3)))
    assert why_not_comparable(results(se=counts(of=1000), sme=counts(of=1020)))


def test_other_pixel_sizes_are_warned_of_and_not_ranked(tmp_path, results, report):
    fine, coarse = counts(40, 100, classes=(1, 2)), counts(60, 100, classes=(1, 2))
    coarse.loc[(coarse["case"] == "c1") & (coarse["class"] == 2), ["tp", "fn"]] = (5, 20)
    of = results(se=fine, sme=coarse)
    of.__dict__["class_names"] = {2: "tumour"}
    (told,) = why_not_comparable(of)
    assert "The labels of 1 of 4 cases are not of the same size" in told
    assert "(pixels of tumour in c1: 100 for se, 25 for sme)" in told
    text = report(se=fine, sme=coarse)
    found, sure = text.split("**Found.**")[1].split("**How sure.**")
    for part in (found, sure):
        assert "pixel sizes: rows cannot be compared" in part
    assert "F1 pooled over all cases (mean of 2 classes) is 0." in found
    assert "combined: mean of the 2 classes" in sure
    for word in ("highest F1", "lowest 0", "<u>", "in bold", "ranking.png"):
        assert word not in text
    assert json.loads((tmp_path / "summary.json").read_text())["not_comparable"]


def test_other_splits_are_told_of_and_not_ranked(report):
    conditions = {"se": counts(cases=5), "sme": counts(split="val", cases=1, first=9)}
    text = report(**conditions, me=counts(41, cases=5))  # no copy of se
    told = "5 test cases in 3 groups for se and me; 1 val case in 1 group for sme; one training of"
    assert told in text
    assert "different cases (se 5 test cases, me 5 test cases, sme 1 val case): rows cannot" in text
    facts_line = "Tested on: se and me: 5 cases of 3 groups (test); sme: 1 case of 1 group (val)"
    assert facts_line in text
    assert "highest F1" not in text
    assert "<u>" not in text


def test_the_same_cases_of_other_splits(results):
    of = results(se=counts(), sme=counts(split="val"))
    (told,) = why_not_comparable(of)
    assert told.startswith("The same cases are of different splits")


def test_several_splits_of_all_conditions_are_named(results):
    both = pd.concat([counts(), counts(split="val", cases=2, first=4)])
    of = results(se=both, sme=both)
    assert why_not_comparable(of) == []
    assert facts(of)["Tested on"] == "6 cases of 3 groups (test and val)"
    told = how_sure(Asked(of, Protocol(comparisons=[])))
    assert told.startswith("6 cases (4 test and 2 val) in 3 groups, one training of each condition")


def test_a_planned_comparison_of_labels_of_other_sizes_is_not_made(results):
    of = results(se=counts(), me=counts(60), sme=counts(20, of=50))
    with pytest.raises(DataError, match="different pixel sizes"):
        compare_pair("sme", "se", of, PROTOCOL)
    made, not_made = compare_all(of, Protocol(comparisons=[["me", "se"], ["sme", "se"]]))
    assert [one.name for one in made] == ["me - se"]
    assert "not of the same size" in not_made["sme - se"]


def test_trainings_that_were_tested_on_different_cases_are_not_compared(results_of, made):
    of = results_of(
        se=[made(counts()), made(counts())], sme=[made(counts(50)), made(counts(50, cases=3))]
    )
    with pytest.raises(DataError, match="seeds were evaluated on different cases"):
        compare_pair("sme", "se", of, PROTOCOL)
    of = results_of(se=[made(counts())], sme={(0, 1): made(counts(50))})
    with pytest.raises(DataError, match="no training seed in common"):
        compare_pair("sme", "se", of, PROTOCOL)
    of = results_of(se=[made(counts())], sme=[made(counts(50, first=9))])
    with pytest.raises(DataError, match="no test case in common"):
        compare_pair("sme", "se", of, PROTOCOL)


def compared(p=0.01, mean=0.1, seeds=(0.1, 0.1), trainings=(0.05, 0.15), cases=9, groups=9):
    overall = Comparison(cases, groups, 0, mean, mean - 0.05, mean + 0.05, 1, 1, p, p, p)
    by_seed = {Replicate(0, seed): value for seed, value in enumerate(seeds)}
    interval = SeedInterval(len(seeds), mean, *trainings)
    alone = np.empty((0, len(seeds)))  # trainings on data of their own, each a sample of both
    return Compared("sme", "se", overall, p, by_seed, interval, None, (cases, cases), alone)


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
            compared(mean=0.04, seeds=(0.04, 0.04)),  # the trainings agree
            "No difference of sme and se in the Dice of tumour was shown: +0.040 [-0.010, +0.090], "
            "p = 0.010, but the interval holds 0.",
        ),
        (
            compared(trainings=(-0.1, 0.3)),
            "sme had a higher Dice of tumour than se in each of these trainings (seed 0: +0.100, "
            "seed 1: +0.100; over cases [+0.050, +0.150], over these and trainings [-0.100, +0.300",
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


def test_intervals_are_over_groups_where_these_hold_several_cases():
    one = compared(trainings=(-0.1, 0.3), cases=20, groups=9)
    assert "over groups +0.100 [+0.050, +0.150]" in compared_text(one, PROTOCOL)


def test_the_domain_of_the_protocol_is_named():
    on_cross = PROTOCOL.model_copy(update={"domain": "cross"})
    assert compared_text(compared(), on_cross).startswith("sme has a higher F1 than se on cross: ")


def test_too_few_groups_are_said_to_have_no_interval():
    few = compared(p=0.2, groups=4)
    few = few._replace(overall=few.overall._replace(low=NAN, high=NAN))
    text = compared_text(few, PROTOCOL)
    assert text.endswith("was shown: +0.100 (too few groups for an interval), p = 0.200.")


def test_a_comparison_that_was_not_made_still_counts_in_the_correction(results):
    of = results(se=counts(40, cases=12), me=counts(60, cases=12))
    (alone,), _ = compare_all(of, Protocol(comparisons=[["me", "se"]]))
    (made,), not_made = compare_all(of, Protocol(comparisons=[["me", "se"], ["sme", "se"]]))
    assert list(not_made) == ["sme - se"]
    assert made.p_holm == pytest.approx(2 * alone.p_holm)
