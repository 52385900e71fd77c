"""From logits to the mask that belongs to the image's file."""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from metaseg_monai.errors import ConfigError
from metaseg_monai.images.geometry import resize_image
from metaseg_monai.metrics.objects import class_map
from metaseg_monai.transforms.load import ORIGINAL_AFFINE, VIEW


class AsMaskd(MapTransform):
    """Turn the logits `pred` of an item into its mask, on the grid of the image's file.

    Where the preprocessing resampled the image, the logits are resized to its stored grid before
    the classes are told; the planes of a whole volume are put back into its stored order of axes.

    Args:
        threshold: a pixel is background where the best other class, of these two alone, is less
            probable than this; 0.5 is the most probable class.

    Raises:
        ConfigError: the threshold is not between 0 and 1.

    >>> logits = torch.tensor([[0.0, 0.0], [-1.0, 1.0]])[..., None]  # (K, H, W)
    >>> [AsMaskd(limit)({"pred": logits})["pred"].flatten().tolist() for limit in (0.5, 0.2, 0.8)]
    [[0, 1], [1, 1], [0, 0]]
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__("pred")
        if isinstance(threshold, bool) or not 0 < threshold < 1:
            raise ConfigError(f"threshold={threshold!r}: expected a number between 0 and 1")
        self.background = math.log(threshold / (1 - threshold))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with `pred` (1, *S), class numbers.

        Args:
            data: with `pred`, logits (K, *S); `native_shape` (*S) where they are to be resized,
                and `image` and `axial_view` as `LoadCased` leaves them.
        """
        logits = torch.as_tensor(data["pred"])
        if "native_shape" in data:
            native = [int(size) for size in data["native_shape"]]
            if logits.ndim == 4 and native[2] == logits.shape[3]:  # planes, each by itself
                planes = resize_image(logits.movedim(-1, 0), native[:2])
                logits = planes.movedim(0, -1)
            else:
                logits = resize_image(logits[None], native)[0]
        mask = class_map(logits, self.background)
        if VIEW in data:
            mask = data[VIEW].restore(np.moveaxis(mask, -1, 0))
        plain = torch.from_numpy(np.ascontiguousarray(mask))[None]
        meta = getattr(data.get("image"), "meta", None)
        if meta is None:
            return {**data, "pred": plain}
        affine = meta.get(ORIGINAL_AFFINE)
        known = {"filename_or_obj": meta.get("filename_or_obj")}
        return {**data, "pred": MetaTensor(plain, affine=affine, meta=known)}
