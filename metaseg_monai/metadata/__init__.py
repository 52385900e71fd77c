"""Typed metadata: what each value may be, and how it becomes the vector `meta` (M,)."""

from metaseg_monai.metadata.fields import (
    AnyField,
    Categorical,
    Continuous,
    MetadataField,
    MetadataWarning,
    MultiLabel,
    Ordinal,
    Vector,
)
from metaseg_monai.metadata.fit import fit_schema
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
