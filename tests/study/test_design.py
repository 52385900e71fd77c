import json

import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.study import Study
from metaseg_monai.study.design import fill_data_seed, nothing_compared, smallest_planned

PLAIN = {"name": "two", "bundle": "b", "conditions": ["se", "sme", "sme-dummy"]}


def test_round_trip(tmp_path):
    (tmp_path / "study.json").write_text(json.dumps({**PLAIN, "protocol": {"alpha": 0.01}}))
    study = Study.load(tmp_path / "study.json")
    assert study.conditions == {"se": {}, "sme": {}, "sme-dummy": {}}
    assert study.protocol.comparisons == [["sme", "se"], ["sme", "sme-dummy"]]
    assert Study(**study.model_dump()) == study


@pytest.mark.parametrize(
    ("conditions", "pairs"),
    [
        (["none", "sme"], [["sme", "none"]]),
        (["none", "sme", "sme-dummy"], [["sme", "none"], ["sme", "sme-dummy"]]),
        (["none", "se", "film"], [["film", "se"]]),
        (
            ["constant-channel", "none", "me"],
            [["constant-channel", "none"], ["me", "none"], ["me", "constant-channel"]],
        ),
        (["none", "se"], []),
        (["sme"], []),
    ],
)
def test_default_comparisons_ask_whether_metadata_help(conditions, pairs):
    study = Study(**{**PLAIN, "conditions": conditions})
    assert study.protocol.comparisons == pairs
    told = nothing_compared(study)
    assert told == "" if pairs else f"no comparison is planned of {', '.join(conditions)}" in told


def test_no_comparison_can_be_asked_for():
    assert Study(**PLAIN, protocol={"comparisons": []}).protocol.comparisons == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conditons": []}, "unknown key 'conditons', expected one of name"),
        ({"protocol": {"tests": "t"}}, r"unknown key 'protocol.tests', expected one of aggregate"),
        ({"conditions": []}, "at least one condition"),
        ({"conditions": ["smee"]}, "'smee' is none of none, se"),
        ({"conditions": {"a/b": {"variant": "se"}}}, "'a/b' cannot name a folder"),
        ({"conditions": {"figures": {"variant": "se"}}}, "'figures' cannot name a folder"),
        ({"conditions": {"Previous": {"variant": "se"}}}, "'Previous' cannot name a folder"),
        ({"conditions": {"study.json": {"variant": "se"}}}, "cannot name a folder"),
        ({"conditions": {"a": {"variant": "se"}, "A": {"variant": "me"}}}, "upper and lower case"),
        ({"conditions": ["se", "se"]}, "each name once"),
        ({"conditions": {"a": {"variant": "se", "seed": 7}}}, "a: seed belong to the matrix"),
        ({"conditions": {"experts": {"variant": "sme"}}}, "experts are SE networks"),
        ({"data_settings": {"seed": 3}}, "data_settings: seed belong"),
        ({"protocol": {"comparisons": [["sme", "se"], ["se", "sme"]]}}, "each pair once"),
        ({"protocol": {"learned": [0.8, 0.2]}}, "low, high"),
        ({"seeds": []}, "seeds: expected different whole numbers"),
        ({"seeds": [1, 1]}, "different whole numbers"),
        ({"seeds": [-1]}, "whole numbers from 0"),
        ({"data_seeds": [0, 1]}, "data_settings that hold"),
        ({"settings": {"seed": 3}}, "seed belong to the matrix"),
        ({"protocol": {"comparisons": [["sme", "film"]]}}, "comparisons name film"),
        ({"elsewhere": ["SE"]}, "'SE' is a condition, and trained elsewhere"),
        ({"elsewhere": ["../a"]}, r"'\.\./a' cannot name a folder"),
        ({"elsewhere": ["a", "A"]}, "each name once"),
        ({"protocol": {"comparisons": [["sme", "sme"]]}}, "two different conditions"),
        ({"protocol": {"test": "anova"}}, "protocol.test"),
        ({"protocol": {"alpha": 1.5}}, "protocol.alpha"),
    ],
)
def test_refusals(change, reason):
    with pytest.raises(ConfigError, match=reason):
        Study(**{**PLAIN, **change})


def test_comparisons_may_name_what_is_trained_elsewhere():
    pair = [["sme", "nnU-Net 2D"]]
    study = Study(**PLAIN, elsewhere=["nnU-Net 2D"], protocol={"comparisons": pair})
    assert study.protocol.comparisons == pair
    assert Study(**PLAIN, elsewhere=["nnU-Net 2D"]).protocol.comparisons[0] == ["sme", "se"]


def test_a_file_that_is_no_study(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.json: no study"):
        Study.load(tmp_path / "none.json")
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"list\.json: no study: expected an object"):
        Study.load(tmp_path / "list.json")


def test_data_seed_is_filled_in():
    nested = fill_data_seed({"table": {"seed": "{data_seed}"}, "a": ["x{data_seed}"]}, 2)
    assert nested == {"table": {"seed": 2}, "a": ["x2"]}
    settings = {"dataset_dir": "d-{data_seed}", "table#seed": "{data_seed}", "table#size": 48}
    assert fill_data_seed(settings, 4) == {
        "dataset_dir": "d-4",
        "table#seed": 4,
        "table#size": 48,
    }


def test_a_list_of_conditions_holds_names():
    with pytest.raises(ConfigError, match="conditions: expected names, or settings by name"):
        Study(name="s", bundle="b", seeds=[0], conditions=[{"me": {}}])


def test_a_pilot_says_before_what_can_be_found():
    pilot = {"patients": 0.05, "trainings": 0.01, "residual": 0.02, "source": "an earlier study"}
    study = Study(
        name="s", bundle="b", conditions=["se", "sme"],
        protocol={"sample_size": 30, "pilot": pilot},
    )  # fmt: skip
    told = smallest_planned(study)
    assert told.startswith("30 patients (groups) and 3 trainings find a difference of 0.0")
    assert told.endswith(
        "power 0.8 at alpha 0.05, by the spread that was stated (an earlier study)"
    )
    few = study.model_copy(update={"seeds": [0]})
    assert smallest_planned(few).startswith("with 30 patients (groups) and 1 trainings no effect")
    without = study.protocol.model_copy(update={"pilot": None})
    assert smallest_planned(study.model_copy(update={"protocol": without})) == ""
    pilot = study.protocol.pilot.model_copy(update={"trainings": 1.5})
    wide = study.protocol.model_copy(update={"pilot": pilot})
    with pytest.raises(ConfigError, match=r"pilot: trainings is 1\.5, and scores are from 0 to 1"):
        smallest_planned(study.model_copy(update={"protocol": wide}))
    with pytest.raises(ConfigError, match=r"unknown key 'protocol\.pilot\.patient'"):
        Study(name="s", bundle="b", conditions=["se"], protocol={"pilot": {"patient": 1}})
