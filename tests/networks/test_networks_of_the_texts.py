"""Every network of the texts does what `conformance` says, untouched, as every gate does.

`MultiHeadUnet3`, whose metadata are one-hot, has the same promises in test_multi_head.py.
"""

import pytest
import torch

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks import (
    DenseUnetGenerator,
    DynamicUnet3,
    MultiHeadUnet3,
    NucleiLupiUnet,
    PPUnet,
    authors_unet3,
    reads_metadata,
)
from tests.extras import needed
from tests.networks import conformance

DENSE = {"in_channels": 1, "growth": 3, "layers": 2, "dropout": 0.0, "start": "paper"}
NETWORKS = {  # name: class, variant, further settings
    "ppunet-none": (PPUnet, "none", {}),
    "ppunet-sme": (PPUnet, "sme", {"reduction": 1}),
    "ppunet-film": (PPUnet, "film", {"reduction": 1}),
    "ppunet-adaptive-norm": (PPUnet, "adaptive-norm", {"reduction": 1}),
    "authors-se": (authors_unet3, "se", {"channels": 12}),
    "authors-sme": (authors_unet3, "sme", {"channels": 12}),
    "dynamic": (DynamicUnet3, "dynamic", {}),
    "dynamic-inner-joint": (
        DynamicUnet3,
        "dynamic",
        {"generator": "two-layer", "layers": "inner", "part": 0.5, "joint": True},
    ),
    "dynamic-elementwise": (
        DynamicUnet3,
        "dynamic",
        {"product": "elementwise", "symmetric": False, "gates": "se", "reduction": 1},
    ),
    "dense-none": (DenseUnetGenerator, "none", {**DENSE, "out_channels": 2}),
    "dense-sme": (DenseUnetGenerator, "sme", {**DENSE, "out_channels": 2, "reduction": 1}),
    "dense-adaptive-norm": (
        DenseUnetGenerator,
        "adaptive-norm",
        {**DENSE, "out_channels": 2, "reduction": 1},
    ),
    "dense-hyper": (DenseUnetGenerator, "hyper", {**DENSE, "out_channels": 2}),
    "dense-channel": (DenseUnetGenerator, "constant-channel", {**DENSE, "out_channels": 2}),
    "lupi-none": (NucleiLupiUnet, "none", DENSE),
    "lupi-sme": (NucleiLupiUnet, "sme", {**DENSE, "reduction": 1}),
    "lupi-noise": (NucleiLupiUnet, "weight-noise", DENSE),
}
FAST = (
    *("ppunet-none", "ppunet-sme", "authors-se", "authors-sme", "dynamic", "dynamic-elementwise"),
    *("dense-none", "dense-sme", "lupi-none", "lupi-sme"),
)
SIZES = {2: (2, 1, 17, 30), 3: (2, 1, 9, 6, 7)}
OTHER = {2: (3, 1, 20, 9), 3: (3, 1, 8, 9, 5)}
slow = pytest.mark.slow
# PyTorch deprecates TorchScript and its exporter, which others still need
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore::UserWarning:torch",
    "ignore:Constant folding:UserWarning",  # of padding
    "ignore::torch.jit.TracerWarning",
)


def building(name, dims=2):
    """What builds a network, the same at each call, as `conformance` takes it."""
    made, variant, settings = NETWORKS[name]

    def build(*, dummy=False, **more):
        if "schema" not in more and reads_metadata(variant):
            more["meta_features"] = 3
        torch.manual_seed(0)
        sizes = {"channels": 8, "levels": 2, "spatial_dims": dims, **settings}
        return made(variant=variant + "-dummy" * dummy, **sizes, **more)

    return build


def classes(name):
    """Channels that come out: of fluorescence and two classes, or two."""
    return 3 if NETWORKS[name][0] is NucleiLupiUnet else 2


def every(names=NETWORKS, dims=(2, 3)):
    cases = [
        pytest.param(name, d, id=f"{name}-{d}D", marks=[] if d == 2 and name in FAST else slow)
        for name in names
        for d in dims
    ]
    return pytest.mark.parametrize(("name", "dims"), cases)


STEERED = [name for name, (_, variant, _) in NETWORKS.items() if reads_metadata(variant)]


@every()
def test_shape_and_gradient(name, dims):
    conformance.check_shape_and_gradient(building(name, dims), SIZES[dims], classes(name))


@every()
def test_rows_are_independent(name, dims):
    conformance.check_rows_are_independent(building(name, dims), SIZES[dims])


