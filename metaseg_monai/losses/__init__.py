"""Losses that MONAI lacks."""

from metaseg_monai.losses.cross_entropy import HeadsCrossEntropy, PixelCrossEntropy

__all__ = [
    "HeadsCrossEntropy",
    "PixelCrossEntropy",
]
