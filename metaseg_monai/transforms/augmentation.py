"""Strong augmentation as a list of MONAI's transforms, and crops around objects.

The first is a part of a configuration: plain components, any of which may be changed or left out.
"""

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.transforms import MapTransform

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metadata.schema import MetadataSchema

KEYS = ["image", "label"]
ANISOTROPIC = 3  # nnU-Net's threshold, above which volumes are turned in their plane only
ELONGATED = 1.5  # planes of a longer shape are not turned over
SIZES = re.compile(
    r"(sizes?|diameters?|radius|lengths?|widths?|heights?|thickness|spacing|areas?|volumes?|"
    r"magnifications?|mag|zoom|resolution|mpp)"
)
NO_SIZES = re.compile(r"slice|section|contrast|agent|dose|flow")  # of what is no image's scale
UNITS = re.compile(
    r"([mcdnuµμ]?m(\^?[23]|[²³])?|microns?|(nano|micro|milli|centi)?met(er|re)s?|in|inch(es)?|px|pixels?"
    r"|voxels?|mpp|[mcdµμu]?l|cc|x|diopters?)( ?(/|per) ?.*)?"
)
SIDES = re.compile(r"(uni|bi|contra|ipsi)?lateral(ity)?|(body_?)?sides?|hemispheres?|left|right")
LEFT_RIGHT = frozenset({"left", "right"})


