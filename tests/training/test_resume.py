import csv
import importlib.util
import json
import logging
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from ignite.engine import Events
from torch.utils.data import DataLoader

from metaseg_monai.errors import CheckpointError, ConfigError, TrainingError
from metaseg_monai.training import (
    EpochLog,
    RecordTrained,
    RunCheckpoint,
    read_checkpoint,
    write_checkpoint,
)

SCRIPT = Path(__file__).with_name("killed_run.py")


@pytest.fixture(scope="module")
def runs():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("killed_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trials(folder, *names):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *names],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def is_exact(result):
    same = all(result[part] for part in ("finished", "checkpoint", "model", "log"))
    return same and result["killed"] == -9 and result["resumed"] == 0


def test_killed_runs_resume_to_the_same_bits(tmp_path):
    found = trials(tmp_path, "steps=4", "steps_baseline=3", "often=1", "saves=4", "weights=4")
    assert [result for result in found["steps"] if not is_exact(result)] == []
    assert [result for result in found["steps_baseline"] if not is_exact(result)] == []
    assert [result for result in found["often"] if not is_exact(result)] == []
    assert all(result["loadable"] for result in found["saves"] + found["weights"])


@pytest.mark.slow
def test_twenty_kills_at_random_steps(tmp_path):
    found = trials(tmp_path, "steps=20", "steps_workers=6")
    assert len(found["steps"]) == 20
    assert [result for each in found.values() for result in each if not is_exact(result)] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["saves", "weights"])
def test_fifty_kills_within_and_between_saves_leave_a_file_that_loads(tmp_path, name):
    results = trials(tmp_path, f"{name}=50")[name]
    assert len(results) == 50
    assert all(result["loadable"] for result in results)
    assert 20 <= sum(result["inside"] for result in results) < 50


def test_two_processes_end_together_and_resume_to_the_same_bits(tmp_path):
    (result,) = trials(tmp_path, "rank=1")["rank"]
    assert result["whole"] == result["resumed"] == 0
    assert result["killed"] == 2
    assert all(result[part] for part in ("finished", "checkpoint", "model", "log"))


def test_two_processes_validate_the_same_average(tmp_path):
    found = trials(tmp_path, "average=1")["average"]
    assert found["ended"] == [0, 0]
    assert len(found["losses"]) == 3
    assert found["same"] == dict.fromkeys(("validated", "losses", "decay", "average"), True)
    assert found["kept"]


def test_two_processes_have_the_loss_and_gradients_of_one_on_the_same_batches(tmp_path):
    found = trials(tmp_path, "equal=1")["equal"]
    assert found["ended"] == [0, 0, 0]
    assert found["steps"] == 8
    assert found["apart"] < 1e-6


@pytest.fixture
def stopped(runs, tmp_path_factory, tmp_path):
    """A folder whose run was stopped in iteration 7, saved after 6."""
    made = tmp_path_factory.getbasetemp() / "stopped"
    if not made.exists():
        stop_at(runs.make_run(made, resume=False), 7)
    return Path(shutil.copytree(made, tmp_path / "run"))


def stop_at(trainer, iteration):
    """End a run as Ctrl-C does."""

    def interrupt(engine):
        if engine.state.iteration == iteration:
            raise KeyboardInterrupt

    trainer.add_event_handler(Events.ITERATION_STARTED, interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def told(trainer, caplog):
    """What a run logs."""
    trainer.logger.setLevel(logging.INFO)
    with caplog.at_level(logging.INFO):
        trainer.run()
    return caplog.text


def test_a_run_inside_this_process_resumes_to_the_same_bits(runs, stopped, tmp_path):
    runs.make_run(tmp_path / "whole", resume=False).run()
    torch.rand(5)
    trainer = runs.make_run(stopped, resume=True)
    seen = []
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda e: seen.append(e.state.iteration))
    trainer.run()
    assert seen == [7, 8, 9, 10, 11, 12]
    assert all(runs.same(tmp_path / "whole", stopped).values())


def test_an_unfinished_run_is_never_overwritten(runs, stopped):
    before = (stopped / "checkpoint.pt").read_bytes()
    with pytest.raises(CheckpointError, match=r"unfinished.*iteration 6.*--resume True"):
        runs.make_run(stopped, resume=False).run()
    assert (stopped / "checkpoint.pt").read_bytes() == before


def test_a_run_that_did_nothing_yet_may_be_replaced(runs, tmp_path):
    stop_at(runs.make_run(tmp_path, resume=False), 1)
    assert read_checkpoint(tmp_path / "checkpoint.pt")["iteration"] == 0
    (tmp_path / ".part-99-checkpoint.pt").write_bytes(b"what a kill left")
    runs.make_run(tmp_path, resume=False).run()
    assert read_checkpoint(tmp_path / "checkpoint.pt")["finished"]
    assert list(tmp_path.glob(".part-*")) == []


