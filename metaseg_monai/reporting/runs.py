"""The results of finished runs as tidy frames; every number of a report is a groupby of them."""

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from dataclasses import field as attribute
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pandas as pd

from metaseg_monai.bundle.overrides import across_folds
from metaseg_monai.errors import ConfigError, DataError, MetasegError, listing
from metaseg_monai.evaluation import read_cases, read_counts, read_volumes
from metaseg_monai.evaluation.per_case import PLACE, SPACING
from metaseg_monai.evaluation.provenance import SAME, SEEN, WEIGHTS, check_results, read_evaluation
from metaseg_monai.files import read_json
from metaseg_monai.metadata.fields import AnyField, Continuous, Ordinal, read_number
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.metrics.scores import Score, case_scores, label_sizes, score_of
from metaseg_monai.networks.variants import ALL_VARIANTS, METADATA_VARIANTS
from metaseg_monai.study.design import ELSEWHERE, EXPERTS, Study
from metaseg_monai.study.matrix import Run, enough_epochs
from metaseg_monai.study.record import read_plan, read_record, read_study
from metaseg_monai.tables.table import CLASSES

REPLICATE = ["data_seed", "seed"]
TRAINING = ["condition", *REPLICATE]
NAMED_FOLD = re.compile(r"(?P<before>.*)fold(?P<fold>\d+)(?P<after>.*)")  # the last one
Training = tuple[str, int, int]
COUNTS, CASES, SCHEMA, VOLUMES = "counts.csv", "cases.csv", "schema.json", "volumes.csv"


class Replicate(NamedTuple):
    """Which of the repetitions: a training seed on the data of a data seed."""

    data_seed: int
    seed: int


class Finished(NamedTuple):
    """A finished run; ``domain`` is empty unless it is an expert, ``fold`` None without folds."""

    condition: str
    data_seed: int
    seed: int
    domain: str
    folder: Path
    fold: int | None = None

    @property
    def training(self) -> Training:
        """What it is a run of: all experts, and all folds, together are one training."""
        return self[:3]


