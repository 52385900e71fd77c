import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images.geometry import resize_image
from metaseg_monai.transforms import AxialVolumed, LoadCased

PLANES = np.random.default_rng(0).normal(size=(6, 8, 10)).astype(np.float32)
KITS = np.array([[0, 0, -2.0, 30], [0, -2.0, 0, 20], [-4.0, 0, 0, 100], [0, 0, 0, 1]])


def item(turn=((0, 1), (1, 1), (2, 1))):
    turn = np.array(turn)
    array = np.ascontiguousarray(nib.orientations.apply_orientation(PLANES, turn))
    affine = torch.from_numpy(KITS @ nib.orientations.inv_ornt_aff(turn, PLANES.shape))
    image = MetaTensor(torch.from_numpy(array)[None], affine=affine)
    return {"case": "a", "image": image, "label": (image > 0.5).to(torch.uint8)}


def test_any_order_of_axes_gives_the_same_grid():
    plain = AxialVolumed((4, 2, 2))(item())
    np.testing.assert_array_equal(plain["image"][0], np.moveaxis(PLANES, 0, -1))
    for turn in (((2, -1), (0, 1), (1, -1)), ((1, 1), (2, 1), (0, -1))):
        done = AxialVolumed((4, 2, 2))(item(turn))
        np.testing.assert_array_equal(done["image"], plain["image"])
        np.testing.assert_array_equal(done["label"], plain["label"])
        assert done["spacing_mm"] == pytest.approx((4, 2, 2))


def test_resampling_keeps_the_extent_and_comes_back():
    done = AxialVolumed((2, 4, 2))(item())
    assert done["image"].shape == done["label"].shape == (1, 4, 10, 12)
    assert done["spacing_mm"] == pytest.approx((2, 4, 2))
    assert done["native_shape"] == (8, 10, 6)
    assert set(done["label"].unique().tolist()) <= {0, 1}
    ramp = torch.arange(12.0).expand(1, 1, 4, 10, 12)
    back = resize_image(ramp, done["native_shape"])[0, 0, 0, 0]
    np.testing.assert_allclose(back, np.arange(6) * 2 + 0.5)


def test_a_volume_whose_place_no_one_stated_is_refused(tmp_path):
    for name, affine in (("i", None), ("l", None), ("known", KITS)):
        array = (PLANES > 0.5).astype(np.uint8)
        nib.save(nib.Nifti1Image(array, affine), tmp_path / f"{name}.nii.gz")
    files = {name: str(tmp_path / f"{name}.nii.gz") for name in ("i", "l", "known")}
    load = LoadCased(classes=4, spatial_dims=3)
    for label in ({}, {"label": files["l"]}):
        loaded = load({"case": "c7", "image": files["i"], **label})
        with pytest.raises(DataError, match=r"case 'c7': .*i\.nii\.gz: has no affine"):
            AxialVolumed((3, 2, 2))(loaded)
    with pytest.raises(DataError, match=r"case 'c7': .*l\.nii\.gz: the label has no affine"):
        load({"case": "c7", "image": files["known"], "label": files["l"]})
    loaded = load({"case": "c7", "image": files["known"], "label": files["known"]})
    assert AxialVolumed((4, 2, 2))(loaded)["label"].shape == (1, 8, 10, 6)


def test_a_grid_too_large_for_memory_is_refused_with_its_file():
    vast = item()
    vast["image"].meta["filename_or_obj"] = "a.nii"
    with pytest.raises(DataError, match=r"case 'a': a\.nii: .* of 0\.001 x 0\.001 x 0\.001 mm"):
        AxialVolumed((0.001, 0.001, 0.001))(vast)


def test_refusals():
    with pytest.raises(ConfigError, match="planes, rows, columns"):
        AxialVolumed((1, 1))
    tilted = item()
    angle = np.radians(40)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tilted["image"].affine = torch.from_numpy(turn @ KITS)
    with pytest.raises(DataError, match="tilted"):
        AxialVolumed((4, 2, 2))(tilted)
