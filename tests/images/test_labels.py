"""Labels: what a file stores against what it means, in every format and command."""

import csv
import re
import shutil

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile

from metaseg_monai.errors import ConfigError, DataError, DataWarning
from metaseg_monai.images.image import whole_numbers
from metaseg_monai.images.read import read_image, read_label
from metaseg_monai.prepare.cells import prepare_cells
from metaseg_monai.prepare.dsb2018 import prepare_dsb2018
from metaseg_monai.sharing.score import score
from metaseg_monai.tables.check import check_table, load_case
from metaseg_monai.tables.table import read_table
from metaseg_monai.transforms import LoadCased

MASK = np.zeros((20, 30), np.uint8)
MASK[4:9, 6:18] = 1  # 10 %
GREY = {"photometric": "minisblack"}


def palette_png(path, indices, colours, clear=None, bits=8):
    picture = PIL.Image.fromarray(indices, "P")
    picture.putpalette([part for colour in colours for part in colour])
    picture.save(path, bits=bits, **({} if clear is None else {"transparency": bytes(clear)}))
    return path


def palette_tiff(path, indices, colours):
    table = np.zeros((3, 256), np.uint16)
    table[:, : len(colours)] = np.array(colours).T * 257
    tifffile.imwrite(path, indices, photometric="palette", colormap=table)
    return path


def white(path, mask):
    tifffile.imwrite(path, mask, photometric="miniswhite")
    return path


BLACK, WHITE, RED = (0, 0, 0), (255, 255, 255), (255, 0, 0)
TWOFOLD = {
    "min-is-white 8 bit": (".tif", lambda path: white(path, 255 * MASK), "10.0% of", "90.0% by"),
    "min-is-white 16 bit": (".tif", lambda path: white(path, MASK * np.uint16(65535)), "10", "90"),
    "min-is-white 1 bit": (".tif", lambda path: white(path, MASK > 0), "10.0%", "90.0%"),
    "palette from white": (
        ".png", lambda path: palette_png(path, 1 - MASK, [WHITE, BLACK]), "90.0%", "10.0%",
    ),
    "palette of 1 bit": (
        ".png", lambda path: palette_png(path, MASK, [WHITE, BLACK], bits=1), "10.0%", "90.0%",
    ),
    "palette TIFF": (
        ".tif", lambda path: palette_tiff(path, 1 - MASK, [WHITE, BLACK]), "90.0%", "10.0%",
    ),
    "two classes alike": (
        ".png", lambda path: palette_png(path, MASK + (MASK[::-1] * 2), [BLACK, RED, RED, RED]),
        "20.0%", "20.0%",
    ),
    "hidden class": (
        ".png", lambda path: palette_png(path, MASK, [BLACK, RED], clear=(255, 0)), "10.0%", "0.0%",
    ),
    "only bright background": (
        ".png", lambda path: palette_png(path, 0 * MASK, [WHITE, BLACK]), "0.0%", "100.0%",
    ),
}  # fmt: skip


@pytest.fixture(params=TWOFOLD)
def twofold(request, tmp_path):
    suffix, make, stored, shown = TWOFOLD[request.param]
    return make(tmp_path / f"label{suffix}"), rf"{stored}.*numbers, {shown}.*mask_values"


def table_of(folder, label):
    tifffile.imwrite(folder / "image.tif", np.arange(600, dtype=np.uint16).reshape(20, 30), **GREY)
    rows = [["image", "label", "group", "split"], ["image.tif", label.name, "g", "train"]]
    with (folder / "table.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "table.csv"


def cells(folder, label, **settings):
    for name in ("images", "masks"):
        (folder / "source" / name).mkdir(parents=True, exist_ok=True)
    source = folder / "source"
    table_of(folder, label)
    (folder / "image.tif").replace(source / "images" / "a.tif")
    (source / "masks" / f"a{label.suffix}").write_bytes(label.read_bytes())
    (source / "meta.csv").write_text("image,task\na.tif,x\n")
    shutil.rmtree(folder / "out", ignore_errors=True)
    return prepare_cells(source, folder / "out", **settings)


def test_what_can_be_read_in_two_ways_is_refused_by_every_command(twofold, tmp_path):
    label, message = twofold
    table = table_of(tmp_path, label)
    with pytest.raises(DataError, match=message):
        load_case({"image": str(tmp_path / "image.tif"), "label": str(label), "case": "c"})
    (problem,) = check_table(table).problems
    assert "read in two ways" in problem or "ambiguous" in problem
    for labels in ("classes", "binary", "instances"):
        made = cells(tmp_path, label, labels=labels)
        assert len(made.problems) == 1
        assert "mask_values" in made.problems[0]
        assert made.table is None


def test_the_shown_foreground_is_what_is_white(tmp_path):
    label = palette_png(tmp_path / "m.png", 1 - MASK, [WHITE, BLACK])
    cells(tmp_path, label, labels="binary", mask_values="shown")
    np.testing.assert_array_equal(read_label(tmp_path / "out/labels/a.tif").array[0], MASK)
    label = white(tmp_path / "n.tif", 255 * MASK)
    cells(tmp_path / "n", label, labels="binary", mask_values="stored")
    np.testing.assert_array_equal(read_label(tmp_path / "n/out/labels/a.tif").array[0], MASK)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: palette_png(folder / "a.png", MASK, [BLACK, WHITE]),
        lambda folder: palette_png(folder / "a.png", MASK, [(68, 1, 84), (253, 231, 37)]),
        lambda folder: palette_png(folder / "a.png", MASK, [BLACK, (128, 0, 0)], clear=(0, 255)),
        lambda folder: palette_tiff(folder / "a.tif", MASK, [BLACK, (0, 0, 255)]),
    ],
)
def test_a_palette_whose_index_0_is_dark_means_its_indices(tmp_path, make):
    np.testing.assert_array_equal(read_label(make(tmp_path)).array[0], MASK)


