"""nnU-Net v2 steered by metadata: its networks with gates, the metadata of its cases, its masks.

nnU-Net is installed by its user, in an environment of its own with this package (docs/nnunet.md);
its trainer and predictor are in `metaseg_monai.sharing.nnunet_trainer`, the folder to name in
``nnUNet_extTrainer``.

    python -m metaseg_monai.sharing.nnunet folder
    python -m metaseg_monai.sharing.nnunet predict --model M --source S --output O --table T
"""

import logging
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from metaseg_monai.errors import (
    ConfigError,
    DataError,
    MetadataError,
    did_you_mean,
    listing,
    root_refusal,
)
from metaseg_monai.files import file_sha256, new_folder, read_json, write_json
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.networks import condition
from metaseg_monai.networks.condition import Running
from metaseg_monai.networks.meta_input import MetaInput
from metaseg_monai.networks.variants import base_variant, reads_metadata
from metaseg_monai.rows import read_lines
from metaseg_monai.transforms.augmentation import falsified_by
from metaseg_monai.transforms.metadata import DropMetadatad

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger(__name__)

FACTS = "metaseg"  # in nnU-Net's plans, which plans.json and every checkpoint hold
CASE = "case_id"  # the column of nnU-Net's names of cases
TABLE, SCHEMA = "METASEG_TABLE", "METASEG_SCHEMA"
VARIANT, AT, DROPOUT = "METASEG_VARIANT", "METASEG_AT", "METASEG_DROPOUT"
SCALED, MIRRORED = "METASEG_SCALED", "METASEG_MIRRORED"
EPOCHS, ITERATIONS, SEED = "METASEG_EPOCHS", "METASEG_ITERATIONS", "METASEG_SEED"
SPENT = "spent.json"  # beside a checkpoint: how long the training was, and its CPU time
RECORD = "metadata.json"  # beside predicted masks: which weights and which metadata made them
EXTERNAL = "nnUNet_extTrainer"  # nnU-Net's variable: folders of other trainers
TRAINER_FOLDER = Path(__file__).with_name("nnunet_trainer")
PREDICT = "python -m metaseg_monai.sharing.nnunet predict"
SAME_FOLDS = (
    "the folds of one model are to be trained alike, and plans.json is that of the last training: "
    "train this fold anew, or name by --folds those trained as plans.json says"
)


# Whose metadata a network is given next.


class Told:
    """The metadata of the images that a network is given next; there is nothing left behind them.

    A plain object beside the network, no buffer of it: with a buffer every process of a training
    on several GPUs would take the first one's metadata.
    """

    def __init__(self) -> None:
        self.meta: Tensor | None = None
        self.one_case = False

    @contextmanager
    def images(self, meta: Tensor) -> "Iterator[None]":
        """While a batch is run: meta (B, M), a row for each of its images."""
        self.meta, self.one_case = meta, False
        try:
            yield
        finally:
            self.forget()

    def case(self, meta: Tensor) -> None:
        """From now on, until `forget` or another case: meta (M,) of all windows of one case."""
        self.meta, self.one_case = meta[None], True

    def forget(self) -> None:
        """What follows has no metadata until they are told."""
        self.meta = None

    def of(self, image: Tensor) -> Tensor:
        """Return meta (B, M) for images (B, C, *S), on their device.

        Raises:
            MetadataError: nothing was told.
        """
        meta = self.meta
        if meta is None:
            raise MetadataError(
                "this network is steered by metadata, and nobody told those of the image that it "
                f"is given: nnUNetv2_predict does not know them. Predict with {PREDICT} ..."
            )
        meta = meta.to(image.device)
        return meta.expand(image.shape[0], -1) if self.one_case else meta


# nnU-Net's network with gates.


class Steered(nn.Module):
    """What `steer` adds to the class of a network: metadata that were told reach the gates."""

    told: Told
    metaseg_gates: nn.ModuleDict
    _running: Running
    _places: tuple[str, ...]
    _meta_input: MetaInput

    def forward(self, image: Tensor) -> Any:
        """Return what the network gives for images (B, C, *S), steered.

        Raises:
            MetadataError: no metadata were told.
            ValueError: those told are of another number of images, or of another width.
        """
        meta = self._meta_input(
            self.told.of(image) if self._meta_input.meta_features else None, image
        )
        before = self._running.begin(meta)
        try:
            output = super().forward(image)
            self._running.check(self._places)
        finally:
            self._running.end(before)
        return output


