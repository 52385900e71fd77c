"""Faults of a folder as a microscope's user has it: 16-bit TIFF, cell lines, plates and wells.

The numbers are those of the project's list of faults. Each one is injected into a sound folder and
must be told with the case, what is wrong and what was expected; or be handled as stated.
"""

import csv
import re

import numpy as np
import pytest
import tifffile
import torch
from ignite.engine import Engine, State

from metaseg_monai.errors import DataError, MetadataError
from metaseg_monai.evaluation import CaseCounts, PerCase, read_counts
from metaseg_monai.images import read_image, write_mask
from metaseg_monai.inferers import SlidingWindowMetadataInferer
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema
from metaseg_monai.metrics.scores import case_f1, pooled_f1
from metaseg_monai.networks import Unet3
from metaseg_monai.tables import ColumnMap, check_table, load_case, read_table
from metaseg_monai.transforms import EncodeMetadatad

HEIGHT, WIDTH = 24, 32
WHEN = {"provenance": "acquisition", "availability": "acquisition"}
WELLS = ("A01", "A02", "B01")


def make_schema(missing="error"):
    return MetadataSchema(
        [
            Categorical(name="cell_line", values=("HeLa", "MDCK"), missing=missing, **WHEN),
            Continuous(name="magnification", unit="x", range=(5, 60), scale="log2", **WHEN),
        ]
    )