def test_a_transparent_grey_is_not_shown(tmp_path):
    path = tmp_path / "a.png"
    PIL.Image.fromarray(255 * MASK).save(path, transparency=255)
    with pytest.raises(DataError, match=r"value 255 is transparent.*10\.0%.*0\.0%"):
        read_label(path)
    PIL.Image.fromarray(MASK).save(path, transparency=0)
    assert read_label(path).array.sum() == MASK.sum()


@pytest.mark.parametrize("settings", [{"labels": "binary"}, {"threshold": 9}])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_colour_that_is_not_shown_is_no_foreground(tmp_path, settings, alpha):
    label = tmp_path / "a.png"
    shown = 255 * MASK
    if alpha:
        PIL.Image.fromarray(np.dstack([np.full_like(MASK, 255), shown]), "LA").save(label)
    else:
        PIL.Image.fromarray(np.dstack([~shown] * 3)).save(label, transparency=(255, 255, 255))
    (problem,) = cells(tmp_path, label, **settings).problems
    assert re.search(r"masks/a\.png: a mask of . channels.*without transparency", problem)
    assert len(read_image(label).array) == (2 if alpha else 3)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg"])
def test_lossy_masks_need_a_threshold(tmp_path, suffix):
    label = tmp_path / f"a{suffix}"
    PIL.Image.fromarray(255 * MASK).save(label, quality=60)
    message = r"JPEG.*changes values.*are not 0, 10\.\d% are above 127\.5; .*threshold 127\.5"
    with pytest.raises(DataError, match=message):
        load_case({"image": str(label), "label": str(label), "case": "c"})
    assert "JPEG" in cells(tmp_path, label, labels="binary").problems[0]
    cells(tmp_path, label, threshold=127)
    assert abs(int(read_label(tmp_path / "out/labels/a.tif").array.sum()) - MASK.sum()) < 8


def test_a_threshold_does_not_decide_what_is_white(tmp_path):
    label = white(tmp_path / "a.tif", 255 * MASK)
    assert "min-is-white" in cells(tmp_path, label, threshold=127).problems[0]
    cells(tmp_path / "n", label, threshold=127, mask_values="stored")
    np.testing.assert_array_equal(read_label(tmp_path / "n/out/labels/a.tif").array[0], MASK)


def test_object_files_in_two_ways_are_refused(tmp_path):
    folder = tmp_path / "stage1_train" / "n1"
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    PIL.Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30)).save(
        folder / "images/n1.png"
    )
    palette_png(folder / "masks/o.png", 1 - MASK, [WHITE, BLACK])
    assert "mask_values" in prepare_dsb2018(tmp_path, tmp_path / "out").problems[0]
    prepare_dsb2018(tmp_path, tmp_path / "two", mask_values="shown")
    np.testing.assert_array_equal(read_label(tmp_path / "two/labels/n1.tif").array[0], MASK)


@pytest.mark.parametrize(("kind", "largest"), [(np.uint8, 255), (np.uint16, 65535)])
def test_a_binary_mask_is_no_object(tmp_path, kind, largest):
    label = tmp_path / "a.tif"
    tifffile.imwrite(label, MASK.astype(kind) * kind(largest), **GREY)
    (told,) = cells(tmp_path, label, labels="instances").problems
    assert f"one object with the number {largest} in 10.0%" in told


def test_values_are_told_with_their_share(tmp_path):
    label = tmp_path / "a.tif"
    tifffile.imwrite(label, MASK * np.uint8(255), **GREY)
    with pytest.raises(DataError, match=r"255 \(60 px\), expected 0\.\.1: 10\.0% of its pixels"):
        load_case({"image": str(label), "label": str(label)})
    tifffile.imwrite(label, MASK * np.uint8(255) + MASK[::-1] * np.uint8(128), **GREY)
    (told,) = cells(tmp_path, label, labels="binary").problems
    assert "3 values (0 (80.0% of the pixels), 128 (10.0% of the pixels), 255" in told


