"""Unet3 with every gate of the table: sizes, metadata, refusals, and what exports of it give."""

import io

import pytest
import torch
from monai.networks.utils import convert_to_onnx, convert_to_torchscript

from metaseg_monai.errors import ConfigError
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.networks import (
    VARIANTS,
    ChannelGate,
    Unet3,
    reads_metadata,
)
from metaseg_monai.networks.meta_input import MetaInput
from tests.extras import needed
from tests.networks.conformance import stirred

NAKED = 1_371_010  # thesis 3.3

every_variant = pytest.mark.parametrize("variant", VARIANTS)
STEERED = [name for name in VARIANTS if reads_metadata(name)]
every_steered_variant = pytest.mark.parametrize("variant", STEERED)
# PyTorch 2.13 deprecates TorchScript, which MONAI's export of bundles still writes; and the
# exporters warn of their own.
script_is_old = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def small(variant, spatial_dims=2, **settings):
    torch.manual_seed(0)
    settings = {"channels": 8, "levels": 2, "reduction": 1, **settings}
    if "schema" not in settings and reads_metadata(variant):
        settings["meta_features"] = 3
    return stirred(Unet3(variant=variant, spatial_dims=spatial_dims, **settings))


def batch(variant, size=(2, 1, 9, 14)):
    torch.manual_seed(1)
    return torch.rand(size), torch.rand(size[0], 3) if reads_metadata(variant) else None


def count(network):
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(
    ("variant", "settings", "gate_weights"),
    [
        ("none", {}, 0),
        ("se", {"reduction": 2}, 64 * 32 + 32 + 32 * 64 + 64),  # 1,417,122 (thesis 3.3)
        ("se", {}, 64 * 16 + 16 + 16 * 64 + 64),
        ("se", {"shift": True}, 64 * 16 + 16 + 16 * 128 + 128),
        ("me", {"meta_features": 7}, 7 * 16 + 16 + 16 * 64 + 64),
        ("sme", {"meta_features": 7}, 71 * 16 + 16 + 16 * 64 + 64),
        (
            "sme",
            {"meta_features": 6, "reduction": 2, "hidden_from": "inputs"},
            70 * 35 + 35 + 35 * 64 + 64,
        ),
        ("film", {"meta_features": 7}, 7 * 16 + 16 + 16 * 128 + 128),
        ("film-ivadomed", {"meta_features": 7}, 512 + 1040 + 2176),
    ],
)
def test_number_of_parameters(variant, settings, gate_weights):
    assert count(Unet3(variant=variant, **settings)) == NAKED + 11 * gate_weights


SIZES_2D = [(height, width) for height in range(17, 98, 16) for width in (1, 2, 31, 64, 97)]


@pytest.mark.parametrize("size", [*SIZES_2D, (1, 1, 1), (5, 7, 9), (17, 3, 12), (33, 1, 2)])
def test_any_size_is_kept(size):
    network = small("sme", len(size), channels=2, levels=5).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 1, *size), torch.rand(1, 3)).shape == (1, 2, *size)


@every_variant
@pytest.mark.parametrize("channels_last", [False, True])
def test_fused_gates_change_neither_logits_nor_gradients(variant, channels_last):
    image, meta = batch(variant)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network = small(variant).double().to(memory_format=layout)
    outcomes = []
    for fused in (True, False):
        for gate in (module for module in network.modules() if isinstance(module, ChannelGate)):
            gate.fused = fused
        pred = network(image.double(), None if meta is None else meta.double())
        outcomes.append([pred, *torch.autograd.grad(pred.square().mean(), network.parameters())])
    for fused, plain in zip(*outcomes, strict=True):
        torch.testing.assert_close(fused, plain)


@pytest.mark.parametrize(
    ("place", "module"),
    [
        ("encoder1", "encoder.0"),
        ("encoder2", "encoder.1"),
        ("middle", "middle"),
        ("decoder2", "decoder.0"),
        ("decoder1", "decoder.1"),
    ],
)
def test_a_single_gate_at_any_place_steers_the_network(place, module):
    network = small("me", places=[place]).eval()
    gates = [name for name, _ in network.named_modules() if name.endswith("gate.excitation")]
    assert gates == [f"{module}.gate.excitation"]
    image, meta = batch("me")
    assert (network(image, meta) - network(image, 1 - meta)).abs().max() > 1e-6


