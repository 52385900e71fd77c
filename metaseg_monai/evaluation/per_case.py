"""One row a case: the handler that collects what is measured, and the reader of its tables.

An evaluation writes what it measures of every case in every test mode; scores and tables are
computed later, from these files alone.
"""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from metaseg_monai.errors import DataError
from metaseg_monai.images.read import volumes_of
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.metrics.calibration import bin_probabilities
from metaseg_monai.metrics.scores import AGGREGATES, COUNT_COLUMNS, IMAGE_SCORES, case_f1
from metaseg_monai.rows import of_cell, write_table
from metaseg_monai.tables.table import CLASSES, CaseTable, save_class_names
from metaseg_monai.training.collate import PROBLEM
from metaseg_monai.training.processes import own_while_running
from metaseg_monai.training.weights import LoadWeights
from metaseg_monai.transforms.postprocessing import PIXELS_AT_ONCE, class_map

Case = Mapping[str, Any]
Row = Mapping[Any, Any]
NAMES = COUNT_COLUMNS[:5]  # case, group, split, mode, domain

logger = logging.getLogger(__name__)


class Measure(Protocol):
    """What `PerCase` measures.

    One that holds more than its settings has a method `start`, too, which is called with the items
    that will come; one that has `metrics` gives numbers of what was found, by name, to the engine;
    one that has `join` is called as `join_modes`, and in its place, where its file is no table.
    """

    def __call__(self, case: Case) -> Iterable[Any]:
        """What is kept of a case.

        Args:
            case: the entries of its batch (`case`, `group`, `split`, `mode`, `domain`, ...) and
                `image` (C, *S), `label` (1, *S), `pred` (K, *S), the network's output.
        """
        ...

    def write(self, path: Path, found: list[Any]) -> Iterable[Path]:
        """Write what was kept of all cases, each file in one step; return the files."""
        ...


class Together(NamedTuple):
    """What is written at once, by `RecordEvaluation`."""

    folder: Path
    waiting: list["PerCase"]


class PerCase:
    """Evaluator handler that measures every case and writes all of it when the run is complete.

    With a `RecordEvaluation` of the same folder behind it, that lets it write.

    Attributes:
        found: what was measured so far.

    Args:
        path: file to write; it appears only when every case has been measured.
        measure: called with each case, see `Measure`.
    """

    def __init__(self, path: str | Path, measure: Measure) -> None:
        self.path = Path(path)
        self.measure = measure
        self.found: list[Any] = []

    def attach(self, engine: Engine) -> None:
        """Measure after every batch of the evaluator, write at its end."""
        folder = getattr(self.measure, "folder", self.path.parent)  # of many files, or of one
        folder = getattr(self.measure, "home", folder)  # of what others do not write, beside it
        own_while_running(engine, folder, "is writing results here")
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.collect_late)
        if hasattr(self.measure, "metrics"):
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.tell)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def start(self, engine: Engine) -> None:
        """Forget an earlier evaluation."""
        self.found = []
        if hasattr(self.measure, "start"):
            dataset = getattr(engine.state.dataloader, "dataset", None)
            self.measure.start(list(getattr(dataset, "data", ())))

    def collect(self, engine: Engine) -> None:
        """Measure the cases of the batch."""
        for case in cases_of(engine):
            self.found += self.measure(case)

    def collect_late(self, engine: Engine) -> None:
        """Measure the cases that a handler before kept to the end, see `CleanUpPredictions`."""
        for case in getattr(engine.state, "late", None) or ():
            self.found += self.measure(case)

    def tell(self, engine: Engine) -> None:
        """Add the measure's metrics to those of the engine, which other handlers show."""
        engine.state.metrics |= self.measure.metrics(self.found)  # type: ignore[attr-defined]

    def write(self, engine: Engine) -> None:
        """Write the files, and tell of them in ``engine.state.written``."""
        together: Together | None = getattr(engine.state, "together", None)
        if together is not None and together.folder == self.path.parent:
            together.waiting.append(self)
            return
        files = list(self.measure.write(self.path, self.found))
        engine.state.written = [*getattr(engine.state, "written", []), *files]


