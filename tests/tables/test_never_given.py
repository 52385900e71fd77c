from pathlib import Path

import pytest

from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema, MetadataWarning
from metaseg_monai.tables import read_table
from metaseg_monai.tables.table import warn_never_given

WHEN = {"provenance": "acquisition", "availability": "acquisition", "missing": "unknown"}
SCHEMA = MetadataSchema(
    [
        Categorical(name="task", values=("disc", "ring"), **WHEN),
        Continuous(name="size_mm", unit="mm", range=(1, 100), **WHEN),
    ]
)


def rows(*values, split="train"):
    return [{"metadata": {"task": "disc", "size_mm": value}, "split": split} for value in values]


def test_a_field_without_a_value_in_training_is_told():
    table = [*rows("", "unknown", None), *rows("7", split="test")]
    with pytest.warns(MetadataWarning, match=r"t\.csv: no 'size_mm' in any of 3 training row\(s\)"):
        warn_never_given(Path("t.csv"), table, SCHEMA)


@pytest.mark.parametrize(
    ("table", "schema"),
    [(rows("", "0"), SCHEMA), (rows("", split="val"), SCHEMA), ([], SCHEMA), (rows(""), None)],
)
def test_there_is_no_warning_without_need(table, schema):
    warn_never_given(Path("t.csv"), table, schema)


def test_a_table_read_for_training_tells_it(folder, write_csv):
    path, rows = folder
    when = {"provenance": "acquisition", "availability": "acquisition", "missing": "unknown"}
    schema = MetadataSchema([Continuous(name="size_mm", unit="mm", range=(1, 100), **when)])
    for row in rows:
        row["size_mm"] = "12" if row["split"] == "test" else ""
    write_csv(path / "table.csv", rows)
    with pytest.warns(MetadataWarning, match="no 'size_mm' in any of 2 training"):
        read_table(path, schema)
