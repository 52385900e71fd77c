"""Which weights made which files: those of an evaluation appear together, bound to its weights."""

import csv
import hashlib
import json
import logging
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shlex import quote
from typing import Any, TypeGuard

import pandas as pd
from ignite.engine import Engine, Events

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.per_case import Measure, Together
from metaseg_monai.files import (
    content_sha256,
    file_sha256,
    new_folder,
    plain,
    read_json,
    replacing,
    set_aside,
    write_json,
)
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.owners import owned
from metaseg_monai.tables.check import image_files
from metaseg_monai.tables.table import CaseTable
from metaseg_monai.training.processes import bare_network
from metaseg_monai.training.weights import (
    EVALUATION,
    RESULTS,
    TRAINED_ON,
    LoadWeights,
    read_weights,
    weights_sha256,
)

logger = logging.getLogger(__name__)

READY = ".evaluation"  # all files of an evaluation that are about to take their places
SEEN = {"train": "trained on", "val": "chosen by"}  # what images of a split were to the weights
WEIGHTS, LOG = "model.pt", "log.csv"
JOINS = ".joins"  # in READY: this evaluation adds to the one that is there
SAME = (
    "weights_sha256",
    "table_sha256",
    "data_sha256",
    "split",
    "settings",
    "left_out",
    "clean_up",
    "conformal",
)  # of evaluations that are merged


def results_folder(output_dir: str, split: str) -> str:
    """Where an evaluation goes: images of the training never among the results of a test.

    >>> results_folder("runs/me", "test"), results_folder("runs/me", "train")
    ('runs/me', 'runs/me/train_split')
    """
    return f"{output_dir}/{split}_split" if split in SEEN else output_dir


def home_of(results: Path) -> Path:
    """The model's folder, of the folder of an evaluation; whatever they are called."""
    if (results / WEIGHTS).is_file():
        return results
    names = {Path(results_folder("", split)).name for split in SEEN}
    return results.parent if results.name in {*names, "explain"} else results


