"""What only `condition` promises: places, stale metadata, pretrained weights, processes."""

import copy
import io
import logging
import subprocess
import sys
import threading
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor
from monai.networks import nets
from torch import nn
from torch.utils.checkpoint import checkpoint

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks import Conditioned, Unet3, condition
from metaseg_monai.networks.places import find_places
from tests.extras import needed
from tests.networks.conditioned import NEEDS_EINOPS, NETWORKS
from tests.networks.conformance import KNOWS_UNKNOWN, batch, stirred

SIZE = (2, 1, 16, 16)


def dynunet():
    torch.manual_seed(0)
    return NETWORKS["DynUNet"](2)


def steered(variant="sme", network=None, **settings):
    torch.manual_seed(1)
    settings = {"meta_features": 3, "reduction": 1, **settings}
    return stirred(condition(network or dynunet(), variant=variant, **settings)).eval()


PLACES = {
    "BasicUNet": (["conv_0", "down_1", "down_2", "down_3", "down_4"], "upcat_4"),
    "UNet": (["model.0", "model.1.submodule.0"], "model.1.submodule.1.submodule.2"),
    "UNet residual": (["model.0", "model.1.submodule.0"], "model.1.submodule.1.submodule.2"),
    "DynUNet": (["input_block", "downsamples.0", "bottleneck"], "upsamples.0"),
    "DynUNet deep": (["input_block", "downsamples.0", "bottleneck"], "upsamples.0"),
    "SegResNet": (["down_layers.0", "down_layers.1", "down_layers.2"], "up_layers.0"),
    "SegResNetDS": (["encoder.layers.0.blocks"], "up_layers.0.blocks"),
    "AttentionUnet": (["model.0", "model.1.submodule.0"], "model.1.submodule.1.submodule.1.merge"),
    "FlexibleUNet": (["encoder.layer1", "encoder.layer2"], "decoder.blocks.0"),
    "UNETR": (["encoder1", "encoder2", "encoder3", "encoder4"], "decoder5"),
    "SwinUNETR": (["encoder1", "encoder2", "encoder3", "encoder4", "encoder10"], "decoder5"),
    "MedNeXt deep": (["enc_stages.0", "enc_stages.1", "enc_stages.2"], "dec_stages.0"),
    "VNet": (["in_tr", "down_tr32", "down_tr64", "down_tr128", "down_tr256"], "up_tr256"),
    "HighResNet": ([f"blocks.{number}" for number in range(11)], None),
}


@pytest.mark.parametrize("name", PLACES)
def test_the_groups_are_found_in_the_order_of_an_image(name):
    if name in NEEDS_EINOPS:
        needed("einops")
    network = NETWORKS[name](2)
    encoder, decoder = PLACES[name]
    found = [place.name for place in find_places(network, "encoder")]
    assert found[: len(encoder)] == encoder
    everything = [place.name for place in find_places(network, "all")]
    assert everything[: len(found)] == found
    if decoder is None:
        assert found == encoder  # not the last block, which gives the output
        with pytest.raises(ConfigError, match="has no decoder of its own"):
            find_places(network, "decoder")
    else:
        assert everything[len(found)] == decoder
        assert everything[len(found) :] == [one.name for one in find_places(network, "decoder")]


def test_mechanisms_stand_behind_layers_of_the_main_path():
    network = NETWORKS["DynUNet residual"](2)
    norms = find_places(network, "encoder", "normalisation")
    assert [place.name for place in norms][:2] == ["input_block.norm2", "downsamples.0.norm2"]
    convolutions = find_places(network, "decoder", "convolution")
    assert convolutions[0].name == "upsamples.0.conv_block.conv2.conv"
    images = find_places(network, "encoder", "image")
    assert [place.name for place in images] == ["input_block.conv1.conv", "input_block.conv3.conv"]


