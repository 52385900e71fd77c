"""From a KiTS folder to a prepared one: all cases, resumable, every problem told."""

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from metaseg_monai.errors import DataError, Problem, listing, system_refusal
from metaseg_monai.files import PREFIX, file_sha256, read_json, writable, write_json
from metaseg_monai.metadata.fields import MetadataWarning
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.owners import owned
from metaseg_monai.prepare.found import FoundCase, FoundFolder, alike, listed
from metaseg_monai.prepare.kits_case import (
    SliceRule,
    Spacing,
    case_row,
    class_pixels,
    read_case,
    source_files,
    table_row,
    whole_content,
    write_slices,
)
from metaseg_monai.prepare.kits_source import (
    CLASS_NAMES,
    SIZE,
    SizeSource,
    check_columns,
    find_clinical,
    find_kits,
    read_checksums,
    scan_clinical,
    size_problem,
    size_remark,
)
from metaseg_monai.prepare.pipeline import (
    RECORDS,
    SETTINGS_FILE,
    Prepared,
    check_output,
    each_case,
    shown,
)
from metaseg_monai.prepare.splits import divide
from metaseg_monai.rows import write_problems, write_table
from metaseg_monai.tables.clinical import ClinicalTable, check_cases
from metaseg_monai.tables.columns import SPLITS
from metaseg_monai.tables.licenses import KITS, data_license, save_license, statement
from metaseg_monai.tables.table import (
    CLASSES,
    CaseTable,
    ClassNames,
    parse_class_names,
    refuse,
    save_class_names,
    set_aside,
    warn_never_given,
)

Record = dict[str, Any]
DIGEST = "digest"  # of what else a record says
TABLES = ("table.csv", "slices.csv", "cases.csv", "problems.csv")
CLINICAL = "clinical"  # told in the settings, and free to change
SHARES = (0.7, 0.15, 0.15)
SHOWN = 20
FEWEST_CASES = 3  # of which a correlation is told
LEAST_SPEARMAN = 0.5  # of sizes that belong to their labels; KiTS21 has 0.94


