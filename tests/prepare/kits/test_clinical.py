import json
import os
from pathlib import Path

import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.prepare.clinical import read_clinical, scan_clinical, size_problem

REAL = Path(os.environ.get("METASEG_DATA", "../shared/data"))


def entry(number=0, **values):
    return {"case_id": f"case_{number:05d}", "radiographic_size": 4.1, **values}


def written(path, *entries):
    path.write_text(json.dumps(entries))
    return path


def test_sizes_in_cm_become_mm_without_the_dust_of_floats(tmp_path):
    sizes = {0: 4.1, 1: 2.4, 2: None, 3: 16.2, 4: "7"}
    entries = [entry(n, radiographic_size=size) for n, size in sizes.items()]
    rows = read_clinical(written(tmp_path / "kits.json", *entries))
    found = [row["tumour_size_mm"] for row in rows.values()]
    assert found == ["41", "24", "", "162", "70"]
    assert list(rows["case_00000"]) == ["tumour_size_mm", "radiographic_size"]


def test_pathologic_size_by_wish(tmp_path):
    path = written(tmp_path / "kits.json", entry(pathologic_size=3.5))
    assert read_clinical(path, "pathologic")["case_00000"]["tumour_size_mm"] == "35"
    with pytest.raises(DataError, match=r"size='both'.*radiographic, pathologic"):
        read_clinical(path, "both")


def test_nested_objects_null_and_truth_become_columns_of_text(tmp_path):
    nested = {"copd": True, "aids": False, "egfr": {"value": 77.0, "days": None}}
    path = written(tmp_path / "kits.json", entry(comorbidities=nested, gender="male", age=49))
    row = read_clinical(path)["case_00000"]
    assert row == {
        "tumour_size_mm": "41",
        "radiographic_size": "4.1",
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
    rows = read_clinical(written(tmp_path / "kits.json", *entries))
    assert [row["egfr_value"] for row in rows.values()] == ["90", "77.5", "", "15"]
    assert [row["egfr_value_censored"] for row in rows.values()] == ["1", "0", "", "-1"]
    names = list(rows["case_00001"])
    assert names[-3:] == ["egfr_value", "egfr_value_censored", "last"]


def test_body_mass_index_has_one_name(tmp_path):
    entries = [entry(0, bmi=29.47), entry(1, body_mass_index=31), entry(2, bmi=None)]
    rows = read_clinical(written(tmp_path / "kits.json", *entries))
    assert [row["body_mass_index"] for row in rows.values()] == ["29.47", "31", ""]
    assert "bmi" not in rows["case_00000"]
    both = written(tmp_path / "both.json", entry(body_mass_index=30, bmi=31))
    with pytest.raises(DataError, match=r"case_00000: bmi 31 and body_mass_index 30 disagree"):
        read_clinical(both)


def test_csv_gives_the_same_as_json(tmp_path):
    values = {"comorbidities.copd": True, "bmi": 29.47, "pathologic_size": None}
    one = read_clinical(written(tmp_path / "kits.json", entry(**values), entry(1)))
    (tmp_path / "kits.csv").write_text(
        "case_id,radiographic_size,comorbidities.copd,bmi,pathologic_size\n"
        "case_00000,4.1,True,29.47,\ncase_00001,4.1,NaN,null,None\n"
    )
    assert read_clinical(tmp_path / "kits.csv") == one


def test_a_size_in_mm_of_ones_own(tmp_path):
    (tmp_path / "own.csv").write_text("case_id,tumour_size_mm\na,41\nb,\n")
    rows = read_clinical(tmp_path / "own.csv")
    assert [row["tumour_size_mm"] for row in rows.values()] == ["41", ""]
    both = written(tmp_path / "kits.json", entry(tumour_size_mm=41))
    with pytest.raises(DataError, match="both tumour_size_mm and radiographic_size"):
        read_clinical(both)


def test_a_file_without_size_gives_no_column_of_sizes(tmp_path):
    (tmp_path / "own.csv").write_text("case_id,size_mm\na,41\n")
    assert read_clinical(tmp_path / "own.csv") == {"a": {"size_mm": "41"}}
    (tmp_path / "cm.csv").write_text("case_id,radiographic_size\na,4.1\n")
    assert read_clinical(tmp_path / "cm.csv")["a"]["tumour_size_mm"] == "41"
    assert "tumour_size_mm" not in read_clinical(tmp_path / "cm.csv", size="pathologic")["a"]


def test_a_size_of_some_cases_is_the_first_column_of_all(tmp_path):
    entries = [{"case_id": "a", "gender": "male"}, entry(radiographic_size=4.1)]
    rows = read_clinical(written(tmp_path / "kits.json", *entries))
    assert [row["tumour_size_mm"] for row in rows.values()] == ["", "41"]
    assert [next(iter(row)) for row in rows.values()] == ["tumour_size_mm"] * 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"radiographic_size": "about 4"}, r"'about 4' is no size; expected a positive number"),
        ({"radiographic_size": float("nan")}, "radiographic_size = nan: not a finite number"),
        ({"radiographic_size": -1}, "'-1' is no size"),
        ({"radiographic_size": 0}, "'0' is no size"),
        ({"radiographic_size": True}, "'true' is no size"),
        ({"radiographic_size": ">=7"}, r"only a bound \(7\)"),
        ({"gender": ["male"]}, r"gender = \['male'\]: expected text, a number"),
    ],
)
def test_wrong_values_are_told_by_case_and_the_other_cases_kept(tmp_path, values, message):
    path = written(tmp_path / "kits.json", entry(7, **values), entry(8))
    with pytest.raises(DataError, match=f"case_00007: .*{message}"):
        read_clinical(path)
    table = scan_clinical(path)
    assert list(table.rows) == ["case_00008"]
    assert list(table.problems) == ["case_00007"]


