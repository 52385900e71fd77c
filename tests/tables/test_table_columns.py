import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metadata import Continuous, MetadataSchema
from metaseg_monai.tables import ColumnMap, read_table

SIZE = Continuous(
    name="size_mm",
    unit="mm",
    range=(5, 250),
    provenance="clinical prior",
    availability="pre-operative",
)


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


def test_one_row_per_value_with_its_label_values(folder, task_schema, write_csv, read_edited):
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


def test_excluded_rows_are_left_out_and_a_misspelt_one_is_told(folder, task_schema):
    columns = ColumnMap(exclude=["images/2.tif"])
    assert read_table(folder[0], task_schema, columns).splits == ("train",)
    with pytest.raises(DataError, match=r"excludes 'images/9\.tif', which no row has"):
        read_table(folder[0], task_schema, ColumnMap(exclude=["images/9.tif"]))


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
    with pytest.raises(ConfigError, match="greater than 0"):
        ColumnMap(factors={"size_mm": 0})