def steer(network: nn.Module, facts: Mapping[str, Any], image_shape: Sequence[int]) -> nn.Module:
    """Make a network steered by the metadata that its `told` tells; it is changed in place.

    Its own weights keep their names, those of the gates are ``metaseg_gates.*``; at the start it
    gives what it gave, bit for bit.

    Args:
        network: any that `metaseg_monai.networks.condition` takes, such as nnU-Net's.
        facts: of `facts_of`.
        image_shape: (C, *S) of a small image that it takes, to try the places with.

    Raises:
        ConfigError: see `condition`.
    """
    schema = MetadataSchema.from_dict(facts["schema"])
    steered = condition(network, schema, facts["variant"], facts["at"], image_shape=image_shape)
    network.add_module("metaseg_gates", steered.gates)
    # objects that are no modules of the network's, so that its weights keep their names
    network.__dict__.update(
        told=Told(),
        _running=steered.running,
        _places=steered.places,
        _meta_input=steered.meta_input,
    )
    kind: Any = type(network)
    network.__class__ = _steered(kind)
    return network


@cache
def _steered(kind: Any) -> Any:
    return type(f"Steered{kind.__name__}", (Steered, kind), {"__module__": __name__})


def bare(network: nn.Module) -> nn.Module:
    """The network within what torch.compile and DistributedDataParallel have wrapped around it."""
    while True:
        inner = network.__dict__.get("_modules", {})
        for name in ("module", "_orig_mod"):
            if name in inner and not isinstance(network, Steered):
                network = inner[name]
                break
        else:
            return network


def told_of(network: nn.Module) -> Told:
    """The holder of a steered network, however it is wrapped.

    Raises:
        ConfigError: it is not steered.
    """
    inner = bare(network)
    if not isinstance(inner, Steered):
        raise ConfigError(
            f"{type(inner).__name__} is not steered by metadata: train it with "
            "-tr nnUNetTrainerMetadata"
        )
    return inner.told


# What a training is told by the environment, and what its weights then know of it.


class CaseMetadata:
    """The metadata of nnU-Net's cases, encoded.

    Args:
        schema: of the metadata.
        raw: values by field, by case.
        file: where they are from, for messages.
        variant: of the network; a dummy is given zeros.
        unknown_trained: whether cases without metadata may be taken as unknown.

    Raises:
        MetadataError: values that the schema refuses; all of them in one message.
    """

    def __init__(
        self,
        schema: MetadataSchema,
        raw: Mapping[str, Mapping[str, Any]],
        file: str | Path = "",
        variant: str = "sme",
        unknown_trained: bool = False,
    ) -> None:
        self.schema, self.raw, self.file = schema, raw, file
        self.dummy = variant != base_variant(variant)
        self.unknown_trained = unknown_trained and schema.knows_unknown
        self._codes: dict[str, Tensor] = {}
        problems = []
        for case, values in raw.items():
            try:
                self._codes[case] = torch.from_numpy(schema.encode(values, case))
            except MetadataError as error:
                problems.append(str(error))
                continue
            needed = [one.name for one in schema.fields if one.needs_unknown(values.get(one.name))]
            if needed and not unknown_trained:
                problems.append(
                    f"{case}: no value of {listing(needed)}, and this network never saw unknown "
                    f"ones in training ({DROPOUT} 0)"
                )
        if problems:
            raise MetadataError(
                f"{file}: " + "\n".join(problems) + "\ncorrect these cells of the table"
            )

    def knows(self, case: str) -> bool:
        """Whether there is a row for a case."""
        return case in self._codes

    def meta(self, case: str) -> Tensor:
        """Return meta (M,), float32, of a case; that for unknown where it has no row.

        Raises:
            MetadataError: it has none, and unknown metadata are not what the network learned.
        """
        if self.dummy:
            return torch.zeros(self.schema.width)
        if case in self._codes:
            return self._codes[case]
        if not self.unknown_trained:
            raise MetadataError(self._lacking([case]))
        return torch.from_numpy(self.schema.unknown())

    def batch(self, cases: Iterable[str]) -> Tensor:
        """Return meta (B, M) of the cases of a batch."""
        return torch.stack([self.meta(case) for case in cases])

    def check(self, cases: Sequence[str]) -> list[str]:
        """Return those of the cases that are taken as unknown.

        Raises:
            MetadataError: there are some, and the network does not learn what unknown is.
        """
        lacking = [case for case in cases if not self.knows(case)]
        if lacking and not self.unknown_trained and not self.dummy:
            raise MetadataError(self._lacking(lacking))
        return lacking

    def _lacking(self, cases: Sequence[str]) -> str:
        fields = [one.name for one in self.schema.fields if one.missing != "unknown"]
        why = (
            f"the schema knows no unknown {listing(fields)}"
            if fields
            else f"this network never saw unknown metadata in training ({DROPOUT} 0)"
        )
        return (
            f"{listing(cases)}: no row in {self.file}, and {why}; give each case a row, or train "
            'with a schema whose fields have missing="unknown"'
        )


