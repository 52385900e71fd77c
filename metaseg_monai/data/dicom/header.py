"""What the header of one DICOM plane says, and whether the plane can be part of a volume."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg_monai.data.dicom.grid import PlanePlace
from metaseg_monai.errors import DataError

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
