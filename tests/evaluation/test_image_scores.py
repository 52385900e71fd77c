"""From labels that are images through an engine to tables of scores, objects and pictures."""

import math

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation import ImageObjects, ImageSamples, ImageScores, read_counts
from metaseg_monai.evaluation.image_scores import (
    OBJECTS_FILE,
    features_of,
    in_one_scale,
    read_image_objects,
    read_image_samples,
)
from metaseg_monai.evaluation.object_scores import read_object_scores
from metaseg_monai.rows import write_table
from metaseg_monai.tables.table import read_table
from metaseg_monai.transforms import AsImaged, IntensityStatistics, ScaleIntensityBy

SIDE = 40
NUCLEI = np.zeros((SIDE, SIDE), np.uint16)  # two nuclei
NUCLEI[5:15, 5:15], NUCLEI[22:34, 20:32] = 1, 2


def shown(*values):
    """An image in which the nuclei have these values over a background of 10."""
    return np.array([10, *values], np.uint16)[NUCLEI]


@pytest.fixture
def table(tmp_path):
    """Two cases of nuclei and cytoplasm, each an image of 100 and 200 where the nuclei are."""
    rows = []
    tifffile.imwrite(tmp_path / "objects.tif", NUCLEI)
    for case, channel in (("a", "nuclei"), ("b", "cytoplasm")):
        tifffile.imwrite(tmp_path / f"{case}.tif", np.arange(SIDE**2).reshape(SIDE, SIDE))
        tifffile.imwrite(tmp_path / f"{case}_label.tif", shown(100, 200))
        row = {"image": f"{case}.tif", "label": f"{case}_label.tif", "channel": channel}
        row |= {"group": f"well {case}", "split": "test", "instances": "objects.tif"}
        rows.append({**row, "magnification": "20", "pixel_um": "1"})
    write_table(rows, tmp_path / "table.csv")
    return read_table(tmp_path)


def pair(table, case, pred, mode="normal"):
    """Batch and output of one case; `pred` (K, H, W) as the network answers."""
    item = next(row for row in table.rows if row["case"] == case)
    names = {name: [item[name]] for name in ("case", "group", "split")}
    label = torch.from_numpy(tifffile.imread(item["label"]).astype(np.float32))
    image = torch.arange(2.0 * SIDE**2).reshape(1, 2, SIDE, SIDE)
    output = {"image": image, "label": label[None, None], "pred": torch.as_tensor(pred)[None]}
    return {**names, "mode": [mode], "domain": ["20"]}, output


def answer(picture):
    return torch.from_numpy(picture.astype(np.float32))[None]


def test_scores_are_of_the_values_in_files_by_channel(table, tmp_path, measured):
    statistics = IntensityStatistics(
        "channel", (0.0, 100.0), {"nuclei": [[10, 210]], "cytoplasm": [[0, 400]]}
    )
    postprocessing = [AsImaged(ScaleIntensityBy("channel", (0, 100), statistics, "label"))]
    pairs = [
        pair(table, "a", (answer(shown(100, 200)) - 10) / 200),
        pair(table, "b", answer(shown(100, 200)) / 800),  # half as bright
        pair(table, "a", torch.zeros(1, SIDE, SIDE), "shuffle"),
    ]
    measure = ImageScores(table, postprocessing)
    rows = read_counts(measured(measure, tmp_path / "counts.csv", pairs))
    assert rows[["case", "mode", "class", "channel"]].to_numpy().tolist() == [
        ["a", "normal", 1, "nuclei"],
        ["b", "normal", 1, "cytoplasm"],
        ["a", "shuffle", 1, "nuclei"],
    ]
    means = [shown(100, 200).mean(), shown(50, 100).mean()]
    one, two, three = rows.to_dict("records")
    assert one["absolute_error"] == one["medmae"] == 0
    assert math.isnan(one["psnr"])
    assert one["pearson"] == pytest.approx(1)
    assert two["absolute_error"] == pytest.approx(means[0] / 2)
    assert two["medmae"] == pytest.approx(means[0] / 2 / 10)  # the median is background
    assert (two["label_mean"], two["pred_mean"]) == pytest.approx((means[0], means[0] / 2))
    assert three["absolute_error"] == pytest.approx((100 * 90 + 144 * 190) / SIDE**2)
    assert math.isnan(three["pearson"])
    assert two["sharpness"] == pytest.approx(0.5)
    old = pd.read_csv(tmp_path / "counts.csv").drop(columns="sharpness")  # of an earlier version
    old.to_csv(tmp_path / "old.csv", index=False)
    assert read_counts(tmp_path / "old.csv")["sharpness"].isna().all()
    found = [row for batch in (pairs[0], pairs[1]) for row in measure(first_of(batch))]
    assert measure.metrics(found)["val_mean_medmae"] == pytest.approx(two["medmae"] / 2)


def first_of(pair):
    batch, output = pair
    return {key: values[0] for key, values in {**batch, **output}.items()}


def test_the_names_of_joined_channels_are_those_of_the_column(table, tmp_path):
    row = {**table.rows[0], "columns": {**table.rows[0]["columns"], "channel": "x;y"}}
    joined = read_table(tmp_path)
    object.__setattr__(joined, "rows", (row, table.rows[1]))
    case = first_of(pair(table, "a", answer(shown(1, 2))))
    case |= {key: case[key].repeat(2, 1, 1) for key in ("label", "pred")}
    assert [(one["class"], one["channel"]) for one in ImageScores(joined)(case)] == [
        (1, "x"),
        (2, "y"),
    ]
    case["pred"] = case["pred"][:1]
    with pytest.raises(DataError, match=r"case 'a': predicted \(1, 40, 40\), the label has \(2"):
        list(ImageScores(joined)(case))


