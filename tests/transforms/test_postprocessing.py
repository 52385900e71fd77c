"""Masks as the image's file lies: resized, turned back, by a threshold, and cleaned of specks."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images.geometry import resize_image
from metaseg_monai.transforms import AsMaskd, AxialVolumed, LoadCased, ResampleToSpacingd, clean_up

AFFINE = np.array([[0, -0.7, 0, 10], [0.8, 0, 0, -4], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])


def test_half_is_the_most_probable_class_and_others_weigh_the_background():
    logits = torch.randn(4, 9, 8, generator=torch.Generator().manual_seed(0))
    classes = {limit: AsMaskd(limit)({"pred": logits})["pred"] for limit in (0.1, 0.5, 0.9)}
    assert torch.equal(classes[0.5][0].long(), logits.argmax(0))
    assert classes[0.5].shape == (1, 9, 8)
    best = torch.stack([logits[0], logits[1:].amax(0)]).softmax(0)[1]
    for limit, mask in classes.items():
        assert torch.equal(mask[0] > 0, best > limit)
        assert torch.equal(mask[mask > 0].long(), (logits[1:].argmax(0) + 1)[None][mask > 0])


@pytest.mark.parametrize("threshold", [0, 1, True, -0.1, "0.5", None])
def test_thresholds_lie_between_0_and_1(threshold):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        AsMaskd(threshold)


@pytest.mark.parametrize("depth", [(), (3,)])
def test_logits_are_resized_to_the_stored_grid_plane_by_plane(depth):
    logits = torch.randn(2, 9, 11, *depth, generator=torch.Generator().manual_seed(0))
    mask = AsMaskd()({"pred": logits, "native_shape": (5, 7)})["pred"]
    assert mask.shape == (1, 5, 7, *depth)
    for plane in range(*depth) if depth else ():
        alone = {"pred": logits[..., plane], "native_shape": (5, 7)}
        assert torch.equal(AsMaskd()(alone)["pred"], mask[..., plane])


@pytest.mark.parametrize("depth", [3, 4])
def test_a_volume_that_was_resampled_as_a_whole_is_resized_so_whatever_its_depth(depth):
    logits = torch.randn(2, 9, 11, 3, generator=torch.Generator().manual_seed(0))
    mask = AsMaskd()({"pred": logits, "native_shape": (5, 7, depth)})["pred"]
    whole = resize_image(logits[None], (5, 7, depth))[0]
    assert torch.equal(mask[0].long(), whole.argmax(0))
    planes = AsMaskd()({"pred": logits, "native_shape": (5, 7)})["pred"]
    assert depth != 3 or not torch.equal(mask, planes)  # which average where pixels grow


@pytest.mark.parametrize(
    "chain",
    [
        [LoadCased(), ResampleToSpacingd(1.6)],
        [LoadCased()],
        [LoadCased(spatial_dims=3), AxialVolumed((2.5, 0.4, 1.4))],
    ],
)
def test_the_mask_of_a_volume_lies_where_its_file_lies(tmp_path, chain):
    label = np.zeros((12, 16, 4), np.uint8)
    label[2:8, 4:12, 1:3] = 1
    nib.save(nib.Nifti1Image(label, AFFINE), tmp_path / "a.nii.gz")
    item = Compose(chain)({"case": "a", "image": str(tmp_path / "a.nii.gz")})
    image = item["image"]
    item["pred"] = torch.cat([1 - image, image])  # a network that finds what it sees
    mask = AsMaskd()(item)["pred"]
    assert mask.shape == (1, *label.shape)
    np.testing.assert_allclose(mask.affine, AFFINE, rtol=1e-6)
    assert mask.meta["filename_or_obj"] == str(tmp_path / "a.nii.gz")
    if len(chain) == 1:
        np.testing.assert_array_equal(mask[0], label)
    overlap = (np.asarray(mask[0]) & label).sum() * 2 / (np.asarray(mask[0]).sum() + label.sum())
    assert overlap > 0.85


def mask_of(*lines):
    return np.array([[int(pixel) for pixel in line] for line in lines], np.uint8)


def test_nothing_is_done_at_sizes_of_zero():
    mask = np.random.default_rng(0).integers(0, 3, (20, 20), np.uint8)
    cleaned = clean_up(mask)
    assert np.array_equal(cleaned, mask)
    assert cleaned is not mask


def test_objects_below_the_size_go_and_those_of_it_stay():
    others = ["0000110", "0000100", "1000000", "0100000", "0010000"]
    mask = mask_of("1100000", *others)
    assert np.array_equal(clean_up(mask, 3), mask_of("0000000", *others))
    assert not clean_up(mask, 4).any()
    assert clean_up(mask, 4).dtype == np.uint8


def test_holes_below_the_size_are_filled_and_larger_ones_stay():
    mask = mask_of("1111111", "1011001", "1111001", "1111111")
    filled = mask_of("1111111", "1111001", "1111001", "1111111")
    assert np.array_equal(clean_up(mask, 0, 4), filled)
    assert clean_up(mask, 0, 5).all()


def test_background_that_reaches_the_border_is_no_hole():
    mask = mask_of("01110", "11011", "11011", "11111")
    assert np.array_equal(clean_up(mask, 0, 9), mask_of("01110", "11111", "11111", "11111"))
    bay = mask_of("11011", "11011", "11111")
    for turn in range(4):
        assert np.array_equal(clean_up(np.rot90(bay, turn), 0, 9), np.rot90(bay, turn))


def test_a_gap_at_a_corner_does_not_open_a_hole():
    mask = mask_of("0111", "1011", "1111")
    assert clean_up(mask, 0, 2)[1, 1] == 1
    assert clean_up(mask, 0, 2)[0, 0] == 0


def test_classes_are_cleaned_apart_and_another_class_is_no_hole():
    mask = mask_of("1111111", "1112111", "1111111", "1122222", "1122022", "1122222")
    cleaned = clean_up(mask, 2, 2)
    assert cleaned[1, 3] == 1  # the speck of class 2 goes, and its hole in class 1 is filled
    assert cleaned[4, 4] == 2
    only_holes = clean_up(mask, 0, 2)
    assert only_holes[1, 3] == 2


def test_a_hole_between_two_classes_takes_the_one_with_more_neighbours():
    assert clean_up(mask_of("1122", "1022", "1222"), 0, 2)[1, 1] == 1
    assert clean_up(mask_of("1222", "2022", "1222"), 0, 2)[1, 1] == 2
    assert clean_up(mask_of("3111", "3022", "3222"), 0, 2)[1, 1] == 2  # 1 left, 1 up, 2 others
    assert clean_up(mask_of("331", "301", "311"), 0, 2)[1, 1] == 1  # equal: the lower number


def test_a_speck_inside_of_a_hole_goes_with_it():
    mask = mask_of("11111", "10001", "10101", "10001", "11111")
    assert clean_up(mask, 2, 10).all()


def test_volumes_are_cleaned_in_all_three_directions():
    mask = np.ones((5, 5, 5), np.uint8)
    mask[2, 2, 2] = 0
    assert clean_up(mask, 0, 2).all()
    column = np.zeros((5, 5, 5), np.uint8)
    column[2, 2, :] = 1
    assert np.array_equal(clean_up(column, 5), column)
    assert not clean_up(column, 6).any()


@pytest.mark.parametrize("size", [-1, 2.5, True])
def test_sizes_that_are_no_counts_are_refused(size):
    with pytest.raises(ConfigError, match="hole_px="):
        clean_up(np.zeros((3, 3), np.uint8), 0, size)


def test_what_is_no_mask_is_refused():
    with pytest.raises(DataError, match="expected whole numbers"):
        clean_up(np.zeros((3, 3)), 1)
    with pytest.raises(DataError, match="expected whole numbers"):
        clean_up(np.zeros(3, np.uint8), 1)
