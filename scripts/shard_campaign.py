"""Predict many small volumes in shards, of which some are killed, and see that nothing is lost.

Of the volumes some are damaged. Shards run as processes of their own, some at a time; those that
are to be killed get SIGKILL when they have written a part of their masks, and are started again
with the same command. In the end `merge` has to find every other volume once, in a mask as it was
written and as a prediction of this volume alone makes it, and the damaged ones in problems.csv.
"""

import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from benchmark_volumes import _give_weights
from tqdm import tqdm

from metaseg_monai import predict
from metaseg_monai.bundle import resolve_bundle
from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import DataError
from metaseg_monai.files import file_sha256
from metaseg_monai.sharing.merge import merge

BUNDLE = "kits21_tumour_slices_segmentation"
META = "tumour_size_mm=41"
SETTINGS: dict[str, Any] = {
    "network_def#channels": 4,
    "network_def#levels": 2,
    "preprocessing#1#spacing_mm": 1.5,
}
SHAPE = (16, 12, 3)


def campaign(
    volumes: int = 1000,
    shards: int = 16,
    killed: float = 0.05,
    damaged: float = 0.01,
    at_once: int = 2,
    compared: int = 20,
    seed: int = 0,
    output: str = "runs/shard_campaign",
) -> None:
    """Run the campaign and print what came of it; a lost, double or wrong mask ends it.

    Example:
        python scripts/shard_campaign.py
        python scripts/shard_campaign.py --volumes 24 --shards 4 --killed 0.5 --damaged 0.1

    Args:
        volumes: how many, of 16 x 12 x 3 voxels.
        shards: into how many parts they go.
        killed: share of the shards that are killed once, at least one.
        damaged: share of the volumes that are damaged, at least one.
        at_once: shards at work at the same time.
        compared: volumes that are predicted again, alone, to compare their masks.
        seed: of the volumes, the damages and the kills.
        output: folder for all of it, which is emptied first.
    """
    drawn = random.Random(seed)
    work = Path(output).resolve()
    shutil.rmtree(work, ignore_errors=True)
    model = work / "bundle"
    kept_out = shutil.ignore_patterns("data", "models", "eval")
    shutil.copytree(resolve_bundle(BUNDLE), model, ignore=kept_out)
    _give_weights(model, {"bundle_root": str(model), **SETTINGS})
    broken = _scans(work / "scans", volumes, max(1, round(damaged * volumes)), drawn, seed)
    victims = dict.fromkeys(drawn.sample(range(shards), max(1, round(killed * shards))), 0)
    for number in victims:  # when so many of its masks are there
        victims[number] = drawn.randrange(len(range(number, volumes, shards)))
    drawn_to_die = len(victims)
    begin = time.perf_counter()
    told = _run(model, work, shards, victims, at_once)
    seconds = time.perf_counter() - begin
    _expect(told == drawn_to_die, f"{told} shards were killed, not {drawn_to_die}")
    merged = merge(work / "masks")
    expected = {f"scan_{number:05d}" for number in range(volumes)} - set(broken)
    _expect(sorted(merged.cases["case"]) == sorted(expected), "a case is lost, double or strange")
    listed = {problem.case for problem in merged.problems}
    _expect(listed == set(broken), f"bad scans are {sorted(broken)}, listed {sorted(listed)}")
    files = sorted(path.name for path in (work / "masks").glob("*.nii.gz"))
    _expect(files == sorted(f"{case}.nii.gz" for case in expected), "a file is lost or strange")
    lines = (work / "masks/predicted.sha256").read_text(encoding="utf-8").splitlines()
    sums = dict(line.split("  ")[::-1] for line in lines if not line.startswith("# "))
    _expect(len(lines) == 2 * len(sums) == 2 * len(files), "the list is not of each mask once")
    for name, digest in sums.items():
        _expect(file_sha256(work / "masks" / name) == digest, f"{name} is not as it was written")
    for case in drawn.sample(sorted(expected), min(compared, len(expected))):
        alone = work / "alone" / case
        predict(model, work / f"scans/{case}.nii.gz", alone, META, shard="0/1", **SETTINGS)
        one, other = (_voxels(folder / f"{case}.nii.gz") for folder in (alone, work / "masks"))
        _expect(np.array_equal(one, other), f"{case}: another mask than alone")
    print(
        f"{volumes} volumes in {shards} shards, {told} killed, {len(broken)} damaged: {len(files)} "
        f"masks, each once, {len(listed)} listed as damaged, {compared} as alone; {seconds:.0f} s"
    )


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise DataError(otherwise)


