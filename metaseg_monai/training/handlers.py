"""What watches a run: when it must stop, what is written down of it, and how far it is."""

import logging
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from time import monotonic
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine, Events, State
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from monai.engines import AdversarialTrainer, Evaluator, IterationEvents
from monai.handlers import from_engine
from monai.utils.enums import AdversarialIterationEvents, AdversarialKeys, CommonKeys
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer
from torch.utils.data import RandomSampler
from tqdm import tqdm

from metaseg_monai.errors import (
    UNFIT_SIZE,
    ConfigError,
    DataError,
    MetasegError,
    Problem,
    TrainingError,
    listing,
)
from metaseg_monai.images.image import row_blocks
from metaseg_monai.images.lazy import at_hand
from metaseg_monai.images.read import read_header
from metaseg_monai.inferers import each_tensor
from metaseg_monai.metrics.scores import f1
from metaseg_monai.networks.sizes import sizes_of
from metaseg_monai.rows import write_problems
from metaseg_monai.training import processes
from metaseg_monai.training.collate import PROBLEM
from metaseg_monai.training.loader import ReplayDataset
from metaseg_monai.training.processes import hear_of_errors
from metaseg_monai.training.weights import replace_file

logger = logging.getLogger(__name__)


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
    """Return whether `current` is higher than `best`; of NaN as `lower_is_better`.

    Example:
        >>> higher_is_better(0.3, 0.2), higher_is_better(math.nan, 0.2)
        (True, False)
    """
    return not math.isnan(current) and (math.isnan(best) or current > best)


class TryBatches:
    """Trainer handler that, before anything is trained, sees that every batch can be.

    The smallest batch of an epoch goes through the network as in training, whose state stays as
    it was; where no optimiser can take its gradients, a few others do, of which one must be better.
    Of the validation one of each combination of sizes is put together. So a run is refused at its
    start that would break in its last batch, or in the validation behind its first epoch.

    Args:
        evaluator: of the validation; None for none.
    """

    def __init__(self, evaluator: Engine | None = None) -> None:
        self.evaluator = evaluator

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, before handlers that write."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Any) -> None:
        """Try the batches.

        Raises:
            TrainingError: a batch holds too little for batch normalisation, has other channels than
                the network, or nothing is learned.
            ConfigError: the network cannot take crops of this size; names one that it takes.
            DataError: images cannot be read, or do not go into one batch; names the cases.
        """
        loader = engine.data_loader
        sampler, items = loader.batch_sampler, len(loader.dataset)
        size = getattr(sampler, "smallest", None)
        whole = sampler.batch_size
        tried = [range(at, at + whole) for at in range(0, items - whole + 1, whole)]
        tried = [range(size or min(whole, items)), *tried[:TRIED]]
        dataset = loader.dataset
        if isinstance(dataset, ReplayDataset):
            dataset = dataset.apart()
            self._check_axes(dataset.load(0), processes.bare_network(engine.network))
        for numbers in tried:
            batch = loader.collate_fn([dataset[(1, n) if size else n] for n in numbers])
            if self._can_learn(engine, batch, items, whole):
                break
        else:
            raise TrainingError(f"The gradients of {len(tried)} batches {BLOWN_UP}")
        loader = getattr(self.evaluator, "data_loader", None)
        if loader is None or isinstance(loader.sampler, RandomSampler):
            return
        known = set()
        for chosen in loader.batch_sampler:
            sizes = frozenset(_size(loader.dataset.data[index]) for index in chosen)
            if len(chosen) > 1 and (sizes not in known or None in sizes):
                known.add(sizes)
                loader.collate_fn([loader.dataset[index] for index in chosen])

    def _check_axes(self, item: Mapping[str, Any], network: torch.nn.Module) -> None:
        """See that the images have as many axes as the network."""
        wanted, shape = getattr(network, "spatial_dims", None), tuple(item["image"].shape[1:])
        if wanted in (2, 3) and len(shape) != wanted:
            what = "a plane of" if len(shape) == 2 else "a volume of"
            raise DataError(
                f"case {item.get('case', '?')!r}: {what} {'x'.join(map(str, shape))}, but the "
                f"network has {wanted} dimensions; give a network of planes a row a plane (columns "
                "volume, plane and planes), or train one of volumes (network_def#spatial_dims 3)"
            )

    def _can_learn(self, engine: Any, batch: Any, items: int, batch_size: int) -> bool:
        network = processes.bare_network(engine.network)
        made = engine.prepare_batch(batch, engine.state.device, engine.non_blocking)
        image, target, args, kwargs = made if len(made) == 4 else (*made, (), {})
        modes = {module: module.training for module in network.modules()}
        kept = {name: buffer.clone() for name, buffer in network.named_buffers()}
        for module in modes:  # a drop-out would draw numbers that the training draws later
            module.training = not isinstance(module, _DropoutNd)
        pred = None
        try:
            with torch.enable_grad():
                amp = getattr(engine, "amp", False)  # as MONAI's SupervisedTrainer does
                with torch.autocast("cuda", **engine.amp_kwargs) if amp else nullcontext():
                    pred = engine.inferer(image, network, *args, **kwargs)
                    loss = engine.loss_function(pred, target).mean()
                # not backward(), of which DistributedDataParallel would hear
                weights = [weight for weight in network.parameters() if weight.requires_grad]
                found = torch.autograd.grad(loss, weights, allow_unused=True)
                for weight, gradient in zip(weights, found, strict=True):
                    weight.grad = gradient
            return not bool(torch.isfinite(loss)) or _can_step(network)  # the first step tells why
        except (RuntimeError, ValueError) as error:
            of_size = UNFIT_SIZE.search(str(error)) or OTHER_SIZES in str(error)
            if pred is None and of_size:
                raise ConfigError(_unfit_size(network, image, args, kwargs, error)) from error
            if OTHER_CHANNELS in str(error):
                raise TrainingError(
                    f"The network (network_def) cannot take images of {image.shape[1]} channel(s): "
                    f"{error}. Make its in_channels those of the images (in_channels)"
                ) from error
            if "more than 1 value per channel" not in str(error):
                raise
            size = "x".join(map(str, image.shape[2:]))
            raise TrainingError(
                f"A batch of {len(image)} with images of {size} leaves one value a channel at the "
                f"network's deepest level, of which batch normalisation cannot learn ({items} "
                f"training cases in batches of {batch_size}): take a larger crop or batch "
                "(--roi_size, --batch_size), or one that leaves no rest of one"
            ) from error
        finally:
            network.zero_grad(set_to_none=True)
            for module, mode in modes.items():
                module.training = mode
            for name, buffer in network.named_buffers():
                buffer.copy_(kept[name])


