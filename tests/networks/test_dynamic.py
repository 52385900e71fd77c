"""Equation 2 of the proposal, which convolutions have it, and what the generator is fitted to."""

import pytest
import torch
import torch.nn.functional as F

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks import DynamicUnet3, Unet3
from metaseg_monai.networks.dynamic import DynamicConvolution, dynamic_layers


def small(**settings):
    torch.manual_seed(0)
    return DynamicUnet3(**{"meta_features": 3, "channels": 4, "levels": 2, **settings})


def convolution(product="matrix", generator="linear", dims=2, entries=3, joint=False):
    torch.manual_seed(0)
    plain = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dims](2, 5, 3, padding=1)
    draw = torch.Generator().manual_seed(3)
    return DynamicConvolution(plain, entries, product, generator, joint, draw)


def change_of(layer, meta):
    """F_w(M) - I for metadata (1, M): (O, I, 3, 3)."""
    return layer.kernel_change(meta).detach().view(5, 2, 3, 3)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("product", ["matrix", "elementwise"])
@pytest.mark.parametrize("generator", ["linear", "two-layer"])
def test_equation_two_for_each_image_by_hand(dims, product, generator):
    layer = convolution(product, generator, dims)
    x, meta = torch.randn(4, 2, 6, 5, 4)[..., : 4 if dims == 3 else None], torch.rand(4, 3)
    x = x if dims == 3 else x[..., 0]
    w, b = layer.convolution.weight, layer.convolution.bias
    expected = []
    for image, entries in zip(x, meta, strict=True):
        change = layer.kernel_change(entries[None])
        if product == "matrix":
            f = torch.eye(3) + change.view(5, 2, 3, 3)
            made = torch.einsum("oiab,oib...->oia...", f, w)
        else:
            made = (1 + change.view(w.shape)) * w
        bias = layer.bias_change(entries[None])[0] + b
        convolve = F.conv3d if dims == 3 else F.conv2d
        expected.append(convolve(image[None], made, bias, padding=1))
    torch.testing.assert_close(layer(x, meta), torch.cat(expected))
    layout = torch.channels_last_3d if dims == 3 else torch.channels_last
    turned = x.contiguous(memory_format=layout)
    torch.testing.assert_close(layer(turned, meta), torch.cat(expected))
    same = meta[:1].expand(4, 3)
    alone = [layer(x[[row]], same[[row]]) for row in range(4)]
    torch.testing.assert_close(layer(x, same), torch.cat(alone))


@pytest.mark.parametrize("generator", ["linear", "two-layer"])
def test_each_entry_has_its_own_eigenvector_of_the_eigenvalue_two(generator):
    layer = convolution(generator=generator, entries=5)
    for entry in range(5):
        f = torch.eye(3) + change_of(layer, torch.eye(5)[[entry]])
        values, vectors = torch.linalg.eigh((f + f.mT) / 2)
        ones = torch.ones(5, 2, 2)
        torch.testing.assert_close(values[..., :2], ones, atol=0.01, rtol=0)
        torch.testing.assert_close(values[..., 2], 2 * ones[..., 0], atol=0.01, rtol=0)
        if entry < 3:  # at right angles to those of the other entries
            for other in range(entry + 1, 3):
                g = change_of(layer, torch.eye(5)[[other]])
                moved = torch.einsum("oiab,oib->oia", g, vectors[..., 2])
                assert moved.abs().max() < 0.02


def test_the_value_of_an_entry_is_its_part_of_the_eigenvalue():
    whole = change_of(convolution(generator="two-layer"), torch.eye(3)[[1]])
    for part in (0.25, 0.5):
        found = change_of(convolution(generator="two-layer"), part * torch.eye(3)[[1]])
        torch.testing.assert_close(found, part * whole, atol=0.01, rtol=0)


@pytest.mark.parametrize("product", ["matrix", "elementwise"])
def test_without_metadata_it_is_a_plain_unet(product):
    network = small(product=product).eval()
    unet = Unet3(variant="none", channels=4, levels=2).eval()
    own = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in network.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    for kind, found in ((torch.nn.Conv2d, own), (torch.nn.BatchNorm2d, norms)):
        theirs = [m for m in unet.modules() if isinstance(m, kind)]
        for one, other in zip(theirs, found, strict=True):
            one.load_state_dict(other.state_dict())
    image = torch.rand(2, 1, 17, 12)
    torch.testing.assert_close(network(image, torch.zeros(2, 3)), unet(image))
    assert not torch.allclose(network(image, torch.eye(3)[:2]), unet(image), atol=1e-4)


