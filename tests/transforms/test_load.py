import pickle

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.transforms import Compose

from metaseg_monai.data import DataWarning, write_mask
from metaseg_monai.errors import DataError
from metaseg_monai.transforms import LoadCased

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


def test_other_keys_and_channels(item):
    item = {"photo": item["image"], "case": "c7"}
    loaded = LoadCased(channels="rgb", image_key="photo", label_key="mask")(item)
    assert loaded["photo"].shape == (3, 20, 30)


def test_planes_are_channels(item):
    item["image"] = [item["image"]] * 3
    image = LoadCased()(item)["image"]
    assert image.shape == (3, 20, 30)
    assert image.meta["filename_or_obj"] == item["image"][0]


def test_affine_of_a_volume(volume_item):
    image = LoadCased()(volume_item)["image"]
    assert image.shape == (1, 6, 7, 5)
    stored = nib.load(volume_item["image"]).affine
    np.testing.assert_array_equal(image.affine.numpy(), stored)


def test_meta_of_a_batch_is_enough_to_write_a_mask(volume_item, tmp_path):
    load = LoadCased()
    batch = list_data_collate([load(volume_item), load(volume_item)])
    image = decollate_batch(batch)[1]["image"]
    write_mask(tmp_path / "m.nii.gz", np.ones((6, 7, 5)), image.meta)
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
