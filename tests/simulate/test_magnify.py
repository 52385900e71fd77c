import csv
import json

import numpy as np
import pytest
import tifffile

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images import read_image
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema, Vector
from metaseg_monai.simulate.magnify import level_codes, magnify_table, nearest_level, resample_file
from metaseg_monai.tables import read_table

WHEN = {"provenance": "acquisition", "availability": "acquisition"}
LEVELS = ("10", "20", "40")
HEIGHT, WIDTH = 24, 32


@pytest.fixture
def cells(tmp_path, write_csv):
    """A table of one training and one test image at each of three magnifications."""
    folder = tmp_path / "cells"
    rows = []
    for split in ("train", "test"):
        for level in LEVELS:
            name = f"{split}_{level}"
            _, columns = np.mgrid[:HEIGHT, :WIDTH]
            objects = np.zeros((HEIGHT, WIDTH), np.uint16)
            objects[4:12, 4:12], objects[4:12, 12:20] = 300, 7
            for kind, pixels in (
                ("images", (1000 + 100 * columns).astype(np.uint16)),
                ("labels", (objects > 0).astype(np.uint8)),
                ("instances", objects),
            ):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                tifffile.imwrite(folder / kind / f"{name}.tif", pixels)
            rows.append(
                {
                    "image": f"images/{name}.tif",
                    "label": f"labels/{name}.tif",
                    "magnification": level,
                    "pixel_um": str(6.5 / float(level)),
                    "instances": f"instances/{name}.tif",
                    "group": f"plate_{split}",
                    "split": split,
                }
            )
    write_csv(folder / "table.csv", rows)
    return folder, rows


def rows_of(table):
    with table.open(newline="") as stream:
        return list(csv.DictReader(stream))


def continuous():
    field = Continuous(
        name="magnification", unit="x", range=(10, 40), scale="log2", out_of_range="flag", **WHEN
    )
    return MetadataSchema([field])


def test_rows_between_and_beyond_are_added_to_those_stored(cells, tmp_path):
    table = magnify_table(cells[0], tmp_path / "more")
    rows = rows_of(table)
    assert len(rows) == 6 + 2
    assert [row["image"] for row in rows[:6]] == [row["image"] for row in cells[1]]
    assert [row["resampled_from"] for row in rows] == [""] * 6 + ["20", "40"]
    between, beyond = rows[6:]
    assert (between["magnification"], between["scale"], between["split"]) == ("15", "0.75", "test")
    assert (beyond["magnification"], beyond["scale"]) == ("64", "1.6")
    assert float(between["pixel_um"]) == pytest.approx(6.5 / 15)
    assert float(beyond["pixel_um"]) == pytest.approx(6.5 / 64)
    assert beyond["group"] == "plate_test"
    read = read_table(tmp_path / "more", continuous())  # which checks every path and group
    sizes = {
        item["metadata"]["magnification"]: read_image(item["image"]).array.shape[1:]
        for item in read.items("test")
    }
    assert sizes["15"] == (18, 24)
    assert sizes["64"] == (38, 51)
    assert sizes["20"] == (HEIGHT, WIDTH)
    copied = (tmp_path / "more" / "images" / "train_10.tif").read_bytes()
    assert copied == (cells[0] / "images" / "train_10.tif").read_bytes()
    assert json.loads((tmp_path / "more" / "generated.json").read_text())["targets"] == [15, 64]


def test_pixels_keep_their_type_and_labels_their_numbers(cells, tmp_path):
    folder = magnify_table(cells[0], tmp_path / "more", targets=[80]).parent
    image = read_image(folder / "images" / "test_40_80x.tif").array
    assert (image.dtype, image.shape) == (np.uint16, (1, 48, 64))
    # twice as fine a ramp: the pixels' middles lie a quarter beside the old ones
    np.testing.assert_array_equal(image[0, 5, 1:5], [1025, 1075, 1125, 1175])
    objects = read_image(folder / "instances" / "test_40_80x.tif").array
    assert objects.dtype == np.uint16
    values, counts = np.unique(objects, return_counts=True)
    assert dict(zip(values.tolist(), counts.tolist(), strict=True))[300] == 4 * 64
    assert values.tolist() == [0, 7, 300]
    label = read_image(folder / "labels" / "test_40_80x.tif").array
    np.testing.assert_array_equal(label, objects > 0)


