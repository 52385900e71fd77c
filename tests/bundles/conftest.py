"""Every bundle of the repository, copied away from it and shrunk by its own facts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
NAMES = sorted(path.parents[1].name for path in BUNDLES.glob("*/configs/facts.json"))


class BundleCopy:
    """A bundle in a folder of its own, run from a working directory that is foreign to it."""

    def __init__(self, root: Path, elsewhere: Path) -> None:
        self.root = root
        self.elsewhere = elsewhere
        self.facts = self.read("facts")

    def read(self, name: str) -> dict:
        return json.loads((self.root / "configs" / f"{name}.json").read_text())

    def configs(self, *names: str) -> list[str]:
        return [str(self.root / "configs" / f"{name}.json") for name in names]

    def tiny(self, *names: str) -> dict:
        """The overrides of facts.json that these configurations know."""
        known = [self.read(name) for name in names]
        tiny = self.facts["tiny"].items()
        return {k: v for k, v in tiny if any(k.partition("#")[0] in config for config in known)}

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
