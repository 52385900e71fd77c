"""Single objects: made of masks of classes, matched with true ones, and measured."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.sparse import coo_array, csr_array
from skimage.feature import peak_local_max
from skimage.measure import regionprops
from skimage.segmentation import watershed

from metaseg_monai.errors import ConfigError, DataError

# Objects are connected components of the classes, or a watershed of them.

Method = Literal["components", "watershed"]
TOUCHING = np.ones((3, 3), dtype=bool)  # by edges or corners: 8 neighbours
BAND = 512  # rows at once, so that no 64-bit copy of a whole slide is made


@dataclass(frozen=True)
class ObjectSettings:
    """How objects are made of a mask.

    Attributes:
        method: "components": pixels that touch by edge or corner are one object; "watershed":
            each component is cut between its peaks.
        smallest_px: objects of fewer pixels are left out.
        min_distance_px: peaks of one component's distance to its edge are at least this far apart,
            in rows or columns.

    Raises:
        ConfigError: a value is wrong; names it.
    """

    method: Method = "components"
    smallest_px: int = 1
    min_distance_px: int = 5

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            known = ", ".join(get_args(Method))
            raise ConfigError(f"objects: method is {self.method!r}; expected one of {known}")
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
    known = ", ".join(field.name for field in fields(ObjectSettings))
    if settings is not None and not isinstance(settings, Mapping):
        raise ConfigError(
            f"objects is {settings!r}; expected settings of {known}, as "
            '{"method": "watershed", "smallest_px": 12}, or null'
        )
    if unknown := sorted(map(str, set(settings or {}) - set(known.split(", ")))):
        raise ConfigError(f"objects: unknown key {', '.join(map(repr, unknown))}; expected {known}")
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


def number_objects(mask: np.ndarray, classes: int, settings: ObjectSettings) -> Objects:
    """The objects of every foreground class of a mask (H, W), those of lower classes first."""
    labels: np.ndarray | None = None
    owners: list[int] = []
    for number in range(1, classes):
        # of the only class of a slide no copies are made
        own = mask.view(bool) if classes == 2 and mask.dtype == np.uint8 else mask == number
        found, count = split_objects(own, settings)
        if labels is None:
            labels = found
        else:
            np.add(found, len(owners), out=labels, where=found > 0)
        owners += [number] * count
    return Objects(np.asarray(labels), np.array(owners, dtype=np.int64))


def split_objects(mask: np.ndarray, settings: ObjectSettings) -> tuple[np.ndarray, int]:
    """Number the objects of a mask (H, W) bool: int32 from 1 without gaps, and how many."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    count = int(ndimage.label(mask, TOUCHING, output=labels))
    if settings.method == "watershed":
        count = _cut(labels, settings.min_distance_px)
    large = object_areas(labels, count) >= settings.smallest_px
    return (labels, count) if large.all() else (_kept(labels, large), int(large.sum()))


def object_areas(labels: np.ndarray, count: int) -> np.ndarray:
    """Pixels of each of the objects 1 to `count` of labels (H, W)."""
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


def _cut(labels: np.ndarray, min_distance_px: int) -> int:
    """Cut components between their peaks, in place; return the number of objects.

    Each component is looked at in its own box. Distances are those of the whole mask: the nearest
    pixel that is not of a component is background, as components that touch are one.
    """
    boxes = ndimage.find_objects(labels)
    count = len(boxes)
    for number, (rows, columns) in enumerate(boxes, start=1):
        sides = (rows.stop - rows.start, columns.stop - columns.start)
        if max(sides) <= min_distance_px:  # two peaks have no room
            continue
        box = (slice(max(rows.start - 1, 0), rows.stop + 1),
               slice(max(columns.start - 1, 0), columns.stop + 1))  # fmt: skip
        part = labels[box]
        own = part == number
        if own.all():  # the image is one object, which has no edge
            continue
        heights = np.asarray(ndimage.distance_transform_edt(own))
        peaks = peak_local_max(heights, min_distance=min_distance_px, exclude_border=False)
        if len(peaks) < 2:
            continue
        markers = np.zeros(own.shape, dtype=np.int32)
        markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        pieces = watershed(-heights, markers, TOUCHING, mask=own)
        part[own] = np.where(pieces == 1, number, count + pieces - 1)[own]
        count += len(peaks) - 1
    return count


# Which predicted object is which true one, and how many were found, split and merged.

THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)  # 0.9 is 9 / 10 exactly


