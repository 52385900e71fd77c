import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.images import read_image
from metaseg_monai.images.axial import axial_volume
from metaseg_monai.images.writers import write_mask

VOLUME = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 5)).astype(np.int16)
AFFINE = np.array([[0, -0.7, 0, 10], [0.8, 0, 0, -4], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])


def saved(path, array=VOLUME, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_voxels_affine_and_spacing_as_stored(tmp_path, name):
    image = read_image(saved(tmp_path / name))
    assert image.array.dtype == np.int16
    np.testing.assert_array_equal(image.array, VOLUME[None])
    stored = nib.load(tmp_path / name).affine
    np.testing.assert_array_equal(image.attributes["affine"], stored)
    assert image.attributes["spacing_mm"] == pytest.approx((0.8, 0.7, 2.5))


def test_two_dimensional_and_spatial_dims(tmp_path):
    path = saved(tmp_path / "a.nii", VOLUME[:, :, 0])
    assert read_image(path).array.shape == (1, 6, 7)
    with pytest.raises(DataError, match=r"has 2 spatial axes.*expected 3"):
        read_image(path, spatial_dims=3)


def test_nifti2(tmp_path):
    nib.save(nib.Nifti2Image(VOLUME, AFFINE), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").array[0], VOLUME)


def test_scaling_of_the_header_is_applied(tmp_path):
    volume = nib.Nifti1Image(VOLUME.astype(np.float64) / 4, AFFINE)
    volume.set_data_dtype(np.int16)
    nib.save(volume, tmp_path / "a.nii")
    raw = nib.load(tmp_path / "a.nii")
    assert raw.dataobj.slope != 1
    np.testing.assert_allclose(
        read_image(tmp_path / "a.nii").array[0], VOLUME / 4, atol=raw.dataobj.slope
    )


def test_every_bit_flip_in_a_gz_is_refused_or_harmless(tmp_path):
    path = saved(tmp_path / "a.nii.gz")
    raw = path.read_bytes()
    refused = 0
    for position in range(10, len(raw)):  # from the end of the fixed gzip header
        damaged = bytearray(raw)
        damaged[position] ^= 8
        path.write_bytes(damaged)
        try:
            came = read_image(path).array
        except DataError:
            refused += 1
        else:  # only the file name in the gzip header may differ
            np.testing.assert_array_equal(came[0], VOLUME)
    assert refused > 0.9 * len(raw)


@pytest.mark.parametrize("cut", [1, 5, 9, 60])
def test_truncated_gz_is_refused(tmp_path, cut):
    path = saved(tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"a\.nii\.gz.*truncated"):
        read_image(path)


def test_short_file_is_refused_from_its_header(tmp_path):
    path = saved(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match="announces"):
        read_image(path)


def test_zero_voxel_size_is_refused(tmp_path):
    path = saved(tmp_path / "a.nii")
    raw = bytearray(path.read_bytes())
    raw[80:84] = bytes(4)  # pixdim[1]
    path.write_bytes(raw)
    with pytest.raises(DataError, match="voxel size"):
        read_image(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4, 4, 2), np.float32), "4 dimensions"),
        (np.zeros((4, 4, 4), np.complex64), "complex"),
        (np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "plain numbers"),
    ],
)
def test_what_is_no_plain_volume_is_refused(tmp_path, array, message):
    saved(tmp_path / "a.nii", array)
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / "a.nii")


def test_other_content_is_refused(tmp_path):
    (tmp_path / "a.nii").write_bytes(bytes(10))
    (tmp_path / "b.nii").write_bytes(bytes(1000))
    (tmp_path / "c.nii.gz").write_bytes(gzip.compress(bytes(1000)))
    for name in ("a.nii", "b.nii", "c.nii.gz"):
        with pytest.raises(DataError, match=name):
            read_image(tmp_path / name)


@pytest.mark.parametrize("shape", [(6, 7, 5), (6, 7)])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_without_codes_there_is_no_affine_and_a_mask_keeps_the_header(tmp_path, shape, kind):
    volume = kind(VOLUME.ravel()[: np.prod(shape)].reshape(shape), None)
    volume.header.set_zooms((0.8, 0.7, 2.5)[: len(shape)])
    nib.save(volume, tmp_path / "a.nii.gz")
    assert nib.load(tmp_path / "a.nii.gz").affine is not None  # of nibabel's own making
    image = read_image(tmp_path / "a.nii.gz")
    assert image.attributes["affine"] is None
    assert image.attributes["spacing_mm"] == pytest.approx((0.8, 0.7, 2.5)[: len(shape)])
    mask = image.array[0] > 0
    back = read_image(write_mask(tmp_path / "m.nii.gz", mask, image.attributes))
    np.testing.assert_array_equal(back.array[0], mask)
    assert back.attributes["affine"] is None
    assert back.attributes["spacing_mm"] == image.attributes["spacing_mm"]
    if len(shape) == 3:
        with pytest.raises(DataError, match=r"has no affine .*sform_code and qform_code are 0"):
            axial_volume(image)


@pytest.mark.parametrize("code", ["sform_code", "qform_code"])
def test_one_code_is_enough_for_an_affine(tmp_path, code):
    volume = nib.Nifti1Image(VOLUME, None)
    volume.set_sform(AFFINE, code=int(code == "sform_code"))
    volume.set_qform(AFFINE, code=int(code == "qform_code"))
    nib.save(volume, tmp_path / "a.nii")
    affine = read_image(tmp_path / "a.nii").attributes["affine"]
    np.testing.assert_allclose(affine, AFFINE, atol=1e-6)


@pytest.mark.parametrize("offset", [0, 320, -352, 352.5, np.nan])
def test_voxels_that_begin_within_the_header_are_refused(tmp_path, offset):
    path = saved(tmp_path / "a.nii")
    raw = bytearray(path.read_bytes())
    struct.pack_into("<f", raw, 108, offset)
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"a\.nii: voxels begin at byte .*expected 352 or more"):
        read_image(path)


def test_nifti2_begins_later(tmp_path):
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti2Image(VOLUME, AFFINE), path)
    raw = bytearray(path.read_bytes())
    struct.pack_into("<q", raw, 168, 352)
    path.write_bytes(raw)
    with pytest.raises(DataError, match="expected 544 or more"):
        read_image(path)


def test_long_extensions_are_passed_over(tmp_path):
    volume = nib.Nifti1Image(VOLUME, AFFINE)
    volume.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"name " * 1000))
    nib.save(volume, tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(image.array[0], VOLUME)
    mask = write_mask(tmp_path / "m.nii.gz", VOLUME > 0, image.attributes)
    np.testing.assert_array_equal(read_image(mask).array[0], VOLUME > 0)
    np.testing.assert_array_equal(nib.load(mask).get_fdata(), VOLUME > 0)
    assert b"name" not in gzip.decompress(mask.read_bytes())


def test_every_bit_flip_in_a_header_is_refused_or_gives_an_image(tmp_path):
    path = saved(tmp_path / "a.nii", VOLUME[:2, :2, :2])
    raw = path.read_bytes()
    refused = 0
    for position in range(8 * 352):
        damaged = bytearray(raw)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            assert read_image(path).array.ndim > 2
        except DataError:
            refused += 1
    assert refused > 200
