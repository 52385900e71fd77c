from pathlib import Path

import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.tables import read_table


def test_items_of_a_split(folder, task_schema):
    path, rows = folder
    table = read_table(path, task_schema)
    assert table.splits == ("train", "test")
    assert table.items("test") == [
        {
            "image": str(path / "images/2.tif"),
            "label": str(path / "labels/2.tif"),
            "case": "images_2",
            "group": "patient2",
            "split": "test",
            "metadata": {"task": "disc"},
            "columns": rows[2],
        }
    ]
    assert read_table(path / "table.csv", task_schema) == table


def test_items_are_copies(folder, task_schema):
    table = read_table(folder[0], task_schema)
    table.items("train")[0]["metadata"]["task"] = "changed"
    assert table.items("train")[0]["metadata"]["task"] == "disc"


def test_absent_split_names_those_present(folder, task_schema):
    with pytest.raises(DataError, match="no rows of the split 'val'; the table has train, test"):
        read_table(folder[0], task_schema).items("val")


def test_summary_counts(folder, task_schema):
    summary = read_table(folder[0], task_schema).summary()
    assert "train: 2 cases; 2 images; 2 groups; task: disc 1, ring 1" in summary


def test_text_is_kept_exact(folder, size_schema, write_csv):
    path, rows = folder
    for row, size in zip(rows, ["041.50", "1e1", "7"], strict=True):
        row["size_mm"] = size
        row["group"] = "007" if row["split"] == "train" else "08"
    write_csv(path / "table.csv", rows)
    items = read_table(path, size_schema).items("train")
    assert [item["metadata"]["size_mm"] for item in items] == ["041.50", "1e1"]
    assert items[0]["group"] == "007"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({0: {"image": "images/9.tif"}}, r"row 2 \(images_9\): no such file 'images/9.tif'"),
        ({0: {"label": "labels/9.tif"}}, r"row 2 \(images_0\): no such file 'labels/9.tif'"),
        ({0: {"label": ""}}, r"row 2 \(images_0\).*no label"),
        ({0: {"image": ""}}, "row 2.*empty path"),
        ({0: {"image": "table.csv"}}, "unsupported file type 'table.csv'"),
        ({0: {"image": "../outside.tif"}}, "leaves the table's folder"),
        ({0: {"label": "/etc/passwd"}}, "'/etc/passwd' leaves the table's folder"),
        ({0: {"image": "C:\\a.tif"}}, "leaves the table's folder"),
        ({0: {"group": "patient2"}}, r"group 'patient2' is in several splits: train \(row 2\), te"),
        ({0: {"group": ""}}, "no group"),
        ({0: {"image": "images/2.tif"}}, "image 'images/2.tif' is in several splits"),
        ({0: {"split": "Train"}}, "unknown split 'Train', expected train, val, test"),
        ({0: {"task": "dsic"}}, r"row 2 \(images_0\).*'task'.*dsic"),
        ({0: {"task": ""}}, r"row 2 \(images_0\).*'task'"),
        ({1: {"image": "images/0.tif", "task": "disc"}}, "same image and metadata as row 2"),
    ],
)
def test_each_fault_is_named(folder, task_schema, write_csv, edit, message, read_edited):
    with pytest.raises(DataError, match=message):
        read_edited(folder, task_schema, write_csv, edit)


@pytest.mark.parametrize("size", ["NaN", "", "None", "4 mm", "inf"])
def test_a_size_that_is_no_number_is_named(folder, size_schema, write_csv, size):
    path, rows = folder
    for row in rows:
        row["size_mm"] = "12"
    rows[1]["size_mm"] = size
    write_csv(path / "table.csv", rows)
    with pytest.raises(DataError, match=r"1 problem\n.*row 3 \(images_1\).*'size_mm'"):
        read_table(path, size_schema)


def test_all_problems_in_one_report(folder, task_schema, write_csv, read_edited):
    with pytest.raises(DataError, match=r"table\.csv: 4 problems") as caught:
        read_edited(
            folder,
            task_schema,
            write_csv,
            {
                0: {"split": "x", "task": "dsic"},
                1: {"label": "labels/9.tif", "group": "patient2"},
            },
        )
    for told in ("unknown split", "dsic", "no such file", "several splits"):
        assert told in str(caught.value)


def test_long_reports_are_cut(folder, task_schema, write_csv):
    path, rows = folder
    write_csv(path / "table.csv", [{**rows[0], "image": f"{n}.tif"} for n in range(50)])
    with pytest.raises(DataError, match=r"50 problems(.|\n)*and 20 more$") as caught:
        read_table(path, task_schema)
    assert len(str(caught.value).splitlines()) == 32


def test_missing_columns_are_all_named(folder, size_schema, write_csv):
    path, rows = folder
    write_csv(path / "table.csv", [{"image": row["image"]} for row in rows])
    with pytest.raises(DataError, match="no column 'task', 'size_mm', 'label', 'group', 'split'"):
        read_table(path, size_schema)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "empty"),
        ("image,label,task,group,split\n", "without rows"),
        ("image;label;task\na;b;c\n", "comma-separated"),
        ("image,image\na,b\n", "more than once"),
        ("image,label,task,group,split\na.tif,b\n", "row 2: 2 cells, the header has 5"),
        (b"image\n\xff\xfe\n", "not readable as UTF-8 CSV"),
        ('image\n"a\n', "not readable as UTF-8 CSV"),
    ],
)
def test_what_is_no_table(tmp_path, task_schema, content, message):
    (tmp_path / "table.csv").write_bytes(
        content if isinstance(content, bytes) else content.encode()
    )
    with pytest.raises(DataError, match=message):
        read_table(tmp_path, task_schema)


def test_missing_table_names_the_next_step(tmp_path, task_schema):
    with pytest.raises(DataError, match=r"table\.csv: no such table.*generate"):
        read_table(tmp_path, task_schema)


def test_byte_order_mark_of_a_spreadsheet_is_no_part_of_a_name(folder, task_schema):
    path, _ = folder
    text = (path / "table.csv").read_text()
    (path / "table.csv").write_text(text, encoding="utf-8-sig")
    assert len(read_table(path, task_schema).rows) == 3


def test_two_tasks_on_one_image_are_two_cases(folder, task_schema, write_csv, read_edited):
    table = read_edited(
        folder, task_schema, write_csv, {1: {"image": "images/0.tif", "group": "patient0"}}
    )
    assert [row["case"] for row in table.rows] == ["images_0__disc", "images_0__ring", "images_2"]


def test_paths_that_give_one_case_name_are_told(folder, task_schema, write_csv, read_edited):
    path, _ = folder
    (path / "images_1.tif").write_bytes((path / "images/1.tif").read_bytes())
    with pytest.raises(DataError, match="the case 'images_1' is also row 2"):
        read_edited(
            folder, task_schema, write_csv, {0: {"image": "images/1.tif", "task": "ring"}},
            {1: {"image": "images_1.tif"}},
        )  # fmt: skip


def test_relative_folder_gives_absolute_paths(folder, task_schema, monkeypatch):
    monkeypatch.chdir(folder[0].parent)
    item = read_table(folder[0].name, task_schema).items("test")[0]
    assert Path(item["image"]).is_absolute()


def test_a_space_after_a_group_does_not_hide_it_in_two_splits(folder, task_schema, write_csv):
    path, rows = folder
    test = next(row for row in rows if row["split"] == "test")
    test["group"] = next(row["group"] for row in rows if row["split"] == "train") + " "
    write_csv(path / "table.csv", rows)
    with pytest.raises(DataError, match="group"):
        read_table(path, task_schema)
