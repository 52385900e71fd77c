import numpy as np
import pytest
import tifffile
import torch

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.tables.check import DataWarning
from metaseg_monai.transforms import LoadCased, ScaleIntensityCased


def scaled(values, **settings):
    item = {"case": "a", "image": torch.tensor(values, dtype=torch.float32)[None, None]}
    return ScaleIntensityCased([0, 200], **settings)(item)["image"].flatten().tolist()


def test_range_becomes_unit():
    assert scaled([0.0, 50.0, 200.0]) == [0, 0.25, 1]


@pytest.mark.parametrize("value", [-1.0, 201.0, 60000.0])
def test_pixels_outside_are_refused_or_cut_as_asked(value):
    with pytest.raises(DataError, match=r"case 'a'.*intensity_range \[0, 200\]"):
        scaled([50.0, value])
    assert scaled([50.0, value], clip=True) == [0.25, float(value > 0)]


def test_unordered_range_is_refused():
    with pytest.raises(ConfigError, match="lowest, highest"):
        ScaleIntensityCased([255, 0])


def wide(image):
    return ScaleIntensityCased([0, 65535])({"case": "a", "image": image})


@pytest.mark.parametrize("channels", ["stored", "grey"])
def test_eight_bits_in_a_range_of_sixteen_are_refused(tmp_path, channels):
    tifffile.imwrite(tmp_path / "a.tif", np.arange(9, dtype=np.uint8).reshape(3, 3))
    item = LoadCased(channels)({"case": "a", "image": str(tmp_path / "a.tif")})
    with pytest.raises(DataError, match=r"case 'a': pixels end at 8, intensity_range at 65535"):
        wide(item["image"])
    cut = ScaleIntensityCased([0, 65535], clip=True)({"image": item["image"]})["image"]
    assert cut.max() == pytest.approx(8 / 65535)


def test_a_dark_image_is_told_and_kept():
    with pytest.warns(DataWarning, match=r"case 'a': pixels end at 255.*if it is not just dark"):
        wide(torch.tensor([[[0.0, 255.0]]]))
    wide(torch.tensor([[[0.0, 300.0]]]))  # as 12 bits of 16: no warning
    wide(torch.zeros(1, 2, 2))  # constant images are told when they are loaded
