import csv

import pytest
import torch
from ignite.engine import Engine, Events, State

from metaseg_monai.errors import DataError, TrainingError
from metaseg_monai.training import EpochLog
from metaseg_monai.training.handlers import loss_of


def make(path, losses, evaluator=None, validated=(), **more):
    """An engine whose iterations have the given losses, and its log; the clock counts calls."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.5)
    ticks = iter(range(1000))
    log = EpochLog(path, optimizer, evaluator, clock=lambda: next(ticks), **more)
    engine = Engine(lambda engine, batch: [{"loss": torch.tensor(batch)}] * 2)
    if evaluator is not None:

        def validation(engine):
            if engine.state.epoch in validated:
                evaluator.state.epoch = engine.state.epoch
                evaluator.state.metrics = {"val_loss": 10.0 * engine.state.epoch, "f1": 0.5}

        engine.add_event_handler(Events.EPOCH_COMPLETED, validation)
    log.attach(engine)
    return engine, log, losses


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_per_epoch_holds_the_mean_loss(tmp_path):
    engine, _, losses = make(tmp_path / "log.csv", [1.0, 2.0, 6.0])
    engine.run(losses, max_epochs=2)
    assert rows(tmp_path / "log.csv") == [
        {"epoch": str(epoch), "train_loss": "3.0", "lr": "0.5", "seconds": "1.000"}
        for epoch in (1, 2)
    ]


def test_metrics_are_written_where_the_validation_ran(tmp_path):
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state = State(epoch=0, metrics={})
    engine, _, losses = make(
        tmp_path / "log.csv", [1.0], evaluator, validated=(2,), metrics=("val_loss", "f1")
    )
    engine.run(losses, max_epochs=3)
    assert [(row["val_loss"], row["f1"]) for row in rows(tmp_path / "log.csv")] == [
        ("", ""),
        ("20.0", "0.5"),
        ("", ""),
    ]


def test_an_unknown_metric_is_named(tmp_path):
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state = State(epoch=0, metrics={})
    engine, _, losses = make(tmp_path / "l", [1.0], evaluator, validated=(1,), metrics=("dice",))
    with pytest.raises(TrainingError, match=r"\['dice'\].*\['f1', 'val_loss'\]"):
        engine.run(losses, max_epochs=1)


def test_a_new_run_starts_a_new_file_and_a_resumed_one_drops_later_rows(tmp_path):
    path = tmp_path / "log.csv"
    engine, _, _ = make(path, [])
    engine.run([1.0], max_epochs=3)
    engine, _, _ = make(path, [])
    engine.load_state_dict({"epoch": 1, "max_epochs": 2, "epoch_length": 1})
    engine.run([5.0])
    assert [(row["epoch"], row["train_loss"]) for row in rows(path)] == [("1", "1.0"), ("2", "5.0")]
    engine, _, _ = make(path, [])
    engine.run([7.0], max_epochs=1)
    assert [row["train_loss"] for row in rows(path)] == ["7.0"]


def test_a_resumed_log_of_other_columns_is_refused(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("epoch,loss\n1,2\n")
    engine, _, _ = make(path, [])
    engine.load_state_dict({"epoch": 1, "max_epochs": 2, "epoch_length": 1})
    with pytest.raises(DataError, match=r"log\.csv has the columns \['epoch', 'loss'\]"):
        engine.run([5.0])


@pytest.mark.parametrize(
    "output",
    [
        {"loss": torch.tensor(2.0, requires_grad=True)},
        [{"loss": 2.0}, {"loss": 2.0}],
        [{"loss": torch.tensor(2.0)}],
    ],
)
def test_the_loss_is_found_in_every_form_of_output(output):
    assert loss_of(output) == 2.0
