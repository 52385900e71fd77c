"""How close predicted outlines lie to true ones, case by case, while images are evaluated."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from metaseg_monai.errors import ConfigError
from metaseg_monai.evaluation.per_case import (
    AMOUNT,
    NAMES,
    SHARE,
    TEXT,
    WHOLE,
    Case,
    Row,
    Table,
    names_of,
    read_rows,
)
from metaseg_monai.metrics.surfaces import cut_runs, surface_scores
from metaseg_monai.transforms.postprocessing import class_map

UNITS = ("px", "mm")
SURFACES = Table(
    "scores of surfaces",
    "evaluate with a tolerance set.",
    {
        **dict.fromkeys(NAMES, TEXT),
        "class": WHOLE,
        "nsd": SHARE._replace(empty=True),
        "tolerance": AMOUNT,
        "unit": TEXT,
    },
    key=("case", "mode", "class"),
)


class SurfaceDice:
    """Measure of ``surfaces.csv``: the normalised surface Dice (NSD) of each case and class.

    The share of both outlines that lies within the tolerance of the other (Nikolov et al. 2018), by
    length in an image and by area in a volume, see `surface_scores`. Measured under true metadata,
    in mode ``normal``. A case whose class is empty in label and prediction has no score (an empty
    cell), one where it is empty in one of them has 0, as everywhere but in the scores of KiTS.

    Slices of a volume are left out: their outlines are one surface, which `VolumeScores` scores.

    Args:
        tolerance: ``{"px": 2}`` or ``{"mm": 1.5}``, the largest distance that counts as right, such
            as that between two annotators. None: nothing is scored, and the file of an earlier
            evaluation is removed when this one is complete.

    Raises:
        ConfigError: no such tolerance; while running: one in mm of a case whose pixel size is not
            known, or one in pixels of a volume, whose voxels may have any sides.
    """

    def __init__(self, tolerance: Mapping[str, float] | None) -> None:
        self.unit, self.limit = _tolerance(tolerance) if tolerance else ("", math.nan)

    def __call__(self, case: Case) -> Iterator[Row]:
        """The score of each class."""
        if not self.unit or case["mode"] != "normal" or ("plane" in case and case.get("volume")):
            return
        pred, label = class_map(case["pred"]), case["label"][0].cpu().numpy()
        sides = self._sides(case, label.ndim)
        for number in range(1, len(case["pred"])):
            nsd = _nsd(pred == number, label == number, sides, self.limit)
            told = {"class": number, "nsd": nsd, "tolerance": self.limit, "unit": self.unit}
            yield {**names_of(case), **told}

    def write(self, path: Path, found: list[Row]) -> list[Path]:
        """Write the table."""
        return SURFACES.write(path, found)

    def _sides(self, case: Case, dims: int) -> tuple[float, float, float]:
        """Sides of a pixel: of planes, rows and columns."""
        if self.unit == "px":
            if dims == 3:
                raise ConfigError(
                    f"{case['case']}: a volume has no tolerance in pixels, as its voxels may have "
                    'any sides; give it in mm, as {"mm": 1.5}'
                )
            return 1.0, 1.0, 1.0
        if "spacing_mm" not in case:
            raise ConfigError(
                f"{case['case']}: its pixel size is not known, so a tolerance in mm says nothing; "
                'give it in pixels, as {"px": 2}, or the spacing in the table'
            )
        planes, rows, columns = map(float, _numbers(case["spacing_mm"]))
        return (planes if dims == 3 else 1.0), rows, columns


def _numbers(spacing: Any) -> list[float]:
    return list(spacing.tolist() if isinstance(spacing, Tensor) else spacing)


def _tolerance(given: Mapping[str, float]) -> tuple[str, float]:
    """The unit and the number of a tolerance as a configuration writes it."""
    units = list(given) if isinstance(given, Mapping) else []
    limit = given[units[0]] if len(units) == 1 else None
    number = isinstance(limit, int | float) and not isinstance(limit, bool)
    if len(units) != 1 or units[0] not in UNITS or not number or not 0 <= float(limit) < math.inf:  # type: ignore[arg-type]
        raise ConfigError(
            f'tolerance is {given!r}; expected {{"px": 2}} or {{"mm": 1.5}}, a number from 0, or '
            "null to score no surfaces"
        )
    return units[0], float(limit)  # type: ignore[arg-type]


def _nsd(
    pred: np.ndarray, label: np.ndarray, sides: tuple[float, float, float], limit: float
) -> float:
    """Surface Dice of one class; NaN where it is in neither."""
    if not pred.any() and not label.any():
        return math.nan
    if pred.ndim == 2:
        # a plane of a volume whose other planes nobody knows: its outline, and no top or bottom
        runs = cut_runs(pred[None], label[None], at=[1], count=3)
    else:
        planes = [np.ascontiguousarray(np.moveaxis(one, -1, 0)) for one in (pred, label)]
        runs = cut_runs(planes[0], planes[1])
    return surface_scores(runs, sides, limit).surface_dice


def read_surfaces(path: str | Path) -> pd.DataFrame:
    """Read a ``surfaces.csv``; what is empty becomes NaN.

    Raises:
        DataError: see `read_rows`.
    """
    return read_rows(path, SURFACES)
