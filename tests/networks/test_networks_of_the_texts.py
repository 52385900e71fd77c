"""What every network of the texts promises beside `Unet3`: one list, the same tests for all."""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks import DynamicUnet3, MultiHeadUnet3, PPUnet, authors_unet3


def pyramid(variant, **settings):
    def build(dims, out_channels=2):
        width = {} if variant in ("none", "se") else {"meta_features": 3}
        settings_of_all = {"channels": 4, "levels": 2, "reduction": 1, "spatial_dims": dims}
        return PPUnet(
            variant=variant, out_channels=out_channels, **width, **settings_of_all, **settings
        )

    return build


def authors(variant):
    def build(dims, out_channels=2):
        width = {"meta_features": 3} if variant != "se" else {}
        return authors_unet3(None, variant, 1, out_channels, 4, 2, dims, **width)

    return build


def heads(bifurcation, number=2):
    def build(dims, out_channels=2):
        sizes = {"channels": 4, "levels": 2, "reduction": 1, "spatial_dims": dims}
        return MultiHeadUnet3(number, bifurcation, out_channels=out_channels, **sizes)

    return build


def dynamic(**settings):
    def build(dims, out_channels=2):
        sizes = {"channels": 4, "levels": 1, "reduction": 1, "spatial_dims": dims}
        return DynamicUnet3(meta_features=3, out_channels=out_channels, **sizes, **settings)

    return build


NETWORKS = {  # name: how it is built for 2 or 3 dimensions and so many classes
    "ppunet-none": pyramid("none"),
    "ppunet-se": pyramid("se"),
    "ppunet-sme": pyramid("sme"),
    "ppunet-film": pyramid("film"),
    "heads-high": heads("high"),
    "heads-low": heads("low", 3),
    "dynamic": dynamic(),
    "dynamic-two-layer": dynamic(generator="two-layer", layers="inner", part=0.5, joint=True),
    "dynamic-elementwise": dynamic(product="elementwise", symmetric=False, gates="se"),
    "authors-se": authors("se"),
    "authors-sme": authors("sme"),
}
COMPILED = ["dynamic", "ppunet-sme", "heads-low"]
every_network = pytest.mark.parametrize("name", NETWORKS)
both_dims = pytest.mark.parametrize("dims", [2, 3])
script_is_old = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def make(name, dims=2, **settings):
    torch.manual_seed(0)
    network = NETWORKS[name](dims, **settings)
    for module in network.modules():  # as trained, so that an image's own mean is not its norm
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network


def batch(network, size=(9, 14), images=3):
    torch.manual_seed(1)
    dims = network.spatial_dims
    image = torch.rand(images, 1, *(*size, 5, 6)[:dims])
    width = network.meta_features
    meta = torch.eye(width)[torch.arange(images) % width] if width else None
    return image, meta


def rows(tensor, chosen):
    return None if tensor is None else tensor[chosen]


@both_dims
@every_network
def test_shape_and_a_gradient_for_every_weight(name, dims):
    network = make(name, dims, out_channels=3)
    image, meta = batch(network, (8, 12))
    pred = network(image.requires_grad_(), meta)
    assert pred.shape == (3, 3, *image.shape[2:])
    (pred * torch.randn_like(pred)).sum().backward()
    assert image.grad.abs().sum() > 0
    for weight_name, weight in network.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, weight_name
            assert torch.isfinite(weight.grad).all(), weight_name


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (17, 31), (33, 48), (1, 1, 1), (5, 7, 9)])
@every_network
def test_any_size_is_kept(name, size):
    network = make(name, len(size)).eval()
    image = torch.rand(1, 1, *size)
    meta = batch(network, images=1)[1]
    with torch.no_grad():
        assert network(image, meta).shape == (1, 2, *size)


