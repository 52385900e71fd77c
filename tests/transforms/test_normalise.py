"""Intensities scaled by the percentiles of an image or of its plate."""

import json

import numpy as np
import pytest
import tifffile
import torch

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.transforms.flat_field import FlatFieldd
from metaseg_monai.transforms.normalise import (
    IntensityStatistics,
    ScaleIntensityBy,
    intensity_statistics,
)


@pytest.fixture
def plates(tmp_path):
    """Two images of plate P1 (0..100 and 100..200) and one of P2 (1000..1100)."""
    items = []
    for name, plate, start in (("a", "P1", 0), ("b", "P1", 100), ("c", "P2", 1000)):
        path = tmp_path / f"{name}.tif"
        pixels = np.arange(start, start + 101, dtype=np.uint16).reshape(1, 101)
        tifffile.imwrite(path, np.repeat(pixels, 3, axis=0))
        items.append({"case": name, "image": str(path), "columns": {"plate": plate}})
    return items


def scaled(transform, values, plate="P1"):
    image = torch.tensor(values, dtype=torch.float32)[None, None]
    return transform({"case": "x", "image": image, "columns": {"plate": plate}})["image"].flatten()


def test_an_image_is_scaled_by_its_own_percentiles_and_cut():
    values = [float(value) for value in range(101)]
    found = scaled(ScaleIntensityBy("image", (10, 90)), values)
    assert found[[0, 10, 50, 90, 100]].tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert found[30].item() == pytest.approx(0.25)


def test_each_channel_has_its_own_range():
    image = torch.stack([torch.linspace(0, 10, 11), torch.linspace(100, 300, 11)])[:, None]
    found = ScaleIntensityBy("image", (0, 100))({"image": image})["image"]
    assert torch.allclose(found[0], found[1])
    assert (found.min(), found.max()) == (0, 1)


def test_an_image_without_contrast_becomes_zero():
    assert not scaled(ScaleIntensityBy("image"), [7.0, 7.0, 7.0]).any()


def test_a_plate_is_measured_over_all_its_images(plates):
    statistics = intensity_statistics(plates, "plate", (0, 100))
    assert statistics.ranges == {"P1": [[0, 200]], "P2": [[1000, 1100]]}
    assert statistics.images == {"P1": 2, "P2": 1}
    transform = ScaleIntensityBy("plate", (0, 100), statistics)
    assert scaled(transform, [0.0, 50.0, 200.0, 300.0]).tolist() == pytest.approx([0, 0.25, 1, 1])
    assert scaled(transform, [1050.0], "P2").tolist() == pytest.approx([0.5])


def test_an_image_in_several_rows_counts_once_and_labels_are_not_read(plates):
    twice = [{**item, "label": "missing.tif"} for item in [*plates, plates[0], plates[0]]]
    assert intensity_statistics(twice, "plate", (25, 75)) == intensity_statistics(
        plates, "plate", (25, 75)
    )


def test_large_images_are_measured_on_a_grid(tmp_path):
    random = np.random.default_rng(0)
    tifffile.imwrite(tmp_path / "large.tif", random.integers(0, 1000, (1100, 1100), np.uint16))
    item = {"case": "l", "image": str(tmp_path / "large.tif"), "columns": {"plate": "P"}}
    ((low, high),) = intensity_statistics([item], "plate", (10, 90)).ranges["P"]
    assert (low, high) == pytest.approx((100, 900), abs=8)


def test_what_corrects_the_field_is_done_before_measuring(tmp_path):
    light = np.tile(np.linspace(0.5, 1.5, 40), (40, 1))
    tifffile.imwrite(tmp_path / "light.tif", light)
    half = np.where(np.arange(40) % 2, 100.0, 200.0)
    tifffile.imwrite(tmp_path / "a.tif", half * light)
    item = {"case": "a", "image": str(tmp_path / "a.tif"), "columns": {"plate": "P"}}
    flat = FlatFieldd(tmp_path / "light.tif")
    ((low, high),) = intensity_statistics([item], "plate", (5, 95), flat_field=flat).ranges["P"]
    assert high / low == pytest.approx(2, rel=1e-4)


def test_statistics_come_back_from_their_file(plates, tmp_path):
    statistics = intensity_statistics(plates, "plate")
    path = statistics.save(tmp_path / "run" / "intensity.json")
    assert IntensityStatistics.load(path) == statistics
    assert ScaleIntensityBy("plate", statistics=path).statistics == statistics
    content = json.loads(path.read_text())
    assert content["by"] == "plate"
    assert content["images"] == {"P1": 2, "P2": 1}


@pytest.mark.parametrize(
    "text", ["", "[]", '{"by": "plate"}', '{"by":1,"percentiles":[1],"ranges":{}}']
)
def test_another_file_is_refused(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(DataError, match=r"x\.json: no intensity statistics"):
        IntensityStatistics.load(tmp_path / "x.json")


def test_an_unknown_plate_is_refused_by_name(plates):
    transform = ScaleIntensityBy("plate", statistics=intensity_statistics(plates, "plate"))
    with pytest.raises(DataError, match=r"case 'x'.*plate 'P9'; those at hand are of P1, P2"):
        scaled(transform, [1.0], "P9")
    with pytest.raises(DataError, match="no value in the column 'plate'"):
        scaled(transform, [1.0], "")
    with pytest.raises(DataError, match="no value in the column 'plate'"):
        transform({"case": "x", "image": torch.ones(1, 2, 2)})


def test_other_channels_than_measured_are_refused(plates):
    transform = ScaleIntensityBy("plate", statistics=intensity_statistics(plates, "plate"))
    with pytest.raises(DataError, match="2 channels, but the statistics"):
        transform({"case": "x", "image": torch.ones(2, 4, 4), "columns": {"plate": "P1"}})


def test_a_plate_without_contrast_or_of_mixed_channels_is_refused(plates, tmp_path):
    tifffile.imwrite(tmp_path / "c.tif", np.full((4, 4), 9, np.uint16))
    with pytest.raises(DataError, match=r"plate 'P2': the pixel values at the percentiles"):
        intensity_statistics(plates, "plate")
    tifffile.imwrite(tmp_path / "b.tif", np.zeros((4, 4, 3), np.uint8), photometric="rgb")
    with pytest.raises(DataError, match="plate 'P1': its images differ in their number"):
        intensity_statistics(plates, "plate")


def test_settings_that_do_not_belong_together_are_refused(plates):
    statistics = intensity_statistics(plates, "plate")
    with pytest.raises(ConfigError, match="leave the statistics out"):
        ScaleIntensityBy("image", statistics=statistics)
    with pytest.raises(ConfigError, match="expected the statistics of its groups"):
        ScaleIntensityBy("plate")
    with pytest.raises(ConfigError, match="the statistics are of 'plate'"):
        ScaleIntensityBy("well", statistics=statistics)
    with pytest.raises(ConfigError, match=r"percentiles \(1\.0, 99\.0\)"):
        ScaleIntensityBy("plate", (1, 99), statistics)
    with pytest.raises(ConfigError, match="expected low, high"):
        ScaleIntensityBy("image", (99, 1))
