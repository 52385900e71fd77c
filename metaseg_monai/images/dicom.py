"""Reading a DICOM series of CT or MR planes as one volume; needs the extra [dicom]."""

import importlib
import threading
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg_monai.errors import ConfigError, DataError, did_you_mean
from metaseg_monai.files import readable
from metaseg_monai.images.geometry import LARGEST_SHEAR_DEGREES, SAME_PLACE_VOXELS
from metaseg_monai.images.image import Image, check_announced, faults_as_errors, image_attributes

ONE_AT_A_TIME = threading.RLock()  # what the filters of warnings were, each thread puts back
MARK, MARK_AT = b"DICM", 128
LOOKED_AT = 16  # files, before a folder is held to be without DICOM
SHOWN, SHOWN_GAPS = 10, 3
MODALITIES = ("CT", "MR")
HOUNSFIELD = ("HU", "US", "")  # "US", unspecified, is what some scanners write for HU
# Nothing that names a person is among what is read.
HEADER_TAGS = [
    "SOPInstanceUID", "Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing",
    "RescaleIntercept", "RescaleSlope", "RescaleType", "LossyImageCompression",
]  # fmt: skip
PIXEL_TAGS = [
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns",
    "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData",
]  # fmt: skip
# Of elements that may be metadata: ages, numbers and words, no names, dates, times and UIDs.
VALUE_KINDS = ("AS", "CS", "DS", "FD", "FL", "IS", "LO", "SH", "SL", "SS", "UL", "US")
DECODE = (
    "install a decoder (pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg), or "
    "decompress the series first (gdcmconv --raw)"
)
LARGEST_SCALING = 1 << 24  # so that 32 stored bits, scaled, stay within 64
TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts toward left and back, NIfTI right and front
SAME_DIRECTION = 1e-3  # of unit vectors; some scanners round them to three decimals
GAP_RATIO = 0.01
ROUNDED_MM = 0.011  # what positions written with two decimals can be off by between two planes


class DicomPlane(NamedTuple):
    """One plane of CT or MR, as its header tells.

    Attributes:
        path: its file.
        instance: its own identity (SOPInstanceUID).
        frame: the identity of the space its position is in (FrameOfReferenceUID), or "".
        shape: rows, columns.
        spacing_mm: distance of rows, distance of columns (PixelSpacing).
        orientation: unit vectors along a row and down a column (ImageOrientationPatient).
        position_mm: middle of its first pixel, toward left, back, head (ImagePositionPatient).
        slope: by which stored values are multiplied.
        intercept: what is added then.
    """

    path: Path
    instance: str
    frame: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    orientation: tuple[float, ...]
    position_mm: tuple[float, ...]
    slope: float = 1.0
    intercept: float = 0.0


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
    planes, attributes = _series(pydicom, Path(folder))
    columns, rows, depth = attributes["spatial_shape"]
    volume = np.empty((depth, rows, columns), dtype=np.int16)
    for at, plane in enumerate(planes):
        values = _read_values(pydicom, plane)
        if values.dtype != volume.dtype:  # rarely: a first plane beyond int16 widens all of them
            volume = volume.astype(np.result_type(volume.dtype, values.dtype), copy=False)
        volume[at] = values
    return Image(volume.transpose(2, 1, 0)[None], attributes)


def dicom_attributes(folder: str | Path) -> dict[str, Any]:
    """The attributes that `read_dicom_series` gives, after its checks; pixels stay unread.

    Raises:
        ConfigError: pydicom is not installed.
        DataError: as `read_dicom_series`, as far as headers show it.
    """
    with readable(folder):
        return _series(_pydicom(), Path(folder))[1]


def read_planes(folder: str | Path) -> list[DicomPlane]:
    """The planes of the series in a folder, in the order of `read_dicom_series`.

    Raises:
        ConfigError: pydicom is not installed.
        DataError: as `dicom_attributes`.
    """
    with readable(folder):
        return _series(_pydicom(), Path(folder))[0]


def series_elements(
    folder: str | Path, keywords: Sequence[str]
) -> dict[str, Counter[tuple[str, ...]]]:
    """What each plane of a series says under some keywords, and how many planes say it.

    Args:
        folder: as for `read_dicom_series`.
        keywords: of elements, such as ``PatientAge``.

    Returns:
        {keyword: {values as texts: planes}}; () where a plane has no such element, or it is empty.

    Raises:
        ConfigError: pydicom is not installed, or there is no such element, or it is of a kind that
            tells who somebody is, or when, or holds no words and numbers.
        DataError: the folder holds none or several series, or a file is damaged.
    """
    pydicom = _pydicom()
    for keyword in keywords:
        _check_keyword(pydicom, keyword)
    with readable(folder):
        files = _dicom_files(Path(folder))
        headers = {path: _read_header(pydicom, path, keywords) for path in files}
    _check_one_series(Path(folder), headers)
    return {
        keyword: Counter(header.get(keyword, ()) for header in headers.values())
        for keyword in keywords
    }


