"""Masks as the image's file lies: resized, turned back, and by a threshold."""

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from metaseg_monai.errors import ConfigError
from metaseg_monai.transforms import AsMaskd, AxialVolumed, LoadCased, ResampleToSpacingd

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


@pytest.mark.parametrize("threshold", [0, 1, True, -0.1])
def test_thresholds_lie_between_0_and_1(threshold):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        AsMaskd(threshold)


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_logits_are_resized_to_the_stored_grid_plane_by_plane(shape):
    logits = torch.randn(2, 9, 11, *shape[2:], generator=torch.Generator().manual_seed(0))
    mask = AsMaskd()({"pred": logits, "native_shape": shape})["pred"]
    assert mask.shape == (1, *shape)
    if len(shape) == 3:
        for plane in range(3):
            alone = {"pred": logits[..., plane], "native_shape": shape[:2]}
            assert torch.equal(AsMaskd()(alone)["pred"], mask[..., plane])


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
