"""Measure what predicting a CT volume costs beside the network: peak memory and time per slice.

The weights are random and the volume is noise of a CT's compressibility; neither changes the cost.
After each batch of the prediction the bare network runs on the same batch, in the same precision,
so that both see the same machine; the prediction's time is the run's without these repetitions and
holds everything else: reading, resampling, stacking, writing.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser
from tqdm import tqdm

from metaseg_monai.bundle import resolve_bundle
from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError
from metaseg_monai.training import write_weights


def benchmark(
    bundle: str = "kits21_tumour_slices_segmentation",
    meta: str = "tumour_size_mm=41",
    size: int = 512,
    planes: int = 100,
    repetitions: int = 3,
    memory: bool = True,
    threads: int | None = None,
    **overrides: Any,
) -> None:
    """Print the peak memory of predict and the ratio of its time to the bare network's.

    Example:
        python scripts/benchmark_volumes.py --preprocessing#1#spacing_mm 0.78 \
--network_def#channels 64 --network_def#levels 5 --planes 20

    Args:
        bundle: name or folder of a bundle with an inference.json for slices.
        meta: metadata of the volume, field=value.
        size: rows and columns of the volume; a pixel has 0.78 mm.
        planes: of the volume.
        repetitions: paired runs; their median ratio is printed with the lowest and highest.
        memory: also run the command in a process of its own and print its peak memory.
        threads: CPU threads; by default PyTorch's own choice.
        overrides: settings of inference.json, such as --window_inferer#sw_batch_size 8.
    """
    if repetitions < 1:
        raise ConfigError(f"repetitions must be 1 or more, got {repetitions}")
    if threads is not None:
        torch.set_num_threads(threads)
    field, _, value = meta.partition("=")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        copy = work / "bundle"
        ignored = shutil.ignore_patterns("data", "models", "eval")
        shutil.copytree(resolve_bundle(bundle), copy, ignore=ignored)
        _write_volume(work / "in" / "volume.nii.gz", size, planes)
        settings = {
            "bundle_root": str(copy),
            "dataset_dir": str(work / "in"),
            "output_dir": str(work / "out"),
            "metadata": {field: value},
            **overrides,
        }
        _give_weights(copy, settings)
        if memory:
            mebibytes, seconds = _peak_of_command(copy, work, meta, overrides)
            print(f"predict: peak memory {mebibytes:.0f} MiB, {seconds:.1f} s with all imports")
        ratios, bare = [], []
        for _ in tqdm(range(repetitions), desc="paired runs"):
            ratio, seconds = _paired_run(_parsed(copy, settings))
            ratios.append(ratio)
            bare.append(seconds / planes)
    print(
        f"prediction / bare network: {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}, {repetitions} runs of {planes} slices); "
        f"bare network {1000 * statistics.median(bare):.1f} ms a slice"
    )


def _write_volume(path: Path, size: int, planes: int) -> None:
    rng = np.random.default_rng(0)
    smooth = rng.normal(40, 10, (planes, size, size)).astype(np.int16)
    smooth[:, : size // 6] = -1024  # air, which compresses as in a scan
    path.parent.mkdir()
    affine = np.array([[0, 0, -0.78, 0], [0, -0.78, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])
    nib.save(nib.Nifti1Image(smooth, affine), path)


def _parsed(bundle: Path, settings: dict[str, Any]) -> ConfigParser:
    parser = ConfigParser()
    parser.read_meta(bundle / "configs" / "metadata.json")
    parser.read_config(bundle / "configs" / "inference.json")
    parser.update(settings)
    return parser


def _give_weights(bundle: Path, settings: dict[str, Any]) -> None:
    parser = _parsed(bundle, settings)
    weights = parser.get_parsed_content("weights")
    write_weights(weights.path, weights.network, weights.facts)


def _peak_of_command(
    bundle: Path, work: Path, meta: str, overrides: dict[str, Any]
) -> tuple[float, float]:
    """Peak resident memory in MiB and seconds of the command in a process of its own."""
    command = [sys.executable, "-m", "metaseg_monai", "predict", str(bundle)]
    command += ["--source", str(work / "in"), "--output", str(work / "alone"), "--meta", meta]
    command += [f"--{key}={value}" for key, value in overrides.items()]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ConfigError(f"predict ended with {process.returncode}; see its message above")
    return used.ru_maxrss / 1024, time.perf_counter() - start  # Linux counts in KiB


def _paired_run(parser: ConfigParser) -> tuple[float, float]:
    """Time of a prediction without the repetitions over that of the repetitions, and the latter."""
    evaluator = parser.get_parsed_content("evaluator")
    network = parser.get_parsed_content("network")
    uses = parser.get_parsed_content("prepare_batch").reads_metadata
    half = parser.get_parsed_content("inferer").dtype == "bfloat16"
    device = parser.get_parsed_content("device")
    bare = 0.0

    def repeat(engine: Engine) -> None:
        nonlocal bare
        image = engine.state.batch["image"].to(device)
        rows = {"meta": engine.state.batch["meta"].to(device)} if uses else {}
        _wait(device)
        start = time.perf_counter()
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=half):
            network(image, **rows)
        _wait(device)
        bare += time.perf_counter() - start

    evaluator.add_event_handler(Events.ITERATION_COMPLETED, repeat)
    start = time.perf_counter()
    evaluator.run()
    return (time.perf_counter() - start - bare) / bare, bare


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    run_script(benchmark)
