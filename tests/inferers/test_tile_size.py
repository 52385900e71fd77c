"""The script that runs a trained network on tiles of several sizes."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest
import torch

from metaseg_monai.bundle import configs_of, resolve_bundle
from metaseg_monai.errors import CheckpointError, ConfigError
from metaseg_monai.simulate.shapes import generate_synthetic_shapes
from metaseg_monai.training import write_weights

SCRIPT = Path(__file__).parents[2] / "scripts" / "tile_size.py"
BUNDLE = "synthetic_shapes_segmentation"
TINY = {
    **{"network_def#channels": 4, "network_def#levels": 2},
    **{"validate#inferer#dtype": None, "network": "@network_def"},
}
SIZES = "96,100,120,whole"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("tile_size", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles") / "data"
    return generate_synthetic_shapes(folder, train=6, val=6, test=6, size=131, seed=0)


def weights_of(script, folder, variant):
    """Random weights whose gates and statistics are not those of the start."""
    torch.manual_seed(0)
    parser = script._parsed(
        resolve_bundle(BUNDLE), ["train.json", "evaluate.json"], {"variant": variant, **TINY}
    )
    network = parser.get_parsed_content("network")
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.02, 0.2)
    with torch.no_grad():  # half of the pixels in each class, so that small changes are counted
        metadata = {"meta": torch.eye(network.meta_features)[:1]} if network.meta_features else {}
        low, high = network.eval()(torch.rand(1, 1, 131, 131).round(), **metadata)[0]
        network.head.bias[1] -= (high - low).median()
    write_weights(folder / "model.pt", network, parser.get_parsed_content("weights").facts)
    return folder / "model.pt"


@pytest.mark.parametrize(("variant", "changes"), [("me", False), ("se", True)])
def test_scores_change_with_the_tile_only_where_gates_pool_it(
    script, shapes, tmp_path, capsys, variant, changes
):
    weights = weights_of(script, tmp_path, variant)
    table = tmp_path / "sizes.csv"
    settings = {"output": str(table), "margin_px": 33, "variant": variant, **TINY}
    script.measure(BUNDLE, str(weights), str(shapes), SIZES, **settings)
    rows = pd.read_csv(table)
    assert rows["tile"].tolist() == ["96", "100", "120", "whole"]
    assert rows["cases"].tolist() == [6] * 4
    assert rows["f1"].between(0.001, 1).all()
    assert (rows["change"] == rows["f1"] - rows["f1"][0]).all()
    assert (rows["change"].abs().max() > 1e-4) == changes
    assert "whole" in capsys.readouterr().out


def test_weights_of_another_variant_and_sizes_of_no_tile_are_refused(script, shapes, tmp_path):
    weights = weights_of(script, tmp_path, "se")
    with pytest.raises(CheckpointError, match="trained for something else"):
        script.measure(BUNDLE, str(weights), str(shapes), "96", variant="me", **TINY)
    with pytest.raises(ConfigError, match="expected pixels above 0 or 'whole'"):
        script.measure(BUNDLE, str(weights), str(shapes), "96,all", variant="se", **TINY)


def test_a_training_of_further_configurations_is_named_as_it_was(script):
    names = configs_of("train", "evaluate", more="thesis_size")
    parser = script._parsed(resolve_bundle(BUNDLE), names, {"variant": "se"})
    assert parser["variant"] == "se"
    assert parser["network_def"]["channels"] == 64
