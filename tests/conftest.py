"""Small folders, tables and schemas; a bundle to plan with, and run folders as finished."""

import csv
import json
import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from torch import nn

from metaseg_monai.evaluation.provenance import home_of, log_sha256
from metaseg_monai.files import file_sha256, write_json
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema
from metaseg_monai.metrics.scores import COUNT_COLUMNS
from metaseg_monai.training import read_weights, write_weights
from metaseg_monai.training.weights import RESULTS

WHEN = {"provenance": "acquisition", "availability": "acquisition"}


@pytest.fixture
def task_schema():
    return MetadataSchema([Categorical(name="task", values=("disc", "ring"), **WHEN)])


@pytest.fixture
def size_schema():
    return MetadataSchema(
        [
            Categorical(name="task", values=("disc", "ring"), **WHEN),
            Continuous(name="size_mm", unit="mm", range=(1, 100), out_of_range="flag", **WHEN),
        ]
    )


@pytest.fixture
def write_csv():
    def write(path, rows):
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return path

    return write


@pytest.fixture
def folder(tmp_path, write_csv):
    """A table of three images (two train, one test) with labels, and its rows to edit."""
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    rows = []
    for number, split in enumerate(["train", "train", "test"]):
        name = f"{number}.tif"
        image = np.random.default_rng(number).integers(0, 255, (20, 30), np.uint8)
        tifffile.imwrite(tmp_path / "images" / name, image)
        label = np.zeros((20, 30), np.uint8)
        label[4:8, 5:9] = 1
        tifffile.imwrite(tmp_path / "labels" / name, label)
        rows.append(
            {
                "image": f"images/{name}",
                "label": f"labels/{name}",
                "task": ["disc", "ring"][number % 2],
                "group": f"patient{number}",
                "split": split,
            }
        )
    write_csv(tmp_path / "table.csv", rows)
    return tmp_path, rows


@pytest.fixture
def save_volume():
    def save(path, value=0):
        path.parent.mkdir(parents=True, exist_ok=True)
        voxels = np.full((4, 5, 3), value, np.int16)
        nib.save(nib.Nifti1Image(voxels, np.diag([1, 1, 5, 1.0])), path)

    return save


BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
TINY = {
    "table#path": {
        "_target_": "metaseg_monai.simulate.generate_synthetic_shapes",
        **{"output": "@dataset_dir", "train": 12, "val": 6, "test": 6, "size": 32},
    },
    "roi_size": [32, 32],
    "train#augmentation#0#spatial_size": [36, 36],
    "network_def#channels": 4,
    "network_def#levels": 2,
    "epochs": 2,
}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A copy of a bundle without data or weights."""
    root = tmp_path_factory.mktemp("bundle") / "synthetic_shapes_segmentation"
    shutil.copytree(BUNDLES / root.name, root, ignore=shutil.ignore_patterns("data", "models"))
    return root


@pytest.fixture(scope="session")
def tiny():
    """Settings that shrink the bundle to seconds."""
    return TINY


@pytest.fixture(scope="session")
def bind():
    """Binds the results of a folder to the weights in it, see `bind_results`."""
    return bind_results


@pytest.fixture(scope="session")
def some_weights():
    """The file of some weights, and their SHA-256."""
    return weights()


@cache
def weights():
    """The file of some weights, chosen in epoch 2, and their SHA-256."""
    with TemporaryDirectory() as folder, torch.random.fork_rng():
        torch.manual_seed(2026)  # weights that no test makes by itself
        best = {"metric": "val_loss", "value": 0.6, "epoch": 2}
        write_weights(f"{folder}/model.pt", nn.Linear(1, 1), {"best": best})
        digest = read_weights(f"{folder}/model.pt")[1]["weights_sha256"]
        return Path(folder, "model.pt").read_bytes(), digest


def bind_results(folder, modes=("normal",), names=RESULTS, **changes):
    """Write an ``evaluation.json`` of what lies in a folder, as an evaluation would."""
    home = home_of(folder)
    content = {
        "weights_sha256": "0",
        "split": "test",
        "images": "unseen",
        "table_sha256": None,
        "modes": list(modes),
        "asked": list(modes),
        "settings": {},
        "log_sha256": log_sha256(home),
    }
    if (home / "model.pt").is_file():
        content["weights_sha256"] = read_weights(home / "model.pt")[1]["weights_sha256"]
    files = {name: file_sha256(folder / name) for name in names if (folder / name).is_file()}
    write_json(folder / "evaluation.json", {**content, "files": files, **changes})
    return folder


@pytest.fixture(scope="session")
def finished():
    """Makes a finished run's folder."""
    return finish


def finish(
    folder, run, bundle, hits=8, modes=("normal", "shuffle"), domains=("x", "y"), table_sha256=None
):
    """Write what a finished run leaves: `hits` of ten pixels found in mode normal, else none."""
    folder = folder / run.folder
    folder.mkdir(parents=True)
    rows = []
    for mode in modes:
        for case, domain in enumerate(domains * 4):
            place = (f"case{case}", f"case{case}", "test", mode, domain, 1)
            tp = max(0, hits - case % 2) if mode == "normal" else 0
            rows.append((*place, tp, 1 if mode == "normal" else 9, 10 - tp, 50))
    pd.DataFrame(rows, columns=COUNT_COLUMNS).to_csv(folder / "counts.csv", index=False)
    log = {"epoch": [1, 2], "train_loss": [1.0, 0.5], "val_loss": [1.1, 0.6], "lr": [0.1, 0.2]}
    pd.DataFrame({**log, "seconds": [1.0, 1.0]}).to_csv(folder / "log.csv", index=False)
    content, digest = weights()
    (folder / "model.pt").write_bytes(content)
    bind_results(folder, modes=modes)
    record = {
        "condition": run.condition,
        "seed": run.seed,
        "data_seed": run.data_seed,
        "domain": run.domain,
        "bundle": str(bundle),
        "settings": run.settings,
        "key": run.key,
        "threads": 1,
        "seconds": 2.5,
        "state": "finished",
        "table": run.table,
        "table_sha256": table_sha256,
        "weights_sha256": digest,
        "tested": run.tested,
        "evaluated": run.tested,
        "explain": False,
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:00:02+00:00",
        "versions": {"metaseg-monai": "0", "torch": "0", "monai": "0"},
    }
    (folder / "run.json").write_text(json.dumps(record))
    return folder
