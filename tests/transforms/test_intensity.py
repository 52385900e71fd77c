"""Which values the images of a training have, and which other images are none of their kind."""

import logging

import nibabel as nib
import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

from metaseg_monai.errors import DataError
from metaseg_monai.training import ReplayDataset
from metaseg_monai.training.trained_on import measured
from metaseg_monai.transforms import LoadCased, ScaleIntensityBy, ScaleIntensityCased
from metaseg_monai.transforms.load import intensity_of, misfit, tally_intensity

RNG = np.random.default_rng(0)


def facts(*images, stored="int16"):
    return intensity_of([tally_intensity(one, len(images)) for one in images], [stored])


def ct(shift=0.0, air=-1000.0):
    """Half air, half soft tissue with some bone, in Hounsfield units."""
    tissue = RNG.normal(40, 30, (1, 32, 64))
    tissue[:, :4] = 500
    return np.concatenate([RNG.normal(air, 5, (1, 32, 64)), tissue], 1).astype(np.float32) + shift


def field(gain=1.0, offset=0.0):
    """A fluorescence field of 16 bits, with few bright nuclei."""
    image = RNG.normal(300, 20, (1, 64, 64))
    image[:, 8:14, 8:40] = 6000
    return (image * gain + offset).astype(np.float32)


def test_the_numbers_are_those_of_all_pixels_of_all_images():
    images = [np.full((1, 2, 2), value, np.float32) for value in (0, 10, 20)]
    found = facts(*images, np.array([[[0, 40], [0, 40]]], np.float32))["channels"][0]
    assert (found["lowest"], found["highest"], found["mean"]) == (0, 40, 12.5)
    assert found["percentiles"]["50"] == 10
    assert found["of_images"]["50"] == [0, 20]
    assert found["least_spread"] == pytest.approx(40)  # constant images do not count


def test_large_images_are_read_on_a_grid_and_many_keep_few_pixels():
    large = RNG.normal(5, 1, (2, 700, 700)).astype(np.float32)
    assert tally_intensity(large, 10).shape[1] < 5 + (1 << 16)
    assert tally_intensity(large, 100_000).shape[1] < 5 + 300
    found = intensity_of([tally_intensity(large, 1)], ["uint16"])
    assert [one["mean"] for one in found["channels"]] == pytest.approx([5, 5], abs=0.02)


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (ct(1024), "by an offset"),
        (ct(-3000), "0.0% of its values"),
        ((ct() + 1000) / 4000, "nearly constant"),
        (np.clip(ct(), -79, 304) / 383 + 0.2, "nearly constant"),
        (np.full((1, 8, 8), -1000, np.float32), "constant"),
        (np.concatenate([ct(), ct()]), "2 channels"),
    ],
)
def test_a_ct_of_other_values_does_not_fit(image, why):
    assert why in misfit(image, facts(ct(), ct(), ct()), "float32")


@pytest.mark.parametrize("image", [ct(), ct(30), ct(air=-1024), ct()[:, 36:]])
def test_a_ct_of_another_scanner_or_a_part_of_one_fits(image):
    assert misfit(image, facts(ct(), ct(), ct()), "int16") is None


@pytest.mark.parametrize(
    ("image", "why"),
    [
        (field(1 / 65535), "of its values"),
        (field(1 / 256), "of its values"),
        (field(16), "all of it is brighter"),
        (field(offset=30000), "of its values"),
    ],
)
def test_a_field_of_another_depth_does_not_fit(image, why):
    assert why in misfit(image, facts(field(), field(0.9)), "float32")


@pytest.mark.parametrize("image", [field(), field(1.5), RNG.normal(300, 20, (1, 64, 64))])
def test_a_brighter_or_an_empty_field_fits(image):
    assert misfit(image, facts(field(), field(0.9)), "uint16") is None


def test_eight_bits_do_not_fit_where_the_training_had_more():
    window = (np.clip(ct(), -79, 304) + 79) / 383 * 255
    assert "8 bits" in misfit(window, facts(ct()), "uint8")
    assert misfit(window, facts(window, stored="uint8"), "uint8") is None


def test_of_a_sparse_training_all_values_count():
    stars = np.zeros((1, 64, 64), np.float32)
    stars[0, 3, :5] = 90  # under half a percent
    assert misfit(RNG.integers(0, 9, (1, 64, 64)).astype(np.float32), facts(stars)) is None


