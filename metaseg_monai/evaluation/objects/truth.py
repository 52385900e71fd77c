"""The true objects of a case: from a file of object numbers, or the parts of its label."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from skimage.segmentation import relabel_sequential

from metaseg_monai.data import read_image
from metaseg_monai.data.planes import resize_label
from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.objects.instances import Objects, ObjectSettings, split_objects
from metaseg_monai.evaluation.objects.matching import overlaps

COLUMN = "instances"
PARTS = ObjectSettings()  # connected over 8 neighbours, however small


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
    named = str(item.get("columns", {}).get(COLUMN, "")).strip()
    of_label = item.get("label_values") == "instances"
    if not named and not of_label:
        return TrueObjects(_parts(label, classes), "components")
    file = folder / named if named else Path(item["label"])
    try:
        numbers = _read_numbers(file, label.shape, native_shape)
        owners = _classes_of(numbers, label, classes)
    except DataError as error:
        raise DataError(f"case {item.get('case', '?')!r}: {error}") from error
    return TrueObjects(Objects(numbers, owners), "instances" if named else "label")


def _parts(label: np.ndarray, classes: int) -> Objects:
    labels = np.zeros(label.shape, dtype=np.int32)
    owners: list[int] = []
    for number in range(1, classes):
        found, count = split_objects(label == number, PARTS)
        np.add(found, len(owners), out=labels, where=found > 0)
        owners += [number] * count
    return Objects(labels, np.array(owners, dtype=np.int64))


def _read_numbers(
    file: Path, shape: tuple[int, ...], native_shape: Sequence[int] | None
) -> np.ndarray:
    stored = read_image(file, 2, palette="indices").array
    whole = stored.dtype.kind in "bui" or bool(np.all(np.isfinite(stored) & (stored % 1 == 0)))
    if len(stored) != 1 or not whole or stored.min() < 0:
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
