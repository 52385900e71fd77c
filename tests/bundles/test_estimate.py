"""The command that estimates a continuous field from the image, on discs whose width is known."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from metaseg_monai.bundle import run_bundle
from metaseg_monai.errors import CheckpointError, DataError, MetadataError
from metaseg_monai.evaluation import evaluation_items
from metaseg_monai.evaluation.estimates import tell_estimate
from metaseg_monai.evaluation.modes import read_predicted
from metaseg_monai.files import file_sha256
from metaseg_monai.metadata import MetadataSchema, MetadataWarning
from metaseg_monai.rows import write_table
from metaseg_monai.tables import read_table
from metaseg_monai.training import read_weights

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
CONFIGS = ["train.json", "estimate.json"]
GROUPS = {"train": 40, "val": 10, "test": 10}
LOW, HIGH, SIZE = 4.0, 28.0, 48
KNOWN = {"availability": "acquisition", "provenance": "acquisition"}
FIELDS = [
    {"kind": "categorical", "name": "site", "values": ["left", "right"], **KNOWN},
    {
        "kind": "continuous", "name": "width_px", "unit": "px", "range": [LOW, HIGH],
        "scale": "log", "missing": "unknown", **KNOWN,
    },
]  # fmt: skip

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
)


def draw_disc(width, rng):
    """An image of a bright disc at a random place under noise, and its mask."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    y, x = rng.uniform(HIGH / 2, SIZE - HIGH / 2, 2)
    mask = (rows - y) ** 2 + (columns - x) ** 2 <= (width / 2) ** 2
    image = 60 + 120 * mask + rng.normal(0, 15, mask.shape)
    return image.clip(0, 255).astype(np.uint8), mask.astype(np.uint8)


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """Two slices a group, both with the width of the group; that of group train_0 is missing."""
    folder = tmp_path_factory.mktemp("discs")
    rng = np.random.default_rng(0)
    rows = []
    for split, number in GROUPS.items():
        for group in range(number):
            width = float(np.exp(rng.uniform(np.log(LOW), np.log(HIGH))))
            told = "" if (split, group) == ("train", 0) else f"{width:.3f}"
            for plane in range(2):
                name = f"{split}_{group}_{plane}.tif"
                for kind, array in zip(("image", "label"), draw_disc(width, rng), strict=True):
                    tifffile.imwrite(folder / f"{kind}_{name}", array)
                paths = {"image": f"image_{name}", "label": f"label_{name}"}
                names = {"group": f"{split}_{group}", "split": split, "site": "right"}
                rows.append({**paths, "width_px": told, **names})
    write_table(rows, folder / "table.csv")
    (folder / "schema.json").write_text(json.dumps({"fields": FIELDS}))
    return folder


@pytest.fixture
def bundle(tmp_path):
    ignored = shutil.ignore_patterns("data", "models", "eval")
    source = BUNDLES / "synthetic_shapes_segmentation"
    return shutil.copytree(source, tmp_path / source.name, ignore=ignored)


