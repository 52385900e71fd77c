"""Volumes stored in any order of axes brought to one grid, and back."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images.geometry import (
    AxialVolume,
    axial_volume,
    resampled_shape,
    resize_image,
    resize_label,
)
from metaseg_monai.images.image import Image
from metaseg_monai.transforms.load import HAS_AFFINE, ORIGINAL_AFFINE, VIEW, named, without_voxels


class AxialVolumed(MapTransform):
    """Turn and resample volumes for 3D networks: rows to the back, columns left, planes down.

    The grid of planes, rows and columns keeps the extent of the stored one, so that a mask comes
    back by the same resizing. Images, also a label that is one, are resampled linearly, classes by
    the nearest voxel.

    Args:
        spacing_mm: distance of planes, rows and columns (z, y, x), as everywhere in this project.

    Raises:
        ConfigError: `spacing_mm` is not three numbers above 0.
        DataError: (when called) a volume is tilted or has no affine, see `axial_volume`, or would
            become too large for memory; names the case.
    """

    def __init__(self, spacing_mm: Sequence[float]) -> None:
        super().__init__(["image", "label", "mask"], allow_missing_keys=True)
        if len(spacing_mm) != 3 or not all(step > 0 for step in spacing_mm):
            raise ConfigError(f"spacing_mm={spacing_mm!r}: expected mm of planes, rows, columns")
        self.spacing_mm = tuple(float(step) for step in spacing_mm)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with image, a MetaTensor with its affine, and label (C, H, W, D).

        `spacing_mm` (z, y, x) becomes that of the new voxels, `native_shape` the stored (H, W, D).
        """
        item = dict(data)
        for key in self.key_iterator(item):
            floats = torch.as_tensor(item[key]).is_floating_point()
            resize = resize_image if key == "image" or floats else resize_label
            try:
                view, shape = self._grid(item[key])
            except DataError as error:
                raise DataError(f"{named(item)}: {error}") from error
            planes, rows, columns = view.planes.shape
            z, y, x = view.spacing_mm
            grid = (rows, columns, planes)
            array = torch.from_numpy(np.ascontiguousarray(np.moveaxis(view.planes, 0, -1)))
            resized = resize(array[None, None], shape)[0]
            known = {"filename_or_obj": _path(item[key])}
            known[ORIGINAL_AFFINE] = item[key].meta.get(ORIGINAL_AFFINE)
            item[key] = MetaTensor(resized, meta=known)
            item |= {"native_shape": grid, VIEW: without_voxels(view)}
            item["spacing_mm"] = tuple(
                step * old / new
                for step, old, new in zip(
                    (z, y, x), (planes, rows, columns), (shape[2], *shape[:2]), strict=True
                )
            )
        return item

    def _grid(self, stored: MetaTensor) -> tuple[AxialVolume, tuple[int, ...]]:
        """The volume seen as planes, and its new (H, W, D)."""
        path = _path(stored)
        known = stored.meta.get(HAS_AFFINE, True)
        affine = np.asarray(stored.affine, dtype=np.float64) if known else None
        view = axial_volume(Image(stored.numpy(), {"path": path, "affine": affine}))
        planes, rows, columns = view.planes.shape
        z, y, x = view.spacing_mm
        wanted = (*self.spacing_mm[1:], self.spacing_mm[0])
        try:
            return view, resampled_shape((rows, columns, planes), (y, x, z), wanted)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error


def _path(stored: MetaTensor) -> str:
    return str(stored.meta.get("filename_or_obj", "?"))
