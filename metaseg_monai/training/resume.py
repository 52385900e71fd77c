"""How a killed run goes on, to the same weights bit for bit as if it had never been killed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events, RemovableEventHandle
from torch import nn

from metaseg_monai.errors import CheckpointError, ConfigError
from metaseg_monai.files import sweep_temporaries
from metaseg_monai.training import processes
from metaseg_monai.training.checkpoints import (
    differences,
    plain,
    read_checkpoint,
    write_checkpoint,
)
from metaseg_monai.training.loader import EpochBatchSampler
from metaseg_monai.training.randomness import random_states, restore_random_states
from metaseg_monai.training.weights import BestWeights

_PARTS = ("settings", "environment", "objects", "iteration", "finished", "random_states")


class RunCheckpoint:
    """Save a training run as it goes, and resume it exactly.

    Stands **first** among the trainer's handlers: it restores the run at its start, before the
    others look at it, and only then puts its own saving behind theirs, so that the schedule has
    stepped and the validation has run when it saves.

    It keeps the objects' states, the iteration, the generators of every process and the best
    metric. Exact on the CPU with the same number of threads; a change of the surroundings is
    logged. The trainer's loader must be that of `training_loader`.

    Args:
        directory: where `checkpoint.pt` is; one run per directory.
        objects: by name, whatever has state_dict and load_state_dict: network (also inside
            DistributedDataParallel), optimizer, lr_scheduler, `BestWeights`, `EpochLog`.
        settings: plain values that make this run what it is (variant, seed, batch_size, schema as
            JSON text ...). A run is resumed only under the same; epochs and iterations per epoch
            are added.
        every: save every so many iterations inside an epoch; 0 for only at its end.
        resume: go on from the directory's checkpoint, or start where there is none. Where False,
            an unfinished run in the directory is an error, so that nothing is lost.
        name: the file's name.

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
        name: str = "checkpoint.pt",
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
        self._waiting_states: dict[str, Any] | None = None
        self._saving: list[RemovableEventHandle] = []

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer; the first of its handlers."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)

    def _start(self, engine: Engine) -> None:
        sampler = _sampler_of(engine)
        self._check_steps(engine)
        run = {"max_epochs": engine.state.max_epochs, "epoch_length": engine.state.epoch_length}
        settings = self.settings | run | {"processes": sampler.world_size}
        stored = self._read()
        if self.resume and stored is not None:
            self._restore(engine, stored, settings)
        else:
            self._start_anew(engine, stored, settings)

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

    def _check_steps(self, engine: Engine) -> None:
        steps = getattr(engine, "accumulation_steps", 1)
        if self.every % steps:
            raise ConfigError(
                f"every={self.every} would save between the accumulation_steps={steps} of one "
                f"update and lose gradients. Set `every` to a multiple of {steps}."
            )

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
        return stored

    def _start_anew(
        self, engine: Engine, stored: dict[str, Any] | None, settings: dict[str, Any]
    ) -> None:
        if stored is not None and not stored["finished"] and stored["iteration"] > 0:
            raise CheckpointError(
                f"{self.path} holds an unfinished run (iteration {stored['iteration']}). "
                "`--resume True` continues it; another output_dir, or deleting that file, starts "
                "anew."
            )
        if self.resume:
            engine.logger.info(f"No checkpoint at {self.path}: the run starts at the beginning.")
        self._save(engine, settings)  # in the place of a finished run
        if processes.rank() == 0:
            for value in self.objects.values():
                if isinstance(value, BestWeights):
                    value.start_anew()

    def _restore(self, engine: Engine, stored: dict[str, Any], settings: dict[str, Any]) -> None:
        if lines := differences(stored["settings"], settings):
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
            except (RuntimeError, ValueError, KeyError, TypeError) as error:
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
        self._waiting_states = stored["random_states"][processes.rank()]
        told = "is finished already" if stored["finished"] else "goes on"
        engine.logger.info(
            f"The run in {self.path} {told} after {stored['iteration']} of {epochs * length} "
            "iterations."
        )

    def _begin_epoch(self, engine: Engine) -> None:
        """Tell the sampler where the epoch is, as the last thing before its first batch."""
        before = (engine.state.epoch - 1) * engine.state.epoch_length
        _sampler_of(engine).begin_epoch(engine.state.epoch, skip=engine.state.iteration - before)
        if self._waiting_states is not None:
            restore_random_states(self._waiting_states)
            self._waiting_states = None

    def _save(self, engine: Engine, settings: dict[str, Any]) -> None:
        states = processes.gather(random_states())
        if processes.rank() != 0:
            return
        state = engine.state
        scaler = getattr(engine, "scaler", None)
        write_checkpoint(
            self.path,
            {
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
                "random_states": states,
            },
        )


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
