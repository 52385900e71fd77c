"""The strong recipe in bundles: a delta beside any network, whose weights serve every command."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from metaseg_monai.bundle.run import read_workflow
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.sharing import run
from metaseg_monai.training import read_checkpoint, read_weights
from metaseg_monai.transforms import falsified_by

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
)
KILLED = """
import json, os, signal, sys
from metaseg_monai.sharing import run
from metaseg_monai.training import MovingAverage
move = MovingAverage._move
def move_and_die(average, engine):
    move(average, engine)
    if engine.state.iteration == 5:
        os.kill(os.getpid(), signal.SIGKILL)
MovingAverage._move = move_and_die
run.train(sys.argv[1], output_dir=sys.argv[2], **json.loads(sys.argv[3]))
"""
NETWORKS = {"segresnet_ds": "SegResNetDS", "dynunet_ds": "DynUNet"}


def test_it_leaves_out_what_would_make_a_bundles_metadata_wrong(bundle):
    if bundle.predicts_images:  # the strong recipe is one of masks
        assert not (bundle.root / "configs/recipe.json").exists()
        return
    recipe = json.loads((bundle.root / "configs" / "recipe.json").read_text())
    names = [one["_target_"] for one in recipe["train#augmentation"]]
    wrong = falsified_by(MetadataSchema.load(bundle.root / "configs" / "schema.json"))
    assert ("RandZoomd" in names) == (not wrong["scaling"])
    assert ("RandFlipd" in names) == (not wrong["mirroring"])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("variant", ["none", "se", "sme", "film", "low-rank", "sme-dummy"])
def test_networks_with_deep_supervision_take_every_variant(copy_bundle, name, variant):
    bundle = copy_bundle("synthetic_shapes_segmentation")
    files = [bundle.root / "configs" / f"{one}.json" for one in ("train", name, "recipe")]
    parser = read_workflow(bundle.root, files, {"variant": variant}).parser
    network, loss = (parser.get_parsed_content(one) for one in ("network_def", "loss"))
    assert type(network.network).__name__ == NETWORKS[name]
    image, label = torch.rand(2, 1, 64, 64), torch.ones(2, 1, 64, 64)
    meta = torch.rand(2, network.meta_features) if network.meta_features else None
    assert torch.isfinite(loss(network.train()(image, meta), label))
    assert network.eval()(image, meta).shape == (2, 2, 64, 64)


def tiny(bundle):
    settings = {"configuration": "dynunet_ds,recipe", **bundle.settings}
    settings |= {"network_def#network#filters": [4, 4, 8, 8]}
    settings.pop("train#augmentation#0#spatial_size")  # of the padding, which stands elsewhere
    return settings


def equal(one, other):
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_killed_within_an_epoch_it_is_resumed_to_the_same_bits(copy_bundle, tmp_path):
    bundle = copy_bundle("synthetic_shapes_segmentation")
    settings = {**tiny(bundle), "train#checkpoint#every": 1}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run.train(bundle.root, output_dir=whole, **settings)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, bundle.root, killed, json.dumps(settings)],
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert read_checkpoint(killed / "checkpoint.pt")["iteration"] == 4  # of 6
    run.train(bundle.root, output_dir=killed, **settings, resume=True)
    first, second = (read_checkpoint(one / "checkpoint.pt") for one in (whole, killed))
    assert first["iteration"] == 6
    assert equal(first["objects"], second["objects"])
    weights, facts = read_weights(whole / "model.pt")
    assert equal(dict(weights), dict(read_weights(killed / "model.pt")[0]))
    assert facts == read_weights(killed / "model.pt")[1]


def test_trained_evaluated_predicted_and_explained(copy_bundle, tmp_path):
    bundle = copy_bundle("synthetic_shapes_segmentation")
    folder = tmp_path / "model"
    run.train(bundle.root, output_dir=folder, **tiny(bundle) | {"epochs": 1})
    state, facts = read_weights(folder / "model.pt")
    assert facts["average"] == {"kind": "exponential", "decay": 0.99}
    assert facts["network"]["network"]["deep_supervision"] is True
    kept = read_checkpoint(folder / "checkpoint.pt")["objects"]
    average = kept["average"]["average"]
    assert not all(torch.equal(average[n], kept["network"][n]) for n in average)
    assert all(torch.equal(average[name], state[name]) for name in average)
    tested = run.evaluate(folder, modes=["normal", "zeros"])
    assert list(tested.scores.index) == ["normal", "zeros"]
    source = tmp_path / "images"
    shutil.copytree(bundle.root / "data/images", source)
    masks = run.predict(folder, source, tmp_path / "masks", meta={"task": "disc"})
    assert len(masks.masks) == len(list(source.iterdir()))
    drawn = {path.name for path in run.explain(folder, explain_cases=1)}
    assert "gate_bottleneck.png" in drawn
