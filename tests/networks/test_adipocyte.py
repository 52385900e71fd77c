"""The networks of the adipocyte report: their sizes, fields of view, and starts."""

import pytest
import torch
from torch import nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks import (
    DenseUnetGenerator,
    NucleiLupiUnet,
    PatchDiscriminator,
    condition,
)
from metaseg_monai.networks.dense_unet import ScaledTanh, ShuffledUp
from metaseg_monai.networks.gates import ChannelGate
from metaseg_monai.networks.unet3 import Transposed
from tests.networks.conformance import check_neutral, check_state_round_trip

SMALL = {"channels": 8, "levels": 2, "growth": 3, "layers": 2, "dropout": 0.0}


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (DenseUnetGenerator, 1_230_913),  # "1.2 million" (report 3.2)
        (NucleiLupiUnet, 1_602_166),  # "1.6 million"
        (PatchDiscriminator, 1_694_251),  # "1.7 million", and 70 pixels
        (lambda: PatchDiscriminator(field=142), 1_746_337),  # of the team's code
    ],
)
def test_they_have_the_sizes_that_the_report_tells(network, parameters):
    assert sum(weight.numel() for weight in network().parameters()) == parameters


@pytest.mark.parametrize("field", [70, 142])
def test_a_score_depends_on_its_field_and_on_nothing_else(field):
    torch.manual_seed(0)
    network = PatchDiscriminator(in_channels=1, field=field, channels=4).double().eval()
    image = torch.rand(1, 1, 320, 320).double().requires_grad_()
    scores = network(image)
    row, column = scores.shape[2] // 2, scores.shape[3] // 2
    scores[0, 0, row, column].backward()
    seen = image.grad[0, 0].abs() > 0
    for axis in (0, 1):
        places = torch.nonzero(seen.any(axis)).flatten()
        assert (places.max() - places.min() + 1, len(places)) == (field, field)


def test_a_discriminator_refuses_what_is_smaller_than_a_patch_and_other_fields():
    network = PatchDiscriminator(channels=2)
    assert network(torch.rand(2, 8, 24, 25)).shape == (2, 1, 1, 1)
    with pytest.raises(ValueError, match="24 pixels an axis or more, got 23"):
        network(torch.rand(2, 8, 24, 23))
    with pytest.raises(ConfigError, match="field must be 70 or 142 pixels, got 71"):
        PatchDiscriminator(field=71)