def prepare_kits21(
    source: str | Path,
    output: str | Path,
    slice_rule: SliceRule = "mass",
    workers: int = 1,
    clinical: str | Path | None = None,
    label_name: str | None = None,
    labels_only: bool = False,
    spacing: Spacing = 0.78,
    size: SizeSource = "radiographic",
    splits: str | Path | None = None,
    train: float = SHARES[0],
    val: float = SHARES[1],
    test: float = SHARES[2],
    seed: int = 0,
    checksums: str | Path | None = None,
) -> Prepared:
    """Cut the CT volumes of KiTS19, KiTS21 or KiTS23 into axial slices with a table.

    Writes images/, labels/, table.csv (a row a slice), cases.csv (a row a case), prepared.json
    (the settings) and, where there are any, problems.csv. Every case is checked first; one with a
    problem is left out and told, the others are prepared. Killed or interrupted, the same command
    goes on where it stopped; the bytes written depend on neither kills nor workers.

    Example:
        python -m metaseg_monai prepare kits21 --source kits21/kits21/data \
--output kits21_mass --slice_rule mass --workers 4

    Args:
        source: folder of the download, with case_00000, case_00001, ...
        output: new or empty folder, or one prepared with the same settings, whose cases are all
            still in the source.
        slice_rule: mass (slices with tumour or cyst, the paper's), kidney or all.
        workers: processes; each holds one volume in memory.
        clinical: clinical table (JSON or CSV) with a row for one case at least; by default the
            kits.json of the source.
        label_name: file name of the labels; by default aggregated_MAJ_seg or segmentation.
        labels_only: for sources without images: measures and slices.csv, no table to train on.
        spacing: side of a pixel in mm, or native for pixels as they are.
        size: radiographic, or pathologic (known only after the operation).
        splits: official lists of cases: folder of train.txt, ..., JSON or CSV; cases in none of
            them are left out.
        train: share of the patients, where there are no lists; so val and test.
        val: see train.
        test: see train.
        seed: of the split.
        checksums: file of sha256sum to compare the source with; files that differ are problems.

    Raises:
        DataError: a setting, the source, the clinical table or the lists are wrong, the folder
            was prepared with other settings or from cases that the source has no more, is being
            prepared by another process, cannot be written, or a worker was killed.
    """
    output = Path(output)
    _check_settings(slice_rule, workers, spacing)
    folder = find_kits(source, label_name, labels_only)
    split_of = divide(folder.names, splits, (train, val, test), seed)
    given = find_clinical(source, folder.root) if clinical is None else Path(clinical)
    inside = given is not None and given.is_relative_to(source)
    step: Spacing = "native" if spacing == "native" else float(spacing)
    settings = {
        "source": "kits21",
        "slice_rule": slice_rule,
        "spacing": step,
        "label_name": label_name,
        "labels_only": labels_only,
        "size": size,
        "splits": None if splits is None else dict(sorted(split_of.items())),
        "shares": (train, val, test) if splits is None else None,
        "seed": seed if splits is None else None,
        CLINICAL: given and (given.relative_to(source) if inside else given).as_posix(),
    }
    patients = ClinicalTable({}, {}) if given is None else scan_clinical(given, size)
    asked = [name for name in folder.names if name in split_of]
    if given is not None:
        check_columns(given, patients, [SIZE], size)
        check_cases(patients, asked)
    blank = dict.fromkeys(next(iter(patients.rows.values()), {SIZE: ""}), "")
    problems = [problem for problem in folder.problems if problem.case in split_of]
    for case in asked:
        told = [
            *patients.problems.get(case, []),
            size_problem(patients.rows.get(case, blank)[SIZE]),
        ]
        step_to_mend = "mend the clinical table (null where the size is unknown)"
        problems += [Problem(case, "", found, step_to_mend) for found in told if found]
    wrong = {problem.case for problem in problems}
    cases = [
        replace(case, columns=patients.rows.get(case.case, blank), split=split_of[case.case])
        for case in folder.cases
        if case.case in split_of and case.case not in wrong
    ]
    write = KitsWriter(output, slice_rule, step, read_checksums(checksums) if checksums else {})
    _check_output(output, settings, source, folder)
    with (
        writable(output, "; then give the same command again: finished cases are kept"),
        owned(output, "is preparing this folder"),
    ):
        _check_output(output, settings, source, folder)  # nobody else changes it now
        write_json(output / SETTINGS_FILE, settings, indent=1)
        save_class_names(CLASS_NAMES, output / CLASSES)
        said = data_license(Path(source), folder.root)  # phantoms say that they are generated
        save_license(output, said or [statement(KITS)])
        records = {}
        for one in each_case(write, cases, workers):
            if isinstance(one, list):
                problems += one
            else:
                records[one["row"]["case"]] = one
        problems += _copies(records, cases)
        problems.sort(key=lambda problem: (problem.case, problem.file))
        _sweep(output, records)
        rows, of_cases = _tables(records, cases, patients, size)
        tables = {
            "slices.csv" if labels_only else "table.csv": rows,
            "cases.csv": of_cases,
        }
        for name, lines in tables.items():
            if lines:
                write_table(lines, output / name)
            else:
                (output / name).unlink(missing_ok=True)
        write_problems(output, problems)
    summary = _summary(of_cases, problems, folder.names, split_of, slice_rule, size, patients)
    table = output / next(iter(tables)) if rows else None
    return Prepared(table, summary, [str(problem) for problem in problems], output)


def _check_settings(slice_rule: str, workers: int, spacing: Spacing) -> None:
    if slice_rule not in get_args(SliceRule):
        allowed = ", ".join(get_args(SliceRule))
        raise DataError(f"slice_rule={slice_rule!r}: expected one of {allowed}")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise DataError(f"workers={workers!r}: expected a whole number from 1")
    known = isinstance(spacing, int | float) and not isinstance(spacing, bool)
    if spacing != "native" and not (known and 0.1 <= float(spacing) <= 10):
        raise DataError(f'spacing={spacing!r}: expected mm from 0.1 to 10, or "native"')


def _check_output(
    output: Path, settings: Mapping[str, Any], source: str | Path, folder: FoundFolder
) -> None:
    """Refuse a folder that holds anything else, and leave it as it is."""
    check_output(output, settings, None, [CLINICAL])
    done = sorted(path.stem for path in (output / RECORDS).glob("case_*.json"))
    foreign = [case for case in done if case not in folder.names]
    if foreign:
        raise DataError(
            f"{output}: holds {len(foreign)} cases that {source} has not: "
            f"{listed(foreign, SHOWN)}; give another folder (output), put them into the source, "
            f"or, to drop them, remove their files in {output / RECORDS}"
        )


