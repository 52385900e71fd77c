"""Folders of generated data, and what killed writers leave beside them."""

import json
import multiprocessing
import os
import shutil
import signal

import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import folder_beside
from metaseg_monai.simulate.generated import write_generated
from metaseg_monai.tables import read_table


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
    (left,) = (name for name in names(tmp_path) if not name.startswith(".owner-"))
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
    assert caplog.text.count("; removed") == 1
    assert "left by a killed run, if none writes it just now; then remove it" in caplog.text


def test_the_present_folder_stays_the_same_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    write_generated(type(tmp_path)(), {"a": 1}, fill)
    assert names(tmp_path) == ["generated.json", "images", "license.json", "table.csv"]
    assert tmp_path.stat().st_ino == before
    assert not list(tmp_path.parent.glob(".partial-*"))
    with pytest.raises(DataError, match=f"{tmp_path}: not empty"):
        write_generated(type(tmp_path)("."), {}, fill)


def test_files_are_kept_and_failures_leave_nothing(tmp_path):
    def fail(folder):
        fill(folder)
        raise OSError("disk full")

    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="disk full"):
        write_generated(tmp_path / "out", {}, fail)
    assert names(tmp_path / "out") == []
    (tmp_path / "out" / "mine.txt").touch()
    for once in (True, False):
        with pytest.raises(DataError, match="not empty; give another folder"):
            write_generated(tmp_path / "out", {}, fill, once)
    assert names(tmp_path / "out") == ["mine.txt"]
    assert names(tmp_path) == ["out"]


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"out: .*; "):
        write_generated(tmp_path / "file" / "out", {}, fill)


@pytest.fixture
def recipe(tmp_path):
    """A bundle's configs/simulate.json, whose folder is data."""

    def write(**settings):
        path = tmp_path / "bundle" / "configs" / "simulate.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        target = "metaseg_monai.simulate.generate_synthetic_shapes"
        few = {"train": 2, "val": 1, "test": 1, "size": 32}
        path.write_text(json.dumps({"_target_": target, "output": "../data", **few, **settings}))
        return path

    return write


def test_a_bundles_own_folder_is_filled_once_and_said_so(tmp_path, recipe, caplog):
    data = tmp_path / "bundle" / "data"
    table = read_table(data, simulate=recipe())
    assert len(table.rows) == 4
    assert f"{data} is empty: generating data there, once" in caplog.text
    caplog.clear()
    assert read_table(data, simulate=recipe()) == table
    assert caplog.text == ""
    with pytest.raises(DataError, match=r"made with size=32, asked for size=40"):
        read_table(data, simulate=recipe(size=40))
    (data / "generated.json").unlink()  # made by hand
    assert read_table(data, simulate=recipe(size=40)) == table


def test_the_present_folder_may_be_the_bundles_own(tmp_path, recipe, monkeypatch):
    (tmp_path / "bundle" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "bundle" / "data")
    for _ in range(2):
        assert len(read_table(".", simulate=recipe()).rows) == 4


def test_two_processes_at_once_end_with_the_same_data(tmp_path, recipe):
    def fill():
        barrier.wait(60)
        results.put(len(read_table(tmp_path / "bundle" / "data", simulate=path).rows))

    context, path = multiprocessing.get_context("fork"), recipe()
    for _ in range(4):
        barrier, results = context.Barrier(2), context.Queue()
        both = [context.Process(target=fill) for _ in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(60)
        assert [process.exitcode for process in both] == [0, 0]
        assert [results.get(timeout=10) for _ in both] == [4, 4]
        assert sorted(names(tmp_path / "bundle")) == ["configs", "data"]
        shutil.rmtree(tmp_path / "bundle" / "data")


def test_no_other_folder_is_filled(tmp_path, recipe):
    with pytest.raises(DataError, match=r"mine: no such table.*prepare.*generate"):
        read_table(tmp_path / "mine", simulate=recipe())
    (tmp_path / "bundle" / "data").mkdir()
    (tmp_path / "bundle" / "data" / "own.csv").write_text("image\na.tif\n")
    with pytest.raises(DataError, match="There is own\\.csv: name it"):
        read_table(tmp_path / "bundle" / "data", simulate=recipe())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sizes": 32}, "unexpected keyword argument 'sizes'"),
        ({"_target_": "metaseg_monai.simulate.generate_shapes"}, "expected {_target_: a simulator"),
        ({"output": None}, "TypeError"),
    ],
)
def test_a_recipe_that_names_no_simulator_is_refused(tmp_path, recipe, settings, told):
    with pytest.raises(ConfigError, match=rf"simulate\.json: .*{told}"):
        read_table(tmp_path / "bundle" / "data", simulate=recipe(**settings))
    assert not (tmp_path / "bundle" / "data").exists()
