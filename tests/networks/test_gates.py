import pytest
import torch
import torch.nn.functional as F

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks import (
    FeatureWiseLinearModulation,
    IvadomedFeatureWiseLinearModulation,
    MetadataExcite,
    NoGate,
    SqueezeExcite,
    SqueezeMetadataExcite,
    gate_of_variant,
)
from metaseg_monai.networks.excitation import hidden_width

GATES = ["se", "me", "sme", "film", "film-ivadomed"]
STEERED = ["me", "sme", "film", "film-ivadomed"]


def gate_and_inputs(variant, spatial_dims=2, channels=16, meta_features=3, batch=4, **settings):
    torch.manual_seed(0)
    width = meta_features if variant in STEERED else 0
    gate = gate_of_variant(
        variant, channels, width, reduction=1, spatial_dims=spatial_dims, **settings
    )
    x = torch.randn(batch, channels, *(5, 7, 3)[:spatial_dims])
    return gate, x, torch.rand(batch, width) if width else None


def sigmoid(value):
    return 1 / (1 + torch.exp(torch.tensor(-float(value))))


def fill(linear, weight, bias):
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(weight))
        linear.bias.copy_(torch.tensor(bias))


@pytest.mark.parametrize("variant", GATES)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_shape_is_kept_and_every_weight_and_input_has_a_gradient(variant, spatial_dims):
    gate, x, meta = gate_and_inputs(variant, spatial_dims)
    x.requires_grad_()
    y = gate(x, meta)
    assert y.shape == x.shape
    y.square().sum().backward()
    assert x.grad.abs().sum() > 0
    for name, weight in gate.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("fused", [True, False])
def test_squeeze_excite_by_hand(fused):
    gate = SqueezeExcite(2, reduction=2, fused=fused)
    fill(gate.excitation.reduce, [[1.0, -1.0]], [0.5])
    fill(gate.excitation.expand, [[2.0], [-1.0]], [0.0, 1.0])
    x = torch.tensor([[[[1.0, 3.0]], [[0.0, 1.0]]]])  # means 2 and 0.5: hidden 2
    expected = torch.stack([x[0, 0] * sigmoid(4), x[0, 1] * sigmoid(-1)])[None]
    torch.testing.assert_close(gate(x), expected)


@pytest.mark.parametrize("fused", [True, False])
def test_metadata_excite_by_hand_with_shift(fused):
    gate = MetadataExcite(2, meta_features=1, reduction=2, shift=True, fused=fused)
    fill(gate.excitation.reduce, [[2.0]], [1.0])
    fill(gate.excitation.expand, [[1.0], [0.0], [-1.0], [2.0]], [0.0, 0.0, 0.0, 1.0])
    x = torch.tensor([[[[1.0, 3.0]], [[0.0, -1.0]]]])
    # meta 0.5: hidden 2, scale logits 2 and 0, shifts -2 and 5
    expected = torch.stack([x[0, 0] * sigmoid(2) - 2, x[0, 1] * 0.5 + 5])[None]
    torch.testing.assert_close(gate(x, torch.tensor([[0.5]])), expected)


@pytest.mark.parametrize("fused", [True, False])
def test_squeeze_metadata_excite_by_hand(fused):
    gate = SqueezeMetadataExcite(1, meta_features=2, reduction=1, fused=fused)
    fill(gate.excitation.reduce, [[1.0, 10.0, -1.0]], [0.0])  # [z, m1, m2]
    fill(gate.excitation.expand, [[1.0]], [-3.0])
    x = torch.tensor([[[[1.0, 3.0]]], [[[1.0, 1.0]]]])  # means 2 and 1
    meta = torch.tensor([[0.1, 1.0], [0.3, 0.0]])  # hidden 2 and 4, logits -1 and 1
    expected = torch.stack([x[0] * sigmoid(-1), x[1] * sigmoid(1)])
    torch.testing.assert_close(gate(x, meta), expected)


@pytest.mark.parametrize("fused", [True, False])
def test_film_by_hand(fused):
    gate = FeatureWiseLinearModulation(1, meta_features=1, reduction=1, fused=fused)
    fill(gate.modulation.hidden, [[1.0]], [0.0])
    fill(gate.modulation.film, [[2.0], [-1.0]], [0.0, 0.5])
    x = torch.tensor([[[[1.0, -3.0]]]])  # meta 1: gamma 2, beta -0.5
    torch.testing.assert_close(gate(x, torch.ones(1, 1)), 3 * x - 0.5)


@pytest.mark.parametrize("fused", [True, False])
def test_ivadomed_film_by_hand(fused):
    gate = IvadomedFeatureWiseLinearModulation(1, meta_features=1, fused=fused)
    for linear in (gate.modulation.first, gate.modulation.second, gate.modulation.film):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.zeros_(linear.bias)
    torch.nn.init.constant_(gate.modulation.film.weight, 0.25)  # 16 hidden of 0.5: logits 2
    x = torch.tensor([[[[1.0, -3.0]]]])
    torch.testing.assert_close(gate(x, torch.ones(1, 1)), sigmoid(2) * x + sigmoid(2))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("variant", GATES)
