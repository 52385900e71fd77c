"""What a preparation leaves alone, other cases' slices, and who leaves it alone."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.prepare import kits as kits_prepare
from metaseg_monai.prepare import kits as kits_run
from metaseg_monai.prepare import kits as lock
from metaseg_monai.prepare import kits_slices
from metaseg_monai.prepare import kits_slices as kits_job
from metaseg_monai.prepare.kits import prepare_kits21

HOLD = """
import sys, time
from pathlib import Path
from metaseg_monai.prepare.kits import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def renamed(source, old, new):
    (source / old).rename(source / new)
    entries = json.loads((source / "kits.json").read_text())
    for entry in entries:
        entry["case_id"] = new if entry["case_id"] == old else entry["case_id"]
    (source / "kits.json").write_text(json.dumps(entries))


def test_a_case_made_anew_keeps_the_slices_of_one_whose_name_begins_alike(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 3)
    renamed(source, "case_00000", "case_00001_01")
    renamed(source, "case_00002", "case_00001_0002")
    whole = prepare_kits21(source, tmp_path / "out")
    before = content(tmp_path / "out")
    (tmp_path / "out" / "images" / "case_00001_0003.tif").unlink()  # its case is made anew
    assert prepare_kits21(source, tmp_path / "out").problems == whole.problems == []
    assert content(tmp_path / "out") == before


def test_a_case_that_fails_leaves_no_slice_and_takes_none_of_others(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 2)
    renamed(source, "case_00000", "case_00001_01")
    prepare_kits21(source, tmp_path / "out")
    (source / "case_00001" / "imaging.nii.gz").write_bytes(b"")
    prepare_kits21(source, tmp_path / "out")
    left = sorted(path.name for path in (tmp_path / "out").rglob("case_*"))
    slices = [f"case_00001_01_000{plane}.tif" for plane in (2, 3, 4)]
    assert left == sorted(["case_00001_01.json", *slices, *slices])


def test_copies_take_no_slices_of_others(kits, tmp_path):
    source = kits.folder(tmp_path / "source", 3)
    renamed(source, "case_00000", "case_00001_01")
    shutil.copy(source / "case_00002" / "imaging.nii.gz", source / "case_00001")
    made = prepare_kits21(source, tmp_path / "out")
    assert len(made.problems) == 2
    slices = {path.name for path in (tmp_path / "out").rglob("*.tif")}
    assert slices == {f"case_00001_01_000{plane}.tif" for plane in (2, 3, 4)}


def test_the_tables_are_gone_before_the_first_new_slice(kits, tmp_path, monkeypatch):
    source = kits.folder(tmp_path / "source", 2)
    out = tmp_path / "out"
    prepare_kits21(source, out)
    (out / "images" / "case_00001_0003.tif").unlink()
    seen = []

    def run_job(job):
        seen.extend(path.name for path in out.glob("*.csv"))
        return kits_job.run_job(job)

    monkeypatch.setattr(kits_run, "run_job", run_job)
    prepare_kits21(source, out)
    assert seen == []
    assert {path.name for path in out.glob("*.csv")} == {"table.csv", "cases.csv"}


def test_two_processes_do_not_write_the_same_half_file(tmp_path, monkeypatch):
    parts = []
    monkeypatch.setattr(
        type(tmp_path), "write_bytes", lambda path, content: parts.append(path) or path.touch()
    )
    for _ in range(2):
        kits_slices.write_unflushed(tmp_path / "case_00001_01_0003.tif", b"")
    assert len(set(parts)) == 2
    assert {kits_slices.case_of_slice(path.name) for path in parts} == {"case_00001_01"}


@pytest.fixture
def held(tmp_path):
    """A folder that another process has."""
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE)
    with process:
        assert process.stdout.readline() == b"held\n"
        yield out, process
        process.kill()


def test_a_second_process_is_refused_at_once(kits, tmp_path, held):
    out, process = held
    source = kits.folder(tmp_path / "source", 1)
    before = content(out)
    told = rf"out: process {process.pid} on .* is preparing this folder; wait until it ends, or"
    with pytest.raises(DataError, match=told):
        prepare_kits21(source, out)
    assert content(out) == before


def test_a_folder_that_another_process_took_meanwhile_is_kept(kits, tmp_path, monkeypatch):
    source, out = kits.folder(tmp_path / "source", 1), tmp_path / "out"

    def late(folder):  # the other one has begun and ended between the first look and the lock
        monkeypatch.undo()
        prepare_kits21(source, out, slice_rule="all")
        return lock.alone(folder)

    monkeypatch.setattr(kits_prepare, "alone", late)
    with pytest.raises(DataError, match="prepared with other settings"):
        prepare_kits21(source, out)
    assert len(list((out / "images").iterdir())) == len(kits.image())


def test_the_lock_of_a_killed_process_is_taken_over(kits, tmp_path, held):
    out, process = held
    source = kits.folder(tmp_path / "source", 1)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert (out / lock.LOCK).exists()
    prepare_kits21(source, out)
    prepare_kits21(source, tmp_path / "whole")
    assert content(out) == content(tmp_path / "whole")
    assert not (out / lock.LOCK).exists()


def test_a_failed_preparation_frees_its_folder(kits, tmp_path, monkeypatch):
    source = kits.folder(tmp_path / "source", 1)

    def full(job):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kits_run, "run_job", full)
    with pytest.raises(DataError, match=r"cannot be written .*No space left"):
        prepare_kits21(source, tmp_path / "out")
    assert not (tmp_path / "out" / lock.LOCK).exists()


def test_a_lock_whose_file_is_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    flock, tries = lock.fcntl.flock, []

    def late(stream, how):
        if not tries:  # the one before has just ended and taken its file away
            (tmp_path / lock.LOCK).unlink()
        tries.append(how)
        flock(stream, how)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with lock.alone(tmp_path):
        assert len(tries) == 2
        assert (tmp_path / lock.LOCK).read_text().startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("without", ["Windows", "cluster"])
def test_a_disk_without_locks_is_used_all_the_same(tmp_path, monkeypatch, without):
    def flock(stream, how):
        raise OSError(lock.WITHOUT_LOCKS[0], "Function not implemented")

    if without == "Windows":
        monkeypatch.setattr(lock, "fcntl", None)
    else:
        monkeypatch.setattr(lock.fcntl, "flock", flock)
    with lock.alone(tmp_path / "new"):
        assert (tmp_path / "new").is_dir()
    assert list((tmp_path / "new").iterdir()) == []


def test_an_error_within_passes_and_frees_the_folder(tmp_path):
    with pytest.raises(DataError, match="broken"), lock.alone(tmp_path / "out"):
        raise DataError("broken")
    with lock.alone(tmp_path / "out"):
        assert (tmp_path / "out" / ".lock").is_file()
    assert not (tmp_path / "out" / ".lock").exists()
