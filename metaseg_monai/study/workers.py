"""Where runs are computed: processes of this machine, or jobs of a Slurm cluster."""

import importlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metaseg_monai.errors import ConfigError
from metaseg_monai.study.worker import PARENT, TRUST

TIMEOUT_MIN = 24 * 60  # minutes; without a limit of our own submitit would end a job after five
GRACE = 15.0  # seconds in which the result of an ended job may still appear on a shared disk
REQUEUE = 30 * 60.0  # seconds a preempted job has to be queued again; submitit looks every 600


@dataclass(frozen=True)
class Slot:
    """A place where one run at a time can be computed: a GPU by number, or None for cores."""

    gpu: int | None
    threads: int


def slots(workers: int | None = None, threads: int | None = None) -> list[Slot]:
    """Divide the machine: a slot for each GPU, or without one for each group of cores.

    Args:
        workers: number of slots; by default the number of GPUs, or of groups of cores.
        threads: cores of a group; by default 1 on a machine of up to 4 cores, else 4. Small
            networks gain more from a second run beside them than from a second core.

    Raises:
        ConfigError: a number below 1.
    """
    for name, number in {"workers": workers, "threads": threads}.items():
        whole = isinstance(number, int) and not isinstance(number, bool)
        if number is not None and (not whole or number < 1):
            raise ConfigError(f"--{name} {number}: expected a whole number from 1.")
    import torch

    cores, gpus = _cores(), torch.cuda.device_count()
    if gpus:
        count = workers or gpus
        return [Slot(place % gpus, threads or max(1, cores // count)) for place in range(count)]
    if workers is not None and threads is None:
        threads = max(1, cores // workers)
    group = threads or (1 if cores <= 4 else 4)
    return [Slot(None, group)] * (workers or max(1, cores // group))


class Process:
    """A run's process on this machine.

    Args:
        folder: of the run; what the process says goes to run.log in it.
        slot: where it is computed.
        threads: cores it may use, those of its record.
        trust: the user trusts the study.
    """

    def __init__(self, folder: Path, slot: Slot, threads: int, trust: bool = False) -> None:
        environment = {**os.environ, **_limits(threads), PARENT: str(os.getpid())}
        if slot.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = _visible(slot.gpu)
        with (folder / "run.log").open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command(folder, trust),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """End it now; the run goes on from its checkpoint another time."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def command(folder: Path, trust: bool = False) -> Sequence[str]:
    """Return the command that computes one planned run."""
    told = [TRUST] if trust else []
    return [sys.executable, "-m", "metaseg_monai.study.worker", str(folder), *told]


def _limits(threads: int) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _visible(gpu: int) -> str:
    """Name a GPU as seen through a CUDA_VISIBLE_DEVICES that is set already."""
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return seen[gpu] if seen else str(gpu)


class Cluster:
    """A queue that takes each run as one job, in the present working directory.

    Args:
        study: folder of the study, on a disk that all nodes share; submitit's files go to jobs/.
        cluster: ``slurm``, or submitit's ``local`` to try it without a cluster.
        settings: of each job, by submitit's names, such as ``{"timeout_min": 60, "gpus_per_node":
            1, "cpus_per_task": 4, "slurm_partition": "gpu"}``. Without `timeout_min` a job may
            take a day.

    Raises:
        ConfigError: submitit is not installed, there is no such cluster here, a setting is
            unknown or of the wrong type, or the cluster does not accept a job.
    """

    def __init__(
        self,
        study: Path,
        cluster: str = "slurm",
        settings: Mapping[str, Any] | None = None,
        trust: bool = False,
    ) -> None:
        self.study, self.cluster, self.trust = study, cluster, trust
        self.submitit = _submitit()
        try:
            self.executor = self.submitit.AutoExecutor(folder=study / "jobs", cluster=cluster)
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"--cluster {cluster}: {error} Leave it out to run on this machine."
            ) from error
        settings = {"timeout_min": TIMEOUT_MIN, **(settings or {})}
        try:
            self.executor.update_parameters(**settings)
        except (NameError, ValueError, TypeError, AssertionError) as error:
            raise ConfigError(f"--cluster_settings {settings}: {error}") from error
        for name in ("nodes", "tasks_per_node", "ntasks_per_node"):
            if self.executor.parameters.get(name, 1) != 1:
                raise ConfigError(f"--cluster_settings: {name} must be 1, a run is one process.")

    def __call__(self, folder: Path, slot: Slot, threads: int) -> "Job":
        """Submit a run, as `Process` starts one."""
        name, log = "-".join(folder.relative_to(self.study).parts), folder / "run.log"
        self.executor.update_parameters(name=name)
        line = _shell(command(folder, self.trust), log, _limits(threads))
        try:
            # a study may itself be a job, whose variables would bend those of its jobs
            with self.submitit.helpers.clean_env():
                # a function of ours would make each job import the whole package once more
                job = self.executor.submit(
                    subprocess.call, line, cwd=str(Path.cwd()), stdin=subprocess.DEVNULL
                )
        except (self.submitit.core.utils.FailedJobError, OSError) as error:
            raise ConfigError(
                f"{self.cluster} did not accept the job {name}: {error} Change --cluster_settings."
            ) from error
        return Job(job, log)


class Job:
    """A submitted run, with the verbs of a process.

    Args:
        job: submitit's handle.
        log: file that is told why a job ended, where the run itself could not say it.
    """

    def __init__(self, job: Any, log: Path) -> None:
        self.job, self.log = job, log
        self.status: int | None = None
        self.silent_since: float | None = None

    def poll(self) -> int | None:
        """Return the exit status, or None while the job waits or runs.

        The status is 1 where the job was killed, cancelled, or ended by its time limit. A
        preempted job that the cluster queues again is waited for.
        """
        if self.status is None:
            self.status = self._look()
        return self.status

    def stop(self) -> None:
        """Cancel it; the run goes on from its checkpoint another time."""
        if self.poll() is None:
            self.job.cancel(check=False)

    def _look(self) -> int | None:
        done = self.job.done()
        if self.job.paths.result_pickle.exists():
            # submitit's "local" writes the result shortly before its process ends
            return self._outcome() if done else None
        # submitit never calls a preempted job done, since some clusters queue it again
        if not done and self.job.state != "PREEMPTED":
            self.silent_since = None
            return None
        now = time.monotonic()
        if self.silent_since is None:
            self.silent_since = now
        if now - self.silent_since < (GRACE if done else REQUEUE):
            return None
        return self._failed(f"ended without a result, its state is {self.job.state}")

    def _outcome(self) -> int:
        error = self.job.exception()
        return int(self.job.result()) if error is None else self._failed(str(error))

    def _failed(self, reason: str) -> int:
        with self.log.open("a", encoding="utf-8") as log:
            log.write(f"job {self.job.job_id}: {reason}; see also {self.job.paths.stderr}\n")
        return 1


def _shell(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> list[str]:
    """Return the command with variables set and its output added to a file.

    submitit's own `CommandFunction` keeps all output in memory, and fails where a letter of
    several bytes, as in a progress bar, is cut by its buffer.

    >>> import sys, tempfile
    >>> file = Path(tempfile.mkdtemp()) / "log"
    >>> code = "import os; print(os.environ['COLOUR']); exit(3)"
    >>> subprocess.call(_shell([sys.executable, "-c", code], file, {"COLOUR": "light blue"}))
    3
    >>> file.read_text().strip()
    'light blue'
    """
    variables = [f"{name}={value}" for name, value in environment.items()]
    script = 'log=$1; shift; exec "$@" >>"$log" 2>&1'
    return ["env", *variables, "sh", "-c", script, "sh", str(log), *command]


def _submitit() -> Any:
    try:
        return importlib.import_module("submitit")
    except ImportError as error:
        raise ConfigError(
            'A cluster needs submitit: pip install "metaseg-monai[slurm]", or leave out --cluster.'
        ) from error
