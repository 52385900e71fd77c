import json
import re

import pandas as pd
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.reporting.runs import read_results
from metaseg_monai.reporting.scores import class_table
from metaseg_monai.reporting.write import write_report


def test_report_is_self_contained_and_can_be_recomputed(tmp_path, reported):
    page = reported({"se": (5, 5, 6), "sme": (8, 9, 9), "sme-dummy": (5, 6, 5)})
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    assert "Tiny &lt;study&gt;" in page
    files = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.csv")}
    pictures = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    assert pictures
    write_report(tmp_path)
    for path, content in files.items():
        assert (tmp_path / path).read_bytes() == content
    for path, content in pictures.items():
        assert path.read_bytes() == content


def test_tables_hold_mean_and_spread_over_seeds(tmp_path, reported):
    reported({"se": (5, 5, 5), "sme": (8, 9, 7)})
    table = pd.read_csv(tmp_path / "tables" / "f1.csv", index_col="condition")
    # tp 4 x 8 + 4 x 7 of 8 x 10, fp 8, for 8 hits, and so on
    f1 = [2 * tp / (tp + 8 + 80) for tp in (4 * 8 + 4 * 7, 4 * 9 + 4 * 8, 4 * 7 + 4 * 6)]
    assert table.loc["sme", "combined"] == pytest.approx(sum(f1) / 3)
    assert table.loc["sme", "combined spread"] == pytest.approx((max(f1) - min(f1)) / 2)
    latex = (tmp_path / "tables" / "f1.tex").read_text()
    assert r"\textbf{" in latex
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["conditions"]["sme"]["data0-seed1"]["pooled_f1"] == pytest.approx(f1[1])
    assert summary["comparisons"][0]["seeds"].keys() == {
        "data0-seed0",
        "data0-seed1",
        "data0-seed2",
    }


def test_one_domain_is_not_told_twice(tmp_path, reported):
    reported({"se": (5, 5, 5), "sme": (8, 8, 8)})
    modes = pd.read_csv(tmp_path / "tables" / "modes_sme.csv", index_col="true domain")
    assert list(modes.index) == ["combined", "triangle", "ring"]
    for path in tmp_path.rglob("counts.csv"):
        pd.read_csv(path).assign(domain="all").to_csv(path, index=False)
    write_report(tmp_path)
    modes = pd.read_csv(tmp_path / "tables" / "modes_sme.csv", index_col="true domain")
    assert list(modes.index) == ["combined"]
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "rows are the true domain" not in report
    assert "unweighted mean of the domains" not in report


def several_classes(tmp_path):
    for path in tmp_path.rglob("counts.csv"):
        counts = pd.read_csv(path)
        other = counts.assign(**{"class": 2, "tp": 0})
        pd.concat([counts, other]).to_csv(path, index=False)


def test_label_classes_have_their_names(tmp_path, reported):
    reported({"se": (5, 5, 5), "sme": (8, 8, 8)}, label_class=1)
    several_classes(tmp_path)
    write_report(tmp_path)
    classes = pd.read_csv(tmp_path / "tables" / "classes.csv", index_col="condition")
    assert list(classes.columns)[::2] == ["the named shape", "class 2"]
    report = " ".join((tmp_path / "report.md").read_text(encoding="utf-8").split())
    assert "**F1 of the named shape by condition**" in report
    assert "sme has a higher F1 of the named shape than se" in report


def test_two_classes_of_one_name_keep_their_columns(tmp_path, reported):
    reported({"se": (5, 5, 5)})
    several_classes(tmp_path)
    results = read_results(tmp_path)
    table = class_table(results, {1: "mass", 2: "mass"})
    assert list(table.mean.columns) == ["class 1", "class 2"]
    assert list(class_table(results, {2: "mass"}).mean.columns) == ["class 1", "mass"]


