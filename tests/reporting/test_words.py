"""What a report says before its tables."""

import pandas as pd
import pytest

from metaseg_monai.reporting.write import write_report


def said(tmp_path):
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    return " ".join(text[: text.index("## Scores")].split())


def test_words_when_metadata_helped(tmp_path, reported):
    reported({"se": (5, 5, 6), "sme": (8, 9, 9), "sme-dummy": (5, 6, 5)})
    text = said(tmp_path)
    assert "sme has a higher F1 than se" in text
    assert "seed 0: +0." in text
    assert "so the metadata helped, not the larger gates" in text
    assert "sme loses 0." in text
    assert "Not compared by plan" not in text
    assert "before any run had a result" in text


def test_words_when_a_dummy_explains_the_gain(tmp_path, reported):
    reported({"se": (5, 5, 6), "sme": (8, 9, 9), "sme-dummy": (9, 8, 9)})
    text = said(tmp_path)
    assert "sme has a higher F1 than se" in text
    assert "the dummy may explain its gain over SE" in text


def test_words_when_metadata_did_not_help(tmp_path, reported):
    reported({"se": (6, 6, 6), "sme": (6, 6, 6)})
    text = said(tmp_path)
    assert "No difference of sme and se in the F1 was shown" in text
    assert "Metadata was not shown to help sme" in text
    assert "may still exist" in text


def test_words_when_one_training_disagrees(tmp_path, reported):
    reported({"se": (6, 6, 6), "sme": (9, 9, 5)})
    text = said(tmp_path)
    assert "has a higher F1" not in text
    assert "not in the same direction with every training (seed 0: +0." in text


def test_words_when_trainings_differ_too_much(tmp_path, reported):
    reported({"se": (4, 4, 4), "sme": (5, 5, 9)})
    text = said(tmp_path)
    assert "has a higher F1" not in text
    assert "sme had a higher F1 than se in each of these trainings" in text
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
    text = said(tmp_path)
    assert "The primary comparison, sme - se, was not made: The protocol's domain 'cross'" in text


def test_a_secondary_comparison_is_never_called_primary(tmp_path, reported):
    hits = {"se": (5, 5, 5), "sme": (None, None, None), "me": (8, 8, 8)}
    reported(hits, comparisons=[["sme", "se"], ["me", "se"], ["me", "sme"]])
    text = said(tmp_path)
    assert "Primary comparison: " not in text
    assert "The primary comparison, sme - se, was not made: sme has no results." in text
    assert "Planned but not made: me - sme." in text
    report = " ".join((tmp_path / "report.md").read_text(encoding="utf-8").split())
    assert report.count("The primary comparison, sme - se, was not made") == 2


def test_the_primary_comparison_is_named(tmp_path, reported):
    hits = {"se": (5, 5, 5), "sme": (8, 8, 8), "me": (8, 8, 8)}
    reported(hits, comparisons=[["me", "se"], ["sme", "se"]])
    assert "Primary comparison: me has a higher F1 than se" in said(tmp_path)
    report = " ".join((tmp_path / "report.md").read_text(encoding="utf-8").split())
    assert "The primary comparison is me - se." in report


def grouped(tmp_path, patients):
    """Put the cases of all runs into so many groups, and write the report again."""
    for path in tmp_path.rglob("counts.csv"):
        counts = pd.read_csv(path)
        number = counts["case"].str.removeprefix("case").astype(int)
        counts.assign(group="p" + (number % patients).astype(str)).to_csv(path, index=False)
    write_report(tmp_path)
    return said(tmp_path)


def test_a_sample_is_made_of_groups_not_of_cases(tmp_path, reported):
    reported({"se": (5, 5, 6), "sme": (8, 9, 9)}, sample_size=4)
    text = said(tmp_path)
    assert "Planned were comparisons of 4 groups" in text
    assert "Tested on: 8 cases of 8 groups (test)" in text
    assert "Intervals over cases" in text
    text = grouped(tmp_path, 4)
    assert "Planned were" not in text
    assert "Tested on: 8 cases of 4 groups (test)" in text
    assert "drawn over groups (patients, wells)" in text
    assert "Intervals over groups (patients, wells)" in text
    assert "ver cases" not in text.replace("pooled over all cases", "")
    report = " ".join((tmp_path / "report.md").read_text(encoding="utf-8").split())
    assert "with its 95 % interval over groups (patients, wells)" in report


def test_one_training_has_no_spread(tmp_path, reported):
    reported({"se": (5, None, None), "sme": (8, None, None), "film": (6, None, None)})
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "±" not in report
    assert "nan" not in report[: report.index("## Scores")]
    assert "sme loses 0." in report
    assert "One training of each condition." in report


def test_what_was_not_tested_is_not_told(tmp_path, reported):
    reported({"se": (5, 5, 5), "sme": (8, 8, 8), "me": (8, 8, 8)})
    for path in (tmp_path / "me").rglob("counts.csv"):
        counts = pd.read_csv(path)
        counts["mode"] = counts["mode"].replace("shuffle", "missing")
        counts.to_csv(path, index=False)
    write_report(tmp_path)
    text = said(tmp_path)
    assert "foreign instead of true metadata: sme loses" in text
    assert "me hardly" not in text
    report = " ".join((tmp_path / "report.md").read_text(encoding="utf-8").split())
    assert (
        "lost when each case gets foreign metadata (shuffle), or metadata marked as unknown "
        "(missing). Mean" in report
    )
    assert "zeros in place" not in report


def test_words_when_metadata_harmed(tmp_path, reported):
    reported({"se": (9, 9, 9), "me": (3, 4, 3)})
    text = said(tmp_path)
    assert "me has a lower F1 than se" in text
    assert "Metadata was not shown to help me" in text


def test_words_on_what_departs_from_the_protocol(tmp_path, reported):
    reported({"se": (5, 5, 6), "sme": (8, None, 9)}, before=2, sample_size=20)
    text = said(tmp_path)
    assert "when 2 runs had results" in text
    assert "read the comparisons as exploratory" in text
    assert "Planned were comparisons of 20 groups" in text
    assert "they are made of 8" in text
    assert "2 to 3 trainings of each condition" in text
    assert "left out are 1 of the planned runs: sme/seed1" in text


def test_no_case_with_a_foreground_pixel(tmp_path, reported):
    reported({"se": (8, 8, 8)})
    for path in tmp_path.rglob("counts.csv"):
        counts = pd.read_csv(path)
        counts.assign(tp=0, fp=0, fn=0).to_csv(path, index=False)
    write_report(tmp_path)
    assert "No condition has a score" in said(tmp_path)
