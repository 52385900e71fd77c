"""Weights know what they are for, where they belong, and what they were trained on."""

import io
import json
import math

import nibabel as nib
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tifffile
import torch
from ignite.engine import Engine, State
from monai.handlers import CheckpointLoader
from monai.inferers import SimpleInferer
from torch import nn

from metaseg_monai.errors import CheckpointError, ConfigError, DataError, TrainingError
from metaseg_monai.files import file_sha256
from metaseg_monai.inferers import EnsembleInferer
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.networks import Unet3
from metaseg_monai.networks.meta_input import MetaInput
from metaseg_monai.training import (
    BestWeights,
    LoadWeights,
    RecordTrained,
    RefuseTrained,
    processes,
    read_weights,
    write_weights,
)
from metaseg_monai.training.weights import write_fact

LOAD, SCALE = {"_target_": "x.LoadCased"}, {"_target_": "x.Scale", "range": [0, 255]}
FACTS = {
    "variant": "sme",
    "network": {"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1},
    "preprocessing": [LOAD, SCALE],
    "window": [96, 96],
}


def task(*values, **more):
    known = {"provenance": "acquisition", "availability": "acquisition"}
    field = {"kind": "categorical", "name": "task", "values": list(values), **known, **more}
    return MetadataSchema.from_dict({"fields": [field]})


SCHEMA = task("disc", "ring")


def start(handler):
    engine = Engine(lambda engine, batch: None)
    handler.attach(engine)
    engine.run([0])


def validate(best, values, first_epoch=1):
    """Run a validation per value; weights are filled with the epoch's number."""
    for epoch, value in enumerate(values, start=first_epoch):
        with torch.no_grad():
            best.network.weight.fill_(epoch)
        engine = Engine(lambda engine, batch: None)
        engine.state = State(epoch=epoch, metrics={"val_loss": value})
        best(engine)


def make(path, mode="min", **more):
    return BestWeights(path, nn.Linear(1, 1), SCHEMA, FACTS, mode=mode, **more)


@pytest.fixture
def path(tmp_path):
    """Weights of one validation, whose only weight is 1."""
    validate(make(tmp_path / "model.pt"), [1.0])
    return tmp_path / "model.pt"


def weights_of(path, module=None, schema=SCHEMA, **facts):
    return LoadWeights(path, module or nn.Linear(1, 1), schema, {**FACTS, **facts})


# The file


def test_weights_and_facts_come_back_and_can_be_read_in_a_copy(path):
    state, facts = read_weights(path)
    assert list(state) == ["weight", "bias"]
    assert list(facts) == [
        "weights_sha256", "variant", "network", "preprocessing", "window", "schema",
        "unknown_trained", "best", "versions",
    ]  # fmt: skip
    defaults = {"bias": True, "device": None, "dtype": None}
    assert {key: facts[key] for key in FACTS} == {**FACTS, "network": FACTS["network"] | defaults}
    assert facts["schema"] == SCHEMA.to_dict()
    assert facts["best"] == {"metric": "val_loss", "value": 1.0, "epoch": 1}
    assert facts["versions"]["torch"] == torch.__version__
    assert json.loads(path.with_suffix(".json").read_text()) == facts


def test_the_digest_goes_by_values_not_by_their_place_in_memory(tmp_path):
    network = nn.Conv2d(2, 3, 3)
    write_weights(tmp_path / "a.pt", network, {})
    write_weights(tmp_path / "b.pt", network.to(memory_format=torch.channels_last), {})
    digests = {read_weights(tmp_path / f"{name}.pt")[1]["weights_sha256"] for name in "ab"}
    assert len(digests) == 1


def test_a_network_tells_whether_unknown_was_trained(tmp_path):
    def network(unknown):
        made = nn.Linear(1, 1)
        made.door = MetaInput(task("disc", missing="unknown"), unknown_trained=unknown)
        return made

    validate(BestWeights(tmp_path / "model.pt", network(True)), [1.0])
    assert read_weights(tmp_path / "model.pt")[1]["unknown_trained"] is True
    LoadWeights(tmp_path / "model.pt", network(True)).load()
    with pytest.raises(CheckpointError, match="unknown_trained: True in the checkpoint, False now"):
        LoadWeights(tmp_path / "model.pt", network(False)).load()
    validate(BestWeights(tmp_path / "model.pt", network(False)), [1.0])
    with pytest.raises(CheckpointError, match=r"among them --metadata_dropout 0, or train"):
        LoadWeights(tmp_path / "model.pt", network(True)).load()


def test_mirrors_that_change_sides_are_refused(tmp_path):
    path = tmp_path / "model.pt"
    names = {"class_names": {"1": "left kidney", "2": "right kidney"}}
    validate(BestWeights(path, nn.Linear(1, 1), SCHEMA, {**FACTS, **names}), [1.0])
    asked = {"network": nn.Linear(1, 1), "schema": SCHEMA, "facts": {**FACTS, **names}}
    mirrored = EnsembleInferer(SimpleInferer(), mirror=[1])
    with pytest.raises(ConfigError, match=r"'?left kidney.* wrong.*--force True"):
        LoadWeights(path, ensemble=mirrored, **asked).load()
    LoadWeights(path, ensemble=mirrored, force=True, **asked).load()
    LoadWeights(path, ensemble=EnsembleInferer(SimpleInferer()), **asked).load()


def test_facts_that_are_not_plain_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="facts of weights must be plain"):
        BestWeights(tmp_path / "model.pt", nn.Linear(1, 1), facts={"path": tmp_path})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_everybody_can_read_them(path, tmp_path):
    state = torch.load(path, weights_only=True)
    fresh = nn.Linear(1, 1)
    fresh.load_state_dict(state, strict=True)
    assert fresh.weight.item() == 1
    for key in ("model", "network"):
        fresh = nn.Linear(1, 1)
        start(CheckpointLoader(str(path), {key: fresh}))
        assert fresh.weight.item() == 1
    again = io.BytesIO()
    torch.save(state, again)
    (tmp_path / "again.pt").write_bytes(again.getvalue())
    assert read_weights(tmp_path / "again.pt")[1] == read_weights(path)[1]