def test_the_generator_is_frozen_or_learns_and_is_a_part_of_the_weights():
    image, meta = torch.rand(2, 1, 16, 16), torch.eye(3)[:2]
    for joint in (False, True):
        network = small(joint=joint)
        of_generator = {name: w for name, w in network.state_dict().items() if "_change" in name}
        learned = {name for name, _ in network.named_parameters() if "_change" in name}
        assert of_generator
        assert learned == (set(of_generator) if joint else set())
        before = {name: weight.clone() for name, weight in of_generator.items()}
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        network(image, meta).square().sum().backward()
        optimizer.step()
        moved = [not torch.equal(before[name], weight) for name, weight in of_generator.items()]
        assert all(moved) if joint else not any(moved)
    small(joint=False).load_state_dict(small(joint=True).state_dict())
    parameters = sum(weight.numel() for weight in DynamicUnet3(meta_features=4).parameters())
    assert parameters == 1_371_010  # those of Unet3 (thesis 3.3)


def test_the_pretraining_is_the_same_each_time_and_of_its_seed():
    torch.manual_seed(1)
    one = DynamicUnet3(meta_features=3, channels=4, levels=1, generator="two-layer")
    torch.manual_seed(2)
    two = DynamicUnet3(meta_features=3, channels=4, levels=1, generator="two-layer")
    other = DynamicUnet3(meta_features=3, channels=4, levels=1, generator="two-layer", seed=1)
    names = [name for name in one.state_dict() if "_change" in name]
    for name in names:
        assert torch.equal(one.state_dict()[name], two.state_dict()[name])
        assert not torch.equal(one.state_dict()[name], other.state_dict()[name])


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        ({"layers": "outer", "part": 0.25}, [0, 1, 2, 3, 29, 30, 31, 32]),
        ({"layers": "inner", "part": 0.25}, [13, 14, 15, 16, 17, 18, 19]),
        ({"layers": "outer", "part": 0.5}, [*range(8), *range(25, 33)]),
        ({"layers": "inner", "part": 0.5}, list(range(8, 25))),
        ({"layers": "outer", "part": 0.25, "symmetric": False}, list(range(8))),
        ({"layers": "inner", "part": 0.25, "symmetric": False}, list(range(9, 17))),
        ({"layers": "inner", "part": 0.01}, [16]),
        ({"layers": "outer", "part": 0.01}, [0, 32]),
        ({"part": 1.0}, list(range(33))),
    ],
)
def test_layers_of_the_proposal(settings, chosen):
    assert dynamic_layers(33, **settings) == chosen


def test_the_chosen_convolutions_are_dynamic():
    network = small(layers="outer", part=0.25)
    dynamic = [name for name, one in network.named_modules() if isinstance(one, DynamicConvolution)]
    assert dynamic == [
        *("encoder.0.convolutions.0", "encoder.0.convolutions.1"),
        *("decoder.1.convolutions.1", "decoder.1.convolutions.2"),
    ]
    gated = small(gates="se", reduction=1)
    assert sum(1 for name, _ in gated.named_modules() if name.endswith("gate.excitation")) == 5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": "middle"}, "layers must be 'outer' or 'inner', got 'middle'"),
        ({"part": 0}, "part must be above 0 and at most 1, got 0"),
        ({"part": 0.8, "symmetric": False}, "more than the 8 of encoder and middle"),
        ({"part": "half"}, "part must be above 0 and at most 1, got 'half'"),
        ({"symmetric": "no"}, "symmetric must be true or false, got 'no'"),
        ({"joint": "no"}, "joint must be true or false, got 'no'"),
        ({"seed": "a"}, "seed must be a whole number, got 'a'"),
        ({"product": "dot"}, "product must be 'matrix' or 'elementwise'"),
        ({"generator": "deep"}, "generator must be 'linear' or 'two-layer'"),
        ({"gates": "sme"}, "gates must be 'none' or 'se'"),
        ({"variant": "sme"}, "variant of DynamicUnet3 is 'dynamic'"),
        ({"meta_features": None}, "'dynamic' is steered by metadata: give the schema"),
        ({"levels": 0}, "levels must be 1 or more"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        small(**settings)
