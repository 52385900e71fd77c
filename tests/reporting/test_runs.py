import json
import shutil
from dataclasses import replace

import pandas as pd
import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.provenance import log_sha256
from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.reporting.comparisons import compare_all
from metaseg_monai.reporting.runs import (
    average_seeds,
    given_values,
    other_values,
    pixel_sizes,
    read_results,
    read_single_runs,
)
from metaseg_monai.reporting.write import write_report
from metaseg_monai.study.design import Protocol, Study
from metaseg_monai.study.matrix import expand
from metaseg_monai.study.record import fix, read_history
from tests.conftest import bind_results


@pytest.fixture
def planned(tmp_path, bundle, tiny):
    """Makes a study in tmp_path; returns its runs by folder."""

    def make(conditions, **changes):
        settings = {**tiny, "dataset_dir": "data", **changes.pop("settings", {})}
        content = {"name": "s", "bundle": str(bundle), "seeds": [0, 1], **changes}
        study = Study(**content, conditions=conditions, settings=settings)
        runs = expand(study)
        fix(study, runs, tmp_path)
        return {run.folder: run for run in runs}

    return make


def test_results_by_condition_and_seed(tmp_path, bundle, planned, finished):
    runs = planned(["se", "sme"])
    for folder in ("se/seed0", "se/seed1", "sme/seed1"):
        finished(tmp_path, runs[folder], bundle)
    results = read_results(tmp_path)
    assert list(results.by_training) == [("se", 0, 0), ("se", 0, 1), ("sme", 0, 1)]
    assert results.trainings == {"se": 2, "sme": 1}
    assert dict(results.missing) == {"sme/seed0": "not run yet"}


def test_results_of_another_configuration_are_never_mixed_in(tmp_path, bundle, planned, finished):
    old = planned(["se", "sme"])
    finished(tmp_path, old["se/seed0"], bundle)
    finished(tmp_path, old["sme/seed0"], bundle)
    new = planned({"se": {}, "sme": {"network_def#reduction": 2}})
    assert new["se/seed0"].key == old["se/seed0"].key
    results = read_results(tmp_path)
    assert results.conditions == ["se"]
    assert results.missing["sme/seed0"] == "was run with another configuration"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"state": "failed", "error": "no such image"}, "failed: no such image"),
        ({"state": "running"}, "interrupted"),
        ({"weights_sha256": "of a copy"}, "holds results of other weights than it trained"),
    ],
)
def test_why_a_run_has_no_results(tmp_path, bundle, planned, finished, change, reason):
    runs = planned(["se", "sme"])
    finished(tmp_path, runs["se/seed0"], bundle)
    folder = finished(tmp_path, runs["sme/seed0"], bundle)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**record, **change}))
    assert read_results(tmp_path).missing["sme/seed0"] == reason
    (tmp_path / "se" / "seed0" / "counts.csv").unlink()
    with pytest.raises(DataError, match="is finished"):
        read_results(tmp_path)


def test_a_plan_of_other_conditions_than_the_study_is_refused(tmp_path, bundle, planned, finished):
    finished(tmp_path, planned(["se", "sme"])["sme/seed0"], bundle)
    plan = tmp_path / "plan.json"
    plan.write_text(plan.read_text().replace('"condition": "sme"', '"condition": "film"'))
    with pytest.raises(ConfigError, match=r"plan has conditions that its study has not, 'film'"):
        read_results(tmp_path)


def test_experts_count_on_their_own_domains_and_only_all_together(
    tmp_path, bundle, planned, finished
):
    few = {"table": "@table", "only": {"task": ["disc", "ring"]}}
    settings = {"cases": {"_target_": "metaseg_monai.tables.select_cases", **few}}
    runs = planned(["se", "experts"], settings=settings)
    finished(tmp_path, runs["se/seed0"], bundle, domains=("disc", "ring"))
    finished(tmp_path, runs["experts/seed0/disc"], bundle, hits=9, domains=("disc", "ring"))
    assert read_results(tmp_path).conditions == ["se"]
    finished(tmp_path, runs["experts/seed0/ring"], bundle, hits=2, domains=("disc", "ring"))
    counts = read_results(tmp_path).of("experts").counts
    assert len(counts) == 16  # 8 cases in two modes, each from one expert
    normal = counts[counts["mode"] == "normal"]
    assert set(normal[normal["domain"] == "disc"]["tp"]) == {9}
    assert set(normal[normal["domain"] == "ring"]["tp"]) == {1}


