"""The moving average of the weights: what is validated and kept, while the training goes on."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from metaseg_monai.errors import ConfigError
from metaseg_monai.training import processes
from metaseg_monai.training.checkpoints import BestWeights


class MovingAverage:
    """Validate and keep the exponential moving average of the weights; train on with the others.

    Trainer handler: after each step the average moves towards the weights, and while the evaluator
    runs it is in their place, so that `BestWeights`, attached to that, writes it; the facts in
    `model.pt` then hold ``average``. Running statistics of normalisations are averaged alike. At
    the beginning it moves faster, by (1 + i) / (10 + i) at most for iteration i, else it would be
    of random weights for long.

    In a distributed run each validation begins with the first process' average on all of them, for
    running statistics are those of a process' own batches.

    Put it also among the objects of `RunCheckpoint`, so that a resumed run has the same average to
    the bit.

    Args:
        network: that is trained and validated, also inside DistributedDataParallel.
        evaluator: of the validation.
        best: which writes the weights.
        decay: of the average, in [0, 1): 0.999 is about the mean of the last thousand steps.

    Raises:
        ConfigError: `decay` is out of its range.
    """

    def __init__(
        self, network: nn.Module, evaluator: Engine, best: BestWeights, decay: float = 0.999
    ) -> None:
        if not 0 <= decay < 1:
            raise ConfigError(f"decay must be at least 0 and below 1, got {decay!r}")
        self.network = network
        self.evaluator = evaluator
        self.decay = decay
        self._average: dict[str, Tensor] = {}  # empty before the first step
        self._is_swapped = False
        best.facts["average"] = {"kind": "exponential", "decay": decay}

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, and to the evaluator that its ValidationHandler runs."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._move)
        if not self.evaluator.has_event_handler(self._put_in, Events.STARTED):
            self.evaluator.add_event_handler(Events.STARTED, self._put_in)
            self.evaluator.add_event_handler(Events.COMPLETED, self._take_out)
            processes.hear_of_errors(self.evaluator, self._take_out)

    def state_dict(self) -> dict[str, Any]:
        """Return the decay and the average, by the names of the weights."""
        average = {name: value.clone() for name, value in self._average.items()}
        return {"decay": self.decay, "average": average}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up an average.

        Raises:
            ValueError: it is of another decay or network.
        """
        own, given = self._weights(), state["average"]
        if state["decay"] != self.decay:
            raise ValueError(f"its decay is {state['decay']}, this run's {self.decay}")
        if given and {n: v.shape for n, v in given.items()} != {n: v.shape for n, v in own.items()}:
            raise ValueError("the average is that of another network")
        self._average = {
            name: torch.empty_like(own[name]).copy_(value) for name, value in given.items()
        }

    def _weights(self) -> dict[str, Tensor]:
        """Weights and buffers, each once, though a network may list it under two names."""
        network = processes.bare_network(self.network)
        kept = network.state_dict().keys()
        every = (*network.named_parameters(), *network.named_buffers())
        return {name: value.detach() for name, value in every if name in kept}

    @torch.no_grad()
    def _move(self, engine: Engine) -> None:
        weights = self._weights()
        if not self._average:
            self._average = {name: value.clone() for name, value in weights.items()}
            return
        step = engine.state.iteration
        move = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        moving = [name for name, value in weights.items() if value.is_floating_point()]
        move([self._average[name] for name in moving], [weights[name] for name in moving], 1)
        for name in weights.keys() - set(moving):  # counters
            self._average[name].copy_(weights[name])

    @torch.no_grad()
    def _swap(self) -> None:
        weights = self._weights()
        for name, average in self._average.items():
            kept = weights[name].clone()
            weights[name].copy_(average)
            average.copy_(kept)
        self._is_swapped = not self._is_swapped

    def _put_in(self, engine: Engine) -> None:
        if not self._average or self._is_swapped:
            return
        if processes.world_size() > 1:
            for average in self._average.values():
                dist.broadcast(average, 0)
        self._swap()

    def _take_out(self, engine: Engine, error: BaseException | None = None) -> None:
        if self._is_swapped:
            self._swap()
