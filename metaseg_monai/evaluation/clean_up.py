"""How predicted masks are cleaned: applied to whole images and volumes, and chosen on validation.

What is chosen for some weights is a fact of these weights, ``clean_up`` in their file, which
evaluation and prediction apply where nothing else is set.
"""

import logging
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events

from metaseg_monai.errors import ConfigError, DataError, listing
from metaseg_monai.evaluation.per_case import Case, cases_of, count_pixels
from metaseg_monai.images.identity import file_digests
from metaseg_monai.images.read import volumes_of
from metaseg_monai.metrics.scores import case_f1
from metaseg_monai.tables.check import image_files
from metaseg_monai.training.weights import OF_FILES, LoadWeights, of_files, write_fact
from metaseg_monai.transforms.postprocessing import (
    background_shift,
    check_sizes,
    class_map,
    clean_logits,
    clean_up,
    objects_of,
)

logger = logging.getLogger(__name__)

RULES = ("threshold", "largest", "object_px", "hole_px")
EXPECTED = (
    'expected some of {"object_px": 30, "hole_px": 30, "largest": [1], "threshold": 0.5}, sizes '
    'also by class as {"1": 30}; or null for what was chosen for the weights, {} for nothing'
)
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
OBJECTS_PX = tuple(4**power for power in range(1, 12))
HOLES_PX = (64, 10**9)  # small ones, and all
LEAST = 1e-6  # what a step must raise the score by
FEW = 10  # groups, of which a choice is doubtful


class Rules(NamedTuple):
    """What is done to a mask, in this order.

    Attributes:
        threshold: see `background_shift`; 0.5 is the most probable class.
        largest: classes of which only the largest object stays.
        object_px: smallest object that stays, of all classes or by class.
        hole_px: holes of fewer pixels are filled.
    """

    threshold: float = 0.5
    largest: tuple[int, ...] = ()
    object_px: int | Mapping[int, int] = 0
    hole_px: int = 0

    @classmethod
    def of(cls, given: Any) -> "Rules":
        """Rules as they stand in a setting or in the facts of weights.

        Raises:
            ConfigError: no mapping, an unknown key, or a value out of its range.

        >>> Rules.of({"object_px": {"1": 30}, "largest": [2]})
        Rules(threshold=0.5, largest=(2,), object_px={1: 30}, hole_px=0)
        """
        if not isinstance(given, Mapping):
            raise ConfigError(f"clean_up is {given!r}; {EXPECTED}")
        if unknown := sorted(map(str, set(given) - set(RULES))):
            raise ConfigError(f"clean_up: unknown key {unknown[0]!r}; {EXPECTED}")
        sizes, largest = given.get("object_px", 0), given.get("largest", ())
        try:
            classes = [int(one) for one in (*largest, *(sizes if _by_class(sizes) else ()))]
        except (TypeError, ValueError):
            classes = [0]
        if any(number < 1 for number in classes):
            raise ConfigError(f"clean_up is {given!r}: classes are numbers from 1; {EXPECTED}")
        if _by_class(sizes):
            sizes = {int(number): size for number, size in sizes.items()}
        rules = cls(
            given.get("threshold", 0.5),
            tuple(int(number) for number in largest),
            sizes,
            given.get("hole_px", 0),
        )
        check_sizes(rules.object_px, rules.hole_px)
        background_shift(rules.threshold)
        return rules

    @property
    def plain(self) -> dict[str, Any]:
        """The rules that do something, as plain values."""
        sizes: Any = self.object_px
        if _by_class(sizes):
            sizes = {str(number): size for number, size in sizes.items()}
        told = {**self._asdict(), "largest": list(self.largest), "object_px": sizes}
        nothing = {**Rules()._asdict(), "largest": []}
        return {name: one for name, one in told.items() if one not in (nothing[name], {})}

    @property
    def cleans(self) -> bool:
        """Whether pixels are changed beside those of the threshold."""
        sizes = self.object_px
        limits = sizes.values() if isinstance(sizes, Mapping) else [sizes]
        return bool(self.largest) or max([*limits, self.hole_px]) > 1


def _by_class(sizes: Any) -> bool:
    return isinstance(sizes, Mapping)


