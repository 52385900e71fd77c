"""Which values a model's metadata are set to, one field at a time, and what it answers to each.

Two pages ask it: that of `whatif`, which holds all answers, and that of `explore`, which asks when
its reader moves a value.
"""

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.transforms import Compose
from torch import Tensor

from metaseg_monai.bundle.overrides import SHORT, load_config
from metaseg_monai.bundle.run import configs_of, configuration_file, running
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.clean_up import CleanUpPredictions
from metaseg_monai.evaluation.intervals import TellAreas
from metaseg_monai.evaluation.samples import to_unit
from metaseg_monai.explain import gates_of, record_gates
from metaseg_monai.files import absolute
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
from metaseg_monai.sharing.run import _known, models_of
from metaseg_monai.tables.table import OF_LABELS
from metaseg_monai.training.collate import collate_cases
from metaseg_monai.training.handlers import refuse_non_finite
from metaseg_monai.training.processes import bare_network
from metaseg_monai.training.weights import LoadWeights

STEPS, BEYOND = 31, 3  # values of a quantity; of them beyond each end of its range
GUIDANCE_STEPS = 9


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


class Planes(NamedTuple):
    """Planes of one size: a picture's own, those of a volume, or all of one that is taken whole.

    Attributes:
        samples: what the network gets, one for each plane, or one for all of them.
        pictures: of each plane (H, W) or (H, W, 3), 0..255.
        truth: true classes of each (H, W); None where a table has none.
        spacing_mm: of planes, rows and columns; None where it is unknown.
        item: the first, of a table or folder.
    """

    samples: list[Any]
    pictures: list[np.ndarray]
    truth: list[np.ndarray] | None
    spacing_mm: tuple[float, ...] | None
    item: Mapping[str, Any]


class State(NamedTuple):
    """What a mask is asked with.

    Attributes:
        meta: (M,), or (2, M) for both ends of a range; None as given.
        guidance: see `SteeredInferer`.
        told: metadata that it stands for, raw.
    """

    meta: Tensor | None
    guidance: float
    told: Mapping[str, Any] = MappingProxyType({})


