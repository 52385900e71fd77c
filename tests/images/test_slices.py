import gc
import os
import pickle
import weakref
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.images import axial as slices
from metaseg_monai.images.axial import VolumeCache, is_volume_file, slice_items, volume_header
from metaseg_monai.tables import find_cases, load_case

REAL = Path(
    os.environ.get("METASEG_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data")
)

# stored as right, front, head: planes of the canonical order are the last axis, from its end
AFFINE = np.diag([0.8, 0.7, 5.0, 1.0])


def save(path, shape=(6, 4, 3), affine=AFFINE, dtype=np.int16):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    nib.save(nib.Nifti1Image(array, affine), path)
    return str(path)


def item_of(path, case="c"):
    return {"image": path, "case": case, "group": "g", "metadata": {"size": "41"}}


def test_a_volume_becomes_its_planes(tmp_path):
    path = save(tmp_path / "c.nii.gz")
    made = slice_items([item_of(path)])
    assert [item["case"] for item in made] == ["c_0000", "c_0001", "c_0002"]
    assert made[1] == {
        "image": path,
        "case": "c_0001",
        "group": "g",
        "metadata": {"size": "41"},
        "volume": "c",
        "plane": 1,
        "planes": 3,
        "spacing_mm": pytest.approx((5.0, 0.7, 0.8)),
    }
    made[0]["metadata"]["size"] = "changed"
    assert made[1]["metadata"]["size"] == "41"


def test_voxels_stay_unread(tmp_path, monkeypatch):
    path = save(tmp_path / "c.nii.gz")
    monkeypatch.setattr(slices, "read_image", lambda *_, **__: pytest.fail("voxels were read"))
    assert len(slice_items([item_of(path)])) == 3


def test_what_is_no_whole_volume_stays_as_it_is(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 5), np.uint8))
    flat = save(tmp_path / "flat.nii", (6, 4), np.diag([1, 1, 1, 1.0]))
    items = [
        item_of(str(tmp_path / "a.tif"), "a"),
        item_of(flat, "flat"),
        item_of([str(tmp_path / "a.tif")] * 2, "stack"),
        {**item_of(save(tmp_path / "v.nii"), "p"), "plane": 2},
    ]
    assert slice_items(items) == items
    assert slice_items([item_of(save(tmp_path / "v.nii"))], spatial_dims=3)[0]["case"] == "c"


def test_a_tilted_volume_is_refused_by_its_case(tmp_path):
    turn = np.eye(4)
    angle = np.deg2rad(40)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    path = save(tmp_path / "c.nii", affine=turn @ AFFINE)
    with pytest.raises(DataError, match=r"case 'c': .*c\.nii.*tilted by 40 degrees"):
        slice_items([item_of(path)])


def test_volumes_of_several_channels_are_refused(tmp_path):
    path = save(tmp_path / "c.nii")
    with pytest.raises(DataError, match="case 'c': a volume of 2 channels"):
        slice_items([item_of([path, path])])


def test_names_that_meet_are_refused(tmp_path):
    volume = item_of(save(tmp_path / "c.nii"))
    single = item_of(save(tmp_path / "c_0001.nii", (6, 4), np.eye(4)), "c_0001")
    with pytest.raises(DataError, match="two slices have the name 'c_0001'"):
        slice_items([single, volume])


def test_a_missing_or_damaged_volume_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.nii: no such file"):
        is_volume_file(tmp_path / "none.nii")
    (tmp_path / "short.nii").write_bytes(b"x" * 30)
    with pytest.raises(DataError, match=r"short\.nii: 30 bytes"):
        slice_items([item_of(str(tmp_path / "short.nii"))])


def test_header_lies_as_the_voxels_do(tmp_path):
    path = save(tmp_path / "c.nii.gz", affine=np.diag([-0.8, 0.7, -5.0, 1.0]))
    view, attributes = volume_header(path)
    read = VolumeCache().read("image", path)
    assert view.planes.shape == read.planes.shape == (3, 4, 6)
    np.testing.assert_array_equal(view.affine, read.affine)
    np.testing.assert_array_equal(view.restore(read.planes), nib.load(path).get_fdata())
    assert attributes["spatial_shape"] == (6, 4, 3)


def test_cache_reads_once_and_lets_go_of_the_volume_before(tmp_path, monkeypatch):
    paths = [save(tmp_path / f"{name}.nii.gz") for name in "ab"]
    read, reads, cache = slices.read_image, [], VolumeCache()
    kept = []

    def watched(path, **settings):
        gc.collect()
        kept.append([reference() is not None for reference in alive])
        reads.append(path)
        return read(path, **settings)

    alive = []
    monkeypatch.setattr(slices, "read_image", watched)
    for path in (paths[0], paths[0], paths[1]):
        volume = cache.read("image", path)
        alive.append(weakref.ref(volume))
        del volume
    assert reads == paths
    assert kept == [[], [False, False]]  # the first volume was gone before the second was read
    assert cache.holds("image", paths[1])
    assert not cache.holds("label", paths[1])
    assert not pickle.loads(pickle.dumps(cache)).holds("image", paths[1])


@pytest.mark.real_data
def test_real_volumes_lie_as_their_planes_are_numbered():
    folder = REAL / "kits_mini3d"
    if not folder.is_dir():
        pytest.skip(f"no real data in {REAL} (set METASEG_DATA)")
    cases = find_cases(folder, None)
    assert [item["case"] for item in cases] == sorted(path.name for path in folder.glob("case_*"))
    for case in cases:
        stored = np.asarray(nib.load(case["image"]).dataobj)  # KiTS stores plane, row, column
        items = slice_items([case])
        assert len(items) == len(stored)
        volumes = VolumeCache()
        for item in items:
            image = load_case(item, volumes=volumes).image
            np.testing.assert_array_equal(image[0], stored[item["plane"]])
