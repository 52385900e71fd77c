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
from nibabel.volumeutils import apply_read_scaling

from metaseg_monai.errors import DataError
from metaseg_monai.files import readable
from metaseg_monai.images.geometry import check_straight, same_grid, voxels_apart
from metaseg_monai.images.image import Image, check_announced, faults_as_errors, image_attributes

HEADER_OF_SIZE = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
SURPLUS_BYTES = 1 << 20  # what may follow the voxels, if it is less than a plane of them
UNIT_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # of xyzt_units: not told, metre, mm, micron
SPACE_BITS = 7  # of xyzt_units; the others are of time
SAME_SIZE_RATIO = 0.01


def read_nifti(path: Path, mask: bool = False) -> Image:
    """Read a NIfTI-1 or NIfTI-2 file as (1, H, W) or (1, H, W, D), axes as stored.

    The affine is None where sform and qform both have code 0: for such a header nibabel makes one
    up from shape and voxel size, and so a direction for every axis that nobody has stated. Affine
    and spacing are in mm, also where the header counts in metres or microns; the header itself
    stays as it is. A file of shape (X, Y, Z, 1) is the volume (X, Y, Z); its mask has four axes.

    Values keep the file's data type, or become float where the header scales them (`scl_slope`,
    `scl_inter`). The header is checked before memory is taken for what it announces. A `.nii.gz`
    is read to the end of its gzip stream, so that its checksum is compared; nibabel alone stops
    at the last voxel.

    Args:
        path: a `.nii` or `.nii.gz` file.
        mask: whether it is a label, which may be all but empty, see `check_announced`.

    Returns:
        The image; the array has the file's order in memory (first axis fastest), the header no
        extensions.

    Raises:
        DataError: the file may not be read, is damaged or truncated, shorter or a plane longer
            than its header announces, announces more than 8 GiB or is compressed as no image is,
            has a voxel size that is no positive number, an unknown unit of length, two affines
            that disagree, axes that are sheared by more than a degree, more than three dimensions,
            or RGB or complex voxels.
    """
    with _opened(path, mask) as (stream, header):
        raw = _read_voxels(path, stream, header)
        voxels = np.frombuffer(raw, header.get_data_dtype(), offset=int(header["vox_offset"]))
        shape = _shape(header)
        stored = voxels[: int(np.prod(shape))].reshape(shape, order="F")
        array = apply_read_scaling(stored, *header.get_slope_inter())
        return Image(array[None], _attributes(path, header))


def nifti_attributes(path: Path, mask: bool = False) -> dict[str, Any]:
    """The attributes that `read_nifti` gives, after the checks of the header; voxels stay unread.

    Args:
        path: the file.
        mask: see `read_nifti`.

    Raises:
        DataError: as `read_nifti`, as far as the header shows it.
    """
    with _opened(path, mask) as (_, header):
        return _attributes(path, header)


# Free text of a header, in which converters put names, dates and numbers of patients.
TEXT_ENTRIES = ("descrip", "aux_file", "intent_name", "db_name", "data_type", "unused_str")
NO_EXTENSION = bytes(4)  # which stands between header and voxels


def mask_header(header: Any, dtype: np.dtype[Any]) -> Any:
    """The header of a mask for the image with this one: its grid, and nothing of the patient."""
    header = header.copy()
    header.set_data_dtype(dtype)
    header["cal_min"], header["cal_max"] = 0, 0  # the image's display window
    header.set_intent("none")
    for name in TEXT_ENTRIES:
        if name in header:
            header[name] = b""
    header.extensions = nib.nifti1.Nifti1Extensions()  # such as whole DICOM headers
    header["vox_offset"] = 0  # nibabel's word for right behind the header
    return header


