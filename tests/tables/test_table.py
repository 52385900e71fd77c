"""Tables of cases: items, column maps, places in volumes, and every fault by row and column."""

import json
from pathlib import Path

import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema, MetadataWarning
from metaseg_monai.tables import ColumnMap, read_table
from metaseg_monai.tables.table import scan_table

WHEN = {"provenance": "clinical prior", "availability": "pre-operative"}
PLACE = {
    "volume": "case_1",
    "plane": "3",
    "planes": "9",
    "spacing_z_mm": "5",
    "spacing_y_mm": "0.8",
    "spacing_x_mm": "0.7",
}
BLOOD_CELLS = {
    "table": "manifest.csv",
    "group": None,
    "metadata": {"task": "tasks_given"},
    "rows_per": "task",
    "label_values": {"task": {"nucleus": [2], "cytoplasm": [1]}},
}


def size_field(**settings):
    return Continuous(name="size_mm", unit="mm", range=(5, 250), **WHEN, **settings)


@pytest.fixture
def edited(folder, write_csv):
    """Write the folder's table with cells of all rows, or of single ones by their number."""
    path, rows = folder

    def edit(by_row=None, **every):
        for number, row in enumerate(rows):
            row.update(
                {name: cell(row) if callable(cell) else cell for name, cell in every.items()}
            )
            row.update((by_row or {}).get(number, {}))
        write_csv(path / "table.csv", rows)
        return path

    return edit


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
    assert [row["metadata"] for row in read_table(path).rows] == [{}] * 3  # without a schema
    table.items("train")[0]["metadata"]["task"] = "changed"  # of a copy
    assert table.items("train")[0]["metadata"]["task"] == "disc"
    with pytest.raises(DataError, match="no rows of the split 'val'; the table has train, test"):
        table.items("val")
    assert "train: 2 cases; 2 images; 2 groups; task: disc 1, ring 1" in table.summary()


def test_text_is_kept_exact(edited, size_schema):
    sizes = {0: {"size_mm": "041.50"}, 1: {"size_mm": "1e1"}}
    path = edited(sizes, size_mm="7", group=lambda row: "08" if row["split"] == "test" else "007")
    items = read_table(path, size_schema).items("train")
    assert [item["metadata"]["size_mm"] for item in items] == ["041.50", "1e1"]
    assert items[0]["group"] == "007"


def test_spaces_around_a_category_make_no_category_of_their_own(edited, task_schema):
    items = read_table(edited({0: {"task": " disc "}}), task_schema).items("train")
    assert items[0]["metadata"]["task"] == "disc"  # it is the domain that scores are given for


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
        ({0: {"group": "patient2 "}}, "group 'patient2' is in several splits"),
        ({0: {"group": ""}}, "no group"),
        ({0: {"group": "N/A"}}, "no group"),
        ({0: {"label": "images/0.tif"}}, "its image 'images/0.tif'; name its mask"),
        ({0: {"image": "images/2.tif"}}, "image 'images/2.tif' is in several splits"),
        ({0: {"split": "Train"}}, "unknown split 'Train', expected train, val, test"),
        ({0: {"task": "dsic"}}, r"row 2 \(images_0\).*'task'.*dsic"),
        ({0: {"task": ""}}, r"row 2 \(images_0\).*'task'"),
        ({1: {"image": "images/0.tif", "task": "disc"}}, "same image and metadata as row 2"),
    ],
)
def test_each_fault_is_named(edited, task_schema, edit, message):
    with pytest.raises(DataError, match=message):
        read_table(edited(edit), task_schema)


@pytest.mark.parametrize("size", ["NaN", "", "None", "4 mm", "inf"])
def test_a_size_that_is_no_number_is_named(edited, size_schema, size):
    path = edited({1: {"size_mm": size}}, size_mm="12")
    with pytest.raises(DataError, match=r"1 problem\n.*row 3 \(images_1\).*'size_mm'"):
        read_table(path, size_schema)


def test_all_problems_in_one_report(edited, task_schema):
    faults = {0: {"split": "x", "task": "dsic"}, 1: {"label": "labels/9.tif", "group": "patient2"}}
    with pytest.raises(DataError, match=r"table\.csv: 4 problems") as caught:
        read_table(edited(faults), task_schema)
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
        ("image,image\na,b\n", "more than once"),
        ("image,label,task,group,split\na.tif,b\n", "row 2: 2 cells, the header has 5"),
        ("image\n\udcff\udcfe\n", "not readable as UTF-8 CSV"),
        ('image\n"a\n', "not readable as UTF-8 CSV"),
        (None, r"table\.csv: no such table.*generate"),
    ],
)
def test_what_is_no_table(tmp_path, task_schema, content, message):
    if content is not None:
        (tmp_path / "table.csv").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=message):
        read_table(tmp_path, task_schema)


