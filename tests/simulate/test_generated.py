"""Folders of generated data, and what killed writers leave beside them."""

import multiprocessing
import os
import signal

import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.files import folder_beside
from metaseg_monai.simulate.generated import ensure_generated, write_generated


def fill(folder):
    (folder / "images").mkdir()
    (folder / "table.csv").write_text("image\\n")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def half_write(folder):
    (folder / "table.csv").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path, caplog):
    arguments = (tmp_path / "out", {}, half_write)
    process = multiprocessing.get_context("fork").Process(target=write_generated, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (left,) = names(tmp_path)
    assert left.startswith(".partial-")
    write_generated(tmp_path / "out", {}, fill)
    assert names(tmp_path) == ["out"]
    assert f"{left}: was left half-written" in caplog.text


def test_what_living_writers_and_other_outputs_have_is_kept(tmp_path, caplog):
    mine = folder_beside(tmp_path / "out")
    dead = mine.name.replace(f".{os.getpid()}-", ".4194999-")
    kept = [
        mine.name,
        dead.removesuffix("out") + "other-out",  # of another output with such an end
        dead.replace(dead.split(".")[1], "partial-" + "0" * 8),  # on another machine
        ".partial-" + "0" * 32 + "-out",  # nothing known of its writer
        ".partial-of-mine-out",
    ]
    for name in [*kept, dead]:
        (tmp_path / name).mkdir()
    write_generated(tmp_path / "out", {}, fill)
    assert names(tmp_path) == sorted([*kept, "out"])
    assert caplog.text.count("removed") == 1


def test_the_present_folder_stays_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    write_generated(type(tmp_path)(), {"a": 1}, fill)
    assert names(tmp_path) == ["generated.json", "images", "table.csv"]
    assert tmp_path.stat().st_ino == before
    assert not list(tmp_path.parent.glob(".partial-*"))
    with pytest.raises(DataError, match=f"{tmp_path}: not empty"):
        write_generated(type(tmp_path)("."), {}, fill)


def test_the_default_folder_may_be_the_present_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = type(tmp_path)()
    ensure_generated(here, here, {"a": 1}, fill, "generate")
    assert names(tmp_path) == ["generated.json", "images", "table.csv"]
    ensure_generated(here, tmp_path, {"a": 1}, fill, "generate")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be made"):
        write_generated(tmp_path / "file" / "out", {}, fill)
