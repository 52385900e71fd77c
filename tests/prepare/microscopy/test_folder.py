"""The folder that a preparation makes: whose it is, and what it leaves beside it."""

import time

import pytest

from metaseg_monai import files as partial
from metaseg_monai.errors import DataError
from metaseg_monai.prepare import PrepareOptions, prepare_cells

HEX = "0123456789abcdef" * 2


def test_another_source_does_not_replace_a_folder(lab, tmp_path):
    one, _ = lab.cells(tmp_path / "one")
    other, _ = lab.cells(tmp_path / "other", 3)
    prepare_cells(one, tmp_path / "out")
    before = lab.content(tmp_path / "out")
    with pytest.raises(DataError, match=r"was made with source='.*one', asked for source='.*oth"):
        prepare_cells(other, tmp_path / "out")
    assert lab.content(tmp_path / "out") == before
    (tmp_path / "link").symlink_to(one)
    prepare_cells(tmp_path / "link", tmp_path / "out")  # the same source by another name


def test_only_settings_that_differ_are_told(lab, tmp_path):
    source, _ = lab.cells(tmp_path / "lab")
    prepare_cells(source, tmp_path / "out")
    with pytest.raises(DataError, match="with seed=0, asked for seed=1; give anoth"):
        prepare_cells(source, tmp_path / "out", options=PrepareOptions(seed=1))
    (tmp_path / "out" / "prepared.json").write_text("[]")
    with pytest.raises(DataError, match="asked for"):
        prepare_cells(source, tmp_path / "out")


def test_the_folder_one_stands_in(lab, tmp_path, monkeypatch):
    source, _ = lab.cells(tmp_path / "lab")
    here = tmp_path / "here"
    here.mkdir()
    number = here.stat().st_ino
    monkeypatch.chdir(here)
    for _ in range(2):  # anew too
        made = prepare_cells(source, ".")
        assert made.table.resolve() == here / "table.csv"
        assert len(lab.rows(here / "table.csv")) == 6
    assert here.stat().st_ino == number  # the shell that stands in it sees the files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "lab"]


def test_the_folder_one_stands_in_is_as_it_was_after_a_failure(lab, tmp_path, monkeypatch):
    source, _ = lab.cells(tmp_path / "lab")
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    prepare_cells(source, ".")
    before = lab.content(here)
    rename = type(here).rename

    def broken(path, target):
        if path.name == "table.csv" and path.parent.name.startswith(".partial-"):
            raise OSError("disk gone")
        return rename(path, target)

    monkeypatch.setattr(type(here), "rename", broken)
    with pytest.raises(DataError, match="cannot be written"):
        prepare_cells(source, ".")
    assert lab.content(here) == before


@pytest.mark.parametrize("kind", [".partial-", ".old-"])
def test_what_a_kill_left_is_removed_or_told(lab, tmp_path, kind, monkeypatch, caplog):
    source, _ = lab.cells(tmp_path / "lab")
    left, foreign = tmp_path / f"{kind}{HEX}-out", tmp_path / f"{kind}{HEX}-other-out"
    for path in (left, foreign):
        lab.png(path / "images" / "a.png", lab.mask())
    prepare_cells(source, tmp_path / "out")
    assert f"{left}: left by a killed run, if none writes it just now" in caplog.text
    assert left.is_dir()
    later = time.time() + 2 * partial.ABANDONED_S
    monkeypatch.setattr(partial.time, "time", lambda: later)
    prepare_cells(source, tmp_path / "out")
    assert f"{left}: was left half-written by a run that was killed; removed" in caplog.text
    assert not left.exists()
    assert foreign.is_dir()  # of a folder whose name ends alike
    caplog.clear()
    prepare_cells(source, tmp_path / "out")
    assert "left" not in caplog.text
