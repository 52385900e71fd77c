"""A tiny training with all that must be resumed, killed and resumed when run as a script.

Each trial is a forked child, so that kill -9 is a real one, and torch is imported only once. The
script prints its findings as JSON.
"""

import copy
import json
import os
import random
import signal
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Events
from ignite.metrics import Loss
from monai.engines import IterationEvents, SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler, from_engine
from monai.transforms import EnsureTyped, Lambdad, RandFlipd, RandGaussianNoised
from torch import nn

from metaseg_monai.training import (
    BestWeights,
    EpochLog,
    MovingAverage,
    ReplayDataset,
    RunCheckpoint,
    StepOnPlateau,
    collate_cases,
    cyclic_schedule,
    end_processes,
    mean_over_processes,
    read_checkpoint,
    read_weights,
    training_loader,
    write_checkpoint,
    write_weights,
)

EPOCHS, CASES, BATCH = 3, 7, 2
LENGTH = -(-CASES // BATCH)


class Network(nn.Module):
    """Two convolutions with dropout and batch normalisation between."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Conv2d(4, 2, 1),
        )

    def forward(self, image, meta=None):
        return self.layers(image)


def items():
    draw = np.random.default_rng(3)
    return [
        {
            "case": f"case {number}",
            "image": draw.normal(size=(1, 8, 8)).astype(np.float32),
            "label": draw.integers(0, 2, size=(1, 8, 8)),
        }
        for number in range(CASES)
    ]


def loss(pred, label):
    return nn.functional.cross_entropy(pred, label[:, 0].long())


def global_noise(image):
    """A transform that draws from global generators, as a user's own may."""
    return image + random.random() * 0.1 + np.random.rand() * 0.1 + torch.rand(1) * 0.1  # noqa: NPY002


def make_run(
    folder, resume, workers=0, world=1, every=2, epochs=EPOCHS, plateau=False, baseline=False
):
    """Return the trainer of a run whose files go to `folder`."""
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    network = Network()
    if world > 1:
        network = nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    if baseline:
        optimizer = torch.optim.SGD(
            network.parameters(), lr=1e-2, momentum=0.99, nesterov=True, weight_decay=3e-5
        )
    augment = [
        RandFlipd(["image", "label"], prob=0.5),
        RandGaussianNoised("image", prob=0.9),
        Lambdad("image", global_noise),
    ]
    fixed = [EnsureTyped(["image", "label"])]
    dataset = ReplayDataset(items(), fixed, augment, seed=5)
    loader = training_loader(dataset, BATCH, 5, num_workers=workers)
    iterations = epochs * len(loader)
    if baseline:
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, iterations, power=0.9)
    else:
        schedule = cyclic_schedule(optimizer, 1e-3, 2e-2, cycles=1, iterations=iterations)
    validation = ReplayDataset(items()[:4], fixed)
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=torch.utils.data.DataLoader(validation, 2, collate_fn=collate_cases),
        network=network,
        decollate=False,
        key_val_metric={"val_loss": Loss(loss, output_transform=from_engine(["pred", "label"]))},
    )
    best = BestWeights(folder / "model.pt", network, facts={"variant": "none"})
    best.attach(evaluator)
    steps = LrScheduleHandler(schedule, epoch_level=False)
    if plateau:
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=0)
        steps = StepOnPlateau(schedule, evaluator)
    kept, watching = {}, []
    if baseline:
        kept["average"] = MovingAverage(network, evaluator, best, decay=0.9)
        watching = [kept["average"]]
    log = EpochLog(folder / "log.csv", optimizer, evaluator)
    checkpoint = RunCheckpoint(
        folder,
        objects={
            "network": network,
            "optimizer": optimizer,
            "lr_scheduler": schedule,
            "best": best,
            "log": log,
            **kept,
        },
        settings={"seed": 5, "batch_size": BATCH},
        every=every,
        resume=resume,
        lengthen=plateau,
    )
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=loss,
        train_handlers=[
            checkpoint,
            *watching,
            steps,
            ValidationHandler(1, evaluator),
            log,
        ],
    )
    trainer.average = kept.get("average")
    return trainer


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def same(first, second):
    """Return whether two checkpoints and logs are equal to the last bit."""

    def rows(folder):
        return [line.split(",")[:-1] for line in (folder / "log.csv").read_text().splitlines()]

    return {
        "finished": read_checkpoint(first / "checkpoint.pt")["finished"],
        "checkpoint": equal(*(read_checkpoint(f / "checkpoint.pt") for f in (first, second))),
        "model": equal(*(read_weights(f / "model.pt") for f in (first, second))),
        "log": rows(first) == rows(second) and len(rows(first)) == EPOCHS + 1,
    }


def forked(work):
    """Start `work` in a child; return its number."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def ended(child):
    """Wait for a child; return its exit status, negative where it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def in_child(work):
    return ended(forked(work))


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


