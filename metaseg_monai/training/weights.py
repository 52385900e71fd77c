"""The weights that a run keeps: one file that knows what it is for, and who may load it.

`model.pt` is a bare state_dict, as MONAI's `load`, `ckpt_export` and `CheckpointLoader` take it.
Its facts lie within, where PyTorch keeps the versions of modules (`state_dict._metadata`), as JSON
text with a SHA-256 over the tensors: neither can be exchanged without the other. `model.json`
beside it is a copy of the facts for readers.
"""

import copy
import hashlib
import inspect
import io
import json
import logging
import pickle
import platform
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

import monai
import pandas as pd
import torch
from ignite.engine import Engine, Events
from monai.bundle.config_item import ComponentLocator
from monai.utils import ensure_tuple
from torch import Tensor, nn

from metaseg_monai import files
from metaseg_monai.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    MetadataError,
    as_refusal,
    listing,
    system_refusal,
)
from metaseg_monai.files import differences, file_sha256, plain, replacing, sweep_temporaries
from metaseg_monai.inferers.ensemble import EnsembleInferer
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.networks.meta_input import MetaInput
from metaseg_monai.networks.variants import without_effect
from metaseg_monai.rows import of_cell
from metaseg_monai.training import processes
from metaseg_monai.transforms.augmentation import falsified_by
from metaseg_monai.transforms.load import LoadCased
from metaseg_monai.transforms.metadata import EncodeMetadatad
from metaseg_monai.transforms.preprocessing import IntensityStatistics, scalings_of

logger = logging.getLogger(__name__)
KEY = "metaseg"  # of the facts in `state_dict._metadata[""]`
# Facts name components of this package by NAME, also where a packaged bundle brings this code along
# under a name of its own: weights are the same wherever they were trained and are used.
NAME, OWN = "metaseg_monai", __name__.partition(".")[0]
_PLAIN = (int, float, bool, str, bytes, type(None), Tensor, nn.Parameter)
# Facts that an evaluation may have otherwise, or that only the training knows.
NOT_COMPARED = {
    *("window", "class_names", "intensity", "scaling", "trained_on", "best", "versions"),
    *("average", "data", "untrained"),
}


# What a training and all that is made of its weights leave in its folder.

TRAINED_COLUMNS = ["pixels", "split", "group", "case"]
OF_FILES = "sha256"  # the first column of a record that knows files, not pixels
CHECKPOINT, TRAINED_ON = "checkpoint.pt", "trained_on.csv"
EVALUATION, MASKS = "evaluation.json", "predicted.sha256"
RESULTS = (  # of an evaluation
    *("counts.csv", "calibration.csv", "cases.csv", "schema.json", "classes.json"),
    *("objects_scores.csv", "volumes.csv", "samples.npz", "conformal.csv"),
    *("image_objects.csv", "image_samples.npz"),
)


def of_files(files: tuple[str, ...]) -> str:
    """What tells an image in a record of an earlier version; "" where it cannot be read."""
    try:
        return ";".join(map(file_sha256, files))
    except OSError:
        return ""


def weights_sha256(state: Mapping[str, Any]) -> str:
    """The SHA-256 over names, types, shapes and values of a state_dict.

    It does not depend on the device, the order of the names or the memory format.

    Args:
        state: tensors by name.

    >>> one = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    >>> weights_sha256(one) == weights_sha256(dict(reversed(one.items())))
    True
    >>> weights_sha256(one) == weights_sha256({**one, "b": torch.ones(1) + 1e-6})
    False
    """
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        if not isinstance(value, Tensor):  # the extra state of a module
            digest.update(f"{name} {value!r}\n".encode())
            continue
        values = value.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def ensemble_sha256(digests: Sequence[str]) -> str:
    """What tells the weights of an ensemble, of those of its members in any order."""
    return hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


