"""What is done to an image before a network sees it: even light, one pixel size, values in 0..1.

Each is a component of a bundle's `preprocessing` list. In it `ResampleToSpacingd` stands behind
`FlatFieldd` and before the scaling, which is either of `ScaleIntensityCased` (a stated range) and
`ScaleIntensityBy` (percentiles of the image or of its plate).
"""

import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type
from pydantic import TypeAdapter, ValidationError
from scipy.ndimage import gaussian_filter

from metaseg_monai.errors import ConfigError, DataError, DataWarning
from metaseg_monai.files import write_json
from metaseg_monai.images.geometry import resampled_shape, resize_image, resize_label
from metaseg_monai.images.image import Channels
from metaseg_monai.images.lazy import LazyTensor
from metaseg_monai.images.read import read_image
from metaseg_monai.metadata.fields import says_nothing
from metaseg_monai.tables.check import load_case
from metaseg_monai.tables.table import OF_LABELS, CaseTable
from metaseg_monai.transforms.load import MOMENTS, STORED, named, on_grid

Data = Mapping[Hashable, Any]
Ranges = list[list[float]]

ESTIMATE = "estimate"
IMAGE = "image"
TRAINED = "trained"  # statistics that come with the weights
PERCENTILES = (0.5, 99.5)
PIXELS_OF_AN_IMAGE = 1 << 18  # read of each for the percentiles of its group


