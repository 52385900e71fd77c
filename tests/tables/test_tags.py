"""Metadata of DICOM series beside what tables, files and commands say."""

import json
import warnings

import pytest

from metaseg_monai.errors import ConfigError, MetadataError
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema
from metaseg_monai.metadata.fields import MetadataWarning
from metaseg_monai.tables import find_cases, read_table
from tests.extras import needed
from tests.images.test_dicom import SECRETS, saved, series

needed("pydicom", reason="needs the extra [dicom]")
WHEN = {"provenance": "acquisition", "availability": "acquisition"}
AGE = Continuous(name="age", unit="years", range=(0, 100), tag="PatientAge", **WHEN)
THICK = Continuous(name="thickness_mm", unit="mm", range=(0.1, 20), tag="SliceThickness",
                   missing="unknown", **WHEN)  # fmt: skip
AGENT = {"tag": "ContrastBolusAgent", "tag_values": {"NONE": "no", "*": "yes"}}
CONTRAST = Categorical(name="contrast", values=("yes", "no"), missing="unknown", **AGENT, **WHEN)
SCHEMA = MetadataSchema([AGE, THICK, CONTRAST])


def scan(folder, odd=None, **elements):
    """A series whose planes all have these elements, but for those of its first plane."""
    planes = series()
    for number, plane in enumerate(planes):
        for name, value in {**elements, **((odd or {}) if number == 0 else {})}.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                setattr(plane, name, value)
    return saved(folder, planes)


