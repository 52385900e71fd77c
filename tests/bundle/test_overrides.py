import json
import shutil
from pathlib import Path

import pytest

from metaseg_monai.bundle import check_overrides, load_config
from metaseg_monai.bundle.overrides import names_in, read_config, refuse_unused
from metaseg_monai.bundle.run import read_workflow, resolve_bundle
from metaseg_monai.errors import ConfigError

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NO_PART = ("metadata", "facts", "schema", "columns", "simulate")  # of configs/
CONFIG = {
    "epochs": 3,
    "train": {
        "trainer": {"_target_": "SupervisedTrainer", "max_epochs": "@epochs"},
        "loader": {"_target_": "torch.utils.data.DataLoader", "dataset": "@data"},
    },
    "run": ["$@train#trainer.run()"],
}


@pytest.fixture
def files(tmp_path):
    path = tmp_path / "train.json"
    path.write_text(json.dumps(CONFIG))
    return [path]


@pytest.mark.parametrize(
    "key",
    [
        "epochs",
        "train#trainer#max_epochs",
        "train::trainer::max_epochs",
        "data",  # named by a reference only
        "train#loader#batch_size",  # an argument that the target takes
        "train#trainer#amp",
        "run",
    ],
)
def test_accepted(files, key):
    assert check_overrides(files, {key: "$1"}) == {key: "$1"}


def test_arguments_are_those_of_a_target_that_is_changed_as_well(files):
    changed = {"train#loader#_target_": "torch.utils.data.TensorDataset", "train#loader#tensors": 1}
    assert check_overrides(files, changed, written=True) == changed
    with pytest.raises(ConfigError, match="train#loader#tensors"):
        check_overrides(files, {"train#loader#tensors": 1}, written=True)


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("epoch", "epochs"),
        ("max_epochs", "train#trainer#max_epochs"),
        ("train#trainer#max_epoch", "max_epochs"),
        ("train#loader#batchsize", "batch_size"),
        ("zzz", "train.json"),
        ("pin_memory", "train#loader#pin_memory"),  # an argument of a component
        ("lr_cycles", "it is now lr_scheduler#cycles"),
        ("clean_up", "it is now a setting of evaluate and predict"),
        ("only", 'it is now a component under "cases"'),
    ],
)
def test_misspelt_is_refused_with_a_suggestion(files, key, hint):
    with pytest.raises(ConfigError, match=hint):
        check_overrides(files, {key: 1})


