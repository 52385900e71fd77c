"""From predicted class scores to single objects: connected components, or a watershed of them."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed
from torch import Tensor

from metaseg_monai.errors import ConfigError, DataError

Method = Literal["components", "watershed"]
Landscape = Literal["distance", "probability"]
Box = tuple[slice, slice]
Odds = Callable[[Box], np.ndarray]

TOUCHING = np.ones((3, 3), dtype=bool)  # by edges or corners: 8 neighbours
BAND = 512  # rows at once, so that no 64-bit copy of a whole slide is made


@dataclass(frozen=True)
class ObjectSettings:
    """How objects are made of a mask.

    Attributes:
        method: "components": pixels that touch by edge or corner are one object; "watershed":
            each component is cut between its peaks.
        smallest_px: objects of fewer pixels are left out.
        min_distance_px: peaks of one component are at least this far apart, in rows or columns.
        landscape: of the watershed: "distance" to the component's edge; "probability" of its
            class, smoothed by a Gaussian of half of `min_distance_px`.

    Raises:
        ConfigError: a value is wrong; names it.
    """

    method: Method = "components"
    smallest_px: int = 1
    min_distance_px: int = 5
    landscape: Landscape = "distance"

    def __post_init__(self) -> None:
        for name, kind in (("method", Method), ("landscape", Landscape)):
            if getattr(self, name) not in get_args(kind):
                raise ConfigError(
                    f"objects: {name} is {getattr(self, name)!r}; expected one of "
                    f"{', '.join(get_args(kind))}"
                )
        for name in ("smallest_px", "min_distance_px"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(
                    f"objects: {name} is {value!r}; expected a whole number of pixels from 1"
                )


def as_object_settings(settings: ObjectSettings | Mapping[str, Any] | None) -> ObjectSettings:
    """The settings themselves, from a bundle's mapping, or connected components for None.

    Raises:
        ConfigError: an unknown key or a wrong value; names it.

    >>> as_object_settings({"method": "watershed"}).min_distance_px
    5
    """
    if isinstance(settings, ObjectSettings):
        return settings
    known = [field.name for field in fields(ObjectSettings)]
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError(
            f"objects is {settings!r}; expected settings of {', '.join(known)}, as "
            '{"method": "watershed", "smallest_px": 12}, or null'
        )
    if unknown := sorted(map(str, set(settings or {}) - set(known))):
        raise ConfigError(
            f"objects: unknown key {', '.join(map(repr, unknown))}; expected {', '.join(known)}"
        )
    return ObjectSettings(**(settings or {}))


class Objects(NamedTuple):
    """The objects of one image.

    Attributes:
        labels: (H, W) int32, 0 background, objects 1 to N without gaps.
        classes: (N,) int64, class of each object.
    """

    labels: np.ndarray
    classes: np.ndarray

    def of_class(self, number: int) -> np.ndarray:
        """The objects of one class (H, W) int32, numbered anew without gaps."""
        own = self.classes == number
        return self.labels if own.all() else _kept(self.labels.copy(), own)


def find_objects(logits: Tensor, settings: ObjectSettings) -> Objects:
    """The objects of every foreground class of an image, those of lower classes first.

    Args:
        logits: (K, H, W) of K classes, class 0 the background; each pixel is of its highest.
        settings: how they are made.

    Raises:
        DataError: the logits are not those of an image.
    """
    if logits.ndim != 3 or len(logits) < 2:
        raise DataError(
            f"class scores of shape {tuple(logits.shape)}; objects are made of (classes, rows, "
            "columns) with two classes or more: switch objects off for volumes"
        )
    classes = class_map(logits)
    odds = logits.detach().cpu() if settings.landscape == "probability" else None
    labels: np.ndarray | None = None
    owners: list[int] = []
    for number in range(1, len(logits)):
        of_class = None if odds is None else _log_odds(odds, number)
        mask = classes.view(bool) if len(logits) == 2 else classes == number  # a view is no copy
        found, count = split_objects(mask, settings, of_class)
        if labels is None:
            labels = found
        else:
            np.add(found, len(owners), out=labels, where=found > 0)
        owners += [number] * count
    return Objects(np.asarray(labels), np.array(owners, dtype=np.int64))


def class_map(logits: Tensor) -> np.ndarray:
    """The class (H, W) of the highest of logits (K, H, W), the lower one where two are equal."""
    kind = torch.uint8 if len(logits) <= 256 else torch.int32
    classes = torch.zeros(logits.shape[1:], dtype=kind)
    for rows in bands(len(classes)):
        best = logits[0, rows].cpu()
        for number in range(1, len(logits)):  # on a CPU much faster than argmax over the classes
            score = logits[number, rows].cpu()
            classes[rows].masked_fill_(score > best, number)
            best = torch.maximum(best, score)
    return np.asarray(classes.numpy())


def split_objects(
    mask: np.ndarray, settings: ObjectSettings, odds: Odds | None = None
) -> tuple[np.ndarray, int]:
    """Number the objects of a mask.

    Args:
        mask: (H, W) bool.
        settings: how objects are made.
        odds: gives the log-odds of the class in a box of the image, for landscape "probability".

    Returns:
        (H, W) int32 with the objects 1 to N without gaps, and N.
    """
    labels = np.zeros(mask.shape, dtype=np.int32)
    count = int(ndimage.label(mask, TOUCHING, output=labels))
    if settings.method == "watershed":
        count = _cut(labels, settings, odds)
    large = object_areas(labels, count) >= settings.smallest_px
    return (labels, count) if large.all() else (_kept(labels, large), int(large.sum()))


def object_areas(labels: np.ndarray, count: int) -> np.ndarray:
    """Pixels of each of the objects 1 to `count` of labels (H, W).

    >>> object_areas(np.array([[1, 1, 0], [0, 2, 2]]), 3).tolist()
    [2, 2, 0]
    """
    areas = np.zeros(count + 1, dtype=np.int64)
    for rows in bands(len(labels)):
        areas += np.bincount(labels[rows].ravel(), minlength=count + 1)
    return areas[1:]


def bands(height: int) -> Iterator[slice]:
    """Slices of rows that make up a height."""
    return (slice(start, min(start + BAND, height)) for start in range(0, height, BAND))


def _kept(labels: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The labels, changed in place, with only the objects to keep, numbered anew."""
    numbers = np.zeros(len(keep) + 1, dtype=labels.dtype)
    numbers[1:][keep] = np.arange(1, keep.sum() + 1)
    for rows in bands(len(labels)):
        labels[rows] = numbers[labels[rows]]
    return labels


