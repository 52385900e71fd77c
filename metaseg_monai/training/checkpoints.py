"""How a run and its best weights are saved, and resumed to the same weights bit for bit."""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events, RemovableEventHandle
from torch import nn

from metaseg_monai.errors import CheckpointError, ConfigError, TrainingError
from metaseg_monai.files import differences, plain, set_aside, sweep_temporaries
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.training import processes
from metaseg_monai.training.handlers import higher_is_better, lower_is_better
from metaseg_monai.training.loader import EpochBatchSampler
from metaseg_monai.training.sampling import seed_for, seed_generators
from metaseg_monai.training.weights import (
    CHECKPOINT,
    EVALUATION,
    MASKS,
    RESULTS,
    TRAINED_ON,
    LoadWeights,
    known_facts,
    read_checkpoint,
    read_weights,
    write_checkpoint,
    write_copy,
    write_weights,
)

_PARTS = ("settings", "environment", "objects", "iteration", "finished")
_FORM = 2  # of what a run's checkpoint says of it; raised where settings are told otherwise
RUN = (  # what, beside weights and results, is moved aside with a run
    *("training.json", ".evaluation", "train_split", "val_split"),
    *("explain", "activations.npz", "features.npz", "problems.csv"),
    *("model.previous.pt", "model.previous.json"),  # as earlier versions kept weights
)


