"""Typed metadata: what each value may be, and how it becomes the vector `meta` (M,)."""

from metaseg_monai.metadata.categories import Categorical, MultiLabel, Ordinal
from metaseg_monai.metadata.fields import MetadataField, MetadataWarning
from metaseg_monai.metadata.fit import fit_schema
from metaseg_monai.metadata.kinds import AnyField
from metaseg_monai.metadata.quantities import Continuous, Vector
from metaseg_monai.metadata.schema import MetadataSchema

__all__ = [
    "AnyField",
    "Categorical",
    "Continuous",
    "MetadataField",
    "MetadataSchema",
    "MetadataWarning",
    "MultiLabel",
    "Ordinal",
    "Vector",
    "fit_schema",
]
