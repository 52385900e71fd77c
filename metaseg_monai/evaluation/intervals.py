"""How far off a predicted area may be, by metadata value: calibrated, kept with weights, tested.

What is calibrated for some weights is a fact of these weights, ``conformal`` in their file, which
prediction and evaluation use where nothing else is set:

- `level`, `found`: shares that are promised, of areas within their interval and of the foreground
  that is found at the threshold, each for cases of new groups;
- `by`: the field whose values are kept apart, None for none; `edges`: ends of a quantity's bins;
- `modes`: for ``normal`` (metadata as given) and ``missing`` (all unknown), where the network knows
  that, what was found of each value, and under "all" of all together: `cases`, `groups`, `pooled`
  (true where the value has too few groups of its own), `threshold` (None: none promises it),
  `bounds` of `area_interval` by class (None: no bound);
- `settings`: what the masks were made with, which must be as it was then;
- `split`, `cases`, `groups`: of the calibration.
"""

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ignite.engine import Engine, Events

from metaseg_monai.errors import ConfigError, DataError, listing
from metaseg_monai.evaluation.clean_up import CleanUpPredictions, refuse_others
from metaseg_monai.evaluation.per_case import (
    AMOUNT,
    NAMES,
    SHARE,
    TEXT,
    WHOLE,
    Case,
    Row,
    Table,
    cases_of,
    names_of,
    read_rows,
)
from metaseg_monai.evaluation.predicted import MaskRecord
from metaseg_monai.images.image import row_blocks
from metaseg_monai.images.read import volumes_of
from metaseg_monai.metadata.fields import UNKNOWN, AnyField, Categorical, Continuous, Ordinal
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.metrics.conformal import (
    POOLED,
    area_interval,
    area_scores,
    bin_edges,
    bin_name,
    checked_level,
    cutoff,
    mondrian,
)
from metaseg_monai.training.weights import LoadWeights, write_fact
from metaseg_monai.transforms.postprocessing import class_map

logger = logging.getLogger(__name__)

FACT = "conformal"
COVERAGE_FILE = "conformal.csv"
MODES = ("normal", "missing")
THRESHOLDS = (0.001, 0.002, 0.005, *(round(0.01 * step, 2) for step in range(1, 100)), 0.995, 0.999)
_ODDS = np.log(np.array(THRESHOLDS) / (1 - np.array(THRESHOLDS)))
AS_THEN: Mapping[
    str, Any
] = {  # settings of a prediction that change masks, and what they are where nothing is set
    "guidance": None,
    "mirror": None,
    "members": [],
    "threshold": 0.5,
    "precision": None,
}


class Values(NamedTuple):
    """How the values of a field are kept apart.

    Attributes:
        field: None keeps all cases together.
        edges: ends between bins of a quantity.
    """

    field: AnyField | None
    edges: Sequence[float] = ()

    def of(self, metadata: Mapping[str, Any]) -> str | None:
        """The value of a case, as text; None of a distribution or range, which is no one value."""
        if self.field is None:
            return POOLED
        raw = metadata.get(self.field.name)
        if self.field.is_missing(raw):
            return UNKNOWN
        if self.field.softness(raw):
            return None
        if isinstance(self.field, Continuous):
            return bin_name(float(self.field.times(raw, 1)), self.edges)
        return str(self.field.decode(self.field.encode(raw)))


def chosen_field(schema: MetadataSchema, by: str | None, reads: bool = True) -> AnyField | None:
    """The field by which cases are kept apart.

    Args:
        schema: of the metadata.
        by: its name; None takes the first field that has one value a case.
        reads: whether the network reads metadata; one that does not is told none in a prediction.

    Raises:
        ConfigError: there is no such field, it has several values a case, or nobody reads it.
    """
    if not reads:
        if by is not None:
            raise ConfigError(
                f"--by {by}: this network reads no metadata, and a prediction would not know the "
                "value; leave --by out"
            )
        return None
    kinds = (Categorical, Ordinal, Continuous)
    fitting = [one for one in schema.fields if isinstance(one, kinds)]
    if by is None:
        return fitting[0] if fitting else None
    if by not in [one.name for one in fitting]:
        names = listing([one.name for one in fitting]) or "none"
        raise ConfigError(f"--by {by}: expected a field with one value a case ({names})")
    return schema.field(by)


# What is kept of a case until all of it came.


