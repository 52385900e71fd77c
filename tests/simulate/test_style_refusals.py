"""Settings and folders of which no styles can be drawn."""

import numpy as np
import pytest
import tifffile

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.simulate.styles import prepare_styles


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerances": {"fine": 2.0}}, "expected one style of tolerance 0"),
        ({"tolerances": {"a/b": 0.0}}, "cannot name files"),
        ({"unit": "plate"}, "expected group or image"),
        ({"balance": "line"}, r"no such column; the table has .*cell_line"),
        ({"column": "cell_line"}, r"already tells rows apart \(HeLa, MDCK\)"),
        ({"columns": {"label": None}}, "label is null"),
        ({"reference_diameter_px": 0.0}, "reference_diameter_px is"),
        ({"tolerances": {"exact": 0, "fine": -1}}, "'fine' is -1"),
        ({"tolerances": {"exact": 0, "fine": "2"}}, "'fine' is '2'"),
        ({"tolerances": {"exact": 0, "fine": float("nan")}}, "'fine' is nan"),
        ({"tolerances": {"exact": False, "fine": 2}}, "'exact' is False"),
        ({"tolerances": {0: 0}}, "cannot name files"),
        ({"tolerances": 2}, r"tolerances=2: expected the tolerance .* of each style"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": "abc"}, "seed='abc'"),
        ({"seed": True}, "seed=True"),
        ({"reference_diameter_px": "20"}, "reference_diameter_px is '20'"),
        ({"reference_diameter_px": float("inf")}, "reference_diameter_px is inf"),
        ({"column": "label"}, "column='label'"),
        ({"column": "instances"}, "column='instances'"),
        ({"column": " "}, "column=' '"),
    ],
)
def test_wrong_settings_are_refused_and_leave_nothing(cells, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        prepare_styles(cells(), tmp_path / "styled", **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["cells"]


def test_a_folder_that_holds_files_is_refused(cells, tmp_path):
    (tmp_path / "styled").mkdir()
    (tmp_path / "styled" / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="not empty"):
        prepare_styles(cells(), tmp_path / "styled")


def test_object_numbers_that_disagree_with_the_label_are_refused(cells, tmp_path, rows_of):
    source = cells("both")
    row = rows_of(source)[3]
    tifffile.imwrite(source / row["instances"], np.zeros((64, 64), np.uint16))
    with pytest.raises(DataError, match=r"case 'images_w3_0'.*cover other pixels"):
        prepare_styles(source, tmp_path / "styled")
    assert not (tmp_path / "styled").exists()


def test_object_numbers_outside_of_the_folder_are_refused(cells, tmp_path, write_csv, rows_of):
    source = cells("both")
    rows = rows_of(source)
    rows[0]["instances"] = "../n.tif"
    write_csv(source / "table.csv", rows)
    with pytest.raises(DataError, match="leaves the table's folder"):
        prepare_styles(source, tmp_path / "styled")


def test_a_label_of_fractions_is_refused(cells, tmp_path, rows_of):
    source = cells()
    tifffile.imwrite(source / rows_of(source)[0]["label"], np.full((64, 64), 0.5, np.float32))
    with pytest.raises(DataError, match=r"case 'images_w0_0'.*whole numbers"):
        prepare_styles(source, tmp_path / "styled")


def test_rows_that_nothing_tells_apart_are_refused(cells, tmp_path, write_csv, rows_of):
    source = cells()
    rows = rows_of(source)
    write_csv(source / "table.csv", [*rows, rows[0]])
    with pytest.raises(DataError, match=r"row 18.*the same image and metadata as row 2"):
        prepare_styles(source, tmp_path / "styled")