def test_every_place_before_a_normalisation_of_each_channel_is_refused():
    """The convolutions of DynUNet and BasicUNet, whose scales an instance norm takes out again."""
    for network, norms in ((dynunet(), 10), (NETWORKS["BasicUNet"](2), 18)):
        before = [
            name
            for name, module in network.named_modules()
            if isinstance(module, nn.Conv2d) and not name.startswith(("output", "final"))
        ]
        before = [name for name in before if "upsample." not in name and "transp" not in name]
        assert len(before) == norms
        for name in before:
            with pytest.raises(ConfigError, match="normalisation of each channel follows"):
                condition(network, meta_features=3, at=[name])
        assert not any(module._forward_hooks for module in network.modules())


def test_the_last_place_of_segresnet_is_inert_with_eight_filters_and_told():
    with pytest.raises(ConfigError, match=r"'up_layers.2' have no effect.*at=\['up_layers.0', "):
        condition(nets.SegResNet(2, 8, 1, 2), meta_features=3, at="decoder")
    with pytest.raises(ConfigError, match="None of these places works"):
        condition(nets.SegResNet(2, 8, 1, 2), meta_features=3, at=["up_layers.2"])
    assert condition(nets.SegResNet(2, 16, 1, 2), meta_features=3, at="decoder").places[-1]


