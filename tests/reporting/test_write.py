"""A whole report: its files, and what is refused."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from metaseg_monai import report
from metaseg_monai.errors import DataError
from metaseg_monai.metadata import Categorical
from metaseg_monai.owners import owned
from metaseg_monai.reporting.runs import TRAINING
from metaseg_monai.reporting.write import training_counts, write_report


@pytest.fixture
def changed(bind):
    def change_counts(folder, change):
        """Change the counts of all runs, as if they had been evaluated so."""
        for path in folder.rglob("counts.csv"):
            change(pd.read_csv(path)).to_csv(path, index=False)
            bind(path.parent)
        return folder

    return change_counts


def table(folder, name):
    return pd.read_csv(folder / "tables" / f"{name}.csv", index_col=0)


def unplanned(folder):
    """The study as of a release before, which did not tell how many epochs are planned."""
    plan = json.loads((folder / "plan.json").read_text())
    for run in plan:
        del run["planned_epochs"]
    (folder / "plan.json").write_text(json.dumps(plan))
    return folder


def test_report_is_self_contained_and_can_be_recomputed(studied):
    folder = studied({"se": (5, 5, 6), "sme": (8, 9, 9), "sme-dummy": (5, 6, 5)})
    page = write_report(folder).read_text(encoding="utf-8")
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    assert "Tiny &lt;study&gt;" in page
    written = [*folder.glob("tables/*"), *folder.glob("figures/*"), *folder.glob("report.*")]
    contents = {path: path.read_bytes() for path in written}
    assert len(contents) > 20
    write_report(folder)
    assert contents == {path: path.read_bytes() for path in written}


def test_a_report_says_first_that_trainings_were_shorter_than_planned(studied, one_pixel):
    folder = studied({"se": (5, 5, 5), "sme": (8, 9, 9)})
    write_report(folder)
    told = (folder / "report.md").read_text(encoding="utf-8")
    assert "All networks were trained for 2 of the 14 planned epochs: " in told
    assert told.index("All networks were trained") < told.index("The highest F1")
    tables = {path.stem for path in (folder / "tables").glob("*.csv")}
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    tested = {"comparisons", "tests", "subgroups_sme_se"}
    assert not tested & tables
    assert "differences" not in figures
    assert "sme - se, was not made: the training of sme had hardly begun after 2 of 14 " in told
    summary = json.loads((folder / "summary.json").read_text())
    short = {"epochs": 2, "planned": 14}
    assert summary["fewer_epochs_than_planned"] == {"se": short, "sme": short}
    assert [one["strength"] for one in summary["comparisons"]] == ["not concluded"]
    write_report(unplanned(folder))
    assert tested <= {path.stem for path in (folder / "tables").glob("*.csv")}
    assert "differences" in {path.stem for path in (folder / "figures").glob("*.png")}
    assert "planned epochs" not in (folder / "report.md").read_text(encoding="utf-8")
    own = folder / "tables" / "mine.csv"
    own.write_text("a\n")
    for file in folder.rglob("counts.csv"):
        if file.is_relative_to(folder / "sme"):
            file.unlink()
    write_report(folder)  # tables of the report before would be of what is gone
    there = {path.stem for path in (folder / "tables").glob("*.csv")}
    assert not tested & there
    assert {"f1", "mine"} <= there
    assert "differences" not in {path.stem for path in (folder / "figures").glob("*.png")}


def test_tables_hold_mean_and_spread_over_seeds(studied, one_pixel):
    folder = studied({"se": (5, 5, 5), "sme": (8, 9, 7)})
    write_report(folder)
    assert r"\textbf{" not in (folder / "tables" / "f1.tex").read_text()  # hardly begun: no best
    write_report(unplanned(folder))
    row = table(folder, "f1").loc["sme"]
    # tp 4 x 8 + 4 x 7 of 8 x 10, fp 8, for 8 hits, and so on
    f1 = [2 * tp / (tp + 8 + 80) for tp in (4 * 8 + 4 * 7, 4 * 9 + 4 * 8, 4 * 7 + 4 * 6)]
    assert row["combined"] == pytest.approx(sum(f1) / 3)
    iou = [one / (2 - one) for one in f1]
    assert row["IoU, combined"] == pytest.approx(sum(iou) / 3)
    assert table(folder, "iou").loc["sme", "combined"] == pytest.approx(sum(iou) / 3)
    assert row["combined spread"] == pytest.approx((max(f1) - min(f1)) / 2)
    assert r"\textbf{" in (folder / "tables" / "f1.tex").read_text()
    summary = json.loads((folder / "summary.json").read_text(), parse_constant=pytest.fail)
    assert summary["conditions"]["sme"]["data0-seed1"]["pooled_f1"] == pytest.approx(f1[1])
    seeds = summary["comparisons"][0]["seeds"]
    assert list(seeds) == ["data0-seed0", "data0-seed1", "data0-seed2"]


def test_cases_left_out_are_told_of_every_run(studied):
    folder = studied({"se": (5, 5, 5), "sme": (8, 9, 9)})
    for path in folder.rglob("evaluation.json"):
        known = json.loads(path.read_text())
        path.write_text(json.dumps({**known, "left_out": {"p1": f"cut in {path.parent.parent}"}}))
    write_report(folder)
    runs = [f"{name}, seed {seed}" for name in ("se", "sme") for seed in (0, 1, 2)]
    assert list(table(folder, "left_out").index) == [f"{run}: p1" for run in runs]
    assert "1 test case(s) are left out of scores" in (folder / "report.html").read_text()


def test_a_report_is_written_while_its_study_goes_on(studied):
    folder = studied({"se": (5, 5, 5), "sme": (8, 8, 8)})
    with ThreadPoolExecutor(1) as pool, owned(folder, "is running this study"):
        made = pool.submit(report, folder).result()
    assert made.html == folder / "report.html"
    assert made.html.is_file()


def test_one_domain_is_not_told_twice(studied, one_pixel, changed):
    folder = studied({"se": (5, 5, 5), "sme": (8, 8, 8)})
    write_report(folder)
    assert list(table(folder, "modes_sme").index) == ["combined", "triangle", "ring"]
    write_report(changed(folder, lambda counts: counts.assign(domain="all")))
    assert list(table(folder, "modes_sme").index) == ["combined"]
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "rows are the true domain" not in report
    assert "unweighted mean of the domains" not in report


def test_label_classes_have_their_names(studied, one_pixel, changed):
    folder = studied({"se": (5, 5, 5), "sme": (8, 8, 8)}, label_class=1)
    for counts in folder.rglob("counts.csv"):
        counts.with_name("classes.json").write_text('{"1": "liver"}')
    write_report(changed(folder, lambda one: pd.concat([one, one.assign(**{"class": 2, "tp": 0})])))
    assert list(table(folder, "classes"))[::2] == ["liver", "class 2"]
    report = " ".join((folder / "report.md").read_text(encoding="utf-8").split())
    assert "**F1 of liver by condition**" in report
    assert "The F1 of liver pooled over all cases is 0.581 of se, 0.811 of sme" in report


def test_learned_or_not(studied, one_pixel):
    hits = {"se": (0, 0, 0), "me": (9, 9, 9), "sme": (9, 9, 0)}
    folder = studied(hits, comparisons=[], learned=[0.2, 0.7])
    write_report(folder)
    assert not (folder / "tables" / "learned.csv").exists()  # nothing is concluded after 2 epochs
    write_report(unplanned(folder))
    outcomes = table(folder, "learned")["outcome"].to_dict()
    assert outcomes == {"se": "not learned", "me": "learned", "sme": "unstable"}
    plan = json.loads((folder / "plan.json").read_text())
    of_one = [run | ({"planned_epochs": 14} if run["condition"] == "me" else {}) for run in plan]
    (folder / "plan.json").write_text(json.dumps(of_one))
    write_report(folder)
    assert list(table(folder, "learned").index) == ["se", "sme"]


def test_comparisons_use_the_seeds_that_both_have(studied, one_pixel):
    folder = studied({"se": (9, 5, 5), "sme": (None, 8, 8)})
    write_report(unplanned(folder))
    row = table(folder, "comparisons").loc["sme - se"]
    assert row["by training"].count("seed ") == 2
    f1 = {tp: 2 * tp / (tp + 11) for tp in (4, 5, 7, 8)}
    assert row["difference"] == pytest.approx((f1[8] - f1[5] + f1[7] - f1[4]) / 2)


def test_published_figures_stand_beside_ours(studied, one_pixel):
    hits = {"se": (0, 0, 0), "sme": (8, 9, 9)}
    page = write_report(studied(hits, references=["thesis-4.12", "none-such"])).read_text()
    assert "Ours beside thesis, table 4.12" in page
    assert "agrees" in page
    assert "none-such cannot be shown" in page


def test_empty_cases_are_counted_not_scored(studied, one_pixel, changed):
    folder = studied({"se": (5, 5, 5), "sme": (8, 8, 8)})

    def empty(counts):
        counts.loc[counts["case"] == "case3", ["tp", "fp", "fn"]] = 0
        return counts

    write_report(unplanned(changed(folder, empty)))
    row = table(folder, "cases").loc["sme"]
    assert (row["cases"], row["empty, over all seeds"], row["empty targets"]) == (7, 3, 1)
    assert row["with false pixels"] == 0
    assert table(folder, "tests").loc["sme - se", "empty"] == 1


@pytest.mark.parametrize("name", ["counts.csv", "log.csv", "calibration.csv", "samples.npz"])
def test_a_damaged_file_is_named(studied, one_pixel, name):
    folder = studied({"se": (5, 5, 5)})
    (folder / "se" / "seed0" / name).write_text("")
    with pytest.raises(DataError, match=rf"seed0: {name} "):
        write_report(folder)


@pytest.mark.parametrize("finished_study", [True, False])
def test_runs_without_true_metadata_are_refused(studied, one_pixel, finished_study, changed):
    folder = studied({"se": (5, 5, 5)})
    changed(folder / "se" / "seed1", lambda counts: counts.assign(mode="missing"))
    with pytest.raises(DataError, match=r"seed1.counts\.csv has no mode normal \(it has missing\)"):
        write_report(folder if finished_study else folder / "se")


def test_gates_that_were_explained_are_shown_and_a_file_in_the_way_is_refused(
    studied, one_pixel, bind
):
    folder = studied({"se": (5, 5, 5), "sme": (8, 8, 8)}, label_class=1)
    explained = folder / "sme" / "seed0" / "explain"
    explained.mkdir()
    for name in ("bridge_scale", "gate_0"):
        Image.new("RGB", (9, 9)).save(explained / f"{name}.png")
    with pytest.raises(DataError, match=r"explain: evaluation\.json, which.*explain .*sme.seed0"):
        write_report(folder)
    bind(explained, names=["bridge_scale.png", "gate_0.png"])
    write_report(folder)
    report = (folder / "report.md").read_text(encoding="utf-8")
    assert "Scale of every channel" not in report
    assert "![bridge\\_scale: sme.](figures/gates_sme_bridge_scale.png)" in report
    assert "One gate: scales" in report.partition("Single gates and feature maps")[2]
    (folder / "file").touch()
    with pytest.raises(DataError, match=r": .*; "):
        write_report(folder, folder / "file")


def test_a_class_that_no_run_has_is_refused(studied):
    with pytest.raises(DataError, match="label class 3, the runs have 1; mend label_class"):
        write_report(studied({"se": (5, 5, 5)}, label_class=3))


def test_counts_of_training_cases_are_told_where_conditions_differ():
    field = Categorical(
        name="line", values=("a", "b"), provenance="acquisition", availability="acquisition"
    )
    rows = [
        {**dict.fromkeys(TRAINING, 0), "condition": name, "split": split, "line": line}
        for name, lines in (("all", "aab"), ("few", "aa"))
        for split, given in (("train", lines), ("test", "b"))
        for line in given
    ]
    results = SimpleNamespace(
        cases=pd.DataFrame(rows), fields={"line": field}, conditions=["all", "few"]
    )
    (part,) = training_counts(results)
    assert part.values.to_dict("index") == {"all": {"a": 2, "b": 1}, "few": {"a": 2, "b": 0}}
    alike = results.cases[results.cases["condition"] == "all"]
    assert training_counts(SimpleNamespace(cases=alike, fields={}, conditions=["all"])) == []
    results.cases = results.cases.assign(split="test")  # as of folds
    assert training_counts(results) == []