class FlatFieldd(MapTransform):
    """Divide the image of an item by its illumination; each channel keeps its mean.

    The illumination is either a reference, an image of an empty field taken with the same optics,
    or an estimate: the image itself after a Gaussian so wide that objects vanish in it. Where a
    large part of the image is object, the estimate takes some of the object for illumination, so
    a reference is better. Pixels may become brighter than the sensor's range: scale by percentiles
    afterwards, or cut them (`clip`).

    Args:
        reference: path of the reference image, whose planes are as large as those of the images
            and which has one channel or as many as they; or "estimate".
        sigma_px: standard deviation of the Gaussian of the estimate, in pixels; several times the
            largest object. Not used with a reference.

    Raises:
        ConfigError: `sigma_px` is not above 0.
        DataError: the reference cannot be read or has a pixel that is not above 0. When called:
            image and reference differ in shape, or the estimate is not above 0 somewhere; names
            case and file.
    """

    def __init__(self, reference: str | Path, sigma_px: float = 100.0) -> None:
        super().__init__("image")
        if not 0 < sigma_px < float("inf"):
            raise ConfigError(
                f"sigma_px={sigma_px!r}: expected pixels above 0, several times an object's size"
            )
        self.sigma_px = sigma_px
        self.path = None if reference == ESTIMATE else Path(reference)
        self.reference = None if self.path is None else _read_reference(self.path)

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return the item with the image (C, H, W) divided by its illumination."""
        image = data["image"]
        pixels = np.asarray(image, dtype=np.float64)
        flat = pixels / self._illumination(pixels, data)
        means = flat.mean(axis=(1, 2), keepdims=True)
        # A channel whose mean is 0 is black, or has it from pixels below 0: it stays as it is.
        factor = np.divide(
            pixels.mean(axis=(1, 2), keepdims=True), means, out=np.ones_like(means), where=means > 0
        )
        corrected = torch.as_tensor(flat * factor, dtype=torch.float32)
        return {**data, "image": convert_to_dst_type(corrected, torch.as_tensor(image))[0]}

    def _illumination(self, pixels: np.ndarray, data: Data) -> np.ndarray:
        meta = getattr(data["image"], "meta", {})
        where = f"{named(data)} ({meta.get('filename_or_obj', 'no file')})"
        if pixels.ndim != 3:
            raise DataError(f"{where}: shape {pixels.shape}, expected a plane (C, H, W)")
        if self.reference is not None:
            fits = self.reference.shape[1:] == pixels.shape[1:]
            if not fits or len(self.reference) not in (1, len(pixels)):
                raise DataError(
                    f"{where}: shape {pixels.shape}, but the reference {self.path} has "
                    f"{self.reference.shape}; take a reference of the same camera and binning, and "
                    "correct before resampling and cropping"
                )
            return self.reference
        light = gaussian_filter(pixels, (0, self.sigma_px, self.sigma_px), mode="nearest")
        if light.min() <= 0:
            raise DataError(
                f"{where}: black over an area wider than sigma_px={self.sigma_px:g}, so its "
                "illumination cannot be estimated; raise sigma_px, give a reference, or crop it"
            )
        return np.asarray(light)


def _read_reference(path: Path) -> np.ndarray:
    """The reference (C, H, W); its scale does not matter, as images keep their mean."""
    reference: np.ndarray = read_image(path, spatial_dims=2).array.astype(np.float64)
    dark = int(reference.size - np.count_nonzero(reference > 0))
    if dark or not np.isfinite(reference).all():
        raise DataError(
            f"{path}: {dark} of {reference.size} pixels of the flat-field reference are not above "
            "0 (or not finite), and an image cannot be divided by them; take the reference anew "
            "or replace dead pixels by their neighbours"
        )
    return reference


class ResampleToSpacingd(MapTransform):
    """Resample the planes of an item, image and label, to square pixels of one size.

    A size in mm, given as metadata, then means the same number of pixels in every image. The image
    is resampled linearly, with averaging where pixels become larger, and so is a label that is an
    image; classes are, by the nearest pixel. Of a volume that `LoadCased` turned each plane is
    resampled, as if it had come alone; volumes of a 3D network pass `AxialVolumed` instead.

    Args:
        spacing_mm: side of a pixel; None leaves every image as it is.

    Raises:
        ConfigError: `spacing_mm` is not above 0.
        DataError: (when called) the item has no `spacing_mm`, or its image would become too large
            for memory; names the case.
    """

    def __init__(self, spacing_mm: float | None) -> None:
        super().__init__(["image", "label", "mask"], allow_missing_keys=True)
        if spacing_mm is not None and not spacing_mm > 0:
            raise ConfigError(f"spacing_mm={spacing_mm!r}: expected mm above 0, or null for none")
        self.spacing_mm = spacing_mm

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return the item resampled, its `spacing_mm` new and its `native_shape` (H, W) kept.

        Of a volume (C, H, W, D), too, it is (H, W), by which `AsMaskd` knows that each plane was
        resampled by itself.
        """
        item = dict(data)
        if self.spacing_mm is None:
            return item
        if "spacing_mm" not in item:
            raise DataError(
                f"{named(item)}: its pixel size is unknown; give the columns spacing_y_mm and "
                "spacing_x_mm in the table, or set spacing_mm to null to take pixels as they are"
            )
        image = item["image"]
        stored = (int(image.shape[1]), int(image.shape[2]))
        z, y, x = item["spacing_mm"]
        try:
            shape = resampled_shape(stored, (y, x), self.spacing_mm)
        except DataError as error:
            path = image.meta.get("filename_or_obj", "") if isinstance(image, MetaTensor) else ""
            raise DataError(f"{named(item)}: {path}: {error}") from error
        item["native_shape"] = stored
        if shape != stored:
            item["spacing_mm"] = (z, y * stored[0] / shape[0], x * stored[1] / shape[1])
        for key in self.key_iterator(item):
            given = torch.as_tensor(item[key])
            resize = resize_image if key == "image" or given.is_floating_point() else resize_label
            batch = given[None] if given.ndim == 3 else given.movedim(-1, 0)  # of planes
            resized = resize(batch, shape)
            resized = resized[0] if given.ndim == 3 else resized.movedim(0, -1)
            meta = item[key].meta if isinstance(item[key], MetaTensor) else None
            plain = resized.as_tensor() if isinstance(resized, MetaTensor) else resized
            item[key] = plain if meta is None else MetaTensor(plain, meta=meta)
        return item


