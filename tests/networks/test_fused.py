"""The fused path of the gates must be the plain path, only faster."""

import copy

import pytest
import torch
from monai.data import MetaTensor

from metaseg_monai.networks import gate_of_variant
from metaseg_monai.networks.fused import fusible

SETTINGS = [
    ("se", 0, False),
    ("me", 3, False),
    ("sme", 3, False),
    ("se", 0, True),
    ("me", 3, True),
    ("sme", 3, True),
    ("film", 3, False),
    ("film-ivadomed", 3, False),
]
LAYOUTS = {
    (2, False): torch.contiguous_format,
    (2, True): torch.channels_last,
    (3, False): torch.contiguous_format,
    (3, True): torch.channels_last_3d,
}


def pair_of_gates(variant, width, shift, spatial_dims, rectify, dtype=torch.float32):
    torch.manual_seed(1)
    gate = gate_of_variant(
        variant, 8, width, reduction=1, shift=shift, spatial_dims=spatial_dims, rectify=rectify
    ).to(dtype)
    plain = copy.deepcopy(gate)
    plain.fused = False
    return gate, plain


def inputs(width, spatial_dims, channels_last, dtype=torch.float32):
    torch.manual_seed(2)
    x = torch.randn(3, 8, *(5, 4, 3)[:spatial_dims], dtype=dtype)
    x = x.contiguous(memory_format=LAYOUTS[spatial_dims, channels_last])
    meta = torch.rand(3, width, dtype=dtype).requires_grad_() if width else None
    return x.requires_grad_(), meta


def outcome(gate, x, meta, weight):
    """Return the output and the gradients of x, of the metadata and of all weights."""
    y = gate(x * 1, meta)  # a gate may overwrite its input
    wanted = [x, *([] if meta is None else [meta]), *gate.parameters()]
    return [y, *torch.autograd.grad((y * weight).sum(), wanted)]


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(("variant", "width", "shift"), SETTINGS)
def test_fused_equals_plain(variant, width, shift, spatial_dims, channels_last, rectify):
    gate, plain = pair_of_gates(variant, width, shift, spatial_dims, rectify)
    x, meta = inputs(width, spatial_dims, channels_last)
    assert fusible(x)
    weight = torch.randn_like(x)
    fused = outcome(gate, x, meta, weight)
    assert "FusedGate" in type(fused[0].grad_fn).__name__
    assert fused[0].stride() == x.stride()
    for ours, reference in zip(fused, outcome(plain, x, meta, weight), strict=True):
        torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(("variant", "width", "shift"), SETTINGS)
def test_fused_is_as_exact_as_plain_under_bfloat16_autocast(variant, width, shift, channels_last):
    gate, plain = pair_of_gates(variant, width, shift, 2, rectify=True)
    x, meta = inputs(width, 2, channels_last)
    exact = outcome(plain, x, meta, torch.ones_like(x))

    def rounded(some_gate):
        with torch.autocast("cpu", torch.bfloat16):
            y = some_gate(x.bfloat16(), meta)
        assert y.dtype == torch.bfloat16
        wanted = [x, *([] if meta is None else [meta]), *some_gate.parameters()]
        return [y, *torch.autograd.grad(y.float().sum(), wanted)]

    for ours, theirs, true in zip(rounded(gate), rounded(plain), exact, strict=True):
        error, plain_error = ((found.float() - true).norm() for found in (ours, theirs))
        assert error <= 3 * plain_error + 0.01 * true.norm()


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(("variant", "width", "shift"), SETTINGS)
def test_gradient_in_double(variant, width, shift, spatial_dims, channels_last, rectify):
    gate, _ = pair_of_gates(variant, width, shift, spatial_dims, rectify, torch.float64)
    x, meta = inputs(width, spatial_dims, channels_last, torch.float64)
    weights = dict(gate.named_parameters())

    def run(features, entries, *values):
        state = dict(zip(weights, values, strict=True))
        return torch.func.functional_call(gate, state, (features * 1, entries))

    arguments = (x, meta, *weights.values())
    assert torch.autograd.gradcheck(run, arguments, fast_mode=True)


