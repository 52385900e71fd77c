"""A trained model that takes further metadata values, as a model folder of its own."""

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Literal, get_args

import torch
from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from metaseg_monai.bundle.overrides import SHORT, as_data, load_config, read_back
from metaseg_monai.bundle.run import configs_of, configuration_file, running
from metaseg_monai.bundle.trust import BORN, birth_of, was_trained_here
from metaseg_monai.errors import CheckpointError, ConfigError, MetadataError, listing
from metaseg_monai.files import absolute, file_sha256, new_folder
from metaseg_monai.metadata import Categorical, MetadataSchema, Ordinal
from metaseg_monai.networks.gates import ChannelGate
from metaseg_monai.networks.grow import GrownLinear
from metaseg_monai.networks.grow import grow as grow_network
from metaseg_monai.networks.mechanisms import Mechanism
from metaseg_monai.sharing.run import RECORDS, _known
from metaseg_monai.training import processes
from metaseg_monai.training.checkpoints import BestWeights
from metaseg_monai.training.weights import TRAINED_ON, LoadWeights, read_weights, write_weights

GROWN, SCHEMA = "grown.json", "grown_schema.json"
OF_RUN = ("output_dir", "resume", "schema_file", "network_def")  # no settings of a grown model
OF_DATA = ("dataset_dir", "table", "cases", "columns_file", "epochs", "seed")  # chosen anew
Tune = Literal["all", "gates", "new"]
SCORES = ("old_f1", "new_f1")
LOST = 0.02  # of the old domains' F1, from which a warning tells

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Grown:
    """A model that has grown.

    Attributes:
        folder: of the model, with model.pt, grown_schema.json and grown.json to train it by.
        entries: of the metadata that are new.
        bundle: that it belongs to.
    """

    folder: Path
    entries: tuple[str, ...]
    bundle: Path

    def __str__(self) -> str:
        return (
            f"grown by {listing(self.entries)}; {self.folder / 'model.pt'} gives what it gave for "
            "all other metadata. Train it on a table with images of the new value: python -m "
            f"metaseg_monai train {quote(str(self.bundle))} --configuration "
            f"{quote(str(self.folder / GROWN))} --dataset_dir TABLE --output_dir FOLDER"
        )


