"""What every gate of the table promises, fused as plain, and what each gives by hand."""

import copy
import inspect

import pytest
import torch
import torch.nn.functional as F

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks import (
    GATES,
    FeatureWiseLinearModulation,
    IvadomedFeatureWiseLinearModulation,
    MetadataExcite,
    SqueezeExcite,
    SqueezeMetadataExcite,
)
from metaseg_monai.networks.fused import fusible
from metaseg_monai.networks.gates import NoGate
from metaseg_monai.networks.variants import gate_of_variant

CASES = [
    pytest.param(variant, shift, id=variant + "-shift" * shift)
    for variant, gate in GATES.items()
    for shift in [False, True][: 1 + ("shift" in inspect.signature(gate).parameters)]
]
LAYOUTS = {
    (2, False): torch.contiguous_format,
    (2, True): torch.channels_last,
    (3, False): torch.contiguous_format,
    (3, True): torch.channels_last_3d,
}
every_gate = pytest.mark.parametrize(("variant", "shift"), CASES)
every_layout = pytest.mark.parametrize("channels_last", [False, True])
both_dims = pytest.mark.parametrize("dims", [2, 3])
rectified = pytest.mark.parametrize("rectify", [False, True])


def make(variant, shift=False, dims=2, channels_last=True, dtype=torch.float32):
    """A gate, its plain twin, features (4, 8, *S) and metadata (4, 3), or None."""
    torch.manual_seed(1)
    width = 3 if GATES[variant].reads_meta else 0
    gate = gate_of_variant(variant, 8, width, reduction=1, shift=shift).to(dtype)
    x = torch.randn(4, 8, *(5, 4, 3)[:dims], dtype=dtype)
    x = x.contiguous(memory_format=LAYOUTS[dims, channels_last]).requires_grad_()
    meta = torch.rand(4, width, dtype=dtype).requires_grad_() if width else None
    plain = copy.deepcopy(gate)
    plain.fused = False
    return gate, plain, x, meta


def outcome(gate, x, meta, weight=1.0, rectify=True):
    """The output, and the gradients of the features, the metadata and all weights."""
    y = gate(x * 1, meta, rectify)  # a gate that rectifies overwrites its input
    wanted = [x, *([] if meta is None else [meta]), *gate.parameters()]
    return [y, *torch.autograd.grad((y.float() * weight).sum(), wanted)]


def assert_same(found, expected, **tolerance):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


@rectified
@every_layout
@both_dims
@every_gate
def test_fused_equals_plain_and_everything_has_a_gradient(
    variant, shift, dims, channels_last, rectify
):
    gate, plain, x, meta = make(variant, shift, dims, channels_last)
    assert fusible(x)
    weight = torch.randn_like(x)
    fused = outcome(gate, x, meta, weight, rectify)
    assert "FusedGate" in type(fused[0].grad_fn).__name__
    assert fused[0].shape == x.shape
    assert fused[0].stride() == x.stride()
    assert all(gradient.abs().sum() > 0 for gradient in fused[1:])
    assert_same(fused, outcome(plain, x, meta, weight, rectify))


@every_layout
@every_gate
def test_fused_is_as_exact_as_plain_under_bfloat16_autocast(variant, shift, channels_last):
    gate, plain, x, meta = make(variant, shift, channels_last=channels_last)
    exact = outcome(plain, x, meta)
    with torch.autocast("cpu", torch.bfloat16):
        x = x.detach().bfloat16().requires_grad_()
        found = [outcome(some_gate, x, meta) for some_gate in (gate, plain)]
    assert found[0][0].dtype == torch.bfloat16
    for ours, theirs, true in zip(*found, exact, strict=True):
        error, plain_error = ((one.float() - true).norm() for one in (ours, theirs))
        assert error <= 3 * plain_error + 0.01 * true.norm()


@rectified
@every_layout
@both_dims
@every_gate
def test_gradient_in_double(variant, shift, dims, channels_last, rectify):
    gate, _, x, meta = make(variant, shift, dims, channels_last, torch.float64)
    weights = dict(gate.named_parameters())

    def run(features, entries, *values):
        state = dict(zip(weights, values, strict=True))
        return torch.func.functional_call(gate, state, (features * 1, entries, rectify))

    assert torch.autograd.gradcheck(run, (x, meta, *weights.values()), fast_mode=True)


