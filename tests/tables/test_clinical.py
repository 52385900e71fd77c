"""A clinical table as text by case and column, from CSV or nested JSON."""

import json

import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.tables.clinical import check_cases, read_clinical, scan_clinical


def entry(number=0, **values):
    return {"case_id": f"case_{number:05d}", "size": 4.1, **values}


def written(path, *entries):
    path.write_text(json.dumps(entries))
    return path


def test_nested_objects_null_and_truth_become_columns_of_text(tmp_path):
    nested = {"copd": True, "aids": False, "egfr": {"value": 77.0, "days": None}}
    path = written(tmp_path / "c.json", entry(comorbidities=nested, gender="male", age=49))
    row = read_clinical(path)["case_00000"]
    assert row == {
        "size": "4.1",
        "comorbidities_copd": "true",
        "comorbidities_aids": "false",
        "comorbidities_egfr_value": "77",
        "comorbidities_egfr_days": "",
        "gender": "male",
        "age": "49",
    }


def test_bounds_become_numbers_with_a_neighbour_that_says_so(tmp_path):
    values = {0: ">=90", 1: 77.5, 2: None, 3: "<15"}
    entries = [entry(n, egfr={"value": value}, last="x") for n, value in values.items()]
    rows = read_clinical(written(tmp_path / "c.json", *entries))
    assert [row["egfr_value"] for row in rows.values()] == ["90", "77.5", "", "15"]
    assert [row["egfr_value_censored"] for row in rows.values()] == ["1", "0", "", "-1"]
    names = list(rows["case_00001"])
    assert names[-3:] == ["egfr_value", "egfr_value_censored", "last"]
    (tmp_path / "c.csv").write_text("case_id,a_censored,b\nx,1,2\n")  # a column of that name alone
    assert read_clinical(tmp_path / "c.csv") == {"x": {"a_censored": "1", "b": "2"}}


def test_a_key_given_twice_is_told_with_its_case(tmp_path):
    path = tmp_path / "c.json"
    twice = '{"case_id": "a", "size": 4, "size": 41}'
    nested = '{"case_id": "b", "comorbidities": {"copd": true, "copd": false}}'
    path.write_text(f'[{twice}, {nested}, {{"case_id": "c", "size": 3}}]')
    table = scan_clinical(path)
    assert list(table.rows) == ["c"]
    assert table.problems["a"] == ["size = [4, 41]: given more than once; keep the right one"]
    assert table.problems["b"][0].startswith("comorbidities_copd = [True, False]: given more than")


def test_a_bound_does_not_overwrite_a_column_of_the_same_name(tmp_path):
    path = written(tmp_path / "c.json", entry(age_censored="0", age=">=90"))
    with pytest.raises(DataError, match=r"case_00000: age 1 and age_censored 0 disagree"):
        read_clinical(path)


def test_repeated_cases_are_refused(tmp_path):
    path = written(tmp_path / "c.json", entry(), entry(size=9), entry(), entry(1))
    with pytest.raises(DataError, match="case_00000: case_id case_00000 appears more than once"):
        read_clinical(path)
    assert list(scan_clinical(path).rows) == ["case_00001"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.json", "{", "no clinical table"),
        ("c.json", "[]", "expected a list of cases"),
        ("c.json", '{"case_00000": {}}', "expected a list of cases"),
        ("c.json", '[{"case": 1}]', "entry 1 names no case_id"),
        ("c.csv", "case_id,a\nx\n", "row 2: 1 cells, the header has 2"),
        (
            "c.json",
            '[{"case_id": "a", "case_id": "b"}]',
            r"entry 1 has case_id twice .*'a', 'b'",
        ),
        ("c.csv", "case_id,size,size\na,1,2\n", r"columns \['size'\] appear more than once"),
        ("c.csv", "case_id,a,case_id\na,1,b\n", r"columns \['case_id'\] appear more than once"),
        ("c.txt", "", r"named \.json or \.csv"),
    ],
)
def test_what_is_no_clinical_table_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_clinical(tmp_path / name)
    with pytest.raises(DataError, match="missing"):
        read_clinical(tmp_path / "missing.json")


def test_csv_gives_the_same_as_json_and_one_list_of_words_for_missing(tmp_path):
    entries = [entry(0, a=True, b=None), entry(1, **{"a.x": 1, "a": "yes"})]
    one = read_clinical(written(tmp_path / "c.json", *entries), same_name={"a_x": "b"})
    (tmp_path / "c.csv").write_text(
        "case_id,size,a,b\ncase_00000,4.1,True,N/A\ncase_00001, 4.1 ,yes,1\n"
    )
    assert read_clinical(tmp_path / "c.csv") == one
    words = {"a": "NaN", "b": " n/A ", "c": ".", "d": float("nan"), "e": "none", "f": "Null"}
    of_json = read_clinical(written(tmp_path / "e.json", entry(**words)), declared=["none"])
    assert set(of_json["case_00000"].items()) == {
        *((name, "") for name in "abcdf"), ("e", "none"), ("size", "4.1"),
    }  # fmt: skip
    two_names = written(tmp_path / "d.json", entry(a=1, b=2))
    with pytest.raises(DataError, match="case_00000: b 2 and a 1 disagree; keep one"):
        read_clinical(two_names, same_name={"b": "a"})


@pytest.mark.parametrize("value", [float("inf"), ["male"]])
def test_wrong_values_are_told_by_case_and_the_other_cases_kept(tmp_path, value):
    path = written(tmp_path / "c.json", entry(7, a=value), entry(8))
    with pytest.raises(DataError, match=r"c.json: mend.*\n  case_00007: a = .*: .*expected"):
        read_clinical(path)
    table = scan_clinical(path, adapt=lambda row, entry: ({"first": "x", **row}, []))
    assert table.rows == {"case_00008": {"first": "x", "size": "4.1"}}
    assert list(table.problems) == ["case_00007"]
    check_cases(table, ["case_00007"])
    with pytest.raises(DataError, match="no row for any of 1 cases such as other; it has 2 rows"):
        check_cases(table, ["other"])
