"""How a run is saved whole or not at all, and resumed to the same weights bit for bit."""

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events, RemovableEventHandle
from torch import Tensor, nn

from metaseg_monai.errors import CheckpointError, ConfigError, as_refusal
from metaseg_monai.files import differences, plain, replacing, set_aside, sweep_temporaries
from metaseg_monai.training import processes
from metaseg_monai.training.loader import EpochBatchSampler
from metaseg_monai.training.sampling import seed_for, seed_generators

_PLAIN = (int, float, bool, str, bytes, type(None), Tensor, nn.Parameter)
_PARTS = ("settings", "environment", "objects", "iteration", "finished")
_FORM = 2  # of what a run's checkpoint says of it; raised where settings are told otherwise


def replace_file(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all, and on the disk when this returns.

    Raises:
        CheckpointError: It cannot be written, e.g. on a full disk; an older file is intact.
    """
    try:
        with replacing(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise CheckpointError(
            f"Cannot write {path}: {error.strerror or error}. What was there before is intact. "
            "Free space on the disk, or choose another output folder, and resume."
        ) from error


def write_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that a kill at any moment leaves a loadable file.

    Args:
        path: the file; its folder is made where missing.
        state: nested dicts, lists and tuples of tensors, numbers, text and None.

    Raises:
        CheckpointError: The state holds something else, which could not be read back safely; or
            the file cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_checkpoint(Path(folder) / "checkpoint.pt", {"iteration": 3})
        ...     read_checkpoint(Path(folder) / "checkpoint.pt")
        {'iteration': 3}
    """
    _check_plain(state, "state")
    content = io.BytesIO()  # in memory first: a failed write to disk is then a plain OSError
    torch.save(state, content)
    replace_file(path, content.getbuffer())


def _check_plain(value: Any, place: str) -> None:
    kind = type(value)
    if kind in (dict, OrderedDict):
        for key, inner in value.items():
            _check_plain(key, f"a key of {place}")
            _check_plain(inner, f"{place}[{key!r}]")
    elif kind in (list, tuple):
        for index, inner in enumerate(value):
            _check_plain(inner, f"{place}[{index}]")
    elif kind not in _PLAIN:
        raise CheckpointError(
            f"{place} is {kind.__module__}.{kind.__qualname__}; a checkpoint holds tensors, plain "
            "numbers, text, lists and dicts only, so that loading one never runs foreign code. "
            "Convert it in state_dict()."
        )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU, running no code that it might hold.

    Every byte is checked against the file's checksums: PyTorch by itself loads altered weights
    from a damaged file without a word.

    Args:
        path: a file by `write_checkpoint`.

    Raises:
        CheckpointError: The file cannot be read, is damaged, or holds more than plain data.
    """
    advice = "Put back a copy, or train anew into another folder."
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values, which could run code when loaded; "
            "it was not loaded. Ask for a file of weights alone."
        ) from error
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no checkpoint at {path}.") from error
    except OSError as error:  # what may not be read is not damaged
        told = as_refusal(error) or error
        raise CheckpointError(f"Cannot read {told}") from error
    except Exception as error:
        # A damaged file fails anywhere in the reader.
        raise CheckpointError(f"Cannot read {path}: {error}. {advice}") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged (checksum of {damaged}). {advice}")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds {type(state).__name__}, not a checkpoint. {advice}")
    return state


# What a training and all that is made of its weights leave in its folder.

CHECKPOINT, TRAINED_ON = "checkpoint.pt", "trained_on.csv"
EVALUATION, MASKS = "evaluation.json", "predicted.sha256"
RESULTS = (  # of an evaluation
    *("counts.csv", "calibration.csv", "cases.csv", "schema.json", "classes.json"),
    *("objects_scores.csv", "volumes.csv", "samples.npz"),
)
RUN = (
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
        told = "is finished already" if stored["finished"] else "goes on"
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