def test_values_have_the_type_of_the_default(files, tmp_path):
    path = tmp_path / "types.json"
    content = {"flag": False, "epochs": 3, "lr": 0.1, "name": "a", "free": None}
    path.write_text(json.dumps(content | {"size": [4, 4], "maybe": "$1 > 0"}))
    given = {"flag": "true", "epochs": "$1 + 1", "lr": 1, "free": "x"}
    assert check_overrides([path], given) == {**given, "flag": True}
    assert check_overrides([path], {"epochs": 2.0, "free": (1, 2)}) == {"epochs": 2, "free": [1, 2]}
    assert check_overrides([path], {"size": 8, "maybe": "false"}) == {
        "size": [8, 8],
        "maybe": False,
    }
    path.write_text(json.dumps(content | {"size": [4, 4], "maybe": "$1 > 0", "spacing_mm": 5.0}))
    assert check_overrides([path], {"spacing_mm": None}) == {"spacing_mm": None}
    for wrong in ({"epochs": None}, {"epochs": 2.5}, {"flag": None}, {"lr": None}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            check_overrides([path], wrong)
    for wrong in ({"flag": "no"}, {"flag": 1}, {"epochs": "abc"}, {"epochs": True}, {"name": 2024}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            check_overrides([path], wrong)


def test_null_as_the_command_line_passes_it_is_none(tmp_path):
    path = tmp_path / "off.json"
    content = {
        "balance": None, "objects": {"method": "watershed"}, "domain": "task", "path": "$1 + 1",
        "objects_by": ["task"], "spacing_mm": 5.0, "margin_px": 8, "dtype": "bfloat16",
    }  # fmt: skip
    path.write_text(json.dumps(content | {"epochs": 3, "flag": True, "roi_size": [4, 4]}))
    given = dict.fromkeys(content, "null")
    assert check_overrides([path], given) == dict.fromkeys(content)
    assert check_overrides([path], dict.fromkeys(content)) == dict.fromkeys(content)
    assert check_overrides([path], {"balance": "none"}) == {"balance": "none"}
    assert check_overrides([path], {"objects_by": "line"}) == {"objects_by": ["line"]}
    for wrong in ("epochs", "flag", "roi_size"):
        with pytest.raises(ConfigError, match=f"'{wrong}' is None, but the setting is"):
            check_overrides([path], {wrong: "null"})


def test_an_override_may_be_a_component_that_names_others(files):
    given = {"train#loader": {"_target_": "torch.utils.data.DataLoader", "dataset": "@mine"}}
    assert check_overrides(files, {**given, "mine": 3}) == {**given, "mine": 3}
    assert check_overrides(files, {**given, "mine": 3, "train#loader#batch_size": 2})
    given["train#loader"]["batchsize"] = 2
    with pytest.raises(ConfigError, match=r"#'batchsize' .*Loader takes batch_size"):
        check_overrides(files, {**given, "mine": 3})


def test_all_problems_in_one_message(files):
    with pytest.raises(ConfigError, match=r"'epoch'.*'runn'"):
        check_overrides(files, {"epoch": 1, "runn": 2})


def test_missing_or_broken_file(tmp_path):
    with pytest.raises(ConfigError, match=r"no configuration file .*none\.json"):
        check_overrides([tmp_path / "none.json"], {})
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ConfigError, match=r"bad\.json"):
        check_overrides([tmp_path / "bad.json"], {})
    (tmp_path / "bad.json").write_text("[1, 2]")
    with pytest.raises(ConfigError, match=r'bad\.json: expected \{"id": value.*got a list'):
        check_overrides([tmp_path / "bad.json"], {})


@pytest.mark.parametrize("size", [[32], [32.5, 1], ["a", "b"], [32, 32, 32], []])
def test_sizes_are_whole_numbers_one_per_axis(tmp_path, size):
    file = tmp_path / "train.json"
    file.write_text('{"roi_size": [64, 64]}')
    with pytest.raises(ConfigError, match="one per axis"):
        check_overrides([file], {"roi_size": size})
    assert check_overrides([file], {"roi_size": 32}) == {"roi_size": [32, 32]}


def test_a_file_may_change_parts_of_another(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"train#trainer#max_epochs": 5}))
    assert load_config([path]) == {"train#trainer#max_epochs": 5}


def test_of_a_training_inference_takes_what_it_has(tmp_path):
    inference, mine = tmp_path / "inference.json", tmp_path / "mine.json"
    inference.write_text(json.dumps({"network": {"channels": 4}, "classes": 2}))
    changed = {"network#channels": 8, "train#trainer#max_epochs": 5, "roi_size": [9, 9]}
    mine.write_text(json.dumps(changed))
    merged = {"network": {"channels": 8}, "classes": 2, "roi_size": [9, 9]}
    assert load_config([inference, mine]) == merged


def test_a_key_that_adds_to_a_component_is_merged_on_inference_too(tmp_path):
    (tmp_path / "inference.json").write_text('{"part": {"inner": {"a": 1}}}')
    (tmp_path / "mine.json").write_text('{"+part#inner": {"b": 2}}')
    merged = load_config([tmp_path / "inference.json", tmp_path / "mine.json"])
    assert merged == {"part": {"inner": {"a": 1, "b": 2}}}


@pytest.mark.parametrize("size", [[10**29, 32], [1e29, 32], 1 << 40])
@pytest.mark.parametrize("default", [[64, 64], "@window"])
def test_sizes_that_no_image_has_are_refused(size, default):
    with pytest.raises(ConfigError, match=r"'roi_size' is .* expected"):
        check_overrides({"window": [64, 64], "roi_size": default}, {"roi_size": size})


