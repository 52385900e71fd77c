import json
import math

import pytest
import torch
from ignite.engine import Engine, State

from metaseg_monai.errors import CheckpointError, ConfigError, TrainingError
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.training import BestWeights, LoadWeights, read_checkpoint
from metaseg_monai.training import weights as weights_module


def task(*values, **more):
    known = {"provenance": "acquisition", "availability": "acquisition"}
    field = {"kind": "categorical", "name": "task", "values": list(values), **known, **more}
    return MetadataSchema.from_dict({"fields": [field]})


SCHEMA = task("disc", "ring")


def validate(best, network, values, first_epoch=1):
    """Run a validation per value; weights are filled with the epoch's number."""
    for epoch, value in enumerate(values, start=first_epoch):
        with torch.no_grad():
            network.weight.fill_(epoch)
        engine = Engine(lambda engine, batch: None)
        engine.state = State(epoch=epoch, metrics={"val_loss": value})
        best(engine)


def make(path, mode="min", **more):
    network = torch.nn.Linear(1, 1)
    return network, BestWeights(path, network, "sme", SCHEMA, {"seed": 3}, mode=mode, **more)


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
    network, best = make(tmp_path / "model.pt", mode)
    validate(best, network, values)
    stored = read_checkpoint(tmp_path / "model.pt")
    assert stored["epoch"] == epoch
    assert stored["model"]["weight"].item() == epoch
    assert stored["value"] == values[epoch - 1]
    assert (stored["variant"], stored["settings"], stored["metric"]) == (
        "sme",
        {"seed": 3},
        "val_loss",
    )
    assert json.loads(stored["schema"]) == SCHEMA.to_dict()


def test_nan_alone_is_never_written(tmp_path):
    network, best = make(tmp_path / "model.pt")
    validate(best, network, [math.nan, math.nan])
    assert not (tmp_path / "model.pt").exists()


def test_the_best_value_survives_a_resume(tmp_path):
    network, best = make(tmp_path / "model.pt")
    validate(best, network, [1.0])
    network, again = make(tmp_path / "model.pt")
    again.load_state_dict(best.state_dict())
    validate(again, network, [2.0], first_epoch=2)
    assert read_checkpoint(tmp_path / "model.pt")["epoch"] == 1


def test_an_unknown_metric_is_named(tmp_path):
    network, best = make(tmp_path / "model.pt", metric="dice")
    with pytest.raises(TrainingError, match=r"'dice'.*\['val_loss'\]"):
        validate(best, network, [1.0])


def test_wrong_mode_or_schema_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="min or max"):
        make(tmp_path, mode="best")


def test_weights_go_into_the_network_they_are_for(tmp_path):
    network, best = make(tmp_path / "model.pt")
    validate(best, network, [1.0])
    fresh = torch.nn.Linear(1, 1)
    engine = Engine(lambda engine, batch: None)
    LoadWeights(tmp_path / "model.pt", fresh, SCHEMA, "sme").attach(engine)
    engine.run([0])
    assert fresh.weight.item() == 1


def load(path, network=None, schema=SCHEMA, variant="sme"):
    LoadWeights(path, network or torch.nn.Linear(1, 1), schema, variant).load()


def test_another_description_changes_nothing(tmp_path):
    network, best = make(tmp_path / "model.pt")
    validate(best, network, [1.0])
    load(tmp_path / "model.pt", schema=task("disc", "ring", description="other words"))


def test_missing_weights_name_the_training_command(tmp_path):
    path = tmp_path / "run" / "model.pt"
    weights = LoadWeights(path, torch.nn.Linear(1, 1), SCHEMA, "sme", bundle_root="shapes")
    command = r"--config_file shapes/configs/train\.json --variant sme --output_dir .*/run$"
    with pytest.raises(CheckpointError, match=r"no weights at .*model\.pt.*" + command):
        weights.check()
    with pytest.raises(CheckpointError, match=r"no weights at .*Train them first$"):
        load(path)


def test_a_damaged_schema_is_told(tmp_path):
    network, best = make(tmp_path / "model.pt")
    validate(best, network, [1.0])
    content = {**read_checkpoint(tmp_path / "model.pt"), "schema": '{"fields": 3}'}
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"schema in .*model\.pt cannot be read"):
        load(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variant": "film"}, "variant: 'sme' in the checkpoint, 'film' now"),
        (
            {"schema": task("disc", "cross")},
            r"schema.task.values: \['disc', 'ring'\].*\['disc', 'cross'\] now",
        ),
        ({"schema": None}, "schema: .*None now"),
        ({"network": torch.nn.Linear(2, 1)}, "do not fit this network"),
    ],
)
def test_weights_for_something_else_are_refused(tmp_path, arguments, message):
    network, best = make(tmp_path / "model.pt")
    validate(best, network, [1.0])
    with pytest.raises(CheckpointError, match=message):
        load(tmp_path / "model.pt", **arguments)


def test_bare_weights_are_refused(tmp_path):
    torch.save(torch.nn.Linear(1, 1).state_dict(), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match="no model, variant, schema"):
        load(tmp_path / "model.pt")


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_module.processes, "rank", lambda: 1)
    network, best = make(tmp_path / "model.pt")
    validate(best, network, [1.0])
    assert not (tmp_path / "model.pt").exists()
    assert best.state_dict() == {"value": 1.0, "epoch": 1}
