"""DICOM Segmentations, read back by nothing but the positions that their frames tell."""

import warnings

import numpy as np
import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images import dicom_seg
from metaseg_monai.images.dicom import read_dicom_series
from metaseg_monai.images.dicom_seg import MadeBy, SegmentCodes, segmentation
from tests.extras import needed
from tests.images.test_dicom import AFFINE, SECRETS, saved, series

pydicom = needed("pydicom", reason="needs the extra [dicom]")
needed("highdicom", reason="needs the extra [dicom]")
SHA = "0123456789abcdef" * 4
NAMES = {1: "kidney", 2: "Läsion links"}
CODES = SegmentCodes({"kidney": {"type": ["64033007", "SCT", "Kidney"]}})
PRIVATE = {"PatientComments": "diabetic", "InstitutionName": "Saint Elsewhere",
           "ReferringPhysicianName": "Roe^Jane", "StationName": "CT-7"}  # fmt: skip


def study(folder, affine=AFFINE, shuffle=True, **elements):
    """A series as a scanner sends it, with all that a study's objects have."""
    planes = series(affine=affine)
    if shuffle:
        np.random.default_rng(1).shuffle(planes)
    for plane in planes:
        plane.SpecificCharacterSet, plane.StudyInstanceUID = "ISO_IR 100", "1.2.5"
        plane.PatientName, plane.PatientSex = "Müller^Jörg", "M"
        with warnings.catch_warnings():  # pydicom warns of the faults that tests put in
            warnings.simplefilter("ignore")
            for name, value in {**PRIVATE, **elements}.items():
                setattr(plane, name, value)
        plane.add_new((0x0009, 0x0010), "LO", "VENDOR")
        plane.add_new((0x0009, 0x1001), "LO", "private secret")
    return saved(folder, planes)


def mask_like(image, seed=0):
    return np.random.default_rng(seed).integers(0, 3, image.array.shape[1:]).astype(np.uint8)


def made(folder, mask, names=NAMES, codes=CODES):
    path = folder.parent / "seg.dcm"
    segmentation(mask, folder, names, codes, MadeBy("Unet3 sme", SHA)).save_as(path)
    return pydicom.dcmread(path)


