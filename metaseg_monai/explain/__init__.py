"""What the gates of a trained network do: activations of their channels, and feature maps."""

from metaseg_monai.explain.activations import (
    Activations,
    GateActivations,
    by_value,
    difference,
    read_activations,
)
from metaseg_monai.explain.cases import few_cases
from metaseg_monai.explain.draw import draw
from metaseg_monai.explain.features import FeatureMaps, GateFeatures, read_features
from metaseg_monai.explain.hooks import GateRecord, gates_of, record_gates
from metaseg_monai.explain.inferer import RecordGates

__all__ = [
    "Activations",
    "FeatureMaps",
    "GateActivations",
    "GateFeatures",
    "GateRecord",
    "RecordGates",
    "by_value",
    "difference",
    "draw",
    "few_cases",
    "gates_of",
    "read_activations",
    "read_features",
    "record_gates",
]
