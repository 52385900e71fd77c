"""The one reading path for image and label files of every format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.files import readable
from metaseg_monai.images.dicom import dicom_attributes, read_dicom_series
from metaseg_monai.images.image import Image, Palette, faults_as_errors, image_format
from metaseg_monai.images.nifti import nifti_attributes, read_nifti
from metaseg_monai.images.raster import read_jpeg, read_png
from metaseg_monai.images.tiff import read_tiff


def read_image(
    path: str | Path | Sequence[str | Path],
    spatial_dims: int | None = None,
    axes: str | None = None,
    palette: Palette = "colours",
) -> Image:
    """Read a TIFF, PNG, JPEG or NIfTI file, or a DICOM series, as stored and in its data type.

    Args:
        path: one file, or several whose channels are stacked in the given order (planes); a
            folder is read as one DICOM series, which needs the extra [dicom].
        spatial_dims: 2 or 3, to which the file must fit; None takes a NIfTI file's own, 3 for a
            DICOM series and 2 for the others. Only with 3 do the pages of a TIFF become the axis
            D.
        axes: overrides the axes a TIFF file names, e.g. "CYX" for pages that are channels.
        palette: "colours" looks palette indices up (images), "indices" keeps them (labels).

    Returns:
        The array (C, H, W) or (C, H, W, D) and its attributes; see `Image`.

    Raises:
        DataError: a file is missing, of an unsupported format or damaged, does not fit
            `spatial_dims` or `axes`, or planes differ in shape, data type or affine.
        ConfigError: a DICOM series is given, and pydicom is not installed.
    """
    if spatial_dims not in (None, 2, 3):
        raise DataError(f"spatial_dims={spatial_dims!r}: expected 2, 3 or None")
    if isinstance(path, (str, Path)):
        return _read_file(Path(path), spatial_dims, axes, palette)
    planes = [_read_file(Path(plane), spatial_dims, axes, palette) for plane in path]
    return _stack_planes(planes)


def _read_file(path: Path, spatial_dims: int | None, axes: str | None, palette: Palette) -> Image:
    file_format = image_format(path)
    if axes is not None and file_format != "tiff":
        raise DataError(f"{path}: axes={axes!r} can be named for TIFF files only; leave it out")
    if file_format != "dicom" and not path.is_file():
        raise DataError(f"{path}: no such file; check the path in the table or command")
    try:
        if file_format == "tiff":
            image = read_tiff(path, spatial_dims, axes, palette)
        elif file_format == "png":
            image = read_png(path, palette)
        elif file_format == "jpeg":
            image = read_jpeg(path)
        elif file_format == "dicom":
            image = read_dicom_series(path)
        else:
            image = read_nifti(path)
    except (OSError, MemoryError) as error:
        raise DataError(f"{path}: cannot be read ({error or 'too large for memory'})") from error
    found = image.array.ndim - 1
    if spatial_dims not in (None, found):
        raise DataError(
            f"{path}: has {found} spatial axes {image.array.shape[1:]}, expected {spatial_dims}; "
            f"set spatial_dims={found}, or slice or stack the files first"
        )
    if image.array.dtype.kind not in "buif" or image.array.size == 0:
        raise DataError(
            f"{path}: {image.array.dtype} pixels of shape {image.array.shape}; expected numbers, "
            "at least one; save it anew"
        )
    return image


def _stack_planes(planes: list[Image]) -> Image:
    if not planes:
        raise DataError("no image path given; expected at least one plane")
    first = planes[0]
    for plane in planes[1:]:
        for what, expected, came in (
            ("spatial shape", first.array.shape[1:], plane.array.shape[1:]),
            ("data type", first.array.dtype, plane.array.dtype),
        ):
            if expected != came:
                raise DataError(
                    f"{plane.attributes['path']}: {what} {came} differs from {expected} of "
                    f"{first.attributes['path']}; planes of one image must agree"
                )
        if not same_affine(first.attributes["affine"], plane.attributes["affine"]):
            raise DataError(
                f"{plane.attributes['path']}: its affine differs from that of "
                f"{first.attributes['path']}; planes of one image must agree: resample first"
            )
    return Image(np.concatenate([plane.array for plane in planes]), first.attributes)


def same_affine(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Whether two affines (4, 4) agree within 1e-3 mm; one that is unknown agrees."""
    return one is None or other is None or bool(np.allclose(one, other, rtol=0, atol=1e-3))


def read_header(path: str | Path | Sequence[str | Path]) -> dict[str, Any]:
    """As much of `Image.attributes` as `write_mask` needs for a mask of this image.

    Args:
        path: an image that can be read, or several whose channels are stacked (the first decides).

    Returns:
        `path`, `format`, `affine`, `header`, and `spatial_shape` except for stacks of TIFF pages,
        whose number of axes is the reader's choice.

    Raises:
        DataError: the file is missing, may not be read, is no image, or its header is damaged.
        ConfigError: it is a DICOM series, and pydicom is not installed.
    """
    file = Path(path if isinstance(path, (str, Path)) else path[0])
    file_format = image_format(file)
    if file_format == "dicom":
        return dicom_attributes(file)
    if file_format == "nifti":
        return nifti_attributes(file)
    shape: tuple[int, ...] | None
    with faults_as_errors(file, "an image"), readable(file):
        if file_format == "tiff":
            with tifffile.TiffFile(file) as tiff:
                page = tiff.series[0].keyframe
                stack = set(tiff.series[0].axes) - set("YXSC")
                shape = None if stack else (page.imagelength, page.imagewidth)
        else:
            with PIL.Image.open(file) as picture:
                shape = (picture.height, picture.width)
    attributes = {"path": str(file), "format": file_format, "affine": None, "header": None}
    return attributes if shape is None else {**attributes, "spatial_shape": shape}
