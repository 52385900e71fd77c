"""What is measured of every case, in every test mode, written beside the weights."""

from metaseg_monai.evaluation.cases import KnownOfCases, read_cases
from metaseg_monai.evaluation.clean_up import CleanUpPredictions
from metaseg_monai.evaluation.counts import CaseCounts, count_pixels, read_counts
from metaseg_monai.evaluation.masks import SaveMasks
from metaseg_monai.evaluation.modes import cross_modes, evaluation_items, expand_modes
from metaseg_monai.evaluation.object_scores import ObjectScores, read_object_scores
from metaseg_monai.evaluation.object_table import ObjectTable, SaveObjects, pixel_size_um
from metaseg_monai.evaluation.samples import PredictionSamples
from metaseg_monai.evaluation.volumes import VolumeScores, read_volumes

__all__ = [
    "CaseCounts",
    "CleanUpPredictions",
    "KnownOfCases",
    "ObjectScores",
    "ObjectTable",
    "PredictionSamples",
    "SaveMasks",
    "SaveObjects",
    "VolumeScores",
    "count_pixels",
    "cross_modes",
    "evaluation_items",
    "expand_modes",
    "pixel_size_um",
    "read_cases",
    "read_counts",
    "read_object_scores",
    "read_volumes",
]