def test_shrinking_averages(cells, tmp_path):
    pixels = np.zeros((HEIGHT, WIDTH), np.uint16)
    pixels[::2, ::2] = 400  # one of four
    tifffile.imwrite(cells[0] / "images" / "test_10.tif", pixels)
    folder = magnify_table(cells[0], tmp_path / "more", targets=[5]).parent
    small = read_image(folder / "images" / "test_10_5x.tif").array[0]
    assert small.shape == (12, 16)
    np.testing.assert_allclose(small[2:-2, 2:-2], 100, atol=1)


def test_rows_of_the_chosen_splits(cells, tmp_path):
    table = magnify_table(cells[0], tmp_path / "new", targets=[15], splits=("train", "test"))
    made = [row["image"] for row in rows_of(table) if row["resampled_from"]]
    assert made == ["images/train_20_15x.tif", "images/test_20_15x.tif"]


def test_an_instance_cell_may_be_empty_and_names_are_kept_apart(cells, tmp_path, write_csv):
    folder, rows = cells
    rows[4]["instances"] = ""
    for number, row in enumerate(rows):
        row["name"] = f"c{number}"
    write_csv(folder / "table.csv", rows)
    table = magnify_table(folder, tmp_path / "more", targets=[15], columns={"case": "name"})
    assert rows_of(table)[-1]["instances"] == ""
    assert rows_of(table)[-1]["name"] == "c4_15x"


def test_the_column_map_is_followed(cells, tmp_path, write_csv):
    folder, rows = cells
    for row in rows:
        row["objective"] = row.pop("magnification")
        row["split"] = row["split"].upper()
    write_csv(folder / "plates.csv", rows)
    columns = {
        "table": "plates.csv",
        "metadata": {"magnification": "objective"},
        "split_names": {"TRAIN": "train", "TEST": "test"},
    }
    table = magnify_table(folder, tmp_path / "more", targets=[15], columns=columns)
    assert table.name == "plates.csv"
    assert rows_of(table)[-1]["objective"] == "15"
    assert rows_of(table)[-1]["nearest_objective"] == "20"
    assert len(read_table(table.parent, continuous(), columns).items("test")) == 4


def test_every_encoding_can_be_asked(cells, tmp_path):
    folder = magnify_table(cells[0], tmp_path / "more").parent

    def codes(field, column):
        columns = {"metadata": {"magnification": column}}
        schema = MetadataSchema([field])
        items = read_table(folder, schema, columns).items("test")
        return [schema.encode(item["metadata"]).round(3).tolist() for item in items]

    one_hot = Categorical(name="magnification", values=LEVELS, **WHEN)
    stored = np.eye(3).tolist()
    assert codes(one_hot, "nearest_magnification") == [*stored, stored[1], stored[2]]
    vector = Vector(name="magnification", entries=LEVELS, **WHEN)
    shares = codes(vector, "magnification_shares")
    assert [*shares[:3], shares[4]] == [*stored, stored[2]]
    assert shares[3] == pytest.approx([0.415, 0.585, 0], abs=1e-3)
    steps = codes(vector, "magnification_steps")
    assert steps[:3] == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert steps[3] == pytest.approx([1, 0.585, 0], abs=1e-3)


def test_only_what_was_trained_is_resampled(cells, tmp_path, write_csv):
    folder, rows = cells
    rows[3]["magnification"] = "16"  # nearer to 15, but no training row has it
    write_csv(folder / "table.csv", rows)
    new = rows_of(magnify_table(folder, tmp_path / "more", targets=[15]))
    assert new[-1]["resampled_from"] == "20"
    assert new[3]["nearest_magnification"] == "20"
    for row in rows:
        row["split"] = "test"
    write_csv(folder / "table.csv", rows)
    with pytest.raises(DataError, match="no row of the split 'train'"):
        magnify_table(folder, tmp_path / "none")


