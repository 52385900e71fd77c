"""Which rows share a style, and how many have each."""

from collections import Counter

import numpy as np
import pytest
import tifffile

from metaseg_monai.simulate.styles import prepare_styles, share_styles

STYLES = ["exact", "fine", "coarse"]


def test_one_group_has_one_style_and_one_image_too(cells, tmp_path, rows_of):
    source = cells(fields=2)
    prepare_styles(source, tmp_path / "groups")
    styles = {}
    for row in rows_of(tmp_path / "groups"):
        assert styles.setdefault(row["group"], row["style"]) == row["style"]
    prepare_styles(source, tmp_path / "images", unit="image")
    of_group = {}
    for row in rows_of(tmp_path / "images"):
        of_group.setdefault(row["group"], set()).add(row["style"])
    assert max(map(len, of_group.values())) == 2


def item(image, group, **columns):
    return {"image": image, "group": group, "columns": columns}


def test_shares_are_equal_within_each_value():
    items = [item(f"{n}.tif", f"g{n}", line="ab"[n % 2]) for n in range(24)]
    for seed in range(5):
        shared = share_styles(items, STYLES, seed, "line", "group")
        counts = Counter((i["columns"]["line"], shared[i["image"],]) for i in items)
        assert set(counts.values()) == {4}
        assert len(counts) == 6


def test_all_rows_of_an_image_share_its_style():
    items = [item(f"{n // 2}.tif", f"g{n}") for n in range(12)]
    shared = share_styles(items, STYLES, 0, None, "image")
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