@pytest.mark.parametrize("size", [">=41", "4_1", "\u0664", "inf"])
def test_a_size_in_mm_that_is_no_plain_number(tmp_path, size):
    (tmp_path / "own.csv").write_text(f"case_id,tumour_size_mm\na,{size}\nb,30\n", "utf-8")
    table = scan_clinical(tmp_path / "own.csv")
    assert list(table.rows) == ["b"]
    told = "tumour_size_mm is only a bound (41)" if ">" in size else "no size; expected a positive"
    assert told in table.problems["a"][0]


def test_a_size_in_cm_with_an_underscore_is_no_41_cm(tmp_path):
    path = written(tmp_path / "kits.json", entry(radiographic_size="4_1"))
    with pytest.raises(DataError, match="case_00000: radiographic_size '4_1' is no size"):
        read_clinical(path)


@pytest.mark.parametrize("name", ["radiographic_size", "pathologic_size", "tumour_size_mm"])
def test_a_size_within_an_object_is_not_taken_as_missing(tmp_path, name):
    one = {"case_id": "case_00003", name: {"a": 4}}
    path = written(tmp_path / "kits.json", one, entry())
    with pytest.raises(DataError, match=rf"kits.json.*\n.*case_00003: {name} = .'a': 4.: expected"):
        read_clinical(path)


def test_a_key_given_twice_is_told_with_its_case(tmp_path):
    path = tmp_path / "kits.json"
    twice = '{"case_id": "a", "radiographic_size": 4, "radiographic_size": 41}'
    nested = '{"case_id": "b", "comorbidities": {"copd": true, "copd": false}}'
    path.write_text(f'[{twice}, {nested}, {{"case_id": "c", "radiographic_size": 3}}]')
    table = scan_clinical(path)
    assert list(table.rows) == ["c"]
    assert table.problems["a"] == [
        "radiographic_size = [4, 41]: given more than once; keep the right one"
    ]
    assert table.problems["b"][0].startswith("comorbidities_copd = [True, False]: given more than")


def test_a_bound_does_not_overwrite_a_column_of_the_same_name(tmp_path):
    path = written(tmp_path / "kits.json", entry(age_censored="0", age=">=90"))
    with pytest.raises(DataError, match=r"case_00000: age 1 and age_censored 0 disagree"):
        read_clinical(path)


def test_repeated_cases_are_refused(tmp_path):
    path = written(tmp_path / "kits.json", entry(), entry(radiographic_size=9), entry(), entry(1))
    with pytest.raises(DataError, match="case_00000: case_id case_00000 appears more than once"):
        read_clinical(path)
    assert list(scan_clinical(path).rows) == ["case_00001"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("kits.json", "{", "no clinical table"),
        ("kits.json", "[]", "expected a list of cases"),
        ("kits.json", '{"case_00000": {}}', "expected a list of cases"),
        ("kits.json", '[{"case": 1}]', "entry 1 names no case_id"),
        ("kits.csv", "case_id,a\nx\n", "row 2: 1 cells, the header has 2"),
        (
            "kits.json",
            '[{"case_id": "a", "case_id": "b"}]',
            r"entry 1 has case_id twice .*'a', 'b'",
        ),
        ("kits.csv", "case_id,size,size\na,1,2\n", r"columns \['size'\] appear more than once"),
        ("kits.csv", "case_id,a,case_id\na,1,b\n", r"columns \['case_id'\] appear more than once"),
        ("kits.txt", "", r"named \.json or \.csv"),
    ],
)
def test_what_is_no_clinical_table_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_clinical(tmp_path / name)
    with pytest.raises(DataError, match="missing"):
        read_clinical(tmp_path / "missing.json")


@pytest.mark.parametrize("size", ["", "5", "41", "250"])
def test_sizes_of_the_range_are_right(size):
    assert size_problem(size) is None


@pytest.mark.parametrize("size", ["4.9", "250.1", "410"])
def test_sizes_outside_are_told_and_not_clamped(tmp_path, size):
    assert f"tumour_size_mm {size} is outside 5 to 250" in size_problem(size)
    path = written(tmp_path / "kits.json", entry(radiographic_size=float(size) / 10))
    assert read_clinical(path)["case_00000"]["tumour_size_mm"] == size


@pytest.mark.real_data
def test_real_table():
    path = REAL / "kits_seg3d" / "kits.json"
    if not path.is_file():
        pytest.skip(f"no real data in {REAL} (set METASEG_DATA)")
    entries = {entry["case_id"]: entry for entry in json.loads(path.read_text())}
    rows = read_clinical(path)
    assert list(rows) == list(entries)
    assert len(rows) == 475
    for case, row in rows.items():
        size = entries[case]["radiographic_size"]
        assert row["tumour_size_mm"] == ("" if size is None else f"{round(size * 10, 6):g}")
    assert sum(not row["tumour_size_mm"] for row in rows.values()) == 7
    assert not [case for case, row in rows.items() if size_problem(row["tumour_size_mm"])]