def replace_file(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all, and on the disk when this returns.

    Raises:
        CheckpointError: It cannot be written, e.g. on a full disk; an older file is intact.
    """
    try:
        with replacing(path) as part:
            part.write_bytes(content)
    except OSError as error:
        told = system_refusal(error, path)
        raise CheckpointError(f"{told}, and resume. What was there before is intact") from error


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


def write_weights(path: str | Path, network: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write the weights of a network with their facts, whole or not at all.

    Args:
        path: the file, e.g. `models/model.pt`; `model.json` is written beside it.
        network: also inside DistributedDataParallel.
        facts: plain values: what the network is and what it was trained for (contract 27).
            `weights_sha256` and `versions` are added.

    Raises:
        ConfigError: the facts are not plain values.
        CheckpointError: the file cannot be written; an older one is intact.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_weights(f"{folder}/model.pt", nn.Linear(2, 1), {"variant": "se"})
        ...     state, facts = read_weights(f"{folder}/model.pt")
        >>> list(state), facts["variant"], len(facts["weights_sha256"])
        (['weight', 'bias'], 'se', 64)
    """
    path = Path(path)
    state: Any = processes.bare_network(network).state_dict()
    modules = {name: dict(known) for name, known in state._metadata.items()}
    state = OrderedDict(
        (name, value.detach().cpu() if isinstance(value, Tensor) else value)
        for name, value in state.items()
    )
    known = {
        "weights_sha256": weights_sha256(state),
        **retargeted(plain(facts, "The facts of weights"), OWN, NAME),
        "versions": {
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "monai": monai.__version__,
            NAME: sys.modules[OWN].__version__,
        },
    }
    modules.setdefault("", {})[KEY] = json.dumps(known)
    state._metadata = modules
    for stale in (path, path.with_suffix(".json")):
        sweep_temporaries(stale)
    write_checkpoint(path, state)
    write_copy(path, known)


def write_fact(path: Path, name: str, fact: Any) -> None:
    """Add a fact to weights, which stay as they are; None takes it away.

    Args:
        path: of a file by `write_weights`.
        name: of the fact.
        fact: plain value.

    Raises:
        CheckpointError: as `read_weights`, the weights are of an earlier release, or the file
            cannot be written; the older one is intact.
    """
    state: Any
    state, facts = read_weights(path)
    if facts.get("earlier_form"):
        raise CheckpointError(
            f"{path} is of an earlier release, which takes no further facts; train anew"
        )
    others = {key: value for key, value in facts.items() if key != name}
    known = others if fact is None else {**others, **plain({name: fact}, f"The fact {name}")}
    state._metadata[""][KEY] = json.dumps(known)
    write_checkpoint(path, state)
    write_copy(path, known)


def write_copy(path: Path, facts: Mapping[str, Any]) -> None:
    """Write the facts of weights as JSON beside them, for readers."""
    replace_file(path.with_suffix(".json"), text_of(facts).encode())


def text_of(facts: Mapping[str, Any]) -> str:
    """What model.json beside weights holds."""
    return json.dumps(facts, indent=2, ensure_ascii=False) + "\n"


def is_copy(path: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a file of JSON holds the facts of weights."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == facts)
    except (OSError, ValueError):
        return False


def read_weights(path: str | Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read weights and their facts, and make sure that they belong together.

    Args:
        path: of a file by `write_weights`, or of the nested form of earlier releases, whose
            settings become facts.

    Returns:
        The state_dict, on the CPU, and the facts.

    Raises:
        CheckpointError: the file is missing or damaged, has no facts, or other weights than its
            facts describe; or it is of an earlier release and does not tell enough.
    """
    state: Any = read_checkpoint(path)
    if {"model", "variant", "schema", "settings"} <= state.keys():
        return _converted(path, state)
    try:
        facts = json.loads(state._metadata[""][KEY])
        described = facts["weights_sha256"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} holds weights without facts: no training of this package wrote it, or it was "
            "saved again since, so nobody can tell which network and metadata they are for. Use "
            "the file that the training left; weights of your own are saved with their facts by "
            "metaseg_monai.training.write_weights."
        ) from error
    if described != weights_sha256(state):
        raise CheckpointError(
            f"The weights in {path} are not the weights these facts describe: they were changed, "
            "converted or exchanged after the training. Put back the file that the training left; "
            "weights of your own are saved with their facts by "
            "metaseg_monai.training.write_weights."
        )
    return state, facts


def _with_defaults(fact: Any, only: Container[Any] | None = None) -> Any:
    """Return a component of a configuration, or a list of some, with the arguments left out.

    Without those of which its class says, by `without_effect`, that they do nothing. A component
    inside of one, such as the network that another one wraps, is told so, too.

    Args:
        fact: what is no component, or has no such class, stays as it is.
        only: names in `_target_` that may be imported; None for any.

    >>> _with_defaults({"_target_": "torch.nn.Dropout", "p": 0.1})
    {'_target_': 'torch.nn.Dropout', 'p': 0.1, 'inplace': False}
    >>> _with_defaults({"_target_": "SplitDimd", "keys": "image"})["dim"]  # found in MONAI
    0
    """
    if isinstance(fact, list):
        return [_with_defaults(one, only) for one in fact]
    name = fact.get("_target_") if isinstance(fact, dict) else None
    target: Any = target_of(name) if name and (only is None or name in only) else None
    try:
        arguments = inspect.signature(target).parameters
    except (TypeError, ValueError):  # not found, or a builtin
        return fact
    defaults = {
        argument: parameter.default
        for argument, parameter in arguments.items()
        if isinstance(parameter.default, (str, int, float, bool, tuple, list, type(None)))
    }
    given = {argument: _with_defaults(value, only) for argument, value in fact.items()}
    whole = {"_target_": name, **json.loads(json.dumps({**defaults, **given}, default=str))}
    idle = getattr(target, "without_effect", lambda arguments: ())(whole)
    return {argument: value for argument, value in whole.items() if argument not in idle}


LOCATOR = ComponentLocator()  # its list of MONAI's names takes half a second, once


def target_of(name: str) -> Any:
    """The class or function of a `_target_`: a dotted path, or a name alone of MONAI's own."""
    modules = None if "." in name else LOCATOR.get_component_module_name(name)
    return locate(f"{ensure_tuple(modules)[0]}.{name}" if modules else name)


def known_facts(
    network: nn.Module, schema: MetadataSchema | None, facts: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the facts with the schema and what the network itself tells."""
    given = plain(facts or {}, "The facts of weights")
    known = {key: _with_defaults(fact) for key, fact in given.items()}
    known["schema"] = None if schema is None else schema.to_dict()
    told = known.pop("unknown_trained", False)  # of the training; a network of ours knows better
    if doors := [module for module in network.modules() if isinstance(module, MetaInput)]:
        known["unknown_trained"] = any(door.unknown is not None for door in doors)
    else:
        reads = "meta" in inspect.signature(processes.bare_network(network).forward).parameters
        known["unknown_trained"] = bool(told and reads and schema and schema.knows_unknown)
    return known


def _train(bundle: Path) -> str:
    """The command that trains a bundle; one inside the package may be called by its name alone."""
    if files.INSTALLED in bundle.resolve().parents:
        return f"python -m metaseg_monai train {bundle.name}"
    return f"python -m monai.bundle run training --config_file {bundle}/configs/train.json"


def predicts_images(facts: Mapping[str, Any]) -> bool:
    """Whether the labels that weights were trained with are images, no masks.

    Args:
        facts: in the weights.
    """
    steps = facts.get("preprocessing") or []
    return any(isinstance(one, Mapping) and one.get("target") == "image" for one in steps)


def _shared(first: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The ranges of groups that two trainings scaled by; none where they differ in one."""
    if any(first[name] != other[name] for name in ("by", "percentiles")):
        return {}
    kept = {name: one for name, one in first["ranges"].items() if name in other["ranges"]}
    return kept if all(other["ranges"][name] == one for name, one in kept.items()) else {}


class LoadWeights:
    """Load weights into a network they were trained for, and into no other.

    Attach it to the evaluator of an evaluation or inference; it loads when that starts.

    Args:
        path: the file.
        network: also inside DistributedDataParallel.
        schema: of the metadata this network will be given; None where there is none.
        facts: as for `BestWeights`, of what runs now. Each must be as recorded, but for window,
            class names (see `class_names`) and intensity statistics.
        bundle_root: folder of the bundle, whose training command is told where weights are missing.
        preprocessing: of the images to come, whose `LoadCased` refuses from then on what has other
            values than the images of the training, whose `ScaleIntensityBy` with "trained"
            statistics get those of the training, and whose `EncodeMetadatad` tells of values that
            no image of the training had.
        force: go on with such images, telling it.
        members: files of further weights of this network, such as those of other folds and seeds;
            each must have been trained for the same as the first.
        ensemble: that averages them all.

    Attributes:
        recorded: the facts in the file, `weights_sha256` among them; empty before it is read. Of
            an ensemble it is that of all members, in any order, whose own are in `members`.

    Raises:
        ConfigError: there are members and nothing that averages them, or one comes twice.
    """

    def __init__(
        self,
        path: str | Path,
        network: nn.Module,
        schema: MetadataSchema | None = None,
        facts: Mapping[str, Any] | None = None,
        bundle_root: str | Path | None = None,
        preprocessing: Sequence[Any] = (),
        force: bool = False,
        members: Sequence[str | Path] = (),
        ensemble: EnsembleInferer | None = None,
    ) -> None:
        files = [Path(path).resolve(), *(Path(member).resolve() for member in members)]
        if members and (ensemble is None or len(set(files)) < len(files)):
            raise ConfigError(
                f"members: {len(members)} further weights, "
                + ("one of them twice" if ensemble else "and no ensemble that averages them")
                + "; name each once, in an application whose inferer is an EnsembleInferer"
            )
        self.ensemble = ensemble
        self.members = [
            LoadWeights(member, copy.deepcopy(processes.bare_network(network)), schema, facts)
            for member in members
        ]
        self.preprocessing = [one for one in preprocessing if isinstance(one, LoadCased)]
        self.encoders = [one for one in preprocessing if isinstance(one, EncodeMetadatad)]
        self.scalings = [one for one in scalings_of(preprocessing) if one.of_weights]
        self.force = force
        self.path = Path(path)
        self.network = network
        self.schema = schema
        self.facts = known_facts(network, schema, facts)
        self.recorded: dict[str, Any] = {}
        self.train = "Train them first"
        if bundle_root is not None:
            variant = f" --variant {self.facts['variant']}" if "variant" in self.facts else ""
            self.train += f": {_train(Path(bundle_root))}{variant} --output_dir {self.path.parent}"

    def attach(self, engine: Engine) -> None:
        """Attach to an evaluator, first of its handlers."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Load the weights when the engine starts; see `load`."""
        self.load()
        engine.logger.info(f"Weights are those of {self.path}.")

    def check(self) -> dict[str, Any]:
        """Refuse weights that are missing or of something else, before data are read or made.

        Returns:
            The state_dict.

        Raises:
            CheckpointError: The file is missing, damaged or no weights of ours (`read_weights`),
                or was trained for something else; each difference is said.
        """
        if not self.path.is_file():
            raise CheckpointError(f"There are no weights at {self.path}. {self.train}")
        state, self.recorded = read_weights(self.path)
        now = {key: fact for key, fact in self.facts.items() if key not in NOT_COMPARED}
        then = {key: self.recorded.get(key) for key in now}
        if self.recorded.get("earlier_form"):
            now = _as_told(now, self.recorded)
        else:  # of the classes that a file names, only those of this run are imported
            names = set(_targets(list(now.values())))
            then = retargeted(then, NAME, OWN)
            then = {key: _with_defaults(fact, names) for key, fact in then.items()}
        for known in (then, now):
            known["schema"] = self._fields(known["schema"])
        if lines := differences(then, now):
            raise CheckpointError(
                f"{self.path} was trained for something else: {'; '.join(lines)}. Use the "
                f"settings it was trained with{_without_unknown(then, now)}, or train anew into "
                "another folder"
            )
        return state

    def load(self) -> None:
        """Load the weights.

        Raises:
            CheckpointError: As `check`, or they are of another architecture.
        """
        state = self.check()
        try:
            processes.bare_network(self.network).load_state_dict(state)
        except (RuntimeError, CheckpointError) as error:
            raise CheckpointError(
                f"The weights in {self.path} do not fit this network: {error} Set the network's "
                "sizes to those it was trained with."
            ) from error
        told = self.path.with_suffix(".json")
        if told.is_file() and not is_copy(told, self.recorded):
            logger.warning(
                "%s is not the copy of the facts in %s, which alone count; nothing reads it",
                told,
                self.path,
            )
        self._refuse_mirrors()
        self._load_members()
        for scaling in self.scalings:
            if known := self._scaled(scaling.key):
                percentiles = (*known["percentiles"],)
                scaling.know(IntensityStatistics(**{**known, "percentiles": percentiles}))
        for encode in self.encoders:
            for one in (self, *self.members):
                for field in encode.schema.fields:
                    if never := one.recorded.get("untrained", {}).get(field.name):
                        encode.untrained.setdefault(field.name, set()).update(never)
        intensity = self.recorded.get("intensity")
        for load in self.preprocessing:
            load.expect(intensity, self.force)
            if intensity is None:
                logger.info(
                    "%s does not tell which values the images of its training had: whether those "
                    "to come fit is not known.",
                    self.path,
                )

    def _refuse_mirrors(self) -> None:
        """Refuse an average over mirrored images where a mirror changes what is asked for.

        Raises:
            ConfigError: classes or fields tell sides, so that nothing was trained on mirrored
                images; where it is forced, that is logged.
        """
        mirror = getattr(self.ensemble, "mirror", None)  # what draws gates has windows alone
        if not mirror:
            return
        names = [str(name) for name in (self.recorded.get("class_names") or {}).values()]
        sided = falsified_by(self.schema or MetadataSchema([]), names)["mirroring"]
        if not sided:
            return
        told = f"mirror={mirror}: a mirrored image makes {listing(sided)} wrong"
        if not self.force:
            raise ConfigError(
                f"{told}, so that training leaves mirrors out; leave it out, or --force True"
            )
        logger.warning("%s. Going on, as it is forced.", told)

    def _scaled(self, key: str) -> dict[str, Any] | None:
        """How the training scaled images or labels: of an ensemble, what all members know.

        Raises:
            CheckpointError: members scaled them otherwise, so that they mean other values.
        """
        every = [self, *self.members]
        first, *others = [one.recorded.get("scaling", {}).get(key) for one in every]
        for member, told in zip(self.members, others, strict=True):
            shared = {} if None in (first, told) else _shared(first, told)
            if shared != {} or first is told is None:
                first = {**first, "ranges": shared} if first else None
                continue
            raise CheckpointError(
                f"{member.path} scaled its {key}s otherwise than {self.path}, so that their "
                "answers mean other values; take models that were trained by one table"
            )
        return first

    def _load_members(self) -> None:
        """Load the further weights, and know all of them by one digest."""
        if not self.members or self.ensemble is None:
            return
        digests = [self.recorded["weights_sha256"]]
        for member in self.members:
            variant, own = read_weights(member.path)[1].get("variant"), self.recorded.get("variant")
            if variant != own:
                raise CheckpointError(
                    f"{member.path} is of the variant {variant}, and {self.path} of {own}; the "
                    "models of an ensemble are trainings of one network: leave one out"
                )
            member.load()
            member.network.eval()
            digests.append(member.recorded["weights_sha256"])
        self.ensemble.networks = [member.network for member in self.members]
        if len(set(digests)) < len(digests):
            raise CheckpointError(
                f"{self.path} and its members: two have the same weights; name each once"
            )
        together = ensemble_sha256(digests)
        chosen = [one.recorded.get("clean_up") or {} for one in (self, *self.members)]
        rules = [one.get("rules") for one in chosen]
        own = dict(self.recorded)
        own.pop("conformal", None)  # of each member alone
        if any(one != rules[0] for one in rules):
            own.pop("clean_up", None)
            told = "; ".join(
                f"{one.path.parent}: {json.dumps(of_one)}"
                for one, of_one in zip((self, *self.members), rules, strict=True)
            )
            logger.warning(
                "The models were given different clean-ups (%s), so the masks of their mean are "
                "not cleaned; say how by --clean_up",
                told,
            )
        self.recorded = {**own, "weights_sha256": together, "members": digests}

    def class_names(self, of_data: Mapping[int, str]) -> dict[int, str]:
        """The names of the classes: of the data at hand, else of those that were trained on.

        Weights of earlier releases list those of the bundle, whatever the data were: none.

        Args:
            of_data: names by number that the data tell; empty where they tell none.

        Raises:
            CheckpointError: Both are known, and a class has another name.
        """
        told = self.recorded.get("class_names")
        trained = {int(n): name for n, name in told.items()} if isinstance(told, dict) else {}
        for number, name in of_data.items():
            if trained.get(number, name) != name:
                raise CheckpointError(
                    f"Class {number} is {name} in the data, and was {trained[number]} in the "
                    f"training of {self.path} (class_names). Use weights of these classes, or give "
                    "--class_names as they were trained, if the data mean the same"
                )
        return dict(of_data) or trained

    @property
    def knows_all_trained(self) -> bool:
        """Whether their record, if any, has the images of all trainings, one upon the other."""
        own = not (self.recorded.get("trained_on") or {}).get("incomplete", False)
        return own and all(member.knows_all_trained for member in self.members)

    def trained_on(self) -> pd.DataFrame | None:
        """The images of their training, a row each, of the record beside them; None without one.

        Those of a training that began with other weights come behind those of these, those of the
        members of an ensemble behind all; without a record of one of them there is none.

        Raises:
            DataError: it is another training's, or damaged.
        """
        others = [member.trained_on() for member in self.members]
        known = read_trained_on(self.path, self.recorded)
        if known is None:
            return None
        tables = [known, *(other for other in others if other is not None)]
        if len(tables) <= len(others) or any(list(t) != list(known) for t in tables):
            return None
        return pd.concat(tables, ignore_index=True) if others else known

    def _fields(self, schema: Any) -> list[dict[str, Any]] | None:
        """Return what makes a recorded schema, without the words that only describe it."""
        try:
            if schema is None:  # values out of range are encoded alike, whatever is said of them
                return None
            return MetadataSchema.from_dict(schema).with_policy("error").settings
        except (ValueError, MetadataError) as error:
            raise CheckpointError(
                f"The metadata schema in {self.path} cannot be read ({error}); train anew."
            ) from error


def read_trained_on(weights: Path, facts: Mapping[str, Any]) -> pd.DataFrame | None:
    """The images that weights were trained on, a row each, of the record beside them.

    Args:
        weights: their file.
        facts: in it.

    Returns:
        None without a record.

    Raises:
        DataError: it is another training's, or damaged.
    """
    path, recorded = weights.with_name(TRAINED_ON), facts.get("trained_on")
    if not path.is_file():
        return None
    advice = "remove the file to go on without knowing what was trained on"
    if recorded and file_sha256(path) != recorded["sha256"]:
        raise DataError(
            f"{path}: not the record of the images that {weights} was trained on; put back the "
            f"file that this training wrote, or {advice}"
        )
    columns = TRAINED_COLUMNS
    try:
        known = pd.read_csv(path, dtype=str, keep_default_na=False).map(of_cell)
    except ValueError:  # of what is no text, or no table
        known = pd.DataFrame()
    if known.empty or list(known.columns) not in (columns, [OF_FILES, *columns[1:]]):
        raise DataError(
            f"{path}: damaged, expected the columns {', '.join(columns)}; train anew, or {advice}"
        )
    return known


def _without_unknown(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings for weights that know no unknown metadata, where this run does."""
    settings = []
    fields = [known["schema"] or [] for known in (then, now)]
    if [any(field["missing"] == "unknown" for field in one) for one in fields] == [False, True]:
        settings.append(
            "--schema_file FILE (their schema, such as the bundle's configs/schema_texts.json)"
        )
    if now["unknown_trained"] and not then["unknown_trained"]:
        settings.append("--metadata_dropout 0")
    return f", among them {' '.join(settings)}" if settings else ""


def retargeted(value: Any, name: str, other: str) -> Any:
    """Plain values in which each `_target_` of one package is that of another, of the same parts.

    >>> retargeted([{"_target_": "one.nets.Net", "why": "one.nets"}], "one", "two")
    [{'_target_': 'two.nets.Net', 'why': 'one.nets'}]
    """
    if isinstance(value, list):
        return [retargeted(inner, name, other) for inner in value]
    if not isinstance(value, dict) or name == other:
        return value
    renamed = {key: retargeted(inner, name, other) for key, inner in value.items()}
    target = renamed.get("_target_")
    if isinstance(target, str) and target.partition(".")[0] == name:
        renamed["_target_"] = f"{other}.{target.partition('.')[2]}"
    return renamed


def _targets(fact: Any) -> Iterator[str]:
    """Yield the names of the components that a fact is or holds."""
    if isinstance(fact, dict) and isinstance(fact.get("_target_"), str):
        yield fact["_target_"]
    if isinstance(fact, dict | list):
        for inner in fact.values() if isinstance(fact, dict) else fact:
            yield from _targets(inner)


def _steps(fact: Any) -> list[dict[str, Any]]:
    """Return the components that a fact is, or holds in a list."""
    return [one for one in (fact if isinstance(fact, list) else [fact]) if isinstance(one, dict)]


# Weights of earlier releases: {"model", "variant", "schema" (text), "settings", "value" ...}, in
# which the settings say how a Unet3 and at most three transforms were set.

SIZES = ("spatial_dims", "channels", "levels", "reduction")


def _converted(path: str | Path, stored: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return state and facts; at which places gates were is left to the names of the weights."""
    old, variant = stored["settings"], stored["variant"]

    def step(name: str, **arguments: str) -> dict[str, Any]:
        """A transform, its arguments by what the old settings called them."""
        values = {argument: old[setting] for argument, setting in arguments.items()}
        return {"_target_": f"metaseg_monai.transforms.{name}", **values}

    try:
        if old.get("intensity_by") or old.get("flat_field"):
            raise KeyError("intensity_by, flat_field")
        idle = without_effect(variant)
        sizes = {name: old["network"][name] for name in SIZES if name not in idle}
        steps = [
            step(
                "LoadCased",
                channels="channel_conversion",
                classes="classes",
                in_channels="in_channels",
            ),
            step("ResampleToSpacingd", spacing_mm="spacing_mm"),
            step("ScaleIntensityCased", intensity_range="intensity_range", clip="intensity_clip"),
        ]
        network = {"in_channels": old["in_channels"], "out_channels": old["classes"], **sizes}
        schema = None if stored["schema"] is None else json.loads(stored["schema"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is of an earlier release, and what it was trained for cannot be told from it "
            f"with certainty ({error}). Use it with the release that trained it, or train anew."
        ) from error
    return stored["model"], {
        "weights_sha256": weights_sha256(stored["model"]),
        "variant": variant,
        "network": {"_target_": "metaseg_monai.networks.Unet3", "variant": variant, **network},
        "preprocessing": [one for one in steps if one.get("spacing_mm", 0) is not None],
        "schema": schema,
        "unknown_trained": old.get("unknown", False),
        "best": {key: stored.get(key) for key in ("metric", "value", "epoch")},
        "earlier_form": True,
    }


def _as_told(now: dict[str, Any], then: Mapping[str, Any]) -> dict[str, Any]:
    """Return of the network and the preprocessing what weights of earlier releases could tell."""
    told = {step["_target_"]: step for step in (then["network"], *then["preprocessing"])}

    def kept(fact: Any) -> list[dict[str, Any]]:
        return [
            {key: value for key, value in step.items() if key in told.get(step["_target_"], step)}
            for step in _steps(fact)
            if not step["_target_"].endswith("EncodeMetadatad")
        ]

    known = dict(now)
    if "network" in now:
        (known["network"],) = kept(now["network"]) or [now["network"]]
    if "preprocessing" in now:
        known["preprocessing"] = kept(now["preprocessing"])
    return known
