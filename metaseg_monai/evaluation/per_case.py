"""One row a case: the handler that collects what is measured, and the reader of its tables.

An evaluation writes what it measures of every case in every test mode; scores and tables are
computed later, from these files alone.
"""

import csv
import json
import logging
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from metaseg_monai.errors import DataError
from metaseg_monai.files import (
    file_sha256,
    new_folder,
    of_cell,
    plain,
    replacing,
    set_aside,
    write_table,
)
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.metrics.calibration import bin_probabilities
from metaseg_monai.metrics.scores import COUNT_COLUMNS, case_f1
from metaseg_monai.tables.table import CLASSES, CaseTable, save_class_names
from metaseg_monai.training.checkpoints import EVALUATION, RESULTS, TRAINED_ON
from metaseg_monai.training.collate import PROBLEM
from metaseg_monai.training.processes import bare_network, own_while_running
from metaseg_monai.training.weights import LoadWeights, read_weights, weights_sha256
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
        own_while_running(engine, folder, "is writing results here")
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
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
    """Each case of the present batch, with what the evaluator made of it."""
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


class CaseCounts:
    """Measure of ``counts.csv``: a row for each case, mode and foreground class.

    Args:
        classes: number of classes K with the background.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes

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
        normal = [row for row in found if row["mode"] == "normal"]
        return {"val_mean_dice": case_f1(pd.DataFrame(normal))["f1"].mean()} if normal else {}

    def write(self, path: Path, found: list[Row]) -> list[Path]:
        """Write the table."""
        return COUNTS.write(path, found)


def read_counts(path: str | Path) -> pd.DataFrame:
    """Read a ``counts.csv``.

    Raises:
        DataError: see `read_rows`; or a domain has the name of an aggregate.
    """
    rows = read_rows(path, COUNTS)
    if reserved := set(rows["domain"]) & {"combined", "average"}:
        raise DataError(f"{path}: {reserved.pop()!r} names an aggregate; give that domain another.")
    return rows


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
        return BINS.write(path, found)


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

    def start(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Learn what the classes are, before anything is measured."""
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
        spacing, rows = dict(found), []
        for item in self.table.rows:
            row = {name: item.get(name, "") for name in PLACE}
            for name, mm in zip(SPACING, spacing.get(item["case"], [math.nan] * 3), strict=True):
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


# Which weights made which files: all files of an evaluation appear together, and are bound to them.

READY = ".evaluation"  # all files of an evaluation that are about to take their places
SEEN = {"train": "trained on", "val": "chosen by"}  # what images of a split were to the weights
WEIGHTS, LOG = "model.pt", "log.csv"
JOINS = ".joins"  # in READY: this evaluation adds to the one that is there
SAME = (
    "weights_sha256",
    "table_sha256",
    "split",
    "settings",
    "left_out",
)  # of evaluations that are merged


def results_folder(output_dir: str, split: str) -> str:
    """Where an evaluation goes: images of the training never among the results of a test.

    >>> results_folder("runs/me", "test"), results_folder("runs/me", "train")
    ('runs/me', 'runs/me/train_split')
    """
    return f"{output_dir}/{split}_split" if split in SEEN else output_dir


def home_of(results: Path) -> Path:
    """The model's folder, of the folder of an evaluation."""
    names = {Path(results_folder("", split)).name for split in SEEN}
    return results.parent if results.name in {*names, "explain"} else results