# What belongs together


def changed(state):
    state["weight"] += 1e-6


def halved(state):
    for name in state:
        state[name] = state[name].half()


def exchanged(state):
    state.update(nn.Linear(1, 1).state_dict())


def renamed(state):
    state["gain"] = state.pop("weight")


@pytest.mark.parametrize("harm", [changed, halved, exchanged, renamed])
def test_other_weights_under_these_facts_are_refused(path, harm):
    state = torch.load(path, weights_only=True)
    harm(state)
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"not the weights these facts describe.*Put back"):
        weights_of(path).load()


def test_weights_saved_again_by_a_network_have_no_facts(path):
    network = nn.Linear(1, 1)
    network.load_state_dict(torch.load(path, weights_only=True))
    torch.save(network.state_dict(), path)
    with pytest.raises(CheckpointError, match=r"weights without facts.*write_weights"):
        weights_of(path).load()
    torch.save({"weight": torch.ones(1, 1)}, path)
    with pytest.raises(CheckpointError, match="weights without facts"):
        weights_of(path).load()


OLD = {
    "variant": "sme",
    "schema": json.dumps(SCHEMA.to_dict()),
    "settings": {
        "network": {"spatial_dims": 2, "channels": 4, "levels": 1, "reduction": 1.0, "places": []},
        "in_channels": 1, "classes": 2, "channel_conversion": "stored",
        "intensity_range": [0, 255], "intensity_clip": False, "intensity_by": None,
        "intensity_percentiles": None, "flat_field": None, "spacing_mm": None, "unknown": False,
    },
    "metric": "val_loss", "value": 0.5, "epoch": 3,
}  # fmt: skip
NOW = {
    "variant": "sme",
    "network": {
        "_target_": "metaseg_monai.networks.Unet3", "schema": "@schema", "variant": "sme",
        "channels": 4, "levels": 1, "reduction": 1.0
    },
    "preprocessing": [
        {"_target_": "metaseg_monai.transforms.LoadCased", "channels": "stored", "classes": 2,
         "in_channels": 1, "axes": None},
        {"_target_": "metaseg_monai.transforms.ScaleIntensityCased", "intensity_range": [0, 255],
         "clip": False},
        "@encode",
    ],
}  # fmt: skip