def nifti_without_texts(path: Path) -> bytes:
    """A file's voxels as they are stored, its grid and scaling, and no text or extension.

    Raises:
        DataError: the file is damaged, or no NIfTI.
    """
    with _opened(path) as (stream, header):
        voxels = _read_voxels(path, stream, header)[int(header["vox_offset"]) :]
        bare = mask_header(header, header.get_data_dtype())
        bare["vox_offset"] = len(bare.binaryblock) + len(NO_EXTENSION)
        return b"".join((bare.binaryblock, NO_EXTENSION, voxels.tobytes()))


@contextmanager
def _opened(path: Path, mask: bool = False) -> Iterator[tuple[BinaryIO, Any]]:
    """A file at its start, and its checked header; whatever fails is a DataError."""
    with faults_as_errors(path, "NIfTI"), readable(path):
        open_ = gzip.open if _is_gzip(path) else Path.open
        try:
            with open_(path, "rb") as opened:
                stream = cast(BinaryIO, opened)
                header = _read_header(path, stream, mask)
                stream.seek(0)
                yield stream, header
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{path}: damaged or truncated gzip stream ({error}); copy it anew"
            ) from error


def _read_header(path: Path, stream: BinaryIO, mask: bool) -> Any:
    raw = stream.read(max(HEADER_OF_SIZE))
    if len(raw) < min(HEADER_OF_SIZE):
        raise DataError(f"{path}: {len(raw)} bytes are too few for a NIfTI header; copy it anew")
    sizes = {struct.unpack_from(order + "i", raw)[0] for order in "<>"} & set(HEADER_OF_SIZE)
    if not sizes:
        raise DataError(f"{path}: does not begin as a NIfTI file does; name it by its true format")
    kind = HEADER_OF_SIZE[min(sizes)]
    # extensions, of any length, stay unread
    header = kind(raw[: kind.template_dtype.itemsize], check=False)
    _check_header(path, header, mask)
    return header


def _check_header(path: Path, header: Any, mask: bool) -> None:
    start, first = float(header["vox_offset"]), int(header.single_vox_offset)
    if not start >= first or start % 1:  # a NaN, too
        raise DataError(
            f"{path}: voxels begin at byte {start:g} (vox_offset), expected {first} or more, after "
            "the header; mend the header, or join header and voxels of a pair into one .nii file"
        )
    shape = _shape(header)
    if len(shape) not in (2, 3):
        raise DataError(
            f"{path}: {len(shape)} dimensions {shape}, expected 2 or 3; save the volume that is "
            "meant (one moment, phase or channel) as a file of its own"
        )
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise DataError(f"{path}: voxels of type {dtype}, expected plain numbers; convert it")
    _check_size(path, header, mask)
    unit = int(header["xyzt_units"]) & SPACE_BITS
    if unit not in UNIT_MM:
        raise DataError(
            f"{path}: its unit of length is {unit} (xyzt_units), expected 1 (metre), 2 (mm), 3 "
            "(micron) or 0 (not told, taken as mm); mend the header"
        )
    zooms = _spacing_mm(header)
    if not all(np.isfinite(zoom) and zoom > 0 for zoom in zooms):
        raise DataError(f"{path}: voxel size {zooms} mm is not positive; mend the header (pixdim)")


def _check_size(path: Path, header: Any, mask: bool) -> None:
    """See that the file can hold what its header announces, and that memory can, too."""
    shape, needed = _shape(header), _announced_bytes(header)
    size = path.stat().st_size
    compressed = _is_gzip(path)
    check_announced(path, needed, size, shape, compressed, mask)
    if not compressed and size < needed:
        raise DataError(
            f"{path}: the header announces {needed} bytes for {shape}, the file has {size}; "
            "copy it anew"
        )


def _is_gzip(path: Path) -> bool:
    """Whether a file is compressed, which its name may tell wrongly."""
    with path.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _announced_bytes(header: Any) -> int:
    """From the start of the file to the end of its voxels."""
    voxels = int(np.prod(header.get_data_shape(), dtype=np.int64))
    return int(header["vox_offset"]) + int(header.get_data_dtype().itemsize) * voxels