class RecordEvaluation:
    """Evaluator handler that writes ``evaluation.json``: the results belong to these weights.

    It stands behind every `PerCase` of its folder in the list of handlers, and lets them write
    when the evaluation is complete: into a folder beside, all of which then takes its place. A
    kill at any moment leaves the evaluation before, or this one, whole.

    The file holds `weights_sha256` (as in the weights' facts), `split`, `table_sha256` (of the
    table's file), `modes`, `asked` (as they were asked for), `images` (what they were to the
    weights: unseen, trained on, chosen by, or unknown), `settings`, `log_sha256` of the training's
    log beside the weights, `left_out` (why, by the names of cases that could not be read), and
    `files`: the SHA-256 by name of each. An evaluation of the same
    weights, table, split and settings in other modes is added to the one that is there; what is
    left of any other is moved to ``previous/``.

    Args:
        path: file to write, in the folder of the results.
        weights: those that are evaluated.
        table: of the run.
        split: of the table that is evaluated.
        settings: plain values that decide the results beside weights, table and modes.
        modes: as they were asked for.
    """

    def __init__(
        self,
        path: str | Path,
        weights: LoadWeights,
        table: CaseTable,
        split: str,
        settings: Mapping[str, Any] | None = None,
        modes: Sequence[str] = (),
    ) -> None:
        self.path = Path(path)
        self.weights = weights
        self.table = table
        self.split = split
        self.settings = _by_content(plain(settings or {}, "settings of an evaluation"))
        self.asked = [modes] if isinstance(modes, str) else list(modes)

    def attach(self, engine: Engine) -> None:
        """Look at the folder when the evaluation starts, write at its end."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """Let all that is measured wait for the end.

        Raises:
            DataError: the folder holds other weights.
        """
        home, digest = home_of(self.path.parent), self.weights.recorded.get("weights_sha256")
        beside = home / WEIGHTS
        if digest and beside.is_file() and read_weights(beside)[1]["weights_sha256"] != digest:
            raise DataError(
                f"{home} holds other weights than {self.weights.path}, whose results would stand "
                f"beside them; evaluate {self.weights.path.parent}, or give another --output_dir"
            )
        settle(self.path.parent)
        engine.state.together = Together(self.path.parent, [])

    def __call__(self, engine: Engine) -> None:
        """Write all files, with what an earlier evaluation found in other modes."""
        folder, table = self.path.parent, Path(self.table.path)
        waiting, engine.state.together = engine.state.together.waiting, None
        content = {
            "weights_sha256": self._weights_sha256(),
            "split": self.split,
            "images": SEEN.get(self.split) or ("unseen" if self._knows_trained() else "unknown"),
            "table_sha256": file_sha256(table) if table.is_file() else None,
            "modes": list(dict.fromkeys(i["mode"] for i in engine.state.dataloader.dataset.data)),
            "asked": self.asked,
            "settings": self.settings,
            "log_sha256": log_sha256(home_of(folder)),
            "left_out": {one.case: one.problem for one in getattr(engine.state, "problems", ())},
        }
        with new_folder(folder / READY, replace=True) as part:
            written = []
            earlier = self._same(content)
            for one in waiting:
                files = list(one.measure.write(part / one.path.relative_to(folder), one.found))
                if earlier:
                    _join(one.measure, files, part, folder, content["modes"])
                written += files
            if earlier:
                (part / JOINS).touch()
                for name in set(earlier["files"]) - set(_files(part)):
                    if (folder / name).is_relative_to(folder) and ".." not in name:
                        shutil.copy2(folder / name, part / name)
                for key in ("modes", "asked"):
                    content[key] = list(dict.fromkeys([*earlier[key], *content[key]]))
            digests = {name: file_sha256(part / name) for name in _files(part) if name != JOINS}
            for file in written:
                if not file.is_relative_to(part):  # such as masks, in a folder of their own
                    digests[Path(os.path.relpath(file, folder)).as_posix()] = file_sha256(file)
            write_record(part / self.path.name, {**content, "files": dict(sorted(digests.items()))})
        settle(folder)
        done = [folder / file.relative_to(part) for file in written if file.is_relative_to(part)]
        engine.state.written = [*getattr(engine.state, "written", []), *done, self.path]

    def _same(self, content: Mapping[str, Any]) -> dict[str, Any] | None:
        """The evaluation that is in the folder, if it is intact and differs in its modes alone."""
        old = _read_json(self.path)
        other = any((old.get(key) or {}) != (content[key] or {}) for key in SAME)
        return None if other or why_changed(self.path.parent, old) else old

    def _weights_sha256(self) -> str:
        known = self.weights.recorded.get("weights_sha256")  # none where others gave the weights
        return known or weights_sha256(bare_network(self.weights.network).state_dict())

    def _knows_trained(self) -> bool:
        return self.weights.path.with_name(TRAINED_ON).is_file()


def left_out(folder: Path) -> dict[str, str]:
    """Why cases have no results, by their names, of the evaluation in a folder."""
    return dict(_read_json(folder / EVALUATION).get("left_out") or {})


def log_sha256(home: Path) -> str | None:
    """The SHA-256 of a training's log beside its weights; None where there is none."""
    return file_sha256(home / LOG) if (home / LOG).is_file() else None


def settle(folder: Path) -> None:
    """Put the files of a complete evaluation into their places, also after a kill in the midst.

    What it replaces, but for the same evaluation in fewer modes, is moved to ``previous/``.

    Args:
        folder: of the results. The file that binds them comes last.
    """
    ready, name = folder / READY, EVALUATION
    if not (ready / name).is_file():  # none, or it has its place
        shutil.rmtree(ready, ignore_errors=True)
        return
    new, old = _read_json(ready / name)["files"], _read_json(folder / name).get("files", {})
    coming = sorted(file for file in _files(ready) if file not in (name, JOINS))
    stale = {file for file in (*coming, *RESULTS) if file in coming or file not in new} - set(old)
    if not (ready / JOINS).is_file():
        stale |= {*old, name}
    aside = sorted(file for file in stale if not file.startswith(".."))
    aside.sort(key=lambda file: file == name)  # last, since it tells of the others
    if kept := set_aside(folder, aside, "evaluation"):
        logger.warning("%s: the evaluation that was there is in %s now", folder, kept)
    for file in (*coming, name):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (ready / file).replace(folder / file)
    shutil.rmtree(ready)