def read_case_metadata(
    path: str | Path,
    schema: MetadataSchema,
    variant: str = "sme",
    unknown_trained: bool = False,
) -> CaseMetadata:
    """Read a table with the column ``case_id`` and one for each field; further ones are left.

    Args:
        path: CSV.
        schema: of the metadata.
        variant: see `CaseMetadata`.
        unknown_trained: see `CaseMetadata`.

    Raises:
        DataError: the file is no such table, or has a case twice.
        MetadataError: see `CaseMetadata`.
    """
    header, lines, broken = read_lines(path)
    for name in (CASE, *schema.names):
        if name not in header:
            raise DataError(
                f"{path}: no column {name!r}, it has {listing(header)}; "
                f"{did_you_mean(name, header, told=True)} {CASE} is nnU-Net's name of a case"
            )
    problems, raw = list(broken), dict[str, dict[str, str]]()
    for number, cells in lines:
        case = cells[CASE].strip()
        if not case or case in raw:
            problems.append(f"row {number}: {case!r} as {CASE}; give each case one row")
        raw[case] = {name: cells[name] for name in schema.names}
    if problems:
        raise DataError(f"{path}: " + "\n".join(problems))
    return CaseMetadata(schema, raw, path, variant, unknown_trained)


def facts_of(environment: Mapping[str, str]) -> dict[str, Any]:
    """What a training is to do with metadata, as plain values that its checkpoints keep.

    Args:
        environment: variables. METASEG_SCHEMA, and METASEG_TABLE, of which the digest is kept;
            METASEG_VARIANT (sme) and METASEG_AT (encoder, decoder, all, or names of modules with
            commas) as of `condition`; METASEG_DROPOUT (0.1): how often training takes each field,
            and all together, as unknown, of those that may be; METASEG_SCALED and
            METASEG_MIRRORED: names of the fields that scaling and mirroring an image make wrong,
            with commas, or none; by default those that `falsified_by` tells.

    Raises:
        ConfigError: one is missing or wrong; names it.
    """
    for name, what in ((SCHEMA, "metadata schema (JSON)"), (TABLE, "table (CSV) of the cases")):
        if not environment.get(name):
            raise ConfigError(f"{name} is not set: export {name}=FILE, the {what}")
        if not Path(environment[name]).is_file():
            raise ConfigError(f"{name}={environment[name]}: no such file; name the {what}")
    schema = MetadataSchema.load(environment[SCHEMA])
    variant = environment.get(VARIANT, "sme")
    if not reads_metadata(variant):
        raise ConfigError(
            f"{VARIANT}={variant}: reads no metadata; take another, or train nnUNetTrainer"
        )
    at = environment.get(AT, "encoder")
    wrong = falsified_by(schema)
    may_be_unknown = any(field.missing == "unknown" for field in schema.fields)
    dropout = 0.1 if may_be_unknown else 0.0
    if given := environment.get(DROPOUT):
        try:
            dropout = float(given)
        except ValueError as error:
            raise ConfigError(f"{DROPOUT}={given}: expected a number from 0 to 1") from error
        if not 0 <= dropout < 1:
            raise ConfigError(f"{DROPOUT}={given}: expected a number from 0 to 1")
        if dropout and not may_be_unknown:
            raise ConfigError(f'{DROPOUT}={given}: no field of the schema has missing="unknown"')
    return {
        "schema": schema.to_dict(),
        "variant": variant,
        "at": at if "," not in at and "." not in at else at.split(","),
        "dropout": dropout,
        "scaled": _named(schema, environment.get(SCALED), wrong["scaling"]),
        "mirrored": _named(schema, environment.get(MIRRORED), wrong["mirroring"]),
        "table_sha256": file_sha256(environment[TABLE]),
    }


