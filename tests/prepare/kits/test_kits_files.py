import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.prepare.kits_find import find_kits, read_checksums


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
    assert [case.label.name for case in found.cases] == [label, label]
    assert found.clinical == folder / "kits.json"
    assert set(found.cases[0].files) == {"case_00000/imaging.nii.gz", f"case_00000/{label}"}


def test_the_aggregated_label_comes_first_and_another_by_name(tmp_path):
    for name in ("imaging", "segmentation", "aggregated_MAJ_seg", "aggregated_OR_seg"):
        (tmp_path / "case_00000").mkdir(exist_ok=True)
        (tmp_path / "case_00000" / f"{name}.nii.gz").touch()
    assert find_kits(tmp_path).cases[0].label.name == "aggregated_MAJ_seg.nii.gz"
    for name in ("aggregated_OR_seg", "aggregated_OR_seg.nii.gz"):
        assert find_kits(tmp_path, name).cases[0].label.name == "aggregated_OR_seg.nii.gz"
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
    assert labels.cases[0].image is None


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
