"""Even light, one pixel size, values in 0..1: by a range, by an image, or by its plate."""

import json

import numpy as np
import pytest
import tifffile
import torch
from monai.data import MetaTensor

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.tables import DataWarning
from metaseg_monai.transforms import (
    FlatFieldd,
    IntensityStatistics,
    LoadCased,
    ResampleToSpacingd,
    ScaleIntensityBy,
    ScaleIntensityCased,
    intensity_statistics,
)

LIGHT = np.tile(np.linspace(0.5, 1.5, 40, dtype=np.float32), (30, 1))


# Uneven light


@pytest.fixture
def reference(tmp_path):
    def write(array):
        path = tmp_path / "empty_field.tif"
        tifffile.imwrite(path, array, photometric="minisblack", metadata={"axes": "YX"})
        return path

    return write


def lit(array):
    image = MetaTensor(torch.as_tensor(array)[None], meta={"filename_or_obj": "well_A1.tif"})
    return {"case": "A1", "image": image}


def test_a_reference_is_divided_out_and_the_mean_kept(reference):
    scene = np.random.default_rng(0).uniform(50, 200, (30, 40)).astype(np.float32)
    made = lit(scene * LIGHT)
    flat = FlatFieldd(reference((LIGHT * 900).astype(np.float32)))(made)["image"]
    ratio = flat[0].numpy() / scene
    assert ratio == pytest.approx(np.full_like(ratio, ratio[0, 0]), rel=1e-5)
    assert float(flat.mean()) == pytest.approx(float(made["image"].mean()), rel=1e-5)
    assert flat.dtype == torch.float32
    assert flat.meta["filename_or_obj"] == "well_A1.tif"


def test_each_channel_keeps_its_own_mean(reference):
    image = torch.as_tensor(np.stack([LIGHT * 10, LIGHT * 300, LIGHT * 0]))
    flat = FlatFieldd(reference(LIGHT))({"case": "A1", "image": image})["image"].numpy()
    assert flat[0] == pytest.approx(np.full((30, 40), 10.0), rel=1e-5)
    assert flat[1] == pytest.approx(np.full((30, 40), 300.0), rel=1e-5)
    assert not flat[2].any()


def test_an_estimate_evens_out_the_field_and_leaves_objects():
    scene = np.full((200, 200), 100, np.float32)
    scene[90:96, 90:96] = 40
    light = np.tile(np.linspace(0.6, 1.4, 200, dtype=np.float32), (200, 1))
    made = lit(scene * light)
    flat = FlatFieldd("estimate", sigma_px=30)(made)["image"][0].numpy()
    left, right = flat[:, 30:50].mean(), flat[:, 150:170].mean()
    assert right / left == pytest.approx(1, abs=0.08)  # 1.8 before
    assert flat[92, 92] / flat[80, 92] == pytest.approx(0.4, abs=0.03)
    assert flat.mean() == pytest.approx(float(made["image"].mean()), rel=1e-5)
    image = torch.as_tensor(np.stack([np.full((30, 40), 9, np.float32), LIGHT]))
    apart = FlatFieldd("estimate", sigma_px=4)({"case": "A1", "image": image})["image"].numpy()
    assert apart[0] == pytest.approx(np.full((30, 40), 9.0), rel=1e-5)


@pytest.mark.parametrize("value", [0.0, -1.0, np.nan])
def test_a_reference_with_dark_pixels_is_refused_by_its_name(reference, value):
    light = LIGHT.copy()
    light[3, 4] = value
    with pytest.raises(DataError, match=r"empty_field\.tif: 1 of 1200 pixels"):
        FlatFieldd(reference(light))


def test_light_that_cannot_be_divided_by_is_refused(reference):
    flat = FlatFieldd(reference(LIGHT[:20]))
    with pytest.raises(DataError, match=r"case 'A1' \(well_A1\.tif\).*same camera"):
        flat(lit(LIGHT))
    with pytest.raises(DataError, match=r"case 'A1' \(well_A1\.tif\): black over an area"):
        FlatFieldd("estimate", sigma_px=2)(lit(np.zeros((30, 40), np.float32)))
    with pytest.raises(ConfigError, match="sigma_px=0"):
        FlatFieldd("estimate", sigma_px=0)
    with pytest.raises(DataError, match="expected a plane"):
        FlatFieldd("estimate")({"case": "A1", "image": torch.ones(1, 4, 4, 4)})


# One pixel size


