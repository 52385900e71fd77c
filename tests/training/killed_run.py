"""Kill the tiny training run and resume it; run as a script, which imports torch only once.

Each trial is a forked child, so that kill -9 is a real one. Prints its findings as JSON.
"""

import json
import os
import random
import signal
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.engines import IterationEvents
from tiny_run import EPOCHS, LENGTH, make_run, same

from metaseg_monai.training import (
    end_processes,
    read_checkpoint,
    read_weights,
    write_checkpoint,
    write_weights,
)


def in_child(work):
    """Run `work` in a forked child; return its exit status, negative where it was killed."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die(engine=None):
    os.kill(os.getpid(), signal.SIGKILL)


def train(folder, resume, death=None, **settings):
    """Train in this process, which dies at (event, iteration) where told so."""
    trainer = make_run(folder, resume, **settings)
    if death is not None:
        event, iteration = death
        trainer.add_event_handler(
            event, lambda engine: die() if engine.state.iteration >= iteration else None
        )
    trainer.run()


DEATHS = (
    Events.ITERATION_STARTED,
    IterationEvents.LOSS_COMPLETED,
    IterationEvents.BACKWARD_COMPLETED,
    Events.ITERATION_COMPLETED,
    Events.EPOCH_COMPLETED,
)


def kill_steps(folder, kills, workers=0):
    """Kill a run at random steps, resume it each time, and compare it with a whole one."""
    draw = random.Random(kills)
    whole = folder / "whole"
    in_child(partial(train, whole, False, workers=workers))
    results = []
    for trial in range(kills):
        run = folder / f"run{trial}"
        death = (draw.choice(DEATHS), draw.randint(1, EPOCHS * LENGTH))
        killed = in_child(partial(train, run, False, death, workers=workers))
        resumed = in_child(partial(train, run, True, workers=workers))
        results.append(
            {"death": f"{death[0].name} {death[1]}", "killed": killed, "resumed": resumed}
            | same(whole, run)
        )
    return results


def kill_often(folder):
    """Kill one run at every second iteration, so that it is resumed many times."""
    whole, run = folder / "whole", folder / "run"
    in_child(partial(train, whole, False, every=1))
    statuses = [
        in_child(partial(train, run, step > 2, (Events.ITERATION_STARTED, step), every=1))
        for step in range(2, EPOCHS * LENGTH, 2)
    ]
    resumed = in_child(partial(train, run, True, every=1))
    return [{"killed": max(statuses), "resumed": resumed} | same(whole, run)]


def kill_rank(folder):
    """Kill one of two gloo processes in the middle of an epoch, and resume both."""

    def process(run, rank, resume, death, meeting):
        dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            train(run, resume, death if rank == 1 else None, world=2)
        end_processes()

    def both(run, resume, death=None):
        meeting = folder / f"{run.name}-{resume}"
        return in_child(
            lambda: os._exit(_pair(lambda rank: process(run, rank, resume, death, meeting)))
        )

    whole, run = folder / "whole", folder / "run"
    first = both(whole, False)
    began = time.monotonic()
    killed = both(run, False, (Events.ITERATION_STARTED, 4))
    seconds = time.monotonic() - began
    resumed = both(run, True)
    statuses = {"whole": first, "killed": killed, "resumed": resumed, "seconds": seconds}
    return [statuses | same(whole, run)]


def _pair(work):
    """Run `work(rank)` in two children at once; return how many failed."""
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(rank)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    return sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children)


def save_checkpoint(path, version):
    write_checkpoint(path, {"version": version, "w": torch.full((2**19,), version)})


def checkpoint_is_whole(path):
    state = read_checkpoint(path)
    return bool((state["w"] == state["version"]).all())


def save_weights(path, version):
    network = torch.nn.Linear(2**19, 1, bias=False)
    torch.nn.init.constant_(network.weight, version)
    write_weights(path, network, {"version": version})


def weights_are_whole(path):
    state, facts = read_weights(path)
    copy = json.loads(path.with_suffix(".json").read_text())
    return bool((state["weight"] == facts["version"]).all()) and copy["version"] >= 0


def kill_saves(folder, kills, save, is_whole):
    """Kill a process that saves without pause, and read what it left."""
    draw = random.Random(kills)
    path = folder / "saved.pt"
    results = []
    for _ in range(kills):
        first = folder / "first"
        first.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            for version in range(100000):
                save(path, version)
                first.touch()
            os._exit(0)
        while not first.exists():
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        until = time.monotonic() + 1  # then it is not written beside the old file at all
        if draw.random() < 0.7:  # within a save, else wherever it is
            while not list(folder.glob(".part-*")) and time.monotonic() < until:
                pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        halves = list(folder.glob(".part-*"))
        results.append({"loadable": is_whole(path), "inside": len(halves) > 0})
        for half in halves:
            half.unlink()
    return results


TRIALS = {
    "steps": kill_steps,
    "steps_workers": partial(kill_steps, workers=2),
    "often": lambda folder, kills: kill_often(folder),
    "rank": lambda folder, kills: kill_rank(folder),
    "saves": partial(kill_saves, save=save_checkpoint, is_whole=checkpoint_is_whole),
    "weights": partial(kill_saves, save=save_weights, is_whole=weights_are_whole),
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    root, findings = Path(sys.argv[1]), {}
    for name, kills in (trial.split("=") for trial in sys.argv[2:]):
        (root / name).mkdir()
        findings[name] = TRIALS[name](root / name, int(kills))
    sys.stdout.write(json.dumps(findings))
