"""The wiring of PPUnet: its size, its skips, its grids."""

import pytest
import torch

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks import PPUnet
from metaseg_monai.networks.gates import ChannelGate
from metaseg_monai.networks.ppunet import GridMean


def count(network):
    return sum(weight.numel() for weight in network.parameters())


def test_it_has_the_size_that_the_thesis_tells():
    naked = count(PPUnet(variant="none"))
    gated = count(PPUnet(variant="se", reduction=2))
    assert (naked, gated) == (2_109_442, 2_258_434)  # 2.10 and 2.25 million (thesis 3.3)
    assert 1.065 < gated / naked < 1.075  # "7 %"
    gates = [
        one for one in PPUnet(variant="se", levels=5).modules() if isinstance(one, ChannelGate)
    ]
    assert len(gates) == 12


@pytest.mark.parametrize("size", [(1,), (2,), (7,), (24,), (6, 9), (3, 4, 5)])
def test_grids_of_cells_that_divide_the_size_are_adaptive_means(size):
    x = torch.randn(2, 3, *size)
    pool = getattr(torch.nn.functional, f"adaptive_avg_pool{len(size)}d")
    for cells in (1, 2, 3):
        if all(edge % cells == 0 for edge in size):
            torch.testing.assert_close(GridMean(cells)(x), pool(x, cells))
        means = GridMean(cells)(x)
        assert means.shape == (2, 3, *[cells] * len(size))
        torch.testing.assert_close(means.flatten(2).mean(2), x.flatten(2).mean(2))


def test_a_small_picture_fills_a_large_grid():
    assert GridMean(4)(torch.tensor([[[1.0, 3.0]]])).tolist() == [[[1, 1, 3, 3]]]


def test_each_answer_depends_on_the_whole_picture():
    torch.manual_seed(0)
    network = PPUnet(variant="none", channels=4, levels=1).double().eval()
    image = torch.rand(1, 1, 64, 64).double()
    other = image.clone()
    other[..., -8:, -8:] += 5
    with torch.no_grad():
        assert (network(image) - network(other))[..., :8, :8].abs().max() > 1e-9


def test_levels_take_the_two_levels_before_them():
    network = PPUnet(variant="none", channels=4, levels=4)
    widths = [level.convolutions[0].in_channels for level in network.encoder]
    assert widths == [1, 4, 8, 8]
    assert network.middle.convolutions[0].in_channels == 8
    assert {level.convolutions[0].in_channels for level in network.decoder} == {12}


def test_gates_stand_where_they_are_placed_the_pyramid_included():
    network = PPUnet(variant="me", meta_features=3, channels=4, levels=2, places=["pyramid"])
    gates = [name for name, one in network.named_modules() if isinstance(one, ChannelGate)]
    assert gates == ["pyramid.gate"]
    image = torch.rand(1, 1, 9, 9)
    one, other = (network.eval()(image, torch.eye(3)[[entry]]) for entry in (0, 1))
    assert (one - other).abs().max() > 1e-6
    with pytest.raises(ConfigError, match=r"expected some of 'encoder1', .*did you mean 'pyramid'"):
        PPUnet(variant="se", places=["piramid"])
