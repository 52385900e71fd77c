"""The tables of a prepared KiTS folder, from the records of its finished cases."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.data.kits.case import whole_content
from metaseg_monai.data.kits.clinical import SIZE, ClinicalTable, SizeSource
from metaseg_monai.data.kits.find import Problem, problem_rows
from metaseg_monai.data.kits.job import Job, discard, read_record
from metaseg_monai.data.kits.sizes import size_remark
from metaseg_monai.data.kits.slices import table_row
from metaseg_monai.data.writers import write_table

TABLES = ("table.csv", "slices.csv", "cases.csv", "problems.csv")


def copies(jobs: Sequence[Job]) -> list[Problem]:
    """Cases whose voxels are those of another case; which of them is right cannot be known.

    Cases with equal samples are read again and compared wholly.

    Raises:
        DataError: one of them can no longer be read.
    """
    of_sample: dict[str, list[Job]] = defaultdict(list)
    for job in jobs:
        record = read_record(job.record)
        if record is not None and record["content"]:
            of_sample[record["content"]].append(job)
    of_content: dict[str, list[Job]] = defaultdict(list)
    for alike in of_sample.values():
        for job in alike if len(alike) > 1 else []:
            of_content[whole_content(job.case)].append(job)
    problems = []
    for same in of_content.values():
        for job in same if len(same) > 1 else []:
            others = ", ".join(other.case.case for other in same if other is not job)
            discard(job)
            file = next(iter(job.case.files))
            problems.append(
                Problem(job.case.case, file, f"the same voxels as {others}", "keep the right one")
            )
    return problems


def case_tables(
    jobs: Sequence[Job], split_of: Mapping[str, str], patients: ClinicalTable, size: SizeSource
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of table.csv and of cases.csv, by case and plane."""
    columns = next(iter(patients.rows.values()), {SIZE: ""})
    rows, cases = [], []
    for job in sorted(jobs, key=lambda job: job.case.case):
        record = read_record(job.record)
        if record is None:
            continue
        case, split = job.case.case, split_of[job.case.case]
        patient = patients.rows.get(case, dict.fromkeys(columns, ""))
        remarks = record["remarks"]
        if patients.rows and case not in patients.rows:
            remarks = [*remarks, "not in the clinical table"]
        odd = size_remark(patient, size, record["row"]["tumour_diameter_mm"])
        remarks = remarks if odd is None else [*remarks, odd]
        rows += [table_row(row, patient, split) for row in record["slices"]]
        sums = {
            f"{kind}_sha256": record["source"][name]["sha256"]
            for kind, name in zip(_kinds(job), job.case.files, strict=True)
        }
        row = {**record["row"], SIZE: patient[SIZE], "split": split, **sums}
        cases.append({**row, "remarks": "; ".join(remarks)})
    return rows, cases


def _kinds(job: Job) -> Sequence[str]:
    return ("label",) if job.case.image is None else ("image", "label")


def write_tables(
    output: Path,
    labels_only: bool,
    rows: Sequence[Mapping[str, Any]],
    cases: Sequence[Mapping[str, Any]],
    problems: Sequence[Problem],
) -> None:
    """Write the tables that have rows, and remove those that have none any more."""
    tables = {
        "slices.csv" if labels_only else "table.csv": rows,
        "cases.csv": cases,
        "problems.csv": problem_rows(problems),
    }
    for name, lines in tables.items():
        if lines:
            write_table(lines, output / name)
        else:
            (output / name).unlink(missing_ok=True)
