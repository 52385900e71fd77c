"""Inference that keeps each image's metadata its own."""

from metaseg_monai.inferers.engines import Runner
from metaseg_monai.inferers.ensemble import EnsembleInferer
from metaseg_monai.inferers.precision import AutocastInferer, channels_last
from metaseg_monai.inferers.sliding import PlaneInferer, SlidingWindowMetadataInferer, each_tensor
from metaseg_monai.inferers.steered import SteeredInferer, ToldInferer

__all__ = [
    "AutocastInferer",
    "EnsembleInferer",
    "PlaneInferer",
    "Runner",
    "SlidingWindowMetadataInferer",
    "SteeredInferer",
    "ToldInferer",
    "channels_last",
    "each_tensor",
]
