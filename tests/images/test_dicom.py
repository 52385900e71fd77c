import itertools

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, inv_ornt_aff

from metaseg_monai.images import mask_suffix, read_image, write_mask
from metaseg_monai.images.axial import axial_volume
from metaseg_monai.images.dicom import dicom_attributes, read_dicom_series
from metaseg_monai.tables.check import load_case

pydicom = pytest.importorskip("pydicom", reason="needs the extra [dicom]")

ORIENTATIONS = [
    np.stack([order, flips], axis=1)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]


def test_array_affine_and_attributes(tmp_path, series, saved):
    folder = saved(tmp_path / "ct", series())
    image = read_image(folder)
    assert image.array.dtype == np.int16
    np.testing.assert_array_equal(image.array, series.volume[None])
    assert image.array[0].flags.f_contiguous
    np.testing.assert_array_equal(image.attributes["affine"], series.affine)
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
def test_axial_planes_equal_those_of_the_nifti_in_every_orientation(tmp_path, turn, series, saved):
    """All 48: axial, coronal and sagittal planes, rows and columns mirrored, up and down."""
    stored = np.asarray(apply_orientation(series.volume, turn))
    affine = series.affine @ inv_ornt_aff(turn, series.volume.shape)
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


def test_oblique_planes_keep_their_affine(tmp_path, series, saved):
    angle = np.radians(12)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    image = read_dicom_series(saved(tmp_path / "ct", series(affine=turn @ series.affine)))
    np.testing.assert_allclose(image.attributes["affine"], turn @ series.affine, rtol=0, atol=1e-9)
    assert image.attributes["spacing_mm"] == pytest.approx((0.7, 0.8, 2.5))


def test_positions_and_directions_rounded_by_the_scanner_pass(tmp_path, series, saved):
    affine = series.affine.copy()
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
def test_rescaling_and_its_data_type(tmp_path, slope, intercept, dtype, series, saved):
    planes = series()
    for plane in planes:
        plane.RescaleSlope, plane.RescaleIntercept = slope, intercept
    array = read_dicom_series(saved(tmp_path / "ct", planes)).array
    assert array.dtype == dtype
    np.testing.assert_array_equal(
        array[0], (series.volume.astype(float) + 1024) * slope + intercept
    )


def test_one_plane_beyond_int16_widens_the_volume(tmp_path, series, saved):
    planes = series()
    planes[1].RescaleSlope = 100
    array = read_dicom_series(saved(tmp_path / "ct", planes)).array[0]
    assert array.dtype == np.int32
    np.testing.assert_array_equal(
        array[..., 1], (series.volume[..., 1].astype(int) + 1024) * 100 - 1024
    )
    np.testing.assert_array_equal(array[..., [0, 2, 3]], series.volume[..., [0, 2, 3]])


def test_signed_and_unused_bits(tmp_path, series, saved):
    planes = series(np.clip(series.volume, -1024, 1000))
    for index, plane in enumerate(planes):
        plane.PixelRepresentation, plane.RescaleIntercept = 1, 0
        values = np.clip(series.volume, -1024, 1000)[:, :, index].T
        plane.PixelData = (values & 0x0FFF | 0x7000).astype("<u2").tobytes()  # old overlay bits
    array = read_dicom_series(saved(tmp_path / "ct", planes)).array[0]
    np.testing.assert_array_equal(array, np.clip(series.volume, -1024, 1000))


@pytest.mark.parametrize(
    "syntax",
    ["ImplicitVRLittleEndian", "ExplicitVRBigEndian", "DeflatedExplicitVRLittleEndian", "RLE"],
)
def test_ways_of_storing(tmp_path, syntax, series, saved):
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
    np.testing.assert_array_equal(array[0], series.volume)


def test_mr_without_rescaling_gives_stored_values(tmp_path, series, saved):
    planes = series()
    for plane in planes:
        plane.Modality = "MR"
        del plane.RescaleSlope, plane.RescaleIntercept, plane.RescaleType
    array = read_dicom_series(saved(tmp_path / "mr", planes)).array
    np.testing.assert_array_equal(array[0], series.volume + 1024)


def test_mask_is_nifti_on_the_series_grid_without_patient_data(tmp_path, series, saved):
    image = read_image(saved(tmp_path / "ct", series()))
    assert mask_suffix(image.attributes) == ".nii.gz"
    mask = (series.volume > 0).astype(np.uint8)
    write_mask(tmp_path / "m.nii.gz", mask, image.attributes)
    write_mask(tmp_path / "m.nii", mask, image.attributes)
    back = nib.load(tmp_path / "m.nii.gz")
    np.testing.assert_array_equal(np.asarray(back.dataobj), mask)
    np.testing.assert_array_equal(back.affine, series.affine.astype(np.float32))
    for form in (back.get_sform, back.get_qform):
        affine, code = form(coded=True)
        assert code == 1  # the scanner's space
        np.testing.assert_allclose(affine, series.affine, rtol=0, atol=1e-5)
    assert back.header.get_xyzt_units()[0] == "mm"
    assert read_image(tmp_path / "m.nii.gz").array.dtype == np.uint8  # our own checks agree
    raw = (tmp_path / "m.nii").read_bytes()
    assert not back.header.extensions
    assert set(raw[148:252]) == {0}  # descrip and aux_file, where text could stand
    for secret in (*series.secrets, "Abdomen", "1.2.3"):
        assert secret.encode() not in raw


def test_only_named_elements_are_kept(tmp_path, series, saved):
    """The attributes, and so whatever is written from them, hold no text of the files."""
    attributes = dicom_attributes(saved(tmp_path / "ct", series()))
    assert not any(secret in repr(attributes) for secret in (*series.secrets, "Abdomen", "1.2.3"))


def test_companions_are_left_out_and_folders_inside_not_searched(tmp_path, series, saved):
    folder = saved(tmp_path / "ct", series())
    saved(folder / "other", series())
    for name in ("notes.txt", ".hidden.dcm"):
        (folder / name).write_bytes(b"text")
    (folder / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    np.testing.assert_array_equal(read_dicom_series(folder).array[0], series.volume)


def test_case_of_a_series_with_a_nifti_label(tmp_path, series, saved):
    saved(tmp_path / "ct", series())
    nib.save(
        nib.Nifti1Image((series.volume > 0).astype(np.uint8), series.affine),
        tmp_path / "label.nii.gz",
    )
    item = {"case": "a", "image": str(tmp_path / "ct"), "label": str(tmp_path / "label.nii.gz")}
    loaded = load_case(item)
    np.testing.assert_array_equal(loaded.image[0], series.volume.astype(np.float32))
    np.testing.assert_array_equal(loaded.label[0], series.volume > 0)