@pytest.fixture(autouse=True)
def deterministic():
    """One thread, fast for tiny networks; then what set_determinism changed is put back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        for handler in list(getattr(logger, "handlers", [])):
            if getattr(getattr(handler, "stream", None), "closed", False):
                logger.removeHandler(handler)


def settings(discs, output, **overrides):
    return {
        "dataset_dir": str(discs), "schema_file": str(discs / "schema.json"),
        "output_dir": str(output), "roi_size": [SIZE, SIZE],
        "train#augmentation#0#spatial_size": [SIZE, SIZE],
        "estimate_channels": [8, 16, 24], "epochs": 12, "batch_size": 8, "max_lr": 0.01,
        "train#inferer#dtype": None, "validate#inferer#dtype": None, **overrides,
    }  # fmt: skip


def estimate(bundle, discs, output, **overrides):
    run_bundle(bundle, CONFIGS, settings(discs, output, **overrides))
    scores = json.loads((output / "estimate_scores.json").read_text())
    assert scores["weights_sha256"] == read_weights(output / "estimate.pt")[1]["weights_sha256"]
    assert scores["files"] == {
        name: file_sha256(output / name) for name in ("predicted.csv", "alarm.csv")
    }
    assert json.loads((output / "estimate.json").read_text())["network"]  # the copy of the facts
    return scores


def files(folder):
    names = ["predicted.csv", "estimate_scores.json"]
    stored = torch.load(folder / "estimate.pt", weights_only=True)
    return [(folder / name).read_bytes() for name in names], stored


def test_it_beats_the_constant_and_gives_the_mode_predicted(bundle, discs, tmp_path):
    scores = estimate(bundle, discs, tmp_path / "run")
    assert {split: of["groups"] for split, of in scores["splits"].items()} == GROUPS
    assert scores["splits"]["train"]["missing"] == 1
    test = scores["splits"]["test"]
    assert test["network"]["mae"] < 0.5 * test["constant"]["mae"]
    assert test["network"]["r2"] > 0.7 > test["constant"]["r2"]
    assert test["network"]["spearman"] > 0.9
    assert test["constant"]["spearman"] is None
    assert "width_px in px" in tell_estimate(tmp_path / "run")

    table = read_predicted(tmp_path / "run" / "predicted.csv")
    assert table["slices"].eq(2).all()
    assert table.loc[table["true"].isna(), "group"].tolist() == ["train_0"]
    true = pd.read_csv(discs / "table.csv").groupby("group")["width_px"].first()
    told = table.set_index("group")["true"]
    assert (told.dropna() == true.reindex(told.dropna().index)).all()

    schema = MetadataSchema.load(discs / "schema.json")
    items = read_table(discs, schema).items("test")
    path = tmp_path / "run" / "predicted.csv"
    for item in evaluation_items(items, schema, None, ["predicted"], predicted=path):
        value = schema.decode(item["meta"])["width_px"]
        expected = table.set_index("group").loc[item["group"], "predicted"]
        assert value == pytest.approx(expected, rel=1e-5)


def test_two_runs_are_equal_bit_for_bit_and_another_seed_is_not(bundle, discs, tmp_path):
    runs = [("one", 0), ("two", 0), ("three", 1)]
    for name, seed in runs:
        estimate(bundle, discs, tmp_path / name, epochs=2, seed=seed)
    (one, first), (two, second), (three, _) = (files(tmp_path / name) for name, _ in runs)
    assert one == two
    assert one != three
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_a_killed_run_resumes_to_the_same_estimates(bundle, discs, tmp_path):
    options = {"epochs": 4, "train#checkpoint#every": 1}
    estimate(bundle, discs, tmp_path / "whole", **options)
    killed = tmp_path / "killed"
    code = (
        "import sys, json; from pathlib import Path; from metaseg_monai.bundle import run_bundle;"
        "run_bundle(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3]))"
    )
    given = [str(bundle), json.dumps(CONFIGS), json.dumps(settings(discs, killed, **options))]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *given],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 120
    while not (killed / "estimate_log.csv").exists() and time.monotonic() < until:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "predicted.csv").exists()
    with pytest.raises(CheckpointError, match="--resume True"):
        estimate(bundle, discs, killed, **options)
    with pytest.raises(CheckpointError, match="network"):
        estimate(bundle, discs, killed, **options, resume=True, estimate_channels=[4, 4])
    estimate(bundle, discs, killed, **options, resume=True)
    assert files(tmp_path / "whole")[0] == files(killed)[0]


def test_it_leaves_a_segmentation_in_the_same_folder_alone(bundle, discs, tmp_path):
    for name in ("model.pt", "checkpoint.pt", "log.csv"):
        (tmp_path / name).write_text("of the segmentation")
    estimate(bundle, discs, tmp_path, epochs=1)
    for name in ("model.pt", "checkpoint.pt", "log.csv"):
        assert (tmp_path / name).read_text() == "of the segmentation"


def test_wrong_fields_and_values_are_refused_before_training(bundle, discs, tmp_path):
    with pytest.raises(MetadataError, match="'width' is no field"):
        estimate(bundle, discs, tmp_path / "a", estimate_field="width")
    other = shutil.copytree(discs, tmp_path / "discs")
    table = pd.read_csv(other / "table.csv")
    table.loc[table["group"] == "test_3", "width_px"] = [5.0, 6.0]
    table.to_csv(other / "table.csv", index=False)
    with pytest.raises(DataError, match=r"'test_3'.*5 and 6"):
        estimate(bundle, other, tmp_path / "b")
    table["width_px"] = ""
    table.to_csv(other / "table.csv", index=False)
    missing = pytest.raises(DataError, match="No training case has a value of 'width_px'")
    with pytest.warns(MetadataWarning, match="no 'width_px' in any"), missing:
        estimate(bundle, other, tmp_path / "c")
    assert not list(tmp_path.glob("*/*.pt"))
