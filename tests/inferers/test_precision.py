import pytest
import torch
from monai.inferers import SimpleInferer
from torch import nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.inferers import (
    AutocastInferer,
    PlaneInferer,
    SlidingWindowMetadataInferer,
    channels_last,
)


class Watching(nn.Module):
    """Notes the number format its convolution gives."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3, padding=1)
        self.seen = []

    def forward(self, image, meta=None):
        out = self.layer(image)
        self.seen.append(out.dtype)
        return out if meta is None else out * meta[:, :1, None, None]


@pytest.mark.parametrize(
    ("inferer", "size"),
    [
        (SimpleInferer(), (8, 8)),
        (SlidingWindowMetadataInferer(4), (9, 7)),
        (PlaneInferer(SlidingWindowMetadataInferer((-1, -1))), (9, 7, 2)),
    ],
)
def test_network_runs_in_bfloat16_and_logits_come_in_float32(inferer, size):
    network = Watching()
    image, meta = torch.randn(2, 1, *size), torch.tensor([[1.0], [3.0]])
    pred = AutocastInferer(inferer)(image, network, meta=meta)
    assert pred.dtype == torch.float32
    assert set(network.seen) == {torch.bfloat16}
    torch.testing.assert_close(pred, inferer(image, network, meta=meta), atol=0.1, rtol=0.05)


def test_gradients_are_float32_and_the_weights_keep_theirs():
    network = Watching()
    pred = AutocastInferer(SimpleInferer())(torch.randn(1, 1, 8, 8), network)
    pred.square().mean().backward()
    assert network.layer.weight.grad.dtype == torch.float32
    assert float(network.layer.weight.grad.abs().sum()) > 0


def test_none_is_the_wrapped_inferer_itself():
    network, image = Watching(), torch.randn(1, 1, 8, 8)
    pred = AutocastInferer(SimpleInferer(), dtype=None)(image, network)
    assert network.seen == [torch.float32]
    assert torch.equal(pred, network(image))


def test_windows_are_blended_in_float32():
    """A constant prediction would not stay constant were overlapping windows added in bfloat16."""
    value = 1 / 3

    def network(image):
        return torch.full_like(image, value).bfloat16()

    inferer = AutocastInferer(SlidingWindowMetadataInferer(8, overlap=0.6))
    pred = inferer(torch.ones(1, 1, 30, 30), network)
    assert float((pred - torch.tensor(value).bfloat16()).abs().max()) < 1e-6


@pytest.mark.parametrize("dtype", ["float16", "bf16", "float32"])
def test_other_formats_are_refused(dtype):
    with pytest.raises(ConfigError, match="bfloat16 or None"):
        AutocastInferer(SimpleInferer(), dtype=dtype)


@pytest.mark.parametrize(
    ("layer", "dims", "memory"),
    [(nn.Conv2d, 2, torch.channels_last), (nn.Conv3d, 3, torch.channels_last_3d)],
)
def test_channels_last_changes_the_layout_only(layer, dims, memory):
    network = layer(3, 4, 3)
    image = torch.randn(1, 3, *[5] * dims)
    before = network(image)
    assert channels_last(network) is network
    assert network.weight.is_contiguous(memory_format=memory)
    torch.testing.assert_close(network(image), before)


def test_channels_last_leaves_what_has_no_such_format():
    for network in (nn.Conv1d(1, 1, 1), nn.Sequential(nn.Conv2d(1, 1, 1), nn.Conv3d(1, 1, 1))):
        assert channels_last(network) is network


def test_gradients_of_volumes_are_not_what_was_in_memory():
    network = nn.Conv3d(16, 16, 3, padding=1)
    infer, image = AutocastInferer(SimpleInferer()), torch.rand(2, 16, 2, 2, 2)
    infer(image, network).square().mean().backward()
    made = network.weight.grad.clone()
    network.zero_grad()
    network(image).square().mean().backward()
    torch.testing.assert_close(made, network.weight.grad)
    with torch.no_grad():
        assert not torch.equal(infer(image, network), network(image))  # in bfloat16
