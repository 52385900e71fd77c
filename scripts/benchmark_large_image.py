"""Measure the peak memory and the time of predicting one large 16-bit image.

The weights are random and the image is noise; neither changes the cost. The command runs in a
process of its own, so that its peak is the whole command's, imports included.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from monai.bundle import ConfigParser

from metaseg_monai.bundle import resolve_bundle
from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError
from metaseg_monai.training import write_weights

GB = 1e9  # bytes
SMALL = {  # what is asked for is the memory beside the network, so the network is small
    "variant": "none",
    "network_def#channels": 4,
    "network_def#levels": 2,
    "intensity_range": [0, 65535],
    "window_inferer#roi_size": [512, 512],
    "window_inferer#sw_batch_size": 4,
}


def benchmark(
    bundle: str = "synthetic_shapes_segmentation",
    size: int = 14000,
    images: int = 1,
    tile: int = 512,
    meta: str | None = None,
    limit_gb: float | None = None,
    **overrides: Any,
) -> None:
    """Print the peak memory and the time of `predict` on square 16-bit TIFF images.

    Example:
        python scripts/benchmark_large_image.py --size 14000 --limit_gb 4

    Args:
        bundle: name or folder of a bundle with an inference.json for planes of one channel.
        size: rows and columns of each image.
        images: how many are predicted in the one run.
        tile: side of the file's tiles, a multiple of 16; 0 stores one strip.
        meta: metadata of the images, field=value, where `variant` takes metadata.
        limit_gb: end with status 1 where the peak is above this many 10^9 bytes.
        overrides: settings of the bundle's inference.json, such as --window_inferer#blend discard.
    """
    if size < 1 or images < 1 or tile < 0 or tile % 16:
        raise ConfigError(f"size {size}, images {images}, tile {tile}: see --help for their ranges")
    settings = {**SMALL, **overrides}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        copy = work / "bundle"
        ignored = shutil.ignore_patterns("data", "models", "eval")
        shutil.copytree(resolve_bundle(bundle), copy, ignore=ignored)
        for number in range(images):
            _write_image(work / "in" / f"image{number}.tif", size, tile, seed=number)
        _give_weights(copy, settings)
        peak, seconds = _peak_of_command(copy, work, meta, settings)
        masks = len(list((work / "out").glob("*.tif")))
    pixels = size * size
    print(
        f"{masks} of {images} images of {size} x {size}: peak {peak / GB:.2f} GB "
        f"({peak / pixels:.1f} bytes a pixel of one image, imports included), {seconds:.0f} s"
    )
    if limit_gb is not None and peak > limit_gb * GB:
        sys.exit(f"error: peak memory above {limit_gb} GB")


def _write_image(path: Path, size: int, tile: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    path.parent.mkdir(exist_ok=True)
    if tile == 0:
        pixels = tifffile.memmap(path, shape=(size, size), dtype=np.uint16)
        for row in pixels:
            row[:] = rng.integers(0, 65536, size, dtype=np.uint16)
        pixels.flush()
        return
    many = (-(-size // tile)) ** 2

    def tiles() -> Iterator[np.ndarray]:
        for _ in range(many):
            yield rng.integers(0, 65536, (tile, tile), dtype=np.uint16)

    tifffile.imwrite(
        path,
        tiles(),
        shape=(size, size),
        dtype=np.uint16,
        tile=(tile, tile),
        photometric="minisblack",
    )


def _give_weights(bundle: Path, settings: dict[str, Any]) -> None:
    """Store the random weights with which the bundle's network starts, as training would."""
    parser = ConfigParser()
    parser.read_meta(bundle / "configs" / "metadata.json")
    parser.read_config(bundle / "configs" / "inference.json")
    parser.update({"bundle_root": str(bundle), **settings})
    weights = parser.get_parsed_content("weights")
    write_weights(weights.path, weights.network, weights.facts)


def _peak_of_command(
    bundle: Path, work: Path, meta: str | None, settings: dict[str, Any]
) -> tuple[int, float]:
    """Peak resident memory in bytes and seconds of the command in a process of its own."""
    command = [sys.executable, "-m", "metaseg_monai", "predict", str(bundle)]
    command += ["--source", str(work / "in"), "--output", str(work / "out")]
    command += [] if meta is None else ["--meta", meta]
    command += [f"--{key}={value}" for key, value in settings.items()]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise ConfigError(f"predict ended with {process.returncode}; see its message above")
    kibibytes = used.ru_maxrss  # Linux; macOS counts in bytes
    return kibibytes if sys.platform == "darwin" else kibibytes * 1024, time.perf_counter() - start


if __name__ == "__main__":
    run_script(benchmark)
