"""Inference that keeps each image's metadata its own."""

from metaseg_monai.inferers.precision import AutocastInferer, channels_last
from metaseg_monai.inferers.sliding import PlaneInferer, SlidingWindowMetadataInferer, each_tensor

__all__ = [
    "AutocastInferer",
    "PlaneInferer",
    "SlidingWindowMetadataInferer",
    "channels_last",
    "each_tensor",
]
