"""What every gate, network and mechanism promises, as functions that take what makes one.

`build()` returns a fresh network, the same at each call, that is called as network(image, meta);
`meta_features` 0 means that it reads none. `size` is that of the images (B, C, *S).
"""

import copy
import io
import pickle

import numpy as np
import torch
from torch import nn


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


def check_shape_and_gradient(build, size, classes=2):
    """The logits have the image's size; every weight and every metadata entry gets a gradient."""
    network = stirred(build())
    image, meta = batch(network, size)
    meta = None if meta is None else meta.requires_grad_()
    pred = network(image.requires_grad_(), meta)
    assert pred.shape == (size[0], classes, *size[2:])
    (pred * torch.randn(pred.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    assert image.grad.abs().sum() > 0
    for name, weight in network.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert torch.isfinite(weight.grad).all(), name
            if not name.startswith("network."):
                assert weight.grad.abs().sum() > 0, name
    assert meta is None or (meta.grad.abs() > 0).all()


def check_rows_are_independent(build, size):
    """A batch of mixed metadata equals runs one at a time; permuted rows permute the logits."""
    network = stirred(build()).eval()
    image, meta = batch(network, (4, *size[1:]))
    order = [2, 0, 3, 1]
    with torch.no_grad():
        together = network(image, meta)
        torch.testing.assert_close(network(image[order], rows(meta, order)), together[order])
        alone = [network(image[[i]], rows(meta, [i])) for i in range(4)]
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
    """At the start the logits are those of the bare network, bit for bit, in both modes."""
    network, bare = build(), bare()
    image, meta = batch(network, size)
    for training in (False, True):
        found = []
        for one, given in ((network, (image, meta)), (bare, (image,))):
            torch.manual_seed(7)  # of dropout
            found.append(one.train(training)(*given))
        for ours, theirs in zip(tensors(found[0]), tensors(found[1]), strict=True):
            assert torch.equal(ours, theirs)


def tensors(output):
    return [output] if isinstance(output, torch.Tensor) else list(output)


def check_refusals(build, size):
    """Metadata that are missing, unwanted, or of another batch or width are refused."""
    network = build().eval()
    image, meta = batch(network, size)
    width = network.meta_features
    wrong = [torch.rand(size[0], 3)] if meta is None else [None, meta[:1], meta[:, :-1]]
    if meta is not None:
        wrong += [torch.rand(size[0], width + 1), meta[0], meta[..., None]]
    for given in wrong:
        try:
            network(image, given)
        except ValueError as error:
            assert "meta" in str(error)  # noqa: PT017
        else:
            raise AssertionError(f"took metadata {None if given is None else given.shape}")


def check_state_round_trip(build, size):
    """A state_dict goes from one to another by strict, names do not change, copies are equal."""
    first, second = stirred(build()).eval(), build().eval()
    names = list(second.state_dict())
    second.load_state_dict(first.state_dict(), strict=True)
    image, meta = batch(first, size)
    with torch.no_grad():
        expected = first(image, meta)
        assert torch.equal(second(image, meta), expected)
        assert list(second.state_dict()) == names
        file = io.BytesIO(pickle.dumps(first))
        for other in (copy.deepcopy(first), pickle.load(file)):
            assert torch.equal(other(image, meta), expected)
            nn.init.zeros_(next(other.parameters()))  # nothing is shared with the first
        assert torch.equal(first(image, meta), expected)


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
        try:
            scripted(image, meta[:1])
        except torch.jit.Error as error:
            assert "expected meta of shape" in str(error)  # noqa: PT017
        else:
            raise AssertionError("scripted took metadata of another batch")


def check_compiled(build, size):
    """torch.compile gives the same in one graph, logits and gradients."""
    network = stirred(build())
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    for seed in (1, 2):
        image, meta = batch(network, size, seed)
        outcomes = []
        for one in (network, compiled):
            pred = one(image, meta)
            weights = [w for w in network.parameters() if w.requires_grad]
            outcomes.append([pred, *torch.autograd.grad(pred.square().mean(), weights)])
        for ours, theirs in zip(*outcomes, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def check_onnx(build, size, other, *, onnx, reference):
    """ONNX has the inputs image and meta, free in batch and size, and gives the same to 1e-5."""
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
    model = onnx.load_from_string(file.getvalue())
    assert [entry.name for entry in model.graph.input] == names
    image, meta = batch(network, other, seed=3)
    feed = {name: t.numpy() for name, t in zip(names, (image, meta), strict=False)}
    (pred,) = reference.ReferenceEvaluator(model).run(None, feed)
    with torch.no_grad():
        np.testing.assert_allclose(pred, network(image, meta).numpy(), atol=1e-5, rtol=1e-5)