def test_a_finished_run_may_be_replaced_and_resuming_it_does_nothing(runs, tmp_path, caplog):
    runs.make_run(tmp_path, resume=False).run()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    trainer = runs.make_run(tmp_path, resume=True)
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda e: pytest.fail("an iteration ran"))
    assert "finished already" in told(trainer, caplog)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    stop_at(runs.make_run(tmp_path, resume=False), 3)
    assert not read_checkpoint(tmp_path / "checkpoint.pt")["finished"]


def test_resuming_nothing_is_refused(runs, tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*Leave --resume out to start"):
        runs.make_run(tmp_path, resume=True).run()
    assert not list(tmp_path.iterdir())


RUN_FILES = ("log.csv", "model.pt", "model.json", "training.json", "evaluation.json", "counts.csv")
RUN_FOLDERS = ("explain", "train_split", "masks")


def leave_a_run(folder):
    """What a finished training, its evaluation, explanation and prediction leave; and a note."""
    folder.mkdir(exist_ok=True)
    for name in (*RUN_FILES, "own.csv", "notes.txt"):
        (folder / name).write_text(name)
    (folder / "evaluation.json").write_text('{"files": {"own.csv": "", "../masks": ""}}')
    for name in RUN_FOLDERS:
        (folder / name).mkdir()
        (folder / name / "predicted.sha256").write_text(name)


def found_in(trainer):
    """The handlers of a trainer that are methods of something."""
    called = [handler for handlers in trainer._event_handlers.values() for handler, *_ in handlers]
    return {id(one): one for h in called if (one := getattr(h, "__self__", None))}.values()


def moved(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_run_moves_the_finished_one_whole(runs, stopped, tmp_path, caplog):
    folder = tmp_path / "other"
    shutil.copytree(stopped, folder)
    runs.make_run(folder, resume=True).run()
    before = (folder / "checkpoint.pt").read_bytes()
    leave_a_run(folder)
    for number in (1, 2):
        text = told(runs.make_run(folder, resume=False), caplog)
        assert f"is in {folder / 'previous' / f'run-{number}'} now" in text
    kept = folder / "previous" / "run-1"
    assert (kept / "checkpoint.pt").read_bytes() == before
    assert set(moved(kept)) == {"checkpoint.pt", *RUN_FILES, *RUN_FOLDERS, "own.csv"}
    assert (folder / "notes.txt").read_text() == "notes.txt"
    assert set(moved(folder)) >= {"previous", "notes.txt", "checkpoint.pt", "log.csv"}
    assert read_checkpoint(folder / "checkpoint.pt")["finished"]


def test_weights_without_a_checkpoint_are_moved_too_and_nothing_is_moved_twice(runs, tmp_path):
    leave_a_run(tmp_path)
    runs.make_run(tmp_path, resume=False).run()
    assert len(moved(tmp_path / "previous" / "run-1")) == len(RUN_FILES) + len(RUN_FOLDERS) + 1


def test_a_training_that_another_handler_refuses_leaves_all_as_it_was(runs, tmp_path):
    runs.make_run(tmp_path, resume=False).run()
    leave_a_run(tmp_path)

    def content():
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def refuse():
        raise TrainingError("a batch of one")

    before, trainer = content(), runs.make_run(tmp_path, resume=False)
    best = next(one for one in found_in(trainer) if isinstance(one, RunCheckpoint)).objects["best"]
    RecordTrained(best, []).attach(trainer)
    trainer.add_event_handler(Events.STARTED, refuse)
    with pytest.raises(TrainingError, match="of one"):
        trainer.run()
    assert content() == before


def test_a_kill_between_the_moves_loses_nothing(runs, tmp_path, monkeypatch):
    real = Path.rename
    trainer, length = runs.make_run(tmp_path / "0", resume=False), len(RUN_FILES)
    (checkpoint,) = [one for one in found_in(trainer) if isinstance(one, RunCheckpoint)]
    for kill in range(length + 6):
        folder = tmp_path / str(kill)
        leave_a_run(folder)
        checkpoint.path = folder / "checkpoint.pt"
        calls = []

        def rename(path, target, kill=kill, calls=calls):
            calls.append(path)
            if len(calls) > kill:
                raise KeyboardInterrupt
            return real(path, target)

        monkeypatch.setattr(Path, "rename", rename)
        with suppress(KeyboardInterrupt):
            checkpoint._set_aside(trainer, begun=False)
        monkeypatch.undo()
        if newer := kill == length and not (folder / "log.csv").exists():
            (folder / "log.csv").write_text("something new under an old name")
        checkpoint._set_aside(trainer, begun=False)
        every = [path.name for path in (folder / "previous").rglob("*") if path.is_file()]
        wanted = [*RUN_FILES, "own.csv", *["predicted.sha256"] * 3, *["log.csv"] * newer]
        assert sorted(every) == sorted(wanted), kill
        assert not list((folder / "previous").glob(".*"))
        if not newer:  # the run came there whole
            assert {*RUN_FILES} <= {path.name for path in (folder / "previous/run-1").iterdir()}


def test_another_number_of_threads_is_warned_of(runs, stopped, caplog):
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        text = told(runs.make_run(stopped, resume=True), caplog)
    finally:
        torch.set_num_threads(threads)
    assert f"threads: {threads} in the checkpoint, {threads + 1} now" in text


def test_what_cannot_be_resumed_is_named(runs, stopped):
    with pytest.raises(CheckpointError, match="max_epochs: 3 in the checkpoint, 5 now"):
        runs.make_run(stopped, resume=True, epochs=5).run()
    settings = {"seed": 5, "batch_size": 2}
    other = RunCheckpoint(stopped, {"network": torch.nn.Linear(1, 1)}, settings, resume=True)
    with pytest.raises(CheckpointError, match=r"'lr_scheduler'.*needs \['network'\]"):
        other._start(runs.make_run(stopped / "other", resume=False))
    path = stopped / "checkpoint.pt"
    whole = read_checkpoint(path)
    del whole["objects"]["network"]["layers.0.weight"]
    write_checkpoint(path, whole)
    with pytest.raises(CheckpointError, match=r"The network in .* does not fit this run's"):
        runs.make_run(stopped, resume=True).run()
    path.write_bytes(path.read_bytes()[:-100])
    for resume in (True, False):
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
            runs.make_run(stopped, resume=resume).run()
    write_checkpoint(path, {**whole, "form": 1})
    for resume in (True, False):
        with pytest.raises(CheckpointError, match=r"by another version .*another output_dir"):
            runs.make_run(stopped, resume=resume).run()
    torch.save({"model": {}}, path)
    with pytest.raises(CheckpointError, match="not the checkpoint of a run"):
        runs.make_run(stopped, resume=False).run()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: setattr(t, "accumulation_steps", 2), "multiple of 2"),
        (lambda t: setattr(t.state, "epoch_length", 2), "is 2, but the loader gives 4"),
        (lambda t: setattr(t, "data_loader", DataLoader([1, 2])), "training_loader"),
    ],
)
def test_trainers_that_could_not_be_resumed_are_refused(runs, tmp_path, change, message):
    trainer = runs.make_run(tmp_path, resume=False, every=3)
    change(trainer)
    with pytest.raises(ConfigError, match=message):
        trainer.run()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objects": {"lr": 0.1}}, r"objects\['lr'\]"),
        ({"every": -1}, "every"),
        ({"settings": {"path": Path()}}, "plain values"),
    ],
)
def test_impossible_checkpoints_are_refused(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        RunCheckpoint(tmp_path, **{"objects": {}, "settings": {}, **arguments})


def test_the_log_must_be_among_the_objects(runs, stopped, monkeypatch):
    """Otherwise an epoch resumed in its middle would be averaged over its end alone."""
    trainer = runs.make_run(stopped, resume=True)
    monkeypatch.setattr(EpochLog, "load_state_dict", lambda self, state: None)
    with pytest.raises(TrainingError, match="among the objects of RunCheckpoint"):
        trainer.run()


def test_the_log_of_a_resumed_run_has_each_epoch_once(runs, tmp_path):
    stop_at(runs.make_run(tmp_path, resume=False, every=0), 11)  # epoch 3, saved after epoch 2
    runs.make_run(tmp_path, resume=True, every=0).run()
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]


def test_a_run_that_goes_by_the_validation_resumes_and_is_lengthened_to_the_same_bits(
    runs, tmp_path, caplog
):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    runs.make_run(whole, resume=False, plateau=True).run()
    stop_at(runs.make_run(cut, resume=False, plateau=True, epochs=1), 3)
    runs.make_run(cut, resume=True, plateau=True, epochs=1).run()
    assert read_checkpoint(cut / "checkpoint.pt")["finished"]
    longer = told(runs.make_run(cut, resume=True, plateau=True), caplog)
    assert "goes on after 4 of 12 iterations" in longer
    assert all(runs.same(whole, cut).values())
    rates = [row["lr"] for row in csv.DictReader((whole / "log.csv").read_text().splitlines())]
    assert len(set(rates)) > 1  # it has met a plateau
    with pytest.raises(CheckpointError, match="max_epochs"):
        runs.make_run(cut, resume=True, plateau=True, epochs=2).run()
    with pytest.raises(CheckpointError, match="lr_scheduler"):
        runs.make_run(cut, resume=True).run()
