"""Exports give what the network gives, for every metadata value, and carry their schema."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from torch import nn

from metaseg_monai import from_pretrained, predict, train
from metaseg_monai.errors import CheckpointError, ConfigError, DataError, MetadataError
from metaseg_monai.inferers import Runner
from metaseg_monai.inferers.engines import CalibratedCodes, choose
from metaseg_monai.inferers.exports import (
    OWN_DIGEST,
    Exportable,
    codes_of,
    digest_of,
    measured,
    write_export,
)
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema
from metaseg_monai.networks import DynamicUnet3, MultiHeadUnet3, Unet3
from metaseg_monai.sharing.export import export, preparation
from metaseg_monai.sharing.grow import grow
from metaseg_monai.training import RecordTrained, read_weights, write_weights
from metaseg_monai.training.weights import write_fact
from tests.extras import needed, needs

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle; the exporters
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
    "ignore:No value of:metaseg_monai.metadata.fields.MetadataWarning",
)
WHEN = {"provenance": "acquisition", "availability": "acquisition"}
needs_openvino, needs_nncf = needs("openvino"), needs("nncf", "openvino")


@pytest.fixture(scope="module")
def model(bundle, tiny, tmp_path_factory):
    """A trained model's folder."""
    root = tmp_path_factory.mktemp("exports")
    settings = {**tiny, "epochs": 1, "dataset_dir": str(root / "data")}
    return train(bundle, root / "sme", **settings).folder


@pytest.fixture
def images(tmp_path):
    """Two images to predict."""
    (tmp_path / "images").mkdir()
    for number in range(2):
        image = np.random.default_rng(number).integers(0, 255, (40, 36), np.uint8)
        tifffile.imwrite(tmp_path / f"images/{number}.tif", image)
    return tmp_path / "images"


def schema_of_two():
    return MetadataSchema(
        [
            Categorical(name="task", values=("disc", "ring"), missing="unknown", **WHEN),
            Continuous(name="size_mm", unit="mm", range=(1, 9), missing="unknown", **WHEN),
        ]
    )


def small(variant="sme", schema=None, **more):
    torch.manual_seed(3)
    schema = schema_of_two() if schema is None else schema
    known = {"schema": schema, "unknown_trained": True} if variant not in ("none", "se") else {}
    network = Unet3(variant=variant, channels=4, levels=2, **known, **more)
    reads = schema if known else MetadataSchema([])
    return Exportable(network.eval(), reads, "0" * 64, 1, 2, bool(known))


def lines_of(folder):
    lines = (folder / "predicted.sha256").read_text().splitlines()
    return [json.loads(line[2:]) for line in lines if line.startswith("# ")]


def test_metadata_that_are_tried():
    codes = dict(codes_of(schema_of_two(), unknown_trained=True))
    sizes = [f"size_mm={number}" for number in (1, 3, 5, 7, 9)]
    assert list(codes) == ["task=disc", "task=ring", *sizes, "unknown"]
    assert codes["task=ring"].tolist() == [0, 1, 0, 0, 1]
    assert codes["size_mm=5"].tolist() == [0, 0, 1, 0.5, 0]
    assert codes["unknown"].tolist() == [0, 0, 1, 0, 1]
    without = dict(codes_of(schema_of_two(), unknown_trained=False))
    assert "unknown" not in without
    assert without["task=ring"].tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize("kind", ["torchscript", "onnx", "torch-export"])
def test_parity_and_the_schema_inside(kind, tmp_path):
    needed("onnxruntime")
    given = small()
    told = write_export(given, kind, tmp_path)
    assert told["inputs"] == ["image", "meta"]
    assert told["largest"] <= 1e-5
    assert len(told["sizes"]) == 3
    assert told["sizes"][2]["size"] == [17, 17]  # odd
    assert set(told["values"]) == set(given.codes)
    assert json.loads((tmp_path / "parity.json").read_text())["weights_sha256"] == "0" * 64
    inside = {"metaseg_schema": ""}
    if kind == "torchscript":
        torch.jit.load(tmp_path / "model.ts", _extra_files=inside)
    elif kind == "torch-export":
        torch.export.load(tmp_path / "model.pt2", extra_files=inside)
    else:
        import onnx

        found = onnx.load(tmp_path / "model.onnx")
        inside = {one.key: one.value for one in found.metadata_props}
        assert [one.name for one in found.graph.input] == ["image", "meta"]
        assert [one.name for one in found.graph.output] == ["logits"]
    assert MetadataSchema.from_dict(json.loads(inside["metaseg_schema"])) == schema_of_two()


