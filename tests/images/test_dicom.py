"""DICOM series as volumes: values, geometry, and every refusal by file or folder."""

import itertools
import os
import sys
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images import dicom, mask_suffix, read_image, write_mask
from metaseg_monai.images.dicom import (
    DicomPlane,
    dicom_attributes,
    is_dicom_folder,
    read_dicom_series,
    series_grid,
)
from metaseg_monai.images.geometry import axial_volume, shear_degrees
from metaseg_monai.tables import find_cases, load_case
from tests.extras import needed

pydicom = needed("pydicom", reason="needs the extra [dicom]")

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
SECRETS = ("Doe^Jane", "PID-4711", "19700131", "Saint Elsewhere")
VOLUME = np.random.default_rng(0).integers(-1024, 3072, (6, 5, 4)).astype(np.int16)
# stored toward left, back, head, as a scanner gives a patient who lies on the back
AFFINE = np.array([[-0.7, 0, 0, 10], [0, -0.8, 0, 20.5], [0, 0, 2.5, -30], [0, 0, 0, 1]])
ORIENTATIONS = [
    np.stack([order, flips], axis=1)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def dicom_plane(hounsfield, orientation, spacing, position):
    """One CT plane (rows, columns) as scanners store it: 12 bits, 1024 above HU."""
    plane = pydicom.Dataset()
    plane.file_meta = pydicom.dataset.FileMetaDataset()
    plane.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    plane.file_meta.MediaStorageSOPClassUID = plane.SOPClassUID = CT_CLASS
    uid = pydicom.uid.generate_uid()
    plane.file_meta.MediaStorageSOPInstanceUID = plane.SOPInstanceUID = uid
    plane.PatientName, plane.PatientID, plane.PatientBirthDate, plane.InstitutionName = SECRETS
    plane.Modality, plane.SeriesInstanceUID, plane.FrameOfReferenceUID = "CT", "1.2.3", "1.2.4"
    plane.SeriesNumber, plane.SeriesDescription = 3, "Abdomen venous"
    plane.ImageOrientationPatient = [f"{part:.12g}" for part in orientation]
    plane.ImagePositionPatient = [f"{part:.12g}" for part in position]
    plane.PixelSpacing = [f"{part:.12g}" for part in spacing]
    plane.Rows, plane.Columns = hounsfield.shape
    plane.SamplesPerPixel, plane.PhotometricInterpretation = 1, "MONOCHROME2"
    plane.BitsAllocated, plane.BitsStored, plane.HighBit = 16, 12, 11
    plane.PixelRepresentation, plane.RescaleSlope, plane.RescaleIntercept = 0, 1, -1024
    plane.RescaleType = "HU"
    plane.PixelData = (hounsfield.astype(np.int32) + 1024).astype("<u2").tobytes()
    return plane


def series(volume=VOLUME, affine=AFFINE):
    """The planes of a volume (columns, rows, planes) of an affine as NIfTI has."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    sides = np.linalg.norm(lps[:3, :3], axis=0)
    directions = lps[:3, :3] / sides
    return [
        dicom_plane(
            volume[:, :, index].T,
            (*directions[:, 0], *directions[:, 1]),
            (sides[1], sides[0]),
            lps[:3, 3] + index * lps[:3, 2],
        )
        for index in range(volume.shape[2])
    ]


def saved(folder, planes, names="IM{:04d}.dcm"):
    """Write planes into a folder, a file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, plane in enumerate(planes):
        with warnings.catch_warnings():  # pydicom warns of the faults that tests put in
            warnings.simplefilter("ignore")
            plane.save_as(folder / names.format(index), enforce_file_format=True)
    return folder


def refused(folder, planes, message):
    with pytest.raises(DataError, match=message):
        read_dicom_series(saved(folder, planes))


def test_array_affine_and_attributes(tmp_path):
    folder = saved(tmp_path / "ct", series())
    image = read_image(folder)
    assert image.array.dtype == np.int16
    np.testing.assert_array_equal(image.array, VOLUME[None])
    assert image.array[0].flags.f_contiguous
    np.testing.assert_array_equal(image.attributes["affine"], AFFINE)
    assert image.attributes["spacing_mm"] == (0.7, 0.8, 2.5)
    told = {key: image.attributes[key] for key in ("path", "format", "spatial_shape", "header")}
    assert told == {
        "path": str(folder),
        "format": "dicom",
        "spatial_shape": (6, 5, 4),
        "header": None,
    }
    alone = dicom_attributes(folder)
    np.testing.assert_array_equal(alone.pop("affine"), image.attributes.pop("affine"))
    assert alone == image.attributes


@pytest.mark.parametrize("turn", ORIENTATIONS)
def test_axial_planes_equal_those_of_the_nifti_in_every_orientation(tmp_path, turn):
    """All 48: axial, coronal and sagittal planes, rows and columns mirrored, up and down."""
    stored = np.asarray(apply_orientation(VOLUME, turn))
    affine = AFFINE @ inv_ornt_aff(turn, VOLUME.shape)
    nib.save(nib.Nifti1Image(stored, affine), tmp_path / "a.nii.gz")
    planes = series(stored, affine)
    np.random.default_rng(1).shuffle(planes)
    image = read_image(saved(tmp_path / "ct", planes))
    ours, theirs = axial_volume(image), axial_volume(read_image(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(ours.planes, theirs.planes)
    np.testing.assert_allclose(ours.affine, theirs.affine, rtol=0, atol=1e-5)
    np.testing.assert_allclose(ours.spacing_mm, theirs.spacing_mm, rtol=1e-6)
    mask = ours.restore((ours.planes > 0).astype(np.uint8))
    np.testing.assert_array_equal(mask, image.array[0] > 0)


def test_oblique_planes_keep_their_affine(tmp_path):
    angle = np.radians(12)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    image = read_dicom_series(saved(tmp_path / "ct", series(affine=turn @ AFFINE)))
    np.testing.assert_allclose(image.attributes["affine"], turn @ AFFINE, rtol=0, atol=1e-9)
    assert image.attributes["spacing_mm"] == pytest.approx((0.7, 0.8, 2.5))


def test_positions_and_directions_rounded_by_the_scanner_pass(tmp_path):
    affine = AFFINE.copy()
    affine[2, 2] = 0.333
    planes = series(affine=affine)
    for plane in planes:
        plane.ImagePositionPatient = [f"{part:.2f}" for part in plane.ImagePositionPatient]
        plane.ImageOrientationPatient = ["0.9995", "0", "0", "0", "1", "0"]
    image = read_dicom_series(saved(tmp_path / "ct", planes))
    np.testing.assert_allclose(image.attributes["affine"], affine, atol=0.006)
    np.testing.assert_allclose(image.attributes["affine"][:3, :2], affine[:3, :2], atol=1e-12)


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"),
    [(1, -1024, np.int16), (2, 0, np.int16), (100, 0, np.int32), (0.5, -1024, np.float32)],
)
def test_rescaling_and_its_data_type(tmp_path, slope, intercept, dtype):
    planes = series()
    for plane in planes:
        plane.RescaleSlope, plane.RescaleIntercept = slope, intercept
    array = read_dicom_series(saved(tmp_path / "ct", planes)).array
    assert array.dtype == dtype
    np.testing.assert_array_equal(array[0], (VOLUME.astype(float) + 1024) * slope + intercept)


def test_one_plane_beyond_int16_widens_the_volume(tmp_path):
    planes = series()
    planes[1].RescaleSlope = 100
    array = read_dicom_series(saved(tmp_path / "ct", planes)).array[0]
    assert array.dtype == np.int32
    np.testing.assert_array_equal(array[..., 1], (VOLUME[..., 1].astype(int) + 1024) * 100 - 1024)
    np.testing.assert_array_equal(array[..., [0, 2, 3]], VOLUME[..., [0, 2, 3]])


def test_signed_and_unused_bits(tmp_path):
    planes = series(np.clip(VOLUME, -1024, 1000))
    for index, plane in enumerate(planes):
        plane.PixelRepresentation, plane.RescaleIntercept = 1, 0
        values = np.clip(VOLUME, -1024, 1000)[:, :, index].T
        plane.PixelData = (values & 0x0FFF | 0x7000).astype("<u2").tobytes()  # old overlay bits
    array = read_dicom_series(saved(tmp_path / "ct", planes)).array[0]
    np.testing.assert_array_equal(array, np.clip(VOLUME, -1024, 1000))


@pytest.mark.parametrize(
    "syntax",
    ["ImplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian", "RLE"],
)
def test_ways_of_storing(tmp_path, syntax):
    planes = series()
    for plane in planes:
        if syntax == "RLE":
            plane.compress(pydicom.uid.RLELossless)
        else:
            plane.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
            if syntax == "ExplicitVRBigEndian":
                plane.PixelData = np.frombuffer(plane.PixelData, "<u2").astype(">u2").tobytes()
                plane["PixelData"].VR = "OW"
    array = read_dicom_series(saved(tmp_path / "ct", planes)).array
    np.testing.assert_array_equal(array[0], VOLUME)


def test_mr_without_rescaling_gives_stored_values(tmp_path):
    planes = series()
    for plane in planes:
        plane.Modality = "MR"
        del plane.RescaleSlope, plane.RescaleIntercept, plane.RescaleType
    array = read_dicom_series(saved(tmp_path / "mr", planes)).array
    np.testing.assert_array_equal(array[0], VOLUME + 1024)


def test_mask_is_nifti_on_the_series_grid_without_patient_data(tmp_path):
    image = read_image(saved(tmp_path / "ct", series()))
    assert mask_suffix(image.attributes) == ".nii.gz"
    mask = (VOLUME > 0).astype(np.uint8)
    write_mask(mask, tmp_path / "m.nii.gz", image.attributes)
    write_mask(mask, tmp_path / "m.nii", image.attributes)
    back = nib.load(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(np.asarray(back.dataobj), mask)
    np.testing.assert_array_equal(back.affine, AFFINE.astype(np.float32))
    for form in (back.get_sform, back.get_qform):
        affine, code = form(coded=True)
        assert code == 1  # the scanner's space
        np.testing.assert_allclose(affine, AFFINE, rtol=0, atol=1e-5)
    assert back.header.get_xyzt_units()[0] == "mm"
    assert read_image(tmp_path / "m.nii.gz").array.dtype == np.uint8  # our own checks agree
    raw = (tmp_path / "m.nii").read_bytes()
    assert not back.header.extensions
    assert set(raw[148:252]) == {0}  # descrip and aux_file, where text could stand
    for secret in (*SECRETS, "Abdomen", "1.2.3"):
        assert secret.encode() not in raw


def test_only_named_elements_are_kept(tmp_path):
    """The attributes, and so whatever is written from them, hold no text of the files."""
    attributes = dicom_attributes(saved(tmp_path / "ct", series()))
    assert not any(secret in repr(attributes) for secret in (*SECRETS, "Abdomen", "1.2.3"))


def test_companions_are_left_out_and_folders_inside_not_searched(tmp_path):
    folder = saved(tmp_path / "ct", series())
    saved(folder / "other", series())
    for name in ("notes.txt", ".hidden.dcm"):
        (folder / name).write_bytes(b"text")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    np.testing.assert_array_equal(read_dicom_series(folder).array[0], VOLUME)


def test_case_of_a_series_with_a_nifti_label(tmp_path):
    saved(tmp_path / "ct", series())
    nib.save(
        nib.Nifti1Image((VOLUME > 0).astype(np.uint8), AFFINE),
        tmp_path / "label.nii.gz",
    )
    item = {"case": "a", "image": str(tmp_path / "ct"), "label": str(tmp_path / "label.nii.gz")}
    loaded = load_case(item)
    np.testing.assert_array_equal(loaded.image[0], VOLUME.astype(np.float32))
    np.testing.assert_array_equal(loaded.label[0], VOLUME > 0)


@pytest.mark.parametrize("names", ["IM{:04d}.dcm", "IM{:04d}", "IM.{:04d}", "1.2.840.{}"])
def test_damaged_start_among_planes_is_refused_whatever_their_names(tmp_path, names):
    folder = saved(tmp_path / "ct", series(), names)
    path = folder / names.format(3)  # the last plane: its lack would leave no gap
    path.write_bytes(bytes(200))
    with pytest.raises(DataError, match=rf"{path.name}: lies among 3 DICOM files.*copy it anew"):
        read_dicom_series(folder)


def test_empty_file_is_refused(tmp_path):
    folder = saved(tmp_path / "ct", series())
    (folder / "a.part").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.part: lies among"):
        read_dicom_series(folder)


def test_several_series_are_listed(tmp_path):
    planes = series()
    planes[0].SeriesInstanceUID, planes[0].SeriesNumber = "1.2.9", 1
    planes[0].SeriesDescription, planes[0].Modality = "Dose report", "SR"
    message = (
        r"ct: holds 2 series: 3 files of series 3 \(CT, Abdomen venous, such as IM0001.dcm\); "
        r"1 files of series 1 \(SR, Dose report, such as IM0000.dcm\); move each"
    )
    refused(tmp_path / "ct", planes, message)


def test_folders_without_dicom(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder"):
        read_dicom_series(tmp_path / "nowhere")
    saved(tmp_path / "disc" / "ct", series())
    (tmp_path / "disc" / "index.html").write_text("x")
    with pytest.raises(DataError, match=r"none of its 1 files is DICOM.*such as ct$"):
        read_image(tmp_path / "disc")
    assert is_dicom_folder(tmp_path / "disc" / "ct")
    assert not is_dicom_folder(tmp_path / "disc")
    assert not is_dicom_folder(tmp_path / "disc" / "ct" / "IM0000.dcm")
    (tmp_path / "disc" / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert not is_dicom_folder(tmp_path / "disc")


def edit(**elements):
    def change(planes):
        for keyword, value in elements.items():
            setattr(planes[2], keyword, value)

    return change


def remove(keyword):
    return lambda planes: delattr(planes[2], keyword)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (edit(Modality="PT"), r"IM0002\.dcm: is of modality 'PT', expected CT or MR"),
        (edit(NumberOfFrames=5), r"IM0002\.dcm: holds several frames"),
        (edit(PhotometricInterpretation="RGB"), r"pixels of kind 'RGB', expected grey"),
        (edit(SamplesPerPixel=3), "several samples a pixel"),
        (edit(RescaleType="MGML"), r"values are 'MGML' \(RescaleType\), not Hounsfield"),
        (remove("SeriesInstanceUID"), r"IM0002\.dcm: tells no series"),
        (remove("RescaleSlope"), r"IM0002\.dcm: has no RescaleSlope"),
        (remove("ImagePositionPatient"), r"IM0002\.dcm: has no ImagePositionPatient.*screenshot"),
        (edit(PixelSpacing=None), r"IM0002\.dcm: PixelSpacing is .*expected 2 number"),
        (edit(ImagePositionPatient=[1, 2]), r"ImagePositionPatient is \[1.0, 2.0\], expected 3"),
        (edit(PixelSpacing=[0, 1]), "expected positive sizes"),
        (edit(RescaleSlope=0), "slope other than 0"),
        (edit(PixelSpacing=[0.8, 0.71]), r"1 of 4 planes differ in PixelSpacing: IM0002\.dcm"),
        (edit(FrameOfReferenceUID="1.9"), "differ in FrameOfReferenceUID"),
        (edit(Rows=4), r"differ in Rows and Columns: IM0002\.dcm has \(4, 6\), .* \(5, 6\)"),
    ],
)
def test_plane_that_cannot_be_part_of_a_volume_is_refused(tmp_path, change, message):
    planes = series()
    change(planes)
    refused(tmp_path / "ct", planes, message)
    with pytest.raises(DataError, match=message):
        dicom_attributes(tmp_path / "ct")


def test_ct_without_any_rescaling_is_refused(tmp_path):
    planes = series()
    for plane in planes:
        del plane.RescaleSlope, plane.RescaleIntercept
    refused(tmp_path / "ct", planes, "has no RescaleSlope")


def test_compression_without_decoder_is_refused(tmp_path):
    planes = series()
    for plane in planes:
        plane.compress(pydicom.uid.RLELossless)
        plane.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    refused(tmp_path / "ct", planes, r"IM0000.*compressed as MPEG2.*without a decoder.*pip install")


@pytest.mark.parametrize("packed", [False, True])
def test_every_truncation_is_refused(tmp_path, packed):
    planes = series()[2:]
    if packed:
        for plane in planes:
            plane.compress(pydicom.uid.RLELossless)
    folder = saved(tmp_path / "ct", planes)
    path = folder / "IM0001.dcm"
    raw = path.read_bytes()
    for size in range(0, len(raw) - 8 * packed, 3):  # RLE ends with a mark of 8 bytes, no pixels
        path.write_bytes(raw[:size])
        with pytest.raises(DataError, match=r"IM0001\.dcm"):
            read_dicom_series(folder)


def test_flipped_bits_never_end_without_a_name(tmp_path):
    """Pixels carry no checksum, so that a flip there is seen by nobody; all else must be named."""
    folder = saved(tmp_path / "ct", series()[2:])
    path = folder / "IM0001.dcm"
    raw = path.read_bytes()
    pixels_at = len(raw) - 2 * VOLUME[..., 0].size
    refusals = 0
    for position in range(132, pixels_at, 3):
        damaged = bytearray(raw)
        damaged[position] ^= 8
        path.write_bytes(damaged)
        try:
            array = read_dicom_series(folder).array
        except DataError:
            refusals += 1
        else:
            assert array.shape == (1, 6, 5, 2)
    assert refusals > 0


def test_pixels_longer_than_announced_keep_their_place(tmp_path):
    planes = series()
    planes[1].PixelData += bytes(10)
    array = read_dicom_series(saved(tmp_path / "ct", planes)).array
    np.testing.assert_array_equal(array[0], VOLUME)
    planes[1].PixelData += bytes(2 * VOLUME[..., 0].size)  # a second frame
    refused(tmp_path / "ct", planes, r"IM0001\.dcm: .*shape \(2, 5, 6\), expected")


def test_size_is_checked_before_memory_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("metaseg_monai.images.image.LARGEST_BYTES", 2 * VOLUME.size - 1)
    refused(tmp_path / "ct", series(), r"at most 0 are read")


def test_settings_that_do_not_fit_a_series(tmp_path):
    folder = saved(tmp_path / "ct", series())
    assert read_image(folder, spatial_dims=3).array.shape == (1, 6, 5, 4)
    with pytest.raises(DataError, match="has 3 spatial axes"):
        read_image(folder, spatial_dims=2)
    with pytest.raises(DataError, match="TIFF files only"):
        read_image(folder, axes="YX")
    with pytest.raises(DataError, match=r"IM0000\.dcm: unsupported.*the folder of a DICOM series"):
        read_image(folder / "IM0000.dcm")


def test_missing_pydicom_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    monkeypatch.setitem(sys.modules, "pydicom.pixels", None)
    with pytest.raises(ConfigError, match=r'pip install "metaseg-monai\[dicom\]"'):
        read_image(tmp_path)


def places(positions, orientation=(1, 0, 0, 0, 1, 0), spacing=(0.8, 0.7)):
    return [
        DicomPlane(Path(f"{n}.dcm"), f"id{n}", "", (4, 6), spacing, tuple(orientation), position)
        for n, position in enumerate(positions)
    ]


def upward(*heights):
    return [(5.0, 2.0, float(height)) for height in heights]


def names(planes):
    return [plane.path.name for plane in planes]


def test_affine_by_hand():
    """Coronal planes: rows run to the left, columns down, planes from front to back."""
    coronal = places([(1, 8, 3), (1, 4, 3), (1, 6, 3)], (1, 0, 0, 0, 0, -1))
    ordered, affine, spacing_mm = series_grid("ct", coronal)
    # the normal, left x down, points to the back
    assert names(ordered) == ["1.dcm", "2.dcm", "0.dcm"]
    assert spacing_mm == (0.7, 0.8, 2.0)
    expected = [[-0.7, 0, 0, -1], [0, 0, -2, -4], [0, -0.8, 0, 3], [0, 0, 0, 1]]
    np.testing.assert_array_equal(affine, expected)
    assert not np.signbit(affine[affine == 0]).any()


def test_mirrored_rows_order_planes_downward():
    ordered, affine, _ = series_grid("ct", places(upward(0, 3, 6), (-1, 0, 0, 0, 1, 0)))
    assert names(ordered) == ["2.dcm", "1.dcm", "0.dcm"]
    assert affine[2].tolist() == [0, 0, -3, 6]
    assert np.linalg.det(affine[:3, :3]) > 0


@pytest.mark.parametrize(
    ("heights", "message"),
    [
        (
            (0, 2, 4, 10, 12),
            r"ct: planes are 2 mm apart, but 1 of 4 gaps are not: 6 mm between 2\.dcm at 4 mm and "
            r"3\.dcm at 10 mm; about 2 planes lack",
        ),
        ((0, 2, 4, 6.03, 8), r"2 of 4 gaps are not: 2\.03 mm between 2\.dcm.*equal distances"),
        ((0, 5, 10, 5.005), r"1 planes lie where another one lies, such as 1\.dcm.*3\.dcm.*phases"),
        ((0, 2, 0, 2), "2 planes lie where another one lies"),
        ((0,), r"ct: 1 plane, so the distance of planes is unknown"),
    ],
)
def test_irregular_positions_are_named(heights, message):
    with pytest.raises(DataError, match=message):
        series_grid("ct", places(upward(*heights)))


def test_gaps_within_one_percent_pass():
    assert series_grid("ct", places(upward(0, 2, 4.018, 6, 8)))[2][2] == 2


def test_copies_are_told_from_phases():
    planes = places(upward(0, 2, 4, 4))
    planes[3] = planes[3]._replace(instance="id2")
    with pytest.raises(DataError, match="copies of one image: delete one"):
        series_grid("ct", planes)


def test_gantry_tilt_is_refused_and_measured():
    tilt = np.tan(np.radians(10))
    planes = places([(5.0, 2 + tilt * height, height) for height in (0.0, 2.0, 4.0)])
    with pytest.raises(DataError, match=r"2\.dcm lies 0\.705 mm sideways.*tilt of 10 degrees.*dcm"):
        series_grid("ct", planes)
    series_grid("ct", places([(5.0, 2 + 0.01 * height, height) for height in (0.0, 2.0, 4.0)]))


def test_one_plane_shifted_sideways_is_named():
    with pytest.raises(DataError, match=r"1\.dcm lies 0\.5 mm sideways of 0\.dcm"):
        series_grid("ct", places([(5.0, 2.0, 0.0), (5.5, 2.0, 2.0), (5.0, 2.0, 4.0)]))


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 0.01, 1, 0), (1.01, 0, 0, 0, 1, 0), (0, 0, 0, 0, 1, 0)]
)
def test_directions_that_are_no_axes_are_refused(orientation):
    with pytest.raises(DataError, match=r"0\.dcm: ImageOrientationPatient"):
        series_grid("ct", places(upward(0, 1), orientation))


