"""Large images through the real command: how much memory a pixel takes."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from metaseg_monai.bundle import resolve_bundle

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmark_large_image.py"
SIZE = 3000
BYTES_A_PIXEL = 2  # of 16 bit, as they are stored; in tiles none
BYTES_OF_BANDS = 40e6
BYTES_BESIDE = 40e6  # tiles, and modules that are imported late

CHILD = """
import resource, sys
import metaseg_monai.evaluation, metaseg_monai.transforms
from metaseg_monai.__main__ import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
main()
print("grown", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.fixture(scope="module")
def benchmark():
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("benchmark_large_image", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in other units elsewhere")
def test_images_one_after_the_other_take_the_memory_of_one(benchmark, tmp_path):
    settings = {
        **benchmark.SMALL,
        "roi_size": [200, 200],
        "window_inferer#sw_batch_size": 1,
        "inferer#inferer#dtype": None,
        "window_inferer#blend": "discard",
    }
    bundle = resolve_bundle("synthetic_shapes_segmentation")
    for folder in ("configs", "docs"):
        (tmp_path / "bundle").mkdir(exist_ok=True)
        (tmp_path / "bundle" / folder).symlink_to(bundle / folder)
    for number in (0, 1):
        benchmark._write_image(
            tmp_path / "in" / f"{number}.tif", SIZE, tile=512 * number, seed=number
        )
    benchmark._give_weights(tmp_path / "bundle", settings)
    command = [sys.executable, "-c", CHILD, "predict", str(tmp_path / "bundle")]
    command += ["--source", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    command += [f"--{key}={value}" for key, value in settings.items()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    grown = int(done.stdout.split()[-1]) * 1024
    most = BYTES_A_PIXEL * SIZE**2 + BYTES_BESIDE + BYTES_OF_BANDS
    assert grown < most, f"{grown / SIZE**2:.1f} bytes a pixel"
    for number in (0, 1):
        assert tifffile.imread(tmp_path / "out" / f"{number}.tif").shape == (SIZE, SIZE)


@pytest.mark.slow
@pytest.mark.parametrize("blend", ["gaussian", "discard"])
def test_14000_pixels_square_in_tiles_take_less_than_1300_megabytes(blend):
    command = [sys.executable, str(SCRIPT), "--size", "14000", "--limit_gb", "1.3"]
    done = subprocess.run(
        [*command, f"--window_inferer#blend={blend}"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert "1 of 1 images" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts in other units elsewhere")
def test_check_takes_at_most_8_bytes_a_pixel(benchmark, tmp_path):
    benchmark._write_image(tmp_path / "a.tif", SIZE, tile=512, seed=0)
    label = np.zeros((SIZE, SIZE), np.uint8)
    label[:100, :100] = 1
    tifffile.imwrite(tmp_path / "l.tif", label, photometric="minisblack", compression="zlib")
    (tmp_path / "table.csv").write_text(
        "image,label,task,group,split\na.tif,l.tif,disc,g,test\n", encoding="utf-8"
    )
    schema = resolve_bundle("synthetic_shapes_segmentation") / "configs" / "schema.json"
    command = [sys.executable, "-c", CHILD, "check", str(tmp_path / "table.csv")]
    done = subprocess.run(
        [*command, "--schema_file", str(schema)], capture_output=True, text=True, timeout=120
    )
    assert "no problems found" in done.stdout, done.stdout + done.stderr[-2000:]
    grown = int(done.stdout.split()[-1]) * 1024
    assert grown < 8 * SIZE**2 + BYTES_BESIDE, f"{grown / SIZE**2:.1f} bytes a pixel"