@dataclass(frozen=True)
class Results:
    """All results of a folder, in frames that have the columns `TRAINING`.

    Conditions stand in the study's order in all of them, trainings in the order of its plan.

    Attributes:
        counts: per-case counts as of `read_counts`; of experts, each on the domain that it was
            trained on; of folds, each on its own cases.
        runs: which there are, in the same order.
        missing: runs without results, each with the reason.
        study: what was planned; None for folders of single runs, for which nothing was fixed.
        several_data: whether data seeds made tables of their own, so that equal names are not one
            case: cases and volumes are then named ``data<seed>/...``, groups (patients) are not.
        short: conditions with a training of fewer steps than their bundle plans, each with the
            fewest epochs of one and those that the planned steps take.
    """

    counts: pd.DataFrame
    runs: Sequence[Finished]
    missing: Mapping[str, str]
    study: Study | None = None
    several_data: bool = False
    short: Mapping[str, tuple[int, int]] = attribute(default_factory=dict)

    @cached_property
    def conditions(self) -> list[str]:
        """Names of those with results."""
        return list(self.counts["condition"].unique())

    @cached_property
    def normal(self) -> pd.DataFrame:
        """The counts with true metadata."""
        return self.counts[self.counts["mode"] == "normal"]

    @cached_property
    def f1(self) -> pd.DataFrame:
        """The score of each training and case with true metadata: ``case, group, domain, f1``.

        It is called f1 whatever `score` is.
        """
        return each_training(self.normal, case_scores)

    @cached_property
    def hardly_begun(self) -> list[str]:
        """The conditions of whose trainings nothing is concluded, as they have hardly begun."""
        short = self.short
        return [
            n for n in self.conditions if n in short and short[n][0] < enough_epochs(short[n][1])
        ]

    @property
    def untested_folds(self) -> list[str]:
        """Those of `missing` that are folds of the table, and none of the study's."""
        return [name for name in self.missing if re.fullmatch(r"fold \d+", name)]

    def not_concluded(self, *names: str) -> str:
        """Why nothing is concluded of some conditions: one had hardly begun; "" where none had."""
        name = next((name for name in names if name in self.hardly_begun), None)
        if name is None:
            return ""
        epochs, planned = self.short[name]
        return (
            f"the training of {name} had hardly begun after {epochs} of {planned} planned epochs; "
            f"conclusions begin at {enough_epochs(planned)}"
        )

    @property
    def only_begun(self) -> bool:
        """Whether those are all."""
        return len(self.hardly_begun) == len(self.conditions)

    @cached_property
    def domain_field(self) -> str:
        """The metadata field whose values are the domains; "" where there is none."""
        told = read_evaluation(self.runs[0].folder) if self.runs else {}
        items = told.get("settings", {}).get("items") or {}
        return str(items.get("domain") or "") if isinstance(items, Mapping) else ""

    @property
    def score(self) -> Score:
        """What conditions are ranked by."""
        return score_of(self.counts)

    @cached_property
    def trainings(self) -> Mapping[str, int]:
        """Number of trainings by condition."""
        return Counter(name for name, *_ in by_training(self.counts))

    @cached_property
    def cases(self) -> pd.DataFrame:
        """What each training's run knows of its cases, see `read_cases`; no rows where it is old.

        A case that is a whole volume by itself has its own name as volume, as in `volumes`.

        Raises:
            DataError: a file is damaged, has a case twice, or lacks one that was counted.
        """
        whole = [run._replace(domain="") for run in self.runs]
        cases = replace(self, runs=whole).read(CASES, _cases, has="all")
        cases = cases.drop_duplicates([*TRAINING, "case"], ignore_index=True)  # of experts
        if cases.empty:
            return self._counted()[:0].reindex(columns=[*TRAINING, *PLACE, *SPACING])
        return cases

    @cached_property
    def volumes(self) -> pd.DataFrame:
        """Scores of volumes, see `read_volumes`; of experts none: whose a volume is is not known.

        Raises:
            DataError: a file is damaged.
        """
        runs = [
            run
            for runs in self.by_training.values()
            for run in runs
            if not any(r.domain for r in runs)
        ]
        return replace(self, runs=runs).read(VOLUMES, read_volumes)

    @property
    def normal_volumes(self) -> pd.DataFrame:
        """The rows of `volumes` with true metadata."""
        every = self.volumes
        return every if every.empty else every[every["mode"] == "normal"]

    @cached_property
    def fields(self) -> dict[str, AnyField]:
        """The metadata fields of all runs that wrote their schema, by name; the first one counts.

        Raises:
            MetadataError: a schema.json is damaged.
        """
        found: dict[str, AnyField] = {}
        for field in self._declared:
            found.setdefault(field.name, field)
        return found

    @cached_property
    def numbers(self) -> set[str]:
        """The fields whose values are numbers, as the schema of a condition says.

        A name that looks like a number, such as that of a cluster, is none: nothing is between two
        categories.
        """
        return {f.name for f in self._declared if isinstance(f, Continuous | Ordinal)}

    @cached_property
    def _declared(self) -> list[AnyField]:
        """The fields of each condition that wrote its schema, one after the other."""
        files = [run.folder / SCHEMA for run, *_ in self.first_runs.values()]
        return [f for file in files if file.is_file() for f in MetadataSchema.load(file).fields]

    @property
    def continuous(self) -> dict[str, Continuous]:
        """The fields that are quantities, by name."""
        return {n: field for n, field in self.fields.items() if isinstance(field, Continuous)}

    @cached_property
    def class_names(self) -> dict[int, str]:
        """Names of the label's foreground classes, as the data set told them; empty if unknown.

        The runs' ``classes.json`` hold them; runs that differ tell none.
        """
        told = []
        for run in self.runs:
            with suppress(OSError, ValueError, AttributeError):  # of a release before
                content = read_json(run.folder / CLASSES)
                told.append({int(number): str(name) for number, name in content.items()})
        if not told or any(one != told[0] for one in told):
            return {}
        named = told[0]
        return {number: name for number, name in named.items() if number > 0 and name.strip()}

    @cached_property
    def by_training(self) -> dict[Training, list[Finished]]:
        """The runs of each training: several where it is one of experts or of folds."""
        found: dict[Training, list[Finished]] = {}
        for run in self.runs:
            found.setdefault(run.training, []).append(run)
        return found

    @cached_property
    def first_runs(self) -> dict[str, list[Finished]]:
        """The runs of each condition's first training."""
        found: dict[str, list[Finished]] = {}
        for (condition, *_), runs in self.by_training.items():
            found.setdefault(condition, runs)
        return found

    def read(
        self,
        name: str,
        reader: Callable[[Path], pd.DataFrame],
        has: Literal["any", "all", "same"] = "any",
    ) -> pd.DataFrame:
        """The rows of one file of every run, named as in the counts; no rows where none wrote it.

        Of experts each counts on its own domain, of folds on the cases that it tested, and only
        where all of them wrote the file.

        Args:
            name: of the file.
            reader: of one such file.
            has: which cases it must have: all that were counted, or the same and no other.

        Raises:
            DataError: it lacks a case that was counted, or has another one.
        """
        tables = [pd.DataFrame(columns=TRAINING)]
        for training, runs in self.by_training.items():
            if not all((run.folder / name).is_file() for run in runs):
                continue
            rows = []
            for run in runs:
                table = reader(run.folder / name)
                if run.fold is not None and "split" in table:
                    table = table[table["split"] == "test"]
                rows.append(table[table["domain"] == run.domain] if run.domain else table)
            table = _named(pd.concat(rows), training)
            if self.several_data:
                for column in table.columns.intersection(["case", "volume"]):
                    table[column] = f"data{runs[0].data_seed}/" + table[column]
            if has != "any":
                self._refuse_others(table, training, runs[0].folder / name, has)
            tables.append(table)
        return pd.concat(tables[1:] or tables, ignore_index=True)

    def _refuse_others(self, table: pd.DataFrame, training: Training, path: Path, has: str) -> None:
        counted, own = self._counted_cases[training], set(table["case"])
        if lacking := counted - own:
            raise DataError(
                f"{path} lacks case {min(lacking)} of {COUNTS} beside it; evaluate again."
            )
        if has == "same" and (more := own - counted):
            raise DataError(
                f"{path} has case {min(more)}, which {COUNTS} beside it lacks; evaluate again."
            )

    @cached_property
    def _counted_cases(self) -> dict[Training, set[str]]:
        return {key: set(rows["case"]) for key, rows in by_training(self.counts).items()}

    def of(self, *names: str) -> "Results":
        """The results of some conditions only, in this order."""
        counts = [self.counts[self.counts["condition"] == name] for name in names]
        runs = [run for name in names for run in self.runs if run.condition == name]
        return replace(self, counts=pd.concat(counts or [self.counts[:0]]), runs=runs)

    def of_class(self, label_class: int | None) -> "Results":
        """The results with the counts of one class of the label only; all of them for None.

        Raises:
            DataError: the runs have no such class.
        """
        if label_class is None:
            return self
        known = sorted(set(self.counts["class"]))
        if label_class not in known:
            raise DataError(
                f"The protocol is about label class {label_class}, the runs have "
                f"{', '.join(map(str, known))}; mend label_class in the study."
            )
        return replace(self, counts=self.counts[self.counts["class"] == label_class])

    def modes(self, condition: str) -> list[str]:
        """The test modes of a condition."""
        return list(self.counts.loc[self.counts["condition"] == condition, "mode"].unique())

    def reads_metadata(self, condition: str) -> bool:
        """Tell whether a condition is given metadata: by its variant, or by its test modes.

        A dummy is given zeros, which is none.
        """
        own = {} if self.study is None else self.study.conditions.get(condition, {})
        of_variant = own.get("variant", condition) in METADATA_VARIANTS
        return of_variant or set(self.modes(condition)) != {"normal"}

    def counted_cases(self) -> pd.DataFrame:
        """The rows of `cases` that were counted, NaN where a run knows nothing of its cases."""
        return self._counted().merge(self.cases, how="left", on=[*TRAINING, "case"])

    def _counted(self) -> pd.DataFrame:
        return self.counts[[*TRAINING, "case"]].drop_duplicates(ignore_index=True)