def cases_of(engine: Engine) -> Iterator[dict[str, Any]]:
    """Each case of the present batch, with what the evaluator made of it.

    Where a handler before cleaned predictions of volumes, they are the cases that it gives.
    """
    if (cleaned := getattr(engine.state, "cleaned", None)) is not None:
        yield from cleaned
        return
    batch = {**engine.state.batch, **engine.state.output}
    known = {k: values for k, values in batch.items() if values is not None and k != PROBLEM}
    for place in range(len(batch["case"])):
        yield {key: values[place] for key, values in known.items()}


def names_of(case: Case) -> dict[str, str]:
    """The names by which a case is told of in a table."""
    return {name: case[name] for name in NAMES}


# What a table holds, to write it and to read it again.


class Kind(NamedTuple):
    """Which numbers a column may hold."""

    low: float = -math.inf
    high: float = math.inf
    whole: bool = False
    empty: bool = False

    def __str__(self) -> str:
        """Say it, as in "dice must be numbers from 0 to 1"."""
        told = "whole numbers" if self.whole else "numbers"
        told += f" from {self.low:g}" if self.low > -math.inf else ""
        return told + (f" to {self.high:g}" if self.high < math.inf else "")

    def holds(self, values: pd.Series) -> bool:
        """Whether a column is of this kind."""
        if values.dtype.kind not in ("iu" if self.whole else "iuf"):
            return False
        known = values.dropna() if self.empty else values
        return bool(np.isfinite(known).all() and known.between(self.low, self.high).all())


TEXT = None
NUMBER, AMOUNT, SHARE, WHOLE = Kind(), Kind(low=0), Kind(0, 1), Kind(low=0, whole=True)


@dataclass(frozen=True)
class Table:
    """The columns of a table.

    Attributes:
        of: what its rows are, as "counts".
        missing: what to say where the file is missing: how it is made.
        columns: `TEXT` or the kind of numbers, by name, in the order of the file.
        key: columns that name a row, each once.
        later: columns that earlier versions did not write, and what stands for them.
        again: what to do with a damaged table.
    """

    of: str
    missing: str
    columns: Mapping[str, Kind | None]
    key: Sequence[str] = ()
    later: Mapping[str, Any] = field(default_factory=dict)
    again: str = "evaluate again"

    @property
    def first(self) -> list[str]:
        """The columns of text with which every such table begins."""
        return list(takewhile(lambda name: self.columns[name] is TEXT, self.columns))

    def begins(self, path: Path) -> bool:
        """Whether a file begins as such a table does; one that does not is somebody's own."""
        if not path.is_file():
            return False
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline().rstrip("\r\n").split(",")[: len(self.first)] == self.first

    def write(self, path: Path, rows: Sequence[Row]) -> list[Path]:
        """Write the rows; where there are none, remove the table of an earlier evaluation.

        Args:
            path: file to write.
            rows: with the columns; numbers that do not exist, NaN, become empty cells.

        Returns:
            The file, if there is one.
        """
        if not rows:
            if self.begins(path):
                path.unlink()
            return []
        cells = [
            {name: "" if row[name] != row[name] else row[name] for name in self.columns}
            for row in rows
        ]
        return [write_table(cells, path)]


