"""The moving average of the weights: by hand, in their place, and told in the facts."""

import pytest
import torch
from ignite.engine import Engine, Events
from torch import nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.training import BestWeights, MovingAverage, read_weights


class Twice(nn.Module):
    """A layer and a running mean, listed under two names each, as MONAI's DynUNet lists blocks."""

    def __init__(self):
        super().__init__()
        self.one = nn.Linear(1, 1, bias=False)
        self.norm = nn.BatchNorm1d(1)
        self.again, self.other = self.one, self.norm


def run(folder, values, decay=0.5):
    """Set the weight to each value, one a step; return what was validated, kept, and is left."""
    network, seen = Twice(), []

    def step(engine, batch):
        nn.init.constant_(network.one.weight, batch)
        network.norm.running_mean.fill_(batch)
        network.norm.num_batches_tracked.fill_(int(batch))
        engine.state.metrics["val_loss"] = 0

    def validate(engine, batch):
        seen.append((network.one.weight.item(), network.norm.running_mean.item()))
        engine.state.metrics["val_loss"] = -len(seen)

    trainer, evaluator = Engine(step), Engine(validate)
    best = BestWeights(folder / "model.pt", network)
    best.attach(evaluator)
    average = MovingAverage(network, evaluator, best, decay)
    average.attach(trainer)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    trainer.run(values, max_epochs=2)
    return network, average, seen


def test_it_is_the_average_that_is_validated_and_kept_and_the_weights_that_go_on(tmp_path):
    network, average, seen = run(tmp_path, [1.0, 2.0])
    means = [1.0]  # steps 2, 3, 4 move by a rate of (1 + i) / (10 + i), as it is below 0.5
    for step, value in ((2, 2.0), (3, 1.0), (4, 2.0)):
        rate = (1 + step) / (10 + step)
        means.append(rate * means[-1] + (1 - rate) * value)
    assert seen == [pytest.approx((means[1],) * 2), pytest.approx((means[3],) * 2)]
    assert network.one.weight.item() == network.norm.running_mean.item() == 2.0
    state, facts = read_weights(tmp_path / "model.pt")
    assert state["one.weight"].item() == state["again.weight"].item() == seen[1][0]
    assert state["norm.num_batches_tracked"].item() == 2
    assert facts["average"] == {"kind": "exponential", "decay": 0.5}
    assert average.state_dict()["average"]["one.weight"].item() == seen[1][0]


def test_an_error_in_the_validation_leaves_the_weights_in_their_place(tmp_path, monkeypatch):
    network = Twice()
    nn.init.constant_(network.one.weight, 1.0)
    evaluator = Engine(lambda engine, batch: 1 / 0)
    monkeypatch.setattr(evaluator.logger, "disabled", True)  # of all engines of this class
    average = MovingAverage(network, evaluator, BestWeights(tmp_path / "model.pt", network), 0.0)
    trainer = Engine(lambda engine, batch: nn.init.constant_(network.one.weight, batch))
    average.attach(trainer)
    trainer.run([3.0, 5.0])
    nothing = {name: value * 0 for name, value in average.state_dict()["average"].items()}
    average.load_state_dict({"decay": 0.0, "average": nothing})
    with pytest.raises(ZeroDivisionError):
        evaluator.run([0])
    assert network.one.weight.item() == 5.0
    assert not average.state_dict()["average"]["one.weight"].any()


def test_what_does_not_fit_is_refused(tmp_path):
    network = Twice()
    best = BestWeights(tmp_path / "model.pt", network)
    average = MovingAverage(network, Engine(lambda engine, batch: None), best)
    with pytest.raises(ValueError, match="another network"):
        average.load_state_dict({"decay": 0.999, "average": {"one.weight": torch.zeros(1, 1)}})
    with pytest.raises(ValueError, match=r"its decay is 0.9, this run's 0.999"):
        average.load_state_dict({"decay": 0.9, "average": {}})
    with pytest.raises(ConfigError, match="decay"):
        MovingAverage(network, Engine(lambda engine, batch: None), best, decay=1)
