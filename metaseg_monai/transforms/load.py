"""From file paths to checked tensors."""

import warnings
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from metaseg_monai.errors import DataError
from metaseg_monai.images.geometry import VolumeCache
from metaseg_monai.images.image import Channels
from metaseg_monai.tables.check import DataWarning, load_case

STORED = "stored"  # in `meta`; the type of the pixels in the file, which are float32 here
HAS_AFFINE = "has_affine"  # in `meta`; a MetaTensor itself takes the identity where there is none


class LoadCased(MapTransform):
    """Load the image of an item, and its label where it has one, checked against each other.

    The image becomes a float32 MetaTensor (C, *S), the label a MetaTensor (1, *S) of classes,
    uint8 (int64 beyond 256 classes). Their `meta` holds `filename_or_obj`, `format` and `axes`;
    the affine is the file's where it has one (NIfTI), else the identity; `has_affine` tells which.

    An item with `plane` whose image is a NIfTI volume or DICOM series gives that axial plane
    (1, H, W) and the file's own `spacing_mm` (z, y, x). The volume is read at its first plane and
    kept until another one is asked for; each worker process keeps its own.

    Args:
        channels: "stored", "grey" or "rgb", see `metaseg_monai.images.convert_channels`.
        classes: number of classes, background included.
        spatial_dims: see `metaseg_monai.images.read_image`.
        axes: see `metaseg_monai.images.read_image`; for the image only.
        in_channels: channels that the network takes; None takes any number.

    Raises:
        DataError: (when called) a file cannot be read, pixels are not finite, or the label does
            not fit; names case and file.

    Warns:
        DataWarning: (when called) an image is constant.
    """

    def __init__(
        self,
        channels: Channels = "stored",
        classes: int = 2,
        spatial_dims: int | None = None,
        axes: str | None = None,
        in_channels: int | None = None,
    ) -> None:
        super().__init__(["image", "label"], allow_missing_keys=True)
        self.channels = channels
        self.classes = classes
        self.spatial_dims = spatial_dims
        self.axes = axes
        self.in_channels = in_channels
        self.volumes = VolumeCache()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Replace the paths of an item by tensors; others are kept, but the used `label_values`.

        Lists of different lengths would not collate into a batch.
        """
        item = dict(data)
        loaded = load_case(
            {str(key): value for key, value in item.items()},
            self.channels,
            self.classes,
            self.spatial_dims,
            self.axes,
            self.volumes,
        )
        item.pop("label_values", None)
        found = loaded.image.shape[0]
        if self.in_channels not in (None, found):
            raise DataError(
                f"case {item.get('case', '?')!r}: {found} channels in {item['image']}, the "
                f"network takes {self.in_channels}; set channel_conversion to grey or rgb, or "
                "in_channels"
            )
        for remark in loaded.remarks:
            warnings.warn(remark, DataWarning, stacklevel=2)
        attributes = loaded.attributes
        if "plane" in attributes:
            item["spacing_mm"] = attributes["spacing_mm"]
        affine = None
        if attributes["affine"] is not None:
            affine = torch.from_numpy(attributes["affine"])
        for key, array in (("image", loaded.image), ("label", loaded.label)):
            if array is not None:
                path = item[key]
                meta = {
                    "filename_or_obj": str(path if isinstance(path, (str, Path)) else path[0]),
                    "format": attributes["format"],
                    "axes": attributes["axes"],
                    STORED: attributes["stored"],
                    HAS_AFFINE: affine is not None,
                }
                item[key] = MetaTensor(torch.from_numpy(array), affine=affine, meta=meta)
        return item