def test_places_may_stand_in_any_order():
    network = small("me", places=["decoder1", "encoder1"])
    assert count(network) == count(small("none")) + 2 * (3 * 8 + 8 + 8 * 8 + 8)


def test_an_image_of_other_dimension_is_refused():
    with pytest.raises(ValueError, match="3 spatial axes, got 4 axes"):
        small("none", 3)(torch.rand(1, 1, 8, 8))


def schema_of(*missing):
    common = {"provenance": "acquisition", "availability": "acquisition", "values": ("a", "b")}
    names = [f"field{number}" for number in range(len(missing))]
    pairs = zip(names, missing, strict=True)
    return MetadataSchema([Categorical(name=n, missing=policy, **common) for n, policy in pairs])


UNKNOWN = schema_of("unknown", "unknown")
OF_THREE = {"schema": schema_of("unknown"), "unknown_trained": True}


@every_steered_variant
def test_a_schema_gives_width_and_unknown_vector(variant):
    network = small(variant, schema=UNKNOWN, unknown_trained=True).eval()
    plain = small(variant, schema=None, meta_features=6).eval()
    dummy = small(f"{variant}-dummy", schema=UNKNOWN).eval()
    image, meta = batch("none")[0], torch.rand(2, 6)
    assert network.meta_features == dummy.meta_features == 6
    assert (network.variant, dummy.variant) == (variant, f"{variant}-dummy")
    for other in (plain, dummy):
        assert list(other.state_dict()) == list(network.state_dict())
        assert torch.equal(other(image, meta), network(image, meta))
    unknown = torch.from_numpy(UNKNOWN.unknown()).expand(2, 6)
    assert torch.equal(network(image), network(image, unknown))


@pytest.mark.parametrize(
    ("schema", "variant", "trained", "why"),
    [
        (schema_of("unknown", "error"), "sme", True, "schema lacks .missing='error' in 'field1'"),
        (UNKNOWN, "sme", False, "never saw in training"),
        (UNKNOWN, "sme-dummy", True, "never saw in training .no metadata dropout, or a dummy"),
    ],
)
def test_none_is_unknown_only_if_the_schema_knows_it_and_training_showed_it(
    schema, variant, trained, why
):
    network = small(variant, schema=schema, unknown_trained=trained)
    with pytest.raises(ValueError, match=f"pass meta of shape .*, which .*{why}"):
        network(batch("none")[0])


@pytest.mark.parametrize("variant", ["none", "se"])
def test_networks_without_metadata_do_not_use_the_schema(variant):
    network = small(variant, schema=UNKNOWN, unknown_trained=True)
    assert network.meta_features == 0
    assert network(batch("none")[0]).shape == (2, 2, 9, 14)