class Folder:
    """A table of three wells of a plate, one image in each, to be damaged."""

    def __init__(self, path):
        self.path = path
        self.rows = []
        for number, (well, split) in enumerate(zip(WELLS, ("train", "val", "test"), strict=True)):
            random = np.random.default_rng(number)
            self.image(f"P1_{well}", random.integers(200, 60000, (HEIGHT, WIDTH), np.uint16))
            label = np.zeros((HEIGHT, WIDTH), np.uint8)
            label[3:9, 20:30] = 1
            self.label(f"P1_{well}", label)
            self.rows.append(
                {
                    "image": f"images/P1_{well}.tif",
                    "label": f"labels/P1_{well}.tif",
                    "cell_line": ("HeLa", "MDCK")[number % 2],
                    "magnification": "20",
                    "plate": "P1",
                    "well": well,
                    "group": f"P1_{well}",
                    "split": split,
                }
            )

    def image(self, name, pixels, kind="images", **options):
        path = self.path / kind / f"{name}.tif"
        path.parent.mkdir(exist_ok=True, parents=True)
        tifffile.imwrite(path, pixels, **options)

    def label(self, name, pixels, **options):
        self.image(name, pixels, "labels", photometric="minisblack", **options)

    def save(self):
        with (self.path / "table.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)
        return self.path

    def check(self, **settings):
        return check_table(self.save(), settings.pop("schema", make_schema()), **settings)

    def item(self, split="train"):
        return read_table(self.save(), make_schema()).items(split)[0]


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def stack(folder):
    pixels = np.ones((2, 3, HEIGHT, WIDTH), np.uint16)
    folder.image("P1_A01", pixels, photometric="minisblack", metadata={"axes": "CZYX"})


def pages(folder):
    folder.image("P1_A01", np.ones((5, HEIGHT, WIDTH), np.uint16), photometric="minisblack")


def white(folder):
    label = np.zeros((HEIGHT, WIDTH), bool)
    folder.image("P1_A01", label, "labels", photometric="miniswhite")


def label_of(value, dtype):
    def fault(folder):
        label = np.zeros((HEIGHT, WIDTH), dtype)
        label[3, 4:6] = value
        folder.label("P1_A01", label)

    return fault


def cell(column, value, row=0):
    def fault(folder):
        folder.rows[row][column] = value

    return fault


def copied_row(folder):
    folder.rows.append(dict(folder.rows[0]))


def one_name(folder):
    folder.image("P1/A01", np.eye(HEIGHT, WIDTH, dtype=np.uint16))
    folder.rows.append({**folder.rows[0], "image": "images/P1/A01.tif"})


def same_picture(folder):
    folder.image("P1_B01", read_image(folder.path / "images" / "P1_A01.tif").array[0])


FAULTS = {
    "8 channels x depth": (stack, r"case 'images_P1_A01'.*CZYX \(2, 3, 24, 32\), expected a 2D"),
    "8 pages": (pages, r"case 'images_P1_A01'.*\(5, 24, 32\), expected a 2D image.*axes=\"CYX\""),
    "9 one-bit min-is-white": (white, "case 'images_P1_A01'.*min-is-white.*ambiguous"),
    "14 255": (
        label_of(255, np.uint8),
        r"case 'images_P1_A01': .*label values 255 \(2 px\), expected 0\.\.1.*label_values",
    ),
    "14 -1": (label_of(-1, np.int16), r"case 'images_P1_A01': .*label values -1 \(2 px\)"),
    "14 object 700": (label_of(700, np.uint16), r"case 'images_P1_A01': .*label values 700 \(2 px"),
    "15": (label_of(0.5, np.float32), r"case 'images_P1_A01': .*label value 0\.5, expected whole"),
    "19": (
        cell("cell_line", "HeLo"),
        r"row 2 \(images_P1_A01\).*'HeLa', 'MDCK', got 'HeLo'.*use one",
    ),
    "20": (cell("cell_line", ""), r"row 2 \(images_P1_A01\).*'cell_line'.*got nothing \(''\)"),
    "21 NaN": (cell("magnification", "NaN"), r"row 2 \(images_P1_A01\).*'magnification'.*5 to 60"),
    "21 None": (
        cell("magnification", "None"),
        r"row 2 .*plain number in x from 5 to 60, got nothing",
    ),
    "21 text": (cell("magnification", "20x"), r"row 2 .*plain number in x from 5 to 60, got '20x"),
    "28 row": (copied_row, r"row 5 \(images_P1_A01\): the same image and metadata as row 2"),
    "28 name": (one_name, r"row 5 \(images_P1_A01\): the case 'images_P1_A01' is also row 2"),
    "29 well": (
        cell("group", "P1_A01", row=2),
        r"group 'P1_A01' is in several splits: train \(row 2\), test \(row 4\)",
    ),
    "29 picture": (same_picture, r"same image content in several splits: .*A01\.tif \(train\)"),
}


def test_a_sound_folder_has_no_problem(folder):
    check = folder.check()
    assert (check.problems, check.warnings) == ([], [])
    assert "24x32 (3)" in check.summary


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_problem_that_names_its_place(folder, fault):
    inject, message = FAULTS[fault]
    inject(folder)
    problems = folder.check().problems
    assert len(problems) == 1
    assert re.search(message, problems[0]), problems[0]


def test_19_another_writing_of_a_category_is_that_category_and_told(folder):
    cell("cell_line", "Hela")(folder)
    check = folder.check()
    assert check.problems == []
    (told,) = check.warnings
    assert "field 'cell_line': 'Hela' is read as 'HeLa' in 1 case(s)" in told


def test_9_numbers_of_every_width_arrive_as_they_are_stored(folder):
    ramp = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
    for pixels in ((ramp * 20000).astype(np.uint32), (ramp * 85).astype(np.uint16)):
        folder.image("P1_A01", pixels)
        np.testing.assert_array_equal(load_case(folder.item()).image[0], pixels)
        folder.image("P1_A01", np.iinfo(pixels.dtype).max - pixels, photometric="miniswhite")
        np.testing.assert_array_equal(load_case(folder.item()).image[0], pixels)
    colours = np.stack([ramp * 85, ramp, ramp * 3], -1).astype(np.uint16)
    folder.image("P1_A01", colours, photometric="rgb")
    np.testing.assert_array_equal(load_case(folder.item()).image, np.moveaxis(colours, -1, 0))
    (problem,) = folder.check().problems
    assert re.search(r'different numbers of channels.*channels="grey"', problem)
    assert folder.check(channels="grey").problems == []


@pytest.mark.parametrize("shape", [(24, 32), (17, 23), (97, 31), (10, 13)])
def test_10_26_27_rows_stay_rows_and_sizes_are_kept_to_the_mask(folder, shape):
    """From the file through the window of 16 and a network of two levels back into a file."""
    pixels = np.zeros(shape, np.uint16)
    pixels[2, 9], pixels[8, 3] = 60000, 30000
    folder.image("P1_A01", pixels)
    folder.label("P1_A01", np.zeros(shape, np.uint8))
    loaded = load_case(folder.item())
    image, meta = torch.from_numpy(loaded.image)[None], torch.ones(1, 3)
    infer = SlidingWindowMetadataInferer(roi_size=(16, 16), sw_batch_size=3)
    seen = infer(image, lambda window, meta: window, meta=meta)
    np.testing.assert_allclose(seen[0, 0], pixels, rtol=1e-5)
    mask = (seen[0, 0].numpy() > 20000).astype(np.uint8)
    path = write_mask(mask, folder.path / "mask.tif", loaded.attributes)
    assert np.argwhere(tifffile.imread(path)).tolist() == [[2, 9], [8, 3]]
    network = Unet3(meta_features=3, variant="sme", channels=4, levels=2).eval()
    with torch.no_grad():
        assert infer(image / 60000, network, meta=meta).shape == (1, 2, *shape)


def test_13_an_image_without_contrast_is_warned_of(folder):
    folder.image("P1_A02", np.full((HEIGHT, WIDTH), 1200, np.uint16))
    check = folder.check()
    assert check.problems == []
    assert len(check.warnings) == 1
    assert "case 'images_P1_A02'" in check.warnings[0]
    assert "every pixel is 1200" in check.warnings[0]


def test_14_object_numbers_are_the_labels_where_the_map_says_so(folder):
    objects = np.zeros((HEIGHT, WIDTH), np.uint16)
    objects[3:6, 4:8], objects[3:6, 8:12] = 700, 3
    folder.label("P1_A01", objects)
    assert folder.check(columns=ColumnMap(label_values="instances")).problems == []
    item = read_table(folder.path, make_schema(), {"label_values": "instances"}).items("train")[0]
    assert load_case(item).label.sum() == 24


def test_16_empty_masks_are_told_and_their_false_pixels_are_counted(folder, tmp_path):
    folder.label("P1_A01", np.zeros((HEIGHT, WIDTH), np.uint8))
    assert "1 of 3 masks are empty: images_P1_A01" in folder.check().warnings
    table = read_table(folder.path, make_schema())
    hits = {"train": 0, "val": 7, "test": 0}  # pixels predicted where no label is
    counts, engine = PerCase(tmp_path / "counts.csv", CaseCounts(2)), Engine(lambda e, b: None)
    for split in table.splits:
        item = table.items(split)[0]
        label = torch.from_numpy(load_case(item).label)[None]
        pred = torch.zeros(1, 2, HEIGHT, WIDTH)
        pred[0, 1] = 2.0 * (label[0, 0] if split == "test" else 0) - 1
        pred[0, 1, 15, : hits[split]] = 1
        names = {key: [item[key]] for key in ("case", "group", "split")}
        engine.state = State(
            batch={**names, "mode": ["normal"], "domain": ["all"]},
            output={"pred": pred, "label": label},
        )
        counts.collect(engine)
    counts.write(engine)
    read = read_counts(tmp_path / "counts.csv")
    # target and prediction empty: no score; target missed and 7 false pixels: 0; right: 1
    assert case_f1(read)["f1"].tolist() == pytest.approx([float("nan"), 0, 1], nan_ok=True)
    assert pooled_f1(read) == pytest.approx(2 * 60 / (2 * 60 + 7 + 60))


def test_19_an_unknown_line_is_opted_into_by_the_schema_alone(folder):
    folder.rows[0]["cell_line"] = "unknown"
    with pytest.raises(DataError, match=r"row 2 \(images_P1_A01\).*declare missing='unknown'"):
        folder.item()
    assert folder.check(schema=make_schema("unknown")).problems == []
    raw = {"cell_line": "U2OS", "magnification": "20"}  # a further line is not an unknown one
    with pytest.raises(MetadataError, match=r"case 'c7'.*'HeLa', 'MDCK'.*got 'U2OS'"):
        make_schema("unknown").encode(raw, case="c7")


def test_20_a_key_that_one_item_lacks_is_named_with_the_item(folder):
    item = folder.item()
    encode = EncodeMetadatad(make_schema())
    assert encode(item)["meta"].shape == (3,)
    del item["metadata"]["magnification"]
    with pytest.raises(MetadataError, match="case 'images_P1_A01', field 'magnification'"):
        encode(item)


def test_29_a_well_is_a_well_of_its_plate(folder):
    """A01 of two plates are two groups; one field of view more of a well is not."""
    folder.image("P2_A01", np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH))
    second = {**folder.rows[0], "image": "images/P2_A01.tif", "plate": "P2", "split": "test"}
    folder.rows.append({**second, "group": "P2_A01"})
    assert folder.check().problems == []
    folder.rows[-1]["group"] = "P1_A01"
    assert len(folder.check().problems) == 1
