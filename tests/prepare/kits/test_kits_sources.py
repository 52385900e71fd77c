"""Sources, lists and clinical tables that do not belong to each other, or leave something empty."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.prepare import kits_case
from metaseg_monai.prepare.kits import prepare_kits21
from metaseg_monai.prepare.kits_find import find_kits
from metaseg_monai.sharing.prepare import told

FILES = ("imaging.nii.gz", "aggregated_MAJ_seg.nii.gz")


def rows_of(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_lists_that_name_cases_of_another_source(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 2)
    lists = tmp_path / "lists.json"
    lists.write_text('{"train": [70, 71], "test": [72]}')
    with pytest.raises(DataError, match=r"lists\.json: names no case of the source.*case_00070"):
        prepare_kits21(source, tmp_path / "out", splits=lists)
    assert not (tmp_path / "out").exists()
    lists.write_text('{"train": [1, 71], "test": [0]}')
    made = prepare_kits21(source, tmp_path / "out", splits=lists)
    assert "1 cases of the lists are not in the source: case_00071; get them" in made.summary


def test_an_empty_split_is_told_and_no_case_moves(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 4)
    (tmp_path / "lists.json").write_text('{"train": [0, 1], "val": [2], "test": [3]}')
    made = prepare_kits21(source, tmp_path / "whole", splits=tmp_path / "lists.json")
    assert "is empty" not in made.summary
    (source / "case_00002" / "imaging.nii.gz").write_bytes(b"")  # a problem
    kits.save(source / "case_00003" / "aggregated_MAJ_seg.nii.gz", np.zeros(kits.shape, np.uint8))
    made = prepare_kits21(source, tmp_path / "out", splits=tmp_path / "lists.json")
    for split, case in (("val", "case_00002"), ("test", "case_00003")):
        assert f"{split} is empty: its cases have problems or no slice ({case})" in made.summary
    assert "train is empty" not in made.summary
    assert {row["split"] for row in rows_of(made.table)} == {"train"}


def test_slices_of_another_source_are_not_removed(kits, tmp_path):
    source, out = kits.folder(tmp_path / "source", 3), tmp_path / "out"
    prepare_kits21(source, out)
    before = content(out)
    kits.case(tmp_path / "other", 1)
    with pytest.raises(DataError, match=r"holds 2 cases that .*other has not: case_00000, case_0"):
        prepare_kits21(tmp_path / "other", out)
    assert content(out) == before
    for case in ("case_00000", "case_00002"):  # the step that the message names
        (out / ".cases" / f"{case}.json").unlink()
    made = prepare_kits21(tmp_path / "other", out)
    assert {row["group"] for row in rows_of(made.table)} == {"case_00001"}


def test_a_clinical_table_without_size_is_refused(kits, tmp_path):
    source, own = kits.folder(tmp_path / "source", 2), tmp_path / "own.csv"
    own.write_text("case_id,size_mm\ncase_00000,41\n")
    with pytest.raises(DataError, match=r"no column tumour_size_mm .*radiographic_size.*size_mm"):
        prepare_kits21(source, tmp_path / "out", clinical=own)
    assert not (tmp_path / "out").exists()


def test_problems_are_told_once(kits, tmp_path, capsys):
    source = kits.folder(tmp_path / "source", 2)
    (source / "case_00001" / "imaging.nii.gz").write_bytes(b"")
    made = prepare_kits21(source, tmp_path / "out")
    capsys.readouterr()
    with pytest.raises(DataError, match=r"1 problems, all in .*problems\.csv") as caught:
        told(made, str(tmp_path / "out"))
    assert (capsys.readouterr().out + str(caught.value)).count(made.problems[0]) == 1


def test_a_clinical_table_beside_the_source_is_not_taken(kits, tmp_path):
    source = kits.folder(tmp_path / "download" / "data", 2)
    (source / "kits.json").rename(tmp_path / "download" / "kits.json")
    made = prepare_kits21(source, tmp_path / "out")
    assert "no clinical table: tumour_size_mm is missing everywhere" in made.summary
    above = prepare_kits21(tmp_path / "download", tmp_path / "above")
    assert f"clinical table: {tmp_path / 'download' / 'kits.json'}" in above.summary


@pytest.mark.parametrize(
    ("cases", "name"),
    [
        ("data", "kits.json"),  # KiTS19
        ("kits21/data", "kits.json"),
        ("dataset", "kits23.json"),
    ],
)
def test_the_clinical_table_of_every_download(tmp_path, monkeypatch, cases, name):
    (tmp_path / cases / "case_00000").mkdir(parents=True)
    (tmp_path / cases / name).touch()
    monkeypatch.chdir(tmp_path)
    for source in (tmp_path, tmp_path / cases, Path(), Path(cases)):
        assert (
            find_kits(source).clinical == source / ("." if cases in str(source) else cases) / name
        )


def test_prepared_json_names_the_clinical_table_and_follows_it(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 2)
    out, other = tmp_path / "out", tmp_path / "other.json"
    other.write_bytes((source / "kits.json").read_bytes())
    for given, name in ((None, "kits.json"), (other, other.as_posix())):
        made = prepare_kits21(source, out, clinical=given)
        assert json.loads((out / "prepared.json").read_text())["clinical"] == name
        assert f"clinical table: {given or source / 'kits.json'}" in made.summary


def test_a_clinical_table_of_other_cases_is_refused(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 2)
    own = tmp_path / "own.csv"
    own.write_text("case_id,tumour_size_mm\n0,41\n1,30\n")
    with pytest.raises(DataError, match=r"own\.csv: no row for any of 2 cases .*case_00000.*as 0:"):
        prepare_kits21(source, tmp_path / "out", clinical=own)
    assert not (tmp_path / "out").exists()
    own.write_text("case_id,tumour_size_mm\n0,41\ncase_00001,30\n")
    made = prepare_kits21(source, tmp_path / "out", clinical=own)
    assert "own.csv; it has no row for 1 cases (case_00000)" in made.summary


def denied(monkeypatch, name, forbidden):
    """Path.<name> as without the right to read, which root always has."""
    whole = getattr(Path, name)

    def refuse(path, *args, **kwargs):
        if forbidden(path):
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path, *args, **kwargs)

    monkeypatch.setattr(Path, name, refuse)


def test_a_case_folder_that_cannot_be_read_is_a_problem_of_its_case(kits, tmp_path, monkeypatch):
    source = kits.folder(tmp_path / "source", 3)
    denied(monkeypatch, "is_file", lambda path: path.parent.name == "case_00001")
    made = prepare_kits21(source, tmp_path / "out")
    assert made.problems == [
        "case_00001: its folder cannot be read (Permission denied); check the disk and the rights"
    ]
    assert {row["group"] for row in rows_of(made.table)} == {"case_00000", "case_00002"}


def test_a_source_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    denied(monkeypatch, "glob", lambda path: path == tmp_path)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\); check the disk"):
        find_kits(tmp_path)


def test_an_image_that_cannot_be_read_is_told_once_done_or_not(kits, tmp_path, monkeypatch):
    source = kits.folder(tmp_path / "source", 3)
    prepare_kits21(source, tmp_path / "out")
    image, label = (source / "case_00001" / name for name in FILES)
    image.touch()  # so that its content is compared
    kits.save(label, kits.label() + 200)
    denied(monkeypatch, "open", lambda path: path == image)
    as_it_is = kits_case.read_image

    def refuse(path, dims):  # gzip has a way of its own to files
        if path == image:
            raise DataError(f"{path}: cannot be read (Permission denied); copy it anew")
        return as_it_is(path, dims)

    monkeypatch.setattr(kits_case, "read_image", refuse)
    for out in ("out", "new"):
        of_label, of_image = prepare_kits21(source, tmp_path / out).problems
        assert "aggregated_MAJ_seg.nii.gz: label value 203" in of_label
        assert of_image == (
            "case_00001: case_00001/imaging.nii.gz: cannot be read (Permission denied); check the "
            "disk and the rights"
        )
