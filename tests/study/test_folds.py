"""Folds of a study: each case is tested once, and a report scores all of them together."""

import csv
import json
import re
import shutil

import pandas as pd
import pytest

import metaseg_monai as mm
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation import read_counts
from metaseg_monai.reporting.runs import read_results, read_single_runs
from metaseg_monai.sharing.study import make_study, study
from metaseg_monai.simulate import generate_synthetic_shapes
from metaseg_monai.study.design import Study
from metaseg_monai.study.matrix import expand

SMALL = {"train": 12, "val": 3, "test": 6, "size": 32}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Shapes with a column of folds; those of the split test are a fixed test set."""
    folder = tmp_path_factory.mktemp("data") / "shapes"
    generate_synthetic_shapes(output=folder, **SMALL)
    (folder / "generated.json").unlink()
    with (folder / "table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    groups = sorted({row["group"] for row in rows if row["split"] != "test"})
    for row in rows:
        fixed = row["split"] == "test"
        row["fold"] = "" if fixed else groups.index(row["group"]) % 3
    with (folder / "table.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="module")
def settings(table, tiny):
    own = {key: value for key, value in tiny.items() if key != "table#path"}
    return {**own, "dataset_dir": str(table), "epochs": 2, "modes": ["normal"]}


def made(bundle, settings, **more):
    own = {"name": "f", "bundle": str(bundle), "seeds": [0], "settings": settings}
    return Study(**{**own, "conditions": {"se": {}, "none": {}}, **more})


def test_a_run_for_each_fold_that_selects_after_it(bundle, settings):
    select = {"_target_": "metaseg_monai.tables.select_cases", "only": {"task": ["disc"]}}
    runs = expand(made(bundle, {**settings, "cases": select}, folds=[0, 2]))
    assert [run.folder for run in runs] == [
        f"{name}/seed0-fold{fold}" for fold in (0, 2) for name in ("se", "none")
    ]
    assert runs[2].settings["cases"]["table"] == {
        "_target_": "metaseg_monai.tables.fold_cases",
        "table": "@table",
        "fold": 2,
    }
    assert len({run.key for run in runs}) == 4
    assert expand(made(bundle, settings))[0].fold is None


def test_folds_on_validation_cases_are_refused(bundle, settings):
    with pytest.raises(ConfigError, match="split is 'val' with folds"):
        expand(made(bundle, {**settings, "split": "val"}, folds=[0, 1]))
    with pytest.raises(ConfigError, match="folds: expected different whole numbers"):
        made(bundle, settings, folds=[1, 1])


def asked(bundle, settings, folds=None, **more):
    return make_study(bundle, ["se"], 1, {**settings, **more}, folds=folds).folds


def test_a_table_of_folds_asks_which_are_tested(bundle, settings, table, tmp_path):
    told = "deals the folds 0, 1, 2 .*--folds all .*once, 3 trainings for each.*or --folds 0"
    with pytest.raises(ConfigError, match=told):
        asked(bundle, settings)
    assert asked(bundle, settings, "all") == [0, 1, 2]
    assert asked(bundle, settings, 0) == [0]
    assert asked(bundle, settings, "0,2") == asked(bundle, settings, (0, 2)) == [0, 2]
    for wrong in (3, "0,7", "", True, -1):
        with pytest.raises(ConfigError, match="deals the folds 0, 1, 2; give all, or these"):
            asked(bundle, settings, wrong)
    with pytest.raises(ConfigError, match="--folds some: give all, or some of 0, 1, 2"):
        asked(bundle, settings, "some")
    file = tmp_path / "study.json"
    file.write_text(made(bundle, settings).model_dump_json())
    assert make_study(file, None, None, {}).folds is None  # a file says what it means
    with pytest.raises(ConfigError, match="names its folds itself"):
        make_study(file, None, None, {}, folds="all")


def test_who_has_chosen_or_has_no_folds_is_not_asked(bundle, settings, table, tmp_path):
    fold = {"_target_": "metaseg_monai.tables.fold_cases", "table": "@table", "fold": 1}
    assert asked(bundle, settings, cases=fold) is None
    assert asked(bundle, settings, split="val") is None
    plain = tmp_path / "plain"
    shutil.copytree(table, plain)
    rows = pd.read_csv(plain / "table.csv", dtype=str, keep_default_na=False)
    rows.assign(fold="").to_csv(plain / "table.csv", index=False)
    for place in (plain, tmp_path / "not yet"):
        mine = {**settings, "dataset_dir": str(place)}
        assert asked(bundle, mine) is None
        with pytest.raises(ConfigError, match=r"table\.csv deals no folds to test on"):
            asked(bundle, mine, "all")


def test_a_column_of_folds_is_read_as_everywhere(bundle, settings, table, tmp_path):
    rows = pd.read_csv(table / "table.csv", dtype=str, keep_default_na=False)
    shutil.copytree(table, tmp_path / "t")
    for column, told in (("split", "has no fold, and is no fixed test"), ("fold", "fold 'x', exp")):
        wrong = rows.copy()
        wrong.loc[wrong["split"] == "train", "fold"] = "" if column == "split" else "x"
        wrong.to_csv(tmp_path / "t" / "table.csv", index=False)
        with pytest.raises(DataError, match=told):
            asked(bundle, {**settings, "dataset_dir": str(tmp_path / "t")}, "all")


def test_a_training_tells_that_it_takes_the_split_of_a_table_of_folds(
    bundle, settings, tmp_path, capsys
):
    short = {key: value for key, value in settings.items() if key != "modes"}
    short |= {"epochs": 2, "variant": "none"}
    mm.train(bundle, tmp_path / "a", **short)
    told = r"column split of .*table\.csv, not on its folds 0, 1, 2: --fold 0 takes one"
    assert re.search(told, "".join(capsys.readouterr()))
    mm.train(bundle, tmp_path / "b", fold=1, **short)
    assert "column split" not in "".join(capsys.readouterr())


def test_a_study_tests_each_case_once(bundle, settings, table, tmp_path):
    file = tmp_path / "study.json"
    conditions = {"se": {}}
    plan = made(bundle, settings, folds=[0, 1, 2], conditions=conditions)
    file.write_text(plan.model_dump_json())
    study(str(file), output=tmp_path / "out", workers=1, threads=1)
    results = read_results(tmp_path / "out")
    rows = pd.read_csv(table / "table.csv", dtype=str, keep_default_na=False)
    assert len(results.runs) == 3
    assert results.trainings == {"se": 1}
    counted = results.f1["case"]
    assert counted.is_unique
    assert len(counted) == (rows["fold"] != "").sum()
    assert sorted(results.cases["case"]) == sorted(counted)


def test_one_fold_is_trained_and_evaluated_by_name(bundle, settings, table, tmp_path):
    mine = {name: value for name, value in settings.items() if name != "modes"}
    with pytest.raises(ConfigError, match="with --fold give --output_dir"):
        mm.train(bundle, fold=1, **mine)
    folder = mm.train(bundle, tmp_path / "fold1", fold=1, variant="se", **mine).folder
    mm.evaluate(folder)
    rows = pd.read_csv(table / "table.csv", dtype=str, keep_default_na=False)
    tested = read_counts(folder / "counts.csv")["group"].unique()
    assert sorted(tested) == sorted(rows.loc[rows["fold"] == "1", "group"].unique())


def test_an_ensemble_over_folds_is_tested_on_the_fixed_test_set(bundle, settings, table, tmp_path):
    mine = {name: value for name, value in settings.items() if name != "modes"}
    models = [
        mm.train(bundle, tmp_path / f"fold{fold}", fold=fold, variant="se", **mine).folder
        for fold in (0, 1)
    ]
    home = tmp_path / "ensemble"
    mm.evaluate(models, output_dir=home)
    rows = pd.read_csv(table / "table.csv", dtype=str, keep_default_na=False)
    tested = read_counts(home / "counts.csv")["group"].unique()
    assert sorted(tested) == sorted(rows.loc[rows["fold"] == "", "group"].unique())
    assert json.loads((home / "evaluation.json").read_text())["images"] == "unseen"
    few = tmp_path / "all in folds"
    shutil.copytree(table, few)
    rows[rows["fold"] != ""].to_csv(few / "table.csv", index=False)
    with pytest.raises(DataError, match="every case is in a fold, so that networks of several"):
        mm.evaluate(models, output_dir=tmp_path / "none", dataset_dir=few)


@pytest.mark.parametrize("order", [1, -1])
def test_models_of_folds_and_of_the_splits_are_no_ensemble(bundle, tmp_path, order):
    fold = {"cases": {"_target_": "metaseg_monai.tables.fold_cases", "table": "@table", "fold": 0}}
    for name, settings in (("plain", {}), ("fold0", fold)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt").touch()
        record = {"bundle": str(bundle), "settings": settings}
        (tmp_path / name / "training.json").write_text(json.dumps(record))
    models = [tmp_path / name for name in ("plain", "fold0")[::order]]
    told = "fold0 was trained on folds of the table and .*plain on its splits"
    with pytest.raises(ConfigError, match=told):
        mm.evaluate(models, output_dir=tmp_path / "both")


def test_out_of_fold_models_and_ensembles_test_each_case_once(bundle, settings, table, tmp_path):
    """The score on all cases, of networks that have seen none of them; of one fold two seeds."""
    mine = {**settings, "variant": "se"}
    del mine["modes"]
    tested = tmp_path / "tested"
    places = [(0, 0, tested / "se-fold0"), (0, 1, tmp_path / "b")]
    places += [(fold, 0, tested / f"se-fold{fold}") for fold in (1, 2)]
    for fold, seed, place in places:
        mm.train(bundle, place, **{**mine, "fold": fold, "seed": seed})
    for fold in (1, 2):
        mm.evaluate(tested / f"se-fold{fold}", modes="normal")
    both, alone = [tested / "se-fold0", tmp_path / "b"], tmp_path / "alone"
    mm.evaluate(both, output_dir=tmp_path / "ensemble", modes="normal")
    (tested / "se-fold0").rename(alone)
    (tmp_path / "ensemble").rename(tested / "se-fold0")
    with pytest.raises(DataError, match="as ensembles of different size"):
        read_single_runs(tested)
    (tested / "se-fold0").rename(tmp_path / "ensemble")
    assert list(read_single_runs(tested).missing) == ["se, fold 0"]
    alone.rename(tested / "se-fold0")
    mm.evaluate(tested / "se-fold0", modes="normal")
    rows = pd.read_csv(table / "table.csv", dtype=str, keep_default_na=False)
    results = read_single_runs(tmp_path / "tested")
    assert results.conditions == ["se"]
    assert [run.fold for run in results.runs] == [0, 1, 2]
    counted = results.f1["case"]
    assert counted.is_unique
    assert len(counted) == (rows["fold"] != "").sum()
    assert sorted(results.cases["case"]) == sorted(counted)
    mm.report(tmp_path / "tested", tmp_path / "report")
    told = json.loads((tmp_path / "report" / "summary.json").read_text())
    assert told["conditions"]["se"]
    record = tmp_path / "tested" / "se-fold1" / "evaluation.json"
    content = json.loads(record.read_text())
    record.write_text(json.dumps({**content, "table_sha256": "another"}))
    with pytest.raises(DataError, match="folds were tested on different tables"):
        read_single_runs(tmp_path / "tested")
    (tmp_path / "tested" / "se-fold1").rename(tmp_path / "tested" / "other")
    assert read_single_runs(tmp_path / "tested").conditions == ["other", "se"]
