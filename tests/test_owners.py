import errno
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from filelock import FileLock

from metaseg_monai.errors import DataError
from metaseg_monai.owners import LOOKING, owned

HOLD = """
import sys, time
from metaseg_monai.owners import owned
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


def test_who_just_looks_refuses_nobody(tmp_path):
    folder = tmp_path / "out"
    with owned(folder, "x"):
        (path,) = tmp_path.glob(".owner-*.lock")
    lock = FileLock(path, thread_local=False)
    lock.acquire()
    told = {"process": "p", "doing": LOOKING, "since": "now"}
    path.with_suffix(".json").write_text(json.dumps(told))
    timer = threading.Timer(2.5, lock.release)  # more than a second, after which all is tried
    timer.start()
    with owned(folder, "is a test"):
        assert not lock.is_locked
    timer.join()


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
from metaseg_monai.owners import owned
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
