import pytest
import torch

from metaseg_monai.errors import DataError, MetadataError
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema
from metaseg_monai.training.targets import FieldTarget, continuous_field

KNOWN = {"provenance": "acquisition", "availability": "acquisition"}
SITE = Categorical(name="site", values=("left", "right"), **KNOWN)
SIZE = Continuous(name="size", unit="mm", range=(0, 100), missing="unknown", **KNOWN)
ZOOM = Continuous(name="zoom", unit="x", range=(10, 40), scale="log2", **KNOWN)
SCHEMA = MetadataSchema([SITE, SIZE, ZOOM])


def test_the_field_is_the_first_continuous_one_or_the_named_one():
    assert continuous_field(SCHEMA) == SIZE
    assert continuous_field(SCHEMA, "zoom") == ZOOM


def test_other_fields_are_refused():
    with pytest.raises(MetadataError, match=r"'site' is categorical.*size, zoom"):
        continuous_field(SCHEMA, "site")
    with pytest.raises(MetadataError, match="did you mean 'size'"):
        continuous_field(SCHEMA, "sise")
    with pytest.raises(MetadataError, match=r"schema has site \(categorical\)"):
        continuous_field(MetadataSchema([SITE]))


@pytest.mark.parametrize(("field", "codes"), [(SIZE, [0.2, 0.7]), (ZOOM, [0.5, 1.0])])
def test_the_target_is_the_code_of_the_field(field, codes):
    raws = [{"site": "right", "size": 20, "zoom": 20}, {"site": "left", "size": 70, "zoom": 40}]
    meta = torch.stack([torch.from_numpy(SCHEMA.encode(raw)) for raw in raws])
    batch = {"image": torch.rand(2, 1, 4, 4), "meta": meta, "label": torch.zeros(2, 1, 4, 4)}
    image, target = FieldTarget(SCHEMA, field)(batch, "cpu", dtype=torch.float64)
    torch.testing.assert_close(target[:, 0], torch.tensor(codes).double())
    assert image.shape == (2, 1, 4, 4)
    assert image.dtype == torch.float64


def test_a_batch_without_metadata_is_refused():
    with pytest.raises(DataError, match="EncodeMetadatad"):
        FieldTarget(SCHEMA, SIZE)({"image": torch.rand(1, 1, 4, 4)})
    with pytest.raises(MetadataError, match="size"):
        FieldTarget(MetadataSchema([SITE]), SIZE)
