"""Losses that MONAI lacks, and MONAI's behind the same door."""

from metaseg_monai.losses.cross_entropy import HeadsCrossEntropy, PixelCrossEntropy
from metaseg_monai.losses.dice import DeepSupervision, DiceCrossEntropy
from metaseg_monai.losses.translation import (
    GradientLoss,
    LogSquaredLoss,
    LupiLoss,
    MedianMeanAbsoluteLoss,
    RelativisticAverageLeastSquares,
    ScorePool,
    WeightedSum,
)

__all__ = [
    "DeepSupervision",
    "DiceCrossEntropy",
    "GradientLoss",
    "HeadsCrossEntropy",
    "LogSquaredLoss",
    "LupiLoss",
    "MedianMeanAbsoluteLoss",
    "PixelCrossEntropy",
    "RelativisticAverageLeastSquares",
    "ScorePool",
    "WeightedSum",
]
