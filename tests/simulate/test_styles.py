"""Folders whose training masks have several styles: who draws how, what is drawn, refusals."""

from collections import Counter

import numpy as np
import pytest
import tifffile

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.rows import read_lines
from metaseg_monai.simulate import generate_cells
from metaseg_monai.simulate.generated import Stored
from metaseg_monai.simulate.polygons import polygonise
from metaseg_monai.simulate.styles import Drawing, prepare_styles, redraw, share_styles
from metaseg_monai.tables.table import read_table

STYLES = ["exact", "fine", "coarse"]


def test_a_third_of_the_training_rows_has_each_style_and_the_rest_is_exact(
    cells, tmp_path, rows_of
):
    source, output = cells(), tmp_path / "styled"
    summaries = prepare_styles(source, output)
    rows = rows_of(output)
    assert Counter(row["style"] for row in rows if row["split"] == "train") == {
        "exact": 4,
        "fine": 4,
        "coarse": 4,
    }
    assert {row["style"] for row in rows if row["split"] != "train"} == {"exact"}
    assert [row["cell_line"] for row in rows] == [row["cell_line"] for row in rows_of(source)]
    assert [(s.style, s.rows, s.objects) for s in summaries] == [(n, 4, 12) for n in STYLES]
    assert len(read_table(output, None).rows) == 16


def test_masks_are_the_polygons_of_their_objects_and_exact_ones_the_same_bytes(
    cells, tmp_path, nuclei, rows_of, plane
):
    source, output = cells(), tmp_path / "styled"
    prepare_styles(source, output)
    tolerances = {"fine": 2.0, "coarse": 3.5}
    for before, after in zip(rows_of(source), rows_of(output), strict=True):
        assert (output / after["image"]).read_bytes() == (source / before["image"]).read_bytes()
        if after["style"] == "exact":
            assert after["label"] == before["label"]
            assert (output / after["label"]).read_bytes() == (source / before["label"]).read_bytes()
        else:
            exact, drawn = plane(source / before["label"]), plane(output / after["label"])
            well = int(after["group"][1:])
            expected = polygonise(nuclei(10 * well), tolerances[after["style"]]) > 0
            assert np.array_equal(drawn, expected)
            assert not np.array_equal(drawn, exact)
            assert not (output / before["label"]).exists()