def older(path, **changes):
    network = Unet3(SCHEMA, "sme", channels=4, levels=1, reduction=1)
    settings = {**OLD["settings"], **changes}
    torch.save({**OLD, "model": network.state_dict(), "settings": settings}, path)
    return network


def test_weights_of_earlier_releases_are_read_with_what_they_knew(tmp_path):
    path = tmp_path / "model.pt"
    network = older(path)
    facts = read_weights(path)[1]
    assert facts["best"] == {"metric": "val_loss", "value": 0.5, "epoch": 3}
    LoadWeights(path, network, SCHEMA, NOW).load()
    for changes, message in [
        ({"in_channels": 3}, "network.in_channels: 3 in the checkpoint, 1 now"),
        ({"intensity_clip": True}, "preprocessing.ScaleIntensityCased.clip: True in the ch"),
        ({"spacing_mm": 3}, "preprocessing.ResampleToSpacingd: .* none now"),
        ({"unknown": True}, "unknown_trained: True"),
    ]:
        older(path, **changes)
        with pytest.raises(CheckpointError, match=message):
            LoadWeights(path, network, SCHEMA, NOW).check()
    older(path)
    added = [*NOW["preprocessing"], {"_target_": "x.Other"}]
    with pytest.raises(CheckpointError, match=r"preprocessing\.Other: none in the checkpoint"):
        LoadWeights(path, network, SCHEMA, {**NOW, "preprocessing": added}).check()


@pytest.mark.parametrize("variant", ["none", "film-ivadomed", "film-ivadomed-dummy"])
def test_settings_of_gates_without_effect_are_not_recorded_and_not_compared(tmp_path, variant):
    path, now = tmp_path / "model.pt", {**NOW, "variant": variant}
    network = Unet3(SCHEMA, variant, channels=4, levels=1, reduction=1)
    now["network"] = {**NOW["network"], "variant": variant}
    found = LoadWeights(path, network, SCHEMA, now)
    assert not {"reduction", "hidden_from", "shift"} & found.facts["network"].keys()
    other = {**now, "network": {**now["network"], "reduction": 2.0}}
    facts = {**found.facts, "network": {**found.facts["network"], "reduction": 4.0, "shift": False}}
    write_weights(path, network, facts)  # as an earlier version recorded them
    LoadWeights(path, network, SCHEMA, other).check()
    older(path)  # of the nested form
    nested = torch.load(path, weights_only=True)
    torch.save({**nested, "model": network.state_dict(), "variant": variant}, path)
    LoadWeights(path, network, SCHEMA, other).check()
    own = {**now, "network": {**now["network"], "variant": "sme", "reduction": 2.0}}
    with pytest.raises(CheckpointError, match=r"network\.variant"):
        LoadWeights(path, network, SCHEMA, own).check()


@pytest.mark.parametrize("changes", [{"flat_field": ["estimate", 100]}, {"network": [16, 32]}])
def test_weights_of_earlier_releases_that_tell_too_little_are_refused(tmp_path, changes):
    older(tmp_path / "model.pt", **changes)
    with pytest.raises(CheckpointError, match=r"of an earlier release.*train anew"):
        read_weights(tmp_path / "model.pt")


