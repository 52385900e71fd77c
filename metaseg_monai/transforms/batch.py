"""What of an item goes into a batch."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform

TENSORS = ("image", "label", "meta")
NAMES = ("case", "group", "split", "mode", "domain", "file", "volume", "plane", "planes")
SIZES = ("spacing_mm", "native_shape")


class KeepForBatchd(Transform):
    """Keep what networks, losses and counts need; the last transform of a chain.

    Tensors lose their MONAI metadata: every operation of a network on a MetaTensor costs a detour
    through Python, and affines of several cases do not belong in one batch. The path of the image
    is kept as ``file``, from which the geometry can be read again, and of a slice its place in the
    volume. It may stand twice: before a cache, whose copies are then cheap, and at the end of the
    random transforms.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return ``image`` (C, *S), ``label`` (1, *S) and ``meta`` (M,) if present, and names.

        ``spacing_mm`` (3,) z, y, x and ``native_shape`` (2,) become tensors.
        """
        image = data["image"]
        item: dict[Hashable, Any] = {key: data[key] for key in NAMES if key in data}
        if "file" not in item:
            item["file"] = str(image.meta["filename_or_obj"])
        for key in SIZES:
            if key in data:
                item[key] = torch.as_tensor(data[key])
        for key in TENSORS:
            if key in data:
                value = data[key]
                plain = value.as_tensor() if isinstance(value, MetaTensor) else value
                item[key] = torch.as_tensor(plain).contiguous()
        return item
