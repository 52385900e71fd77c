"""Plans of made-up data sets, their reasons, and the memory that a step really takes."""

import json
import math
import subprocess
import sys
import time
from dataclasses import replace
from statistics import median
from types import SimpleNamespace
from typing import get_args

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from skimage.io import imsave
from torch import nn

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.rows import write_table
from metaseg_monai.sharing.new_bundle import new_bundle
from metaseg_monai.sharing.plan import (
    Fingerprint,
    Network,
    Step,
    Values,
    _train,
    fingerprint,
    measured_step,
    plan,
)
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


@pytest.fixture
def by_voxels(monkeypatch):
    """A step takes 1 kB a voxel of the batch, so that rules are seen without networks."""

    def taken(*asked):
        *_, patch, batch = asked
        return 1000 * batch * math.prod(patch)

    plan_of = "metaseg_monai.sharing.plan"
    monkeypatch.setattr(f"{plan_of}.counted_bytes", taken)
    monkeypatch.setattr(f"{plan_of}.measured_step", lambda *asked: Step(taken(*asked), 1.0))
    monkeypatch.setattr("metaseg_monai.sharing.plan.free_bytes", lambda: 1e12)
    monkeypatch.setattr("metaseg_monai.sharing.plan.GAPS", 1)


@pytest.fixture
def unmeasured(monkeypatch):
    """Plans are by the estimate, in a second."""
    monkeypatch.setattr("metaseg_monai.sharing.plan.measured_step", lambda *asked: None)


THICK = ((0.8, 0.8, 5.0),) * 8 + ((0.8, 0.8, 3.0),)


def test_anisotropic_ct_keeps_its_planes_and_its_unit(by_voxels):
    found = made_up([(512, 512, 40)] * 9, THICK, (HU,), "CT")
    made = plan(found, "dynunet", memory_gb=8)
    assert made["spacing_mm"] == [0.8, 0.8, 4.6]  # the 10th percentile of nine: 3 + .8 (5 - 3)
    assert made["shape"] == [512, 512, 43]
    # 128^3 voxels in mm alike are 229 x 229 x 40; six halvings make 256 of 229
    assert made["patch"] == [256, 256, 40]
    assert made["levels"] == [6, 6, 3]
    # planes join when voxels of 3.2 mm are less than twice as thick as wide
    assert made.network["strides"][:4] == [[1, 1, 1], [2, 2, 1], [2, 2, 1], [2, 2, 2]]
    assert made.network["kernel_size"][:3] == [[3, 3, 1], [3, 3, 1], [3, 3, 3]]
    assert made.network["filters"] == [32, 64, 128, 256, 320, 320, 320]
    assert made["normalisation"]["intensity_range"] == [-80, 304]
    assert made["normalisation"]["clip"] is True
    assert "10th percentile" in made.facts["spacing_mm"].reason


def test_what_a_thick_ct_takes_is_within_the_memory(unmeasured):
    made = plan(made_up([(512, 512, 40)] * 9, THICK, (HU,), "CT"), "dynunet", memory_gb=4)
    rows, columns, planes = made["patch"]
    assert abs(rows - columns) <= 32
    assert min(rows, columns) > 3 * planes
    assert 0.5 * 4 < made["memory_gb"] <= 4
    assert made["batch_size"] >= 2
    assert made["filters"] == 16


@pytest.mark.parametrize(
    ("shape", "spacings", "target"),
    [
        ((100, 100, 60), ((1.0, 1.0, 4.0), (1.0, 1.0, 2.0), (1.0, 1.0, 4.0)), 4),  # many planes
        ((100, 100, 20), ((1.0, 1.0, 3.0), (1.0, 1.0, 2.0), (1.0, 1.0, 3.0)), 3),  # thick by 3
        ((100, 100, 20), ((1.0, 1.0, 4.0), (1.0, 1.0, 0.2), (1.0, 1.0, 4.0)), 1),  # not below rows
    ],
)
def test_only_few_thick_planes_are_resampled_finer_than_their_median(
    by_voxels, shape, spacings, target
):
    made = plan(made_up([shape] * 3, spacings), memory_gb=100)
    assert made["spacing_mm"] == pytest.approx([1, 1, target], rel=1e-4)


