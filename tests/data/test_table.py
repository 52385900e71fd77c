from pathlib import Path

import pytest

from metaseg_monai.data import ColumnMap, read_table
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metadata import Continuous, MetadataSchema

SIZE = Continuous(
    name="size_mm",
    unit="mm",
    range=(5, 250),
    provenance="clinical prior",
    availability="pre-operative",
)


def read_edited(folder, schema, write_csv, *edits, columns=None):
    """Read the folder's table after edits {row: {column: cell}} or extra rows."""
    path, rows = folder
    for edit in edits:
        for number, cells in edit.items():
            rows[number].update(cells)
    write_csv(path / "table.csv", rows)
    return read_table(path, schema, columns)


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
def test_each_fault_is_named(folder, task_schema, write_csv, edit, message):
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


def test_all_problems_in_one_report(folder, task_schema, write_csv):
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


def test_two_tasks_on_one_image_are_two_cases(folder, task_schema, write_csv):
    table = read_edited(
        folder, task_schema, write_csv, {1: {"image": "images/0.tif", "group": "patient0"}}
    )
    assert [row["case"] for row in table.rows] == ["images_0__disc", "images_0__ring", "images_2"]


def test_paths_that_give_one_case_name_are_told(folder, task_schema, write_csv):
    path, _ = folder
    (path / "images_1.tif").write_bytes((path / "images/1.tif").read_bytes())
    with pytest.raises(DataError, match="the case 'images_1' is also row 2"):
        read_edited(
            folder, task_schema, write_csv, {0: {"image": "images/1.tif", "task": "ring"}},
            {1: {"image": "images_1.tif"}},
        )  # fmt: skip


def test_own_case_names(folder, task_schema, write_csv):
    path, rows = folder
    named = [{**row, "name": f"case {number}"} for number, row in enumerate(rows)]
    write_csv(path / "table.csv", named)
    table = read_table(path, task_schema, {"case": "name"})
    assert [row["case"] for row in table.rows] == ["case 0", "case 1", "case 2"]
    named[0]["name"], named[1]["name"] = "case 2", "a/b"
    write_csv(path / "table.csv", named)
    with pytest.raises(DataError, match=r"2 problems\n.*'a/b' cannot name(.|\n)*'case 2'"):
        read_table(path, task_schema, {"case": "name"})


def test_column_map_renames_and_planes(folder, task_schema, write_csv):
    path, rows = folder
    own = [
        {
            "file": f"{row['image']}|{row['image']}",
            "what": row["task"],
            "mask": row["label"],
            "set": {"train": "training", "test": "hold-out"}[row["split"]],
        }
        for row in rows
    ]
    write_csv(path / "own.csv", own)
    columns = ColumnMap(
        table="own.csv",
        image="file",
        label="mask",
        group=None,
        split="set",
        metadata={"task": "what"},
        separator="|",
        split_names={"training": "train", "hold-out": "test"},
    )
    item = read_table(path, task_schema, columns).items("test")[0]
    assert item["image"] == [str(path / "images/2.tif")] * 2
    assert item["metadata"] == {"task": "disc"}
    assert item["group"] == "images/2.tif"
    columns.save(path / "columns.json")
    assert read_table(path, task_schema, path / "columns.json").items("test") == [item]


def test_one_row_per_value_with_its_label_values(folder, task_schema, write_csv):
    columns = {"rows_per": "task", "label_values": {"task": {"disc": [2], "ring": [1, 3]}}}
    table = read_edited(folder, task_schema, write_csv, {0: {"task": "disc;ring"}}, columns=columns)
    told = [(row["case"], row["metadata"]["task"], row["label_values"]) for row in table.rows]
    assert told == [
        ("images_0__disc", "disc", [2]),
        ("images_0__ring", "ring", [1, 3]),
        ("images_1", "ring", [1, 3]),
        ("images_2", "disc", [2]),
    ]


def test_one_list_of_label_values_for_all_rows(folder, task_schema):
    table = read_table(folder[0], task_schema, {"label_values": [255]})
    assert {tuple(row["label_values"]) for row in table.rows} == {(255,)}


def test_a_value_without_label_values_is_a_problem(folder, task_schema):
    with pytest.raises(DataError, match=r"row 3 \(images_1\).*no label_values for 'ring'"):
        read_table(folder[0], task_schema, {"label_values": {"task": {"disc": [1]}}})


def test_column_map_of_another_schema_is_refused(folder, task_schema):
    with pytest.raises(DataError, match="the column map names colour"):
        read_table(folder[0], task_schema, {"metadata": {"colour": "task"}})


def test_relative_folder_gives_absolute_paths(folder, task_schema, monkeypatch):
    monkeypatch.chdir(folder[0].parent)
    item = read_table(folder[0].name, task_schema).items("test")[0]
    assert Path(item["image"]).is_absolute()


