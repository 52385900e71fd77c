"""The wheel: it brings the bundles, which work from anywhere and write nothing into the package."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = "synthetic_shapes_segmentation"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder of the package as a wheel brings it."""
    pytest.importorskip("setuptools", minversion="77", reason="builds a wheel")
    place = tmp_path_factory.mktemp("wheel")
    made = shutil.ignore_patterns("__pycache__", "data", "models", "eval")
    for name in ("metaseg_monai", "bundles"):
        shutil.copytree(ROOT / name, place / "source" / name, ignore=made)
    (place / "source" / "bundles" / BUNDLE / "data").mkdir()  # as a checkout has after a training
    (place / "source" / "bundles" / BUNDLE / "data" / "table.csv").write_text("image\n")
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "scripts/build_bundles.py",
        "docs/references.json",
    ):
        target = place / "source" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, target)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(place)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=place / "source", check=True)
    with zipfile.ZipFile(next(place.glob("*.whl"))) as wheel:
        wheel.extractall(place / "site")
    return place / "site"


def files_of(folder):
    """Every file with its content, but what Python compiled."""
    paths = (path for path in folder.rglob("*") if "__pycache__" not in path.parts)
    return {path: path.read_bytes() for path in paths if path.is_file()}


def command(installed, folder, *words):
    return subprocess.run(
        [sys.executable, "-m", "metaseg_monai", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        text=True,
        capture_output=True,
        check=False,
    )


def test_a_wheel_brings_what_is_shipped_of_every_bundle(installed):
    names = {path.parents[1].name for path in (ROOT / "bundles").glob("*/configs/metadata.json")}
    shipped = installed / "metaseg_monai" / "bundles"
    published = installed / "metaseg_monai" / "reporting" / "references.json"
    assert published.read_bytes() == (ROOT / "docs" / "references.json").read_bytes()
    assert {path.name for path in shipped.iterdir()} == names | {"_shared"}
    for file in (ROOT / "bundles" / "_shared").iterdir():  # of which new-bundle composes
        assert (shipped / "_shared" / file.name).read_bytes() == file.read_bytes()
    assert (shipped / "_shared" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    for name in names:
        own = ROOT / "bundles" / name
        for file in (own / "configs" / "train.json", own / "docs" / "README.md", own / "LICENSE"):
            assert (shipped / file.relative_to(own.parent)).read_bytes() == file.read_bytes()
    assert not (shipped / BUNDLE / "data").exists()


def test_an_installed_bundle_works_from_anywhere(installed, tmp_path):
    before = files_of(installed)
    small = ("--epochs", "1", "--network_def#channels", "4", "--batch_size", "64")
    done = command(installed, tmp_path, "train", BUNDLE, *small, "--output_dir", "runs/a")
    assert done.returncode == 0, done.stderr
    done = command(installed, tmp_path, "evaluate", "runs/a", "--modes", '["normal"]')
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "a" / "counts.csv").is_file()
    assert (tmp_path / BUNDLE / "data" / "table.csv").is_file()
    assert files_of(installed) == before
    done = command(installed, tmp_path, "train", BUNDLE, *small, "--bundles", "nowhere")
    assert done.returncode == 2
    assert "Bundles in nowhere: none; name their folder with --bundles" in done.stderr
