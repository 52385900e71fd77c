"""The results of a study's finished runs, by condition and seed, read from their files alone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from metaseg_monai.blocks import ALL_VARIANTS
from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import average_seeds, case_f1, read_counts
from metaseg_monai.study.design import EXPERTS, Study
from metaseg_monai.study.history import read_plan, read_study
from metaseg_monai.study.matrix import Run
from metaseg_monai.study.record import measured, read_record


class Replicate(NamedTuple):
    """Which of the repetitions: a training seed on the data of a data seed."""

    data_seed: int
    seed: int


@dataclass(frozen=True)
class Result:
    """What one replicate of a condition gave.

    Attributes:
        counts: per-case counts; of experts, each on the domain that it was trained on.
        folders: of its runs, by domain for experts, else under "".
    """

    counts: pd.DataFrame
    folders: Mapping[str, Path]

    @property
    def folder(self) -> Path:
        """The folder of the only run, or of the first expert."""
        return next(iter(self.folders.values()))

    def in_mode(self, mode: str) -> pd.DataFrame:
        """Counts of one test mode."""
        return self.counts[self.counts["mode"] == mode]


@dataclass(frozen=True)
class Results:
    """All results of a folder.

    Attributes:
        conditions: results by condition and replicate, in the study's order.
        missing: runs without results, each with the reason.
        study: what was planned; None for folders of single runs, for which nothing was fixed.
    """

    conditions: Mapping[str, Mapping[Replicate, Result]]
    missing: Mapping[str, str]
    study: Study | None = None

    def cases(self, condition: str) -> pd.DataFrame:
        """Per-case F1 with true metadata, averaged over seeds within each case (contract 12)."""
        return average_cases(self.by_seed(condition))

    def by_seed(self, condition: str) -> dict[Replicate, pd.DataFrame]:
        """Per-case F1 with true metadata of each replicate."""
        return {
            replicate: case_f1(result.in_mode("normal"))
            for replicate, result in self.conditions[condition].items()
        }

    def of_class(self, label_class: int | None) -> "Results":
        """The results with the counts of one class of the label only; all of them for None.

        Raises:
            DataError: the runs have no such class.
        """
        if label_class is None:
            return self
        known = sorted(set(self.first.counts["class"]))
        if label_class not in known:
            raise DataError(
                f"The protocol is about label class {label_class}, the runs have "
                f"{', '.join(map(str, known))}; mend label_class in the study."
            )
        conditions = {
            name: {
                key: replace(one, counts=one.counts[one.counts["class"] == label_class])
                for key, one in by_seed.items()
            }
            for name, by_seed in self.conditions.items()
        }
        return replace(self, conditions=conditions)

    @property
    def first(self) -> Result:
        """The first result, for what all share."""
        return next(iter(next(iter(self.conditions.values())).values()))


def average_cases(tables: Mapping[Replicate, pd.DataFrame]) -> pd.DataFrame:
    """Average case tables within each case; replicates on other data have other cases."""
    same: dict[frozenset[str], list[pd.DataFrame]] = {}
    for table in tables.values():
        same.setdefault(frozenset(table["case"]), []).append(table)
    return pd.concat([average_seeds(of_same) for of_same in same.values()], ignore_index=True)


def read_results(folder: Path) -> Results:
    """Read the finished runs of a study; results of another configuration are never among them.

    Raises:
        ConfigError: the folder holds no study.
        DataError: no run is finished, or one was evaluated without true metadata.
    """
    study = read_study(folder)
    found: dict[str, dict[Replicate, Result]] = {}
    missing: dict[str, str] = {}
    parts: dict[tuple[str, Replicate], dict[str, Path]] = {}
    planned: dict[tuple[str, Replicate], int] = {}
    for run in read_plan(folder):
        place = (run.condition, Replicate(run.data_seed, run.seed))
        planned[place] = planned.get(place, 0) + 1
        if reason := _why_missing(folder / run.folder, run):
            missing[run.name] = reason
        else:
            parts.setdefault(place, {})[run.domain or ""] = folder / run.folder
    parts, changed = _of_the_last_tables(parts, folder)
    missing |= changed
    several = _different_data(parts)
    for (condition, replicate), folders in parts.items():
        if len(folders) == planned[condition, replicate]:  # experts count only all together
            counts = _joined(folders, replicate.data_seed if several else None)
            found.setdefault(condition, {})[replicate] = Result(counts, folders)
    if not found:
        told = "; ".join(f"{name} {reason}" for name, reason in missing.items())
        raise DataError(f"No run in {folder} is finished: {told or 'none was planned'}")
    ordered = {name: found[name] for name in study.conditions if name in found}
    return Results(ordered, missing, study)


def read_single_runs(folder: Path) -> Results:
    """Read every folder with a counts.csv in a folder as a condition of one seed.

    Raises:
        DataError: there is none, or one was evaluated without true metadata.
    """
    places = {path.parent.name: path.parent for path in sorted(folder.glob("*/counts.csv"))}
    if (folder / "counts.csv").is_file():
        raise DataError(
            f"{folder} is one evaluated model; give the folder around it, {folder.resolve().parent}"
        )
    if not places:
        raise DataError(
            f"{folder} holds neither a study.json nor folders with a counts.csv; run a study, or "
            "evaluate a model with --output_dir in this folder."
        )
    known = [name for name in ALL_VARIANTS if name in places]
    order = [*known, *sorted(places.keys() - set(known))]
    only = Replicate(0, 0)
    return Results(
        {n: {only: Result(_counts(places[n]), {"": places[n]})} for n in order},
        {},
    )


Parts = dict[tuple[str, Replicate], dict[str, Path]]


def _of_the_last_tables(parts: Parts, output: Path) -> tuple[Parts, dict[str, str]]:
    """Leave out runs on an earlier content of a table than that of the run that ended last."""
    last: dict[str, tuple[str, str]] = {}
    records = {
        folder: read_record(folder) or {}
        for folders in parts.values()
        for folder in folders.values()
    }
    for record in records.values():
        at = (str(record.get("ended", "")), str(record["table_sha256"]))
        last[record["table"]] = max(last.get(record["table"], at), at)
    kept: Parts = {}
    changed = {}
    for place, folders in parts.items():
        for domain, folder in folders.items():
            record = records[folder]
            if str(record["table_sha256"]) == last[record["table"]][1]:
                kept.setdefault(place, {})[domain] = folder
            else:
                changed[str(folder.relative_to(output))] = "its table has changed since"
    return kept, changed


def _different_data(parts: Parts) -> bool:
    """Tell whether data seeds made tables of their own, so that equal names are not one case."""
    by_seed: dict[int, set[str]] = {}
    for (_, replicate), folders in parts.items():
        for folder in folders.values():
            digest = str((read_record(folder) or {})["table_sha256"])
            by_seed.setdefault(replicate.data_seed, set()).add(digest)
    first = next(iter(by_seed.values()), set())
    return any(digests != first for digests in by_seed.values())


def _joined(folders: Mapping[str, Path], data_seed: int | None) -> pd.DataFrame:
    tables = []
    for domain, folder in folders.items():
        counts = _counts(folder)
        if domain:  # an expert counts on its own domain
            counts = counts[counts["domain"] == domain]
        tables.append(counts)
    joined = pd.concat(tables, ignore_index=True)
    if data_seed is not None:  # the cases of other data are others; a patient is the same
        joined["case"] = f"data{data_seed}/" + joined["case"]
    return joined


def _counts(folder: Path) -> pd.DataFrame:
    """Read a run's counts; mode normal is what every table starts from."""
    path = folder / "counts.csv"
    counts = read_counts(path)
    if not (counts["mode"] == "normal").any():
        present = ", ".join(map(str, counts["mode"].unique())) or "none"
        raise DataError(f"{path} has no mode normal (it has {present}); evaluate with it.")
    return counts


def _why_missing(folder: Path, run: Run) -> str | None:
    """Return why a run has no results, or None where it has."""
    record: Mapping[str, Any] = read_record(folder) or {}
    if not record:
        return "not run yet"
    if record["key"] != run.key:
        return "was run with another configuration"
    if record["state"] == "failed":
        return f"failed: {record['error']}"
    if record["state"] != "finished":
        return "interrupted"
    if not (folder / "counts.csv").is_file():
        return "counts.csv is gone"
    known = record.get("measured", {})
    altered = [
        name for name, digest in measured(folder).items() if known.get(name, digest) != digest
    ]
    return f"{', '.join(altered)} is not what the run wrote" if altered else None


def is_expert(condition: str) -> bool:
    """Tell whether a condition is a set of networks, one for each domain."""
    return condition in EXPERTS
