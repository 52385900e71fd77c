"""Losses that MONAI lacks, and MONAI's behind the same door."""

from metaseg_monai.losses.cross_entropy import HeadsCrossEntropy, PixelCrossEntropy
from metaseg_monai.losses.dice import DeepSupervision, DiceCrossEntropy

__all__ = [
    "DeepSupervision",
    "DiceCrossEntropy",
    "HeadsCrossEntropy",
    "PixelCrossEntropy",
]
