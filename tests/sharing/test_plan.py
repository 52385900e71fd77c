"""Plans of made-up data sets, their reasons, and the memory that a step really takes."""

import json
import math
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser
from skimage.io import imsave

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.rows import write_table
from metaseg_monai.sharing.plan import Fingerprint, Values, fingerprint, plan, training_bytes
from metaseg_monai.tables import read_table

HU = Values(-1024, 2400, 40, 60, (-79.4, 303.6))
GREY = Values(0, 4000, 700, 200, (100, 1500))


def made_up(shapes, spacings, values=(GREY,), modality="other", foreground=0.05, classes=2):
    shapes = tuple(map(tuple, shapes))
    inside = tuple(round(math.prod(shape) * foreground) for shape in shapes)
    outside = tuple(math.prod(shape) - one for shape, one in zip(shapes, inside, strict=True))
    counts = {0: outside} | dict.fromkeys(range(1, classes), inside)
    dims = len(shapes[0])
    return Fingerprint(dims, shapes, spacings, values, modality, "made up", ("int16",), counts)


def test_anisotropic_ct_keeps_its_planes_and_its_unit():
    found = made_up([(512, 512, 40)] * 9, ((0.8, 0.8, 5.0),) * 8 + ((0.8, 0.8, 3.0),), (HU,), "CT")
    made = plan(found, "dynunet", memory_gb=4)
    assert made["spacing_mm"][:2] == [0.8, 0.8]
    assert 3 < made["spacing_mm"][2] < 5  # the 10th percentile
    rows, columns, planes = made["patch"]
    assert rows == columns > 3 * planes
    assert made["levels"][2] < made["levels"][0]
    assert made.network["kernel_size"][0] == [3, 3, 1]
    assert made["normalisation"]["intensity_range"] == [-80, 304]
    assert made["normalisation"]["clip"] is True
    assert made["memory_gb"] <= 4
    assert made["batch_size"] >= 2


def test_isotropic_mr_is_halved_alike_and_scaled_by_itself():
    made = plan(made_up([(160, 192, 160)] * 20, ((1.0, 1.0, 1.0),) * 20), memory_gb=2)
    assert made["spacing_mm"] == [1.0, 1.0, 1.0]
    assert len(set(made["levels"])) == 1
    assert made["normalisation"]["_target_"] == "NormalizeIntensityd"
    factor = 2 ** made["levels"][0]
    assert all(size % factor == 0 for size in made["patch"])


def test_more_memory_gives_larger_patches_or_batches():
    found = made_up([(160, 192, 160)] * 20, ((1.0, 1.0, 1.0),) * 20)
    small, large = (plan(found, memory_gb=gb) for gb in (1, 4))
    seen = [math.prod(made["patch"]) * made["batch_size"] for made in (small, large)]
    assert seen[0] < seen[1]


def test_colours_of_8_bits_have_no_spacing_and_are_divided_by_255():
    found = made_up([(256, 320)] * 30, None, (Values(0, 255, 120, 40, (10, 240)),) * 3, "RGB")
    made = plan(found, "dynunet")
    assert made["spacing_mm"] is None
    assert made["in_channels"] == 3
    assert made["normalisation"]["intensity_range"] == [0, 255]
    assert len(made["patch"]) == 2


@pytest.mark.parametrize("network", ["dynunet", "segresnet", "unet3", "ppunet"])
@pytest.mark.parametrize("shape", [(10, 13), (9, 12, 5)])
def test_tiny_images_are_padded_to_what_the_network_halves(network, shape):
    dims = len(shape)
    made = plan(made_up([shape] * 4, ((1.0,) * dims,) * 4), network, memory_gb=1)
    network = ConfigParser({"network": dict(made.network)}).get_parsed_content("network")
    assert all(size >= wanted for size, wanted in zip(made["patch"], shape, strict=True))
    assert sum(1 for _ in network.parameters()) > 0
    assert training_bytes(made.network, 1, made["patch"], made["batch_size"]) <= 1e9


def test_every_fact_has_a_reason_and_is_plain_json():
    made = plan(made_up([(64, 64)] * 5, None), "unet3")
    told = json.loads(json.dumps(made.to_dict()))
    assert all(set(fact) == {"value", "reason"} and fact["reason"] for fact in told.values())
    assert "patch" in str(made)


def test_what_cannot_be_planned_is_refused():
    found = made_up([(64, 64)] * 5, None)
    with pytest.raises(ConfigError, match="did you mean 'unet3'"):
        plan(found, "unet")
    with pytest.raises(ConfigError, match="expected gigabytes above 0"):
        plan(found, memory_gb=0)
    with pytest.raises(ConfigError, match="give more memory"):
        plan(found, memory_gb=0.03)