def _shape(header: Any) -> tuple[int, ...]:
    """Voxels along each axis; axes of one voxel behind the third, as of time, are left out."""
    shape = tuple(int(size) for size in header.get_data_shape())
    return shape[:3] if set(shape[3:]) == {1} else shape


def _spacing_mm(header: Any) -> tuple[float, ...]:
    """Voxel size along each axis, at most three."""
    return tuple(float(size) * _unit_mm(header) for size in header.get_zooms()[:3])


def _unit_mm(header: Any) -> float:
    return UNIT_MM[int(header["xyzt_units"]) & SPACE_BITS]


def _in_mm(header: Any, affine: np.ndarray) -> np.ndarray:
    scaled = np.array(affine, dtype=np.float64)
    scaled[:3] *= _unit_mm(header)
    return scaled


def _attributes(path: Path, header: Any) -> dict[str, Any]:
    affine = None
    if header["sform_code"] != 0 or header["qform_code"] != 0:
        affine = _with_normal(_in_mm(header, header.get_best_affine()), header)
        _check_affine(path, header, affine)
    shape = _shape(header)
    return image_attributes(
        str(path),
        "nifti",
        "ijk"[: len(shape)],
        shape,
        affine=affine,
        spacing_mm=_spacing_mm(header),
        header=type(header).from_header(header),  # checked by nibabel, too
    )


def _with_normal(affine: np.ndarray, header: Any) -> np.ndarray:
    """The affine of one plane with a direction across it, which some writers leave at zeros."""
    if _shape(header)[2:] in ((), (1,)) and not affine[:3, 2].any():
        normal = np.cross(affine[:3, 0], affine[:3, 1])
        length = float(np.linalg.norm(normal))
        thickness = (*_spacing_mm(header), 1.0)[2]
        affine[:3, 2] = normal * (thickness / length if length > 0 else 0.0)
    return affine


def _check_affine(path: Path, header: Any, affine: np.ndarray) -> None:
    """Refuse affines that are no grid, and qform and sform that put voxels at other places."""
    check_straight(str(path), affine)
    shape = _shape(header)
    if len(shape) < 3:
        return
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    zooms = np.array(_spacing_mm(header))
    if header["sform_code"] > 0 and np.abs(sides / zooms - 1).max() > SAME_SIZE_RATIO:
        raise DataError(
            f"{path}: voxel sizes {zooms.tolist()} mm (pixdim) and {sides.round(4).tolist()} mm "
            "(affine) disagree; mend the header"
        )
    if not (header["qform_code"] > 0 and header["sform_code"] > 0):
        return
    quaternion = _with_normal(_in_mm(header, header.get_qform()), header)
    if not same_grid(quaternion, affine, shape):
        raise DataError(
            f"{path}: sform and qform disagree by {voxels_apart(quaternion, affine, shape):.3g} "
            "voxels at a corner, so where and how the image lies is ambiguous; keep the right one "
            "(nibabel: set_sform, set_qform)"
        )


def _read_voxels(path: Path, stream: BinaryIO, header: Any) -> np.ndarray:
    """Read the header's bytes and the voxels, and see that the stream ends soon and well."""
    raw = np.empty(_announced_bytes(header), dtype=np.uint8)
    window, at = memoryview(raw), 0  # type: ignore[arg-type]
    while at < raw.size:
        count = stream.readinto(window[at : at + (1 << 22)])  # type: ignore[attr-defined]
        if not count:
            raise DataError(
                f"{path}: the header announces {raw.size} bytes for {_shape(header)}, "
                f"the file has {at}; it is truncated: copy it anew"
            )
        at += count
    _check_surplus(path, header, len(stream.read(SURPLUS_BYTES + 1)))
    return raw


def _check_surplus(path: Path, header: Any, surplus: int) -> None:
    """Let padding pass, but no plane that the header does not know of."""
    shape = _shape(header)
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
