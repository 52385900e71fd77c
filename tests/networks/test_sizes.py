"""Which size a network takes next, found without computing anything."""

import pytest
import torch
from monai.networks.nets import UNETR, DynUNet, SegResNet, UNet

from metaseg_monai.networks import Unet3, condition
from metaseg_monai.networks.sizes import Sizes, sizes_of


def dynunet(strides, dims=2):
    return DynUNet(
        dims, 1, 2, kernel_size=[3] * len(strides), strides=strides,
        upsample_kernel_size=strides[1:], filters=[2] * len(strides),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("network", "size", "expected"),
    [
        (dynunet([1] + [2] * 6), (64, 64), Sizes((64, 64), (128, 128))),
        (dynunet([1, [1, 2, 2], [2, 2, 2]], 3), (3, 8, 9), Sizes((2, 4, 4), (4, 8, 12))),
        (SegResNet(spatial_dims=2, init_filters=8), (20, 32), Sizes((8, 8), (24, 32))),
        (
            Unet3(in_channels=1, channels=4, levels=3, variant="none"),
            (17, 3),
            Sizes((8, 8), (24, 8)),
        ),
        (UNETR(1, 2, (32, 32), 4, 24, 24, 2, spatial_dims=2), (20, 20), None),
    ],
)
def test_the_next_size_that_a_network_takes(network, size, expected):
    image = torch.zeros(1, 1, *size)
    weights = [id(one) for one in network.parameters()]
    assert sizes_of(network, image) == expected
    assert [id(one) for one in network.parameters()] == weights
    if expected is not None:
        network(torch.zeros(1, 1, *expected.following))


def test_a_conditioned_network_stays_as_it_was():
    network = condition(
        UNet(2, 1, 2, (2, 4, 4), (2, 2), norm="batch"), meta_features=3, reduction=1
    ).train()
    before = {name: one.clone() for name, one in network.state_dict().items()}
    image, meta = torch.zeros(2, 1, 9, 9), torch.zeros(2, 3)
    assert sizes_of(network, image, (), {"meta": meta}) == Sizes((4, 4), (12, 12))
    assert sizes_of(network, image, (), {"meta": torch.zeros(2, 4)}) is None  # of another width
    after = network.state_dict()
    assert all(torch.equal(one, before[name]) for name, one in after.items())
    assert not any(one._forward_hooks for name, one in network.named_modules() if "norm" in name)
    assert network(image[..., :8, :8], meta).shape == (2, 2, 8, 8)
