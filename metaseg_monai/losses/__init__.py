"""Losses that MONAI lacks."""

from metaseg_monai.losses.cross_entropy import PixelCrossEntropy

__all__ = [
    "PixelCrossEntropy",
]
