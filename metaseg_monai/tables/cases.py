"""Loading one case: image and label, checked against each other."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg_monai.errors import DataError
from metaseg_monai.images.axial import AxialVolume, VolumeCache, is_volume_file
from metaseg_monai.images.image import Channels, Image, convert_channels, image_attributes
from metaseg_monai.images.read import read_image, same_affine


class DataWarning(UserWarning):
    """Something about an image that is allowed but seldom meant, such as one constant value."""


class LoadedCase(NamedTuple):
    """A case as a network can take it.

    Attributes:
        image: (C, *S) float32, finite, channels as asked for.
        label: (1, *S) classes, uint8 (int64 beyond 256 classes), or None where there is none.
        attributes: of the image file, see `Image`, with `stored`, the type of its pixels there;
            for a plane of a volume also `plane`, while `spacing_mm` is (z, y, x) and `affine`,
            which a plane alone does not have, is None.
        remarks: what is allowed but seldom meant, in words.
    """

    image: np.ndarray
    label: np.ndarray | None
    attributes: dict[str, Any]
    remarks: tuple[str, ...]


def image_files(item: Mapping[str, Any]) -> tuple[str, ...]:
    """The files of an item's image: one, or one a plane; a tuple that tells rows of one image.

    >>> image_files({"image": "a.png"})
    ('a.png',)
    """
    image = item["image"]
    return (str(image),) if isinstance(image, (str, Path)) else tuple(map(str, image))


def load_case(
    item: Mapping[str, Any],
    channels: Channels = "stored",
    classes: int = 2,
    spatial_dims: int | None = None,
    axes: str | None = None,
    image_key: str = "image",
    label_key: str = "label",
    volumes: VolumeCache | None = None,
) -> LoadedCase:
    """Read the image of an item, and its label where it has one.

    An item with `plane` whose image is a NIfTI volume or DICOM series gives that axial plane
    (1, H, W), and of its label volume the same; with a 2D image `plane` changes nothing.

    Args:
        item: with a path (or plane paths) under `image_key`, maybe a path under `label_key`,
            `case` for messages, and maybe `label_values`: the pixel values that become class 1
            while all others become 0, or "instances": all above 0. Without, the label's values
            are the classes.
        channels: see `convert_channels`.
        classes: number of classes, background included; labels lie in 0..classes-1.
        spatial_dims: see `read_image`.
        axes: see `read_image`; for the image only.
        image_key: key of the image.
        label_key: key of the label.
        volumes: where the volumes of the planes stay, so that those to come need no reading.

    Raises:
        DataError: a file cannot be read, pixels are not finite, or the label's shape, affine or
            values do not fit; names case and file.
    """
    if classes < 2:
        raise DataError(f"classes={classes}: expected 2 or more, background included")
    case = str(item.get("case", ""))
    try:
        volumes = volumes or VolumeCache()
        path = item[image_key]
        if (
            "plane" in item
            and spatial_dims != 3
            and (volumes.holds("image", path) or is_volume_file(path))
        ):
            image, stored_label, remarks = _read_plane(item, image_key, label_key, volumes)
        else:
            image, stored_label = read_image(path, spatial_dims, axes), None
            remarks = []
            if label_key in item:
                stored_label = _read_label(item[label_key], image, image.array.ndim - 1)
        where = image.attributes["path"]
        if "plane" in image.attributes:
            where += f", plane {image.attributes['plane']}"
        pixels = _finite_float32(convert_channels(image.array, channels), where)
        label = None
        if stored_label is not None:
            label = _classes_of(
                item[label_key], stored_label.array, classes, item.get("label_values")
            )
    except DataError as error:
        raise DataError(f"case {case!r}: {error}" if case else str(error)) from error
    if "plane" not in image.attributes and pixels.min() == pixels.max():
        remarks.append(
            f"{where}: every pixel is {pixels.flat[0]:g}; "
            "an image without contrast; remove the row if that is not meant"
        )
    told = tuple(f"case {case!r}: {remark}" for remark in remarks)
    attributes = {**image.attributes, "stored": str(image.array.dtype)}
    return LoadedCase(pixels, label, attributes, told)


def _finite_float32(array: np.ndarray, path: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # beyond float32's range becomes inf, refused below
        pixels = np.ascontiguousarray(array, dtype=np.float32)
    broken = int(pixels.size - np.count_nonzero(np.isfinite(pixels)))
    if broken:
        raise DataError(
            f"{path}: {broken} of {pixels.size} pixels are not finite numbers; mend the image or "
            "remove the row"
        )
    return pixels


def _read_label(path: str | Path, image: Image, spatial_dims: int) -> Image:
    label = read_image(path, spatial_dims, palette="indices")
    if label.array.shape != (1, *image.array.shape[1:]):
        raise DataError(
            f"{path}: label of {label.array.shape[0]} channel(s) and shape "
            f"{label.array.shape[1:]}, expected one channel and {image.array.shape[1:]} as its "
            "image; save the classes as one channel on the image's grid"
        )
    affine = label.attributes["affine"]
    if spatial_dims == 3 and affine is None and image.attributes["affine"] is not None:
        raise DataError(
            f"{path}: the label has no affine (of a NIfTI file, sform_code and qform_code are 0), "
            f"its image has one ({image.attributes['path']}), so where the label lies is unknown; "
            "save it as NIfTI with its true affine"
        )
    _check_grid(path, affine, image.attributes)
    return label


def _check_grid(path: str | Path, affine: np.ndarray | None, of_image: Mapping[str, Any]) -> None:
    if not same_affine(affine, of_image["affine"]):
        raise DataError(
            f"{path}: the label's affine differs from its image's "
            f"({of_image['path']}); resample the label onto the image's grid"
        )


def _read_plane(
    item: Mapping[str, Any], image_key: str, label_key: str, volumes: VolumeCache
) -> tuple[Image, Image | None, list[str]]:
    """One axial plane of an image volume and of its label volume; remarks on the whole volume."""
    path, plane = item[image_key], item["plane"]
    volume = volumes.read("image", path)
    if not 0 <= plane < len(volume.planes):
        raise DataError(
            f"{path}: has {len(volume.planes)} planes, so no plane {plane}; the table or list of "
            "slices was made from another volume"
        )
    remarks = []
    if plane == 0 and volume.planes.min() == volume.planes.max():  # said once a volume
        remarks.append(
            f"{path}: every voxel is {volume.planes.flat[0]:g}; an image without contrast"
        )
    label = None
    if label_key in item:
        target = volumes.read("label", item[label_key])
        if target.planes.shape != volume.planes.shape:
            raise DataError(
                f"{item[label_key]}: label of shape (planes, rows, columns) "
                f"{target.planes.shape}, expected {volume.planes.shape} as its image; save the "
                "classes on the image's grid"
            )
        _check_grid(item[label_key], target.affine, {"path": path, "affine": volume.affine})
        label = _plane_image(target, item[label_key], plane)
    return _plane_image(volume, path, plane), label, remarks


def _plane_image(volume: AxialVolume, path: str, plane: int) -> Image:
    array = volume.planes[plane][None]
    attributes = image_attributes(
        path, "nifti", "ij", array.shape[1:], spacing_mm=volume.spacing_mm
    )
    return Image(array, {**attributes, "plane": plane})


def _classes_of(
    path: str | Path, array: np.ndarray, classes: int, foreground: list[int] | str | None
) -> np.ndarray:
    """Stored label values as classes."""
    values, counts = np.unique(array, return_counts=True)
    whole = values.dtype.kind != "f" or bool(np.all(np.isfinite(values) & (values % 1 == 0)))
    if not whole:
        first = next(value for value in values if not float(value).is_integer())
        raise DataError(f"{path}: label value {first:g}; expected whole numbers; save it anew")
    if foreground == "instances" and values.min() >= 0:
        return np.ascontiguousarray(array > 0, dtype=np.uint8)
    if isinstance(foreground, list):
        return np.ascontiguousarray(np.isin(array, foreground), dtype=np.uint8)
    outside = (values < 0) | (values >= classes)
    if outside.any():
        found = ", ".join(
            f"{value:g} ({count} px)"
            for value, count in zip(values[outside][:5].tolist(), counts[outside], strict=False)
        )
        raise DataError(
            f"{path}: label values {found}, expected 0..{classes - 1}; set classes, or list the "
            "values that are foreground as label_values in the column map"
        )
    classes_type = np.uint8 if classes <= 256 else np.int64
    return np.ascontiguousarray(array, dtype=classes_type)
