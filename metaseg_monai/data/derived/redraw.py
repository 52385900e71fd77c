"""One label drawn again in an annotation style, and what that changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from skimage.measure import label as connected_components

from metaseg_monai.data.polygons import Labels, polygonise
from metaseg_monai.data.readers import read_image
from metaseg_monai.errors import DataError


class Drawing(NamedTuple):
    """The files of a case that hold its mask.

    Attributes:
        label: (H, W) label as stored; 0 is background.
        objects: (H, W) object numbers; 0 is background.
        of_label: attributes of the label's file.
        of_objects: attributes of the file of object numbers, or None where the label gave them.
    """

    label: Labels
    objects: Labels
    of_label: Mapping[str, Any]
    of_objects: Mapping[str, Any] | None


class Change(NamedTuple):
    """What a style did to the objects of one mask, in pixels.

    Attributes:
        areas: (N,) of the objects before.
        redrawn: (N,) of the same objects after.
        tp: foreground pixels of both.
        fp: foreground pixels of the style alone.
        fn: foreground pixels of the exact mask alone.
    """

    areas: np.ndarray
    redrawn: np.ndarray
    tp: int
    fp: int
    fn: int


def read_drawing(label: Path, instances: Path | None, numbered: bool) -> Drawing:
    """Read a label and tell its objects apart.

    Args:
        label: the label's file.
        instances: file of object numbers beside the label, where there is one.
        numbered: the label itself holds object numbers. Where neither is so, the objects are the
            connected parts of one value, pixels that touch at their corners included.

    Raises:
        DataError: a file is no plane of whole numbers, or the two files disagree.
    """
    values, attributes = _read_plane(label)
    if instances is None:
        objects = values if numbered else connected_components(values, connectivity=2)
        return Drawing(values, objects, attributes, None)
    objects, of_objects = _read_plane(instances)
    if objects.shape != values.shape or bool(((objects > 0) != (values > 0)).any()):
        raise DataError(
            f"{instances}: its objects cover other pixels than the label {label}; save both from "
            "one mask, or leave the cell of the column instances empty where it tells no objects"
        )
    return Drawing(values, objects, attributes, of_objects)


def redraw(drawing: Drawing, tolerance_px: float) -> tuple[Drawing, Change]:
    """Draw every object again, see `polygonise`; each keeps its number and its label value."""
    objects = polygonise(drawing.objects, tolerance_px)
    label = objects
    if drawing.objects is not drawing.label:
        # An object has one label value: its parts were told apart by value, or all are foreground.
        numbers, places = np.unique(drawing.objects, return_index=True)
        found = drawing.label.ravel()[places]
        label = found[np.searchsorted(numbers, objects)]
        if numbers[0] != 0:  # no background before, but there may be some now
            label = np.where(objects == 0, 0, label)
    return drawing._replace(label=label, objects=objects), _change(drawing.objects, objects)


def _change(before: Labels, after: Labels) -> Change:
    truth, drawn = before > 0, after > 0
    return Change(
        np.unique(before[truth], return_counts=True)[1],
        np.unique(after[drawn], return_counts=True)[1],  # of the same objects: none vanishes
        int((truth & drawn).sum()),
        int((drawn & ~truth).sum()),
        int((truth & ~drawn).sum()),
    )


def _read_plane(path: Path) -> tuple[Labels, Mapping[str, Any]]:
    image = read_image(path, palette="indices")
    array = image.array
    if array.ndim != 3 or len(array) != 1:
        raise DataError(
            f"{path}: shape {array.shape}, expected one plane of whole numbers (1, H, W); cut "
            "volumes into planes first"
        )
    plane = array[0]
    if plane.dtype.kind == "f" and bool(np.all(np.isfinite(plane) & (plane % 1 == 0))):
        plane = plane.astype(np.int64)
    if plane.dtype.kind not in "bui" or plane.min() < 0:
        raise DataError(f"{path}: expected whole numbers from 0; save the label anew")
    return plane, image.attributes
