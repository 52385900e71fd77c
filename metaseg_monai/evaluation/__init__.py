"""What is measured of every case, in every test mode, written beside the weights."""

from metaseg_monai.evaluation.clean_up import ChooseCleanUp, CleanUpPredictions
from metaseg_monai.evaluation.estimates import FieldEstimates, TellFit, known_items
from metaseg_monai.evaluation.image_scores import (
    ImageObjects,
    ImageSamples,
    ImageScores,
    SaveImages,
)
from metaseg_monai.evaluation.intervals import (
    AreaCoverage,
    CalibrateAreas,
    TellAreas,
    chosen_field,
    read_coverage,
)
from metaseg_monai.evaluation.masks import SaveMasks
from metaseg_monai.evaluation.modes import evaluation_items
from metaseg_monai.evaluation.object_scores import ObjectScores, read_object_scores
from metaseg_monai.evaluation.object_table import SaveObjects
from metaseg_monai.evaluation.per_case import (
    CalibrationBins,
    CaseCounts,
    KnownOfCases,
    PerCase,
    count_pixels,
    read_calibration,
    read_cases,
    read_counts,
)
from metaseg_monai.evaluation.predicted import MaskRecord
from metaseg_monai.evaluation.provenance import RecordEvaluation, results_folder
from metaseg_monai.evaluation.samples import PredictionSamples
from metaseg_monai.evaluation.shards import Shard
from metaseg_monai.evaluation.surface_table import SurfaceDice, read_surfaces
from metaseg_monai.evaluation.volume_table import VolumeScores, read_volumes

__all__ = [
    "AreaCoverage",
    "CalibrateAreas",
    "CalibrationBins",
    "CaseCounts",
    "ChooseCleanUp",
    "CleanUpPredictions",
    "FieldEstimates",
    "ImageObjects",
    "ImageSamples",
    "ImageScores",
    "KnownOfCases",
    "MaskRecord",
    "ObjectScores",
    "PerCase",
    "PredictionSamples",
    "RecordEvaluation",
    "SaveImages",
    "SaveMasks",
    "SaveObjects",
    "Shard",
    "SurfaceDice",
    "TellAreas",
    "TellFit",
    "VolumeScores",
    "chosen_field",
    "count_pixels",
    "evaluation_items",
    "known_items",
    "read_calibration",
    "read_cases",
    "read_counts",
    "read_coverage",
    "read_object_scores",
    "read_surfaces",
    "read_volumes",
    "results_folder",
]
