import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from metaseg_monai.bundle.overrides import check_overrides
from metaseg_monai.errors import ConfigError, MetasegError
from metaseg_monai.study import Study
from metaseg_monai.study.matrix import expand, few_epochs
from metaseg_monai.study.run import run_study
from metaseg_monai.study.worker import training_settings

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
SELECT = {"_target_": "metaseg_monai.tables.select_cases", "table": "@table"}
SHAPES = ["triangle", "ring", "disc", "mesh_square", "square", "cross"]


@pytest.fixture
def study(tiny):
    """Makes a study of a bundle."""

    def make(bundle, conditions, **changes):
        settings = {**tiny, "dataset_dir": "data", **changes.pop("settings", {})}
        return Study(
            name="s", bundle=str(bundle), conditions=conditions, settings=settings, **changes
        )

    return make


def test_seeds_come_first_so_that_an_early_stop_leaves_whole_comparisons(study, bundle):
    runs = expand(study(bundle, ["se", "sme"], seeds=[3, 5]))
    assert [run.folder for run in runs] == ["se/seed3", "sme/seed3", "se/seed5", "sme/seed5"]
    assert [run.settings["seed"] for run in runs] == [3, 3, 5, 5]
    assert runs[1].settings["variant"] == "sme"
    assert runs[0].epochs == 2
    assert runs[0].planned_epochs == 14  # of the bundle's train.json
    smaller = expand(study(bundle, ["se"], seeds=[3], settings={"batch_size": 4}))
    assert smaller[0].planned_epochs == 7  # as many steps as 14 epochs of 8 images each


def test_experts_are_one_se_network_for_each_domain(study, bundle):
    runs = expand(study(bundle, ["experts", "experts-steps"], seeds=[0]))
    assert [run.domain for run in runs] == SHAPES * 2
    assert {run.settings["variant"] for run in runs} == {"se"}
    assert runs[2].settings["cases"]["only"] == {"task": ["disc"]}
    assert ["train#dataset#data" in run.settings for run in runs] == [False] * 6 + [True] * 6
    few = {"cases": {**SELECT, "only": {"task": ["disc", "ring"]}}}
    fewer = expand(study(bundle, ["experts"], settings=few))
    assert {run.domain for run in fewer} == {"disc", "ring"}
    assert fewer[0].settings["cases"]["table"] == few["cases"]


def test_experts_with_a_network_of_their_own_are_se_networks_too(study, bundle):
    network = {
        "_target_": "metaseg_monai.networks.condition",
        "network": {"_target_": "SegResNet", "spatial_dims": 2},
    }
    runs = expand(study(bundle, {"experts": {"network_def": network}}, seeds=[0]))
    assert {run.settings["network_def"]["variant"] for run in runs} == {"se"}


def test_experts_at_equal_steps_see_their_cases_as_often_as_all_are(study, bundle, tmp_path):
    rare = {"cases": {**SELECT, "share": {"task": {"disc": {"of": "own", "part": 0.5}}}}}
    settings = {**rare, "dataset_dir": str(tmp_path / "data")}
    run = expand(study(bundle, ["experts-steps"], settings=settings))[2]
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "train.json")
    parser.update({**run.settings, "bundle_root": str(bundle)})
    items = parser.get_parsed_content("train#dataset").data
    assert {item["metadata"]["task"] for item in items} == {"disc"}
    assert len(items) == 11  # of twelve, two of each task, one is left out
    assert len({item["case"] for item in items}) == 1
    assert len(parser.get_parsed_content("cases").items("test")) == 6


def test_gates_are_explained_once_for_each_condition_that_takes_metadata(study, bundle):
    runs = expand(study(bundle, ["se", "sme", "sme-dummy", "experts"], seeds=[4, 5]))
    assert [run.folder for run in runs if run.explain] == ["sme/seed4"]
    assert not any(run.explain for run in expand(study(bundle, ["sme"], explain=False)))


@pytest.mark.parametrize(("epochs", "told"), [(3, None), (2, "from 3 epochs on")])
def test_trainings_too_short_for_any_conclusion_are_told(study, bundle, epochs, told):
    runs = expand(study(bundle, ["sme"], seeds=[4, 5], settings={"epochs": epochs}))
    runs = [replace(run, planned_epochs=8 + 4 * (run.seed - 4)) for run in runs]  # 8 and 12
    said = few_epochs(runs)
    assert said is None if told is None else told in said


