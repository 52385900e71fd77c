import json
import re

import pandas as pd
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.study import Study
from metaseg_monai.study.history import fix
from metaseg_monai.study.matrix import expand
from metaseg_monai.study.report.write import write_report

MODES = ("normal", "shuffle", "fixed:triangle", "fixed:ring")
DOMAINS = ("triangle", "ring")


@pytest.fixture
def reported(tmp_path, bundle, tiny, finished):
    """Makes a study whose runs find so many of ten pixels with each seed; returns its page."""

    def make(hits, references=(), before=0, **protocol):
        study = Study(
            name="Tiny <study>",
            question="Does metadata help?",
            bundle=str(bundle),
            conditions=list(hits),
            seeds=[0, 1, 2],
            settings={**tiny, "dataset_dir": "data"},
            protocol={"sample_size": 8, **protocol},
            references=list(references),
        )
        runs = expand(study)
        for number in range(before):
            (tmp_path / "previous" / str(number)).mkdir(parents=True)
            (tmp_path / "previous" / str(number) / "counts.csv").touch()
        fix(study, runs, tmp_path)
        for run in runs:
            found = hits[run.condition][run.seed]
            modes = MODES if run.condition in ("me", "sme") else ("normal",)
            if found is not None:
                finished(tmp_path, run, bundle, found, modes, DOMAINS)
        return write_report(tmp_path).read_text(encoding="utf-8")

    return make


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
    # tp 4 x 8 + 4 x 7, fp 8, fn 24 for 8 hits, and so on
    f1 = [2 * tp / (2 * tp + 8 + 24) for tp in (4 * 8 + 4 * 7, 4 * 9 + 4 * 8, 4 * 7 + 4 * 6)]
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


def said(tmp_path):
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    return " ".join(text[: text.index("## Scores")].split())


def test_words_when_metadata_helped(tmp_path, reported):
    reported({"se": (5, 5, 6), "sme": (8, 9, 9), "sme-dummy": (5, 6, 5)})
    text = said(tmp_path)
    assert "sme scores higher than se" in text
    assert "seed 0: +0." in text
    assert "so the metadata helped, not the larger gates" in text
    assert "sme loses 0." in text
    assert "Not compared by plan" not in text
    assert "before any run had a result" in text


def test_words_when_a_dummy_explains_the_gain(tmp_path, reported):
    reported({"se": (5, 5, 6), "sme": (8, 9, 9), "sme-dummy": (9, 8, 9)})
    text = said(tmp_path)
    assert "sme scores higher than se" in text
    assert "the dummy may explain its gain over SE" in text


def test_words_when_metadata_did_not_help(tmp_path, reported):
    reported({"se": (6, 6, 6), "sme": (6, 6, 6)})
    text = said(tmp_path)
    assert "No difference of sme to se was shown" in text
    assert "Metadata was not shown to help sme" in text
    assert "may still exist" in text


def test_words_when_one_training_disagrees(tmp_path, reported):
    reported({"se": (6, 6, 6), "sme": (9, 9, 5)})
    text = said(tmp_path)
    assert "scores higher than" not in text
    assert "not in the same direction with every training (seed 0: +0." in text


def test_words_when_trainings_differ_too_much(tmp_path, reported):
    reported({"se": (4, 4, 4), "sme": (5, 5, 9)})
    text = said(tmp_path)
    assert "scores higher than" not in text
    assert "sme scored higher than se in each of these trainings" in text
    assert "differ too much to say the same of others" in text
    assert "so the metadata helped" not in text


def test_words_of_one_training(tmp_path, reported):
    reported({"se": (4, None, None), "sme": (8, None, None), "sme-dummy": (4, None, None)})
    text = said(tmp_path)
    assert "in this one training" in text
    assert "so the metadata helped" not in text
    assert "One training says nothing about other trainings" in text