def test_isotropic_mr_is_halved_alike_and_scaled_by_itself(by_voxels):
    made = plan(made_up([(160, 192, 160)] * 20, ((1.0, 1.0, 1.0),) * 20), memory_gb=8)
    assert made["spacing_mm"] == [1.0, 1.0, 1.0]
    assert made["patch"] == [128, 128, 128]
    assert made["levels"] == [5, 5, 5]  # 128 to 4
    assert made.network["kernel_size"] == [[3, 3, 3]] * 6
    assert made["normalisation"]["_target_"] == "NormalizeIntensityd"
    assert made["foreground_share"] == pytest.approx(1 / 3, abs=1e-3)


def test_a_patch_shrinks_along_its_longest_axis_and_skips_no_size(by_voxels):
    found = made_up([(128, 128, 128)] * 60, ((1.0,) * 3,) * 60)
    made = plan(found, memory_gb=4.18)  # two of 128^3 take 4.19
    assert made["patch"] == [112, 128, 128]
    assert made["levels"] == [4, 5, 5]
    made = plan(found, memory_gb=0.5)
    assert max(made["patch"]) - min(made["patch"]) <= 16
    assert 0.8 * 0.5e6 < made["batch_size"] * math.prod(made["patch"]) <= 0.5e6


@pytest.mark.parametrize("network", get_args(Network))
@pytest.mark.parametrize("shape", [(20_000, 30_000), (2000, 2000, 1500)])
def test_huge_images_are_cut_to_windows(by_voxels, network, shape):
    dims = len(shape)
    made = plan(made_up([shape] * 100, ((0.5,) * dims,) * 100), network, memory_gb=8)
    assert made["patch"] == [{2: 512, 3: 128}[dims]] * dims
    assert made["batch_size"] == {2: 30, 3: 3}[dims]  # 1.9 and 3.8 of the memory a patch
    assert made.facts["batch_size"].reason == "as many patches as fit the memory"


def test_thick_slices_are_halved_late_by_segresnet_ds_and_blocks_are_residual(by_voxels):
    found = made_up([(512, 512, 40)] * 9, THICK, (HU,), "CT")
    made = plan(found, "segresnet_ds", memory_gb=8)
    assert made.network["resolution"] == made["spacing_mm"]
    assert made["levels"][2] < made["levels"][0] == made["levels"][1]
    network = ConfigParser({"network": dict(made.network)}).get_parsed_content("network")
    assert all(n % int(f) == 0 for n, f in zip(made["patch"], network.shape_factor(), strict=True))
    assert "resolution" not in plan(made_up([(64, 64)] * 5, None), "segresnet_ds").network
    assert plan(found, "dynunet_res", memory_gb=8).network["res_block"] is True


def test_a_batch_is_a_twentieth_of_the_voxels_and_two_at_least(by_voxels):
    few, one = (plan(made_up([(96, 96)] * n, None), "unet3", 8) for n in (100, 1))
    assert few["batch_size"] == 5
    assert "5%" in few.facts["batch_size"].reason
    assert one["batch_size"] == 2
    assert "two at least" in one.facts["batch_size"].reason


@pytest.mark.parametrize(("spacing", "wanted"), [((1.0, 1.0, 6.0), 1), ((1.0, 1.0, 1.0), 16)])
def test_a_single_plane_of_a_volume_is_planned(by_voxels, spacing, wanted):
    made = plan(made_up([(40, 40, 1)] * 3, (spacing,) * 3), memory_gb=1)
    assert made["patch"][2] == wanted
    network = ConfigParser({"network": dict(made.network)}).get_parsed_content("network")
    assert network(torch.zeros(1, 1, *made["patch"])).shape == (1, 2, *made["patch"])


def test_cases_without_foreground_are_told(by_voxels):
    found = made_up([(64, 64)] * 4, None)
    some = replace(found, class_voxels={0: (4096,) * 4, 1: (0, 7, 0, 9)})
    assert "2 of 4 cases have none" in plan(some, "unet3").facts["foreground_share"].reason
    none = replace(found, class_voxels={0: (4096,) * 4}, values=(HU,), modality="CT")
    made = plan(none, "unet3")
    assert made["classes"] == 2
    assert "none of 4 training cases" in made.facts["classes"].reason
    assert "of all voxels" in made.facts["normalisation"].reason


