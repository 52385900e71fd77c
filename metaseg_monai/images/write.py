"""Writing a mask in the format and on the grid of its image, whole or not at all."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import PIL.Image
import tifffile
import torch

from metaseg_monai.errors import DataError, typed
from metaseg_monai.files import replacing
from metaseg_monai.images.geometry import same_grid
from metaseg_monai.images.image import (
    FORMAT_OF_SUFFIX,
    ORIENTATION,
    Image,
    as_stored,
    image_suffix,
)
from metaseg_monai.images.lazy import LazyTensor
from metaseg_monai.images.nifti import mask_header
from metaseg_monai.images.read import read_header

MASK_FORMAT = {
    **{"tiff": "tiff", "png": "png", "jpeg": "png", "nifti": "nifti"},
    **{"dicom": "nifti", "ome-zarr": "tiff"},
}
STRIP_BYTES = 1 << 18
TIFF: Mapping[str, Any] = {"photometric": "minisblack", "compression": "zlib"}
MASK_SUFFIX = {"tiff": ".tif", "png": ".png", "nifti": ".nii.gz"}  # by the mask's format


def mask_suffix(like: Mapping[str, Any]) -> str:
    """The suffix of a mask for an image with these attributes.

    >>> mask_suffix({"format": "jpeg"}), mask_suffix({"format": "dicom"})
    ('.png', '.nii.gz')
    """
    return MASK_SUFFIX[MASK_FORMAT[like["format"]]]


@typed
def write_mask(mask: Any, path: str | Path, like: Image | Mapping[str, Any] | str | Path) -> Path:
    """Write a mask in the format that fits its image.

    Args:
        mask: (H, W) or (H, W, D) whole numbers 0..65535; uint8 is written where they fit. A TIFF
            stack holds D as its pages. A `LazyTensor` of uint8 is written to a TIFF by rows.
        path: file to write, `.tif`, `.png` or `.nii(.gz)` as `mask_suffix` tells; its folder is
            made where it is missing.
        like: the image, its path, or its attributes, of which `format` and, for NIfTI and DICOM,
            `affine` or `header` decide; a NIfTI mask has exactly the image's affine, but none of
            its header's free text and extensions, and is what a DICOM series gets: grid and
            classes, nothing of the patient's data.

    Returns:
        The path.

    Raises:
        DataError: the suffix does not fit the format, the shape is not the image's, or values
            are not whole numbers in range.

    Example:
        image = read_image("scan.nii.gz")
        write_mask(image.array[0] > 100, "mask.nii.gz", like=image)
    """
    if isinstance(like, (str, Path)):
        like = read_header(like)
    told = like.attributes if isinstance(like, Image) else like
    path = Path(path)
    file_format = MASK_FORMAT.get(told.get("format", ""))
    if file_format is None or (file_format == "nifti" and not {"affine", "header"} & told.keys()):
        raise DataError(f"{path}: like={told!r:.200}; expected the attributes of an image")
    if path.exists() and Path(told.get("path") or path.parent).resolve() == path.resolve():
        raise DataError(f"{path}: is the image itself, which its mask would replace; rename one")
    if FORMAT_OF_SUFFIX.get(image_suffix(path)) != file_format:
        raise DataError(f"{path}: a mask for {told['format']} ends in {mask_suffix(told)}")
    orientation = told.get("orientation", 1)
    by_rows = isinstance(mask, LazyTensor) and mask.dtype == torch.uint8 and mask.ndim == 2
    by_rows = by_rows and file_format == "tiff" and orientation == 1
    pixels: Any = mask if by_rows else _smallest_unsigned(path, np.asarray(mask))
    shape = tuple(int(size) for size in told.get("spatial_shape", pixels.shape))
    if tuple(pixels.shape) != shape or pixels.ndim not in (2, 3):
        raise DataError(f"{path}: mask of shape {pixels.shape}, expected the image's {shape}")
    if orientation != 1:
        pixels = as_stored(pixels, orientation)
    with replacing(path) as partial:
        if by_rows:
            rows = max(1, STRIP_BYTES // shape[1])  # as tifffile has it
            compress = tifffile.TIFF.COMPRESSORS[tifffile.COMPRESSION.ADOBE_DEFLATE]  # its own
            strips = (
                compress(np.ascontiguousarray(pixels[row : row + rows]).tobytes())
                for row in range(0, shape[0], rows)
            )
            tifffile.imwrite(
                partial,
                strips,
                shape=shape,
                dtype=np.uint8,
                rowsperstrip=rows,
                metadata={"axes": "YX"},
                **TIFF,
            )
        elif file_format == "tiff":
            pages = pixels if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
            tifffile.imwrite(
                partial,
                pages,
                metadata={"axes": "ZYX"[-pixels.ndim :]},
                extratags=orientation_tags(orientation),
                **TIFF,
            )
        elif file_format == "png":
            exif: dict[str, Any] = {}
            if orientation != 1:
                exif = {"exif": PIL.Image.Exif()}
                exif["exif"][ORIENTATION] = orientation
            PIL.Image.fromarray(pixels).save(partial, **exif)
        else:
            _write_nifti(partial, pixels, told)
    return path


def write_image(
    image: np.ndarray,
    path: str | Path,
    channels: Sequence[str],
    pixel_um: float | None = None,
    orientation: int = 1,
) -> Path:
    """Write an image as OME-TIFF, with the names of its channels and the size of its pixels.

    Args:
        image: (K, H, W) uint8, uint16 or float32.
        path: file to write, which ends in ``.ome.tif``.
        channels: a name for each channel.
        pixel_um: side of a pixel in micrometres; None where it is unknown.
        orientation: of the file that the image is made of, to whose frame it is turned back, with
            its tag.

    Returns:
        The path.

    Raises:
        DataError: the name ends otherwise, or the image is of another form or type.
    """
    path = Path(path)
    kinds = ("uint8", "uint16", "float32")
    fits = image.ndim == 3 and len(image) == len(channels) and image.dtype.name in kinds
    if not fits or not path.name.lower().endswith(".ome.tif"):
        raise DataError(
            f"{path}: {image.dtype} {image.shape} of {len(channels)} channels; expected (K, H, W) "
            f"of {', '.join(kinds)}, with K names, and a file that ends in .ome.tif"
        )
    described: dict[str, Any] = {"axes": "CYX", "Channel": {"Name": list(channels)}}
    if pixel_um is not None:
        for axis in "YX":
            described |= {f"PhysicalSize{axis}": pixel_um, f"PhysicalSize{axis}Unit": "µm"}
    with replacing(path) as partial:
        tifffile.imwrite(
            partial,
            np.stack([as_stored(one, orientation) for one in image]),
            ome=True,
            metadata=described,
            extratags=orientation_tags(orientation),
            **TIFF,
        )
    return path


def orientation_tags(orientation: int) -> list[tuple[Any, ...]]:
    """What `tifffile.imwrite` takes as extratags, so that a mask is turned as its image is."""
    return [] if orientation == 1 else [(ORIENTATION, 3, 1, orientation, True)]


def _smallest_unsigned(path: Path, mask: np.ndarray) -> np.ndarray:
    whole = mask.dtype.kind in "bui"
    if mask.dtype.kind == "f":
        whole = bool(np.isfinite(mask).all() and (mask % 1 == 0).all())
    if mask.size == 0 or not whole or mask.min() < 0 or mask.max() > np.iinfo(np.uint16).max:
        raise DataError(f"{path}: a mask holds whole numbers 0..65535, at least one")
    kind = np.uint8 if mask.max() <= np.iinfo(np.uint8).max else np.uint16
    return mask.astype(kind, copy=False)


def _write_nifti(path: Path, pixels: np.ndarray, like: Mapping[str, Any]) -> None:
    header = like.get("header")
    if header is not None and len(header.get_data_shape()) > pixels.ndim:
        pixels = pixels.reshape(header.get_data_shape())  # of one time point: as many axes
    if header is None:
        affine = np.asarray(like["affine"], dtype=np.float64)
        volume = nib.Nifti1Image(pixels, affine)
        if like["format"] == "dicom":
            volume.header.set_xyzt_units("mm")
            volume.set_sform(affine, code="scanner")
            volume.set_qform(affine, code="scanner")
            if not same_grid(volume.get_qform(), affine, pixels.shape):
                volume.header["qform_code"] = 0  # it cannot hold the grid of a tilted gantry
    else:
        header = mask_header(header, pixels.dtype)
        kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
        volume = kind(pixels, None, header=header)
    nib.save(volume, path)
