"""Loading one case: image and label, checked against each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg_monai.data.image import Channels, Image, convert_channels
from metaseg_monai.data.readers import read_image, same_affine
from metaseg_monai.errors import DataError


class DataWarning(UserWarning):
    """Something about an image that is allowed but seldom meant, such as one constant value."""


class LoadedCase(NamedTuple):
    """A case as a network can take it.

    Attributes:
        image: (C, *S) float32, finite, channels as asked for.
        label: (1, *S) classes, uint8 (int64 beyond 256 classes), or None where there is none.
        attributes: of the image file, see `Image`.
        remarks: what is allowed but seldom meant, in words.
    """

    image: np.ndarray
    label: np.ndarray | None
    attributes: dict[str, Any]
    remarks: tuple[str, ...]


def load_case(
    item: Mapping[str, Any],
    channels: Channels = "stored",
    classes: int = 2,
    spatial_dims: int | None = None,
    axes: str | None = None,
    image_key: str = "image",
    label_key: str = "label",
) -> LoadedCase:
    """Read the image of an item, and its label where it has one.

    Args:
        item: with a path (or plane paths) under `image_key`, maybe a path under `label_key`,
            `case` for messages, and maybe `label_values`: the pixel values that become class 1
            while all others become 0, or "instances": all above 0. Without, the label's values
            are the classes.
        channels: see `convert_channels`.
        classes: number of classes, background included; labels lie in 0..classes-1.
        spatial_dims: see `read_image`.
        axes: see `read_image`; for the image only.
        image_key: key of the image.
        label_key: key of the label.

    Raises:
        DataError: a file cannot be read, pixels are not finite, or the label's shape, affine or
            values do not fit; names case and file.
    """
    if classes < 2:
        raise DataError(f"classes={classes}: expected 2 or more, background included")
    case = str(item.get("case", ""))
    try:
        image = read_image(item[image_key], spatial_dims, axes)
        pixels = _finite_float32(convert_channels(image.array, channels), image.attributes["path"])
        label = None
        if label_key in item:
            label = _read_label(
                item[label_key], image, len(pixels.shape) - 1, classes, item.get("label_values")
            )
    except DataError as error:
        raise DataError(f"case {case!r}: {error}" if case else str(error)) from error
    remarks = []
    if pixels.min() == pixels.max():
        remarks.append(
            f"case {case!r}: {image.attributes['path']}: every pixel is {pixels.flat[0]:g}; "
            "an image without contrast; remove the row if that is not meant"
        )
    return LoadedCase(pixels, label, image.attributes, tuple(remarks))


def _finite_float32(array: np.ndarray, path: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # beyond float32's range becomes inf, refused below
        pixels = np.ascontiguousarray(array, dtype=np.float32)
    broken = int(pixels.size - np.count_nonzero(np.isfinite(pixels)))
    if broken:
        raise DataError(
            f"{path}: {broken} of {pixels.size} pixels are not finite numbers; mend the image or "
            "remove the row"
        )
    return pixels


def _read_label(
    path: str | Path,
    image: Image,
    spatial_dims: int,
    classes: int,
    foreground: list[int] | str | None,
) -> np.ndarray:
    label = read_image(path, spatial_dims, palette="indices")
    if label.array.shape != (1, *image.array.shape[1:]):
        raise DataError(
            f"{path}: label of {label.array.shape[0]} channel(s) and shape "
            f"{label.array.shape[1:]}, expected one channel and {image.array.shape[1:]} as its "
            "image; save the classes as one channel on the image's grid"
        )
    if not same_affine(label.attributes["affine"], image.attributes["affine"]):
        raise DataError(
            f"{path}: the label's affine differs from its image's "
            f"({image.attributes['path']}); resample the label onto the image's grid"
        )
    values, counts = np.unique(label.array, return_counts=True)
    whole = values.dtype.kind != "f" or bool(np.all(np.isfinite(values) & (values % 1 == 0)))
    if not whole:
        first = next(value for value in values if not float(value).is_integer())
        raise DataError(f"{path}: label value {first:g}; expected whole numbers; save it anew")
    if foreground == "instances" and values.min() >= 0:
        return np.ascontiguousarray(label.array > 0, dtype=np.uint8)
    if isinstance(foreground, list):
        return np.ascontiguousarray(np.isin(label.array, foreground), dtype=np.uint8)
    outside = (values < 0) | (values >= classes)
    if outside.any():
        found = ", ".join(
            f"{value:g} ({count} px)"
            for value, count in zip(values[outside][:5].tolist(), counts[outside], strict=False)
        )
        raise DataError(
            f"{path}: label values {found}, expected 0..{classes - 1}; set classes, or list the "
            "values that are foreground as label_values in the column map"
        )
    classes_type = np.uint8 if classes <= 256 else np.int64
    return np.ascontiguousarray(label.array, dtype=classes_type)