def test_cases_that_several_experts_know_stand_once(volumes, results_of, made):
    one, two = (volumes.run("experts", seed) for seed in range(2))
    alone = results_of(experts=[one]).cases
    results = results_of(experts=[made(one.counts, {"x": one.folder, "y": two.folder})])
    assert len(alone) == 12  # two planes of five patients, and two training cases
    assert results.cases["case"].tolist() == alone["case"].tolist()


def test_seeds_are_averaged_within_a_case_and_data_have_cases_of_their_own(
    tmp_path, bundle, planned, finished
):
    data = {"dataset_dir": "d{data_seed}"}
    runs = planned(["se"], data_seeds=[0, 1], data_settings=data)
    for place, hits in (("0-seed0", 8), ("0-seed1", 4), ("1-seed0", 6), ("1-seed1", 6)):
        run = runs[f"se/data{place}"]
        finished(tmp_path, run, bundle, hits=hits, table_sha256=place[0])
    cases = average_seeds(read_results(tmp_path).f1)
    assert len(cases) == 16
    assert cases["case"].str.startswith("data0/").sum() == 8
    assert cases["group"].nunique() == 8  # a patient is the same in all data
    f1 = cases.set_index("case")["f1"]
    first = (16 / (8 + 11) + 8 / (4 + 11)) / 2  # 8 and 4 hits of 10; 1 false
    assert f1["data0/case0"] == pytest.approx(first)
    assert f1["data1/case0"] == pytest.approx(12 / (6 + 11))


def test_folders_of_single_runs(tmp_path, bundle, planned, finished):
    runs = planned(["sme", "se"], seeds=[0])
    for hits, run in zip((8, 7), runs.values(), strict=True):
        finished(tmp_path / "made", run, bundle, hits=hits)
    for name in ("sme", "se"):
        (tmp_path / "made" / name / "seed0").rename(tmp_path / "made" / f"{name}-run")
    results = read_single_runs(tmp_path / "made")
    assert results.conditions == ["se-run", "sme-run"]
    assert results.missing == {}
    assert results.study is None
    with pytest.raises(DataError, match=r"neither a study\.json nor"):
        read_single_runs(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"is one evaluated model; give the folder around it.*made"):
        read_single_runs(tmp_path / "made" / "se-run")
    (tmp_path / "made" / "twice").symlink_to("se-run")
    shutil.copytree(tmp_path / "made" / "sme-run", tmp_path / "made" / "untested")
    (tmp_path / "made" / "untested" / "counts.csv").unlink()
    results = read_single_runs(tmp_path / "made")
    assert results.conditions == ["se-run", "sme-run"]
    assert results.missing == {
        "twice": "is the evaluation of se-run, copied or linked",
        "untested": "has no counts.csv; evaluate it",
    }


def test_a_training_that_gave_the_same_weights_is_no_copy(tmp_path, bundle, planned, finished):
    run = planned(["se"], seeds=[0])["se/seed0"]
    finished(tmp_path / "made", run, bundle)
    (tmp_path / "made" / "se" / "seed0").rename(tmp_path / "made" / "a")
    shutil.copytree(tmp_path / "made" / "a", tmp_path / "made" / "b")
    for name, seconds in (("a", 3), ("b", 4)):
        home = tmp_path / "made" / name
        (home / "log.csv").write_text(f"epoch,seconds\n1,{seconds}\n")
        told = json.loads((home / "evaluation.json").read_text())
        told["log_sha256"] = log_sha256(home)
        (home / "evaluation.json").write_text(json.dumps(told))
    results = read_single_runs(tmp_path / "made")
    assert results.conditions == ["a"]
    assert results.missing["b"].startswith("was trained apart and has the weights and results of a")


