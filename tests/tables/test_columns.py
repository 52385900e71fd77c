import json

import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.tables import ColumnMap

BLOOD_CELLS = {
    "table": "manifest.csv",
    "group": None,
    "metadata": {"task": "tasks_given"},
    "rows_per": "task",
    "label_values": {"task": {"nucleus": [2], "cytoplasm": [1]}},
}


def test_default_is_the_plain_form():
    columns = ColumnMap()
    assert (columns.table, columns.image, columns.group) == ("table.csv", "image", "group")
    assert columns.column_of("task") == "task"
    assert columns.fields_named() == set()


def test_round_trip_through_json(tmp_path):
    columns = ColumnMap(**BLOOD_CELLS)
    columns.save(tmp_path / "columns.json")
    assert ColumnMap.load(tmp_path / "columns.json") == columns
    assert json.loads((tmp_path / "columns.json").read_text()) == BLOOD_CELLS
    assert columns.fields_named() == {"task"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"imge": "x"}, "unknown key 'imge'.*image"),
        ({"image": 3}, "key 'image'"),
        ({"label_values": ["2"]}, "key 'label_values"),
        ({"separator": ";;"}, "separator.*1 character"),
        ({"split_names": {"training": "trian"}}, "split_names.*trian"),
        ({"label_values": {"a": {"x": [1]}, "b": {"y": [1]}}}, "label_values.*at most 1 item"),
        ({"label_values": {"a": {"x": [1.5]}}}, "label_values"),
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
    path = tmp_path / "columns.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"columns\.json"):
        ColumnMap.load(path)