@needs_openvino
def test_openvino_has_the_schema_and_float32(tmp_path):
    import openvino

    told = write_export(small(), "openvino", tmp_path)
    assert told["largest"] <= 1e-5
    found = openvino.Core().read_model(tmp_path / "model.xml")
    text = found.get_rt_info("metaseg_schema").astype(str)
    assert MetadataSchema.from_dict(json.loads(text)) == schema_of_two()
    assert sorted(told["files"]) == ["model.bin", "model.xml"]


def test_a_network_without_metadata_has_one_input(tmp_path):
    told = write_export(small("se"), "torchscript", tmp_path)
    assert told["inputs"] == ["image"]
    assert list(told["values"]) == [""]
    inside = {"metaseg_schema": ""}
    torch.jit.load(tmp_path / "model.ts", _extra_files=inside)
    assert json.loads(inside["metaseg_schema"]) == {"fields": []}


def test_an_export_that_strays_is_refused(tmp_path, monkeypatch):
    given = small()

    def stray(image, meta):
        pred = given.module(image, meta)
        return pred + 1e-3 * meta[:, 1, None, None, None] * pred.abs().max()

    assert measured(given, stray)["values"]["task=disc"] == 0
    assert measured(given, stray)["values"]["task=ring"] > 1e-5
    monkeypatch.setattr("metaseg_monai.inferers.exports.open_any", lambda file, kind: stray)
    with pytest.raises(CheckpointError, match=r"Unet3 as torchscript.*task=ring"):
        write_export(given, "torchscript", tmp_path)
    assert not (tmp_path / "parity.json").exists()


def test_a_network_of_one_size_is_refused_by_name(tmp_path):
    class Fixed(nn.Module):
        meta_features = 0

        def forward(self, image):
            return image.reshape(len(image), 1, 8, 9)

    given = Exportable(Fixed(), MetadataSchema([]), "0", 1, 2)
    with pytest.raises(ConfigError, match=r"Fixed: no size of images is found"):
        write_export(given, "torchscript", tmp_path)


def test_two_heads(tmp_path):
    needed("onnxruntime")
    schema = MetadataSchema([Categorical(name="task", values=("disc", "ring"), **WHEN)])
    network = MultiHeadUnet3("task", schema=schema, channels=4, levels=2).eval()
    given = Exportable(network, schema, "0", 1, 2)
    assert write_export(given, "onnx", tmp_path)["largest"] <= 1e-5
    runner = Runner(network, "onnxruntime", exported=tmp_path)
    runner._open(tmp_path / "model.onnx", "0")
    image = torch.rand(2, 1, 16, 16)
    rows = torch.eye(2)
    assert (runner(image, rows) - network(image, rows)).abs().max() < 1e-4
    with pytest.raises(MetadataError, match="expected one head"):  # as the network itself says
        runner(image, torch.full((2, 2), 0.5))


@pytest.mark.parametrize("kind", ["torchscript", "onnx"])
def test_weights_made_from_metadata(kind, tmp_path):
    """Its batches mix metadata, so that every image has weights of its own."""
    needed("onnxruntime")
    schema = schema_of_two()
    sizes = {"channels": 4, "levels": 2}
    network = DynamicUnet3(schema=schema, unknown_trained=True, **sizes).eval()
    told = write_export(Exportable(network, schema, "0", 1, 2, True), kind, tmp_path)
    assert told["largest"] <= 1e-5
    assert len(told["sizes"]) == 3
    assert "unknown" in told["values"]