def test_nothing_known_refuses_only_the_constant():
    assert misfit(ct(1024), {}) is None
    assert "constant" in misfit(ct() * 0, {})


def save(path, image):
    if path.suffix == ".tif":
        tifffile.imwrite(path, image)
    elif path.suffix == ".png":
        Picture.fromarray(image.astype(np.uint8)).save(path)
    else:
        nib.save(nib.Nifti1Image(np.moveaxis(image, 0, -1), np.diag([1, 1, 5, 1.0])), path)
    return str(path)


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.nii.gz"])
@pytest.mark.parametrize("scale", ["range", "image"])
def test_a_loader_refuses_what_the_training_had_not(tmp_path, name, scale):
    shape = (6, 20, 24) if name.endswith("gz") else (20, 24)
    image = RNG.integers(100, 200, shape).astype(np.int16 if name.endswith("gz") else np.uint8)
    steps = {"range": ScaleIntensityCased([0, 255]), "image": ScaleIntensityBy("image")}
    item = {"image": save(tmp_path / name, image), "case": "good"}
    load = LoadCased()
    dataset = ReplayDataset([item], [load, steps[scale]])
    known = measured(dataset)
    assert load.watch is None
    assert known["channels"][0]["highest"] == image.max()
    assert known.get("indifferent", False) == (scale == "image")
    load.expect(known)
    assert load(item)["image"].shape[-2:]
    dark = {"image": save(tmp_path / f"dark.{name.partition('.')[2]}", image // 32), "case": "dark"}
    flat = {"image": save(tmp_path / f"flat.{name.partition('.')[2]}", image * 0 + 3), "case": "f"}
    if scale == "image":
        load(dark)
    else:
        with pytest.raises(DataError, match=r"case 'dark': .*dark.* 0.0% of its values.*--force"):
            load(dark)
    with (
        pytest.raises(DataError, match=r"case 'f': .*constant, every value is 3"),
        pytest.warns(UserWarning, match="without contrast"),
    ):
        load(flat)


def test_a_volume_is_judged_as_a_whole_and_once(tmp_path, caplog):
    volume = np.concatenate([np.full((1, 20, 24), -1024), ct()[:, :20, :24], ct()[:, 32:52, :24]])
    good = save(tmp_path / "v.nii.gz", volume.astype(np.int16))
    off = save(tmp_path / "o.nii.gz", (volume + 1500).astype(np.int16))
    load = LoadCased()
    load.expect(facts(ct(), ct()))
    for plane in range(3):  # the first is constant, as scans may be at their end
        assert load({"image": good, "plane": plane, "case": f"v{plane}"})["image"].ndim == 3
    with pytest.raises(DataError, match="case 'o1'"):
        load({"image": off, "plane": 1, "case": "o1"})
    load.expect(facts(ct(), ct()), force=True)
    with caplog.at_level(logging.WARNING):
        for plane in range(3):
            load({"image": off, "plane": plane, "case": f"o{plane}"})
    assert len(caplog.records) == 1
    assert "forced" in caplog.text


def test_a_slice_with_a_file_of_its_own_may_be_empty(tmp_path):
    path = save(tmp_path / "s.tif", np.full((9, 9), -1000, np.int16))
    load = LoadCased()
    load.expect(facts(ct(), ct()))
    with pytest.warns(UserWarning, match="without contrast"):
        load({"image": path, "case": "s", "plane": 0, "volume": "v", "planes": 4})


def test_images_are_read_once_and_the_same_numbers_come_again(tmp_path, monkeypatch):
    items = [
        {"image": save(tmp_path / f"{n}.tif", RNG.integers(0, 99, (9, 9)).astype(np.uint16))}
        for n in range(5)
    ]
    load, reads = LoadCased(), []
    dataset = ReplayDataset(items, [load])
    first = measured(dataset)
    monkeypatch.setattr(LoadCased, "__call__", lambda *_: reads.append(1))
    assert [dataset[n]["image"].shape for n in range(5)] == [(1, 9, 9)] * 5
    assert not reads
    monkeypatch.undo()
    assert measured(ReplayDataset(items, [LoadCased()], cache=False)) == first
    assert measured(ReplayDataset(items, None)) is None
