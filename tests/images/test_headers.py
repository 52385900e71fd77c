import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.images import read_image
from metaseg_monai.images.read import image_format, read_header


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg", "a.nii", "a.nii.gz"])
def test_header_tells_what_the_reader_does(tmp_path, name):
    path = tmp_path / name
    pixels = np.arange(600, dtype=np.uint8).reshape(20, 30) % 7
    if path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    elif path.suffix in (".png", ".jpg"):
        PIL.Image.fromarray(pixels).save(path)
    else:
        nib.save(nib.Nifti1Image(pixels[..., None], np.diag([0.7, -0.8, 5, 1])), path)
    read, told = read_image(path).attributes, read_header(path)
    assert told["spatial_shape"] == read["spatial_shape"]
    assert (told["format"], told["path"]) == (read["format"], read["path"])
    if read["affine"] is not None:
        np.testing.assert_array_equal(told["affine"], read["affine"])
        for entry in ("sform_code", "qform_code", "pixdim", "srow_x", "quatern_b", "xyzt_units"):
            np.testing.assert_array_equal(told["header"][entry], read["header"][entry])


def test_colours_and_stacks(tmp_path):
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((20, 30, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(tmp_path / "s.tif", np.zeros((4, 20, 30), np.uint8), photometric="minisblack")
    assert read_header(tmp_path / "c.tif")["spatial_shape"] == (20, 30)
    assert "spatial_shape" not in read_header(tmp_path / "s.tif")
    assert read_header([tmp_path / "c.tif", "other.tif"])["path"].endswith("c.tif")


def test_refusals_name_the_file(tmp_path):
    with pytest.raises(DataError, match=r"a\.xyz: unsupported file type"):
        image_format("a.xyz")
    for name in ("a.tif", "a.png", "a.nii.gz"):
        (tmp_path / name).write_bytes(b"no image")
        with pytest.raises(DataError, match=name):
            read_header(tmp_path / name)


def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch):
    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(tifffile, "TiffFile", forbidden)
    with pytest.raises(DataError, match=r"a\.tif: cannot be read \(Permission denied\); check its"):
        read_header(tmp_path / "a.tif")


def test_without_codes_a_nifti_header_has_no_affine(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
    nib.save(image, tmp_path / "a.nii")
    assert read_header(tmp_path / "a.nii")["affine"] is None
