"""Objects in masks: found, matched with the true ones, measured, counted by well, and written."""

from metaseg_monai.evaluation.objects.instances import ObjectSettings
from metaseg_monai.evaluation.objects.matching import match_objects
from metaseg_monai.evaluation.objects.pixel_size import pixel_size_um
from metaseg_monai.evaluation.objects.save import SaveObjects
from metaseg_monai.evaluation.objects.scores import ObjectScores, read_object_scores
from metaseg_monai.evaluation.objects.table import ObjectTable

__all__ = [
    "ObjectScores",
    "ObjectSettings",
    "ObjectTable",
    "SaveObjects",
    "match_objects",
    "pixel_size_um",
    "read_object_scores",
]