def test_more_foreground_than_background_is_told(tmp_path):
    label = tmp_path / "a.tif"
    tifffile.imwrite(label, 1 - MASK, **GREY)
    told = check_table(table_of(tmp_path, label)).warnings
    assert any("more foreground than background (inverted?): image" in one for one in told)
    assert "more foreground than background (inverted?)" in cells(tmp_path, label).summary


def test_values_are_whole_within_a_thousandth():
    for kind in (np.float32, np.float64):
        close = (MASK[None] * 2).astype(kind) - kind(0.001) * MASK
        np.testing.assert_array_equal(whole_numbers(close, "a")[0], MASK * 2)
    for wrong in (0.998, 0.5, np.nan, np.inf):
        with pytest.raises(DataError, match="expected whole numbers"):
            whole_numbers(np.where(MASK[None], wrong, 0), "a")
    with pytest.raises(DataError, match=r"up to 0\.0009, which is none but 0"):
        whole_numbers(MASK[None] * 0.0009, "a")
    assert whole_numbers(np.float64(MASK[None]) * 300, "a").max() == 300


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_labels_that_nibabel_scaled_are_whole(tmp_path, kind):
    label = np.zeros((6, 7, 5))
    label[1:4, 2:5, 1:4], label[2, 3, 2] = 1, 2
    affine = np.diag([0.8, 0.8, 3.0, 1])
    stored = nib.Nifti1Image(label, affine)
    stored.set_data_dtype(kind)
    nib.save(stored, tmp_path / "scaled.nii.gz")
    if kind is np.uint8:
        assert np.abs(nib.load(tmp_path / "scaled.nii.gz").get_fdata() - label).max() > 1e-3
    nib.save(nib.Nifti1Image(label.astype(np.uint8), affine), tmp_path / "plain.nii.gz")
    image = nib.Nifti1Image(np.arange(210, dtype=np.int16).reshape(6, 7, 5), affine)
    nib.save(image, tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(read_label(tmp_path / "scaled.nii.gz").array[0], label)
    paths = {"image": str(tmp_path / "image.nii.gz"), "label": str(tmp_path / "scaled.nii.gz")}
    assert load_case(paths, classes=3).label.sum() == label.sum()
    score(tmp_path / "scaled.nii.gz", tmp_path / "plain.nii.gz", tmp_path / "out")
    with (tmp_path / "out/volumes.csv").open() as stream:
        assert all(float(row["dice"]) == 1 for row in csv.DictReader(stream))


def test_negative_classes_are_refused(tmp_path):
    label = tmp_path / "a.tif"
    tifffile.imwrite(label, -MASK.astype(np.int8), **GREY)
    with pytest.raises(DataError, match=r"label values -1 \(60 px\)"):
        load_case({"image": str(label), "label": str(label)})


def test_images_stay_as_they_are_shown(tmp_path):
    """Of an image larger numbers are brighter, which its photometric 0 says as clearly."""
    path = white(tmp_path / "a.tif", 200 * MASK)
    np.testing.assert_array_equal(read_image(path).array[0], 255 - 200 * MASK)


def test_settings_of_masks_are_checked_first(tmp_path):
    with pytest.raises(DataError, match="mask_values='white': expected one of stored, shown"):
        prepare_cells(tmp_path, tmp_path / "out", mask_values="white")


@pytest.mark.parametrize("settings", [{}, {"software": False}, {"compression": "zlib"}])
def test_boolean_masks_of_tifffile_are_read_by_a_word_of_the_user(tmp_path, settings):
    tifffile.imwrite(tmp_path / "label.tif", MASK.astype(bool), **settings)
    table = table_of(tmp_path, tmp_path / "label.tif")
    (told,) = check_table(table).problems
    assert re.search(r"10\.0%.*numbers, 90\.0%.*--mask_values stored.*Boolean masks", told)
    for values, share in (("stored", 0.1), ("shown", 0.9)):
        (item,) = read_table(table, mask_values=values).items("train")
        assert load_case(item).label.mean() == share
        with pytest.warns(DataWarning, match=f"two ways are taken as {values}"):
            assert "mask_values" not in LoadCased()(item)
        (told,) = [
            text for text in check_table(table, columns={"mask_values": values}).warnings
            if "mask_values" in text
        ]  # fmt: skip
        assert re.search(rf"image .*10\.0%.*90\.0%.*taken as {values}", told)
    with pytest.raises(ConfigError, match="mask_values"):
        read_table(table, mask_values="white")