def test_a_value_that_predict_would_refuse_is_not_fixed():
    made = small()
    given = (made.network, made.schema, "0" * 64, 1, 2)
    with pytest.raises(MetadataError, match="no value of size_mm, and this network was trained"):
        Exportable(*given, unknown_trained=False, value={"task": "disc"})
    fixed = Exportable(*given, unknown_trained=True, value={"task": "disc"}).module
    assert fixed.meta.tolist() == [[1, 0, 0, 0, 1]]
    later = {"provenance": "acquisition", "availability": "post-operative"}
    schema = MetadataSchema([Categorical(name="grade", values=("low", "high"), **later)])
    network = Unet3(schema=schema, channels=4, levels=2)
    given = (network, schema, "0" * 64, 1, 2, False, {"grade": "high"})
    with pytest.raises(MetadataError, match=r"known only later: 'grade' \(post-operative\)"):
        Exportable(*given)
    assert Exportable(*given, force=True).module.meta.tolist() == [[0, 1]]


def test_int8_is_refused_where_no_case_has_foreground(monkeypatch, tmp_path):
    exporting = sys.modules[export.__module__]  # the function has the module's name
    empty = torch.zeros(1, 1, 4, 4)
    case = exporting.Case("a", empty, empty, None, "normal", [""])
    cases = SimpleNamespace(scored=[case, case], refuse_others=lambda _: None)
    monkeypatch.setattr(exporting, "Cases", lambda *_: cases)
    monkeypatch.setattr(exporting, "read_model", lambda _: SimpleNamespace(cases=None))
    with pytest.raises(DataError, match="no label of the 1 validation cases has foreground"):
        exporting.quantized(small(), tmp_path, {}, SimpleNamespace(model=None), {})


def test_int8_is_tested_by_the_images_of_the_training_alone(tmp_path):
    """Of an image of two tasks, and of the planes of a volume, the record has one row."""
    exporting = sys.modules[export.__module__]
    rng = np.random.default_rng(0)

    def item(name, split, task):
        file = tmp_path / f"{name}.tif"
        if not file.is_file():
            tifffile.imwrite(file, rng.integers(0, 255, (8, 8), np.uint8))
        return {"image": str(file), "case": f"{name}__{task}", "split": split, "group": name}

    items = [item(f"i{n}", ("train", "val")[n % 2], task) for n in range(4) for task in "ab"]
    known = {"facts": {}, "begun_with": None, "schema": None, "network": nn.Linear(1, 1)}
    record = RecordTrained(SimpleNamespace(**known, path=tmp_path / "model.pt"), items)
    record(SimpleNamespace(state=SimpleNamespace(iteration=1)))
    record.write(None)
    trained = pd.read_csv(tmp_path / "trained_on.csv", dtype=str, keep_default_na=False)
    assert len(trained) == 4
    cases = object.__new__(exporting.Cases)
    cases.items = {one: [i for i in items if i["split"] == one] for one in ("val", "train")}
    cases.refuse_others(trained)
    cases.refuse_others(None)  # of weights that came without the list
    cases.items["val"] = [item("other", "val", "a")]
    with pytest.raises(DataError, match=r"'other__a' is no image of its split val.*--dataset_dir"):
        cases.refuse_others(trained)
    cases.items["val"] = cases.items["train"]
    with pytest.raises(DataError, match="split val"):
        cases.refuse_others(trained)


def test_one_value(model, tmp_path):
    needed("onnxruntime")
    made = export(model, "onnx", tmp_path / "disc", "task=disc")
    assert made.parity["inputs"] == ["image"]
    assert made.parity["value"] == {"task": "disc"}
    import onnxruntime

    session = onnxruntime.InferenceSession(made.file)
    assert [one.name for one in session.get_inputs()] == ["image"]
    with pytest.raises(MetadataError, match="disk"):
        export(model, "onnx", tmp_path / "disk", "task=disk")
    with pytest.raises(ConfigError, match="--value 'disc': write each field once"):
        export(model, "onnx", tmp_path / "disk", "disc")
    with pytest.raises(ConfigError, match="without --output"):
        export(model, "onnx", value="task=disc")
    assert not (tmp_path / "disk").exists()


def test_a_value_that_was_never_trained_is_told(model, tmp_path, capsys):
    copied = Path(shutil.copytree(model, tmp_path / "model"))
    write_fact(copied / "model.pt", "untrained", {"task": ["disc"]})
    export(copied, "torchscript", tmp_path / "ring", "task=ring")
    assert "no training image" not in capsys.readouterr().out
    export(copied, "torchscript", tmp_path / "disc", "task=disc")
    assert (
        "no training image had task=disc: the export answers untrained" in capsys.readouterr().out
    )


