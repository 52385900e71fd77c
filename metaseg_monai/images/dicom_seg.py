"""Masks as DICOM Segmentation, on the planes of the series they are of; needs the extra [dicom]."""

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg_monai.errors import ConfigError, DataError, did_you_mean
from metaseg_monai.images.dicom import DicomPlane, quietly, read_planes
from metaseg_monai.images.image import faults_as_errors

SUFFIX = ".dcm"
NAME = "metaseg_monai"
LONGEST = 64  # characters of a text of the kind LO
SERIES_AFTER = 1000  # added to the number of the source's series
TISSUE = ("85756007", "SCT", "Tissue")  # what 3D Slicer takes of a segment that nobody described
OWN_CODES = "99METASEG"  # private schemes begin with 99
# All that is read of a source: whose it is, as the standard asks of each object of a study, and
# where its planes lie.
WHOSE = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime"),
)
PLACE_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber"),
    *("Modality", "FrameOfReferenceUID", "PositionReferenceIndicator", "Rows", "Columns"),
    *("PixelSpacing", "SliceThickness", "ImagePositionPatient", "ImageOrientationPatient"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
SEXES = ("M", "F", "O", "")


class MadeBy(NamedTuple):
    """What made a mask.

    Attributes:
        name: of the network, such as ``Unet3 sme``.
        weights_sha256: of its weights.
    """

    name: str
    weights_sha256: str


class SegmentCodes:
    """What the classes of a mask are, in the codes of a terminology.

    Args:
        codes: by class name: ``type`` [value, scheme, meaning], such as ["64033007", "SCT",
            "Kidney"], and perhaps ``category`` (by default Tissue) and ``region``, the part of the
            body. A class that is not named has the category Tissue and, as its type, its name in
            the private scheme 99METASEG.

    Raises:
        ConfigError: something else; names the class.

    >>> SegmentCodes({"kidney": {"type": ["64033007", "SCT", "Kidney"]}}).of("kidney")["category"]
    ('85756007', 'SCT', 'Tissue')
    >>> SegmentCodes({}).of("left lung")["type"]
    ('left lung', '99METASEG', 'left lung')
    """

    KNOWN = ("category", "type", "region")

    def __init__(self, codes: Mapping[str, Mapping[str, Sequence[str]]] | None = None) -> None:
        self.codes = dict(codes or {})
        for name, given in self.codes.items():
            known = isinstance(given, Mapping) and "type" in given
            if not known or (strange := [one for one in given if one not in self.KNOWN]):
                step = did_you_mean(strange[0], self.KNOWN) if known else "give its type"
                raise ConfigError(f"segments: {name!r} is {given!r:.200}; {step}")
            for what, code in given.items():
                parts = list(code) if isinstance(code, list | tuple) else []
                if len(parts) != 3 or not all(isinstance(part, str) and part for part in parts):
                    raise ConfigError(
                        f"segments: {what} of {name!r} is {code!r:.200}; expected [value, scheme, "
                        'meaning], such as ["64033007", "SCT", "Kidney"]'
                    )

    def of(self, name: str) -> dict[str, tuple[str, ...]]:
        """The codes of a class: `category`, `type` and, where it is told, `region`."""
        text = name.replace("\\", "/")[:LONGEST]
        default = {"category": TISSUE, "type": (text, OWN_CODES, text)}
        return default | {what: tuple(code) for what, code in self.codes.get(name, {}).items()}


def require_highdicom() -> Any:
    """The package that makes DICOM Segmentations.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module("highdicom")
    except ImportError as error:
        raise ConfigError(
            'Writing DICOM Segmentations needs highdicom: pip install "metaseg-monai[dicom]", or '
            "leave --prediction_form out for NIfTI masks."
        ) from error


def segmentation(
    mask: np.ndarray,
    series: str | Path,
    class_names: Mapping[int, str],
    codes: SegmentCodes,
    made_by: MadeBy,
) -> Any:
    """Make the DICOM Segmentation of a mask: a binary segment for each class above 0.

    Each frame has position and orientation of the plane that it is of, names it as its source, and
    is left out where the segment has no pixel there (of an empty mask all are kept). The object
    belongs to the study of its source: it has the patient's name, ID, birth date and sex and what
    tells the study, as the standard asks, and nothing else of the source's own words. Its UIDs
    follow from source, weights and mask, so that the same prediction is the same object.

    Args:
        mask: (columns, rows, planes) whole numbers, as `read_dicom_series` has the series.
        series: folder of the source.
        class_names: by class; 0, the background, is no segment.
        codes: of the classes.
        made_by: which network.

    Returns:
        The object (pydicom.Dataset); ``save_as`` writes it.

    Raises:
        ConfigError: highdicom is not installed.
        DataError: the series cannot be read, lacks what the object must have, or has another
            shape.
    """
    highdicom = require_highdicom()
    planes = read_planes(series)
    rows, columns = planes[0].shape
    if mask.shape != (columns, rows, len(planes)):
        raise DataError(
            f"{series}: a mask of shape {mask.shape}, expected {(columns, rows, len(planes))}; "
            "the series has changed: predict it anew"
        )
    step_mm = float(np.linalg.norm(np.subtract(planes[-1].position_mm, planes[0].position_mm)))
    step_mm /= len(planes) - 1
    sources = [_source(plane, step_mm) for plane in planes]
    frames = np.ascontiguousarray(mask.transpose(2, 1, 0))
    number = max(int(frames.max(initial=0)), *class_names, 1)
    frames = frames.astype(np.uint8 if number < 256 else np.uint16)
    release = version("metaseg-monai")
    study = [one.SOPInstanceUID for one in sources]
    uid = importlib.import_module("pydicom.uid").generate_uid
    whose = "the source of a DICOM Segmentation"
    with faults_as_errors(series, whose, "predict NIfTI masks"), quietly(Path(series)):
        algorithm = highdicom.AlgorithmIdentificationSequence(
            name=f"{NAME} {made_by.name}"[:LONGEST],
            family=highdicom.sr.CodedConcept("123110", "DCM", "Artificial Intelligence"),
            version=release,
            source=NAME,
            parameters={"weights_sha256": made_by.weights_sha256},
        )
        return highdicom.seg.Segmentation(
            source_images=sources,
            pixel_array=frames,
            segmentation_type="BINARY",
            segment_descriptions=[
                _segment(highdicom, one, class_names.get(one, f"class {one}"), codes, algorithm)
                for one in range(1, number + 1)
            ],
            series_instance_uid=uid(
                entropy_srcs=[sources[0].SeriesInstanceUID, made_by.weights_sha256]
            ),
            series_number=int(sources[0].get("SeriesNumber") or 0) + SERIES_AFTER,
            sop_instance_uid=uid(
                entropy_srcs=[*study, made_by.weights_sha256, _digest(frames, class_names)]
            ),
            instance_number=1,
            manufacturer=NAME,
            manufacturer_model_name=NAME,
            software_versions=release,
            device_serial_number=made_by.weights_sha256 or "unknown",
            series_description=f"Segmentation by {NAME} {made_by.name}"[:LONGEST],
            pixel_measures=highdicom.PixelMeasuresSequence(
                pixel_spacing=planes[0].spacing_mm,
                slice_thickness=float(sources[0].SliceThickness),
                spacing_between_slices=step_mm,
            ),
            omit_empty_frames=bool(frames.any()),
            specific_character_set="ISO_IR 192",
        )


def _source(plane: DicomPlane, step_mm: float) -> Any:
    """The elements of a plane that its segmentation needs, and no others."""
    pydicom = importlib.import_module("pydicom")
    with quietly(plane.path):
        tags = [*WHOSE, *PLACE_TAGS]
        header = pydicom.dcmread(plane.path, stop_before_pixels=True, specific_tags=tags)
        for name in WHOSE:
            if name not in header:  # may be empty, not absent
                setattr(header, name, "")
        if header.PatientSex not in SEXES:
            header.PatientSex = "O"
        if not header.get("SliceThickness"):
            header.SliceThickness = f"{step_mm:.10g}"
        for name in ("StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID", "SOPClassUID"):
            if not header.get(name):
                raise DataError(
                    f"{plane.path}: has no {name}, which a segmentation must name; export the "
                    "series anew, or leave --prediction_form out for a NIfTI mask"
                )
    return header


def _segment(highdicom: Any, number: int, name: str, codes: SegmentCodes, algorithm: Any) -> Any:
    concept = highdicom.sr.CodedConcept
    of = {what: concept(*code) for what, code in codes.of(name).items()}
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=name.replace("\\", "/")[:LONGEST],
        segmented_property_category=of["category"],
        segmented_property_type=of["type"],
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm,
        anatomic_regions=[of["region"]] if "region" in of else None,
    )


def _digest(frames: np.ndarray, class_names: Mapping[int, str]) -> str:
    """What tells one mask from another of the same source and weights."""
    told = f"{frames.shape} {sorted(class_names.items())}".encode()
    return hashlib.sha256(told + frames.tobytes()).hexdigest()