def test_a_difference_of_zero_is_no_direction(tmp_path, reported):
    reported({"se": (6, 6, 6), "sme": (6, 5, 5)})
    assert "in each of these trainings" not in said(tmp_path)


def test_what_could_not_be_compared_still_counts_in_the_correction(tmp_path, reported):
    hits = {"se": (5, 5, 5), "sme": (8, 8, 8), "me": (None, None, None)}
    reported(hits, comparisons=[["sme", "se"], ["me", "se"], ["me", "sme"]])
    tests = pd.read_csv(tmp_path / "tables" / "tests.csv", index_col="comparison", dtype=str)
    planned = pd.read_csv(
        tmp_path / "tables" / "comparisons.csv", index_col="comparison", dtype=str
    )
    raw = float(tests.loc["sme - se", "p permutation"])
    assert float(planned.loc["sme - se", "p corrected"]) == pytest.approx(3 * raw, abs=0.002)
    assert "Planned but not made: me - se, me - sme" in said(tmp_path)


def test_a_wrong_domain_does_not_lose_the_report(tmp_path, reported):
    reported({"se": (5, 5, 5), "sme": (8, 8, 8)}, domain="cross")
    assert "Planned but not made: sme - se" in said(tmp_path)


def test_learned_or_not(tmp_path, reported):
    hits = {"se": (0, 0, 0), "me": (9, 9, 9), "sme": (9, 9, 0)}
    reported(hits, comparisons=[], learned=[0.2, 0.7])
    table = pd.read_csv(tmp_path / "tables" / "learned.csv", index_col="condition")
    assert dict(table["outcome"]) == {"se": "not learned", "me": "learned", "sme": "unstable"}


def test_words_when_metadata_harmed(tmp_path, reported):
    reported({"se": (9, 9, 9), "me": (3, 4, 3)})
    text = said(tmp_path)
    assert "me scores lower than se" in text
    assert "Metadata was not shown to help me" in text


def test_words_on_what_departs_from_the_protocol(tmp_path, reported):
    reported({"se": (5, 5, 6), "sme": (8, None, 9)}, before=2, sample_size=20)
    text = said(tmp_path)
    assert "when 2 runs had results" in text
    assert "read the comparisons as exploratory" in text
    assert "Planned were comparisons of 20 cases; they are made of 8" in text
    assert "2 to 3 trainings of each condition" in text
    assert "left out are 1 of the planned runs: sme/seed1" in text


def test_comparisons_use_the_seeds_that_both_have(tmp_path, reported):
    reported({"se": (9, 5, 5), "sme": (None, 8, 8)})
    table = pd.read_csv(tmp_path / "tables" / "comparisons.csv", index_col="comparison")
    assert table.loc["sme - se", "by training"].count("seed ") == 2
    both = {name: 2 * 2 * tp / 2 / (2 * tp + 4) for name, tp in (("se", 5), ("sme", 8))}
    less = {name: 2 * 2 * tp / 2 / (2 * tp + 4) for name, tp in (("se", 4), ("sme", 7))}
    expected = (both["sme"] - both["se"] + less["sme"] - less["se"]) / 2
    assert table.loc["sme - se", "difference"] == pytest.approx(expected)


def test_published_figures_stand_beside_ours(reported):
    page = reported({"se": (0, 0, 0), "sme": (8, 9, 9)}, references=["thesis-4.12", "none-such"])
    assert "Ours beside thesis, table 4.12" in page
    assert "agrees" in page
    assert "none-such cannot be shown" in page


def test_no_case_with_a_foreground_pixel(tmp_path, reported):
    reported({"se": (8, 8, 8)})
    for path in tmp_path.rglob("counts.csv"):
        counts = pd.read_csv(path)
        counts.assign(tp=0, fp=0, fn=0).to_csv(path, index=False)
    write_report(tmp_path)
    assert "No condition has a score" in said(tmp_path)


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
    assert cases.loc["sme", "empty targets"] == 3
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