def _voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def _scans(folder: Path, count: int, bad: int, drawn: random.Random, seed: int) -> list[str]:
    """Write the volumes, and damage some; their names."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed)
    for number in range(count):
        voxels = noise.integers(-79, 304, SHAPE).astype(np.int16)
        path = folder / f"scan_{number:05d}.nii.gz"
        nib.save(nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 4, 1])), path)
    ways = _damages()
    broken = []
    for number in drawn.sample(range(count), bad):
        path = folder / f"scan_{number:05d}.nii.gz"
        next(ways)(path)
        broken.append(path.name.removesuffix(".nii.gz"))
    return broken


def _damages() -> Iterator[Callable[[Path], object]]:
    """Ways to damage a scan, again and again."""

    def flip(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 4
        path.write_bytes(content)

    def no_numbers(path: Path) -> None:
        voxels = np.full(SHAPE, np.nan, np.float32)
        nib.save(nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 4, 1])), path)

    def tilted(path: Path) -> None:
        affine = np.array([[1.5, 0, 0, 0], [0, 1.1, -2.8, 0], [0, 1.1, 2.8, 0], [0, 0, 0, 1]])
        nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), affine), path)

    while True:
        yield lambda path: path.write_bytes(path.read_bytes()[:-9])
        yield flip
        yield no_numbers
        yield tilted
        yield lambda path: path.write_bytes(b"")


def _run(model: Path, work: Path, shards: int, victims: dict[int, int], at_once: int) -> int:
    """Run all shards, kill the victims once, and return how many were."""
    waiting, running = list(range(shards)), dict[int, subprocess.Popen[bytes]]()
    log, killed = (work / "log.txt").open("ab"), 0
    with tqdm(total=shards, desc="shards") as bar, log:
        while waiting or running:
            while waiting and len(running) < at_once:
                number = waiting.pop(0)
                words = [sys.executable, "-m", "metaseg_monai", "predict", str(model)]
                words += ["--source", str(work / "scans"), "--output", str(work / "masks")]
                words += ["--meta", META, "--shard", f"{number}/{shards}"]
                words += [f"--{name}={value}" for name, value in SETTINGS.items()]
                running[number] = subprocess.Popen(words, stdout=log, stderr=log)
            for number, process in list(running.items()):
                if number in victims and _done(work / "masks", number, shards) >= victims[number]:
                    if process.poll() is None:
                        process.kill()
                        killed += 1
                        waiting.append(number)
                    del victims[number], running[number]
                    process.wait()
                elif process.poll() is not None:
                    _expect(process.returncode in (0, 3), f"shard {number}: see {work}/log.txt")
                    del running[number]
                    bar.update()
            time.sleep(0.02)
    return killed


def _done(masks: Path, number: int, shards: int) -> int:
    """How many masks of a shard are there; -1 before it began."""
    width = len(str(shards - 1))
    folder = masks / f"shards/{number:0{width}d}-of-{shards}"
    path = folder / "predicted.sha256"
    if not (folder / "shard.json").is_file():
        return -1
    return path.read_text(encoding="utf-8").count("\n# ") + 1 if path.is_file() else 0


if __name__ == "__main__":
    run_script(campaign)
