"""Which images a network was trained on, and of which values: no test on them, none on others."""

import copy
import hashlib
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines import IterationEvents, Trainer
from monai.transforms import Compose
from torch import nn
from tqdm import tqdm

from metaseg_monai.errors import CheckpointError, ConfigError, DataError, listing
from metaseg_monai.images.identity import file_digests
from metaseg_monai.inferers import each_tensor
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.metadata.fields import Categorical
from metaseg_monai.naming import likened
from metaseg_monai.rows import frame_csv
from metaseg_monai.tables.check import image_files
from metaseg_monai.tables.licenses import UNNAMED
from metaseg_monai.training import processes
from metaseg_monai.training.checkpoints import BestWeights
from metaseg_monai.training.loader import ReplayDataset
from metaseg_monai.training.weights import (
    OF_FILES,
    TRAINED_COLUMNS,
    TRAINED_ON,
    LoadWeights,
    of_files,
    read_weights,
    replace_file,
    weights_sha256,
)
from metaseg_monai.transforms.load import LoadCased, intensity_of, tally_intensity
from metaseg_monai.transforms.preprocessing import scalings_of

SHOWN = 5
MOST_READ = 256  # images read for their values where the training does not keep what it reads

logger = logging.getLogger(__name__)


class RecordTrained:
    """Write down beside the weights which images a training sees.

    Attach it to the trainer, behind `RunCheckpoint`, which may refuse to go on, and moves an
    earlier run aside. When the first epoch begins it writes `trained_on.csv`, a row an image: the
    digest of its pixels (see `image_digest`; none of an image without contrast), its split (train,
    or val, which chose the weights), group and case. Where the training begins with other weights
    (`BestWeights.begun_with`) the images of theirs come first, and if those are not known, the
    weights' facts say that the record is incomplete.
    The weights' facts hold the file's own SHA-256, and `intensity`: the values of the training's
    images as `LoadCased` gives them, see `metaseg_monai.transforms.load.intensity_of`. A dataset
    that keeps what it reads reads every image now instead of in the first epoch; of another one
    256 are read.

    Args:
        weights: that this training will keep.
        items: the cases of these splits.
        dataset: of the training; without, nothing is known of the values of its images.
    """

    def __init__(
        self, weights: BestWeights, items: Iterable[Mapping[str, Any]], dataset: Any = None
    ) -> None:
        self.weights = weights
        self.items = items
        self.dataset = dataset
        self._content: bytes | None = None

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.STARTED, self)
        engine.add_event_handler(Events.EPOCH_STARTED, self.write)
        if isinstance(engine, Trainer):
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self.check_outputs)

    def check_outputs(self, engine: Any) -> None:
        """Refuse a network that has not one output for each class, before a step is taken.

        Raises:
            ConfigError: it has more, or fewer.
        """
        engine.remove_event_handler(self.check_outputs, IterationEvents.FORWARD_COMPLETED)
        load = next((one for one in _steps_of(self.dataset) if isinstance(one, LoadCased)), None)
        output = engine.state.output
        answer = next(iter(each_tensor(output["pred"])))
        stacked = answer.dim() > output["image"].dim()  # of several depths (deep supervision)
        outputs = answer.shape[2 if stacked else 1]
        heads = getattr(processes.bare_network(engine.network), "tasks", ("one",))  # side by side
        if load is None or load.target == "image":  # of as many channels as the loss asks for
            return
        if outputs not in (load.classes, load.classes * len(heads)):
            raise ConfigError(
                f"The network has {outputs} outputs, and classes is {load.classes} with the "
                "background; set classes, or the network's out_channels, to one number"
            )

    def __call__(self, engine: Engine) -> None:
        """Take up which images there are, and their values.

        Raises:
            DataError: An image cannot be read, or images differ in channels; or the record of the
                weights that it begins with is not theirs; or a head has no image to learn from.
        """
        network = processes.bare_network(self.weights.network)
        if self.weights.begun_with is None and not engine.state.iteration:
            self.weights.begun_with = self._loaded(network)
        schema = self.weights.schema if getattr(network, "meta_features", 0) else None
        begun = self.weights.begun_with
        never = _never_trained(schema, self.items)
        if begun is not None:  # with which others may have been trained before
            begun.check()  # reads what they record
            known = begun.recorded.get("untrained", {})
            never = {
                name: [one for one in of if one in known.get(name, ())]
                for name, of in never.items()
            }
        if said := [f"{name}={one}" for name, of in never.items() for one in of]:
            values = listing(said)
            if hasattr(network, "tasks"):
                raise DataError(
                    f"No training image has {values}, so that a head would never learn: "
                    "give cases of it the split train, or leave the value out of the schema"
                )
            logger.warning(
                "no training image has %s: asked for it, the network answers untrained; give cases "
                "of it the split train, or leave the value out of the schema",
                values,
            )
            self.weights.facts["untrained"] = {name: of for name, of in never.items() if of}
        before = self.weights.facts.get("intensity")  # of an earlier round: all is read by now
        if intensity := before or measured(self.dataset):
            self.weights.facts["intensity"] = intensity
        scaled = scalings_of(_steps_of(self.dataset))
        told = {} if begun is None else begun.recorded.get("scaling", {})
        earlier = {key: of_key["ranges"] for key, of_key in told.items()}
        learned = {one.key: one.learned(self.items, earlier.get(one.key, ())) for one in scaled}
        if ranges := {key: asdict(known) for key, known in learned.items() if known}:
            self.weights.facts["scaling"] = ranges
        if processes.rank() != 0:
            return
        of_image = {image_files(item): item for item in self.items}
        rows = [
            [digest, *(item[name] for name in TRAINED_COLUMNS[1:])]
            for digest, item in zip(file_digests(list(of_image)), of_image.values(), strict=True)
        ]
        seen, whole = pd.DataFrame(rows, columns=TRAINED_COLUMNS), True
        if self.weights.begun_with is not None:
            seen, whole = _behind_earlier(seen, self.weights.begun_with)
            unsaid = [{"data": UNNAMED, "license": None}]
            told = [self.weights.begun_with.recorded.get("data"), self.weights.facts.get("data")]
            both = [one for said in told for one in said or unsaid]
            self.weights.facts["data"] = [x for n, x in enumerate(both) if x not in both[:n]]
        self._content = frame_csv(seen).encode()
        digest = hashlib.sha256(self._content).hexdigest()
        known = {"file": TRAINED_ON, "sha256": digest, "images": len(seen)}
        self.weights.facts["trained_on"] = known if whole else {**known, "incomplete": True}

    def _loaded(self, network: nn.Module) -> LoadWeights | None:
        """The weights in the folder, if somebody has loaded them (MONAI Label's "pretrained")."""
        path = self.weights.path
        try:
            told = read_weights(path)[1]["weights_sha256"]
        except CheckpointError:
            return None  # none, not ours, or damaged: this training takes their place
        if told != weights_sha256(network.state_dict()):
            return None
        logger.warning("the training begins with the weights in %s", path)
        return LoadWeights(path, network, self.weights.schema)

    def write(self, engine: Engine) -> None:
        """Write the file, once a run.

        Raises:
            CheckpointError: It cannot be written.
        """
        if self._content is not None:
            replace_file(self.weights.path.with_name(TRAINED_ON), self._content)
            self._content = None


