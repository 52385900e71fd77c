"""Uneven illumination: by a reference, by an estimate, and what cannot be divided by."""

import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.transforms.flat_field import FlatFieldd

COLUMNS = np.linspace(0.5, 1.5, 40, dtype=np.float32)
LIGHT = np.tile(COLUMNS, (30, 1))


@pytest.fixture
def reference(tmp_path):
    def write(array):
        path = tmp_path / "empty_field.tif"
        tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": "YX"})
        return path

    return write


def item(array):
    image = MetaTensor(torch.as_tensor(array)[None], meta={"filename_or_obj": "well_A1.tif"})
    return {"case": "A1", "image": image}


def test_a_reference_is_divided_out_and_the_mean_kept(reference):
    scene = np.random.default_rng(0).uniform(50, 200, (30, 40)).astype(np.float32)
    made = item(scene * LIGHT)
    flat = FlatFieldd(reference((LIGHT * 900).astype(np.float32)))(made)["image"]
    ratio = flat[0].numpy() / scene
    assert ratio == pytest.approx(np.full_like(ratio, ratio[0, 0]), rel=1e-5)
    assert float(flat.mean()) == pytest.approx(float(made["image"].mean()), rel=1e-5)
    assert flat.dtype == torch.float32
    assert flat.meta["filename_or_obj"] == "well_A1.tif"


def test_each_channel_keeps_its_own_mean(reference):
    image = torch.as_tensor(np.stack([LIGHT * 10, LIGHT * 300, LIGHT * 0]))
    flat = FlatFieldd(reference(LIGHT))({"case": "A1", "image": image})["image"].numpy()
    assert flat[0] == pytest.approx(np.full((30, 40), 10.0), rel=1e-5)
    assert flat[1] == pytest.approx(np.full((30, 40), 300.0), rel=1e-5)
    assert not flat[2].any()


def test_an_estimate_evens_out_the_field_and_leaves_objects():
    scene = np.full((200, 200), 100, np.float32)
    scene[90:96, 90:96] = 40
    light = np.tile(np.linspace(0.6, 1.4, 200, dtype=np.float32), (200, 1))
    made = item(scene * light)
    flat = FlatFieldd("estimate", sigma_px=30)(made)["image"][0].numpy()
    left, right = flat[:, 30:50].mean(), flat[:, 150:170].mean()
    assert right / left == pytest.approx(1, abs=0.08)  # 1.8 before
    assert flat[92, 92] / flat[80, 92] == pytest.approx(0.4, abs=0.03)
    assert flat.mean() == pytest.approx(float(made["image"].mean()), rel=1e-5)


def test_an_estimate_does_not_mix_channels():
    image = torch.as_tensor(np.stack([np.full((30, 40), 9, np.float32), LIGHT]))
    flat = FlatFieldd("estimate", sigma_px=4)({"case": "A1", "image": image})["image"].numpy()
    assert flat[0] == pytest.approx(np.full((30, 40), 9.0), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_a_reference_with_dark_pixels_is_refused_by_its_name(reference, value):
    light = LIGHT.copy()
    light[3, 4] = value
    with pytest.raises(DataError, match=r"empty_field\.tif: 1 of 1200 pixels"):
        FlatFieldd(reference(light))


def test_a_reference_of_another_size_is_refused(reference):
    flat = FlatFieldd(reference(LIGHT[:20]))
    with pytest.raises(DataError, match=r"case 'A1' \(well_A1\.tif\).*same camera"):
        flat(item(LIGHT))


def test_an_image_that_is_black_cannot_be_estimated():
    with pytest.raises(DataError, match=r"case 'A1' \(well_A1\.tif\): black over an area"):
        FlatFieldd("estimate", sigma_px=2)(item(np.zeros((30, 40), np.float32)))


def test_volumes_and_wrong_widths_are_refused():
    with pytest.raises(ConfigError, match="sigma_px=0"):
        FlatFieldd("estimate", sigma_px=0)
    with pytest.raises(DataError, match="expected a plane"):
        FlatFieldd("estimate")({"case": "A1", "image": torch.ones(1, 4, 4, 4)})
