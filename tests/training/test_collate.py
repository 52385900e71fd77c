import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch
from torch import nn

from metaseg_monai.errors import ConfigError, DataError, MetadataError
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema, Ordinal
from metaseg_monai.networks import Unet3
from metaseg_monai.training import (
    EstimateLoss,
    FieldTarget,
    PrepareBatchMeta,
    VolumeBatches,
    collate_cases,
    estimated_field,
    outputs_of,
)


def item(name, size=4, **more):
    return {
        "case": name,
        "image": MetaTensor(torch.zeros(1, size, size)),
        "label": np.zeros((1, size, size), dtype=np.int64),
        "meta": torch.ones(3),
        **more,
    }


def test_tensors_are_stacked_and_cases_named():
    batch = collate_cases([item("a"), item("b")])
    assert batch["case"] == ["a", "b"]
    assert batch["image"].shape == (2, 1, 4, 4)
    assert batch["label"].dtype == torch.int64
    assert batch["meta"].shape == (2, 3)


def test_samples_of_one_item_become_rows():
    batch = collate_cases([[item("a"), item("a")], [item("b"), item("b")]])
    assert batch["case"] == ["a", "a", "b", "b"]
    assert batch["image"].shape[0] == 4


def test_raw_values_stay_behind_and_the_batch_can_be_taken_apart():
    raw = [
        item("a", metadata={"task": "disc", "size": None}, label_values=[1, 2]),
        item("b", metadata={"task": "ring"}),
    ]
    batch = collate_cases(raw)
    assert set(batch) == {"case", "image", "label", "meta"}
    assert [one["case"] for one in decollate_batch(batch)] == ["a", "b"]
    assert [set(one) for one in decollate_batch(batch)] == [set(batch)] * 2


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_key_missing_in_one_item_is_named(lacking):
    items = [item("a"), item("b")]
    del items[lacking]["meta"]
    with pytest.raises(DataError, match=rf"case {'ab'[lacking]} has none.*'meta'"):
        collate_cases(items)


@pytest.mark.parametrize("value", [None, "disc"])
def test_a_value_that_is_raw_in_one_item_is_named(value):
    with pytest.raises(DataError, match=f"case b holds {type(value).__name__}"):
        collate_cases([item("a"), item("b", meta=value)])


def test_shapes_that_differ_are_named_with_what_to_do():
    with pytest.raises(
        DataError, match=r"'image'.*\(1, 4, 4\) in case a, \(1, 5, 5\) in case c"
    ) as e:
        collate_cases([item("a"), item("b"), item("c", size=5)])
    assert "batch size to 1" in str(e.value)


def test_no_batch_crosses_volumes_and_the_order_is_kept():
    items = [{"volume": name} for name in "aaaaabbc"]
    assert list(VolumeBatches(items, 2)) == [[0, 1], [2, 3], [4], [5, 6], [7]]
    assert len(VolumeBatches(items, 2)) == 5


def test_images_without_a_volume_go_alone():
    assert list(VolumeBatches([{"case": "a"}, {"volume": "v"}, {"case": "b"}] * 2, 4)) == [
        [place] for place in range(6)
    ]


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_sizes_that_are_none_are_refused(size):
    with pytest.raises(ConfigError, match="batch_size"):
        VolumeBatches([], size)


@pytest.mark.parametrize("variant", ["sme", "se"])
def test_meta_goes_to_networks_that_read_it(variant):
    width = 3 if variant == "sme" else 0
    network = Unet3(variant=variant, meta_features=width, channels=4, levels=1)
    batch = collate_cases([item("a"), item("b")])
    image, label, args, more = PrepareBatchMeta(network)(batch, "cpu", dtype=torch.float64)
    assert image.dtype == label.dtype == torch.float64
    assert args == ()
    assert [tuple(more[key].shape) for key in more] == ([(2, 3)] if variant == "sme" else [])
    del batch["meta"], batch["label"]
    if variant == "sme":
        with pytest.raises(DataError, match="for a network that reads it; put EncodeMetadatad"):
            PrepareBatchMeta(network)(batch)
    else:
        assert PrepareBatchMeta(network)(batch)[1:] == (None, (), {})


