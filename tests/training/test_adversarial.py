"""Adversarial training: what each of its two steps does, and what its handlers see."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from monai.inferers import SimpleInferer
from torch import nn
from torch.optim import SGD, Adam

from metaseg_monai.errors import TrainingError
from metaseg_monai.losses import (
    GradientLoss,
    LogSquaredLoss,
    LupiLoss,
    MedianMeanAbsoluteLoss,
    RelativisticAverageLeastSquares,
    ScorePool,
    WeightedSum,
)
from metaseg_monai.networks import (
    DenseUnetGenerator,
    NucleiLupiUnet,
    PatchDiscriminator,
    condition,
)
from metaseg_monai.simulate.adipocyte import brightfield, draw_scene, draw_well, fluorescence
from metaseg_monai.training import (
    ConditionalAdversarialTrainer,
    EpochLog,
    PrepareBatchMeta,
    ReplayDataset,
    StopOnNonFinite,
    TryBatches,
    training_loader,
)

SMALL = {
    "in_channels": 2,
    "channels": 4,
    "levels": 1,
    "growth": 2,
    "layers": 1,
    "dropout": 0.0,
    "reduction": 1,
}
PLANES = 2


def items(number=4, channels=1):
    random = torch.Generator().manual_seed(0)
    images = torch.rand(number, PLANES, 16, 16, generator=random)
    label = (0.5 * images[:, :1] + 0.25).repeat(1, channels, 1, 1)
    label[:, 1:] = (label[:, 1:] > 0.5).float()
    meta = torch.eye(2).repeat(number // 2, 1)
    return [
        {"case": f"case {n}", "image": images[n], "label": label[n], "meta": meta[n]}
        for n in range(number)
    ]


def made(generator, discriminator, data, loss, handlers=(), epochs=1, make=SGD, rates=(1e-2, 1e-3)):
    """The trainer, its pool and its optimisers."""
    pool = ScorePool(size=3)
    optimizers = [
        make(network.parameters(), lr=rate)
        for network, rate in zip((generator, discriminator), rates, strict=True)
    ]
    trainer = ConditionalAdversarialTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=training_loader(ReplayDataset(data), 2, 0),
        g_network=generator,
        g_optimizer=optimizers[0],
        g_loss_function=WeightedSum([RelativisticAverageLeastSquares("generator", pool)], [0.01]),
        recon_loss_function=loss,
        d_network=discriminator,
        d_optimizer=optimizers[1],
        d_loss_function=RelativisticAverageLeastSquares("discriminator", pool),
        prepare_batch=PrepareBatchMeta(generator),
        g_inferer=SimpleInferer(),
        decollate=False,
        train_handlers=list(handlers),
    )
    return trainer, pool, optimizers


RECONSTRUCTION = WeightedSum([GradientLoss(), MedianMeanAbsoluteLoss()], [10, 1])


def test_an_iteration_trains_the_discriminator_and_then_the_generator():
    torch.manual_seed(0)
    generator = DenseUnetGenerator(**SMALL, variant="me", meta_features=2)
    discriminator = PatchDiscriminator(PLANES + 1, channels=2, field=70)
    data = [{**one, "image": one["image"].repeat(1, 2, 2)} for one in items(2)]
    data = [{**one, "label": one["label"].repeat(1, 2, 2)} for one in data]
    g, d = copy.deepcopy((generator, discriminator))
    trainer, pool, _ = made(generator, discriminator, data, RECONSTRUCTION)
    trainer.run()

    batch = next(iter(training_loader(ReplayDataset(data), 2, 0)))
    image, real = batch["image"], batch["label"]
    optimizers = [
        SGD(g.parameters(), lr=1e-2),
        SGD(d.parameters(), lr=1e-3),
    ]
    fake = g.train()(image, batch["meta"])
    r, f = d.train()(torch.cat([image, real], 1)), d(torch.cat([image, fake.detach()], 1))
    loss = ((r - f.mean() - 1) ** 2).mean() / 2 + ((f - r.mean() + 1) ** 2).mean() / 2
    # the pool's means are numbers: no gradient
    means = f.detach().mean(), r.detach().mean()
    pooled = ((r - means[0] - 1) ** 2).mean() / 2 + ((f - means[1] + 1) ** 2).mean() / 2
    assert float(loss.detach()) == pytest.approx(float(pooled.detach()))
    pooled.backward()
    optimizers[1].step()
    r, f = d(torch.cat([image, real], 1)), d(torch.cat([image, fake], 1))
    adversarial = ((r - means[0] + 1) ** 2).mean() / 2 + ((f - means[1] - 1) ** 2).mean() / 2
    optimizers[0].zero_grad()
    (RECONSTRUCTION(fake, real) + 0.01 * adversarial).backward()
    optimizers[0].step()

    assert len(pool) == 2
    for own, hand in ((generator, g), (discriminator, d)):
        for name, weight in own.state_dict().items():
            torch.testing.assert_close(weight, hand.state_dict()[name], msg=name)
    output = trainer.state.output
    assert float(output["loss"].detach()) == pytest.approx(
        float((output["reconstruction_loss"] + output["generator_loss"]).detach())
    )
    assert all(weight.requires_grad for weight in discriminator.parameters())


class Told(nn.Module):
    """A discriminator that is steered, on crops of any size."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(PLANES + 1, 4, 3), nn.Conv2d(4, 1, 3))

    def forward(self, image):
        return self.layers(image)


