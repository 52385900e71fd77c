import numpy as np
import pytest
import torch

from metaseg_monai.errors import DataError
from metaseg_monai.images.resample import (
    resampled_grid,
    resampled_shape,
    resize_image,
    resize_label,
    resize_stored,
)


def test_the_extent_is_kept_within_half_a_pixel():
    assert resampled_shape((512, 796), (0.44, 0.44), 0.78) == (289, 449)
    assert resampled_shape((512, 512), (0.7804, 0.78), 0.78) == (512, 512)
    assert resampled_shape((3, 3), (0.1, 0.1), 9) == (1, 1)


def test_only_rounding_is_no_other_spacing():
    assert resampled_shape((512, 512), (0.79, 0.7806), 0.78) == (519, 512)


def test_a_grid_beyond_what_any_file_may_hold_is_refused():
    message = (
        r"24 x 20 x 6 pixels of 8000 x 8000 x 8000 mm would become 16000 x 13333 x 4000 of 12 x 12 "
        r"x 12 mm, expected at most 2048 million; mend the pixel size"
    )
    with pytest.raises(DataError, match=message):
        resampled_grid((24, 20, 6), (8000,) * 3, (12,) * 3)
    with pytest.raises(DataError, match="mend the pixel size"):
        resampled_shape((512, 512), (800, 800), 0.78)
    assert resampled_grid((512, 512, 1000), (0.8, 0.8, 1), (1, 1, 1)) == (410, 410, 1000)


def test_pixels_between_the_new_ones_count_where_planes_shrink():
    stripes = torch.tensor([1.0, 0, 0, 0]).repeat(8).expand(1, 1, 32, 32)
    fewer = resize_image(stripes, (8, 8))
    np.testing.assert_allclose(fewer[..., 1:-1], 0.25, atol=0.05)


def test_halving_averages_and_ramps_stay_ramps():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    # antialiased weights reach beyond the two pixels, but keep the mean
    assert resize_image(image, (2, 2)).mean() == pytest.approx(7.5)
    ramp = torch.arange(40.0).expand(1, 1, 40, 40)
    finer = resize_image(ramp, (40, 80))[0, 0, 0]
    np.testing.assert_allclose(finer[4:-4].diff(), 0.5, atol=1e-5)
    assert resize_image(image, (4, 4)) is image


def test_labels_take_the_nearest_pixel():
    label = torch.tensor([[[[0, 1], [2, 3]]]], dtype=torch.uint8)
    finer = resize_label(label, (4, 4))[0, 0]
    np.testing.assert_array_equal(finer, np.kron([[0, 1], [2, 3]], np.ones((2, 2))))
    assert finer.dtype == torch.uint8
    np.testing.assert_array_equal(resize_label(finer[None, None], (2, 2)), label)


def test_image_and_label_stay_on_top_of_each_other():
    """A disc resampled both ways keeps its middle and its area."""
    rows, columns = np.mgrid[:101, :101]
    disc = ((rows - 40) ** 2 + (columns - 55) ** 2 <= 20**2).astype(np.float32)
    shape = (67, 67)
    image = resize_image(torch.from_numpy(disc)[None, None], shape)[0, 0].numpy()
    label = resize_label(torch.from_numpy(disc)[None, None], shape)[0, 0].numpy()
    for plane in (image, label):
        middle = (np.argwhere(plane > 0.5).mean(axis=0) + 0.5) * 101 / 67 - 0.5
        np.testing.assert_allclose(middle, (40, 55), atol=0.2)
        assert plane.sum() * (101 / 67) ** 2 == pytest.approx(disc.sum(), rel=0.03)


def test_stored_planes_keep_their_type():
    plane = np.array([[-1000, 3000], [40, 41]], np.int16)
    assert resize_stored(plane, (2, 2)) is plane
    finer = resize_stored(plane, (6, 6))
    assert finer.dtype == np.int16
    assert (finer.min(), finer.max()) == (-1000, 3000)
    assert resize_stored(plane / np.float64(2), (4, 4)).dtype == np.float64
