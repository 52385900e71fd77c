import pytest
import torch
from monai.data import MetaTensor

from metaseg_monai.errors import ConfigError
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.networks import Unet3, gate_places

VARIANTS = ["none", "se", "me", "sme", "film", "film-ivadomed"]
STEERED = VARIANTS[2:]
NAKED = 1_371_010


def count(network):
    return sum(weight.numel() for weight in network.parameters())


@pytest.mark.parametrize(
    ("variant", "settings", "gate_weights"),
    [
        ("none", {}, 0),
        ("se", {"reduction": 2}, 64 * 32 + 32 + 32 * 64 + 64),  # thesis 3.3: 1.42 million
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


def test_the_published_numbers_of_parameters():
    assert count(Unet3(variant="none")) == 1_371_010
    assert count(Unet3(variant="se", reduction=2)) == 1_417_122


def test_gates_as_large_as_those_of_the_authors_code():
    """Differences of the counts of github.com/akvilonBrown/sme-metadata, 7 entries."""
    me = Unet3(variant="me", meta_features=7, reduction=2, shift=True)
    film = Unet3(variant="film-ivadomed", meta_features=7)
    assert count(me) - NAKED == 1_502_530 - 1_453_250
    assert count(film) - NAKED == 1_494_258 - 1_453_250


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(2, 1, 16, 24), (2, 1, 8, 8, 8)])
def test_shape_and_a_gradient_for_every_weight(variant, size, small, batch):
    network = small(variant, len(size) - 2, out_channels=3)
    image, meta = batch(variant, size)
    pred = network(image.requires_grad_(), meta)
    assert pred.shape == (2, 3, *size[2:])
    (pred * torch.randn_like(pred)).sum().backward()
    assert image.grad.abs().sum() > 0
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        if "gate" in name:
            assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("height", range(17, 98, 16))
@pytest.mark.parametrize("width", [1, 2, 31, 64, 97])
def test_any_size_in_2d_is_kept(height, width, small):
    network = small("sme", channels=2, levels=5).eval()
    with torch.no_grad():
        pred = network(torch.rand(1, 1, height, width), torch.rand(1, 3))
    assert pred.shape == (1, 2, height, width)


@pytest.mark.parametrize("size", [(1, 1, 1), (5, 7, 9), (17, 3, 12), (33, 1, 2)])
def test_any_size_in_3d_is_kept(size, small):
    network = small("sme", 3, channels=2, levels=5).eval()
    with torch.no_grad():
        assert network(torch.rand(1, 1, *size), torch.rand(1, 3)).shape == (1, 2, *size)


