import hashlib

import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.study.matrix import Run
from metaseg_monai.study.record import is_finished, plan, read_record, restore, write_record


def run(data, key="k1"):
    return Run(
        "se", 0, 0, None, {}, 2, "se/seed0", key, explain=False, table=str(data / "table.csv")
    )


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("image,label\n")
    return tmp_path / "data"


def complete(folder, data, **changes):
    """Let a planned run look finished."""
    for name in ("counts.csv", "log.csv", "model.pt"):
        (folder / name).write_text(name)
    digest = hashlib.sha256((data / "table.csv").read_bytes()).hexdigest()
    record = {**read_record(folder), "state": "finished", "table_sha256": digest, **changes}
    write_record(folder, record)


def test_a_run_is_finished_once(tmp_path, data):
    folder, threads = plan(tmp_path / "out", run(data), tmp_path, threads=3)
    assert threads == 3
    assert not is_finished(folder, run(data))
    complete(folder, data)
    assert is_finished(folder, run(data))
    assert not is_finished(folder, run(data, key="other"))


@pytest.mark.parametrize("name", ["counts.csv", "log.csv", "model.pt"])
def test_a_run_whose_results_are_gone_is_not_finished(tmp_path, data, name):
    folder, _ = plan(tmp_path / "out", run(data), tmp_path, threads=1)
    complete(folder, data)
    (folder / name).unlink()
    assert not is_finished(folder, run(data))


def test_a_run_on_a_table_that_has_changed_is_not_finished(tmp_path, data):
    folder, _ = plan(tmp_path / "out", run(data), tmp_path, threads=1)
    complete(folder, data)
    (data / "table.csv").write_text("image,label\nmore,rows\n")
    assert not is_finished(folder, run(data))
    (data / "table.csv").unlink()  # what is gone cannot have changed what was finished
    assert is_finished(folder, run(data))


def test_an_interrupted_run_keeps_its_folder_and_its_threads(tmp_path, data):
    folder, _ = plan(tmp_path / "out", run(data), tmp_path, threads=1)
    (folder / "checkpoint.pt").write_text("half")
    write_record(folder, {**read_record(folder), "state": "running", "seconds": 7.0})
    again, threads = plan(tmp_path / "out", run(data), tmp_path, threads=2)
    assert (again, threads) == (folder, 1)
    assert (folder / "checkpoint.pt").read_text() == "half"
    assert read_record(folder)["seconds"] == 7.0


def test_what_another_configuration_left_is_moved_aside_whole(tmp_path, data):
    out = tmp_path / "out"
    folder, _ = plan(out, run(data), tmp_path, threads=1)
    (folder / "checkpoint.pt").write_text("old")
    plan(out, run(data, key="k2"), tmp_path, threads=1)
    assert not (folder / "checkpoint.pt").exists()
    assert read_record(folder)["key"] == "k2"
    assert (out / "previous" / "se" / "seed0-k1-1" / "checkpoint.pt").read_text() == "old"
    plan(out, run(data), tmp_path, threads=1)
    plan(out, run(data, key="k2"), tmp_path, threads=1)
    kept = sorted(path.name for path in (out / "previous" / "se").iterdir())
    assert kept == ["seed0-k1-1", "seed0-k1-2", "seed0-k2-1"]


def test_a_finished_run_on_old_data_is_moved_aside(tmp_path, data):
    folder, _ = plan(tmp_path / "out", run(data), tmp_path, threads=1)
    complete(folder, data)
    (data / "table.csv").write_text("changed")
    plan(tmp_path / "out", run(data), tmp_path, threads=1)
    assert not (folder / "counts.csv").exists()
    assert (tmp_path / "out" / "previous" / "se" / "seed0-k1-1" / "counts.csv").is_file()


def test_a_damaged_record_is_told(tmp_path):
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run\.json: damaged .* move"):
        read_record(tmp_path)
    (tmp_path / "run.json").write_text('{"state": "finished"}')
    with pytest.raises(DataError, match=r"run\.json: lacks key, table"):
        read_record(tmp_path)


def test_an_interrupted_run_does_not_go_on_with_another_table(tmp_path, data):
    out = tmp_path / "out"
    folder, _ = plan(out, run(data), tmp_path, threads=1)
    digest = hashlib.sha256((data / "table.csv").read_bytes()).hexdigest()
    write_record(folder, {**read_record(folder), "state": "running", "table_sha256": digest})
    (folder / "checkpoint.pt").write_text("half")
    (data / "table.csv").write_text("other labels")
    plan(out, run(data), tmp_path, threads=1)
    assert not (folder / "checkpoint.pt").exists()
    assert (out / "previous" / "se" / "seed0-k1-1" / "checkpoint.pt").is_file()


def test_finished_results_are_taken_back_when_their_configuration_is(tmp_path, data):
    out = tmp_path / "out"
    folder, _ = plan(out, run(data), tmp_path, threads=1)
    complete(folder, data)
    plan(out, run(data, key="k2"), tmp_path, threads=1)
    assert not is_finished(folder, run(data))
    restore(out, run(data))
    assert is_finished(folder, run(data))
    assert read_record(out / "previous" / "se" / "seed0-k2-1")["key"] == "k2"
