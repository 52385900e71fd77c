"""Networks of MONAI that metadata steer, in bundles: a delta puts one in the place of Unet3."""

import json
import shutil

import pandas as pd
import pytest
import torch

from metaseg_monai.bundle.run import read_workflow
from metaseg_monai.networks import Conditioned
from metaseg_monai.sharing import run
from metaseg_monai.training import read_weights

NETWORKS = {"segresnet": "SegResNet", "dynunet": "DynUNet"}
every_network = pytest.mark.parametrize("name", NETWORKS)
pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
)


def made(bundle, *names, **settings):
    files = [bundle.root / "configs" / f"{name}.json" for name in names]
    workflow = read_workflow(bundle.root, files, settings)
    return workflow.parser.get_parsed_content("network_def")


@every_network
@pytest.mark.parametrize("variant", ["none", "se", "sme", "low-rank", "sme-dummy"])
def test_every_bundle_takes_them_by_ten_lines(bundle, name, variant):
    if bundle.predicts_images:  # whose answers are no classes: it has no such delta
        assert not (bundle.root / "configs" / f"{name}.json").exists()
        return
    text = (bundle.root / "configs" / f"{name}.json").read_text()
    assert len(text.splitlines()) <= 10
    network = made(bundle, "train", name, variant=variant)
    assert isinstance(network, Conditioned)
    assert type(network.network).__name__ == NETWORKS[name]
    image = torch.rand(1, network.network.in_channels, 32, 32)
    meta = torch.rand(1, network.meta_features) if network.meta_features else None
    classes = json.loads((bundle.root / "configs/train.json").read_text())["classes"]
    assert network.eval()(image, meta).shape == (1, classes, 32, 32)


@every_network
def test_volumes_of_kits_are_segmented_by_them(copy_bundle, name):
    network = made(copy_bundle("kits21_tumour_slices_segmentation"), "train", "train_3d", name)
    image = torch.rand(1, 1, 32, 32, 16)
    assert network.eval()(image, torch.rand(1, network.meta_features)).shape == (1, 4, 32, 32, 16)


@pytest.mark.parametrize("name", ["segresnet"])
def test_trained_evaluated_predicted_and_explained(copy_bundle, name, tmp_path):
    bundle = copy_bundle("synthetic_shapes_segmentation")
    folder = tmp_path / "model"
    run.train(bundle.root, output_dir=folder, configuration=name, **bundle.settings)
    _, facts = read_weights(folder / "model.pt")
    network = facts["network"]
    assert facts["variant"] == network["variant"] == "sme"
    assert network["_target_"] == "metaseg_monai.networks.condition"
    assert network["network"]["_target_"] == NETWORKS[name]
    assert network["network"]["init_filters"] == 16
    assert network["network"]["spatial_dims"] == 2
    assert network["network"]["num_groups"] == 8  # MONAI's own default
    assert facts["unknown_trained"] is True
    tested = run.evaluate(folder, modes=["normal", "zeros"])
    assert list(tested.scores.index) == ["normal", "zeros"]
    source = tmp_path / "images"
    shutil.copytree(bundle.root / "data/images", source)
    masks = run.predict(folder, source, tmp_path / "masks", meta={"task": "disc"})
    assert len(masks.masks) == len(list(source.iterdir()))
    drawn = {path.name for path in run.explain(folder, explain_cases=1)}
    assert "gate_down_layers.3.png" in drawn
    gates = pd.read_csv(folder / "explain" / "gates.csv")
    assert list(gates["gate"].unique()) == [f"down_layers.{number}" for number in range(4)]
