"""The script that makes packages of all bundles: what it makes, and that it goes on."""

import importlib.util
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import write_json
from metaseg_monai.training import read_weights

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release", ROOT / "scripts" / "release.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.release


@pytest.fixture
def bundles(bundle, tmp_path):
    """A folder with one bundle, made small."""
    root = shutil.copytree(bundle, tmp_path / "bundles" / bundle.name)
    small = {"output": "../data", "train": 12, "val": 6, "test": 6, "size": 32, "seed": 0}
    target = "metaseg_monai.simulate.generate_synthetic_shapes"
    write_json(root / "configs/simulate.json", {"_target_": target, **small})
    file = root / "configs/train.json"
    config = json.loads(file.read_text())
    config["roi_size"], config["train"]["augmentation"] = [32, 32], []
    config["network_def"] |= {"channels": 4, "levels": 2}
    write_json(file, config)
    file = root / "configs/inference.json"
    config = json.loads(file.read_text())
    config["network_def"] |= {"channels": 4, "levels": 2}
    write_json(file, {**config, "roi_size": [32, 32]})
    return root.parent


def test_it_trains_tests_and_packs_and_goes_on(release, bundles, tmp_path, capsys):
    settings = {"epochs": 1, "verify": "no", "bundles": str(bundles)}
    release(str(tmp_path / "out"), **settings)
    (row,) = (line.split(",") for line in capsys.readouterr().out.splitlines()[-1:])
    name = next(bundles.iterdir()).name
    assert row[:2] == [name, "1"]
    assert float(row[2]) > 0
    score, value, low, high, cases = row[3:8]
    assert score == "case_mean_f1"
    assert 0 <= float(low) <= float(value) <= float(high) <= 1
    assert cases == "6"  # that were tested
    (archive,) = (tmp_path / "out").glob("*.zip")
    model = tmp_path / "out/models" / name / "model.pt"
    before = archive.read_bytes(), model.stat().st_mtime_ns
    archive.unlink()
    release(str(tmp_path / "out"), **settings, only=name, exports="torchscript")
    (parity,) = pd.read_csv(tmp_path / "out/parity.csv").to_dict("records")
    assert (parity["bundle"], parity["format"]) == (name, "torchscript")
    assert parity["largest"] <= parity["bound"]
    assert parity["weights_sha256"] == read_weights(model)[1]["weights_sha256"]
    assert (archive.read_bytes(), model.stat().st_mtime_ns) == before
    with pytest.raises(DataError, match="epochs=1"):
        release(str(tmp_path / "out"), **{**settings, "epochs": 2})


def test_a_bundle_that_there_is_none_of_is_refused(release, bundles, tmp_path):
    with pytest.raises(ConfigError, match="no bundle 'shapes'"):
        release(str(tmp_path), only="shapes", bundles=str(bundles))


def test_formats_are_looked_at_before_anything_is_trained(release, bundles, tmp_path, monkeypatch):
    settings = {"epochs": 1, "verify": "no", "bundles": str(bundles)}
    with pytest.raises(ConfigError, match="--exports onxx: expected some of torchscript"):
        release(str(tmp_path / "out"), **settings, exports="torchscript,onxx")
    monkeypatch.setattr("metaseg_monai.sharing.export.is_installed", lambda name: False)
    with pytest.raises(ConfigError, match=r"--to onnx needs onnx; pip install"):
        release(str(tmp_path / "out"), **settings, exports="onnx")
    assert not (tmp_path / "out").exists()