def test_rectify_is_the_relu_before_the_gate(variant, fused):
    gate, x, meta = gate_and_inputs(variant, fused=fused, rectify=False)
    rectified, _, _ = gate_and_inputs(variant, fused=fused, rectify=True)
    rectified.load_state_dict(gate.state_dict())
    torch.testing.assert_close(rectified(x.clone(), meta), gate(F.relu(x), meta))


def test_no_gate_is_the_identity_or_relu():
    x = torch.tensor([[[[1.0, -3.0]]]])
    assert NoGate()(x).equal(x)
    assert NoGate(rectify=True)(x.clone(), torch.ones(1, 1)).equal(F.relu(x))


@pytest.mark.parametrize("variant", STEERED)
def test_each_metadata_entry_matters(variant):
    gate, x, meta = gate_and_inputs(variant)
    y = gate(x, meta)
    for entry in range(meta.shape[1]):
        other = meta.clone()
        other[:, entry] += 1
        assert (gate(x, other) - y).abs().amax(dim=(1, 2, 3)).min() > 1e-4, entry


@pytest.mark.parametrize("variant", GATES)
def test_each_image_is_gated_by_its_own_metadata(variant):
    gate, x, meta = gate_and_inputs(variant)
    order = torch.tensor([2, 0, 3, 1])
    permuted = gate(x[order], None if meta is None else meta[order])
    torch.testing.assert_close(permuted, gate(x, meta)[order])
    alone = torch.cat(
        [gate(x[i : i + 1], None if meta is None else meta[i : i + 1]) for i in order]
    )
    torch.testing.assert_close(permuted, alone)


@pytest.mark.parametrize("variant", STEERED)
@pytest.mark.parametrize("shape", [(1, 3), (5, 3), (4, 2), (4, 1), (3,), (4, 3, 1)])
def test_wrong_batch_or_width_is_refused(variant, shape):
    gate, x, _ = gate_and_inputs(variant)
    with pytest.raises(ValueError, match=r"expected meta of shape \(4, 3\)"):
        gate(x, torch.rand(shape))


@pytest.mark.parametrize("variant", STEERED)
def test_missing_metadata_is_refused(variant):
    gate, x, _ = gate_and_inputs(variant)
    with pytest.raises(ValueError, match=r"reads metadata of width 3: pass meta of shape \(4, 3\)"):
        gate(x)


def test_unwanted_metadata_is_refused():
    with pytest.raises(ValueError, match="takes no metadata"):
        SqueezeExcite(4)(torch.rand(1, 4, 3, 3), torch.rand(1, 2))


def test_an_image_of_other_dimension_is_refused():
    with pytest.raises(ValueError, match="3 spatial axes, got 4 axes"):
        SqueezeExcite(4, spatial_dims=3)(torch.rand(1, 4, 3, 3))


def test_settings_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="spatial_dims must be 2 or 3, got 1"):
        SqueezeExcite(4, spatial_dims=1)
    with pytest.raises(ConfigError, match=r"MetadataExcite .* meta_features must be 1 or more"):
        MetadataExcite(4, meta_features=0)
    with pytest.raises(ConfigError, match="hidden_from must be"):
        SqueezeMetadataExcite(4, 2, hidden_from="outputs")
    for reduction in (0, -1, 9):
        with pytest.raises(ConfigError, match=f"reduction={reduction} .*hidden neurons"):
            SqueezeExcite(4, reduction=reduction)


@pytest.mark.parametrize(
    ("inputs", "reduction", "width"),
    [(64, 4, 16), (64, 2, 32), (64 + 9, 2, 36), (64, 1.5, 43), (64, 1.8, 36), (64, 1, 64)],
)
def test_hidden_width(inputs, reduction, width):
    assert hidden_width(inputs, reduction) == width


def test_hidden_width_of_sme_counts_channels_or_inputs():
    assert SqueezeMetadataExcite(64, 6).excitation.reduce.out_features == 16
    thesis = SqueezeMetadataExcite(64, 6, reduction=2, hidden_from="inputs")
    assert thesis.excitation.reduce.out_features == 35


def test_variants_and_settings_that_do_not_go_together_are_refused():
    with pytest.raises(ConfigError, match=r"unknown variant 'smee', did you mean 'sme'"):
        gate_of_variant("smee", 4, 2)
    with pytest.raises(
        ConfigError, match=r"unknown variant 'attention'. The variants are none, se"
    ):
        gate_of_variant("attention", 4, 2)
    with pytest.raises(ConfigError, match=r"variant 'se' takes no metadata.*got 2"):
        gate_of_variant("se", 4, 2)
    with pytest.raises(ConfigError, match="variant 'film' is steered by metadata"):
        gate_of_variant("film", 4)
    with pytest.raises(ConfigError, match="shift is a choice of se, me and sme only"):
        gate_of_variant("film", 4, 2, shift=True)
    with pytest.raises(ConfigError, match="'none' has no gate"):
        gate_of_variant("none", 4)
