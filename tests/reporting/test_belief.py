"""What the report says of intervals, of an alarm, and of a table that is wrong."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.intervals import COVERAGE
from metaseg_monai.files import file_sha256
from metaseg_monai.reporting.audit import belief_section, coverage_parts, told_as, wrong_parts
from metaseg_monai.reporting.comparisons import compared_again
from metaseg_monai.reporting.page import tables_of
from metaseg_monai.study.design import Protocol


def covered(run, inside, value="HeLa", width=40):
    """Write a conformal.csv in which so many of a hundred cases lie within their interval."""
    rows = []
    for number in range(100):
        names = {"case": f"c{number}", "group": f"g{number}", "split": "test", "mode": "normal"}
        ends = {"low": 80, "high": 80 + width, "low_all": 50, "high_all": 150}
        true = 100 if number < inside else 140
        numbers = {"class": 1, "cases": 60, "groups": 60, "true": true, "predicted": 99}
        told = {"domain": "all", "value": value, "interval_of": value, **numbers, **ends}
        rows.append({**names, **told, "found": 0.93, "threshold": 0.4, "level": 0.9})
    COVERAGE.write(run.folder / "conformal.csv", rows)
    return run


def test_coverage_is_told_by_value_with_its_band(volumes):
    run = covered(volumes.run("sme"), 91)
    told, table = coverage_parts(volumes.results(sme=[run]))
    assert told.startswith("Every interval keeps its promise")
    row = table.values.loc["sme, HeLa"]
    assert (row["covered"], row["width"], row["width for all"]) == (0.91, 0.4, 1.0)
    assert row["band low"] < 0.85 < 0.95 < row["band high"]
    assert (row["calibrated with"], row["interval of"]) == (60, "own cases")
    covered(run, 60)
    told, _ = coverage_parts(volumes.results(sme=[run]))
    assert told == "Outside of the band, so that the promise is not kept: sme, HeLa."


def test_coverage_counts_each_group_once_and_judges_no_value_that_took_the_bound_of_all(volumes):
    run = covered(volumes.run("sme"), 50)  # of one large group the first half lies outside
    rows = pd.read_csv(run.folder / "conformal.csv")
    rows["true"] = [140] * 50 + [100] * 50
    rows["group"] = ["g0"] * 50 + [f"g{n}" for n in range(50)]
    rows.loc[50, "group"] = "g50"
    rows.to_csv(run.folder / "conformal.csv", index=False)
    told, table = coverage_parts(volumes.results(sme=[run]))
    assert table.values.loc["sme, HeLa", "covered"] == pytest.approx(50 / 51)
    assert told.startswith("Every interval keeps its promise")
    rows["interval_of"], rows["true"] = "all", 140
    rows.to_csv(run.folder / "conformal.csv", index=False)
    told, table = coverage_parts(volumes.results(sme=[run]))
    assert told.startswith("Every interval")
    assert table.values.loc["sme, HeLa", ["band low", "band high"]].isna().all()


def test_bands_hold_for_all_rows_together(volumes):
    alone = covered(volumes.run("sme"), 91)
    (_, one) = coverage_parts(volumes.results(sme=[alone]))
    several = pd.concat(
        pd.read_csv(alone.folder / "conformal.csv").assign(value=name, interval_of=name)
        for name in "ABCDEFG"
    )
    several.to_csv(alone.folder / "conformal.csv", index=False)
    (_, seven) = coverage_parts(volumes.results(sme=[alone]))
    assert seven.values["band low"].max() < one.values["band low"].min()


def test_without_anything_there_is_no_section(volumes, tmp_path):
    run = volumes.run("sme", modes=("normal",))
    assert belief_section(volumes.results(sme=[run]), tmp_path) is None


@pytest.mark.parametrize(
    ("auc", "half", "words"),
    [
        (0.97, 0.02, "The images show cell_line; at the level of the alarm 70 % of wrong values"),
        (0.52, 0.04, "This estimate does not see cell_line in the images: it can notice no wrong"),
        (0.52, 0.2, "Whether the images show cell_line is not known"),
        (0.8, 0.1, "The images show something of cell_line; at the level of the alarm 70 %"),
        (0.3, 0.1, "This estimate takes wrong values of cell_line for right ones: use no alarm"),
        (0.3, 0.3, "Whether the images show cell_line is not known"),
        (0.97, None, "Whether the images show cell_line is not known"),
    ],
)
def test_an_alarm_says_whether_the_images_show_the_field(volumes, tmp_path, auc, half, words):
    folder = tmp_path / "line"
    folder.mkdir()
    (folder / "predicted.csv").write_text("a")
    alarm = {"level": 0.05, "calibrated_with": 90, "cases": 200, "false_alarms": 0.045}
    alarm |= {"low": 0.02, "high": 0.08, "found": 0.7, "auc": auc}
    ends = (None, None) if half is None else (auc - half, auc + half)
    alarm |= dict(zip(("auc_low", "auc_high"), ends, strict=True))
    scores = {"field": "cell_line", "alarm": alarm}
    scores["files"] = {"predicted.csv": file_sha256(folder / "predicted.csv")}
    (folder / "estimate_scores.json").write_text(json.dumps(scores))
    run = volumes.run("sme", modes=("normal",))
    section = belief_section(volumes.results(sme=[run]), tmp_path)
    assert words in section.parts[0]
    assert (
        "4.5 % were alarms (stated: 5 %; 95 % interval over groups 2.0 to 8.0)" in section.parts[0]
    )
    (folder / "alarm.csv").write_text("case,p\nelsewhere,0.5\n")
    scores["files"]["alarm.csv"] = file_sha256(folder / "alarm.csv")
    (folder / "estimate_scores.json").write_text(json.dumps(scores))
    with pytest.raises(DataError, match="was tested on none of the cases of these runs"):
        belief_section(volumes.results(sme=[run]), tmp_path)
    (folder / "predicted.csv").write_text("b")
    with pytest.raises(DataError, match=r"predicted\.csv is not the file that it tells of"):
        belief_section(volumes.results(sme=[run]), tmp_path)


def scored(volumes, **lost):
    """A run that loses so many of a hundred pixels in each mode."""
    modes = {"normal": 0, **{name.replace("_", ":"): loss for name, loss in lost.items()}}
    run = volumes.run("sme", modes=tuple(modes))
    counts = run.counts
    counts["tp"] = 100 - counts["mode"].map(modes)
    counts["fp"] = counts["fn"] = counts["mode"].map(modes)
    return volumes.results(sme=[run])


def test_what_to_do_when_the_table_is_wrong_is_told_by_the_numbers(volumes):
    results = scored(
        volumes,
        **{"shuffle": 40, "missing": 10, "predicted": 4, "soft": 50},
        **{"guided:0.5": 1, "guided:0.5:shuffle": 21, "zeros": 9},
    )
    words, table, _ = wrong_parts(results)
    assert words.startswith(
        "When the table is wrong: sme loses 0.400 of F1 (95 % interval 0.400 to"
    )
    assert "Leaving the value unknown costs 0.100 (95 %" in words
    assert "more than about 25 % of the table is wrong" in words
    assert "Taking it from the image costs 0.040" in words
    assert "more than about 10 % of the table is wrong" in words
    assert "Taking a distribution from the image costs 0.500" in words
    assert "more than a wrong value." in words
    # 0.01 / (0.01 + 0.4 - 0.21)
    assert "Guidance 0.5 saves 0.190 in a wrong case and costs 0.010" in words
    assert "it pays where more than about 5 % of the table is wrong" in words
    rows = table.values
    assert rows.loc["sme, wrong", "lost"] == pytest.approx(0.4)
    assert rows.loc["sme, wrong", "cases worse"] == 1
    assert rows.loc["sme, true, guidance 0.5", "cases worse"] == 0
    assert "sme, zeros" not in rows.index
    each = tables_of([belief_section(results, volumes.folder)])["told_cases"].values
    assert isinstance(each, pd.DataFrame)
    assert each.shape[0] == 10
    assert list(tables_of([belief_section(results, volumes.folder)])) == ["told", "told_cases"]


def test_what_chance_may_explain_is_no_advice(volumes):
    results = scored(volumes, shuffle=0, missing=0)
    counts = results.counts
    for mode, steps in (("shuffle", (12, -9, 10, -8, 3)), ("missing", (3, -2, 3, -2, 0))):
        own = counts["mode"] == mode
        moved = np.resize(steps, own.sum())
        counts.loc[own, "tp"] = 80 - moved
        counts.loc[own, ["fp", "fn"]] = np.stack([20 + moved] * 2, 1)
    counts.loc[counts["mode"] == "normal", "tp"] = 80
    counts.loc[counts["mode"] == "normal", ["fp", "fn"]] = 20
    words, *_ = wrong_parts(results)
    assert words.endswith("whether that costs anything is not known.")


def test_where_wrong_metadata_change_nothing_nothing_need_be_done(volumes):
    words, *_ = wrong_parts(scored(volumes, shuffle=0, missing=3))
    assert words.endswith("which nobody would notice; nothing need be done.")
    assert told_as("fixed:HeLa") is None


def test_of_a_training_that_has_hardly_begun_no_advice_is_given(volumes):
    """Nobody may read "nothing need be done" of a network that has not learned what values mean."""
    results = volumes.results(sme=[volumes.run("sme")])
    begun = replace(results, short={"sme": (1, 109)})
    advice = [part for part in wrong_parts(begun) if isinstance(part, str)]
    assert advice == ["What wrong metadata cost sme is not known: its training has hardly begun."]
    assert advice != [part for part in wrong_parts(results) if isinstance(part, str)]


def test_secondary_scores_conclude_nothing_of_a_training_that_has_hardly_begun(volumes):
    results = volumes.results(se=[volumes.run("se")], sme=[volumes.run("sme")])
    protocol = Protocol(comparisons=[["sme", "se"]])
    (said, *_), (begun, *_) = (
        compared_again(of, protocol, None, "objects", "object F1")
        for of in (results, replace(results, short={"sme": (1, 109)}))
    )
    assert "sme" in said
    assert "hardly begun" not in said
    assert begun == (
        "Planned but not made on objects: sme - se (the training of sme had hardly begun after 1 "
        "of 109 planned epochs; conclusions begin at 28)"
    )
