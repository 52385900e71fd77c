"""What the gates of a trained network do: activations of their channels, and feature maps."""

from metaseg_monai.explain.activations import GateActivations, read_activations
from metaseg_monai.explain.features import GateFeatures, read_features
from metaseg_monai.explain.recorder import RecordGates, few_cases, gates_of, record_gates

__all__ = [
    "GateActivations",
    "GateFeatures",
    "RecordGates",
    "few_cases",
    "gates_of",
    "read_activations",
    "read_features",
    "record_gates",
]
