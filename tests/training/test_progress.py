import io

import pytest
from ignite.engine import Engine, Events, State

from metaseg_monai.training import RunProgress
from metaseg_monai.training import handlers as progress_module


def make(file, evaluator=None, iteration=lambda engine, batch: {"loss": 0.25}):
    engine = Engine(iteration)
    progress = RunProgress("sme", evaluator=evaluator, file=file)
    progress.attach(engine)
    return engine, progress


def test_one_bar_spans_the_run_with_the_last_losses():
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state = State(metrics={"val_loss": 0.75})
    file = io.StringIO()
    engine, _ = make(file, evaluator)
    engine.run(range(4), max_epochs=3)
    last = file.getvalue().split("\r")[-1]
    assert last.startswith("sme: ")
    assert "12/12" in last
    assert "loss=0.2500" in last
    assert "val_loss=0.7500" in last
    assert file.getvalue().count("\n") == 1


def test_the_loss_is_shown_of_decollated_output():
    file = io.StringIO()
    engine, _ = make(file, iteration=lambda engine, batch: [{"loss": 0.25}, {"loss": 0.25}])
    engine.run(range(4), max_epochs=1)
    assert "loss=0.2500" in file.getvalue().split("\r")[-1]


@pytest.mark.parametrize("output", [{"pred": 1}, [{"pred": 1}], None])
def test_an_evaluation_shows_its_bar_without_a_loss(output):
    file = io.StringIO()
    engine, _ = make(file, iteration=lambda engine, batch: output)
    engine.run(range(4), max_epochs=1)
    last = file.getvalue().split("\r")[-1]
    assert "4/4" in last
    assert "loss" not in last


def test_a_resumed_run_begins_where_it_was():
    file = io.StringIO()
    engine, _ = make(file)
    engine.load_state_dict({"iteration": 6, "max_epochs": 3, "epoch_length": 4})
    engine.run(range(4))
    bars = file.getvalue().split("\r")
    assert any("6/12" in bar for bar in bars)
    assert not any("0/12" in bar for bar in bars)
    assert "12/12" in bars[-1]


class Slices(list):
    """Batches of cases, and the dataset that they come from."""

    dataset = range(5)


@pytest.mark.parametrize("iteration", [0, 2])
def test_slices_are_counted_by_their_cases(iteration):
    file = io.StringIO()
    engine = Engine(lambda engine, batch: None)
    RunProgress("predict", file=file, unit="slice").attach(engine)
    if iteration:
        engine.load_state_dict({"iteration": 2, "max_epochs": 2, "epoch_length": 2})
    engine.run(Slices([{"case": ["a", "b", "c"]}, {"case": ["d", "e"]}]), max_epochs=2)
    last = file.getvalue().split("\r")[-1]
    assert "10/10" in last
    assert "slice" in last


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_errors_and_ctrl_c_pass_through_and_end_the_line(error):
    def iteration(engine, batch):
        if engine.state.iteration == 3:
            raise error("stop")
        return {"loss": 1.0}

    file = io.StringIO()
    engine, _ = make(file, iteration=iteration)
    with pytest.raises(error, match="stop"):
        engine.run(range(4), max_epochs=3)
    assert file.getvalue().endswith("\n")


def test_only_the_first_process_shows_it(monkeypatch):
    monkeypatch.setattr(progress_module.processes, "rank", lambda: 1)
    file = io.StringIO()
    engine, _ = make(file)
    engine.run(range(4), max_epochs=1)
    assert file.getvalue() == ""
    assert not engine.has_event_handler(RunProgress._open, Events.STARTED)
