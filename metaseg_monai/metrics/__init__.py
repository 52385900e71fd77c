"""Pure numbers: counts and masks to scores, intervals and tests."""

from metaseg_monai.metrics.calibration import (
    calibration_errors,
    expected_calibration_error,
    foreground_calibration_error,
    reliability,
)
from metaseg_monai.metrics.objects import ObjectSettings, match_objects
from metaseg_monai.metrics.scores import (
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

__all__ = [
    "ObjectSettings",
    "average_f1",
    "average_seeds",
    "calibration_errors",
    "case_f1",
    "case_mean_f1",
    "expected_calibration_error",
    "f1",
    "f1_error",
    "foreground_calibration_error",
    "iou",
    "match_objects",
    "mode_matrix",
    "pooled_f1",
    "pooled_f1_by",
    "reliability",
    "summarise",
]
