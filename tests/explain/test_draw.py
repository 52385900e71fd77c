import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from ignite.engine import Engine
from monai.inferers import SimpleInferer
from PIL import Image

from metaseg_monai.bundle import run_bundle
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.explain import (
    GateActivations,
    GateFeatures,
    RecordGates,
    draw,
    read_activations,
    read_features,
)
from metaseg_monai.explain.draw import gate_table

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
FIXED = {"fixed:a": [0.0, 1.0, 0.5], "fixed:b": [0.0, 0.25, 0.5]}


def recorded(folder, network, evaluate, modes):
    recorder = RecordGates(SimpleInferer())
    handlers = [
        GateActivations(folder / "activations.npz", recorder),
        GateFeatures(folder / "features.npz", recorder),
    ]
    image = torch.rand(1, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    cases = [("a/1", mode, "x", image, torch.tensor([meta])) for mode, meta in modes.items()]
    evaluate(network, recorder, handlers, cases)
    return folder


def names(files):
    return sorted(file.name for file in files)


def test_all_figures_and_the_table(tmp_path, echo, evaluate):
    folder = recorded(tmp_path, echo, evaluate, FIXED)
    files = draw(folder)
    assert names(files) == [
        "difference.png",
        "features_a_1_after.png",
        "features_a_1_before.png",
        "gate_echo.png",
        "gates.csv",
        "scale.png",
        "shift.png",
    ]
    for file in files:
        assert file.parent == folder / "explain"
        if file.suffix == ".png":
            with Image.open(file) as picture:
                assert picture.width == 1110  # 7.4 inches
    table = pd.read_csv(folder / "explain" / "gates.csv")
    row = table[(table["channel"] == 1) & (table["mode"] == "fixed:b")].iloc[0]
    assert row.to_dict() == {
        "gate": "echo", "channel": 1, "mode": "fixed:b", "domain": "x", "cases": 1,
        "scale": 0.25, "shift": 0.5,
    }  # fmt: skip
    assert len(table) == 2 * 3


def test_one_value_alone_is_drawn_without_differences(tmp_path, echo, evaluate):
    folder = recorded(tmp_path / "run", echo, evaluate, {"normal": [1.0, 2.0, 3.0]})
    files = draw(folder, output=tmp_path / "pictures")
    assert "scale.png" in names(files)
    assert not any("difference" in name or "gate_" in name for name in names(files))
    assert files[0].parent == tmp_path / "pictures"


def test_the_chosen_pair_is_compared_and_an_unknown_value_refused(tmp_path, echo, evaluate):
    folder = recorded(tmp_path, echo, evaluate, {**FIXED, "fixed:c": [1.0, 1.0, 1.0]})
    GateFeatures(folder / "features.npz", RecordGates(SimpleInferer())).write(Engine(print))  # none
    difference = folder / "explain" / "difference.png"
    draw(folder)  # a and c differ most
    by_default = difference.read_bytes()
    draw(folder, first="a", second="b")
    assert difference.read_bytes() != by_default
    with pytest.raises(ConfigError, match="no metadata value 'd'"):
        draw(folder, first="a", second="d")
    with pytest.raises(ConfigError, match="give both first and second"):
        draw(folder, first="a")


def test_a_folder_without_recordings_is_refused(tmp_path):
    with pytest.raises(DataError, match="run explain on this model first"):
        draw(tmp_path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The shapes bundle with explain.json, apart from the repository."""
    root = tmp_path_factory.mktemp("bundle") / "shapes"
    source = BUNDLES / "synthetic_shapes_segmentation" / "configs"
    shutil.copytree(source, root / "configs")
    shutil.copy(BUNDLES / "_shared" / "explain.json", root / "configs")
    return root


TINY = {
    "table#train": 6, "table#val": 6, "table#test": 12, "table#size": 32, "epochs": 1,
    "batch_size": 2, "channels": 4, "levels": 1, "roi_size": [32, 32], "pad_size": [32, 32],
}  # fmt: skip


# MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:parsing config_file:UserWarning"
)
class TestBundle:
    def run(self, bundle, output, variant, *configs, **overrides):
        settings = {**TINY, "variant": variant, "output_dir": str(output), **overrides}
        run_bundle(bundle, ["train.json", *configs], settings)

    def test_a_trained_run_is_explained(self, bundle, tmp_path):
        self.run(bundle, tmp_path, "sme")
        self.run(bundle, tmp_path, "sme", "evaluate.json", "explain.json", explain_cases=3)
        shapes = json.loads((bundle / "configs" / "schema.json").read_text())["fields"][0]["values"]
        table = gate_table(read_activations(tmp_path / "activations.npz"))
        assert list(table["mode"].unique()) == ["normal", *(f"fixed:{name}" for name in shapes)]
        assert list(table["gate"].unique()) == ["encoder1", "middle", "decoder1"]
        one_channel = table[(table["gate"] == "middle") & (table["channel"] == 0)]
        assert one_channel.groupby("mode")["cases"].sum().tolist() == [3] * 7
        (maps,) = read_features(tmp_path / "features.npz")
        assert (maps.gate, len(maps.after), maps.image.shape) == ("decoder1", 7, (32, 32))
        assert not (tmp_path / "counts.csv").exists()

    def test_a_network_without_gates_is_refused(self, bundle, tmp_path):
        self.run(bundle, tmp_path, "none")
        with pytest.raises(ConfigError, match="no gates to explain"):
            self.run(bundle, tmp_path, "none", "evaluate.json", "explain.json")
        assert not (tmp_path / "activations.npz").exists()