def check_results(folder: Path) -> dict[str, Any]:
    """Return the evaluation of a folder, whose files and weights are still those that it names.

    Args:
        folder: of results: a model's, or one such as ``train_split`` in it.

    Raises:
        DataError: nobody knows of which weights the results are, or they are not of the weights
            and the training beside them; says what to evaluate anew.
        CheckpointError: the weights beside them cannot be read.
    """
    record = read_evaluation(folder)
    if why := why_changed(folder, record):
        home = home_of(folder)
        command = "explain" if folder.name == "explain" else "evaluate"
        split = f" --split {record['split']}" if record.get("images") in SEEN.values() else ""
        raise DataError(
            f"{folder}: {why}, so it is not known whether results and weights belong together. "
            f"{command.capitalize()} anew: python -m metaseg_monai {command} {quote(str(home))}"
            f"{split}"
        )
    return record


def read_evaluation(folder: Path) -> dict[str, Any]:
    """What an evaluation wrote down of itself; empty where there is none that can be read."""
    settle(folder)
    return _read_json(folder / EVALUATION)


def add_results(folder: Path, record: Mapping[str, Any], files: Iterable[Path]) -> None:
    """Bind further files of a folder, made of its results, to the same weights."""
    digests = {file.relative_to(folder).as_posix(): file_sha256(file) for file in files}
    known = {**record["files"], **digests}
    write_record(folder / EVALUATION, {**record, "files": dict(sorted(known.items()))})


def why_changed(folder: Path, record: Mapping[str, Any]) -> str | None:
    """Why the results of a folder are not, or not known to be, of the weights beside them."""
    files, digest = record.get("files"), record.get("weights_sha256")
    if not isinstance(files, dict) or not digest:
        what = (
            "is damaged or of another version" if (folder / EVALUATION).exists() else "is missing"
        )
        return f"{EVALUATION}, which binds the results to their weights, {what}"
    for name, known in files.items():
        if not (folder / name).is_file():
            return f"{name} is gone"
        if file_sha256(folder / name) != known:
            return f"{name} has changed since the evaluation"
    for name in RESULTS:
        if name not in files and (folder / name).is_file():
            return f"{name} is not of the evaluation beside it"
    home = home_of(folder)
    if not (home / WEIGHTS).is_file():
        return None  # results go on without; nobody can have exchanged them
    facts = read_weights(home / WEIGHTS)[1]
    if facts["weights_sha256"] != digest:
        return f"{WEIGHTS} holds other weights than those that were evaluated"
    log = log_sha256(home)
    if log and not _learned(home / LOG, facts):
        return f"{LOG} is of another training than {WEIGHTS} (put back its own, or move it away)"
    if log and record.get("log_sha256") not in (None, log):
        return f"{LOG} has changed since the evaluation"
    return None


def _learned(log: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a log tells of the validation that chose the weights; True where it cannot tell."""
    best = facts.get("best") or {}
    try:
        rows = pd.read_csv(log)
        value = rows.loc[rows["epoch"] == best["epoch"], best["metric"]]
    except (KeyError, ValueError, OSError):
        return True  # a damaged log is told by who draws it
    return len(value) == 1 and math.isclose(float(value.iloc[0]), best["value"], rel_tol=1e-6)


def _files(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def _join(
    measure: Measure, files: Iterable[Path], part: Path, folder: Path, modes: Sequence[str]
) -> None:
    join = getattr(measure, "join", join_modes)
    for file in files:
        if file.is_relative_to(part) and (earlier := folder / file.relative_to(part)).is_file():
            join(file, earlier, modes)


def join_modes(path: Path, earlier: Path, modes: Sequence[str]) -> None:
    """Add to a new table the rows of an earlier one in modes that the new one has not.

    Tables without a column `mode`, and what is no table, stay as they are.

    Args:
        path: new table, which is replaced.
        earlier: table of the same columns.
        modes: of the new one.
    """
    if path.suffix != ".csv":
        return
    tables = []
    for file in (earlier, path):
        with file.open(encoding="utf-8", newline="") as stream:
            tables.append(list(csv.reader(stream)))
    (header, *before), (columns, *rows) = tables
    if "mode" not in header or header != columns:
        return
    mode = header.index("mode")
    kept = [row for row in before if row[mode] not in modes]
    order = {name: place for place, name in enumerate(dict.fromkeys(row[mode] for row in before))}
    every = sorted([*kept, *rows], key=lambda row: order.get(row[mode], len(order)))
    with replacing(path) as part, part.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([header, *every])


def _by_content(value: Any) -> Any:
    """Settings in which a file is told by its content, wherever it lies."""
    if isinstance(value, dict):
        return {key: _by_content(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_by_content(inner) for inner in value]
    if isinstance(value, str) and len(value) < 4096 and "/" in value:
        with suppress(OSError, ValueError):
            if Path(value).is_file():
                return file_sha256(value)
    return value


def _read_json(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty where there is none that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """Write what binds results to weights, in one step."""
    with replacing(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