def test_a_study_says_so_before_it_trains(study, bundle, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("metaseg_monai.study.run.run_all", lambda *asked: {})
    run_study(study(bundle, ["sme"], seeds=[4]), tmp_path / "out", workers=1)
    assert "sme/seed4, have hardly begun when they end: 2 of 14 epochs" in caplog.text
    assert "it does from 4 epochs on" in caplog.text
    assert "trained once" not in caplog.text  # nothing is compared
    run_study(study(bundle, ["se", "sme"], seeds=[4]), tmp_path / "two", workers=1)
    assert "each condition is trained once: the report will not say" in caplog.text
    caplog.clear()
    run_study(study(bundle, ["se", "sme"], seeds=[4, 5]), tmp_path / "three", workers=1)
    assert "trained once" not in caplog.text


def test_explaining_takes_settings_that_are_checked_before_anything_runs(study, bundle):
    asked = {"explain_cases": 3, "modes": ["normal"]}
    assert [run.explain for run in expand(study(bundle, ["sme"], seeds=[4], explain=asked))] == [
        asked
    ]
    with pytest.raises(ConfigError, match=r"explain_case'.*did you mean explain_cases"):
        expand(study(bundle, ["sme"], explain={"explain_case": 3}))
    with pytest.raises(ConfigError, match=r"explain, explain_cases: expected a number"):
        study(bundle, ["sme"], explain={"explain_cases": "$__import__('os')"})


def test_experts_need_a_domain(study, bundle):
    with pytest.raises(ConfigError, match=r"set `domain` to a field with labels, of task"):
        expand(study(bundle, ["experts"], settings={"domain": None}))


def test_an_ablation_changes_its_own_settings(study, bundle):
    runs = expand(
        study(bundle, {"ends": {"variant": "me", "network_def#places": ["encoder1"]}}, seeds=[0])
    )
    assert runs[0].settings["network_def#places"] == ["encoder1"]
    assert runs[0].folder == "ends/seed0"


def test_data_seeds_make_data_and_folders_of_their_own(study, bundle):
    data = {"dataset_dir": "d{data_seed}", "table#path#seed": "{data_seed}"}
    rare = {
        "se": {
            "cases": {
                **SELECT,
                "share": {"task": {"disc": {"of": "own", "part": 0.5}}},
                "seed": "{data_seed}",
            }
        }
    }
    runs = expand(study(bundle, rare, seeds=[0], data_seeds=[4, 5], data_settings=data))
    assert [run.folder for run in runs] == ["se/data4-seed0", "se/data5-seed0"]
    assert [run.settings["table#path#seed"] for run in runs] == [4, 5]
    assert [run.settings["cases"]["seed"] for run in runs] == [4, 5]


def test_misspelt_settings_are_refused_before_anything_runs(study, bundle):
    with pytest.raises(ConfigError, match="epoch"):
        expand(study(bundle, ["se"], settings={"epoch": 2}))
    with pytest.raises(ConfigError, match="'smee'"):
        expand(study(bundle, {"mine": {"variant": "smee"}}))


def test_a_setting_within_one_of_the_evaluation_is_kept_from_the_training():
    bundle = BUNDLES / "seven_lines_nuclei_segmentation"
    nested = {"objects#method": "components", "weights::path": "model.pt", "+regions#all": [1]}
    settings = {"epochs": 2, "train#trainer#max_epochs": 2, "objects": None, **nested}
    training = training_settings(bundle, settings)
    assert training == {"epochs": 2, "train#trainer#max_epochs": 2}
    check_overrides([bundle / "configs" / "train.json"], training)
    planned = {"objects#method": "components", "dataset_dir": "data"}
    expand(Study(name="s", bundle=str(bundle), conditions={"se": {}}, settings=planned))


def test_the_key_tells_every_change_of_the_configuration(study, bundle, tmp_path):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(json.loads((bundle / "configs" / "schema.json").read_text())))

    def key(**settings):
        made = study(bundle, ["se"], seeds=[0], settings={"schema_file": str(schema), **settings})
        return expand(made)[0].key

    first = key()
    assert key() == first
    assert key(epochs=3) != first
    assert key(modes=["normal"]) == key(regions={}) == first  # no other training
    schema.write_text(schema.read_text() + "\n")
    assert key() != first
    edited = bundle.parent / "edited"
    edited.mkdir()
    (edited / "configs").symlink_to(bundle / "configs")
    same = study(edited, ["se"], seeds=[0], settings={"schema_file": str(schema)})
    assert expand(same)[0].key == key()