@dataclass(frozen=True)
class KitsWriter:
    """Prepares a case so that a kill at any moment leaves it done or to be made anew.

    A case is done when its record is there, which is written last: a JSON file with its row of
    cases.csv, the rows of its slices, remarks and what was read.

    Attributes:
        output: the prepared folder; no other process may write there.
        rule: which planes become slices, see `chosen_planes`.
        spacing: see `write_slices`.
        expected: SHA-256 of source files by "case/name", where a list of them was given.
    """

    output: Path
    rule: SliceRule
    spacing: Spacing
    expected: Mapping[str, str]

    def __call__(self, case: FoundCase) -> Record | list[Problem]:
        """Prepare a case, unless it is done from these very files.

        Before anything changes, the tables that name slices are removed.

        Returns:
            Its record, or why the case cannot be used; then it has none.
        """
        path = self.output / RECORDS / f"{case.case}.json"
        before = _read_record(path)
        known = {name: one["sha256"] for name, one in before["source"].items()}
        source, problems = self._source_of(case, before["source"])
        now = {name: one["sha256"] for name, one in source.items()}
        if not problems and now == known and self._is_whole(before):
            return before
        for name in TABLES:
            (self.output / name).unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        volumes, found = read_case(case)
        problems += [told for told in found if told.file in source]  # once, if it cannot be read
        if problems or volumes is None:
            return problems
        pixels = class_pixels(volumes.label.planes)
        slices = write_slices(case.case, volumes, pixels, self.output, self.rule, self.spacing)
        changed = [
            f"{name} has changed since it was prepared (SHA-256 {known[name][:12]}, now "
            f"{sha256[:12]}); if that was not meant, copy it anew"
            for name, sha256 in now.items()
            if known.get(name, sha256) != sha256
        ]
        record = {
            "row": case_row(case.case, volumes, pixels, slices),
            "content": volumes.content,
            "remarks": [*volumes.remarks, *changed],
            "slices": slices,
            "source": source,
        }
        write_json(path, {**record, DIGEST: _digest(record)}, indent=1)
        return record

    def _source_of(
        self, case: FoundCase, known: Mapping[str, Mapping[str, Any]]
    ) -> tuple[dict[str, dict[str, Any]], list[Problem]]:
        """Size, time and SHA-256 of the source files, and those that are not as listed.

        A file whose size and time are those that are known is taken as the same.
        """
        source, problems = {}, []
        for name, path in source_files(case).items():
            try:
                state = path.stat()  # before reading: a later change is seen the next time
                told = {"bytes": state.st_size, "mtime_ns": state.st_mtime_ns}
                same = told.items() <= known.get(name, {}).items()
                sha256 = known[name]["sha256"] if same else file_sha256(path)
            except OSError as error:
                refusal = system_refusal(error, path)
                problems.append(Problem.of_error(case.case, name, path, refusal))
                continue
            source[name] = {"sha256": sha256, **told}
            if self.expected.get(name, sha256) != sha256:
                found = f"SHA-256 {sha256}, the list of checksums has {self.expected[name]}"
                problems.append(Problem(case.case, name, found, "copy the file anew"))
        return source, problems

    def _is_whole(self, record: Record) -> bool:
        """Whether all slices are there as they were written; a power cut may have lost some."""
        files = {
            row[kind]: row[f"{kind}_sha256"]
            for row in record["slices"]
            for kind in ("image", "label")
            if kind in row
        }
        try:
            return all(file_sha256(self.output / name) == sum_ for name, sum_ in files.items())
        except OSError:  # one is missing, or cannot be read
            return False


def _read_record(path: Path) -> Record:
    """The record of a case; an empty one where there is none as it was written."""
    try:
        stored = read_json(path)
        if stored.pop(DIGEST) == _digest(stored):
            return dict(stored)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        pass  # it is missing or damaged, or of an earlier version
    return {"source": {}, "slices": []}


def _digest(record: Record) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _copies(records: dict[str, Record], cases: Sequence[FoundCase]) -> list[Problem]:
    """Take out cases with the voxels of another case; which of them is right cannot be known."""
    known = [case for case in cases if case.case in records]
    problems = []
    for same in alike(known, lambda case: records[case.case]["content"], whole_content):
        for case in same:
            others = ", ".join(other.case for other in same if other is not case)
            found, file = f"the same voxels as {others}", next(iter(source_files(case)))
            problems.append(Problem(case.case, file, found, "keep the right one"))
    for problem in problems:
        del records[problem.case]
    return problems


def _sweep(output: Path, records: Mapping[str, Record]) -> None:
    """Remove records of other cases, and slices that no record names."""
    kept = {f"{RECORDS}/{case}.json" for case in records}
    for row in (row for record in records.values() for row in record["slices"]):
        kept |= {row["label"], row.get("image", "")}
    stray = [
        path
        for pattern in (f"{PREFIX}*", f"{RECORDS}/*.json", "images/*.tif", "labels/*.tif")
        for path in output.glob(pattern)
        if path.relative_to(output).as_posix() not in kept
    ]
    for path in [output / name for name in TABLES if stray] + stray:
        path.unlink(missing_ok=True)