def test_byte_order_mark_of_a_spreadsheet_is_no_part_of_a_name(folder, task_schema):
    text = (folder[0] / "table.csv").read_text()
    (folder[0] / "table.csv").write_text(text, encoding="utf-8-sig")
    assert len(read_table(folder[0], task_schema).rows) == 3


def test_relative_folder_gives_absolute_paths(folder, task_schema, monkeypatch):
    monkeypatch.chdir(folder[0].parent)
    item = read_table(folder[0].name, task_schema).items("test")[0]
    assert Path(item["image"]).is_absolute()


def test_two_tasks_on_one_image_are_two_cases(edited, task_schema):
    path = edited({1: {"image": "images/0.tif", "group": "patient0"}})
    cases = [row["case"] for row in read_table(path, task_schema).rows]
    assert cases == ["images_0__disc", "images_0__ring", "images_2"]


def test_paths_that_give_one_case_name_are_told(edited, task_schema):
    path = edited({0: {"image": "images/1.tif", "task": "ring"}, 1: {"image": "images_1.tif"}})
    (path / "images_1.tif").write_bytes((path / "images/1.tif").read_bytes())
    with pytest.raises(DataError, match="the case 'images_1' is also row 2"):
        read_table(path, task_schema)


@pytest.mark.parametrize(
    ("values", "split", "told"),
    [
        (["", "unknown", "NA"], "train", "no 'size_mm' in any of 3 training"),
        (["", "12", ""], "train", None),
        (["", "", ""], "val", None),
    ],
)
def test_a_field_without_a_value_in_training_is_told(edited, recwarn, values, split, told):
    by_row = {number: {"size_mm": value} for number, value in enumerate(values)}
    table = edited(by_row, size_mm="", split=split)
    read_table(table, MetadataSchema([size_field(missing="unknown")]))
    warned = [str(w.message) for w in recwarn if w.category is MetadataWarning]
    assert len(warned) == (told is not None)
    assert all(told in message for message in warned)


# Column maps.


def test_a_column_map_comes_back_from_json(tmp_path):
    plain, columns = ColumnMap(), ColumnMap(**BLOOD_CELLS)
    assert (plain.table, plain.image, plain.group) == ("table.csv", "image", "group")
    assert (plain.column_of("task"), plain.fields_named()) == ("task", set())
    columns.save(tmp_path / "columns.json")
    assert ColumnMap.load(tmp_path / "columns.json") == columns
    assert json.loads((tmp_path / "columns.json").read_text()) == BLOOD_CELLS
    assert columns.fields_named() == {"task"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"imge": "x"}, "unknown key 'imge'.*image"),
        ({"image": 3}, "key 'image'.*got 3"),
        ({"label_values": ["2"]}, "key 'label_values"),
        ({"separator": ";;"}, "separator.*1 character"),
        ({"split_names": {"training": "trian"}}, "split_names.*trian"),
        ({"label_values": {"a": {"x": [1]}, "b": {"y": [1]}}}, "label_values.*at most 1 item"),
        ({"label_values": {"a": {"x": [1.5]}}}, "label_values"),
        ({"label_values": [[1], [2, 1]]}, "label_values.*value 1 is of two classes"),
        ({"label_values": [[1], []]}, "label_values"),
        ({"label_values": [[1], 2]}, "label_values"),
        ({"factors": {"size_mm": 0}}, "factors.size_mm.*greater than 0"),
        ({"place": {"slice": "z"}}, "place.slice.*'plane'"),
    ],
)
def test_wrong_settings_name_key_and_file(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        ColumnMap(**settings)
    path = tmp_path / "columns.json"
    path.write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=rf"columns\.json.*{message}"):
        ColumnMap.load(path)


@pytest.mark.parametrize("content", ["{", "[1]", None])
def test_no_json_object_or_no_file(tmp_path, content):
    if content is not None:
        (tmp_path / "columns.json").write_text(content)
    with pytest.raises(ConfigError, match=r"columns\.json"):
        ColumnMap.load(tmp_path / "columns.json")


def test_own_case_names(edited, task_schema):
    path = edited(name=lambda row: f"case {row['image'][7]}")
    table = read_table(path, task_schema, {"case": "name"})
    assert [row["case"] for row in table.rows] == ["case 0", "case 1", "case 2"]
    edited({0: {"name": "case 2"}, 1: {"name": "a/b"}})
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


