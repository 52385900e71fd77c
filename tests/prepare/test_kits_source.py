"""What a KiTS download holds: cases, checksums, the clinical table."""

import json

import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.prepare.kits_case import source_files
from metaseg_monai.prepare.kits_source import (
    find_clinical,
    find_kits,
    read_checksums,
    read_clinical,
    scan_clinical,
    size_problem,
)


def entry(number=0, **values):
    return {"case_id": f"case_{number:05d}", "radiographic_size": 4.1, **values}


def written(path, *entries):
    path.write_text(json.dumps(entries))
    return path


@pytest.mark.parametrize("inside", [".", "data", "dataset", "kits21/data", "kits23/dataset"])
@pytest.mark.parametrize("label", ["aggregated_MAJ_seg.nii.gz", "segmentation.nii.gz"])
def test_every_layout_is_found(tmp_path, inside, label):
    folder = tmp_path / inside
    for number in (1, 0):
        case = folder / f"case_{number:05d}"
        case.mkdir(parents=True)
        (case / "imaging.nii.gz").touch()
        (case / label).touch()
    (folder / "kits.json").touch()
    found = find_kits(tmp_path)
    assert found.names == ["case_00000", "case_00001"]
    assert [case.masks[0].name for case in found.cases] == [label, label]
    assert find_clinical(tmp_path, found.root) == folder / "kits.json"
    assert set(source_files(found.cases[0])) == {"case_00000/imaging.nii.gz", f"case_00000/{label}"}


def test_the_aggregated_label_comes_first_and_another_by_name(tmp_path):
    for name in ("imaging", "segmentation", "aggregated_MAJ_seg", "aggregated_OR_seg"):
        (tmp_path / "case_00000").mkdir(exist_ok=True)
        (tmp_path / "case_00000" / f"{name}.nii.gz").touch()
    assert find_kits(tmp_path).cases[0].masks[0].name == "aggregated_MAJ_seg.nii.gz"
    for name in ("aggregated_OR_seg", "aggregated_OR_seg.nii.gz"):
        assert find_kits(tmp_path, name).cases[0].masks[0].name == "aggregated_OR_seg.nii.gz"
    (problem,) = find_kits(tmp_path, "aggregated_AND_seg").problems
    assert "aggregated_AND_seg: no such file" in str(problem)
    with pytest.raises(DataError, match="expected a file name"):
        find_kits(tmp_path, "../other")


def test_cases_that_lack_a_file_are_problems(tmp_path):
    for number, names in enumerate([["imaging.nii.gz"], ["segmentation.nii.gz"], []]):
        case = tmp_path / f"case_{number:05d}"
        case.mkdir()
        for name in names:
            (case / name).touch()
    found = find_kits(tmp_path)
    assert found.cases == ()
    assert [(p.case, p.file.split("/")[1][:7]) for p in found.problems] == [
        ("case_00000", "aggrega"),
        ("case_00001", "imaging"),
        ("case_00002", "imaging"),
        ("case_00002", "aggrega"),
    ]
    labels = find_kits(tmp_path, labels_only=True)
    assert [case.case for case in labels.cases] == ["case_00001"]
    assert labels.cases[0].images == ()


def test_no_folder_no_case_and_two_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        find_kits(tmp_path / "missing")
    with pytest.raises(DataError, match=r"no folders case_\* \(looked in"):
        find_kits(tmp_path)
    for inside in ("data", "dataset"):
        (tmp_path / inside / "case_00000").mkdir(parents=True)
    with pytest.raises(DataError, match=r"cases in several folders \(.*data, .*dataset\)"):
        find_kits(tmp_path)


def test_checksums(tmp_path):
    path = tmp_path / "sums"
    path.write_text(f"{'a' * 64}  data/case_00000/imaging.nii.gz\n{'B' * 64} *case_1/x y.nii\n\n")
    assert read_checksums(path) == {
        "case_00000/imaging.nii.gz": "a" * 64,
        "case_1/x y.nii": "b" * 64,
    }
    path.write_text(f"{'a' * 64}  c/x\n{'b' * 64}  c/x\n")
    with pytest.raises(DataError, match=r"line 2: another SHA-256 of c/x"):
        read_checksums(path)
    path.write_text("abc  c/x\n")
    with pytest.raises(DataError, match="line 1: expected a SHA-256"):
        read_checksums(path)
    with pytest.raises(DataError, match="no list of checksums"):
        read_checksums(tmp_path / "missing")


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


def test_body_mass_index_has_one_name(tmp_path):
    entries = [entry(0, bmi=29.47), entry(1, body_mass_index=31), entry(2, bmi=None)]
    rows = read_clinical(written(tmp_path / "kits.json", *entries))
    assert [row["body_mass_index"] for row in rows.values()] == ["29.47", "31", ""]
    assert "bmi" not in rows["case_00000"]


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
        ({"radiographic_size": float("inf")}, "radiographic_size = inf: not a finite number"),
        ({"radiographic_size": -1}, "'-1' is no size"),
        ({"radiographic_size": 0}, "'0' is no size"),
        ({"radiographic_size": True}, "'true' is no size"),
        ({"radiographic_size": ">=7"}, r"only a bound \(7\)"),
        ({"radiographic_size": "4_1"}, "radiographic_size '4_1' is no size"),
        ({"radiographic_size": {"a": 4}}, "radiographic_size = .'a': 4.: expected one number"),
        ({"pathologic_size": {"a": 4}}, "pathologic_size = .'a': 4.: expected one number"),
        ({"tumour_size_mm": {"a": 4}}, "tumour_size_mm = .'a': 4.: expected one number"),
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


@pytest.mark.parametrize("size", ["4.9", "250.1", "410"])
def test_sizes_outside_are_told_and_not_clamped(tmp_path, size):
    assert f"tumour_size_mm {size} is outside 5 to 250" in size_problem(size)
    assert [size_problem(right) for right in ("", "5", "250")] == [None] * 3
    path = written(tmp_path / "kits.json", entry(radiographic_size=float(size) / 10))
    assert read_clinical(path)["case_00000"]["tumour_size_mm"] == size
