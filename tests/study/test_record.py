import dataclasses
import hashlib

import pytest
from torch import nn

from metaseg_monai.errors import DataError
from metaseg_monai.study import worker
from metaseg_monai.study.matrix import Run
from metaseg_monai.study.record import (
    is_finished,
    is_trained,
    missing_modes,
    plan,
    read_history,
    read_record,
    restore,
    write_record,
)
from metaseg_monai.training import write_weights


def run(data, key="k1", **more):
    return Run("se", 0, 0, None, {}, 2, "se/seed0", key, table=str(data / "table.csv"), **more)


@pytest.fixture
def data(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "table.csv").write_text("image,label\n")
    return tmp_path / "data"


@pytest.fixture
def complete(bind, some_weights):
    def make(folder, data, modes=("normal",), **changes):
        """Let a planned run look finished."""
        (folder / "counts.csv").write_text("counts")
        (folder / "log.csv").write_text("epoch,val_loss\n1,0.7\n2,0.6\n")
        (folder / "model.pt").write_bytes(some_weights[0])
        bind(folder, modes=modes)
        digest = hashlib.sha256((data / "table.csv").read_bytes()).hexdigest()
        record = {**read_record(folder), "state": "finished", "table_sha256": digest}
        record |= {"weights_sha256": some_weights[1], "evaluated": record["tested"]}
        write_record(folder, {**record, **changes})

    return make


@pytest.mark.parametrize("content", ['[{"at": "2026"}]', "[3]", '{"at": 1}', "["])
def test_a_damaged_history_is_named(tmp_path, content):
    (tmp_path / "protocol.json").write_text(content)
    with pytest.raises(DataError, match=r"protocol\.json: damaged .* restore it from a copy"):
        read_history(tmp_path)


def test_a_run_is_finished_once(tmp_path, data, complete):
    folder, threads = plan(tmp_path / "out", run(data), tmp_path, threads=3)
    assert threads == 3
    assert not is_finished(folder, run(data))
    complete(folder, data)
    assert is_finished(folder, run(data))
    assert not is_finished(folder, run(data, key="other"))


def test_a_run_that_was_stopped_before_its_gates_were_drawn_is_not_finished(
    tmp_path, data, complete
):
    asked = run(data, explain=True)
    folder, _ = plan(tmp_path / "out", asked, tmp_path, threads=1)
    complete(folder, data)
    assert not is_finished(folder, asked)
    for told in ("done", "failed: no gate"):  # which is told once, and not tried again
        write_record(folder, {**read_record(folder), "explained": told})
        assert is_finished(folder, asked)


def test_the_seconds_of_a_killed_start_count_beside_those_after_it(tmp_path, data, monkeypatch):
    folder, _ = plan(tmp_path / "out", run(data), tmp_path, threads=1)
    (folder / "log.csv").write_text("epoch,val_loss,seconds\n1,0.7,100\n2,0.6,100\n")
    monkeypatch.setattr(worker, "_train_and_evaluate", lambda *asked: None)
    monkeypatch.setattr(worker.time, "monotonic", iter([5.0, 55.0]).__next__)
    assert worker._run(folder, False) == 0
    assert read_record(folder)["seconds"] == 250


@pytest.mark.parametrize("name", ["counts.csv", "log.csv", "model.pt"])
def test_a_run_whose_results_are_gone_is_not_finished(tmp_path, data, name, complete):
    folder, _ = plan(tmp_path / "out", run(data), tmp_path, threads=1)
    complete(folder, data)
    (folder / name).unlink()
    assert not is_finished(folder, run(data))


def test_a_run_on_a_table_that_has_changed_is_not_finished(tmp_path, data, complete):
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


def test_a_finished_run_on_old_data_is_moved_aside(tmp_path, data, complete):
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


def test_finished_results_are_taken_back_when_their_configuration_is(tmp_path, data, complete):
    out = tmp_path / "out"
    folder, _ = plan(out, run(data), tmp_path, threads=1)
    complete(folder, data)
    plan(out, run(data, key="k2"), tmp_path, threads=1)
    assert not is_finished(folder, run(data))
    restore(out, run(data))
    assert is_finished(folder, run(data))
    assert read_record(out / "previous" / "se" / "seed0-k2-1")["key"] == "k2"


def test_other_modes_are_tested_on_the_same_weights(tmp_path, data, complete):
    out = tmp_path / "out"
    more = run(data, modes=["normal", "zeros"])
    folder, _ = plan(out, run(data), tmp_path, threads=3)
    complete(folder, data, seconds=7.0)
    assert is_finished(folder, run(data))
    assert not is_finished(folder, more)
    assert is_trained(folder, more)
    assert plan(out, more, tmp_path, threads=1) == (folder, 3)
    record = read_record(folder)
    assert (record["state"], record["seconds"]) == ("planned", 7.0)
    assert missing_modes(folder, record) == ["zeros"]
    other = run(data, modes=["normal"], tested="with other regions")
    plan(out, other, tmp_path, threads=1)
    assert missing_modes(folder, read_record(folder)) == ["normal"]
    assert not (out / "previous").exists()


@pytest.mark.parametrize("name", ["counts.csv", "evaluation.json"])
def test_results_that_are_gone_are_made_of_the_weights_that_are_there(
    tmp_path, data, complete, name
):
    folder, _ = plan(tmp_path / "out", run(data), tmp_path, threads=1)
    complete(folder, data)
    (folder / name).unlink()
    assert not is_finished(folder, run(data))
    plan(tmp_path / "out", run(data), tmp_path, threads=1)
    assert missing_modes(folder, read_record(folder)) == ["normal"]
    assert read_record(folder)["weights_sha256"]


@pytest.mark.parametrize("state", ["finished", "failed"])
def test_other_weights_are_no_weights_of_the_run(tmp_path, data, complete, state):
    out = tmp_path / "out"
    folder, _ = plan(out, run(data), tmp_path, threads=1)
    complete(folder, data, state=state)
    write_weights(folder / "model.pt", nn.Linear(1, 1), {})
    assert not is_finished(folder, run(data))
    plan(out, run(data), tmp_path, threads=1)
    assert not (folder / "model.pt").exists()
    assert (out / "previous" / "se" / "seed0-k1-1" / "counts.csv").is_file()


def test_weights_are_taken_back_when_only_their_modes_are_others(tmp_path, data, complete):
    out = tmp_path / "out"
    folder, _ = plan(out, run(data), tmp_path, threads=1)
    complete(folder, data)
    plan(out, run(data, key="k2"), tmp_path, threads=1)
    restore(out, run(data, modes=["normal", "ones"]))
    assert is_trained(folder, run(data))


def test_settings_name_the_same_data_from_any_working_directory(tmp_path, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {"dataset_dir": "data", "schema_file": "$@bundle_root + '/s.json'", "epochs": 2}
    planned = dataclasses.replace(run(data), settings=settings)
    folder, _ = plan(tmp_path / "out", planned, tmp_path, threads=1)
    assert read_record(folder)["settings"] == {**settings, "dataset_dir": str(data)}


def test_a_failure_of_the_system_names_the_file_and_the_next_step(tmp_path, data, monkeypatch):
    folder, _ = plan(tmp_path / "out", run(data), tmp_path, threads=1)

    def refuse(*_):
        raise PermissionError(13, "Permission denied", "log.csv")

    monkeypatch.setattr(worker, "_train_and_evaluate", refuse)
    assert worker._run(folder, trust=False) == 1
    record = read_record(folder)
    assert record["state"] == "failed"
    assert record["error"].startswith("log.csv: Permission denied; check its permissions")
