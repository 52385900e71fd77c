"""What `from metaseg_monai import ...` gives, in a notebook's way."""

import importlib.util
import json
import os
import pkgutil
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tifffile

import metaseg_monai
from metaseg_monai import (
    evaluate,
    find_cases,
    predict,
    read_image,
    read_table,
    report,
    train,
    write_mask,
)
from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.metadata.fields import MetadataWarning
from metaseg_monai.transforms import DropMetadatad
from tests.extras import lacking

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
)


def test_no_room_hides_a_name():
    for room in pkgutil.walk_packages(metaseg_monai.__path__, "metaseg_monai."):
        if not room.name.endswith(("__main__", ".metadata_trainer")):  # nnU-Net's, of its own place
            importlib.import_module(room.name)
    for name in metaseg_monai.__all__:
        assert callable(getattr(metaseg_monai, name)), name
    assert set(metaseg_monai.__all__) <= set(dir(metaseg_monai))
    with pytest.raises(AttributeError, match="nothing"):
        _ = metaseg_monai.nothing


def test_the_door_is_light():
    heavy = "{'torch', 'monai', 'numpy', 'pandas', 'matplotlib'}"
    code = f"import sys, metaseg_monai; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: train(None), "train: bundle is None"),
        (lambda: train("b", "out", trust="no"), r"train: trust is 'no' \(str\); expected bool"),
        (lambda: train("b", ["out"]), r"output_dir is \['out'\].*expected str | Path | None"),
        (lambda: train("synthetic_shapes_segmentation", configuration=5), "configuration is 5"),
        (lambda: evaluate(np.zeros(2)), r"evaluate: folder is array\(\[0., 0.\]\)"),
        (lambda: predict("runs", ["a.tif"]), r"predict: source is \['a.tif'\]"),
        (lambda: report(7), "report: folder is 7"),
        (lambda: read_table(None), "read_table: path is None"),
        (lambda: read_table("data", "schema.json"), "schema is 'schema.json'.*MetadataSchema"),
        (lambda: read_table("data", columns=["image"]), r"columns is \['image'\].*ColumnMap"),
        (lambda: find_cases("data", metadata={5: "disc"}), r"metadata is \{5: 'disc'\}"),
        (lambda: find_cases(np.zeros(2)), "find_cases: source is array"),
        (lambda: read_image(["a.tif", None]), r"read_image: path is \['a.tif', None\]"),
        (lambda: read_image("a.tif", 2.0), "spatial_dims is 2.0"),
        (lambda: read_image("a.tif", palette="grey"), "palette is 'grey'.*'colours', 'indices'"),
        (lambda: write_mask(np.ones((2, 2)), "m.tif", None), "write_mask: like is None"),
    ],
)
def test_arguments_of_another_type_are_refused_by_name(call, told):
    with pytest.raises(ConfigError, match=told):
        call()


def test_numbers_of_numpy_are_numbers(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint8))
    assert read_image(tmp_path / "a.tif", spatial_dims=np.int64(2)).array.shape == (1, 4, 4)


def test_train_evaluate_predict_report(bundle, tiny, tmp_path, monkeypatch):
    data = tmp_path / "data"
    monkeypatch.chdir(tmp_path)
    settings = {**tiny, "dataset_dir": "data"}
    model = train(bundle, "my runs/me", variant="me", **settings)
    assert (model.folder / "model.pt").is_file()
    assert list(model.log["epoch"]) == [1, 2]
    monkeypatch.chdir("my runs")  # a relative folder of the training is still found
    tested = evaluate(model.folder, modes=["normal", "zeros"])
    assert list(tested.scores.index) == ["normal", "zeros"]
    with pytest.raises(MetadataError, match="No test mode is named"):
        evaluate(model.folder, modes=[])
    assert list(evaluate(model.folder, modes="normal,zeros").scores.index) == ["normal", "zeros"]
    assert set(tested.counts["mode"]) == {"normal", "zeros"}
    assert f"report '{tmp_path / 'my runs'}' writes the tables" in str(tested)
    tests = [row for row in read_table(data, None).rows if row["split"] == "test"]
    assert tested.counts["case"].nunique() == len(tests)
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/a.tif", 255 * np.eye(40, 36, dtype=np.uint8))
    made = predict(model.folder, tmp_path / "images", meta={"task": "disc"})
    assert list(made.cases["case"]) == ["a"]
    assert tifffile.imread(made.masks[0]).shape == (40, 36)
    page = report(tmp_path / "my runs")
    assert page.html.is_file()
    assert page.summary["conditions"]
    for shown in (model, tested, made, page):
        assert str(tmp_path) in str(shown)
    monkeypatch.chdir(tmp_path)
    other = train(bundle, "my runs/other", variant="me", **{**settings, "seed": 1})
    shutil.copy(other.folder / "model.pt", model.folder / "model.pt")
    with pytest.raises(ConfigError, match="tells how other weights were trained"):
        evaluate(model.folder)


