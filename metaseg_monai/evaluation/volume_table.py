"""Score whole volumes while their slices are evaluated, and read the table again."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.per_case import AMOUNT, SHARE, TEXT, Case, Row, Table, read_rows
from metaseg_monai.metrics.volumes import (
    KITS_REGIONS,
    VolumeScore,
    fitting_regions,
    make_regions,
    score_volume,
)
from metaseg_monai.tables.table import CaseTable
from metaseg_monai.training.weights import LoadWeights

SLICE_KEYS = ("volume", "plane", "planes", "spacing_mm")
SAME_SPACING = 1e-3  # relative
VOLUMES = Table(
    "scores of volumes",
    "evaluate a model of slices that have the columns volume and plane, or use the command score.",
    {
        **dict.fromkeys(("volume", "group", "split", "mode", "region"), TEXT),
        **dict.fromkeys(VolumeScore._fields[1:], AMOUNT),
        **dict.fromkeys(("complete", "dice", "surface_dice"), SHARE),
        "hd95_mm": AMOUNT._replace(empty=True),
    },
    key=("volume", "mode", "region"),
)


@dataclass
class _Stack:
    """The planes of one volume in one mode that came so far."""

    names: dict[str, str]
    count: int
    spacing_mm: tuple[float, ...]
    planes: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"volume {self.names['volume']} (mode {self.names['mode']})"

    def add(self, plane: int, spacing_mm: tuple[float, ...], *pair: np.ndarray) -> None:
        """Add prediction and label of a plane, or say why it cannot be one of the volume."""
        told = f"{self}, plane {plane}"
        if plane in self.planes:
            raise DataError(
                f"{told}: came twice; each plane of a volume may have one row in the table"
            )
        shape = next(iter(self.planes.values()), pair)[0].shape
        if any(array.shape != shape for array in pair):
            raise DataError(f"{told}: {pair[0].shape} pixels, other planes have {shape}")
        if not np.allclose(spacing_mm, self.spacing_mm, rtol=SAME_SPACING, atol=0):
            raise DataError(f"{told}: spacing {spacing_mm} mm, others have {self.spacing_mm}")
        self.planes[plane] = pair[0], pair[1]


class VolumeScores:
    """Measure of ``volumes.csv``: a row for each volume, mode and region.

    The slices of a volume are kept, one byte a pixel for prediction and label, until the last one
    that the evaluation has of it came; then the volume is scored and forgotten. In the order of a
    table that is one volume at a time. All is measured at the resolution of the evaluation.

    Cases that are slices have ``volume``, ``plane``, ``planes`` and ``spacing_mm`` (plane, row and
    column distance). Of whole volumes (K, H, W, D), for 3D networks, the last axis is the planes,
    the volume's name is ``volume`` or else ``case``, and of these keys only ``spacing_mm`` is
    needed.

    Args:
        regions: ``{name: {"classes": [...], "tolerance_mm": ...}}``, classes by number or name.
            None or {}: nothing is scored, and the file of an earlier evaluation is removed when
            this one is complete. Where the data have not the classes that are named, each of their
            own is a region (see `fitting_regions`).
        table: of the run, whose data may tell what its classes are.
        weights: those that are evaluated, which know else; None for nobody.

    Raises:
        ConfigError: the regions are wrong; while running: cases lack a key.
        DataError: while running: a plane comes twice, or planes of a volume do not fit together.
    """

    def __init__(
        self,
        regions: Mapping[str, Mapping[str, Any]] | None = KITS_REGIONS,
        table: CaseTable | None = None,
        weights: LoadWeights | None = None,
    ) -> None:
        if regions is not None and not isinstance(regions, Mapping):
            raise ConfigError(
                f"regions is {regions!r}; expected {{name: {{classes, tolerance_mm}}}}, or {{}} or "
                "null to score no volumes"
            )
        self.given = regions or {}
        if self.given:  # seen to be right before anything runs, under whatever names
            named = {one for part in self.given.values() for one in _names_in(part)}
            make_regions(self.given, dict(enumerate(sorted(named), 1)))
        self.table = table
        self.weights = weights
        self.open: dict[tuple[str, str], _Stack] = {}
        self.expected: Counter[tuple[str, str]] = Counter()

    def start(self, items: Sequence[Mapping[str, Any]]) -> None:
        """Forget an earlier evaluation and learn how many slices of each volume will come."""
        self.open = {}
        self.expected = Counter(
            (item["mode"], item["volume"]) for item in items if {"mode", "volume"} <= item.keys()
        )

    def __call__(self, case: Case) -> list[Row]:
        """Keep the slice; the scores of the volume that it completes."""
        if not self.given:
            return []
        self.classes = range(1, case["pred"].shape[0])
        pred = case["pred"].argmax(0).to(torch.uint8).cpu().numpy()
        label = case["label"][0].to(torch.uint8).cpu().numpy()
        whole = pred.ndim == 3
        _check_keys(case, ("spacing_mm",) if whole else SLICE_KEYS)
        name = case.get("volume", case["case"])
        names = {"volume": name, **{key: case[key] for key in ("group", "split", "mode")}}
        spacing_mm = tuple(float(side) for side in case["spacing_mm"])
        if whole:
            planes = zip(np.moveaxis(pred, -1, 0), np.moveaxis(label, -1, 0), strict=True)
            return self._scored(_Stack(names, pred.shape[-1], spacing_mm, dict(enumerate(planes))))
        key = (case["mode"], name)
        stack = self.open.setdefault(key, _Stack(names, int(case["planes"]), spacing_mm))
        stack.add(int(case["plane"]), spacing_mm, pred, label)
        return self._scored(self.open.pop(key)) if len(stack.planes) == self.expected[key] else []

    def write(self, path: Path, found: list[Row]) -> list[Path]:
        """Score what is left, where an evaluation was cut short, and write the table."""
        left = [row for stack in self.open.values() for row in self._scored(stack)]
        return VOLUMES.write(path, [*found, *left])

    def _scored(self, stack: _Stack) -> list[Row]:
        names = {} if self.table is None else dict(self.table.class_names)
        if self.weights is not None:
            names = self.weights.class_names(names)
        regions = fitting_regions(self.given, names, self.classes)
        places = sorted(stack.planes)
        pred, label = (np.stack([stack.planes[at][side] for at in places]) for side in (0, 1))
        try:
            scores = score_volume(pred, label, stack.spacing_mm, regions, places, stack.count)
        except DataError as error:
            raise DataError(f"{stack}: {error}") from error
        return [{**stack.names, **score._asdict()} for score in scores]


def _names_in(region: Any) -> list[str]:
    classes = region.get("classes") if isinstance(region, Mapping) else None
    if not isinstance(classes, list | tuple):
        return []
    return [one for one in classes if isinstance(one, str)]


def read_volumes(path: str | Path) -> pd.DataFrame:
    """Read a ``volumes.csv``; what is empty becomes NaN.

    Raises:
        DataError: see `read_rows`.
    """
    return read_rows(path, VOLUMES)


def _check_keys(case: Case, keys: Sequence[str]) -> None:
    if missing := [key for key in keys if key not in case]:
        raise ConfigError(
            f"volumes.csv cannot be made: the slices have no {', '.join(missing)}. The table needs "
            "the columns volume, plane, planes, spacing_z_mm, spacing_y_mm and spacing_x_mm, as "
            "`prepare kits21` writes them, and the transforms must keep these keys; or leave "
            "VolumeScores out of the handlers"
        )