def spaced(shape=(1, 20, 40), spacing_mm=(5.0, 2.0, 1.0)):
    image = MetaTensor(torch.rand(shape), meta={"filename_or_obj": "a.tif"})
    label = torch.zeros(shape, dtype=torch.uint8)
    label[:, 5:15, 10:30] = 2
    return {"case": "a", "image": image, "label": label, "spacing_mm": spacing_mm}


def test_pixels_become_square_and_of_one_size():
    data = spaced()
    done = ResampleToSpacingd(2.0)(data)
    assert done["image"].shape == done["label"].shape == (1, 20, 20)
    assert done["spacing_mm"] == (5.0, 2.0, 2.0)
    assert done["native_shape"] == (20, 40)
    assert done["image"].meta["filename_or_obj"] == "a.tif"
    assert done["image"].mean() == pytest.approx(float(data["image"].mean()), abs=0.01)
    assert int((done["label"] == 2).sum()) == 100
    assert data["image"].shape == (1, 20, 40)


def test_the_planes_of_a_volume_are_resampled_as_each_alone():
    volume = spaced((1, 20, 40, 3))
    done = ResampleToSpacingd(1.5)(volume)
    assert done["native_shape"] == (20, 40)
    for plane in range(3):
        alone = {**volume, **{key: volume[key][..., plane] for key in ("image", "label")}}
        single = ResampleToSpacingd(1.5)(alone)
        assert torch.equal(done["image"][..., plane], single["image"])
        assert torch.equal(done["label"][..., plane], single["label"])
        assert done["spacing_mm"] == single["spacing_mm"]


def test_the_spacing_is_that_of_the_whole_pixels_there_are():
    done = ResampleToSpacingd(3.0)(spaced())
    assert done["image"].shape == (1, 13, 13)
    np.testing.assert_allclose(done["spacing_mm"], (5.0, 40 / 13, 40 / 13))


def test_null_leaves_everything_as_it_is():
    data = spaced()
    assert ResampleToSpacingd(None)(data) == data


def test_spacings_that_are_none_are_refused():
    with pytest.raises(ConfigError, match="spacing_mm=0"):
        ResampleToSpacingd(0)
    unknown = spaced()
    del unknown["spacing_mm"]
    with pytest.raises(DataError, match=r"case 'a'.*pixel size is unknown"):
        ResampleToSpacingd(1.0)(unknown)
    with pytest.raises(DataError, match=r"case 'a': a\.tif: 20 x 40 pixels of 2 x 1 mm would"):
        ResampleToSpacingd(1e-4)(spaced())


# A stated range


def in_range(values, **settings):
    item = {"case": "a", "image": torch.tensor(values, dtype=torch.float32)[None, None]}
    return ScaleIntensityCased([0, 200], **settings)(item)["image"].flatten().tolist()


def test_range_becomes_unit():
    assert in_range([0.0, 50.0, 200.0]) == [0, 0.25, 1]
    with pytest.raises(ConfigError, match="lowest, highest"):
        ScaleIntensityCased([255, 0])


@pytest.mark.parametrize("value", [-1.0, 201.0, 60000.0])
def test_pixels_outside_are_refused_or_cut_as_asked(value):
    with pytest.raises(DataError, match=r"case 'a'.*intensity_range \[0, 200\]"):
        in_range([50.0, value])
    assert in_range([50.0, value], clip=True) == [0.25, float(value > 0)]


def wide(image):
    return ScaleIntensityCased([0, 65535])({"case": "a", "image": image})


@pytest.mark.parametrize("channels", ["stored", "grey"])
def test_eight_bits_in_a_range_of_sixteen_are_refused(tmp_path, channels):
    tifffile.imwrite(tmp_path / "a.tif", np.arange(9, dtype=np.uint8).reshape(3, 3))
    item = LoadCased(channels)({"case": "a", "image": str(tmp_path / "a.tif")})
    with pytest.raises(DataError, match=r"case 'a': pixels end at 8, intensity_range at 65535"):
        wide(item["image"])
    with pytest.warns(DataWarning, match=r"pixels lie from 0 to 8, hardly any of intensity_range"):
        cut = ScaleIntensityCased([0, 65535], clip=True)({"image": item["image"]})["image"]
    assert cut.max() == pytest.approx(8 / 65535)