def _check_keyword(pydicom: Any, keyword: str) -> None:
    """Refuse what is no element of words or numbers of one plane."""
    known = pydicom.datadict.keyword_dict
    if keyword not in known:
        raise ConfigError(
            f"the schema's tag {keyword!r}: DICOM has no such element; "
            f"{did_you_mean(keyword, known, told=True)}"
        )
    kind = pydicom.datadict.dictionary_VR(known[keyword])
    if kind not in VALUE_KINDS:
        raise ConfigError(
            f"the schema's tag {keyword!r} is of the kind {kind}, which tells who somebody is, or "
            f"when, or holds no words or numbers; expected one of {', '.join(VALUE_KINDS)}"
        )


def _texts(header: Any, keyword: str) -> tuple[str, ...]:
    """The values of an element as texts; those that pydicom cannot read as they are stored."""
    try:
        value = header[keyword].value
        found = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        texts = tuple("" if one is None else str(one).strip() for one in found)
    except Exception:  # pydicom raises what it likes of a text that is no number
        raw = header.get_item(keyword).value
        text = raw.decode("latin-1") if isinstance(raw, bytes) else str(raw)
        texts = tuple(one.strip("\0 ") for one in text.split("\\"))
    return texts if any(texts) else ()


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
        return int(_read_header(_pydicom(), files[0]).get("NumberOfFrames") or 1) == 1
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


def _series(pydicom: Any, folder: Path) -> tuple[list[DicomPlane], dict[str, Any]]:
    """The planes of a folder in their order, and the attributes of the image that they make."""
    headers = {path: _read_header(pydicom, path) for path in _dicom_files(folder)}
    _check_one_series(folder, headers)
    found = [_plane(path, header) for path, header in headers.items()]
    planes, affine, spacing_mm = series_grid(str(folder), found)
    rows, columns = planes[0].shape
    shape = (columns, rows, len(planes))
    needed = 2 * int(np.prod(shape, dtype=np.int64))
    check_announced(folder, needed, sum(path.stat().st_size for path in headers), shape)
    told: dict[str, Any] = (
        {"inverted": 1} if any(_inverted(header) for header in headers.values()) else {}
    )
    if any(header.get("LossyImageCompression") == "01" for header in headers.values()):
        told |= {"lossy": "DICOM's lossy compression"}
    told["modality"] = str(next(iter(headers.values())).get("Modality", ""))
    attributes = image_attributes(str(folder), "dicom", "ijk", shape, affine, spacing_mm, **told)
    return planes, attributes


def _inverted(header: Mapping[str, Any]) -> bool:
    """Whether larger values are to be shown darker, which is no matter to Hounsfield units."""
    return header.get("PhotometricInterpretation") == "MONOCHROME1"


# Which files of a folder are planes of the series.


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
    for path in sorted(folder.iterdir()):  # a plane that lacks at an end leaves no gap
        kind, lost = _kind_of_name(path), not (path.is_file() or path.is_dir())
        if not path.name.startswith(".") and kind in kinds and (lost or (path.is_dir() and kind)):
            pipe = "is no regular file" if path.exists() else "is a link that leads nowhere"
            what = "is a folder" if path.is_dir() else pipe
            raise DataError(
                f"{path}: {what}, but is named as one of {len(found[True])} planes beside it; copy "
                "it anew, or move it away"
            )
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


# What the header of one plane says, whether it can be part of a volume, and its values.


@contextmanager
def quietly(path: Path) -> Iterator[None]:
    """Name the file whatever fails in pydicom; its warnings are of what is checked here."""
    with faults_as_errors(path, "DICOM"), ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read_header(pydicom: Any, path: Path, texts: Sequence[str] = ()) -> dict[str, Any]:
    """The elements that `HEADER_TAGS` names, where the file has them; all else is skipped.

    Args:
        pydicom: the package.
        path: of the file.
        texts: keywords of further elements, as texts.
    """
    with quietly(path):
        wanted = [*HEADER_TAGS, *texts]
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted)
        syntax = header.file_meta.TransferSyntaxUID
        try:
            available = pydicom.pixels.get_decoder(syntax).is_available
        except NotImplementedError:  # no way of storing pixels that pydicom knows
            available = False
        if not available:
            raise DataError(f"{path}: compressed as {syntax.name}, without a decoder; {DECODE}")
        if not header.get("SeriesInstanceUID"):
            raise DataError(f"{path}: tells no series (SeriesInstanceUID); it is cut: copy it anew")
        known = {keyword: header.get(keyword) for keyword in HEADER_TAGS if keyword in header}
        return known | {keyword: _texts(header, keyword) for keyword in texts if keyword in header}


