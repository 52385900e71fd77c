"""An engine over given batches, and logits of classes."""

from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Engine

from metaseg_monai.evaluation import PerCase


class Loader(list):
    """Batches with the items they are made of, as a DataLoader has them."""

    def __init__(self, batches, items):
        super().__init__(batches)
        self.dataset = SimpleNamespace(data=items)


@pytest.fixture(scope="session")
def run():
    """Run a handler over pairs (batch, output of the evaluator)."""

    def run_handler(handler, pairs, items=()):
        def step(engine, pair):
            engine.state.batch, output = pair
            return output

        engine = Engine(step)
        handler.attach(engine)
        engine.run(Loader(pairs, items))
        return engine.state

    return run_handler


@pytest.fixture(scope="session")
def measured(run):
    """Measure pairs (batch, output of the evaluator) and return the path of what is written."""

    def measure_pairs(measure, path, pairs, items=()):
        run(PerCase(path, measure), pairs, items)
        return path

    return measure_pairs


@pytest.fixture(scope="session")
def one_hot():
    """Logits (K, *S) of classes (*S)."""

    def logits(classes, count=2):
        return torch.nn.functional.one_hot(torch.as_tensor(classes).long(), count).movedim(-1, 0)

    return logits
