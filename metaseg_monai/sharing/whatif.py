"""What becomes of a model's masks when their metadata are changed: one page, which needs no server.

The page holds, for each case, its picture, its true outline where the table has one, and the mask
for every value of every field, one field at a time. Its data, each part a script element that is
no script:

- ``model``: `weights_sha256`, what the model is, `classes`, `fields` with their `options` (`text`,
  `at` on a scale of numbers, `beyond`: why not to rely on it), steps of `guidance`, `gates`.
- ``case-<n>``: `pictures` of its `planes`, what is `given`, and `states`, which for each field (and
  guidance) list the place of each option's mask; 0 is the mask as given. `masks` is base64 of a
  zlib stream: the masks by state and plane, then the true classes by plane. Each begins with a
  byte, 1 where it is the change from the mask of the state before (their exclusive or), else 0;
  then come runs over its pixels, row by row, each an LEB128 number: length x base + class, where
  base is the power of two that holds the classes. `areas` are counts of pixels by state, plane
  and class, `volumes` of voxels by state and class. `intervals`, where there are any, have
  [low, high] by state, plane and class, in pixels.
"""

import base64
import hashlib
import io
import json
import math
import re
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from monai.transforms import Compose
from PIL import Image as Picture
from torch import Tensor
from tqdm import tqdm

from metaseg_monai.bundle.overrides import SHORT, load_config
from metaseg_monai.bundle.run import configs_of, configuration_file, running
from metaseg_monai.errors import ConfigError, DataError, MetasegError, Problem, typed
from metaseg_monai.evaluation.clean_up import CleanUpPredictions
from metaseg_monai.evaluation.samples import to_unit
from metaseg_monai.explain import few_cases, gates_of, record_gates
from metaseg_monai.files import absolute, new_folder, replacing
from metaseg_monai.images import slice_items
from metaseg_monai.images.geometry import Axis, axial_volume, resize_image
from metaseg_monai.images.image import Image
from metaseg_monai.images.lazy import LARGE_PIXELS
from metaseg_monai.images.read import read_header, volume_header, volumes_of
from metaseg_monai.inferers.steered import STRONGEST, SteeredInferer
from metaseg_monai.metadata.fields import (
    UNKNOWN,
    AnyField,
    Categorical,
    Continuous,
    MetadataWarning,
    MultiLabel,
    Ordinal,
    read_number,
)
from metaseg_monai.naming import likened
from metaseg_monai.rows import write_problems
from metaseg_monai.sharing.run import _known, _models
from metaseg_monai.tables.table import OF_LABELS, scan_table, sift, tell
from metaseg_monai.training.collate import collate_cases, problem_of
from metaseg_monai.training.handlers import refuse_non_finite
from metaseg_monai.training.processes import bare_network
from metaseg_monai.training.weights import LoadWeights

STEPS, BEYOND = 31, 3  # values of a quantity; of them beyond each end of its range
GUIDANCE_STEPS = 9
MOST_SIDE = 1024  # pixels of a picture's longer side; of larger ones every n-th is shown
MOST_CHANNELS = 64  # shown of a gate
QUALITY = 90  # of WebP
TEMPLATES = Path(__file__).with_name("templates")
SPACE = "README.md"


@dataclass(frozen=True)
class WhatIf:
    """A page.

    Attributes:
        html: its file.
        cases: the names of those it shows.
        masks: how many it holds.
        problems: of the cases that were left out, all in ``problems.csv`` beside the page.
    """

    html: Path
    cases: Sequence[str]
    masks: int
    problems: Sequence[Problem] = ()

    @property
    def folder(self) -> Path:
        """That the page lies in."""
        return self.html.parent

    def __str__(self) -> str:
        size = self.html.stat().st_size / 1e6
        return f"page: {self.html} ({len(self.cases)} cases, {self.masks} masks, {size:.1f} MB)"