class Overlaps(NamedTuple):
    """Areas of true and predicted objects, and of every pair that shares a pixel.

    Attributes:
        true_px: (T,) pixels of each true object.
        pred_px: (P,) pixels of each predicted object.
        true: (N,) place of the true object of each pair.
        pred: (N,) place of its predicted object.
        shared_px: (N,) pixels of both.
    """

    true_px: np.ndarray
    pred_px: np.ndarray
    true: np.ndarray
    pred: np.ndarray
    shared_px: np.ndarray

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each pair (N,)."""
        both = self.true_px[self.true] + self.pred_px[self.pred]
        return np.asarray(self.shared_px / (both - self.shared_px))


class ObjectMatch(NamedTuple):
    """Counts of one image and class.

    Attributes:
        true: objects of the truth.
        pred: predicted objects.
        found: matched pairs at each of `THRESHOLDS`.
        matched_iou: mean IoU of the pairs matched at 0.5; NaN without any.
        splits: true objects that were predicted in parts, see `match_objects`.
        merges: predicted objects that join several true ones.
        ignored: true objects that are smaller than those looked for; in no other count.
    """

    true: int
    pred: int
    found: tuple[int, ...]
    matched_iou: float
    splits: int
    merges: int
    ignored: int = 0


def match_objects(true: np.ndarray, pred: np.ndarray, smallest_px: int = 1) -> ObjectMatch:
    """Compare the objects of an image with the true ones.

    A pair matches at an IoU of the threshold or above, each object once, as in StarDist (Schmidt
    et al. 2018); of the Data Science Bowl 2018 it differs by counting the threshold itself.
    A split is a true object in which two or more predicted objects lie, each with more than half
    of its own pixels; a merge is a predicted object in which two or more true ones lie so.

    Where predictions leave small objects out, the truth must not count them: true objects of fewer
    pixels than `smallest_px` are ignored, and with them each predicted object that reaches an IoU
    of 0.5 with one, or that lies in them with more than half of its pixels.

    Args:
        true: (H, W) whole numbers, 0 background, objects 1 to T without gaps.
        pred: (H, W) likewise.
        smallest_px: of the predicted objects, see `ObjectSettings`.

    Raises:
        DataError: the shapes differ.

    >>> match_objects(np.array([[1, 1, 1, 0, 2]]), np.array([[1, 1, 0, 0, 0]])).found[:4]
    (1, 1, 1, 1)
    """
    every = overlaps(true, pred)
    pairs = without_small(every, smallest_px)
    iou = pairs.iou
    at_half = match_pairs(pairs, THRESHOLDS[0])
    return ObjectMatch(
        true=len(pairs.true_px),
        pred=len(pairs.pred_px),
        found=tuple(len(match_pairs(pairs, threshold)) for threshold in THRESHOLDS),
        matched_iou=float(iou[at_half].mean()) if len(at_half) else float("nan"),
        splits=_hosts(pairs.true, 2 * pairs.shared_px > pairs.pred_px[pairs.pred]),
        merges=_hosts(pairs.pred, 2 * pairs.shared_px > pairs.true_px[pairs.true]),
        ignored=len(every.true_px) - len(pairs.true_px),
    )


def overlaps(true: np.ndarray, pred: np.ndarray) -> Overlaps:
    """Count the pixels of all pairs that overlap; the others take no memory.

    Arguments and errors are those of `match_objects`.
    """
    if true.shape != pred.shape:
        raise DataError(
            f"true objects of shape {true.shape}, predicted ones of {pred.shape}; evaluate whole "
            "images on the grid of their labels"
        )
    shape = (int(true.max(initial=0)), int(pred.max(initial=0)))
    counted = csr_array(shape, dtype=np.int64)
    for rows in bands(len(true)):
        both = (true[rows] > 0) & (pred[rows] > 0)
        places = (true[rows][both].astype(np.int64) - 1, pred[rows][both].astype(np.int64) - 1)
        counted = counted + coo_array((np.ones(len(places[0]), np.int64), places), shape).tocsr()
    pairs = counted.tocoo()
    areas = object_areas(true, shape[0]), object_areas(pred, shape[1])
    return Overlaps(*areas, pairs.row, pairs.col, pairs.data)


def without_small(pairs: Overlaps, smallest_px: int) -> Overlaps:
    """The pairs without small true objects and the predicted ones that stand for them.

    A predicted object that reaches an IoU of 0.5 with a larger true one always stays.

    >>> pairs = overlaps(np.array([[1, 1, 1, 0, 2]]), np.array([[1, 1, 1, 2, 2]]))
    >>> [len(places) for places in without_small(pairs, 2)[:2]]
    [1, 1]
    """
    small = pairs.true_px < smallest_px
    of_small = small[pairs.true]
    inside = np.zeros_like(pairs.pred_px)
    np.add.at(inside, pairs.pred[of_small], pairs.shared_px[of_small])
    gone = 2 * inside > pairs.pred_px
    gone[pairs.pred[of_small & (pairs.iou >= THRESHOLDS[0])]] = True
    kept = ~of_small & ~gone[pairs.pred]
    return Overlaps(
        pairs.true_px[~small],
        pairs.pred_px[~gone],
        (np.cumsum(~small) - 1)[pairs.true[kept]],
        (np.cumsum(~gone) - 1)[pairs.pred[kept]],
        pairs.shared_px[kept],
    )


def match_pairs(pairs: Overlaps, threshold: float) -> np.ndarray:
    """Places of the pairs that are matched at an IoU from 0.5, every object at most once.

    From 0.5 an object has one partner, or two that are its exact halves, of which either serves.
    """
    good = np.flatnonzero(pairs.iou >= threshold)
    for side in (pairs.true, pairs.pred):
        good = good[np.unique(side[good], return_index=True)[1]]
    return good


def object_f1(found: float, true: float, pred: float) -> float:
    """F1 of objects: 2 found / (true + pred); NaN where there are none at all.

    >>> object_f1(1, 2, 2), object_f1(0, 0, 3)
    (0.5, 0.0)
    """
    return 2 * found / (true + pred) if true + pred else float("nan")


def _hosts(host: np.ndarray, inside: np.ndarray) -> int:
    """How many objects hold two or more others."""
    return int((np.bincount(host[inside]) >= 2).sum())


# Size, shape and intensity of every object of an image.

LENGTHS = {
    "diameter": "equivalent_diameter_area",
    "perimeter": "perimeter",
    "major_axis": "axis_major_length",
    "minor_axis": "axis_minor_length",
}
INTENSITIES = {"mean": "mean", "sd": "std", "min": "min", "max": "max"}
DECIMALS = 4


def measure_objects(objects: Objects, image: np.ndarray, pixel_um: float | None) -> pd.DataFrame:
    """Measure every object, one after the other, so that a whole slide needs no further copy.

    Shapes are those of scikit-image's `regionprops`: diameter of the disc of equal area,
    perimeter (0 for a single pixel), axes of the ellipse of equal moments, its eccentricity, and
    solidity, the share of the convex hull that is filled. The centroid is that of the pixels,
    whose centres have whole coordinates, from 0 of the upper left one.

    Args:
        objects: of the image.
        image: (C, H, W) as the file stores it, whose intensities are measured.
        pixel_um: side of a pixel in micrometres; None leaves the columns in micrometres empty.

    Returns:
        A row an object, in the order of their numbers: `object`, `class`, `centroid_y_px`,
        `centroid_x_px`, `area_px`, lengths, `eccentricity`, `solidity`, `touches_border`, mean,
        sd, min and max intensity (of several channels each with its number, from 1), and sizes in
        micrometres.

    Raises:
        DataError: the image has another shape.
    """
    shape = objects.labels.shape
    if image.shape[1:] != shape:
        raise DataError(
            f"the image has the shape {image.shape[1:]}, its objects {shape}; measure objects in "
            "whole images rather than crops"
        )
    regions = regionprops(objects.labels)
    rows = []
    for place, region in enumerate(regions):
        regions[place] = None  # with all that scikit-image keeps of it
        rows.append(_measured(region, shape, image))
    table = pd.DataFrame(rows, columns=None if rows else list(_no_row(image)))
    table.insert(1, "class", objects.classes[table["object"].to_numpy(dtype=np.int64) - 1])
    return _with_micrometres(table, pixel_um)


def _measured(region: Any, shape: tuple[int, ...], image: np.ndarray) -> dict[str, Any]:
    top, left, bottom, right = region.bbox
    y, x = region.centroid
    row = {"object": region.label, "centroid_y_px": y, "centroid_x_px": x}
    row["area_px"] = int(region.area)
    row |= {f"{name}_px": getattr(region, known) for name, known in LENGTHS.items()}
    row["eccentricity"] = region.eccentricity
    row["solidity"] = region.solidity
    row["touches_border"] = int(top == 0 or left == 0 or bottom == shape[0] or right == shape[1])
    for number, channel in enumerate(image, start=1):
        pixels = channel[region.slice][region.image].astype(np.float64)
        suffix = f"_{number}" if len(image) > 1 else ""
        row |= {f"{k}_intensity{suffix}": getattr(pixels, of)() for k, of in INTENSITIES.items()}
    return row


def _no_row(image: np.ndarray) -> dict[str, Any]:
    """The columns of an image without objects, as those of one with an object."""
    (pixel,) = regionprops(np.ones((1, 1), dtype=np.int32))
    return _measured(pixel, (1, 1), np.zeros((len(image), 1, 1)))


def _with_micrometres(table: pd.DataFrame, pixel_um: float | None) -> pd.DataFrame:
    side = float("nan") if pixel_um is None else pixel_um
    lengths = ("centroid_y", "centroid_x", *LENGTHS)
    sizes = {f"{name}_um": table[f"{name}_px"].astype(float) * side for name in lengths}
    sizes["area_um2"] = table["area_px"].astype(float) * side**2
    return table.assign(**sizes).round(DECIMALS)
