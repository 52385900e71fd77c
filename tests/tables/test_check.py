import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.tables import check_table

REAL = Path(os.environ.get("METASEG_DATA", "../shared/data"))
NO_VALIDATION = "no rows of the split 'val': training needs train and val, evaluation test"


def test_good_table(folder, task_schema):
    problems, warnings, summary = check_table(folder[0], task_schema)
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


def test_missing_table_raises(tmp_path, task_schema):
    with pytest.raises(DataError, match="no such table"):
        check_table(tmp_path, task_schema)


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
    problems, _, summary = check_table(REAL / "wbc_d1", schema, columns)
    assert "137 cases" in summary
    assert "train: 65 cases; 54 images; 54 groups; task: cytoplasm 11, nucleus 54" in summary
    (problem,) = problems  # the published set holds one image twice, in train and in val
    assert "d1_139.png (train)" in problem
    assert "d1_112.png (val)" in problem
    kept = check_table(REAL / "wbc_d1", schema, columns | {"exclude": ["images/d1_139.png"]})
    assert kept.problems == []