def test_an_argument_that_came_later_had_its_default(path):
    state, facts = torch.load(path, weights_only=True), read_weights(path)[1]
    assert facts["network"].pop("bias") is True
    state._metadata[""]["metaseg"] = json.dumps(facts)
    torch.save(state, path)
    weights_of(path).load()
    with pytest.raises(CheckpointError, match=r"network\.bias: True in the check.*, False now"):
        weights_of(path, network=FACTS["network"] | {"bias": False}).load()


# The best of a run


@pytest.mark.parametrize(
    ("mode", "values", "epoch"),
    [
        ("min", [3.0, 1.0, 2.0], 2),
        ("min", [3.0, 3.0], 1),
        ("max", [1.0, 3.0, 2.0], 2),
        ("min", [math.nan, 5.0, math.nan, 6.0], 2),
        ("max", [math.nan, -5.0, math.nan], 2),
    ],
)
def test_the_best_epoch_is_kept(tmp_path, mode, values, epoch):
    best = make(tmp_path / "model.pt", mode)
    validate(best, values)
    state, facts = read_weights(tmp_path / "model.pt")
    assert state["weight"].item() == epoch
    assert facts["best"] == {"metric": "val_loss", "value": values[epoch - 1], "epoch": epoch}
    best.require()


def test_nan_alone_is_never_written_and_a_run_without_weights_is_refused(tmp_path):
    best = make(tmp_path / "model.pt")
    validate(best, [math.nan, math.nan])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TrainingError, match="no validation gave a finite val_loss"):
        best.require()


def test_the_best_value_survives_a_resume(path):
    again = make(path)
    again.load_state_dict({"value": 1.0, "epoch": 1})
    validate(again, [2.0], first_epoch=2)
    assert read_weights(path)[1]["best"]["epoch"] == 1
    path.with_suffix(".json").write_text("of an earlier epoch: killed between the two files")
    again.require()
    assert json.loads(path.with_suffix(".json").read_text()) == read_weights(path)[1]
    path.unlink()
    with pytest.raises(CheckpointError, match="are gone"):
        again.require()


def test_an_unknown_metric_or_mode_is_named(tmp_path):
    with pytest.raises(TrainingError, match=r"'dice'.*\['val_loss'\]"):
        validate(make(tmp_path / "model.pt", metric="dice"), [1.0])
    with pytest.raises(ConfigError, match="min or max"):
        make(tmp_path, mode="best")


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "rank", lambda: 1)
    best = make(tmp_path / "model.pt")
    validate(best, [1.0])
    assert list(tmp_path.iterdir()) == []
    assert best.state_dict() == {"value": 1.0, "epoch": 1}
    best.require()


# Where they may go


def test_weights_go_into_the_network_they_are_for(path):
    weights = weights_of(path, window=[-1, -1])
    start(weights)
    assert weights.network.weight.item() == 1
    assert weights.recorded == read_weights(path)[1]


def test_another_description_changes_nothing(path):
    weights_of(path, schema=task("disc", "ring", description="other words")).load()


def test_missing_weights_name_the_training_command(tmp_path):
    path = tmp_path / "run" / "model.pt"
    weights = LoadWeights(path, nn.Linear(1, 1), SCHEMA, {"variant": "sme"}, "shapes")
    command = r"--config_file shapes/configs/train\.json --variant sme --output_dir .*/run$"
    with pytest.raises(CheckpointError, match=r"no weights at .*model\.pt.*" + command):
        weights.check()
    with pytest.raises(CheckpointError, match=r"no weights at .*Train them first$"):
        weights_of(path).load()


