import os
import pickle
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images import write_mask
from metaseg_monai.tables import DataWarning, check
from metaseg_monai.transforms import LoadCased, NormalizeVolumed
from metaseg_monai.transforms.load import VIEW

PIXELS = np.arange(600, dtype=np.uint8).reshape(20, 30)
AFFINE = np.array([[0, -0.7, 0, 10], [0.8, 0, 0, -4], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])


@pytest.fixture
def item(tmp_path):
    label = np.zeros((20, 30), np.uint8)
    label[3:5, 6:9] = 2
    tifffile.imwrite(tmp_path / "i.tif", PIXELS)
    tifffile.imwrite(tmp_path / "l.tif", label)
    return {
        "image": str(tmp_path / "i.tif"),
        "label": str(tmp_path / "l.tif"),
        "case": "c7",
        "metadata": {"task": "disc"},
        "label_values": [2],
    }


@pytest.fixture
def volume_item(tmp_path):
    for name, dtype in (("i.nii.gz", np.int16), ("l.nii.gz", np.uint8)):
        array = np.arange(210).reshape(6, 7, 5).astype(dtype) % 2
        nib.save(nib.Nifti1Image(array, AFFINE), tmp_path / name)
    return {"image": str(tmp_path / "i.nii.gz"), "label": str(tmp_path / "l.nii.gz"), "case": "v"}


def test_image_and_label_become_tensors(item):
    loaded = LoadCased()(item)
    image, label = loaded["image"], loaded["label"]
    assert isinstance(image, MetaTensor)
    assert isinstance(label, MetaTensor)
    assert (image.shape, image.dtype) == ((1, 20, 30), torch.float32)
    assert (label.shape, label.dtype) == ((1, 20, 30), torch.uint8)
    np.testing.assert_array_equal(image[0].numpy(), PIXELS)
    assert label.sum() == 6
    assert "label_values" not in loaded  # lists of different lengths do not collate
    assert image.meta["filename_or_obj"] == item["image"]
    assert label.meta["filename_or_obj"] == item["label"]
    assert (loaded["case"], loaded["metadata"]) == ("c7", {"task": "disc"})
    assert isinstance(item["image"], str)  # the item itself is not changed


def test_label_values_absent_means_classes(item):
    del item["label_values"]
    assert LoadCased(classes=3)(item)["label"].max() == 2
    with pytest.raises(DataError, match=r"case 'c7'.*label values 2 \(6 px\)"):
        LoadCased(classes=2)(item)


def test_inference_has_no_label(item):
    del item["label"]
    assert "label" not in LoadCased()(item)


def test_other_channels(item):
    assert LoadCased(channels="rgb")(item)["image"].shape == (3, 20, 30)


def test_planes_are_channels(item):
    item["image"] = [item["image"]] * 3
    image = LoadCased()(item)["image"]
    assert image.shape == (3, 20, 30)
    assert image.meta["filename_or_obj"] == item["image"][0]


def test_affine_of_a_volume(volume_item):
    image = LoadCased(spatial_dims=3)(volume_item)["image"]
    assert image.shape == (1, 6, 7, 5)
    stored = nib.load(volume_item["image"]).affine
    np.testing.assert_array_equal(image.affine.numpy(), stored)


def test_meta_of_a_batch_is_enough_to_write_a_mask(volume_item, tmp_path):
    load = LoadCased(spatial_dims=3)
    batch = list_data_collate([load(volume_item), load(volume_item)])
    image = decollate_batch(batch)[1]["image"]
    write_mask(np.ones((6, 7, 5)), tmp_path / "m.nii.gz", image.meta)
    stored = nib.load(volume_item["image"]).affine
    np.testing.assert_array_equal(nib.load(tmp_path / "m.nii.gz").affine, stored)


def test_constant_image_warns(item):
    tifffile.imwrite(item["image"], np.ones((20, 30), np.uint8))
    with pytest.warns(DataWarning, match=r"case 'c7'.*every pixel is 1"):
        LoadCased()(item)


def test_not_finite_is_refused(item):
    image = PIXELS.astype(np.float32)
    image[0, 0] = np.nan
    tifffile.imwrite(item["image"], image)
    with pytest.raises(DataError, match=r"case 'c7'.*i\.tif.*not finite"):
        LoadCased()(item)