class RecordEvaluation:
    """Evaluator handler that writes ``evaluation.json``: the results belong to these weights.

    It stands behind every `PerCase` of its folder in the list of handlers, and lets them write
    when the evaluation is complete: into a folder beside, all of which then takes its place. A
    kill at any moment leaves the evaluation before, or this one, whole.

    The file holds `weights_sha256` (as in the weights' facts), `model` (the SHA-256 of the file of
    the weights beside, and of its facts what a report asks), `split`, `table_sha256` (of the
    table's file), `data_sha256` (of the files of images and labels), `modes`, `asked` (as they were
    asked for), `images` (what they were to the weights: unseen, trained on, chosen by, or unknown),
    `settings`, `clean_up` (what was done to the masks, see `CleanUpPredictions`), `conformal` (the
    SHA-256 of the calibration that the weights hold), `log_sha256` of
    the training's log beside the weights, `soft` (how many cases had a distribution for a field, by
    how it was taken: ``{field: {"mixed" or "drawn": cases}}``),
    `left_out` (why, by the names of cases that could not be read), `variant` of the network, and
    `files`: the SHA-256 by name of each; of a fold also `fold`, and `folds` that there are, of an
    ensemble `members`: folder and weights of each. An
    evaluation of the same weights, table, images, labels, split and settings in other modes is
    added to the one that is there; what is left of any other is moved to ``previous/``.

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
        self.model: dict[str, Any] = {}

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
        self.model = _model_of(home)
        if digest and self.model.get("weights_sha256", digest) != digest:
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
            "model": self.model,
            "split": self.split,
            "images": SEEN.get(self.split) or ("unseen" if self._knows_trained() else "unknown"),
            "table_sha256": file_sha256(table) if table.is_file() else None,
            "data_sha256": data_sha256(engine.state.dataloader.dataset.data),
            "modes": list(dict.fromkeys(i["mode"] for i in engine.state.dataloader.dataset.data)),
            "asked": self.asked,
            "settings": self.settings,
            "log_sha256": log_sha256(home_of(folder)),
            "left_out": {one.case: one.problem for one in getattr(engine.state, "problems", ())},
        }
        if self.table.fold is not None:
            content |= {"fold": self.table.fold, "folds": list(self.table.folds)}
        if variant := self.weights.recorded.get("variant"):
            content["variant"] = variant
        if self.weights.members:
            content["members"] = self._members(home_of(folder).resolve())
        if cleaned := getattr(engine.state, "clean_up", None):
            content["clean_up"] = cleaned
        if (calibrated := self.weights.recorded.get("conformal")) is not None:
            text = json.dumps(calibrated, sort_keys=True)
            content["conformal"] = hashlib.sha256(text.encode()).hexdigest()
        if soft := _soft(engine.state.dataloader.dataset.data, self.weights.schema):
            content["soft"] = soft
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
            write_json(part / self.path.name, {**content, "files": dict(sorted(digests.items()))})
        settle(folder)
        done = [folder / file.relative_to(part) for file in written if file.is_relative_to(part)]
        engine.state.written = [*getattr(engine.state, "written", []), *done, self.path]

    def _same(self, content: Mapping[str, Any]) -> dict[str, Any] | None:
        """The evaluation that is in the folder, if it is intact and differs in its modes alone."""
        old = _read_json(self.path)
        other = any((old.get(key) or {}) != (content.get(key) or {}) for key in SAME)
        return None if other or why_changed(self.path.parent, old) else old

    def _weights_sha256(self) -> str:
        known = self.weights.recorded.get("weights_sha256")  # none where others gave the weights
        return known or weights_sha256(bare_network(self.weights.network).state_dict())

    def _members(self, home: Path) -> list[dict[str, Any]]:
        """The folders of an ensemble, and what tells whether their weights are still the same."""
        places = [one.path.parent for one in (self.weights, *self.weights.members)]
        named = [Path(os.path.relpath(place.resolve(), home)).as_posix() for place in places]
        return [{"folder": n, **_model_of(place)} for n, place in zip(named, places, strict=True)]

    def _knows_trained(self) -> bool:
        every = [self.weights, *self.weights.members]
        known = all(one.path.with_name(TRAINED_ON).is_file() for one in every)
        return known and self.weights.knows_all_trained


def _model_of(home: Path) -> dict[str, Any]:
    """What tells, without reading the weights beside again, whether they are still the same."""
    if not (home / WEIGHTS).is_file():
        return {}
    facts = read_weights(home / WEIGHTS)[1]
    asked = {key: facts.get(key) for key in ("weights_sha256", "best")}
    return {"sha256": file_sha256(home / WEIGHTS), **asked}


def data_sha256(items: Iterable[Mapping[str, Any]]) -> str | None:
    """What tells the images and labels of cases, wherever they lie; None where none is a file."""
    cases: dict[str, list[str]] = {}
    for item in items:
        given = [item[key] for key in ("image", "label", "mask") if key in item]
        files = [one for one in given if isinstance(one, str | Path | list | tuple)]
        cases[str(item.get("case"))] = [x for one in files for x in image_files({"image": one})]
    known = {file: content_sha256(file) for files in cases.values() for file in files}
    told = [[case, *(known[file] for file in files)] for case, files in sorted(cases.items())]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest() if known else None


def _soft(
    items: Iterable[Mapping[str, Any]], schema: MetadataSchema | None
) -> dict[str, dict[str, int]]:
    """How many cases had a distribution for a field, by how it was taken."""
    found: dict[str, dict[str, int]] = {}
    if schema is None:
        return found
    raw = {item["case"]: item.get("metadata") or {} for item in items}
    for values in raw.values():
        for name, how in schema.softness(values).items():
            of_field = found.setdefault(name, {})
            of_field[how] = of_field.get(how, 0) + 1
    return found


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
    """What an evaluation wrote down of itself; empty where there is none that can be read.

    Raises:
        DataError: another process is just putting its files into their places.
    """
    if (folder / READY).exists():
        with owned(folder, "is putting an evaluation into its place"):
            settle(folder)
    return _read_json(folder / EVALUATION)


def add_results(folder: Path, record: Mapping[str, Any], files: Iterable[Path]) -> None:
    """Bind further files of a folder, made of its results, to the same weights."""
    digests = {file.relative_to(folder).as_posix(): file_sha256(file) for file in files}
    known = {**record["files"], **digests}
    write_json(folder / EVALUATION, {**record, "files": dict(sorted(known.items()))})


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
    if not (home / WEIGHTS).is_file():  # results go on without; nobody can have exchanged them
        return _why_members_changed(home, record)
    facts = record.get("model")
    if not _is_whole(facts) or file_sha256(home / WEIGHTS) != facts["sha256"]:
        facts = read_weights(home / WEIGHTS)[1]  # else they are as they were then
    if facts["weights_sha256"] != digest:
        return f"{WEIGHTS} holds other weights than those that were evaluated"
    log = log_sha256(home)
    if log is None and (home / LOG).exists():
        return f"{LOG} is no file"
    if log and not _learned(home / LOG, facts):
        return f"{LOG} is of another training than {WEIGHTS} (put back its own, or move it away)"
    if log and record.get("log_sha256") not in (None, log):
        return f"{LOG} has changed since the evaluation"
    return None


def _why_members_changed(home: Path, record: Mapping[str, Any]) -> str | None:
    """Why the results of an ensemble are not of the weights that lie in its members' folders."""
    for told in record.get("members") or ():
        file = home / str(told.get("folder")) / WEIGHTS
        if not file.is_file() or file_sha256(file) == told.get("sha256"):
            continue
        if read_weights(file)[1]["weights_sha256"] != told.get("weights_sha256"):
            return f"{file} holds other weights than the member of the ensemble that was evaluated"
    return None


def _is_whole(facts: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether what an evaluation wrote down of the weights has all that is asked of it."""
    if not isinstance(facts, dict) or not {"sha256", "weights_sha256"} <= facts.keys():
        return False
    best = facts.get("best")
    kinds = {"metric": str, "value": float | int, "epoch": int}
    return best is None or (
        isinstance(best, dict) and all(isinstance(best.get(n), k) for n, k in kinds.items())
    )


def _learned(log: Path, facts: Mapping[str, Any]) -> bool:
    """Whether a log tells of the validation that chose the weights; True where it cannot tell."""
    best = facts.get("best") or {}
    try:
        rows = pd.read_csv(log)
        values = [float(one) for one in rows.loc[rows["epoch"] == best["epoch"], best["metric"]]]
    except (KeyError, ValueError, OSError):
        return True  # a damaged log is told by who draws it
    return len(values) == 1 and math.isclose(values[0], best["value"], rel_tol=1e-6)


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
        content = read_json(path)
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
