import math

import pandas as pd
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.object_scores import SCORES, match_row
from metaseg_monai.metrics.objects import ObjectMatch
from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.reporting.objects import object_results, objects_section
from metaseg_monai.reporting.page import tables_of
from metaseg_monai.study.design import Protocol

PAIR = Protocol(comparisons=[["sme", "se"]])
CASES = {f"c{number}": "xy"[number % 2] for number in range(6)}


def told(section):
    return " ".join(part for part in section.parts if isinstance(part, str))


@pytest.fixture
def run(made, tmp_path):
    """Writes a run, see `write`."""

    def make(name, *settings, **more):
        return made(write(tmp_path / name, *settings, **more), tmp_path / name)

    return make


def write(folder, hits, modes=("normal",), truth="instances", classes=(1,), cases=CASES):
    """Ten true objects in every case, of which so many are found, and two false ones."""
    folder.mkdir(parents=True)
    rows, counts = [], []
    for mode in modes:
        for case, domain in cases.items():
            for number in classes:
                found = (hits - (mode != "normal"),) * 5 + (hits // 2,) * 5
                match = ObjectMatch(10, found[0] + 2, found, 0.8, 2, 1)
                names = {"case": case, "group": f"group {case}", "split": "test", "mode": mode}
                names |= {"domain": domain, "class": number, "truth": truth}
                rows.append({**names, **match_row(match)})
                counts.append((case, f"group {case}", "test", mode, domain, number,
                               5, 5, 5, 100))  # fmt: skip
    pd.DataFrame(rows)[list(SCORES.columns)].to_csv(folder / "objects_scores.csv", index=False)
    return pd.DataFrame(counts, columns=COUNT_COLUMNS)


def test_scores_by_hand(run, results_of):
    runs = [run(f"se{hits}", hits) for hits in (6, 8)]
    tables = tables_of([objects_section(results_of(se=runs), PAIR)])
    row = tables["objects"].values.loc["se"]
    # found 6 of 10 with 8 predicted, and 8 of 10 with 10
    half = [12 / 18, 16 / 20]
    assert row["F1 at IoU 0.5"] == pytest.approx(sum(half) / 2)
    strict = [6 / 18, 8 / 20]
    assert row["F1 at IoU 0.5-0.95"] == pytest.approx((sum(half) + sum(strict)) / 4)
    assert row["precision"] == pytest.approx((6 / 8 + 8 / 10) / 2)
    assert row["recall"] == pytest.approx(0.7)
    assert row["matched IoU"] == pytest.approx(0.8)
    assert (row["splits per 100"], row["merges per 100"]) == (20, 10)
    assert row["true objects"] == 60
    spread = tables["objects"].spread.loc["se"]
    assert spread["recall"] == pytest.approx(0.1)
    assert math.isnan(spread["true objects"])
    by_domain = tables["objects_domains"].values
    assert by_domain.columns.tolist() == ["combined", "average", "x", "y"]
    assert by_domain.loc["se", "x"] == pytest.approx(sum(half) / 2)


def test_no_object_anywhere_is_left_out_of_case_means_and_counted(run, results_of):
    result = run("se", 8)
    empty = {"true": 0, "pred": 0, "tp_50": 0, "fp_50": 0, "fn_50": 0}
    empty |= {f"tp_{percent}": 0 for percent in range(55, 100, 5)}
    path = result.folder / "objects_scores.csv"
    table = pd.read_csv(path).astype({"f1_50": object, "f1_50_95": object, "matched_iou": object})
    table.loc[0, list(empty)] = list(empty.values())
    table.loc[0, ["f1_50", "f1_50_95", "precision_50", "recall_50", "matched_iou"]] = math.nan
    table.loc[1, ["pred", "fp_50"]] = [0, 0]
    table.loc[1, ["tp_50", *[f"tp_{percent}" for percent in range(55, 100, 5)]]] = 0
    table.loc[1, "fn_50"] = 10
    table.to_csv(path, index=False)
    cases = tables_of([objects_section(results_of(se=[result]), PAIR)])["objects_cases"].values
    row = cases.loc["se"]
    assert (row["cases"], row["empty, over all seeds"], row["with false objects"]) == (5, 1, 0)
    assert row["mean case F1"] == pytest.approx(4 * 0.8 / 5)


def test_planned_comparisons_are_made_on_objects_too(run, results_of):
    better = [run(f"sme{seed}", 9) for seed in range(3)]
    worse = [run(f"se{seed}", 6) for seed in range(3)]
    section = objects_section(results_of(sme=better, se=worse), PAIR)
    row = tables_of([section])["objects_comparisons"].values.loc["sme - se"]
    assert row["difference"] == pytest.approx(18 / 21 - 12 / 18)
    assert "object F1 at IoU 0.5" in told(section)
    alone = objects_section(results_of(sme=better), PAIR)
    assert "Planned but not made on objects: sme - se (se has no results)" in told(alone)


def test_what_true_objects_were_made_of_is_said(run, results_of):
    one, other = run("a", 8), run("b", 8, truth="components")
    assert "numbered in files of their own" in told(objects_section(results_of(se=[one]), PAIR))
    of_parts = told(objects_section(results_of(se=[other]), PAIR))
    assert "objects which touch are one; predicted ones are made likewise there" in of_parts
    both = told(objects_section(results_of(se=[one, other]), PAIR))
    assert "of some cases are numbered in a file; of the others connected parts" in both
    assert "and predicted ones are made likewise there" in both


def test_ignored_objects_are_counted_and_runs_that_ignored_none_are_told(run, results_of):
    result = run("a", 8, modes=("normal", "shuffle"))
    assert "ignored" not in told(objects_section(results_of(se=[result]), PAIR))
    result.edit(name="objects_scores.csv", ignored=2)
    section = objects_section(results_of(se=[result]), PAIR)
    assert "True objects ignored, as they are below the smallest size: 12." in told(section)
    assert "smallest size" in tables_of([section])["objects"].note
    path = result.folder / "objects_scores.csv"
    pd.read_csv(path).drop(columns="ignored").to_csv(path, index=False)
    old = told(objects_section(results_of(se=[result]), PAIR))
    assert "scored before small true objects were ignored" in old


def test_runs_without_objects_are_named_and_none_makes_no_section(run, results_of):
    runs = [run(f"se{seed}", 8) for seed in range(2)]
    other = run("none", 8)
    for one in (runs[1], other):
        (one.folder / "objects_scores.csv").unlink()
    said = told(objects_section(results_of(se=runs, none=[other]), PAIR))
    assert "No objects were scored of none." in said
    assert "Of se only 1 of 2 trainings have scores of objects." in said
    assert objects_section(results_of(none=[other]), PAIR) is None


def test_experts_count_on_their_own_domain(run, results_of, made):
    folders = {"x": run("x", 9).folder, "y": run("y", 5).folder}
    counts = run("both", 7).counts
    expert = made(counts, folders)
    values = tables_of([objects_section(results_of(experts=[expert]), PAIR)])
    row = values["objects_domains"].values.loc["experts"]
    assert (row["x"], row["y"]) == pytest.approx((18 / 21, 10 / 17))


def test_cases_of_other_data_are_named_as_in_the_counts_and_strangers_refused(run, results_of):
    result = run("a", 8)
    of_data = {"several_data": True, "se": {(3, 0): result}}
    found = object_results(results_of(**of_data))
    assert set(found.counts["case"]) == {f"data3/{case}" for case in CASES}
    result.edit(name="objects_scores.csv", case=[*list(CASES)[:-1], "other"])
    with pytest.raises(DataError, match=r"objects_scores\.csv lacks case data3/c5 of counts\.csv"):
        object_results(results_of(**of_data))
    result.counts = result.counts.iloc[:-1]
    with pytest.raises(DataError, match=r"objects_scores\.csv has case data3/other, which"):
        object_results(results_of(**of_data))


def test_foreign_metadata_and_the_class_of_the_protocol(run, results_of):
    result = run("a", 8, modes=("normal", "shuffle"), classes=(1, 2))
    path = result.folder / "objects_scores.csv"
    table = pd.read_csv(path)
    table.loc[table["class"] == 2, ["pred", "fp_50"]] = [18, 10]
    table.to_csv(path, index=False)
    both = tables_of([objects_section(results_of(me=[result]), PAIR)])
    f1 = {1: 16 / 20, 2: 16 / 28}
    assert both["objects"].values.loc["me", "F1 at IoU 0.5"] == pytest.approx(sum(f1.values()) / 2)
    one = objects_section(results_of(me=[result]), PAIR.model_copy(update={"label_class": 1}))
    tables = tables_of([one])
    assert tables["objects"].values.loc["me", "F1 at IoU 0.5"] == pytest.approx(f1[1])
    lost = tables["objects_reliance"].values.loc["me", "normal - shuffle"]
    assert lost == pytest.approx(16 / 20 - 14 / 19)
