"""The whole of a study: fix the protocol, run what is missing, report."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metaseg_monai.bundle.locate import resolve_bundle
from metaseg_monai.errors import ConfigError, MetasegError, TrainingError
from metaseg_monai.reporting.write import write_report
from metaseg_monai.study.design import Study
from metaseg_monai.study.history import fix
from metaseg_monai.study.matrix import Run, expand
from metaseg_monai.study.processes import Process, Slot, command, slots
from metaseg_monai.study.record import is_finished, restore
from metaseg_monai.study.runner import Start, Started, run_all

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MOST_JOBS = 100  # waiting in a queue at once

logger = logging.getLogger(__name__)


def run_study(
    study: Study,
    output: str | Path,
    workers: int | None = None,
    threads: int | None = None,
    cluster: str | None = None,
    cluster_settings: Mapping[str, Any] | None = None,
    tracking: str | None = None,
) -> Path:
    """Run every run of a study that is not finished yet, then write the report.

    Args:
        study: what to run.
        output: folder of the study; give the same one to go on.
        workers: runs beside each other, see `metaseg_monai.study.processes.slots`.
        threads: cores of a run.
        cluster: ``slurm`` submits each run as a job through submitit; None computes here.
        cluster_settings: of the jobs, such as ``{"timeout_min": 60, "slurm_partition": "gpu"}``.
        tracking: MLflow store such as ``sqlite:///runs/x/mlflow.db`` for parameters and scores.

    Returns:
        Path of ``report.html``.

    Raises:
        ConfigError: a wrong setting, before anything is trained; or another process runs this
            study.
        TrainingError: some runs failed; those that did not are reported all the same.
    """
    if not isinstance(output, str | Path):  # an option without a value
        raise ConfigError("--output needs a folder.")
    folder, bundle = Path(output).resolve(), resolve_bundle(study.bundle)
    runs = expand(study)
    places, start = _places(workers, threads, cluster, cluster_settings, folder)
    if tracking is not None:
        _check_tracking(tracking)
    if folder.is_file():
        raise ConfigError(f"--output {folder} is a file; name a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        for run in runs:
            restore(folder, run)
        missing = [run for run in runs if not is_finished(folder / run.folder, run)]
        fix(study, runs, folder)
        logger.warning(
            "runs: %d, to do: %d, beside each other: %d", len(runs), len(missing), len(places)
        )
        outcome = run_all(missing, folder, bundle, places, start)
    try:
        page = write_report(folder)
    except MetasegError as error:
        if outcome.failed:
            raise TrainingError(f"{_told(outcome.failed, folder)}\nno report: {error}") from error
        raise
    if tracking is not None:
        _track(tracking, study, folder, runs)
    if outcome.failed:
        raise TrainingError(f"{_told(outcome.failed, folder)}\nreport of the others: {page}")
    return page


def _told(failed: Mapping[str, str], folder: Path) -> str:
    lines = [f"  {name}: {reason}" for name, reason in failed.items()]
    plural = "" if len(failed) == 1 else "s"
    return "\n".join(
        [f"{len(failed)} run{plural} failed; the same command tries again ({folder})", *lines]
    )


def _places(
    workers: int | None,
    threads: int | None,
    cluster: str | None,
    settings: Mapping[str, Any] | None,
    folder: Path,
) -> tuple[list[Slot], Start]:
    if cluster is None:
        if settings:
            raise ConfigError("--cluster_settings needs --cluster, such as --cluster slurm.")
        return slots(workers, threads), Process
    from metaseg_monai.study.cluster import Cluster

    jobs = Cluster(folder / "jobs", cluster, settings)
    place = Slot(None, threads or int((settings or {}).get("cpus_per_task", 1)))

    def start(run: Path, slot: Slot, threads: int) -> Started:
        name = "-".join(run.relative_to(folder).parts)
        environment = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        return jobs.start(name, command(run), run / "run.log", environment)

    return [place] * (workers or MOST_JOBS), start


def _check_tracking(uri: str) -> None:
    from metaseg_monai.study.tracking import check

    check(uri)


def _track(uri: str, study: Study, folder: Path, runs: list[Run]) -> None:
    from metaseg_monai.evaluation import read_counts
    from metaseg_monai.metrics.scores import average_f1, pooled_f1
    from metaseg_monai.study.tracking import log_run

    for run in runs:
        if is_finished(folder / run.folder, run):
            counts = read_counts(folder / run.folder / "counts.csv")
            normal = counts[counts["mode"] == "normal"]
            metrics = {"pooled_f1": pooled_f1(normal), "average_f1": average_f1(normal)}
            log_run(uri, study.name, run.name, run.settings, metrics, {"key": run.key})


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Refuse a second process in the same folder, which would run everything twice."""
    with (folder / "study.lock").open("w") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(f"Another process runs the study in {folder}; wait.") from error
        yield