@dataclass
class _Sums:
    """Pixels of a case, or of the planes of a volume that came.

    Attributes:
        names: as `names_of`.
        true: pixels of each class above 0 (K - 1,); likewise predicted.
        frame: pixels of the image, or of the planes.
        seen: pixels of the true foreground that are found at each of `THRESHOLDS`.
    """

    names: dict[str, str]
    true: np.ndarray
    predicted: np.ndarray
    frame: int
    seen: np.ndarray = field(default_factory=lambda: np.zeros(len(THRESHOLDS), np.int64))

    @property
    def missed(self) -> np.ndarray | None:
        """The share of the foreground that is missed at each threshold; None without any."""
        total = int(self.true.sum())
        return 1 - self.seen / total if total else None


class _Cases:
    """The sums of every case and mode, as batches come."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.sums: dict[tuple[str, str], _Sums] = {}
        self.volumes: dict[str, str] = {}

    def start(self, items: Sequence[Mapping[str, Any]]) -> None:
        self.sums, self.volumes = {}, volumes_of(items)

    def add(self, case: Case) -> None:
        """Add what the batch has of a case: `label`, `pred`, `plain` before it was cleaned."""
        name = str(self.volumes.get(case["case"], case["case"]))
        plain, label = case.get("plain", case["pred"]).float(), case["label"][0]
        true = np.array([int((label == number).sum()) for number in range(1, self.classes)])
        margin = (plain[1:].amax(0) - plain[0])[label > 0].cpu().numpy()
        found = len(margin) - np.searchsorted(np.sort(margin), _ODDS, side="right")
        names, predicted = {**names_of(case), "case": name}, areas_of(case["pred"], self.classes)
        made = _Sums(names, true, predicted, label.numel())
        sums = self.sums.setdefault((str(case["mode"]), name), made)
        if sums is not made:
            sums.true, sums.predicted = sums.true + true, sums.predicted + predicted
            sums.frame += made.frame
        sums.seen = sums.seen + found


def areas_of(pred: Any, classes: int) -> np.ndarray:
    """Pixels of each class above 0 (K - 1,) of logits (K, *S), or of classes (1, *S)."""
    counts = np.zeros(classes, np.int64)
    for rows in row_blocks((1, *pred.shape[1:])):  # so that large images take little memory
        counts += np.bincount(class_map(pred[:, rows]).ravel(), minlength=classes)[:classes]
    return counts[1:]


# Calibrated on cases that no training saw.


class CalibrateAreas:
    """Evaluator handler that calibrates areas on the cases of a split, and keeps it with weights.

    It stands behind `CleanUpPredictions`: areas are those of cleaned masks, thresholds hold for
    masks that are not cleaned. Planes of a volume make one case; groups are the units.

    Args:
        weights: those that predict.
        classes: number of classes K with the background.
        field: whose values are kept apart, see `chosen_field`.
        split: of the table: val, or one that the training has not seen; never train or test.
        clean_up: how masks are cleaned, as for `CleanUpPredictions`.
        level: share of the cases whose area is to lie within its interval.
        found: share of the foreground that is to be found at the threshold.
        bins: of a quantity.

    Attributes:
        chosen: the fact, when the run is complete.

    Raises:
        ConfigError: a share is none, or fewer bins than one.
        DataError: the split is train or test; while running: a case was trained on, is not among
            those by which the training chose (of val), or there are none.
    """

    def __init__(
        self,
        weights: LoadWeights,
        classes: int,
        field: AnyField | None,
        split: str,
        clean_up: Mapping[str, Any] | None = None,
        level: float = 0.9,
        found: float = 0.9,
        bins: int = 4,
    ) -> None:
        if split in ("train", "test"):
            told = "trained on" if split == "train" else "of the test, which would be none then"
            raise DataError(
                f"--split {split}: its cases are {told}; give val, or a split of cases that were "
                "set apart, such as calibration"
            )
        self.level, self.found = checked_level(level), checked_level(found)
        bin_edges([0.0], bins)
        self.weights, self.split, self.bins, self.field = weights, split, bins, field
        self.cleaning = CleanUpPredictions(clean_up, weights=weights)
        self.chosen: dict[str, Any] = {}
        self._cases = _Cases(classes)
        self._metadata: dict[str, Mapping[str, Any]] = {}

    def attach(self, engine: Engine) -> None:
        """Look at every batch; calibrate at the end."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.late)
        engine.add_event_handler(Events.COMPLETED, self.calibrate)

    def start(self, engine: Engine) -> None:
        """Learn the metadata, and which cases are planes of volumes."""
        items = engine.state.dataloader.dataset.data
        self.cleaning.take_up()
        self._cases.start(items)
        volumes = self._cases.volumes
        self._metadata = {volumes.get(i["case"], i["case"]): i["metadata"] for i in items}
        if self.split == "val":
            refuse_others(self.weights, items, volumes)

    def __call__(self, engine: Engine) -> None:
        """Take up the cases of the batch."""
        for case in cases_of(engine):
            self._cases.add(case)

    def late(self, engine: Engine) -> None:
        """Take up the cases that `CleanUpPredictions` kept to the end."""
        for case in getattr(engine.state, "late", None) or ():
            self._cases.add(case)

    def calibrate(self, engine: Engine) -> None:
        """Calibrate, and write the fact."""
        every = [sums for (mode, _), sums in self._cases.sums.items() if mode == "normal"]
        if not every:
            raise DataError(f"the split {self.split!r} has no case to calibrate on; name another")
        values = Values(self.field, self._edges())
        self.chosen = {
            "level": self.level,
            "found": self.found,
            "by": None if self.field is None else self.field.name,
            "edges": list(values.edges),
            "modes": {
                mode: self._of_mode(mode, values)
                for mode in MODES
                if any(mode == one for one, _ in self._cases.sums)
            },
            "settings": _made_with(self.weights, self.cleaning),
            "split": self.split,
            "cases": len(every),
            "groups": len({sums.names["group"] for sums in every}),
        }
        write_fact(self.weights.path, FACT, self.chosen)

    def _edges(self) -> list[float]:
        if not isinstance(self.field, Continuous):
            return []
        raws = [raw.get(self.field.name) for raw in self._metadata.values()]
        known = [r for r in raws if not self.field.is_missing(r) and not self.field.softness(r)]
        numbers = [float(self.field.times(raw, 1)) for raw in known]
        return bin_edges(numbers, self.bins) if numbers else []

    def _of_mode(self, mode: str, values: Values) -> dict[str, Any]:
        """What was found of each value, in the cases of a mode."""
        kept = [
            (sums, POOLED if mode == "missing" else values.of(self._metadata[name]))
            for (one, name), sums in self._cases.sums.items()
            if one == mode
        ]
        sums = [one for one, _ in kept]
        # all belong to all, whose bound is also that of a distribution or range
        named = [POOLED if value is None else value for _, value in kept]
        groups = [one.names["group"] for one in sums]
        told: dict[str, Any] = {}
        for place in range(self._cases.classes - 1):
            predicted, true = ([getattr(s, n)[place] for s in sums] for n in ("predicted", "true"))
            scores = area_scores(predicted, true)
            # "all" is no value of its own where all are one
            apart = [f"={value}" for value in named]
            for value, found in mondrian(scores, groups, apart, self.level).items():
                name = value.removeprefix("=")
                if name == POOLED and value != POOLED:
                    continue
                of_value = told.setdefault(name, {**found._asdict(), "bounds": {}})
                of_value["bounds"][str(place + 1)] = _finite(found.bound)
        for name, of_value in told.items():
            of_value.pop("bound")
            own = [of_value["pooled"] or one == name for one in named]
            of_value["threshold"] = self._threshold(
                [one for one, kept in zip(sums, own, strict=True) if kept]
            )
        return told

    def _threshold(self, cases: Sequence[_Sums]) -> float | None:
        """The highest at which enough of the foreground is found; None where none promises it."""
        known = [(one.missed, one.names["group"]) for one in cases if one.missed is not None]
        if not known:
            return None
        losses, groups = zip(*known, strict=True)
        place = cutoff(np.stack(losses), groups, 1 - self.found)
        return None if place is None else THRESHOLDS[place]


