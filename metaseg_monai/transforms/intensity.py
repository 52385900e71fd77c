"""From stored pixel values to the range that a network is trained on."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.transforms import MapTransform

from metaseg_monai.errors import ConfigError, DataError


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
        DataError: (when called) a pixel lies outside the range; names case and values.
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
        scaled = image.to(torch.float32) - self.low  # in one new tensor: images may be large
        scaled /= self.high - self.low
        return {**data, self.image_key: scaled.clamp_(0.0, 1.0) if self.clip else scaled}