def test_levels_by_hand():
    assert nearest_level(15, [10, 20, 40]) == 20  # 4/3 away, 10 is 3/2 away
    assert nearest_level(14, [10, 20]) == 10
    assert nearest_level(20, [10, 40]) == 40  # of two equal ratios the higher
    for level, one_hot in zip([10, 20, 40], np.eye(3).tolist(), strict=True):
        assert level_codes(level, [10, 20, 40])[0] == one_hot
    for code, by_hand in zip(level_codes(20, [10, 40]), ([0.5, 0.5], [1, 0.5]), strict=True):
        assert code == pytest.approx(by_hand)
    assert level_codes(5, [10, 20]) == ([1.0, 0.0], [1.0, 0.0])


def test_colours_stay_channels(tmp_path):
    colours = np.zeros((8, 10, 3), np.uint8)
    colours[..., 1] = 200
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb")
    resample_file(tmp_path / "a.tif", tmp_path / "b.tif", 2, image=True)
    made = read_image(tmp_path / "b.tif").array
    assert (made.shape, made.dtype) == ((3, 16, 20), np.uint8)
    assert [channel.max() for channel in made] == [0, 200, 0]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"targets": [0, 15]}, ConfigError, r"targets=\[0, 15\]: expected different numbers above"),
        ({"targets": ["15", True]}, ConfigError, r"targets=.*expected different numbers above"),
        ({"targets": []}, ConfigError, "expected different numbers above 0"),
        ({"targets": [20, 15]}, ConfigError, r"20 is trained already .*10, 20, 40\); leave it out"),
        ({"splits": ["exam"]}, ConfigError, "expected some of train, val, test"),
        ({"splits": ["val"]}, DataError, "no row of val has magnification 20, of which 15"),
        ({"magnification": "zoom"}, DataError, "no column 'zoom'; the table has image, label"),
    ],
)
def test_settings_that_fit_nothing_are_refused(cells, tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        magnify_table(cells[0], tmp_path / "more", **settings)
    assert not (tmp_path / "more").exists()


@pytest.mark.parametrize(
    ("cell", "value", "message"),
    [
        ("magnification", "0", "column 'magnification': '0', expected a number above 0"),
        ("magnification", "20x", "'20x', expected a number above 0"),
        ("image", "images/none.tif", "no such file 'images/none.tif'"),
        ("instances", "../out.tif", r"'\.\./out.tif' leaves the table's folder"),
        ("instances", "none.tif", "no such file 'none.tif'"),
        ("split", "exam", "unknown split 'exam'"),
    ],
)
def test_wrong_rows_are_named(cells, tmp_path, write_csv, cell, value, message):
    folder, rows = cells
    rows[1][cell] = value
    write_csv(folder / "table.csv", rows)
    with pytest.raises(DataError, match=f"(images_train_20|row 3).*{message}"):
        magnify_table(folder, tmp_path / "more")
    assert not (tmp_path / "more").exists()


def test_an_output_with_files_and_a_resampled_source_are_refused(cells, tmp_path):
    with pytest.raises(DataError, match="not empty; give another folder"):
        magnify_table(cells[0], cells[0])
    magnify_table(cells[0], tmp_path / "more")
    with pytest.raises(DataError, match=r"has the column resampled_from.*resampled before"):
        magnify_table(tmp_path / "more", tmp_path / "again")


def test_two_files_of_one_new_name_are_refused(cells, tmp_path, write_csv):
    folder, rows = cells
    tifffile.imwrite(folder / "images" / "test_20_15x.tif", np.ones((4, 4), np.uint8))
    rows[0]["image"] = "images/test_20_15x.tif"
    write_csv(folder / "table.csv", rows)
    with pytest.raises(DataError, match=r"would both give images/test_20_15x\.tif; rename"):
        magnify_table(folder, tmp_path / "more")


def test_a_damaged_file_leaves_no_output(cells, tmp_path):
    path = cells[0] / "images" / "test_40.tif"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"test_40\.tif"):
        magnify_table(cells[0], tmp_path / "more")
    assert not (tmp_path / "more").exists()
    assert not list(tmp_path.glob(".partial-*"))
