"""Reading a DICOM series of CT or MR planes as one volume; needs the extra [dicom]."""

import importlib
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import readable
from metaseg_monai.images.dicom_grid import PlanePlace, SeriesGrid, series_grid
from metaseg_monai.images.image import Image, image_attributes
from metaseg_monai.images.nifti import LARGEST_BYTES

# What the header of one DICOM plane says, and whether the plane can be part of a volume.

MODALITIES = ("CT", "MR")
HOUNSFIELD = ("HU", "US", "")  # "US", unspecified, is what some scanners write for HU
# Nothing that names a person is among what is read.
HEADER_TAGS = [
    "SOPInstanceUID", "Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing",
    "RescaleIntercept", "RescaleSlope", "RescaleType",
]  # fmt: skip
DECODE = (
    "install a decoder (pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg), or "
    "decompress the series first (gdcmconv --raw)"
)


class DicomPlane(NamedTuple):
    """One plane of CT or MR, as its header tells.

    Attributes:
        path: its file.
        place: where it lies.
        slope: by which stored values are multiplied.
        intercept: what is added then.
    """

    path: Path
    place: PlanePlace
    slope: float
    intercept: float


@contextmanager
def faults_as_errors(path: Path) -> Iterator[None]:
    """Name the file whatever fails in pydicom; its warnings are of what is checked here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a damaged file can fail anywhere inside pydicom
        raise DataError(f"{path}: cannot be read as DICOM ({error}); copy it anew") from error


def read_header(pydicom: Any, path: Path) -> dict[str, Any]:
    """Read the elements that `HEADER_TAGS` names, where the file has them; all else is skipped.

    Raises:
        DataError: the file is damaged, or its pixels are stored so that no decoder reads them.
    """
    with faults_as_errors(path):
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=HEADER_TAGS)
        syntax = header.file_meta.TransferSyntaxUID
        try:
            available = pydicom.pixels.get_decoder(syntax).is_available
        except NotImplementedError:  # no way of storing pixels that pydicom knows
            available = False
        if not available:
            raise DataError(f"{path}: compressed as {syntax.name}, without a decoder; {DECODE}")
        if not header.get("SeriesInstanceUID"):
            raise DataError(f"{path}: tells no series (SeriesInstanceUID); it is cut: copy it anew")
        return {keyword: header.get(keyword) for keyword in HEADER_TAGS if keyword in header}


def dicom_plane(path: Path, header: Mapping[str, Any]) -> DicomPlane:
    """Check the header that `read_header` gave.

    Raises:
        DataError: it is not of one grey plane of CT or MR, its values are not Hounsfield units
            in CT, or it lacks its place in the patient.
    """
    with faults_as_errors(path):
        modality = header.get("Modality", "")
        colour = header.get("PhotometricInterpretation", "")
        for what, wrong in (
            (f"is of modality {modality!r}, expected CT or MR", modality not in MODALITIES),
            ("holds several frames", int(header.get("NumberOfFrames") or 1) != 1),
            (f"has pixels of kind {colour!r}, expected grey", not colour.startswith("MONOCHROME")),
            ("has several samples a pixel, expected grey", header.get("SamplesPerPixel", 1) != 1),
        ):
            if wrong:
                raise DataError(
                    f"{path}: {what}; give a series of CT or MR with one grey plane a file, or "
                    "convert it to NIfTI"
                )
        unit = str(header.get("RescaleType") or "")
        if modality == "CT" and unit.upper() not in HOUNSFIELD:
            raise DataError(
                f"{path}: its values are {unit!r} (RescaleType), not Hounsfield units; give the "
                "series of CT images itself"
            )
        scaled = modality == "CT" or "RescaleSlope" in header or "RescaleIntercept" in header
        place = PlanePlace(
            path.name,
            str(header.get("SOPInstanceUID", path.name)),
            str(header.get("FrameOfReferenceUID", "")),
            (int(_numbers(path, header, "Rows")[0]), int(_numbers(path, header, "Columns")[0])),
            _numbers(path, header, "PixelSpacing", 2),
            _numbers(path, header, "ImageOrientationPatient", 6),
            _numbers(path, header, "ImagePositionPatient", 3),
        )
        slope = _numbers(path, header, "RescaleSlope")[0] if scaled else 1.0
        intercept = _numbers(path, header, "RescaleIntercept")[0] if scaled else 0.0
    if min(*place.shape, *place.spacing_mm) <= 0 or slope == 0:
        raise DataError(
            f"{path}: {place.shape} pixels, PixelSpacing {place.spacing_mm}, RescaleSlope "
            f"{slope:g}: expected positive sizes and a slope other than 0; export the series anew"
        )
    return DicomPlane(path, place, slope, intercept)


def _numbers(
    path: Path, header: Mapping[str, Any], keyword: str, count: int = 1
) -> tuple[float, ...]:
    """The finite numbers that a required element holds."""
    if keyword not in header:
        raise DataError(
            f"{path}: has no {keyword}; expected an original plane of CT or MR, no screenshot or "
            "derived image, and not cut; give another series, or copy it anew"
        )
    value = header[keyword]
    parts = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    try:
        numbers = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise DataError(f"{path}: {keyword} is {value}, expected {count} number(s); export it anew")
    return numbers


MARK, MARK_AT = b"DICM", 128
LOOKED_AT = 16  # files, before a folder is held to be without DICOM
SHOWN = 10
LARGEST_SCALING = 1 << 24  # so that 32 stored bits, scaled, stay within 64
PIXEL_TAGS = [
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
]  # fmt: skip


def read_dicom_series(folder: str | Path) -> Image:
    """Read the one series in a folder as (1, columns, rows, planes).

    Planes are ordered by their positions, never by names or numbers; the affine turns DICOM's
    (left, back, head) into NIfTI's (right, front, head), so that every position of the patient in
    the scanner comes out right. Values are the stored ones times RescaleSlope plus
    RescaleIntercept, Hounsfield units in CT: int16 where slope and intercept are whole and all
    fits, else int32 or float32; padding outside the field of view stays as it is. Elements that
    tell who the patient is are skipped, so that they can reach no output.

    Args:
        folder: its files are one series; DICOMDIR, hidden files and other kinds of files beside
            them are left out, folders inside it are not searched.

    Returns:
        The image; in memory the first axis is the fastest, as in a NIfTI file.

    Raises:
        ConfigError: pydicom is not installed.
        DataError: the folder holds none or several series, a file is damaged, not a single grey
            plane of CT or MR, or compressed in a way no installed decoder reads, or the planes
            make no regular, straight grid; names folder or file.
    """
    pydicom = _pydicom()
    planes, grid = _planes_and_grid(pydicom, Path(folder))
    columns, rows, depth = grid.shape
    volume = np.empty((depth, rows, columns), dtype=np.int16)
    for at, index in enumerate(grid.order):
        values = _read_values(pydicom, planes[index])
        if values.dtype != volume.dtype:  # rarely: a first plane beyond int16 widens all of them
            volume = volume.astype(np.result_type(volume.dtype, values.dtype), copy=False)
        volume[at] = values
    return Image(volume.transpose(2, 1, 0)[None], _attributes(Path(folder), grid))


def dicom_attributes(folder: str | Path) -> dict[str, Any]:
    """The attributes that `read_dicom_series` gives, after its checks; pixels stay unread.

    Raises:
        ConfigError: pydicom is not installed.
        DataError: as `read_dicom_series`, as far as headers show it.
    """
    with readable(folder):
        return _attributes(Path(folder), _planes_and_grid(_pydicom(), Path(folder))[1])


def is_dicom_folder(path: str | Path) -> bool:
    """Whether a folder itself holds DICOM files, judged by the mark in the first ones.

    >>> is_dicom_folder("nowhere")
    False
    """
    path = Path(path)
    return path.is_dir() and any(map(_has_mark, islice(_visible_files(path), LOOKED_AT)))


def is_single_plane(folder: str | Path) -> bool:
    """Whether a folder's DICOM files are one plane, as of a localiser, so that it is no volume.

    A file of several frames is more than one plane; one that cannot be read is not held to be
    single, so that `read_dicom_series` gets it and says why.
    """
    try:
        files = _dicom_files(Path(folder))
        if len(files) > 1:
            return False
        return int(read_header(_pydicom(), files[0]).get("NumberOfFrames") or 1) == 1
    except (ConfigError, DataError):
        return False


def _pydicom() -> Any:
    try:
        importlib.import_module("pydicom.pixels")
        return importlib.import_module("pydicom")
    except ImportError as error:
        raise ConfigError(
            'Reading DICOM needs pydicom: pip install "metaseg-monai[dicom]", or convert the '
            "series to NIfTI."
        ) from error


def _attributes(folder: Path, grid: SeriesGrid) -> dict[str, Any]:
    return image_attributes(
        str(folder), "dicom", "ijk", grid.shape, affine=grid.affine, spacing_mm=grid.spacing_mm
    )


def _visible_files(folder: Path) -> Iterator[Path]:
    """Files in the order of their names; a DICOMDIR is a disc's list of contents, no image."""
    for path in sorted(folder.iterdir()):
        if not path.name.startswith(".") and path.name.upper() != "DICOMDIR" and path.is_file():
            yield path


