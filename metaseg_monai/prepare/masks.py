"""How the mask files of a source become a label and numbered objects."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import scipy.io

from metaseg_monai.errors import DataError
from metaseg_monai.images.image import (
    Image,
    Meaning,
    convert_channels,
    refuse_values_beyond,
    value_counts,
    without_alpha,
)
from metaseg_monai.images.read import as_plane, check_numbered, read_label

Overlap = Literal["refuse", "smaller"]
Labels = Literal["classes", "binary", "instances"]
MOST_OBJECTS = np.iinfo(np.uint16).max


class Masks(NamedTuple):
    """The masks of one case.

    Attributes:
        label: (H, W) uint8 classes.
        copied: the file to copy as it is in place of writing `label`; None where it is converted.
        objects: (H, W) uint16 object numbers, 0 background; None where objects have no numbers.
        remarks: what was decided or is seldom meant, in words.
        grey: the threshold that decides and the largest grey value; None where none decides.
    """

    label: np.ndarray
    copied: Path | None = None
    objects: np.ndarray | None = None
    remarks: tuple[str, ...] = ()
    grey: tuple[float, float] | None = None


# A rule reads the mask of a case; most take one file. It raises a DataError where the file cannot
# be read or its values are not as the rule expects.
MaskRule = Callable[[Sequence[Path]], Masks]


def class_mask(paths: Sequence[Path], classes: int = 2, values: Meaning | None = None) -> Masks:
    """Pixel values are the classes 0..classes-1; the file is copied byte for byte.

    Unless it can be read in two ways: then the classes that `values` says are written; and of a
    volume of one plane that plane.
    """
    (path,) = paths
    array, told = as_plane(read_label(path, values=values))
    if len(array) != 1:
        raise DataError(
            f"{path}: a mask of {len(array)} channels, expected one; save it with one channel, "
            "or give labels=binary, which takes equal channels"
        )
    counts = value_counts(array)
    step = (
        "mend it, or say what the values mean: labels=binary (0 and one other), "
        "labels=instances (object numbers), threshold=N, or classes=N"
    )
    refuse_values_beyond(counts, classes, path, step)
    return Masks(
        array[0].astype(np.uint8), copied=None if told["twofold"] or "plane" in told else path
    )


def binary_mask(paths: Sequence[Path], values: Meaning | None = None) -> Masks:
    """Zero is background, the one other value foreground; several equal channels are one."""
    array = _one_channel(paths[0], values)
    counts = value_counts(array)
    if len([value for value in counts if value != 0]) > 1:
        shares = [f"{value:g} ({n / array.size:.1%} of the pixels)" for value, n in counts.items()]
        many = [*(f"{value:g}" for value in list(counts)[:5]), "..."]
        shown = ", ".join(shares if len(shares) < 5 else many)
        raise DataError(
            f"{paths[0]}: {len(counts)} values ({shown}), expected 0 and one other; give "
            "threshold=N, or labels=instances for object numbers"
        )
    return Masks((array != 0).astype(np.uint8))


def threshold_mask(paths: Sequence[Path], above: float, values: Meaning | None = None) -> Masks:
    """Grey values above a number are foreground (colours by their luma), as in JPEG masks."""
    shown = as_plane(read_label(paths[0], values=values, grey=True)).array
    grey = convert_channels(_opaque(paths[0], shown), "grey")[0]
    if not np.all(np.isfinite(grey)):
        raise DataError(f"{paths[0]}: values that are no finite numbers; save it anew")
    if 0 < grey.max() <= 1 <= above:
        raise DataError(
            f"{paths[0]}: values up to {grey.max():g}, of which none is above {above:g}; give "
            f"threshold={0 if grey.max() == 1 else 0.5}"
        )
    return Masks((grey > above).astype(np.uint8), grey=(above, float(grey.max())))


def numbered_mask(paths: Sequence[Path], values: Meaning | None = None) -> Masks:
    """Every object has a number from 1, zero is background."""
    array = _one_channel(paths[0], values)
    check_numbered(Image(array[None], {"path": str(paths[0])}))
    if array.min() < 0 or array.max() > MOST_OBJECTS:
        raise DataError(
            f"{paths[0]}: object numbers {array.min():g} to {array.max():g}, expected "
            f"0..{MOST_OBJECTS}; number the objects anew from 1"
        )
    return Masks((array > 0).astype(np.uint8), objects=array.astype(np.uint16))


def object_files(
    paths: Sequence[Path], overlap: Overlap = "refuse", values: Meaning | None = None
) -> Masks:
    """One file an object, numbered in the order of the file names.

    Args:
        paths: the files.
        overlap: what becomes of pixels that several files claim: "refuse", or "smaller" gives
            them to the object of the smaller area.
        values: see `read_label`.
    """
    folder = paths[0].parent
    if len(paths) > MOST_OBJECTS:
        raise DataError(f"{folder}: {len(paths)} objects; at most {MOST_OBJECTS}")
    masks = [_one_channel(path, values) != 0 for path in paths]
    for path, mask in zip(paths, masks, strict=True):
        if mask.shape != masks[0].shape:
            raise DataError(
                f"{path}: shape {mask.shape}, but {masks[0].shape} in {paths[0].name}; get "
                "the files anew"
            )
    areas = np.array([np.count_nonzero(mask) for mask in masks])
    objects = np.zeros(masks[0].shape, np.uint16)
    for number in np.argsort(-areas, kind="stable"):
        objects[masks[number]] = number + 1
    shared = int(np.count_nonzero(sum(masks, np.zeros(masks[0].shape, np.uint16)) > 1))
    if shared and overlap == "refuse":
        raise DataError(
            f"{folder}: {shared} pixels belong to several objects; mend the masks, or "
            "give overlap=smaller, by which they go to the smaller object"
        )
    empty = int(np.count_nonzero(areas == 0))
    told = {
        "pixels of several objects went to the smaller one": shared,
        "empty object files": empty,
        "objects wholly under others": len(masks) - empty - len(np.unique(objects[objects > 0])),
    }
    remarks = tuple(f"{count} {remark}" for remark, count in told.items() if count)
    return Masks((objects > 0).astype(np.uint8), objects=objects, remarks=remarks)


def crackforest_mask(paths: Sequence[Path]) -> Masks:
    """MATLAB file with `groundTruth.Segmentation`: 1 is background, larger values are crack."""
    (path,) = paths
    try:
        content = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=True)
        array = np.asarray(content["groundTruth"].Segmentation)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); copy it anew") from error
    except Exception as error:  # damaged files fail anywhere inside the reader
        raise DataError(f"{path}: no groundTruth.Segmentation ({error}); copy it anew") from error
    if array.ndim != 2 or array.dtype.kind not in "buif" or array.min() < 1:
        raise DataError(
            f"{path}: Segmentation of {array.dtype} {array.shape}, expected numbers from 1 in "
            "rows and columns; copy it anew"
        )
    return Masks((array > 1).astype(np.uint8))


def _one_channel(path: Path, values: Meaning | None) -> np.ndarray:
    """The one channel (H, W), or that which all channels are equal to, an opaque alpha aside."""
    colours = _opaque(path, as_plane(read_label(path, values=values)).array)
    if np.any(colours[1:] != colours[0]):
        raise DataError(f"{path}: a mask in colours, expected one channel; save it as grey")
    return colours[0]


def _opaque(path: Path, array: np.ndarray) -> np.ndarray:
    """The channels without alpha, grey or RGB, of a mask that shows all its pixels."""
    colours = without_alpha(array)
    if len(colours) not in (1, 3):
        raise DataError(
            f"{path}: a mask of {len(array)} channels, expected grey, or colours with at most an "
            "alpha channel that is opaque everywhere; save it as grey, without transparency"
        )
    return colours


def mask_rule(
    labels: str = "classes",
    classes: int = 2,
    threshold: object = None,
    mask_values: Meaning | None = None,
) -> MaskRule:
    """The rule that settings name, checked before any file is read.

    Args:
        labels: "classes", "binary" or "instances".
        classes: number of classes with the background, for "classes".
        threshold: takes the place of `labels`, see `threshold_mask`.
        mask_values: "stored" or "shown", see `read_label`.

    Raises:
        DataError: a setting has a wrong value, or would have no effect beside another.
    """
    if labels not in get_args(Labels):
        raise DataError(f"labels={labels!r}: expected one of {', '.join(get_args(Labels))}")
    if mask_values is not None and mask_values not in get_args(Meaning):
        raise DataError(
            f"mask_values={mask_values!r}: expected one of {', '.join(get_args(Meaning))}"
        )
    if isinstance(classes, bool) or not isinstance(classes, int) or not 2 <= classes <= 256:
        raise DataError(f"classes={classes!r}: expected a whole number from 2 to 256")
    other = f"labels={labels}" if threshold is None else f"threshold={threshold!r}"
    if other != "labels=classes" and classes != 2:
        raise DataError(f"classes={classes}: {other} makes two classes; leave one of both out")
    if threshold is None:
        rules = {"binary": binary_mask, "instances": numbered_mask}
        rule = rules.get(labels, partial(class_mask, classes=classes))
        return partial(rule, values=mask_values)
    if labels == "instances":
        raise DataError(
            f"{other}: labels=instances are object numbers, which have none; leave one of both out"
        )
    number = threshold if isinstance(threshold, int | float) else math.nan
    if isinstance(threshold, bool) or not math.isfinite(number):
        raise DataError(f"{other}: expected a number, such as 127")
    return partial(threshold_mask, above=float(number), values=mask_values)
