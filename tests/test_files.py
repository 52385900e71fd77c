import csv
import errno
import hashlib
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest

from metaseg_monai import files
from metaseg_monai.errors import DataError, Problem
from metaseg_monai.files import (
    ABANDONED_S,
    OLD,
    check_settings,
    file_sha256,
    folder_beside,
    owned,
    read_lines,
    remove_leftovers,
    replacing,
    sweep_temporaries,
    write_problems,
    write_table,
)
from metaseg_monai.prepare.splits import read_splits


def test_the_old_file_survives_a_failure_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a.nii.gz"
    path.write_text("old")

    def write_half():
        with replacing(path) as part:
            assert part.name.endswith(".nii.gz")
            part.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="full"):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_sweep_removes_only_what_was_left_for_this_file(tmp_path):
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    with replacing(path) as part:
        part.write_text("new")
        left = part.with_name(part.name.replace(".part-", ".part-killed"))
        left.write_text("half")
    other.write_text("kept")
    assert sweep_temporaries(other) == []
    assert sweep_temporaries(path) == [left]
    assert sorted(tmp_path.iterdir()) == [path, other]


def test_a_digest_is_that_of_sha256sum(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 500_000)
    expected = hashlib.sha256(b"abc" * 500_000).hexdigest()
    assert file_sha256(tmp_path / "a") == expected


def test_table_round_trip(tmp_path):
    rows = [{"image": "a,b.tif", "task": 'di"sc'}, {"task": "ring", "image": "ä\n.tif"}]
    path = write_table(rows, tmp_path / "new" / "table.csv")
    with path.open(newline="", encoding="utf-8") as stream:
        assert list(csv.DictReader(stream)) == rows


def test_table_of_uneven_rows_is_refused(tmp_path):
    with pytest.raises(DataError, match="row 3"):
        write_table([{"a": 1}, {"b": 1}], tmp_path / "t.csv")
    with pytest.raises(DataError, match="no rows"):
        write_table([], tmp_path / "t.csv")
    assert list(tmp_path.iterdir()) == []


HOLD = """
import sys, time
from metaseg_monai.files import owned
with owned(sys.argv[1], "is trying a lock"):
    print("owned", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner():
    """Start a process that owns a folder, and end it as the test ends."""
    started = []

    def start(folder):
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
            )
        )
        assert started[-1].stdout.readline() == "owned\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_one_process_owns_a_folder_by_any_of_its_names(owner, tmp_path, monkeypatch):
    folder = tmp_path / ("a" * 240 + " #1")
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    process = owner(folder)
    told = rf"process {process.pid} on .* is trying a lock since 20\d\d-.*; wait until it ends, or"
    for name in (
        folder,
        tmp_path / "link",
        ".",
        f"../{folder.name}",
        tmp_path / "link" / ".." / folder.name,
    ):
        with pytest.raises(DataError, match=told), owned(name, "comes late"):
            pass
    with owned(tmp_path / "other", "is elsewhere"):
        pass
    process.kill()  # as a full memory does; nobody else has to clean up
    process.wait()
    with owned(folder, "is next"), owned("link/..", "is within"), owned(".", "calls itself"):
        assert list(folder.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder.name, "link"])


def test_a_folder_is_free_after_an_error_and_what_was_made_for_the_lock_is_gone(tmp_path):
    with pytest.raises(ValueError, match="of the block"), owned(tmp_path / "a" / "b" / "c", "is"):
        raise ValueError("of the block")
    assert list(tmp_path.iterdir()) == []


def test_another_thread_is_another_owner(tmp_path):
    def enter():
        with owned(tmp_path, "comes late"):
            pass

    with ThreadPoolExecutor(1) as pool:
        with owned(tmp_path, "is first"):
            late = pool.submit(enter).exception()
        assert "another thread of process" in str(late)
        pool.submit(enter).result()


def test_blocks_that_end_in_any_order_leave_nothing_owned(owner, tmp_path):
    first, second = (owned(tmp_path / "run", f"is {one}") for one in ("first", "second"))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(owned(tmp_path / "run", "comes late").__enter__)
        assert "is at work there" in str(late.exception())
    second.__exit__(None, None, None)
    owner(tmp_path / "run")
    with pytest.raises(DataError, match="is trying a lock"), owned(tmp_path / "run", "comes late"):
        pass


def test_who_waits_for_a_folder_says_for_whom_and_comes_in_after(owner, tmp_path, caplog):
    def enter(done):
        with owned(tmp_path / "run", "waits", wait=True):
            return done[0]

    with ThreadPoolExecutor(1) as pool:
        done = [False]
        with owned(tmp_path / "run", "is first"):
            late = pool.submit(enter, done)
            time.sleep(0.2)
            done[0] = True
        assert late.result()
        process = owner(tmp_path / "run")
        late = pool.submit(enter, done)
        while "waits until it ends" not in caplog.text:
            assert not late.done()
        process.kill()
        assert late.result(timeout=60)
    assert f"process {process.pid} on " in caplog.text


def test_a_forked_child_does_not_keep_the_folder_of_a_dead_parent(tmp_path):
    code = """