def _named(schema: MetadataSchema, given: str | None, default: list[str]) -> list[str]:
    if given is None:
        return default
    names = [name.strip() for name in given.split(",") if name.strip() not in ("", "none")]
    return [schema.field(name).name for name in names]


def training_metadata(facts: Mapping[str, Any], environment: Mapping[str, str]) -> CaseMetadata:
    """The metadata of a training's cases, by its facts and METASEG_TABLE."""
    schema = MetadataSchema.from_dict(facts["schema"])
    return read_case_metadata(environment[TABLE], schema, facts["variant"], facts["dropout"] > 0)


class Length(NamedTuple):
    """How long nnU-Net trains; its own are 1000 epochs of 250 steps and 50 of validation.

    Attributes:
        epochs: of the training, over which the learning rate falls.
        iterations: steps of an epoch.
        val_iterations: batches that are validated after each epoch.
        seed: of weights, batches and augmentation; None draws anew each time.
    """

    epochs: int = 1000
    iterations: int = 250
    val_iterations: int = 50
    seed: int | None = None


def length_of(environment: Mapping[str, str]) -> Length:
    """How long a training is to be, by METASEG_EPOCHS, METASEG_ITERATIONS and METASEG_SEED.

    As many batches are validated as nnU-Net does: a fifth of the steps.

    Raises:
        ConfigError: one is no whole number, or below its least; names it.

    >>> length_of({"METASEG_EPOCHS": "20", "METASEG_ITERATIONS": "12"})
    Length(epochs=20, iterations=12, val_iterations=2, seed=None)
    """

    def number(name: str, least: int) -> int | None:
        given = environment.get(name, "").strip()
        if not given:
            return None
        if not (given.isascii() and given.isdecimal() and int(given) >= least):
            raise ConfigError(f"{name}={given}: expected a whole number from {least}")
        return int(given)

    plain = Length()
    iterations = number(ITERATIONS, 1) or plain.iterations
    return Length(
        number(EPOCHS, 1) or plain.epochs, iterations, max(1, iterations // 5), number(SEED, 0)
    )


class HiddenMetadata:
    """The metadata of training batches, of which some are hidden as of `DropMetadatad`.

    Args:
        metadata: of all cases.
        facts: of `facts_of`.
        seed: another one for each process.
    """

    def __init__(self, metadata: CaseMetadata, facts: Mapping[str, Any], seed: int) -> None:
        self.metadata = metadata
        self.drop = DropMetadatad(metadata.schema, facts["dropout"], facts["variant"])
        self.drop.set_random_state(seed)

    def batch(self, cases: Iterable[str]) -> Tensor:
        """Return meta (B, M) of the cases of a batch."""
        given: list[dict[Any, Any]]
        given = [{"case": case, "meta": self.metadata.meta(case)} for case in cases]
        return torch.stack([self.drop(one)["meta"] for one in given])


AS_THEN = (
    f"set {SCHEMA}, {VARIANT}, {AT}, {DROPOUT} and {MIRRORED} as they were then, or begin a new "
    "training"
)


def check_same_facts(
    own: Mapping[str, Any], other: Mapping[str, Any] | None, file: str | Path, then: str = AS_THEN
) -> None:
    """Refuse weights whose metadata mean something else than those of this training.

    Schema, variant and places are to be the same, and whether unknown metadata were learned and
    images were mirrored.

    Args:
        own: facts of this training.
        other: those of the weights.
        file: of the weights, for the message.
        then: what to do about it.

    Raises:
        ConfigError: naming what differs.
    """

    def meaning(facts: Mapping[str, Any]) -> dict[str, Any]:
        return {
            **{name: facts.get(name) for name in ("schema", "variant", "at")},
            "share of hidden metadata (0 or not)": (facts.get("dropout") or 0) > 0,
            "mirroring": bool(facts.get("mirrored")),
        }

    known, wanted = meaning(other or {}), meaning(own)
    if differ := [name for name, value in wanted.items() if known[name] != value]:
        raise ConfigError(
            f"{file}: was trained with another {' and '.join(differ)} of metadata; {then}"
        )


def check_other_folds(own: Mapping[str, Any], home: str | Path, fold: int | str) -> None:
    """Refuse a training beside folds whose metadata mean something else.

    Together they are one model: nnU-Net keeps one plans.json for all, that of the last training.

    Args:
        own: facts of this training.
        home: folder of the configuration, with plans.json and fold_*, if there is one yet.
        fold: of this training, whose own folder may be overwritten.

    Raises:
        ConfigError: naming what differs.
    """
    plans = Path(home) / "plans.json"
    if plans.is_file() and any(one.name != f"fold_{fold}" for one in plans.parent.glob("fold_*")):
        check_same_facts(
            own,
            read_json(plans).get(FACTS),
            plans.parent,
            "train all folds alike, or take plans of another name (-p), or remove the other folds",
        )


# Predictions.


def folder() -> str:
    """Tell the folder to name in nnUNet_extTrainer."""
    return str(TRAINER_FOLDER)


def predict(
    model: str | Path,
    source: str | Path,
    output: str | Path,
    table: str | Path,
    folds: Any = None,
    checkpoint: str = "checkpoint_final.pth",
    device: str = "cuda",
    mirror: bool = True,
    step: float = 0.5,
    save_probabilities: bool = False,
    processes: int = 2,
    out_of_range: str | None = None,
    force: bool = False,
) -> str:
    """Predict images in nnU-Net's form with the metadata of each.

    Example:
        python -m metaseg_monai.sharing.nnunet predict --source imagesTs --output masks \
--model nnUNet_results/Dataset501_A/nnUNetTrainerMetadata__nnUNetPlans__2d --table metadata.csv

    Args:
        model: folder of a trained configuration, with plans.json and fold_*.
        source: folder of images, ``CASE_0000.ending`` and so on for each channel.
        output: folder of the masks, new or empty; it is there when all are.
        table: CSV with the column case_id and the fields; cases without a row are taken as unknown,
            if the network has learned that.
        folds: which to average, as 0,1,2; all that are there by default.
        checkpoint: name of the file of weights in each fold's folder.
        device: cuda, cpu or mps.
        mirror: average over mirrored images where training mirrored.
        step: of the window, in windows.
        save_probabilities: write ``.npz`` beside the masks.
        processes: that read, and as many that write.
        out_of_range: error or flag, in the place of the schema's policies.
        force: predict also with metadata that are known only after the operation.

    Raises:
        ConfigError: the folder holds no such model, its folds were trained with different
            metadata, or nnU-Net cannot be used; or weights changed while they predicted.
        DataError: there are no images, or the table is none.
        MetadataError: metadata that the schema refuses, or a case without, where that was not
            trained; or a field is known too late. Nothing is predicted then.
    """
    if out_of_range not in (None, "error", "flag"):
        raise ConfigError(f"--out_of_range {out_of_range}: expected error or flag")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: PyTorch finds no GPU here; give --device cpu")
    home = Path(model)
    facts = _facts_of_model(home)
    used = _folds(home, folds, checkpoint)
    files = {str(fold): home / f"fold_{fold}" / checkpoint for fold in used}
    for file in files.values():
        check_same_facts(facts, _facts_of_weights(file), file, SAME_FOLDS)
    trained = MetadataSchema.from_dict(facts["schema"])
    trained.check_availability(force=force)
    schema = trained if out_of_range is None else trained.with_policy(out_of_range)  # type: ignore[arg-type]
    metadata = read_case_metadata(table, schema, facts["variant"], facts["dropout"] > 0)
    cases = cases_in(source, read_json(home / "dataset.json")["file_ending"])
    unknown = metadata.check(cases)
    if unknown:
        logger.warning("taken as unknown, without a row in %s: %s", table, listing(unknown))
    predictor_of = _predictor()
    digests = {fold: file_sha256(file) for fold, file in files.items()}
    record = {
        "checkpoints_sha256": digests,
        "table_sha256": file_sha256(table),
        "schema_sha256": trained.digest,
        "variant": facts["variant"],
        "settings": {
            **{"checkpoint": checkpoint, "mirror": mirror, "step": step},
            **{"out_of_range": out_of_range, "nnunetv2": version("nnunetv2")},
        },
        "unknown": unknown,
        "cases": cases,
    }
    with new_folder(output) as part:
        predictor = predictor_of(
            tile_step_size=step,
            use_mirroring=mirror,
            device=torch.device(device),
            allow_tqdm=sys.stderr.isatty(),
        )
        predictor.initialize_from_trained_model_folder(str(home), used, checkpoint)
        predictor.metadata = metadata
        predictor.predict_from_files(
            str(source),
            str(part),
            save_probabilities=save_probabilities,
            num_processes_preprocessing=processes,
            num_processes_segmentation_export=processes,
        )
        if changed := [
            str(files[fold]) for fold in files if file_sha256(files[fold]) != digests[fold]
        ]:
            raise ConfigError(
                f"{listing(changed)}: changed while it predicted, so that nobody knows which "
                "weights made the masks; wait for the training to end"
            )
        write_json(part / RECORD, record)
    return f"{len(cases)} masks: {output}"


def cases_in(source: str | Path, ending: str) -> list[str]:
    """Names of the cases of a folder in nnU-Net's form.

    Raises:
        DataError: there are none.
    """
    found = sorted(
        {
            path.name[: -len(ending) - 5]
            for path in Path(source).glob(f"*{ending}")
            if re.fullmatch(r".+_\d{4}", path.name[: -len(ending)])
        }
    )
    if not found:
        raise DataError(f"{source}: no images CASE_0000{ending}; name a folder of such")
    return found


def _facts_of_model(home: Path) -> dict[str, Any]:
    try:
        facts = read_json(home / "plans.json").get(FACTS)
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"{home}: no trained model of nnU-Net ({error}); name the folder that holds plans.json "
            "and fold_0"
        ) from error
    if not isinstance(facts, dict):
        raise ConfigError(
            f"{home}: was trained without metadata; predict it with nnUNetv2_predict, or train "
            "with -tr nnUNetTrainerMetadata"
        )
    return facts