def _size(item: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Size of an item's image by its header; None where only reading it tells."""
    try:
        shape = read_header(item["image"]).get("spatial_shape")
    except (MetasegError, LookupError, TypeError):  # which reading tells; an array
        return None
    return None if shape is None else tuple(shape)


def _unfit_size(
    network: torch.nn.Module, image: Tensor, args: Any, kwargs: Any, error: Exception
) -> str:
    """What to do about crops of a size that a network does not take."""
    known = sizes_of(network, image, args, kwargs)
    crops = "x".join(map(str, image.shape[2:]))
    told = f"roi_size: the network (network_def) cannot take crops of {crops}"
    if known is None:
        return f"{told} ({error}); give --roi_size a size that it takes"
    along = "x".join(map(str, known.factors))
    shrinks = f"shrinks them by {along}"
    if all(factor & (factor - 1) == 0 for factor in known.factors):
        times = [factor.bit_length() - 1 for factor in known.factors]
        each = f"{times[0]} times" if len(set(times)) == 1 else f"{listing(times)} times by axis"
        shrinks = f"halves them {each}"
    why = "they do not divide evenly"
    if "spatial element" in str(error):
        why = "one pixel is left, of which a normalisation cannot learn"
    return (
        f"{told}: it {shrinks}, and {why} ({error}). Take --roi_size "
        f'"{list(known.following)}", the next that it takes, in multiples of {along}'
    )


OTHER_CHANNELS = "channels, but got"  # PyTorch's words
OTHER_SIZES = "must match the size of tensor"  # within a network; elsewhere it may be anything
TRIED = 8  # batches, where the smallest has gradients that no optimiser can take
LARGEST_GRADIENT = 1e18  # its square still fits float32, in which Adam keeps it
BLOWN_UP = (
    "are beyond all numbers, though the loss is finite: the crops hold so little contrast, or the "
    "deepest level so few values, that batch normalisation blows them up. Take a larger crop or "
    "batch (--roi_size, --batch_size), or pad less"
)


def _can_step(network: torch.nn.Module) -> bool:
    """Whether all gradients are finite, and so small that an optimiser can square them."""
    # clipped at infinity, which is multiplied by 1
    largest = torch.nn.utils.clip_grad_norm_(network.parameters(), math.inf, norm_type=math.inf)
    return float(largest) < LARGEST_GRADIENT


class StopOnNonFinite:
    """Stop a run at the first value that is not finite, naming the cases.

    On a trainer the loss is checked, and then the gradients, before a weight is touched: a step
    whose gradients no optimiser can take, as of a batch of constant crops, is left out, which the
    log tells once an epoch; an epoch of such steps only is refused. Of an adversarial training the
    discriminator's loss is checked, too. On an evaluator the predictions are checked, of which
    MONAI's Dice would score a NaN as perfect.
    """

    def __init__(self) -> None:
        self._left_out: list[str] = []  # cases of each step of this epoch that was left out

    def attach(self, engine: Engine) -> None:
        """Attach to one of MONAI's trainers or evaluators."""
        if isinstance(engine, Evaluator):
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.check_prediction)
        else:
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.check_loss)
            if isinstance(engine, AdversarialTrainer):
                of_d = AdversarialKeys.DISCRIMINATOR_LOSS
                event = AdversarialIterationEvents.DISCRIMINATOR_LOSS_COMPLETED
                engine.add_event_handler(event, self.check_loss, key=of_d)
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.check_step)
            engine.add_event_handler(Events.EPOCH_STARTED, lambda: self._left_out.clear())
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._tell)

    def check_loss(self, engine: Engine, key: str = CommonKeys.LOSS) -> None:
        """Check the loss of a training iteration.

        Raises:
            TrainingError: It is not finite; names epoch, iteration and the cases of the batch.
        """
        loss = engine.state.output[key].detach()
        if bool(torch.isfinite(loss).all()):
            return
        images = engine.state.output["image"]
        names = _case_names(engine.state.batch, rows=len(images))
        broken = [names[row] for row in _rows_not_finite(images)]
        advice = (
            f"The image of {', '.join(broken)} holds NaN or Inf: mend or leave out the file."
            if broken
            else "Their images are finite: lower the learning rate, or look at their labels."
        )
        raise TrainingError(
            f"The {key.replace('_', ' ')} is {float(loss)} in epoch {engine.state.epoch}, "
            f"iteration {engine.state.iteration}, on the cases {', '.join(names)}. {advice} The "
            "checkpoint on disk is that of the last save before."
        )

    def check_step(self, engine: Any) -> None:
        """Leave a step out, with every weight and moment, whose gradients are beyond all numbers.

        All processes of a distributed run do alike, as they have the same gradients. Those that a
        GradScaler has multiplied are its own matter: it finds its scale by them, and skips such a
        step itself.

        Raises:
            TrainingError: so it was in every step of an epoch; names the cases of the last.
        """
        scaler = getattr(engine, "scaler", None)
        if scaler is not None and scaler.is_enabled():
            return
        if _can_step(engine.network):
            return
        names = _case_names(engine.state.batch, rows=len(engine.state.output["image"]))
        self._left_out.append(", ".join(names))
        if len(self._left_out) == engine.state.epoch_length:
            raise TrainingError(f"The gradients of every batch ({self._left_out[-1]}) {BLOWN_UP}")
        engine.optimizer.zero_grad(set_to_none=True)  # an optimiser passes over what has none

    def _tell(self, engine: Any) -> None:
        if self._left_out and processes.rank() == 0:
            logger.warning(
                "epoch %d: %d of %d steps were left out, as their gradients %s: %s",
                engine.state.epoch,
                len(self._left_out),
                engine.state.epoch_length,
                BLOWN_UP,
                listing(self._left_out, 3, lambda names: f"({names})"),
            )

    def check_prediction(self, engine: Engine) -> None:
        """Check the predictions of an evaluation iteration.

        Raises:
            TrainingError: One is not finite; names epoch and the cases it belongs to.
        """
        output = engine.state.output
        refuse_non_finite(output["pred"], output["image"], engine.state)