def test_missing_weights_of_an_installed_bundle_name_the_command_of_the_package(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("metaseg_monai.files.INSTALLED", tmp_path / "site")
    path, bundle = tmp_path / "run" / "model.pt", tmp_path / "site" / "shapes"
    weights = LoadWeights(path, nn.Linear(1, 1), SCHEMA, {"variant": "sme"}, bundle)
    command = r"Train them first: python -m metaseg_monai train shapes --variant sme --output_dir"
    with pytest.raises(CheckpointError, match=command + r" .*/run$"):
        weights.check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "film"}, "variant: 'sme' in the checkpoint, 'film' now"),
        (
            {"schema": task("disc", "cross")},
            r"schema.task.values: \['disc', 'ring'\].*\['disc', 'cross'\] now",
        ),
        ({"schema": None}, "schema: .*None now"),
        ({"schema": task("disc", "ring", missing="unknown")}, r"--schema_file .*schema_texts\.j"),
        ({"module": nn.Linear(2, 1)}, "do not fit this network"),
        (
            {"preprocessing": [LOAD, {"_target_": "y.Scale", "range": [0, 1]}]},
            r"preprocessing\.Scale\._target_: 'x\.Scale' in .*; "
            r"preprocessing\.Scale\.range: \[0, 255\] in the checkpoint, \[0, 1\] now",
        ),
        ({"preprocessing": [LOAD]}, r"preprocessing\.Scale: .* none now"),
        ({"preprocessing": [SCALE, LOAD]}, "preprocessing: order"),
        ({"spacing_mm": 3}, "spacing_mm: None in the checkpoint, 3 now"),
    ],
)
def test_weights_for_something_else_are_refused(path, arguments, message):
    with pytest.raises(CheckpointError, match=message):
        weights_of(path, **arguments).load()


# What they were trained on


@pytest.fixture
def items(tmp_path):
    """Four cases of one image each, and one of two planes that others have alone."""
    made = []
    for number, split in enumerate(["train", "train", "val", "test"]):
        file = tmp_path / f"{number}.tif"
        tifffile.imwrite(file, pixels(number), photometric="minisblack")
        made.append({"image": str(file), "case": f"c{number}", "group": f"g{number}"})
        made[-1]["split"] = split
    planes = [str(tmp_path / "0.tif"), str(tmp_path / "3.tif")]
    return [*made, {"image": planes, "case": "c4", "group": "g4", "split": "test"}]


def pixels(number):
    return np.random.default_rng(number).integers(0, 200, (6, 7), np.uint8)


def record(path, items):
    best = make(path)
    start(RecordTrained(best, [item for item in items if item["split"] != "test"]))
    validate(best, [1.0])
    return path.with_name("trained_on.csv")


def refuse(path, items):
    weights = weights_of(path)
    weights.load()
    start(RefuseTrained(weights, items))


def test_an_image_is_one_row_and_the_facts_know_the_file(path, items):
    table = pd.read_csv(record(path, [*items, {**items[0], "case": "c0-task2"}]))
    assert table["split"].tolist() == ["train", "train", "val"]
    assert table["group"].tolist() == ["g0", "g1", "g2"]
    assert table["pixels"].str.len().eq(64).all()
    known = read_weights(path)[1]["trained_on"]
    assert (known["file"], known["images"], len(known["sha256"])) == ("trained_on.csv", 3, 64)


@pytest.mark.parametrize("content", ["{", '{"variant": "se"}'])
def test_a_copy_of_the_facts_that_was_edited_is_told(tmp_path, caplog, content):
    network = nn.Linear(1, 1)
    write_weights(tmp_path / "model.pt", network, {"variant": "me", "unknown_trained": False})
    handler = LoadWeights(tmp_path / "model.pt", network, facts={"variant": "me"})
    handler.load()
    assert "copy of the facts" not in caplog.text
    (tmp_path / "model.json").write_text(content)
    handler.load()
    assert "model.json is not the copy of the facts in" in caplog.text


def test_unseen_images_pass_in_silence(path, items, caplog):
    record(path, items)
    refuse(path, items)  # also those of train and val, which somebody tests on purpose
    assert not caplog.records


def as_png(path, array):
    PIL.Image.fromarray(array).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def as_colours(path, array):
    return as_png(path, np.stack([array] * 3 + [np.full_like(array, 255)], axis=-1))


def as_float(path, array):
    tifffile.imwrite(path, array.astype(">f4"), photometric="minisblack")
    return path


