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

    def make(hits, references=(), finished_runs=0, **protocol):
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
        fix(study, runs, tmp_path, finished_runs)
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
    assert "the same sign with all 3 seeds" in text
    assert "so the metadata helped, not the larger gates" in text
    assert "lose pooled F1: sme 0." in text
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


def test_words_when_one_seed_disagrees(tmp_path, reported):
    reported({"se": (6, 6, 6), "sme": (9, 9, 5)})
    assert "scores higher than" not in said(tmp_path)


def test_words_when_metadata_harmed(tmp_path, reported):
    reported({"se": (9, 9, 9), "me": (3, 4, 3)})
    text = said(tmp_path)
    assert "me scores lower than se" in text
    assert "Metadata was not shown to help me" in text


def test_words_on_what_departs_from_the_protocol(tmp_path, reported):
    reported({"se": (5, 5, 6), "sme": (8, None, 9)}, finished_runs=2, sample_size=20)
    text = said(tmp_path)
    assert "after 2 runs had results" in text
    assert "read the comparisons as exploratory" in text
    assert "Planned were comparisons of 20 cases; they are made of 8" in text
    assert "2 to 3 trainings of each condition" in text
    assert "left out are 1 of the planned runs: sme/seed1" in text


def test_comparisons_use_the_seeds_that_both_have(tmp_path, reported):
    reported({"se": (9, 5, 5), "sme": (None, 8, 8)})
    table = pd.read_csv(tmp_path / "tables" / "comparisons.csv", index_col="comparison")
    assert len(table.loc["sme - se", "by seed"].split(", ")) == 2
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
    with pytest.raises(DataError, match="No condition has a score"):
        write_report(tmp_path)


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
    tests = pd.read_csv(tmp_path / "tables" / "tests.csv", index_col="comparison")
    assert tests.loc["sme - se", "empty"] == 1
