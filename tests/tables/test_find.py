import pytest
import tifffile

from metaseg_monai.errors import DataError, MetadataError
from metaseg_monai.tables import find_cases


def test_folder_with_table_without_labels_groups_and_splits(folder, task_schema, write_csv):
    path, rows = folder
    write_csv(path / "table.csv", [{key: row[key] for key in ("image", "task")} for row in rows])
    items = find_cases(path, task_schema)
    assert [item["metadata"]["task"] for item in items] == ["disc", "ring", "disc"]
    assert items[0] == {
        "image": str(path / "images/0.tif"),
        "case": "images_0",
        "group": "images_0",
        "metadata": {"task": "disc"},
        "columns": {"image": "images/0.tif", "task": "disc"},
    }
    assert find_cases(path / "table.csv", task_schema) == items


def test_labels_are_kept_only_where_all_rows_have_one(folder, task_schema, write_csv):
    path, rows = folder
    assert all("split" in item for item in find_cases(path, task_schema))
    assert not any("label" in item for item in find_cases(path, task_schema))
    rows[1]["label"] = ""
    write_csv(path / "table.csv", rows)
    assert not any("label" in item for item in find_cases(path, task_schema))


def test_given_metadata_take_the_place_of_the_table(folder, task_schema, write_csv):
    path, rows = folder
    items = find_cases(path, task_schema, metadata={"task": "ring"})
    assert {item["metadata"]["task"] for item in items} == {"ring"}
    write_csv(path / "table.csv", [{"image": row["image"]} for row in rows])
    assert find_cases(path, task_schema, metadata={"task": "ring"})[2]["case"] == "images_2"
    with pytest.raises(DataError, match="no column 'task'"):
        find_cases(path, task_schema)


def test_given_value_replaces_all_values_of_a_row(folder, task_schema, write_csv):
    path, rows = folder
    rows[0]["task"] = "disc;ring"
    write_csv(path / "table.csv", rows)
    assert len(find_cases(path, task_schema, {"rows_per": "task"})) == 4
    assert len(find_cases(path, task_schema, {"rows_per": "task"}, {"task": "ring"})) == 3


def test_problems_of_the_table_are_told(folder, task_schema, write_csv):
    path, rows = folder
    rows[0]["task"] = "dsic"
    write_csv(path / "table.csv", rows)
    with pytest.raises(DataError, match=r"row 2.*dsic"):
        find_cases(path, task_schema)


def test_folder_of_images_is_searched_in_order(folder, task_schema):
    path, _ = folder
    (path / "table.csv").unlink()
    (path / ".hidden").mkdir()
    tifffile.imwrite(path / ".hidden" / "x.tif", [[1, 2]])
    (path / "images" / "notes.txt").write_text("x")
    items = find_cases(path, task_schema, metadata={"task": "ring"})
    assert [item["case"] for item in items] == [
        f"{kind}_{number}" for kind in ("images", "labels") for number in range(3)
    ]
    assert all(item["metadata"] == {"task": "ring"} for item in items)
    items[0]["metadata"]["task"] = "changed"
    assert items[1]["metadata"]["task"] == "ring"


@pytest.mark.parametrize("metadata", [None, {"task": "dsic"}, {"task": "ring", "colour": "red"}])
def test_images_without_right_metadata_name_the_option(folder, task_schema, metadata):
    with pytest.raises(MetadataError, match="--meta task=VALUE"):
        find_cases(folder[0] / "images", task_schema, metadata=metadata)


def test_single_image(folder, task_schema):
    image = folder[0] / "images/1.tif"
    (item,) = find_cases(image, task_schema, metadata={"task": "ring"})
    assert item == {
        "image": str(image),
        "case": "1",
        "group": "1",
        "metadata": {"task": "ring"},
    }


def test_without_schema_no_metadata_are_asked_for(folder):
    assert [item["metadata"] for item in find_cases(folder[0] / "images", None)] == [{}] * 3


def test_two_images_of_one_name_are_told(folder, task_schema):
    path, _ = folder
    (path / "images/0.png").write_bytes(b"")
    with pytest.raises(DataError, match="the case '0' is also"):
        find_cases(path / "images", task_schema, metadata={"task": "ring"})


def test_nothing_to_find(tmp_path, task_schema):
    with pytest.raises(DataError, match="no such file or folder"):
        find_cases(tmp_path / "no", task_schema)
    with pytest.raises(DataError, match="neither the table"):
        find_cases(tmp_path, task_schema)


def test_labels_beside_images_are_told(folder, caplog):
    path, _ = folder
    (path / "table.csv").unlink()
    assert len(find_cases(path, None)) == 6
    assert "3 of 6 files lie in a folder of labels (labels/0.tif ...)" in caplog.text
    caplog.clear()
    find_cases(path / "images", None)
    assert not caplog.records