def by_condition(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The rows of each condition."""
    return {str(name): rows for name, rows in table.groupby("condition", sort=False)}


def by_training(table: pd.DataFrame) -> dict[Training, pd.DataFrame]:
    """The rows of each training."""
    groups: Any = table.groupby(TRAINING, sort=False)
    return {(name, int(data), int(seed)): rows for (name, data, seed), rows in groups}


def by_replicate(table: pd.DataFrame, condition: str) -> dict[Replicate, pd.DataFrame]:
    """The rows of each training of a condition."""
    trainings = by_training(table[table["condition"] == condition])
    return {Replicate(*replicate): rows for (_, *replicate), rows in trainings.items()}


def each_training(
    table: pd.DataFrame, measure: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    """What a function makes of the rows of each training, one below the other."""
    tables = [_named(measure(rows), key) for key, rows in by_training(table).items()]
    return pd.concat(tables, ignore_index=True)


def _named(table: pd.DataFrame, training: Training) -> pd.DataFrame:
    name, data_seed, seed = training
    return table.assign(condition=name, data_seed=data_seed, seed=seed)


def average_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """F1 of cases averaged over the trainings within each (contract 12).

    Replicates on other data have other cases.

    Args:
        scores: rows as of `Results.f1`.
    """
    names = ["condition", "case", "group", "domain"]
    return scores.groupby(names, sort=False)["f1"].mean().reset_index()


def read_results(folder: Path) -> Results:
    """Read the finished runs of a study; results of another configuration are never among them.

    Experts count only all together, and runs on an earlier content of a table than that of the run
    that ended last do not.

    Raises:
        ConfigError: the folder holds no study, or one that is not that of its plan.
        DataError: no run is finished, one was evaluated without true metadata, or has results that
            are not of its weights.
    """
    study, plan = read_study(folder), read_plan(folder)
    if strange := {run.condition for run in plan} - set(study.conditions):
        raise ConfigError(
            f"{folder}: its plan has conditions that its study has not, "
            f"{listing(sorted(strange))}; start the study again."
        )
    missing: dict[str, str] = {}
    done: list[tuple[Run, dict[str, Any]]] = []
    for run in plan:
        record = read_record(folder / run.folder) or {}
        if reason := _why_missing(folder / run.folder, run, record):
            missing[run.folder] = reason
        else:
            done.append((run, record))
    ends = sorted((str(r.get("ended", "")), r["table"], r["table_sha256"]) for _, r in done)
    last = {table: digest for _, table, digest in ends}
    digests: dict[int, set[str]] = {}
    runs = []
    for run, record in done:
        digest = record["table_sha256"]
        if digest != last[record["table"]]:
            missing[run.folder] = "its table has changed since"
            continue
        if run.fold is not None:
            tested = read_evaluation(folder / run.folder)
            if tested.get("fold") != run.fold:
                missing[run.folder] = f"tested fold {tested.get('fold')} in the place of {run.fold}"
                continue
            missing |= _untested(tested, study.folds or ())
        digests.setdefault(run.data_seed, set()).add(digest)
        place = (run.condition, run.data_seed, run.seed, run.domain or "")
        runs.append(Finished(*place, folder / run.folder, run.fold))
    planned = Counter((run.condition, run.data_seed, run.seed) for run in plan)
    number = Counter(run.training for run in runs)
    order = list(study.conditions)
    whole = [run for run in runs if number[run.training] == planned[run.training]]
    if whole:
        _records([run.folder for run in whole], tuning=True)
        whole.sort(key=lambda run: order.index(run.condition))
        whole += _elsewhere(folder, study, whole, missing)
        several = len({frozenset(of_seed) for of_seed in digests.values()}) > 1
        return _counted(Results(pd.DataFrame(), whole, missing, study, several, _short(done)))
    told = "; ".join(f"{name} {reason}" for name, reason in missing.items())
    raise DataError(f"No run in {folder} is finished: {told or 'none was planned'}")


def _short(done: Sequence[tuple[Run, Mapping[str, Any]]]) -> dict[str, tuple[int, int]]:
    """The conditions with a run of fewer steps than its bundle plans, see `Results`."""
    found: dict[str, tuple[int, int]] = {}
    for run, _ in done:
        if run.planned_epochs is not None and run.epochs < run.planned_epochs:
            told = run.epochs, run.planned_epochs
            found[run.condition] = min(found.get(run.condition, told), told)
    return found


def _untested(record: Mapping[str, Any], tested: Collection[int]) -> dict[str, str]:
    """The folds of the table that nobody tests, so that their cases are in no score."""
    return {
        f"fold {fold}": "is none of the study's folds, so its cases were not tested"
        for fold in record.get("folds") or ()
        if fold not in tested
    }


def _elsewhere(
    folder: Path, study: Study, runs: Sequence[Finished], missing: dict[str, str]
) -> list[Finished]:
    """The conditions of a study that were trained elsewhere: ``elsewhere/NAME/counts.csv``.

    Each is one training, which stands beside the study's first seed. Those that the study names may
    be compared; all are rows of its tables. Those of another table than this seed's `runs`, or of
    other labels, are missing.
    """
    places = {
        path.parent.name: path.parent for path in sorted(folder.glob(f"{ELSEWHERE}/*/{COUNTS}"))
    }
    if both := sorted(places.keys() & set(study.conditions)):
        raise ConfigError(
            f"{folder / ELSEWHERE / both[0]}: a condition of the study has this name; rename it."
        )
    for name in study.elsewhere:
        if name not in places:
            missing[f"{ELSEWHERE}/{name}"] = f"has no {COUNTS}; put its results there"
    first = study.data_seeds[0], study.seeds[0]
    beside = [run.folder for run in runs if run.data_seed == first[0]]
    tables = {read_evaluation(one).get("table_sha256") for one in beside}
    labels = _labels(beside)
    for name, record in zip(tuple(places), _records(list(places.values())), strict=True):
        if (
            None not in {record.get("table_sha256"), *tables}
            and record["table_sha256"] not in tables
        ):
            why = "was tested on another table than the study, or the table has changed since"
        elif other := _other_labels(labels, places[name]):
            why = f"its labels are not those of the study ({listing(other, 3)})"
        else:
            continue
        missing[f"{ELSEWHERE}/{name}"] = f"{why}; score its masks anew"
        del places[name]
    order = [name for name in study.elsewhere if name in places]
    order += [name for name in places if name not in study.elsewhere]
    return [Finished(name, *first, "", places[name]) for name in order]


def _labels(folders: Sequence[Path]) -> "pd.Series[Any]":
    """How many pixels of each class the labels have, by case and class, of all folders."""
    tables = [read_counts(folder / COUNTS) for folder in folders]
    counts = pd.concat([one[one["mode"] == "normal"] for one in tables]) if tables else None
    if counts is None:
        return pd.Series(dtype=float)
    return label_sizes(counts).groupby([counts["case"], counts["class"]]).first()


def _other_labels(known: "pd.Series[Any]", folder: Path) -> list[str]:
    """The cases whose labels have other sizes in a folder than those that are known."""
    both = pd.concat([known, _labels([folder])], axis=1, join="inner")
    differ = both[both.iloc[:, 0] != both.iloc[:, 1]]
    return sorted({str(case) for case, _ in differ.index})


def read_single_runs(folder: Path) -> Results:
    """Read every folder with a counts.csv in a folder as a condition of one seed.

    Folders of the folds of one table, named as ``me-fold0``, ``me-fold1`` after their folds, are
    one condition, ``me``, in which each case was tested once. Folds without a folder are missing.

    What holds weights but no results is missing, and so is a second folder of the same evaluation
    (a copy, a link) or of the same weights, trained again: it would count one training twice.

    Raises:
        DataError: there is none, one was evaluated without true metadata, or has results that are
            not of its weights; or the folds of a condition are not of one table, network, number of
            members, setting of the evaluation, clean-up or set of test modes.
    """
    places = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{COUNTS}"))}
    if (folder / COUNTS).is_file():
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
    first: dict[str, tuple[str, Any]] = {}  # folder, and the log of its training
    missing = {
        path.parent.name: f"has no {COUNTS}; evaluate it"
        for path in sorted(folder.glob(f"*/{WEIGHTS}"))
        if path.parent.name not in places
    }
    runs: list[Finished] = []
    for name, record in zip(order, _records([places[name] for name in order]), strict=True):
        told = json.dumps([record["files"][COUNTS], *map(record.get, SAME)], sort_keys=True)
        other, log = first.setdefault(told, (name, record.get("log_sha256")))
        if other != name:
            missing[name] = f"is the evaluation of {other}, copied or linked"
            if log != record.get("log_sha256") and log and record.get("log_sha256"):
                missing[name] = (
                    f"was trained apart and has the weights and results of {other} (the same data, "
                    "network and seed), which would count twice; train it with another --seed"
                )
            continue
        condition, fold = _of_fold(name, record)
        if condition in places or any(r.fold == fold and r.condition == condition for r in runs):
            condition, fold = name, None  # another folder has that name, or that fold
        runs.append(Finished(condition, 0, 0, "", places[name], fold))
    return _counted(Results(pd.DataFrame(), runs, {**missing, **_of_one_kind(runs)}))


def _of_fold(name: str, record: Mapping[str, Any]) -> tuple[str, int | None]:
    """The condition of a folder, and its fold where it is named after the one that it tested."""
    named = NAMED_FOLD.fullmatch(name)
    if named is None or record.get("fold") != int(named["fold"]):
        return name, None
    return named["before"].rstrip("-_. ") + named["after"] or "all folds", int(named["fold"])


def _of_one_kind(runs: Sequence[Finished]) -> dict[str, str]:
    """Refuse folds that are no one cross-validation; return those that nobody tested."""
    missing: dict[str, str] = {}
    for condition in dict.fromkeys(run.condition for run in runs if run.fold is not None):
        folds = [run for run in runs if run.condition == condition]
        records = {run.folder: read_evaluation(run.folder) for run in folds}
        for what, key in ALIKE.items():
            told: dict[str, Path] = {}
            for folder, record in records.items():
                told.setdefault(json.dumps(key(record), sort_keys=True), folder)
            if len(told) > 1:
                raise DataError(
                    f"{condition}: its folds were tested {what} "
                    f"({listing(told.values(), 3, str)}); evaluate all alike, or name the folders "
                    "otherwise than after folds"
                )
        every = {fold for record in records.values() for fold in record.get("folds") or ()}
        for fold in sorted(every - {run.fold for run in folds}):
            missing[f"{condition}, fold {fold}"] = (
                "no folder is named after it, so its cases were not tested"
            )
    return missing


ALIKE: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {  # of the evaluations of all folds
    "on different tables": lambda record: record.get("table_sha256"),
    "of different networks": lambda record: record.get("variant"),
    "as ensembles of different size": lambda record: len(record.get("members") or ()),
    "with different settings": lambda record: _without_fold(record.get("settings")),
    "with different clean-up": lambda record: record.get("clean_up"),
    "in different modes": lambda record: sorted(record.get("modes") or ()),
}


def _without_fold(settings: Any) -> Any:
    known = dict(settings or {})
    return {**known, "cases": across_folds(known.get("cases"))}


def _records(folders: Sequence[Path], tuning: bool = False) -> list[dict[str, Any]]:
    """The evaluations; refuse those not of the weights beside them, or of images of their training.

    A study may have been run on the split val, to choose settings.
    """
    told, records = [], []
    for folder in folders:
        try:
            records.append(check_results(folder))
        except MetasegError as error:
            told.append(str(error))
            continue
        seen = records[-1].get("images")
        if seen in SEEN.values() and not (tuning and seen == SEEN["val"]):
            told.append(
                f"{folder}: tested on images that its weights were {seen}, so its scores are no "
                "test; leave it out of the report"
            )
    if told:
        raise DataError("\n".join(told))
    return records


def _counted(results: Results) -> Results:
    """The results with their counts; refuse a training that counts a case twice."""
    counts = results.read(COUNTS, _counts)
    twice = counts[counts.duplicated([*TRAINING, "case", "mode", "class"])]
    if not twice.empty:
        name, data_seed, seed, case = twice.iloc[0][[*TRAINING, "case"]]
        runs = results.by_training[str(name), int(data_seed), int(seed)]
        places = [str(run.folder) for run in runs]
        raise DataError(
            f"{name}: case {case} was tested twice ({listing(places, 5, str)}); each case counts "
            "once, so name cases uniquely, and evaluate each fold on its own cases"
        )
    return replace(results, counts=counts)


def _why_missing(folder: Path, run: Run, record: Mapping[str, Any]) -> str | None:
    if not record:
        return "not run yet"
    if record["key"] != run.key or record.get("tested", run.tested) != run.tested:
        return "was run with another configuration"
    if record["state"] == "failed":
        return f"failed: {record['error']}"
    if record["state"] != "finished":
        return "interrupted"
    if not (folder / COUNTS).is_file():
        return "counts.csv is gone"
    if read_evaluation(folder).get("weights_sha256") not in (None, record.get("weights_sha256")):
        return "holds results of other weights than it trained"
    return None


def _counts(path: Path) -> pd.DataFrame:
    """Read a run's counts; mode normal is what every table starts from."""
    counts = read_counts(path)
    if not (counts["mode"] == "normal").any():
        present = ", ".join(map(str, counts["mode"].unique())) or "none"
        raise DataError(f"{path} has no mode normal (it has {present}); evaluate with it.")
    return counts


def _cases(path: Path) -> pd.DataFrame:
    cases = read_cases(path)
    twice = cases["case"][cases["case"].duplicated()]
    if not twice.empty:
        raise DataError(f"{path}: case {twice.iloc[0]} stands twice; name cases uniquely.")
    if are_volumes(cases).any():
        cases["volume"] = cases["volume"].where(cases["plane"] != "", cases["case"])
    return cases


def is_expert(condition: str) -> bool:
    """Tell whether a condition is a set of networks, one for each domain."""
    return condition in EXPERTS


def class_text(names: Mapping[int, str], number: int) -> str:
    """How a class is told of.

    >>> class_text({2: "tumour"}, 2), class_text({}, 2)
    ('tumour', 'class 2')
    """
    return names.get(int(number), f"class {number}")


def are_volumes(cases: pd.DataFrame) -> pd.Series:
    """Tell which evaluated cases are whole volumes: their planes have a distance, but no place."""
    return (cases["plane"] == "") & cases["spacing_z_mm"].notna()


class PixelSizes(NamedTuple):
    """Area of a pixel in mm2, or of a voxel its volume in mm3, of each row.

    ``dims``: 2 where a case is an image, 3 where it is a volume.
    """

    sizes: pd.Series
    dims: int


def pixel_sizes(cases: pd.DataFrame) -> PixelSizes | None:
    """What the pixels of cases measure; None where it is unknown of any, or images and volumes."""
    areas: pd.Series = cases["spacing_y_mm"] * cases["spacing_x_mm"]
    whole = are_volumes(cases)
    if areas.isna().any() or whole.nunique() > 1:
        return None
    if whole.all():
        return PixelSizes(areas * cases["spacing_z_mm"], 3)
    return PixelSizes(areas, 2)


class Given(NamedTuple):
    """Values of a field that conditions have in common, with all cases that any of them knows."""

    conditions: list[str]
    cases: pd.DataFrame


def given_values(results: Results, field: str, names: Sequence[str] | None = None) -> list[Given]:
    """What conditions were given as a field: each distinct set of values once.

    Args:
        results: of the study.
        field: name of a field.
        names: conditions asked; None for all. Those whose runs tell no such field are left out.

    Returns:
        The set of the most conditions first, of those with the same number the earlier one; sets
        without any value last. Two conditions share a set where the cases of both agree.
    """
    sets: list[Given] = []
    known = results.cases.dropna(subset=field) if field in results.cases else results.cases[:0]
    for name in results.conditions if names is None else names:
        cases = known[known["condition"] == name].drop_duplicates("case", ignore_index=True)
        if cases.empty:
            continue
        for place, one in enumerate(sets):
            if _agree(one.cases, cases, field):
                joined = pd.concat([one.cases, cases], ignore_index=True)
                joined = joined.drop_duplicates("case", ignore_index=True)
                sets[place] = Given([*one.conditions, name], joined)
                break
        else:
            sets.append(Given([name], cases))
    return sorted(sets, key=lambda one: ((one.cases[field] == "").all(), -len(one.conditions)))


def _agree(first: pd.DataFrame, second: pd.DataFrame, field: str) -> bool:
    """Tell whether the cases that both tables have, have the same values; 40 and 40.0 are."""
    both = first.merge(second, on="case")
    one, other = ([_plain(v) for v in both[f"{field}_{side}"]] for side in "xy")
    return one == other


def _plain(value: str) -> float | str:
    number = read_number(value)
    return value if number is None else number


def other_values(sets: Sequence[Given], field: str) -> str:
    """Say which conditions were given other values than most; empty where all had the same.

    >>> empty = pd.DataFrame()
    >>> other_values([Given(["se", "me"], empty), Given(["me-unrelated"], empty)], "size")
    'me-unrelated was given other values of size than se and me.'
    """
    return " ".join(
        f"{listed(one.conditions)} {'was' if len(one.conditions) == 1 else 'were'} given other "
        f"values of {field} than {listed(sets[0].conditions)}."
        for one in sets[1:]
    )


def listed(names: Sequence[str]) -> str:
    """Write names one after the other.

    >>> listed(["se", "me", "sme"])
    'se, me and sme'
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
