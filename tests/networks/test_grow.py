"""A network that has grown gives what it gave for all that it knew, and learns what is new."""

import copy
import io

import pytest
import torch
from monai.networks.nets import BasicUNet

from metaseg_monai.errors import ConfigError, MetadataError
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema, Ordinal
from metaseg_monai.networks import (
    TABLE,
    DynamicUnet3,
    MultiHeadUnet3,
    PPUnet,
    Unet3,
    condition,
    grow,
)
from tests.extras import needed

KNOWN = {"provenance": "acquisition", "availability": "acquisition", "missing": "unknown"}
SIZE = Continuous(name="size", unit="mm", range=(0, 10), **KNOWN)


def schema(lines=("HeLa", "MDCK"), grades=("I", "II"), stain=()):
    fields = [
        Categorical(name="line", values=lines, **KNOWN),
        SIZE,
        Ordinal(name="grade", values=grades, **KNOWN),
    ]
    if stain:
        fields.append(Categorical(name="stain", values=stain, **KNOWN))
    return MetadataSchema(fields)


BEFORE = schema()
AFTER = {
    "value": (schema(lines=("HeLa", "MDCK", "U2OS")), {}),
    "step": (schema(grades=("I", "II", "III")), {}),
    "field": (schema(stain=("none", "DAPI", "actin")), {"stain": "none"}),
    "all": (
        schema(("HeLa", "MDCK", "U2OS", "A549"), ("I", "II", "III"), ("none", "DAPI")),
        {"stain": "none"},
    ),
}
OLD = [
    {"line": "HeLa", "size": 3, "grade": "I"},
    {"line": "MDCK", "size": 9, "grade": "II"},
    {"line": "unknown", "size": "unknown", "grade": "II"},
    {"line": "HeLa:0.5|MDCK:0.5", "size": 5, "grade": "unknown"},
]
READING = [name for name, made in TABLE.items() if made.reads_meta]
GROWING = [name for name in READING if TABLE[name].meta_layer]


def encoded(rows, of, **more):
    return torch.stack([torch.from_numpy(of.encode({**row, **more})) for row in rows])


def unet3(variant, **settings):
    torch.manual_seed(0)
    sizes = {"channels": 4, "levels": 1, "reduction": 1}
    network = Unet3(BEFORE, variant, unknown_trained=True, **sizes, **settings).eval()
    for weight in network.parameters():  # also those that begin as 0
        torch.nn.init.normal_(weight, std=0.3)
    return network


def random_images():
    torch.manual_seed(1)
    return torch.rand(len(OLD), 1, 13, 11)


@pytest.mark.parametrize("variant", GROWING)
@pytest.mark.parametrize("by", AFTER)
def test_old_metadata_give_the_same_to_the_bit(variant, by):
    after, old = AFTER[by]
    network, image = unet3(variant), random_images()
    with torch.no_grad():
        was = network(image, encoded(OLD, BEFORE))
        without = network(image)
        grown = grow(network, BEFORE, after, old)
        more = dict(old)
        assert torch.equal(grown(image, encoded(OLD, after, **more)), was)
        assert torch.equal(grown(image), without)
        if old:
            assert torch.equal(grown(image, encoded(OLD, after, stain="unknown")), was)
    new = {"value": {"line": "U2OS"}, "step": {"grade": "III"}, "field": {"stain": "actin"}}
    fresh = encoded(OLD, after, **{**more, **new.get(by, {"line": "A549"})})
    grown(image, fresh).square().mean().backward()
    weights = [w for name, w in grown.named_parameters() if name.endswith("new.weight")]
    assert sum(float(weight.grad.abs().sum()) for weight in weights) > 0


@pytest.mark.parametrize("variant", ["me", "sme", "sme-duplicated"])
def test_a_new_category_begins_as_a_mixture_of_those_known(variant):
    after, _ = AFTER["value"]
    network, image = unet3(variant), random_images()[:1]
    row = {"size": 3, "grade": "I"}
    with torch.no_grad():
        mixed = network(image, encoded([{**row, "line": "HeLa:0.5|MDCK:0.5"}], BEFORE))
        grown = grow(network, BEFORE, after)
        new = grown(image, encoded([{**row, "line": "U2OS"}], after))
    torch.testing.assert_close(new, mixed)


def test_a_network_grows_again_and_its_weights_load():
    network, image = unet3("sme"), random_images()
    with torch.no_grad():
        was = network(image, encoded(OLD, BEFORE))
        middle, after = AFTER["value"][0], AFTER["all"][0]
        grown = grow(grow(network, BEFORE, middle), middle, after, {"stain": "none"})
        assert torch.equal(grown(image, encoded(OLD, after, stain="none")), was)
        bytes_ = io.BytesIO()
        torch.save(grown.state_dict(), bytes_)
        bytes_.seek(0)
        other = grow(grow(unet3("sme"), BEFORE, middle), middle, after, {"stain": "none"})
        other.load_state_dict(torch.load(bytes_))
        assert torch.equal(other(image, encoded(OLD, after, stain="none")), was)
        assert torch.equal(copy.deepcopy(other)(image, encoded(OLD, after, stain="none")), was)