def as_nifti(path, array):
    nib.save(
        nib.Nifti1Image(array.astype(np.int16)[..., None], np.eye(4)), path.with_suffix(".nii.gz")
    )
    return path.with_suffix(".nii.gz")


@pytest.mark.parametrize("save", [as_png, as_colours, as_float, as_nifti])
@pytest.mark.parametrize(("number", "split"), [(1, "train"), (2, "val")])
def test_a_copy_under_another_name_is_refused(path, items, number, split, save):
    record(path, items)
    copy = save(path.parent / "copy.tif", pixels(number))
    test = {"image": str(copy), "case": "x", "group": "y", "split": "test"}
    with pytest.raises(DataError, match=rf"1 of 3 test .* x \(was {split} case c{number}\)"):
        refuse(path, [*items, test])


@pytest.mark.parametrize("group", ["g1", "G 01", "g1.0"])
def test_another_image_of_a_group_is_told(path, items, caplog, group):
    record(path, items)
    refuse(path, [{**items[3], "group": group}])
    told = f"1 groups of the test cases have the name of one that was trained on ({group})"
    assert told in caplog.text


def test_a_record_of_files_is_read_and_says_what_it_compares(path, items, caplog):
    file = record(path, items)
    validate(make(path), [1.0])  # weights that know of no record
    old = pd.DataFrame(
        [[file_sha256(one["image"]), one["split"], one["group"], one["case"]] for one in items[:3]],
        columns=["sha256", "split", "group", "case"],
    )
    old.to_csv(file, index=False)
    refuse(path, items)
    assert "knows files, not pixels" in caplog.text
    with pytest.raises(DataError, match=r"was train case c0"):
        refuse(path, [{**items[0], "split": "test"}])


def test_what_is_not_known_is_told(path, items, caplog):
    refuse(path, items)
    assert "nobody knows whether the test cases were trained on" in caplog.text


def further(path, items, folder):
    """Train on, beginning with these weights, on an image that has other names now."""
    best = make(path.parent / folder / "model.pt")
    best.begun_with = weights_of(path)
    start(RecordTrained(best, items))
    validate(best, [1.0])
    return best.path


def test_a_training_upon_another_takes_over_its_images(path, items, caplog):
    record(path, items)
    fresh = [{**items[3], "case": "c9", "group": "g9", "split": "train"}]
    second = further(path, [*fresh, items[1]], "second")
    third = further(second, fresh, "third")
    table = pd.read_csv(third.with_name("trained_on.csv"))
    assert table["case"].tolist() == ["c0", "c1", "c2", "c9"]
    assert read_weights(third)[1]["trained_on"]["images"] == 4
    assert not caplog.records
    for made in (second, third):
        with pytest.raises(DataError, match=r"1 of 1 test .* x \(was train case c0\)"):
            refuse(made, [{**items[0], "case": "x", "group": "g", "split": "test"}])
    path.with_name("trained_on.csv").write_text("pixels,split,group,case\n1,train,a,b\n")
    with pytest.raises(DataError, match="not the record of the images that"):
        further(path, fresh, "fourth")


@pytest.mark.parametrize("left", [None, "sha256,split,group,case\n1,train,g0,c0\n"])
def test_a_training_upon_one_of_which_nothing_is_known_says_so(path, items, caplog, left):
    if left:
        path.with_name("trained_on.csv").write_text(left)
    second = further(path, items[:1], "second")
    assert bool(left) == ("nobody will know" not in caplog.text)
    for made in (second, further(second, items[1:2], "third")):
        caplog.clear()
        refuse(made, items[3:4])
        assert "do not tell theirs; test on images that were in neither" in caplog.text


