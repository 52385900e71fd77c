"""Running the cases of a prepared folder: workers, what is done already, and what is left over."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from pathlib import Path

from tqdm import tqdm

from metaseg_monai.data.kits.find import Problem
from metaseg_monai.data.kits.job import RECORDS, Job, is_done, run_job
from metaseg_monai.data.kits.slices import case_of_slice
from metaseg_monai.errors import DataError


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
    context.set_forkserver_preload(["metaseg_monai.data.kits.job"])  # imported once for all
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