def _tables(
    records: Mapping[str, Record],
    cases: Sequence[FoundCase],
    patients: ClinicalTable,
    size: SizeSource,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of table.csv and of cases.csv, by case and plane."""
    rows, of_cases = [], []
    for case in (case for case in cases if case.case in records):
        record, patient = records[case.case], case.columns
        rows += [table_row(row, patient, case.split) for row in record["slices"]]
        absent = bool(patients.rows) and case.case not in patients.rows
        odd = size_remark(patient, size, record["row"]["tumour_diameter_mm"])
        remarks = [*record["remarks"], "not in the clinical table" if absent else "", odd or ""]
        kinds = ("image", "label") if case.images else ("label",)
        sums = {
            f"{kind}_sha256": record["source"][file]["sha256"]
            for kind, file in zip(kinds, source_files(case), strict=True)
        }
        row = {**record["row"], SIZE: patient[SIZE], "split": case.split, **sums}
        of_cases.append({**row, "remarks": "; ".join(filter(None, remarks))})
    return rows, of_cases


# What a prepared folder holds, in words.


def _summary(
    cases: Sequence[Mapping[str, Any]],
    problems: Sequence[Problem],
    names: Sequence[str],
    split_of: Mapping[str, str],
    slice_rule: SliceRule,
    size: SizeSource,
    patients: ClinicalTable,
) -> str:
    wrong = {problem.case for problem in problems}
    lines = [f"{len(cases)} cases prepared, {len(wrong)} with problems"]
    left_out = [name for name in names if name not in split_of]
    if left_out:
        lines.append(f"left out, as no list names them: {listed(left_out, SHOWN)}")
    absent = sorted(set(split_of) - set(names))
    if absent:
        lines.append(
            f"{len(absent)} cases of the lists are not in the source: {listed(absent, SHOWN)}; get "
            "them, or go on without"
        )
    if cases:
        table = pd.DataFrame(cases)
        lines += [*_counts(table, slice_rule), *_empty_splits(table, names, split_of)]
        lines += _size_lines(table, size, patients)
        remarks = [f"  {one['case']}: {one['remarks']}" for one in cases if one["remarks"]]
        lines += [f"remarks on {len(remarks)} cases (cases.csv)"] if remarks else []
        lines += shown(remarks, SHOWN)
    if problems:
        lines += ["problems (problems.csv; these cases contribute nothing):"]
        lines += shown([f"  {problem}" for problem in problems], SHOWN)
    return "\n".join(lines)


def _counts(table: pd.DataFrame, slice_rule: SliceRule) -> list[str]:
    """Slices, planes, spacing and splits."""
    total = table.filter(regex="planes|slices").sum()
    spacing = table[[f"spacing_{axis}_mm" for axis in "zyx"]].astype(float)
    ends = zip("zyx", spacing.min(), spacing.max(), strict=True)
    ranges = ", ".join(f"{axis} {low:.4g} to {high:.4g}" for axis, low, high in ends)
    slices = table.groupby("split")["slices"].agg(["size", "sum"]).reindex(SPLITS, fill_value=0)
    of_split = [f"{name} {n} patients with {s} slices" for name, n, s in slices.itertuples()]
    return [
        f"{total['slices']} slices written (rule {slice_rule}); planes by rule: mass "
        f"{total['planes_mass']}, kidney {total['planes_kidney_or_mass']}, all {total['planes']}",
        f"planes with tumour {total['planes_tumour']}, with cyst {total['planes_cyst']}, with "
        f"both {total['planes_tumour_and_cyst']}, with kidney {total['planes_kidney']}",
        f"voxels in mm: {ranges}",
        f"splits: {', '.join(of_split)}",
    ]


def _empty_splits(
    table: pd.DataFrame, names: Sequence[str], split_of: Mapping[str, str]
) -> list[str]:
    """Splits that were to have slices and have none; no case is moved to another split."""
    filled = set(table.loc[table["slices"] > 0, "split"])
    meant = {split: [name for name in names if split_of.get(name) == split] for split in SPLITS}
    return [
        f"{split} is empty: its cases have problems or no slice ({listed(of_split, SHOWN)}); mend "
        "them, or prepare another folder with lists of your own (--splits) or another --seed"
        for split, of_split in meant.items()
        if of_split and split not in filled
    ]


def _size_lines(table: pd.DataFrame, size: SizeSource, patients: ClinicalTable) -> list[str]:
    """The clinical table, and whether its sizes are those of the labels."""
    if patients.path is None:
        return [f"no clinical table: {SIZE} is missing everywhere; name one (--clinical)"]
    missing = table.loc[table[SIZE] == "", "case"]
    when = "after" if size == "pathologic" else "before"
    absent = [case for case in table["case"] if case not in patients.rows]
    lines = [
        f"clinical table: {patients.path}"
        + (f"; it has no row for {len(absent)} cases ({listed(absent, SHOWN)})" if absent else ""),
        f"{SIZE}: the {size} size, known {when} surgery; missing in {len(missing)} cases"
        + (f" ({listed(missing, SHOWN)})" if len(missing) else ""),
        f"{(table['tumour_components'].astype(int) > 1).sum()} cases have several tumours; the "
        "size is that of the largest one",
    ]
    pairs = table[[SIZE, "tumour_diameter_mm"]].apply(pd.to_numeric).dropna().to_numpy(float)
    if len(pairs) >= FEWEST_CASES and np.all(np.ptp(pairs, axis=0) > 0):
        rank = float(spearmanr(pairs[:, 0], pairs[:, 1]).statistic)
        squared = float(np.corrcoef(np.log(pairs), rowvar=False)[0, 1] ** 2)
        meaning = (
            "the size is partly derived from what the label shows"
            if rank >= LEAST_SPEARMAN
            else "size and label disagree: check the units and the case_id of the clinical table"
        )
        lines.append(
            f"{SIZE} against the largest in-plane diameter of the label ({len(pairs)} cases): "
            f"Spearman {rank:.2f}, R2 of the logarithms {squared:.2f}; {meaning}"
        )
    return lines


def kits_volumes(
    source: str | Path,
    schema: MetadataSchema,
    splits: str | Path | None = None,
    clinical: str | Path | None = None,
    class_names: ClassNames = None,
    problems: list[Problem] | None = None,
    split: str | None = None,
) -> CaseTable:
    """One item for each case, the volumes as they are; the same split as `prepare_kits21` makes.

    Args:
        source: folder of the download, see `find_kits`.
        schema: of the metadata, columns of the clinical table; `tumour_size_mm` is radiographic.
        splits: official lists, see `read_splits`; cases in none of them are left out.
        clinical: clinical table, JSON or CSV; by default the kits.json of the source.
        class_names: where they are not those of KiTS, see `parse_class_names`.
        problems: gets the cases that are wrong by themselves; None refuses them.
        split: the one that is asked for; None for all.

    Raises:
        DataError: the source or a list is wrong, a case lacks a file, there is no clinical table,
            it lacks a column of the schema, has a row for none of the cases, repeats a case, or
            has a value that is none or that the schema refuses; names every case.

    Warns:
        MetadataWarning: cases without a row are taken as unknown, or no training case has a value
            of a field; names cases and fields.
    """
    folder = find_kits(source)
    table = find_clinical(source, folder.root) if clinical is None else Path(clinical)
    if table is None:
        raise DataError(f"{source}: no kits.json found; name the clinical table (clinical)")
    patients = scan_clinical(table)
    check_columns(table, patients, schema.names, "radiographic")
    split_of = divide(folder.names, splits, SHARES, seed=0)
    wrong = [problem for problem in folder.problems if problem.case in split_of]
    chosen = [case for case in folder.cases if case.case in split_of]
    if chosen:
        check_cases(patients, [case.case for case in chosen])
    known = {*patients.rows, *patients.problems}
    rowless = [case.case for case in chosen if case.case not in known]
    rows: list[dict[str, Any]] = []
    for case in chosen:
        name, row = case.case, patients.rows.get(case.case, {})
        metadata = {field: row.get(field, "") for field in schema.names}
        if told := patients.problems.get(name) or schema.problems(metadata):
            wrong.append(Problem(name, str(table), "; ".join(told), f"mend the row of {name}"))
            continue
        files = {"image": str(case.images[0]), "label": str(case.masks[0])}
        item = {**files, "case": name, "group": name, "metadata": metadata}
        rows.append({**item, "split": split_of[name], "columns": row})
    if problems is None or not any(split in (None, row["split"]) for row in rows):
        refuse(table, [str(problem) for problem in wrong])
    else:
        set_aside(((one, split_of[one.case]) for one in wrong), problems, split)
    if rowless:
        warnings.warn(
            f"{table}: no row for {listing(rowless)}; their {', '.join(schema.names)} are taken "
            "as unknown",
            MetadataWarning,
            stacklevel=2,
        )
    warn_never_given(table, rows, schema)
    return CaseTable(table, tuple(rows), class_names=parse_class_names(class_names) or CLASS_NAMES)
