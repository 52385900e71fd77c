"""A KiTS folder from volumes to slices: resumed, alone, and with the tables that belong to it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.metadata import Continuous, MetadataSchema, MetadataWarning
from metaseg_monai.prepare import kits, kits_case, kits_volumes, prepare_kits21
from metaseg_monai.prepare.kits_source import find_clinical, find_kits
from metaseg_monai.tables.table import read_table

FILES = ("imaging.nii.gz", "aggregated_MAJ_seg.nii.gz")
SIZE = {"unit": "mm", "provenance": "clinical prior", "availability": "pre-operative"}
COMMAND = """
import sys
from metaseg_monai.prepare.kits import prepare_kits21
if __name__ == "__main__":
    print(prepare_kits21(sys.argv[1], sys.argv[2], workers=int(sys.argv[3])).summary)
"""
HOLD = """
import sys, time
from pathlib import Path
from metaseg_monai.files import locked
with locked(Path(sys.argv[1]) / ".cases" / ".lock", sys.argv[1], ""):
    print("held", flush=True)
    time.sleep(60)
"""


def schema(name="tumour_size_mm"):
    return MetadataSchema([Continuous(name=name, range=(5, 250), missing="unknown", **SIZE)])


def test_a_folder_that_training_can_read(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 4, case_2={"radiographic_size": None})
    made = prepare_kits21(source, tmp_path / "out", spacing="native")
    assert made.table == tmp_path / "out" / "table.csv"
    assert made.problems == []
    rows = scans.rows(made.table)
    assert [(row["group"], row["plane"]) for row in rows] == [
        (f"case_{n:05d}", plane) for n in range(4) for plane in "234"
    ]
    sizes = {row["group"]: row["tumour_size_mm"] for row in rows}
    assert list(sizes.values()) == ["20", "30", "", "50"]
    assert rows[0]["gender"] == "male"
    table = read_table(made.table, schema())
    assert len(table.rows) == 12
    assert set(table.splits) == {"train", "val", "test"}


def test_cases_table(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 2)
    scans.case(source, 1, codes=("R", "A", "S"))
    prepare_kits21(source, tmp_path / "out")
    first, second = scans.rows(tmp_path / "out" / "cases.csv")
    assert (first["shape"], first["orientation"]) == ("6x20x24", "IPL")
    assert (second["shape"], second["orientation"]) == ("24x20x6", "RAS")
    expected = {"planes": 6, "slices": 3, "planes_kidney": 2, "planes_tumour": 2}
    expected |= {"planes_cyst": 2, "planes_tumour_and_cyst": 1, "planes_mass": 3}
    expected["planes_kidney_or_mass"] = 4
    for row in (first, second):
        assert {name: int(row[name]) for name in expected} == expected
        assert row["tumour_mm3"] == "1125"  # 200 voxels of 5.625 mm3
        assert row["tumour_components"] == "1"
        assert len(row["image_sha256"]) == 64
    assert json.loads((tmp_path / "out" / "prepared.json").read_text())["slice_rule"] == "mass"


@pytest.mark.parametrize(("rule", "planes"), [("mass", 3), ("kidney", 4), ("all", 6)])
def test_rules(scans, tmp_path, rule, planes):
    made = prepare_kits21(scans.folder(tmp_path / "source", 2), tmp_path / "out", rule)
    assert len(scans.rows(made.table)) == 2 * planes
    assert f"{2 * planes} slices written (rule {rule})" in made.summary
    assert "planes by rule: mass 6, kidney 8, all 12" in made.summary


def test_summary_counts_and_compares_the_size_with_the_label(scans, tmp_path):
    source = tmp_path / "source"
    for number in range(4):
        label = scans.label()
        label[2, 4 : 5 + 4 * number, 20:22] = 2
        scans.case(source, number, label=label)
    scans.clinical(source, 4)
    summary = prepare_kits21(source, tmp_path / "out").summary
    assert "4 cases prepared, 0 with problems" in summary
    assert "planes with tumour 8, with cyst 8, with both 4, with kidney 8" in summary
    assert "splits: train 2 patients with 6 slices" in summary
    assert "Spearman" in summary
    assert "partly derived from what the label shows" in summary
    assert "the radiographic size, known before surgery; missing in 0 cases" in summary
    assert "case_00003" not in summary


def test_labels_only(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 2)
    for case in source.glob("case_*"):
        (case / "imaging.nii.gz").unlink()
    problems = prepare_kits21(source, tmp_path / "none").problems
    assert len(problems) == 2
    assert "case_00000/imaging.nii.gz: no such file" in problems[0]
    scans.save(source / "case_00001" / "aggregated_MAJ_seg.nii.gz", scans.label()[::-1])
    made = prepare_kits21(source, tmp_path / "out", labels_only=True)
    assert made.table == tmp_path / "out" / "slices.csv"
    assert not (tmp_path / "out" / "table.csv").exists()
    assert not (tmp_path / "out" / "images").exists()
    assert "image" not in scans.rows(made.table)[0]


def test_official_lists_decide_and_leave_out(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 3)
    (tmp_path / "lists.json").write_text('{"train": [2], "test": [0]}')
    made = prepare_kits21(source, tmp_path / "out", splits=tmp_path / "lists.json")
    splits = {row["case"]: row["split"] for row in scans.rows(tmp_path / "out" / "cases.csv")}
    assert splits == {"case_00000": "test", "case_00002": "train"}
    assert "left out, as no list names them: case_00001" in made.summary


def test_without_clinical_table_sizes_are_missing_and_it_is_said(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 2)
    (source / "kits.json").rename(tmp_path / "elsewhere.json")
    made = prepare_kits21(source, tmp_path / "out")
    assert "no clinical table: tumour_size_mm is missing everywhere" in made.summary
    assert {row["tumour_size_mm"] for row in scans.rows(made.table)} == {""}
    made = prepare_kits21(source, tmp_path / "out", clinical=tmp_path / "elsewhere.json")
    assert {row["tumour_size_mm"] for row in scans.rows(made.table)} == {"20", "30"}


def test_a_case_that_the_clinical_table_lacks_is_remarked(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 2)
    scans.clinical(source, 1)
    made = prepare_kits21(source, tmp_path / "out")
    assert "case_00001: not in the clinical table" in made.summary
    assert scans.rows(made.table)[-1]["gender"] == ""


def test_suspicious_but_allowed_images_are_remarked(scans, tmp_path):
    source = tmp_path / "source"
    twice = scans.image()
    twice[5] = twice[1]
    scans.case(source, 0, image=twice)
    scans.case(source, 1, spacing=(250.0, 1.0, 1.0))
    scans.case(source, 2, image=np.full(scans.shape, 7, np.int16))
    scans.case(source, 3, image=np.abs(scans.image(3)))
    scans.case(source, 4, image=scans.image(4) + np.float32(0.5))
    scans.case(source, 5)
    prepare_kits21(source, tmp_path / "out")
    remarks = [row["remarks"] for row in scans.rows(tmp_path / "out" / "cases.csv")]
    assert "planes 1 and 5 are equal to the bit: several contrast phases" in remarks[0]
    assert "6 planes over 1500 mm: several contrast phases" in remarks[1]
    assert "every voxel is 7" in remarks[2]
    assert "none below 0" in remarks[3]
    assert "no whole numbers" in remarks[4]
    assert remarks[5] == ""


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_run_keeps_what_is_done(scans, tmp_path, workers):
    source = scans.folder(tmp_path / "source", 2)
    prepare_kits21(source, tmp_path / "out", workers=workers)
    before = scans.content(tmp_path / "out")
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "images").iterdir()}
    prepare_kits21(source, tmp_path / "out", workers=workers)
    assert scans.content(tmp_path / "out") == before
    assert times == {p: p.stat().st_mtime_ns for p in times}
    prepare_kits21(source, tmp_path / "other", workers=3 - workers)
    assert scans.content(tmp_path / "other") == before


def test_lost_or_damaged_slices_are_made_anew(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 3)
    prepare_kits21(source, tmp_path / "out")
    before = scans.content(tmp_path / "out")
    (tmp_path / "out" / "images" / "case_00000_0003.tif").unlink()
    (tmp_path / "out" / "labels" / "case_00001_0003.tif").write_bytes(b"")
    (tmp_path / "out" / "images" / ".part-case_00002_0003.tif").write_bytes(b"half")
    (tmp_path / "out" / "images" / "case_00009_0003.tif").write_bytes(b"of no case")
    (tmp_path / "out" / ".cases" / ".part-0-case_00002.json").write_bytes(b"half")
    (tmp_path / "out" / ".part-0-prepared.json").write_bytes(b"half")
    prepare_kits21(source, tmp_path / "out")
    assert scans.content(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("slice_rule", "all"),
        ("spacing", "native"),
        ("seed", 1),
        ("test", 0.1),
        ("size", "pathologic"),
        ("label_name", "segmentation"),
        ("labels_only", True),
    ],
)
def test_other_settings_are_refused(scans, tmp_path, setting, value):
    source = scans.folder(tmp_path / "source", 1, case_0={"pathologic_size": None})
    prepare_kits21(source, tmp_path / "out")
    before = scans.content(tmp_path / "out")
    values = {setting: value} | ({"train": 0.75} if setting == "test" else {})
    name = "shares" if setting == "test" else setting
    with pytest.raises(DataError, match=rf"was made with .*{name}=.*asked for .*{name}="):
        prepare_kits21(source, tmp_path / "out", **values)
    assert scans.content(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"slice_rule": "tumour"}, "slice_rule='tumour': expected one of mass, kidney, all"),
        ({"workers": 0}, "workers=0"),
        ({"spacing": "0,78"}, "spacing='0,78': expected mm"),
        ({"spacing": 0}, "spacing=0"),
        ({"size": "clinical"}, "size='clinical'"),
        ({"train": 0.9}, "sum to 1"),
        ({"clinical": "missing.json"}, "missing.json"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(scans, tmp_path, values, message):
    source = scans.folder(tmp_path / "source", 1)
    with pytest.raises(DataError, match=message):
        prepare_kits21(source, tmp_path / "out", **values)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_other_files_is_refused(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 1)
    with pytest.raises(DataError, match=r"holds case_00000, kits\.json; give a new or"):
        prepare_kits21(source, source)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="a file, expected a new or empty folder"):
        prepare_kits21(source, tmp_path / "file")


def wait_for(path, process):
    deadline = time.monotonic() + 120
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)


@pytest.mark.parametrize(("workers", "after"), [(1, "images/case_00003_0002.tif"), (2, ".cases")])
def test_killed_and_resumed_equals_undisturbed(scans, tmp_path, workers, after):
    source = scans.folder(tmp_path / "source", 8)
    prepare_kits21(source, tmp_path / "whole")
    out = tmp_path / "out"
    script = tmp_path / "run.py"
    script.write_text(COMMAND)
    command = [sys.executable, str(script), str(source), str(out), str(workers)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for(out / after, process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.3)  # workers end with their parent
    assert not (out / "table.csv").exists()
    for record in (out / ".cases").glob("case_*.json"):
        for row in json.loads(record.read_text())["slices"]:
            assert (out / row["image"]).read_bytes() == (
                tmp_path / "whole" / row["image"]
            ).read_bytes()
    prepare_kits21(source, out, workers=workers)
    assert scans.content(out) == scans.content(tmp_path / "whole")


def test_a_killed_worker_is_told_and_the_rest_resumed(scans, tmp_path, monkeypatch):
    source = scans.folder(tmp_path / "source", 4)
    prepare_kits21(source, tmp_path / "whole")
    each = kits.each_case
    deadly = lambda write, cases, n: each(write, [*cases[:2], Deadly()], n)  # noqa: E731
    monkeypatch.setattr(kits, "each_case", deadly)
    with pytest.raises(DataError, match=r"a worker was killed.*finished cases are kept"):
        prepare_kits21(source, tmp_path / "out", workers=2)
    monkeypatch.undo()
    assert not (tmp_path / "out" / "table.csv").exists()
    prepare_kits21(source, tmp_path / "out", workers=2)
    assert scans.content(tmp_path / "out") == scans.content(tmp_path / "whole")


class Deadly:
    """Kills the process that unpickles it."""

    def __reduce__(self):
        return (signal.raise_signal, (signal.SIGKILL,))


def renamed(source, old, new):
    (source / old).rename(source / new)
    entries = json.loads((source / "kits.json").read_text())
    for entry in entries:
        entry["case_id"] = new if entry["case_id"] == old else entry["case_id"]
    (source / "kits.json").write_text(json.dumps(entries))


def test_a_case_made_anew_keeps_the_slices_of_one_whose_name_begins_alike(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 3)
    renamed(source, "case_00000", "case_00001_01")
    renamed(source, "case_00002", "case_00001_0002")
    whole = prepare_kits21(source, tmp_path / "out")
    before = scans.content(tmp_path / "out")
    (tmp_path / "out" / "images" / "case_00001_0003.tif").unlink()  # its case is made anew
    assert prepare_kits21(source, tmp_path / "out").problems == whole.problems == []
    assert scans.content(tmp_path / "out") == before


def test_a_case_that_fails_leaves_no_slice_and_takes_none_of_others(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 2)
    renamed(source, "case_00000", "case_00001_01")
    prepare_kits21(source, tmp_path / "out")
    (source / "case_00001" / "imaging.nii.gz").write_bytes(b"")
    prepare_kits21(source, tmp_path / "out")
    left = sorted(path.name for path in (tmp_path / "out").rglob("case_*"))
    slices = [f"case_00001_01_000{plane}.tif" for plane in (2, 3, 4)]
    assert left == sorted(["case_00001_01.json", *slices, *slices])


def test_copies_take_no_slices_of_others(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 3)
    renamed(source, "case_00000", "case_00001_01")
    shutil.copy(source / "case_00002" / "imaging.nii.gz", source / "case_00001")
    made = prepare_kits21(source, tmp_path / "out")
    assert len(made.problems) == 2
    slices = {path.name for path in (tmp_path / "out").rglob("*.tif")}
    assert slices == {f"case_00001_01_000{plane}.tif" for plane in (2, 3, 4)}


def test_the_tables_are_gone_before_the_first_new_slice(scans, tmp_path, monkeypatch):
    source = scans.folder(tmp_path / "source", 2)
    out = tmp_path / "out"
    prepare_kits21(source, out)
    (out / "images" / "case_00001_0003.tif").unlink()
    write, seen = kits.write_slices, []

    def watched(*args):
        seen.extend(path.name for path in out.glob("*.csv"))
        return write(*args)

    monkeypatch.setattr(kits, "write_slices", watched)
    prepare_kits21(source, out)
    assert seen == []
    assert {path.name for path in out.glob("*.csv")} == {"table.csv", "cases.csv"}


@pytest.fixture
def held(tmp_path):
    """A folder that another process has."""
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"held\n"
        yield out, process
        process.kill()


def test_a_second_process_is_refused_at_once(scans, tmp_path, held):
    out, process = held
    source = scans.folder(tmp_path / "source", 1)
    before = scans.content(out)
    told = rf"out: process {process.pid} on .* is preparing this folder; wait until it ends, or"
    with pytest.raises(DataError, match=told):
        prepare_kits21(source, out)
    assert scans.content(out) == before


def test_a_folder_that_another_process_took_meanwhile_is_kept(scans, tmp_path, monkeypatch):
    source, out = scans.folder(tmp_path / "source", 1), tmp_path / "out"
    lock = kits.locked

    def late(*args):  # the other one has begun and ended between the first look and the lock
        monkeypatch.undo()
        prepare_kits21(source, out, slice_rule="all")
        return lock(*args)

    monkeypatch.setattr(kits, "locked", late)
    with pytest.raises(DataError, match="was made with slice_rule='all', asked for slice_rule='ma"):
        prepare_kits21(source, out)
    assert len(list((out / "images").iterdir())) == len(scans.image())


def test_the_lock_of_a_killed_process_is_taken_over(scans, tmp_path, held):
    out, process = held
    source = scans.folder(tmp_path / "source", 1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    prepare_kits21(source, out)
    prepare_kits21(source, tmp_path / "whole")
    assert scans.content(out) == scans.content(tmp_path / "whole")


def test_a_failed_preparation_frees_its_folder(scans, tmp_path, monkeypatch):
    source = scans.folder(tmp_path / "source", 1)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kits, "write_slices", full)
    with pytest.raises(DataError, match=r"cannot be written .*No space left"):
        prepare_kits21(source, tmp_path / "out")
    monkeypatch.undo()
    assert prepare_kits21(source, tmp_path / "out").problems == []


def test_lists_that_name_cases_of_another_source(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 2)
    lists = tmp_path / "lists.json"
    lists.write_text('{"train": [70, 71], "test": [72]}')
    with pytest.raises(DataError, match=r"lists\.json: names no case of the source.*case_00070"):
        prepare_kits21(source, tmp_path / "out", splits=lists)
    assert not (tmp_path / "out").exists()
    lists.write_text('{"train": [1, 71], "test": [0]}')
    made = prepare_kits21(source, tmp_path / "out", splits=lists)
    assert "1 cases of the lists are not in the source: case_00071; get them" in made.summary


def test_an_empty_split_is_told_and_no_case_moves(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 4)
    (tmp_path / "lists.json").write_text('{"train": [0, 1], "val": [2], "test": [3]}')
    made = prepare_kits21(source, tmp_path / "whole", splits=tmp_path / "lists.json")
    assert "is empty" not in made.summary
    (source / "case_00002" / "imaging.nii.gz").write_bytes(b"")  # a problem
    scans.save(source / "case_00003" / "aggregated_MAJ_seg.nii.gz", np.zeros(scans.shape, np.uint8))
    made = prepare_kits21(source, tmp_path / "out", splits=tmp_path / "lists.json")
    for split, case in (("val", "case_00002"), ("test", "case_00003")):
        assert f"{split} is empty: its cases have problems or no slice ({case})" in made.summary
    assert "train is empty" not in made.summary
    assert {row["split"] for row in scans.rows(made.table)} == {"train"}


def test_slices_of_another_source_are_not_removed(scans, tmp_path):
    source, out = scans.folder(tmp_path / "source", 3), tmp_path / "out"
    prepare_kits21(source, out)
    before = scans.content(out)
    scans.case(tmp_path / "other", 1)
    with pytest.raises(DataError, match=r"holds 2 cases that .*other has not: case_00000, case_0"):
        prepare_kits21(tmp_path / "other", out)
    assert scans.content(out) == before
    for case in ("case_00000", "case_00002"):  # the step that the message names
        (out / ".cases" / f"{case}.json").unlink()
    made = prepare_kits21(tmp_path / "other", out)
    assert {row["group"] for row in scans.rows(made.table)} == {"case_00001"}


def test_a_clinical_table_without_size_is_refused(scans, tmp_path):
    source, own = scans.folder(tmp_path / "source", 2), tmp_path / "own.csv"
    own.write_text("case_id,size_mm\ncase_00000,41\n")
    with pytest.raises(DataError, match=r"no column tumour_size_mm .*radiographic_size.*size_mm"):
        prepare_kits21(source, tmp_path / "out", clinical=own)
    assert not (tmp_path / "out").exists()


def test_problems_are_told_once(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 2)
    (source / "case_00001" / "imaging.nii.gz").write_bytes(b"")
    made = prepare_kits21(source, tmp_path / "out")
    assert f"1 problems, all in {tmp_path / 'out'}/problems.csv. Their cases" in made.refusal
    assert (str(made) + made.refusal).count(made.problems[0]) == 1


def test_a_clinical_table_beside_the_source_is_not_taken(scans, tmp_path):
    source = scans.folder(tmp_path / "download" / "data", 2)
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
        inside = "." if cases in str(source) else cases
        assert find_clinical(source, find_kits(source).root) == source / inside / name


def test_prepared_json_names_the_clinical_table_and_follows_it(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 2)
    out, other = tmp_path / "out", tmp_path / "other.json"
    other.write_bytes((source / "kits.json").read_bytes())
    for given, name in ((None, "kits.json"), (other, other.as_posix())):
        made = prepare_kits21(source, out, clinical=given)
        assert json.loads((out / "prepared.json").read_text())["clinical"] == name
        assert f"clinical table: {given or source / 'kits.json'}" in made.summary


def test_a_clinical_table_of_other_cases_is_refused(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 2)
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


def test_a_case_folder_that_cannot_be_read_is_a_problem_of_its_case(scans, tmp_path, monkeypatch):
    source = scans.folder(tmp_path / "source", 3)
    denied(monkeypatch, "is_file", lambda path: path.parent.name == "case_00001")
    made = prepare_kits21(source, tmp_path / "out")
    assert made.problems == [
        "case_00001: its folder cannot be read (Permission denied); check the disk and the rights"
    ]
    assert {row["group"] for row in scans.rows(made.table)} == {"case_00000", "case_00002"}


def test_a_source_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    denied(monkeypatch, "glob", lambda path: path == tmp_path)
    with pytest.raises(DataError, match=r"cannot be read \(Permission denied\); check the disk"):
        find_kits(tmp_path)


def test_an_image_that_cannot_be_read_is_told_once_done_or_not(scans, tmp_path, monkeypatch):
    source = scans.folder(tmp_path / "source", 3)
    prepare_kits21(source, tmp_path / "out")
    image, label = (source / "case_00001" / name for name in FILES)
    image.touch()  # so that its content is compared
    scans.save(label, scans.label() + 200)
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


def test_one_item_a_case(scans, tmp_path):
    source = scans.folder(tmp_path / "source", case_1={"radiographic_size": None})
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
def test_a_wrong_size_is_told_with_its_case(scans, tmp_path, changed, message):
    source = scans.folder(tmp_path / "source", **changed)
    with pytest.raises(DataError, match=message):
        kits_volumes(source, schema())


def test_a_wrong_row_of_a_case_that_is_left_out_does_not_matter(scans, tmp_path):
    source = scans.folder(tmp_path / "source", case_0={"radiographic_size": "big"})
    (tmp_path / "lists.json").write_text('{"train": [1], "test": [2]}')
    table = kits_volumes(source, schema(), splits=tmp_path / "lists.json")
    assert [row["case"] for row in table.rows] == ["case_00001", "case_00002"]


def test_a_table_without_a_field_and_lists_without_a_case_are_refused(scans, tmp_path):
    source = scans.folder(tmp_path / "source", 2)
    with pytest.raises(DataError, match="no column width_mm, but tumour_size_mm, radiographic"):
        kits_volumes(source, schema("width_mm"))
    (tmp_path / "lists.json").write_text('{"train": [7]}')
    with pytest.raises(DataError, match="names no case of the source"):
        kits_volumes(source, schema(), splits=tmp_path / "lists.json")
    (source / "kits.json").unlink()
    with pytest.raises(DataError, match=r"no kits\.json found"):
        kits_volumes(source, schema())


def test_a_table_of_other_cases_is_refused(scans, tmp_path):
    names = {f"case_{n}": {"case_id": f"Case {n}"} for n in range(3)}
    source = scans.folder(tmp_path / "source", **names)
    message = (
        r"no row for any of 3 cases such as case_00000; it has 3 rows, such as Case 0: .*case_id"
    )
    with pytest.raises(DataError, match=message):
        kits_volumes(source, schema())


def test_cases_without_a_row_are_told(scans, tmp_path):
    source = scans.folder(tmp_path / "source", case_1={"case_id": "Case 1"})
    with pytest.warns(MetadataWarning, match="no row for 'case_00001'; their tumour_size_mm are"):
        rows = kits_volumes(source, schema()).rows
    assert [row["metadata"]["tumour_size_mm"] for row in rows] == ["20", "", "40"]


def test_a_field_that_no_training_case_gives_is_told(scans, tmp_path):
    source = scans.folder(tmp_path / "source", case_2={"radiographic_size": None})
    message = r"kits\.json: no 'tumour_size_mm' in any of 1 training row\(s\)"
    with pytest.warns(MetadataWarning, match=message):
        kits_volumes(source, schema())
