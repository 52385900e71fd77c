"""Sources, lists and clinical tables that do not belong to each other, or leave something empty."""

import csv

import numpy as np
import pytest

from metaseg_monai.data.kits.prepare import prepare_kits21
from metaseg_monai.errors import DataError
from metaseg_monai.sharing.prepare import told


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