@pytest.mark.parametrize(
    ("spacings", "target"),
    [
        (((0.5, 0.5),) * 3, [0.5, 0.5]),  # as others will be
        (((0.5, 0.5), (0.25, 0.25), (1.0, 1.0)), [0.5, 0.5]),
    ],
)
def test_planes_are_resampled_where_their_pixels_differ(by_voxels, spacings, target):
    made = plan(made_up([(64, 64), (128, 128), (32, 32)], spacings), "unet3")
    assert made["spacing_mm"] == target
    assert made["shape"] == [64, 64]


def test_more_memory_gives_larger_patches_or_batches(unmeasured):
    found = made_up([(160, 192, 160)] * 20, ((1.0, 1.0, 1.0),) * 20)
    small, large = (plan(found, memory_gb=gb) for gb in (1, 4))
    seen = [math.prod(made["patch"]) * made["batch_size"] for made in (small, large)]
    assert seen[0] < seen[1]


def test_colours_of_8_bits_have_no_spacing_and_are_divided_by_255(unmeasured):
    found = made_up([(256, 320)] * 30, None, (Values(0, 255, 120, 40, (10, 240)),) * 3, "RGB")
    made = plan(found, "dynunet")
    assert made["spacing_mm"] is None
    assert made["in_channels"] == 3
    assert made["normalisation"]["intensity_range"] == [0, 255]
    assert len(made["patch"]) == 2


@pytest.mark.parametrize("network", get_args(Network))
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [((10, 13), (1.0, 1.0)), ((9, 12, 5), (1.0, 1.0, 1.0)), ((10, 5, 5), (1.0, 3.0, 3.0))],
)
def test_tiny_images_are_padded_to_what_the_network_halves(by_voxels, network, shape, spacing):
    made = plan(made_up([shape] * 4, (spacing,) * 4), network, memory_gb=1)
    assert all(size >= wanted for size, wanted in zip(made["patch"], shape, strict=True))
    network = ConfigParser({"network": dict(made.network)}).get_parsed_content("network")
    pred = network(torch.zeros(2, 1, *made["patch"]))
    assert pred.shape == (2, 2, *made["patch"])
    pred.sum().backward()


@pytest.mark.parametrize("network", get_args(Network))
@pytest.mark.parametrize(
    "found",
    [
        made_up([(512, 512, 40)] * 9, THICK, (HU,), "CT"),
        made_up([(64, 64)] * 5, None, classes=4),
        made_up([(7, 9)], ((0.3, 0.3),), foreground=0),
    ],
)
def test_every_fact_has_a_reason_and_is_plain_json(by_voxels, found, network):
    made = plan(found, network)
    told = json.loads(json.dumps(made.to_dict()))
    assert all(set(fact) == {"value", "reason"} and fact["reason"] for fact in told.values())
    assert told["patch"]["value"] == made["patch"]
    assert f"patch: {made['patch']} (" in str(made)
    json.dumps(found.to_dict())


def test_pixels_of_one_size_are_resampled_to_it_as_others_will_be(by_voxels):
    assert plan(made_up([(64, 64)] * 5, [(0.8, 0.8)] * 5), "unet3")["spacing_mm"] == [0.8, 0.8]


def test_what_cannot_be_planned_is_refused(unmeasured):
    found = made_up([(64, 64)] * 5, None)
    with pytest.raises(ConfigError, match="did you mean 'unet3'"):
        plan(found, "unet")
    with pytest.raises(ConfigError, match="expected gigabytes above 0"):
        plan(found, memory_gb=0)
    with pytest.raises(ConfigError, match="give more memory"):
        plan(found, memory_gb=0.001)


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


