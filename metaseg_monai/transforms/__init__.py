"""From items to what a network takes: image (C, *S), label (1, *S), meta (M,)."""

from metaseg_monai.transforms.axial import AxialVolumed
from metaseg_monai.transforms.batch import KeepForBatchd
from metaseg_monai.transforms.clean_up import clean_up
from metaseg_monai.transforms.flat_field import FlatFieldd
from metaseg_monai.transforms.intensity import ScaleIntensityCased
from metaseg_monai.transforms.load import LoadCased
from metaseg_monai.transforms.metadata import DropMetadatad, EncodeMetadatad
from metaseg_monai.transforms.normalise import (
    IntensityStatistics,
    ScaleIntensityBy,
    intensity_statistics,
)
from metaseg_monai.transforms.spacing import ResampleToSpacingd

__all__ = [
    "AxialVolumed",
    "DropMetadatad",
    "EncodeMetadatad",
    "FlatFieldd",
    "IntensityStatistics",
    "KeepForBatchd",
    "LoadCased",
    "ResampleToSpacingd",
    "ScaleIntensityBy",
    "ScaleIntensityCased",
    "clean_up",
    "intensity_statistics",
]