class ClipGradients:
    """Scale the gradients of a step down to a norm, before the optimiser takes them.

    Adam divides by a mean of earlier gradients: after first ones that are much larger, as those of
    medMAE on dark images, it learns little for long. The team of the adipocyte report clips at 1 in
    its code.

    Attach it to the trainer, behind `StopOnNonFinite`, which leaves a step without numbers out.

    Args:
        max_norm: of all gradients together; None leaves them.

    Raises:
        ConfigError: it is not above 0.
    """

    def __init__(self, max_norm: float | None) -> None:
        if max_norm is not None and not max_norm > 0:
            raise ConfigError(f"max_norm={max_norm!r}: expected a norm above 0, or null for none")
        self.max_norm = math.inf if max_norm is None else float(max_norm)

    def attach(self, engine: Engine) -> None:
        """Attach to one of MONAI's trainers."""
        if math.isfinite(self.max_norm):
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Scale the gradients of the network."""
        scaler = getattr(engine, "scaler", None)
        if scaler is not None and scaler.is_enabled():
            scaler.unscale_(engine.optimizer)
        torch.nn.utils.clip_grad_norm_(engine.network.parameters(), self.max_norm)


def refuse_non_finite(pred: Any, images: Tensor, state: State) -> None:
    """Refuse predictions, or parts of them, that are not finite.

    Args:
        pred: output of a network (B, ...).
        images: of the batch (B, C, *S).
        state: of the evaluator.

    Raises:
        TrainingError: One is not finite; names epoch and the cases it belongs to.
    """
    rows = sorted({row for values in each_tensor(pred) for row in _rows_not_finite(values)})
    if not rows:
        return
    names = _case_names(state.batch, rows=len(images))
    of_image = set(_rows_not_finite(images)).issuperset(rows)
    cause = "its image too" if of_image else "though the image is finite"
    raise TrainingError(
        f"The prediction for {', '.join(names[row] for row in rows)} holds NaN or Inf "
        f"({cause}), in the evaluation of epoch {state.epoch}. Mend the image, or use "
        "weights of an earlier epoch."
    )


def _case_names(batch: Any, rows: int) -> list[str]:
    names = batch.get("case") if isinstance(batch, dict) else None
    if isinstance(names, (list, tuple)) and len(names) == rows:
        return [str(name) for name in names]
    return [f"row {row} of the batch" for row in range(rows)]


def _rows_not_finite(values: Tensor) -> list[int]:
    finite = torch.ones(len(values), dtype=torch.bool, device=values.device)
    parts = row_blocks(values.shape[1:]) if values.ndim > 2 else [slice(None)]
    for part in parts:
        rows = at_hand(values[:, :, part] if values.ndim > 2 else values).detach().flatten(1)
        finite &= torch.isfinite(rows.amin(1)) & torch.isfinite(rows.amax(1))  # NaN where any is
    return torch.nonzero(~finite).flatten().tolist()


def loss_of(output: Any, key: str = CommonKeys.LOSS) -> float:
    """Return the loss in a MONAI trainer's output, decollated or not."""
    loss: Any = from_engine(key, first=True)(output)
    value = loss[0] if isinstance(loss, tuple) else loss
    return float(value.detach() if isinstance(value, Tensor) else value)


