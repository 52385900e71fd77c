import csv
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Events

from metaseg_monai.errors import CheckpointError, ConfigError, TrainingError
from metaseg_monai.training import RunCheckpoint, read_checkpoint

SCRIPT = Path(__file__).with_name("killed_run.py")


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
    found = trials(tmp_path, "steps=4", "often=1", "saves=4", "weights=4")
    assert [result for result in found["steps"] if not is_exact(result)] == []
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
    assert result["seconds"] < 60
    assert all(result[part] for part in ("finished", "checkpoint", "model", "log"))


def stop_at(trainer, iteration):
    """End a run as Ctrl-C does."""

    def interrupt(engine):
        if engine.state.iteration == iteration:
            raise KeyboardInterrupt

    trainer.add_event_handler(Events.ITERATION_STARTED, interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def test_a_run_inside_this_process_resumes_to_the_same_bits(runs, tmp_path):
    runs.make_run(tmp_path / "whole", resume=False).run()
    stop_at(runs.make_run(tmp_path / "run", resume=False), 7)
    torch.rand(5)
    trainer = runs.make_run(tmp_path / "run", resume=True)
    seen = []
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda e: seen.append(e.state.iteration))
    trainer.run()
    assert seen == [7, 8, 9, 10, 11, 12]
    assert all(runs.same(tmp_path / "whole", tmp_path / "run").values())


def test_an_unfinished_run_is_never_overwritten(runs, tmp_path):
    stop_at(runs.make_run(tmp_path, resume=False), 7)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    with pytest.raises(CheckpointError, match=r"unfinished.*iteration 6.*--resume True"):
        runs.make_run(tmp_path, resume=False).run()
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_run_that_did_nothing_yet_may_be_replaced(runs, tmp_path):
    stop_at(runs.make_run(tmp_path, resume=False), 1)
    assert read_checkpoint(tmp_path / "checkpoint.pt")["iteration"] == 0
    runs.make_run(tmp_path, resume=False).run()
    assert read_checkpoint(tmp_path / "checkpoint.pt")["finished"]


def test_a_finished_run_may_be_replaced_and_resuming_it_does_nothing(runs, tmp_path, caplog):
    runs.make_run(tmp_path, resume=False).run()
    before = (tmp_path / "checkpoint.pt").read_bytes()
    trainer = runs.make_run(tmp_path, resume=True)
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda e: pytest.fail("an iteration ran"))
    trainer.logger.setLevel(logging.INFO)
    with caplog.at_level(logging.INFO):
        trainer.run()
    assert "finished already" in caplog.text
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    stop_at(runs.make_run(tmp_path, resume=False), 3)
    assert not read_checkpoint(tmp_path / "checkpoint.pt")["finished"]


def test_resuming_nothing_starts_and_says_so(runs, tmp_path, caplog):
    trainer = runs.make_run(tmp_path, resume=True)
    trainer.logger.setLevel(logging.INFO)
    with caplog.at_level(logging.INFO):
        trainer.run()
    assert "starts at the beginning" in caplog.text
    assert read_checkpoint(tmp_path / "checkpoint.pt")["finished"]


def test_other_settings_are_named(runs, tmp_path):
    stop_at(runs.make_run(tmp_path, resume=False), 7)
    with pytest.raises(CheckpointError, match="max_epochs: 3 in the checkpoint, 5 now"):
        runs.make_run(tmp_path, resume=True, epochs=5).run()


def test_a_damaged_checkpoint_is_named(runs, tmp_path):
    stop_at(runs.make_run(tmp_path, resume=False), 7)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:-100])
    for resume in (True, False):
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt"):
            runs.make_run(tmp_path, resume=resume).run()


def test_stale_temporaries_are_swept_at_the_start(runs, tmp_path):
    (tmp_path / ".part-99-checkpoint.pt").write_bytes(b"half")
    runs.make_run(tmp_path, resume=False).run()
    assert list(tmp_path.glob(".part-*")) == []


def test_another_number_of_threads_is_warned_of(runs, tmp_path, caplog):
    stop_at(runs.make_run(tmp_path, resume=False), 7)
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with caplog.at_level(logging.WARNING):
            runs.make_run(tmp_path, resume=True).run()
    finally:
        torch.set_num_threads(threads)
    assert f"threads: {threads} in the checkpoint, {threads + 1} now" in caplog.text


def checkpoint_of(folder, every=0, objects=None, **settings):
    network = torch.nn.Linear(1, 1)
    objects = {"network": network} if objects is None else objects
    return RunCheckpoint(folder, objects=objects, settings=settings, every=every)


def test_another_loader_is_refused(runs, tmp_path):
    trainer = runs.make_run(tmp_path, resume=False)
    trainer.data_loader = torch.utils.data.DataLoader([1, 2])
    with pytest.raises(ConfigError, match="training_loader"):
        trainer.run()


def test_an_epoch_of_another_length_is_refused(runs, tmp_path):
    trainer = runs.make_run(tmp_path, resume=False)
    trainer.state.epoch_length = 2
    with pytest.raises(ConfigError, match="epoch_length is 2, but the loader gives 4"):
        trainer.run()


def test_saving_between_accumulated_steps_is_refused(runs, tmp_path):
    trainer = runs.make_run(tmp_path, resume=False, every=3)
    trainer.accumulation_steps = 2
    with pytest.raises(ConfigError, match="multiple of 2"):
        trainer.run()


def test_other_objects_are_named(runs, tmp_path):
    stop_at(runs.make_run(tmp_path, resume=False), 7)
    trainer = runs.make_run(tmp_path / "other", resume=False)
    other = RunCheckpoint(
        tmp_path,
        {"network": torch.nn.Linear(1, 1)},
        {"seed": 5, "batch_size": 2},
        resume=True,
    )
    with pytest.raises(CheckpointError, match=r"'lr_scheduler'.*needs \['network'\]"):
        other._start(trainer)


def test_a_foreign_file_of_that_name_is_refused(runs, tmp_path):
    torch.save({"model": {}}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match="not the checkpoint of a run"):
        runs.make_run(tmp_path, resume=False).run()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"objects": {"lr": 0.1}}, r"objects\['lr'\]"),
        ({"every": -1}, "every"),
        ({"path": Path()}, "plain values"),
    ],
)
def test_impossible_checkpoints_are_refused(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        checkpoint_of(tmp_path, **arguments)


def test_the_log_must_be_among_the_objects(runs, tmp_path):
    """Otherwise an epoch resumed in its middle would be averaged over its end alone."""
    stop_at(runs.make_run(tmp_path, resume=False), 7)
    trainer = runs.make_run(tmp_path, resume=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metaseg_monai.training.EpochLog.load_state_dict", lambda self, state: None)
        with pytest.raises(TrainingError, match="among the objects of RunCheckpoint"):
            trainer.run()


def test_the_log_of_a_resumed_run_has_each_epoch_once(runs, tmp_path):
    stop_at(runs.make_run(tmp_path, resume=False, every=0), 11)  # epoch 3, saved after epoch 2
    runs.make_run(tmp_path, resume=True, every=0).run()
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
