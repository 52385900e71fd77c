"""Orientation tags of pictures: one answer with and without them, masks in the file's own frame."""

import csv

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.object_table import write_labels
from metaseg_monai.images.image import as_stored, upright
from metaseg_monai.images.read import read_header, read_image, read_label
from metaseg_monai.images.write import mask_suffix, write_mask
from metaseg_monai.prepare.cells import prepare_cells
from metaseg_monai.tables.check import check_table, load_case

STORED = np.add.outer(np.arange(24) * 5, np.arange(40) * 3).astype(np.uint8)
TAGS = range(1, 9)


def with_tag(path, array, tag):
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="minisblack", extratags=[(274, 3, 1, tag, True)])
        return path
    exif = PIL.Image.Exif()
    exif[274] = tag
    PIL.Image.fromarray(array).save(
        path, exif=exif, **({"quality": 98} if "j" in path.suffix else {})
    )
    return path


def shown(array, tag):
    """As Pillow, which knows of no code of ours, turns it."""
    picture = PIL.Image.fromarray(array)
    picture.getexif()[274] = tag
    return np.array(PIL.ImageOps.exif_transpose(picture))


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_pictures_are_turned_upright_and_masks_come_back_as_stored(tmp_path, suffix, tag):
    path = with_tag(tmp_path / f"a{suffix}", STORED, tag)
    image = read_image(path)
    expected = shown(STORED, tag)
    assert image.array[0].shape == expected.shape == image.attributes["spatial_shape"]
    assert np.abs(image.array[0].astype(int) - expected).max() <= (8 if suffix == ".jpg" else 0)
    header = read_header(path)
    assert header["spatial_shape"] == expected.shape
    mask = (expected > 120).astype(np.uint8)
    made = write_mask(mask, tmp_path / f"m{mask_suffix(header)}", header)
    raw = tifffile.imread(made) if suffix == ".tif" else np.array(PIL.Image.open(made))
    np.testing.assert_array_equal(raw, STORED > 120)  # the picture's own frame
    np.testing.assert_array_equal(shown(raw, tag), mask)
    np.testing.assert_array_equal(read_label(made).array[0], mask)
    if tag != 1:
        with PIL.Image.open(made) as file:
            assert file.getexif()[274] == tag


@pytest.mark.parametrize("tag", TAGS)
def test_turning_back_undoes_it(tag):
    there = upright(STORED[None], tag)[0]
    np.testing.assert_array_equal(as_stored(there, tag), STORED)


def test_a_tag_that_is_none_turns_nothing(tmp_path):
    path = with_tag(tmp_path / "a.tif", STORED, 9)
    np.testing.assert_array_equal(read_image(path).array[0], STORED)


def test_objects_come_back_as_stored(tmp_path):
    labels = shown(np.arange(960, dtype=np.uint16).reshape(24, 40), 6)
    path = write_labels(tmp_path / "o.tif", labels, 0.5, 6)
    np.testing.assert_array_equal(tifffile.imread(path), np.arange(960).reshape(24, 40))
    np.testing.assert_array_equal(read_label(path).array[0], labels)


def table_of(folder, image, label):
    rows = [["image", "label", "group", "split"], [image.name, label.name, "g", "train"]]
    with (folder / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "table.csv"


def test_image_and_label_agree_with_and_without_the_tag(tmp_path):
    image = with_tag(tmp_path / "a.png", STORED, 6)
    upright_label = (shown(STORED, 6) > 120).astype(np.uint8)
    tifffile.imwrite(tmp_path / "plain.tif", upright_label, photometric="minisblack")
    tagged = with_tag(tmp_path / "tagged.tif", (STORED > 120).astype(np.uint8), 6)
    found = [
        load_case({"image": str(image), "label": str(label)}).label
        for label in (tmp_path / "plain.tif", tagged)
    ]
    np.testing.assert_array_equal(*found)
    told = check_table(table_of(tmp_path, image, tagged))
    assert any("turned upright as their orientation tag says" in one for one in told.warnings)
    flat = with_tag(tmp_path / "flat.tif", (STORED > 120).astype(np.uint8), 1)
    with pytest.raises(DataError, match=r"label of 1 channel.*orientation tag 6"):
        load_case({"image": str(image), "label": str(flat)})


def test_preparing_tells_of_the_tag(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / "s" / name).mkdir(parents=True)
    with_tag(tmp_path / "s/images/a.tif", STORED, 8)
    mask = (shown(STORED, 8) > 120).astype(np.uint8)
    tifffile.imwrite(tmp_path / "s/masks/a.tif", mask, photometric="minisblack")
    (tmp_path / "s/meta.csv").write_text("image,task\na,x\n")
    made = prepare_cells(tmp_path / "s", tmp_path / "out")
    assert "image turned upright as its orientation tag says" in made.summary
    with_tag(tmp_path / "s/masks/a.tif", (STORED > 120).astype(np.uint8), 8)
    again = prepare_cells(tmp_path / "s", tmp_path / "out")
    assert "mask turned upright as its orientation tag says" in again.summary
    case = load_case(
        {"image": str(tmp_path / "out/images/a.tif"), "label": str(tmp_path / "out/labels/a.tif")}
    )
    np.testing.assert_array_equal(case.label[0], case.image[0] > 120)
