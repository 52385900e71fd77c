"""Score whole volumes while their slices are evaluated, and read the table again."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from ignite.engine import Engine, Events

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import remove_stale, write_table
from metaseg_monai.metrics.volumes import (
    FOUND_SHARE,
    KITS_REGIONS,
    VolumeScore,
    check_share,
    make_regions,
    planes_first,
    score_volume,
)

TEXT_COLUMNS = ["volume", "group", "split", "mode", "region"]
VOLUME_COLUMNS = [*TEXT_COLUMNS[:4], *VolumeScore._fields]
SLICE_KEYS = ("volume", "plane", "planes", "spacing_mm")
SAME_SPACING = 1e-3  # relative


@dataclass
class _Collected:
    """The planes of one volume in one mode that came so far."""

    group: str
    split: str
    count: int
    spacing_mm: tuple[float, ...]
    planes: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)


class VolumeScores:
    """Evaluator handler that writes ``volumes.csv``: a row for each volume, mode and region.

    The slices of a volume are kept, one byte a pixel for prediction and label, until the last one
    that the evaluation has of it came; then the volume is scored and forgotten. In the order of a
    table that is one volume at a time. All is measured at the resolution of the evaluation.

    Batches (B, ...) of slices have ``volume``, ``plane``, ``planes`` and ``spacing_mm`` (plane, row
    and column distance). In batches of whole volumes (B, K, H, W, D), for 3D networks, the last
    axis is the planes, the volume's name is ``volume`` or else ``case``, and of these keys only
    ``spacing_mm`` is needed.

    Args:
        path: file to write; it appears only when the evaluation is complete.
        regions: ``{name: {"classes": [...], "tolerance_mm": ...}}``. None or {}: nothing is
            scored, and the file of an earlier evaluation is removed when this one is complete.
        found_share: of a lesion's voxels that must be predicted for it to be found.

    Raises:
        ConfigError: regions or share are wrong; while running: batches lack a key.
        DataError: while running: a plane comes twice, or planes of a volume do not fit together.
    """

    def __init__(
        self,
        path: str | Path,
        regions: Mapping[str, Mapping[str, Any]] | None = KITS_REGIONS,
        found_share: float = FOUND_SHARE,
    ) -> None:
        check_share(found_share)
        if regions is not None and not isinstance(regions, Mapping):
            raise ConfigError(
                f"regions is {regions!r}; expected {{name: {{classes, tolerance_mm}}}}, or {{}} or "
                "null to score no volumes"
            )
        self.path = Path(path)
        self.regions = make_regions(regions) if regions else []
        self.found_share = found_share
        self.rows: list[dict[str, Any]] = []
        self.open: dict[tuple[str, str], _Collected] = {}
        self.expected: Counter[tuple[str, str]] = Counter()

    def attach(self, engine: Engine) -> None:
        """Collect after every batch of the evaluator, write at its end; or remove what is stale."""
        if not self.regions:
            engine.add_event_handler(Events.COMPLETED, self.remove)
            return
        engine.add_event_handler(Events.STARTED, self.clear)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def clear(self, engine: Engine) -> None:
        """Forget an earlier evaluation and learn how many slices of each volume will come."""
        self.rows, self.open = [], {}
        dataset = getattr(engine.state.dataloader, "dataset", None)
        self.expected = Counter(
            (item["mode"], item["volume"])
            for item in getattr(dataset, "data", ())
            if "volume" in item and "mode" in item
        )

    def collect(self, engine: Engine) -> None:
        """Keep the batch's slices, score the volumes that they complete."""
        batch, output = engine.state.batch, engine.state.output
        preds = output["pred"].argmax(1).to(torch.uint8).cpu().numpy()
        labels = output["label"][:, 0].to(torch.uint8).cpu().numpy()
        whole = preds.ndim == 4
        _check_keys(batch, ("spacing_mm",) if whole else SLICE_KEYS)
        names = batch.get("volume", batch["case"]) if whole else batch["volume"]
        for index, name in enumerate(names):
            key = (batch["mode"][index], name)
            pair = preds[index], labels[index]
            if whole:
                pair = planes_first(pair[0]), planes_first(pair[1])
                self._score(key, self._start(batch, index, len(pair[0])), *pair)
                continue
            volume = self.open.setdefault(
                key, self._start(batch, index, int(batch["planes"][index]))
            )
            _add(volume, key, int(batch["plane"][index]), self._start(batch, index, 0), pair)
            if len(volume.planes) == self.expected[key]:
                self._finish(key)

    def write(self, engine: Engine) -> None:
        """Score what is left, where an evaluation was cut short, and write the file in one step."""
        for key in list(self.open):
            self._finish(key)
        write_table(self.rows, self.path)

    def remove(self, engine: Engine) -> None:
        """Remove scores of an earlier evaluation, of other predictions than those beside them."""
        remove_stale(self.path, TEXT_COLUMNS)

    def _start(self, batch: Mapping[str, Any], index: int, count: int) -> _Collected:
        spacing = tuple(float(size) for size in batch["spacing_mm"][index])
        return _Collected(batch["group"][index], batch["split"][index], count, spacing)

    def _finish(self, key: tuple[str, str]) -> None:
        volume = self.open.pop(key)
        places = sorted(volume.planes)
        pred, label = (np.stack([volume.planes[at][side] for at in places]) for side in (0, 1))
        self._score(key, volume, pred, label, places)

    def _score(
        self,
        key: tuple[str, str],
        volume: _Collected,
        pred: np.ndarray,
        label: np.ndarray,
        at: list[int] | None = None,
    ) -> None:
        mode, name = key
        try:
            scores = score_volume(
                pred, label, volume.spacing_mm, self.regions, at, volume.count, self.found_share
            )
        except DataError as error:
            raise DataError(f"volume {name} (mode {mode}): {error}") from error
        names = {"volume": name, "group": volume.group, "split": volume.split, "mode": mode}
        self.rows += [volume_row(names, score) for score in scores]