def _finite(number: float) -> float | None:
    return round(number, 6) if math.isfinite(number) else None


# Used for new cases.


class Interval(NamedTuple):
    """What is known of the areas of a case.

    Attributes:
        value: whose calibration it is, "all" where that of all values is taken; "" for none.
        cases: of that calibration.
        groups: of these.
        threshold: at which the promised share of the foreground is found; None for none.
        bounds: by class, for `area_interval`.
    """

    value: str
    cases: int
    groups: int
    threshold: float | None
    bounds: Mapping[int, float]

    def of(self, number: int, area: float, frame: float) -> tuple[float, float]:
        """Ends of the area of a class, at most the frame; NaN where nothing is known."""
        if number not in self.bounds:
            return math.nan, math.nan
        low, high = area_interval(area, self.bounds[number])
        return float(low), min(float(high), frame)


NOTHING = Interval("", 0, 0, None, {})


def _made_with(weights: LoadWeights, cleaning: CleanUpPredictions) -> dict[str, Any]:
    """What masks are made with, besides `AS_THEN`: their cleaning, and the windows."""
    window = weights.facts.get("window")
    if isinstance(window, Mapping):  # how many run at once changes nothing
        window = {name: one for name, one in window.items() if name != "sw_batch_size"}
    return {"clean_up": cleaning.rules.plain, "window": window}


