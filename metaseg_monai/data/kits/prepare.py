"""From a KiTS folder to a prepared one: all cases, resumable, every problem told."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from metaseg_monai.data.kits.claim import CLINICAL, check_claim, claim
from metaseg_monai.data.kits.clinical import (
    SIZE,
    ClinicalTable,
    SizeSource,
    check_cases,
    check_columns,
    scan_clinical,
)
from metaseg_monai.data.kits.find import KitsFolder, Problem, find_kits, read_checksums
from metaseg_monai.data.kits.job import Job
from metaseg_monai.data.kits.lock import alone
from metaseg_monai.data.kits.run import run_jobs
from metaseg_monai.data.kits.sizes import size_problem
from metaseg_monai.data.kits.slices import SliceRule, Spacing
from metaseg_monai.data.kits.splits import divide
from metaseg_monai.data.kits.summary import summary_of
from metaseg_monai.data.kits.tables import TABLES, case_tables, copies, write_tables
from metaseg_monai.errors import DataError


class Prepared(NamedTuple):
    """What `prepare_kits21` made.

    Attributes:
        table: table.csv; slices.csv where only labels were asked for; None without any slice.
        summary: what the folder holds, in words.
        problems: one line a problem; these cases are not in the table.
    """

    table: Path | None
    summary: str
    problems: list[str]


def prepare_kits21(
    source: str | Path,
    output: str | Path,
    slice_rule: SliceRule = "mass",
    workers: int = 1,
    clinical: str | Path | None = None,
    label_name: str | None = None,
    labels_only: bool = False,
    spacing: float | Literal["native"] = 0.78,
    size: SizeSource = "radiographic",
    splits: str | Path | None = None,
    train: float = 0.7,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    checksums: str | Path | None = None,
) -> Prepared:
    """Turn the volumes of KiTS19, KiTS21 or KiTS23 into axial slices beside a table.

    Writes images/, labels/, table.csv (a row a slice), cases.csv (a row a case), prepared.json
    (the settings) and, where there are any, problems.csv. A case with a problem contributes
    nothing; all others are prepared. Cases that are done are kept when the same command is run
    again, after a kill too, and the bytes written depend on neither kills nor workers.

    Args:
        source: folder of the download.
        output: new or empty folder, or one prepared with the same settings, whose cases are all
            still in the source.
        slice_rule: "mass", "kidney" or "all", see `chosen_planes`.
        workers: processes; each holds one volume in memory.
        clinical: clinical table, JSON or CSV, with a row for one case at least; by default the
            kits.json of the source.
        label_name: see `find_kits`.
        labels_only: of cases without CT; writes labels/ and slices.csv in place of table.csv.
        spacing: mm, or "native", see `write_slices`.
        size: the measurement that becomes `tumour_size_mm`, see `read_clinical`.
        splits: official lists, see `read_splits`; cases in none of them are left out.
        train: share of the patients, where there are no lists; `val` and `test` likewise.
        val: share of the validation patients.
        test: share of the test patients.
        seed: of the division into splits.
        checksums: file as `sha256sum` writes it; files that differ are problems.

    Raises:
        DataError: a setting, the source, the clinical table or the lists are wrong, the folder
            was prepared with other settings or from cases that the source has no more, is being
            prepared by another process, cannot be written, or a worker was killed.
    """
    output = Path(output)
    _check_settings(slice_rule, workers, spacing)
    shares = (train, val, test)
    folder = find_kits(source, label_name, labels_only)
    split_of = divide(folder.names, splits, shares, seed)
    lists = None if splits is None else split_of
    step: Spacing = "native" if spacing == "native" else float(spacing)
    table = Path(clinical) if clinical is not None else folder.clinical
    settings = {
        "source": "kits21",
        "slice_rule": slice_rule,
        "spacing": step,
        "label_name": label_name,
        "labels_only": labels_only,
        "size": size,
        "splits": None if lists is None else dict(sorted(lists.items())),
        "shares": None if lists else shares,
        "seed": None if lists else seed,
        CLINICAL: _told(table, Path(source)),
    }
    patients = scan_clinical(table, size) if table is not None else ClinicalTable({}, {})
    if table is not None:
        check_columns(table, patients, [SIZE], size)
        check_cases(patients, [name for name in folder.names if name in split_of])
    problems = [p for p in folder.problems if p.case in split_of]
    problems += _clinical_problems(folder, split_of, patients)
    expected = read_checksums(checksums) if checksums is not None else {}
    check_claim(output, settings, source, folder.names)
    wrong = {problem.case for problem in problems}
    jobs = [
        Job(case, output, slice_rule, step, expected)
        for case in folder.cases
        if case.case in split_of and case.case not in wrong
    ]
    try:
        with alone(output):
            check_claim(output, settings, source, folder.names)  # again: nobody else changes it now
            claim(output, settings)
            problems += run_jobs(jobs, output, workers, TABLES)
            problems += copies(jobs)
            problems.sort(key=lambda problem: (problem.case, problem.file))
            rows, cases = case_tables(jobs, split_of, patients, size)
            write_tables(output, labels_only, rows, cases, problems)
    except OSError as error:
        raise DataError(
            f"{output}: cannot be written ({error}); mend that and give the same command again: "
            "finished cases are kept"
        ) from error
    name = "slices.csv" if labels_only else "table.csv"
    summary = summary_of(cases, problems, folder.names, split_of, slice_rule, size, patients)
    return Prepared(output / name if rows else None, summary, [str(p) for p in problems])


def _check_settings(slice_rule: str, workers: int, spacing: Spacing) -> None:
    if slice_rule not in get_args(SliceRule):
        allowed = ", ".join(get_args(SliceRule))
        raise DataError(f"slice_rule={slice_rule!r}: expected one of {allowed}")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise DataError(f"workers={workers!r}: expected a whole number from 1")
    known = isinstance(spacing, int | float) and not isinstance(spacing, bool)
    if spacing != "native" and not (known and 0.1 <= float(spacing) <= 10):
        raise DataError(f'spacing={spacing!r}: expected mm from 0.1 to 10, or "native"')


def _told(table: Path | None, source: Path) -> str | None:
    """The clinical table as the settings name it: one within the source wherever that lies."""
    if table is None:
        return None
    return (table.relative_to(source) if table.is_relative_to(source) else table).as_posix()


def _clinical_problems(
    folder: KitsFolder, split_of: Mapping[str, str], patients: ClinicalTable
) -> Iterator[Problem]:
    """What is wrong with the metadata of the cases at hand."""
    step = "mend the clinical table (null where the size is unknown)"
    for case in folder.names:
        if case in split_of:
            for found in patients.problems.get(case, []):
                yield Problem(case, "", found, step)
            found_size = size_problem(patients.rows.get(case, {}).get(SIZE, ""))
            if found_size is not None:
                yield Problem(case, "", found_size, step)
