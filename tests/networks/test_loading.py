"""Weights of something else are refused where others load what fits and skip the rest."""

import copy

import pytest
import torch
from ignite.engine import Engine, Events
from monai.handlers import CheckpointLoader
from monai.networks.nets import BasicUNet
from torch import nn

from metaseg_monai.errors import CheckpointError
from metaseg_monai.networks import (
    DenseUnetGenerator,
    DynamicUnet3,
    MultiHeadUnet3,
    PPUnet,
    Unet3,
    condition,
)

SMALL = {"channels": 4, "levels": 1}
NETWORKS = {
    "Unet3": lambda: Unet3(meta_features=2, **SMALL),
    "DynamicUnet3": lambda: DynamicUnet3(meta_features=2, **SMALL),
    "PPUnet": lambda: PPUnet(meta_features=2, channels=4, levels=2),
    "MultiHeadUnet3": lambda: MultiHeadUnet3(2, **SMALL),
    "DenseUnetGenerator": lambda: DenseUnetGenerator(levels=1, growth=2, layers=1),
    "Conditioned": lambda: condition(
        BasicUNet(2, 1, 2, features=(4,) * 6), None, "me", meta_features=2
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_checkpoint_of_a_run_is_no_weights(name):
    network = copy.deepcopy(NETWORKS[name]())  # as MONAI Label takes it
    state = network.state_dict()
    run = {"settings": {}, "objects": {"network": state}, "iteration": 3}
    with pytest.raises(CheckpointError, match=rf"no weights of {name}: .*load model.pt"):
        network.load_state_dict(run.get("model", run), strict=False)
    some = dict(list(state.items())[:1])
    assert network.load_state_dict(some, strict=False).missing_keys
    assert not network.load_state_dict(state, strict=False).missing_keys
    with pytest.raises(RuntimeError, match="Missing key"):  # PyTorch's own word
        network.load_state_dict(some)


def test_a_part_of_another_network_takes_what_it_is_given():
    whole = nn.ModuleDict({"head": nn.Linear(1, 1), "unet": NETWORKS["Unet3"]()})
    whole.load_state_dict({"head.weight": torch.ones(1, 1)}, strict=False)
    assert whole["head"].weight.item() == 1


def test_bare_weights_of_a_conditioned_network():
    bare = BasicUNet(2, 1, 2, features=(4,) * 6)
    network = NETWORKS["Conditioned"]()
    network.load_state_dict(bare.state_dict(), strict=False)
    assert torch.equal(network.network.final_conv.bias, bare.final_conv.bias)


def test_the_loader_of_monai(tmp_path):
    file = tmp_path / "checkpoint.pt"
    torch.save({"objects": {"network": NETWORKS["Unet3"]().state_dict()}}, file)
    engine = Engine(lambda engine, batch: None)
    network = {"model": NETWORKS["Unet3"]()}
    CheckpointLoader(str(file), network, strict=False).attach(engine)
    with pytest.raises(CheckpointError, match=r"load model\.pt"):
        engine.fire_event(Events.STARTED)