@every_gate
def test_rectify_is_the_relu_before_the_gate(variant, shift):
    *gates, x, meta = make(variant, shift)
    for gate in gates:
        torch.testing.assert_close(gate(x * 1, meta, True), gate(F.relu(x), meta))


@every_gate
def test_each_image_is_gated_by_its_own_metadata(variant, shift):
    gate, _, x, meta = make(variant, shift)
    order = [2, 0, 3, 1]
    permuted = gate(x[order], None if meta is None else meta[order])
    torch.testing.assert_close(permuted, gate(x, meta)[order])
    alone = [gate(x[[i]], None if meta is None else meta[[i]]) for i in order]
    torch.testing.assert_close(permuted, torch.cat(alone))


@every_gate
def test_inference_frozen_gates_and_a_kept_graph(variant, shift):
    gate, plain, x, meta = make(variant, shift)
    with torch.inference_mode():
        y = gate(x * 1, meta)
    assert not y.requires_grad
    torch.testing.assert_close(y, plain(x, meta).detach())
    y = gate(x * 1, meta).sum()
    first = torch.autograd.grad(y, x, retain_graph=True)
    assert_same(torch.autograd.grad(y, x), first)
    found = []
    for some_gate in (gate, plain):
        some_gate.requires_grad_(requires_grad=False)
        y = some_gate(x * 1, None if meta is None else meta.detach(), True)
        found.append(torch.autograd.grad(y.sum(), x))
    assert_same(*found)


@pytest.mark.parametrize("shape", [(1, 3), (5, 3), (4, 2), (4, 1), (3,), (4, 3, 1)])
@pytest.mark.parametrize("variant", [name for name, gate in GATES.items() if gate.reads_meta])
def test_wrong_batch_or_width_is_refused(variant, shape):
    gate, _, x, _ = make(variant)
    with pytest.raises(ValueError, match=r"expected meta of shape \(4, 3\)"):
        gate(x, torch.rand(shape))


@pytest.mark.parametrize("variant", GATES)
def test_missing_and_unwanted_metadata_and_vectors_are_refused(variant):
    gate, _, x, meta = make(variant)
    wrong = torch.rand(4, 3) if meta is None else None
    message = "takes no metadata" if meta is None else r"width 3: pass meta of shape \(4, 3\)"
    with pytest.raises(ValueError, match=message):
        gate(x, wrong)
    with pytest.raises(ValueError, match=r"expected features \(B, C, \*S\), got 2 axes"):
        gate(x[:, :, 0, 0], meta)


@pytest.mark.parametrize("autocast", [False, True])
def test_large_images_are_summed_by_a_matrix_product_in_their_own_type(autocast):
    gate, plain, _, meta = make("sme")
    x = torch.rand(4, 8, 128, 129).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.rand_like(x)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = [outcome(some_gate, x, meta, weight) for some_gate in (gate, plain)]
    assert found[0][0].dtype == torch.float32
    tolerance = {"rtol": 0.02, "atol": 1e-3} if autocast else {"rtol": 1e-4, "atol": 1e-5}
    assert_same(*found, **tolerance)


def test_a_gradient_in_another_layout_is_taken():
    gate, plain, x, meta = make("sme")
    wide = torch.randn(4, 16, 10, 4).contiguous(memory_format=torch.channels_last)
    for weight in (wide[:, 4:12, ::2], torch.randn(x.shape), torch.ones(()).expand(x.shape)):
        assert_same(outcome(gate, x, meta, weight), outcome(plain, x, meta, weight))


def test_a_closed_gate_gives_zeros_and_no_nan():
    gate, _, x, meta = make("me")
    torch.nn.init.constant_(gate.excitation.expand.bias, -1e4)
    assert all(found.count_nonzero() == 0 for found in outcome(gate, x, meta))


def test_a_second_derivative_is_refused_and_possible_in_the_plain_path():
    gate, plain, x, meta = make("sme")
    with pytest.raises(RuntimeError, match=r"no second derivatives.*fused = False"):
        torch.autograd.grad(gate(x, meta).sum(), x, create_graph=True)
    slope = torch.autograd.grad(plain(x, meta).sum(), x, create_graph=True)[0]
    assert torch.autograd.grad(slope.square().sum(), meta)[0].abs().sum() > 0


def test_only_dense_layouts_are_fused_and_others_still_work():
    gate, plain, _, meta = make("sme")
    x = torch.randn(4, 8, 10, 4)[:, :, ::2]
    assert not fusible(x)
    torch.testing.assert_close(gate(x, meta), plain(x, meta))


