"""Which head answers, what learns of it, and labels of several tasks at once."""

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.data import MetaTensor

from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.losses import HeadsCrossEntropy
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.networks import MultiHeadUnet3, Unet3
from metaseg_monai.training import (
    JoinHeadsd,
    PrepareBatchHeads,
    collate_cases,
    join_heads,
    joined_dataset,
)
from metaseg_monai.transforms import DropMetadatad, LoadCased
from tests.extras import needed

SMALL = {"channels": 4, "levels": 3, "reduction": 1}
OF_FIELD = {"provenance": "acquisition", "availability": "acquisition"}
TASK = Categorical(name="task", values=("nuclei", "anomalies"), **OF_FIELD)
SCHEMA = MetadataSchema([TASK])


def changed(**settings):
    return TASK.model_copy(update=settings)


def small(bifurcation="low", heads=2, **settings):
    torch.manual_seed(0)
    return MultiHeadUnet3(heads, bifurcation, **{**SMALL, **settings})


def count(network):
    return sum(weight.numel() for weight in network.parameters())


def test_low_bifurcation_doubles_the_decoder_and_high_its_last_level():
    unet = Unet3(variant="se", reduction=2)
    level, end = count(unet.decoder[0]), count(unet.head)
    low = MultiHeadUnet3(2, "low", reduction=2)
    high = MultiHeadUnet3(2, "high", reduction=2)
    assert count(low) == count(unet) + 5 * level + end
    assert count(high) == count(unet) + level + end
    assert count(MultiHeadUnet3(4, "high", reduction=2)) == count(unet) + 3 * (level + end)


@pytest.mark.parametrize("bifurcation", ["low", "high"])
def test_a_head_and_the_trunk_are_a_unet(bifurcation):
    network = small(bifurcation).eval()
    image = torch.rand(2, 1, 17, 12)
    for task in range(2):
        unet = Unet3(variant="se", **SMALL).eval()
        shared = list(network.decoder.levels) + list(network.heads[task].levels)
        parts = {"encoder": network.encoder, "middle": network.middle}
        parts |= {"decoder": torch.nn.ModuleList(shared), "head": network.heads[task].head}
        for name, part in parts.items():
            getattr(unet, name).load_state_dict(part.state_dict())
        own = network(image, torch.eye(2)[[task, task]])
        torch.testing.assert_close(own, unet(image))
        torch.testing.assert_close(network(image).chunk(2, dim=1)[task], own)


@pytest.mark.parametrize("bifurcation", ["low", "high"])
def test_a_homogeneous_batch_trains_its_own_head_and_the_trunk_only(bifurcation):
    network = small(bifurcation)
    network(torch.rand(2, 1, 16, 16), torch.eye(2)[[1, 1]]).square().sum().backward()
    assert all(weight.grad is None for weight in network.heads[0].parameters())
    assert all(weight.grad is not None for weight in network.heads[1].parameters())
    assert all(weight.grad is not None for weight in network.encoder.parameters())


def test_a_head_stays_where_it_is_while_others_learn():
    network = small("high")
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    states = []
    for task in (0, 1):
        optimizer.zero_grad(set_to_none=True)
        network(torch.rand(2, 1, 16, 16), torch.eye(2)[[task, task]]).square().sum().backward()
        optimizer.step()
        states.append({k: v.clone() for k, v in network.heads[0].state_dict().items()})
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name


