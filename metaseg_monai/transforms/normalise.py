"""Pixel values scaled by what is bright and dark in an image, or in all images of a plate."""

import json
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import replacing
from metaseg_monai.images.image import Channels
from metaseg_monai.tables.check import load_case

IMAGE = "image"
PERCENTILES = (0.5, 99.5)
PIXELS_OF_AN_IMAGE = 1 << 18  # read of each for the percentiles of its group

Ranges = list[list[float]]


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
        with replacing(path) as part:
            part.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> "IntensityStatistics":
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing or holds no such statistics.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            read = cls(
                str(content["by"]),
                (float(content["percentiles"][0]), float(content["percentiles"][1])),
                {
                    str(name): [[float(low), float(high)] for low, high in channels]
                    for name, channels in content["ranges"].items()
                },
                {str(name): int(count) for name, count in content["images"].items()},
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise DataError(
                f"{path}: no intensity statistics ({error!r}); compute them with "
                "intensity_statistics"
            ) from error
        _check_percentiles(read.percentiles)
        return read


def intensity_statistics(
    items: Iterable[Mapping[str, Any]],
    by: str,
    percentiles: Sequence[float] = PERCENTILES,
    channels: Channels = "stored",
    flat_field: Callable[[Mapping[Hashable, Any]], Mapping[Hashable, Any]] | None = None,
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
                "channel_conversion to grey or rgb"
            )
        found = np.percentile(np.concatenate(pixels, axis=1), (low, high), axis=1).T
        if bool((found[:, 0] >= found[:, 1]).any()):
            raise DataError(
                f"{by} {name!r}: the pixel values at the percentiles {low:g} and {high:g} are the "
                f"same ({found[:, 0].tolist()}); remove the empty images or widen the percentiles"
            )
        ranges[name] = found.tolist()
    return IntensityStatistics(
        by, (low, high), ranges, {name: len(members) for name, members in groups.items()}
    )


class ScaleIntensityBy(MapTransform):
    """Scale dark to 0 and bright to 1, channel by channel, and cut what lies beyond.

    Dark and bright are percentiles of the image itself, or of all images of its group: with the
    first each image looks alike, with the second differences within a plate stay. An image that
    has no contrast between its percentiles becomes 0 (with "image").

    Args:
        by: "image", or the column of the table whose values are the groups, such as plate.
        percentiles: low and high in 0..100; those of the statistics must be the same.
        statistics: of the groups, or their JSON file; None with "image".
        image_key: key of the image (C, *S).

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
        image_key: str = "image",
    ) -> None:
        super().__init__(image_key)
        self.by = by
        self.percentiles = _check_percentiles(percentiles)
        if isinstance(statistics, (str, Path)):
            statistics = IntensityStatistics.load(statistics)
        if (by == IMAGE) != (statistics is None):
            raise ConfigError(
                f"intensity_by={by!r}: "
                + (
                    "the image itself gives its percentiles; leave the statistics out"
                    if by == IMAGE
                    else "expected the statistics of its groups; compute them with "
                    "intensity_statistics"
                )
            )
        if statistics is not None and (statistics.by, statistics.percentiles) != (
            by,
            self.percentiles,
        ):
            raise ConfigError(
                f"intensity_by={by!r} with percentiles {self.percentiles}, but the statistics are "
                f"of {statistics.by!r} with {statistics.percentiles}; compute them anew"
            )
        self.statistics = statistics
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the image (C, *S) in 0..1."""
        image = data[self.image_key]
        scaled = image.clone()
        for channel, (low, high) in enumerate(self._ranges(data)):
            width = high - low if high > low else float("inf")
            scaled[channel] = ((image[channel] - low) / width).clip(0.0, 1.0)
        return {**data, self.image_key: scaled}

    def _ranges(self, data: Mapping[Hashable, Any]) -> Ranges:
        image = data[self.image_key]
        if self.statistics is None:
            pixels = np.asarray(image).reshape(len(image), -1)
            found: Ranges = np.percentile(pixels, self.percentiles, axis=1).T.tolist()
            return found
        value = _value({str(key): entry for key, entry in data.items()}, self.by)
        case = f"case {data.get('case', '?')!r}"
        if value not in self.statistics.ranges:
            known = ", ".join(sorted(self.statistics.ranges))
            raise DataError(
                f"{case}: no intensity statistics of {self.by} {value!r}; those at hand are of "
                f"{known}. Compute them from this {self.by}'s own images (no labels are needed)"
            )
        ranges = self.statistics.ranges[value]
        if len(ranges) != len(image):
            raise DataError(
                f"{case}: {len(image)} channels, but the statistics of {self.by} {value!r} have "
                f"{len(ranges)}; compute them anew with the same channel_conversion"
            )
        return ranges


def _check_percentiles(percentiles: Sequence[float]) -> tuple[float, float]:
    if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ConfigError(f"percentiles={percentiles!r}: expected low, high in 0..100")
    return float(percentiles[0]), float(percentiles[1])


def _value(item: Mapping[str, Any], by: str) -> str:
    value = str(item.get("columns", {}).get(by, "")).strip()
    if not value:
        raise DataError(
            f"case {item.get('case', '?')!r}: no value in the column {by!r}, by which intensities "
            "are scaled; give it in the table, or set intensity_by to image"
        )
    return value


def _sample(item: Mapping[str, Any], channels: Channels, flat_field: Any) -> np.ndarray:
    """Pixels (C, P) of an image, on a grid of every n-th row and column."""
    unlabelled = {key: value for key, value in item.items() if key not in ("label", "label_values")}
    image = load_case(unlabelled, channels).image
    if flat_field is not None:
        image = np.asarray(flat_field({**unlabelled, "image": torch.from_numpy(image)})["image"])
    step = int(np.ceil((image[0].size / PIXELS_OF_AN_IMAGE) ** (1 / (image.ndim - 1))))
    grid = (slice(None), *[slice(None, None, step)] * (image.ndim - 1))
    return np.asarray(image[grid].reshape(len(image), -1))
