import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.metadata import Continuous, MetadataSchema, MetadataWarning
from metaseg_monai.prepare.kits_volumes import kits_volumes

SIZE = {"unit": "mm", "provenance": "clinical prior", "availability": "pre-operative"}


def schema(name="tumour_size_mm"):
    return MetadataSchema([Continuous(name=name, range=(5, 250), missing="unknown", **SIZE)])


def test_one_item_a_case(kits, tmp_path):
    source = kits.folder(tmp_path / "source", case_1={"radiographic_size": None})
    rows = kits_volumes(source, schema()).rows
    assert [row["case"] for row in rows] == ["case_00000", "case_00001", "case_00002"]
    assert [row["metadata"]["tumour_size_mm"] for row in rows] == ["20", "", "40"]
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert rows[0]["image"] == str(source / "case_00000" / "imaging.nii.gz")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"case_0": {"radiographic_size": "big"}}, "case_00000: .*'big' is no size"),
        ({"case_2": {"radiographic_size": ">=4"}}, "case_00002: .*only a bound"),
        ({"case_2": {"case_id": "case_00001"}}, "case_00001: .*appears more than once"),
        ({"case_1": {"radiographic_size": 41}}, "case_00001.*410"),
    ],
)
def test_a_wrong_size_is_told_with_its_case(kits, tmp_path, changed, message):
    source = kits.folder(tmp_path / "source", **changed)
    with pytest.raises(DataError, match=message):
        kits_volumes(source, schema())


def test_a_wrong_row_of_a_case_that_is_left_out_does_not_matter(kits, tmp_path):
    source = kits.folder(tmp_path / "source", case_0={"radiographic_size": "big"})
    (tmp_path / "lists.json").write_text('{"train": [1], "test": [2]}')
    table = kits_volumes(source, schema(), splits=tmp_path / "lists.json")
    assert [row["case"] for row in table.rows] == ["case_00001", "case_00002"]


def test_a_table_without_a_field_and_lists_without_a_case_are_refused(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 2)
    with pytest.raises(DataError, match="no column width_mm, but tumour_size_mm, radiographic"):
        kits_volumes(source, schema("width_mm"))
    (tmp_path / "lists.json").write_text('{"train": [7]}')
    with pytest.raises(DataError, match="names no case of the source"):
        kits_volumes(source, schema(), splits=tmp_path / "lists.json")
    (source / "kits.json").unlink()
    with pytest.raises(DataError, match=r"no kits\.json found"):
        kits_volumes(source, schema())


def test_a_table_of_other_cases_is_refused(kits, tmp_path):
    names = {f"case_{n}": {"case_id": f"Case {n}"} for n in range(3)}
    source = kits.folder(tmp_path / "source", **names)
    message = r"no row for any of 3 cases \('case_00000', .*has rows for 'Case 0', .*\(case_id\)"
    with pytest.raises(DataError, match=message):
        kits_volumes(source, schema())


def test_cases_without_a_row_are_told(kits, tmp_path):
    source = kits.folder(tmp_path / "source", case_1={"case_id": "Case 1"})
    with pytest.warns(MetadataWarning, match="no row for 'case_00001'; their tumour_size_mm are"):
        rows = kits_volumes(source, schema()).rows
    assert [row["metadata"]["tumour_size_mm"] for row in rows] == ["20", "", "40"]


def test_a_field_that_no_training_case_gives_is_told(kits, tmp_path):
    source = kits.folder(tmp_path / "source", case_2={"radiographic_size": None})
    message = r"kits\.json: no 'tumour_size_mm' in any of 1 training row\(s\)"
    with pytest.warns(MetadataWarning, match=message):
        kits_volumes(source, schema())
