import pytest

from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.metadata import MetadataSchema, fit_schema

TABLE = """\
image,task,size,stain,grade,texture,magnification,site,split
a.tif,ring,4.13,DAPI;actin,2,1;2,10,,train
b.tif,disc,157.2,actin,10,3;4,40,north,train
c.tif,cross,900,tubulin,3,5;6,20,north,test
"""


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return path


def test_every_kind_from_the_training_rows(table, tmp_path):
    output = tmp_path / "schema.json"
    specs = ["task", "size:continuous:mm", "stain:multilabel", "grade:ordinal", "texture:vector"]
    schema = fit_schema(
        table,
        [*specs, "magnification:continuous:x"],
        output,
        scale={"magnification": "log2"},
        availability="pre-operative",
    )
    task, size, stain, grade, texture, magnification = schema.fields
    assert task.values == ("disc", "ring")
    assert (size.range, size.unit, size.scale) == ((4.1, 160.0), "mm", "linear")
    assert stain.values == ("DAPI", "actin")
    assert grade.values == ("2", "10")
    assert texture.entries == 2
    assert (magnification.range, magnification.scale) == ((10.0, 40.0), "log2")
    assert size.description.startswith("proposed from 2 train rows of table.csv")
    assert task.availability == "pre-operative"
    assert MetadataSchema.load(output) == schema
    assert fit_schema(tmp_path, "task") == fit_schema(table, "task")


def test_all_rows_without_a_split_column(table):
    schema = fit_schema(str(table), "task,size:continuous:mm", split_column="fold")
    assert schema.field("task").values == ("cross", "disc", "ring")
    assert schema.field("size").range == (4.1, 900.0)
    assert "all 3 rows of table.csv, without a split column" in schema.fields[0].description


def test_missing_values_need_the_policy(table):
    with pytest.raises(
        MetadataError, match=r"'site': 1 of 2 train rows.*\(row 2\).*--missing unknown"
    ):
        fit_schema(table, ["site"])
    assert fit_schema(table, ["site"], missing="unknown").entry_names == (
        "site=north",
        "site=unknown",
    )
    assert fit_schema(table, ["task", "site"], missing={"site": "unknown"}).width == 4


def test_an_existing_file_is_kept(table, tmp_path):
    output = tmp_path / "schema.json"
    output.write_text("mine")
    with pytest.raises(ConfigError, match=r"schema.json: exists already"):
        fit_schema(table, ["task"], output)
    assert output.read_text() == "mine"


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("taks", "'taks' is no column.*did you mean 'task'"),
        ("size", "'size': all values are numbers; write size:continuous:UNIT"),
        ("size:continuous", "expected a unit"),
        ("task:categorical:mm", "expected a unit for a continuous field and for no other"),
        ("size:continous:mm", "did you mean 'continuous'"),
        ("task:continuous:mm", "'task': expected plain numbers, got 'ring'"),
        ("task:ordinal", "order of 'disc', 'ring' cannot be read"),
        ("size:continuous:mm:log", r"expected column\[=Element\]\[:kind\[:unit\]\]"),
        ("size=PatientID:continuous:mm", "PatientID tells who somebody is"),
        ("size=SliceThickness:continuous:kg", "in mm, which cannot be converted to 'kg'"),
    ],
)
def test_wrong_fields(table, field, reason):
    with pytest.raises((ConfigError, MetadataError), match=reason):
        fit_schema(table, [field])


def test_the_element_that_tells_a_value(table):
    schema = fit_schema(table, "task=SeriesDescription,size=SliceThickness")
    assert [field.tag for field in schema.fields] == ["SeriesDescription", "SliceThickness"]
    assert schema.field("size").unit == "mm"
    plain = fit_schema(table, "task,size:continuous:mm")
    assert schema.entry_names == plain.entry_names


def test_wrong_settings(table):
    with pytest.raises(ConfigError, match=r"scale: 'sise' is none of the fields.*'size'"):
        fit_schema(table, ["size:continuous:mm"], scale={"sise": "log"})
    with pytest.raises(MetadataError, match=r"field 'task': missing: .*got 'never'"):
        fit_schema(table, ["task"], missing="never")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("task,split\na,val\n", "expected rows with split = 'train', got 'val'"),
        ("task,split\n", "a header without rows"),
        ("task,task\na,b\n", "more than once"),
        ("task,split\na\n", "row 2: 1 cells, the header has 2"),
        ("task,split\na,train,b\n", "row 2: 3 cells, the header has 2"),
        ("task\n\udcff\n", "UTF-8"),
    ],
)
def test_wrong_tables(tmp_path, content, reason):
    path = tmp_path / "table.csv"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=f"table.csv: .*{reason}"):
        fit_schema(path, ["task"])


def test_an_absent_table(tmp_path):
    with pytest.raises(DataError, match=r"absent.csv: No such file .*; check the path"):
        fit_schema(tmp_path / "absent.csv", ["task"])


@pytest.mark.parametrize(
    ("cells", "field", "reason"),
    [
        (["5", "5.0"], "a:continuous:mm", "every value is 5"),
        (["1;2", "1"], "a:vector", r"as many numbers in each row, got \[1, 2\]"),
        (["", "unknown"], "a", "have no value at all"),
    ],
)
def test_columns_that_tell_nothing(tmp_path, cells, field, reason):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n" + "".join(f"{cell},x\n" for cell in cells))
    with pytest.raises(MetadataError, match=reason):
        fit_schema(path, [field])


@pytest.mark.parametrize(
    ("scale", "margin", "expected"),
    [("linear", 0.1, (0.0, 175.6)), ("log", 0.5, (0.6563, 999.5)), ("linear", 0, (4.1, 160.0))],
)
def test_a_margin_widens_what_was_seen(table, scale, margin, expected):
    schema = fit_schema(table, "size:continuous:mm", scale=scale, margin=margin)
    assert schema.field("size").range == expected
    with pytest.raises(ConfigError, match="margin=-1: expected a share from 0"):
        fit_schema(table, "size:continuous:mm", margin=-1)


@pytest.mark.parametrize(
    ("values", "kind", "told"),
    [
        ([f"P{n:03d}" for n in range(9)], "", "one for each row, as an identifier has"),
        (
            ["P1", "P2", "P3", "P4", "P5", "P5", "P6", "P6", "P7"],
            "",
            "one for each group, as an id",
        ),
        (range(100, 109), "continuous:x", "one for each row, as an identifier has"),
        ([f"2024-0{n}-11" for n in range(1, 10)], "", "are dates"),
        ([f"{n}.3.24" for n in range(1, 10)], "", "are dates"),
        ([20240100 + n for n in range(1, 10)], "continuous:d", "are dates"),
        (["same"] * 9, "", "every value is 'same', of which a network learns nothing"),
        ([1, 4, 2.5, 7, 3, 90, 14, 6, 8], "continuous:mm", None),
        (["a", "b", "c"] * 3, "", None),
        ([1, 2, 3] * 3, "ordinal", None),
        (["1;2", "3;4", "5;6"] * 3, "vector", None),
    ],
)
def test_columns_that_are_probably_no_metadata_are_told(tmp_path, caplog, values, kind, told):
    groups = ["1", "2", "3", "4", "5", "5", "6", "6", "7"]
    rows = [f"{value},{group}" for value, group in zip(values, groups, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["what,group", *rows, ",", ""]))
    fit_schema(tmp_path / "table.csv", [f"what:{kind}" if kind else "what"])
    assert (told in caplog.text) if told else not caplog.records
