"""Images that are the same by their pixels, in whatever file."""

import time

import nibabel as nib
import numpy as np
import PIL.Image
import tifffile

from metaseg_monai.images import identity, read_image
from metaseg_monai.images import tiff as tiff_reader
from metaseg_monai.images.identity import file_digests, image_digest
from metaseg_monai.images.image import Image
from metaseg_monai.tables.check import check_table

PIXELS = np.random.default_rng(0).integers(0, 200, (6, 7, 5)).astype(np.uint8)
AFFINE = np.diag([0.8, 0.7, 3.0, 1.0])


def tiff(path, array, **settings):
    tifffile.imwrite(path, array, photometric="minisblack", **settings)
    return path


def nifti(path, array, affine=AFFINE):
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def test_a_picture_in_seven_files(tmp_path):
    plane = PIXELS[..., 0]
    PIL.Image.fromarray(plane).save(tmp_path / "a.png")
    PIL.Image.fromarray(np.stack([plane] * 3, -1)).save(tmp_path / "b.png")
    PIL.Image.fromarray(np.stack([plane, np.full_like(plane, 255)], -1)).save(tmp_path / "c.png")
    files = [tmp_path / f"{name}.png" for name in "abc"]
    files.append(tiff(tmp_path / "d.tif", plane.astype(">u2"), compression="zlib"))
    files.append(tiff(tmp_path / "e.tif", plane.astype(np.float64)))
    files.append(nifti(tmp_path / "f.nii", plane.astype(np.int32)))
    files.append(nifti(tmp_path / "g.nii.gz", plane[..., None].astype(np.float32)))
    assert len(set(file_digests([(file,) for file in files]))) == 1
    others = [plane.T, plane[::-1], plane + np.uint8(1), plane.reshape(7, 6)]
    found = file_digests([(tiff(tmp_path / f"{n}.tif", one),) for n, one in enumerate(others)])
    assert len({*found, *file_digests([(files[0],)])}) == 5


def test_a_volume_in_every_order_of_its_axes(tmp_path):
    turned = AFFINE.copy()
    turned[:3, :3] = AFFINE[:3, [2, 1, 0]]
    turned[0, 1] *= -1
    flipped = AFFINE @ np.array([[-1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    files = [
        nifti(tmp_path / "a.nii", PIXELS),
        nifti(tmp_path / "b.nii.gz", PIXELS[::-1].astype(np.float32), flipped),
        nifti(tmp_path / "c.nii", PIXELS.transpose(2, 1, 0).astype(np.int16), turned),
    ]
    assert len(set(file_digests([(file,) for file in files]))) == 1
    assert len(set(file_digests([(files[0],), (nifti(tmp_path / "d.nii", PIXELS[::-1]),)]))) == 2


def test_channels_of_several_files_are_those_of_one(tmp_path):
    planes = [tiff(tmp_path / f"{n}.tif", PIXELS[..., n]) for n in range(2)]
    joined = tiff(tmp_path / "j.tif", PIXELS[..., :2].transpose(2, 0, 1), metadata={"axes": "CYX"})
    one, other, swapped = file_digests([planes, (joined,), planes[::-1]])
    assert one == other != swapped


def test_images_without_contrast_are_like_no_other():
    assert image_digest(Image(np.full((1, 3, 3), 7), {})) == ""


def test_check_tells_copies_in_another_format_and_groups_that_are_probably_one(
    folder, write_csv, task_schema
):
    path, rows = folder
    copy = tifffile.imread(path / rows[0]["image"])
    PIL.Image.fromarray(copy).save(path / "images/copy.png")
    rows[2]["image"] = "images/copy.png"
    for row, group in zip(rows, ["7", "8", "007.0"], strict=True):
        row["group"] = group
    write_csv(path / "table.csv", rows)
    found = check_table(path, task_schema)
    (told,) = found.problems
    assert "the same image content in several splits" in told
    assert "0.tif (train)" in told
    assert "copy.png (test)" in told
    near = "groups that are probably one: '7' (train), '007.0' (test); write it alike"
    assert near in found.warnings


def test_large_files_are_read_one_at_a_time_and_in_parts(tmp_path, monkeypatch):
    plane = np.random.default_rng(1).integers(0, 200, (96, 64)).astype(np.uint8)
    whole = [tiff(tmp_path / "a.tif", plane)]
    whole += [tiff(tmp_path / f"{n}.tif", plane, tile=(16, 16)) for n in range(5)]
    expected = image_digest(read_image(whole[0]))
    monkeypatch.setattr(tiff_reader, "LARGE_PIXELS", 100)
    monkeypatch.setattr(identity, "READERS", 4)
    held: set[int] = set()
    most, kinds = [], []

    def watched(image):
        held.add(id(image))
        most.append(len(held))
        kinds.append(type(image.array))
        time.sleep(0.01)
        found = image_digest(image)
        held.discard(id(image))
        return found

    monkeypatch.setattr(identity, "image_digest", watched)
    assert set(file_digests([(file,) for file in whole])) == {expected}
    assert max(most) > 1
    assert kinds.count(tiff_reader.TiffPixels) == 5
    monkeypatch.setattr(identity, "LARGE_BYTES", 100)
    most.clear()
    assert set(file_digests([(file,) for file in whole])) == {expected}
    assert max(most) == 1