@typed
def whatif(
    folder: str | Path | Sequence[str | Path],
    table: str | Path,
    output: str | Path | None = None,
    cases: int = 20,
    planes: int = 12,
    space: str | Path | None = None,
    *,
    trust: bool = False,
    **settings: Any,
) -> WhatIf:
    """Write a page on which one changes the metadata of cases and sees the masks change.

    It is one file that opens from the disk, without a server or network. It holds the pictures of
    its cases and their names: give it only to whom you may give these.

    Example:
        python -m metaseg_monai whatif runs/me --table data/table.csv --output page.html
        python -m metaseg_monai whatif runs/me --table data/table.csv --space runs/space

    Args:
        folder: of the model; several, as runs/fold0,runs/fold1, predict together.
        table: of the cases, with their metadata as given, or the folder that holds it; of its
            split test where it has one, else of all.
        output: file of the page, such as page.html.
        cases: how many to show, of every value of the first named field by turns.
        planes: most shown of a volume, those around the largest foreground.
        space: new folder for the page as index.html, with the README of a static Space of Hugging
            Face: what is in it can be uploaded as it is.
        trust: as for train.
        settings: any setting of configs/inference.json, such as --device cpu.

    Returns:
        The page's file, and which cases it shows.

    Raises:
        ConfigError: no model's folder, the network reads no metadata, or neither output nor space
            is given.
        DataError: the table cannot be used, or none of its cases.
        MetadataError: a field is known only after an operation, unless --force True.
    """
    if (output is None) == (space is None):
        raise ConfigError(
            "give --output page.html for the page, or --space DIR for a folder with it that can be "
            "uploaded as a static Space; one of the two"
        )
    if min(cases, planes) < 1:
        raise ConfigError(f"--cases {cases} --planes {planes}: give whole numbers from 1")
    place = absolute(output if output is not None else space or "")
    if output is not None and (place.suffix.lower() not in (".html", ".htm") or place.is_dir()):
        raise ConfigError(f"--output {output}: give the page a name that ends in .html")
    first, *members = _models(folder)
    if members:
        settings["members"] = [str(absolute(one) / "model.pt") for one in members]
    root, further, recorded = _known(first, None, None)
    if not recorded:
        raise ConfigError(f"{first} is no folder of a trained model; give one that train left")
    names = configs_of("inference", more=further)
    known = load_config([configuration_file(root, name) for name in names], root).keys()
    recorded = {k: v for k, v in recorded.items() if SHORT.get(k, k).partition("#")[0] in known}
    own = {"ckpt_path": absolute(first) / "model.pt", "dataset_dir": str(absolute(table))}
    given = {**own, **settings, "output_dir": str(place)}
    doing = "is writing this page"
    with running(root, names, given, doing, recorded, trust, run=False) as workflow:
        model = _Model(workflow.parser.get_parsed_content)
        made = _Maker(model, table, cases, planes)
        text = made.page(place.stem if output is not None else place.name, Path(table).name)
    if output is not None:
        with replacing(place) as part:
            part.write_text(text, "utf-8", newline="\n")
        write_problems(place.parent, made.problems)
    else:
        with new_folder(place) as part:
            (part / "index.html").write_text(text, "utf-8", newline="\n")
            readme = _rendered(SPACE, title=place.name, **made.told)
            (part / SPACE).write_text(readme, "utf-8", newline="\n")
            write_problems(part, made.problems)
        place = place / "index.html"
    return WhatIf(place, [one.name for one in made.shown], made.masks, made.problems)


# What is asked: the values that each field is set to.


class Option(NamedTuple):
    """A value that a field is set to.

    Attributes:
        text: as it is shown.
        raw: the value, as a table has it.
        at: its place on the field's scale; None of what is no number.
        beyond: why a mask for it is not to be relied on; "" otherwise.
    """

    text: str
    raw: Any
    at: float | None = None
    beyond: str = ""


class Trained(NamedTuple):
    """What is known of the values of a training.

    Attributes:
        cases: rows of the table that were trained on.
        values: what these have in a field, as texts, with how many cases have it.
    """

    cases: int
    values: Counter[str]

    def ends(self, quantity: Continuous) -> tuple[float, float]:
        """Lowest and highest value; those of the schema where no training case is known."""
        ends = [quantity.ends(text) or (read_number(text),) * 2 for text in self.values]
        numbers = [float(one) for pair in ends for one in pair if one is not None]
        return (min(numbers), max(numbers)) if numbers else quantity.range

    def doubt(self, known: AnyField, raw: Any) -> str:
        """Why a value is none of those that were trained; "" where it is, or nobody knows."""
        if known.is_missing(raw):
            return ""
        if isinstance(known, Continuous):
            low, high = self.ends(known)
            found = known.ends(raw) or (read_number(raw),) * 2
            if all(one is None or low <= one <= high for one in found):
                return ""
            whose = f"the table's {self.cases} training rows" if self.values else "the schema"
            return (
                f"{known.name} {raw} {known.unit} is beyond what the network was trained on: "
                f"{low:g} to {high:g} {known.unit} ({whose})"
            )
        if self.values and isinstance(raw, str) and raw in getattr(known, "values", ()):
            if any(raw in re.split("[;|:]", text) or raw == text for text in self.values):
                return ""
            return f"no training case has {known.name} {raw}"
        return ""


