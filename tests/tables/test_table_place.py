import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.tables import ColumnMap, read_table

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
