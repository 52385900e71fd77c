"""How the learning rate moves over a run."""

import math
from typing import Any

from ignite.engine import Engine, Events
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, ReduceLROnPlateau

from metaseg_monai.errors import ConfigError, TrainingError


def cyclic_schedule(
    optimizer: Optimizer,
    base_lr: float,
    max_lr: float,
    cycles: int,
    iterations: int,
    decay: bool = False,
) -> CyclicLR:
    """Make a triangular schedule of whole cycles over a run (paper 2.2: 8 of 2e-4 to 8e-4).

    Step it after every iteration (`LrScheduleHandler(lr_scheduler, epoch_level=False)`). Iteration
    i of N (from 0) gets the triangle's value at i / N of the run: the first iteration runs at
    `base_lr`, and the step after the last brings the rate back to it. A cycle need not be a whole
    number of iterations.

    Args:
        optimizer: its momentum or betas are left alone.
        base_lr: lowest learning rate.
        max_lr: highest learning rate.
        cycles: whole cycles over the run.
        iterations: of the whole run, epochs times iterations per epoch.
        decay: halve the height after each cycle.

    Raises:
        ConfigError: A value is out of its range, or a cycle would be under two iterations.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> schedule = cyclic_schedule(optimizer, 1.0, 3.0, cycles=2, iterations=8)
        >>> rates = []
        >>> for _ in range(8):
        ...     rates += schedule.get_last_lr()
        ...     optimizer.step()
        ...     schedule.step()
        >>> rates
        [1.0, 2.0, 3.0, 2.0, 1.0, 2.0, 3.0, 2.0]
    """
    if not 0 < base_lr <= max_lr:
        raise ConfigError(
            f"A cyclic schedule needs 0 < base_lr <= max_lr, got base_lr={base_lr!r} and "
            f"max_lr={max_lr!r}."
        )
    if cycles < 1:
        raise ConfigError(f"cycles must be at least 1, got {cycles!r}.")
    if iterations < 2 * cycles:
        raise ConfigError(
            f"{cycles} cycles do not fit in a run of {iterations} iterations (a cycle takes 2 at "
            "least: up and down). Lower cycles or train longer."
        )
    half_cycle: Any = iterations / cycles / 2  # CyclicLR reckons in floats, though typed int
    return CyclicLR(
        optimizer,
        base_lr=base_lr,
        max_lr=max_lr,
        step_size_up=half_cycle,
        mode="triangular2" if decay else "triangular",
        cycle_momentum=False,
    )


def warm_restarts(
    optimizer: Optimizer,
    epochs: int,
    epoch_length: int,
    first: int = 2,
    factor: int = 2,
    last_epochs: int = 10,
    last_lr: float = 1e-5,
) -> LambdaLR:
    """Make the nuclei model's schedule: cosines from ever longer restarts, then a low rate.

    As `CosineAnnealingWarmRestarts` stepped by parts of an epoch (Loshchilov and Hutter 2016), of
    which the last may be cut off, and a constant rate at the end "for the network to converge"
    (adipocyte report, 4.1). Step it after every iteration.

    Args:
        optimizer: its rate is that of the restarts.
        epochs: of the whole run, the last ones too.
        epoch_length: iterations of an epoch.
        first: epochs of the first cosine.
        factor: how many times longer each is than the one before.
        last_epochs: at the low rate, 10 in the report.
        last_lr: that rate.

    Raises:
        ConfigError: a value is out of its range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        >>> schedule = warm_restarts(optimizer, epochs=8, epoch_length=1, last_epochs=2)
        >>> rates = []
        >>> for _ in range(8):
        ...     rates += [round(rate, 5) for rate in schedule.get_last_lr()]
        ...     optimizer.step()
        ...     schedule.step()
        >>> rates
        [1.0, 0.5, 1.0, 0.85355, 0.5, 0.14645, 1e-05, 1e-05]
    """
    whole = {"epochs": epochs, "epoch_length": epoch_length, "first": first, "factor": factor}
    for name, value in whole.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} must be a whole number from 1, got {value!r}.")
    rates = [group["lr"] for group in optimizer.param_groups]
    if not 0 <= last_epochs < epochs or not last_lr > 0 or len(set(rates)) > 1:
        raise ConfigError(
            f"Warm restarts need 0 <= last_epochs < epochs, a last_lr above 0 and one rate, got "
            f"last_epochs={last_epochs!r} of {epochs}, last_lr={last_lr!r} and rates {rates}."
        )
    cosines = (epochs - last_epochs) * epoch_length

    def share(step: int) -> float:
        """Of the first rate."""
        if step >= cosines:
            return last_lr / rates[0]
        since, length = step / epoch_length, float(first)
        while since >= length:
            since, length = since - length, length * factor
        return (1 + math.cos(math.pi * since / length)) / 2

    return LambdaLR(optimizer, share)


class StepOnPlateau:
    """Step a schedule that goes by the validation, after each one (the thesis' pilot, 3.3).

    It stands among the trainer's handlers in the place of an `LrScheduleHandler`, and behind
    `RunCheckpoint`, whose checkpoint of an epoch then holds the schedule after its step. Such a
    schedule does not know how long the run is: with `lengthen` of `RunCheckpoint` a finished run
    goes on for more epochs.

    Args:
        lr_scheduler: `torch.optim.lr_scheduler.ReduceLROnPlateau`.
        evaluator: of the validation.
        metric: name among the evaluator's metrics; lower is better with the schedule's mode "min".
    """

    def __init__(
        self, lr_scheduler: ReduceLROnPlateau, evaluator: Engine, metric: str = "val_loss"
    ) -> None:
        self.lr_scheduler = lr_scheduler
        self.evaluator = evaluator
        self.metric = metric

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer; what is stepped on is the end of each validation."""
        if not self.evaluator.has_event_handler(self, Events.EPOCH_COMPLETED):
            self.evaluator.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Step by the evaluator's metric.

        Raises:
            TrainingError: it has no such metric.
        """
        metrics = engine.state.metrics
        if self.metric not in metrics:
            raise TrainingError(
                f"The schedule goes by {self.metric!r}, which the validation does not compute; it "
                f"has {sorted(metrics)}. Name one of these."
            )
        self.lr_scheduler.step(float(metrics[self.metric]))