@pytest.mark.parametrize("finished_study", [True, False])
def test_runs_without_true_metadata_are_refused(tmp_path, reported, finished_study):
    reported({"se": (5, 5, 5)})
    path = tmp_path / "se" / "seed1" / "counts.csv"
    pd.read_csv(path).assign(mode="missing").to_csv(path, index=False)
    folder = tmp_path if finished_study else tmp_path / "se"
    with pytest.raises(DataError, match=r"seed1.counts\.csv has no mode normal \(it has missing\)"):
        write_report(folder)


def test_learned_or_not(tmp_path, reported):
    hits = {"se": (0, 0, 0), "me": (9, 9, 9), "sme": (9, 9, 0)}
    reported(hits, comparisons=[], learned=[0.2, 0.7])
    table = pd.read_csv(tmp_path / "tables" / "learned.csv", index_col="condition")
    assert dict(table["outcome"]) == {"se": "not learned", "me": "learned", "sme": "unstable"}


def test_comparisons_use_the_seeds_that_both_have(tmp_path, reported):
    reported({"se": (9, 5, 5), "sme": (None, 8, 8)})
    table = pd.read_csv(tmp_path / "tables" / "comparisons.csv", index_col="comparison")
    assert table.loc["sme - se", "by training"].count("seed ") == 2
    both = {name: 2 * tp / (tp + 11) for name, tp in (("se", 5), ("sme", 8))}
    less = {name: 2 * tp / (tp + 11) for name, tp in (("se", 4), ("sme", 7))}
    expected = (both["sme"] - both["se"] + less["sme"] - less["se"]) / 2
    assert table.loc["sme - se", "difference"] == pytest.approx(expected)


def test_published_figures_stand_beside_ours(reported):
    page = reported({"se": (0, 0, 0), "sme": (8, 9, 9)}, references=["thesis-4.12", "none-such"])
    assert "Ours beside thesis, table 4.12" in page
    assert "agrees" in page
    assert "none-such cannot be shown" in page


def test_empty_cases_are_counted_not_scored(tmp_path, reported):
    reported({"se": (5, 5, 5), "sme": (8, 8, 8)})
    for path in tmp_path.rglob("counts.csv"):
        counts = pd.read_csv(path)
        counts.loc[counts["case"] == "case3", ["tp", "fp", "fn"]] = 0
        counts.to_csv(path, index=False)
    write_report(tmp_path)
    cases = pd.read_csv(tmp_path / "tables" / "cases.csv", index_col="condition")
    assert cases.loc["sme", "cases"] == 7
    assert cases.loc["sme", "empty, over all seeds"] == 3
    assert cases.loc["sme", "empty targets"] == 1
    assert cases.loc["sme", "with false pixels"] == 0
    tests = pd.read_csv(tmp_path / "tables" / "tests.csv", index_col="comparison")
    assert tests.loc["sme - se", "empty"] == 1


@pytest.mark.parametrize("content", ["", "case,group\n", "a,b\n1,2\n"])
def test_damaged_counts_are_named(tmp_path, reported, content):
    reported({"se": (5, 5, 5)})
    (tmp_path / "se" / "seed1" / "counts.csv").write_text(content)
    with pytest.raises(DataError, match=r"seed1.counts\.csv is no table of counts"):
        write_report(tmp_path)


@pytest.mark.parametrize("name", ["log.csv", "calibration.csv", "samples.npz"])
def test_a_damaged_file_is_named(tmp_path, reported, name):
    reported({"se": (5, 5, 5)})
    (tmp_path / "se" / "seed1" / name).write_text("")
    (tmp_path / "se" / "seed0" / name).write_text("")
    with pytest.raises(DataError, match=rf"seed0.{name}"):
        write_report(tmp_path)


def test_counts_that_are_no_counts(tmp_path, reported):
    reported({"se": (5, 5, 5)})
    file = tmp_path / "se" / "seed1" / "counts.csv"
    counts = pd.read_csv(file)
    counts.assign(tp=-1).to_csv(file, index=False)
    with pytest.raises(DataError, match="whole numbers from 0"):
        write_report(tmp_path)
    counts.assign(tp=None).to_csv(file, index=False)
    with pytest.raises(DataError, match="whole numbers from 0"):
        write_report(tmp_path)
