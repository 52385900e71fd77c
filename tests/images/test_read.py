"""One reading path: planes, channels, headers, and what is refused."""

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.images import convert_channels, read_image
from metaseg_monai.images.image import image_format
from metaseg_monai.images.read import read_header

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)


def saved(path):
    """Write an image of the format; give the byte from which every flip of a bit can be noticed."""
    if path.suffix == ".tif":
        tifffile.imwrite(path, PIXELS, compression="zlib", metadata=None, photometric="minisblack")
        with tifffile.TiffFile(path) as file:
            return file.pages[0].dataoffsets[0]
    if path.suffix in (".png", ".jpg"):
        PIL.Image.fromarray(PIXELS).save(path)
        return 0
    nib.save(nib.Nifti1Image(PIXELS[..., None], np.diag([0.7, -0.8, 5, 1])), path)
    return 10  # where the fixed header of gzip ends


def plane(tmp_path, name, value, shape=(4, 6), dtype=np.uint8):
    path = tmp_path / name
    tifffile.imwrite(path, np.full(shape, value, dtype))
    return path


def test_planes_are_stacked_in_order(tmp_path):
    paths = [plane(tmp_path, f"{value}.tif", value) for value in (3, 1, 2)]
    image = read_image(paths)
    assert image.array.shape == (3, 4, 6)
    assert image.array[:, 0, 0].tolist() == [3, 1, 2]


@pytest.mark.parametrize(
    ("other", "message"),
    [({"shape": (4, 7)}, "spatial shape"), ({"dtype": np.uint16}, "data type")],
)
def test_planes_that_differ_are_refused(tmp_path, other, message):
    paths = [plane(tmp_path, "a.tif", 1), plane(tmp_path, "b.tif", 1, **other)]
    with pytest.raises(DataError, match=rf"b\.tif: {message}"):
        read_image(paths)


def test_planes_of_other_affine_are_refused(tmp_path):
    for name, shift in (("a.nii", 0), ("b.nii", 2)):
        affine = np.eye(4)
        affine[0, 3] = shift
        nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), affine), tmp_path / name)
    with pytest.raises(DataError, match="affine"):
        read_image([tmp_path / "a.nii", tmp_path / "b.nii"])


def test_missing_unsupported_and_empty(tmp_path):
    with pytest.raises(DataError, match=r"a\.tif: no such file"):
        read_image(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"a\.bmp: unsupported.*\.png"):
        read_image(tmp_path / "a.bmp")
    with pytest.raises(DataError, match="no image path"):
        read_image([])
    (tmp_path / "a.tif").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.tif"):
        read_image(tmp_path / "a.tif")


def test_settings_that_do_not_fit_are_refused(tmp_path):
    path = plane(tmp_path, "a.tif", 1)
    with pytest.raises(DataError, match="spatial_dims=4"):
        read_image(path, spatial_dims=4)
    with pytest.raises(DataError, match="TIFF files only"):
        read_image("a.png", axes="YX")


@pytest.mark.parametrize(("name", "refused"), [("a.png", 1.0), ("a.tif", 0.99), ("a.nii.gz", 0.99)])
def test_every_flipped_bit_is_refused_or_harmless(tmp_path, name, refused):
    """Harmless are, for instance, the file's name in a gzip header and bits that nothing uses."""
    path, refusals = tmp_path / name, 0
    start = saved(path)
    good, raw = read_image(path).array, path.read_bytes()
    for position in range(start, len(raw)):
        damaged = bytearray(raw)
        damaged[position] ^= 8
        path.write_bytes(damaged)
        try:
            came = read_image(path).array
        except DataError as error:
            refusals += name in str(error)
        else:
            np.testing.assert_array_equal(came, good)
    assert refusals >= refused * (len(raw) - start)


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("a.png", (1, 12, 30)),
        ("a.jpg", (40, 400)),
        ("a.tif", (1, 60, 300, 590)),
        ("a.nii.gz", (1, 5, 9, 60)),
    ],
)
def test_every_cut_file_is_refused(tmp_path, name, cuts):
    path = tmp_path / name
    saved(path)
    raw = path.read_bytes()
    for cut in cuts:
        path.write_bytes(raw[:-cut])
        with pytest.raises(DataError, match=rf"{name}: .*anew"):
            read_image(path)


def test_stored_channels_are_untouched():
    array = np.arange(24, dtype=np.uint16).reshape(6, 2, 2)
    assert convert_channels(array, "stored") is array


def test_grey_of_rgb_is_the_luma():
    array = np.array([[[100]], [[200]], [[50]]], np.uint8)
    grey = convert_channels(array, "grey")
    assert grey.dtype == np.float32
    assert grey.item() == pytest.approx(0.299 * 100 + 0.587 * 200 + 0.114 * 50)


def test_rgb_of_grey_repeats():
    array = np.arange(4, dtype=np.uint8).reshape(1, 2, 2)
    assert convert_channels(array, "rgb").tolist() == array.tolist() * 3


def test_only_an_opaque_alpha_is_left_out():
    rgba = np.full((4, 2, 2), 255, np.uint8)
    assert convert_channels(rgba, "rgb").shape == (3, 2, 2)
    rgba[3, 0, 0] = 254
    for channels in ("rgb", "grey"):
        with pytest.raises(DataError, match="4 channels cannot"):
            convert_channels(rgba, channels)


def test_unknown_conversion_is_refused():
    with pytest.raises(DataError, match="expected one of stored, grey, rgb"):
        convert_channels(np.zeros((1, 2, 2)), "gray")


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg", "a.nii", "a.nii.gz"])
def test_header_tells_what_the_reader_does(tmp_path, name):
    path = tmp_path / name
    saved(path)
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
    (tmp_path / "a.tif").touch()
    with pytest.raises(DataError, match=r"a\.tif: Permission denied; check its"):
        read_header(tmp_path / "a.tif")