def test_the_summary_is_what_the_files_say(cells, tmp_path, nuclei, rows_of, plane):
    source, output = cells(), tmp_path / "styled"
    summaries = {summary.style: summary for summary in prepare_styles(source, output)}
    tp = fp = fn = 0
    changes = []
    for before, after in zip(rows_of(source), rows_of(output), strict=True):
        if after["style"] == "coarse":
            numbers = nuclei(10 * int(after["group"][1:]))
            drawn = plane(output / after["label"]) > 0
            tp += (drawn & (numbers > 0)).sum()
            fp += (drawn & (numbers == 0)).sum()
            fn += (~drawn & (numbers > 0)).sum()
            new = polygonise(numbers, 3.5)
            changes += [(new == n).sum() / (numbers == n).sum() - 1 for n in (1, 2, 3)]
        assert before["image"] == after["image"]
    assert summaries["coarse"].f1 == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert summaries["coarse"].area_change == pytest.approx(np.mean(changes))
    assert (summaries["exact"].f1, summaries["exact"].area_change) == (1.0, 0.0)
    assert summaries["coarse"].f1 < summaries["fine"].f1 < 1
    lines = [cells for _, cells in read_lines(output / "styles.csv")[1]]
    assert [line["style"] for line in lines] == STYLES
    assert float(lines[2]["f1"]) == summaries["coarse"].f1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(cells, tmp_path, contents):
    source = cells()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare_styles(source, tmp_path / name, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a["table.csv"] != c["table.csv"]


def test_a_file_of_object_numbers_is_drawn_again_beside_the_label(cells, tmp_path, rows_of, plane):
    source, output = cells("both"), tmp_path / "styled"
    prepare_styles(source, output)
    for before, after in zip(rows_of(source), rows_of(output), strict=True):
        label, numbers = plane(output / after["label"]), plane(output / after["instances"])
        assert np.array_equal(label > 0, numbers > 0)
        assert set(np.unique(numbers)) == {0, 1, 2, 3}
        changed = not np.array_equal(numbers, plane(source / before["instances"]))
        assert changed == (after["style"] != "exact")


def test_labels_of_object_numbers_keep_them_and_the_column_map_goes_along(
    cells, tmp_path, rows_of, plane
):
    source, output = cells("numbers"), tmp_path / "styled"
    left_out = rows_of(source)[0]["image"]
    columns = {"label_values": "instances", "exclude": [left_out]}
    prepare_styles(source, output, columns=columns)
    assert all(
        set(np.unique(plane(output / row["label"]))) == {0, 1, 2, 3} for row in rows_of(output)
    )
    again = read_table(output, None, output / "columns.json")
    assert len(again.rows) == 15
    assert again.rows[0]["label_values"] == "instances"


def test_each_class_of_a_label_keeps_its_value(cells, tmp_path, rows_of, plane):
    source = cells()
    for row in rows_of(source):
        label = plane(source / row["label"]).copy()
        label[:32] *= 2  # the two upper nuclei are of another class
        label[46:48, 29:31] = 0  # a hole
        tifffile.imwrite(source / row["label"], label)
    prepare_styles(source, tmp_path / "styled")
    for row in rows_of(tmp_path / "styled"):
        drawn = plane(tmp_path / "styled" / row["label"])
        assert drawn[16, 16] == drawn[16, 47] == 2
        assert drawn[50, 30] == 1
        assert drawn[46, 30] == 0


def test_parts_that_touch_at_a_corner_are_one_object(cells, tmp_path, rows_of):
    source = cells()
    for row in rows_of(source):
        label = np.zeros((64, 64), np.uint8)
        label[10:20, 10:20] = label[20:30, 20:30] = 1
        tifffile.imwrite(source / row["label"], label)
    summaries = prepare_styles(source, tmp_path / "styled")
    assert [summary.objects for summary in summaries] == [4, 4, 4]


def test_gaps_between_objects_that_filled_the_image_become_background(nuclei):
    full = np.ones((64, 64), np.uint8)
    drawing, change = redraw(Drawing(full, np.maximum(nuclei(1) * 3, 2), {}, {}), 3.0)
    assert np.array_equal(drawing.label, drawing.objects > 0)
    gaps = (drawing.objects == 0).sum()
    assert change.areas.sum() == full.size
    assert change.tp == change.redrawn.sum() == full.size - gaps < full.size


def test_generated_anomalies_are_drawn(tmp_path, rows_of):
    sizes = {"train": 3, "val": 1, "test": 1, "size": 48}
    generate_cells(tmp_path / "cells", "anomalies", **sizes)
    prepare_styles(tmp_path / "cells", tmp_path / "styled", unit="image", column="hand")
    rows = rows_of(tmp_path / "styled")
    assert len({row["image"] for row in rows}) < len(rows)
    assert {bool(row["instances"]) for row in rows if row["task"] == "anomalies"} == {False}


def row(image, group, **cells):
    return Stored(image, group, "train", (image,), None, None, cells)


def test_shares_are_equal_within_each_value():
    rows = [row(f"{n}.tif", f"g{n}", line="ab"[n % 2]) for n in range(24)]
    for seed in range(5):
        shared = share_styles(rows, STYLES, seed, "line", "group")
        counts = Counter((one.cells["line"], shared[one.images]) for one in rows)
        assert set(counts.values()) == {4}
        assert len(counts) == 6


def test_all_rows_of_an_image_share_its_style():
    rows = [row(f"{n // 2}.tif", f"g{n}") for n in range(12)]
    shared = share_styles(rows, STYLES, 0, None, "image")
    assert Counter(shared.values()) == {"exact": 2, "fine": 2, "coarse": 2}


def with_tasks(source, write_csv, rows_of):
    """Give every image a second row: anomalies, which have no file of object numbers."""
    rows = []
    for row in rows_of(source):
        label = np.zeros((64, 64), np.uint8)
        label[4:14, 40:60] = 1
        path = row["label"].replace("labels/", "labels/anomalies_")
        tifffile.imwrite(source / path, label)
        rows += [row | {"task": "nuclei"}]
        rows += [row | {"task": "anomalies", "label": path, "instances": ""}]
    write_csv(source / "table.csv", rows)
    return rows


@pytest.mark.parametrize("unit", ["group", "image"])
def test_the_tasks_of_an_image_share_its_style_and_have_labels_of_their_own(
    cells, tmp_path, write_csv, unit, rows_of, plane
):
    source, output = cells("both", fields=2), tmp_path / "styled"
    before = with_tasks(source, write_csv, rows_of)
    prepare_styles(source, output, unit=unit)
    rows = rows_of(output)
    assert [(r["image"], r["task"]) for r in rows] == [(r["image"], r["task"]) for r in before]
    styles = {row["image"]: row["style"] for row in rows}
    assert all(row["style"] == styles[row["image"]] for row in rows)
    of_group = {(row["group"], row["style"]) for row in rows if row["split"] == "train"}
    assert (len(of_group) == 12) is (unit == "group")  # of 12 groups
    assert Counter(row["style"] for row in rows if row["split"] == "train") == dict.fromkeys(
        STYLES, 16
    )
    assert len({row["label"] for row in rows}) == len(rows) == 64
    for row in rows:
        label = plane(output / row["label"])
        if row["task"] == "anomalies":
            assert row["instances"] == ""
            assert label[8, 50] == 1
            assert label[16, 16] == 0
        else:
            assert np.array_equal(label > 0, plane(output / row["instances"]) > 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerances": {"fine": 2.0}}, "expected one style of tolerance 0"),
        ({"tolerances": {"a/b": 0.0}}, "cannot name files"),
        ({"unit": "plate"}, "expected group or image"),
        ({"balance": "line"}, r"no such column; the table has .*cell_line"),
        ({"column": "cell_line"}, r"already tells rows apart \(HeLa, MDCK\)"),
        ({"columns": {"label": None}}, "label is null"),
        ({"tolerances": {"exact": 0, "fine": -1}}, "'fine' is -1"),
        ({"tolerances": {"exact": 0, "fine": "2"}}, "'fine' is '2'"),
        ({"tolerances": {"exact": 0, "fine": float("nan")}}, "'fine' is nan"),
        ({"tolerances": {"exact": False, "fine": 2}}, "'exact' is False"),
        ({"tolerances": {0: 0}}, "cannot name files"),
        ({"tolerances": 2}, r"tolerances=2: expected the tolerance .* of each style"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": "abc"}, "seed='abc'"),
        ({"seed": True}, "seed=True"),
        ({"column": "label"}, "column='label'"),
        ({"column": "instances"}, "column='instances'"),
        ({"column": " "}, "column=' '"),
    ],
)
def test_wrong_settings_are_refused_and_leave_nothing(cells, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        prepare_styles(cells(), tmp_path / "styled", **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["cells"]


def test_object_numbers_that_disagree_with_the_label_are_refused(cells, tmp_path, rows_of):
    source = cells("both")
    row = rows_of(source)[3]
    tifffile.imwrite(source / row["instances"], np.zeros((64, 64), np.uint16))
    with pytest.raises(DataError, match=r"case 'images_w3_0'.*cover other pixels"):
        prepare_styles(source, tmp_path / "styled")
    assert not (tmp_path / "styled").exists()


def test_a_label_of_fractions_is_refused(cells, tmp_path, rows_of):
    source = cells()
    tifffile.imwrite(source / rows_of(source)[0]["label"], np.full((64, 64), 0.5, np.float32))
    with pytest.raises(DataError, match=r"case 'images_w0_0'.*whole numbers"):
        prepare_styles(source, tmp_path / "styled")


@pytest.mark.parametrize("told", [("", ""), ("", "unknown")])
def test_rows_that_nothing_tells_apart_are_refused(cells, tmp_path, write_csv, rows_of, told):
    source = cells()
    rows = [row | {"task": told[0]} for row in rows_of(source)]
    write_csv(source / "table.csv", [*rows, rows[0] | {"task": told[1]}])
    with pytest.raises(DataError, match=r"row 18.*the same image and metadata as row 2"):
        prepare_styles(source, tmp_path / "styled")


def test_a_task_that_only_one_row_names_tells_it_from_the_other(
    cells, tmp_path, write_csv, rows_of
):
    source = cells()
    rows = [row | {"task": ""} for row in rows_of(source)]
    write_csv(source / "table.csv", [*rows, rows[0] | {"task": "x"}])
    prepare_styles(source, tmp_path / "styled")
    assert len(rows_of(tmp_path / "styled")) == 17