def options_of(known: AnyField, trained: Trained, unknown: bool) -> list[Option]:
    """The values that a field is set to: a sweep, each of its names, and unknown.

    Args:
        known: the field; of a vector nothing but unknown is asked.
        trained: values that the network was trained on.
        unknown: whether the network knows the field as unknown.

    >>> size = Continuous(name="size", unit="mm", range=(5, 250), scale="log",
    ...                   provenance="acquisition", availability="acquisition")
    >>> found = options_of(size, Trained(0, Counter()), unknown=False)
    >>> len(found), found[0].text, found[3].text, found[-4].text, bool(found[0].beyond)
    (31, '3.07', '5', '250', True)
    """
    values: list[tuple[Any, float | None]] = []
    if isinstance(known, Continuous):
        values = [(f"{number:.10g}", number) for number in sweep(known)]
    elif isinstance(known, Categorical | Ordinal | MultiLabel):
        values = [(name, None) for name in known.values]
    found = [Option(str(raw), raw, at, trained.doubt(known, raw)) for raw, at in values]
    return [*found, Option(UNKNOWN, UNKNOWN)] if unknown else found


def sweep(known: Continuous) -> list[float]:
    """`STEPS` values of a quantity, even on its own scale, over its range and a little beyond.

    None is below 0 where the range begins at 0 or above. They are rounded to a tenth of a step,
    and what is rounded is what the network is told.

    >>> size = Continuous(name="size", unit="mm", range=(0, 100),
    ...                   provenance="acquisition", availability="acquisition")
    >>> sweep(size)[:3], sweep(size)[-4:]
    ([0.0, 3.7, 7.4], [100.0, 103.7, 107.4, 111.1])
    """
    log = known.scale != "linear"
    low, high = (math.log(end) if log else end for end in known.range)
    below = BEYOND
    if not log and low >= 0 and low < BEYOND * (high - low) / (STEPS - 1 - 2 * BEYOND):
        below = 0
    step = (high - low) / (STEPS - 1 - BEYOND - below)
    values = []
    for number in range(-below, STEPS - below):
        place = low + number * step
        value, width = (math.exp(place), math.exp(place) * step) if log else (place, step)
        values.append(round(value, 1 - math.floor(math.log10(width))))
    values[below], values[-1 - BEYOND] = map(float, known.range)
    return values


# What answers: the model, as a prediction runs it.


