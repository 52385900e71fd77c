"""From file paths, arrays or whole volumes to checked tensors."""

import warnings
from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from metaseg_monai.errors import DataError, DataWarning
from metaseg_monai.images.geometry import AxialVolume, axial_volume
from metaseg_monai.images.image import Channels, Image
from metaseg_monai.tables.check import VolumeCache, load_case

STORED = "stored"  # in `meta`; the type of the pixels in the file, which are float32 here
HAS_AFFINE = "has_affine"  # in `meta`; a MetaTensor itself takes the identity where there is none
ORIGINAL_AFFINE = "original_affine"  # in `meta`, as MONAI's: of the file, before any turn
VIEW = "axial_view"  # in the item of a whole volume: how its planes lie in the stored array


def named(item: Mapping[Any, Any]) -> str:
    """What an item is called in messages.

    >>> named({"case": "a"})
    "case 'a'"
    """
    return f"case {item.get('case', '?')!r}"


class LoadCased(MapTransform):
    """Load the image of an item, and its label where it has one, checked against each other.

    The image becomes a float32 MetaTensor (C, *S), the label a MetaTensor (1, *S) of classes,
    uint8 (int64 beyond 256 classes). Their `meta` holds `filename_or_obj`, `format` and `axes`;
    the affine is the file's where it has one (NIfTI), else the identity; `has_affine` tells which,
    and `original_affine` stays that of the file.

    An item with `plane` whose image is a NIfTI volume or DICOM series gives that axial plane
    (1, H, W) and the file's own `spacing_mm` (z, y, x). The volume is read at its first plane and
    kept until another one is asked for; each worker process keeps its own. Without `plane` such a
    volume gives all its axial planes, (1, H, W, D), for an inferer that runs them one by one; how
    they lie in the file is kept under `axial_view`, so that a mask comes back into its place.

    Instead of a path an image, and a label, may be an array or tensor: (C, *S), or (H, W) of one
    channel; a MetaTensor of three axes is turned by its affine as a file is.

    Args:
        channels: "stored", "grey" or "rgb", see `metaseg_monai.images.convert_channels`.
        classes: number of classes, background included.
        spatial_dims: 2 for networks of planes; 3 leaves volumes as their file stores them.
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
            volumes=self.volumes,
        )
        item.pop("label_values", None)
        found = loaded.image.shape[0]
        if self.in_channels not in (None, found):
            raise DataError(
                f"{named(item)}: {found} channels in {loaded.attributes['path']}, the network "
                f"takes {self.in_channels}; set channels of LoadCased to grey or rgb, or "
                "in_channels"
            )
        for remark in loaded.remarks:
            warnings.warn(remark, DataWarning, stacklevel=2)
        attributes = loaded.attributes
        arrays = {"image": loaded.image, "label": loaded.label}
        attributes[ORIGINAL_AFFINE] = attributes["affine"]
        if "plane" in attributes:
            item["spacing_mm"] = attributes["spacing_mm"]
        elif self.spatial_dims != 3 and loaded.image.ndim == 4 and attributes["affine"] is not None:
            arrays = {key: _planes(item, array, attributes) for key, array in arrays.items()}
            attributes = {**attributes, "affine": None}
        for key, array in arrays.items():
            if array is not None:
                item[key] = _tensor(array, item[key], attributes)
        return item


def _planes(
    item: dict[Hashable, Any], volume: np.ndarray | None, attributes: Mapping[str, Any]
) -> np.ndarray | None:
    """The axial planes (1, H, W, D) of a stored volume; the item learns how they lie in it."""
    if volume is None:
        return None
    try:
        view = axial_volume(Image(volume, dict(attributes)))
    except DataError as error:
        raise DataError(f"{named(item)}: {error}") from error
    item |= {"spacing_mm": view.spacing_mm, VIEW: without_voxels(view)}
    return np.ascontiguousarray(np.moveaxis(view.planes, 0, -1))[None]


def without_voxels(view: AxialVolume) -> AxialVolume:
    """How a volume lies, in no memory."""
    return replace(view, planes=np.broadcast_to(np.uint8(0), view.planes.shape))


def _tensor(array: np.ndarray, given: Any, attributes: Mapping[str, Any]) -> MetaTensor:
    """A MetaTensor that says where it is from; of several planes the first file."""
    first = given[0] if isinstance(given, (list, tuple)) else given
    affine = attributes["affine"]
    meta = {
        "filename_or_obj": str(first) if isinstance(first, (str, Path)) else attributes["path"],
        "format": attributes["format"],
        "axes": attributes["axes"],
        STORED: attributes["stored"],
        HAS_AFFINE: affine is not None,
        ORIGINAL_AFFINE: attributes[ORIGINAL_AFFINE],
    }
    of_file = None if affine is None else torch.from_numpy(affine)
    return MetaTensor(torch.from_numpy(array), affine=of_file, meta=meta)
