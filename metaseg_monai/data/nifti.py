"""Reading NIfTI: header and stream checked, scaling applied, affine kept exactly."""

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from nibabel.affines import apply_affine
from nibabel.volumeutils import apply_read_scaling

from metaseg_monai.data.image import Image, image_attributes
from metaseg_monai.data.nifti_header import (
    announced_bytes,
    header_affine,
    header_shape,
    header_spacing,
    in_mm,
    open_nifti,
    read_nifti_header,
)
from metaseg_monai.errors import DataError

SURPLUS_BYTES = 1 << 20  # what may follow the voxels, if it is less than a plane of them
SAME_PLACE_VOXELS = 0.1
SAME_SIZE_RATIO = 0.01


def read_nifti(path: Path) -> Image:
    """Read a NIfTI-1 or NIfTI-2 file as (1, H, W) or (1, H, W, D), axes as stored.

    The affine is None where the header gives none, see `header_affine`. Affine and spacing are in
    mm, also where the header counts in metres or microns; the header itself stays as it is. A
    file of shape (X, Y, Z, 1) is the volume (X, Y, Z), and so is its mask.

    Values keep the file's data type, or become float where the header scales them (`scl_slope`,
    `scl_inter`). The header is checked before memory is taken for what it announces. A `.nii.gz`
    is read to the end of its gzip stream, so that its checksum is compared; nibabel alone stops
    at the last voxel.

    Args:
        path: a `.nii` or `.nii.gz` file.

    Returns:
        The image; the array has the file's order in memory (first axis fastest), the header no
        extensions.

    Raises:
        DataError: the file may not be read, is damaged or truncated, shorter or a plane longer
            than its header announces, announces more than 8 GiB or is compressed as no image is,
            has a voxel size that is no positive number, an unknown unit of length, two affines
            that disagree, more than three dimensions, or RGB or complex voxels.
    """
    try:
        with open_nifti(path) as stream:
            kind, header = read_nifti_header(path, stream)
            raw = _read_voxels(path, stream, header)
        voxels = np.frombuffer(raw, header.get_data_dtype(), offset=int(header["vox_offset"]))
        shape = header_shape(header)
        stored = voxels[: int(np.prod(shape))].reshape(shape, order="F")
        array = apply_read_scaling(stored, *header.get_slope_inter())
        affine = header_affine(header)
        own_header = kind.header_class.from_header(header)  # checked by nibabel, too
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a damaged header can fail anywhere inside nibabel
        raise DataError(f"{path}: cannot be read as NIfTI ({error}); copy it anew") from error
    if affine is not None:
        _check_affine(path, header, affine)
    attributes = image_attributes(
        str(path),
        "nifti",
        "ijk"[: array.ndim],
        array.shape,
        affine=affine,
        spacing_mm=header_spacing(header),
        header=own_header,
    )
    return Image(array[None], attributes)


def nifti_shape(path: Path) -> tuple[int, ...]:
    """The shape that the header announces, after the checks of the header; voxels stay unread.

    Raises:
        DataError: as `read_nifti`, as far as the header shows it.
    """
    with open_nifti(path) as stream:
        return header_shape(read_nifti_header(path, stream)[1])


def _read_voxels(path: Path, stream: BinaryIO, header: Any) -> np.ndarray:
    """Read the header's bytes and the voxels, and see that the stream ends soon and well."""
    raw = np.empty(announced_bytes(header), dtype=np.uint8)
    window, at = memoryview(raw), 0  # type: ignore[arg-type]
    while at < raw.size:
        count = stream.readinto(window[at : at + (1 << 22)])  # type: ignore[attr-defined]
        if not count:
            raise DataError(
                f"{path}: the header announces {raw.size} bytes for {header_shape(header)}, "
                f"the file has {at}; it is truncated: copy it anew"
            )
        at += count
    _check_surplus(path, header, len(stream.read(SURPLUS_BYTES + 1)))
    return raw


def _check_surplus(path: Path, header: Any, surplus: int) -> None:
    """Let padding pass, but no plane that the header does not know of."""
    shape = header_shape(header)
    plane = int(header.get_data_dtype().itemsize) * shape[0] * shape[1]
    if surplus < plane and surplus <= SURPLUS_BYTES:
        return
    more = " or more" if surplus > SURPLUS_BYTES else ""
    planes = (*shape, 1)[2] + surplus // plane
    raise DataError(
        f"{path}: goes on for {surplus} bytes{more} beyond what its header announces for {shape}, "
        f"so that its data would fit {(*shape[:2], planes)}{more}; mend the shape (dim) or save it "
        "anew"
    )


def _check_affine(path: Path, header: Any, affine: np.ndarray) -> None:
    """Refuse affines that are no grid, and qform and sform that put voxels at other places."""
    sides = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-6 * sides.prod():
        raise DataError(f"{path}: the affine {affine.tolist()} is no grid; mend the header")
    shape = header_shape(header)
    if len(shape) < 3:
        return
    zooms = np.array(header_spacing(header))
    if header["sform_code"] > 0 and np.abs(sides / zooms - 1).max() > SAME_SIZE_RATIO:
        raise DataError(
            f"{path}: voxel sizes {zooms.tolist()} mm (pixdim) and {sides.round(4).tolist()} mm "
            "(affine) disagree; mend the header"
        )
    if not (header["qform_code"] > 0 and header["sform_code"] > 0):
        return
    ends = np.array([[0, 0, 0], [size - 1 for size in shape]])
    quaternion = in_mm(header, header.get_qform())
    moved = apply_affine(affine, ends) - apply_affine(quaternion, ends)
    turned = affine[:3, :3] - quaternion[:3, :3]
    limit_mm = SAME_PLACE_VOXELS * float(zooms.min())
    if np.abs(moved).max() > limit_mm or np.abs(turned).max() > limit_mm:
        raise DataError(
            f"{path}: sform and qform disagree by {np.abs(moved).max():.3g} mm at a corner, so "
            "where and how the image lies is ambiguous; keep the right one (nibabel: set_sform, "
            "set_qform)"
        )