def read_rows(path: str | Path, table: Table) -> pd.DataFrame:
    """Read a table that an evaluation wrote.

    Args:
        path: the file.
        table: which columns it has; further ones are text.

    Returns:
        The rows. Text stays text, also NA and 007; empty numbers are NaN.

    Raises:
        DataError: the file is missing, damaged or another table, a number is out of its range, or
            two rows have one key.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There are no {table.of} at {path}: {table.missing}")
    numbers = {name: kind for name, kind in table.columns.items() if kind is not TEXT}
    try:
        header = pd.read_csv(path, nrows=0).columns
        rows = pd.read_csv(
            path,
            dtype=dict.fromkeys(header.difference(list(numbers)), str),
            keep_default_na=False,
            na_values={name: [""] for name, kind in numbers.items() if kind.empty},
        )
    except (OSError, ValueError) as error:  # pandas' errors of empty and broken files
        raise DataError(f"{path} is no table of {table.of} ({error}); {table.again}.") from error
    text = rows.columns.difference(list(numbers))
    rows = rows.assign(**{name: rows[name].map(of_cell) for name in text}).rename(columns=of_cell)
    later = {} if set(table.later) & set(rows.columns) else table.later
    rows = rows.assign(**later)
    lacking = [name for name in table.columns if name not in rows.columns]
    if lacking or rows.empty:
        raise DataError(
            f"{path} is no table of {table.of}: it lacks {', '.join(lacking) or 'rows'}; "
            f"{table.again}."
        )
    for name, kind in numbers.items():
        if name not in later and not kind.holds(rows[name]):
            raise DataError(f"{path}: {name} must be {kind}; {table.again}.")
    if table.key and (twice := rows.duplicated(list(table.key))).any():
        named = ", ".join(f"{name} {rows.loc[twice, name].iloc[0]}" for name in table.key)
        raise DataError(f"{path}: {named} stands there twice; {table.again}.")
    return rows


# The counts of every class, from which all scores are computed.

IMAGE_VALUES = ("absolute_error", "label_median", "label_mean", "pred_mean")
IMAGES = Table(
    "scores of images",
    "run the evaluation of this model first.",
    {
        **dict.fromkeys(NAMES, TEXT),
        **{"class": WHOLE, "channel": TEXT, "pixels": WHOLE},
        **dict.fromkeys(IMAGE_SCORES, NUMBER._replace(empty=True)),
        **dict.fromkeys(IMAGE_VALUES, NUMBER),
    },
    later={"sharpness": math.nan},  # 0.1.0 had none
)
COUNTS = Table(
    "counts",
    "run the evaluation of this model first.",
    {**dict.fromkeys(NAMES, TEXT), **dict.fromkeys(COUNT_COLUMNS[5:], WHOLE)},
)


def count_pixels(pred: Tensor, label: Tensor, classes: int) -> Tensor:
    """Count true and false positives and negatives of every foreground class in every image.

    Args:
        pred: predicted classes (B, *S).
        label: target classes (B, *S).
        classes: number of classes K with the background, which is class 0.

    Returns:
        int64 (B, K - 1, 4): tp, fp, fn, tn of the classes 1 to K - 1.

    >>> count_pixels(torch.tensor([[1, 1, 0]]), torch.tensor([[1, 0, 1]]), classes=2).tolist()
    [[[1, 1, 1, 0]]]
    """
    if pred.shape != label.shape:
        raise DataError(f"prediction {tuple(pred.shape)} and target {tuple(label.shape)} differ")
    counts = torch.zeros(len(pred), classes - 1, 4, dtype=torch.int64, device=pred.device)
    parts = (one.flatten(1).split(PIXELS_AT_ONCE, dim=1) for one in (pred, label))
    for found, true in zip(*parts, strict=True):  # so that large images take little memory
        for number in range(1, classes):
            hit, truth = found == number, true == number
            cells = [hit & truth, hit & ~truth, ~hit & truth, ~hit & ~truth]
            counts[:, number - 1] += torch.stack([cell.sum(1) for cell in cells], dim=1)
    return counts


def by_volume(
    rows: Sequence[Row], volumes: Mapping[str, str], key: Sequence[str], sums: Sequence[str]
) -> list[Row]:
    """Add up the rows of the planes of a volume, whose name becomes the case's.

    Args:
        rows: of cases, in any order.
        volumes: the volume of each case that is a plane of one (see `volumes_of`).
        key: columns that tell rows of one case apart.
        sums: columns that are added up.

    >>> rows = [{"case": "a_0", "class": 1, "tp": 2}, {"case": "a_1", "class": 1, "tp": 3}]
    >>> by_volume(rows, {"a_0": "a", "a_1": "a"}, ["class"], ["tp"])
    [{'case': 'a', 'class': 1, 'tp': 5}]
    """
    whole: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        name = volumes.get(row["case"], row["case"])
        at = (name, row["case"] in volumes, *(row[column] for column in key))
        if at in whole:
            added = {column: whole[at][column] + row[column] for column in sums}
            whole[at] = {**whole[at], **added}
        else:
            whole[at] = {**row, "case": name}
    return list(whole.values())


class CaseCounts:
    """Measure of ``counts.csv``: a row for each case, mode and foreground class.

    Planes that are read from a volume's file make one case, the volume.

    Args:
        classes: number of classes K with the background.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.volumes: dict[str, str] = {}

    def start(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Learn which cases are planes of volumes."""
        self.volumes = volumes_of(items)

    def __call__(self, case: Case) -> Iterator[Row]:
        """The counts of each class."""
        pred, label = torch.from_numpy(class_map(case["pred"])), case["label"][0].cpu()
        for number, counts in enumerate(
            count_pixels(pred[None], label[None], self.classes)[0].tolist(), 1
        ):
            cells = dict(zip(("tp", "fp", "fn", "tn"), counts, strict=True))
            yield {**names_of(case), "class": number, **cells}

    def metrics(self, found: list[Row]) -> dict[str, float]:
        """The mean F1 (Dice) of the cases under true metadata, as of `case_mean_f1`."""
        normal = [row for row in self._whole(found) if row["mode"] == "normal"]
        return {"val_mean_dice": case_f1(pd.DataFrame(normal))["f1"].mean()} if normal else {}

    def write(self, path: Path, found: list[Row]) -> list[Path]:
        """Write the table."""
        return COUNTS.write(path, self._whole(found))

    def _whole(self, found: list[Row]) -> list[Row]:
        return by_volume(found, self.volumes, ("mode", "class"), COUNT_COLUMNS[6:])


def read_counts(path: str | Path) -> pd.DataFrame:
    """Read a ``counts.csv``: counts of pixels, or of labels that are images, scores of these.

    The latter (`IMAGES`) have a row for each case, mode and channel of the label, which `class`
    numbers and `channel` names.

    Raises:
        DataError: see `read_rows`; or a domain has the name of an aggregate.
    """
    rows = read_rows(path, IMAGES if _begins_as_images(Path(path)) else COUNTS)
    if reserved := set(rows["domain"]) & AGGREGATES:
        raise DataError(f"{path}: {reserved.pop()!r} names an aggregate; give that domain another.")
    return rows


def _begins_as_images(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open(encoding="utf-8", errors="replace") as file:
        return IMAGE_SCORES[0] in file.readline().strip().split(",")


# Whether predicted probabilities can be taken at their word.

BIN_NUMBERS = ("class", "bin", "pixels", "confidence", "positives", "inside")
BINS = Table(
    "calibration bins",
    "evaluate this model in mode normal first.",
    {
        **dict.fromkeys(NAMES, TEXT),
        **dict.fromkeys(BIN_NUMBERS, WHOLE),
        **dict.fromkeys(("confidence", "inside"), AMOUNT),
    },
    later={"mode": "normal", "inside": math.nan},  # 0.1.0 had neither
)


class CalibrationBins:
    """Measure of ``calibration.csv``: a row for each case, mode, class and bin of 0.1 with pixels.

    Every mode is counted. A probability is judged under true metadata, in mode ``normal``; the
    other modes tell how much of it a foreign value takes (paper 3.2).

    Args:
        classes: number of classes K with the background.

    Raises:
        DataError: while running: the prediction has another number of channels.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.volumes: dict[str, str] = {}

    def start(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Learn which cases are planes of volumes."""
        self.volumes = volumes_of(items)

    def __call__(self, case: Case) -> Iterator[Row]:
        """The filled bins of each class."""
        pred = case["pred"]
        if len(pred) != self.classes:
            raise DataError(
                f"{case['case']}: the prediction has {len(pred)} channels for {self.classes} "
                "classes; set classes to what the network predicts."
            )
        sums = bin_probabilities(pred[None], case["label"])[0].tolist()
        for number, of_class in enumerate(sums, 1):
            for place, (pixels, confidence, positives, inside) in enumerate(of_class):
                if pixels:
                    cells = (number, place, int(pixels), confidence, int(positives), inside)
                    told = zip(BIN_NUMBERS, cells, strict=True)
                    yield {**names_of(case), **dict(told)}

    def write(self, path: Path, found: list[Row]) -> list[Path]:
        """Write the table."""
        return BINS.write(
            path, by_volume(found, self.volumes, ("mode", "class", "bin"), BIN_NUMBERS[2:])
        )


def read_calibration(path: str | Path, mode: str | None = "normal") -> pd.DataFrame:
    """Read a ``calibration.csv``: one row for each case, mode, foreground class and filled bin.

    ``pixels`` is the number of pixels in the bin, ``confidence`` the sum of their probabilities,
    ``positives`` the number of those that are of the class and ``inside`` the sum of the
    probabilities of these. Earlier files tell of mode ``normal`` alone and nothing of ``inside``,
    which is NaN then.

    Args:
        path: the file.
        mode: the rows of this test mode; None for those of all.

    Raises:
        DataError: see `read_rows`.
    """
    rows = read_rows(path, BINS)
    return rows if mode is None else rows[rows["mode"] == mode].reset_index(drop=True)


# What is known of every case beside its image, by which reports split and audit.

SPACING = ("spacing_z_mm", "spacing_y_mm", "spacing_x_mm")
PLACE = ("case", "group", "split", "volume", "plane")
CASES = Table(
    "cases",
    "evaluate again.",
    {**dict.fromkeys(PLACE, TEXT), **dict.fromkeys(SPACING, NUMBER._replace(empty=True))},
)


class KnownOfCases:
    """Measure of ``cases.csv``: a row for each case of all splits of the table.

    Beside names and place it has one column for each field of the schema, with the raw value,
    empty where it is missing. The spacing is that of the pixels that were counted, after any
    resampling, and empty for cases that were not evaluated or whose pixel size is unknown. That of
    planes is empty for images that are no slice; so a case of whole voxels without a plane is a
    volume.
    ``schema.json`` is written beside it, and ``classes.json``, empty where classes have no names.

    Args:
        table: of the run.
        schema: whose fields become columns.
        weights: those that are evaluated, which know what their classes are; None for nobody.
    """

    def __init__(
        self,
        table: CaseTable,
        schema: MetadataSchema,
        weights: LoadWeights | None = None,
    ) -> None:
        self.table = table
        self.schema = schema
        self.weights = weights
        self.class_names = dict(table.class_names)
        self.volumes: dict[str, str] = {}

    def start(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Learn what the classes are, before anything is measured."""
        self.volumes = volumes_of(self.table.rows)
        if self.weights is not None:
            self.class_names = self.weights.class_names(self.table.class_names)

    def __call__(self, case: Case) -> Iterator[tuple[str, list[float]]]:
        """The case's name and the spacing of its pixels."""
        if "spacing_mm" in case:
            sides = case["spacing_mm"].tolist()
            if case["image"].ndim == 3 and "plane" not in case:  # (C, H, W)
                sides[0] = math.nan
            yield case["case"], sides

    def write(self, path: Path, found: list[tuple[str, list[float]]]) -> list[Path]:
        """Write the table and what its columns and classes mean."""
        spacing = {self.volumes.get(case, case): sides for case, sides in found}
        rows, told = [], set[str]()
        for item in self.table.rows:
            row = {name: item.get(name, "") for name in PLACE}
            if item["case"] in self.volumes:
                row |= {"case": self.volumes[item["case"]], "volume": "", "plane": ""}
            if row["case"] in told:  # another plane of a volume, or object of an image
                continue
            told.add(row["case"])
            for name, mm in zip(SPACING, spacing.get(row["case"], [math.nan] * 3), strict=True):
                row[name] = "" if math.isnan(mm) else f"{mm:.9g}"
            for known in self.schema.fields:
                raw = item["metadata"].get(known.name)
                row[known.name] = "" if known.is_missing(raw) else raw
            rows.append(row)
        files = [path.with_name("schema.json"), path.with_name(CLASSES)]
        self.schema.save(files[0])
        save_class_names(self.class_names, files[1])
        return [write_table(rows, path), *files]


def read_cases(path: str | Path) -> pd.DataFrame:
    """Read a ``cases.csv``; metadata stay text, spacings are numbers (NaN where unknown).

    Raises:
        DataError: see `read_rows`.
    """
    return read_rows(path, CASES)
