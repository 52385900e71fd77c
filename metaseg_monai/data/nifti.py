"""Reading NIfTI: the whole file checked, scaling applied, affine kept exactly."""

import gzip
import io
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from metaseg_monai.data.image import Image, image_attributes
from metaseg_monai.errors import DataError

NIFTI1_HEADER_BYTES, NIFTI2_HEADER_BYTES = 348, 540


def read_nifti(path: Path) -> Image:
    """Read a NIfTI-1 or NIfTI-2 file as (1, H, W) or (1, H, W, D), axes as stored.

    Values keep the file's data type, or become float where the header scales them (`scl_slope`,
    `scl_inter`). A `.nii.gz` is read to the end of its gzip stream, so that its checksum is
    compared; nibabel alone stops at the last voxel.

    Args:
        path: a `.nii` or `.nii.gz` file.

    Raises:
        DataError: the file is damaged or truncated, shorter than its header announces, has a
            voxel size that is no positive number, more than three dimensions, or RGB or complex
            voxels.
    """
    raw = _file_bytes(path)
    try:
        kind = _image_class(path, raw)
        header = kind.header_class.from_fileobj(io.BytesIO(raw), check=False)
        _check_header(path, header, len(raw))
        volume = kind.from_bytes(raw)
        array = np.asanyarray(volume.dataobj)
    except DataError:
        raise
    except Exception as error:  # a damaged header can fail anywhere inside nibabel
        raise DataError(f"{path}: cannot be read as NIfTI ({error}); copy it anew") from error
    spacing_mm = tuple(float(size) for size in header.get_zooms())
    attributes = image_attributes(
        str(path),
        "nifti",
        "ijk"[: array.ndim],
        array.shape,
        affine=np.asarray(volume.affine, dtype=np.float64),
        spacing_mm=spacing_mm,
        header=volume.header.copy(),
    )
    return Image(np.ascontiguousarray(array)[None], attributes)


def _file_bytes(path: Path) -> bytes:
    """The uncompressed bytes of a file; the gzip stream's CRC and length are compared."""
    if path.suffix.lower() != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as stream:
            return stream.read()
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise DataError(
            f"{path}: damaged or truncated gzip stream ({error}); copy it anew"
        ) from error


def _image_class(path: Path, raw: bytes) -> Any:
    if len(raw) < NIFTI1_HEADER_BYTES:
        raise DataError(f"{path}: {len(raw)} bytes are too few for a NIfTI header; copy it anew")
    sizes = {struct.unpack_from(order + "i", raw)[0] for order in "<>"}
    if NIFTI1_HEADER_BYTES in sizes:
        return nib.Nifti1Image
    if NIFTI2_HEADER_BYTES in sizes:
        return nib.Nifti2Image
    raise DataError(f"{path}: does not begin as a NIfTI file does; name it by its true format")


def _check_header(path: Path, header: Any, size: int) -> None:
    shape = header.get_data_shape()
    if len(shape) not in (2, 3):
        raise DataError(
            f"{path}: {len(shape)} dimensions {shape}, expected 2 or 3; save one volume a file "
            'and join the paths by ";" where they are channels'
        )
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError(f"{path}: voxels of type {dtype}, expected plain numbers; convert it")
    needed = int(header["vox_offset"]) + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if size < needed:
        raise DataError(
            f"{path}: the header announces {needed} bytes for {shape}, the file has {size}; "
            "copy it anew"
        )
    zooms = header.get_zooms()
    if not all(np.isfinite(zoom) and zoom > 0 for zoom in zooms):
        raise DataError(f"{path}: voxel size {zooms} mm is not positive; mend the header (pixdim)")