def test_one_row_per_value_with_its_label_values(edited, task_schema):
    columns = {"rows_per": "task", "label_values": {"task": {"disc": [2], "ring": [1, 3]}}}
    table = read_table(edited({0: {"task": "disc;ring"}}), task_schema, columns)
    told = [(row["case"], row["metadata"]["task"], row["label_values"]) for row in table.rows]
    assert told == [
        ("images_0__disc", "disc", [2]),
        ("images_0__ring", "ring", [1, 3]),
        ("images_1", "ring", [1, 3]),
        ("images_2", "disc", [2]),
    ]


def test_label_values_of_all_rows_or_of_too_few(folder, task_schema):
    table = read_table(folder[0], task_schema, {"label_values": [255]})
    assert {tuple(row["label_values"]) for row in table.rows} == {(255,)}
    with pytest.raises(DataError, match=r"row 3 \(images_1\).*no label_values for 'ring'"):
        read_table(folder[0], task_schema, {"label_values": {"task": {"disc": [1]}}})


def test_a_copy_of_a_table_reads_the_images_where_they_are(folder, task_schema, write_csv):
    path, rows = folder
    (path / "study").mkdir()
    write_csv(path / "study" / "table.csv", rows)

    def rooted(root):
        (path / "study" / "root.json").write_text(json.dumps({"table.csv": root}))
        return read_table(path / "study", task_schema)

    for root in ("..", str(path)):
        table = rooted(root)
        assert table.rows == read_table(path, task_schema).rows
        assert table.folder == path.resolve()
    with pytest.raises(DataError, match=r"nowhere: no such folder.*mend .*root.json"):
        rooted("nowhere")
    with pytest.raises(DataError, match=r"no such file 'images/0.tif' in "):
        rooted("../labels")
    with pytest.raises(ConfigError, match=r"root.json: no folder of images"):
        rooted(3)
    write_csv(path / "study" / "table.csv", [{**rows[0], "image": "../0.tif"}])
    with pytest.raises(DataError, match=r"'\.\./0\.tif' leaves the root .*images"):
        rooted("../images")


def test_a_table_never_reads_images_of_another(folder, task_schema, write_csv):
    path, rows = folder
    (path / "new").mkdir()
    (path / "new" / "root.json").write_text(json.dumps({"table.csv": ".."}))
    lost = [{**rows[0], "image": "typo.tif"}, rows[1]]
    new = write_csv(path / "new" / "new.csv", lost)  # rows[1] is there, in the old folder alone
    table, wrong = scan_table(new, task_schema, inference=True)
    assert table.rows == ()
    assert {one.row for one in wrong} == {2, 3}


def test_a_folder_with_a_dicom_series_is_an_image(edited, task_schema):
    path = edited()
    for name, content in (("series", b"\0" * 128 + b"DICM"), ("other", b"text")):
        (path / name).mkdir()
        (path / name / "1").write_bytes(content)
    table = read_table(edited({0: {"image": "series/"}}), task_schema)
    assert (table.rows[0]["image"], table.rows[0]["case"]) == (str(path / "series"), "series")
    with pytest.raises(DataError, match="'other' is a folder"):
        read_table(edited({0: {"image": "other"}}), task_schema)


def test_series_in_folders_named_as_uids_are_cases_of_their_own(edited, task_schema):
    path = edited()
    for name in ("1.2.840.1", "1.2.840.2"):
        (path / name).mkdir()
        (path / name / "1").write_bytes(b"\0" * 128 + b"DICM")
    same = {"task": "disc", "group": "a", "split": "train"}
    rows = {row: {"image": f"1.2.840.{row + 1}", **same} for row in range(2)}
    table = read_table(edited(rows), task_schema)
    assert [row["case"] for row in table.rows[:2]] == ["1.2.840.1", "1.2.840.2"]


def test_column_map_of_another_schema_is_refused(folder, task_schema):
    with pytest.raises(DataError, match="the column map names colour"):
        read_table(folder[0], task_schema, {"metadata": {"colour": "task"}})


def test_excluded_rows_are_left_out_and_a_misspelt_one_is_told(folder, task_schema):
    columns = ColumnMap(exclude=["images/2.tif"])
    assert read_table(folder[0], task_schema, columns).splits == ("train",)
    with pytest.raises(DataError, match=r"excludes 'images/9\.tif', which no row has"):
        read_table(folder[0], task_schema, ColumnMap(exclude=["images/9.tif"]))