def _never_trained(
    schema: MetadataSchema | None, items: Iterable[Mapping[str, Any]]
) -> dict[str, list[str]]:
    """The values of categorical fields that no case of the split train has, by field."""
    never: dict[str, list[str]] = {}
    for field in schema.fields if schema is not None else ():
        if isinstance(field, Categorical):
            given = [item["metadata"].get(field.name) for item in items if item["split"] == "train"]
            codes = [field.encode(raw) for raw in given if not field.is_missing(raw)]
            learned = np.any(codes, axis=0) if codes else np.zeros(field.width)
            of_field = [
                value
                for value, is_learned in zip(field.values, learned, strict=False)
                if not is_learned
            ]
            never |= {field.name: of_field} if of_field else {}
    return never


def _behind_earlier(seen: pd.DataFrame, weights: LoadWeights) -> tuple[pd.DataFrame, bool]:
    """The images of an earlier training, then those of this one; and whether all are known."""
    weights.check()
    earlier = weights.trained_on()
    if earlier is None:
        logger.warning(
            "%s: missing, so nobody will know whether test cases were trained on before",
            weights.path.with_name(TRAINED_ON),
        )
        return seen, False
    by_pixels = list(earlier.columns) == TRAINED_COLUMNS
    if not by_pixels:  # of an earlier version: names and groups are kept
        earlier = earlier.assign(**{TRAINED_COLUMNS[0]: ""})[TRAINED_COLUMNS]
    both = pd.concat([earlier, seen.astype(str)], ignore_index=True).drop_duplicates()
    return both, by_pixels and weights.knows_all_trained