def grow(
    folder: str | Path,
    field: str,
    output: str | Path,
    value: str | None = None,
    values: Sequence[str] = (),
    old: str | None = None,
    trust: bool = False,
) -> Grown:
    """Let a trained model take a further metadata value, or a further field.

    Example:
        python -m metaseg_monai grow runs/sme --field cell_line --value U2OS --output runs/grown
        python -m metaseg_monai grow runs/sme --field stain --values none,DAPI --old none \
--output runs/stain

    The new entries enter the gates as a term of their own, so that masks of the values that the
    model knows stay what they were, to the bit. A new category begins as a mixture of the others, a
    new step of a scale as the highest one, a new field without any effect. The output is a model
    folder, for predict, evaluate and explain. Its grown.json trains it further, beginning with
    these weights: all of them, or with --start_from#tune gates those that read metadata, or with
    --start_from#tune new those of the new values alone, in which the old domains keep every bit.
    The log tells the score of the old domains and of the new ones.

    Args:
        folder: of the model.
        field: categorical or ordinal, of the model's schema or a new categorical one.
        output: folder for the grown model.
        value: that is new.
        values: several; of a new field all that it has.
        old: of a new field, the value of all images that the model was trained on.
        trust: as for train.

    Returns:
        The folder of the grown model.

    Raises:
        ConfigError: no model's folder, or its network reads metadata in a way that cannot grow.
        MetadataError: the field cannot take the value, or has it.
    """
    root, further, recorded = _known(folder, None, None)
    if not recorded:
        raise ConfigError(
            f"{folder} is no folder of a trained model ({' or '.join(RECORDS)}); grow a model"
        )
    given = [value] if value is not None else []
    given += values.split(",") if isinstance(values, str) else list(values)
    model, place = absolute(folder), absolute(output)
    names = configs_of("inference", more=further)
    known = load_config([configuration_file(root, name) for name in names], root).keys()
    settings = {
        name: one
        for name, one in recorded.items()
        if SHORT.get(name, name).partition("#")[0] in known
    }
    doing, weights_at = (
        "is growing the model in this folder",
        {"ckpt_path": str(model / "model.pt")},
    )
    with running(root, names, weights_at, doing, settings, trust, run=False) as workflow:
        weights = workflow.parser.get_parsed_content("weights")
        before = weights.schema
        after = grown_schema(before, field, given, old)
        weights.load()
        olds = {} if old is None else {field: old}
        network = grow_network(processes.bare_network(weights.network), before, after, olds)
        definition = _with_schema(weights.recorded["network"], before)
    tests = [configuration_file(root, name) for name in configs_of("evaluate", more=further)]
    shuffle = read_back(recorded.get("shuffle", load_config(tests, root).get("shuffle"))) or {}
    if foreign := shuffle.get(field):  # of each new value, too
        shuffle = {**shuffle, field: {**dict.fromkeys(given, next(iter(foreign))), **foreign}}
    entries = tuple(name for name in after.entry_names if name not in before.entry_names)
    content = {
        **_lasting(recorded, (*OF_RUN, *OF_DATA)),
        "schema_file": as_data(str(place / SCHEMA)),
        "network_def": {
            "_target_": "metaseg_monai.networks.grow",
            "network": definition,
            "before": _as_component(before),
            "after": "@schema",
            "old": as_data(olds),
        },
        "start_from": {
            "_target_": "metaseg_monai.sharing.grow.StartFrom",
            "path": as_data(str(place / "model.pt")),
            "network": "@network",
            "schema": "@schema",
            "facts": "$bundle.facts()",
            "tune": "all",
            "evaluator": "@validate#evaluator",
            "entries": as_data(list(entries)),
            "best": "@best",
        },
        "+train#handlers": ["@start_from"],
        "train#log#metrics": ["val_loss", "val_f1", "old_f1", "new_f1"],
        **({"shuffle": as_data(shuffle)} if foreign else {}),
    }
    settings = _lasting(settings, OF_RUN) | {"output_dir": recorded["output_dir"]}
    with new_folder(place) as part:
        after.save(part / SCHEMA)
        (part / GROWN).write_text(json.dumps(content, indent=4, ensure_ascii=False) + "\n", "utf-8")
        both = {"ckpt_path": str(part / "model.pt"), "schema_file": str(part / SCHEMA)}
        with running(
            root, [*names, str(part / GROWN)], both, doing, settings, trust, run=False
        ) as workflow:
            new = workflow.parser.get_parsed_content("weights")
            processes.bare_network(new.network).load_state_dict(network.state_dict())
            facts = {**weights.recorded, **new.facts}
            for name in ("clean_up", "conformal"):  # of the weights before
                facts.pop(name, None)
            facts |= {"grown": {"from": facts.pop("weights_sha256"), "entries": entries}}
            write_weights(part / "model.pt", new.network, facts)
        if (model / TRAINED_ON).is_file():
            shutil.copy2(model / TRAINED_ON, part / TRAINED_ON)
        own = [configuration_file(root, name) for name in configs_of(more=further)]
        record = {
            "bundle": str(root),
            "configuration": [*configs_of(more=further), str(place / GROWN)],
            "configuration_sha256": [
                file_sha256(one) if one.is_file() else None for one in (*own, part / GROWN)
            ],
            "settings": _lasting(recorded, OF_RUN),
            "weights_sha256": read_weights(part / "model.pt")[1]["weights_sha256"],
        }
        if was_trained_here(model):  # of another's record nothing becomes the user's own
            record[BORN] = birth_of(part / "model.pt")
        (part / RECORDS[0]).write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    return Grown(place, entries, root)