def test_a_changed_protocol_is_added_to_the_history(tmp_path, bundle, planned, finished):
    planned(["se", "sme"])
    runs = planned(["se", "sme"])
    assert len(read_history(tmp_path)) == 1
    finished(tmp_path, runs["se/seed0"], bundle)
    planned(["se", "sme"], protocol={"alpha": 0.01})
    planned(["se", "sme"], protocol={"alpha": 0.01}, settings={"epochs": 3})
    history = read_history(tmp_path)
    assert [entry["protocol"]["alpha"] for entry in history] == [0.05, 0.01, 0.01]
    assert [entry["protocol"]["settings"]["epochs"] for entry in history] == [2, 2, 3]
    # results that other settings made have been seen all the same
    assert [entry["finished_runs"] for entry in history] == [0, 1, 1]
    (tmp_path / "protocol.json").write_text("{")
    with pytest.raises(DataError, match="restore it"):
        read_history(tmp_path)


def test_damaged_plan(tmp_path, bundle, planned):
    planned(["se"])
    (tmp_path / "plan.json").write_text("[{}]")
    with pytest.raises(ConfigError, match=r"plan\.json.*start the study again"):
        read_results(tmp_path)


def test_data_seeds_that_draw_from_one_table_share_its_cases(tmp_path, bundle, planned, finished):
    data = {"domain": "task", "predicted_metadata": "d{data_seed}"}
    runs = planned(["se"], data_seeds=[0, 1], data_settings=data)
    for run in runs.values():
        finished(tmp_path, run, bundle, table_sha256="one")
    cases = average_seeds(read_results(tmp_path).f1)
    assert sorted(cases["case"]) == [f"case{number}" for number in range(8)]


def test_runs_on_an_earlier_table_are_not_mixed_in(tmp_path, bundle, planned, finished):
    runs = planned(["se", "sme"])
    for folder, digest, day in (("se/seed0", "new", 2), ("sme/seed0", "old", 1)):
        made = finished(tmp_path, runs[folder], bundle, table_sha256=digest)
        record = json.loads((made / "run.json").read_text())
        record["ended"] = f"2026-01-0{day}T00:00:00+00:00"
        (made / "run.json").write_text(json.dumps(record))
    results = read_results(tmp_path)
    assert results.conditions == ["se"]
    assert results.missing["sme/seed0"] == "its table has changed since"


def test_altered_counts_are_not_reported(tmp_path, bundle, planned, finished):
    runs = planned(["se", "sme"])
    for folder in ("se/seed0", "sme/seed0"):
        made = finished(tmp_path, runs[folder], bundle)
    counts = made / "counts.csv"
    counts.write_text("".join(counts.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=r"sme/seed0: counts\.csv has changed.*evaluate .*seed0"):
        read_results(tmp_path)


FOLDS = {"variant": "me", "folds": [0, 1], "table_sha256": "t", "clean_up": {"largest": [1]}}


@pytest.fixture
def in_folds(tmp_path, bind):
    """Folders of two folds, each with two cases of its own; returns a function to bind one."""
    for fold in (0, 1):
        folder = tmp_path / f"manifold2-fold{fold}"
        folder.mkdir()
        rows = [
            (f"c{fold}{n}", f"g{fold}{n}", "test", "normal", "all", 1, 8, 1, 2, 50) for n in "ab"
        ]
        pd.DataFrame(rows, columns=COUNT_COLUMNS).to_csv(folder / "counts.csv", index=False)

    def rebind(fold, **changes):
        return bind(tmp_path / f"manifold2-fold{fold}", fold=fold, **{**FOLDS, **changes})

    rebind(0), rebind(1)
    return rebind


def test_folders_named_after_their_folds_are_one_condition(tmp_path, in_folds):
    results = read_single_runs(tmp_path)
    assert results.conditions == ["manifold2"]
    assert sorted(results.f1["case"]) == ["c0a", "c0b", "c1a", "c1b"]
    assert not results.missing
    for fold in (0, 1):
        in_folds(fold, folds=[0, 1, 2])
    assert list(read_single_runs(tmp_path).missing) == ["manifold2, fold 2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "sme"}, "different networks"),
        ({"settings": {"guidance": 0.5}}, "different settings"),
        ({"clean_up": {}}, "different clean-up"),
        ({"modes": ["normal", "zeros"]}, "different modes"),
        ({"table_sha256": "u"}, "different tables"),
        ({"members": [{"folder": "a"}, {"folder": "b"}]}, "ensembles of different size"),
    ],
)
def test_folds_that_were_not_tested_alike_are_refused(tmp_path, in_folds, change, message):
    in_folds(1, **change)
    with pytest.raises(DataError, match=f"manifold2: its folds were tested .*{message} .*fold0"):
        read_single_runs(tmp_path)