class CleanUpPredictions:
    """Evaluator handler that cleans predictions: small objects, holes, all but the largest object.

    Handlers that are listed later (counts, samples, masks) see the cleaned prediction. What reads
    probabilities, such as `CalibrationBins` or a watershed of the probability map, belongs before
    it in the list. Sizes are in pixels of the network's image, after any resampling.

    Planes that are read from a volume's file are cleaned as the volume that they make: handlers
    that are listed later get them when all came, in their order; the image, label and logits of one
    volume are held until then. What they get has `plain`, the logits before.

    Args:
        sizes: what is done, see `Rules.of`: {"object_px": smallest object kept, "hole_px": smallest
            hole kept}, and more. None: what was chosen for the weights, if anything was.
        threshold: of the masks that are made of the predictions, as that of `AsMaskd`. Where it is
            not 0.5, a threshold that was chosen for the weights does not count.
        weights: those that predict.

    Raises:
        ConfigError: no mapping, an unknown key, a size that is no whole number from 0, or the
            threshold is not between 0 and 1.
    """

    def __init__(
        self,
        sizes: Mapping[str, Any] | None,
        threshold: float = 0.5,
        weights: LoadWeights | None = None,
    ) -> None:
        self.given = None if sizes is None else Rules.of(sizes)
        self.background = background_shift(threshold)
        self.weights = weights
        self.rules = self.given or Rules()
        self._volumes: dict[str, str] = {}
        self._expected: Counter[Any] = Counter()
        self._held: dict[Any, list[dict[str, Any]]] = {}

    def attach(self, engine: Engine) -> None:
        """Clean after every batch, unless there is nothing to do."""
        if self.given is None and self.weights is None:
            return
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._forget)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.finish)

    def start(self, engine: Engine) -> None:
        """Take up what was chosen for the weights, and which cases are planes of volumes."""
        if chosen := self.take_up():
            engine.logger.info(f"Masks are cleaned as was chosen for these weights: {chosen}.")
        engine.state.clean_up = self.rules.plain
        engine.state.shift = background_shift(self.rules.threshold)
        items = list(getattr(getattr(engine.state.dataloader, "dataset", None), "data", ()))
        of_file = volumes_of(items) if self.rules.cleans else {}
        self._volumes = of_file
        self._held = {}
        self._expected = Counter(
            (item.get("mode"), of_file[item["case"]])
            for item in items
            if of_file and item["case"] in of_file
        )

    def take_up(self) -> dict[str, Any] | None:
        """Take up the rules of weights that are loaded; return them where they were chosen."""
        chosen = None
        if self.given is None and self.weights is not None:
            chosen = chosen_rules(self.weights.recorded)
            self.rules = Rules.of(chosen or {})
        if self.background:
            self.rules = self.rules._replace(threshold=0.5)
        return chosen

    def _forget(self, engine: Engine) -> None:
        engine.state.cleaned = engine.state.late = None

    def __call__(self, engine: Engine) -> None:
        """Replace the logits of the batch by cleaned ones."""
        if not self.rules.plain:
            return
        if not self._volumes:
            output = engine.state.output
            if "pred" not in output:  # nothing of the batch could be read
                return
            output["plain"] = output["pred"]
            output["pred"] = self.clean(output["pred"])
            return
        ready: list[dict[str, Any]] = []
        for case in cases_of(engine):
            volume = self._volumes.get(case["case"])
            key = (case.get("mode"), volume or case["case"])
            held = self._held.setdefault(key, [])
            held.append(case)
            if volume is None or len(held) == self._expected[key]:
                ready += self._whole(self._held.pop(key))
        engine.state.cleaned = ready

    def finish(self, engine: Engine) -> None:
        """Give what came of volumes of which planes are missing, to handlers that stand behind."""
        engine.state.late = [one for held in self._held.values() for one in self._whole(held)]
        self._held = {}

    def _whole(self, held: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The planes of a volume, or a case by itself, cleaned."""
        if len(held) == 1:
            return [{**c, "plain": c["pred"], "pred": self.clean(c["pred"][None])[0]} for c in held]
        held = sorted(held, key=lambda case: int(case["plane"]))
        cleaned = self.clean(torch.stack([case["pred"] for case in held], -1)[None])[0]
        return [
            {**case, "plain": case["pred"], "pred": cleaned[..., place].contiguous()}
            for place, case in enumerate(held)
        ]

    def clean(self, logits: Any) -> Any:
        """Logits (B, K, *S) of whole images or volumes, or their classes, as the rules say."""
        rules, shift = self.rules, background_shift(self.rules.threshold)
        if shift and logits.is_floating_point():  # classes were told by it already
            logits = logits.float().clone()
            logits[:, 0] += shift
        if not rules.cleans:
            return logits
        return clean_logits(logits, rules.object_px, rules.hole_px, self.background, rules.largest)


def chosen_rules(facts: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was chosen for weights, of their facts; None where nothing was chosen."""
    chosen = facts.get("clean_up")
    return dict(chosen["rules"]) if isinstance(chosen, Mapping) else None


class _Kept(NamedTuple):
    """A case, or one plane of a volume: classes at each threshold, and the label, compressed."""

    plane: int
    shape: tuple[int, ...]
    preds: Sequence[bytes]
    label: bytes

    def mask(self, which: int | None) -> np.ndarray:
        """The classes at a threshold by its place, or the label."""
        packed = self.label if which is None else self.preds[which]
        return np.frombuffer(zlib.decompress(packed), np.uint8).reshape(self.shape)


class ChooseCleanUp:
    """Evaluator handler that tries how to clean masks, and keeps what raises the mean case score.

    One step after the other, in the order in which they are applied: the threshold; of each class
    the largest object alone, and a smallest size; holes. A step is kept if it raises the mean over
    the cases of their F1 (Dice), as of `case_f1`, by more than the standard error of its gain over
    the groups; so nothing is kept of one group. An empty mask of a case without foreground scores
    1, so that all steps are compared on all cases. Planes that are read from a volume's file are
    tried as the volume that they make. What was kept goes into the weights' file, as its fact
    ``clean_up``: {rules, steps: [{step, score, kept}], score_before, score, cases, groups, split}.

    Args:
        weights: those that are evaluated.
        classes: number of classes K with the background.

    Attributes:
        chosen: the fact, when the run is complete.

    Raises:
        DataError: while running: the cases are slices with files of their own, of which no volumes
            are made, some are not those by which the training chose the weights, or no case has a
            score.
    """

    def __init__(self, weights: LoadWeights, classes: int) -> None:
        self.weights = weights
        self.classes = classes
        self.chosen: dict[str, Any] = {}
        self._cases: dict[str, list[_Kept]] = {}
        self._names: dict[str, dict[str, str]] = {}
        self._volumes: dict[str, str] = {}
        self._whole: set[str] = set()
        self._objects: dict[tuple[str, int], tuple[np.ndarray, ...]] = {}

    def attach(self, engine: Engine) -> None:
        """Look at every batch; choose at the end."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)
        engine.add_event_handler(Events.COMPLETED, self.choose)

    def start(self, engine: Engine) -> None:
        """Learn which cases are planes of volumes."""
        items = engine.state.dataloader.dataset.data
        self._cases, self._names, self._objects = {}, {}, {}
        self._volumes = volumes_of(items)
        self._whole = set(self._volumes.values())
        if apart := [i["case"] for i in items if "plane" in i and i["case"] not in self._volumes]:
            raise DataError(
                f"{listing(apart, 3)}: slices with files of their own, while masks of volumes are "
                "to be cleaned as a whole; train on slices that are read from the volumes "
                "(metaseg_monai.tables.slices), or set clean_up yourself"
            )
        refuse_others(self.weights, items, self._volumes)

    def __call__(self, engine: Engine) -> None:
        """Keep the classes of the batch at every threshold."""
        for case in cases_of(engine):
            name = self._volumes.get(case["case"], case["case"])
            self._names[name] = {"case": name, "group": case["group"], "domain": case["domain"]}
            self._cases.setdefault(name, []).append(_kept(case))

    def choose(self, engine: Engine) -> None:
        """Try the steps, and write what is kept."""
        rules, steps = Rules(), list[dict[str, Any]]()
        if self._scores(rules).isna().all():
            raise DataError(
                "no validation case has a score, as labels and masks are empty; nothing was chosen"
            )
        scores = before = self._scores(rules).fillna(1.0)
        for tried in self._steps():
            named = [(one, self._scores(one).fillna(1.0)) for one in tried(rules)]
            best, of_best = max(named, key=lambda pair: pair[1].mean())
            if best == rules:
                continue
            kept = self._raises(of_best - scores)
            changed = {k: v for k, v in best.plain.items() if rules.plain.get(k) != v}
            steps.append({"step": changed, "score": round(of_best.mean(), 6), "kept": kept})
            rules, scores = (best, of_best) if kept else (rules, scores)
        groups = {names["group"] for names in self._names.values()}
        if len(groups) < FEW:
            logger.warning(
                "a clean-up is chosen by %d group(s) of validation cases, which may be chance",
                len(groups),
            )
        self.chosen = {
            "rules": rules.plain,
            "steps": steps,
            "score_before": round(before.mean(), 6),
            "score": round(scores.mean(), 6),
            "cases": len(self._cases),
            "groups": len(groups),
            "split": "val",
        }
        write_fact(self.weights.path, "clean_up", self.chosen)

    def _raises(self, gain: "pd.Series[Any]") -> bool:
        """Whether cases gain more than the standard error over their groups."""
        groups = gain.groupby([self._names[str(case)]["group"] for case in gain.index]).mean()
        error = groups.std(ddof=1) / len(groups) ** 0.5  # NaN of one group
        return bool(gain.mean() > LEAST and groups.mean() > error)

    def _steps(self) -> Iterator[Any]:
        """Each step as what it makes of rules: the candidates."""
        yield lambda rules: [rules._replace(threshold=one) for one in THRESHOLDS if one != 0.5]
        for number in range(1, self.classes):
            yield lambda rules, n=number: [rules._replace(largest=(*rules.largest, n))]
            yield lambda rules, n=number: [
                rules._replace(object_px={**_sizes(rules), n: size}) for size in OBJECTS_PX
            ]
        yield lambda rules: [rules._replace(hole_px=size) for size in HOLES_PX]

    def _scores(self, rules: Rules) -> "pd.Series[Any]":
        """The score of each case whose mask is cleaned so, by its name; NaN where it has none."""
        rows = []
        for name, names in self._names.items():
            for number, cells in enumerate(self._counts(name, rules), 1):
                told = dict(zip(("tp", "fp", "fn"), map(int, cells), strict=True))
                rows.append({**names, "class": number, **told})
        return case_f1(pd.DataFrame(rows)).set_index("case")["f1"].reindex(list(self._names))

    def _counts(self, name: str, rules: Rules) -> list[Any]:
        """True and false positives and false negatives of each class of a case."""
        which = THRESHOLDS.index(rules.threshold)
        if rules.hole_px > 1:
            mask = clean_up(self._mask(name, which), _sizes(rules), rules.hole_px, rules.largest)
            pred, label = (torch.from_numpy(a)[None] for a in (mask, self._mask(name, None).copy()))
            return list(count_pixels(pred, label, self.classes)[0, :, :3].tolist())
        if (name, which) not in self._objects:
            self._objects[name, which] = self._measured(name, which)
        of, sizes, hits, totals = self._objects[name, which]
        counts = []
        for number in range(1, self.classes):  # what is removed becomes background: no class gains
            own = np.flatnonzero(of == number)
            if number in rules.largest and own.size:
                own = own[[sizes[own].argmax()]]
            own = own[sizes[own] >= _sizes(rules).get(number, 0)]
            tp = hits[own].sum()
            counts.append((tp, sizes[own].sum() - tp, totals[number] - tp))
        return counts

    def _measured(self, name: str, which: int) -> tuple[np.ndarray, ...]:
        """Of each object its class, pixels and those that are right; of each class its pixels."""
        mask, label = self._mask(name, which), self._mask(name, None)
        parts, of, sizes = objects_of(mask)
        right = np.bincount(parts.ravel(), (mask == label).ravel(), minlength=len(of))
        return of, sizes, right, np.bincount(label.ravel(), minlength=self.classes)

    def _mask(self, name: str, which: int | None) -> np.ndarray:
        """The classes of a case or volume at a threshold by its place, or its label."""
        kept = sorted(self._cases[name], key=lambda one: one.plane)
        if name not in self._whole:
            return kept[0].mask(which)
        return np.stack([one.mask(which) for one in kept], -1)


def refuse_others(weights: LoadWeights, items: Sequence[Case], volumes: Mapping[str, str]) -> None:
    """Refuse validation cases of other splits of the training, which tests may be about.

    Args:
        weights: of the training.
        items: the cases.
        volumes: of the cases that are planes, see `volumes_of`.

    Raises:
        DataError: some are not those by which the training chose the weights; names them.
    """
    if (known := weights.trained_on()) is None:
        logger.warning(
            "%s: does not tell by which images the weights were chosen; test on none of these",
            weights.path,
        )
        return
    by, files = known.columns[0], dict[tuple[str, ...], str]()
    for item in items:
        files[image_files(item)] = str(volumes.get(item["case"], item["case"]))
    digests = (
        [of_files(image) for image in files]
        if by == OF_FILES
        else file_digests([*files], strict=False)
    )
    chosen_by = set(known.loc[known["split"] == "val", by]) | {""}  # what cannot be read
    if strange := [
        case
        for digest, case in zip(digests, files.values(), strict=True)
        if digest not in chosen_by
    ]:
        raise DataError(
            f"{listing(strange, 3)}: not among the images by which the training chose "
            f"{weights.path}, so a test may be about them or the training has seen them; "
            "give the data of the training"
        )


def _sizes(rules: Rules) -> dict[int, int]:
    return dict(rules.object_px) if isinstance(rules.object_px, Mapping) else {}


def _kept(case: Case) -> _Kept:
    label = case["label"][0].cpu().numpy().astype(np.uint8)
    preds = [class_map(case["pred"], background_shift(one)) for one in THRESHOLDS]
    packed = [zlib.compress(one.astype(np.uint8).tobytes(), 1) for one in (*preds, label)]
    return _Kept(int(case.get("plane", 0)), label.shape, packed[:-1], packed[-1])