def found(source, metadata=None, **more):
    """Metadata by case, and what was told."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        items = find_cases(source, SCHEMA, metadata=metadata, **more)
    texts = [str(one.message) for one in told if issubclass(one.category, MetadataWarning)]
    return {item["case"]: item["metadata"] for item in items}, texts


def test_series_tell_their_metadata_and_nothing_else(tmp_path):
    scan(tmp_path / "in" / "a", PatientAge="045Y", SliceThickness="2.5",
         ContrastBolusAgent="Ultravist 370")  # fmt: skip
    scan(tmp_path / "in" / "b", PatientAge="006M", SliceThickness="", ContrastBolusAgent="none")
    metadata, told = found(tmp_path / "in")
    assert metadata == {
        "a": {"age": 45.0, "thickness_mm": 2.5, "contrast": "yes"},
        "b": {"age": 0.5, "contrast": "no"},
    }
    (thickness,) = told
    assert "no thickness_mm is given; taken as unknown for 1 of 2 image(s) ('b')" in thickness
    assert not any(secret in json.dumps([metadata, told]) for secret in SECRETS)


def test_what_is_given_outranks_an_element_and_is_told_where_they_disagree(tmp_path):
    scan(tmp_path / "a", PatientAge="045Y", SliceThickness="2.5", ContrastBolusAgent="Iomeron")
    given = {"age": "54", "thickness_mm": "2.5001", "contrast": "unknown"}
    metadata, told = found(tmp_path / "a", given)
    assert metadata["a"] == given
    age, contrast = told
    assert "case 'a': age is given as '54', but PatientAge says 45.0; the given value" in age
    assert "contrast is given as 'unknown', but ContrastBolusAgent says 'yes'" in contrast


def test_an_element_outranks_a_default(tmp_path):
    scan(tmp_path / "a", PatientAge="045Y", SliceThickness="2.5")
    default = {"age": 20, "contrast": "no"}
    metadata, told = found(tmp_path / "a", default=default)
    assert metadata["a"] == {"age": 45.0, "thickness_mm": 2.5, "contrast": "no"}
    assert told == []


@pytest.mark.parametrize(
    ("elements", "odd", "message"),
    [
        ({"SliceThickness": "123456"}, {}, "SliceThickness is '2.5 mm', expected one plain"),
        ({"SliceThickness": "2.5"}, {"SliceThickness": "5"},
         "SliceThickness is not the same in all planes (5 in 1 planes, 2.5 in 3 planes)"),
        ({"SliceThickness": ["2.5", "5"]}, {}, r"SliceThickness is '2.5\\5'"),
    ],
)  # fmt: skip
def test_odd_elements_are_missing_and_told(tmp_path, elements, odd, message, caplog):
    scan(tmp_path / "a", odd, PatientAge="045Y", ContrastBolusAgent="x", **elements)
    for file in (tmp_path / "a").iterdir():  # what pydicom would not write
        file.write_bytes(file.read_bytes().replace(b"123456", b"2.5 mm"))
    metadata, told = found(tmp_path / "a")
    assert metadata["a"] == {"age": 45.0, "contrast": "yes"}
    assert message in told[0]
    assert "thickness_mm is taken as missing" in told[0]
    assert "no thickness_mm is given" in told[1]
    assert caplog.text == ""  # nothing by pydicom


def test_an_element_that_some_planes_lack_is_told(tmp_path):
    scan(tmp_path / "a", {"SliceThickness": "2.4999"}, PatientAge="045Y", SliceThickness="2.5",
         ContrastBolusAgent="x")  # fmt: skip
    assert found(tmp_path / "a")[1] == []  # rounded
    scan(tmp_path / "b", {"PatientAge": ""}, PatientAge="045Y", SliceThickness="2.5",
         ContrastBolusAgent="x")  # fmt: skip
    metadata, told = found(tmp_path / "b")
    assert metadata["b"]["age"] == 45.0
    assert [text.partition(": case ")[2] for text in told] == [
        "'b': PatientAge is empty in 1 of 4 planes"
    ]


def test_a_series_without_a_needed_value_is_left_out_by_name(tmp_path):
    scan(tmp_path / "in" / "a", PatientAge="045Y", SliceThickness="2", ContrastBolusAgent="x")
    scan(tmp_path / "in" / "b", PatientAge="old", SliceThickness="2", ContrastBolusAgent="x")
    with pytest.raises(MetadataError, match=r"in \('b'\): field 'age': expected"):
        found(tmp_path / "in")
    problems = []
    metadata, told = found(tmp_path / "in", problems=problems)
    assert list(metadata) == ["a"]
    assert "PatientAge is 'old', expected an age" in told[0]
    (problem,) = problems
    assert problem.case == "b"
    assert "--meta age=VALUE" in problem.next_step


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("PatientAgee", "no such element; did you mean 'PatientAge'"),
        ("StudyDate", "of the kind DA"),
        ("OperatorsName", "of the kind PN"),
    ],
)
def test_elements_that_are_none_or_private_are_refused(tmp_path, tag, message):
    scan(tmp_path / "a")
    field = Categorical(name="it", values=("x",), tag=tag, **WHEN)
    with pytest.raises(ConfigError, match=message):
        find_cases(tmp_path / "a", MetadataSchema([field]))


def test_tables_take_elements_where_cells_are_empty(tmp_path, write_csv, caplog):
    for name in ("a", "b"):
        scan(tmp_path / name, PatientAge="045Y", SliceThickness="2", ContrastBolusAgent="x")
        (tmp_path / f"{name}.png").touch()
    rows = [
        {"image": name, "label": f"{name}.png", "age": age, "group": name, "split": "train"}
        for name, age in (("a", ""), ("b", "54"))
    ]
    write_csv(tmp_path / "table.csv", rows)
    table = read_table(tmp_path, SCHEMA)
    first, second = (row["metadata"] for row in table.rows)
    assert first == {"age": 45.0, "thickness_mm": 2.0, "contrast": "yes"}
    assert second == {**first, "age": "54"}
    assert [one for one in table.remarks if "PatientAge" in one] == [
        "case 'b': age is given as '54', but PatientAge says 45.0; the given value is taken"
    ]
    assert "no column 'contrast'; taken from ContrastBolusAgent of DICOM series" in caplog.text
    metadata, _ = found(tmp_path / "table.csv")
    assert list(metadata.values()) == [first, second]


def test_rows_of_a_file_outrank_elements(tmp_path, write_csv):
    for name in ("a", "b"):
        scan(tmp_path / "in" / name, PatientAge="045Y", SliceThickness="2", ContrastBolusAgent="x")
    file = write_csv(tmp_path / "meta.csv", [{"case_id": "a", "age": "50", "contrast": ""}])
    metadata, told = found(tmp_path / "in", file)
    assert metadata == {
        "a": {"age": "50", "thickness_mm": 2.0, "contrast": "yes"},
        "b": {"age": 45.0, "thickness_mm": 2.0, "contrast": "yes"},
    }
    (age,) = told
    assert "age is given as '50'" in age
