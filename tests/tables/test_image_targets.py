"""Labels that are images to be predicted: read as they are, joined by channel, and checked."""

import json

import numpy as np
import pytest
import tifffile
import torch

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.provenance import data_sha256
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.sharing.check import check
from metaseg_monai.tables import check_table, find_cases, load_case, read_table
from metaseg_monai.training import collate_cases
from metaseg_monai.transforms import LoadCased, ResampleToSpacingd

WHEN = {"provenance": "acquisition", "availability": "acquisition"}
STAINS = ("nuclei", "lipids", "cytoplasm")
JOINED = {"mask": "mask", "label_channels": {"channel": ["lipids", "nuclei"]}}


@pytest.fixture
def schema():
    return MetadataSchema([Categorical(name="magnification", values=("20", "40"), **WHEN)])


@pytest.fixture
def stains():
    """The schema of one model for all stains."""
    return MetadataSchema(
        [
            Categorical(name="magnification", values=("20", "40"), **WHEN),
            Categorical(name="channel", values=STAINS, **WHEN),
        ]
    )


@pytest.fixture
def fields(tmp_path, write_csv):
    """Two fields of two planes, with three stains and a mask each, as prepare adipocyte has them.

    A stain's image holds 1000 times its number, 100 times the field's, and the row.
    """
    rows = []
    for field, split in enumerate(("train", "val")):
        for plane in range(2):
            noise = np.random.default_rng(10 * field + plane).integers(0, 5000, (12, 10), np.uint16)
            tifffile.imwrite(tmp_path / f"i{field}_{plane}.tif", noise)
        mask = np.zeros((12, 10), np.uint8)
        mask[2:5, 3:6] = 1
        tifffile.imwrite(tmp_path / f"m{field}.tif", mask)
        for number, stain in enumerate(STAINS, 1):
            shown = np.full((12, 10), 1000 * number + 100 * field, np.uint16)
            shown += np.arange(12, dtype=np.uint16)[:, None]
            tifffile.imwrite(tmp_path / f"{stain}{field}.tif", shown)
            rows.append(
                {
                    "image": f"i{field}_0.tif;i{field}_1.tif",
                    "label": f"{stain}{field}.tif",
                    "channel": stain,
                    "mask": f"m{field}.tif",
                    "magnification": "20",
                    "group": f"well{field}",
                    "split": split,
                }
            )
    write_csv(tmp_path / "table.csv", rows)
    return tmp_path, rows


def test_each_stain_is_a_case_where_the_schema_has_the_channel(fields, stains):
    table = read_table(fields[0], stains, {"mask": "mask"})
    cases = [row["case"] for row in table.rows]
    assert len(cases) == 6
    assert cases[:3] == [f"i0_0__{stain}" for stain in STAINS]
    item = LoadCased(target="image", in_channels=2)(table.rows[1])
    assert item["image"].shape == (2, 12, 10)
    assert (item["label"].dtype, item["label"].shape) == (torch.float32, (1, 12, 10))
    assert item["label"].meta["label_stored"] == "uint16"
    np.testing.assert_array_equal(item["label"][0, :, 0], 2000 + np.arange(12))
    assert (item["mask"].dtype, int(item["mask"].sum())) == (torch.uint8, 9)
    batch = collate_cases([item])
    assert {key: tuple(batch[key].shape) for key in ("image", "label", "mask")} == {
        "image": (1, 2, 12, 10),
        "label": (1, 1, 12, 10),
        "mask": (1, 1, 12, 10),
    }


def test_the_stains_of_a_field_become_channels_in_the_order_asked_for(fields, schema):
    table = read_table(fields[0], schema, JOINED)
    assert [row["case"] for row in table.rows] == ["i0_0", "i1_0"]
    label = LoadCased(target="image")(table.rows[1])["label"]
    np.testing.assert_array_equal(label[:, 0, 0], [2100, 1100])  # lipids, nuclei of field 1
    alone = read_table(fields[0], schema, {"label_channels": {"channel": ["cytoplasm"]}})
    assert [row["label"].rpartition("/")[2] for row in alone.rows] == [
        "cytoplasm0.tif",
        "cytoplasm1.tif",
    ]
    assert "mask" not in alone.rows[0]
    assert (
        alone.digest
        == read_table(fields[0], schema, {"label_channels": {"channel": ["cytoplasm"]}}).digest
    )


def test_a_prediction_has_one_case_a_field_with_or_without_the_column(fields, schema, write_csv):
    folder, rows = fields
    assert [item["case"] for item in find_cases(folder, schema, JOINED)] == ["i0_0", "i1_0"]
    bare = [{name: row[name] for name in ("image", "magnification")} for row in rows[::3]]
    write_csv(folder / "table.csv", bare)
    assert len(find_cases(folder, schema, JOINED)) == 2
    write_csv(folder / "table.csv", [{**row, "channel": "nuclei"} for row in bare])
    assert len(find_cases(folder, schema, JOINED)) == 2