def grown_schema(
    before: MetadataSchema | None, name: str, values: Sequence[str], old: str | None
) -> MetadataSchema:
    """The schema with further values of a field, or with a further field.

    A further field may be unknown if all others may.

    Raises:
        MetadataError: the field cannot take the values, or has one, or `old` is missing or is too
            much.
    """
    if before is None:
        raise ConfigError("this model takes no metadata; train a variant that does")
    if not values:
        raise MetadataError(f"field {name!r}: no new value; name it (--value V, or --values A,B)")
    if name not in before.names:
        if old not in values or len(values) < 2:
            raise MetadataError(
                f"{name!r} is no field of the model ({listing(before.names)}); for a new one give "
                "all its values, and which of them the images have that the model was trained on: "
                "--values A,B --old A"
            )
        new = Categorical(
            name=name,
            values=tuple(values),
            provenance="acquisition",
            availability="acquisition",
            missing="unknown" if before.knows_unknown else "error",
        )
        return MetadataSchema([*before.fields, new])
    field = before.field(name)
    if not isinstance(field, Categorical | Ordinal):
        raise MetadataError(
            f"field {name!r} is {field.kind}, which has no values to add to; of such fields the "
            "range is in the schema: train anew with a wider one"
        )
    if old is not None:
        raise MetadataError(f"field {name!r} is known to the model; --old is for a new field")
    if there := [value for value in values if value in field.values]:
        raise MetadataError(
            f"field {name!r} has {listing(there)} already ({listing(field.values)}); name new ones"
        )
    settings = {**field.model_dump(), "values": (*field.values, *values)}
    return MetadataSchema(
        [type(field)(**settings) if one.name == name else one for one in before.fields]
    )


def _lasting(settings: dict[str, Any], without: Sequence[str]) -> dict[str, Any]:
    """Recorded settings but for some, and what is set within them."""
    roots = {name: SHORT.get(name, name).lstrip("+").partition("#")[0] for name in settings}
    return {name: one for name, one in settings.items() if roots[name] not in without}


def _as_component(schema: MetadataSchema) -> dict[str, Any]:
    fields = [{k: as_data(v) for k, v in one.items()} for one in schema.to_dict()["fields"]]
    return {"_target_": "metaseg_monai.metadata.MetadataSchema", "fields": fields}


def _with_schema(definition: Any, schema: MetadataSchema) -> Any:
    """A network's definition with a schema in the place of the bundle's."""
    if isinstance(definition, dict):
        return {name: _with_schema(one, schema) for name, one in definition.items()}
    if isinstance(definition, list):
        return [_with_schema(one, schema) for one in definition]
    return _as_component(schema) if definition == "@schema" else definition


# How it is trained further: beginning with its weights, of which some are held.


