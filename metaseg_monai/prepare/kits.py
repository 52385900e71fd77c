"""From a KiTS folder to a prepared one: all cases, resumable, every problem told."""

import errno
import json
import multiprocessing
import os
import platform
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, Literal, TextIO, get_args

import numpy as np
from scipy.stats import spearmanr
from tqdm import tqdm

from metaseg_monai.errors import DataError
from metaseg_monai.files import replacing, write_table
from metaseg_monai.prepare.clinical import (
    SIZE,
    SizeSource,
    check_columns,
    scan_clinical,
    size_problem,
    size_remark,
)
from metaseg_monai.prepare.found import Problem
from metaseg_monai.prepare.kits_case import whole_content
from metaseg_monai.prepare.kits_find import KitsFolder, find_kits, read_checksums
from metaseg_monai.prepare.kits_slices import (
    RECORDS,
    Job,
    SliceRule,
    Spacing,
    case_of_slice,
    discard,
    is_done,
    read_record,
    run_job,
    table_row,
)
from metaseg_monai.prepare.pipeline import Prepared
from metaseg_monai.prepare.splits import divide
from metaseg_monai.tables.clinical import ClinicalTable, check_cases
from metaseg_monai.tables.columns import SPLITS

# Running the cases of a prepared folder: workers, what is done already, and what is left over.


def run_jobs(
    jobs: Sequence[Job], output: Path, workers: int, tables: Sequence[str]
) -> list[Problem]:
    """Prepare every case that is not done, and remove what the folder has of no finished case.

    Args:
        jobs: all cases of the folder.
        output: the folder.
        workers: processes; with 1, and for a single case, none is started.
        tables: files that name slices; removed before the first slice is made anew.

    Returns:
        The problems of the cases that cannot be used.

    Raises:
        DataError: a worker was killed.
        OSError: the folder cannot be written.
    """
    waiting = [job for job in jobs if not is_done(job)]
    if waiting:
        for name in tables:
            (output / name).unlink(missing_ok=True)
    known = {job.case.case for job in jobs}
    _sweep(output, known, known - {job.case.case for job in waiting})
    problems: list[Problem] = []
    with tqdm(total=len(jobs), desc="prepare", unit="case", disable=None) as bar:
        bar.update(len(jobs) - len(waiting))
        for found in _results(waiting, min(workers, len(waiting))):
            problems += found
            bar.update()
    return problems


def _sweep(output: Path, known: set[str], done: set[str]) -> None:
    """Remove records of cases that are no longer wanted, and slices of cases that are not done.

    A waiting case keeps its record: it tells whether the source has changed.
    """
    for record in (output / RECORDS).glob("*"):
        if record.stem not in known:  # what a killed process left half-written, too
            record.unlink(missing_ok=True)
    for kind in ("images", "labels"):
        for path in (output / kind).glob("*"):
            case = case_of_slice(path.name)
            if case is not None and (case not in done or path.name.startswith(".")):
                path.unlink(missing_ok=True)


