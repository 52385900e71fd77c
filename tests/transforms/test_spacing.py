import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.transforms import ResampleToSpacingd


def item(shape=(1, 20, 40), spacing_mm=(5.0, 2.0, 1.0)):
    image = MetaTensor(torch.rand(shape), meta={"filename_or_obj": "a.tif"})
    label = torch.zeros(shape, dtype=torch.uint8)
    label[:, 5:15, 10:30] = 2
    return {"case": "a", "image": image, "label": label, "spacing_mm": spacing_mm}


def test_pixels_become_square_and_of_one_size():
    data = item()
    done = ResampleToSpacingd(2.0)(data)
    assert done["image"].shape == done["label"].shape == (1, 20, 20)
    assert done["spacing_mm"] == (5.0, 2.0, 2.0)
    assert done["native_shape"] == (20, 40)
    assert done["image"].meta["filename_or_obj"] == "a.tif"
    assert done["image"].mean() == pytest.approx(float(data["image"].mean()), abs=0.01)
    assert int((done["label"] == 2).sum()) == 100
    assert data["image"].shape == (1, 20, 40)


def test_the_spacing_is_that_of_the_whole_pixels_there_are():
    done = ResampleToSpacingd(3.0)(item())
    assert done["image"].shape == (1, 13, 13)
    np.testing.assert_allclose(done["spacing_mm"], (5.0, 40 / 13, 40 / 13))


def test_null_leaves_everything_as_it_is():
    data = item()
    assert ResampleToSpacingd(None)(data) == data


def test_refusals():
    with pytest.raises(ConfigError, match="spacing_mm=0"):
        ResampleToSpacingd(0)
    unknown = item()
    del unknown["spacing_mm"]
    with pytest.raises(DataError, match=r"case 'a'.*pixel size is unknown"):
        ResampleToSpacingd(1.0)(unknown)
    with pytest.raises(DataError, match=r"case 'a': a\.tif: 20 x 40 pixels of 2 x 1 mm would"):
        ResampleToSpacingd(1e-4)(item())
    with pytest.raises(DataError, match="expected a plane"):
        ResampleToSpacingd(1.0)(item((1, 4, 4, 4)))
