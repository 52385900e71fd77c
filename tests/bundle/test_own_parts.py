"""A network and an augmentation of one's own, put into a bundle by a file of a few lines."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from monai.fl.client import MonaiAlgo
from monai.fl.utils.constants import FlStatistics
from monai.fl.utils.exchange_object import ExchangeObject

from metaseg_monai import evaluate, predict, train
from metaseg_monai.errors import CheckpointError, ConfigError
from metaseg_monai.training import read_weights

PAGE = Path(__file__).resolve().parents[2] / "docs" / "bundles.md"
OWN = """
from torch import nn

class Told(nn.Module):
    def __init__(self, schema, classes, width=4):
        super().__init__()
        self.image, self.told = nn.Conv2d(1, width, 3, padding=1), nn.Linear(schema.width, width)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image, meta):
        return self.head((self.image(image) * self.told(meta)[..., None, None]).relu())
"""

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
    "ignore:executing the bundle config:UserWarning",
)


@pytest.fixture
def work(bundle, tmp_path, monkeypatch):
    """A working folder with an image."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/a.tif", 255 * np.eye(40, 36, dtype=np.uint8))
    return tmp_path


@pytest.fixture
def settings(tiny):
    """Those that shrink the data; the network has its own."""
    return {"dataset_dir": "data", "table#path": tiny["table#path"], "epochs": 2}


def test_the_example_of_the_docs_exchanges_both(bundle, work, settings, capfd):
    (text,) = re.findall(r"`mine\.json`:\n\n```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(text.splitlines()) <= 10
    (work / "mine.json").write_text(text)
    model = train(bundle, "run", configuration="mine.json", **settings)
    assert "BasicUNet has no argument meta in its forward" in "".join(capfd.readouterr())
    facts = read_weights(model.folder / "model.pt")[1]
    asked = json.loads(text)["network_def"]
    assert facts["network"]["_target_"] == asked["_target_"]
    assert facts["network"]["in_channels"] == 1
    assert facts["network"]["features"] == asked["features"]
    assert facts["network"]["upsample"] == "deconv"  # what it does not say is recorded too
    assert "variant" not in facts
    tested = evaluate(model.folder)
    assert list(tested.scores.index) == ["normal"]  # it reads no metadata
    made = predict(model.folder, work / "images")
    assert tifffile.imread(made.masks[0]).shape == (40, 36)
    with pytest.raises(CheckpointError, match=r"network.*BasicUNet.*Unet3"):
        evaluate(bundle, output_dir=str(model.folder), **settings)


def test_the_conditioned_example_of_the_docs_trains_the_variant_that_is_asked_for(
    bundle, work, settings
):
    page = PAGE.read_text()
    (text,) = re.findall(
        r"^```\n({\n  \"network_def\".*?condition\".*?)```", page, re.DOTALL | re.M
    )
    (work / "mine.json").write_text(text.replace("[16, 16, 32, 64, 128, 16]", "[4, 4, 4, 4, 4, 4]"))
    small = {**settings, "roi_size": [32, 32], "epochs": 1}
    model = train(bundle, "run", configuration="mine.json", variant="film", **small)
    assert read_weights(model.folder / "model.pt")[1]["network"]["variant"] == "film"
    assert predict(model.folder, "images", meta={"task": "disc"}).masks
    own = json.loads(text)["network_def"]
    own["network"]["features"] = [4] * 6
    model = train(bundle, "typed", network_def=own, variant="me", **small)
    assert read_weights(model.folder / "model.pt")[1]["network"]["variant"] == "me"


def test_an_own_module_that_reads_metadata_is_told_them(bundle, work, settings):
    (work / "own_module.py").write_text(OWN)
    own = {"_target_": "own_module.Told", "schema": "@schema", "classes": "@classes"}
    model = train(bundle, "run", network_def=own, roi_size=[32, 32], **settings)
    facts = read_weights(model.folder / "model.pt")[1]
    assert facts["network"] == {**own, "classes": 2, "width": 4}
    assert facts["unknown_trained"]
    never = {"metadata_dropout": 0, "ckpt_path": str(model.folder / "model.pt")}
    with pytest.raises(CheckpointError, match="unknown_trained: True in the checkpoint, False now"):
        predict(bundle, "images", "none", meta={"task": "disc"}, network_def=own, **never)
    tested = evaluate(model.folder, modes=["normal", "shuffle"])  # without meta it would fail
    assert list(tested.scores.index) == ["normal", "shuffle"]
    made = [
        predict(model.folder, work / "images", f"masks{task}", meta={"task": task}).masks[0]
        for task in ("disc", "ring")
    ]
    assert [tifffile.imread(mask).shape for mask in made] == [(40, 36)] * 2


@pytest.mark.parametrize(
    ("own", "told"),
    [
        ({"_target_": "monai.networks.nets.BasicUNett"}, "BasicUNett .*mean .*BasicUNet\\?"),
        ({"_target_": "torch.nn.Flatten", "start_dim": "@in_chanels"}, "`@in_chanels` is not def"),
    ],
)
def test_a_wrong_name_in_a_component_is_a_refusal(bundle, work, settings, own, told):
    with pytest.raises(ConfigError, match=told):
        train(bundle, "run", network_def=own, **settings)


def test_federated_learning_reads_the_metric_of_the_global_weights(bundle, work, settings, tiny):
    kwargs = {**settings, **tiny, "dataset_dir": str(work / "data"), "output_dir": str(work / "o")}
    small = {key: value for key, value in kwargs.items() if key != "epochs"}
    algo = MonaiAlgo(str(bundle), train_kwargs={**small}, eval_kwargs={**small})
    algo.initialize()
    start = {k: v.cpu().clone() for k, v in algo.trainer.network.state_dict().items()}
    algo.train(ExchangeObject(weights=start))
    made = algo.get_weights()
    assert made.statistics[FlStatistics.NUM_EXECUTED_ITERATIONS] > 0
    scores = [
        algo.evaluate(ExchangeObject(weights=weights)).metrics["val_mean_dice"]
        for weights in (start, {k: torch.full_like(v, 0) for k, v in start.items()})
    ]
    assert all(0 <= score <= 1 for score in scores)
    assert scores[0] != scores[1]


def test_a_network_of_other_outputs_is_refused_before_it_learns(bundle, work, settings):
    own = {"_target_": "monai.networks.nets.BasicUNet", "spatial_dims": 2, "in_channels": 1}
    own |= {"out_channels": 3, "features": [4, 4, 4, 4, 4, 4]}
    with pytest.raises(ConfigError, match="has 3 outputs, and classes is 2"):
        train(bundle, "run", network_def=own, **settings)
    assert not (work / "run" / "model.pt").exists()


def test_a_configuration_that_changed_since_the_training_is_told(bundle, work, settings, tiny):
    mine = work / "mine.json"
    mine.write_text('{"train#augmentation": []}')
    small = {**settings, **tiny, "dataset_dir": "data", "epochs": 1}
    small.pop("train#augmentation#0#spatial_size")
    model = train(bundle, "run", configuration="mine.json", **small)
    mine.write_text('{"train#augmentation": [], "sample_cases": 0}')
    with pytest.raises(ConfigError, match=r"mine\.json is not as it was.*--configuration"):
        evaluate(model.folder, modes="normal")
    assert len(evaluate(model.folder, modes="normal", configuration="mine.json").scores) == 1
