from metaseg_monai.simulate.styles import schema_of_repeats
from metaseg_monai.tables.columns import ColumnMap


def test_the_column_that_tells_rows_apart(tmp_path, write_csv):
    def found(*rows):
        write_csv(tmp_path / "t.csv", [dict(zip("ital", row, strict=True)) for row in rows])
        columns = ColumnMap(image="i", label="l", exclude=["z"])
        return schema_of_repeats(tmp_path / "t.csv", columns)

    schema, place = found("ax1p", "ay2q", "bx3r")
    assert place == {"row": "t"}  # of t, a and l, that with the fewest values
    assert schema.field("row").values == ("x", "y")
    assert found("axxp", "bxxp", "zxxp", "zyyp") == (None, {})
    assert found("axxp", "axxp") == (None, {})
    assert found(["a", "", "1", "p"], ["a", "unknown", "1", "p"]) == (None, {})
    schema, place = found(["a", "", "1", "p"], ["a", "x", "1", "p"])
    assert (place, schema.field("row").values) == ({"row": "t"}, ("x",))
