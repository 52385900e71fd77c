"""TorchScript and ONNX files of the network give what it gives."""

import io

import numpy as np
import pytest
import torch
from monai.networks.utils import convert_to_onnx, convert_to_torchscript

VARIANTS = ["none", "se", "me", "sme", "film", "film-ivadomed"]
STEERED = VARIANTS[2:]

# PyTorch 2.13 deprecates TorchScript, which MONAI's export of bundles still writes.
script_is_old = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


@script_is_old
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_scripted_equals_eager_and_refuses_the_same(variant, spatial_dims, small, batch):
    network = small(variant, spatial_dims, levels=1).eval()
    scripted = torch.jit.script(network)
    image, meta = batch(variant, (2, 1, 9, 14, 5)[: spatial_dims + 2])
    with torch.no_grad():
        torch.testing.assert_close(scripted(image, meta), network(image, meta))
    wrong = torch.rand(1, 3)
    message = "expected meta of shape" if variant in STEERED else "takes no metadata"
    with pytest.raises(torch.jit.Error, match=message):
        scripted(image, wrong)


@script_is_old
def test_scripted_keeps_the_unknown_vector_and_shift_through_a_file(small, batch):
    network = small("sme", levels=1, shift=True, unknown_meta=[0.0, 0.5, 1.0]).eval()
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    image, meta = batch("sme")
    loaded = torch.jit.load(file)
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), network(image))
        torch.testing.assert_close(loaded(image, meta), network(image, meta))


@script_is_old
def test_traced_equals_eager_at_other_sizes(small, batch):
    network = small("sme").eval()
    image, meta = batch("sme", (3, 1, 10, 7))
    traced = torch.jit.trace(network, batch("sme"))
    with torch.no_grad():
        torch.testing.assert_close(traced(image, meta), network(image, meta))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the exporter's own
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(10, 7), (6, 5, 4)])
def test_onnx_keeps_both_inputs_and_the_logits(variant, size, small, batch):
    onnx = pytest.importorskip("onnx")
    reference = pytest.importorskip("onnx.reference")
    network = small(variant, len(size), channels=4, levels=1).eval()
    given = [tensor for tensor in batch(variant, (2, 1, *size)) if tensor is not None]
    names = ["image", "meta"][: len(given)]
    file = io.BytesIO()
    sizes = {0: "batch", **{2 + axis: f"size{axis}" for axis in range(len(size))}}
    torch.onnx.export(
        network,
        tuple(given),
        file,
        input_names=names,
        dynamic_axes={"image": sizes, **({"meta": {0: "batch"}} if len(given) > 1 else {})},
        dynamo=False,
    )
    model = onnx.load_from_string(file.getvalue())
    assert [entry.name for entry in model.graph.input] == names
    other = [t for t in batch(variant, (3, 1, *(edge + 1 for edge in size))) if t is not None]
    feed = {name: tensor.numpy() for name, tensor in zip(names, other, strict=True)}
    (pred,) = reference.ReferenceEvaluator(model).run(None, feed)
    np.testing.assert_allclose(pred, network(*other).detach().numpy(), atol=1e-5)


@script_is_old
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(
    "export",
    [
        lambda network, image: torch.jit.trace(network, (image,)),
        lambda network, image: torch.export.export(network, (image,)),
        lambda network, image: convert_to_torchscript(network, inputs=[image], use_trace=True),
        lambda network, image: convert_to_onnx(network, [image]),
        lambda network, image: torch.onnx.export(network, (image,), io.BytesIO(), dynamo=False),
    ],
    ids=["trace", "export", "monai-trace", "monai-onnx", "onnx"],
)
def test_no_export_leaves_the_metadata_out(export, small, batch):
    pytest.importorskip("onnxscript")
    network = small("sme", levels=1, unknown_meta=[0.0, 0.0, 1.0]).eval()
    with pytest.raises(Exception, match=r"give both inputs, image and meta \(B, 3\), such as"):
        export(network, batch("sme")[0])
    export(small("se", levels=1).eval(), batch("se")[0])


@script_is_old
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_exports_with_metadata_and_compiling_without_pass(small, batch):
    pytest.importorskip("onnxscript")
    network = small("sme", levels=1, unknown_meta=[0.0, 0.0, 1.0]).eval()
    image, meta = batch("sme")
    exported = torch.export.export(network, (image, meta)).module()
    torch.testing.assert_close(exported(image, meta), network(image, meta))
    model = convert_to_onnx(network, [image, meta], input_names=["image", "meta"])
    assert [entry.name for entry in model.graph.input] == ["image", "meta"]
    compiled = torch.compile(network, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(image), network(image))
