"""One case as a network takes it, and what is wrong with the files of a table."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
from monai.data import MetaTensor

from metaseg_monai.errors import DataError
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.tables import check_table, load_case

REAL = Path(os.environ.get("METASEG_DATA", "../shared/data"))
NO_VALIDATION = "no rows of the split 'val': training needs train and val, evaluation test"
PIXELS = np.arange(600, dtype=np.uint8).reshape(20, 30)


@pytest.fixture
def item(tmp_path):
    def make(image=PIXELS, label=None, **entries):
        made = {"image": str(tmp_path / "i.tif"), "case": "c7", **entries}
        tifffile.imwrite(tmp_path / "i.tif", image)
        if label is not None:
            tifffile.imwrite(tmp_path / "l.tif", label, photometric="minisblack")
            made["label"] = str(tmp_path / "l.tif")
        return made

    return make


def label_with(value, dtype=np.uint8, shape=(20, 30)):
    label = np.zeros(shape, dtype)
    label[3:5, 6:9] = value
    return label


def test_image_and_label(item):
    loaded = load_case(item(label=label_with(1)))
    assert loaded.image.shape == loaded.label.shape == (1, 20, 30)
    assert (loaded.image.dtype, loaded.label.dtype) == (np.float32, np.uint8)
    np.testing.assert_array_equal(loaded.image[0], PIXELS)
    assert loaded.label.sum() == 6
    assert loaded.remarks == ()
    assert load_case(item()).label is None
    assert load_case(item(), channels="rgb").image.shape == (3, 20, 30)


@pytest.mark.parametrize(
    ("value", "dtype", "told"), [(255, np.uint8, "255"), (-1, np.int16, "-1"), (2, np.uint8, "2")]
)
def test_label_outside_the_classes(item, value, dtype, told):
    with pytest.raises(
        DataError, match=rf"case 'c7': .*l\.tif: label values {told} \(6 px\), expected 0\.\.1"
    ):
        load_case(item(label=label_with(value, dtype)))


def test_more_classes(item):
    assert load_case(item(label=label_with(2)), classes=3).label.max() == 2
    wide = load_case(item(label=label_with(300, np.uint16)), classes=301).label
    assert (wide.dtype, wide.max()) == (np.int64, 300)
    with pytest.raises(DataError, match="2 or more"):
        load_case(item(), classes=1)


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_label_of_fractions(item, value):
    with pytest.raises(DataError, match=rf"case 'c7'.*label value {value}"):
        load_case(item(label=label_with(value, np.float32)))


def test_label_of_whole_floats_is_taken(item):
    assert load_case(item(label=label_with(1, np.float64))).label.sum() == 6


def test_palette_of_a_label_is_not_looked_up(item, tmp_path):
    made = item()
    picture = PIL.Image.fromarray(label_with(1)).convert("P")
    picture.putdata(label_with(1).ravel().tolist())
    picture.putpalette([0, 0, 0, 250, 130, 10])
    picture.save(tmp_path / "l.png")
    assert load_case({**made, "label": str(tmp_path / "l.png")}).label.sum() == 6


def test_label_values_choose_the_foreground(item):
    label = label_with(2, np.int16)
    label[0, 0], label[1, 1] = -7, 1
    assert not load_case(item(label=label, label_values=[])).label.any()
    loaded = load_case(item(label=label, label_values=[2, -7]))
    assert loaded.label.sum() == 7
    assert loaded.label[0, 0, 0] == 1
    assert loaded.label[0, 1, 1] == 0


def test_lists_of_label_values_are_classes(item):
    label = label_with(2, np.int16)
    label[0, 0], label[0, 1], label[1, 1], label[0, 2] = 117, 300, 1, 9
    loaded = load_case(item(label=label, label_values=[[300], [2, 117]]), classes=3)
    assert loaded.label[0, 0, :3].tolist() == [2, 1, 0]
    assert loaded.label[0, 1, 1] == 0
    assert np.bincount(loaded.label.ravel()).tolist()[1:] == [1, 7]
    with pytest.raises(DataError, match=r"make 2 classes beside the background; set classes to 3"):
        load_case(item(label=label, label_values=[[300], [2, 117]]))


def test_every_object_number_is_foreground(item):
    label = label_with(2, np.uint16)
    label[0, 0], label[1, 1] = 700, 1
    loaded = load_case(item(label=label, label_values="instances"))
    assert loaded.label.sum() == 8
    assert loaded.label.max() == 1
    label = label.astype(np.int16)
    label[0, 0] = -7
    with pytest.raises(DataError, match=r"label values -7"):
        load_case(item(label=label, label_values="instances"))


@pytest.mark.parametrize("shape", [(30, 20), (19, 30), (20, 30, 3)])
def test_label_of_another_shape(item, shape):
    with pytest.raises(DataError, match=r"case 'c7'.*l\.tif.*expected"):
        load_case(item(label=np.zeros(shape, np.uint8)))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_pixels_that_are_not_finite(item, value):
    image = PIXELS.astype(np.float64)
    image[2, 3] = value
    with pytest.raises(DataError, match=r"case 'c7': .*i\.tif: 1 of 600 pixels are not finite"):
        load_case(item(image))


def test_constant_image_is_remarked(item):
    (remark,) = load_case(item(np.ones((20, 30), np.uint8))).remarks
    assert "c7" in remark
    assert "every pixel is 1" in remark


def test_label_on_another_grid(tmp_path):
    for name, affine in (("i.nii", np.eye(4)), ("l.nii", np.diag([-1, -1, 1, 1]))):
        nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), affine), tmp_path / name)
    item = {"image": str(tmp_path / "i.nii"), "label": str(tmp_path / "l.nii"), "case": "c7"}
    with pytest.raises(DataError, match=r"case 'c7'.*l\.nii.*affine"):
        load_case(item)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_arrays_are_taken_as_they_are(kind):
    loaded = load_case({"image": kind(PIXELS), "label": kind(label_with(1)), "case": "c7"})
    assert loaded.image.shape == loaded.label.shape == (1, 20, 30)
    assert (loaded.attributes["stored"], loaded.attributes["affine"]) == ("uint8", None)
    with pytest.raises(DataError, match=r"case 'c7': array: label values 7 \(6 px\)"):
        load_case({"image": kind(PIXELS), "label": kind(label_with(7)), "case": "c7"})
    with pytest.raises(DataError, match=r"an array of shape \(600,\), expected"):
        load_case({"image": kind(PIXELS.ravel())})


def test_a_tensor_of_a_volume_brings_its_affine():
    image = MetaTensor(torch.zeros(1, 3, 4, 5), affine=torch.diag(torch.tensor([2.0, 2, 5, 1])))
    assert load_case({"image": image}).attributes["affine"].tolist()[2] == [0, 0, 5, 0]
    with pytest.raises(DataError, match="affine differs"):
        load_case({"image": image, "label": MetaTensor(torch.zeros(1, 3, 4, 5))})


# Whole tables.


def test_good_table(folder, task_schema):
    problems, warnings, summary, _ = check_table(folder[0], task_schema)
    assert problems == []
    assert warnings == [NO_VALIDATION]
    assert "20x30 (3)" in summary
    assert "0: 97.33%, 1: 2.67%" in summary  # 16 of 600 pixels


def test_faults_of_files_and_table_in_one_list(folder, task_schema, write_csv):
    path, rows = folder
    rows[2]["task"] = "dsic"
    write_csv(path / "table.csv", rows)
    tifffile.imwrite(path / "labels/0.tif", np.full((20, 30), 7, np.uint8))
    (path / "images/1.tif").write_bytes(b"II*\0")
    problems = check_table(path, task_schema).problems
    assert len(problems) == 3
    for told in ("dsic", "label values 7", "images/1.tif"):
        assert sum(told in problem for problem in problems) == 1


def test_same_content_across_splits_is_a_problem(folder, task_schema):
    path, _ = folder
    (path / "images/2.tif").write_bytes((path / "images/0.tif").read_bytes())
    (problem,) = check_table(path, task_schema).problems
    assert "images/0.tif (train)" in problem
    assert "images/2.tif (test)" in problem


def test_same_content_in_one_split_is_a_warning(folder, task_schema):
    path, _ = folder
    (path / "images/1.tif").write_bytes((path / "images/0.tif").read_bytes())
    found = check_table(path, task_schema)
    assert found.problems == []
    assert "several paths" in found.warnings[0]


def test_constant_images_and_empty_masks_are_warned_of(folder, task_schema):
    path, _ = folder
    tifffile.imwrite(path / "images/0.tif", np.ones((20, 30), np.uint8))
    tifffile.imwrite(path / "labels/1.tif", np.zeros((20, 30), np.uint8))
    found = check_table(path, task_schema, classes=3)
    assert found.problems == []
    assert len(found.warnings) == 4
    for told in ("every pixel is 1", "1 of 3 masks are empty: images_1", "class 2 is in no label"):
        assert sum(told in warning for warning in found.warnings) == 1
    assert "empty masks: 1" in found.summary


def test_different_channels_are_a_problem_unless_converted(folder, task_schema):
    path, _ = folder
    colour = np.random.default_rng(5).integers(0, 255, (20, 30, 3), np.uint8)
    tifffile.imwrite(path / "images/0.tif", colour, photometric="rgb")
    (problem,) = check_table(path, task_schema).problems
    assert "different numbers of channels" in problem
    assert check_table(path, task_schema, channels="grey").problems == []


def test_flags_of_the_schema_are_warnings(folder, size_schema, write_csv):
    path, rows = folder
    for row, size in zip(rows, ["12", "120", "30"], strict=True):
        row["size_mm"] = size
    write_csv(path / "table.csv", rows)
    found = check_table(path, size_schema)
    assert found.problems == []
    assert found.warnings[1:] == [NO_VALIDATION]
    assert "images_1" in found.warnings[0]


def test_images_of_several_sizes_are_told(folder, task_schema):
    path, _ = folder
    for kind in ("images", "labels"):
        tifffile.imwrite(path / kind / "1.tif", np.eye(24, dtype=np.uint8))
    found = check_table(path, task_schema)
    assert found.problems == []
    assert "the images have 2 sizes: validation and tests see whole images" in found.warnings[0]
    found = check_table(path, task_schema, several=False)
    assert not any("sizes" in text for text in found.warnings)


def test_folds_are_told_beside_the_splits(folder, task_schema, write_csv):
    path, rows = folder
    assert "by fold" not in check_table(path, task_schema).summary
    for row, fold in zip(rows, (0, 1, 4), strict=True):
        row |= {"split": "train", "group": f"of {fold}", "fold": fold}
    write_csv(path / "table.csv", rows)
    lines = check_table(path, task_schema).summary.splitlines()
    told = "  cases by fold: 0 tests 1, 1 tests 1, 4 tests 1; the splits above are those without "
    assert f"{told}--fold" in lines
    write_csv(path / "table.csv", [*rows[:2], rows[2] | {"fold": 1, "group": "of 1"}])
    (warning,) = [text for text in check_table(path, task_schema).warnings if "--fold" in text]
    assert warning.startswith("no training takes --fold: ")  # one group is left for two splits
    rows[0]["fold"] = "one"
    write_csv(path / "table.csv", rows)
    found = check_table(path, task_schema)
    assert "cases by fold" not in found.summary
    (warning,) = [text for text in found.warnings if "--fold" in text]
    assert "fold 'one', expected 0, 1, ..." in warning


@pytest.mark.real_data
def test_real_blood_cells_by_a_column_map():
    if not (REAL / "wbc_d1").is_dir():
        pytest.skip(f"no real data in {REAL} (set METASEG_DATA)")
    when = {"provenance": "acquisition", "availability": "acquisition"}
    schema = MetadataSchema([Categorical(name="task", values=("nucleus", "cytoplasm"), **when)])
    columns = {
        "table": "manifest.csv",
        "group": None,
        "metadata": {"task": "tasks_given"},
        "rows_per": "task",
        "label_values": {"task": {"nucleus": [2], "cytoplasm": [1]}},
    }
    found = check_table(REAL / "wbc_d1", schema, columns)
    assert "137 cases" in found.summary
    assert "train: 65 cases; 54 images; 54 groups; task: cytoplasm 11, nucleus 54" in found.summary
    (problem,) = found.problems  # the published set holds one image twice, in train and in val
    assert "d1_139.png (train)" in problem
    assert "d1_112.png (val)" in problem
    kept = check_table(REAL / "wbc_d1", schema, columns | {"exclude": ["images/d1_139.png"]})
    assert kept.problems == []