def _plane(path: Path, header: Mapping[str, Any]) -> DicomPlane:
    """Check that a header is of one grey plane of CT or MR with its place in the patient."""
    with quietly(path):
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
        plane = DicomPlane(
            path,
            str(header.get("SOPInstanceUID", path.name)),
            str(header.get("FrameOfReferenceUID", "")),
            (int(_numbers(path, header, "Rows")[0]), int(_numbers(path, header, "Columns")[0])),
            _numbers(path, header, "PixelSpacing", 2),
            _numbers(path, header, "ImageOrientationPatient", 6),
            _numbers(path, header, "ImagePositionPatient", 3),
        )
        if modality == "CT" or "RescaleSlope" in header or "RescaleIntercept" in header:
            plane = plane._replace(
                slope=_numbers(path, header, "RescaleSlope")[0],
                intercept=_numbers(path, header, "RescaleIntercept")[0],
            )
    if min(*plane.shape, *plane.spacing_mm) <= 0 or plane.slope == 0:
        raise DataError(
            f"{path}: {plane.shape} pixels, PixelSpacing {plane.spacing_mm}, RescaleSlope "
            f"{plane.slope:g}: expected positive sizes and a slope other than 0; export the "
            "series anew"
        )
    return plane


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


def _read_values(pydicom: Any, plane: DicomPlane) -> np.ndarray:
    """Read one plane (rows, columns), rescaled, in the smallest type that holds it."""
    with quietly(plane.path):
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
    if pixels.shape != plane.shape or pixels.dtype.kind not in "iu":
        raise DataError(
            f"{plane.path}: {pixels.dtype} pixels of shape {pixels.shape}, expected whole numbers "
            f"of shape {plane.shape}; export the series anew"
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


# Where the planes lie: their order, and one affine for all of them.


def series_grid(
    folder: str, planes: Sequence[DicomPlane]
) -> tuple[list[DicomPlane], np.ndarray, tuple[float, float, float]]:
    """Order planes and see that they make one regular, straight grid.

    Planes that lack at an end of the series leave no gap and cannot be noticed.

    Args:
        folder: for messages.
        planes: in any order.

    Returns:
        The planes along their normal (row x column direction), whatever the order of the files;
        the affine (4, 4) float64, index (column, row, plane) to mm (R, A, S); and the distance of
        columns, rows and planes in mm.

    Raises:
        DataError: there are fewer than two planes, they differ in shape, spacing, orientation or
            frame of reference, two lie at one position, gaps differ by more than 1 % (or 0.01
            mm), or they shift sideways as with a gantry tilted by more than a degree; names
            the files.

    >>> front = {"shape": (4, 6), "spacing_mm": (0.8, 0.7), "orientation": (1, 0, 0, 0, 1, 0)}
    >>> ordered, affine, spacing_mm = series_grid("ct", [
    ...     DicomPlane(Path(f"{z}.dcm"), str(z), "", position_mm=(5, 2, z), **front)
    ...     for z in (9, 3, 6)
    ... ])
    >>> [plane.path.name for plane in ordered], spacing_mm
    (['3.dcm', '6.dcm', '9.dcm'], (0.7, 0.8, 3.0))
    >>> affine[2].tolist()
    [0.0, 0.0, 3.0, 3.0]
    """
    if len(planes) < 2:
        raise DataError(
            f"{folder}: {len(planes)} plane, so the distance of planes is unknown; expected a "
            "whole series of CT or MR"
        )
    for keyword, name, tolerance in (
        ("FrameOfReferenceUID", "frame", 0.0),
        ("Rows and Columns", "shape", 0.0),
        ("PixelSpacing", "spacing_mm", 1e-4),
        ("ImageOrientationPatient", "orientation", SAME_DIRECTION),
    ):
        _check_agreement(folder, planes, keyword, name, tolerance)
    first = planes[0]
    along_row, down_column = _directions(folder, first)
    normal = np.cross(along_row, down_column)
    positions = np.array([plane.position_mm for plane in planes], dtype=np.float64)
    order = np.argsort(positions @ normal, kind="stable")
    ordered, positions = [planes[index] for index in order], positions[order]
    _check_gaps(folder, ordered, positions @ normal)
    offsets = positions - positions[0]
    _check_straight(folder, ordered, offsets, normal)
    step = offsets[-1] / (len(planes) - 1)
    rows_mm, columns_mm = first.spacing_mm
    lps = np.eye(4)
    lps[:3] = np.stack([along_row * columns_mm, down_column * rows_mm, step, positions[0]], axis=1)
    spacing_mm = (float(columns_mm), float(rows_mm), float(step @ normal))
    return ordered, TO_RAS @ lps, spacing_mm


def _check_agreement(
    folder: str, planes: Sequence[DicomPlane], keyword: str, name: str, tolerance: float
) -> None:
    values: list[Any] = [getattr(plane, name) for plane in planes]
    usual = Counter(values).most_common(1)[0][0]
    odd = [
        plane
        for plane, value in zip(planes, values, strict=True)
        if value != usual and not (tolerance and np.allclose(value, usual, rtol=0, atol=tolerance))
    ]
    if odd:
        typical = planes[values.index(usual)].path.name
        raise DataError(
            f"{folder}: {len(odd)} of {len(planes)} planes differ in {keyword}: {odd[0].path.name} "
            f"has {getattr(odd[0], name)}, {typical} has {usual}; move localisers and other scans "
            "into folders of their own"
        )


def _directions(folder: str, plane: DicomPlane) -> tuple[np.ndarray, np.ndarray]:
    """Two unit vectors at a right angle; rounding of the file's text is taken out."""
    along_row, down_column = np.array(plane.orientation, dtype=np.float64).reshape(2, 3)
    sizes = np.linalg.norm(along_row), np.linalg.norm(down_column)
    lean = float(along_row @ down_column)
    if max(abs(size - 1) for size in sizes) > SAME_DIRECTION or abs(lean) > SAME_DIRECTION:
        raise DataError(
            f"{folder}: {plane.path.name}: ImageOrientationPatient {plane.orientation} is no pair "
            "of unit vectors at a right angle; export the series anew"
        )
    along_row = along_row / sizes[0]
    down_column = down_column - (down_column @ along_row) * along_row
    return along_row, down_column / np.linalg.norm(down_column)


def _check_gaps(folder: str, ordered: Sequence[DicomPlane], heights: np.ndarray) -> None:
    gaps = np.diff(heights)
    told = [f"{p.path.name} at {height:g} mm" for p, height in zip(ordered, heights, strict=True)]
    same = np.flatnonzero(gaps < ROUNDED_MM)
    if len(same):
        index = int(same[0])
        copies = ordered[index].instance == ordered[index + 1].instance
        reason = (
            "they are copies of one image: delete one"
            if copies
            else "several phases, echoes or repeats in one series: keep one of them in the folder"
        )
        raise DataError(
            f"{folder}: {len(same)} planes lie where another one lies, such as {told[index]} and "
            f"{told[index + 1]}; {reason}"
        )
    usual = float(np.median(gaps))
    uneven = np.flatnonzero(np.abs(gaps - usual) > max(GAP_RATIO * usual, ROUNDED_MM))
    if len(uneven):
        shown = "; ".join(
            f"{gaps[index]:g} mm between {told[index]} and {told[index + 1]}"
            for index in uneven[:SHOWN_GAPS]
        )
        lacking = int(sum(max(0, round(gaps[index] / usual) - 1) for index in uneven))
        lack = f"; about {lacking} planes lack: copy the series anew" if lacking else ""
        raise DataError(
            f"{folder}: planes are {usual:g} mm apart, but {len(uneven)} of {len(gaps)} gaps are "
            f"not: {shown}{lack or '; resample it to equal distances first'}"
        )


def _check_straight(
    folder: str, ordered: Sequence[DicomPlane], offsets: np.ndarray, normal: np.ndarray
) -> None:
    """Refuse planes that do not lie above each other, but for a tilt below a degree."""
    aside = offsets - np.outer(offsets @ normal, normal)
    tilt = np.degrees(np.arctan2(np.linalg.norm(aside[-1]), offsets[-1] @ normal))
    if tilt <= LARGEST_SHEAR_DEGREES:
        aside = aside - np.outer(np.linspace(0, 1, len(ordered)), aside[-1])
    sideways = np.linalg.norm(aside, axis=1)
    worst = int(sideways.argmax())
    limit_mm = SAME_PLACE_VOXELS * min(ordered[0].spacing_mm)
    if tilt > LARGEST_SHEAR_DEGREES or sideways[worst] > limit_mm:
        raise DataError(
            f"{folder}: {ordered[worst].path.name} lies {sideways[worst]:.3g} mm sideways of "
            f"{ordered[0].path.name} (a gantry tilt of {tilt:.2g} degrees?); convert the series "
            "with dcm2niix, which straightens it, and give the NIfTI file"
        )
