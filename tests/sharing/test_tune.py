"""What is held of a network that is trained further, and that a new domain is learned."""

import pytest
import torch
from ignite.engine import Engine

from metaseg_monai.errors import ConfigError
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.networks import Unet3, grow
from metaseg_monai.sharing.grow import StartFrom, hold
from metaseg_monai.training import write_weights

KNOWN = {"provenance": "acquisition", "availability": "acquisition"}
BEFORE, AFTER = (
    MetadataSchema([Categorical(name="line", values=values, **KNOWN)])
    for values in (("bright", "dark"), ("bright", "dark", "as bright"))
)


def batch(count, which, width, seed):
    """Images, metadata and labels: the bright pixels, or the dark ones."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(count, 1, 16, 16, generator=generator)
    meta = torch.nn.functional.one_hot(torch.tensor(which).repeat(count // len(which)), width)
    is_dark = (meta[:, 1] == 1)[:, None, None]
    return image, meta.float(), (image[:, 0] > 0.5) ^ is_dark


def loss_of(network, image, meta, label):
    return torch.nn.functional.cross_entropy(network(image, meta), label.long())


def train(network, which, width, steps, rate=0.02):
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    for step in range(steps):
        network.train()
        optimizer.zero_grad()
        loss_of(network, *batch(8, which, width, step)).backward()
        optimizer.step()
    return network.eval()


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    network = Unet3(BEFORE, "me", channels=8, levels=1, reduction=1, start="neutral")
    return train(network, [0, 1], 2, 60)


@pytest.mark.parametrize("tune", ["new", "gates", "all"])
def test_a_new_domain_is_learned(trained, tune):
    network = Unet3(BEFORE, "me", channels=8, levels=1, reduction=1, start="neutral")
    network.load_state_dict(trained.state_dict())
    grow(network, BEFORE, AFTER).eval()
    image, meta, _ = batch(8, [0, 1], 3, 1000)
    fresh = batch(8, [2], 3, 1001)
    with torch.no_grad():
        was = network(image, meta)
        first = float(loss_of(network, *fresh))
    assert torch.equal(was, trained(image, meta[:, :2]))
    hold(network, tune)
    train(network, [2] if tune == "new" else [0, 1, 2, 2], 3, 60)
    with torch.no_grad():
        now = network(image, meta)
        assert float(loss_of(network, *fresh)) < 0.5 * first
    assert torch.equal(now, was) == (tune == "new")  # alone, it takes nothing from the others


def test_nothing_to_train_is_refused():
    with pytest.raises(ConfigError, match="tune new: this Unet3 has no such weights; train all"):
        hold(Unet3(BEFORE, "me", channels=4, levels=1), "new")
    with pytest.raises(ConfigError, match="tune gates: this Unet3 has no such weights"):
        hold(Unet3(variant="se", channels=4, levels=1), "gates")
    with pytest.raises(ConfigError, match="tune must be all, gates or new, got 'some'"):
        StartFrom("model.pt", torch.nn.Linear(1, 1), tune="some")
    with pytest.raises(ConfigError, match="the schema has no line=red"):
        StartFrom("model.pt", torch.nn.Linear(1, 1), BEFORE, entries=["line=red"])


def test_forgetting_is_told(trained, tmp_path, caplog):
    """The old domains' score before training, and a warning once it has fallen."""
    write_weights(
        tmp_path / "model.pt", trained, {"schema": BEFORE.to_dict(), "unknown_trained": False}
    )
    network = Unet3(BEFORE, "me", channels=8, levels=1, reduction=1, start="neutral")
    image, meta, label = batch(4, [0, 1], 2, 5)
    data = [{"image": image, "label": label[:, None], "meta": meta}]

    def validate(engine, batch):
        return {"pred": network(batch["image"], batch["meta"]), "label": batch["label"]}

    evaluator, trainer = Engine(validate), Engine(lambda engine, batch: None)
    evaluator.data_loader = data
    evaluator.network = network
    evaluator.inferer = lambda images, network, meta: network(images, meta)
    evaluator.prepare_batch = lambda one, device: (
        *(one["image"], one["label"], ()),
        {"meta": one["meta"]},
    )
    evaluator.state.device = "cpu"
    start = StartFrom(tmp_path / "model.pt", network, BEFORE, evaluator=evaluator)
    start.attach(trainer)
    trainer.run([0], max_epochs=1)
    assert torch.equal(network.head.weight, trained.head.weight)
    evaluator.run(data)
    assert evaluator.state.metrics["old_f1"] == start.first > 0.9
    assert not caplog.records
    with torch.no_grad():
        network.head.bias += 100
        network.head.bias[1] -= 200
    evaluator.run(data)
    assert evaluator.state.metrics["old_f1"] == 0
    assert "they are being forgotten" in caplog.text