def test_any_conditioned_network_grows():
    torch.manual_seed(0)
    bare = BasicUNet(spatial_dims=2, features=(4, 4, 4, 4, 4, 4)).eval()
    network = condition(bare, BEFORE, "sme", start="paper").eval()
    after, image = AFTER["value"][0], torch.rand(len(OLD), 1, 32, 32)
    with torch.no_grad():
        was = network(image, encoded(OLD, BEFORE))
        assert torch.equal(grow(network, BEFORE, after)(image, encoded(OLD, after)), was)


ALWAYS = {**KNOWN, "missing": "error"}
LINE, LINES = (
    MetadataSchema([Categorical(name="line", values=values, **ALWAYS)])
    for values in (("HeLa", "MDCK"), ("HeLa", "MDCK", "U2OS"))
)
TINY = {"channels": 4, "levels": 1, "reduction": 1}


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: PPUnet(LINE, "me", **TINY), None),
        (lambda: PPUnet(LINE, "sme", **TINY), None),
        (lambda: PPUnet(LINE, "film", **TINY), None),
        (lambda: MultiHeadUnet3("line", "high", LINE, **TINY), "it does not take metadata"),
        (lambda: DynamicUnet3(LINE, **TINY), "it does not take metadata"),
        (lambda: DynamicUnet3(LINE, gates="se", joint=True, **TINY), "it does not take metadata"),
        (lambda: Unet3(LINE, "weight-noise", **TINY), "WeightNoise.* does not take metadata"),
        (lambda: Unet3(LINE, "meta-image", **TINY), "MetaImage.* does not take metadata"),
    ],
)
def test_networks_of_the_texts_grow_or_say_what_to_train_instead(make, why):
    torch.manual_seed(0)
    network, image = make().eval(), torch.rand(2, 1, 13, 11)
    with torch.no_grad():
        was = network(image, torch.eye(2))
        if why is None:
            grown = grow(network, LINE, LINES)
            assert torch.equal(grown(image, torch.eye(2, 3)), was)
            assert grown(image, torch.eye(3)[1:]).isfinite().all()
            return
        with pytest.raises(ConfigError, match=rf"cannot grow: .*{why}.*; train one of these anew"):
            grow(network, LINE, LINES)
        assert torch.equal(network(image, torch.eye(2)), was)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("variant", ["sme", "sme-duplicated", "film", "low-rank"])
def test_exports_of_a_grown_network_agree(variant):
    after, image = AFTER["value"][0], random_images()
    meta = encoded(OLD, after)
    network = grow(unet3(variant), BEFORE, after)
    with torch.no_grad():
        pred = network(image, meta)
        for exported in (torch.jit.script(network), torch.jit.trace(network, (image, meta))):
            torch.testing.assert_close(exported(image, meta), pred, atol=1e-6, rtol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_grown_network_goes_through_onnx():
    onnxruntime = needed("onnxruntime")
    after, image = AFTER["value"][0], random_images()
    network, meta, file = grow(unet3("sme"), BEFORE, after), encoded(OLD, after), io.BytesIO()
    torch.onnx.export(network, (image, meta), file, input_names=["image", "meta"], dynamo=False)
    session = onnxruntime.InferenceSession(file.getvalue())
    (found,) = session.run(None, {"image": image.numpy(), "meta": meta.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), network(image, meta), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("variant", ["none", "se", "constant-channel"])
def test_what_cannot_grow_is_refused(variant):
    with pytest.raises(ConfigError, match=r"cannot grow.*train one of these anew"):
        grow(Unet3(BEFORE, variant, channels=4, levels=1), BEFORE, AFTER["value"][0])


@pytest.mark.parametrize(
    ("after", "old", "message"),
    [
        (BEFORE, {}, "no new value"),
        (schema(lines=("U2OS", "HeLa", "MDCK")), {}, "'line': may only get further values at its"),
        (schema(lines=("HeLa",)), {}, "'line': may only get further values"),
        (schema(stain=("a", "b")), {}, "'stain'.*of which one .old. stands for"),
        (schema(stain=("a", "b")), {"stain": "c"}, "'stain'.*of which one .old. stands for"),
        (MetadataSchema([SIZE]), {}, "keep their order"),
        (MetadataSchema([*BEFORE.fields, SIZE.model_copy(update={"name": "b"})]), {}, "'b'"),
    ],
)
def test_other_schemas_are_refused(after, old, message):
    with pytest.raises(MetadataError, match=message):
        grow(unet3("me"), BEFORE, after, old)


def test_a_network_of_another_schema_is_refused():
    with pytest.raises(ConfigError, match=r"width 3, and the schema .* has 8 entries"):
        grow(Unet3(meta_features=3, channels=4, levels=1), BEFORE, AFTER["value"][0])
