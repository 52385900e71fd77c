"""What killed writers leave beside a folder: removed, unless in use or the only copy."""

import os

import pytest

from metaseg_monai import files as partial
from metaseg_monai.files import ABANDONED_S, OLD, folder_beside, remove_leftovers


@pytest.mark.parametrize("name", [".partial-" + "0" * 32, ".partial-00000000.1-" + "0" * 32])
def test_what_nobody_changed_for_a_day_is_removed(tmp_path, name, monkeypatch):
    left, inner = tmp_path / f"{name}-out", tmp_path / f"{name}-out" / "images"
    inner.mkdir(parents=True)
    written = left.stat().st_mtime
    os.utime(left, (0, 0))
    os.utime(inner, (0, 0))
    assert remove_leftovers(tmp_path / "out") == ([], [left])  # it was just moved, or made
    monkeypatch.setattr(partial.time, "time", lambda: written + ABANDONED_S + 60)
    assert remove_leftovers(tmp_path / "out") == ([left], [])
    assert not left.exists()


def test_new_files_within_keep_a_folder(tmp_path, monkeypatch):
    left = tmp_path / f".partial-{'0' * 32}-out"
    (left / "images").mkdir(parents=True)
    later = left.stat().st_mtime + ABANDONED_S + 60
    monkeypatch.setattr(partial.time, "time", lambda: later)
    os.utime(left / "images", (later, later))
    assert remove_leftovers(tmp_path / "out").kept == [left]


def test_the_only_copy_of_what_was_there_stays(tmp_path):
    """Killed between the two renames: what was there is beside, and nothing in its place."""
    old = folder_beside(tmp_path / "out", OLD)
    old = old.with_name(old.name.replace(f".{os.getpid()}-", ".4194999-"))
    old.mkdir()
    assert remove_leftovers(tmp_path / "out").kept == [old]
    (tmp_path / "out").mkdir()
    assert remove_leftovers(tmp_path / "out").removed == [old]