def measured(dataset: Any) -> dict[str, Any] | None:
    """The values of the images of a training, each process reading its share.

    Returns:
        As `intensity_of`; where the preprocessing takes an image's own values as its scale, with
        `indifferent`. None where no `LoadCased` reads the dataset's items.

    Raises:
        DataError: an image cannot be read, or images differ in channels.
    """
    steps = _steps_of(dataset)
    load = next((step for step in steps if isinstance(step, LoadCased)), None)
    data: Sequence[Any] = getattr(dataset, "data", ())
    if load is None or not len(data):
        return None
    kept = isinstance(dataset, ReplayDataset) and dataset.cache
    chosen = np.arange(len(data))
    if not kept and len(data) > MOST_READ:
        chosen = np.linspace(0, len(data) - 1, MOST_READ).astype(int)
    own: list[tuple[np.ndarray, str]] = []
    load.watch = lambda image, stored: own.append((tally_intensity(image, len(chosen)), stored))
    try:
        part = chosen[processes.rank() :: processes.world_size()]
        for index in tqdm(part, desc="read", unit="image", disable=None, leave=False):
            if kept:
                dataset.load(int(index))
            else:
                load(copy.deepcopy(data[index]))
    finally:
        load.watch = None
    found = own
    if (world := processes.world_size()) > 1:
        parts: list[list[tuple[np.ndarray, str]]] = [[] for _ in range(world)]
        dist.all_gather_object(parts, own)
        found = [parts[place % world][place // world] for place in range(len(chosen))]
    images, stored = zip(*found, strict=True)
    if len({len(one) for one in images}) > 1:
        raise DataError(
            "the training's images differ in their number of channels; set channels of LoadCased "
            "to grey or rgb"
        )
    scaled = steps[steps.index(load) :]
    known = intensity_of(images, stored)
    return {**known, "indifferent": True} if _indifferent(scaled, data[0]) else known


def _steps_of(dataset: Any) -> list[Any]:
    return list(_steps(getattr(dataset, "transform", None)))


def _steps(transform: Any) -> Iterable[Any]:
    """The transforms of a chain, one after the other."""
    if isinstance(transform, Compose):
        for step in transform.transforms:
            yield from _steps(step)
    elif transform is not None:
        yield transform


def _indifferent(steps: Sequence[Any], item: Mapping[str, Any]) -> bool:
    """Whether a chain gives the same for an image of which every value is doubled, and more."""
    if any(getattr(step, "own_scale", False) for step in steps):  # by values that were told before
        return True
    loaded = steps[0](copy.deepcopy(dict(item)))
    given = [loaded, {**loaded, "image": loaded["image"] * 2 + 5}]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one, other = (
                np.asarray(Compose(list(steps[1:]))(copy.deepcopy(each))["image"]) for each in given
            )
    except Exception:  # a scale that refuses such values is not indifferent to them
        return False
    return one.shape == other.shape and np.allclose(one, other, rtol=0, atol=1e-3 * np.ptp(one))


class RefuseTrained:
    """Refuse to test a network on images that it was trained on, or chosen by.

    Images are the same where their pixels are, whatever file holds them; of a record that an
    earlier version wrote, where the files are the same byte for byte, which the log says.

    Attach it to the evaluator, behind `LoadWeights`. Cases of the splits train and val are let
    through: who tests on them means it. Another image of a group that has been trained on is told
    in the log: names of groups, such as 1, 2, 3, may coincide between data sets.

    Args:
        weights: that are tested. Where `trained_on.csv` is missing beside them, as with weights
            from elsewhere, the log says that nothing is known.
        items: the cases to be tested.
    """

    def __init__(self, weights: LoadWeights, items: Iterable[Mapping[str, Any]]) -> None:
        self.weights = weights
        self.path = weights.path.with_name(TRAINED_ON)
        self.items = items

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Compare the images.

        Raises:
            DataError: Some were trained on, or the file is damaged or of other weights.
        """
        meant = ("train", "val")
        tested = {image_files(i): i for i in self.items if i.get("split") not in meant}
        if not tested:
            return
        known = self.weights.trained_on()
        if known is None:
            logger.warning(
                "%s: missing, so nobody knows whether the test cases were trained on", self.path
            )
            return
        by = known.columns[0]
        then = known[known[by] != ""].drop_duplicates(by, keep="last").set_index(by)
        # what cannot be read is not tested either, which `ListProblems` tells
        digests = (
            [of_files(image) for image in tested]
            if by == OF_FILES
            else file_digests([*tested], strict=False)
        )
        twice = [
            f"{item['case']} (was {then.split[digest]} case {then.case[digest]})"
            for digest, item in zip(digests, tested.values(), strict=True)
            if digest in then.index
        ]
        if twice:
            raise DataError(
                f"{len(twice)} of {len(tested)} test images were in the training of these "
                f"weights ({self.path}): {listing(twice, SHOWN, str)}. The table was probably "
                "split anew since; test with the table of the training, or train anew"
            )
        if not self.weights.knows_all_trained:
            logger.warning(
                "%s: knows the images of the last training alone, for the weights that it began "
                "with do not tell theirs; test on images that were in neither",
                self.path,
            )
        if by == OF_FILES:
            logger.warning(
                "%s: was written by an earlier version and knows files, not pixels: a copy of a "
                "training image in another file is not found; train anew to compare pixels",
                self.path,
            )
        near = set(map(likened, known.group))
        groups = sorted(
            {item["group"] for item in tested.values() if likened(item["group"]) in near}
        )
        if groups:
            logger.warning(
                "%d groups of the test cases have the name of one that was trained on (%s): if it "
                "is the same patient or well, these are no unseen cases",
                len(groups),
                listing(groups, SHOWN, str),
            )