def test_stack_only_as_asked(item):
    del item["label"]
    tifffile.imwrite(item["image"], np.stack([PIXELS] * 4), photometric="minisblack")
    with pytest.raises(DataError, match=r"case 'c7'.*QYX"):
        LoadCased()(item)
    assert LoadCased(spatial_dims=3)(item)["image"].shape == (1, 20, 30, 4)
    assert LoadCased(axes="CYX")(item)["image"].shape == (4, 20, 30)


def test_cause_survives_compose(item):
    item["label"] = item["label"].replace("l.tif", "none.tif")
    with pytest.raises(RuntimeError) as caught:
        Compose([LoadCased()])(item)
    assert isinstance(caught.value.__cause__, DataError)
    assert "none.tif" in str(caught.value.__cause__)


def test_worker_processes_can_have_it(item):
    assert pickle.loads(pickle.dumps(LoadCased(channels="rgb")))(item)["image"].shape[0] == 3


@pytest.fixture
def plane_item(volume_item):
    """Plane 1 of five; the rows of AFFINE run toward the front, its columns toward the right."""
    return {**volume_item, "case": "v_0001", "volume": "v", "plane": 1, "planes": 5}


def test_a_plane_of_a_volume_is_seen_from_the_feet_toward_the_back(plane_item):
    array = np.arange(210).reshape(6, 7, 5).astype(np.int16)
    nib.save(nib.Nifti1Image(array, AFFINE), plane_item["image"])
    loaded = LoadCased()(plane_item)
    # stored axes run toward front, left and head: planes from the end, rows from the end
    expected = array[::-1, :, ::-1][:, :, 1]
    np.testing.assert_array_equal(loaded["image"].numpy()[0], expected)
    np.testing.assert_array_equal(loaded["label"].numpy()[0], expected % 2)
    assert (loaded["image"].dtype, loaded["label"].dtype) == (torch.float32, torch.uint8)
    assert loaded["spacing_mm"] == pytest.approx((2.5, 0.8, 0.7))
    assert loaded["image"].meta["filename_or_obj"] == plane_item["image"]


def test_a_whole_volume_gives_its_planes_as_each_alone(plane_item):
    whole = {key: plane_item[key] for key in ("case", "image", "label")}
    loaded = LoadCased()(whole)
    assert loaded["image"].shape == loaded["label"].shape == (1, 6, 7, 5)
    assert loaded["spacing_mm"] == pytest.approx((2.5, 0.8, 0.7))
    for plane in range(5):
        alone = LoadCased()({**plane_item, "plane": plane})
        for key in ("image", "label"):
            np.testing.assert_array_equal(loaded[key][..., plane], alone[key])
    stored = loaded[VIEW].restore(np.moveaxis(loaded["label"][0].numpy(), -1, 0))
    np.testing.assert_array_equal(stored, nib.load(whole["label"]).dataobj)


@pytest.mark.parametrize("kind", [np.int16, np.float32])
def test_planes_are_scaled_as_the_volume_that_they_are_of(plane_item, kind):
    stored = nib.load(plane_item["image"])
    voxels = (np.asarray(stored.dataobj) + 3 * np.arange(5)).astype(kind)  # brighter by plane
    nib.save(nib.Nifti1Image(voxels, stored.affine), plane_item["image"])
    steps = Compose([LoadCased(classes=3, moments=True), NormalizeVolumed()])
    whole = steps({key: one for key, one in plane_item.items() if key != "plane"})["image"]
    assert (float(whole.mean()), float(whole.std(correction=0))) == pytest.approx((0, 1), abs=1e-5)
    for plane in [*range(whole.shape[-1]), 0]:
        alone = steps({**plane_item, "plane": plane})["image"]
        torch.testing.assert_close(alone.as_tensor(), whole[..., plane].as_tensor())
    with pytest.raises(ConfigError, match="moments=True"):
        NormalizeVolumed()(LoadCased(classes=3)(plane_item))


def test_arrays_and_tensors_are_images_too(volume_item):
    plain = LoadCased()({"image": PIXELS, "label": PIXELS > 300})
    assert (plain["image"].shape, plain["image"].dtype) == ((1, 20, 30), torch.float32)
    assert plain["label"].sum() == (PIXELS > 300).sum()
    colours = torch.rand(3, 4, 4)
    assert LoadCased("grey", in_channels=1)({"image": colours})["image"].shape == (1, 4, 4)
    with pytest.raises(DataError, match=r"case 'c': 3 channels in array"):
        LoadCased(in_channels=1)({"case": "c", "image": colours})
    loaded = LoadCased(spatial_dims=3)(volume_item)
    turned, from_file = LoadCased()(loaded), LoadCased()(volume_item)
    np.testing.assert_array_equal(turned["image"], from_file["image"])
    np.testing.assert_array_equal(turned["label"], from_file["label"])


