"""What every gate, network and mechanism promises, as functions that take what makes one.

`build(**settings)` returns a fresh network, the same at each call, that is called as
network(image, meta), with `meta_features` 3, or 0 for one that reads none. Settings may be a
`schema` with `unknown_trained`, or `dummy=True`. `size` is that of the images (B, C, *S).
"""

import copy
import io
import pickle

import numpy as np
import torch
from monai.data import MetaTensor
from torch import nn

from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.training import read_weights, write_weights

TASK = {"name": "task", "provenance": "acquisition", "availability": "acquisition"}
KNOWS_UNKNOWN = MetadataSchema([Categorical(**TASK, values=("a", "b"), missing="unknown")])


def stirred(network):
    """The network with values in place of weights that are all zero at the start."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if weight.count_nonzero() == 0 and not name.startswith("network."):
                weight.copy_(torch.randn(weight.shape, generator=generator) / 2)
    return network


def batch(network, size, seed=1):
    """Images and metadata, or None for a network that reads none."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(size, generator=generator)
    width = network.meta_features
    return image, torch.rand(size[0], width, generator=generator) if width else None


def rows(meta, order):
    return None if meta is None else meta[order]


def tensors(output):
    return [output] if isinstance(output, torch.Tensor) else list(output)


def expect(error, words, call, *given):
    try:
        call(*given)
    except error as told:
        assert words in str(told), told  # noqa: PT017
    else:
        raise AssertionError(f"expected a refusal that tells {words!r}")


def check_shape_and_gradient(build, size, classes=2):
    """The logits have the image's size; every weight and every metadata entry gets a gradient."""
    network = stirred(build())
    image, meta = batch(network, size)
    meta = None if meta is None else meta.requires_grad_()
    with torch.no_grad():
        assert network.eval()(image, meta).shape == (size[0], classes, *size[2:])
    generator = torch.Generator().manual_seed(2)
    for pred in tensors(network.train()(image.requires_grad_(), meta)):
        (pred * torch.randn(pred.shape, generator=generator)).sum().backward(retain_graph=True)
    assert image.grad.abs().sum() > 0
    for name, weight in network.named_parameters():
        if not name.startswith("network."):
            assert torch.isfinite(weight.grad).all(), name
            assert weight.grad.abs().sum() > 0 or not name.endswith("weight"), name
    assert meta is None or (meta.grad.abs() > 0).all()