@every(STEERED)
def test_metadata_decide(name, dims):
    conformance.check_metadata_decide(building(name, dims), SIZES[dims])


@every()
def test_refusals(name, dims):
    conformance.check_refusals(building(name, dims), SIZES[dims])


@every(STEERED, [2])
def test_unknown_and_dummy(name, dims):
    conformance.check_unknown_and_dummy(building(name, dims), SIZES[dims])


@every()
def test_meta_tensors(name, dims):
    conformance.check_meta_tensors(building(name, dims), SIZES[dims])


@every()
def test_state_round_trip(name, dims, tmp_path):
    conformance.check_state_round_trip(building(name, dims), SIZES[dims], tmp_path / "model.pt")


@every()
def test_scripted(name, dims):
    conformance.check_scripted(building(name, dims), SIZES[dims])


@slow
@every()
def test_compiled(name, dims):
    conformance.check_compiled(building(name, dims), SIZES[dims])


@every()
def test_onnx(name, dims):
    needed("onnxruntime")
    conformance.check_onnx(building(name, dims), SIZES[dims], OTHER[dims])


EXPORTED = {  # of levels that are halved without a rest, and of others
    2: [(2, 1, 32, 48), (3, 1, 33, 33), (1, 1, 17, 30), (2, 1, 64, 16)],
    3: [(2, 1, 16, 8, 24), (3, 1, 9, 9, 9), (1, 1, 8, 11, 10)],
}


@every()
def test_exported_for_images_of_any_size(name, dims):
    conformance.check_exported(building(name, dims), EXPORTED[dims])


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (17, 31), (33, 48), (1, 1, 1), (5, 7, 9)])
@pytest.mark.parametrize("name", FAST)
def test_any_size_is_kept(name, size):
    network = building(name, len(size))().eval()
    meta = torch.rand(1, network.meta_features) if network.meta_features else None
    with torch.no_grad():
        assert network(torch.rand(1, 1, *size), meta).shape == (1, classes(name), *size)


@pytest.mark.parametrize("name", ["ppunet-sme", "dynamic"])
def test_mixed_images_in_the_layout_of_fast_training(name):
    network = building(name)().eval().to(memory_format=torch.channels_last)
    image, meta = conformance.batch(network, (4, 1, 17, 30))
    together = network(image.contiguous(memory_format=torch.channels_last), meta)
    torch.testing.assert_close(together, network(image, meta), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["ppunet-sme", "dynamic", "authors-sme"])
def test_bfloat16_autocast_trains(name):
    network = building(name)().to(memory_format=torch.channels_last)
    image, meta = conformance.batch(network, (4, 1, 16, 16))
    target = (image > 0.5).long()[:, 0]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(12):
        with torch.autocast("cpu", torch.bfloat16):
            pred = network(image, meta)
        loss = torch.nn.functional.cross_entropy(pred.float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.parametrize("settings", [{"channels": 0}, {"levels": 0}, {"spatial_dims": 4}])
@pytest.mark.parametrize(
    "name", ["PPUnet", "DynamicUnet3", "MultiHeadUnet3", "authors_unet3", "dense", "lupi"]
)
def test_a_network_of_no_size_is_refused(name, settings):
    with pytest.raises(ConfigError, match=r"must be (1 or more|2 or 3), got"):
        {
            "PPUnet": lambda: PPUnet(variant="none", **settings),
            "DynamicUnet3": lambda: DynamicUnet3(meta_features=2, **settings),
            "MultiHeadUnet3": lambda: MultiHeadUnet3(2, **settings),
            "authors_unet3": lambda: authors_unet3(variant="none", **settings),
            "dense": lambda: DenseUnetGenerator(**settings),
            "lupi": lambda: NucleiLupiUnet(**settings),
        }[name]()


@pytest.mark.parametrize(
    ("variant", "parameters"),  # of github.com/akvilonBrown/sme-metadata, counted, 7 entries
    [
        ("none", 1_453_250),
        ("se", 1_519_506),
        ("me", 1_502_530),
        ("sme", 1_531_658),
        ("film-ivadomed", 1_494_258),
    ],
)
def test_the_authors_network_has_their_sizes(variant, parameters):
    width = {} if variant in ("none", "se") else {"meta_features": 7}
    network = authors_unet3(variant=variant, **width)
    assert sum(weight.numel() for weight in network.parameters()) == parameters