import os, sys, time
from metaseg_monai.files import owned
from metaseg_monai.prepare.splits import read_splits
with owned(sys.argv[1], "forks"):
    if os.fork() == 0:
        time.sleep(5)
        os._exit(0)
    time.sleep(0.3)
    os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "run"], check=False)
    with owned(tmp_path / "run", "is next"):
        pass


def test_further_ranks_leave_the_folder_to_the_first(owner, tmp_path, monkeypatch):
    owner(tmp_path / "run")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with owned(tmp_path / "run", "is of its run"):
        pass


def test_a_disk_without_locks_is_used_all_the_same(tmp_path, monkeypatch):
    def flock(stream, how):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", flock)
    with owned(tmp_path / "run", "is there"):
        pass


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
def test_a_place_where_nothing_can_be_made_has_no_owner():
    with owned("/proc/nothing", "is there"):
        pass


def test_problems_are_a_table_and_go_with_them(tmp_path):
    problem = Problem("a", "x/a.png", "cut short", "copy it anew")
    (path,) = write_problems(tmp_path, [problem])
    assert path.read_text() == "case,file,problem,next_step\na,x/a.png,cut short,copy it anew\n"
    assert write_problems(tmp_path, []) == []
    path.write_text("my own problems\n")
    write_problems(tmp_path, [])
    assert path.read_text() == "my own problems\n"


def test_other_settings_are_named_and_those_that_are_free_are_not(tmp_path):
    record = tmp_path / "made.json"
    check_settings(record, {"seed": 1})
    record.write_text('{"seed": 0, "table": "a.csv"}')
    check_settings(record, {"seed": 0, "table": "b.csv"}, free=["table"])
    with pytest.raises(DataError, match="was made with seed=0, asked for seed=1; give another"):
        check_settings(record, {"seed": 1, "table": "a.csv"})
    record.write_text("{")
    with pytest.raises(DataError, match=r"made\.json: damaged"):
        check_settings(record, {})


@pytest.mark.parametrize("name", [".partial-" + "0" * 32, ".partial-00000000.1-" + "0" * 32])
def test_what_nobody_changed_for_a_day_is_removed(tmp_path, name, monkeypatch):
    left, inner = tmp_path / f"{name}-out", tmp_path / f"{name}-out" / "images"
    inner.mkdir(parents=True)
    written = left.stat().st_mtime
    os.utime(left, (0, 0))
    os.utime(inner, (0, 0))
    assert remove_leftovers(tmp_path / "out") == ([], [left])  # it was just moved, or made
    monkeypatch.setattr(files.time, "time", lambda: written + ABANDONED_S + 60)
    assert remove_leftovers(tmp_path / "out") == ([left], [])
    assert not left.exists()


def test_new_files_within_keep_a_folder(tmp_path, monkeypatch):
    left = tmp_path / f".partial-{'0' * 32}-out"
    (left / "images").mkdir(parents=True)
    later = left.stat().st_mtime + ABANDONED_S + 60
    monkeypatch.setattr(files.time, "time", lambda: later)
    os.utime(left / "images", (later, later))
    assert remove_leftovers(tmp_path / "out") == ([], [left])


