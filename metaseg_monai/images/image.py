"""What reading one image gives, the format that its name tells, and the conversion of channels."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from metaseg_monai.errors import DataError

Channels = Literal["stored", "grey", "rgb"]
Palette = Literal["colours", "indices"]

FORMAT_OF_SUFFIX: Mapping[str, str] = {
    ".tif": "tiff",
    ".tiff": "tiff",
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".nii": "nifti",
    ".nii.gz": "nifti",
}
LARGEST_BYTES = 8 << 30  # a CT of 1,000 slices as float64 has 2 GiB
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


@contextmanager
def faults_as_errors(path: str | Path, what: str, hint: str = "copy it anew") -> Iterator[None]:
    """Name the file, whatever fails inside a library that a damaged one makes fail anywhere."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{path}: cannot be read as {what} ({error}); {hint}") from error


def image_attributes(
    path: str,
    file_format: str,
    axes: str,
    spatial_shape: tuple[int, ...],
    affine: np.ndarray | None = None,
    spacing_mm: tuple[float, ...] | None = None,
    header: Any = None,
) -> dict[str, Any]:
    """The attributes of an `Image`, complete for every format."""
    return {
        "path": path,
        "format": file_format,
        "axes": axes,
        "spatial_shape": spatial_shape,
        "affine": affine,
        "spacing_mm": spacing_mm,
        "header": header,
    }


def image_suffix(path: str | Path) -> str:
    """The suffix that decides how a file is read, in lower case; ".nii.gz" is one suffix.

    >>> image_suffix("a/b.NII.gz"), image_suffix("c.d.tif")
    ('.nii.gz', '.tif')
    """
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def image_format(path: str | Path) -> str:
    """One of "tiff", "png", "jpeg" or "nifti" by the file's name, or "dicom" for a folder.

    Raises:
        DataError: it is none of these.

    >>> image_format("a/b.nii.gz")
    'nifti'
    """
    file_format = "dicom" if Path(path).is_dir() else FORMAT_OF_SUFFIX.get(image_suffix(path))
    if file_format is None:
        raise DataError(
            f"{path}: unsupported file type; expected {', '.join(FORMAT_OF_SUFFIX)}, or the folder "
            "of a DICOM series; convert it"
        )
    return file_format


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
    colours = array
    if array.shape[0] in (2, 4) and array.dtype.kind == "u":
        opaque = bool(np.all(array[-1] == np.iinfo(array.dtype).max))
        colours = array[:-1] if opaque else array
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
