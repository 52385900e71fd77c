"""The runs of a study: fix the protocol, then run what is missing."""

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from typing import Protocol as Interface

from tqdm import tqdm

from metaseg_monai.bundle.overrides import load_config
from metaseg_monai.bundle.run import resolve_bundle
from metaseg_monai.errors import ConfigError
from metaseg_monai.owners import owned
from metaseg_monai.study.design import Study, nothing_compared, smallest_planned, trained_once
from metaseg_monai.study.matrix import Run, expand, few_epochs
from metaseg_monai.study.record import fix, is_finished, plan, read_log, read_record, restore
from metaseg_monai.study.tracking import check_store
from metaseg_monai.study.workers import Cluster, Process, Slot, slots

MOST_JOBS = 100  # waiting in a queue at once
PAUSE = 0.5  # seconds between looks at the processes
BAR = "{l_bar}{bar}| {n:.1f}/{total:.0f} runs [{elapsed}<{remaining}] {postfix}"
TRAINING_SHARE = 0.9  # of a run's time, the rest is evaluation; for the estimate only

logger = logging.getLogger(__name__)


class Started(Interface):
    """A run that has been started somewhere."""

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""

    def stop(self) -> None:
        """End it now."""


Start = Callable[[Path, Slot, int], Started]  # folder of the run, slot, threads


def run_all(
    runs: Sequence[Run], output: Path, bundle: Path, places: Sequence[Slot], start: Start
) -> dict[str, str]:
    """Compute runs, one at each place at a time, with a bar over all of them.

    A run that fails is told and left; the others go on. When this process is stopped, its runs
    are stopped too, and go on from their checkpoints another time.

    Args:
        runs: those not yet finished.
        output: the study's folder.
        bundle: the bundle's folder.
        places: where runs can be computed.
        start: starts one planned run.

    Returns:
        Runs that failed, each with the reason.
    """
    waiting, free = list(runs), list(places)
    failed: dict[str, str] = {}
    active: dict[str, tuple[Run, Slot, Started]] = {}
    seconds = 0.5 if sys.stderr.isatty() else 30.0  # a log file stays short
    with tqdm(
        total=float(len(runs)), desc="study", bar_format=BAR, smoothing=0, disable=not runs
    ) as bar:
        shown = time.monotonic()
        try:
            while waiting or active:
                while free and (run := _next(waiting, [one for one, _, _ in active.values()])):
                    waiting.remove(run)
                    slot = free.pop(0)
                    folder, threads = plan(output, run, bundle, slot.threads)
                    active[run.folder] = (run, slot, start(folder, slot, threads))
                time.sleep(PAUSE)
                for name, (run, slot, started) in list(active.items()):
                    status = started.poll()
                    if status is None:
                        continue
                    del active[name]
                    free.append(slot)
                    if reason := _failure(output / run.folder, status):
                        failed[name] = reason
                        bar.write(f"{name} failed: {reason}", file=sys.stderr)
                done = len(runs) - len(waiting) - len(active)
                under_way = [
                    _part(output / run.folder, run.epochs) for run, _, _ in active.values()
                ]
                bar.n = round(done + sum(under_way), 2)
                bar.set_postfix_str(", ".join(active), refresh=False)
                if time.monotonic() - shown > seconds:
                    shown = time.monotonic()
                    bar.refresh()
        finally:
            for _, _, started in active.values():
                started.stop()
    return failed


def _next(waiting: Sequence[Run], active: Sequence[Run]) -> Run | None:
    """The first run that does not begin with the weights of one that is still to be done."""
    to_do = {run.folder for run in (*waiting, *active)}
    return next((run for run in waiting if run.pretrained not in to_do), None)


def _failure(folder: Path, status: int) -> str | None:
    """Return why a run failed, or None."""
    record = read_record(folder) or {}
    if status == 0 and record.get("state") == "finished":
        return None
    reason = record.get("error") if record.get("state") == "failed" else None
    return f"{reason or f'ended with status {status}'} (see {folder / 'run.log'})"


def _part(folder: Path, epochs: int) -> float:
    """Estimate how much of a run is done from the rows of its log."""
    return TRAINING_SHARE * min(1.0, len(read_log(folder)) / epochs)


def run_study(
    study: Study,
    output: str | Path,
    workers: int | None = None,
    threads: int | None = None,
    cluster: str | None = None,
    cluster_settings: Mapping[str, Any] | None = None,
    tracking: str | None = None,
    trust: bool = False,
) -> dict[str, str]:
    """Run every run of a study that is not finished yet.

    Args:
        study: what to run.
        output: folder of the study; give the same one to go on.
        workers: runs beside each other, see `metaseg_monai.study.workers.slots`.
        threads: cores of a run.
        cluster: ``slurm`` submits each run as a job through submitit; None computes here.
        cluster_settings: of the jobs, such as ``{"timeout_min": 60, "slurm_partition": "gpu"}``.
        tracking: MLflow store such as ``sqlite:///runs/x/mlflow.db``, see `track_study`.
        trust: run what is not known to be harmless, too.

    Returns:
        Runs that failed, each with the reason.

    Raises:
        ConfigError: a wrong setting, before anything is trained; or another process runs this
            study.
    """
    folder, bundle = Path(output).resolve(), resolve_bundle(study.bundle)
    runs = expand(study, trust)
    places, start = _places(workers, threads, cluster, cluster_settings, folder, trust)
    if tracking is not None:
        check_store(tracking)
    if folder.is_file():
        raise ConfigError(f"--output {folder} is a file; name a folder.")
    with owned(folder, "is running this study"):
        folder.mkdir(parents=True, exist_ok=True)
        for run in runs:
            restore(folder, run)
        missing = [run for run in runs if not is_finished(folder / run.folder, run)]
        fix(study, runs, folder)
        for told in (nothing_compared(study), trained_once(study), few_epochs(runs)):
            if told:
                logger.warning("%s", told)
        of_images = load_config([bundle / "configs" / "train.json"]).get("target") == "image"
        if told := smallest_planned(study, bounded=not of_images):
            logger.warning("%s", told)
        logger.warning(
            "runs: %d, to do: %d, beside each other: %d (--workers); each tells its steps in its "
            "run.log below %s",
            *(len(runs), len(missing), len(places), folder),
        )
        return run_all(missing, folder, bundle, places, start)


def _places(
    workers: int | None,
    threads: int | None,
    cluster: str | None,
    settings: Mapping[str, Any] | None,
    folder: Path,
    trust: bool,
) -> tuple[list[Slot], Start]:
    if cluster is not None:
        place = Slot(None, threads or int((settings or {}).get("cpus_per_task", 1)))
        return [place] * (workers or MOST_JOBS), Cluster(folder, cluster, settings, trust)
    if settings:
        raise ConfigError("--cluster_settings needs --cluster, such as --cluster slurm.")
    return slots(workers, threads), partial(Process, trust=trust)