def kill_steps(folder, kills, **settings):
    """Kill a run at random steps, resume it each time, and compare it with a whole one."""
    draw = random.Random(kills)
    whole = folder / "whole"
    in_child(partial(train, whole, False, **settings))
    results = []
    for trial in range(kills):
        run = folder / f"run{trial}"
        death = (draw.choice(DEATHS), draw.randint(1, EPOCHS * LENGTH))
        killed = in_child(partial(train, run, False, death, **settings))
        resumed = in_child(partial(train, run, True, **settings))
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
        pair = [forked(partial(process, run, rank, resume, death, meeting)) for rank in range(2)]
        return sum(ended(child) != 0 for child in pair)

    whole, run = folder / "whole", folder / "run"
    first = both(whole, False)
    killed = both(run, False, (Events.ITERATION_STARTED, 4))
    resumed = both(run, True)
    statuses = {"whole": first, "killed": killed, "resumed": resumed}
    return [statuses | same(whole, run)]


def average_of_ranks(folder):
    """Train with the moving average in two gloo processes; compare what each of them has."""

    def process(rank):
        meeting = f"file://{folder / 'meeting'}"
        dist.init_process_group("gloo", meeting, rank=rank, world_size=2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = make_run(folder / "run", False, world=2, baseline=True)
        validated, losses, average = [], [], trainer.average
        average.evaluator.add_event_handler(  # before the first pass, which would level buffers
            Events.STARTED,
            lambda: validated.append(copy.deepcopy(average.network.module.state_dict())),
        )
        average.evaluator.add_event_handler(
            Events.EPOCH_COMPLETED,
            lambda: losses.append(average.evaluator.state.metrics["val_loss"]),
        )
        trainer.run()
        found = {"validated": validated, "losses": losses, **average.state_dict()}
        torch.save(found, folder / f"rank{rank}.pt")
        end_processes()

    ended_well = [ended(child) for child in [forked(partial(process, rank)) for rank in range(2)]]
    first, second = (torch.load(folder / f"rank{rank}.pt") for rank in range(2))
    kept = read_weights(folder / "run" / "model.pt")[0]
    return {
        "ended": ended_well,
        "losses": first["losses"],
        "same": {key: equal(first[key], second[key]) for key in first},
        "kept": any(equal(dict(kept), dict(one)) for one in first["validated"]),
    }


def steps_of_ranks(folder):
    """Losses and gradients of three steps on the same batches, in one process and in two."""

    def work(rank, world):
        if world > 1:
            meeting = f"file://{folder / 'meeting'}"
            dist.init_process_group("gloo", meeting, rank=rank, world_size=world)
        torch.manual_seed(1)
        network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
        if world > 1:
            network = nn.parallel.DistributedDataParallel(network)
        cases = [*items(), items()[0]]
        flip = [RandFlipd(["image", "label"], prob=0.5)]
        dataset = ReplayDataset(cases, [EnsureTyped(["image", "label"])], flip, seed=5)
        loader = training_loader(dataset, len(cases) // 2 // world, 5)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        found = []
        for batch in (*loader, *loader):
            optimizer.zero_grad()
            value = loss(network(batch["image"]), batch["label"])
            value.backward()
            gradients = [one.grad.clone() for one in network.parameters()]
            found.append((mean_over_processes(float(value)), gradients))
            optimizer.step()
        torch.save(found, folder / f"{world}-{rank}.pt")
        end_processes()

    ranks = [(0, 1), (0, 2), (1, 2)]
    ended_well = [ended(child) for child in [forked(partial(work, *one)) for one in ranks]]
    alone, *both = (torch.load(folder / f"{world}-{rank}.pt") for rank, world in ranks)
    apart = [
        max(
            abs(value - other[0]),
            *(float((a - b).abs().max()) for a, b in zip(own, other[1], strict=True)),
        )
        for found in both
        for (value, own), other in zip(alone, found, strict=True)
    ]
    return {"ended": ended_well, "steps": len(apart), "apart": max(apart)}


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
    path, first = folder / "saved.pt", folder / "first"
    results = []

    def save_on():
        for version in range(100000):
            save(path, version)
            first.touch()

    for _ in range(kills):
        first.unlink(missing_ok=True)
        child = forked(save_on)
        while not first.exists():
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.03))
        until = time.monotonic() + 1  # then it is not written beside the old file at all
        if draw.random() < 0.7:  # within a save, else wherever it is
            while not list(folder.glob(".part-*")) and time.monotonic() < until:
                pass
        os.kill(child, signal.SIGKILL)
        ended(child)
        halves = list(folder.glob(".part-*"))
        results.append({"loadable": is_whole(path), "inside": len(halves) > 0})
        for half in halves:
            half.unlink()
    return results


TRIALS = {
    "steps": kill_steps,
    "steps_workers": partial(kill_steps, workers=2),
    "steps_baseline": partial(kill_steps, baseline=True),
    "often": lambda folder, kills: kill_often(folder),
    "rank": lambda folder, kills: kill_rank(folder),
    "equal": lambda folder, kills: steps_of_ranks(folder),
    "average": lambda folder, kills: average_of_ranks(folder),
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