def test_the_window_is_of_the_foreground_and_of_all_voxels_where_there_is_none(tmp_path):
    values = np.arange(1000).reshape(10, 10, 10)
    for case, label in (("a", values > 0), ("b", values < 0), ("c", values < 0)):
        nib.save(nib.Nifti1Image(values.astype(np.int16), np.eye(4)), tmp_path / f"{case}.nii.gz")
        nib.save(nib.Nifti1Image(label.astype(np.uint8), np.eye(4)), tmp_path / f"{case}_m.nii.gz")

    def found(cases):
        rows = [{"image": f"{c}.nii.gz", "label": f"{c}_m.nii.gz"} for c in cases]
        rows = [row | {"group": c, "split": "train"} for row, c in zip(rows, cases, strict=True)]
        write_table(rows, tmp_path / "table.csv")
        return fingerprint(read_table(tmp_path), 3)

    some, none = found("ab"), found("bc")
    assert some.values[0].window == pytest.approx((1 + 0.005 * 998, 1 + 0.995 * 998))
    assert some.values[0].mean == 500
    assert some.class_voxels == {0: (1, 1000), 1: (999, 0)}
    assert none.class_voxels == {0: (1000, 1000)}
    assert none.classes == 2
    assert none.values[0].mean == pytest.approx(499.5, abs=10)


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
    assert "as MR sequences or stains, --modality other" in found.why_modality
    write_table(rows, tmp_path / "table.csv")
    told = (
        r"1 have 1 \(as 'b'\), 1 have 3 \(as 'a'\); --channels grey leaves most as .*; rgb if col"
    )
    with pytest.raises(DataError, match=told):
        fingerprint(read_table(tmp_path))
    write_table([*rows, {**rows[0], "image": "c.png", "group": "c"}], tmp_path / "table.csv")
    imsave(tmp_path / "c.png", np.full((12, 16, 3), 8, np.uint8), check_contrast=False)
    with pytest.raises(DataError, match=r"2 have 3 .*; --channels rgb leaves most as they are"):
        fingerprint(read_table(tmp_path))
    imsave(tmp_path / "c.png", np.full((12, 16, 4), 8, np.uint8), check_contrast=False)
    with pytest.raises(DataError, match=r"1 have 4 \(as 'c'\); give images of one kind"):
        fingerprint(read_table(tmp_path))


TRAIN = """
import json, re, sys
from pathlib import Path
from metaseg_monai.sharing.run import train
train(sys.argv[1], output_dir=sys.argv[2], epochs=2, **json.loads(sys.argv[3]))
# not getrusage: its peak holds that of the process that started this one
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
print(int(peak) * 1024 / 1e9)
"""


def peak_gb(bundle, output, **changed):
    """The most that a process takes which trains once, as a user's does."""
    words = [sys.executable, "-W", "ignore", "-c", TRAIN, bundle, output, json.dumps(changed)]
    done = subprocess.run(list(map(str, words)), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])


def a_table(folder, shape):
    """Ten random images of one field."""
    rng, rows = np.random.default_rng(0), []
    for n in range(10):
        image = rng.integers(0, 200, shape).astype(np.uint8)
        label = (np.indices(shape).sum(0) < 20 + n).astype(np.uint8)
        names = [
            f"{kind}{n}.{'png' if len(shape) == 2 else 'nii.gz'}" for kind in ("image", "mask")
        ]
        for array, name in zip((image, label), names, strict=True):
            if len(shape) == 2:
                imsave(folder / name, array, check_contrast=False)
            else:
                nib.save(nib.Nifti1Image(array, np.eye(4)), folder / name)
        rows.append({"image": names[0], "mask": names[1], "patient": f"p{n}", "side": "ab"[n % 2]})
    return write_table(rows, folder / "table.csv")


