"""From stored pixel values to the range that a network is trained on."""

import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import MapTransform

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.tables.check import DataWarning
from metaseg_monai.transforms.load import STORED


class ScaleIntensityCased(MapTransform):
    """Scale a stated range of pixel values to [0, 1], and refuse pixels outside it.

    An image of another bit depth than the range was made for would otherwise be cut to white
    without a word.

    Args:
        intensity_range: lowest and highest pixel value, which become 0 and 1.
        clip: cut values outside the range instead of refusing them, as for a window of CT values.
        image_key: key of the image (C, *S).

    Raises:
        ConfigError: the range is not ordered.
        DataError: (when called) a pixel lies outside the range, or the image has 8 bits and the
            range is that of more; names case and values.

    Warns:
        DataWarning: (when called) the whole image lies in the lowest 1/256 of the range.
    """

    def __init__(
        self, intensity_range: Sequence[float], clip: bool = False, image_key: str = "image"
    ) -> None:
        super().__init__(image_key)
        self.low, self.high = map(float, intensity_range)
        if not self.low < self.high:
            raise ConfigError(f"intensity_range must be lowest, highest; got {intensity_range}")
        self.clip = clip
        self.image_key = image_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the scaled image."""
        image = data[self.image_key]
        lowest, highest = float(image.min()), float(image.max())
        if not self.clip and not self.low <= lowest <= highest <= self.high:
            raise DataError(
                f"case {data.get('case', '?')!r}: pixels from {lowest:g} to {highest:g} lie "
                f"outside intensity_range [{self.low:g}, {self.high:g}]; set intensity_range to "
                "that of your images (65535 for 16 bits), or intensity_clip to cut them"
            )
        dark = highest - self.low <= (self.high - self.low) / 256
        if dark and not self.clip and lowest < highest:  # constant images are told when loaded
            stored = getattr(image, "meta", {}).get(STORED)
            self._refuse_or_tell_dark(stored == "uint8", highest, data.get("case", "?"))
        scaled = image.to(torch.float32) - self.low  # in one new tensor: images may be large
        scaled /= self.high - self.low
        return {**data, self.image_key: scaled.clamp_(0.0, 1.0) if self.clip else scaled}

    def _refuse_or_tell_dark(self, has_8_bits: bool, highest: float, case: Any) -> None:
        """Tell an image that would be black to the network, as one of 8 bits among 16 is."""
        told = (
            f"case {case!r}: pixels end at {highest:g}, intensity_range at {self.high:g}; set "
            "intensity_range to that of your images"
        )
        if has_8_bits and self.high > 255:
            raise DataError(f"{told} ([0, 255] for 8 bits)")
        warnings.warn(told + ", if it is not just dark", DataWarning, stacklevel=3)
