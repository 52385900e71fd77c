"""A tiny training run with all that must be resumed: shuffling, augmentation, dropout, schedule."""

import random

import numpy as np
import torch
from ignite.metrics import Loss
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler, ValidationHandler, from_engine
from monai.transforms import EnsureTyped, Lambdad, RandFlipd, RandGaussianNoised
from torch import nn

from metaseg_monai.training import (
    BestWeights,
    EpochLog,
    ReplayDataset,
    RunCheckpoint,
    collate_cases,
    cyclic_schedule,
    read_checkpoint,
    read_weights,
    training_loader,
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


def make_run(folder, resume, workers=0, world=1, every=2, epochs=EPOCHS):
    """Return the trainer of a run whose files go to `folder`."""
    torch.manual_seed(1)
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    network = Network()
    if world > 1:
        network = nn.parallel.DistributedDataParallel(network)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    augment = [
        RandFlipd(["image", "label"], prob=0.5),
        RandGaussianNoised("image", prob=0.9),
        Lambdad("image", global_noise),
    ]
    fixed = [EnsureTyped(["image", "label"])]
    dataset = ReplayDataset(items(), fixed, augment, seed=5)
    loader = training_loader(dataset, BATCH, 5, num_workers=workers)
    iterations = epochs * len(loader)
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
    log = EpochLog(folder / "log.csv", optimizer, evaluator)
    checkpoint = RunCheckpoint(
        folder,
        objects={
            "network": network,
            "optimizer": optimizer,
            "lr_scheduler": schedule,
            "best": best,
            "log": log,
        },
        settings={"seed": 5, "batch_size": BATCH},
        every=every,
        resume=resume,
    )
    return SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=loss,
        train_handlers=[
            checkpoint,
            LrScheduleHandler(schedule, epoch_level=False),
            ValidationHandler(1, evaluator),
            log,
        ],
    )


def same(first, second):
    """Return whether two checkpoints and logs are equal to the last bit."""

    def equal(one, other):
        if isinstance(one, torch.Tensor):
            return one.dtype == other.dtype and torch.equal(one, other)
        if isinstance(one, dict):
            return one.keys() == other.keys() and all(equal(one[k], other[k]) for k in one)
        if isinstance(one, (list, tuple)):
            return len(one) == len(other) and all(map(equal, one, other))
        return one == other

    def rows(folder):
        return [line.split(",")[:-1] for line in (folder / "log.csv").read_text().splitlines()]

    return {
        "finished": read_checkpoint(first / "checkpoint.pt")["finished"],
        "checkpoint": equal(*(read_checkpoint(f / "checkpoint.pt") for f in (first, second))),
        "model": equal(*(read_weights(f / "model.pt") for f in (first, second))),
        "log": rows(first) == rows(second) and len(rows(first)) == EPOCHS + 1,
    }