def test_excluded_rows_are_left_out_and_a_misspelt_one_is_told(folder, task_schema):
    columns = ColumnMap(exclude=["images/2.tif"])
    assert read_table(folder[0], task_schema, columns).splits == ("train",)
    with pytest.raises(DataError, match=r"excludes 'images/9\.tif', which no row has"):
        read_table(folder[0], task_schema, ColumnMap(exclude=["images/9.tif"]))


def test_a_space_after_a_group_does_not_hide_it_in_two_splits(folder, task_schema, write_csv):
    path, rows = folder
    test = next(row for row in rows if row["split"] == "test")
    test["group"] = next(row["group"] for row in rows if row["split"] == "train") + " "
    write_csv(path / "table.csv", rows)
    with pytest.raises(DataError, match="group"):
        read_table(path, task_schema)


PLACE = {
    "volume": "case_1",
    "plane": "3",
    "planes": "9",
    "spacing_z_mm": "5",
    "spacing_y_mm": "0.8",
    "spacing_x_mm": "0.7",
}


def test_the_place_of_a_slice_in_its_volume(folder, task_schema, write_csv):
    path, rows = folder
    write_csv(path / "table.csv", [{**row, **PLACE, "volume": row["group"]} for row in rows])
    item = read_table(path, task_schema).items("test")[0]
    assert (item["volume"], item["plane"], item["planes"]) == ("patient2", 3, 9)
    assert item["spacing_mm"] == (5.0, 0.8, 0.7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plane": "9"}, "counted from 0"),
        ({"plane": "-1"}, "counted from 0"),
        ({"plane": "\u00b2"}, "counted from 0"),
        ({"planes": ""}, "lacks planes"),
        ({"spacing_x_mm": "0"}, "above 0 mm"),
        ({"spacing_z_mm": "thin"}, "above 0 mm"),
    ],
)
def test_a_wrong_place_is_refused(folder, task_schema, write_csv, change, message):
    path, rows = folder
    write_csv(path / "table.csv", [{**row, **PLACE, **change} for row in rows])
    with pytest.raises(DataError, match=message):
        read_table(path, task_schema)


def test_place_columns_of_other_names(folder, task_schema, write_csv):
    path, rows = folder
    unnamed = {name: cell for name, cell in PLACE.items() if name != "volume"}
    write_csv(path / "table.csv", [{**row, **unnamed, "case_id": row["group"]} for row in rows])
    columns = ColumnMap(place={"volume": "case_id"})
    assert read_table(path, task_schema, columns).items("test")[0]["volume"] == "patient2"
    assert "volume" not in read_table(path, task_schema).items("test")[0]


def test_columns_in_another_unit(folder, write_csv):
    path, rows = folder
    sizes = ["4.1", "0.9", "12"]
    write_csv(
        path / "table.csv",
        [{**row, "size_cm": size} for row, size in zip(rows, sizes, strict=True)],
    )
    schema = MetadataSchema([SIZE])
    columns = ColumnMap(metadata={"size_mm": "size_cm"}, factors={"size_mm": 10})
    table = read_table(path, schema, columns)
    assert [row["metadata"]["size_mm"] for row in table.rows] == ["41", "9", "120"]
    with pytest.raises(DataError, match="is it in cm"):
        read_table(path, schema, ColumnMap(metadata={"size_mm": "size_cm"}))
    with pytest.raises(ConfigError, match="above 0"):
        ColumnMap(factors={"size_mm": 0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "volume 'case_1' has several values of group"),
        ({"group": "one", "planes": "7"}, "volume 'case_1' has several values of planes"),
        ({"group": "one", "plane": "0"}, r"plane 0 of volume 'case_1' has two images.*rows? 2"),
    ],
)
def test_volumes_that_contradict_themselves_are_refused(
    folder, task_schema, write_csv, change, message
):
    path, rows = folder
    placed = [{**row, **PLACE, "plane": str(n)} for n, row in enumerate(rows)]
    placed[0] |= {"group": "one"} if change else {}
    placed[1] |= change
    placed[2] |= {"volume": "another"} if change else {}
    write_csv(path / "table.csv", placed)
    with pytest.raises(DataError, match=message):
        read_table(path, task_schema)


def test_a_clinical_column_named_volume_is_no_place(folder, task_schema, write_csv):
    path, rows = folder
    blank = {"spacing_y_mm": "", "spacing_x_mm": ""}
    write_csv(path / "table.csv", [{**row, "volume": "12.3", **blank} for row in rows])
    item = read_table(path, task_schema).items("test")[0]
    assert "volume" not in item
    assert "spacing_mm" not in item
    assert item["columns"]["volume"] == "12.3"