def test_a_case_of_two_folds_is_refused(tmp_path, in_folds):
    first, second = (tmp_path / f"manifold2-fold{fold}" / "counts.csv" for fold in (0, 1))
    second.write_text(first.read_text().replace("c0b", "c1b"))
    in_folds(1)
    with pytest.raises(DataError, match=r"manifold2: case c0a was tested twice .*fold0.*fold1"):
        read_single_runs(tmp_path)


def test_a_run_of_another_fold_than_planned_and_folds_of_nobody_are_told(
    tmp_path, bundle, planned, finished, bind
):
    runs = planned(["se"], seeds=[0], folds=[0, 1])
    folders = []
    for fold, run in enumerate(runs.values()):
        folders.append(finished(tmp_path, run, bundle, modes=("normal",)))
        counts = pd.read_csv(folders[-1] / "counts.csv")
        counts["case"] += f"-{fold}"
        counts.to_csv(folders[-1] / "counts.csv", index=False)
        bind(folders[-1], fold=fold, folds=[0, 1, 2])
    results = read_results(tmp_path)
    assert len(results.f1) == 16
    assert list(results.missing) == ["fold 2"]
    write_report(tmp_path)
    text = " ".join((tmp_path / "report.md").read_text().split())
    assert "Not tested, as the study has other folds: fold 2." in text
    assert "of the planned runs" not in text
    assert all(f"| se, seed 0, fold {fold} |" in text for fold in (0, 1))
    bind(folders[1], fold=0, folds=[0, 1, 2])
    with pytest.raises(DataError, match="se/seed0-fold1 tested fold 0 in the place of 1"):
        read_results(tmp_path)


def study_of(bundle, conditions):
    return Study(
        name="a", question="", bundle=str(bundle), conditions=conditions, seeds=[0],
        protocol=Protocol(comparisons=[]),
    )  # fmt: skip


def test_classes_are_named_as_the_data_name_them(volumes, tmp_path):
    run, other = volumes.run("se"), volumes.run("me")
    assert volumes.results(se=[run]).class_names == {}
    (run.folder / "classes.json").write_text('{"0": "background", "1": "liver"}')
    results = volumes.results(se=[run], me=[other])
    assert results.class_names == {1: "liver"}
    bundle = tmp_path / "bundle"  # whose author had other classes
    (bundle / "configs").mkdir(parents=True)
    (bundle / "configs" / "train.json").write_text("{}")
    channels = {"0": "background", "1": "kidney", "2": "tumour"}
    metadata = {"network_data_format": {"outputs": {"pred": {"channel_def": channels}}}}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    study = study_of(bundle, {"se": {}})
    assert replace(results, study=study).class_names == {1: "liver"}
    (other.folder / "classes.json").write_text("{}")  # they do not agree
    assert volumes.results(se=[run], me=[other]).class_names == {}


def test_cases_of_several_data_are_named_as_in_the_results(volumes):
    results = volumes.results(several_data=True, sme={(7, 0): volumes.run("sme")})
    first = results.cases.iloc[0]
    assert (first["case"], first["group"], first["volume"]) == ("data7/p0_0", "p0", "data7/p0")


def test_a_case_that_is_a_volume_is_told_by_its_planes(volumes):
    results = volumes.results(sme=[volumes.whole("sme")])
    assert results.cases["volume"].tolist() == results.cases["case"].tolist()  # as in volumes
    cases = results.counted_cases()
    sizes = pixel_sizes(cases)
    assert (sizes.dims, set(sizes.sizes)) == (3, {0.75})
    sizes = pixel_sizes(volumes.results(se=[volumes.run("se")]).counted_cases())
    assert (sizes.dims, set(sizes.sizes)) == (2, {0.25})
    images = cases.assign(spacing_z_mm=float("nan"))  # single images: planes have no distance
    assert pixel_sizes(images).dims == 2
    images.loc[0, "spacing_z_mm"] = 3.0
    assert pixel_sizes(images) is None
    unknown = volumes.run("me")
    (unknown.folder / "cases.csv").unlink()
    assert pixel_sizes(volumes.results(me=[unknown]).counted_cases()) is None