def test_no_gate_is_the_identity_or_relu():
    x = torch.tensor([[[[1.0, -3.0]]]])
    assert NoGate()(x).equal(x)
    assert NoGate()(x.clone(), torch.ones(1, 1), rectify=True).equal(F.relu(x))


def sigmoid(value):
    return 1 / (1 + torch.exp(torch.tensor(-float(value))))


def fill(linear, weight, bias):
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(weight))
        linear.bias.copy_(torch.tensor(bias))


def squeeze_excite():
    gate = SqueezeExcite(2, reduction=2)
    fill(gate.excitation.reduce, [[1.0, -1.0]], [0.5])
    fill(gate.excitation.expand, [[2.0], [-1.0]], [0.0, 1.0])
    x = torch.tensor([[[[1.0, 3.0]], [[0.0, 1.0]]]])  # means 2 and 0.5: hidden 2
    return gate, x, None, torch.stack([x[0, 0] * sigmoid(4), x[0, 1] * sigmoid(-1)])[None]


def metadata_excite_with_shift():
    gate = MetadataExcite(2, meta_features=1, reduction=2, shift=True)
    fill(gate.excitation.reduce, [[2.0]], [1.0])
    fill(gate.excitation.expand, [[1.0], [0.0], [-1.0], [2.0]], [0.0, 0.0, 0.0, 1.0])
    x = torch.tensor([[[[1.0, 3.0]], [[0.0, -1.0]]]])
    # meta 0.5: hidden 2, scale logits 2 and 0, shifts -2 and 5
    expected = torch.stack([x[0, 0] * sigmoid(2) - 2, x[0, 1] * 0.5 + 5])[None]
    return gate, x, torch.tensor([[0.5]]), expected


def squeeze_metadata_excite():
    gate = SqueezeMetadataExcite(1, meta_features=2, reduction=1)
    fill(gate.excitation.reduce, [[1.0, 10.0, -1.0]], [0.0])  # [z, m1, m2]
    fill(gate.excitation.expand, [[1.0]], [-3.0])
    x = torch.tensor([[[[1.0, 3.0]]], [[[1.0, 1.0]]]])  # means 2 and 1
    meta = torch.tensor([[0.1, 1.0], [0.3, 0.0]])  # hidden 2 and 4, logits -1 and 1
    return gate, x, meta, torch.stack([x[0] * sigmoid(-1), x[1] * sigmoid(1)])


def film():
    gate = FeatureWiseLinearModulation(1, meta_features=1, reduction=1)
    fill(gate.modulation.hidden, [[1.0]], [0.0])
    fill(gate.modulation.film, [[2.0], [-1.0]], [0.0, 0.5])
    x = torch.tensor([[[[1.0, -3.0]]]])  # meta 1: gamma 2, beta -0.5
    return gate, x, torch.ones(1, 1), 3 * x - 0.5


def ivadomed_film():
    gate = IvadomedFeatureWiseLinearModulation(1, meta_features=1)
    for weight in gate.parameters():
        torch.nn.init.zeros_(weight)
    torch.nn.init.constant_(gate.modulation.film.weight, 0.25)  # 16 hidden of 0.5: logits 2
    x = torch.tensor([[[[1.0, -3.0]]]])
    return gate, x, torch.ones(1, 1), sigmoid(2) * x + sigmoid(2)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "example",
    [squeeze_excite, metadata_excite_with_shift, squeeze_metadata_excite, film, ivadomed_film],
)
def test_by_hand(example, fused):
    gate, x, meta, expected = example()
    gate.fused = fused
    torch.testing.assert_close(gate(x, meta), expected)


@pytest.mark.parametrize(
    ("make_gate", "message"),
    [
        (lambda: MetadataExcite(4, meta_features=0), r"MetadataExcite .*must be 1 or more.*got 0"),
        (lambda: SqueezeMetadataExcite(4, 2, hidden_from="outputs"), "hidden_from must be"),
        (lambda: SqueezeExcite(4, reduction=0), "reduction=0 .*hidden neurons"),
        (lambda: SqueezeExcite(4, reduction=-1), "reduction=-1 .*hidden neurons"),
        (lambda: SqueezeExcite(4, reduction=9), "reduction=9 .*hidden neurons"),
        (lambda: SqueezeExcite(4, shift="no"), "shift must be true or false, got 'no'"),
    ],
)
def test_settings_out_of_range_are_refused(make_gate, message):
    with pytest.raises(ConfigError, match=message):
        make_gate()