def nyquist(image):
    """Power at the highest frequency of rows or columns, in the middle, which no border reaches."""
    side = image.shape[-1] // 2
    middle = image[..., side // 2 : -side // 2, side // 2 : -side // 2]
    window = torch.hann_window(side)
    power = torch.fft.fft2((middle - middle.mean()) * window[:, None] * window).abs().square()
    return power[..., side // 2, :].sum() + power[..., :, side // 2].sum()


def waves(channels, size):
    """Slow ones, in which nothing is near the highest frequency."""
    across = torch.linspace(0, 2 * torch.pi, size)
    planes = [
        torch.sin(across * (1 + k % 2) + k)[:, None] * torch.cos(across + k)
        for k in range(channels)
    ]
    return 0.5 + 0.4 * torch.stack(planes)[None]


@pytest.mark.parametrize("seed", range(3))
def test_the_generator_starts_without_checkerboards(seed):
    torch.manual_seed(seed)
    network = DenseUnetGenerator(**SMALL).eval()
    transposed = DenseUnetGenerator(**SMALL).eval()
    transposed.load_state_dict(network.state_dict())
    transposed.up = nn.ModuleList(Transposed(network.new) for _ in network.up)
    for image in (waves(7, 64), torch.full((1, 7, 64, 64), 0.5)):
        with torch.no_grad():
            ours, plain = nyquist(network(image)), nyquist(transposed(image))
        assert ours < 1e-3 * plain


def test_every_pixel_of_a_patch_starts_alike():
    torch.manual_seed(0)
    for spatial_dims in (2, 3):
        up = ShuffledUp(2, spatial_dims)
        x = torch.rand(1, 2, *[1] * spatial_dims)
        out = up(x, torch.rand(1, 1, *[2] * spatial_dims))
        assert out.flatten(2).std(dim=2).max() == 0
        with torch.no_grad():
            up.conv.bias += torch.arange(len(up.conv.bias))  # a checkerboard
        out = up(x, torch.rand(1, 1, *[2] * spatial_dims))
        assert out.flatten(2).std(dim=2).min() > 0.1


def test_a_patch_is_filled_row_by_row_and_the_border_repeats():
    up = ShuffledUp(1)
    with torch.no_grad():
        up.conv.weight.zero_()
        up.conv.bias.copy_(torch.tensor([0.0, 2.0, 4.0, 8.0]))
    out = up(torch.rand(1, 1, 1, 1), torch.rand(1, 1, 2, 2))
    # [[0, 2], [4, 8]] with the first row and column twice, then the mean of 2 x 2
    assert out[0, 0].tolist() == [[0.0, 1.0], [2.0, 3.5]]


def test_three_axes_are_shuffled_as_two_are():
    up = ShuffledUp(1, spatial_dims=3)
    with torch.no_grad():
        up.conv.weight.zero_()
        up.conv.bias.copy_(torch.arange(8.0))
    up.pad, up.blur = nn.Identity(), nn.Identity()
    out = up(torch.rand(1, 1, 1, 2, 1), torch.rand(1, 1, 2, 4, 2))
    assert out[0, 0, :, :2].tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert torch.equal(out[0, 0, :, :2], out[0, 0, :, 2:])


def test_answers_lie_between_0_and_1():
    x = torch.tensor([-50.0, 0.0, 0.5, 50.0])
    assert ScaledTanh()(x).tolist() == pytest.approx([0, 0.5, (1 + 0.46211716) / 2, 1])
    torch.manual_seed(0)
    pred = DenseUnetGenerator(**SMALL)(100 * torch.randn(2, 7, 16, 16))
    assert 0 <= pred.min() < pred.max() <= 1


def test_dark_answers_keep_their_values_and_gradients_in_half_precision():
    x = torch.tensor([-6.0, -4.0, -2.5, 0.0, 2.5], dtype=torch.bfloat16, requires_grad=True)
    answer = ScaledTanh()(x)
    expected = (x.detach().double().tanh() + 1) / 2
    torch.testing.assert_close(answer.detach().double(), expected, rtol=1e-5, atol=0)
    answer.log().sum().backward()
    torch.testing.assert_close(x.grad.double(), 2 * (1 - expected), rtol=0.01, atol=0)
    assert ScaledTanh()(torch.zeros(1, dtype=torch.float64)).dtype == torch.float64


def test_segmentation_is_multiplied_into_the_regression_or_added():
    """Nothing of the segmentation decoder is needed at one level, where both are the middle."""
    settings = {**SMALL, "levels": 1, "in_channels": 1}
    image = torch.rand(2, 1, 12, 12)
    for attention, expected in (("product", lambda x: x * x), ("sum", lambda x: x + x)):
        torch.manual_seed(0)
        network = NucleiLupiUnet(**settings, attention=attention).eval()
        given = []
        network.up[0].register_forward_hook(lambda module, inputs, out, g=given: g.append(inputs))
        middle, _ = network.features(image, None)
        network(image)
        torch.testing.assert_close(given[0][0], expected(middle))
    with pytest.raises(ConfigError, match="attention must be 'product' or 'sum', got 'max'"):
        NucleiLupiUnet(**settings, attention="max")


def test_the_mask_reaches_the_fluorescence_but_not_the_other_way():
    torch.manual_seed(0)
    network = NucleiLupiUnet(**SMALL, in_channels=1).eval()
    fluorescence, logits = network.parts(network(torch.rand(2, 1, 16, 16)))
    of_segmentation = list(network.segmentation[0].parameters())
    reached = torch.autograd.grad(fluorescence.sum(), of_segmentation, retain_graph=True)
    assert any(one.abs().sum() > 0 for one in reached)
    of_decoder = list(network.decoder[0].parameters())
    untouched = torch.autograd.grad(logits.sum(), of_decoder, allow_unused=True)
    assert not any(one is not None and one.any() for one in untouched)


def test_training_gives_the_fluorescence_at_three_lower_levels():
    network = NucleiLupiUnet(in_channels=1, channels=2, growth=1, layers=1)
    answers = network(torch.rand(2, 1, 48, 32))
    shapes = [tuple(one.shape[1:]) for one in answers]
    assert shapes == [(3, 48, 32), (1, 24, 16), (1, 12, 8), (1, 6, 4)]
    assert network.eval()(torch.rand(2, 1, 48, 32)).shape == (2, 3, 48, 32)


def gates_of(network):
    return [name for name, one in network.named_modules() if isinstance(one, ChannelGate)]


def test_gates_stand_where_they_are_placed():
    width = {"meta_features": 3, "variant": "sme"}
    all_of_generator = gates_of(DenseUnetGenerator(**SMALL, **width))
    assert all_of_generator == [
        *("encoder.0.gate", "encoder.1.gate", "middle.gate", "decoder.0.gate", "decoder.1.gate")
    ]
    network = NucleiLupiUnet(**SMALL, **width)
    assert len(gates_of(network)) == 7
    chosen = NucleiLupiUnet(**SMALL, **width, places=["segmentation1", "middle"])
    assert gates_of(chosen) == ["middle.gate", "segmentation.1.gate"]
    with pytest.raises(ConfigError, match=r"expected some of .*'segmentation1'"):
        NucleiLupiUnet(**SMALL, **width, places=["segmentation3"])


@pytest.mark.parametrize("variant", ["se", "sme", "film", "adaptive-norm", "low-rank"])
@pytest.mark.parametrize("made", [DenseUnetGenerator, NucleiLupiUnet])
def test_gated_networks_start_as_the_reports(made, variant):
    width = {} if variant == "se" else {"meta_features": 3}
    torch.manual_seed(0)

    def build():
        torch.manual_seed(0)
        return made(**SMALL, variant=variant, reduction=1, **width)

    check_neutral(build, lambda: made(**SMALL), (2, 7, 16, 16))


@pytest.mark.parametrize("at", ["encoder", "decoder", "all"])
@pytest.mark.parametrize("made", [DenseUnetGenerator, NucleiLupiUnet])
def test_they_are_conditioned_as_any_network(made, at, tmp_path):
    def build():
        torch.manual_seed(0)
        return condition(made(**SMALL), variant="sme", at=at, meta_features=3, reduction=1)

    def bare():
        torch.manual_seed(0)
        return made(**SMALL)

    count = {"encoder": 3, "decoder": 2, "all": 5}[at]
    if made is NucleiLupiUnet:
        count += {"encoder": 0, "decoder": 2, "all": 2}[at]
    assert len(build().places) == count
    check_neutral(build, bare, (2, 7, 16, 16))
    if at == "all":
        check_state_round_trip(build, (2, 7, 16, 16), tmp_path / "model.pt")


def test_a_discriminator_can_be_conditioned():
    torch.manual_seed(0)
    network = condition(
        PatchDiscriminator(channels=4), variant="me", meta_features=3, reduction=1, start="paper"
    ).eval()
    assert network.places == ("layers.0", "layers.1", "layers.2", "layers.3")
    image = torch.rand(1, 8, 32, 32)
    scores = [network(image, meta[None]) for meta in torch.eye(3)]
    assert (scores[0] - scores[1]).abs().max() > 0.01 * scores[0].abs().max()


@pytest.mark.parametrize("dropout", [-0.1, 1.0, True])
def test_dropout_is_a_part(dropout):
    with pytest.raises(ConfigError, match="dropout must be a part from 0 to below 1"):
        DenseUnetGenerator(dropout=dropout)


def test_dropout_is_of_training_alone():
    torch.manual_seed(0)
    network = DenseUnetGenerator(**{**SMALL, "dropout": 0.5})
    image = torch.rand(1, 7, 16, 16)
    assert not torch.equal(network(image), network(image))
    network.eval()
    assert torch.equal(network(image), network(image))
