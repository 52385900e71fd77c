"""When a run must stop, and which of two scores is the better: NaN is neither fine nor best."""

import math
from typing import Any

import torch
from ignite.engine import Engine
from monai.engines import Evaluator, IterationEvents
from torch import Tensor

from metaseg_monai.engines.outputs import each_tensor
from metaseg_monai.errors import TrainingError


def lower_is_better(current: float, best: float) -> bool:
    """Return whether `current` is lower than `best`, for MONAI's `metric_cmp_fn`.

    NaN is never better; any number is better than NaN, which MONAI keeps where it came first.

    Example:
        >>> lower_is_better(0.2, best=0.3), lower_is_better(math.nan, best=0.3)
        (True, False)
        >>> lower_is_better(0.2, best=math.nan)
        True
    """
    return not math.isnan(current) and (math.isnan(best) or current < best)


def higher_is_better(current: float, best: float) -> bool:
    """Return whether `current` is higher than `best`, for MONAI's `metric_cmp_fn`.

    NaN is never better; any number is better than NaN, which MONAI keeps where it came first.

    Example:
        >>> higher_is_better(0.3, 0.2), higher_is_better(math.nan, 0.2)
        (True, False)
    """
    return not math.isnan(current) and (math.isnan(best) or current > best)


def _case_names(batch: Any, rows: int) -> list[str]:
    names = batch.get("case") if isinstance(batch, dict) else None
    if isinstance(names, (list, tuple)) and len(names) == rows:
        return [str(name) for name in names]
    return [f"row {row} of the batch" for row in range(rows)]


def _rows_not_finite(values: Tensor) -> list[int]:
    rows = values.detach().reshape(len(values), -1)
    low, high = rows.amin(1), rows.amax(1)  # NaN where any value is
    return torch.nonzero(~(torch.isfinite(low) & torch.isfinite(high))).flatten().tolist()


class StopOnNonFinite:
    """Stop a run at the first value that is not finite, naming the cases.

    On a trainer the loss is checked before the gradients are, so that no weight is touched; on an
    evaluator the predictions, of which MONAI's Dice would score a NaN as perfect.
    """

    def attach(self, engine: Engine) -> None:
        """Attach to one of MONAI's trainers or evaluators."""
        if isinstance(engine, Evaluator):
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.check_prediction)
        else:
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.check_loss)

    def check_loss(self, engine: Engine) -> None:
        """Check the loss of a training iteration.

        Raises:
            TrainingError: It is not finite; names epoch, iteration and the cases of the batch.
        """
        loss = engine.state.output["loss"].detach()
        if bool(torch.isfinite(loss).all()):
            return
        images = engine.state.output["image"]
        names = _case_names(engine.state.batch, rows=images.shape[0])
        broken = [names[row] for row in _rows_not_finite(images)]
        advice = (
            f"The image of {', '.join(broken)} holds NaN or Inf: mend or leave out the file."
            if broken
            else "Their images are finite: lower the learning rate, or look at their labels."
        )
        raise TrainingError(
            f"The loss is {float(loss)} in epoch {engine.state.epoch}, iteration "
            f"{engine.state.iteration}, on the cases {', '.join(names)}. {advice} The checkpoint "
            "on disk is that of the last save before."
        )

    def check_prediction(self, engine: Engine) -> None:
        """Check the predictions of an evaluation iteration.

        Raises:
            TrainingError: One is not finite; names epoch and the cases it belongs to.
        """
        images, pred = engine.state.output["image"], engine.state.output["pred"]
        names = _case_names(engine.state.batch, rows=images.shape[0])
        rows = sorted({row for values in each_tensor(pred) for row in _rows_not_finite(values)})
        if not rows:
            return
        broken = set(_rows_not_finite(images))
        cause = "its image too" if broken.issuperset(rows) else "though the image is finite"
        raise TrainingError(
            f"The prediction for {', '.join(names[row] for row in rows)} holds NaN or Inf "
            f"({cause}), in the evaluation of epoch {engine.state.epoch}. Mend the image, or use "
            "weights of an earlier epoch."
        )
