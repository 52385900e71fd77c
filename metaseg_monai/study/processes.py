"""Runs as processes of this machine: one for each accelerator or group of cores."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metaseg_monai.errors import ConfigError
from metaseg_monai.study.worker import PARENT


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
    """

    def __init__(self, folder: Path, slot: Slot, threads: int) -> None:
        number = str(threads)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": number,
            "MKL_NUM_THREADS": number,
            PARENT: str(os.getpid()),
        }
        if slot.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = _visible(slot.gpu)
        with (folder / "run.log").open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                command(folder), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment
            )

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self.process.poll()

    def stop(self) -> None:
        """End it now; the run goes on from its checkpoint another time."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def command(folder: Path) -> Sequence[str]:
    """Return the command that computes one planned run."""
    return [sys.executable, "-m", "metaseg_monai.study.worker", str(folder)]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _visible(gpu: int) -> str:
    """Name a GPU as seen through a CUDA_VISIBLE_DEVICES that is set already."""
    seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return seen[gpu] if seen else str(gpu)