def _listed(record: Path) -> list[str]:
    """Files of the record's folder that it lists."""
    try:
        names = json.loads(record.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return [name for name in names if not name.startswith("..")]


class BestWeights:
    """Write the network's weights whenever the validation metric is the best so far.

    Attach it to the validation evaluator. NaN is never best, also not as the first value. Put it
    among the objects of `RunCheckpoint`, so that a resumed run knows what the best was.

    Args:
        path: the file, e.g. `models/model.pt`; see `write_weights`.
        network: also inside DistributedDataParallel.
        schema: of its metadata, checked when the weights are loaded; None where there is none.
        facts: plain values that tell what runs: network, variant, preprocessing ... (contract 27);
            components as in the configuration, whose left-out arguments are added.
            `schema`, `unknown_trained` (of a network of ours, as it was made), `trained_on` (of
            `RecordTrained`), `average` (of `MovingAverage`), `best` {metric, value, epoch} are
            added.
        metric: name among the evaluator's metrics (contract 15: the validation loss).
        mode: "min" where lower is better, "max" where higher is.

    Attributes:
        begun_with: other weights, with which the training begins; None where there are none.

    Raises:
        ConfigError: `mode` is neither, or the facts are not plain.
    """

    def __init__(
        self,
        path: str | Path,
        network: nn.Module,
        schema: MetadataSchema | None = None,
        facts: Mapping[str, Any] | None = None,
        metric: str = "val_loss",
        mode: str = "min",
    ) -> None:
        if mode not in ("min", "max"):
            raise ConfigError(f"mode must be min or max, got {mode!r}.")
        self.path = Path(path)
        self.network = network
        self.schema = schema
        self.facts = known_facts(network, schema, facts)
        self.metric = metric
        self.is_better = lower_is_better if mode == "min" else higher_is_better
        self.begun_with: LoadWeights | None = None
        self.best_value = math.nan
        self.best_epoch = 0

    def attach(self, engine: Engine) -> None:
        """Attach to the validation evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare the metric and write the weights where it improved.

        Raises:
            TrainingError: The evaluator has no such metric.
            CheckpointError: The file cannot be written; the former best is intact.
        """
        if self.metric not in engine.state.metrics:
            raise TrainingError(
                f"The best weights go by {self.metric!r}, which the validation does not compute; "
                f"it has {sorted(engine.state.metrics)}. Name one of these."
            )
        value = float(engine.state.metrics[self.metric])
        if not self.is_better(value, self.best_value):
            return
        self.best_value, self.best_epoch = value, int(engine.state.epoch)
        if processes.rank() == 0:
            best = {"metric": self.metric, "value": value, "epoch": self.best_epoch}
            write_weights(self.path, self.network, {**self.facts, "best": best})

    def require(self) -> None:
        """Refuse to end a training that left no weights; renew `model.json` after a kill.

        Raises:
            TrainingError: No validation has given a finite metric.
            CheckpointError: The weights that a finished run had kept are gone or damaged.
        """
        if not self.best_epoch:
            raise TrainingError(
                f"No weights were kept at {self.path}: no validation gave a finite {self.metric}. "
                "Validate at least once (val_interval not above epochs)."
            )
        if processes.rank() != 0:
            return
        if not self.path.is_file():
            raise CheckpointError(
                f"The run is finished, but its weights {self.path} are gone; delete the checkpoint "
                "beside them to train anew."
            )
        write_copy(self.path, read_weights(self.path)[1])

    def state_dict(self) -> dict[str, Any]:
        """Return the best value so far and its epoch."""
        return {"value": self.best_value, "epoch": self.best_epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a best value and its epoch."""
        self.best_value, self.best_epoch = state["value"], state["epoch"]


class RunCheckpoint:
    """Save a training run as it goes, and resume it exactly.

    Stands **first** among the trainer's handlers: it restores the run at its start, before the
    others look at it, and only then puts its own saving behind theirs, so that the schedule has
    stepped and the validation has run when it saves. It takes over the folder when the first epoch
    begins, so that what another handler refuses at the start leaves all as it was.

    It keeps the objects' states, the iteration and the best metric. Nothing of the generators: it
    seeds the global ones before each iteration, from the loader's seed, the iteration and the
    process. Exact on the CPU with the same number of threads; a change of the surroundings is
    logged. The trainer's loader must be that of `training_loader`.

    Args:
        directory: where `checkpoint.pt` is; one run per directory.
        objects: by name, whatever has state_dict and load_state_dict: network (also inside
            DistributedDataParallel), optimizer, lr_scheduler, `BestWeights`, `EpochLog`.
        settings: plain values that make this run what it is (variant, seed, batch_size, the
            digests of cases and schema ...). A run is resumed only under the same; epochs and
            iterations per epoch are added.
        every: save every so many iterations inside an epoch, where epochs are long
            (`"train#checkpoint#every": 500` in a configuration); 0 for only at its end.
        resume: go on from the directory's checkpoint; where there is none, that is an error.
            Where False, an unfinished run in the directory is one, so that nothing is lost, and a
            finished run is moved to ``previous/`` in it, with all that was made of its weights.
        name: the file's name.
        lengthen: a resumed run, a finished one too, may have more epochs than it began with: for
            schedules that do not depend on their number.

    Raises:
        ConfigError: An object keeps no state, a setting is not plain, or `every` is negative.
    """

    def __init__(
        self,
        directory: str | Path,
        objects: Mapping[str, Any],
        settings: Mapping[str, Any],
        every: int = 0,
        resume: bool = False,
        name: str = CHECKPOINT,
        lengthen: bool = False,
    ) -> None:
        for key, value in objects.items():
            if not (hasattr(value, "state_dict") and hasattr(value, "load_state_dict")):
                raise ConfigError(f"objects[{key!r}] is {type(value).__name__} without state_dict.")
        if every < 0:
            raise ConfigError(f"every must be 0 or a number of iterations, got {every!r}.")
        self.settings = plain(settings, "settings")
        self.path = Path(directory) / name
        self.objects = dict(objects)
        self.every = every
        self.resume = resume
        self.lengthen = lengthen
        self._saving: list[RemovableEventHandle] = []
        self._anew: Callable[[], None] | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer; the first of its handlers."""
        processes.own_while_running(engine, self.path.parent, "is training here")
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.ITERATION_STARTED, self._seed)

    def _start(self, engine: Engine) -> None:
        sampler = _sampler_of(engine)
        steps = getattr(engine, "accumulation_steps", 1)
        if self.every % steps:
            raise ConfigError(
                f"every={self.every} would save between the accumulation_steps={steps} of one "
                f"update and lose gradients. Set `every` to a multiple of {steps}."
            )
        run = {"max_epochs": engine.state.max_epochs, "epoch_length": engine.state.epoch_length}
        settings = self.settings | run | {"processes": sampler.world_size}
        stored = self._read()
        self._anew = None
        if self.resume and stored is not None:
            self._restore(engine, stored, settings)
        else:
            self._refuse_anew(stored)
            self._anew = partial(self._start_anew, engine, stored, settings)

        def save_inside_epoch(engine: Engine) -> None:
            done = engine.state.iteration % engine.state.epoch_length
            if self.every and done and done % self.every == 0:
                self._save(engine, settings)

        def save_after_epoch(engine: Engine) -> None:
            self._save(engine, settings)

        for handle in self._saving:  # of an earlier run of the same trainer
            handle.remove()
        self._saving = [
            engine.add_event_handler(Events.ITERATION_COMPLETED, save_inside_epoch),
            engine.add_event_handler(Events.EPOCH_COMPLETED, save_after_epoch),
        ]

    def _read(self) -> dict[str, Any] | None:
        if processes.rank() == 0:
            sweep_temporaries(self.path)
        if not self.path.exists():
            return None
        stored = read_checkpoint(self.path)
        if missing := [part for part in _PARTS if part not in stored]:
            raise CheckpointError(
                f"{self.path} is not the checkpoint of a run: it has no {', '.join(missing)}. "
                "Choose another output folder."
            )
        if stored.get("form") != _FORM and (self.resume or _is_open(stored)):
            raise CheckpointError(
                f"{self.path} was written by another version of metaseg_monai, in another form: "
                "finish the run with that version, or begin it anew in another output_dir."
            )
        return stored

    def _refuse_anew(self, stored: dict[str, Any] | None) -> None:
        if stored is not None and _is_open(stored):
            raise CheckpointError(
                f"{self.path} holds an unfinished run (iteration {stored['iteration']}). "
                "`--resume True` continues it; another output_dir, or deleting that file, starts "
                "anew."
            )
        if self.resume:
            raise CheckpointError(
                f"There is no checkpoint at {self.path}, so there is no run to go on with. Leave "
                "--resume out to start one, or name the output_dir of the interrupted run."
            )

    def _start_anew(
        self, engine: Engine, stored: dict[str, Any] | None, settings: dict[str, Any]
    ) -> None:
        if processes.rank() == 0:
            self._set_aside(engine, begun=stored is not None and stored["iteration"] == 0)
        self._save(engine, settings)

    def _set_aside(self, engine: Engine, begun: bool) -> None:
        """Move an earlier run, whole, to where it is not taken for this one."""
        folder = self.path.parent
        own = [path for one in self.objects.values() if (path := getattr(one, "path", None))]
        made = [one.name for path in own for one in (path, path.with_suffix(".json"))]
        if self.path.name == CHECKPOINT:  # others, of an estimate, may lie beside a model
            made += [path.parent.name for path in folder.glob(f"*/{MASKS}")]
            made += [*RUN, *RESULTS, *_listed(folder / EVALUATION), EVALUATION]  # which tells last
        if begun and not any((folder / name).exists() for name in made):
            return  # a run that was killed before its first step
        # the checkpoint first: without it, nobody takes what is left for a run to go on with
        if kept := set_aside(folder, [self.path.name, TRAINED_ON, *made], "run"):
            engine.logger.warning(f"The run that was in {folder} is in {kept} now.")

    def _restore(self, engine: Engine, stored: dict[str, Any], settings: dict[str, Any]) -> None:
        then = dict(stored["settings"])
        if self.lengthen and then["max_epochs"] < settings["max_epochs"]:
            then["max_epochs"] = settings["max_epochs"]
        if lines := differences(then, settings):
            raise CheckpointError(
                f"{self.path} belongs to a run with other settings: {'; '.join(lines)}. Resume "
                "with the same settings, or choose another output_dir."
            )
        states = stored["objects"]
        if set(states) != set(self.objects):
            raise CheckpointError(
                f"{self.path} holds {sorted(states)}, this run needs {sorted(self.objects)}. "
                "Resume with the configuration that began the run."
            )
        for line in differences(stored["environment"], _environment(engine)):
            engine.logger.warning(f"The resumed run may differ in the last bits: {line}.")
        for name, value in self.objects.items():
            try:
                _bare(value).load_state_dict(states[name])
            except (RuntimeError, ValueError, KeyError, TypeError, CheckpointError) as error:
                raise CheckpointError(
                    f"The {name} in {self.path} does not fit this run's: {error}"
                ) from error
        epochs, length = engine.state.max_epochs, engine.state.epoch_length
        engine.load_state_dict(
            {"iteration": stored["iteration"], "max_epochs": epochs, "epoch_length": length}
        )
        engine.state.best_metric = stored["best_metric"]
        engine.state.best_metric_epoch = stored["best_metric_epoch"]
        scaler = getattr(engine, "scaler", None)
        if scaler is not None and stored["scaler"]:
            scaler.load_state_dict(stored["scaler"])
        finished = stored["iteration"] >= epochs * length
        told = "is finished already" if finished else "goes on"
        engine.logger.info(
            f"The run in {self.path} {told} after {stored['iteration']} of {epochs * length} "
            "iterations."
        )

    def _begin_epoch(self, engine: Engine) -> None:
        """Tell the sampler where the epoch is, as the last thing before its first batch."""
        if self._anew is not None:
            begin, self._anew = self._anew, None
            begin()
        before = (engine.state.epoch - 1) * engine.state.epoch_length
        _sampler_of(engine).begin_epoch(engine.state.epoch, skip=engine.state.iteration - before)

    def _seed(self, engine: Engine) -> None:
        """Seed what the network draws, such as dropout."""
        # four numbers, the last of which no deck of `sampling` has
        run = _sampler_of(engine).seed
        seed = seed_for(run, engine.state.iteration, processes.rank(), 1)
        seed_generators(seed)
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(seed)

    def _save(self, engine: Engine, settings: dict[str, Any]) -> None:
        if processes.rank() != 0:
            return
        state = engine.state
        scaler = getattr(engine, "scaler", None)
        write_checkpoint(
            self.path,
            {
                "form": _FORM,
                "settings": settings,
                "environment": _environment(engine),
                "objects": {
                    name: _bare(value).state_dict() for name, value in self.objects.items()
                },
                "iteration": state.iteration,
                "finished": state.iteration >= state.max_epochs * state.epoch_length,
                "best_metric": float(getattr(state, "best_metric", -1)),
                "best_metric_epoch": int(getattr(state, "best_metric_epoch", -1)),
                "scaler": None if scaler is None else scaler.state_dict(),
            },
        )


def _is_open(stored: Mapping[str, Any]) -> bool:
    """Whether a run has begun and is not finished."""
    return not stored["finished"] and stored["iteration"] > 0


def _bare(value: Any) -> Any:
    return processes.bare_network(value) if isinstance(value, nn.Module) else value


def _sampler_of(engine: Engine) -> EpochBatchSampler:
    """Return the trainer's sampler after checking that an epoch is one pass over it."""
    sampler = getattr(getattr(engine, "data_loader", None), "batch_sampler", None)
    if not isinstance(sampler, EpochBatchSampler):
        raise ConfigError(
            "RunCheckpoint resumes exactly only where the trainer's loader comes from "
            f"training_loader; its batch sampler is {type(sampler).__name__}. Make the loader "
            "with metaseg_monai.training.training_loader."
        )
    if engine.state.epoch_length != len(sampler):
        raise ConfigError(
            f"epoch_length is {engine.state.epoch_length}, but the loader gives {len(sampler)} "
            "batches an epoch. Leave epoch_length out of the trainer."
        )
    return sampler


def _environment(engine: Engine) -> dict[str, Any]:
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "device": str(getattr(engine.state, "device", None)),
        "gpus": torch.cuda.device_count(),
    }