class PixelF1(Metric):
    """F1 (Dice) of the pixels of all images together, mean over the foreground classes.

    The rule of `pooled_f1`: a class that is neither in label nor prediction has none, and without
    any the metric is NaN. For Ignite engines; of a distributed run over all processes.

    Args:
        classes: number of classes K with the background.
        output_transform: of the engine's output to logits (B, K, *S), or those of several scales,
            of which the first counts, and classes (B, 1, *S); pixels of other classes than 0 to
            K - 1 are left out. By default prediction and label of MONAI's engines.
        device: of the counts.
    """

    def __init__(
        self,
        classes: int,
        output_transform: Callable[[Any], Any] | None = None,
        device: Any = "cpu",
    ) -> None:
        self.classes = classes
        both = from_engine([CommonKeys.PRED, CommonKeys.LABEL])
        super().__init__(output_transform or both, device=device)

    @reinit__is_reduced
    def reset(self) -> None:
        """Forget what was counted."""
        self._counts = torch.zeros(3, self.classes - 1, dtype=torch.long, device=self._device)

    @reinit__is_reduced
    def update(self, output: Any) -> None:
        """Count a batch: true positives, false positives and false negatives of each class."""
        pred, label = output
        logits = next(iter(each_tensor(pred))).as_subclass(Tensor)
        found, true = logits.argmax(1).flatten(), label.as_subclass(Tensor).flatten().long()
        known = (true >= 0) & (true < self.classes)
        pairs = true[known] * self.classes + found[known]
        table = torch.bincount(pairs, minlength=self.classes**2).reshape(self.classes, -1)
        hits = table.diagonal()
        counts = torch.stack([hits, table.sum(0) - hits, table.sum(1) - hits])
        self._counts = self._counts + counts[:, 1:].to(self._device)

    @sync_all_reduce("_counts")
    def compute(self) -> float:
        """The score."""
        of_class = self._counts.T.tolist()
        known = [one for one in (f1(*counts) for counts in of_class) if not math.isnan(one)]
        return sum(known) / len(known) if known else math.nan


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
        parts: names in the trainer's output whose means are written beside the loss's, such as
            "discriminator_loss" of an adversarial training.

    A loss is the mean over the epoch's iterations, of a distributed run over all its processes.
    """

    def __init__(
        self,
        path: str | Path,
        optimizer: Optimizer,
        evaluator: Engine | None = None,
        metrics: Sequence[str] = ("val_loss",),
        parts: Sequence[str] = (),
    ) -> None:
        self.path = Path(path)
        self.optimizer = optimizer
        self.evaluator = evaluator
        self.metrics = () if evaluator is None else tuple(metrics)
        self.parts = tuple(parts)
        self.columns = ["epoch", "train_loss", *self.parts, *self.metrics, "lr", "seconds"]
        self._rows: list[dict[str, Any]] = []
        self._since = 0.0
        self._begin(0.0, 0, 0.0)

    def _begin(
        self, loss: float, iterations: int, seconds: float, parts: Sequence[float] = ()
    ) -> None:
        self._sum, self._iterations, self._seconds = loss, iterations, seconds
        self._sums = list(parts) or [0.0] * len(self.parts)

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer, behind the ValidationHandler."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._add_loss)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write_epoch)

    def _start(self, engine: Engine) -> None:
        """Take up the rows of the epochs that an earlier part of the run has finished."""
        self._rows = []
        if not engine.state.iteration or not self.path.is_file():
            return
        table = pd.read_csv(self.path, dtype=str, keep_default_na=False)
        if list(table.columns) != self.columns:
            raise DataError(
                f"{self.path} has the columns {list(table.columns)}, this run writes "
                f"{self.columns}. Move the file away, or resume with the same metrics."
            )
        self._rows = table[table["epoch"].astype(int) <= engine.state.epoch].to_dict("records")

    def _begin_epoch(self, engine: Engine) -> None:
        done = engine.state.iteration - (engine.state.epoch - 1) * engine.state.epoch_length
        if done == 0:
            self._begin(0.0, 0, 0.0)
        if done != self._iterations:
            raise TrainingError(
                f"The log {self.path} has the losses of {self._iterations} of the {done} "
                "iterations already run in this epoch. Put the EpochLog among the objects of "
                "RunCheckpoint."
            )
        self._since = monotonic()

    def _add_loss(self, engine: Engine) -> None:
        self._sum += processes.mean_over_processes(loss_of(engine.state.output))
        for place, part in enumerate(self.parts):
            own = loss_of(engine.state.output, part)
            self._sums[place] += processes.mean_over_processes(own)
        self._iterations += 1

    def _write_epoch(self, engine: Engine) -> None:
        epoch = engine.state.epoch
        row = {
            "epoch": epoch,
            "train_loss": self._sum / self._iterations,
            **{
                part: own / self._iterations
                for part, own in zip(self.parts, self._sums, strict=True)
            },
            **self._metrics_of(epoch),
            "lr": self.optimizer.param_groups[0]["lr"],
            "seconds": f"{self._seconds + monotonic() - self._since:.3f}",
        }
        self._rows.append({key: str(value) for key, value in row.items()})
        self._begin(0.0, 0, 0.0)
        if processes.rank() == 0:
            table = pd.DataFrame(self._rows, columns=self.columns)
            replace_file(self.path, table.to_csv(index=False, lineterminator="\r\n").encode())

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
        running = monotonic() - self._since if self._iterations else 0.0
        sums: dict[str, Any] = {"sum": self._sum, "iterations": self._iterations}
        if self.parts:
            sums["parts"] = list(self._sums)
        return {**sums, "seconds": self._seconds + running}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the sums of an epoch's beginning."""
        self._begin(state["sum"], state["iterations"], state["seconds"], state.get("parts", ()))