def check_rows_are_independent(build, size):
    """A batch of mixed metadata equals runs one at a time; permuted rows permute the logits."""
    network = stirred(build()).eval()
    image, meta = batch(network, (4, *size[1:]))
    order = [2, 0, 3, 1]
    with torch.no_grad():
        together = network(image, meta)
        permuted = network(image[order], rows(meta, order))
        alone = [network(image[[i]], rows(meta, [i])) for i in range(4)]
    torch.testing.assert_close(permuted, together[order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=1e-5)


def check_metadata_decide(build, size):
    """Every entry of the metadata changes the logits of every image, also with a tiny eps."""
    network = stirred(build()).eval()
    for module in network.modules():
        if isinstance(getattr(module, "eps", None), float):
            module.eps = 1e-12
    image, meta = batch(network, size)
    with torch.no_grad():
        pred = network(image, meta)
        for entry in range(network.meta_features):
            other = meta + torch.eye(network.meta_features)[entry]
            moved = (network(image, other) - pred).abs().flatten(1).amax(1)
            assert moved.min() > 1e-5 * pred.abs().max(), entry


def check_neutral(build, bare, size):
    """At the start the outputs are those of the bare network, bit for bit, in both modes."""
    network, bare = build(), bare()
    if network.variant != "none" and not hasattr(network, "network"):  # built with its gates
        own = network.state_dict()
        bare.load_state_dict({name: own[name] for name in bare.state_dict()})
    image, meta = batch(network, size)
    for training in (False, True):
        found = []
        for one, given in ((network, (image, meta)), (bare, (image,))):
            torch.manual_seed(7)  # of dropout
            found.append(tensors(one.train(training)(*given)))
        for ours, theirs in zip(*found, strict=True):
            assert torch.equal(ours, theirs)


def check_refusals(build, size):
    """Metadata that are missing, unwanted, or of another batch or width are refused."""
    network = build().eval()
    image, meta = batch(network, size)
    if meta is None:
        expect(ValueError, "takes no metadata", network, image, torch.rand(size[0], 3))
        return
    expect(ValueError, "reads metadata of width 3", network, image, None)
    for wrong in (meta[:1], meta[:, :-1], torch.rand(size[0], 4), meta[0], meta[..., None]):
        expect(ValueError, "expected meta of shape", network, image, wrong)


def check_unknown_and_dummy(build, size):
    """None stands for unknown where training showed it; a dummy is the same network."""
    network, dummy = build(schema=KNOWS_UNKNOWN, unknown_trained=True), build(dummy=True)
    image, _ = batch(network, size)
    stirred(network).eval()
    unknown = torch.from_numpy(KNOWS_UNKNOWN.unknown()).expand(size[0], 3)
    with torch.no_grad():
        assert torch.equal(network(image), network(image, unknown))
    expect(ValueError, "never saw in training", build(schema=KNOWS_UNKNOWN), image)
    assert list(dummy.state_dict()) == list(network.state_dict())
    dummy.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(dummy.eval()(image, unknown), network(image))


def check_meta_tensors(build, size):
    """An image may be a MetaTensor, in training too; what comes out is one with its facts."""
    network = stirred(build())
    image, meta = batch(network, size)
    pred = tensors(network(MetaTensor(image, meta={"case": "a"}), meta))[0]
    assert isinstance(pred, MetaTensor)
    assert pred.meta["case"] == "a"
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    found, expected = (
        torch.autograd.grad(one.square().mean(), weights, allow_unused=True)
        for one in (pred.as_tensor(), tensors(network(image, meta))[0])
    )
    for ours, theirs in zip(found, expected, strict=True):
        if theirs is not None:
            torch.testing.assert_close(ours, theirs)


def check_state_round_trip(build, size, path):
    """State, copies, pickles and the file of weights give the same; names do not change."""
    first, second, third = stirred(build()).eval(), build().eval(), build().eval()
    names = list(second.state_dict())
    second.load_state_dict(first.state_dict(), strict=True)
    write_weights(path, first, {"variant": first.variant})
    state, facts = read_weights(path)
    third.load_state_dict(state, strict=True)
    assert facts["variant"] == first.variant
    image, meta = batch(first, size)
    with torch.no_grad():
        expected = first(image, meta)
        file = io.BytesIO(pickle.dumps(first))
        for other in (second, third, copy.deepcopy(first), pickle.load(file)):
            assert torch.equal(other(image, meta), expected)
            assert list(other.state_dict()) == names
            for weight in other.parameters():
                nn.init.zeros_(weight)  # nothing is shared with the first
        assert torch.equal(first(image, meta), expected)


def check_exported(build, sizes):
    """`torch.export` of images of the first size gives the same for those of others."""
    network = stirred(build()).eval()
    inputs = [one for one in batch(network, sizes[0]) if one is not None]
    auto = torch.export.Dim.AUTO
    free = (dict.fromkeys((0, *range(2, len(sizes[0]))), auto), {0: auto})[: len(inputs)]
    exported = torch.export.export(network, tuple(inputs), dynamic_shapes=free, strict=False)
    for size in sizes:
        inputs = [one for one in batch(network, size, seed=1) if one is not None]
        with torch.no_grad():
            torch.testing.assert_close(exported.module()(*inputs), network(*inputs))


def check_scripted(build, size):
    """TorchScript gives the same, also after a file, and for another batch."""
    network = stirred(build()).eval()
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    scripted = torch.jit.load(file)
    for seed, images in ((1, size[0]), (2, size[0] + 1)):
        image, meta = batch(network, (images, *size[1:]), seed)
        with torch.no_grad():
            torch.testing.assert_close(scripted(image, meta), network(image, meta))
    if meta is not None:
        expect(torch.jit.Error, "expected meta of shape", scripted, image, meta[:1])


def check_compiled(build, size, *, whole=True):
    """torch.compile gives the same, logits and gradients; in one graph if the bare network does."""
    torch.compiler.reset()
    network = stirred(build())
    compiled = torch.compile(network, backend="aot_eager", fullgraph=whole)
    weights = list(network.parameters())
    for seed in (1, 2):
        image, meta = batch(network, size, seed)
        preds, gradients = [], []
        for one in (network, compiled):
            preds.append(tensors(one(image, meta)))
            loss = sum(pred.square().mean() for pred in preds[-1])
            gradients.append(torch.autograd.grad(loss, weights, allow_unused=True))
        for ours, theirs in zip(*preds, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
        # of weights before a normalisation they are sums of large terms that cancel
        largest = max(float(one.abs().max()) for one in gradients[0] if one is not None)
        for ours, theirs in zip(*gradients, strict=True):
            if ours is not None:
                torch.testing.assert_close(ours, theirs, atol=1e-3 * largest, rtol=1e-4)


def check_onnx(build, size, other):
    """ONNX has the inputs image and meta, free in batch and size; the same to 1e-5 of the range.

    Args:
        build: as for all.
        size: of the images of the export.
        other: of images that the exported model is then given.
    """
    import onnxruntime

    network = stirred(build()).eval()
    given = [tensor for tensor in batch(network, size) if tensor is not None]
    names = ["image", "meta"][: len(given)]
    free = {0: "batch", **{2 + axis: f"size{axis}" for axis in range(len(size) - 2)}}
    axes = {"image": free, "meta": {0: "batch"}}
    file = io.BytesIO()
    torch.onnx.export(
        network,
        tuple(given),
        file,
        input_names=names,
        output_names=["logits"],
        dynamic_axes={name: axes[name] for name in names} | {"logits": free},
        dynamo=False,
    )
    session = onnxruntime.InferenceSession(file.getvalue())
    assert [entry.name for entry in session.get_inputs()] == names
    image, meta = batch(network, other, seed=3)
    feed = {name: t.numpy() for name, t in zip(names, (image, meta), strict=False)}
    (pred,) = session.run(None, feed)
    with torch.no_grad():
        expected = network(image, meta).numpy()
    largest = max(1.0, float(np.abs(expected).max()))  # float32 rounds by the range of the logits
    np.testing.assert_allclose(pred, expected, atol=1e-5 * largest, rtol=1e-5)
