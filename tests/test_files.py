import hashlib
import os

import pytest

from metaseg_monai import files
from metaseg_monai.errors import DataError
from metaseg_monai.files import (
    ABANDONED_S,
    OLD,
    check_settings,
    file_sha256,
    folder_beside,
    remove_leftovers,
    replacing,
    sweep_temporaries,
)


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
