"""Measure `prepare kits21`: against only reading the same files, and two workers against one.

CT-like volumes of 512 x 512 pixels are made in a temporary folder. Reading (decompression by
nibabel of image and label) and preparing (rule mass, one worker) are timed one after the other in
turning order, so that each pair sees the same state of the machine; so are one worker and two,
whose ratio means something only on a machine with two idle cores.
"""

import gzip
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from metaseg_monai.cli.commands import run_script
from metaseg_monai.errors import ConfigError
from metaseg_monai.prepare.kits import prepare_kits21
from metaseg_monai.prepare.kits_source import find_kits

SIDE = 512
AFFINE = np.array([[0, 0, -0.85, 0], [0, -0.85, 0, 0], [-3.0, 0, 0, 0], [0, 0, 0, 1]])


def benchmark(
    cases: int = 64,
    planes: int = 100,
    mass_planes: int = 25,
    repetitions: int = 5,
    spacing: float | Literal["native"] = 0.78,
    folder: str | None = None,
) -> None:
    """Print both ratios, the median of paired runs and their range.

    Example:
        python scripts/benchmark_prepare.py --cases 64 --repetitions 5

    Args:
        cases: volumes for the workers; the comparison with reading takes four of them.
        planes: axial planes of a volume.
        mass_planes: planes with a tumour, which become slices.
        repetitions: pairs of runs.
        spacing: mm of the slices' pixels, or native.
        folder: where the temporary folder is made (about 20 MB a case); by default the system's.
    """
    if min(cases, planes, repetitions) < 1 or not 1 <= mass_planes <= planes:
        raise ConfigError(
            f"cases={cases}, planes={planes}, repetitions={repetitions}, mass_planes="
            f"{mass_planes}: expected numbers from 1, and mass_planes up to planes"
        )
    with tempfile.TemporaryDirectory(dir=folder) as name:
        root = Path(name)
        few = min(4, cases)
        _write_cases(root / "few", few, planes, mass_planes)
        _write_cases(root / "many", cases, planes, mass_planes)
        reading = []
        for turn in tqdm(range(-1, repetitions), desc="reading and preparing", unit="pair"):
            order = ["read", "prepare"] if turn % 2 else ["prepare", "read"]
            seconds = {
                what: _read(root / "few")
                if what == "read"
                else _prepare(root / "few", root / f"few{turn}", 1, spacing)
                for what in order
            }
            if turn >= 0:  # the first pair warms the file cache
                reading.append((seconds["prepare"], seconds["read"]))
        working = []
        for turn in tqdm(range(repetitions), desc="one and two workers", unit="pair"):
            order_of = [1, 2] if turn % 2 else [2, 1]
            by = {
                workers: _prepare(root / "many", root / f"many{turn}.{workers}", workers, spacing)
                for workers in order_of
            }
            working.append((by[1], by[2]))
    _tell(f"preparing {few} cases, over reading them", reading, few)
    _tell(f"{cases} cases with one worker, over two workers (their start counted)", working, cases)


def _tell(what: str, pairs: list[tuple[float, float]], cases: int) -> None:
    ratios = [one / other for one, other in pairs]
    one, other = (statistics.median(side) / cases for side in zip(*pairs, strict=True))
    print(
        f"{what}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f} in "
        f"{len(pairs)} pairs); {one:.3f} and {other:.3f} s a case"
    )


def _read(source: Path) -> float:
    start = time.perf_counter()
    for case in find_kits(source).cases:
        for path in (*case.images, *case.masks):
            np.asanyarray(nib.load(path).dataobj)
    return time.perf_counter() - start


def _prepare(source: Path, output: Path, workers: int, spacing: float | Literal["native"]) -> float:
    start = time.perf_counter()
    made = prepare_kits21(source, output, workers=workers, spacing=spacing)
    elapsed = time.perf_counter() - start
    shutil.rmtree(output)
    if made.problems:
        raise ConfigError(f"the benchmark's own volumes have problems: {made.problems}")
    return elapsed


def _write_cases(root: Path, cases: int, planes: int, mass_planes: int) -> None:
    """Write cases that differ in their first voxels; the long rest is compressed once."""
    image, label = _volume(planes), _label(planes, mass_planes)
    head, voxels = _stored(image)
    rest = gzip.compress(voxels[planes * SIDE * 2 :], mtime=0)
    label_file = gzip.compress(b"".join(_stored(label)), mtime=0)
    random = np.random.default_rng(1)
    for number in range(cases):
        folder = root / f"case_{number:05d}"
        folder.mkdir(parents=True)
        first = random.integers(-1024, -1000, planes * SIDE).astype("<i2").tobytes()
        begin = gzip.compress(head + first, mtime=0)  # gzip files may have several members
        (folder / "imaging.nii.gz").write_bytes(begin + rest)
        (folder / "aggregated_MAJ_seg.nii.gz").write_bytes(label_file)


def _stored(array: np.ndarray) -> tuple[bytes, bytes]:
    """Header and voxels as a NIfTI file holds them."""
    content = nib.Nifti1Image(array, AFFINE).to_bytes()
    offset = len(content) - array.nbytes
    return content[:offset], content[offset:]


def _volume(planes: int) -> np.ndarray:
    """(D, H, W) int16: a body in air with smoothed noise, -1024 outside the scanner's circle."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    body = ((y - 256) / 180) ** 2 + ((x - 256) / 220) ** 2 < 1
    circle = (y - 256) ** 2 + (x - 256) ** 2 < 256**2
    volume = np.empty((planes, SIDE, SIDE), np.int16)
    for plane in volume:
        noise = gaussian_filter(random.standard_normal((SIDE, SIDE), dtype=np.float32), 0.7)
        noise /= noise.std()
        plane[:] = np.where(circle, np.where(body, 40 + 15 * noise, -1000 + 8 * noise), -1024)
    return volume


def _label(planes: int, mass_planes: int) -> np.ndarray:
    label = np.zeros((planes, SIDE, SIDE), np.uint8)
    label[planes // 4 : 3 * planes // 4, 200:300, 100:160] = 1
    first = (planes - mass_planes) // 2
    label[first : first + mass_planes, 220:260, 110:150] = 2
    return label


if __name__ == "__main__":
    run_script(benchmark)