def test_columns_in_another_unit(edited):
    path = edited({0: {"size_cm": "4.1"}, 1: {"size_cm": "0.9"}}, size_cm="12")
    schema, columns = MetadataSchema([size_field()]), {"metadata": {"size_mm": "size_cm"}}
    table = read_table(path, schema, {**columns, "factors": {"size_mm": 10}})
    assert [row["metadata"]["size_mm"] for row in table.rows] == ["41", "9", "120"]
    with pytest.raises(DataError, match="is it in cm"):
        read_table(path, schema, columns)


# Where a slice lies in its volume.


def test_the_place_of_a_slice_in_its_volume(edited, task_schema):
    path = edited(**{**PLACE, "volume": lambda row: row["group"]})
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
        ({"planes": "NA"}, "lacks planes"),
        ({"spacing_x_mm": "0"}, "above 0 mm"),
        ({"spacing_z_mm": "thin"}, "above 0 mm"),
    ],
)
def test_a_wrong_place_is_refused(edited, task_schema, change, message):
    with pytest.raises(DataError, match=message):
        read_table(edited(**{**PLACE, **change}), task_schema)


def test_place_columns_of_other_names(edited, task_schema):
    unnamed = {name: cell for name, cell in PLACE.items() if name != "volume"}
    path = edited(**unnamed, case_id=lambda row: row["group"])
    columns = ColumnMap(place={"volume": "case_id"})
    assert read_table(path, task_schema, columns).items("test")[0]["volume"] == "patient2"
    assert "volume" not in read_table(path, task_schema).items("test")[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "volume 'case_1' has several values of group"),
        ({"group": "one", "planes": "7"}, "volume 'case_1' has several values of planes"),
        ({"group": "one", "plane": "0"}, r"plane 0 of volume 'case_1' has two images.*rows? 2"),
    ],
)
def test_volumes_that_contradict_themselves_are_refused(edited, task_schema, change, message):
    numbered = {number: {"plane": str(number)} for number in range(3)}
    if change:
        numbered[0]["group"], numbered[2]["volume"] = "one", "another"
    numbered[1] |= change
    with pytest.raises(DataError, match=message):
        read_table(edited(numbered, **PLACE), task_schema)


def test_a_clinical_column_named_volume_is_no_place(edited, task_schema):
    path = edited(volume="12.3", spacing_y_mm="", spacing_x_mm="")
    item = read_table(path, task_schema).items("test")[0]
    assert not {"volume", "spacing_mm"} & set(item)
    assert item["columns"]["volume"] == "12.3"


def test_paths_of_windows_and_accents_in_two_forms_are_read(folder, write_csv, caplog):
    path, rows = folder
    schema = MetadataSchema([Categorical(name="ort", values=("Z\u00fcrich", "none"), **WHEN)])
    for kind in ("images", "labels"):
        (path / kind / "0.tif").rename(path / kind / "Zu\u0308rich + #1, (a).tif")
    odd = {kind: f"{kind}s\\Z\u00fcrich + #1, (a).tif" for kind in ("image", "label")}
    place = {"ort": "Zu\u0308rich", "group": "Zu\u0308rich"}
    rows = [rows[0] | odd | place, rows[1] | {"ort": "none", "group": "Z\u00fcrich"}]
    write_csv(path / "table.csv", rows)
    table = read_table(path, schema)
    assert table.rows[0]["image"] == str(path / "images/Zu\u0308rich + #1, (a).tif")
    assert table.rows[0]["case"] == "images_Z\u00fcrich + #1, (a)"
    assert [row["metadata"]["ort"] for row in table.rows] == ["Z\u00fcrich", "none"]
    assert len({row["group"] for row in table.rows}) == 1
    told = "2 paths are written with backslashes, as on Windows, and read with / instead"
    assert caplog.text.count(told) == 1
    write_csv(path / "table.csv", [*rows, rows[0] | {"image": "images/Zu\u0308rich + #1, (a).tif"}])
    with pytest.raises(DataError, match=r"row 4 .*: the same image and metadata as row 2"):
        read_table(path, schema)


def test_a_name_may_hold_the_separator_of_planes(folder, write_csv, task_schema):
    path, rows = folder
    (path / "images/0.tif").rename(path / "images/0;1.tif")
    rows[0]["image"] = "images\\0;1.tif"
    rows[1]["image"] = "images/1.tif;images/2.tif"
    table = read_table(write_csv(path / "table.csv", rows[:2]), task_schema)
    assert table.rows[0]["image"] == str(path / "images/0;1.tif")
    assert len(table.rows[1]["image"]) == 2