def _log_odds(logits: Tensor, number: int) -> Odds:
    """Log-odds of a class: in the order of its probability, but never all 1 where it is sure."""

    def within(box: Box) -> np.ndarray:
        crop = logits[(slice(None), *box)].float()
        others = torch.cat([crop[:number], crop[number + 1 :]]).logsumexp(0)
        return np.nan_to_num((crop[number] - others).numpy())

    return within


def _cut(labels: np.ndarray, settings: ObjectSettings, odds: Odds | None) -> int:
    """Cut components between their peaks, in place; return the number of objects.

    Each component is looked at in its own box. Distances are those of the whole mask: the nearest
    pixel that is not of a component is background, as components that touch are one.
    """
    boxes = ndimage.find_objects(labels)
    count = len(boxes)
    for number, (rows, columns) in enumerate(boxes, start=1):
        sides = (rows.stop - rows.start, columns.stop - columns.start)
        if max(sides) <= settings.min_distance_px:  # two peaks have no room
            continue
        box = (slice(max(rows.start - 1, 0), rows.stop + 1),
               slice(max(columns.start - 1, 0), columns.stop + 1))  # fmt: skip
        part = labels[box]
        own = part == number
        heights = _heights(own, box, settings, odds)
        peaks = peak_local_max(heights, min_distance=settings.min_distance_px, exclude_border=False)
        if len(peaks) < 2:
            continue
        markers = np.zeros(own.shape, dtype=np.int32)
        markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        pieces = watershed(-heights, markers, TOUCHING, mask=own)
        part[own] = np.where(pieces == 1, number, count + pieces - 1)[own]
        count += len(peaks) - 1
    return count


def _heights(own: np.ndarray, box: Box, settings: ObjectSettings, odds: Odds | None) -> np.ndarray:
    """The landscape of one component; lower than the whole component outside of it."""
    if odds is None and own.all():  # the image is one object, which has no edge
        return np.zeros(own.shape)
    if odds is None:
        return np.asarray(ndimage.distance_transform_edt(own))
    smooth = ndimage.gaussian_filter(odds(box), settings.min_distance_px / 2)
    return np.where(own, smooth, smooth[own].min() - 1)