def test_the_only_copy_of_what_was_there_stays(tmp_path):
    """Killed between the two renames: what was there is beside, and nothing in its place."""
    old = folder_beside(tmp_path / "out", OLD)
    old = old.with_name(old.name.replace(f".{os.getpid()}-", ".4194999-"))
    old.mkdir()
    assert remove_leftovers(tmp_path / "out") == ([], [old])
    (tmp_path / "out").mkdir()
    assert remove_leftovers(tmp_path / "out") == ([old], [])


FORMULAS = ["=1+1", "+a", "-a", "@SUM(A1)", "\t=1", "'=1", "''-x", "\uff1d1"]
PLAIN = ["a=b", "-3.2", "+4", "1e-3", "'a", "", "-inf"]


def test_no_cell_is_a_formula_and_text_comes_back(tmp_path):
    texts = FORMULAS + PLAIN
    path = write_table([{"=name": text, "b": -1.5} for text in texts], tmp_path / "a.csv")
    for line in list(csv.reader(path.read_text(encoding="utf-8").splitlines()))[1:]:
        number = line[0].lstrip("+-").replace(".", "").replace("e-", "").isalnum()
        assert number or not line[0].startswith(("=", "+", "-", "@", "\t", "\uff1d"))
        assert line[1] == "-1.5"
    header, rows, problems = files.read_lines(path)
    assert header == ["=name", "b"]
    assert not problems
    assert [cells["=name"] for _, cells in rows] == texts


def test_a_frame_is_written_as_a_table_is():
    frame = pd.DataFrame({"@": ["=x", None, "-1"], "n": [-1.0, 2.0, -3.5]}, index=["-a", "b", "=c"])
    written = files.frame_csv(frame, index=True).splitlines()
    assert written == [",'@,n", "'-a,'=x,-1.0", "b,,2.0", "'=c,-1,-3.5"]


@pytest.mark.parametrize("blank", [",\n,\n", " , \n", "\t,  \n\n,\n"])
def test_rows_without_text_are_no_rows(blank, tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(f"a,b\n1,2\n{blank}3,\n{blank}", encoding="utf-8")
    _, rows, problems = files.read_lines(path)
    assert [cells for _, cells in rows] == [{"a": "1", "b": "2"}, {"a": "3", "b": ""}]
    assert not problems


def test_blank_cells_beyond_the_header_are_no_row(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n,,,,\n", encoding="utf-8")
    assert not files.read_lines(path)[2]


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (b"PK\x03\x04rest", "workbook of Excel"),
        ("image,split\na,train\n".encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08", "compressed"),
    ],
)
def test_a_table_that_is_no_text_is_told_with_what_it_is(tmp_path, start, told):
    (tmp_path / "table.csv").write_bytes(start)
    with pytest.raises(DataError, match=rf"table\.csv: is .*{told}.*save the sheet as"):
        read_lines(tmp_path / "table.csv")


def test_what_may_have_no_end_is_no_table(tmp_path):
    (tmp_path / "device.csv").symlink_to(os.devnull)
    os.mkfifo(tmp_path / "pipe.csv")
    with (tmp_path / "large.csv").open("wb") as sparse:
        sparse.truncate(2 << 30)
    for name, told in (
        ("device", "no regular file"),
        ("pipe", "no regular file"),
        ("large", r"2048 MB, more than .* \(1024\)"),
    ):
        with pytest.raises(DataError, match=rf"{name}\.csv: it .*{told}; give a table"):
            read_lines(tmp_path / f"{name}.csv")
        with pytest.raises(DataError, match=rf"{name}\.csv: it "):
            read_splits(tmp_path / f"{name}.csv")
        (tmp_path / f"{name}.csv").rename(tmp_path / f"{name}.json")
        with pytest.raises(DataError, match=rf"{name}\.json: no lists of splits"):
            read_splits(tmp_path / f"{name}.json")