class AskedModel:
    """A model of which masks are asked, with the parts of a bundle's prediction.

    Args:
        parts: of the prediction, by id.

    Attributes:
        options: what each field is set to.
        trained: what is known of the values of each in the training.
        guidance: the strengths that are asked; none of a model that has no guidance.
        given: the guidance of a mask as given.
        calibrated: the intervals of areas that the weights hold; None for none.

    Raises:
        ConfigError: the network reads no metadata, or the weights hold intervals of masks that are
            made in another way.
        MetadataError: a field is known only after an operation, and nothing is forced.
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
        parts("network").eval()
        self.runner, self.device = parts("runner"), parts("device")
        self.runner.begin(self.weights)
        self.inferer = parts("inferer")
        self.load, *self.rest = parts("preprocessing")
        self.postprocessing = Compose(parts("postprocessing"))
        settings = parts("displayable_configs")
        limit = settings["threshold"]
        self.cleaning = CleanUpPredictions(parts("clean_up"), limit, self.weights)
        self.cleaning.take_up()
        areas: TellAreas = parts("areas")
        areas.begin()
        self.calibrated = areas.known
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
        self.given = 1.0
        if self.steered is not None and self.steered.guidance is not None:
            self.given = float(self.steered.guidance)
        every = {*np.linspace(0, STRONGEST, GUIDANCE_STEPS).tolist(), self.given}
        self.guidance = sorted(every) if self.steered is not None else []
        self.gates: list[str] = []
        if self.runner.engine == "torch":
            with suppress(ConfigError):  # of a mechanism that has none
                self.gates = list(gates_of(network))
        self.watched = network
        self.know([])

    def know(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take up which values were trained.

        Args:
            rows: of a table, as far as the network was trained on them; without any the schema
                says what may be.
        """
        self.options: dict[str, list[Option]] = {}
        self.trained: dict[str, Trained] = {}
        told = [row["metadata"] for row in rows]
        for known in self.schema.fields:
            every = [metadata.get(known.name) for metadata in told]
            values = Counter(str(one) for one in every if not known.is_missing(one))
            self.trained[known.name] = Trained(sum(values.values()), values)
            may = known.missing == "unknown" and self.unknown
            self.options[known.name] = options_of(known, self.trained[known.name], may)

    def states(self, raw: Mapping[str, Any], case: str) -> tuple[list[State], dict[str, list[int]]]:
        """What is asked of a case, as given first, and of each option the place of its state.

        Args:
            raw: its metadata, as given.
            case: its name, for messages.

        Raises:
            MetadataError: the schema refuses what is given.
        """
        lenient = self.schema.with_policy("flag")
        own = self.schema.span(raw, case)
        states = [State(None, self.given, raw)]
        seen = {own.tobytes(): 0}
        places: dict[str, list[int]] = {}
        for known in self.schema.fields:
            places[known.name] = []
            for option in self.options[known.name]:
                told = {**raw, known.name: option.raw}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", MetadataWarning)  # the page says it
                    code = lenient.span(told, case)
                if code.tobytes() not in seen:
                    seen[code.tobytes()] = len(states)
                    both = torch.from_numpy(code)
                    meta = both[0] if torch.equal(*both) else both
                    states.append(State(meta, self.given, told))
                places[known.name].append(seen[code.tobytes()])
        places["guidance"] = []
        for weight in self.guidance:
            places["guidance"].append(0 if weight == self.given else len(states))
            if weight != self.given:
                states.append(State(None, weight, raw))
        return states, places

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

    def read_planes(self, unit: Sequence[Mapping[str, Any]]) -> Planes:
        """Read the items of a case, or of all planes of a volume.

        Raises:
            DataError: as `read`, or the planes differ in size.
        """
        samples, shown, truths = list[Any](), list[np.ndarray](), list[np.ndarray]()
        spacing_mm: tuple[float, ...] | None = None
        for item in unit:
            loaded, sample = self.read(item)
            shape = tuple(int(size) for size in loaded["image"].shape[1:])
            image = torch.as_tensor(sample["image"]).as_subclass(Tensor)
            turned = "native_shape" in sample and image.ndim == 4
            native = sample["native_shape"] if turned else shape
            image = resize_image(image[None].float(), [int(size) for size in native])[0]
            image = image if len(image) in (1, 3) else image.mean(0, keepdim=True)
            if turned:
                planes = image.movedim(-1, 1).numpy()
            else:
                planes = np.stack([self.as_planes(one.numpy(), item) for one in image])
            shown.extend(np.moveaxis(planes, 0, -1))
            samples.append(sample)
            spacing = loaded.get("spacing_mm")
            if len(shape) == 3:
                spacing = self._spacing(item)
            if spacing is not None and all(float(step) > 0 for step in spacing[1:]):
                spacing_mm = tuple(map(float, spacing))
            if "label" in loaded:
                truths.extend(self.as_planes(np.asarray(loaded["label"])[0].astype(np.uint8), item))
        if len({one.shape for one in shown}) > 1:
            raise DataError(
                f"case {unit[0]['case']!r}: planes of one volume differ in size; mend the table"
            )
        grey = to_unit(np.stack(shown).astype(np.float32))
        grey = np.round(grey.astype(np.float32) * 255).astype(np.uint8)
        pictures = list(grey[..., 0] if grey.shape[-1] == 1 else grey)
        truth = truths if len(truths) == len(shown) else None
        return Planes(samples, pictures, truth, spacing_mm, unit[0])

    def answer(
        self, planes: Planes, state: State, place: int | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Masks (D, H, W) of all planes, or of one, and the scales (C,) of every gate in the first.

        Args:
            planes: of `read_planes`; of a volume that is taken whole all are answered.
            state: that is asked for.
            place: of the plane.
        """
        whole = place is None or len(planes.samples) == 1
        samples = planes.samples if whole else [planes.samples[place or 0]]
        every = [self.mask(one, state) for one in samples]
        mask, scales = every[0]
        if mask.ndim == 2:
            return np.stack([one for one, _ in every]), scales
        if "native_shape" in samples[0]:  # as of `SaveMasks`
            return np.moveaxis(mask, -1, 0), scales
        return self.as_planes(mask, planes.item), scales

    def mask(
        self, sample: Mapping[str, Any], state: State
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The mask (*S) of a sample, and the scales (C,) of every gate; none under guidance.

        Args:
            sample: of `read`.
            state: that is asked for.
        """
        guidance = state.guidance
        meta = torch.as_tensor(sample["meta"]) if state.meta is None else state.meta
        batch = collate_cases([{**sample, "meta": meta}])
        images, rows = batch["image"].to(self.device), batch["meta"].to(self.device)
        plain = self.steered is None or guidance == 1
        watch = record_gates(self.watched) if self.gates and plain else nullcontext()
        before = None if self.steered is None else self.steered.guidance
        try:
            if self.steered is not None:
                self.steered.guidance = None if guidance == 1 else guidance
            with torch.no_grad(), watch as record:
                logits = self.inferer(images, self.runner, meta=rows)
        finally:
            if self.steered is not None:
                self.steered.guidance = before
        refuse_non_finite(logits, images, _State(batch))
        told = {key: values[0] for key, values in batch.items() if values is not None}
        told["pred"] = self.cleaning.clean(logits)[0]
        mask = np.asarray(self.postprocessing(told)["pred"][0]).astype(np.uint8)
        calls = {} if record is None else record.scale
        return mask, {gate: torch.cat(one).mean(0).numpy() for gate, one in calls.items()}

    def intervals(self, planes: Planes, state: State, area: np.ndarray) -> list[Any] | None:
        """In which interval the area of each class lies, if what the network is told is true.

        Args:
            planes: of `read_planes`.
            state: that was asked for.
            area: pixels of each foreground class (K - 1,) in its mask.

        Returns:
            [low, high] by class, in pixels of the picture. None where nothing is known: weights
            without a calibration, another guidance than theirs, and planes of volumes, whose
            calibration is of whole volumes.
        """
        item, known = planes.item, self.calibrated
        whole = len(planes.pictures) > 1 or self.spatial_dims == 3 or volumes_of([item])
        if known is None or whole or state.guidance != self.given:
            return None
        found = known.of(state.told)
        if not found.bounds:
            return None
        frame = math.prod(planes.samples[0]["image"].shape[1:])
        size = math.prod(planes.pictures[0].shape[:2]) / frame  # of a pixel that the network sees
        ends = [found.of(n, of / size, frame) for n, of in enumerate(area.tolist(), 1)]
        return [
            None if math.isnan(low) else [round(low * size, 1), round(high * size, 1)]
            for low, high in ends
        ]

    def counts(self, masks: np.ndarray) -> np.ndarray:
        """Pixels of each foreground class in masks (..., H, W): (..., K - 1)."""
        numbers = range(1, self.classes)
        return np.stack([np.count_nonzero(masks == one, axis=(-2, -1)) for one in numbers], -1)

    def as_planes(self, array: np.ndarray, item: Mapping[str, Any]) -> np.ndarray:
        """An array (H, W) or (*S) of an item's file as planes (D, H, W), as a radiologist sees."""
        if array.ndim == 2:
            return array[None]
        attributes = read_header(item["image"])
        if attributes["affine"] is None:
            return np.moveaxis(array, -1, 0)
        return np.ascontiguousarray(axial_volume(Image(array[None], attributes), self.axis).planes)

    def _spacing(self, item: Mapping[str, Any]) -> tuple[float, ...] | None:
        if read_header(item["image"])["affine"] is None:
            return None
        return volume_header(item["image"], self.axis)[0].spacing_mm


@contextmanager
def asking(
    folder: str | Path | Sequence[str | Path],
    source: str | Path,
    output: Path,
    doing: str,
    settings: Mapping[str, Any],
    trust: bool = False,
) -> Iterator[AskedModel]:
    """A trained model, ready to be asked until the block ends.

    Args:
        folder: of the model; several predict together.
        source: of its cases.
        output: folder or file that is written, and owned as long.
        doing: what is told to a second process that wants it.
        settings: of configs/inference.json.
        trust: as for train.

    Raises:
        ConfigError: no model's folder, no such setting, or the network reads no metadata.
    """
    first, *members = models_of(folder)
    own: dict[str, Any] = {"ckpt_path": absolute(first) / "model.pt", "dataset_dir": str(source)}
    if members:
        own["members"] = [str(absolute(one) / "model.pt") for one in members]
    root, further, recorded = _known(first, None, None)
    if not recorded:
        raise ConfigError(f"{first} is no folder of a trained model; give one that train left")
    names = configs_of("inference", more=further)
    known = load_config([configuration_file(root, name) for name in names], root).keys()
    recorded = {k: v for k, v in recorded.items() if SHORT.get(k, k).partition("#")[0] in known}
    given = {**own, **settings, "output_dir": str(output)}
    with running(root, names, given, doing, recorded, trust, run=False) as workflow:
        yield AskedModel(workflow.parser.get_parsed_content)


class _State(NamedTuple):
    """What `refuse_non_finite` names a case by."""

    batch: Mapping[str, Any]
    epoch: int = 0
