"""From items to what a network takes: image (C, *S), label (1, *S), meta (M,)."""

from metaseg_monai.transforms.axial import AxialVolumed
from metaseg_monai.transforms.batch import KeepForBatchd
from metaseg_monai.transforms.intensity import ScaleIntensityCased
from metaseg_monai.transforms.load import LoadCased
from metaseg_monai.transforms.metadata import DropMetadatad, EncodeMetadatad
from metaseg_monai.transforms.spacing import ResampleToSpacingd

__all__ = [
    "AxialVolumed",
    "DropMetadatad",
    "EncodeMetadatad",
    "KeepForBatchd",
    "LoadCased",
    "ResampleToSpacingd",
    "ScaleIntensityCased",
]
