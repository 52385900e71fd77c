"""Measure what predict costs beside the network: the share of its time in which that does not run.

The weights are random and the volumes are noise of a CT's compressibility; neither changes the
cost. The network's calls are timed where they are made, so that reading the next scan and writing
the last mask count only where the network waits for them; the first scan is read, and the last mask
written, with nothing to overlap.
"""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from benchmark_volumes import _give_weights, _parsed, _wait, _write_volume

from metaseg_monai.bundle import resolve_bundle
from metaseg_monai.cli.commands import run_script


def benchmark(
    bundle: str = "kits21_tumour_slices_segmentation",
    meta: str = "tumour_size_mm=41",
    size: int = 512,
    planes: int = 100,
    scans: int = 4,
    threads: int | None = None,
    **overrides: Any,
) -> None:
    """Print the time of a prediction of several scans, and the share that is not the network's.

    Example:
        python scripts/benchmark_predict.py bundles/mine --meta age=60
        python scripts/benchmark_predict.py --size 32 --planes 4 --scans 2 --network_def#channels 4

    Args:
        bundle: name or folder of a bundle, such as new-bundle has planned.
        meta: metadata of the scans, field=value[,field=value].
        size: rows and columns of a scan; a pixel has 0.78 mm.
        planes: of a scan.
        scans: how many.
        threads: CPU threads; by default PyTorch's own choice.
        overrides: settings of inference.json.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        copy = work / "bundle"
        ignored = shutil.ignore_patterns("data", "models", "eval")
        shutil.copytree(resolve_bundle(bundle), copy, ignore=ignored)
        (work / "in").mkdir()
        for number in range(scans):
            _write_volume(work / f"in/{number}" / "volume.nii.gz", size, planes)
        settings = {
            "bundle_root": str(copy),
            "dataset_dir": str(work / "in"),
            "output_dir": str(work / "out"),
            "metadata": dict(part.split("=", 1) for part in meta.split(",") if part) or None,
            **overrides,
        }
        _give_weights(copy, settings)
        parser = _parsed(copy, settings)
        evaluator = parser.get_parsed_content("evaluator")
        network = parser.get_parsed_content("network")
        device = parser.get_parsed_content("device")
        spent, since = 0.0, 0.0

        def begin(*_: Any) -> None:
            nonlocal since
            _wait(device)
            since = time.perf_counter()

        def end(*_: Any) -> None:
            nonlocal spent
            _wait(device)
            spent += time.perf_counter() - since

        network.register_forward_pre_hook(begin)
        network.register_forward_hook(end)
        start = time.perf_counter()
        evaluator.run()
        wall = time.perf_counter() - start
        masks = len(list((work / "out").rglob("*.nii.gz")))
    print(
        f"{masks} scans of {size} x {size} x {planes}: {wall:.1f} s, the network {spent:.1f} s; "
        f"beside it {1 - spent / wall:.1%} of the time"
    )


if __name__ == "__main__":
    run_script(benchmark)