class _Model:
    """A model of which masks are asked, with the parts of a bundle's prediction.

    Args:
        parts: of the prediction, by id.
    """

    def __init__(self, parts: Callable[[str], Any]) -> None:
        encode, self.schema = parts("encode"), parts("schema")
        network = bare_network(parts("network"))
        if not encode.reads or encode.dummy or not getattr(network, "meta_features", 1):
            raise ConfigError(
                f"the variant {parts('variant')!r} reads no metadata, so that nothing can be asked "
                "of it; give a model of one that does, such as sme"
            )
        self.schema.check_availability(force=parts("force"))
        self.weights: LoadWeights = parts("weights")
        self.weights.load()
        self.network, self.device = parts("network").eval(), parts("device")
        self.inferer = parts("inferer")
        self.load, *self.rest = parts("preprocessing")
        self.postprocessing = Compose(parts("postprocessing"))
        settings = parts("displayable_configs")
        limit = settings["threshold"]
        self.cleaning = CleanUpPredictions(parts("clean_up"), limit, self.weights)
        self.cleaning.take_up()
        self.default, self.unknown = encode.default or {}, encode.unknown_trained
        self.columns = parts("columns_file")
        self.axis: Axis = getattr(self.load, "axis", "axial")
        self.spatial_dims = parts("window_inferer").spatial_dims
        self.classes = int(parts("classes"))
        self.variant = str(parts("variant"))
        steered = self.inferer
        while not isinstance(steered, SteeredInferer | None):
            steered = getattr(steered, "inferer", None)
        door = None if steered is None else steered.door
        self.steered = steered if door is not None and door.unknown is not None else None
        self.guidance = 1.0
        if self.steered is not None and self.steered.guidance is not None:
            self.guidance = float(self.steered.guidance)
        try:
            self.gates = list(gates_of(network))
        except ConfigError:  # of a mechanism that has none
            self.gates = []
        self.watched = network

    def read(self, item: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """An item as it is loaded, and as the network gets it.

        Raises:
            DataError: it cannot be read, or is too large for a page.
        """
        loaded = self.load(dict(item))
        pixels = math.prod(loaded["image"].shape[1:3])
        if pixels > LARGE_PIXELS:
            raise DataError(
                f"case {item['case']!r}: {pixels} pixels, and the page shows images of up to "
                f"{LARGE_PIXELS}; crop the image"
            )
        sample = {key: value for key, value in loaded.items() if key not in OF_LABELS}
        for step in self.rest:
            sample = step(sample)
        return loaded, sample

    def mask(
        self, sample: Mapping[str, Any], meta: Tensor, guidance: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The mask (*S) of a sample, and the scales (C,) of every gate; none under guidance.

        Args:
            sample: of `read`.
            meta: (M,), or (2, M) for both ends of a range.
            guidance: of `SteeredInferer`, for a model that has it.
        """
        batch = collate_cases([{**sample, "meta": meta}])
        images, rows = batch["image"].to(self.device), batch["meta"].to(self.device)
        plain = self.steered is None or guidance == 1
        watch = record_gates(self.watched) if self.gates and plain else nullcontext()
        before = None if self.steered is None else self.steered.guidance
        try:
            if self.steered is not None:
                self.steered.guidance = None if guidance == 1 else guidance
            with torch.no_grad(), watch as record:
                logits = self.inferer(images, self.network, meta=rows)
        finally:
            if self.steered is not None:
                self.steered.guidance = before
        refuse_non_finite(logits, images, _State(batch))
        told = {key: values[0] for key, values in batch.items() if values is not None}
        told["pred"] = self.cleaning.clean(logits)[0]
        mask = np.asarray(self.postprocessing(told)["pred"][0]).astype(np.uint8)
        calls = {} if record is None else record.scale
        return mask, {gate: torch.cat(one).mean(0).numpy() for gate, one in calls.items()}


class _State(NamedTuple):
    """What `refuse_non_finite` names a case by."""

    batch: Mapping[str, Any]
    epoch: int = 0


def _some(channels: int) -> np.ndarray:
    """The places of the channels that are shown of a gate."""
    return np.unique(np.linspace(0, channels - 1, min(channels, MOST_CHANNELS)).round().astype(int))


# What is shown: cases with their pictures, masks and areas.


@dataclass
class _Shown:
    """A case on the page, or the planes of a volume.

    Attributes:
        name: of the case or volume.
        raw: its metadata, as given.
        trained: the split of the training that it was in; None for an image that was in none.
        numbers: of its planes in their volume, which has `of`.
        spacing_mm: of planes, rows and columns; None where it is unknown.
        pictures: (D, H, W) or (D, H, W, 3), 0..255, of every `step`-th row and column.
        truth: true classes (D, H, W); None where the table has none.
        masks: (S, D, H, W), as given first.
        places: of each field, and of guidance, the place of every option's mask.
        areas: pixels (S, D, K - 1) of the whole planes; with the true ones (D, K - 1).
        volumes: voxels (S, K - 1) of the whole volume, where all of it was predicted.
        gates: scales (C,) of every gate, of every mask.
        notes: what is to be known of the masks.
    """

    name: str
    raw: dict[str, Any]
    trained: str | None
    numbers: list[int]
    of: int
    spacing_mm: tuple[float, ...] | None
    step: int
    pictures: np.ndarray
    truth: np.ndarray | None
    masks: np.ndarray
    places: dict[str, list[int]]
    areas: np.ndarray
    true_areas: np.ndarray | None
    volumes: np.ndarray | None
    gates: list[dict[str, np.ndarray]]
    notes: list[str] = field(default_factory=list)


class _Read(NamedTuple):
    """Planes that are shown: each with what the network gets, its picture and its truth."""

    samples: list[Any]
    pictures: list[np.ndarray]
    truth: list[np.ndarray] | None
    spacing_mm: tuple[float, ...] | None


class _Maker:
    """Ask a model for all masks of the cases of a table.

    Args:
        model: to ask.
        table: of the cases.
        cases: how many.
        planes: most of a volume.

    Attributes:
        shown: the cases.
        problems: those that were left out.
    """

    def __init__(self, model: _Model, table: str | Path, cases: int, planes: int) -> None:
        self.model, self.planes = model, planes
        self.problems: list[Problem] = []
        unknown = model.weights.recorded.get("unknown_trained", False) or model.unknown
        content, wrong = scan_table(
            table, model.schema, model.columns, None, True, bool(unknown), model.default
        )
        sift(content, wrong, self.problems)
        tell(content)
        rows = list(content.rows)
        self.split_of = _split_of(model.weights)
        trained = [row for row in rows if self.split_of(row) == "train"]
        self.options: dict[str, list[Option]] = {}
        self.trained: dict[str, Trained] = {}
        for known in model.schema.fields:
            values = Counter(
                str(row["metadata"].get(known.name))
                for row in trained
                if not known.is_missing(row["metadata"].get(known.name))
            )
            self.trained[known.name] = Trained(sum(values.values()), values)
            may = known.missing == "unknown" and model.unknown
            self.options[known.name] = options_of(known, self.trained[known.name], may)
        every = {*np.linspace(0, STRONGEST, GUIDANCE_STEPS).tolist(), model.guidance}
        self.guidance = sorted(every) if model.steered is not None else []
        tested = [row for row in rows if row.get("split") == "test"]
        items = slice_items(
            tested or rows, model.spatial_dims, self.problems, model.axis, at_least_one=True
        )
        units = self._chosen(items, cases)
        named = content.class_names or model.weights.class_names({})
        self.classes = [named.get(number, str(number)) for number in range(model.classes)]
        self.classes[0] = named.get(0, "background")
        self.shown: list[_Shown] = []
        states = 1 + sum(map(len, self.options.values())) + max(0, len(self.guidance) - 1)
        several = (min(planes, len(one)) if "plane" in one[0] else 1 for one in units)
        with tqdm(total=states * sum(several), unit="mask", desc="what if") as self.bar:
            for unit in units:
                try:
                    self.shown.append(self._show(unit))
                except (MetasegError, OSError) as error:
                    self.problems.append(problem_of(unit[0], error))
        if not self.shown:
            told = "; ".join(map(str, self.problems[:3])) or "it has no rows"
            raise DataError(f"{table}: no case can be shown: {told}")

    @property
    def masks(self) -> int:
        """How many masks there are."""
        return sum(one.masks.shape[0] * one.masks.shape[1] for one in self.shown)

    def _chosen(self, items: Sequence[dict[str, Any]], cases: int) -> list[list[dict[str, Any]]]:
        """Cases, and volumes with all planes whose metadata are alike, by turns of their domain."""
        units: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for item in items:
            of_volume = (str(item["volume"]), repr(item["metadata"])) if "plane" in item else None
            units.setdefault(of_volume or (str(item["case"]), ""), []).append(item)
        named = [one.name for one in self.model.schema.fields if getattr(one, "values", ())]
        told = [
            {"case": key, "domain": str(unit[0]["metadata"].get(named[0])) if named else ""}
            for key, unit in units.items()
        ]
        chosen = [units[one["case"]] for one in few_cases(told, cases)]
        return [sorted(unit, key=lambda item: int(item.get("plane", 0))) for unit in chosen]

    # one case

    def _show(self, unit: list[dict[str, Any]]) -> _Shown:
        model, item = self.model, unit[0]
        raw = {**model.default, **(item.get("metadata") or {})}
        metas, places = self._states(raw, str(item["case"]))
        notes: list[str] = []
        whole, there = "plane" not in item and model.spatial_dims == 3, len(unit)
        if len(unit) > 1 and len(unit) > self.planes:
            unit = self._around_largest(unit)
        read = self._read(unit)
        answers = [[self._answer(one, *state) for one in read.samples] for state in metas]
        gates = [answer[0][1] for answer in answers]
        if whole:
            turned = "native_shape" in read.samples[0]  # as of `SaveMasks`
            found = (answer[0][0] for answer in answers)
            masks = np.stack(
                [np.moveaxis(one, -1, 0) if turned else self._as_planes(one, item) for one in found]
            )
        else:
            masks = np.stack([np.stack([mask for mask, _ in answer]) for answer in answers])
        pictures = np.stack(read.pictures)
        truth = None if read.truth is None else np.stack(read.truth)
        numbers, of = [int(one.get("plane", 0)) for one in unit], len(masks[0])
        there = of if whole else there
        volumes = None
        if whole:
            volumes, numbers = self._counts(masks).sum(1), list(range(of))
            if of > self.planes:
                by = truth if truth is not None and truth.any() else masks[0]
                kept = window(np.count_nonzero(by, axis=(1, 2)), self.planes)
                numbers = numbers[kept]
                masks, pictures = masks[:, kept], pictures[kept]
                truth = None if truth is None else truth[kept]
        else:
            of = int(unit[0].get("planes", len(unit))) if "plane" in item else 1
        if len(masks[0]) < there:
            notes.append(
                f"{len(masks[0])} of {there} slices are shown, around the one with the largest "
                f"{'true' if truth is not None else 'predicted'} foreground."
            )
        if model.cleaning.rules.cleans and volumes_of([item]):
            notes.append("Each slice is cleaned by itself; a prediction cleans the volume as one.")
        step = math.ceil(max(masks.shape[2:]) / MOST_SIDE)
        if step > 1:
            notes.append(f"Every {step}. row and column is shown; areas are of all pixels.")
        return _Shown(
            str(item.get("volume", item["case"])),
            raw,
            self.split_of(item),
            numbers,
            of,
            read.spacing_mm,
            step,
            np.stack([picture[::step, ::step] for picture in pictures]),
            None if truth is None else truth[:, ::step, ::step],
            masks[:, :, ::step, ::step],
            places,
            self._counts(masks),
            None if truth is None else self._counts(truth),
            volumes,
            gates,
            notes,
        )

    def _states(
        self, raw: Mapping[str, Any], case: str
    ) -> tuple[list[tuple[Tensor | None, float]], dict[str, list[int]]]:
        """Metadata and guidance of each mask, and of each option the place of its mask."""
        model, lenient = self.model, self.model.schema.with_policy("flag")
        own = model.schema.span(raw, case)
        states: list[tuple[Tensor | None, float]] = [(None, model.guidance)]
        seen = {own.tobytes(): 0}
        places: dict[str, list[int]] = {}
        for known in model.schema.fields:
            places[known.name] = []
            for option in self.options[known.name]:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", MetadataWarning)  # the page says it
                    code = lenient.span({**raw, known.name: option.raw}, case)
                if code.tobytes() not in seen:
                    seen[code.tobytes()] = len(states)
                    both = torch.from_numpy(code)
                    states.append((both[0] if torch.equal(*both) else both, model.guidance))
                places[known.name].append(seen[code.tobytes()])
        places["guidance"] = []
        for weight in self.guidance:
            places["guidance"].append(0 if weight == model.guidance else len(states))
            if weight != model.guidance:
                states.append((None, weight))
        return states, places

    def _answer(
        self, sample: Mapping[str, Any], meta: Tensor | None, guidance: float
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        self.bar.update()
        given = torch.as_tensor(sample["meta"]) if meta is None else meta
        return self.model.mask(sample, given, guidance)

    def _around_largest(self, unit: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The planes around that with the largest true foreground, or predicted as given."""
        sizes = []
        for item in unit:
            loaded, sample = self.model.read(item)
            found = loaded.get("label")
            if found is None:
                found = self.model.mask(sample, torch.as_tensor(sample["meta"]), 1.0)[0]
            sizes.append(np.count_nonzero(np.asarray(found)))
        return unit[window(np.array(sizes), self.planes)]

    def _read(self, unit: list[dict[str, Any]]) -> _Read:
        """Planes of one size, of a case, of a volume whole, or of its planes."""
        found = _Read([], [], [], None)
        for item in unit:
            loaded, sample = self.model.read(item)
            shape = tuple(int(size) for size in loaded["image"].shape[1:])
            image = torch.as_tensor(sample["image"]).as_subclass(Tensor)
            turned = "native_shape" in sample and image.ndim == 4
            native = sample["native_shape"] if turned else shape
            image = resize_image(image[None].float(), [int(size) for size in native])[0]
            shown = image if len(image) in (1, 3) else image.mean(0, keepdim=True)
            if turned:
                planes = shown.movedim(-1, 1).numpy()
            else:
                planes = np.stack([self._as_planes(one.numpy(), item) for one in shown])
            found.pictures.extend(np.moveaxis(planes, 0, -1))
            found.samples.append(sample)
            spacing = loaded.get("spacing_mm")
            if len(shape) == 3:
                spacing = self._spacing(item)
            if spacing is not None and all(float(step) > 0 for step in spacing[1:]):
                found = found._replace(spacing_mm=tuple(map(float, spacing)))
            if "label" in loaded and found.truth is not None:
                truth = np.asarray(loaded["label"])[0].astype(np.uint8)
                found.truth.extend(self._as_planes(truth, item))
            else:
                found = found._replace(truth=None)
        if len({one.shape for one in found.pictures}) > 1:
            raise DataError(
                f"case {unit[0]['case']!r}: planes of one volume differ in size; mend the table"
            )
        grey = to_unit(np.stack(found.pictures).astype(np.float32))
        grey = np.round(grey.astype(np.float32) * 255).astype(np.uint8)
        return found._replace(pictures=list(grey[..., 0] if grey.shape[-1] == 1 else grey))

    def _as_planes(self, array: np.ndarray, item: Mapping[str, Any]) -> np.ndarray:
        """An array (H, W) or (*S) of an item's file as planes (D, H, W), as a radiologist sees."""
        if array.ndim == 2:
            return array[None]
        attributes = read_header(item["image"])
        if attributes["affine"] is None:
            return np.moveaxis(array, -1, 0)
        return np.ascontiguousarray(
            axial_volume(Image(array[None], attributes), self.model.axis).planes
        )

    def _spacing(self, item: Mapping[str, Any]) -> tuple[float, ...] | None:
        if read_header(item["image"])["affine"] is None:
            return None
        return volume_header(item["image"], self.model.axis)[0].spacing_mm

    def _counts(self, masks: np.ndarray) -> np.ndarray:
        """Pixels of each foreground class in each plane."""
        numbers = range(1, self.model.classes)
        return np.stack([np.count_nonzero(masks == one, axis=(-2, -1)) for one in numbers], -1)

    # the page

    @property
    def told(self) -> dict[str, Any]:
        """What the page, and its README, say of the model."""
        facts = self.model.weights.recorded
        network = facts.get("network") or {}
        return {
            "weights_sha256": facts["weights_sha256"],
            "variant": self.model.variant,
            "network": str(network.get("_target_", "")).rpartition(".")[2],
        }

    def page(self, title: str, table: str) -> str:
        """The page as text."""
        scales = [value for one in self.shown for of in one.gates for value in of.values()]
        ends = [float(end) for end in (min(map(np.min, scales), default=0.0), 1.0)]
        ends[1] = float(max(map(np.max, scales), default=1.0))
        model = {
            **self.told,
            "classes": self.classes,
            "fields": [self._field(known) for known in self.model.schema.fields],
            "guidance": [{"text": f"{weight:g}", "at": weight} for weight in self.guidance],
            "guided": self.model.guidance,
            "gates": [
                {"name": name, "channels": len(scale), "shown": len(_some(len(scale)))}
                for name, scale in self.shown[0].gates[0].items()
            ],
            "scale": ends,
            "cases": [{"name": one.name, "trained": one.trained} for one in self.shown],
        }
        style, script = (
            (TEMPLATES / f"whatif.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
        )
        return _rendered(
            "whatif.html",
            title=title,
            table=table,
            style=style,
            script=script,
            model=as_data(model),
            contents=[as_data(self._case(one, *ends)) for one in self.shown],
            count=len(self.shown),
            **self.told,
        )

    def _field(self, known: AnyField) -> dict[str, Any]:
        told: dict[str, Any] = {
            "name": known.name,
            "id": "field-" + re.sub(r"\s", "_", known.name),
            "kind": known.kind,
            "description": known.description,
            "options": [
                {"text": one.text, "at": one.at, "beyond": one.beyond}
                for one in self.options[known.name]
            ],
        }
        if isinstance(known, Continuous):
            low, high = self.trained[known.name].ends(known)
            told |= {"unit": known.unit, "log": known.scale != "linear", "trained": [low, high]}
        return told

    def _case(self, one: _Shown, low: float, high: float) -> dict[str, Any]:
        scales = [
            np.concatenate([scale[_some(len(scale))] for scale in of.values()])
            for of in one.gates
            if of
        ]
        shades = np.round((np.array(scales) - low) / max(high - low, 1e-9) * 255).astype(np.uint8)
        z, y, x = one.spacing_mm or (math.nan,) * 3
        return {
            "size": list(one.masks.shape[2:]),
            "planes": one.numbers,
            "of": one.of,
            "notes": one.notes,
            "pictures": [picture_url(plane) for plane in one.pictures],
            "pixel_mm2": None if math.isnan(y * x) else y * x,
            "voxel_ml": None if math.isnan(z * y * x) else z * y * x / 1000,
            "given": {
                known.name: self._given(known, one.raw.get(known.name))
                for known in self.model.schema.fields
            },
            "states": one.places,
            "masks": packed_masks(one.masks, one.truth, self.model.classes),
            "areas": one.areas.tolist(),
            "true_areas": None if one.true_areas is None else one.true_areas.tolist(),
            "volumes": None if one.volumes is None else one.volumes.tolist(),
            "gates": _zlib(shades.tobytes()) if scales else None,
            "gated": [place for place, of in enumerate(one.gates) if of],
        }

    def _given(self, known: AnyField, raw: Any) -> dict[str, Any]:
        missing = known.is_missing(raw)
        at = read_number(raw) if isinstance(known, Continuous) and not missing else None
        text = UNKNOWN if missing else str(raw)
        return {"text": text, "at": at, "beyond": self.trained[known.name].doubt(known, raw)}


def _split_of(weights: LoadWeights) -> Callable[[Mapping[str, Any]], str | None]:
    """The split of a training in which an item's case or group was, as far as it is known."""
    record = weights.trained_on()
    of_name: dict[tuple[str, str], str] = {}
    for row in [] if record is None else record.to_dict("records"):
        for kind in ("group", "case"):
            of_name[kind, likened(str(row[kind]))] = str(row["split"])

    def split_of(item: Mapping[str, Any]) -> str | None:
        for kind in ("case", "group"):
            if (found := of_name.get((kind, likened(str(item.get(kind)))))) is not None:
                return found
        return None

    return split_of


def window(sizes: np.ndarray, most: int) -> slice:
    """At most so many neighbours around the largest.

    >>> window(np.array([0, 0, 1, 5, 2]), 3), window(np.array([9, 0, 0]), 2)
    (slice(2, 5, None), slice(0, 2, None))
    """
    first = int(np.argmax(sizes)) - most // 2
    first = max(0, min(first, len(sizes) - most))
    return slice(first, first + most)


# How it is packed.


def packed_masks(states: np.ndarray, truth: np.ndarray | None, classes: int) -> str:
    """Masks (S, D, H, W) and true classes (D, H, W) as base64 of a zlib stream, see above.

    >>> states = np.array([[[[0, 1]]], [[[1, 1]]]], np.uint8)
    >>> zlib.decompress(base64.b64decode(packed_masks(states, None, 2))).hex(" ")
    '00 02 03 00 05'
    """
    base = 1 << (classes - 1).bit_length()
    parts = list[bytes]()
    for place, planes in enumerate(states):
        for plane, mask in enumerate(planes):
            own = b"\0" + _runs(mask, base)
            change = b"\1" + _runs(mask ^ states[place - 1][plane], base) if place else own
            parts.append(min(own, change, key=len))
    parts += [b"\0" + _runs(mask, base) for mask in (() if truth is None else truth)]
    return _zlib(b"".join(parts))


def _runs(mask: np.ndarray, base: int) -> bytes:
    values = mask.ravel().astype(np.int64)
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    numbers = np.diff(starts, append=len(values)) * base + values[starts]
    sevens = numbers[:, None] >> np.arange(0, 42, 7) & 127  # LEB128, lowest first
    used = 6 - np.argmax(sevens[:, ::-1] > 0, axis=1)
    places = np.arange(6)
    sevens |= np.where(places < used[:, None] - 1, 128, 0)
    return bytes(sevens[places < used[:, None]].astype(np.uint8).tobytes())


def _zlib(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode()


def picture_url(plane: np.ndarray) -> str:
    """A picture (H, W) or (H, W, 3), 0..255, as an address that is its content: lossy WebP."""
    file = io.BytesIO()
    Picture.fromarray(plane).save(file, "WEBP", quality=QUALITY, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def as_data(content: Any) -> Markup:
    r"""JSON that a script element may hold, whatever texts are in it.

    >>> print(as_data({"name": "</script>"}))
    {"name":"\u003c/script>"}
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))


def _rendered(name: str, **content: Any) -> str:
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["digest"] = _digest
    return made.get_template(name).render(**content)


def _digest(text: str) -> str:
    """What the page's policy allows a style or script by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