def _facts_of_weights(file: Path) -> dict[str, Any] | None:
    """What a checkpoint of nnU-Net knows of metadata; read as nnU-Net itself reads it."""
    try:
        held = torch.load(file, map_location="cpu", weights_only=False, mmap=True)
        found: dict[str, Any] | None = held["init_args"]["plans"].get(FACTS)
    except Exception as error:
        raise ConfigError(
            f"{file}: cannot be read as weights of nnU-Net ({error}); train this fold anew, or "
            "name others by --folds"
        ) from error
    return found


def _folds(home: Path, folds: Any, checkpoint: str) -> tuple[int | str, ...]:
    given = folds.split(",") if isinstance(folds, str) else folds
    if given is not None:
        given = given if isinstance(given, list | tuple) else [given]
        texts = [str(one).strip() for one in given]
        if wrong := [one for one in texts if one != "all" and not one.isdecimal()]:
            raise ConfigError(f"--folds {wrong[0]}: expected numbers, as 0,1,2, or all")
        used = tuple("all" if one == "all" else int(one) for one in texts)
    else:
        there = (path.parent.name for path in home.glob(f"fold_*/{checkpoint}"))
        used = tuple(sorted(int(name[5:]) for name in there if name[5:].isdigit()))
    names = [f"fold_{fold}" for fold in used]
    lacking = [name for name in names if not (home / name / checkpoint).is_file()]
    if not used and (home / "fold_all" / checkpoint).is_file():
        raise ConfigError(
            f"{home}: no {checkpoint} of any fold but fold_all, which was trained on all cases; "
            "give --folds all"
        )
    if lacking or not used:
        raise ConfigError(
            f"{home}: no {checkpoint} in {listing(lacking or ['fold_*'])}; train it, or name "
            "others by --folds and --checkpoint"
        )
    return used


def _predictor() -> Any:
    """The class, once nnU-Net's own search will find our trainer."""
    known = os.environ.get(EXTERNAL, "").split(os.pathsep)
    if str(TRAINER_FOLDER) not in known:
        os.environ[EXTERNAL] = os.pathsep.join([*filter(None, known), folder()])
    try:
        from metaseg_monai.sharing.nnunet_trainer.metadata_trainer import MetadataPredictor
    except ImportError as error:
        raise ConfigError(
            f"nnU-Net cannot be used ({error}): pip install nnunetv2, in an environment of its own"
        ) from error
    try:
        import torchvision  # noqa: F401  (nnU-Net's search for a trainer imports it)
    except (ImportError, RuntimeError) as error:
        raise ConfigError(
            f"torchvision cannot be used ({error}), without which nnU-Net finds no trainer of "
            "others: install the one of the same build as torch (docs/nnunet.md)"
        ) from error
    return MetadataPredictor


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a refusal is one line and exit status 2 (contract 26)."""
    import fire

    try:
        fire.Fire({"folder": folder, "predict": predict}, command=arguments, name="metaseg-nnunet")
    except Exception as error:
        refusal = root_refusal(error)
        if refusal is None:
            raise
        sys.stderr.write(f"error: {refusal}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