class Calibrated:
    """The calibration that weights hold, seen to be for what runs now.

    Args:
        fact: of the weights.
        schema: of their metadata.
        settings: of `AS_THEN`, `clean_up` (rules as plain values) and `window`, as they are now.

    Raises:
        ConfigError: masks are made in another way than then; names the setting and the ways out.
    """

    def __init__(
        self, fact: Mapping[str, Any], schema: MetadataSchema, settings: Mapping[str, Any]
    ) -> None:
        then = {"clean_up": {}, **AS_THEN, **fact["settings"]}
        now = {"clean_up": {}, **AS_THEN, **settings}
        now["precision"] = "int8" if now["precision"] == "int8" else None  # others hardly differ
        now["members"] = bool(now["members"]) or []
        if now["guidance"] == 1:
            now["guidance"] = None
        now["mirror"] = now["mirror"] or None
        if differ := [name for name in then if then[name] != now.get(name)]:
            name = differ[0]
            raise ConfigError(
                f"the intervals of areas in these weights hold for {name} {_told(then[name])}, and "
                f"now it is {_told(now[name])}; calibrate again (python -m metaseg_monai conformal "
                "MODEL), or leave them out: --conformal False"
            )
        self.fact = fact
        field = schema.field(fact["by"]) if fact["by"] is not None else None
        self.values = Values(field, fact["edges"])
        self.schema = schema

    def of(self, metadata: Mapping[str, Any], mode: str = "normal") -> Interval:
        """What is known of a case with these metadata.

        Args:
            metadata: raw; nothing where the network is told nothing.
            mode: "missing" where all are unknown to the network, whatever they are.
        """
        if self._all_unknown(metadata) and "missing" in self.fact["modes"]:
            mode = "missing"
        known = self.fact["modes"].get(mode)
        if known is None:
            return NOTHING
        value = POOLED if mode == "missing" else self.values.of(metadata)
        if value is None:
            return NOTHING
        if value == UNKNOWN and value not in known:  # those with a value say nothing of it
            return NOTHING
        found = known.get(value) or known[POOLED]
        return _interval(POOLED if found["pooled"] else value, found)

    def _all_unknown(self, metadata: Mapping[str, Any]) -> bool:
        fields = self.schema.fields
        return bool(fields) and all(one.is_missing(metadata.get(one.name)) for one in fields)


def _interval(value: str, found: Mapping[str, Any]) -> Interval:
    bounds = {
        int(number): math.inf if one is None else one for number, one in found["bounds"].items()
    }
    return Interval(value, found["cases"], found["groups"], found["threshold"], bounds)


def _told(value: Any) -> str:
    return json.dumps(value)


