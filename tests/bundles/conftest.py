"""Every bundle of the repository, copied away from it, with small data and few steps."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/train.json"))
CELLS = {"data": {"train": 12, "val": 7, "test": 7, "size": 32}, "val_batch_size": 7}
TINY = {  # what makes a bundle train in seconds; the network stays as it is
    "synthetic_shapes_segmentation": {
        "data": {"train": 24, "val": 6, "test": 6, "size": 32},
        "train#augmentation#0#spatial_size": [36, 36],
    },
    "adipocyte_fluorescence_translation": {
        "data": {"train": 1, "val": 1, "test": 1, "fields": 1, "size": 48},
        "modes": ["normal", "missing", "shuffle", "fixed:magnification=20"],
    },
    "kits21_tumour_slices_segmentation": {
        "data": {"train": 2, "val": 1, "test": 1, "matrix": 32},
        "estimate_channels": [4, 4],
        "modes": ["normal", "missing", "fixed:tumour_size_mm=40"],
    },
}


class BundleCopy:
    """A bundle in a folder of its own, run from a working directory that is foreign to it."""

    def __init__(self, root: Path, elsewhere: Path) -> None:
        self.root = root
        self.elsewhere = elsewhere
        self.settings = {"epochs": 2, "roi_size": [32, 32], **TINY.get(root.name, CELLS)}
        small = {"output": "@dataset_dir", **self.settings.pop("data")}
        self.settings["table#path"] = {**self.read("simulate"), **small}

    def read(self, name: str) -> dict:
        return json.loads((self.root / "configs" / f"{name}.json").read_text())

    @property
    def predicts_images(self) -> bool:
        return self.read("train").get("target") == "image"

    def configs(self, *names: str) -> list[str]:
        return [str(self.root / "configs" / f"{name}.json") for name in names]

    def tiny(self, *names: str) -> dict:
        """The tiny settings that these configurations know."""
        known = {key for name in names for key in self.read(name)}
        return {k: v for k, v in self.settings.items() if k.partition("#")[0] in known}

    def command(
        self, run_id: str | None, *names: str, generated: bool = True, **overrides
    ) -> list[str]:
        """The words of a command; `generated=False` leaves out what shapes generated data."""
        files = self.configs(*names)
        arguments = ["--config_file", files[0] if len(files) == 1 else str(files)]
        tiny = {k: v for k, v in self.tiny(*names).items() if generated or "table#" not in k}
        for key, value in {**tiny, **overrides}.items():
            arguments += [f"--{key}", str(value)]
        return ["-m", "monai.bundle", "run", *([run_id] if run_id else []), *arguments]

    def start(self, command: list[str]) -> subprocess.Popen:
        """Run in the background, silently."""
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=self.elsewhere,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run(self, command: list[str], launcher: tuple[str, ...] = (), timeout: float = 300) -> str:
        done = subprocess.run(
            [sys.executable, *launcher, *command],
            cwd=self.elsewhere,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr


@pytest.fixture(scope="session")
def copy_bundle(tmp_path_factory):
    """Copy a bundle by its name, without data, weights or results."""

    def copy(name: str) -> BundleCopy:
        root = tmp_path_factory.mktemp("zoo") / name
        ignored = shutil.ignore_patterns("data", "models", "eval")
        shutil.copytree(BUNDLES / name, root, ignore=ignored)
        return BundleCopy(root, tmp_path_factory.mktemp("elsewhere"))

    return copy


@pytest.fixture(scope="session", params=NAMES)
def bundle(request, copy_bundle):
    """A copy without data, weights or results."""
    return copy_bundle(request.param)


@pytest.fixture(scope="session")
def trained(bundle):
    """The copy after one tiny training with the default variant."""
    bundle.run(bundle.command("training", "train"))
    return bundle