def test_the_models_of_a_bundle_are_named_by_the_bundle(model, tmp_path):
    (tmp_path / "bundle/configs").mkdir(parents=True)
    (tmp_path / "bundle/models").mkdir()
    shutil.copy(model / "model.pt", tmp_path / "bundle/models")
    with pytest.raises(ConfigError, match=r"is a part of the bundle .*; give the bundle's folder"):
        export(tmp_path / "bundle/models", "torchscript")


def test_a_grown_model(model, tmp_path):
    needed("onnxruntime")
    grow(model, "task", tmp_path / "grown", value="bean")
    made = export(tmp_path / "grown", "onnx", tmp_path / "out")
    assert "task=bean" in made.parity["values"]
    assert (
        made.parity["weights_sha256"]
        != json.loads((model / "model.json").read_text())["weights_sha256"]
    )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"to": "tflite"}, "expected one of torchscript, onnx"),
        ({"to": "onnx", "value": " "}, "--value is empty"),
        ({"to": "onnx", "precision": "int8"}, "those to openvino also in int8"),
        ({"to": "onnx", "num_workers": 2}, "export takes --num_workers with --precision int8 only"),
    ],
)
def test_what_export_does_not_take(model, given, told):
    with pytest.raises(ConfigError, match=told):
        export(model, **given)


def test_what_is_no_model_of_export(model, tmp_path):
    with pytest.raises(ConfigError, match=r"model.pt is a file; give the folder that it is in"):
        export(model / "model.pt", "onnx")
    with pytest.raises(ConfigError, match="names several models, and one is taken"):
        export(f"{model},{model}", "onnx")
    folder = tmp_path / "ensemble"
    folder.mkdir()
    (folder / "ensemble.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"lists the models of an ensemble .*give the folder of"):
        export(folder, "onnx")
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(model / "checkpoint.pt", begun)
    with pytest.raises(ConfigError, match=r"has kept no weights yet; go on: .*--resume True"):
        export(begun, "onnx")
    shutil.copy(model / "model.pt", begun)
    with pytest.raises(ConfigError, match=r"does not say how it was trained.*--resume True"):
        export(begun, "onnx")


def test_a_folder_of_somebody_is_left_as_it_is(model, tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="mine: is filled already; give another folder"):
        export(model, "torchscript", mine)
    with pytest.raises(DataError, match=r"notes.txt: is a file; name a folder"):
        export(model, "torchscript", mine / "notes.txt")
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]


def test_bioimageio(model, tmp_path, monkeypatch):
    needed("onnxruntime")
    found = "metaseg_monai.sharing.export.is_installed"  # its own test takes long
    monkeypatch.setattr(found, lambda name: name != "bioimageio.core")
    made = export(model, "bioimageio", tmp_path / "out")
    with zipfile.ZipFile(made.file) as archive:
        names = archive.namelist()
        rdf = json.loads(archive.read("rdf.yaml"))
        schema = json.loads(archive.read("metaseg_schema.json"))
    assert {"model.ts", "model.onnx", "test_meta.npy", "README.md"} <= set(names)
    image, meta = rdf["inputs"]
    assert image["axes"][2]["size"] == {"min": 8, "step": 4}
    assert meta["axes"][1]["channel_names"][:2] == ["task_triangle", "task_ring"]
    assert rdf["attachments"][0] == {"source": "metaseg_schema.json"}
    assert [one["name"] for one in schema["fields"]] == ["task"]
    assert sorted(path.name for path in made.folder.iterdir()) == ["bioimageio.zip", "parity.json"]
    (step,) = image["preprocessing"]
    assert step == {"id": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": 0.0}}
    with zipfile.ZipFile(made.file) as archive:
        names = ("image", "meta", "logits")
        stored, told, logits = (
            np.load(io.BytesIO(archive.read(f"test_{one}.npy"))) for one in names
        )
    assert 200 < stored.max() <= 255
    network = from_pretrained(model).network
    with torch.no_grad():
        expected = network(torch.from_numpy(stored / 255), torch.from_numpy(told))
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-4, atol=1e-5)


def prepared(*steps, value=None, **facts):
    given = SimpleNamespace(spatial_dims=2, value=value)
    return preparation(given, {"preprocessing": [*steps, "@encode"], **facts})


