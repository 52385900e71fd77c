"""How far a run is, and how long it will still take."""

import sys
from typing import Any, TextIO

from ignite.engine import Engine, Events
from tqdm import tqdm

from metaseg_monai.engines import processes
from metaseg_monai.engines.exceptions import hear_of_errors
from metaseg_monai.engines.log import loss_of


class RunProgress:
    """Show one bar over all iterations of a run, with the time left and the last losses.

    The estimate goes by the mean speed since the start, so that it counts validations too. A
    resumed run begins where it was. Only the first process of a distributed run shows the bar.
    Stands behind `RunCheckpoint` and the ValidationHandler among the trainer's handlers; an
    evaluation or inference shows its bar without a loss.

    Args:
        title: what the bar is for.
        evaluator: whose `metric` is shown; None for none.
        metric: name among the evaluator's metrics.
        file: where the bar goes; default: standard error.
        unit: what is counted: "step" counts iterations, any other word ("image") the
            items of each batch: images, or the slices of volumes.
    """

    def __init__(
        self,
        title: str = "training",
        evaluator: Engine | None = None,
        metric: str = "val_loss",
        file: TextIO | None = None,
        unit: str = "step",
    ) -> None:
        self.title = title
        self.evaluator = evaluator
        self.metric = metric
        self.file = file
        self.unit = unit
        self._bar: Any = None
        self._shown: dict[str, str] = {}

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer or evaluator."""
        if processes.rank() != 0:
            return
        engine.add_event_handler(Events.STARTED, self._open)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._advance)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._show_validation)
        engine.add_event_handler(Events.COMPLETED, self._close)
        hear_of_errors(engine, self._close_after_error)

    def _open(self, engine: Engine) -> None:
        self._shown = {}
        total, done = engine.state.epoch_length, engine.state.iteration
        if self.unit != "step":
            total = len(engine.state.dataloader.dataset)
            done = done * total // engine.state.epoch_length  # all batches are about equally large
        self._bar = tqdm(
            total=engine.state.max_epochs * total,
            initial=done,
            desc=self.title,
            unit=self.unit,
            smoothing=0,
            mininterval=0.2 if (self.file or sys.stderr).isatty() else 20,  # a log file stays short
            dynamic_ncols=True,
            file=self.file,
        )

    def _advance(self, engine: Engine) -> None:
        output = engine.state.output
        first = output[0] if isinstance(output, list) and output else output  # where decollated
        if isinstance(first, dict) and "loss" in first:
            self._shown["loss"] = f"{loss_of(output):.4f}"
            self._bar.set_postfix(self._shown, refresh=False)
        self._bar.update(1 if self.unit == "step" else len(engine.state.batch["case"]))

    def _show_validation(self, engine: Engine) -> None:
        if self.evaluator is not None and self.metric in self.evaluator.state.metrics:
            self._shown[self.metric] = f"{float(self.evaluator.state.metrics[self.metric]):.4f}"
            self._bar.set_postfix(self._shown)

    def _close(self, engine: Engine) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _close_after_error(self, engine: Engine, error: BaseException) -> None:
        """End the bar's line, so that what is said next (also after Ctrl-C) stands on its own."""
        self._close(engine)