def test_trying_places_leaves_the_network_as_it_was():
    network = NETWORKS["VNet"](2).train()
    network.up_tr32.eval()
    before = copy.deepcopy(network)
    torch.manual_seed(9)
    find_places(network, "all")
    drawn = torch.rand(3)
    torch.manual_seed(9)
    assert torch.equal(drawn, torch.rand(3))
    states = network.state_dict(), before.state_dict()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for one, other in zip(network.modules(), before.modules(), strict=True):
        assert one.training == other.training
        assert getattr(one, "eps", None) == getattr(other, "eps", None)
        assert getattr(one, "track_running_stats", 1) == getattr(other, "track_running_stats", 1)
        assert not one._forward_hooks


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"at": "encodr"}, "did you mean 'encoder'"),
        ({"at": "input_block"}, "or a list of names of modules; got 'input_block'"),
        ({"at": ["input_blok"]}, "no module 'input_blok'; did you mean 'input_block'"),
        ({"at": []}, "at is an empty list"),
        ({"at": ["input_block", "input_block"]}, "names a layer twice"),
        ({"at": ["bottleneck", "skip_layers.next_layer.next_layer"]}, "names a layer twice"),
        ({"at": ["downsamples"]}, "'downsamples' runs when this DynUNet does"),
        ({"at": ["bottleneck.lrelu"], "variant": "low-rank"}, "no convolution of"),
        ({"at": ["bottleneck"], "variant": "constant-channel"}, "at the image, at no other place"),
        ({"variant": "film-ivadomed"}, "'film-ivadomed' has no neutral start"),
        ({"variant": "film", "shift": True}, "shift is a choice of"),
        ({"variant": "se"}, "'se' takes no metadata"),
        ({"meta_features": None}, "give the schema"),
        ({"variant": "smee"}, "did you mean 'sme'"),
        ({"start": "zero"}, "start must be"),
        ({"reduction": 20}, r"behind input_block: reduction=20 of \d+ inputs"),
        ({"image_shape": (2, 16, 16)}, "takes no image of the shapes tried.*give image_shape"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        condition(dynunet(), **{"meta_features": 3, **settings})


def test_a_network_that_reads_metadata_or_whose_parts_are_not_known_is_refused():
    with pytest.raises(ConfigError, match="reads metadata by itself"):
        condition(Unet3(meta_features=3, channels=4, levels=1), meta_features=3)
    with pytest.raises(ConfigError, match="reads metadata by itself"):
        condition(steered(), meta_features=3)
    own = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    with pytest.raises(ConfigError, match=r"list of names of modules.*parts are '0', '1', '2'"):
        condition(own, meta_features=3)
    with pytest.raises(ConfigError, match="no convolution that tells"):
        condition(nn.Sequential(nn.Identity()), meta_features=3, at=["0"])
    network = steered(network=own, at=["1"])
    image, meta = batch(network, SIZE)
    assert (network(image, meta) - network(image, 1 - meta)).abs().max() > 1e-3


def test_tokens_are_no_features():
    needed("einops")
    with pytest.raises(ConfigError, match=r"'vit.blocks.0' gives no features.*\(1, 4, 24\)"):
        condition(NETWORKS["UNETR"](2), meta_features=3, at=["vit.blocks.0"])


def test_a_place_may_have_any_of_a_modules_names():
    name = "skip_layers.next_layer.next_layer"  # DynUNet has its bottleneck under two
    network = steered(at=[name])
    assert network.places == ("bottleneck",)
    image, meta = batch(network, SIZE)
    assert (network(image, meta) - network(image, 1 - meta)).abs().max() > 1e-3


@pytest.mark.parametrize("variant", ["sme", "low-rank"])
def test_weights_of_the_bare_network_load_by_strict(variant):
    bare, network = dynunet(), steered(variant)
    gates = {name: value.clone() for name, value in network.gates.state_dict().items()}
    nn.init.ones_(bare.output_block.conv.conv.weight)
    network.load_state_dict(bare.state_dict(), strict=True)
    assert torch.equal(network.network.output_block.conv.conv.weight.sum(), torch.tensor(16.0))
    for name, value in network.gates.state_dict().items():
        assert torch.equal(value, gates[name])
    outer = nn.Sequential(network)  # under a name of its own, too
    outer.load_state_dict({f"0.{name}": value for name, value in bare.state_dict().items()})
    with pytest.raises(RuntimeError, match=r"Missing key.*network.input_block"):
        network.load_state_dict({"bottleneck.norm1.weight": torch.ones(8)}, strict=True)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*network.other"):
        network.load_state_dict({**bare.state_dict(), "other": torch.ones(1)}, strict=True)


def test_state_dict_keys():
    keys = list(steered(at=["downsamples.0"]).state_dict())
    assert [key for key in keys if not key.startswith("network.")] == [
        f"gates.downsamples-0.excitation.{name}"
        for name in ("reduce.weight", "reduce.bias", "expand.weight", "expand.bias")
    ]
    bare = [f"network.{key}" for key in dynunet().state_dict()]
    assert [key for key in keys if key.startswith("network.")] == bare


def test_no_metadata_is_left_behind():
    network = steered()
    image, meta = batch(network, SIZE)
    network(image, meta)
    with pytest.raises(RuntimeError, match=r"'input_block' is steered.*ran outside"):
        network.network(image)
    with pytest.raises(RuntimeError, match="ran outside"):
        copy.deepcopy(network.network)(image)
    with pytest.raises(ValueError, match="reads metadata"):
        network(image)
    broken = network.network.output_block.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        network(image, meta)
    broken.remove()
    with pytest.raises(RuntimeError, match="ran outside"):
        network.network(image)
    assert network.running.meta is None


def test_a_pass_inside_another_has_its_own_metadata():
    network = steered()
    image, meta = batch(network, SIZE)
    expected, inner = network(image, meta), network(image, 1 - meta)
    found = []

    def teacher(module, inputs, output):
        if not found:
            found.append(None)
            found[0] = network(image, 1 - meta)

    hook = network.network.downsamples[0].register_forward_hook(teacher)
    outer = network(image, meta)
    hook.remove()
    assert torch.equal(outer, expected)
    assert torch.equal(found[0], inner)


def test_threads_do_not_mix_metadata():
    network = steered()
    image, meta = batch(network, SIZE)
    inside, done, told = threading.Event(), threading.Event(), []

    def wait(*_):
        inside.set()
        done.wait(20)

    def run():
        network(image, meta)

    hook = network.network.downsamples[0].register_forward_hook(wait)
    thread = threading.Thread(target=run)
    thread.start()
    inside.wait(20)
    try:
        with pytest.raises(RuntimeError, match="two threads run one conditioned network"):
            network(image, 1 - meta)
    finally:
        done.set()
        thread.join()
    hook.remove()
    assert not told
    assert network(image, meta).shape == (2, 2, 16, 16)


def test_modules_exchanged_later_are_noticed():
    network = steered("adaptive-norm", nets.SegResNetDS(2, 8, 1, 2, norm="batch"))
    exchanged = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    image, meta = batch(network, (2, 1, 32, 32))
    with pytest.raises(RuntimeError, match=r"no gate was called behind encoder.layers.0"):
        exchanged(image, meta)


def test_checkpoints_of_the_whole_are_exact_and_of_a_part_refused():
    network = steered().double()
    given = [tensor.double() for tensor in batch(network, SIZE)]
    weights = list(network.parameters())
    found = [
        torch.autograd.grad(pred.square().mean(), weights)
        for pred in (network(*given), checkpoint(network, *given, use_reentrant=False))
    ]
    for once, again in zip(*found, strict=True):
        torch.testing.assert_close(again, once)
    inner = network.network.bottleneck
    run = inner.__call__

    class Saved(nn.Module):
        def forward(self, x):
            return checkpoint(run, x, use_reentrant=False)

    network.network.skip_layers.next_layer.next_layer = Saved()
    pred = network(*given)
    with pytest.raises(RuntimeError, match="checkpoint the call of the whole"):
        pred.sum().backward()


PROCESS = """
import sys, torch
from torch.nn.parallel import DistributedDataParallel
from tests.networks.conformance import batch
from tests.networks.test_condition import SIZE, steered

rank, folder = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group(
    "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
)
network = steered()
image, meta = batch(network, (4, *SIZE[1:]))
half = slice(2 * rank, 2 * rank + 2)
parallel = DistributedDataParallel(network)
parallel(image[half], meta[half]).square().mean().backward()
if rank == 1:
    torch.save([weight.grad for weight in network.parameters()], f"{folder}/gradients.pt")
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_each_have_their_metadata(tmp_path):
    """The mean of their gradients, of two images each, is the gradient of the batch of four."""
    running = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(rank), str(tmp_path)])
        for rank in (0, 1)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    network = steered()
    image, meta = batch(network, (4, *SIZE[1:]))
    network(image, meta).square().mean().backward()
    together = torch.load(tmp_path / "gradients.pt")
    for weight, gradient in zip(network.parameters(), together, strict=True):
        torch.testing.assert_close(weight.grad, gradient)


def test_compiled_without_a_break_takes_new_metadata():
    network = steered()
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    image, meta = batch(network, SIZE)
    for given in (meta, 1 - meta, meta):
        torch.testing.assert_close(compiled(image, given), network(image, given))
    with pytest.raises(RuntimeError, match="ran outside"):
        network.network(image)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_no_export_leaves_the_metadata_out():
    network = steered()
    image, meta = batch(network, SIZE)
    with pytest.raises(Exception, match="give both inputs, image and meta"):
        torch.onnx.export(network, (image,), io.BytesIO(), dynamo=False)
    exported = torch.export.export(network, (image, meta)).module()
    torch.testing.assert_close(exported(image, 1 - meta), network(image, 1 - meta))
    assert network.running.meta is None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_without_the_heads_of_deep_supervision():
    network = condition(NETWORKS["DynUNet deep"](2), None, "sme", meta_features=2)
    image, meta = batch(network, SIZE)
    scripted = torch.jit.script(network)
    assert network.train()(image, meta).shape == (2, 2, 2, 16, 16)  # the network keeps its heads
    assert scripted.train()(image, meta).shape == (2, 2, 16, 16)
    assert torch.equal(scripted.eval()(image, meta), network.eval()(image, meta))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_twice_and_without_metadata_where_unknown_was_trained():
    settings = {"schema": KNOWS_UNKNOWN, "unknown_trained": True, "meta_features": None}
    first, second = steered(**settings), steered("sme", **settings)
    nn.init.normal_(second.gates["bottleneck"].excitation.expand.bias)
    image, meta = batch(first, SIZE)
    with torch.no_grad():
        for network in (first, second):
            scripted = torch.jit.script(network)
            for given in ((image, meta), (image,), (image, 1 - meta)):
                torch.testing.assert_close(scripted(*given), network(*given))
    assert network.places == first.places  # the scripted one is a copy
    assert torch.equal(network(image, meta), network(image, meta))


def test_the_bare_network_behind_the_same_door():
    bare = dynunet().eval()
    network = condition(bare, variant="none")
    image, _ = batch(network, SIZE)
    assert isinstance(network, Conditioned)
    assert torch.equal(network(image), bare(image))
    assert network.meta_features == 0
    with pytest.raises(ValueError, match="takes no metadata"):
        network(image, torch.rand(2, 3))


@pytest.mark.parametrize("variant", ["sme", "film", "adaptive-norm", "low-rank"])
def test_bfloat16_trains_with_meta_tensors(variant):
    network = steered(variant, NETWORKS["SegResNet"](2)).train()
    image, meta = batch(network, SIZE)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(10):
        with torch.autocast("cpu", torch.bfloat16):
            pred = network(MetaTensor(image), meta)
        loss = nn.functional.cross_entropy(pred.as_tensor().float(), (image[:, 0] > 0.5).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


def test_constant_channels_are_those_of_a_wider_first_convolution():
    network = condition(
        NETWORKS["SegResNet"](2), variant="constant-channel", meta_features=3, start="paper"
    )
    wider = nets.SegResNet(
        2, init_filters=16, in_channels=4, out_channels=2, blocks_down=(1, 1, 1), blocks_up=(1, 1)
    )
    state = network.network.state_dict()
    name = "convInit.conv.weight"
    state[name] = torch.cat([state[name], network.gates["convInit-conv"].v.weight], dim=1)
    wider.load_state_dict(state)
    image, meta = batch(network, SIZE)
    maps = meta[:, :, None, None].expand(-1, -1, 16, 16)
    expected = wider(torch.cat([image, maps], dim=1))
    torch.testing.assert_close(network(image, meta), expected, atol=1e-5, rtol=1e-5)


def test_constant_channels_are_told_where_a_normalisation_forgets_them(caplog):
    with caplog.at_level(logging.WARNING):
        condition(NETWORKS["SegResNet"](2), variant="constant-channel", meta_features=3)
    assert not caplog.text
    condition(dynunet(), variant="constant-channel", meta_features=3)
    assert "takes a constant out of each channel" in caplog.text


def test_the_overhead_is_told():
    network = condition(dynunet(), meta_features=9, reduction=1, at=["bottleneck"])
    own = (8 + 9) * 8 + 8 + 8 * 8 + 8
    bare = sum(weight.numel() for weight in network.network.parameters())
    told = f"sme at 1 place: {own} parameters beside the network's {bare:,} ({own / bare:.1%})"
    assert network.overhead() == told.replace("%", " %")
    assert network.overhead() in repr(network)


def test_gates_follow_the_networks_type_and_device():
    network = condition(dynunet().double(), meta_features=3)
    assert {weight.dtype for weight in network.parameters()} == {torch.float64}


class Blocks(nn.Module):
    """A network nobody knows: modules by name, one behind the other."""

    def __init__(self, blocks, names=("a", "a-c", "values")):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        for name in names:
            self.add_module(name, blocks())
        self.names, self.head = names, nn.Conv2d(8, 2, 1)

    def forward(self, image):
        x = self.stem(image)
        for name in self.names:
            x = self._modules[name](x)
        return self.head(x)


def block():
    return nn.Sequential(OrderedDict(c=nn.Conv2d(8, 8, 3, padding=1), r=nn.ReLU()))


def test_names_that_meet_or_are_those_of_a_dictionary_keep_a_gate_each():
    network = condition(Blocks(block), meta_features=3, at=["a.c", "a-c", "values"])
    assert list(network.gates) == ["a-c", "a-c-", "values-"]
    assert len({hook.gate for m in network.modules() for hook in m._forward_hooks.values()}) == 3
    network.load_state_dict(network.state_dict())


def test_a_network_is_conditioned_once_and_told_how_to_take_it_again():
    bare = Blocks(block)
    copied = copy.deepcopy(bare)
    condition(bare, meta_features=3, at=["a"])
    with pytest.raises(ConfigError, match=r"conditioned network already.*deepcopy"):
        condition(bare, variant="film", meta_features=3, at=["a-c"])
    condition(condition(copied, variant="se", at=["a"]), meta_features=3, at=["network.a-c"])


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = Blocks(block)

    def forward(self, image):
        return self.network(image)


def test_bare_weights_load_where_a_part_is_called_network():
    bare = Wrapped()
    network = condition(Wrapped(), meta_features=3, at=["network.a"])
    network.load_state_dict(bare.state_dict())
    assert torch.equal(network.network.network.head.weight, bare.network.head.weight)
    again = condition(Wrapped(), meta_features=3, at=["network.a"])
    again.load_state_dict(network.state_dict())


class Functional(nn.Module):
    def __init__(self, normalise):
        super().__init__()
        self.c, self.normalise = nn.Conv2d(8, 8, 3, padding=1), normalise

    def forward(self, x):
        return F.relu(self.normalise(self.c(x)))


@pytest.mark.parametrize(
    "normalise",
    [
        F.instance_norm,
        lambda x: F.group_norm(x, 8),
        nn.InstanceNorm2d(8, track_running_stats=True),
    ],
    ids=["function", "groups", "tracking"],
)
def test_a_normalisation_cancels_a_gate_as_a_function_and_with_statistics_too(normalise):
    network = Blocks(lambda: Functional(normalise), ("a",))
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ConfigError, match=r"'a\.c' have no effect"):
        condition(network, meta_features=3, at=["a.c"])
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert condition(network, meta_features=3, at=["a"]).places == ("a",)


def test_metadata_as_channels_stand_at_the_image_of_any_network():
    for variant in ("constant-channel", "meta-image"):
        network = condition(Blocks(block), variant=variant, meta_features=3)
        assert network.places == ("stem",)
        with pytest.raises(ConfigError, match="leave out at"):
            condition(Blocks(block), variant=variant, meta_features=3, at=["a"])


class Told(Blocks):
    """Calls a layer with more than its input."""

    def __init__(self):
        super().__init__(block, ("a",))
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)

    def forward(self, image):
        x = self.stem(image)
        return self.head(self.up(F.max_pool2d(x, 2), output_size=x.shape[2:]))


def test_a_layer_that_is_told_more_than_its_input_takes_gates_only():
    with pytest.raises(ConfigError, match="'up' is given more than its input"):
        condition(Told(), variant="low-rank", meta_features=3, at=["up"])
    network = condition(Told(), variant="sme", meta_features=3, at=["up"])
    assert network(torch.rand(2, 1, 17, 19), torch.eye(3)[:2]).shape == (2, 2, 17, 19)


class Other(Blocks):
    def forward(self, image):
        return SimpleNamespace(out=super().forward(image))


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        (lambda: Other(block), {}, "gives a SimpleNamespace in which no tensor"),
        (lambda: nn.Sequential(nn.LazyConv2d(8, 3)), {"at": ["0"]}, "or a lazy one.*image_shape"),
        (lambda: Blocks(block), {"image_shape": "abc"}, "image_shape, .channels"),
        (lambda: Blocks(block), {"image_shape": 32}, "image_shape, .channels"),
        (lambda: Blocks(block), {"meta_features": None, "schema": "s.json"}, "a MetadataSchema"),
        (lambda: Blocks, {}, "expected a network"),
    ],
)
def test_what_is_no_network_image_or_schema_is_refused(network, settings, message):
    with pytest.raises(ConfigError, match=message):
        condition(network(), **{"meta_features": 3, "at": ["a"], **settings})


def test_metadata_are_a_tensor():
    network = condition(Blocks(block), meta_features=3, at=["a"])
    for meta in ([[0, 0, 1]], torch.eye(3)[:1].numpy()):
        with pytest.raises(ValueError, match="expected meta as a tensor"):
            network(torch.rand(1, 1, 8, 8), meta)


def test_transformed_functions_take_gates_as_plain_operations():
    network = condition(Blocks(block), meta_features=3, at=["a"])
    stirred(network)
    image, meta, weights = (
        torch.rand(2, 1, 8, 8),
        torch.eye(3)[:2],
        dict(network.named_parameters()),
    )

    def loss(weights):
        return torch.func.functional_call(network, weights, (image, meta)).square().sum()

    found = torch.func.grad(loss)(weights)
    loss(weights).backward()
    assert all(torch.allclose(found[n], w.grad, atol=1e-5) for n, w in weights.items() if "a." in n)