@pytest.mark.parametrize("autocast", [False, True])
def test_large_images_are_summed_by_a_matrix_product_in_their_own_type(autocast):
    gate, plain = pair_of_gates("sme", 3, False, 2, rectify=True, dtype=torch.float32)
    x = torch.rand(2, 8, 128, 129).contiguous(memory_format=torch.channels_last).requires_grad_()
    meta = torch.rand(2, 3)
    weight = torch.rand_like(x)
    found = []
    for some_gate in (gate, plain):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = some_gate(x * 1, meta)
        assert y.dtype == torch.float32
        found.append([y, *torch.autograd.grad((y * weight).sum(), [x, *some_gate.parameters()])])
    tolerance = {"rtol": 0.02, "atol": 1e-3} if autocast else {"rtol": 1e-4, "atol": 1e-5}
    for fused, reference in zip(*found, strict=True):
        torch.testing.assert_close(fused, reference, **tolerance)


def test_a_gradient_in_another_layout_is_taken():
    gate, plain = pair_of_gates("sme", 3, False, 2, rectify=True)
    x, meta = inputs(3, 2, channels_last=True)
    wide = torch.randn(3, 16, 10, 4).contiguous(memory_format=torch.channels_last)
    for weight in (wide[:, 4:12, ::2], torch.randn(x.shape), torch.ones(()).expand(x.shape)):
        pairs = zip(outcome(gate, x, meta, weight), outcome(plain, x, meta, weight), strict=True)
        for ours, reference in pairs:
            torch.testing.assert_close(ours, reference)


def test_a_closed_gate_gives_zeros_and_no_nan():
    gate, _ = pair_of_gates("me", 3, False, 2, rectify=True)
    torch.nn.init.constant_(gate.excitation.expand.bias, -1e4)
    x, meta = inputs(3, 2, channels_last=True)
    y, *gradients = outcome(gate, x, meta, torch.ones_like(x))
    assert y.count_nonzero() == 0
    assert all(gradient.count_nonzero() == 0 for gradient in gradients)


def test_frozen_gates_pass_the_gradient_on():
    for variant, width in (("me", 3), ("sme", 3)):
        gate, plain = pair_of_gates(variant, width, False, 2, rectify=True)
        x, meta = inputs(width, 2, channels_last=True)
        found = []
        for some_gate in (gate, plain):
            some_gate.requires_grad_(requires_grad=False)
            y = some_gate(x * 1, meta.detach())
            found.append(torch.autograd.grad(y.sum(), x)[0])
        torch.testing.assert_close(found[0], found[1])


def test_backward_twice_through_a_kept_graph():
    gate, _ = pair_of_gates("sme", 3, False, 2, rectify=True)
    x, meta = inputs(3, 2, channels_last=True)
    y = gate(x * 1, meta).sum()
    first = torch.autograd.grad(y, x, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(y, x)[0], first)


def test_a_second_derivative_is_refused_and_possible_in_the_plain_path():
    gate, plain = pair_of_gates("sme", 3, False, 2, rectify=False)
    x, meta = inputs(3, 2, channels_last=True)
    with pytest.raises(RuntimeError, match=r"no second derivatives.*fused=False"):
        torch.autograd.grad(gate(x, meta).sum(), x, create_graph=True)
    slope = torch.autograd.grad(plain(x, meta).sum(), x, create_graph=True)[0]
    assert torch.autograd.grad(slope.square().sum(), meta)[0].abs().sum() > 0


def test_inference_equals_training():
    gate, plain = pair_of_gates("sme", 3, False, 2, rectify=True)
    x, meta = inputs(3, 2, channels_last=True)
    with torch.inference_mode():
        y = gate(x * 1, meta)
    assert not y.requires_grad
    torch.testing.assert_close(y, plain(x, meta).detach())


def test_only_dense_layouts_are_fused_and_others_still_work():
    gate, plain = pair_of_gates("sme", 3, False, 2, rectify=False)
    _, meta = inputs(3, 2, channels_last=False)
    x = torch.randn(3, 8, 10, 4)[:, :, ::2]
    assert not fusible(x)
    torch.testing.assert_close(gate(x, meta), plain(x, meta))


def test_a_meta_tensor_stays_one():
    gate, plain = pair_of_gates("sme", 3, False, 2, rectify=True)
    x, meta = inputs(3, 2, channels_last=True)
    y = gate(MetaTensor(x * 1, meta={"case": "a"}), meta)
    assert isinstance(y, MetaTensor)
    assert y.meta["case"] == "a"
    torch.testing.assert_close(y.as_tensor(), plain(x, meta))
