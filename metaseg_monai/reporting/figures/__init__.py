"""The figures of a report."""

from metaseg_monai.reporting.figures.curves import (
    learning_curves,
    learning_rate,
    perturbation_curves,
    reliability,
    robustness_curves,
)
from metaseg_monai.reporting.figures.maps import mode_heatmap, similarity_map
from metaseg_monai.reporting.figures.predictions import label_grid, overlay, prediction_grid
from metaseg_monai.reporting.figures.ranking import DifferenceRow, differences, ranking

__all__ = [
    "DifferenceRow",
    "differences",
    "label_grid",
    "learning_curves",
    "learning_rate",
    "mode_heatmap",
    "overlay",
    "perturbation_curves",
    "prediction_grid",
    "ranking",
    "reliability",
    "robustness_curves",
    "similarity_map",
]