class RunProgress:
    """Show one bar over all iterations of a run, with the time left and the last losses.

    The estimate goes by the mean speed since the start, so that it counts validations too. A
    resumed run begins where it was. Only the first process of a distributed run shows the bar, on
    standard error. Stands behind `RunCheckpoint` and the ValidationHandler among the trainer's
    handlers; an evaluation or inference shows its bar without a loss, and its own metric.

    Args:
        title: what the bar is for.
        evaluator: whose `metrics` are shown; None for those of the engine itself.
        metrics: names; those that it does not compute are left out.
        unit: what is counted: "step" counts iterations, any other word ("image") the
            items of each batch: images, or the slices of volumes.
    """

    def __init__(
        self,
        title: str = "training",
        evaluator: Engine | None = None,
        metrics: Sequence[str] = ("val_loss", "val_f1"),
        unit: str = "step",
    ) -> None:
        self.title = title
        self.evaluator = evaluator
        self.metrics = tuple(metrics)
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
        hear_of_errors(engine, self._close)  # what is said next, also after Ctrl-C, has its line

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
            mininterval=0.2 if sys.stderr.isatty() else 20,  # a log file stays short
            dynamic_ncols=True,
        )

    def _advance(self, engine: Engine) -> None:
        output = engine.state.output
        first = output[0] if isinstance(output, list) and output else output  # where decollated
        if isinstance(first, dict) and "loss" in first:
            self._shown["loss"] = f"{loss_of(output):.4f}"
            self._bar.set_postfix(self._shown, refresh=False)
        batch = engine.state.batch
        seen = 1 if self.unit == "step" else len(batch["case"]) + len(batch.get(PROBLEM, ()))
        self._bar.update(seen)

    def _show_validation(self, engine: Engine) -> None:
        known = (self.evaluator or engine).state.metrics
        found = {name: f"{float(known[name]):.4f}" for name in self.metrics if name in known}
        if found:
            self._shown |= found
            self._bar.set_postfix(self._shown)

    def _close(self, engine: Engine, error: BaseException | None = None) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


