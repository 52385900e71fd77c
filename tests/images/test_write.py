import gzip

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.images import mask_suffix, read_image, write_mask
from metaseg_monai.images.read import read_header

MASK = (np.arange(600).reshape(20, 30) % 3).astype(np.int64)


@pytest.mark.parametrize(
    ("name", "out"), [("a.tif", "m.tif"), ("a.png", "m.png"), ("a.jpg", "m.png")]
)
@pytest.mark.parametrize(("scale", "dtype"), [(1, np.uint8), (150, np.uint16)])
def test_flat_masks_round_trip(tmp_path, name, out, scale, dtype):
    if name == "a.tif":
        tifffile.imwrite(tmp_path / name, MASK.astype(np.uint8))
    else:
        PIL.Image.fromarray(MASK.astype(np.uint8)).save(tmp_path / name)
    like = read_image(tmp_path / name).attributes
    assert out.endswith(mask_suffix(like))
    assert write_mask(MASK * scale, tmp_path / "new" / out, like) == tmp_path / "new" / out
    back = read_image(tmp_path / "new" / out).array
    assert back.dtype == dtype
    np.testing.assert_array_equal(back[0], MASK * scale)


def test_tiff_stack_round_trips(tmp_path):
    stack = np.zeros((4, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack", metadata={"axes": "ZYX"})
    like = read_image(tmp_path / "a.tif", spatial_dims=3).attributes
    mask = np.random.default_rng(0).integers(0, 2, (20, 30, 4))
    write_mask(mask, tmp_path / "m.tif", like)
    np.testing.assert_array_equal(read_image(tmp_path / "m.tif", spatial_dims=3).array[0], mask)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("code", ["sform", "qform"])
def test_nifti_mask_has_the_images_affine(tmp_path, kind, code):
    angle = 0.3
    affine = np.array(
        [
            [0.7 * np.cos(angle), -0.9 * np.sin(angle), 0, 10.123],
            [0.7 * np.sin(angle), 0.9 * np.cos(angle), 0, -3.3],
            [0, 0, 2.5, 1 / 3],
            [0, 0, 0, 1],
        ]
    )
    volume = kind(np.zeros((6, 7, 5), np.int16), None)
    getattr(volume, f"set_{code}")(affine, code=1)
    volume.header.set_zooms((0.7, 0.9, 2.5))  # a new sform leaves pixdim as it was
    volume.header.set_slope_inter(2, 5)
    nib.save(volume, tmp_path / "a.nii.gz")
    like = read_image(tmp_path / "a.nii.gz").attributes
    mask = np.random.default_rng(0).integers(0, 3, (6, 7, 5))
    write_mask(mask, tmp_path / "m.nii.gz", like)
    back = nib.load(tmp_path / "m.nii.gz")
    assert isinstance(back, kind)
    assert back.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asarray(back.dataobj), mask)
    np.testing.assert_array_equal(back.affine, nib.load(tmp_path / "a.nii.gz").affine)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nothing_of_the_patient_goes_from_a_header_into_the_mask(tmp_path, kind, suffix):
    volume = kind(np.zeros((4, 5, 6), np.int16), np.diag([1, 1, 5, 1.0]))
    names = [n for n in volume.header if volume.header[n].dtype.kind == "S" and n != "magic"]
    assert {"descrip", "aux_file", "intent_name"} <= set(names)
    for name in names:
        volume.header[name] = b"J. Doe"[: volume.header[name].dtype.itemsize]
    volume.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"born J. Doe 1950"))
    path = tmp_path / f"a{suffix}"
    nib.save(volume, path)
    like = read_header(path)
    for attributes, name in ((like, "m"), (read_image(path).attributes, "n")):
        mask = write_mask(np.ones((4, 5, 6)), tmp_path / f"{name}{suffix}", attributes)
        raw = mask.read_bytes()
        raw = gzip.decompress(raw) if suffix == ".nii.gz" else raw
        assert b"Doe" not in raw
        assert (read_image(mask).array == 1).all()
        assert len(raw) == int(nib.load(mask).header.single_vox_offset) + 4 * 5 * 6


def test_nifti_mask_from_the_affine_alone(tmp_path):
    affine = np.diag([0.5, -2, 3, 1.0])
    write_mask(np.ones((3, 4, 5)), tmp_path / "m.nii", {"format": "nifti", "affine": affine})
    np.testing.assert_array_equal(nib.load(tmp_path / "m.nii").affine, affine)


@pytest.mark.parametrize(
    ("name", "mask", "message"),
    [
        ("m.png", MASK, r"ends in \.tif"),
        ("m.tif", MASK.T, r"shape \(30, 20\), expected the image's \(20, 30\)"),
        ("m.tif", MASK * 0.5, "whole numbers"),
        ("m.tif", MASK - 1, "whole numbers"),
        ("m.tif", MASK * 40000, "whole numbers"),
    ],
)
def test_what_is_no_mask_of_the_image_is_refused_and_nothing_written(tmp_path, name, mask, message):
    like = {"format": "tiff", "spatial_shape": (20, 30)}
    with pytest.raises(DataError, match=message):
        write_mask(mask, tmp_path / name, like)
    assert list(tmp_path.iterdir()) == []


def test_a_mask_never_replaces_its_image(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", MASK.astype(np.uint8))
    before = (tmp_path / "a.tif").read_bytes()
    for like in (tmp_path / "a.tif", read_image(tmp_path / "a.tif")):
        with pytest.raises(DataError, match="is the image itself"):
            write_mask(MASK, tmp_path / "a.tif", like)
    assert (tmp_path / "a.tif").read_bytes() == before


@pytest.mark.parametrize("like", [{}, {"format": "gif"}, {"format": "nifti"}])
def test_attributes_of_no_image_are_refused(tmp_path, like):
    with pytest.raises(DataError, match="expected the attributes of an image"):
        write_mask(MASK, tmp_path / "m.nii", like)


@pytest.mark.parametrize("mask", [None, np.full((20, 30), "a"), np.full((20, 30), 1j)])
def test_what_holds_no_numbers_is_no_mask(tmp_path, mask):
    with pytest.raises(DataError, match="holds whole numbers"):
        write_mask(mask, tmp_path / "m.tif", {"format": "tiff"})


def test_failed_writing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "m.tif"
    like = {"format": "tiff"}
    write_mask(MASK, path, like)
    before = path.read_bytes()

    def broken(file, *_, **__):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(tifffile, "imwrite", broken)
    with pytest.raises(OSError, match="disk full"):
        write_mask(MASK * 0, path, like)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