class ScaleIntensityCased(MapTransform):
    """Scale a stated range of pixel values to [0, 1], and refuse pixels outside it.

    An image of another bit depth than the range was made for would otherwise be cut to white
    without a word.

    Args:
        intensity_range: lowest and highest pixel value, which become 0 and 1.
        clip: cut values outside the range instead of refusing them, as for a window of CT values.

    Raises:
        ConfigError: the range is not ordered.
        DataError: (when called) a pixel lies outside the range, or the image has 8 bits, or
            fractions of 1, and the range is that of more; names case and values.

    Warns:
        DataWarning: (when called) the whole image lies in the lowest 1/256 of the range, or of one
            that is cut (`clip`) within a hundredth.
    """

    takes_lazy = True

    def __init__(self, intensity_range: Sequence[float], clip: bool = False) -> None:
        super().__init__("image")
        self.low, self.high = map(float, intensity_range)
        if not self.low < self.high:
            raise ConfigError(f"intensity_range must be lowest, highest; got {intensity_range}")
        self.clip = clip

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return the item with the scaled image."""
        image = data["image"]
        lowest, highest = float(image.min()), float(image.max())
        if not self.clip and not self.low <= lowest <= highest <= self.high:
            raise DataError(
                f"{named(data)}: pixels from {lowest:g} to {highest:g} lie "
                f"outside intensity_range [{self.low:g}, {self.high:g}]; set intensity_range to "
                "that of your images (65535 for 16 bits), or clip of ScaleIntensityCased to cut "
                "them"
            )
        stored = str(getattr(image, "meta", {}).get(STORED, ""))
        fractions = stored.startswith("float") and 0 <= lowest < highest <= 1
        if fractions and self.high >= 255:
            raise DataError(
                f"{named(data)}: pixels end at {highest:g}, intensity_range at {self.high:g}; set "
                "intensity_range to that of your images ([0, 1] for numbers of 0 to 1)"
            )
        dark = highest - self.low <= (self.high - self.low) / 256
        if dark and not self.clip and lowest < highest:  # constant images are told when loaded
            told = (
                f"{named(data)}: pixels end at {highest:g}, intensity_range at {self.high:g}; set "
                "intensity_range to that of your images"
            )
            if stored == "uint8" and self.high > 255:
                raise DataError(f"{told} ([0, 255] for 8 bits)")
            warnings.warn(told + ", if it is not just dark", DataWarning, stacklevel=2)
        within = self.low <= lowest < highest <= self.high
        if self.clip and within and highest - lowest <= (self.high - self.low) / 100:
            warnings.warn(
                f"{named(data)}: pixels lie from {lowest:g} to {highest:g}, hardly any of "
                f"intensity_range [{self.low:g}, {self.high:g}]; set intensity_range to that of "
                "your images",
                DataWarning,
                stacklevel=2,
            )
        lazy = isinstance(image, LazyTensor)
        return {**data, "image": image.mapped(self._scaled) if lazy else self._scaled(image)}

    def _scaled(self, image: torch.Tensor) -> torch.Tensor:
        scaled = image.to(torch.float32) - self.low  # in one new tensor: images may be large
        scaled /= self.high - self.low
        return scaled.clamp_(0.0, 1.0) if self.clip else scaled


class NormalizeVolumed(MapTransform):
    """Give an image mean 0 and deviation 1, each channel by those of the whole volume.

    A plane is scaled as the volume that it is of would be, so that air stays dark in it, and the
    same comes of planes one by one and of a volume at once. `LoadCased(moments=True)` stands before
    it and tells both numbers. A channel without contrast becomes 0.

    Raises:
        ConfigError: (when called) nothing tells the moments of the image.
    """

    own_scale = True

    def __init__(self) -> None:
        super().__init__("image")

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return the item with the scaled image (C, *S), float32."""
        image = data["image"]
        told = getattr(image, "meta", {}).get(MOMENTS)
        if told is None:
            raise ConfigError(
                f"{named(data)}: NormalizeVolumed needs LoadCased with moments=True before it"
            )
        scaled = image.to(torch.float32, copy=True)  # else maybe of a kept volume
        for channel, (mean, deviation) in enumerate(told):
            scaled[channel] = (scaled[channel] - mean) / (deviation or 1.0)
        return {**data, "image": scaled}