class StartFrom:
    """Trainer handler: begin with weights that there are, and watch what becomes of old domains.

    A resumed run goes on with its own. After every validation the F1 of all foreground pixels is
    among the evaluator's metrics, as ``old_f1`` for images without any new value and as ``new_f1``
    for the others, NaN where there are none; it is told where that of the old ones falls.

    Args:
        path: of the weights (`LoadWeights`).
        network: of the trainer; not inside DistributedDataParallel unless all is tuned.
        schema: as of `LoadWeights`.
        facts: as of `LoadWeights`.
        tune: what is trained. "all"; "gates", all that reads metadata, in which old domains may
            change; or "new", the weights of new metadata values (`metaseg_monai.networks.grow`)
            alone, in which no output of an old domain changes. Where not all is trained, batch
            normalisations keep the statistics they have.
        evaluator: of the validation; None watches nothing.
        entries: of the schema's, those that are new.
        best: what the trainer keeps, whose record of images takes over that of these weights.

    Raises:
        ConfigError: `tune` is none of these, or an entry is not in the schema.
    """

    def __init__(
        self,
        path: str | Path,
        network: nn.Module,
        schema: MetadataSchema | None = None,
        facts: Mapping[str, Any] | None = None,
        tune: Tune = "all",
        evaluator: Engine | None = None,
        entries: Sequence[str] = (),
        best: BestWeights | None = None,
    ) -> None:
        if tune not in get_args(Tune):
            raise ConfigError(f"tune must be all, gates or new, got {tune!r}; correct it")
        self.weights = LoadWeights(path, network, schema, facts)
        if best is not None:
            best.begun_with = self.weights
        self.network, self.tune, self.evaluator = network, tune, evaluator
        known = () if schema is None else schema.entry_names
        if strange := [name for name in entries if name not in known]:
            raise ConfigError(f"entries: the schema has no {', '.join(strange)}; correct them")
        self.entries = [known.index(name) for name in entries]
        self.counts = {name: torch.zeros(3, dtype=torch.long) for name in SCORES}
        self.first = math.nan

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer, behind `RunCheckpoint`."""
        engine.add_event_handler(Events.STARTED, self)
        if self.evaluator is not None:
            self.evaluator.add_event_handler(Events.STARTED, self._begin)
            self.evaluator.add_event_handler(Events.ITERATION_COMPLETED, self._count)
            self.evaluator.add_event_handler(Events.COMPLETED, self._tell)

    def __call__(self, engine: Engine) -> None:
        """Load the weights, unless a run is resumed, and hold what is not to be trained.

        Raises:
            CheckpointError: as `LoadWeights.load`.
            ConfigError: the network has nothing of what is to be trained.
        """
        if engine.state.iteration == 0:
            if not self.weights.path.is_file():
                raise CheckpointError(
                    f"There are no weights to begin with at {self.weights.path}. Train them first, "
                    "and name their file, as --pretrained_file runs/pretrained/model.pt"
                )
            self.weights.load()
        hold(processes.bare_network(self.network), self.tune)
        if self.evaluator is not None and engine.state.iteration == 0:
            self.first = self._score_now()["old_f1"]
            logger.info("Before training, old domains have an F1 of %.3f.", self.first)

    def _score_now(self) -> dict[str, float]:
        """The scores of the validation's images by the network as it is."""
        evaluator: Any = self.evaluator
        self._begin(evaluator)
        self.network.eval()
        for batch in evaluator.data_loader:
            given = evaluator.prepare_batch(batch, evaluator.state.device)
            image, label, args, kwargs = given if len(given) == 4 else (*given, (), {})
            with torch.no_grad():
                pred = evaluator.inferer(image, evaluator.network, *args, **kwargs)
            self._add(batch, pred, label)
        return self.scores()

    def _begin(self, engine: Engine) -> None:
        self.counts = {name: torch.zeros(3, dtype=torch.long) for name in SCORES}

    def _count(self, engine: Engine) -> None:
        output: Any = engine.state.output
        self._add(engine.state.batch, output["pred"], output["label"])

    def _add(self, batch: Any, pred: Any, label: Any) -> None:
        if not isinstance(pred, Tensor) or not isinstance(label, Tensor):
            return  # several outputs: no one score
        found, true = pred.argmax(1).cpu(), label[:, 0].cpu()
        meta = batch.get("meta")
        new = torch.zeros(len(found), dtype=torch.bool)
        if isinstance(meta, Tensor) and self.entries:
            new = (
                (meta.reshape(len(meta), -1, meta.shape[-1])[..., self.entries] != 0).any(2).any(1)
            )
        for name, chosen in zip(SCORES, (~new, new), strict=True):
            p, t = found[chosen], true[chosen]
            self.counts[name] += torch.stack(
                [((p == t) & (t > 0)).sum(), ((p > 0) & (p != t)).sum(), ((t > 0) & (p != t)).sum()]
            )

    def _tell(self, engine: Engine) -> None:
        found = self.scores()
        engine.state.metrics |= found
        if self.first - found["old_f1"] > LOST:
            logger.warning(
                "The F1 of old domains is %.3f and was %.3f at the start: they are being forgotten."
                " Train with images of theirs among the others, or the new weights alone (tune "
                "new)",
                found["old_f1"],
                self.first,
            )

    def scores(self) -> dict[str, float]:
        """F1 of the images counted, by "old_f1" and "new_f1"; NaN where nothing was to be found."""
        found = {}
        for name, (tp, fp, fn) in ((name, each.tolist()) for name, each in self.counts.items()):
            found[name] = 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else math.nan
        return found


def hold(network: nn.Module, tune: Tune) -> None:
    """Hold all weights of a network but those that are to be trained, and its normalisations.

    Raises:
        ConfigError: it has none that are to be trained.
    """
    if tune == "all":
        return
    if tune == "gates":
        trained: list[nn.Module] = [
            one
            for one in network.modules()
            if isinstance(one, ChannelGate | Mechanism) and one.meta_features
        ]
    else:
        trained = [one.new for one in network.modules() if isinstance(one, GrownLinear)]
    if not trained:
        raise ConfigError(
            f"tune {tune}: this {type(network).__name__} has no such weights; train all of it"
        )
    network.requires_grad_(False)
    for module in trained:
        module.requires_grad_(True)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.register_forward_pre_hook(_as_in_use)


def _as_in_use(module: nn.Module, inputs: Any) -> None:
    """Keep a normalisation's statistics, whatever mode the trainer puts the network in."""
    module.training = False