def test_values_are_those_of_most_conditions_whatever_the_order(volumes):
    runs = {
        "me_unrelated": [volumes.run("me-unrelated").edit(size="33")],
        "se": [volumes.run("se")],
        "sme": [volumes.run("sme").edit()],
        "unknown": [volumes.run("unknown").edit(size="")],
        "elsewhere": [volumes.run("elsewhere").edit(lambda one: one.drop(columns="size"))],
    }
    sets = given_values(volumes.results(**runs), "size")
    assert [one.conditions for one in sets] == [["se", "sme"], ["me-unrelated"], ["unknown"]]
    told = other_values(sets[:2], "size")
    assert told == "me-unrelated was given other values of size than se and sme."
    assert set(sets[1].cases["size"]) == {"33"}


def test_who_reads_metadata(volumes):
    runs = {name: [volumes.run(name, modes=("normal",))] for name in ("se", "me", "mine")}
    runs["other"] = [volumes.run("other", modes=("normal", "missing"))]
    results = volumes.results(**runs)
    reading = {name: results.reads_metadata(name) for name in results.conditions}
    assert reading == {"se": False, "me": True, "mine": False, "other": True}
    planned = study_of("b", {"mine": {"variant": "film"}})
    assert replace(results, study=planned).reads_metadata("mine")


def test_a_condition_trained_elsewhere_is_a_row_of_the_study(tmp_path, bundle, planned, finished):
    pair = [["sme", "nnU-Net 2D"], ["sme", "se"]]
    more = {"seeds": [3, 4], "elsewhere": ["nnU-Net 2D"], "protocol": {"comparisons": pair}}
    runs = planned(["se", "sme"], **more)
    assert read_history(tmp_path)[-1]["protocol"]["elsewhere"] == "nnU-Net 2D"
    for folder in ("se/seed3", "sme/seed3"):
        finished(tmp_path, runs[folder], bundle, modes=("normal",))
    results = read_results(tmp_path)
    assert "put its results there" in results.missing["elsewhere/nnU-Net 2D"]
    _, not_made = compare_all(results, results.study.protocol)
    assert not_made == {"sme - nnU-Net 2D": "nnU-Net 2D has no results"}

    other = tmp_path / "elsewhere" / "nnU-Net 2D"
    shutil.copytree(tmp_path / "se" / "seed3", other)
    shutil.copytree(other, other.with_name("another"))  # a row that no comparison names
    results = read_results(tmp_path)
    assert results.conditions == ["se", "sme", "nnU-Net 2D", "another"]
    assert results.trainings["nnU-Net 2D"] == 1
    assert not results.reads_metadata("nnU-Net 2D")
    made, not_made = compare_all(results, results.study.protocol)
    assert [one.name for one in made] == ["sme - nnU-Net 2D", "sme - se"]
    assert list(made[0].seeds) == [(0, 3)]
    assert not not_made

    record = json.loads((other / "evaluation.json").read_text())
    for folder in ("se/seed3", "sme/seed3"):
        changed = {**json.loads((tmp_path / folder / "evaluation.json").read_text())}
        changed["table_sha256"] = "of now"
        (tmp_path / folder / "evaluation.json").write_text(json.dumps(changed))
    for digest, kept in (("of then", False), ("of now", True)):
        told = json.dumps({**record, "table_sha256": digest})
        (other / "evaluation.json").write_text(told)
        results = read_results(tmp_path)
        assert ("nnU-Net 2D" in results.conditions) == kept
    assert "another" in results.conditions  # of no known table
    counts = pd.read_csv(other / "counts.csv")
    counts.loc[counts["case"] == "case2", "fn"] += 1
    counts.to_csv(other / "counts.csv", index=False)
    bind_results(other, modes=("normal",))
    results = read_results(tmp_path)
    assert "labels are not those of the study ('case2')" in results.missing["elsewhere/nnU-Net 2D"]
    assert results.conditions == ["se", "sme", "another"]

    with (other / "counts.csv").open("a") as table:
        table.write("\n")
    with pytest.raises(DataError, match="has changed since the evaluation"):
        read_results(tmp_path)
    other.rename(other.with_name("se"))
    with pytest.raises(ConfigError, match="a condition of the study has this name"):
        read_results(tmp_path)
    with pytest.raises(ConfigError, match="elsewhere"):
        Study(name="s", bundle="b", conditions={"elsewhere": {"variant": "se"}})