def test_the_volume_of_the_planes_is_read_once(plane_item, monkeypatch):
    paths = []
    for name in ("read_image", "read_label"):
        read = getattr(check, name)
        noted = partial(lambda read, path, **given: paths.append(path) or read(path, **given), read)
        monkeypatch.setattr(check, name, noted)
    load = LoadCased()
    for plane in range(5):
        load({**plane_item, "plane": plane})
    assert paths == [plane_item["image"], plane_item["label"]]
    pickle.loads(pickle.dumps(load))(plane_item)
    assert len(paths) == 4  # a worker process reads for itself


def test_an_image_of_several_rows_in_turn_is_read_once(item, monkeypatch):
    tifffile.imwrite(item["image"], PIXELS.astype(np.float32))  # as the network takes them
    read, label = Mock(side_effect=check.read_image), Mock(side_effect=check.read_label)
    monkeypatch.setattr(check, "read_image", read)
    monkeypatch.setattr(check, "read_label", label)
    load = LoadCased()
    first = load(item)
    first["image"] *= 0
    first["label"] *= 0
    again, other = load({**item, "case": "b"}), load({**item, "label_values": [1]})
    assert (read.call_count, label.call_count) == (1, 1)
    assert again["image"].max() > 0
    assert again["label"].max() > 0
    assert other["image"].meta["filename_or_obj"] == again["image"].meta["filename_or_obj"]
    stamp = Path(item["image"]).stat().st_mtime_ns + 10**9
    os.utime(item["image"], ns=(stamp, stamp))
    load(item)
    assert (read.call_count, label.call_count) == (2, 1)


def test_plane_is_but_information_on_a_stored_slice(item):
    loaded = LoadCased()({**item, "plane": 7, "planes": 9, "spacing_mm": (3.0, 0.5, 0.5)})
    assert loaded["image"].shape == (1, 20, 30)
    assert loaded["spacing_mm"] == (3.0, 0.5, 0.5)


def test_3d_networks_get_the_whole_volume(plane_item):
    assert LoadCased(spatial_dims=3)(plane_item)["image"].shape == (1, 6, 7, 5)


def test_planes_that_are_not_there_and_labels_that_do_not_fit(plane_item, tmp_path):
    with pytest.raises(DataError, match=r"case 'v_0001'.*has 5 planes, so no plane 5"):
        LoadCased()({**plane_item, "plane": 5})
    other = {**plane_item, "label": str(tmp_path / "o.nii.gz")}
    nib.save(nib.Nifti1Image(np.zeros((6, 7, 4), np.uint8), AFFINE), other["label"])
    with pytest.raises(DataError, match=r"o\.nii\.gz: label of shape"):
        LoadCased()(other)
    moved = AFFINE.copy()
    moved[0, 3] += 1
    nib.save(nib.Nifti1Image(np.zeros((6, 7, 5), np.uint8), moved), other["label"])
    with pytest.raises(DataError, match=r"o\.nii\.gz: the label's affine differs"):
        LoadCased()(other)
    label = np.zeros((6, 7, 5), np.uint8)
    label[0, 0, 3] = 2  # plane 1 from the head
    nib.save(nib.Nifti1Image(label, AFFINE), other["label"])
    with pytest.raises(DataError, match=r"label values 2 \(1 px\)"):
        LoadCased()(other)
    assert LoadCased()({**other, "plane": 0})["label"].max() == 0


def test_a_constant_volume_warns_once_and_an_empty_plane_does_not(plane_item):
    del plane_item["label"]
    array = np.zeros((6, 7, 5), np.int16)
    nib.save(nib.Nifti1Image(array, AFFINE), plane_item["image"])
    load = LoadCased()
    with pytest.warns(DataWarning, match="every voxel is 0"):
        load({**plane_item, "plane": 0})
    load(plane_item)
    array[0, 0, 0] = 1
    nib.save(nib.Nifti1Image(array, AFFINE), plane_item["image"])
    LoadCased()({**plane_item, "plane": 0})
