"""Inference that keeps each image's metadata its own."""

from metaseg_monai.inferers.precision import AutocastInferer, channels_last
from metaseg_monai.inferers.sliding import SliceMetadataInferer, SlidingWindowMetadataInferer

__all__ = [
    "AutocastInferer",
    "SliceMetadataInferer",
    "SlidingWindowMetadataInferer",
    "channels_last",
]