@both_dims
@every_network
def test_a_mixed_batch_is_what_each_image_gives_alone_in_any_order(name, dims):
    network = make(name, dims).eval()
    for layout in (
        torch.contiguous_format,
        (torch.channels_last, torch.channels_last_3d)[dims - 2],
    ):
        network = network.to(memory_format=layout)
        image, meta = batch(network)
        image = image.contiguous(memory_format=layout)
        with torch.no_grad():
            pred = network(image, meta)
            order = [2, 0, 1]
            permuted = network(image[order], rows(meta, order))
            alone = [network(image[[row]], rows(meta, [row])) for row in range(3)]
        torch.testing.assert_close(permuted, pred[order], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.cat(alone), pred, atol=1e-5, rtol=1e-5)


@every_network
def test_every_entry_of_the_metadata_changes_the_logits(name):
    network = make(name).eval()
    width = network.meta_features
    if not width:
        pytest.skip("reads no metadata")
    image = batch(network, images=1)[0]
    with torch.no_grad():
        preds = [network(image, torch.eye(width)[[entry]]) for entry in range(width)]
    for one, other in pairwise(preds):
        assert (one - other).abs().max() > 1e-6


@every_network
def test_wrong_images_and_metadata_are_refused(name):
    network = make(name)
    image, meta = batch(network)
    with pytest.raises(ValueError, match="2 spatial axes, got 5 axes"):
        network(image[..., None], meta)
    if meta is None:
        with pytest.raises(ValueError, match="takes no metadata"):
            network(image, torch.rand(3, 2))
        return
    for wrong in (meta[:1], meta[:, :-1], meta[0]):
        with pytest.raises(ValueError, match=r"expected meta of shape \(3, "):
            network(image, wrong)


@every_network
def test_weights_go_through_a_file_and_meta_tensors_come_out(name):
    network, other = make(name).eval(), make(name).eval()
    image, meta = batch(network)
    for weight in other.parameters():
        torch.nn.init.zeros_(weight.detach())
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    with torch.no_grad():
        pred = network(MetaTensor(image, meta={"case": "a"}), meta)
        assert torch.equal(other(image, meta), pred.as_tensor())
    assert pred.meta["case"] == "a"


@script_is_old
@both_dims
@every_network
def test_scripted_equals_eager(name, dims):
    network = make(name, dims).eval()
    scripted = torch.jit.script(network)
    image, meta = batch(network)
    with torch.no_grad():
        torch.testing.assert_close(scripted(image, meta), network(image, meta), **CLOSE)
    if meta is not None:
        with pytest.raises(torch.jit.Error, match="expected meta of shape"):
            scripted(image, meta[:1])


CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@script_is_old
@pytest.mark.filterwarnings("ignore:Constant folding:UserWarning")  # of padding
@both_dims
@every_network
def test_onnx_keeps_both_inputs_for_any_batch_and_size(name, dims):
    runtime = pytest.importorskip("onnxruntime")
    network = make(name, dims).eval()
    given = [tensor for tensor in batch(network) if tensor is not None]
    names = ["image", "meta"][: len(given)]
    sizes = {0: "batch", **{2 + axis: f"size{axis}" for axis in range(dims)}}
    file = io.BytesIO()
    axes = {"image": sizes, "meta": {0: "batch"}}
    torch.onnx.export(
        network,
        tuple(given),
        file,
        input_names=names,
        dynamic_axes={one: axes[one] for one in names},
        dynamo=False,
    )
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == names
    for size, images in (((9, 14), 3), ((10, 7), 4), ((5, 6), 1)):
        other = [tensor for tensor in batch(network, size, images) if tensor is not None]
        feed = {one: tensor.numpy() for one, tensor in zip(names, other, strict=True)}
        (pred,) = session.run(None, feed)
        np.testing.assert_allclose(pred, network(*other).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("name", COMPILED)
def test_it_compiles_whole(name):
    network = make(name).eval()
    image, meta = batch(network)
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(image, meta), network(image, meta), **CLOSE)


@every_network
def test_bfloat16_autocast_trains(name):
    network = make(name)
    image, meta = batch(network, (16, 16), 4)
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


def test_a_network_of_no_size_is_refused():
    for settings in ({"channels": 0}, {"levels": 0}, {"spatial_dims": 4}):
        for network in (PPUnet,):
            with pytest.raises(ConfigError, match=r"must be (1 or more|2 or 3), got"):
                network(variant="none", **settings)


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