def _results(jobs: Sequence[Job], workers: int) -> Iterator[list[Problem]]:
    if workers <= 1:
        yield from map(run_job, jobs)
        return
    with ProcessPoolExecutor(workers, _context(), _begin_worker) as pool:
        futures = [pool.submit(run_job, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise DataError(
                "a worker was killed, perhaps for want of memory; give the same command again, "
                "with fewer workers: finished cases are kept"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _context() -> BaseContext:
    """How workers start: never as a fork of this process, whose threads they would lack."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["metaseg_monai.prepare.kits_slices"])  # imported once for all
    return context


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


# The tables of a prepared KiTS folder, from the records of its finished cases.

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
        "problems.csv": [problem.row for problem in problems],
    }
    for name, lines in tables.items():
        if lines:
            write_table(lines, output / name)
        else:
            (output / name).unlink(missing_ok=True)


# What a prepared KiTS folder holds, in words.

SHOWN = 20
FEWEST_CASES = 3  # of which a correlation is told
LEAST_SPEARMAN = 0.5  # of sizes that belong to their labels; KiTS21 has 0.94


def summary_of(
    cases: Sequence[Mapping[str, Any]],
    problems: Sequence[Problem],
    names: Sequence[str],
    split_of: Mapping[str, str],
    slice_rule: SliceRule,
    size: SizeSource,
    patients: ClinicalTable,
) -> str:
    """Describe a prepared folder.

    Args:
        cases: rows of cases.csv.
        problems: of the cases that are not in it.
        names: all cases of the source.
        split_of: {case: split}, of all cases that were asked for.
        slice_rule: which planes were written.
        size: which measurement `tumour_size_mm` is.
        patients: the clinical table; one without a path where there is none.
    """
    wrong = sorted({problem.case for problem in problems})
    lines = [f"{len(cases)} cases prepared, {len(wrong)} with problems"]
    left_out = [name for name in names if name not in split_of]
    if left_out:
        lines.append(f"left out, as no list names them: {listed(left_out)}")
    absent = sorted(set(split_of) - set(names))
    if absent:
        lines.append(
            f"{len(absent)} cases of the lists are not in the source: {listed(absent)}; get them, "
            "or go on without"
        )
    if cases:
        lines += [*_slice_lines(cases, slice_rule), *_case_lines(cases)]
        lines += _empty_splits(cases, names, split_of)
        lines += _size_lines(cases, size, patients)
        remarks = [f"  {case['case']}: {case['remarks']}" for case in cases if case["remarks"]]
        lines += [f"remarks on {len(remarks)} cases (cases.csv)"] if remarks else []
        lines += _shown(remarks)
    if problems:
        lines += ["problems (problems.csv; these cases contribute nothing):"]
        lines += _shown([f"  {problem}" for problem in problems])
    return "\n".join(lines)


def _slice_lines(cases: Sequence[Mapping[str, Any]], slice_rule: SliceRule) -> list[str]:
    total = {name: _sum(cases, name) for name in cases[0] if name.startswith("planes")}
    both = total["planes_tumour_and_cyst"]
    written = f"{_sum(cases, 'slices')} slices written (rule {slice_rule})"
    rules = (
        f"mass {total['planes_mass']}, kidney {total['planes_kidney_or_mass']}, "
        f"all {total['planes']}"
    )
    return [
        f"{written}; planes by rule: {rules}",
        f"planes with tumour {total['planes_tumour']}, with cyst {total['planes_cyst']}, with "
        f"both {both}, with kidney {total['planes_kidney']}",
    ]


def _case_lines(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    ranges = [
        f"{axis} {min(values):.4g} to {max(values):.4g}"
        for axis in "zyx"
        for values in [[float(case[f"spacing_{axis}_mm"]) for case in cases]]
    ]
    splits = Counter(str(case["split"]) for case in cases)
    slices = {s: sum(int(c["slices"]) for c in cases if c["split"] == s) for s in SPLITS}
    told = ", ".join(f"{s} {splits[s]} patients with {slices[s]} slices" for s in SPLITS)
    return [f"voxels in mm: {', '.join(ranges)}", f"splits: {told}"]


def _empty_splits(
    cases: Sequence[Mapping[str, Any]], names: Sequence[str], split_of: Mapping[str, str]
) -> list[str]:
    """Splits that were to have slices and have none; no case is moved to another split."""
    filled = {str(case["split"]) for case in cases if int(case["slices"])}
    lines = []
    for split in SPLITS:
        meant = [name for name in names if split_of.get(name) == split]
        if meant and split not in filled:
            lines.append(
                f"{split} is empty: its cases have problems or no slice ({listed(meant)}); mend "
                "them, or prepare another folder with lists of your own (--splits) or another "
                "--seed"
            )
    return lines


def _size_lines(
    cases: Sequence[Mapping[str, Any]], size: SizeSource, patients: ClinicalTable
) -> list[str]:
    if patients.path is None:
        return [f"no clinical table: {SIZE} is missing everywhere; name one (--clinical)"]
    missing = [str(case["case"]) for case in cases if not case[SIZE]]
    when = "after" if size == "pathologic" else "before"
    several = sum(int(case["tumour_components"]) > 1 for case in cases)
    absent = [str(case["case"]) for case in cases if case["case"] not in patients.rows]
    lines = [
        f"clinical table: {patients.path}"
        + (f"; it has no row for {len(absent)} cases ({listed(absent)})" if absent else ""),
        f"{SIZE}: the {size} size, known {when} surgery; missing in {len(missing)} cases"
        + (f" ({listed(missing)})" if missing else ""),
        f"{several} cases have several tumours; the size is that of the largest one",
    ]
    pairs = np.array(
        [
            (float(case[SIZE]), float(case["tumour_diameter_mm"]))
            for case in cases
            if case[SIZE] and case["tumour_diameter_mm"]
        ]
    )
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


def _sum(cases: Sequence[Mapping[str, Any]], name: str) -> int:
    return sum(int(case[name]) for case in cases)


def listed(names: Sequence[str]) -> str:
    """Names joined by commas, the first of many."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _shown(lines: Sequence[str]) -> list[str]:
    more = [f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]


# One process at a time in a prepared folder.

try:
    import fcntl
except ImportError:  # Windows has no such locks; there one must take care oneself
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # some disks of clusters


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a folder for this process; it is free again when the process ends, however it does.

    Args:
        folder: made where it is missing.

    Raises:
        DataError: another process has it, or it cannot be made.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = None if fcntl is None else _locked(path)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error}); give another folder") from error
    if stream is None:
        yield
        return
    with stream:
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {platform.node()}")
        stream.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> TextIO:
    """Open the file of the lock and lock it; the system frees what a killed process had."""
    while True:
        stream = path.open("a+", encoding="utf-8")
        try:
            if _lock(stream, path):
                return stream
        except BaseException:
            stream.close()
            raise
        stream.close()


def _lock(stream: TextIO, path: Path) -> bool:
    """Lock; False where the file was removed by a process that ended just before."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.seek(0)
        holder = stream.read() or "another process"
        raise DataError(
            f"{path.parent}: {holder} is preparing this folder; wait until it ends, or give "
            "another folder"
        ) from error
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


# Whose a prepared folder is: one of the same settings, made of cases of this source.

SETTINGS_FILE = "prepared.json"
CLINICAL = "clinical"  # told there, and free to change


def check_claim(
    output: Path, settings: Mapping[str, Any], source: str | Path, cases: Sequence[str]
) -> None:
    """Refuse a folder that holds anything else, and leave it as it is.

    Args:
        output: the folder to prepare.
        settings: as JSON holds them; all must be those of before, but for the clinical table.
        source: folder of the cases, for messages.
        cases: all names of the source; slices of others are not removed.

    Raises:
        DataError: the folder has other files, other settings, or cases that are not in the source.
    """
    record = output / SETTINGS_FILE
    if not record.is_file():
        if output.is_dir() and any(path.name != LOCK for path in output.iterdir()):
            raise DataError(f"{output}: not empty; give another folder, or remove it first")
        return
    try:
        made = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{record}: damaged ({error}); give another folder") from error
    asked = json.loads(json.dumps(settings))
    keys = sorted({*asked, *made} - {CLINICAL})
    differing = [key for key in keys if asked.get(key) != made.get(key)]
    if differing:
        told = ", ".join(f"{k} {made.get(k)!r:.60}, now {asked.get(k)!r:.60}" for k in differing)
        raise DataError(f"{output}: was prepared with other settings ({told}); give another")
    done = sorted(path.stem for path in (output / RECORDS).glob("*.json") if path.name[0] != ".")
    foreign = [case for case in done if case not in cases]
    if foreign:
        raise DataError(
            f"{output}: holds {len(foreign)} cases that {source} has not: {listed(foreign)}; give "
            f"another folder (output), put them into the source, or, to drop them, remove their "
            f"files in {output / RECORDS}"
        )


def claim(output: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings into a checked folder, where it has not these very ones.

    Raises:
        OSError: it cannot be written.
    """
    record = output / SETTINGS_FILE
    text = json.dumps(settings, indent=1) + "\n"
    if not record.is_file() or record.read_text(encoding="utf-8") != text:
        with replacing(record) as part:
            part.write_text(text, encoding="utf-8")


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