def _has_mark(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(MARK_AT + len(MARK))[MARK_AT:] == MARK


def _dicom_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder of one DICOM series")
    found: dict[bool, list[Path]] = {True: [], False: []}
    for path in _visible_files(folder):
        found[_has_mark(path)].append(path)
    if not found[True]:
        inside = [path.name for path in sorted(folder.iterdir()) if is_dicom_folder(path)]
        raise DataError(
            f"{folder}: none of its {len(found[False])} files is DICOM (no mark {MARK.decode()} "
            f"at byte {MARK_AT}); give the folder that holds one series"
            + (f", such as {', '.join(inside[:SHOWN])}" if inside else "")
        )
    kinds = {_kind_of_name(path) for path in found[True]}
    for path in found[False]:  # other kinds of files may lie beside a series, broken planes not
        if _kind_of_name(path) in kinds or path.stat().st_size == 0:
            raise DataError(
                f"{path}: lies among {len(found[True])} DICOM files, but has no mark "
                f"{MARK.decode()} at byte {MARK_AT}; copy it anew, or move it away"
            )
    return found[True]


def _kind_of_name(path: Path) -> str:
    """The suffix; numbers, as in "IM.0042" or a dotted UID, are none."""
    suffix = path.suffix.lower()
    return "" if suffix[1:].isdigit() else suffix


def _planes_and_grid(pydicom: Any, folder: Path) -> tuple[list[DicomPlane], SeriesGrid]:
    headers = {path: read_header(pydicom, path) for path in _dicom_files(folder)}
    _check_one_series(folder, headers)
    planes = [dicom_plane(path, header) for path, header in headers.items()]
    grid = series_grid(str(folder), [plane.place for plane in planes])
    needed = 2 * int(np.prod(grid.shape, dtype=np.int64))
    if needed > LARGEST_BYTES:
        raise DataError(
            f"{folder}: {needed >> 20} MiB of pixels for {grid.shape}; at most "
            f"{LARGEST_BYTES >> 20} are read: split the series"
        )
    return planes, grid


def _check_one_series(folder: Path, headers: Mapping[Path, Mapping[str, Any]]) -> None:
    files: dict[str, list[Path]] = defaultdict(list)
    for path, header in headers.items():
        files[str(header.get("SeriesInstanceUID", ""))].append(path)
    if len(files) == 1:
        return
    told = []
    for paths in sorted(files.values(), key=len, reverse=True):
        header = headers[paths[0]]
        told.append(
            f"{len(paths)} files of series {header.get('SeriesNumber', '?')} "
            f"({header.get('Modality', '?')}, {header.get('SeriesDescription', 'no description')}, "
            f"such as {paths[0].name})"
        )
    more = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    raise DataError(
        f"{folder}: holds {len(files)} series: {'; '.join(told[:SHOWN])}{more}; move each into a "
        "folder of its own and give that of the wanted one"
    )


def _read_values(pydicom: Any, plane: DicomPlane) -> np.ndarray:
    """Read one plane (rows, columns), rescaled, in the smallest type that holds it."""
    with faults_as_errors(plane.path):
        stored = pydicom.dcmread(plane.path, specific_tags=PIXEL_TAGS)
        if "PixelData" not in stored:
            raise DataError(f"{plane.path}: has no pixel data; it is truncated: copy it anew")
        try:
            pixels = np.asarray(stored.pixel_array)
        except Exception as error:  # decoders raise what they like
            compressed = stored.file_meta.TransferSyntaxUID.is_compressed
            raise DataError(
                f"{plane.path}: its pixels cannot be read, they are truncated or damaged ({error}"
                f"); copy it anew{f', or {DECODE}' if compressed else ''}"
            ) from error
    if pixels.shape != plane.place.shape or pixels.dtype.kind not in "iu":
        raise DataError(
            f"{plane.path}: {pixels.dtype} pixels of shape {pixels.shape}, expected whole numbers "
            f"of shape {plane.place.shape}; export the series anew"
        )
    scaling = (plane.slope, plane.intercept)
    if not all(part.is_integer() and abs(part) < LARGEST_SCALING for part in scaling):
        return (pixels * plane.slope + plane.intercept).astype(np.float32)
    values = pixels.astype(np.int64) * int(plane.slope) + int(plane.intercept)
    ends = np.array([values.min(), values.max()])
    for dtype in (np.int16, np.int32):
        if (ends.astype(dtype) == ends).all():
            return values.astype(dtype)
    return values