RANGES = {"20": [[100, 300], [0, 1000]], "40": [[50, 60], [0, 10]]}


@pytest.mark.parametrize(
    ("steps", "image", "expected"),
    [
        (
            [{"_target_": "x.ScaleIntensityCased", "clip": True, "intensity_range": [-100, 300]}],
            [[-1000.0, -100], [100, 900]],
            [[0, 0], [0.5, 1]],
        ),
        (
            [
                {
                    **{"_target_": "NormalizeIntensityd", "nonzero": False, "channel_wise": True},
                    **{"subtrahend": None, "divisor": None},
                }
            ],
            [[1.0, 1], [3, 3]],
            [[-1, -1], [1, 1]],
        ),
        (
            [{"_target_": "x.ScaleIntensityBy", "by": "mag", "percentiles": [0, 100]}],
            [[100.0, 200], [250, 900]],
            [[0, 0.5], [0.75, 1]],
        ),
        (
            [{"_target_": "x.ScaleIntensityCased", "clip": False, "intensity_range": [0, 1]}],
            [[0.0, 0.1], [0.2, 1]],
            [[0, 0.1], [0.2, 1]],
        ),
    ],
)
def test_what_is_done_to_values_is_described(steps, image, expected):
    value = {"mag": "20"}
    found = prepared(*steps, value=value, scaling={"image": {"ranges": {"20": RANGES["20"][:1]}}})
    assert found.is_whole
    np.testing.assert_allclose(found(np.array([[image]])), [[expected]], atol=1e-5)
    noise = np.random.default_rng(0).random((2, 1, 5, 5))
    again = found(found.stored(noise))
    assert again.dtype == np.float32
    if "Normalize" not in steps[0]["_target_"]:
        np.testing.assert_allclose(again, noise, atol=1e-5)


def test_what_cannot_be_described_is_told_in_words():
    by = {"_target_": "x.ScaleIntensityBy", "by": "mag", "percentiles": [0, 100]}
    found = prepared(by, scaling={"image": {"ranges": RANGES}})
    assert (found.steps, found.is_whole) == ([], False)
    assert "values of mag 20, by channel, to 0 to 1: 100 to 300, 0 to 1000" in found.words
    two = prepared(by, scaling={"image": {"ranges": RANGES}}, value={"mag": "40"})
    assert two.steps[0]["kwargs"]["gain"] == pytest.approx([0.1, 0.1])
    other = prepared({"_target_": "x.NormalizeVolumed"}, {"_target_": "x.LoadCased"})
    assert (other.steps, other.words) == ([], ["NormalizeVolume {}"])
    spaced = prepared({"_target_": "x.ResampleToSpacingd", "spacing_mm": 5.0})
    assert (spaced.spacing_mm, spaced.is_whole) == ([5.0, 5.0], True)
    assert "resample images of others before" in spaced.words[0]
    same = prepared({"_target_": "x.ScaleIntensityCased", "clip": False, "intensity_range": [0, 1]})
    assert (same.steps, same.is_whole) == ([], True)  # the format refuses a step that does nothing
    grey = prepared({"_target_": "x.LoadCased", "channels": "grey"})
    assert (grey.is_whole, grey.words) == (False, ["channels: grey"])
    assert not preparation(SimpleNamespace(spatial_dims=2, value=None), {}).is_whole
    assert not prepared(by, scaling={"label": {"ranges": RANGES}}, value={"mag": "20"}).is_whole
    flat = prepared(by, scaling={"image": {"ranges": {"20": [[100, 100]]}}}, value={"mag": "20"})
    assert flat(np.full((1, 1, 2, 2), 150.0)).max() == 0  # as `ScaleIntensityBy`


@needs("bioimageio.core")
def test_steps_are_those_of_the_description(model):
    from bioimageio.spec.model import v0_5

    kinds = {
        "clip": v0_5.ClipDescr,
        "scale_linear": v0_5.ScaleLinearDescr,
        "zero_mean_unit_variance": v0_5.ZeroMeanUnitVarianceDescr,
    }
    normal = {"_target_": "NormalizeIntensityd", "channel_wise": True}
    window = {"_target_": "x.ScaleIntensityCased", "clip": True, "intensity_range": [-79, 304]}
    by = {"_target_": "x.ScaleIntensityBy", "by": "mag", "percentiles": [0, 100]}
    ranges = {"scaling": {"image": {"ranges": RANGES}}, "value": {"mag": "20"}}
    for found in (prepared(normal), prepared(window), prepared(by, **ranges)):
        assert found.steps
        for step in found.steps:
            kinds[step["id"]].model_validate(step)


