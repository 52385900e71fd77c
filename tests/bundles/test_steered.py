"""Guidance by the front door, and metadata that are known as a distribution only."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from metaseg_monai.errors import ConfigError, MetadataError
from metaseg_monai.images import read_image
from metaseg_monai.sharing import run

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
)


@pytest.fixture(scope="module")
def model(copy_bundle, tmp_path_factory):
    """A model of discs and rings, a folder of its test images."""
    bundle = copy_bundle("synthetic_shapes_segmentation")
    folder = tmp_path_factory.mktemp("runs") / "model"
    run.train(bundle.root, output_dir=folder, variant="me", **bundle.settings)
    images = tmp_path_factory.mktemp("source") / "images"
    shutil.copytree(bundle.root / "data/images", images)
    for file in sorted(images.iterdir())[4:]:
        file.unlink()
    return folder, images


def masks(folder):
    found = {
        path.name: read_image(path).array for path in folder.iterdir() if path.suffix != ".sha256"
    }
    assert len(found) == 4
    return found


def told(folder):
    lines = (folder / "predicted.sha256").read_text().splitlines()
    return [json.loads(line[2:]) for line in lines if line.startswith("# ")]


def test_predictions_follow_guidance_and_say_so(model, tmp_path):
    folder, images = model
    given = {"plain": {}, "one": {"guidance": 1}, "none": {"guidance": 0}}
    given |= {"more": {"guidance": 2}, "roi": {"guidance": 0, "window_inferer#roi_size": [16, 16]}}
    for name, settings in given.items():
        run.predict(folder, images, tmp_path / name, meta="task=disc", **settings)
    run.predict(folder, images, tmp_path / "unknown", meta="task=unknown")
    found = {name: masks(tmp_path / name) for name in (*given, "unknown")}
    for one, other in (("plain", "one"), ("none", "unknown")):
        for name, mask in found[one].items():
            np.testing.assert_array_equal(mask, found[other][name])
    assert {one["guidance"] for one in told(tmp_path / "more")} == {2}
    assert all("guidance" not in one for one in told(tmp_path / "plain"))
    # another strength is another prediction
    again = run.predict(folder, images, tmp_path / "one", meta="task=disc", guidance=0.5)
    assert len(again.masks) == 4
    assert {one["guidance"] for one in told(tmp_path / "one")} == {0.5}


def test_evaluations_follow_guidance_and_say_so(model):
    folder, _ = model
    plain = run.evaluate(folder, modes=["normal", "missing"])
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["settings"]["guidance"] is None
    guided = run.evaluate(folder, modes=["normal"], guidance=0)
    record = json.loads((folder / "evaluation.json").read_text())
    assert record["settings"]["guidance"] == 0
    assert record["modes"] == ["normal"]  # not mixed with those without guidance
    columns = ["case", "class", "tp", "fp", "fn"]
    counts = [
        one[one["mode"] == mode][columns].reset_index(drop=True)
        for one, mode in ((plain.counts, "missing"), (guided.counts, "normal"))
    ]
    assert counts[0].equals(counts[1])


def test_guidance_is_refused_before_anything_is_written(model, copy_bundle, tmp_path):
    folder, images = model
    for w, message in ((3, "from 0"), ("much", "from 0"), (-1, "from 0")):
        with pytest.raises(ConfigError, match=message):
            run.predict(folder, images, tmp_path / "out", meta="task=disc", guidance=w)
    bundle = copy_bundle("synthetic_shapes_segmentation")
    settings = {**bundle.settings, "epochs": 1, "metadata_dropout": 0}
    run.train(bundle.root, output_dir=tmp_path / "model", **settings)
    with pytest.raises(ConfigError, match=r"never saw in training.*--metadata_dropout"):
        run.predict(tmp_path / "model", images, tmp_path / "out", meta="task=disc", guidance=0.5)
    with pytest.raises(ConfigError, match=r"never saw in training.*--metadata_dropout"):
        run.evaluate(tmp_path / "model", guidance=0.5)
    assert not (tmp_path / "out").exists()


def test_values_known_as_a_distribution_are_taken_and_told(model, tmp_path):
    folder, images = model
    given = {"mixed": "task=disc:0.7|ring:0.3", "same": {"task": {"disc": 0.7, "ring": 0.3}}}
    for name, meta in given.items():
        run.predict(folder, images, tmp_path / name, meta=meta)
    for name, mask in masks(tmp_path / "mixed").items():
        np.testing.assert_array_equal(mask, masks(tmp_path / "same")[name])
    assert [one["soft"] for one in told(tmp_path / "mixed")] == [{"task": "mixed"}] * 4
    for meta, message in (
        ("task=disc:0.7|ring:0.2", r"sum to 0\.9"),
        ("task=disc:0.7|disk:0.3", "use one of these names"),
    ):
        with pytest.raises(MetadataError, match=message):
            run.predict(folder, images, tmp_path / "out", meta=meta)
    assert not (tmp_path / "out").exists()


def test_tables_may_hold_them(model, copy_bundle, tmp_path):
    """Discs and rings of a table with mixtures and ranges: trained, tested in modes, predicted."""
    bundle = copy_bundle("synthetic_shapes_segmentation")
    fields = json.loads((bundle.root / "configs/schema.json").read_text())["fields"]
    known = {"provenance": "acquisition", "availability": "acquisition", "missing": "unknown"}
    size = {"kind": "continuous", "name": "size_px", "unit": "px", "range": [0, 20], **known}
    data = tmp_path / "data"
    run.train(bundle.root, output_dir=tmp_path / "first", variant="me", **bundle.settings)
    shutil.copytree(bundle.root / "data", data)
    rows = pd.read_csv(data / "table.csv", dtype=str)
    rows["size_px"] = ["2..8" if place % 2 else "5" for place in range(len(rows))]
    rows.loc[rows.index[::3], "task"] = "disc:0.25|ring:0.75"
    rows.to_csv(data / "table.csv", index=False)
    (tmp_path / "schema.json").write_text(json.dumps({"fields": [*fields, size]}))
    settings = {"schema_file": str(tmp_path / "schema.json"), "epochs": 1, "roi_size": [32, 32]}
    settings["train#augmentation#0#spatial_size"] = [36, 36]
    folder = tmp_path / "model"
    run.train(bundle.root, output_dir=folder, dataset_dir=str(data), variant="me", **settings)
    tested = run.evaluate(folder, modes=["normal", "missing", "shuffle", "perturb:1.5"])
    assert list(tested.scores.index) == ["normal", "missing", "shuffle", "perturb:1.5"]
    record = json.loads((folder / "evaluation.json").read_text())
    of_test = rows[rows["split"] == "test"]
    assert record["soft"]["size_px"] == {"drawn": int((of_test["size_px"] == "2..8").sum())}
    assert record["soft"]["task"] == {"mixed": int(of_test["task"].str.contains(":").sum())}
    assert record["settings"]["draws"] == 16
    done = run.predict(folder, data / "table.csv", tmp_path / "masks")
    assert len(done.masks) == len(rows)
    drawn = [one for one in told(tmp_path / "masks") if one.get("soft") == {"size_px": "drawn"}]
    assert {one["draws"] for one in drawn} == {16}