def test_handlers_see_the_generator_and_all_losses_are_finite_and_logged(tmp_path):
    torch.manual_seed(0)
    generator = NucleiLupiUnet(**SMALL, variant="sme", meta_features=2)
    discriminator = condition(
        Told(), variant="me", at=["layers.0"], meta_features=2, image_shape=(PLANES + 1, 16, 16)
    )
    parts = ("reconstruction_loss", "generator_loss", "discriminator_loss")
    handlers = [TryBatches(), StopOnNonFinite()]
    trainer, pool, (optimizer, _) = made(
        generator, discriminator, items(4, channels=2), LupiLoss(), handlers, epochs=2
    )
    log = EpochLog(tmp_path / "log.csv", optimizer, parts=parts)
    log.attach(trainer)
    before = copy.deepcopy([network.state_dict() for network in (generator, discriminator)])
    trainer.run()
    rows = pd.read_csv(tmp_path / "log.csv")
    assert rows["epoch"].tolist() == [1, 2]
    total = rows["reconstruction_loss"] + rows["generator_loss"]
    assert rows["train_loss"].tolist() == pytest.approx(total.tolist())
    assert rows["discriminator_loss"].gt(0).all()
    assert len(pool) == 3
    for network, was in zip((generator, discriminator), before, strict=True):
        steering = [name for name in was if "gate" in name]
        assert steering
        changed = {n for n, value in network.state_dict().items() if not torch.equal(value, was[n])}
        assert changed.intersection(steering)


def test_a_discriminator_that_is_not_finite_stops_the_run():
    torch.manual_seed(0)
    generator, discriminator = DenseUnetGenerator(**SMALL), Told()
    nn.init.constant_(discriminator.layers[1].weight, float("inf"))
    trainer, *_ = made(generator, discriminator, items(), RECONSTRUCTION, [StopOnNonFinite()])
    with pytest.raises(TrainingError, match=r"The discriminator loss is nan in epoch 1, .*case \d"):
        trainer.run()


def tiles(number, planes=3, size=32):
    """Simulated planes and lipids of fields at 20x, 1 at the highest value of all."""
    random = np.random.default_rng(4)
    well = draw_well(random)
    images, labels = [], []
    for _ in range(number):
        scene = draw_scene(random, well, size, pixel_um=0.8)
        heights = np.linspace(-6, 6, planes)
        images.append([brightfield(random, scene, well, 20, float(one)) for one in heights])
        labels.append([fluorescence(random, scene, well, 20, "lipids")])
    stacks, stains = (torch.tensor(np.asarray(one, np.float32)) for one in (images, labels))
    for one in (stacks, stains):
        one.div_(one.max())
    return [
        {"case": str(n), "image": stacks[n], "label": stains[n], "meta": torch.zeros(1)}
        for n in range(number)
    ]


def test_eight_tiles_are_fitted_to_half_of_the_error_of_pretraining():
    torch.manual_seed(0)
    sizes = {"in_channels": 3, "channels": 12, "levels": 2, "growth": 6, "layers": 2}
    generator = DenseUnetGenerator(**sizes, dropout=0.0)
    data = tiles(8)
    image, label = (torch.stack([one[key] for one in data]) for key in ("image", "label"))
    measure, pretraining = MedianMeanAbsoluteLoss(), LogSquaredLoss()

    def error():
        with torch.no_grad():
            return float(measure(generator.eval()(image), label))

    optimizer = Adam(generator.parameters(), lr=3e-3)
    for _ in range(45):
        optimizer.zero_grad()
        pretraining(generator.train()(image), label).backward()
        optimizer.step()
    before = error()
    constant = label.flatten(2).median(dim=2).values[..., None, None].expand_as(label)
    assert before < 0.8 * float(measure(constant, label))  # it has learned more than one grey
    discriminator = PatchDiscriminator(4, channels=4, field=70)
    settings = {"epochs": 40, "make": Adam, "rates": (5e-4, 1e-5)}
    trainer, *_ = made(generator, discriminator, data, RECONSTRUCTION, **settings)
    trainer.run()
    assert error() < 0.5 * before
