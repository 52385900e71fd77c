"""From predictions to counts per case, and from counts to scores and their comparison."""

from metaseg_monai.evaluation.calibration import (
    CalibrationBins,
    calibration_errors,
    expected_calibration_error,
    foreground_calibration_error,
    read_calibration,
    reliability,
)
from metaseg_monai.evaluation.cases import KnownOfCases, read_cases
from metaseg_monai.evaluation.clean_up import CleanUpPredictions
from metaseg_monai.evaluation.counts import CaseCounts, count_pixels, read_counts
from metaseg_monai.evaluation.items import evaluation_items
from metaseg_monai.evaluation.masks import SaveMasks
from metaseg_monai.evaluation.modes import cross_modes, expand_modes
from metaseg_monai.evaluation.objects import (
    ObjectScores,
    ObjectTable,
    SaveObjects,
    read_object_scores,
)
from metaseg_monai.evaluation.samples import PredictionSamples
from metaseg_monai.evaluation.scores import (
    average_f1,
    average_seeds,
    case_f1,
    case_mean_f1,
    f1,
    f1_error,
    iou,
    mode_matrix,
    pooled_f1,
    pooled_f1_by,
    summarise,
)
from metaseg_monai.evaluation.volume_scores import VolumeScores, read_volumes

__all__ = [
    "CalibrationBins",
    "CaseCounts",
    "CleanUpPredictions",
    "KnownOfCases",
    "ObjectScores",
    "ObjectTable",
    "PredictionSamples",
    "SaveMasks",
    "SaveObjects",
    "VolumeScores",
    "average_f1",
    "average_seeds",
    "calibration_errors",
    "case_f1",
    "case_mean_f1",
    "count_pixels",
    "cross_modes",
    "evaluation_items",
    "expand_modes",
    "expected_calibration_error",
    "f1",
    "f1_error",
    "foreground_calibration_error",
    "iou",
    "mode_matrix",
    "pooled_f1",
    "pooled_f1_by",
    "read_calibration",
    "read_cases",
    "read_counts",
    "read_object_scores",
    "read_volumes",
    "reliability",
    "summarise",
]