def test_where_the_table_lies(study, bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    columns = tmp_path / "columns.json"
    columns.write_text('{"table": "manifest.csv"}')
    run = expand(study(bundle, ["se"], settings={"columns_file": str(columns)}))[0]
    assert run.table == str(tmp_path / "data" / "manifest.csv")
    own = study(bundle, ["se"])
    del own.settings["dataset_dir"]
    assert expand(own)[0].table == str(bundle / "data" / "table.csv")
    monkeypatch.setattr("metaseg_monai.files.INSTALLED", bundle.parent)  # with the package
    assert expand(own)[0].table == str(tmp_path / bundle.name / "data" / "table.csv")


def test_a_schema_that_the_bundle_names_itself_is_in_the_key(study, bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "b")
    config = tmp_path / "b" / "configs" / "train.json"
    content = json.loads(config.read_text())
    content["schema_file"] = "$@bundle_root + '/configs/schema.json'"
    config.write_text(json.dumps(content))
    first = expand(study(tmp_path / "b", ["se"]))[0].key
    schema = tmp_path / "b" / "configs" / "schema.json"
    schema.write_text(schema.read_text() + " ")
    assert expand(study(tmp_path / "b", ["se"]))[0].key != first


@pytest.mark.parametrize(
    ("settings", "protocol", "reason"),
    [
        ({"modes": ["shuffle"]}, {}, "modes must hold 'normal'"),
        ({"modes": ["normal", "zeroes"]}, {}, "no test mode 'zeroes'"),
        ({"modes": ["normal", "fixed:circel"]}, {}, "fixed:circel"),
        ({"modes": ["normal", "perturb:2"]}, {}, "needs a continuous field"),
        ({"modes": ["normal", "inverse"]}, {}, "needs a schema of one field with two labels"),
        ({"modes": ["normal", "predicted"]}, {}, "need estimates"),
        ({"shuffle": {"task": {"disc": "ring"}}}, {}, "shuffle mapping of field 'task'"),
        ({"regions": {"all": {"classes": [0], "tolerance_mm": 1}}}, {}, "region 'all'"),
        ({"regions": {"all": [1]}}, {}, "region 'all'"),
        ({"objects": {"method": "guess"}}, {}, "method"),
        ({"clean_up": {"objects_px": 3}}, {}, "objects_px"),
        ({"split": "train"}, {}, "split is 'train'"),
        ({"epochs": "$2*3"}, {}, "epochs is"),
        ({"schema_file": "none.json"}, {}, "none.json"),
        ({"columns_file": "none.json"}, {}, "none.json"),
        ({}, {"domain": "circel"}, "domain 'circel' is none of the domains: triangle"),
    ],
)
def test_what_would_be_refused_after_training_is_refused_before(
    study, bundle, settings, protocol, reason
):
    with pytest.raises(MetasegError, match=reason):
        expand(study(bundle, ["se"], settings=settings, protocol=protocol))


@pytest.mark.parametrize("only", ["disc", ["dis"]])
def test_experts_of_domains_that_are_none(study, bundle, only):
    few = {"cases": {**SELECT, "only": {"task": only}}}
    with pytest.raises(ConfigError, match="expected a list of triangle"):
        expand(study(bundle, ["experts"], settings=few))


def test_another_network_gets_the_schema_variant_and_windows_of_its_condition(study, bundle):
    net = {"_target_": "SegResNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    of_any = {
        "network_def": {"_target_": "metaseg_monai.networks.condition", "network": net},
        "window_inferer": {"_target_": "metaseg_monai.inferers.SlidingWindowMetadataInferer"},
    }
    named = {"bare": "none", "told": "sme", "zeros": "sme-dummy"}
    conditions = {name: {**of_any, "variant": variant} for name, variant in named.items()}
    for run in expand(study(bundle, conditions, seeds=[0])):
        given = run.settings["network_def"]
        assert (given["schema"], given["variant"]) == ("@schema", named[run.condition])
        assert given["unknown_trained"] == "$@metadata_dropout > 0"
        assert given["network"] == net  # which takes none of these
        assert run.settings["window_inferer"]["roi_size"] == "@roi_size"


def test_another_dataset_gets_the_cases_chains_and_seed_of_the_training(study, bundle):
    joined = {"_target_": "metaseg_monai.training.joined_dataset", "heads": "task"}
    (run,) = expand(study(bundle, {"heads": {"variant": "se", "train#dataset": joined}}, seeds=[0]))
    given = run.settings["train#dataset"]
    assert {name: given[name] for name in ("heads", "schema", "transform", "seed")} == {
        "heads": "task",
        "schema": "@schema",
        "transform": "@train::preprocessing",
        "seed": "@seed",
    }
    assert given["data"] == "$@cases.items('train')"
    assert "drop_metadata" in given["augment"]  # as the bundle's own, whose weights know unknown
