"""What each mechanism makes of a layer, by hand: the layer with the weights of one image."""

import copy

import pytest
import torch
from torch import nn

from metaseg_monai.networks.mechanisms import (
    AdaptiveNorm,
    ConstantChannels,
    HyperKernel,
    LowRank,
)

CIRCULAR = {"stride": 2, "padding": 2, "dilation": 2, "padding_mode": "circular"}
LAYERS = {
    "of all settings": lambda: nn.Conv2d(3, 5, 3, **CIRCULAR),
    "3D": lambda: nn.Conv3d(3, 5, (3, 1, 3), padding=(1, 0, 1)),
    "transposed": lambda: nn.ConvTranspose2d(3, 5, 3, stride=2, padding=1, output_padding=1),
}
META = torch.tensor([[0.0, 1.0], [0.5, -2.0]])


@pytest.fixture(params=LAYERS)
def layer(request):
    torch.manual_seed(0)
    return LAYERS[request.param]()


def images(layer):
    return torch.randn(2, 3, *(9, 8, 6)[: layer.weight.dim() - 2])


def stirred(mechanism):
    for weight in mechanism.parameters():  # also those that begin as 0
        nn.init.normal_(weight, std=0.5)
    return mechanism


def compare(mechanism, layer, changes):
    """Each image's output is that of the layer with its own change of the weights."""
    x = images(layer)
    found = mechanism(x, layer(x), META)
    for row, change in enumerate(changes):
        own = copy.deepcopy(layer)
        own.weight.data += change
        torch.testing.assert_close(found[[row]], own(x[[row]]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_low_rank_changes_the_weights_by_b_g_a(layer):
    mechanism = stirred(LowRank(layer, meta_features=2, rank=3))
    b = mechanism.b.weight.flatten(1)
    is_transposed = isinstance(layer, nn.ConvTranspose2d)
    a = mechanism.a.weight.transpose(0, 1) if is_transposed else mechanism.a.weight
    changes = [torch.einsum("or,r,ri...->oi...", b, g, a) for g in mechanism.g(META)]
    compare(mechanism, layer, [c.transpose(0, 1) if is_transposed else c for c in changes])


@torch.no_grad()
def test_hyper_adds_kernels_mixed_by_the_metadata(layer):
    mechanism = stirred(HyperKernel(layer, meta_features=2, kernels=4))
    weight = mechanism.kernels.weight
    if isinstance(layer, nn.ConvTranspose2d):
        changes = [
            torch.einsum("j,j...->...", h, weight.unflatten(0, (4, 3))) for h in made(mechanism)
        ]
    else:
        changes = [
            torch.einsum("j,oj...->o...", h, weight.unflatten(1, (4, 3))) for h in made(mechanism)
        ]
    compare(mechanism, layer, changes)


def made(mechanism):
    assert mechanism.h(1000 * META).abs().max() <= 1  # however large the metadata are
    return mechanism.h(META)


@torch.no_grad()
def test_constant_channels_are_those_of_a_wider_layer(layer):
    mechanism = ConstantChannels(layer, meta_features=2)
    wide = copy.deepcopy(layer)
    wide.in_channels = 5
    inputs = 0 if isinstance(layer, nn.ConvTranspose2d) else 1
    wide.weight = nn.Parameter(torch.cat([layer.weight, mechanism.v.weight], dim=inputs))
    x = images(layer)
    planes = META.reshape(2, 2, *[1] * (x.dim() - 2)).expand(2, 2, *x.shape[2:])
    expected = wide(torch.cat([x, planes], dim=1))
    torch.testing.assert_close(mechanism(x, layer(x), META), expected)


@torch.no_grad()
def test_adaptive_norm_scales_and_shifts_what_is_normalised():
    norm, x = nn.InstanceNorm2d(3), torch.randn(2, 3, 5, 4)
    mechanism = stirred(AdaptiveNorm(3, meta_features=2, reduction=1))
    parts = mechanism.modulation.modulation
    gamma, beta = parts["film"](parts["hidden"](META).relu())[..., None, None].chunk(2, dim=1)
    torch.testing.assert_close(mechanism(x, norm(x), META), norm(x) * (1 + gamma) + beta)
