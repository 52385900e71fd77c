import sys

import numpy as np
import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images import read_image
from metaseg_monai.images.dicom import dicom_attributes, is_dicom_folder, read_dicom_series

pydicom = pytest.importorskip("pydicom", reason="needs the extra [dicom]")


@pytest.mark.parametrize("names", ["IM{:04d}.dcm", "IM{:04d}", "IM.{:04d}", "1.2.840.{}"])
def test_damaged_start_among_planes_is_refused_whatever_their_names(tmp_path, names, series, saved):
    folder = saved(tmp_path / "ct", series(), names)
    path = folder / names.format(3)  # the last plane: its lack would leave no gap
    path.write_bytes(bytes(200))
    with pytest.raises(DataError, match=rf"{path.name}: lies among 3 DICOM files.*copy it anew"):
        read_dicom_series(folder)


def test_empty_file_is_refused(tmp_path, series, saved):
    folder = saved(tmp_path / "ct", series())
    (folder / "a.part").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.part: lies among"):
        read_dicom_series(folder)


def test_several_series_are_listed(tmp_path, series, refused):
    planes = series()
    planes[0].SeriesInstanceUID, planes[0].SeriesNumber = "1.2.9", 1
    planes[0].SeriesDescription, planes[0].Modality = "Dose report", "SR"
    message = (
        r"ct: holds 2 series: 3 files of series 3 \(CT, Abdomen venous, such as IM0001.dcm\); "
        r"1 files of series 1 \(SR, Dose report, such as IM0000.dcm\); move each"
    )
    refused(tmp_path / "ct", planes, message)


def test_folders_without_dicom(tmp_path, series, saved):
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
def test_plane_that_cannot_be_part_of_a_volume_is_refused(
    tmp_path, change, message, series, refused
):
    planes = series()
    change(planes)
    refused(tmp_path / "ct", planes, message)
    with pytest.raises(DataError, match=message):
        dicom_attributes(tmp_path / "ct")


def test_ct_without_any_rescaling_is_refused(tmp_path, series, refused):
    planes = series()
    for plane in planes:
        del plane.RescaleSlope, plane.RescaleIntercept
    refused(tmp_path / "ct", planes, "has no RescaleSlope")


def test_compression_without_decoder_is_refused(tmp_path, series, refused):
    planes = series()
    for plane in planes:
        plane.compress(pydicom.uid.RLELossless)
        plane.file_meta.TransferSyntaxUID = pydicom.uid.MPEG2MPML
    refused(tmp_path / "ct", planes, r"IM0000.*compressed as MPEG2.*without a decoder.*pip install")


@pytest.mark.parametrize("packed", [False, True])
def test_every_truncation_is_refused(tmp_path, packed, series, saved):
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


def test_flipped_bits_never_end_without_a_name(tmp_path, series, saved):
    """Pixels carry no checksum, so that a flip there is seen by nobody; all else must be named."""
    folder = saved(tmp_path / "ct", series()[2:])
    path = folder / "IM0001.dcm"
    raw = path.read_bytes()
    pixels_at = len(raw) - 2 * series.volume[..., 0].size
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


def test_pixels_longer_than_announced_keep_their_place(tmp_path, series, saved, refused):
    planes = series()
    planes[1].PixelData += bytes(10)
    array = read_dicom_series(saved(tmp_path / "ct", planes)).array
    np.testing.assert_array_equal(array[0], series.volume)
    planes[1].PixelData += bytes(2 * series.volume[..., 0].size)  # a second frame
    refused(tmp_path / "ct", planes, r"IM0001\.dcm: .*shape \(2, 5, 6\), expected")


def test_size_is_checked_before_memory_is_taken(tmp_path, monkeypatch, series, refused):
    monkeypatch.setattr("metaseg_monai.images.dicom.LARGEST_BYTES", 2 * series.volume.size - 1)
    refused(tmp_path / "ct", series(), r"at most 0 are read: split the series")


def test_settings_that_do_not_fit_a_series(tmp_path, series, saved):
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