@pytest.mark.parametrize("high", [255, 65535])
def test_fractions_under_a_range_of_whole_numbers_are_refused(tmp_path, high):
    tifffile.imwrite(tmp_path / "a.tif", np.linspace(0, 1, 9, dtype=np.float32).reshape(3, 3))
    data = LoadCased()({"image": str(tmp_path / "a.tif"), "case": "a"})
    with pytest.raises(DataError, match=r"case 'a': pixels end at 1, .*\(\[0, 1\] for numbers of"):
        ScaleIntensityCased([0, high])(data)
    with pytest.raises(DataError, match=r"case 'a': pixels end at 1, .*\(\[0, 1\] for numbers of"):
        ScaleIntensityCased([-79, 304], clip=True)(data)
    assert float(ScaleIntensityCased([0, 1])(data)["image"].max()) == 1


def test_a_dark_image_is_told_and_kept():
    with pytest.warns(DataWarning, match=r"case 'a': pixels end at 255.*if it is not just dark"):
        wide(torch.tensor([[[0.0, 255.0]]]))
    wide(torch.tensor([[[0.0, 300.0]]]))  # as 12 bits of 16: no warning
    wide(torch.zeros(1, 2, 2))  # constant images are told when they are loaded


# Percentiles of an image or of its plate


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
    assert not scaled(ScaleIntensityBy("image"), [7.0, 7.0, 7.0]).any()  # without contrast: 0
    image = torch.stack([torch.linspace(0, 10, 11), torch.linspace(100, 300, 11)])[:, None]
    both = ScaleIntensityBy("image", (0, 100))({"image": image})["image"]
    assert torch.allclose(both[0], both[1])  # each channel has its own range
    assert (both.min(), both.max()) == (0, 1)


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


def test_what_corrects_the_field_is_done_before_measuring(tmp_path, reference):
    light = np.tile(np.linspace(0.5, 1.5, 40), (40, 1))
    half = np.where(np.arange(40) % 2, 100.0, 200.0)
    tifffile.imwrite(tmp_path / "a.tif", half * light)
    item = {"case": "a", "image": str(tmp_path / "a.tif"), "columns": {"plate": "P"}}
    flat = FlatFieldd(reference(light))
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
    for text in ("", "[]", '{"by": "plate"}', '{"by":1,"percentiles":[1],"ranges":{}}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(DataError, match=r"x\.json: no intensity statistics"):
            IntensityStatistics.load(tmp_path / "x.json")


def test_what_the_statistics_do_not_know_is_refused_by_name(plates):
    transform = ScaleIntensityBy("plate", statistics=intensity_statistics(plates, "plate"))
    with pytest.raises(DataError, match=r"case 'x'.*plate 'P9'; those at hand are of P1, P2"):
        scaled(transform, [1.0], "P9")
    with pytest.raises(DataError, match="no value in the column 'plate'"):
        scaled(transform, [1.0], "")
    with pytest.raises(DataError, match="no value in the column 'plate'"):
        transform({"case": "x", "image": torch.ones(1, 2, 2)})
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
    for arguments, reason in (
        (("image", (0.5, 99.5), statistics), "leave the statistics out"),
        (("plate",), "expected the statistics of its groups"),
        (("well", (0.5, 99.5), statistics), "the statistics are of 'plate'"),
        (("plate", (1, 99), statistics), r"percentiles \(1\.0, 99\.0\)"),
        (("image", (99, 1)), "expected low, high"),
    ):
        with pytest.raises(ConfigError, match=reason):
            ScaleIntensityBy(*arguments)


def test_labels_that_are_images_are_scaled_by_several_columns():
    ranges = {"20/nuclei": [[10.0, 20.0]], "40/nuclei": [[0.0, 40.0]]}
    statistics = IntensityStatistics("magnification/channel", (0.0, 100.0), ranges)
    transform = ScaleIntensityBy("magnification/channel", (0, 100), statistics, key="label")
    label = torch.tensor([[[5.0, 10.0, 15.0, 25.0]]])
    item = {"case": "a", "image": label, "label": label}
    scaled = [
        transform({**item, "columns": {"magnification": m, "channel": "nuclei"}})
        for m in ("20", "40")
    ]
    assert scaled[0]["label"].tolist() == [[[0, 0, 0.5, 1]]]
    assert scaled[1]["label"].tolist() == [[[0.125, 0.25, 0.375, 0.625]]]
    assert torch.equal(scaled[0]["image"], label)
    with pytest.raises(DataError, match="no value in the column 'channel'"):
        transform({**item, "columns": {"magnification": "20"}})
    with pytest.raises(DataError, match=r"no intensity statistics of .* '60/nuclei'"):
        transform({**item, "columns": {"magnification": "60", "channel": "nuclei"}})