def test_rows_that_cannot_be_one_are_told(fields, schema, stains, write_csv):
    folder, rows = fields
    with pytest.raises(ConfigError, match="channel, which is a field of the schema"):
        read_table(folder, stains, JOINED)
    write_csv(folder / "table.csv", rows[1:])
    with pytest.raises(DataError, match=r"row 2 .*channel of the rows of its image: lipids, exp"):
        read_table(folder, schema, JOINED)
    write_csv(folder / "table.csv", [{**rows[0], "split": "test"}, *rows[1:]])
    with pytest.raises(DataError, match="the rows of its image differ in split"):
        read_table(folder, schema, JOINED)
    write_csv(folder / "table.csv", [{**rows[0], "mask": ""}, *rows[1:]])
    with pytest.raises(DataError, match="column 'mask': no mask; give one"):
        read_table(folder, schema, JOINED)
    with pytest.raises(ConfigError, match=r"label_channels.*twice"):
        read_table(folder, schema, {"label_channels": {"channel": ["a", "a"]}})


@pytest.mark.parametrize("given", [np.asarray, torch.as_tensor])
def test_arrays_are_taken_as_files_are(given):
    image, label = np.arange(60.0).reshape(2, 6, 5), np.zeros((3, 6, 5), np.float64)
    label[2] = -0.25
    item = LoadCased(target="image")({"image": given(image), "label": given(label)})
    assert (item["label"].dtype, item["label"].shape) == (torch.float32, (3, 6, 5))
    assert float(item["label"].min()) == -0.25


def test_what_does_not_fit_is_refused(fields):
    folder, _ = fields
    image = [str(folder / f"i0_{plane}.tif") for plane in range(2)]
    tifffile.imwrite(folder / "small.tif", np.zeros((12, 9), np.uint16))
    tifffile.imwrite(folder / "nan.tif", np.full((12, 10), np.nan, np.float32))
    for name, told in (
        ("small.tif", r"case 'a': .*expected \(12, 10\) as its image; save it on the image's grid"),
        ("nan.tif", "120 of 120 pixels are not finite"),
    ):
        with pytest.raises(DataError, match=told):
            load_case({"case": "a", "image": image, "label": str(folder / name)}, target="image")
    masks = {"case": "a", "image": image, "label": [str(folder / "m0.tif")] * 2}
    with pytest.raises(DataError, match="one of 2 files of a mask"):
        load_case(masks)
    with pytest.raises(DataError, match="labels that are images to be predicted need a bundle"):
        load_case({"case": "a", "image": image, "label": str(folder / "nuclei0.tif")})
    with pytest.raises(ConfigError, match="target='picture': expected mask or image"):
        LoadCased(target="picture")


def test_a_mask_is_never_read_where_labels_are_masks(fields):
    folder, _ = fields
    names = {"image": str(folder / "i0_0.tif"), "label": str(folder / "m0.tif"), "mask": "no.tif"}
    assert "mask" not in LoadCased()(names)


def test_a_label_image_is_resampled_as_an_image_and_its_mask_by_the_nearest(fields):
    folder, _ = fields
    item = {
        "image": str(folder / "i0_0.tif"),
        "label": str(folder / "nuclei0.tif"),
        "mask": str(folder / "m0.tif"),
        "spacing_mm": (1.0, 1.0, 1.0),
    }
    done = ResampleToSpacingd(2.0)(LoadCased(target="image")(item))
    assert done["label"].shape == done["mask"].shape == (1, 6, 5)
    torch.testing.assert_close(  # rows are averaged in pairs
        done["label"].as_tensor()[0, 1:-1, 0], 1000.5 + 2 * torch.arange(1.0, 5.0)
    )
    assert set(done["mask"].unique().tolist()) == {0, 1}


def test_check_tells_of_images_and_of_masks_in_their_place(fields, schema, tmp_path):
    folder, _ = fields
    found = check_table(folder, schema, JOINED, target="image")
    assert found.problems == []
    assert "labels are images; channels: 2; values 1000 to 2111" in found.summary
    assert "pixels of each class" in found.summary  # of the masks
    assert not any("mask?" in text for text in found.warnings)
    tifffile.imwrite(folder / "lipids0.tif", np.zeros((12, 10), np.uint16))
    tifffile.imwrite(folder / "nuclei0.tif", np.zeros((12, 10), np.uint16))
    warned = check_table(folder, schema, JOINED, target="image").warnings
    assert any("1 of 2 labels that are to be images have fewer than 3 values" in w for w in warned)
    (tmp_path / "columns.json").write_text(json.dumps(JOINED))
    schema.save(tmp_path / "schema.json")
    told = check(folder, tmp_path / "schema.json", tmp_path / "columns.json", target="image")
    assert "labels are images" in told
    colours = np.zeros((12, 10, 3), np.uint16)
    tifffile.imwrite(folder / "lipids0.tif", colours, photometric="rgb")
    problems = check_table(folder, schema, JOINED, target="image").problems
    assert any("the labels have different numbers of channels: 4" in text for text in problems)


def test_the_data_are_others_when_a_channel_or_mask_is(fields, schema):
    def digest():
        return data_sha256(read_table(fields[0], schema, JOINED).rows)

    before = digest()
    tifffile.imwrite(fields[0] / "cytoplasm0.tif", np.ones((12, 10), np.uint16))  # not read
    assert digest() == before
    tifffile.imwrite(fields[0] / "lipids0.tif", np.ones((12, 10), np.uint16))
    after = digest()
    tifffile.imwrite(fields[0] / "m1.tif", np.ones((12, 10), np.uint8))
    assert len({before, after, digest()}) == 3