@pytest.mark.slow
@pytest.mark.filterwarnings(  # bioimageio.core 0.11 leaves the files of a model open
    "ignore:unclosed file:ResourceWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
@needs("bioimageio.core")
@pytest.mark.parametrize("value", [None, "task=disc"])
def test_bioimageio_passes_its_own_test(model, tmp_path, value):
    from bioimageio.core import test_model

    made = export(model, "bioimageio", tmp_path / "out", value)
    assert made.parity["tested_by"] == "bioimageio.core's test_model passes (torchscript, onnx)"
    with zipfile.ZipFile(made.file) as archive:
        archive.extractall(tmp_path / "x")
    logits = np.load(tmp_path / "x/test_logits.npy")
    np.save(tmp_path / "x/test_logits.npy", logits + 1)
    assert test_model(tmp_path / "x/rdf.yaml").status != "passed"  # the test can fail


# Engines.


def test_which_engine(monkeypatch):
    there = {"openvino", "onnxruntime", "onnx"}
    monkeypatch.setattr("metaseg_monai.inferers.engines.is_installed", there.__contains__)
    monkeypatch.setattr("metaseg_monai.inferers.engines.has_bf16", lambda: True)
    assert choose("auto") == ("openvino", "bf16")
    assert choose("auto", "float32") == ("onnxruntime", "float32")
    assert choose("auto", device="cuda:0") == ("torch", None)
    assert choose("onnxruntime") == ("onnxruntime", "float32")
    monkeypatch.setattr("metaseg_monai.inferers.engines.has_bf16", lambda: False)
    assert choose("auto") == ("onnxruntime", "float32")  # 1.16 of PyTorch's speed, the other 1.02
    there.discard("onnxruntime")
    assert choose("auto") == ("openvino", "float32")
    with pytest.raises(ConfigError, match="no instructions for bf16"):
        choose("openvino")
    there ^= {"openvino", "onnxruntime"}
    assert choose("auto") == ("onnxruntime", "float32")
    assert choose("auto", "bf16") == ("torch", "bf16")
    with pytest.raises(ConfigError, match=r"metaseg-monai\[engines\]"):
        choose("openvino")
    with pytest.raises(ConfigError, match="expected one of float32"):
        choose("onnxruntime", "bf16")
    with pytest.raises(ConfigError, match="or auto"):
        choose("tensorrt")


def test_predict_by_an_engine(model, images, tmp_path):
    needed("onnxruntime")
    meta = {"task": "disc"}
    plain = predict(model, images, tmp_path / "float", meta, precision="float32")
    made = predict(model, images, tmp_path / "ort", meta, engine="onnxruntime")
    for one, other in zip(plain.masks, made.masks, strict=True):
        assert (tifffile.imread(one) != tifffile.imread(other)).mean() < 1e-3
    assert {line["engine"] for line in lines_of(tmp_path / "ort")} == {"onnxruntime"}
    assert {line["precision"] for line in lines_of(tmp_path / "ort")} == {"float32"}
    with pytest.raises(DataError, match=r"made by onnxruntime in float32, and torch in bf16"):
        predict(model, images, tmp_path / "ort", meta)
    usual = predict(model, images, tmp_path / "usual", meta)
    assert {line["precision"] for line in lines_of(tmp_path / "usual")} == {"bf16"}
    before = usual.masks[0].stat().st_mtime_ns
    again = predict(model, images, tmp_path / "usual", meta, engine="torch")
    assert again.masks[0].stat().st_mtime_ns == before
    with pytest.raises(MetadataError, match="disk"):
        predict(model, images, tmp_path / "wrong", {"task": "disk"}, engine="onnxruntime")


def test_predict_by_a_kept_export(model, images, tmp_path, monkeypatch):
    needed("onnxruntime")
    copied = tmp_path / "model"
    shutil.copytree(model, copied)
    export(copied, "onnx")
    monkeypatch.setattr("metaseg_monai.inferers.engines.write_export", None)  # none is made
    meta = {"task": "ring"}
    assert predict(copied, images, tmp_path / "a", meta, engine="onnxruntime").masks
    file = copied / "exports/onnx/model.onnx"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="not as it was exported"):
        predict(copied, images, tmp_path / "b", meta, engine="onnxruntime")
    file = copied / "exports/onnx/parity.json"
    file.write_text(file.read_text().replace('"value": null', '"value":  {}'))
    with pytest.raises(ConfigError, match=r"parity.json: damaged \(it was changed\)"):
        predict(copied, images, tmp_path / "b", meta, engine="onnxruntime")
    retold(file, weights_sha256="1" * 64, value=None)
    with pytest.raises(CheckpointError, match="an export of other weights"):
        predict(copied, images, tmp_path / "b", meta, engine="onnxruntime")
    with pytest.raises(ConfigError, match=r"no export in int8|is not installed"):
        predict(copied, images, tmp_path / "b", meta, engine="openvino", precision="int8")


