"""From items to what a network takes: image (C, *S), label (1, *S), meta (M,)."""

from metaseg_monai.transforms.augmentation import CropAtCentred, falsified_by, strong_augmentation
from metaseg_monai.transforms.axial import AxialVolumed
from metaseg_monai.transforms.load import LoadCased
from metaseg_monai.transforms.metadata import DropMetadatad, EncodeMetadatad
from metaseg_monai.transforms.postprocessing import AsImaged, AsMaskd, clean_up
from metaseg_monai.transforms.preprocessing import (
    FlatFieldd,
    IntensityStatistics,
    NormalizeVolumed,
    ResampleToSpacingd,
    ScaleIntensityBy,
    ScaleIntensityCased,
    beside,
    intensity_statistics,
)

__all__ = [
    "AsImaged",
    "AsMaskd",
    "AxialVolumed",
    "CropAtCentred",
    "DropMetadatad",
    "EncodeMetadatad",
    "FlatFieldd",
    "IntensityStatistics",
    "LoadCased",
    "NormalizeVolumed",
    "ResampleToSpacingd",
    "ScaleIntensityBy",
    "ScaleIntensityCased",
    "beside",
    "clean_up",
    "falsified_by",
    "intensity_statistics",
    "strong_augmentation",
]
