"""Whether rows may be ranked: the same cases, the same splits, labels of the same size."""

import json

import pandas as pd
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.reporting.comparisons import compare_all, compare_pair
from metaseg_monai.reporting.runs import Replicate, Result, Results, why_not_comparable
from metaseg_monai.reporting.words import facts, how_sure
from metaseg_monai.reporting.write import write_report
from metaseg_monai.study.design import Protocol

PROTOCOL = Protocol(comparisons=[])


def counts(tp=40, of=100, split="test", cases=4, classes=(1,), first=0):
    rows = [
        (f"c{n}", f"g{n // 2}", split, "normal", "all", k, tp, 5, of - tp, 1000)
        for n in range(first, first + cases)
        for k in classes
    ]
    return pd.DataFrame(rows, columns=COUNT_COLUMNS)


def results(folder, **conditions):
    return Results(
        {n: {Replicate(0, 0): Result(table, {"": folder / n})} for n, table in conditions.items()},
        {},
    )


def report(folder, **conditions):
    for name, table in conditions.items():
        (folder / name).mkdir(parents=True)
        table.to_csv(folder / name / "counts.csv", index=False)
    write_report(folder)
    return " ".join((folder / "report.md").read_text(encoding="utf-8").split())


def test_the_same_cases_with_the_same_labels_are_ranked(tmp_path):
    same = {"se": counts(40), "sme": counts(60)}
    assert why_not_comparable(results(tmp_path, **same)) == []
    text = report(tmp_path, **same)
    assert "The highest F1 pooled over all cases is" in text
    assert "in bold" in text
    assert "ranking.png" in text
    assert json.loads((tmp_path / "summary.json").read_text())["not_comparable"] == []


def test_rounding_of_a_label_is_no_other_pixel_size(tmp_path):
    assert not why_not_comparable(results(tmp_path, se=counts(of=1000), sme=counts(of=1009)))
    assert not why_not_comparable(results(tmp_path, se=counts(1, of=1), sme=counts(1, of=2)))
    assert why_not_comparable(results(tmp_path, se=counts(1, of=1), sme=counts(1, of=3)))
    assert why_not_comparable(results(tmp_path, se=counts(of=1000), sme=counts(of=1020)))


def test_other_pixel_sizes_are_warned_of_and_not_ranked(tmp_path):
    fine, coarse = counts(40, 100, classes=(1, 2)), counts(60, 100, classes=(1, 2))
    coarse.loc[(coarse["case"] == "c1") & (coarse["class"] == 2), ["tp", "fn"]] = (5, 20)
    (told,) = why_not_comparable(results(tmp_path, se=fine, sme=coarse), {2: "tumour"})
    assert "The labels of 1 of 4 cases are not of the same size" in told
    assert "(pixels of tumour in c1: 100 for se, 25 for sme)" in told
    text = report(tmp_path, se=fine, sme=coarse)
    found, sure = text.split("**Found.**")[1].split("**How sure.**")
    for part in (found, sure):
        assert "pixel sizes: rows cannot be compared" in part
    assert "F1 pooled over all cases (mean of 2 classes) is 0." in found
    assert "combined: mean of the 2 classes" in sure
    for word in ("highest F1", "lowest 0", "<u>", "in bold", "ranking.png"):
        assert word not in text
    assert json.loads((tmp_path / "summary.json").read_text())["not_comparable"]


def test_other_splits_are_told_of_and_not_ranked(tmp_path):
    conditions = {"se": counts(cases=5), "sme": counts(split="val", cases=1, first=9)}
    text = report(tmp_path, **conditions, me=counts(cases=5))
    told = "5 test cases in 3 groups for se and me; 1 val case in 1 group for sme; one training of"
    assert told in text
    assert "different cases (se 5 test cases, me 5 test cases, sme 1 val case): rows cannot" in text
    facts_line = "Tested on: se and me: 5 cases of 3 groups (test); sme: 1 case of 1 group (val)"
    assert facts_line in text
    assert "highest F1" not in text
    assert "<u>" not in text


def test_the_same_cases_of_other_splits(tmp_path):
    of = results(tmp_path, se=counts(), sme=counts(split="val"))
    (told,) = why_not_comparable(of)
    assert told.startswith("The same cases are of different splits")


def test_several_splits_of_all_conditions_are_named(tmp_path):
    both = pd.concat([counts(), counts(split="val", cases=2, first=4)])
    of = results(tmp_path, se=both, sme=both)
    assert why_not_comparable(of) == []
    assert facts(of)["Tested on"] == "6 cases of 3 groups (test and val)"
    told = how_sure(of, PROTOCOL, [], [])
    assert told.startswith("6 cases (4 test and 2 val) in 3 groups, one training of each condition")


def test_a_planned_comparison_of_labels_of_other_sizes_is_not_made(tmp_path):
    of = results(tmp_path, se=counts(), me=counts(60), sme=counts(20, of=50))
    with pytest.raises(DataError, match="different pixel sizes"):
        compare_pair("sme", "se", of, PROTOCOL)
    made, not_made = compare_all(of, Protocol(comparisons=[["me", "se"], ["sme", "se"]]))
    assert [one.name for one in made] == ["me - se"]
    assert "not of the same size" in not_made["sme - se"]
