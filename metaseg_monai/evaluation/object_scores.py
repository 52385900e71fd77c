"""How well the objects of each case are found: true ones beside predicted ones, and the table."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from skimage.segmentation import relabel_sequential

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.per_case import (
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
from metaseg_monai.images.geometry import resize_label
from metaseg_monai.images.image import Meaning
from metaseg_monai.images.read import check_numbered, read_label
from metaseg_monai.metadata.fields import said
from metaseg_monai.metrics.objects import (
    ObjectMatch,
    Objects,
    ObjectSettings,
    as_object_settings,
    match_objects,
    number_objects,
    object_f1,
    overlaps,
)
from metaseg_monai.tables.table import CaseTable
from metaseg_monai.transforms.postprocessing import find_objects

COLUMN = "instances"


# The true objects of a case: from a file of object numbers, or the parts of its label.


class TrueObjects(NamedTuple):
    """True objects, and what they were made of: `instances`, `label` or `components`.

    Of `components` objects that touch are one.
    """

    objects: Objects
    source: Literal["instances", "label", "components"]


def true_objects(
    item: Mapping[str, Any],
    folder: Path,
    label: np.ndarray,
    classes: int,
    native_shape: Sequence[int] | None = None,
) -> TrueObjects:
    """The true objects of a case.

    They are, in this order: the file that the table names in its column `instances`; the label's
    own file where the column map says "instances"; the connected parts of each class of the label.
    An object of a file is of the class that most of its foreground pixels have in the label.

    Args:
        item: of the table.
        folder: of the table, to which `instances` is relative.
        label: (H, W) classes as they are evaluated.
        classes: number of classes K with the background.
        native_shape: (H, W) of the files where the evaluation resampled them to `label`'s shape.

    Raises:
        DataError: the file is missing or damaged, holds no whole numbers from 0, has another
            shape, or an object without a pixel of the label; names the case.
    """
    named = said(item.get("columns", {}).get(COLUMN))
    of_label = item.get("label_values") == "instances"
    if not named and not of_label:
        return TrueObjects(number_objects(label, classes, ObjectSettings()), "components")
    file = folder / named if named else Path(item["label"])
    try:
        numbers = read_numbers(file, label.shape, native_shape, item.get("mask_values"))
        owners = _classes_of(numbers, label, classes)
    except DataError as error:
        raise DataError(f"case {item.get('case', '?')!r}: {error}") from error
    return TrueObjects(Objects(numbers, owners), "instances" if named else "label")


def read_numbers(
    file: Path,
    shape: tuple[int, ...],
    native_shape: Sequence[int] | None,
    values: Meaning | None,
) -> np.ndarray:
    """Object numbers (H, W) of a file, from 1 without gaps, of this shape; see `true_objects`."""
    read = read_label(file, 2, values)
    check_numbered(read)
    stored = read.array
    if len(stored) != 1 or stored.min() < 0:
        raise DataError(
            f"{file}: expected one channel of object numbers, whole and from 0; save it anew"
        )
    found = stored.shape[1:]
    if found != shape and (native_shape is None or found != tuple(native_shape)):
        raise DataError(
            f"{file}: object numbers of shape {found}, evaluated were {shape}; save them on the "
            "image's grid, and evaluate whole images rather than crops"
        )
    numbers = relabel_sequential(stored[0].astype(np.int64))[0].astype(np.int32)
    if found == shape:
        return numbers
    resized = resize_label(torch.from_numpy(numbers)[None, None], shape)[0, 0].numpy()
    return np.asarray(relabel_sequential(resized)[0], dtype=np.int32)


def _classes_of(numbers: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    count = int(numbers.max(initial=0))
    pairs = overlaps(numbers, label)
    if classes == 2:  # an object may lose its last pixel to a coarse label
        if count and not len(pairs.true):
            raise DataError(
                f"none of its {count} objects has a pixel of the label: they are not those of "
                "this label; mend the column, or leave the cell empty"
            )
        return np.ones(count, dtype=np.int64)
    votes = np.zeros((count, classes), dtype=np.int64)
    votes[pairs.true, pairs.pred + 1] = pairs.shared_px
    if (strangers := np.flatnonzero(votes.sum(1) == 0)).size:
        raise DataError(
            f"object {strangers[0] + 1} of {count} has no pixel of the label, so no class; mend "
            "the label, or leave the cell empty"
        )
    return votes.argmax(1)


# Score single objects while images are evaluated, and read the table again.

FOUND_COLUMNS = list(map("tp_{}".format, range(50, 100, 5)))
SHARES = ("f1_50", "f1_50_95", "precision_50", "recall_50", "matched_iou")
SCORES = Table(
    "scores of objects",
    "evaluate with objects set.",
    {
        **dict.fromkeys(NAMES, TEXT),
        **dict.fromkeys(("class", "true", "pred", "tp_50", "fp_50", "fn_50"), WHOLE),
        **dict.fromkeys(SHARES, SHARE._replace(empty=True)),
        **dict.fromkeys(("splits", "merges", *FOUND_COLUMNS[1:]), WHOLE),
        "truth": TEXT,
        "ignored": WHOLE,
    },
    key=("case", "mode", "class"),
    later={"ignored": math.nan},  # from before small true objects were ignored
)


class ObjectScores:
    """Measure of ``objects_scores.csv``: a row for each case, mode and class.

    True objects are those of `true_objects`; predicted ones are made of the highest class score
    of each pixel. Where a case has no object numbers, so that its true objects are the connected
    parts of its label, its predicted ones are connected parts too, whatever the method: a
    watershed would cut a perfect mask of a crack into pieces of which none is true. True objects
    below `smallest_px` are ignored as predicted ones are (see `match_objects`), and counted in the
    column `ignored`. Objects at the image's border count as any other. All is measured at the
    resolution of the evaluation. Scores that do not exist are empty cells: all where truth and
    prediction have no object; precision, recall and matched IoU where they would divide by 0.

    Args:
        table: of the run, which names the files of true objects.
        objects: settings of `ObjectSettings`. None or {}: no objects are scored, and the file of
            an earlier evaluation is removed when this one is complete.

    Raises:
        ConfigError: a setting is wrong; while running: predictions are not of images.
        DataError: while running: a case is not in the table, or its true objects do not fit.
    """

    def __init__(
        self, table: CaseTable, objects: ObjectSettings | Mapping[str, Any] | None
    ) -> None:
        self.data_dir = table.folder
        self.items = {item["case"]: item for item in table.rows}
        self.settings = as_object_settings(objects) if objects else None

    def __call__(self, case: Case) -> Iterator[Row]:
        """The scores of each class."""
        if self.settings is None:
            return
        pred, name = case["pred"], case["case"]
        if pred.ndim != 3:
            raise ConfigError(
                f"objects are scored in images (K, H, W), the prediction of {name} is "
                f"{tuple(pred.shape)}; set objects to null for volumes"
            )
        if name not in self.items:
            raise DataError(f"case {name!r} is not in the table; give ObjectScores the run's")
        label = case["label"][0].to(torch.int32).cpu().numpy()
        native = case["native_shape"].tolist() if "native_shape" in case else None
        truth = true_objects(self.items[name], self.data_dir, label, len(pred), native)
        settings = self.settings
        if truth.source == "components":
            settings = replace(settings, method="components")
        found = find_objects(pred, settings)
        for number in range(1, len(pred)):
            match = match_objects(
                truth.objects.of_class(number), found.of_class(number), settings.smallest_px
            )
            yield {**names_of(case), "class": number, **match_row(match), "truth": truth.source}

    def write(self, path: Path, found: list[Row]) -> list[Path]:
        """Write the table."""
        return SCORES.write(path, found)


def match_row(match: ObjectMatch) -> dict[str, float]:
    """Counts and scores of an image as cells; NaN for what does not exist."""
    at_half = match.found[0]
    by_threshold = [object_f1(found, match.true, match.pred) for found in match.found]
    return {
        "true": match.true,
        "pred": match.pred,
        **dict(zip(FOUND_COLUMNS, match.found, strict=True)),
        "fp_50": match.pred - at_half,
        "fn_50": match.true - at_half,
        "f1_50": by_threshold[0],
        "f1_50_95": float(np.mean(by_threshold)),
        "precision_50": at_half / match.pred if match.pred else math.nan,
        "recall_50": at_half / match.true if match.true else math.nan,
        "matched_iou": match.matched_iou,
        "splits": match.splits,
        "merges": match.merges,
        "ignored": match.ignored,
    }


def read_object_scores(path: str | Path) -> pd.DataFrame:
    """Read an ``objects_scores.csv``; what is empty becomes NaN.

    A table that was written before small true objects were ignored has no column `ignored`; it
    gets one of NaN.

    Raises:
        DataError: see `read_rows`; or more objects were found than there are.
    """
    rows = read_rows(path, SCORES)
    if (rows["tp_50"] > rows[["true", "pred"]].min(axis=1)).any():
        raise DataError(f"{path}: tp_50 above the number of objects; evaluate again.")
    return rows
