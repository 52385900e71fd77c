"""Run what a study lacks, beside each other, and go on where one fails."""

import csv
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol as Interface

from tqdm import tqdm

from metaseg_monai.study.matrix import Run
from metaseg_monai.study.processes import Slot
from metaseg_monai.study.record import plan, read_record

PAUSE = 0.5  # seconds between looks at the processes
BAR = "{l_bar}{bar}| {n:.1f}/{total:.0f} runs [{elapsed}<{remaining}] {postfix}"
TRAINING_SHARE = 0.9  # of a run's time, the rest is evaluation; for the estimate only


class Started(Interface):
    """A run that has been started somewhere."""

    def poll(self) -> int | None:
        """Return the exit status, or None while it runs."""

    def stop(self) -> None:
        """End it now."""


Start = Callable[[Path, Slot, int], Started]  # folder of the run, slot, threads


@dataclass
class Outcome:
    """What became of the runs: names of those that finished and, with the reason, that failed."""

    finished: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def run_all(
    runs: Sequence[Run], output: Path, bundle: Path, places: Sequence[Slot], start: Start
) -> Outcome:
    """Compute runs, one at each place at a time, with a bar over all of them.

    A run that fails is told and left; the others go on. When this process is stopped, its runs
    are stopped too, and go on from their checkpoints another time.

    Args:
        runs: those not yet finished.
        output: the study's folder.
        bundle: the bundle's folder.
        places: where runs can be computed.
        start: starts one planned run.
    """
    waiting, free, outcome = list(runs), list(places), Outcome()
    active: dict[str, tuple[Run, Slot, Started]] = {}
    seconds = 0.5 if sys.stderr.isatty() else 30.0  # a log file stays short
    with tqdm(
        total=float(len(runs)), desc="study", bar_format=BAR, smoothing=0, disable=not runs
    ) as bar:
        shown = time.monotonic()
        try:
            while waiting or active:
                while waiting and free:
                    run, slot = waiting.pop(0), free.pop(0)
                    folder, threads = plan(output, run, bundle, slot.threads)
                    active[run.name] = (run, slot, start(folder, slot, threads))
                time.sleep(PAUSE)
                for name, (run, slot, started) in list(active.items()):
                    status = started.poll()
                    if status is None:
                        continue
                    del active[name]
                    free.append(slot)
                    if reason := _failure(output / run.folder, status):
                        outcome.failed[name] = reason
                        bar.write(f"{name} failed: {reason}", file=sys.stderr)
                    else:
                        outcome.finished.append(name)
                done = len(outcome.finished) + len(outcome.failed)
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
    return outcome


def _failure(folder: Path, status: int) -> str | None:
    """Return why a run failed, or None."""
    record = read_record(folder) or {}
    if status == 0 and record.get("state") == "finished":
        return None
    reason = record.get("error") if record.get("state") == "failed" else None
    return f"{reason or f'ended with status {status}'} (see {folder / 'run.log'})"


def _part(folder: Path, epochs: int) -> float:
    """Estimate how much of a run is done from the rows of its log."""
    try:
        with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
            done = sum(1 for _ in csv.reader(file)) - 1
    except OSError:
        return 0.0
    return TRAINING_SHARE * min(1.0, max(0, done) / max(1, epochs))
