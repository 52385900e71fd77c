"""Volumes stored in any order of axes brought to one grid."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.transforms import Compose, MapTransform, Orientationd, Spacingd

from metaseg_monai.errors import ConfigError


class AxialVolumed(MapTransform):
    """Turn and resample volumes for 3D networks: rows to the back, columns left, planes down.

    The image is resampled linearly, the label by the nearest voxel, by MONAI's `Orientationd` and
    `Spacingd`.

    Args:
        spacing_mm: distance of planes, rows and columns (z, y, x), as everywhere in this project.
        image_key: key of the image, a MetaTensor (C, *S) with its affine.
        label_key: key of the label (1, *S); items without it pass.

    Raises:
        ConfigError: `spacing_mm` is not three numbers above 0.
    """

    def __init__(
        self, spacing_mm: Sequence[float], image_key: str = "image", label_key: str = "label"
    ) -> None:
        keys = [image_key, label_key]
        super().__init__(keys, allow_missing_keys=True)
        if len(spacing_mm) != 3 or not all(step > 0 for step in spacing_mm):
            raise ConfigError(f"spacing_mm={spacing_mm!r}: expected mm of planes, rows, columns")
        self.spacing_mm = tuple(float(step) for step in spacing_mm)
        z, y, x = self.spacing_mm
        self.steps = Compose(
            [
                Orientationd(keys, axcodes="PLI", labels=None, allow_missing_keys=True),
                Spacingd(
                    keys,
                    pixdim=(y, x, z),
                    mode=["bilinear", "nearest"],
                    align_corners=False,
                    allow_missing_keys=True,
                ),
            ]
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with image and label (C, H, W, D), and `spacing_mm` (z, y, x)."""
        return {**self.steps(dict(data)), "spacing_mm": self.spacing_mm}
