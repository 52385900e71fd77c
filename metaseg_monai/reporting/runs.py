"""Whether all conditions were tested on the same, so that their rows may be ranked and compared."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from metaseg_monai.bundle.locate import resolve_bundle
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation import read_cases, read_counts, read_volumes
from metaseg_monai.evaluation.per_case import CLASSES
from metaseg_monai.metadata.fields import AnyField, Continuous, read_number
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.metrics.scores import average_seeds, case_f1
from metaseg_monai.networks.variants import ALL_VARIANTS, METADATA_VARIANTS
from metaseg_monai.reporting.page import Details, Part, Section
from metaseg_monai.reporting.tables import Table
from metaseg_monai.study.design import EXPERTS, Study
from metaseg_monai.study.matrix import Run
from metaseg_monai.study.record import measured, read_plan, read_record, read_study

# The results of a study's finished runs, by condition and seed, read from their files alone.


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


# What a run says of its cases beside the counts: spacing, raw metadata, schema, volumes.

CASES, SCHEMA, VOLUMES = "cases.csv", "schema.json", "volumes.csv"


def class_names(results: Results) -> dict[int, str]:
    """Names of the label's foreground classes; empty if unknown.

    The study's bundle gives them in its ``configs/metadata.json``, under
    network_data_format.outputs.pred.channel_def; single runs in their ``classes.json``.
    """
    try:
        if results.study is None:
            content = _read_json(results.first.folder / CLASSES)
        else:
            file = resolve_bundle(results.study.bundle) / "configs" / "metadata.json"
            content = _read_json(file)["network_data_format"]["outputs"]["pred"]["channel_def"]
        named = {int(number): str(name) for number, name in content.items()}
    except (ConfigError, OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}  # a report is made where the bundle is not, or gives no names
    return {number: name for number, name in named.items() if number > 0 and name.strip()}


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def class_text(names: Mapping[int, str], number: int) -> str:
    """How a class is told of.

    >>> class_text({2: "tumour"}, 2), class_text({}, 2)
    ('tumour', 'class 2')
    """
    return names.get(int(number), f"class {number}")


def reads_metadata(results: Results, name: str) -> bool:
    """Tell whether a condition is given metadata: by its variant, or by the modes it was tested in.

    A dummy is given zeros, which is none.
    """
    modes = {m for result in results.conditions[name].values() for m in result.counts["mode"]}
    own = {} if results.study is None else results.study.conditions.get(name, {})
    return modes != {"normal"} or own.get("variant", name) in METADATA_VARIANTS


def cases_of(result: Result, key: Replicate) -> pd.DataFrame | None:
    """The cases of a result, named as in its counts; None where the run wrote none.

    Volumes are named as in its scores of volumes: a case that is a whole volume by itself.

    Raises:
        DataError: the file is damaged, has a case twice, or lacks one that was counted.
    """
    path = result.folder / CASES
    if not path.is_file():
        return None
    cases = read_cases(path)
    if are_volumes(cases).any():
        cases["volume"] = cases["volume"].where(cases["plane"] != "", cases["case"])
    prefix = f"data{key.data_seed}/"  # the results name the cases of other data so
    if result.counts["case"].str.startswith(prefix).all():
        for column in ("case", "volume"):
            cases[column] = prefix + cases[column]
    twice = cases["case"][cases["case"].duplicated()]
    if not twice.empty:
        raise DataError(f"{path}: case {twice.iloc[0]} stands twice; name cases uniquely.")
    strangers = set(result.counts["case"]) - set(cases["case"])
    if strangers:
        raise DataError(
            f"{path} lacks case {min(strangers)} of counts.csv beside it; evaluate again."
        )
    return cases


class PixelSizes(NamedTuple):
    """Area of a pixel in mm2, or of a voxel its volume in mm3, by counted case.

    ``dims``: 2 where a case is an image, 3 where it is a volume.
    """

    of_case: pd.Series
    dims: int


def pixel_sizes(cases: pd.DataFrame | None, counts: pd.DataFrame) -> PixelSizes | None:
    """What the counted pixels measure; None where it is unknown of any, or images and volumes."""
    if cases is None:
        return None
    counted = cases.set_index("case").loc[counts["case"].unique()]
    areas: pd.Series = counted["spacing_y_mm"] * counted["spacing_x_mm"]
    whole = are_volumes(counted)
    if areas.isna().any() or whole.nunique() > 1:
        return None
    if whole.all():
        return PixelSizes(areas * counted["spacing_z_mm"], 3)
    return PixelSizes(areas, 2)


def are_volumes(cases: pd.DataFrame) -> pd.Series:
    """Tell which evaluated cases are whole volumes: their planes have a distance, but no place."""
    return (cases["plane"] == "") & cases["spacing_z_mm"].notna()


def fields_of(results: Results) -> dict[str, AnyField]:
    """The metadata fields of all runs that wrote their schema, by name; those of the first count.

    Raises:
        MetadataError: a schema.json is damaged.
    """
    fields: dict[str, AnyField] = {}
    for by_seed in results.conditions.values():
        path = next(iter(by_seed.values())).folder / SCHEMA
        if path.is_file():
            for field in MetadataSchema.load(path).fields:
                fields.setdefault(field.name, field)
    return fields


def continuous_fields(results: Results) -> dict[str, Continuous]:
    """The fields that are quantities, by name."""
    return {n: field for n, field in fields_of(results).items() if isinstance(field, Continuous)}


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
    for name in results.conditions if names is None else names:
        tables = [cases_of(result, key) for key, result in results.conditions[name].items()]
        told = [table for table in tables if table is not None and field in table]
        if not told:
            continue
        cases = pd.concat(told, ignore_index=True).drop_duplicates("case", ignore_index=True)
        for place, one in enumerate(sets):
            if _agree(one.cases, cases, field):
                joined = pd.concat([one.cases, cases], ignore_index=True)
                joined = joined.drop_duplicates("case", ignore_index=True)
                sets[place] = Given([*one.conditions, name], joined)
                break
        else:
            sets.append(Given([name], cases))
    return sorted(sets, key=lambda one: ((one.cases[field] == "").all(), -len(one.conditions)))


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


def _agree(first: pd.DataFrame, second: pd.DataFrame, field: str) -> bool:
    """Tell whether the cases that both tables have, have the same values; 40 and 40.0 are."""
    one, other = (table.set_index("case")[field] for table in (first, second))
    shared = one.index.intersection(other.index)
    return [_plain(value) for value in one[shared]] == [_plain(value) for value in other[shared]]


def _plain(value: str) -> float | str:
    number = read_number(value)
    return value if number is None else number


def volumes_of(result: Result, key: Replicate) -> pd.DataFrame | None:
    """The scores of a result's volumes, named as its cases; None where the run wrote none.

    None as well for experts: which of them is the one for a volume is not known.
    """
    path = result.folder / VOLUMES
    if len(result.folders) > 1 or not path.is_file():
        return None
    volumes = read_volumes(path)
    prefix = f"data{key.data_seed}/"
    if result.counts["case"].str.startswith(prefix).all():
        volumes["volume"] = prefix + volumes["volume"]
    return volumes


NOT = "rows cannot be compared"
ROUNDING = 0.01  # of a label's pixels; a single pixel is always allowed


def why_not_comparable(results: Results, names: Mapping[int, str] | None = None) -> list[str]:
    """Say what conditions differ in that makes their scores no comparison; empty where nothing.

    Rows may be compared where all conditions were tested on the same cases of the same splits, and
    the labels of these cases hold as many pixels for all of them.

    Args:
        results: of all classes.
        names: of the label's classes.
    """
    return [*_different_cases(results), *different_labels(results, names or {})]


def tested_on(results: Results) -> dict[str, pd.DataFrame]:
    """The cases that each condition was tested on, all seeds together: ``case, group, split``."""
    columns = ["case", "group", "split"]
    return {
        name: pd.concat(r.in_mode("normal")[columns] for r in by_seed.values()).drop_duplicates()
        for name, by_seed in results.conditions.items()
    }


def same_cases(results: Results) -> dict[tuple[str, ...], pd.DataFrame]:
    """The different sets of cases, as of `tested_on`, by the conditions that were tested on them.

    One entry where rows may be compared, as far as their cases go.
    """
    found: dict[frozenset[tuple[str, str]], list[str]] = {}
    tested = tested_on(results)
    for name, cases in tested.items():
        key = frozenset(zip(cases["case"], cases["split"], strict=True))
        found.setdefault(key, []).append(name)
    return {tuple(names): tested[names[0]] for names in found.values()}


def different_labels(results: Results, names: Mapping[int, str]) -> list[str]:
    """Say of which cases the label has not the same size for all conditions, in a sentence.

    That is so after evaluations at different pixel sizes. Cases that only one condition has say
    nothing.
    """
    if len(results.conditions) < 2:
        return []
    sizes = _label_sizes(results)
    gap = sizes.max(axis=1) - sizes.min(axis=1)
    differ = gap > (ROUNDING * sizes.max(axis=1)).clip(lower=1)
    if not differ.any():
        return []
    worst = gap.index.get_loc(gap[differ].idxmax())
    case, number = gap.index.tolist()[worst]
    example = ", ".join(
        f"{pixels:.0f} for {name}" for name, pixels in sizes.iloc[worst].dropna().items()
    )
    of = sizes.index.get_level_values("case")
    return [
        f"The labels of {of[differ].nunique()} of {of.nunique()} cases are not of the same size "
        f"for all conditions (pixels of {class_text(names, number)} in {case}: {example}), as "
        f"where they were tested at different pixel sizes: {NOT}."
    ]


def unranked(sections: Sequence[Section]) -> list[Section]:
    """The sections without marks for the best of a column, for rows that cannot be compared."""
    return [replace(section, parts=_unranked(section.parts)) for section in sections]


def of_conditions(results: Results, *names: str) -> Results:
    """The results of some conditions only."""
    return replace(results, conditions={name: results.conditions[name] for name in names})


def counted(cases: pd.DataFrame) -> str:
    """Number of cases with their split, as of `tested_on`.

    >>> counted(pd.DataFrame({"split": ["test"] * 3})), counted(pd.DataFrame({"split": ["test"]}))
    ('3 test cases', '1 test case')
    >>> counted(pd.DataFrame({"split": ["val", "test", "test"]}))
    '3 cases (2 test and 1 val)'
    """
    number = cases["split"].value_counts().sort_index()
    noun = "case" if len(cases) == 1 else "cases"
    if len(number) == 1:
        return f"{len(cases)} {number.index[0]} {noun}"
    return f"{len(cases)} {noun} ({listed([f'{n} {split}' for split, n in number.items()])})"


def _unranked(parts: Sequence[Part]) -> list[Part]:
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Table):
            found.append(replace(part, best=None))
        elif isinstance(part, Details):
            found.append(replace(part, parts=_unranked(part.parts)))
        else:
            found.append(part)
    return found


def _label_sizes(results: Results) -> pd.DataFrame:
    """Pixels of each label: (case, class) x conditions, only what two or more of them have."""
    columns = {}
    for name, by_seed in results.conditions.items():
        rows = pd.concat(result.in_mode("normal") for result in by_seed.values())
        pixels = rows["tp"] + rows["fn"]
        columns[name] = pixels.groupby([rows["case"], rows["class"]]).mean()
    sizes = pd.DataFrame(columns)
    return sizes[sizes.notna().sum(axis=1) > 1]


def _different_cases(results: Results) -> list[str]:
    if len(same_cases(results)) == 1:
        return []
    tested = tested_on(results)
    told = ", ".join(f"{name} {counted(cases)}" for name, cases in tested.items())
    cases = {frozenset(table["case"]) for table in tested.values()}
    if len(cases) == 1:
        return [f"The same cases are of different splits in the conditions ({told}): {NOT}."]
    return [f"The conditions were tested on different cases ({told}): {NOT}."]
