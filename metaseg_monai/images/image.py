"""What reading one image gives, and the explicit conversion of its channels."""

from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from metaseg_monai.errors import DataError

Channels = Literal["stored", "grey", "rgb"]
Palette = Literal["colours", "indices"]

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode "L"


class Image(NamedTuple):
    """An image as its file stores it.

    Attributes:
        array: (C, H, W) or (C, H, W, D) in the file's own row order and data type; a TIFF stack's
            pages lie along D.
        attributes: what the file says beside the pixels: `path` (str; of a DICOM series its
            folder), `format` ("tiff", "png", "jpeg", "nifti" or "dicom"), `axes` (the file's own,
            e.g. "YXS"), `spatial_shape` (tuple of int), `affine` (4 x 4 float64, voxel to mm, or
            None), `spacing_mm` (one float per spatial axis, or None), `header` (the NIfTI header,
            or None).
    """

    array: np.ndarray
    attributes: dict[str, Any]


def image_attributes(
    path: str,
    file_format: str,
    axes: str,
    spatial_shape: tuple[int, ...],
    affine: np.ndarray | None = None,
    spacing_mm: tuple[float, ...] | None = None,
    header: Any = None,
) -> dict[str, Any]:
    """Attributes of an `Image`, complete for every format.

    Args:
        path: the file's path as the caller gave it.
        file_format: "tiff", "png", "jpeg", "nifti" or "dicom".
        axes: the file's own axes, one letter each.
        spatial_shape: (H, W) or (H, W, D).
        affine: voxel to mm (4, 4), or None where the file has none.
        spacing_mm: voxel size along each spatial axis, or None where the file has none.
        header: the NIfTI header, or None.
    """
    return {
        "path": path,
        "format": file_format,
        "axes": axes,
        "spatial_shape": spatial_shape,
        "affine": affine,
        "spacing_mm": spacing_mm,
        "header": header,
    }


def convert_channels(array: np.ndarray, channels: Channels) -> np.ndarray:
    """Give an image the channels a network expects; never guessed, always asked for.

    Args:
        array: (C, *S).
        channels: "stored" leaves the array as it is; "grey" gives (1, *S) float32, by the luma
            of ITU-R BT.601 from three channels; "rgb" gives (3, *S), by repetition from one
            channel. A fully opaque alpha channel is left out by "grey" and "rgb".

    Raises:
        DataError: the channels at hand do not determine the asked ones.

    >>> convert_channels(np.full((3, 2, 2), 7, np.uint8), "grey").shape
    (1, 2, 2)
    >>> convert_channels(np.zeros((6, 2, 2)), "rgb")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.DataError: 6 channels cannot become "rgb" ...
    """
    if channels not in get_args(Channels):
        raise DataError(f"channels={channels!r}: expected one of {', '.join(get_args(Channels))}")
    if channels == "stored":
        return array
    colours = _without_opaque_alpha(array)
    count = colours.shape[0]
    if count not in (1, 3):
        raise DataError(
            f'{array.shape[0]} channels cannot become "{channels}" (that needs one or three, and '
            'beside them at most an alpha channel that is opaque everywhere); use channels="stored"'
        )
    if channels == "rgb":
        return colours if count == 3 else np.repeat(colours, 3, axis=0)
    if count == 1:
        return colours.astype(np.float32)
    return np.tensordot(LUMA, colours.astype(np.float64), axes=1)[None].astype(np.float32)


def _without_opaque_alpha(array: np.ndarray) -> np.ndarray:
    """Drop the last of two or four channels where it is the integer type's maximum everywhere."""
    if array.shape[0] not in (2, 4) or array.dtype.kind != "u":
        return array
    opaque = bool(np.all(array[-1] == np.iinfo(array.dtype).max))
    return array[:-1] if opaque else array