def test_objects_of_real_and_generated_images_are_matched_and_measured(table, tmp_path, measured):
    lost = shown(90, 10)  # the second nucleus is gone
    pairs = [
        pair(table, "a", answer(lost)),
        pair(table, "b", answer(shown(50, 100))),
        pair(table, "a", answer(shown(10, 10)), "shuffle"),
    ]
    rules = {"nuclei": "nuclei", "cytoplasm": "seeded"}
    path = measured(ImageObjects(table, rules), tmp_path / "objects_scores.csv", pairs)
    scores = read_object_scores(path)
    numbers = ["case", "mode", "true", "pred", "tp_50", "fn_50"]
    assert scores[numbers].to_numpy().tolist() == [
        ["a", "normal", 2, 1, 1, 1],
        ["b", "normal", 2, 2, 2, 0],
        ["a", "shuffle", 2, 0, 0, 2],
    ]
    objects = read_image_objects(tmp_path / OBJECTS_FILE)
    assert objects.groupby(["case", "source"], sort=False).size().to_dict() == {
        ("a", "real"): 2,
        ("a", "generated"): 1,
        ("b", "real"): 2,
        ("b", "generated"): 2,
    }
    real, generated = (
        objects[(objects["case"] == "b") & (objects["source"] == source)].set_index("object")
        for source in ("real", "generated")
    )
    assert real["area_px"].tolist() == generated["area_px"].tolist()
    inside = generated["mean_intensity"] / real["mean_intensity"]
    assert inside.between(0.45, 0.55).all()
    product = real["mean_intensity"] * real["area_px"]
    np.testing.assert_allclose(real["integrated_intensity"], product)


def test_the_features_of_an_object_by_hand():
    image = np.zeros((10, 12))
    image[2:6, 3:9] = [10, 20, 10, 20, 10, 20]
    objects = (image > 0).astype(np.int32)
    (row,) = features_of(objects, image, (0, 31))
    assert row["area_px"] == 24
    assert row["solidity"] == pytest.approx(1)
    assert row["eccentricity"] == pytest.approx(math.sqrt(1 - (16 - 1) / (36 - 1)), abs=1e-4)
    assert (row["mean_intensity"], row["sd_intensity"]) == (15, 5)
    assert row["integrated_intensity"] == 360
    # neighbours: 20 along rows and 30 on diagonals are 10 greys apart, 18 along columns alike
    assert row["texture_1_px"] == pytest.approx(100 * 50 / 68)
    assert features_of(np.zeros_like(objects), image, (0, 1)) == []


def test_without_rules_no_objects_and_no_files_of_before(table, tmp_path, measured):
    pairs = [pair(table, "a", answer(shown(90, 10)))]
    measured(ImageObjects(table, {"nuclei": "bright"}), tmp_path / "objects_scores.csv", pairs)
    assert (tmp_path / OBJECTS_FILE).is_file()
    measured(ImageObjects(table, None), tmp_path / "objects_scores.csv", pairs)
    assert not (tmp_path / OBJECTS_FILE).exists()
    assert not (tmp_path / "objects_scores.csv").exists()


def test_what_is_missing_for_objects_is_named(table, tmp_path):
    case = first_of(pair(table, "a", answer(shown(1, 2))))
    with pytest.raises(ConfigError, match="nuclei is 'round'; expected one of nuclei, seeded"):
        ImageObjects(table, {"nuclei": "round"})
    with pytest.raises(ConfigError, match="no rule for channel 'nuclei'"):
        list(ImageObjects(table, {"lipids": "bright"})(case))
    for name, rule, told in (
        ("pixel_um", "nuclei", "the size of a pixel is unknown"),
        ("instances", "seeded", "no file of nuclei in the column instances"),
    ):
        cells = {**table.rows[0]["columns"], name: ""}
        bare = read_table(tmp_path)
        object.__setattr__(bare, "rows", ({**table.rows[0], "columns": cells},))
        with pytest.raises(DataError, match=f"case 'a': {told}"):
            list(ImageObjects(bare, {"nuclei": rule})(case))


def test_pictures_of_one_case_a_channel_come_back(table, tmp_path, measured):
    pairs = [pair(table, case, answer(shown(50, 100))) for case in ("a", "b", "a")]
    finder = ImageObjects(table, {"nuclei": "bright", "cytoplasm": "bright"})
    path = measured(ImageSamples(finder), tmp_path / "image_samples.npz", pairs)
    samples = read_image_samples(path)
    assert [(one.case, one.domain, one.channel) for one in samples] == [
        ("a", "20", "nuclei"),
        ("b", "20", "cytoplasm"),
    ]
    assert samples[0].planes.shape == (2, SIDE, SIDE)
    assert samples[0].generated.max() < samples[0].real.max() == 1  # in one scale
    assert [int(objects.max()) for objects in samples[0].objects] == [2, 2]


def test_a_picture_keeps_the_scale_of_its_label():
    label = np.linspace(0, 100, 1001)
    real, generated = in_one_scale(label, label / 2)
    np.testing.assert_allclose(generated[600].item(), (30 - 1) / (99.8 - 1), atol=2e-3)
    assert real[-1] == 1