def retold(file, **changes):
    """Write parity.json as somebody would who knows how."""
    told = json.loads(file.read_text()) | changes
    file.write_text(json.dumps(told | {OWN_DIGEST: digest_of(told)}))


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "its list of files is not that of an export"),
        (["model.onnx"], "parity.json: damaged"),
        ({"model.onnx": "0", "../model.onnx": "0"}, "its list of files is not that of an export"),
    ],
)
def test_a_list_beside_an_export_that_binds_nothing_is_refused(tmp_path, files, told):
    needed("onnxruntime")
    network = small()
    write_export(network, "onnx", tmp_path)
    retold(tmp_path / "parity.json", files=files)
    with pytest.raises(ConfigError, match=told):
        Runner(network.network, "onnxruntime", exported=tmp_path)


def test_an_export_says_itself_of_which_weights_it_is(tmp_path):
    needed("onnxruntime")
    network = small()
    write_export(network, "onnx", tmp_path)
    runner = Runner(network.network, "onnxruntime", exported=tmp_path)
    with pytest.raises(CheckpointError, match=r"other weights \(000000000000\).*are 111111111111"):
        runner._open(tmp_path / "model.onnx", "1" * 64)
    runner._open(tmp_path / "model.onnx", "0" * 64)
    image, meta = torch.rand(1, 1, 16, 16), torch.zeros(1, 5)
    assert runner(image, meta).shape == (1, 2, 16, 16)
    with pytest.raises(CheckpointError, match=r"does not run the export on 1 image.*engine torch"):
        runner(torch.rand(1, 2, 16, 16), meta)
    (tmp_path / "model.onnx").write_bytes(b"junk")
    with pytest.raises(
        CheckpointError, match=r"onnxruntime cannot open it .*export the model anew"
    ):
        runner._open(tmp_path / "model.onnx", "0" * 64)


@needs_openvino
def test_an_export_to_openvino_says_it_too(tmp_path):
    network = small()
    write_export(network, "openvino", tmp_path)
    runner = Runner(network.network, "openvino", "float32", exported=tmp_path)
    runner._open(tmp_path / "model.xml", "0" * 64)
    with pytest.raises(CheckpointError, match=r"other weights \(000000000000\)"):
        runner._open(tmp_path / "model.xml", "1" * 64)


def test_an_ensemble_by_an_engine(model, images, tmp_path):
    needed("onnxruntime")
    other = shutil.copytree(model, tmp_path / "other")
    record = other / "training.json"
    state, facts = read_weights(other / "model.pt")
    del facts["weights_sha256"]
    schema = MetadataSchema.from_dict(facts["schema"])
    network = Unet3(schema, "sme", channels=4, levels=2, reduction=1, unknown_trained=True)
    network.load_state_dict(
        {name: -30 * one if "head" in name else one for name, one in state.items()}
    )
    write_weights(other / "model.pt", network, facts)
    digest = read_weights(other / "model.pt")[1]["weights_sha256"]
    record.write_text(json.dumps({**json.loads(record.read_text()), "weights_sha256": digest}))
    meta, both = {"task": "disc"}, [model, other]
    asked = {"meta": meta, "save_probabilities": True}
    plain = predict(both, images, tmp_path / "float", precision="float32", **asked)
    made = predict(both, images, tmp_path / "ort", engine="onnxruntime", **asked)
    alone = predict(model, images, tmp_path / "one", engine="onnxruntime", **asked)
    of_both, of_ort, of_one = (
        np.load(min(one.folder.glob("*_probabilities.npz")))["probabilities"]
        for one in (plain, made, alone)
    )
    np.testing.assert_allclose(of_both, of_ort, atol=2e-3)
    assert np.abs(of_one.astype(float) - of_ort).max() > 0.05  # both members count
    assert {line["engine"] for line in lines_of(tmp_path / "ort")} == {"onnxruntime"}
    with pytest.raises(ConfigError, match="--exported is of one model, and there are 2"):
        predict(both, images, tmp_path / "no", engine="onnxruntime", exported=tmp_path, **asked)