def volume_row(names: Mapping[str, str], score: VolumeScore) -> dict[str, Any]:
    """One row of ``volumes.csv``; what is undefined is empty.

    Args:
        names: volume, group, split and mode.
        score: of one region.
    """
    numbers = {key: "" if value != value else value for key, value in score._asdict().items()}
    return {**names, **numbers}


def read_volumes(path: str | Path) -> pd.DataFrame:
    """Read a ``volumes.csv``; what is empty becomes NaN.

    Raises:
        DataError: the file is missing or no table of volumes, or holds a volume, mode and region
            twice.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"There are no scores of volumes at {path}: evaluate a model of slices that have the "
            "columns volume and plane, or use the command score."
        )
    try:
        text = dict.fromkeys(TEXT_COLUMNS, str)
        table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"hd95_mm": [""]})
    except ValueError as error:  # pandas' errors of empty and broken files
        raise DataError(f"{path} is no table of volumes ({error}); evaluate again.") from error
    missing = [column for column in VOLUME_COLUMNS if column not in table.columns]
    if missing or table.empty:
        raise DataError(f"{path} is no table of volumes: it lacks {', '.join(missing) or 'rows'}.")
    numbers = table[[column for column in VOLUME_COLUMNS if column not in TEXT_COLUMNS]]
    wrong = [name for name, kind in numbers.dtypes.items() if kind.kind not in "iuf"]
    wrong += [
        str(name) for name in numbers.columns if name not in wrong and (numbers[name] < 0).any()
    ]
    if wrong:
        raise DataError(f"{path}: {wrong[0]} must be numbers from 0; evaluate again.")
    if (numbers[["complete", "dice", "surface_dice"]] > 1).any(axis=None):
        raise DataError(f"{path}: complete, dice and surface_dice are at most 1; evaluate again.")
    twice = table[table.duplicated(["volume", "mode", "region"])]
    if not twice.empty:
        first = twice.iloc[0]
        raise DataError(
            f"{path}: volume {first['volume']}, mode {first['mode']}, region {first['region']} "
            "stands there twice; evaluate again."
        )
    return table


def _check_keys(batch: Mapping[str, Any], keys: tuple[str, ...]) -> None:
    missing = [key for key in keys if key not in batch]
    if missing:
        raise ConfigError(
            f"volumes.csv cannot be made: the slices have no {', '.join(missing)}. The table needs "
            "the columns volume, plane, planes, spacing_z_mm, spacing_y_mm and spacing_x_mm, as "
            "`prepare kits21` writes them, and the transforms must keep these keys; or leave "
            "VolumeScores out of the handlers"
        )


def _add(
    volume: _Collected,
    key: tuple[str, str],
    plane: int,
    like: _Collected,
    pair: tuple[np.ndarray, np.ndarray],
) -> None:
    """Add a plane to its volume, or say why it cannot be one of it."""
    mode, name = key
    told = f"volume {name} (mode {mode}), plane {plane}"
    if plane in volume.planes:
        raise DataError(f"{told}: came twice; each plane of a volume may have one row in the table")
    shapes = {array.shape for pair_of in volume.planes.values() for array in pair_of}
    if any(array.shape not in (shapes or {pair[0].shape}) for array in pair):
        raise DataError(f"{told}: {pair[0].shape} pixels, other planes have {shapes.pop()}")
    if not np.allclose(like.spacing_mm, volume.spacing_mm, rtol=SAME_SPACING, atol=0):
        raise DataError(f"{told}: spacing {like.spacing_mm} mm, others have {volume.spacing_mm}")
    volume.planes[plane] = pair