class TellAreas:
    """Handler of a prediction that notes the areas of each mask, with their intervals.

    It stands behind `CleanUpPredictions` and before what writes masks; `MaskRecord` writes what is
    noted. Areas are mm2 where the size of a pixel is known, mm3 of volumes, else pixels of the
    image's file. Weights without a calibration: nothing is noted.

    Args:
        weights: those that predict.
        schema: of their metadata.
        classes: number of classes K with the background.
        record: of the masks.
        clean_up: how masks are cleaned, as for `CleanUpPredictions`.
        settings: of `AS_THEN`, as they are now.
        use: False leaves intervals out; True refuses weights that hold none.
    """

    def __init__(
        self,
        weights: LoadWeights,
        schema: MetadataSchema,
        classes: int,
        record: MaskRecord,
        clean_up: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        use: bool | None = None,
    ) -> None:
        self.weights, self.schema, self.record, self.use = weights, schema, record, use
        self.classes, self.settings = classes, dict(settings or {})
        self.cleaning = CleanUpPredictions(clean_up, weights=weights)
        self.known: Calibrated | None = None
        self._areas: dict[str, np.ndarray] = {}
        self._items: dict[str, Mapping[str, Any]] = {}
        self._volumes: dict[str, str] = {}

    def begin(self) -> None:
        """Take up the calibration of weights that are loaded.

        Raises:
            ConfigError: it is of other masks (see `Calibrated`), or there is none and `use` is set.
        """
        fact, self.known = self.weights.recorded.get(FACT), None
        if fact is None and self.use:
            raise ConfigError(
                f"{self.weights.path} holds no intervals of areas; calibrate it first: python -m "
                f"metaseg_monai conformal {self.weights.path.parent}, or leave --conformal out"
            )
        if isinstance(fact, Mapping) and self.use is not False:
            self.cleaning.take_up()
            now = {**self.settings, **_made_with(self.weights, self.cleaning)}
            self.known = Calibrated(fact, self.schema, now)
            self.record.marks["conformal"] = fact

    def attach(self, engine: Engine) -> None:
        """Look at every batch."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.late)

    def start(self, engine: Engine) -> None:
        """Learn the metadata, and which cases are planes of volumes."""
        items = list(engine.state.dataloader.dataset.data)
        self._areas, self._volumes = {}, volumes_of(items)
        self._items = {item["case"]: item for item in items}

    def __call__(self, engine: Engine) -> None:
        """Note the areas of the batch."""
        if self.known is not None:
            for case in cases_of(engine):
                self._note(case, self.known)

    def late(self, engine: Engine) -> None:
        """Note the areas of what `CleanUpPredictions` kept to the end."""
        if self.known is not None:
            for case in getattr(engine.state, "late", None) or ():
                self._note(case, self.known)

    def _note(self, case: Case, known: Calibrated) -> None:
        name = str(self._volumes.get(case["case"], case["case"]))
        size, unit = _pixel(case)
        shape = case["pred"].shape[1:]
        seen = np.array([math.prod(shape), *areas_of(case["pred"], self.classes)])
        self._areas[name] = self._areas.get(name, 0) + seen
        frame, *areas = self._areas[name].tolist()
        found = known.of(self._items[case["case"]].get("metadata") or {})
        names = self.weights.recorded.get("class_names") or {}
        self.record.note(
            name,
            areas=[
                {
                    "class": number,
                    "name": str(names.get(str(number), "")),
                    "area": area * size,
                    **dict(
                        zip(
                            ("area_low", "area_high"),
                            (_written(end * size) for end in found.of(number, area, frame)),
                            strict=True,
                        )
                    ),
                    "unit": unit,
                    "interval_of": found.value,
                    "calibration_cases": found.cases or None,
                    "threshold": found.threshold,
                }
                for number, area in enumerate(areas, 1)
            ],
        )


def _pixel(case: Case) -> tuple[float, str]:
    """Size of a pixel of a mask as the network gives it, and its unit."""
    shape = case["pred"].shape[1:]
    if "spacing_mm" in case:
        sides = [float(side) for side in case["spacing_mm"]]
        if len(shape) == 2 and "plane" not in case:
            return sides[1] * sides[2], "mm2"
        return math.prod(sides), "mm3"
    if "native_shape" in case:
        return math.prod(int(side) for side in case["native_shape"]) / math.prod(shape), "px"
    return 1.0, "px"


def _written(number: float) -> float | None:
    return float(f"{number:.9g}") if math.isfinite(number) else None


# Tested on cases with a label.

COVERAGE = Table(
    "intervals of areas",
    "calibrate the model (python -m metaseg_monai conformal MODEL) and evaluate it.",
    {
        **dict.fromkeys((*NAMES, "value", "interval_of"), TEXT),
        **dict.fromkeys(("class", "cases", "groups", "true", "predicted"), WHOLE),
        **dict.fromkeys(("low", "high", "low_all", "high_all"), AMOUNT._replace(empty=True)),
        "found": SHARE._replace(empty=True),
        "threshold": SHARE._replace(empty=True),
        "level": SHARE,
    },
)


class AreaCoverage:
    """Measure of ``conformal.csv``: a row for each case, mode and class, with the area's interval.

    `value` is that of the metadata, `interval_of` whose calibration is used, of `cases` in
    `groups`; `low_all` and `high_all` are the interval of all values together; `found` is the share
    of the foreground that is found at `threshold`. Modes are those that are calibrated, normal and
    missing. Without a calibration in the weights, or of masks made in another way, nothing is
    written, which the log tells.

    Args:
        weights: those that are evaluated.
        schema: of their metadata.
        classes: number of classes K with the background.
        clean_up: how masks are cleaned, as for `CleanUpPredictions`.
        settings: of `AS_THEN`, as they are now.
        use: False leaves it out.
    """

    def __init__(
        self,
        weights: LoadWeights,
        schema: MetadataSchema,
        classes: int,
        clean_up: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        use: bool | None = None,
    ) -> None:
        self.weights, self.schema, self.use = weights, schema, use
        self.cleaning = CleanUpPredictions(clean_up, weights=weights)
        self.settings = dict(settings or {})
        self.known: Calibrated | None = None
        self._cases = _Cases(classes)
        self._metadata: dict[str, Mapping[str, Any]] = {}

    def start(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Take up the calibration, and the metadata of the cases."""
        fact, self.known = self.weights.recorded.get(FACT), None
        if isinstance(fact, Mapping) and self.use is not False:
            self.cleaning.take_up()
            now = {**self.settings, **_made_with(self.weights, self.cleaning)}
            try:
                self.known = Calibrated(fact, self.schema, now)
            except ConfigError as error:
                logger.warning("no intervals of areas are tested: %s", error)
        self._cases.start(items)
        self._metadata = {
            self._cases.volumes.get(i["case"], i["case"]): i.get("metadata", {}) for i in items
        }

    def __call__(self, case: Case) -> tuple[()]:
        """Add up what came of a case."""
        if self.known is not None and case["mode"] in self.known.fact["modes"]:
            self._cases.add(case)
        return ()

    def write(self, path: Path, found: list[Row]) -> list[Path]:
        """Write the table."""
        rows = [] if self.known is None else list(self._rows(self.known))
        return COVERAGE.write(path, rows)

    def _rows(self, known: Calibrated) -> list[Row]:
        rows: list[Row] = []
        for (mode, name), sums in self._cases.sums.items():
            own = known.of(self._metadata[name], mode)
            of_all = _interval(POOLED, known.fact["modes"][mode][POOLED])
            if not own.bounds:
                continue
            missed = sums.missed
            seen = math.nan
            if missed is not None and own.threshold is not None:
                seen = float(1 - missed[THRESHOLDS.index(own.threshold)])
            value = POOLED if mode == "missing" else known.values.of(self._metadata[name])
            for place, area in enumerate(sums.predicted.tolist()):
                number = place + 1
                low, high = own.of(number, area, sums.frame)
                low_all, high_all = of_all.of(number, area, sums.frame)
                rows.append(
                    {
                        **sums.names,
                        "value": str(value),
                        "interval_of": own.value,
                        "class": number,
                        "cases": own.cases,
                        "groups": own.groups,
                        "true": int(sums.true[place]),
                        "predicted": area,
                        **{"low": low, "high": high, "low_all": low_all, "high_all": high_all},
                        "found": seen,
                        "threshold": math.nan if own.threshold is None else own.threshold,
                        "level": known.fact["level"],
                    }
                )
        return rows