@dataclass(frozen=True)
class IntensityStatistics:
    """Dark and bright pixel values of every group of images, such as the plates of a screen.

    Attributes:
        by: column of the table whose values are the groups.
        percentiles: (low, high) in 0..100 of all pixels of a group.
        ranges: value of the column -> (C, 2) the pixel values at both percentiles, by channel.
        images: value of the column -> number of images measured.
    """

    by: str
    percentiles: tuple[float, float]
    ranges: Mapping[str, Ranges]
    images: Mapping[str, int] = field(default_factory=dict)

    def save(self, path: str | Path) -> Path:
        """Write as JSON, whole or not at all."""
        write_json(path, asdict(self), indent=1)
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "IntensityStatistics":
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing or holds no such statistics.
        """
        try:
            read = TypeAdapter(cls).validate_json(Path(path).read_bytes())
        except (OSError, ValidationError) as error:
            raise DataError(
                f"{path}: no intensity statistics ({error!r}); compute them with "
                "intensity_statistics"
            ) from error
        _check_percentiles(read.percentiles)
        return read


def beside(table: CaseTable, file: str) -> IntensityStatistics:
    """Read the statistics that `prepare` or `generate` has written beside a table.

    Raises:
        DataError: as `IntensityStatistics.load`.
    """
    return IntensityStatistics.load(table.path.with_name(file))


def intensity_statistics(
    items: Iterable[Mapping[str, Any]],
    by: str,
    percentiles: Sequence[float] = PERCENTILES,
    channels: Channels = "stored",
    flat_field: Callable[[Data], Data] | None = None,
) -> IntensityStatistics:
    """Measure the dark and bright pixel values of each group of images, without their labels.

    The images of all splits are measured, each group by its own: a plate's illumination is known
    when its images are, and no label is read. Of large images every n-th row and column is taken,
    so that each counts with about the same number of pixels (at most 2**18).

    Args:
        items: rows of a table (`CaseTable.rows`) or cases to predict; an image that is in several
            is read once.
        by: column of the table, such as plate.
        percentiles: low and high, in 0..100, taken over all pixels of a group.
        channels: as in `LoadCased`.
        flat_field: what is done to an image before it is scaled (`FlatFieldd`), if anything.

    Raises:
        ConfigError: the percentiles are not ordered.
        DataError: an image cannot be read, a case has no value in the column, images of a group
            differ in channels, or a group has no contrast.
    """
    low, high = _check_percentiles(percentiles)
    groups: dict[str, dict[str, Mapping[str, Any]]] = {}
    for item in items:
        groups.setdefault(_value(item, by), {}).setdefault(str(item["image"]), item)
    ranges: dict[str, Ranges] = {}
    for name, members in groups.items():
        pixels = [_sample(item, channels, flat_field) for item in members.values()]
        if len({len(sample) for sample in pixels}) > 1:
            raise DataError(
                f"{by} {name!r}: its images differ in their number of channels; set "
                "channels of LoadCased to grey or rgb"
            )
        found = np.percentile(np.concatenate(pixels, axis=1), (low, high), axis=1).T
        if bool((found[:, 0] >= found[:, 1]).any()):
            raise DataError(
                f"{by} {name!r}: the pixel values at the percentiles {low:g} and {high:g} are the "
                f"same ({found[:, 0].tolist()}); remove the empty images or widen the percentiles"
            )
        ranges[name] = found.tolist()
    counts = {name: len(members) for name, members in groups.items()}
    return IntensityStatistics(by, (low, high), ranges, counts)


class ScaleIntensityBy(MapTransform):
    """Scale dark to 0 and bright to 1, channel by channel, and cut what lies beyond.

    Dark and bright are percentiles of the image itself, or of all images of its group: with the
    first each image looks alike, with the second differences within a plate stay. An image that
    has no contrast between its percentiles becomes 0 (with "image").

    Args:
        by: "image", or the column of the table whose values are the groups, such as plate; several
            columns are joined by "/", as their values are.
        percentiles: low and high in 0..100; those of the statistics must be the same.
        statistics: of the groups, or their JSON file; "trained" for those of the training, which
            the weights bring (`LoadWeights`); None with "image".
        key: of what is scaled: "image", or "label" where that is an image, too.
        default: values of columns that an item may lack, such as {"channel": "nuclei"} of a network
            that predicts nothing else. A value of several, joined by ";", stands for the channels
            one after the other (`label_channels` of a column map).

    Raises:
        ConfigError: percentiles are not ordered, or the statistics are missing or of another
            column or percentiles.
        DataError: the file holds no statistics; (when called) the item has no value in the
            column, the statistics do not know it, or the channels differ; names the case.
    """

    def __init__(
        self,
        by: str,
        percentiles: Sequence[float] = PERCENTILES,
        statistics: IntensityStatistics | str | Path | None = None,
        key: Literal["image", "label"] = "image",
        default: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(key)
        self.key = key
        self.by = by
        self.default = dict(default or {})
        self.percentiles = _check_percentiles(percentiles)
        self.statistics: IntensityStatistics | None = None
        self.of_weights = statistics == TRAINED
        if self.of_weights and by != IMAGE:
            return
        if isinstance(statistics, (str, Path)):
            statistics = IntensityStatistics.load(statistics)
        if by == IMAGE and statistics is not None:
            raise ConfigError(
                f"by={by!r}: the image itself gives its percentiles; leave the statistics out"
            )
        if by != IMAGE and statistics is None:
            raise ConfigError(
                f"by={by!r}: expected the statistics of its groups; compute them with "
                "intensity_statistics"
            )
        if statistics is not None:
            self.know(statistics)

    @staticmethod
    def without_effect(arguments: Mapping[str, Any]) -> list[str]:
        """The arguments that say nothing of how it scales: where the statistics are kept."""
        return ["statistics", "default"]

    def know(self, statistics: IntensityStatistics) -> None:
        """Scale by these statistics from now on.

        Raises:
            ConfigError: they are of another column or percentiles.
        """
        if (statistics.by, statistics.percentiles) != (self.by, self.percentiles):
            raise ConfigError(
                f"by={self.by!r} with percentiles {self.percentiles}, but the statistics are "
                f"of {statistics.by!r} with {statistics.percentiles}; compute them anew"
            )
        self.statistics = statistics

    def __call__(self, data: Data) -> dict[Hashable, Any]:
        """Return the item with the image, or the label, (C, *S) in 0..1."""
        image = data[self.key]
        scaled = image.clone()
        for channel, (low, high) in enumerate(self._ranges(data, image)):
            width = high - low if high > low else float("inf")
            scaled[channel] = ((image[channel] - low) / width).clip(0.0, 1.0)
        return {**data, self.key: scaled}

    def learned(
        self, items: Iterable[Mapping[str, Any]], earlier: Iterable[str] = ()
    ) -> IntensityStatistics | None:
        """The statistics that weights bring, which a training on some items has learned.

        Of images all: one of another group can be scaled by what its own images tell. Of labels
        only those of the items' groups: nothing else was learned to be predicted.

        Args:
            items: of the training.
            earlier: groups that weights which it began with had learned.
        """
        told = self.statistics
        if told is None or self.key == "image":
            return told
        groups = {_value(one, self.by, self.default) for one in items}
        parts = {part for one in groups for part in ([one] if one in told.ranges else _each(one))}
        kept = [name for name in told.ranges if name in parts | set(earlier)]
        ranges = {name: told.ranges[name] for name in kept}
        images = {name: told.images[name] for name in kept if name in told.images}
        return replace(told, ranges=ranges, images=images)

    def back(self, data: Data, scaled: torch.Tensor) -> torch.Tensor:
        """Values in 0..1 as those that they are of: 0 becomes dark, 1 bright.

        Args:
            data: the item, which tells its group.
            scaled: (C, *S).

        Raises:
            ConfigError: each image has a scale of its own.
            DataError: as when an item is scaled.
        """
        if self.by == IMAGE:
            raise ConfigError(
                f"{named(data)}: an image that is yet to be predicted has no percentiles of its "
                "own; scale labels by a column, such as magnification"
            )
        ends = torch.tensor(self._ranges(data, scaled), dtype=torch.float64, device=scaled.device)
        low, high = (end.reshape(-1, *[1] * (scaled.ndim - 1)) for end in ends.unbind(1))
        return scaled.to(torch.float64) * (high - low) + low

    def _ranges(self, data: Data, image: torch.Tensor) -> Ranges:
        if self.statistics is None and self.of_weights:
            raise DataError(
                f"{named(data)}: the weights do not tell how the training scaled its {self.key}s; "
                "train anew, or give the statistics"
            )
        if self.statistics is None:
            pixels = np.asarray(image).reshape(len(image), -1)
            found: Ranges = np.percentile(pixels, self.percentiles, axis=1).T.tolist()
            return found
        item = {str(key): entry for key, entry in data.items()}
        value = _value(item, self.by, self.default)
        known = self.statistics.ranges
        parts = [value] if value in known else _each(value)
        if strange := [one for one in parts if one not in known]:
            told = ", ".join(sorted(known))
            step = (
                "The weights know no others; train on such images, too"
                if self.of_weights
                else f"Compute them from this {self.by}'s own images (no labels are needed)"
            )
            raise DataError(
                f"{named(data)}: no intensity statistics of {self.by} {strange[0]!r}; those at "
                f"hand are of {told}. {step}"
            )
        ranges = [ends for one in parts for ends in known[one]]
        if len(ranges) != len(image):
            raise DataError(
                f"{named(data)}: {len(image)} channels, but the statistics of {self.by} {value!r} "
                f"have {len(ranges)}; compute them anew with the same channels of LoadCased"
            )
        return ranges


def scalings_of(steps: Iterable[Any]) -> list[ScaleIntensityBy]:
    """The steps that scale by statistics of groups."""
    return [one for one in steps if isinstance(one, ScaleIntensityBy) and one.by != IMAGE]


def _check_percentiles(percentiles: Sequence[float]) -> tuple[float, float]:
    if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ConfigError(f"percentiles={percentiles!r}: expected low, high in 0..100")
    return float(percentiles[0]), float(percentiles[1])


def _each(value: str) -> list[str]:
    """The values of which one of several, joined by ";", is made.

    >>> _each("20/nuclei;lipids")
    ['20/nuclei', '20/lipids']
    """
    return ["/".join(one) for one in product(*(part.split(";") for part in value.split("/")))]


def _value(item: Mapping[str, Any], by: str, default: Mapping[str, str] | None = None) -> str:
    """What an item says of the columns, or else its metadata, or else is taken for it."""
    columns = dict(default or {})
    for told in (item.get("metadata", {}), item.get("columns", {})):
        columns |= {name: _plain(cell) for name, cell in told.items() if not says_nothing(cell)}
    names = [by] if by in columns else by.split("/")
    values = {name: str(columns.get(name, "")).strip() for name in names}
    if lacking := [name for name, value in values.items() if not value]:
        raise DataError(
            f"{named(item)}: no value in the column {', '.join(map(repr, lacking))}, by which "
            "intensities are scaled, so that it cannot be unknown; give it in the table, or to "
            f"predict by --meta {lacking[0]}=..."
        )
    return "/".join(values.values())


def _plain(value: Any) -> Any:
    """A number as a table has it."""
    return f"{value:g}" if isinstance(value, float) else value


def _sample(item: Mapping[str, Any], channels: Channels, flat_field: Any) -> np.ndarray:
    """Pixels (C, P) of an image, on a grid of every n-th row and column."""
    unlabelled = {key: value for key, value in item.items() if key not in OF_LABELS}
    image = load_case(unlabelled, channels).image
    if flat_field is not None:
        image = np.asarray(flat_field({**unlabelled, "image": torch.from_numpy(image)})["image"])
    return on_grid(image, PIXELS_OF_AN_IMAGE)
