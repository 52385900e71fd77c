"""What a header says of unit, size and place, and what its file holds beside."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.images import nifti as nifti_header
from metaseg_monai.images import read_image
from metaseg_monai.images.axial import axial_volume, slice_items, volume_header
from metaseg_monai.images.read import read_header
from metaseg_monai.images.writers import write_mask

VOLUME = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 5)).astype(np.int16)
AFFINE = np.array([[0, -0.75, 0, 10], [0.5, 0, 0, -4], [0, 0, 2.5, 3], [0, 0, 0, 1.0]])


def saved(path, array=VOLUME, sform=AFFINE, qform=None, unit=2):
    volume = nib.Nifti1Image(array, sform)
    if qform is not None:
        volume.set_qform(qform, code=1)
    volume.header["xyzt_units"] = unit
    nib.save(volume, path)
    return path


@pytest.mark.parametrize(
    ("unit", "factor"), [(0, 1), (1, 1000), (2, 1), (3, 0.001), (3 | 8, 0.001)]
)
def test_affine_and_spacing_are_in_mm_whatever_the_unit(tmp_path, unit, factor):
    scale = np.diag([1 / factor] * 3 + [1])
    path = saved(tmp_path / "a.nii.gz", sform=scale @ AFFINE, qform=scale @ AFFINE, unit=unit)
    image = read_image(path)
    np.testing.assert_allclose(image.attributes["affine"], AFFINE, rtol=1e-6)
    assert image.attributes["spacing_mm"] == pytest.approx((0.5, 0.75, 2.5))
    np.testing.assert_array_equal(read_header(path)["affine"], image.attributes["affine"])
    assert axial_volume(image).spacing_mm == pytest.approx((2.5, 0.5, 0.75))
    assert volume_header(path)[0].spacing_mm == pytest.approx((2.5, 0.5, 0.75))


@pytest.mark.parametrize("unit", [1, 3, 3 | 8])
def test_a_mask_has_the_affine_and_the_unit_of_its_file(tmp_path, unit):
    path = saved(tmp_path / "a.nii.gz", unit=unit)
    for number, like in enumerate((read_image(path).attributes, read_header(path))):
        mask = nib.load(write_mask(tmp_path / f"{number}.nii.gz", VOLUME > 0, like))
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


def test_an_axis_of_one_behind_the_third_is_left_out(tmp_path):
    for shape in ((6, 7, 5, 1), (6, 7, 5, 1, 1)):
        path = saved(tmp_path / "a.nii.gz", VOLUME.reshape(shape))
        assert nib.load(path).shape == shape
        image = read_image(path, spatial_dims=3)
        np.testing.assert_array_equal(image.array[0], VOLUME)
        assert image.attributes["spacing_mm"] == pytest.approx((0.5, 0.75, 2.5))
        assert len(slice_items([{"image": str(path), "case": "a"}])) == 5
        for like in (image.attributes, read_header(path)):
            mask = nib.load(write_mask(tmp_path / "m.nii.gz", VOLUME > 0, like))
            np.testing.assert_array_equal(mask.get_fdata(), VOLUME > 0)
            assert mask.shape == (6, 7, 5)
            assert mask.affine.tobytes() == nib.load(path).affine.tobytes()


def test_several_volumes_in_a_file_are_refused_with_what_helps(tmp_path):
    path = saved(tmp_path / "a.nii", np.zeros((6, 7, 5, 2), np.int16))
    with pytest.raises(DataError, match=r"4 dimensions \(6, 7, 5, 2\).*file of its own$"):
        read_image(path)


def test_voxel_sizes_of_pixdim_and_sform_that_disagree_are_refused(tmp_path):
    path = saved(tmp_path / "a.nii")
    raw = bytearray(path.read_bytes())
    raw[88:92] = np.float32(2.6).tobytes()  # pixdim[3]
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"2\.599\S+\] mm \(pixdim\) and \[0\.5, 0\.75, 2\.5\] mm"):
        read_image(path)
    raw[88:92] = np.float32(2.51).tobytes()
    path.write_bytes(raw)
    assert read_image(path).array.shape == (1, 6, 7, 5)


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

    monkeypatch.setattr(nifti_header.gzip, "open", forbidden)
    with pytest.raises(DataError, match=r"a\.nii\.gz: cannot be read \(Permission denied\); check"):
        reading(path)