def read_coverage(path: str | Path) -> Any:
    """Read a ``conformal.csv``.

    Raises:
        DataError: see `read_rows`.
    """
    return read_rows(path, COVERAGE)


def tell_calibration(fact: Mapping[str, Any]) -> str:
    """What was calibrated, a line a value."""
    of = f"by {fact['by']}" if fact["by"] else "all together"
    lines = [
        f"{fact['cases']} cases in {fact['groups']} groups of the split {fact['split']}, {of}: "
        f"{100 * fact['level']:g} % of areas within their interval, {100 * fact['found']:g} % of "
        "the foreground found at the threshold"
    ]
    for mode, values in fact["modes"].items():
        for value, told in values.items():
            what = value if mode == "normal" else "metadata unknown"
            if told["pooled"] and value != POOLED:
                lines.append(f"  {what}: too few groups of its own, as all")
                continue
            bounds = [
                f"class {number}: area / {math.exp(bound):.3g} to x {math.exp(bound):.3g}"
                if bound is not None
                else f"class {number}: no bound, as groups are too few"
                for number, bound in told["bounds"].items()
            ]
            limit = told["threshold"]
            at = "no threshold promises that" if limit is None else f"threshold {limit:g}"
            count = f"{told['cases']} cases in {told['groups']} groups"
            lines.append(f"  {what} ({count}): {'; '.join(bounds)}; {at}")
    return "\n".join(lines)
