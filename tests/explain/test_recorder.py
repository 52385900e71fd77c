import pytest
import torch
from monai.networks.nets import BasicUNet
from torch import nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.explain import few_cases, gates_of, record_gates
from metaseg_monai.networks import MultiHeadUnet3, SqueezeExcite, Unet3, condition


def small(variant="sme", **settings):
    torch.manual_seed(0)
    entries = 0 if variant in ("none", "se") else 3
    return Unet3(variant=variant, meta_features=entries, channels=8, levels=2, **settings).eval()


class Backwards(nn.Module):
    """Registers its last gate first."""

    def __init__(self):
        super().__init__()
        self.last = SqueezeExcite(1, 1)
        self.inner = nn.ModuleDict({"first": SqueezeExcite(1, 1)})

    def forward(self, image):
        return self.last(self.inner["first"](image))


def test_gates_of_unet3_have_the_names_of_their_places():
    assert list(gates_of(small(places=["decoder1", "encoder2"]))) == ["encoder2", "decoder1"]


@pytest.mark.parametrize("variant", ["sme", "adaptive-norm"])
def test_gates_of_a_conditioned_network_have_the_names_of_its_modules(variant):
    bare = BasicUNet(2, features=(4, 4, 4, 4, 4, 4))
    network = condition(bare, variant=variant, meta_features=3, at="decoder")
    places = ["upcat_4", "upcat_3", "upcat_2", "upcat_1"]
    if variant == "adaptive-norm":
        places = [f"{place}.convs.conv_1.adn.N" for place in places]
    assert list(gates_of(network)) == places
    with record_gates(network, places[-1]) as record:
        network(torch.rand(2, 1, 32, 32), torch.eye(2, 3))
    assert list(record.scale) == places
    assert torch.equal(record.scale[places[0]][0], torch.ones(2, 4))  # neutral
    assert torch.equal(record.before, record.after)


def test_adaptive_norms_of_unet3_have_the_names_of_their_places():
    gates = list(gates_of(small("adaptive-norm")))
    assert gates == ["encoder1", "encoder2", "middle", "decoder2", "decoder1"]
    with pytest.raises(ConfigError, match="no gates to explain"):
        gates_of(small("low-rank"))


def test_gates_of_another_network_have_module_paths_and_are_recorded_in_forward_order():
    network = Backwards()
    assert list(gates_of(network)) == ["last", "inner.first"]
    with record_gates(network) as record:
        network(torch.rand(1, 1, 4, 4))
    assert list(record.scale) == ["inner.first", "last"]


@pytest.mark.parametrize("network", [small("none"), nn.Conv2d(1, 1, 1)])
def test_a_network_without_gates_is_refused(network):
    with pytest.raises(ConfigError, match="no gates to explain"):
        gates_of(network)


def test_a_gate_that_is_not_there_is_refused_with_a_suggestion():
    with (
        pytest.raises(ConfigError, match="did you mean 'decoder1'"),
        record_gates(small(), "decoder_1"),
    ):
        pass


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("variant", ["se", "me", "sme", "film", "film-ivadomed"])
def test_scale_and_shift_are_those_that_turn_before_into_after(variant, fused):
    network = small(variant)
    for gate in gates_of(network).values():
        gate.fused = fused
    meta = () if variant == "se" else (torch.eye(2, 3),)
    with torch.no_grad(), record_gates(network, "middle") as record:
        network(torch.rand(2, 1, 12, 8), *meta)
    scale = record.scale["middle"][0][0]
    shift = record.shift["middle"][0][0] if "film" in variant else torch.zeros(8)
    before, after = record.before, record.after
    assert before.shape == (8, 3, 2)
    assert before.min() == 0  # the ReLU in front of the gate is done
    assert before.max() > 0
    torch.testing.assert_close(before * scale[:, None, None] + shift[:, None, None], after)
    assert list(record.scale) == ["encoder1", "encoder2", "middle", "decoder2", "decoder1"]
    assert bool(record.shift) == ("film" in variant)


def test_gates_of_any_make_are_watched(echo):
    meta = torch.tensor([[0.5, -1.0, 4.0]])
    with record_gates(echo) as record:
        echo(torch.ones(1, 1, 2, 2), meta=meta)
    assert record.scale["echo"][0].tolist() == [[0.5, -1.0, 4.0]]
    assert record.shift["echo"][0].tolist() == [[1.0, -2.0, 8.0]]


def test_every_call_is_recorded_but_only_the_first_image_is_kept(echo):
    first, second = torch.full((2, 1, 2, 2), 7.0), torch.zeros(1, 1, 2, 2)
    with record_gates(echo, "echo") as record:
        echo(first, torch.ones(2, 3))
        echo(image=second, meta=torch.zeros(1, 3))
    assert record.images == 3
    assert record.image.tolist() == first[0].tolist()
    assert [scale.shape[0] for scale in record.scale["echo"]] == [2, 1]
    assert record.after[:, 0, 0].tolist() == [7 + 2, 14 + 2, 21 + 2]


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(fails):
    network, image, meta = small(), torch.rand(1, 1, 8, 8), torch.eye(1, 3)
    expected = network(image, meta)
    try:
        with record_gates(network, "middle") as record:
            assert torch.equal(network(image, meta), expected)
            if fails:
                network(image, torch.eye(1, 7))
    except ValueError:
        assert fails
    assert torch.equal(network(image, meta), expected)
    assert len(record.scale["decoder1"]) == 1
    for module in network.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "excite" not in vars(module)


ITEMS = [
    {"case": case, "domain": case[0], "mode": mode}
    for mode in ("normal", "fixed:a")
    for case in ("a1", "a2", "a3", "b1", "b2", "c1")
]


def test_cases_are_spread_over_domains_and_keep_all_their_modes_in_order():
    kept = [(item["mode"], item["case"]) for item in few_cases(ITEMS, 4)]
    cases = ["a1", "a2", "b1", "c1"]
    assert kept == [(mode, case) for mode in ("normal", "fixed:a") for case in cases]


def test_all_cases_are_kept_where_there_are_fewer():
    assert few_cases(ITEMS, 99) == ITEMS


def test_no_case_is_refused():
    with pytest.raises(ConfigError, match="explain_cases must be 1 or more, got 0"):
        few_cases(ITEMS, 0)


def test_of_several_heads_the_gates_that_all_images_pass_are_watched():
    network = MultiHeadUnet3(2, "low", channels=4, levels=1)
    assert list(gates_of(network)) == ["encoder.0.gate", "middle.gate"]
    with pytest.raises(ConfigError, match="no gates to explain"):
        gates_of(MultiHeadUnet3(2, gates="none", channels=4, levels=1))