def test_a_foreign_or_damaged_record_is_refused_and_a_missing_image_left_to_its_reader(path, items):
    file = record(path, items)
    refuse(path, [{**items[3], "image": str(path.with_name("gone.tif"))}])
    file.write_text(file.read_text().replace("g1", "g9"))
    with pytest.raises(DataError, match=r"not the record of the images that .*model\.pt was"):
        refuse(path, items)
    validate(make(path), [1.0])  # weights that know of no record
    file.write_text("pixels\n1\n")
    with pytest.raises(DataError, match="damaged, expected the columns pixels"):
        refuse(path, items)


class Told(nn.Linear):
    """A network that says it reads metadata."""

    meta_features = 2


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (("disc", "disc"), "task=ring"),
        (("disc", "disc:0.5|ring:0.5"), ""),
        ((None, "ring"), "task=disc"),
    ],
)
@pytest.mark.parametrize("heads", [False, True])
def test_values_that_no_training_image_has_are_told(path, items, values, told, heads, caplog):
    network = Told(1, 1)
    if heads:
        network.tasks = ("disc", "ring")
    known = [
        {**item, "metadata": {"task": value}} for item, value in zip(items, values, strict=False)
    ]
    known += [{**items[2], "metadata": {"task": "ring"}}]  # of the validation
    schema = task("disc", "ring", missing="unknown")
    best = BestWeights(path.parent / "new.pt", network, schema, FACTS)
    if told and heads:
        with pytest.raises(DataError, match=f"No training image has '{told}', .* split train"):
            start(RecordTrained(best, known))
        return
    start(RecordTrained(best, known))
    assert ("no training image has" in caplog.text) == bool(told)
    name, _, value = told.partition("=")
    assert best.facts.get("untrained") == ({name: [value]} if told else None)


@pytest.mark.parametrize("second", [("disc", "disc"), ("ring", "ring")])
def test_a_value_is_untrained_as_long_as_no_round_had_it(path, items, second, caplog):
    schema = task("disc", "ring", "cross", missing="unknown")
    facts = []
    for values in (("disc", "disc"), second):
        known = [{**items[at], "metadata": {"task": one}} for at, one in enumerate(values)]
        network = Told(1, 1)
        nn.init.ones_(network.weight)  # as the first round leaves it
        nn.init.zeros_(network.bias)
        best = BestWeights(path.parent / "round.pt", network, schema, FACTS)
        start(RecordTrained(best, known))
        facts.append(best.facts["untrained"])
        validate(best, [1.0])
    left = ["ring", "cross"] if second == ("disc", "disc") else ["cross"]
    assert facts == [{"task": ["ring", "cross"]}, {"task": left}]


@pytest.mark.parametrize("same", [True, False])
def test_an_ensemble_is_cleaned_as_all_its_members_or_says_so(path, tmp_path, caplog, same):
    (tmp_path / "other").mkdir()
    validate(make(tmp_path / "other" / "model.pt"), [1.0], first_epoch=2)
    other = tmp_path / "other" / "model.pt"
    write_fact(path, "clean_up", {"rules": {"threshold": 0.7}, "score": 0.5})
    write_fact(other, "clean_up", {"rules": {"threshold": 0.7 if same else 0.3}, "score": 0.4})
    loaded = LoadWeights(
        *(path, nn.Linear(1, 1), SCHEMA, FACTS),
        members=[other],
        ensemble=EnsembleInferer(SimpleInferer()),
    )
    loaded.load()
    assert ("clean_up" in loaded.recorded) == same
    assert ("masks of their mean are not cleaned" in caplog.text) != same


def test_models_of_several_variants_are_no_ensemble(path, tmp_path):
    (tmp_path / "other").mkdir()
    validate(make(tmp_path / "other" / "model.pt"), [1.0], first_epoch=2)
    other = tmp_path / "other" / "model.pt"
    write_fact(other, "variant", "none")
    loaded = LoadWeights(
        *(path, nn.Linear(1, 1), SCHEMA, FACTS),
        members=[other],
        ensemble=EnsembleInferer(SimpleInferer()),
    )
    with pytest.raises(CheckpointError, match=r"is of the variant none, and .* of sme; the models"):
        loaded.load()