def test_an_augmentation_of_ones_own_still_shows_unknown(bundle, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seen = []
    drop = DropMetadatad.__call__
    monkeypatch.setattr(DropMetadatad, "__call__", lambda *a: seen.append(drop(*a)) or seen[-1])
    flip = {"_target_": "RandFlipd", "keys": ["image", "label"], "prob": 0.5}
    settings = {**tiny, "train#augmentation": [flip], "metadata_dropout": 1.0}
    model = train(bundle, "me", variant="me", **settings)
    assert json.loads((model.folder / "model.json").read_text())["unknown_trained"]
    assert seen
    assert all(item["meta"][-1] == 1 and item["meta"].sum() == 1 for item in seen)


def test_a_schema_of_ones_own_is_kept_to_the_prediction(bundle, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    schema = json.loads((bundle / "configs/schema.json").read_text())
    schema["fields"][0]["name"] = "wanted"
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    (tmp_path / "columns.json").write_text('{"metadata": {"wanted": "task"}}')
    own = {"schema_file": "schema.json", "columns_file": "columns.json"}
    model = train(bundle, "me", variant="me", **tiny, **own)
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/a.tif", 255 * np.eye(40, 36, dtype=np.uint8))
    given = predict(model.folder, "images", "given", meta={"wanted": "disc"})
    shown = {"displayable_configs": {"wanted": "disc", "threshold": 0.5}}
    with warnings.catch_warnings():
        warnings.simplefilter("error", MetadataWarning)  # nothing is unknown
        by_settings = predict(model.folder, "images", "by_settings", **shown)
    assert given.masks[0].read_bytes() == by_settings.masks[0].read_bytes()
    with pytest.raises(ConfigError, match=r"names 'tusk'; expected .* \(wanted\)"):
        predict(
            model.folder, "images", "wrong", displayable_configs={"tusk": "disc", "threshold": 0.5}
        )


def test_a_model_that_does_not_tell_its_bundle(tmp_path):
    (tmp_path / "model.pt").touch()
    with pytest.raises(ConfigError, match="give the bundle and the settings"):
        evaluate(tmp_path)
    (tmp_path / "training.json").write_text("{}")
    with pytest.raises(DataError, match=r"training\.json: damaged"):
        evaluate(tmp_path)


def test_openvino_finds_nobody_to_tell_its_maker_by(tmp_path):
    (tmp_path / "openvino_telemetry.py").write_text("raise SystemExit('it would tell')")
    program = "import metaseg_monai\ntry:\n import openvino_telemetry\nexcept ImportError: pass"
    path = os.pathsep.join([str(tmp_path), *sys.path])
    told = {**os.environ, "PYTHONPATH": path}
    subprocess.run([sys.executable, "-c", program], env=told, check=True)


def test_onnxruntime_tells_its_maker_nothing(tmp_path):
    if importlib.util.find_spec("onnxruntime") is None:
        lacking("onnxruntime is not installed")
    program = "import metaseg_monai, onnxruntime"
    kept = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", program], env={**kept, "TMPDIR": str(tmp_path)}, check=True
    )
    assert list(tmp_path.iterdir()) == []  # else it began a session with its maker, .ses