def test_the_fingerprint_of_volumes_reads_spacing_axes_and_foreground(tmp_path):
    rng = np.random.default_rng(0)
    for case in "ab":
        image = rng.integers(-1000, 1000, (20, 24, 8)).astype(np.int16)
        label = np.zeros(image.shape, np.uint8)
        label[4:8, 4:8, 2:4] = 1
        image[label > 0] = 50
        affine = np.diag([0.7, 0.7, 3.0, 1.0])
        nib.save(nib.Nifti1Image(image, affine), tmp_path / f"{case}.nii.gz")
        nib.save(nib.Nifti1Image(label, affine), tmp_path / f"{case}_m.nii.gz")
    rows = [
        {"image": f"{c}.nii.gz", "label": f"{c}_m.nii.gz", "group": c, "split": "train"}
        for c in "ab"
    ]
    write_table(rows, tmp_path / "table.csv")
    found = fingerprint(read_table(tmp_path), spatial_dims=3)
    assert found.modality == "CT"
    assert sorted(found.shapes[0][:2]) == [20, 24]
    assert found.shapes[0][2] == 8
    assert found.spacing_mm == pytest.approx((0.7, 0.7, 3.0))
    assert found.values[0].window == (50, 50)
    assert found.class_voxels[1] == (32, 32)
    assert found.to_dict()["classes"]["1"]["cases"] == 2
    assert fingerprint(read_table(tmp_path), 3, "other").modality == "other"


def test_the_fingerprint_of_pictures_and_of_cases_that_differ(tmp_path):
    for name, shape in (("a", (12, 16, 3)), ("b", (12, 16))):
        imsave(tmp_path / f"{name}.png", np.full(shape, 9, np.uint8), check_contrast=False)
        imsave(tmp_path / f"{name}_m.png", np.eye(12, 16).astype(np.uint8), check_contrast=False)
    rows = [
        {"image": f"{c}.png", "label": f"{c}_m.png", "group": c, "split": "train"} for c in "ab"
    ]
    write_table(rows[:1], tmp_path / "table.csv")
    found = fingerprint(read_table(tmp_path))
    assert (found.modality, found.spacings_mm, found.shapes) == ("RGB", None, ((12, 16),))
    write_table(rows, tmp_path / "table.csv")
    with pytest.raises(DataError, match="'b' has 1 channels, 'a' has 3"):
        fingerprint(read_table(tmp_path))


STEP = """
import ctypes, json, re, sys, torch
from pathlib import Path
from monai.bundle import ConfigParser
from metaseg_monai.inferers import channels_last
def step(component, channels, patch, batch):
    network = channels_last(ConfigParser({"network": component}).get_parsed_content("network"))
    optimizer = torch.optim.Adam(network.parameters())
    image, label = torch.rand(batch, channels, *patch), torch.zeros(batch, *patch).long()
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=len(patch) == 2):
            pred = network(image)
        torch.nn.functional.cross_entropy(pred.float(), label).backward()
        optimizer.step()
        optimizer.zero_grad()
def told(name):  # not getrusage: its peak holds that of the process that started this one
    text = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\\s+(\\d+) kB", text)[1]) * 1024
given = json.loads(sys.argv[1])
step(given["small"], given["channels"], [16] * len(given["patch"]), 1)  # what is loaded once
ctypes.CDLL("libc.so.6").malloc_trim(0)
before = told("VmRSS")
step(given["network"], given["channels"], given["patch"], given["batch"])
print(told("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux tells")
@pytest.mark.parametrize("shape", [(192, 192), (320, 320), (48, 48, 32), (64, 64, 64)])
@pytest.mark.parametrize("network", ["dynunet", "segresnet", "unet3", "ppunet"])
def test_a_step_takes_what_was_estimated(network, shape):
    dims = len(shape)
    cases = 80 if dims == 2 else 40  # batches of 4 and 2
    made = plan(made_up([shape] * cases, ((1.0,) * dims,) * cases), network, memory_gb=2)
    assert made["patch"] == list(shape)
    small = plan(made_up([(16,) * dims] * 4, ((1.0,) * dims,) * 4), network)
    given = {
        "network": made.network,
        "small": small.network,
        "channels": 1,
        "patch": made["patch"],
        "batch": made["batch_size"],
    }
    words = [sys.executable, "-W", "ignore", "-c", STEP, json.dumps(given)]
    done = subprocess.run(words, text=True, capture_output=True, check=True)
    taken = int(done.stdout) / 1e9
    print(f"{network} {shape}: planned {made['memory_gb']:.3f}, measured {taken:.3f} GB")
    assert made["memory_gb"] == pytest.approx(taken, rel=0.2)
