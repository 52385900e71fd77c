"""NIfTI: what a header says of size, unit and place, what its file holds, and what is refused."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.images import nifti, read_image, slice_items, write_mask
from metaseg_monai.images.geometry import axial_volume
from metaseg_monai.images.read import read_header, read_label, volume_header

VOLUME = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 5)).astype(np.int16)
AFFINE = np.array([[0, -0.75, 0, 10], [0.5, 0, 0, -4], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])


def saved(path, array=VOLUME, sform=AFFINE, qform=None, unit=2, kind=nib.Nifti1Image):
    volume = kind(array, sform)
    if qform is not None:
        volume.set_qform(qform, code=1)
    volume.header["xyzt_units"] = unit
    nib.save(volume, path)
    return path


def packed(path, place, form, value):
    """The file with one entry of its header changed."""
    raw = bytearray(path.read_bytes())
    struct.pack_into(form, raw, place, value)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_voxels_affine_and_spacing_as_stored(tmp_path, name, kind):
    image = read_image(saved(tmp_path / name, kind=kind))
    assert image.array.dtype == np.int16
    np.testing.assert_array_equal(image.array, VOLUME[None])
    np.testing.assert_array_equal(image.attributes["affine"], nib.load(tmp_path / name).affine)
    assert image.attributes["spacing_mm"] == pytest.approx((0.5, 0.75, 2.5))


def test_two_dimensional_and_spatial_dims(tmp_path):
    path = saved(tmp_path / "a.nii", VOLUME[:, :, 0])
    assert read_image(path).array.shape == (1, 6, 7)
    with pytest.raises(DataError, match=r"has 2 spatial axes.*expected 3"):
        read_image(path, spatial_dims=3)


def test_scaling_of_the_header_is_applied(tmp_path):
    volume = nib.Nifti1Image(VOLUME.astype(np.float64) / 4, AFFINE)
    volume.set_data_dtype(np.int16)
    nib.save(volume, tmp_path / "a.nii")
    slope = nib.load(tmp_path / "a.nii").dataobj.slope
    assert slope != 1
    np.testing.assert_allclose(read_image(tmp_path / "a.nii").array[0], VOLUME / 4, atol=slope)


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


def test_short_file_is_refused_from_its_header(tmp_path):
    path = saved(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match="announces"):
        read_image(path)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((6, 7, 5, 2), np.int16), r"4 dimensions \(6, 7, 5, 2\).*file of its own$"),
        (np.zeros((4, 4, 4), np.complex64), "complex"),
        (np.zeros((4, 4, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "plain numbers"),
    ],
)
def test_what_is_no_plain_volume_is_refused(tmp_path, array, message):
    with pytest.raises(DataError, match=message):
        read_image(saved(tmp_path / "a.nii", array))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.nii", bytes(10)),
        ("b.nii", bytes(1000)),
        ("c.nii.gz", gzip.compress(bytes(1000), mtime=0)),
    ],
)
def test_other_content_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
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
    assert image.attributes["affine"] is None is read_header(tmp_path / "a.nii.gz")["affine"]
    assert image.attributes["spacing_mm"] == pytest.approx((0.8, 0.7, 2.5)[: len(shape)])
    mask = image.array[0] > 0
    back = read_image(write_mask(mask, tmp_path / "m.nii.gz", like=image))
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
    path = packed(saved(tmp_path / "a.nii"), 108, "<f", offset)
    with pytest.raises(DataError, match=r"a\.nii: voxels begin at byte .*expected 352 or more"):
        read_image(path)


def test_nifti2_begins_later(tmp_path):
    path = packed(saved(tmp_path / "a.nii", kind=nib.Nifti2Image), 168, "<q", 352)
    with pytest.raises(DataError, match="expected 544 or more"):
        read_image(path)


def test_long_extensions_are_passed_over(tmp_path):
    volume = nib.Nifti1Image(VOLUME, AFFINE)
    volume.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"name " * 1000))
    nib.save(volume, tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(image.array[0], VOLUME)
    mask = write_mask(VOLUME > 0, tmp_path / "m.nii.gz", image)
    np.testing.assert_array_equal(read_image(mask).array[0], VOLUME > 0)


# What a header says of unit, size and place, and what its file holds beside.


@pytest.mark.parametrize(
    ("unit", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (3 | 8, 0.001)]
)
def test_affine_and_spacing_are_in_mm_whatever_the_unit(tmp_path, unit, factor):
    scaled = np.diag([1 / factor] * 3 + [1]) @ AFFINE
    path = saved(tmp_path / "a.nii.gz", sform=scaled, qform=scaled, unit=unit)
    image = read_image(path)
    np.testing.assert_allclose(image.attributes["affine"], AFFINE, rtol=1e-6)
    assert image.attributes["spacing_mm"] == pytest.approx((0.5, 0.75, 2.5))
    np.testing.assert_array_equal(read_header(path)["affine"], image.attributes["affine"])
    for volume in (axial_volume(image), volume_header(path)[0]):
        assert volume.spacing_mm == pytest.approx((2.5, 0.5, 0.75))


@pytest.mark.parametrize("unit", [1, 3, 3 | 8])
def test_a_mask_has_the_affine_and_the_unit_of_its_file(tmp_path, unit):
    path = saved(tmp_path / "a.nii.gz", unit=unit)
    for number, like in enumerate((read_image(path), read_header(path), path)):
        mask = nib.load(write_mask(VOLUME > 0, tmp_path / f"{number}.nii.gz", like))
        assert int(mask.header["xyzt_units"]) == unit
        assert mask.affine.tobytes() == nib.load(path).affine.tobytes()
        assert mask.header.get_zooms() == nib.load(path).header.get_zooms()


def test_a_unit_that_is_none_is_refused(tmp_path):
    path = saved(tmp_path / "a.nii", unit=5)
    with pytest.raises(DataError, match=r"a\.nii: its unit of length is 5 \(xyzt_units\)"):
        read_image(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize(("surplus", "fits"), [(84, 6), (200, 7)])
def test_planes_that_the_header_does_not_know_are_refused(tmp_path, name, surplus, fits):
    longer = saved(tmp_path / "l.nii").read_bytes() + bytes(surplus)
    (tmp_path / name).write_bytes(gzip.compress(longer) if name.endswith("gz") else longer)
    message = (
        rf"{name}: goes on for {surplus} bytes beyond .* \(6, 7, 5\), .*\(6, 7, {fits}\); mend"
    )
    with pytest.raises(DataError, match=message):
        read_image(tmp_path / name)


def test_two_images_in_a_file_of_one_are_refused(tmp_path):
    path = saved(tmp_path / "a.nii", VOLUME[:, :, 0])
    path.write_bytes(path.read_bytes() + bytes(84))
    with pytest.raises(DataError, match=r"for \(6, 7\), so that .* fit \(6, 7, 2\); mend"):
        read_image(path)


def test_a_far_longer_file_is_refused_and_padding_is_not(tmp_path):
    path = saved(tmp_path / "a.nii")
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(83))
    np.testing.assert_array_equal(read_image(path).array[0], VOLUME)
    path.write_bytes(whole + bytes(3 << 20))
    with pytest.raises(DataError, match=r"1048577 bytes or more .*\(6, 7, 12488\) or more; mend"):
        read_image(path)


@pytest.mark.parametrize("shape", [(6, 7, 5, 1), (6, 7, 5, 1, 1)])
def test_an_axis_of_one_behind_the_third_is_left_out(tmp_path, shape):
    path = saved(tmp_path / "a.nii.gz", VOLUME.reshape(shape))
    assert nib.load(path).shape == shape
    image = read_image(path, spatial_dims=3)
    np.testing.assert_array_equal(image.array[0], VOLUME)
    assert image.attributes["spacing_mm"] == pytest.approx((0.5, 0.75, 2.5))
    assert len(slice_items([{"image": str(path), "case": "a"}])) == 5
    for like in (image, path):
        mask = nib.load(write_mask(VOLUME > 0, tmp_path / "m.nii.gz", like))
        assert mask.shape == shape  # as the scan, so that viewers lay it over it
        np.testing.assert_array_equal(mask.get_fdata().reshape(VOLUME.shape), VOLUME > 0)
        assert mask.affine.tobytes() == nib.load(path).affine.tobytes()


def test_voxel_sizes_that_are_none_or_disagree_are_refused(tmp_path):
    path = packed(saved(tmp_path / "a.nii"), 80, "<f", 0)  # pixdim[1]
    with pytest.raises(DataError, match="voxel size"):
        read_image(path)
    path = packed(saved(tmp_path / "a.nii"), 88, "<f", 2.6)  # pixdim[3]
    for reading in (read_image, read_header):
        with pytest.raises(DataError, match=r"2\.599\S+\] mm \(pixdim\) and \[0\.5, 0\.75, 2\.5\]"):
            reading(path)
    assert read_image(packed(path, 88, "<f", 2.51)).array.shape == (1, 6, 7, 5)


def test_sform_and_qform_that_agree_in_two_corners_only_are_refused(tmp_path):
    """Turned by a third around the diagonal of a cube, whose ends stay in their places."""
    cube, turned = np.zeros((4, 4, 4), np.int16), np.eye(4)[[2, 0, 1, 3]]
    path = saved(tmp_path / "a.nii", cube, np.eye(4), qform=turned)
    with pytest.raises(DataError, match="sform and qform disagree"):
        read_image(path)


@pytest.mark.parametrize("reading", [read_image, read_header])
def test_a_file_that_may_not_be_read_says_so(tmp_path, monkeypatch, reading):
    path = saved(tmp_path / "a.nii.gz")

    def forbidden(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(nifti.gzip, "open", forbidden)
    with pytest.raises(DataError, match=r"a\.nii\.gz: Permission denied; check"):
        reading(path)


def test_a_wrong_name_of_the_compression_does_not_matter(tmp_path):
    plain, packed_ = saved(tmp_path / "a.nii"), saved(tmp_path / "b.nii.gz")
    plain.rename(tmp_path / "c.nii.gz")
    packed_.rename(tmp_path / "d.nii")
    for name in ("c.nii.gz", "d.nii"):
        np.testing.assert_array_equal(read_image(tmp_path / name).array[0], VOLUME)
        assert read_header(tmp_path / name)["spatial_shape"] == (6, 7, 5)


def test_a_mask_may_be_all_but_empty_and_a_scan_may_not(tmp_path):
    shape = (512, 512, 300)  # as int64 600 MiB
    header = nib.Nifti1Image(np.zeros((1, 1, 1), np.int64), np.eye(4), dtype="int64").header
    header.set_data_shape(shape)
    header["vox_offset"] = 352
    nothing = bytes(1 << 20)
    with gzip.open(tmp_path / "a.nii.gz", "wb", compresslevel=6) as stream:
        stream.write(header.binaryblock + bytes(4))
        for _ in range(600):
            stream.write(nothing)
    assert nifti.read_nifti(tmp_path / "a.nii.gz", mask=True).array.shape == (1, *shape)
    with pytest.raises(DataError, match="announce 600 MiB, more than 500 times as much"):
        read_image(tmp_path / "a.nii.gz")
    with pytest.raises(DataError, match="announce 600 MiB"):
        read_header(tmp_path / "a.nii.gz")
    assert read_header(tmp_path / "a.nii.gz", mask=True)["spatial_shape"] == shape
    for shape, told in (((1024, 1024, 300), "2400 MiB"), ((32767, 32767, 2000), "at most 8192")):
        header.set_data_shape(shape)
        with gzip.open(tmp_path / "b.nii.gz", "wb") as stream:
            stream.write(header.binaryblock + bytes(1000))
        with pytest.raises(DataError, match=told):
            read_label(tmp_path / "b.nii.gz")


@pytest.mark.parametrize("shape", [(6, 7), (6, 7, 1)])
def test_a_plane_that_says_nothing_of_the_direction_across_it_is_a_plane(tmp_path, shape):
    volume = nib.Nifti1Image(VOLUME[:, :, 0].reshape(shape), np.eye(4))
    volume.set_sform(np.diag([0.5, 0.5, 0, 1]), 1)
    volume.set_qform(np.eye(4), 0)
    volume.header["pixdim"][1:4] = 0.5, 0.5, 2
    nib.save(volume, tmp_path / "a.nii")
    image = read_image(tmp_path / "a.nii")
    assert image.array.shape == (1, *shape)
    thickness = 2 if len(shape) == 3 else 1
    np.testing.assert_allclose(image.attributes["affine"], np.diag([0.5, 0.5, thickness, 1]))
    mask = write_mask(image.array[0] > 0, tmp_path / "mask.nii", like=tmp_path / "a.nii")
    np.testing.assert_allclose(nib.load(mask).affine, np.diag([0.5, 0.5, 0, 1]))
    assert read_label(mask).array.shape == (1, *shape)
    volume.set_sform(np.diag([0.5, 0, 0, 1]), 1)
    nib.save(volume, tmp_path / "b.nii")
    with pytest.raises(DataError, match=r"b\.nii: the affine .* is no grid; mend the header"):
        read_image(tmp_path / "b.nii")