def test_a_value_that_was_not_calibrated():
    told = {"entries": ["task=disc", "task=ring", "size"], "low": [0.0] * 3, "high": [1.0, 0, 0.5]}
    told["mixed"] = False
    calibrated = CalibratedCodes(told, "out")
    calibrated.check(torch.tensor([1.0, 0.0, 0.5]))
    with pytest.raises(MetadataError, match=r"case 'a': .*\(task=ring\)"):
        calibrated.check(torch.tensor([0.0, 1.0, 0.5]), "a")
    with pytest.raises(MetadataError, match=r"\(size\)"):
        calibrated.check(torch.tensor([[1.0, 0.0, 0.4], [1.0, 0.0, 0.6]]))
    half = torch.tensor([0.5, 0.0, 0.2])  # of a field of several values at once
    with pytest.raises(MetadataError, match=r"\(task=disc\)"):
        calibrated.check(half)
    CalibratedCodes({**told, "mixed": True}, "out").check(half)


@needs_openvino
def test_openvino_in_bf16_and_float32(model, images, tmp_path):
    meta = {"task": "disc"}
    plain = predict(model, images, tmp_path / "torch", meta, precision="float32")
    for precision in ("float32", *(["bf16"] if "avx512_bf16" in _flags() else [])):
        place = tmp_path / precision
        made = predict(model, images, place, meta, engine="openvino", precision=precision)
        differ = [
            (tifffile.imread(one) != tifffile.imread(other)).mean()
            for one, other in zip(plain.masks, made.masks, strict=True)
        ]
        assert max(differ) < (1e-3 if precision == "float32" else 0.05)


def _flags():
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.is_file() else ""


@pytest.mark.slow
@needs_nncf
def test_int8_passes_its_gate_or_is_refused(model, images, tmp_path, monkeypatch):
    copied = tmp_path / "model"
    shutil.copytree(model, copied)
    monkeypatch.setattr("metaseg_monai.sharing.export.MOST_LOSS", 1.0)
    made = export(copied, "openvino", precision="int8")
    gate = pd.DataFrame(made.parity["gate"])
    assert {"unknown", *(f"task={one}" for one in _tasks(copied))} >= set(gate["value"])
    assert made.parity["in_int8"] > 0
    calibrated = made.parity["calibrated"]
    lacking = [
        n for n, high in zip(calibrated["entries"], calibrated["high"], strict=True) if not high
    ]
    told = predict(
        copied, images, tmp_path / "out", gate["value"][0], engine="openvino", precision="int8"
    )
    assert told.masks
    assert lines_of(tmp_path / "out")[0]["precision"] == "int8"
    for name in lacking:
        with pytest.raises(DataError, match="was not calibrated"):
            predict(copied, images, tmp_path / "no", name, engine="openvino", precision="int8")
    monkeypatch.setattr("metaseg_monai.sharing.export.MOST_LOSS", -1.0)
    with pytest.raises(CheckpointError, match=r"in int8 the F1 of .* validation cases"):
        export(copied, "openvino", tmp_path / "refused", precision="int8")
    assert not (tmp_path / "refused").exists()


def _tasks(folder):
    return json.loads((folder / "model.json").read_text())["schema"]["fields"][0]["values"]


@pytest.mark.slow
def test_the_command(model, tmp_path):
    place = tmp_path / "out"
    words = ["export", str(model), "--to", "torchscript", "--output", str(place)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "metaseg_monai", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"{place}/model.ts: image and meta to logits, in float32" in done.stdout