@pytest.mark.parametrize("steps", [-1, [-1], None, "load", True])
def test_steps_that_are_no_components_are_refused(tmp_path, steps):
    file = tmp_path / "train.json"
    for content in ({"preprocessing": steps}, {"train": {"augmentation": steps}}):
        file.write_text(json.dumps(content))
        with pytest.raises(
            ConfigError, match=r"train\.json: .*(ing|ation) is .*list of components"
        ):
            read_config(file)
    with pytest.raises(ConfigError, match="override 'preprocessing' is"):
        check_overrides({"preprocessing": ["@load"]}, {"preprocessing": steps})
    file.write_text('{"preprocessing": ["@load", {"_target_": "a.B"}], "augmentation": "$[]"}')
    assert len(read_config(file)) == 2


def test_a_misspelt_argument_of_a_target_that_takes_any_is_refused():
    pad = {"_target_": "monai.transforms.SpatialPadd", "keys": "image", "spatial_size": [8, 8]}
    with pytest.raises(ConfigError, match=r"pad#spatial_sise.*did you mean spatial_size"):
        check_overrides({"pad": pad}, {"pad#spatial_sise": [9, 9]})
    assert check_overrides({"pad": pad}, {"pad#constant_values": 1}) == {"pad#constant_values": 1}


def test_of_a_whole_and_its_part_the_later_holds():
    bundle = resolve_bundle("synthetic_shapes_segmentation")
    whole = {"_target_": "metaseg_monai.simulate.generate_synthetic_shapes", "size": 32}
    for names, size in (
        (("table#path#size", "table#path"), 32),
        (("table#path", "table#path#size"), 64),
    ):
        settings = {name: 64 if name.endswith("size") else dict(whole) for name in names}
        workflow = read_workflow(bundle, [bundle / "configs" / "train.json"], settings)
        assert workflow.parser["table#path"] == {**whole, "size": size}


def own_bundle(tmp_path, changed):
    """A copy of a bundle in whose train.json somebody has written."""
    shutil.copytree(
        resolve_bundle("synthetic_shapes_segmentation") / "configs", tmp_path / "configs"
    )
    file = tmp_path / "configs" / "train.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    return tmp_path, [file]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"lerning_rate": 0.1, "epoch": 3}, r"train\.json: 'lerning_rate'.*; .*'epoch'.*epochs"),
        ({"optimiser": {"_target_": "torch.optim.SGD"}}, "'optimiser' .*did you mean optimizer"),
        ({"epochs": "20"}, r"train\.json: epochs is '20'; expected a whole number from 1"),
        ({"epochs": 1.0}, "epochs is 1.0; expected a whole"),
        ({"epochs": 0}, "epochs is 0; expected a whole"),
        ({"foreground_share": 3}, "foreground_share is 3; expected a share from 0 to 1"),
        ({"roi_size": [32.5, "a"]}, r"roi_size is \[32.5, 'a'\]; expected whole numbers"),
    ],
)
def test_what_somebody_wrote_into_a_bundle_is_refused_by_name(tmp_path, changed, told):
    bundle, files = own_bundle(tmp_path, changed)
    with pytest.raises(ConfigError, match=told):
        read_workflow(bundle, files, {})


def test_what_may_stand_in_a_bundle_though_nothing_refers_to_it(tmp_path):
    of_fields = {"metadata_dropout": {"epochs": 0.5}, "displayable_configs": {"epochs": "unknown"}}
    runs = {"testing": "%run", "more": ["$1 + 1"], "_note": "mine", "mine": 3}
    bundle, files = own_bundle(tmp_path, {**of_fields, **runs})
    (bundle / "configs" / "other.json").write_text('{"seed": "@mine"}')
    read_workflow(bundle, files, {})


@pytest.mark.parametrize("name", sorted(path.parent.name for path in BUNDLES.glob("*/configs")))
def test_every_configuration_of_ours_uses_all_that_it_sets(name):
    files = sorted((BUNDLES / name / "configs").glob("*.json"))
    own = {one.name: read_config(one) for one in files if not one.name.startswith(NO_PART)}
    refuse_unused(own, names_in([one.read_text() for one in files]))


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("foreground_share", 1.5)])
def test_numbers_that_can_be_none_are_refused_as_settings(name, value):
    with pytest.raises(ConfigError, match=f"override '{name}' is {value}; expected"):
        check_overrides({name: "@other", "other": 1}, {name: value})