def test_a_network_of_somebody_else_gets_what_its_forward_takes():
    class Own(nn.Module):
        def forward(self, image, meta):
            return image

    assert PrepareBatchMeta(nn.Conv2d(1, 1, 1))(collate_cases([item("a")]))[2:] == ((), {})
    assert "meta" in PrepareBatchMeta(Own())(collate_cases([item("a")]))[3]


KNOWN = {"provenance": "acquisition", "availability": "acquisition"}
SITE = Categorical(name="site", values=("left", "right"), **KNOWN)
SIZE = Continuous(name="size", unit="mm", range=(0, 100), missing="unknown", **KNOWN)
ZOOM = Continuous(name="zoom", unit="x", range=(10, 40), scale="log2", **KNOWN)
SCHEMA = MetadataSchema([SITE, SIZE, ZOOM])


def test_the_field_is_the_first_quantity_or_the_named_one():
    assert estimated_field(SCHEMA) == SIZE
    assert estimated_field(SCHEMA, "zoom") == ZOOM


def test_other_fields_are_refused():
    stain = {"kind": "multilabel", "name": "stain", "values": ["a", "b"]}
    several = MetadataSchema(
        [{**stain, "provenance": "acquisition", "availability": "acquisition"}]
    )
    with pytest.raises(MetadataError, match="'stain' is multilabel"):
        estimated_field(several, "stain")
    with pytest.raises(MetadataError, match="did you mean 'size'"):
        estimated_field(SCHEMA, "sise")
    with pytest.raises(MetadataError, match=r"schema has stain \(multilabel\)"):
        estimated_field(several)
    assert estimated_field(SCHEMA, "site") == estimated_field(MetadataSchema([SITE])) == SITE


@pytest.mark.parametrize(("field", "codes"), [(SIZE, [0.2, 0.7]), (ZOOM, [0.5, 1.0])])
def test_the_target_is_the_code_of_the_field(field, codes):
    raws = [{"site": "right", "size": 20, "zoom": 20}, {"site": "left", "size": 70, "zoom": 40}]
    meta = torch.stack([torch.from_numpy(SCHEMA.encode(raw)) for raw in raws])
    batch = {"image": torch.rand(2, 1, 4, 4), "meta": meta, "label": torch.zeros(2, 1, 4, 4)}
    image, target = FieldTarget(SCHEMA, field)(batch, "cpu", dtype=torch.float64)
    torch.testing.assert_close(target[:, 0], torch.tensor(codes).double())
    assert image.shape == (2, 1, 4, 4)
    assert image.dtype == torch.float64


def test_the_target_of_names_is_their_place():
    grade = Ordinal(name="grade", values=("I", "II", "III"), **KNOWN)
    schema = MetadataSchema([SIZE, SITE, grade])
    raws = [{"size": 1, "site": "right", "grade": "I"}, {"size": 2, "site": "left", "grade": "III"}]
    meta = torch.stack([torch.from_numpy(schema.encode(raw)) for raw in raws])
    batch = {"image": torch.rand(2, 1, 4, 4), "meta": meta}
    for field, places in (
        (SITE, [SITE.values.index(n) for n in ("right", "left")]),
        (grade, [0, 2]),
    ):
        assert FieldTarget(schema, field)(batch)[1][:, 0].tolist() == places
        logits = torch.full((2, outputs_of(field)), -9.0)
        logits[[0, 1], places] = 9.0
        assert EstimateLoss()(logits, FieldTarget(schema, field)(batch)[1]) < 1e-3
    assert outputs_of(SIZE) == 1
    assert EstimateLoss()(torch.tensor([[0.5]]), torch.tensor([[0.5]])) == 0


def test_a_batch_without_metadata_is_refused():
    with pytest.raises(DataError, match="EncodeMetadatad"):
        FieldTarget(SCHEMA, SIZE)({"image": torch.rand(1, 1, 4, 4)})
    with pytest.raises(MetadataError, match="size"):
        FieldTarget(MetadataSchema([SITE]), SIZE)