def test_in_a_mixed_batch_each_head_sees_its_own_images_only():
    network, other = small("low"), small("low")
    image, meta = torch.rand(4, 1, 16, 16), torch.eye(2)[[0, 1, 1, 0]]
    network(image, meta)
    x, skips = image, []
    for level in other.encoder:
        skips.append(level(x))
        x = other.pool(skips[-1])
    x, skips = other.middle(x), skips[::-1]
    for task, rows in ((0, [0, 3]), (1, [1, 2])):
        other.heads[task](x[rows], [skip[rows] for skip in skips])
    for one, two in zip(network.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("row", [[0.0, 0.0], [1.0, 1.0], [0.7, 0.3], [1.0, -1.0]])
def test_a_row_that_names_no_head_or_several_is_refused(row):
    meta = torch.tensor([[1.0, 0.0], row])
    with pytest.raises(MetadataError, match=r"of image 1: give a 1 for one of nuclei, anomalies"):
        small(heads="task", schema=SCHEMA)(torch.rand(2, 1, 8, 8), meta)


def test_the_schema_names_the_heads():
    network = small(heads="task", schema=SCHEMA)
    assert network.tasks == ("nuclei", "anomalies")
    assert network.meta_features == 2
    assert network.variant == "multi-head"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 1}, "heads must be 2 or more"),
        ({"heads": True}, "heads must be 2 or more"),
        ({"heads": "task"}, "heads must be 2 or more without a schema, got 'task'"),
        ({"heads": 2, "schema": SCHEMA}, "it is the name of a field, one of task"),
        (
            {
                "heads": "task",
                "schema": MetadataSchema([TASK.model_copy(update={"missing": "unknown"})]),
            },
            "has an entry for unknown, which has no head",
        ),
        (
            {
                "heads": "task",
                "schema": MetadataSchema([TASK, TASK.model_copy(update={"name": "line"})]),
            },
            "the schema has line beside 'task', which no head would read",
        ),
        ({"heads": 2, "bifurcation": "middle"}, "bifurcation must be 'high' or 'low'"),
        ({"heads": 2, "gates": "sme"}, "gates must be 'se' or 'none', got 'sme'"),
        ({"heads": 2, "variant": "sme"}, "variant of MultiHeadUnet3 is 'multi-head', got 'sme'"),
        ({"heads": 2, "unknown_trained": True}, "set metadata_dropout to 0"),
        ({"heads": 2, "levels": 0}, "levels must be 1 or more, got 0"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        MultiHeadUnet3(**settings)


def test_a_field_that_the_schema_lacks_is_refused():
    with pytest.raises(MetadataError, match="line"):
        small(heads="line", schema=SCHEMA)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_export_without_metadata_gives_all_heads():
    runtime = needed("onnxruntime")
    network = small("high", 3).eval()
    image, file = torch.rand(2, 1, 9, 14), io.BytesIO()
    axes = {"image": {0: "batch", 2: "height", 3: "width"}}
    torch.onnx.export(
        network, (image,), file, input_names=["image"], dynamic_axes=axes, dynamo=False
    )
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    other = torch.rand(3, 1, 12, 7)
    (pred,) = session.run(None, {"image": other.numpy()})
    np.testing.assert_allclose(pred, network(other).detach().numpy(), atol=1e-5)
    assert pred.shape == (3, 6, 12, 7)
    scripted = torch.jit.script(network)
    torch.testing.assert_close(scripted(other), network(other))


def test_the_loss_is_the_sum_over_heads_on_their_own_images():
    pred = torch.randn(3, 6, 5, 4, requires_grad=True)
    label = torch.randint(0, 2, (3, 3, 5, 4))
    valid = torch.tensor([[True, True, False], [True, False, False], [False, True, False]])
    by_hand = F.cross_entropy(pred[:2, :2], label[:2, 0])
    by_hand = by_hand + F.cross_entropy(pred[[0, 2], 2:4], label[[0, 2], 1])
    loss = HeadsCrossEntropy()(pred, (label, valid))
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    assert pred.grad[:, 4:].count_nonzero() == 0
    assert HeadsCrossEntropy()(pred, (label, torch.zeros(3, 3))) == 0


def test_a_loss_of_other_shapes_is_refused():
    with pytest.raises(ValueError, match="2 heads side by side"):
        HeadsCrossEntropy()(torch.zeros(1, 5, 4, 4), (torch.zeros(1, 2, 4, 4), torch.ones(1, 2)))
    with pytest.raises(ValueError, match=r"a mask \(1, 3\)"):
        HeadsCrossEntropy()(torch.zeros(1, 4, 4, 4), (torch.zeros(1, 2, 4, 4), torch.ones(1, 3)))


NETWORKS = [("high", 2, 2), ("low", 3, 2), ("high", 3, 3), ("low", 2, 3)]  # of so many axes
every_network = pytest.mark.parametrize(("bifurcation", "heads", "dims"), NETWORKS)
script_is_old = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def of_dims(bifurcation, heads, dims, images=4, size=(17, 10, 6)):
    network = small(bifurcation, heads, levels=2, spatial_dims=dims)
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(images, 1, *size[:dims], generator=generator)
    return network, image, torch.eye(heads)[torch.arange(images) % heads]


@every_network
def test_shape_any_size_and_a_gradient_for_every_weight(bifurcation, heads, dims):
    network, image, meta = of_dims(bifurcation, heads, dims)
    pred = network(image, meta)
    assert pred.shape == (4, 2, *image.shape[2:])
    pred.square().sum().backward()
    for name, weight in network.named_parameters():
        assert torch.isfinite(weight.grad).all(), name
    for size in ((1, 1, 1), (2, 7, 3)):
        _, image, meta = of_dims(bifurcation, heads, dims, size=size)
        assert network.eval()(image, meta).shape == (4, 2, *size[:dims])


@every_network
def test_rows_are_independent(bifurcation, heads, dims):
    network, image, meta = of_dims(bifurcation, heads, dims)
    order = [2, 0, 3, 1]
    with torch.no_grad():
        pred = network.eval()(image, meta)
        alone = [network(image[[row]], meta[[row]]) for row in range(4)]
        torch.testing.assert_close(network(image[order], meta[order]), pred[order], **CLOSE)
    torch.testing.assert_close(torch.cat(alone), pred, **CLOSE)
    other = network(image, meta.roll(1, dims=1))
    assert (other - pred).abs().flatten(1).amax(dim=1).min() > 1e-6


@every_network
def test_wrong_metadata_and_images_are_refused(bifurcation, heads, dims):
    network, image, meta = of_dims(bifurcation, heads, dims)
    for wrong in (meta[:1], meta[:, :-1], meta[0], meta[..., None]):
        with pytest.raises(ValueError, match="expected meta of shape"):
            network(image, wrong)
    with pytest.raises(ValueError, match=f"{dims} spatial axes"):
        network(image[..., 0], meta)


@every_network
def test_state_and_meta_tensors(bifurcation, heads, dims):
    network, image, meta = of_dims(bifurcation, heads, dims)
    other = of_dims(bifurcation, heads, dims)[0]
    for weight in other.parameters():
        torch.nn.init.zeros_(weight)
    file = io.BytesIO()
    torch.save(network.eval().state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    pred = network(MetaTensor(image, meta={"case": "a"}), meta)
    assert torch.equal(other.eval()(image, meta), pred.as_tensor())
    assert pred.meta["case"] == "a"


@script_is_old
@every_network
def test_scripted_and_exported_with_metadata(bifurcation, heads, dims):
    runtime = needed("onnxruntime")
    network, image, meta = of_dims(bifurcation, heads, dims)
    scripted = torch.jit.script(network.eval())
    file = io.BytesIO()
    free = {0: "batch", **{2 + axis: f"size{axis}" for axis in range(dims)}}
    torch.onnx.export(
        network,
        (image, meta),
        file,
        input_names=["image", "meta"],
        dynamic_axes={"image": free, "meta": {0: "batch"}},
        dynamo=False,
    )
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for images, size in ((4, (17, 10, 6)), (3, (8, 13, 5)), (1, (6, 6, 6))):
        _, image, meta = of_dims(bifurcation, heads, dims, images, size)
        with torch.no_grad():
            expected = network(image, meta)
            torch.testing.assert_close(scripted(image, meta), expected, **CLOSE)
        (pred,) = session.run(None, {"image": image.numpy(), "meta": meta.numpy()})
        np.testing.assert_allclose(pred, expected.numpy(), atol=1e-5)
    with pytest.raises(torch.jit.Error, match="expected meta of shape"):
        scripted(image, torch.eye(heads)[:2])


@pytest.mark.slow
@every_network
def test_it_compiles_whole(bifurcation, heads, dims):
    network, image, meta = of_dims(bifurcation, heads, dims)
    compiled = torch.compile(network.eval(), backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(image, meta), network(image, meta), **CLOSE)


def row(case, task, image, label, split="train"):
    of_case = {"group": "g", "split": split, "metadata": {"task": task}}
    return {"case": case, "image": image, "label": label, **of_case}


@pytest.fixture
def cases(tmp_path):
    """Rows of two images: one of both tasks, one of anomalies alone; and their arrays."""
    from tifffile import imwrite

    generator = np.random.default_rng(0)
    for name in ("one", "two"):
        imwrite(tmp_path / f"{name}.tif", generator.integers(0, 9, (8, 6), dtype=np.uint8))
    for name in ("nuclei", "anomalies", "other"):
        imwrite(tmp_path / f"{name}.tif", generator.integers(0, 2, (8, 6), dtype=np.uint8))
    files = {path.stem: str(path) for path in tmp_path.iterdir()}
    return [
        row("a", "anomalies", files["one"], files["anomalies"]),
        row("b", "anomalies", files["two"], files["other"]),
        row("c", "nuclei", files["one"], files["nuclei"]),
    ]


def test_rows_of_one_image_become_one_label_with_a_mask(cases):
    preprocessing = [LoadCased()]
    items = join_heads(cases, SCHEMA, "task")
    assert [item["case"] for item in items] == ["c", "b"]
    drop = DropMetadatad(SCHEMA, 0.0, "multi-head")
    dataset = joined_dataset(cases, "task", SCHEMA, preprocessing, [drop])
    batch = collate_cases([dataset[0], dataset[1]])
    image, (label, valid) = PrepareBatchHeads()(batch, "cpu")
    assert image.shape == (2, 1, 8, 6)
    assert label.shape == (2, 2, 8, 6)
    assert valid.tolist() == [[True, True], [False, True]]
    read = {one["case"]: LoadCased()(one) for one in cases}
    for place, head, case in ((0, 0, "c"), (0, 1, "a"), (1, 1, "b")):
        assert torch.equal(label[place, head], read[case]["label"][0].as_tensor())
        assert torch.equal(image[place], read[case]["image"].as_tensor())
    assert label[1, 0].count_nonzero() == 0
    pred = small(heads="task", schema=SCHEMA)(image)
    HeadsCrossEntropy()(pred, (label, valid)).backward()


def test_rows_that_cannot_be_joined_are_refused(cases):
    again = {**cases[0], "case": "d"}
    with pytest.raises(DataError, match="Cases a and d have one image and the same task"):
        join_heads([*cases, again], SCHEMA, "task")
    with pytest.raises(DataError, match="of different splits"):
        join_heads([cases[0], {**cases[2], "split": "val"}], SCHEMA, "task")
    with pytest.raises(MetadataError, match="'d'"):
        join_heads([{**again, "metadata": {"task": "cells"}}], SCHEMA, "task")
    with pytest.raises(DataError, match="no mask of heads"):
        PrepareBatchHeads()({"image": torch.zeros(1, 1, 2, 2)})
    for place, case in ((2, "c"), (0, "a")):
        rows = [cases[0], cases[2]]
        rows[place // 2] = {k: v for k, v in cases[place].items() if k != "label"}
        (item,) = join_heads(rows, SCHEMA, "task")
        with pytest.raises(DataError, match=f"Case {case} has no label"):
            JoinHeadsd([LoadCased()])(LoadCased()(item))