def test_up_sampling_at_odd_sizes_puts_each_pixel_above_its_pool():
    """Every pixel of the finer level must come from the coarse one it was pooled into."""
    for size in range(1, 98):
        coarse = torch.arange((size + 1) // 2).float()[None, None]
        fine = torch.nn.functional.interpolate(coarse, size=size, mode="nearest")[0, 0]
        assert fine.tolist() == [pixel // 2 for pixel in range(size)]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_fused_gates_change_neither_logits_nor_gradients(variant, channels_last, small, batch):
    image, meta = batch(variant)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    outcomes = []
    for fused in (True, False):
        network = small(variant, fused=fused).double().to(memory_format=layout)
        pred = network(image.double(), None if meta is None else meta.double())
        outcomes.append(
            [pred, *torch.autograd.grad(pred.square().mean(), list(network.parameters()))]
        )
    for fused, plain in zip(*outcomes, strict=True):
        torch.testing.assert_close(fused, plain)


@pytest.mark.parametrize("variant", STEERED)
def test_each_metadata_entry_changes_the_logits(variant, small, batch):
    network = small(variant).eval()
    image, meta = batch(variant)
    pred = network(image, meta)
    for entry in range(3):
        other = meta.clone()
        other[:, entry] += 1
        assert (network(image, other) - pred).abs().amax(dim=(1, 2, 3)).min() > 1e-6, entry


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_image_keeps_its_own_metadata(variant, small, batch):
    network = small(variant).eval()
    image, meta = batch(variant, (4, 1, 9, 14))
    order = torch.tensor([3, 1, 0, 2])
    permuted = network(image[order], None if meta is None else meta[order])
    torch.testing.assert_close(permuted, network(image, meta)[order])


def test_names_of_the_places():
    places = gate_places(5)
    assert len(places) == 11
    assert places[0] == "encoder1"
    assert places[4:7] == ("encoder5", "middle", "decoder5")
    assert places[10] == "decoder1"


@pytest.mark.parametrize("place", range(5))
def test_a_single_gate_at_any_place_steers_the_network(place, small, batch):
    network = small("me", places=[place]).eval()
    gates = [name for name, _ in network.named_modules() if name.endswith("gate.excitation")]
    expected = {
        "encoder1": "encoder.0",
        "encoder2": "encoder.1",
        "middle": "middle",
        "decoder2": "decoder.0",
        "decoder1": "decoder.1",
    }
    assert gates == [expected[gate_places(2)[place]] + ".gate.excitation"]
    image, meta = batch("me")
    assert (network(image, meta) - network(image, 1 - meta)).abs().max() > 1e-6


def test_places_by_name_and_index_are_the_same(small):
    by_name = small("me", places=["encoder1", "decoder1"])
    by_index = small("me", places=[4, 0])
    assert list(by_name.state_dict()) == list(by_index.state_dict())
    per_gate = 3 * 8 + 8 + 8 * 8 + 8
    assert count(by_name) == count(small("none")) + 2 * per_gate


@pytest.mark.parametrize("shape", [(1, 3), (3, 3), (2, 2), (2, 4), (3,), (2, 3, 1)])
def test_wrong_metadata_are_refused(shape, small, batch):
    image, _ = batch("none")
    with pytest.raises(ValueError, match=r"expected meta of shape \(2, 3\)"):
        small("film")(image, torch.rand(shape))


def test_missing_and_unwanted_metadata_are_refused(small, batch):
    image, meta = batch("me")
    for variant in STEERED:
        with pytest.raises(ValueError, match="reads metadata of width 3"):
            small(variant)(image)
    for variant in ("none", "se"):
        with pytest.raises(ValueError, match="takes no metadata"):
            small(variant)(image, meta)


def test_meta_none_is_the_unknown_vector(small, batch):
    image, _ = batch("me")
    unknown = [0.0, 0.25, 1.0]
    network = small("me", unknown_meta=unknown).eval()
    torch.testing.assert_close(network(image), network(image, torch.tensor([unknown, unknown])))
    assert list(network.state_dict()) == list(small("me").state_dict())


def schema_of(*missing):
    fields = [
        Categorical(
            name=f"field{number}",
            values=("a", "b"),
            missing=policy,
            provenance="acquisition",
            availability="acquisition",
        )
        for number, policy in enumerate(missing)
    ]
    return MetadataSchema(fields)


UNKNOWN = schema_of("unknown", "unknown")


@pytest.mark.parametrize("variant", STEERED)
def test_a_schema_gives_width_and_unknown_vector(variant, batch):
    def make(name=variant, **settings):
        torch.manual_seed(0)
        return Unet3(variant=name, channels=4, levels=1, **settings).eval()

    network = make(schema=UNKNOWN, unknown_trained=True)
    plain = make(meta_features=6, unknown_meta=UNKNOWN.unknown().tolist())
    dummy = make(f"{variant}-dummy", schema=UNKNOWN)
    image, meta = batch("none")[0], torch.rand(2, 6)
    assert network.meta_features == dummy.meta_features == 6
    assert (network.variant, dummy.variant) == (variant, f"{variant}-dummy")
    for other in (plain, dummy):
        assert list(other.state_dict()) == list(network.state_dict())
        assert torch.equal(other(image, meta), network(image, meta))
    unknown = torch.from_numpy(UNKNOWN.unknown()).expand(2, 6)
    assert torch.equal(network(image), network(image, unknown))
    assert torch.equal(network(image), plain(image))


@pytest.mark.parametrize(
    ("schema", "variant", "trained", "why"),
    [
        (schema_of("unknown", "error"), "sme", True, "schema lacks .missing='error' in 'field1'"),
        (UNKNOWN, "sme", False, "never saw in training"),
        (UNKNOWN, "sme-dummy", True, "never saw in training .no metadata dropout, or a dummy"),
    ],
)
def test_none_is_unknown_only_if_the_schema_knows_it_and_training_showed_it(
    schema, variant, trained, why, batch
):
    network = Unet3(schema, variant, channels=4, levels=1, unknown_trained=trained)
    with pytest.raises(ValueError, match=f"pass meta of shape .*, which .*{why}"):
        network(batch("none")[0])


@pytest.mark.parametrize("variant", ["none", "se"])
def test_networks_without_metadata_do_not_use_the_schema(variant, batch):
    network = Unet3(UNKNOWN, variant, channels=4, levels=1, unknown_trained=True)
    assert network.meta_features == 0
    with pytest.raises(ValueError, match="takes no metadata"):
        network(batch("none")[0], torch.rand(2, 6))


@pytest.mark.parametrize("settings", [{"meta_features": 6}, {"unknown_meta": [0.0] * 6}])
def test_a_schema_goes_without_a_second_width_or_unknown_vector(settings):
    with pytest.raises(ConfigError, match="has a schema, which gives both: leave them out"):
        Unet3(UNKNOWN, **settings)


def test_an_image_of_other_dimension_is_refused(small):
    with pytest.raises(ValueError, match="3 spatial axes, got 4 axes"):
        small("none", 3)(torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "smee", "meta_features": 3}, "did you mean 'sme'"),
        ({"variant": "se-dummy"}, "unknown variant 'se-dummy'. The variants are none, se"),
        ({"unknown_trained": True, "meta_features": 3}, "unknown_trained needs the schema"),
        ({"variant": "sme"}, "'sme' is steered by metadata"),
        ({"variant": "none", "meta_features": 3}, "'none' takes no metadata"),
        ({"variant": "film", "meta_features": 3, "shift": True}, "shift is a choice of"),
        ({"variant": "se", "levels": 0}, "levels must be 1 or more, got 0"),
        ({"variant": "se", "out_channels": 0}, "out_channels must be 1 or more"),
        ({"variant": "none", "spatial_dims": 1}, "spatial_dims must be 2 or 3, got 1"),
        ({"variant": "se", "reduction": 200}, "reduction=200 .*hidden neurons"),
        ({"variant": "se", "unknown_meta": [0.0]}, "unknown_meta needs"),
        ({"variant": "none", "places": ["middle"]}, "'none' has no gates"),
        ({"variant": "se", "places": []}, "use variant 'none'"),
        ({"variant": "se", "places": "middle"}, "places must be a list"),
        ({"variant": "se", "places": ["midle"]}, "'midle', did you mean 'middle'"),
        ({"variant": "se", "places": [11]}, "unknown place 11. The places are encoder1"),
        ({"variant": "se", "places": [-1]}, "unknown place -1"),
        ({"variant": "se", "places": [True]}, "unknown place True"),
        ({"variant": "se", "places": [5, "middle"]}, "names a place twice"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Unet3(**settings)


@pytest.mark.parametrize("variant", VARIANTS)
def test_meta_tensors_go_in_and_come_out(variant, small, batch):
    network = small(variant)
    image, meta = batch(variant)
    pred = network(MetaTensor(image, meta={"case": "a"}), meta)
    assert isinstance(pred, MetaTensor)
    assert pred.meta["case"] == "a"
    pred.square().mean().backward()
    found = [weight.grad.clone() for weight in network.parameters()]
    network.zero_grad()
    network(image, meta).square().mean().backward()
    for with_meta, without in zip(found, network.parameters(), strict=True):
        torch.testing.assert_close(with_meta, without.grad)


@pytest.mark.parametrize("variant", ["none", "sme", "film"])
def test_bfloat16_autocast_trains(variant, small, batch):
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


def test_checkpointed_activations_give_the_same_gradients(small, batch):
    network = small("sme").double()
    image, meta = batch("sme")
    found = []
    for checkpointed in (False, True):
        network.zero_grad()
        if checkpointed:
            pred = torch.utils.checkpoint.checkpoint(
                network, image.double(), meta.double(), use_reentrant=False
            )
        else:
            pred = network(image.double(), meta.double())
        pred.square().mean().backward()
        found.append([weight.grad.clone() for weight in network.parameters()])
    for again, once in zip(*found, strict=True):
        torch.testing.assert_close(again, once)
