"""Images of different pixel sizes brought to one."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images.geometry import resampled_shape, resize_image, resize_label


class ResampleToSpacingd(MapTransform):
    """Resample the image of an item, and its label where it has one, to square pixels of one size.

    A size in mm, given as metadata, then means the same number of pixels in every image. The image
    is resampled linearly, with averaging where pixels become larger, the label by the nearest
    pixel. Planes only: volumes of a 3D network pass MONAI's `Spacingd`.

    Args:
        spacing_mm: side of a pixel; None leaves every image as it is.
        image_key: key of the image (C, H, W).
        label_key: key of the label (1, H, W).

    Raises:
        ConfigError: `spacing_mm` is not above 0.
        DataError: (when called) the item has no `spacing_mm`, its image is no plane, or would
            become too large for memory; names the case.
    """

    def __init__(
        self, spacing_mm: float | None, image_key: str = "image", label_key: str = "label"
    ) -> None:
        super().__init__([image_key, label_key], allow_missing_keys=True)
        if spacing_mm is not None and not spacing_mm > 0:
            raise ConfigError(f"spacing_mm={spacing_mm!r}: expected mm above 0, or null for none")
        self.spacing_mm = spacing_mm
        self.image_key = image_key
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item resampled, its `spacing_mm` new and its `native_shape` (H, W) kept."""
        item = dict(data)
        if self.spacing_mm is None:
            return item
        case = f"case {item.get('case', '?')!r}"
        if "spacing_mm" not in item:
            raise DataError(
                f"{case}: its pixel size is unknown; give the columns spacing_y_mm and "
                "spacing_x_mm in the table, or set spacing_mm to null to take pixels as they are"
            )
        image = item[self.image_key]
        if image.ndim != 3:
            raise DataError(
                f"{case}: shape {tuple(image.shape)}, expected a plane (C, H, W); set spacing_mm "
                "to null for volumes"
            )
        stored = (int(image.shape[1]), int(image.shape[2]))
        z, y, x = item["spacing_mm"]
        try:
            shape = resampled_shape(stored, (y, x), self.spacing_mm)
        except DataError as error:
            path = image.meta.get("filename_or_obj", "") if isinstance(image, MetaTensor) else ""
            raise DataError(f"{case}: {path}: {error}") from error
        item["native_shape"] = stored
        if shape != stored:
            item["spacing_mm"] = (z, y * stored[0] / shape[0], x * stored[1] / shape[1])
        for key, resize in ((self.image_key, resize_image), (self.label_key, resize_label)):
            if key in item:
                plane = resize(torch.as_tensor(item[key])[None], shape)[0]
                meta = item[key].meta if isinstance(item[key], MetaTensor) else None
                plain = plane.as_tensor() if isinstance(plane, MetaTensor) else plane
                item[key] = plain if meta is None else MetaTensor(plain, meta=meta)
        return item