class ListProblems:
    """Evaluator handler that collects what `SiftedDataset` could not read.

    It stands behind what writes masks or counts. The engine's state shows the list as `problems`.

    Args:
        folder: of the results, which gets ``problems.csv`` by `finish`.
        at_least_one: refuse to complete a run in which nothing could be read.

    Attributes:
        found: a `Problem` for each case or volume; readers of lists and headers add to it.
    """

    def __init__(self, folder: str | Path, at_least_one: bool = False) -> None:
        self.folder = Path(folder)
        self.at_least_one = at_least_one
        self.found: list[Problem] = []
        self._done = 0

    def attach(self, engine: Engine) -> None:
        """Collect after every batch."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        if self.at_least_one:
            engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: self._require())
        hear_of_errors(engine, lambda engine, error: self._write())

    def __call__(self, engine: Engine) -> None:
        """Take up the problems of a batch, each file's once."""
        self._done += len(engine.state.batch["case"])
        for problem in engine.state.batch.get(PROBLEM, ()):
            if problem not in self.found:
                self.found.append(problem)
                logger.info("left out: %s", problem)
        engine.state.problems = self.found

    def finish(self, before: int = 0) -> list[Problem]:
        """Write ``problems.csv``, or remove that of an earlier run.

        Args:
            before: cases that an earlier run has done.

        Raises:
            DataError: no case at all was done.
        """
        self._write()
        self._require(before)
        return self.found

    def _require(self, before: int = 0) -> None:
        if self.found and not self._done and not before:
            told = listing(self.found, 3, str)
            raise DataError(f"none of {len(self.found)} item(s) could be done: {told}")

    def _write(self) -> None:
        if self.found or self.folder.is_dir():
            write_problems(self.folder, self.found)
