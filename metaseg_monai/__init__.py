"""Segmentation of biomedical images steered by metadata (MONAI, PyTorch).

The names below are the front door; each is imported when it is first used.

>>> import metaseg_monai
>>> schema = metaseg_monai.MetadataSchema([
...     {"kind": "categorical", "name": "line", "values": ["HeLa", "MDCK"],
...      "provenance": "acquisition", "availability": "acquisition"}])
>>> schema.width
2
"""

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metaseg_monai.images.read import read_image
    from metaseg_monai.images.write import write_mask
    from metaseg_monai.inferers.sliding import SlidingWindowMetadataInferer
    from metaseg_monai.metadata.schema import MetadataSchema
    from metaseg_monai.networks.condition import condition
    from metaseg_monai.networks.gates import SqueezeMetadataExcite
    from metaseg_monai.networks.unet3 import Unet3
    from metaseg_monai.sharing.hub import from_pretrained
    from metaseg_monai.sharing.run import evaluate, predict, train
    from metaseg_monai.sharing.study import report
    from metaseg_monai.tables.find import find_cases
    from metaseg_monai.tables.table import read_table
    from metaseg_monai.transforms.metadata import DropMetadatad, EncodeMetadatad

# ONNX Runtime (1.31) and OpenVINO (2026.4) tell their makers of their use as soon as they are
# imported. The second, and NNCF, do not where this package is absent.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "0.1.0"
__all__ = [
    "DropMetadatad",
    "EncodeMetadatad",
    "MetadataSchema",
    "SlidingWindowMetadataInferer",
    "SqueezeMetadataExcite",
    "Unet3",
    "condition",
    "evaluate",
    "find_cases",
    "from_pretrained",
    "predict",
    "read_image",
    "read_table",
    "report",
    "train",
    "write_mask",
]

_ROOMS = {
    "DropMetadatad": "transforms.metadata",
    "EncodeMetadatad": "transforms.metadata",
    "MetadataSchema": "metadata.schema",
    "SlidingWindowMetadataInferer": "inferers.sliding",
    "SqueezeMetadataExcite": "networks.gates",
    "Unet3": "networks.unet3",
    "condition": "networks.condition",
    "evaluate": "sharing.run",
    "find_cases": "tables.find",
    "from_pretrained": "sharing.hub",
    "predict": "sharing.run",
    "read_image": "images.read",
    "read_table": "tables.table",
    "report": "sharing.study",
    "train": "sharing.run",
    "write_mask": "images.write",
}


def __getattr__(name: str) -> Any:
    """Import a name of the front door from the file that defines it."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """The front door, and what a module has besides."""
    return sorted({*globals(), *__all__})