@pytest.mark.slow  # six trainings of each network and size
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux tells")
@pytest.mark.parametrize("shape", [(192, 192), (48, 48, 32)])
@pytest.mark.parametrize("network", ["dynunet", "unet3"])
def test_training_takes_what_was_planned(tmp_path, network, shape):
    made = new_bundle("mine", a_table(tmp_path, shape), tmp_path / "b", network=network)
    assert made.plan["patch"] == list(shape)
    small = {"network_def#channels": 4, "roi_size": [{2: 64, 3: 16}[len(shape)] for _ in shape]}
    if network == "dynunet":
        small["network_def#network#filters"] = [4 for _ in made.plan.network["filters"]]
        del small["network_def#channels"]
    runs = range(3)
    libraries = median(peak_gb(made.folder, tmp_path / f"small{n}", **small) for n in runs)
    taken = [peak_gb(made.folder, tmp_path / f"run{n}") - libraries for n in runs]
    print(f"{network} {shape}: planned {made.plan['memory_gb']} GB, trained with {taken}")
    assert made.plan["memory_gb"] == pytest.approx(median(taken), rel=0.2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads what Linux tells")
def test_what_a_plan_takes_is_measured_and_said_to_be(capfd):
    told = {"provenance": "acquisition", "availability": "acquisition"}
    field = {"kind": "categorical", "name": "side", "values": ["a", "b"], **told}
    schema = MetadataSchema([field])
    made = plan(made_up([(32, 32)] * 9, None), "unet3", 1, schema)
    assert made.facts["memory_gb"].reason.endswith("measured on this machine")
    assert 0.001 < made["memory_gb"] < 0.2
    assert 0 < made["step_seconds"] < 60
    assert made.facts["step_seconds"].reason.startswith("about")
    assert "measuring training steps: " in capfd.readouterr().err


class Waiting(nn.Module):
    """A network during whose every step others have the processor for half a second."""

    calls = validated = 0

    def __init__(self, classes):
        super().__init__()
        self.convolution = nn.Conv2d(1, classes, 1)

    def forward(self, image):
        if self.training:
            time.sleep(0.5)
            Waiting.calls += 1
        else:
            Waiting.validated += 1
        return self.convolution(image)


@pytest.mark.parametrize(("longest", "steps"), [(0.0, 2), (1.2, 3), (2.2, 5), (9.0, 6)])
def test_a_busy_machine_makes_no_step_longer_and_slow_steps_are_few(monkeypatch, longest, steps):
    monkeypatch.setattr("metaseg_monai.sharing.plan.EPOCHS", 3)
    monkeypatch.setattr("metaseg_monai.sharing.plan.STEPS", 2)
    monkeypatch.setattr("metaseg_monai.sharing.plan.LONGEST", longest)
    clock = SimpleNamespace(monotonic=lambda: Waiting.calls / 2, thread_time=time.thread_time)
    monkeypatch.setattr("metaseg_monai.sharing.plan.time", clock)
    network = {"_target_": f"{__name__}.Waiting", "classes": "@classes"}
    settings = {"in_channels": 1, "classes": 2, "network_def": network, "metadata_dropout": 0.0}
    Waiting.calls = Waiting.validated = 0
    seconds = _train(settings | {"variant": "none"}, MetadataSchema([]), [2, 8, 8])
    assert Waiting.calls == steps
    assert Waiting.validated > 0  # between steps, which take more after it
    assert 0 < seconds < 0.4


def test_a_plan_that_takes_more_than_it_may_is_made_smaller(by_voxels, monkeypatch):
    asked = []

    def taken(settings, schema, patch, batch):
        asked.append((patch, batch))
        return Step(1700 * batch * math.prod(patch), 0.5)

    monkeypatch.setattr("metaseg_monai.sharing.plan.measured_step", taken)
    found = made_up([(128, 128, 128)] * 60, ((1.0,) * 3,) * 60)
    made = plan(found, memory_gb=4.5)
    assert asked[0] == ([128, 128, 128], 2)
    assert len(asked) == 2
    assert made["memory_gb"] == pytest.approx(1.7e-6 * 2 * math.prod(made["patch"]), rel=1e-3)
    assert 0.8 * 4.5 < made["memory_gb"] <= 4.5


@pytest.mark.parametrize(
    ("free", "taken", "why"),
    [(1.0, Step(4_000_000_000, 1.0), "less is free"), (1e12, None, "cannot be measured")],
)
def test_what_cannot_be_measured_is_an_estimate_and_said_to_be(
    by_voxels, monkeypatch, free, taken, why
):
    monkeypatch.setattr("metaseg_monai.sharing.plan.free_bytes", lambda: free)
    monkeypatch.setattr("metaseg_monai.sharing.plan.measured_step", lambda *asked: taken)
    made = plan(made_up([(64, 64)] * 5, None), "unet3", 1)
    assert "an estimate" in made.facts["memory_gb"].reason
    assert why in made.facts["memory_gb"].reason
    assert made["memory_gb"] == pytest.approx(2 * 64 * 64e-6, rel=1e-3)
    assert "step_seconds" not in made.facts


def test_a_step_that_fails_tells_why():
    settings = {"in_channels": 1, "classes": 2, "network_def": {"_target_": "DynUNet"}}
    with pytest.raises(RuntimeError, match="a training step failed"):
        measured_step(settings, MetadataSchema([]), [32, 32], 2)
