"""Reading NIfTI: header and stream checked, scaling applied, affine kept exactly."""

import gzip
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from nibabel.volumeutils import apply_read_scaling

from metaseg_monai.errors import DataError
from metaseg_monai.files import readable
from metaseg_monai.images.image import Image, image_attributes

# The header of a NIfTI file: found, checked, and said in mm.

NIFTI1_HEADER_BYTES, NIFTI2_HEADER_BYTES = 348, 540
LARGEST_BYTES = 8 << 30  # a CT of 1,000 slices as float64 has 2 GiB
BOMB_BYTES, BOMB_RATIO = 512 << 20, 500  # CT compresses about 3 times, its labels about 200 times
UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # of xyzt_units: not told, metre, mm, micron
SPACE_BITS = 7  # of xyzt_units; the others are of time


@contextmanager
def open_nifti(path: Path) -> Iterator[BinaryIO]:
    """Open a `.nii` or `.nii.gz`; faults of its stream and of the system become DataErrors."""
    try:
        with readable(path):
            opened = gzip.open if path.suffix.lower() == ".gz" else Path.open
            with opened(path, "rb") as stream:
                yield cast(BinaryIO, stream)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path}: damaged or truncated gzip stream ({error}); copy it anew"
        ) from error


def read_nifti_header(path: Path, stream: BinaryIO) -> tuple[Any, Any]:
    """Read and check the header at the start of a stream, which is then at its start again.

    Returns:
        nibabel's class of such images, and the header.

    Raises:
        DataError: as `read_nifti`, as far as the header shows it.
    """
    raw = stream.read(NIFTI2_HEADER_BYTES)
    if len(raw) < NIFTI1_HEADER_BYTES:
        raise DataError(f"{path}: {len(raw)} bytes are too few for a NIfTI header; copy it anew")
    sizes = {struct.unpack_from(order + "i", raw)[0] for order in "<>"}
    if NIFTI1_HEADER_BYTES in sizes:
        kind: Any = nib.Nifti1Image
    elif NIFTI2_HEADER_BYTES in sizes:
        kind = nib.Nifti2Image
    else:
        raise DataError(f"{path}: does not begin as a NIfTI file does; name it by its true format")
    try:
        size = kind.header_class.template_dtype.itemsize  # extensions, of any length, stay unread
        header = kind.header_class(raw[:size], check=False)
        _check_header(path, header)
    except DataError:
        raise
    except Exception as error:  # nibabel raises many kinds for damaged fields
        raise DataError(f"{path}: damaged NIfTI header ({error}); copy it anew") from error
    stream.seek(0)
    return kind, header


def header_shape(header: Any) -> tuple[int, ...]:
    """Voxels along each axis; axes of one voxel behind the third, as of time, are left out.

    >>> header = nib.Nifti1Header()
    >>> header.set_data_shape((6, 7, 5, 1))
    >>> header_shape(header)
    (6, 7, 5)
    """
    shape = tuple(int(size) for size in header.get_data_shape())
    return shape[:3] if set(shape[3:]) == {1} else shape


def header_spacing(header: Any) -> tuple[float, ...]:
    """Voxel size in mm along each axis, at most three, whatever unit the header counts in."""
    unit = unit_mm(header)
    return tuple(float(size) * unit for size in header.get_zooms()[:3])


def header_affine(header: Any) -> np.ndarray | None:
    """Voxel to mm (4, 4) as the header says it; None where sform and qform both have code 0.

    For such a header nibabel makes an affine up from shape and voxel size, and so a direction
    for every axis that nobody has stated.

    Args:
        header: nibabel's, of NIfTI-1 or NIfTI-2.
    """
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        return None
    return in_mm(header, header.get_best_affine())


def in_mm(header: Any, affine: np.ndarray) -> np.ndarray:
    """An affine (4, 4) of the header in mm, whatever unit the header counts in."""
    scaled = np.array(affine, dtype=np.float64)
    scaled[:3] *= unit_mm(header)
    return scaled


def unit_mm(header: Any) -> float:
    """The header's unit of length in mm (`xyzt_units`)."""
    return UNIT_MM[int(header["xyzt_units"]) & SPACE_BITS]


def announced_bytes(header: Any) -> int:
    """From the start of the file to the end of its voxels."""
    voxels = int(np.prod(header.get_data_shape(), dtype=np.int64))
    return int(header["vox_offset"]) + int(header.get_data_dtype().itemsize) * voxels


def _check_header(path: Path, header: Any) -> None:
    start, first = float(header["vox_offset"]), int(header.single_vox_offset)
    if not start >= first or start % 1:  # a NaN, too
        raise DataError(
            f"{path}: voxels begin at byte {start:g} (vox_offset), expected {first} or more, after "
            "the header; mend the header, or join header and voxels of a pair into one .nii file"
        )
    shape = header_shape(header)
    if len(shape) not in (2, 3):
        raise DataError(
            f"{path}: {len(shape)} dimensions {shape}, expected 2 or 3; save the volume that is "
            "meant (one moment, phase or channel) as a file of its own"
        )
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError(f"{path}: voxels of type {dtype}, expected plain numbers; convert it")
    _check_size(path, header, shape)
    unit = int(header["xyzt_units"]) & SPACE_BITS
    if unit not in UNIT_MM:
        raise DataError(
            f"{path}: its unit of length is {unit} (xyzt_units), expected 1 (metre), 2 (mm), 3 "
            "(micron) or 0 (not told, taken as mm); mend the header"
        )
    zooms = header_spacing(header)
    if not all(np.isfinite(zoom) and zoom > 0 for zoom in zooms):
        raise DataError(f"{path}: voxel size {zooms} mm is not positive; mend the header (pixdim)")


def _check_size(path: Path, header: Any, shape: tuple[int, ...]) -> None:
    """See that the file can hold what its header announces, and that memory can, too."""
    needed = announced_bytes(header)
    if needed > LARGEST_BYTES:
        raise DataError(
            f"{path}: the header announces {needed >> 20} MiB for {shape}; at most "
            f"{LARGEST_BYTES >> 20} are read: mend the header, or split the volume"
        )
    size = path.stat().st_size
    compressed = path.suffix.lower() == ".gz"
    if not compressed and size < needed:
        raise DataError(
            f"{path}: the header announces {needed} bytes for {shape}, the file has {size}; "
            "copy it anew"
        )
    if compressed and needed > BOMB_BYTES and needed > BOMB_RATIO * size:
        raise DataError(
            f"{path}: {size} bytes announce {needed >> 20} MiB, more than {BOMB_RATIO} times "
            "as much, which no scan does; if it is meant, save it uncompressed as .nii"
        )


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