def strong_augmentation(
    spatial_dims: int,
    patch: Sequence[int],
    spacing: Sequence[float] | None = None,
    deviation: float = 0.25,
    scaling: bool = True,
    mirror: Sequence[int] | None = None,
    elastic: bool = False,
) -> list[dict[str, Any]]:
    """Return components of MONAI that change a crop at random, as nnU-Net v2 does.

    Its order, probabilities and ranges: rotation (.2), scaling (.2), noise (.1), blur (.2),
    brightness (.15), contrast (.15), low resolution (.25), gamma of the inverted image (.1), gamma
    (.3), mirroring (.5 an axis). They stand behind the crop; what a rotation brings in from outside
    of it is its reflection, where nnU-Net reads a wider crop. Thick slices are turned in plane, but
    scaled, blurred and coarsened along all axes, where nnU-Net leaves them alone. Labels stay what
    they are: their nearest pixel. `ReplayDataset` seeds all draws from (seed, epoch, index).

    Args:
        spatial_dims: 2 or 3.
        patch: size of the crop in pixels, an axis each.
        spacing: of the pixels, an axis each, in mm; None where all are alike. Volumes whose
            coarsest axis is more than 3 times the finest are turned about that axis only.
        deviation: standard deviation of the images after preprocessing, by which noise goes: 1 for
            z-scores; about .25 for values of 0 to 1.
        scaling: 0.7 to 1.4 times the size. False where metadata tell sizes, which it would make
            wrong (`falsified_by`).
        mirror: axes; None for all, () for none, as where metadata tell the side of the body.
        elastic: nnU-Net's former deformation, which it has off: slow, with little gain.

    Returns:
        Components of a configuration, plain values.

    Raises:
        ConfigError: an argument does not fit the number of axes, or is out of range.

    >>> [one["_target_"] for one in strong_augmentation(2, (64, 64))][:3]
    ['RandAffined', 'RandZoomd', 'RandGaussianNoised']
    """
    axes = range(spatial_dims)
    if spatial_dims not in (2, 3):
        raise ConfigError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
    for name, sizes in (("patch", patch), ("spacing", spacing or [1.0] * spatial_dims)):
        if len(sizes) != spatial_dims or not all(size > 0 for size in sizes):
            raise ConfigError(
                f"{name} must be {spatial_dims} numbers above 0, an axis each, got {sizes!r}"
            )
    if not 0 < deviation < math.inf:
        raise ConfigError(f"deviation must be above 0, got {deviation!r}")
    mirrored = list(axes if mirror is None else mirror)
    if not set(mirrored) <= set(axes):
        raise ConfigError(f"mirror must be of the axes 0 to {spatial_dims - 1}, got {mirror!r}")
    linear = "bilinear" if spatial_dims == 2 else "trilinear"
    both: dict[str, Any] = {"keys": KEYS, "mode": ["bilinear", "nearest"]}
    both["padding_mode"] = "reflection"
    image: dict[str, Any] = {"keys": ["image"]}
    blur = {f"sigma_{axis}": [0.5, 1.0] for axis in "xyz"[:spatial_dims]}
    gamma = {"gamma": [0.7, 1.5], "retain_stats": True}
    found = [
        {"_target_": "RandAffined", **both, "prob": 0.2, "rotate_range": _angles(patch, spacing)},
        {
            **{"_target_": "RandZoomd", "keys": KEYS, "prob": 0.2, "min_zoom": 0.7},
            **{"max_zoom": 1.4, "mode": [linear, "nearest-exact"], "padding_mode": "reflect"},
        },
        {"_target_": "RandGaussianNoised", **image, "prob": 0.1, "std": _round(deviation * 0.316)},
        {"_target_": "RandGaussianSmoothd", **image, "prob": 0.2, **blur},
        {"_target_": "RandScaleIntensityd", **image, "prob": 0.15, "factors": 0.25},
        {
            **{"_target_": "RandScaleIntensityFixedMeand", **image, "prob": 0.15},
            **{"factors": 0.25, "preserve_range": True},
        },
        {
            **{"_target_": "RandSimulateLowResolutiond", **image, "prob": 0.25},
            **{"zoom_range": [0.5, 1.0], "upsample_mode": linear},
        },
        {"_target_": "RandAdjustContrastd", **image, "prob": 0.1, **gamma, "invert_image": True},
        {"_target_": "RandAdjustContrastd", **image, "prob": 0.3, **gamma},
        *(
            {"_target_": "RandFlipd", "keys": KEYS, "prob": 0.5, "spatial_axis": axis}
            for axis in mirrored
        ),
    ]
    if elastic:  # displacements of up to about a 16th of the patch
        least = min(patch)
        moved: dict[str, Any] = {"spacing": [max(least // 8, 1)] * 2}
        largest = least / 16
        if spatial_dims == 3:  # of noise that is blurred, which leaves little of its magnitude
            moved = {"sigma_range": [_round(least / 12)] * 2}
            largest *= 11.6 * (least / 12) ** 1.5
        moved["magnitude_range"] = [0.0, _round(largest)]
        found.insert(0, {"_target_": f"Rand{spatial_dims}DElasticd", **both, "prob": 0.2, **moved})
    return [one for one in found if scaling or one["_target_"] != "RandZoomd"]


def falsified_by(schema: MetadataSchema, class_names: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return the fields that an augmentation would make wrong, by the augmentation.

    Judged by unit and whole words of the name, and by values left and right: an image at 1.4 times
    the size is no longer of its magnification or tumour size, a mirrored one no longer of the left
    side. Look at the names; what they do not tell this cannot know.

    Args:
        schema: of the metadata.
        class_names: of the labels; mirrored, a left kidney is no left one.

    Returns:
        {"scaling": names of fields, "mirroring": names of fields and classes}.

    >>> size = {"kind": "continuous", "name": "tumour", "unit": "mm", "range": [4, 100],
    ...         "provenance": "label-derived", "availability": "pre-operative"}
    >>> falsified_by(MetadataSchema([size]), ["left kidney"])
    {'scaling': ['tumour'], 'mirroring': ['left kidney']}
    """
    units = {field.name: str(getattr(field, "unit", "")) for field in schema.fields}
    of_size = [
        name
        for name, unit in units.items()
        if (_has(name, SIZES) or UNITS.fullmatch(unit.strip().lower())) and not _has(name, NO_SIZES)
    ]
    of_side = [
        field.name
        for field in schema.fields
        if _has(field.name, SIDES)
        or LEFT_RIGHT & {str(value).lower() for value in getattr(field, "values", ())}
    ]
    of_side += [name for name in class_names if _has(name, SIDES)]
    return {"scaling": of_size, "mirroring": of_side}


def _has(name: str, words: re.Pattern[str]) -> bool:
    """Whether a word of a name is one of those."""
    parts = re.split(r"[\W_]+|(?<=[a-z])(?=[A-Z])", name)
    return any(words.fullmatch(part.lower()) for part in parts)


def _angles(patch: Sequence[int], spacing: Sequence[float] | None) -> list[list[float]]:
    """Ranges of the rotation, in radians: about each axis of a volume, or in a plane."""
    half, some, few = [-3.1416, 3.1416], [-0.5236, 0.5236], [-0.2618, 0.2618]  # 180, 30, 15 degrees
    if len(patch) == 2:
        return [few if max(patch) > ELONGATED * min(patch) else half]
    widths = [1.0, 1.0, 1.0] if spacing is None else list(spacing)
    coarse = widths.index(max(widths))
    if max(widths) <= ANISOTROPIC * min(widths):
        return [some, some, some]
    plane = [size for axis, size in enumerate(patch) if axis != coarse]
    turned = few if max(plane) > ELONGATED * min(plane) else half
    return [turned if axis == coarse else [0.0, 0.0] for axis in range(3)]


def _round(value: float) -> float:
    return float(f"{value:.3g}")


class CropAtCentred(MapTransform):
    """Crop around an item's `centre_px`, (row, column) from 0; the border is reflected.

    So every nucleus is cropped whole, wherever it lies (adipocyte report, 2; `around_objects`).
    What is to hide that it is always in the middle stands behind it, on a larger crop.

    Args:
        keys: of arrays or tensors (C, H, W) on one grid.
        size: rows and columns of the crop.

    Raises:
        ConfigError: the size is not two whole numbers from 1.
        DataError: (when called) the item has no centre.

    >>> import torch
    >>> image = torch.arange(12.0).reshape(1, 3, 4)
    >>> CropAtCentred(["image"], (3, 2))({"image": image, "centre_px": (0.2, 3.4)})["image"]
    tensor([[[6., 7.],
             [2., 3.],
             [6., 7.]]])
    """

    def __init__(self, keys: Sequence[str], size: Sequence[int]) -> None:
        super().__init__(keys)
        whole = all(isinstance(side, int) and side > 0 for side in size)
        if len(size) != 2 or not whole:
            raise ConfigError(f"size must be rows and columns, whole numbers from 1, got {size!r}")
        self.size = tuple(size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with its crops (C, *size)."""
        item = dict(data)
        centre = item.get("centre_px")
        if centre is None:
            raise DataError(
                f"case {item.get('case', '?')!r}: no centre_px to crop around; put around_objects "
                "between the table and its cases, or take another crop"
            )
        for key in self.key_iterator(item):
            image = item[key]
            for axis, (middle, side) in enumerate(zip(centre, self.size, strict=True), start=1):
                places = np.arange(side) + round(middle) - side // 2
                image = image[(slice(None),) * axis + (_reflected(places, image.shape[axis]),)]
            item[key] = image
        return item


def _reflected(places: np.ndarray, length: int) -> np.ndarray:
    """The pixels that places beyond the ends of an axis show, the last one not twice."""
    period = max(1, 2 * (length - 1))
    folded = np.abs(places) % period
    return np.where(folded < length, folded, period - folded)