def test_odd_plane_out_is_named_wherever_it_stands():
    planes = places(upward(0, 2, 4))
    planes[0] = planes[0]._replace(orientation=(0, 1, 0, 0, 0, -1))
    with pytest.raises(
        DataError,
        match=r"1 of 3 planes differ in ImageOrientationPatient: 0\.dcm has .*, 1\.dcm has .*local",
    ):
        series_grid("ct", planes)


@pytest.mark.parametrize("reading", [dicom_attributes, find_cases])
def test_a_plane_that_may_not_be_read_is_named(tmp_path, monkeypatch, reading):
    (tmp_path / "IM0").write_bytes(b"\0" * 128 + b"DICM")

    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(dicom, "_has_mark", forbidden)
    with pytest.raises(DataError, match=r"IM0: Permission denied; check its"):
        reading(tmp_path)


def test_a_tilt_below_a_degree_passes_with_the_distance_of_planes():
    tilt = np.tan(np.radians(0.8))
    heights = [2.0 * number for number in range(40)]  # a shift of 1.1 mm over the series
    ordered, affine, spacing = series_grid("ct", places([(5.0, tilt * z, z) for z in heights]))
    assert spacing[2] == pytest.approx(2.0)
    assert len(ordered) == 40
    assert shear_degrees(affine) == pytest.approx(0.8, abs=1e-3)


def test_an_end_plane_that_is_a_broken_link_or_a_folder_is_told(tmp_path):
    folder = saved(tmp_path / "ct", series())
    first = folder / "IM0000.dcm"
    first.rename(tmp_path / "away.dcm")
    first.symlink_to(tmp_path / "nowhere.dcm")
    with pytest.raises(DataError, match=r"IM0000\.dcm: is a link that leads nowhere"):
        read_dicom_series(folder)
    first.unlink()
    first.mkdir()
    with pytest.raises(DataError, match=r"IM0000\.dcm: is a folder, but is named as one of"):
        read_dicom_series(folder)
    first.rmdir()
    os.mkfifo(first)
    with pytest.raises(DataError, match=r"IM0000\.dcm: is no regular file, but is named as one of"):
        read_dicom_series(folder)
    first.unlink()
    (folder / "notes").mkdir()
    assert read_dicom_series(folder).array.shape[-1] == VOLUME.shape[-1] - 1