def test_the_unknown_vector_is_no_weight_and_follows_the_type():
    door = MetaInput(**OF_THREE)
    assert door.state_dict() == {}
    assert door(None, torch.zeros(3, 1, 4, 4)).tolist() == [[0, 0, 1]] * 3
    assert door.to(torch.float64).unknown.dtype == torch.float64
    given = torch.rand(3, 3)
    assert door(given, torch.zeros(3, 1, 4, 4)) is given


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "smee", "meta_features": 3}, "did you mean 'sme'"),
        ({"variant": "se-dummy"}, "variant: expected one of 'none', .*got 'se-dummy'"),
        ({"variant": "dynamic", "meta_features": 3}, "no gate but a network, .*DynamicUnet3"),
        ({"variant": "multi-head-dummy", "meta_features": 3}, "did you mean 'multi-head'"),
        ({"variant": "sme"}, "'sme' is steered by metadata: give the schema"),
        ({"meta_features": -1}, "must be 1 or more, got -1"),
        ({"variant": "none", "meta_features": 3}, "'none' takes no metadata"),
        ({"variant": "film", "meta_features": 3, "shift": True}, "shift is a choice of"),
        ({"variant": "se", "levels": 0}, "levels must be 1 or more, got 0"),
        ({"variant": "se", "out_channels": 0}, "out_channels must be 1 or more"),
        ({"variant": "se", "channels": 2.5}, "channels must be a whole number, got 2.5"),
        ({"variant": "se", "levels": "2"}, "levels must be a whole number, got '2'"),
        ({"variant": "se", "shift": "no"}, "shift must be true or false, got 'no'"),
        ({"variant": "none", "spatial_dims": 1}, "spatial_dims must be 2 or 3, got 1"),
        ({"variant": "se", "upsampling": "cubic"}, "upsampling must be .*got 'cubic'"),
        ({"variant": "se", "reduction": 200}, "reduction=200 .*hidden neurons"),
        ({"meta_features": 3, "unknown_trained": True}, "unknown_trained needs the schema"),
        ({"schema": UNKNOWN, "meta_features": 6}, "has a schema, which gives the width"),
        ({"variant": "none", "places": ["middle"]}, "'none' has no gates"),
        ({"variant": "se", "places": []}, "use variant 'none'"),
        ({"variant": "se", "places": "middle"}, "places must be a list"),
        ({"variant": "se", "places": ["midle"]}, "'midle'; did you mean 'middle'"),
        ({"variant": "se", "places": [0]}, "expected some of 'encoder1', .*got 0"),
        ({"variant": "se", "places": ["middle", "middle"]}, "names a place twice"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Unet3(**settings)


@pytest.mark.parametrize("variant", ["none", "sme", "film"])
def test_bfloat16_autocast_trains(variant):
    network = small(variant, levels=1).to(memory_format=torch.channels_last)
    image, meta = batch(variant, (2, 1, 16, 16))
    target = image > 0.5
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        with torch.autocast("cpu", torch.bfloat16):
            pred = network(image, meta)
        loss = torch.nn.functional.cross_entropy(pred.float(), target[:, 0].long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_checkpointed_activations_give_the_same_gradients():
    network = small("sme").double()
    given = [tensor.double() for tensor in batch("sme")]
    found = []
    for pred in (
        network(*given),
        torch.utils.checkpoint.checkpoint(network, *given, use_reentrant=False),
    ):
        found.append(torch.autograd.grad(pred.square().mean(), network.parameters()))
    for once, again in zip(*found, strict=True):
        torch.testing.assert_close(again, once)


@script_is_old
def test_scripted_keeps_the_unknown_vector_and_shift_through_a_file():
    network = small("sme", levels=1, shift=True, **OF_THREE).eval()
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    image, meta = batch("sme")
    loaded = torch.jit.load(file)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), network(image))
        torch.testing.assert_close(loaded(image, meta), network(image, meta))


@script_is_old
@pytest.mark.parametrize(
    "export",
    [
        lambda network, image: torch.jit.trace(network, (image,)),
        lambda network, image: torch.export.export(network, (image,)),
        lambda network, image: convert_to_torchscript(network, inputs=[image], use_trace=True),
        lambda network, image: convert_to_onnx(network, [image]),  # torch's dynamo exporter
        lambda network, image: torch.onnx.export(network, (image,), io.BytesIO(), dynamo=False),
    ],
    ids=["trace", "export", "monai-trace", "monai-onnx", "onnx"],
)
def test_no_export_leaves_the_metadata_out(export):
    needed("onnxscript")
    network = small("sme", levels=1, **OF_THREE).eval()
    with pytest.raises(Exception, match=r"give both inputs, image and meta \(B, 3\), such as"):
        export(network, batch("sme")[0])
    export(small("se", levels=1).eval(), batch("se")[0])


@script_is_old
def test_exports_with_metadata_and_compiling_without_pass():
    needed("onnxscript")
    network = small("sme", levels=1, **OF_THREE).eval()
    image, meta = batch("sme")
    exported = torch.export.export(network, (image, meta)).module()
    torch.testing.assert_close(exported(image, meta), network(image, meta))
    model = convert_to_onnx(network, [image, meta], input_names=["image", "meta"])
    assert [entry.name for entry in model.graph.input] == ["image", "meta"]
    traced = torch.jit.trace(network, (image, meta))
    other = batch("sme", (3, 1, 10, 7))
    torch.testing.assert_close(traced(*other), network(*other))
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), network(image))