def masks_by_position(seg, affine, shape):
    """The masks (S, columns, rows, planes) of a file on a grid, by its frames' own places alone."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    rows_mm, columns_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    directions = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    to_index = np.linalg.inv(affine) @ np.diag([-1.0, -1, 1, 1])
    found = np.zeros((len(seg.SegmentSequence), *shape), np.uint8)
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    assert len(frames) == len(seg.PerFrameFunctionalGroupsSequence)
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        place = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(frame):
            at = place + directions[:3] * column * columns_mm + directions[3:] * row * rows_mm
            index = (to_index @ [*at, 1])[:3]
            assert np.abs(index - index.round()).max() < 0.05
            found[(segment - 1, *index.round().astype(int))] += 1
    return found


def tilted(degrees):
    turn, angle = np.eye(4), np.radians(degrees)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ AFFINE


@pytest.mark.parametrize(
    "affine",
    [AFFINE, tilted(12), AFFINE @ np.diag([1, 1, -1, 1]), AFFINE[:, [2, 0, 1, 3]]],
    ids=["axial", "oblique", "feet first", "sagittal"],
)
def test_every_voxel_comes_back_at_its_place(tmp_path, affine):
    folder = study(tmp_path / "ct", affine)
    image = read_dicom_series(folder)
    mask = mask_like(image)
    mask[:, :, 1] = 0  # no frame there
    seg = made(folder, mask)
    found = masks_by_position(seg, image.attributes["affine"], mask.shape)
    np.testing.assert_array_equal(found, [mask == 1, mask == 2])
    assert seg.NumberOfFrames == 2 * (mask.shape[2] - 1)


def test_each_frame_names_the_plane_that_it_is_of(tmp_path):
    folder = study(tmp_path / "ct")
    mask = mask_like(read_dicom_series(folder))
    seg = made(folder, mask)
    place_of = {
        one.SOPInstanceUID: list(map(float, one.ImagePositionPatient))
        for one in map(pydicom.dcmread, folder.iterdir())
    }
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == "1.2.3"
    listed = {one.ReferencedSOPInstanceUID for one in referenced.ReferencedInstanceSequence}
    assert listed == place_of.keys()
    for group in seg.PerFrameFunctionalGroupsSequence:
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        place = list(map(float, group.PlanePositionSequence[0].ImagePositionPatient))
        assert place_of[source.ReferencedSOPInstanceUID] == place
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == ("1.2.5", "1.2.4")


def test_segments_are_named_coded_and_tell_the_weights(tmp_path):
    folder = study(tmp_path / "ct")
    seg = made(folder, mask_like(read_dicom_series(folder)))
    kidney, lesion = seg.SegmentSequence
    assert (kidney.SegmentNumber, kidney.SegmentLabel) == (1, "kidney")
    code = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("64033007", "SCT")
    assert lesion.SegmentLabel == "Läsion links"
    code = lesion.SegmentedPropertyTypeCodeSequence[0]
    assert (code.CodeMeaning, code.CodingSchemeDesignator) == ("Läsion links", "99METASEG")
    assert lesion.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Tissue"
    for segment in (kidney, lesion):
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "metaseg_monai Unet3 sme"
        assert algorithm.AlgorithmParameters == f"weights_sha256={SHA}"


def test_whose_it_is_stays_and_nothing_else_of_the_source(tmp_path):
    folder = study(tmp_path / "ct")
    seg = made(folder, mask_like(read_dicom_series(folder)))
    assert (str(seg.PatientName), seg.PatientID, seg.PatientSex) == ("Müller^Jörg", SECRETS[1], "M")
    written = (tmp_path / "seg.dcm").read_bytes()
    for text in (*PRIVATE.values(), "private secret", "Abdomen venous"):
        assert text.encode() not in written


@pytest.mark.parametrize("names", [NAMES, {}])
def test_an_empty_mask_has_all_frames_and_no_pixel(tmp_path, names):
    folder = study(tmp_path / "ct")
    mask = np.zeros(read_dicom_series(folder).array.shape[1:], np.uint8)
    seg = made(folder, mask, names)
    assert seg.pixel_array.sum() == 0
    assert seg.NumberOfFrames == max(1, len(names)) * mask.shape[2]
    assert [one.SegmentLabel for one in seg.SegmentSequence] == (
        list(names.values()) or ["class 1"]
    )


def test_the_same_prediction_is_the_same_object_and_another_mask_another(tmp_path):
    folder = study(tmp_path / "ct")
    image = read_dicom_series(folder)
    first, again, other = (made(folder, mask_like(image, seed)) for seed in (0, 0, 1))
    assert first.SOPInstanceUID == again.SOPInstanceUID != other.SOPInstanceUID
    assert first.SeriesInstanceUID == other.SeriesInstanceUID


def test_a_series_without_whose_and_with_odd_words_is_taken(tmp_path):
    folder = study(tmp_path / "ct", PatientSex="male")
    for path in folder.iterdir():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plane = pydicom.dcmread(path)
            del plane.PatientName, plane.PatientID, plane.PatientBirthDate
            plane.save_as(path)
    seg = made(folder, mask_like(read_dicom_series(folder)))
    assert (str(seg.PatientName), seg.PatientID, seg.PatientSex) == ("", "", "O")


def test_what_a_segmentation_must_name_is_asked_for(tmp_path):
    folder = study(tmp_path / "ct", FrameOfReferenceUID="")
    with pytest.raises(DataError, match=r"IM\d+.dcm: has no FrameOfReferenceUID"):
        made(folder, mask_like(read_dicom_series(folder)))
    whole = study(tmp_path / "whole")
    with pytest.raises(DataError, match="a mask of shape"):
        made(whole, mask_like(read_dicom_series(whole))[:, :, 1:])


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ({"kidney": {"type": ["64033007", "SCT"]}}, "type of 'kidney' is"),
        ({"kidney": {"category": ["1", "SCT", "x"]}}, "'kidney' is .* give its type"),
        ({"kidney": {"type": ["1", "SCT", "x"], "categry": []}}, "did you mean 'category'"),
    ],
)
def test_codes_that_are_none_are_refused(codes, message):
    with pytest.raises(ConfigError, match=message):
        SegmentCodes(codes)


def test_without_highdicom_the_extra_is_named(monkeypatch):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(dicom_seg.importlib, "import_module", absent)
    with pytest.raises(ConfigError, match=r'pip install "metaseg-monai\[dicom\]"'):
        dicom_seg.require_highdicom()
