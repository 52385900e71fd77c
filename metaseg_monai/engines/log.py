"""What is written down of a run, one row per epoch."""

import csv
import io
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import from_engine
from torch import Tensor
from torch.optim import Optimizer

from metaseg_monai.engines import processes
from metaseg_monai.engines.checkpoints import replace_file
from metaseg_monai.errors import DataError, TrainingError


def loss_of(output: Any) -> float:
    """Return the loss in a MONAI trainer's output, decollated or not."""
    loss: Any = from_engine("loss", first=True)(output)
    value = loss[0] if isinstance(loss, tuple) else loss
    return float(value.detach() if isinstance(value, Tensor) else value)


class EpochLog:
    """Write a CSV row per epoch: epoch, train_loss, validation metrics, lr, seconds.

    Stands behind the ValidationHandler among the trainer's handlers, and among the objects of
    `RunCheckpoint`, which keeps the sums of an epoch that is resumed in its middle. A resumed run
    drops the rows of epochs it runs again. The file is replaced whole: no row is ever half written.

    Args:
        path: the CSV file.
        optimizer: its first group's learning rate at the epoch's end is written.
        evaluator: whose metrics are written, where it ran in that epoch; None for none.
        metrics: names among the evaluator's metrics, in column order.
        clock: seconds, for tests.

    The loss is the mean over the epoch's iterations on the first process.
    """

    def __init__(
        self,
        path: str | Path,
        optimizer: Optimizer,
        evaluator: Engine | None = None,
        metrics: Sequence[str] = ("val_loss",),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = Path(path)
        self.optimizer = optimizer
        self.evaluator = evaluator
        self.metrics = () if evaluator is None else tuple(metrics)
        self.columns = ("epoch", "train_loss", *self.metrics, "lr", "seconds")
        self._clock = clock
        self._sum = 0.0
        self._iterations = 0
        self._seconds = 0.0
        self._since = 0.0
        self._rows: list[dict[str, str]] = []

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, behind the ValidationHandler."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write_epoch)

    def _start(self, engine: Engine) -> None:
        done = engine.state.epoch if engine.state.iteration else 0
        self._rows = self._read(done) if done else []

    def _read(self, epochs: int) -> list[dict[str, str]]:
        """Return the rows of the first `epochs` epochs of an earlier part of the run."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != self.columns:
                raise DataError(
                    f"{self.path} has the columns {reader.fieldnames}, this run writes "
                    f"{list(self.columns)}. Move the file away, or resume with the same metrics."
                )
            return [row for row in reader if int(row["epoch"]) <= epochs]

    def _begin_epoch(self, engine: Engine) -> None:
        done = engine.state.iteration - (engine.state.epoch - 1) * engine.state.epoch_length
        if done == 0:
            self._sum, self._iterations, self._seconds = 0.0, 0, 0.0
        if done != self._iterations:
            raise TrainingError(
                f"The log {self.path} has the losses of {self._iterations} of the {done} "
                "iterations already run in this epoch. Put the EpochLog among the objects of "
                "RunCheckpoint."
            )
        self._since = self._clock()

    def _add_loss(self, engine: Engine) -> None:
        self._sum += loss_of(engine.state.output)
        self._iterations += 1

    def _write_epoch(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        values = {
            "epoch": epoch,
            "train_loss": self._sum / self._iterations,
            **self._metrics_of(epoch),
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds": f"{self._seconds + self._clock() - self._since:.3f}",
        }
        self._rows.append({key: str(value) for key, value in values.items()})
        self._sum, self._iterations, self._seconds = 0.0, 0, 0.0
        if processes.rank() == 0:
            text = io.StringIO(newline="")
            writer = csv.DictWriter(text, self.columns)
            writer.writeheader()
            writer.writerows(self._rows)
            replace_file(self.path, text.getvalue().encode())

    def _metrics_of(self, epoch: int) -> dict[str, Any]:
        """Return the evaluator's metrics of this epoch; empty cells where it did not run."""
        if self.evaluator is None or self.evaluator.state.epoch != epoch:
            return dict.fromkeys(self.metrics, "")
        known = self.evaluator.state.metrics
        if missing := [name for name in self.metrics if name not in known]:
            raise TrainingError(
                f"The log has columns for {missing}, but the validation computes {sorted(known)}. "
                "Name these in `metrics`."
            )
        return {name: float(known[name]) for name in self.metrics}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the epoch so far."""
        running = self._clock() - self._since if self._iterations else 0.0
        return {
            "sum": self._sum,
            "iterations": self._iterations,
            "seconds": self._seconds + running,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the sums of an epoch's beginning."""
        self._sum = state["sum"]
        self._iterations = state["iterations"]
        self._seconds = state["seconds"]
