"""Volumes as axial planes, planes as items, and grids of other pixel sizes."""

import gc
import itertools
import os
import pickle
import weakref
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile
import torch

from metaseg_monai.errors import DataError, DataWarning
from metaseg_monai.images.geometry import (
    axial_volume,
    resampled_shape,
    resize_image,
    resize_label,
    resize_stored,
    same_grid,
    shear_degrees,
    voxels_apart,
)
from metaseg_monai.images.image import Image
from metaseg_monai.images.read import is_volume_file, read_image, slice_items, volume_header
from metaseg_monai.prepare import KitsLayout
from metaseg_monai.tables import check, find_cases, load_case
from metaseg_monai.tables.check import VolumeCache

PLANES = np.random.default_rng(0).integers(0, 99, (4, 5, 6)).astype(np.int16)
KITS = np.array([[0, 0, -0.8, 30], [0, -0.7, 0, 20], [-5, 0, 0, 100], [0, 0, 0, 1.0]])


def image(array, affine):
    return Image(array[None], {"path": "a.nii.gz", "affine": affine})


def stored(order, flips):
    """The same voxels and places under other axes."""
    turn = np.array(list(zip(order, flips, strict=True)))
    array = nib.orientations.apply_orientation(PLANES, turn)
    return array, KITS @ nib.orientations.inv_ornt_aff(turn, PLANES.shape)


def test_kits_files_lie_so_already():
    volume = axial_volume(image(PLANES, KITS))
    np.testing.assert_array_equal(volume.affine, KITS)
    assert volume.spacing_mm == pytest.approx((5, 0.7, 0.8))
    assert [volume.position_mm(plane) for plane in (0, 3)] == [100, 85]


def test_every_order_and_flip_of_axes_shows_the_same_planes():
    seen = 0
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            array, affine = stored(order, flips)
            volume = axial_volume(image(array, affine))
            np.testing.assert_array_equal(volume.planes, PLANES)
            np.testing.assert_allclose(volume.affine, KITS)
            np.testing.assert_array_equal(volume.restore(volume.planes), array)
            seen += 1
    assert seen == 48


def test_rows_run_to_the_back_and_columns_to_the_left():
    array = np.zeros((6, 5, 4), np.uint8)
    array[0, 4, 3] = 1  # right, front, top of the patient
    planes = axial_volume(image(array, np.diag([-1, 1, 1, 1.0]) * 1.0)).planes  # L, A, S
    assert planes[0, 0, 0] == 1


def tilted(degrees, affine):
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ affine


def test_a_tilted_volume_is_refused_by_its_case_a_little_tilt_is_not(tmp_path):
    assert axial_volume(image(PLANES, tilted(10, KITS))).planes.shape == PLANES.shape
    path = save(tmp_path / "c.nii", affine=tilted(40, AFFINE))
    with pytest.raises(DataError, match=r"case 'c': .*c\.nii.*tilted by 40 degrees"):
        slice_items([item_of(path)])


def test_what_is_no_volume_is_refused():
    with pytest.raises(DataError, match="no affine"):
        axial_volume(image(PLANES, None))
    with pytest.raises(DataError, match="expected one channel and three axes"):
        axial_volume(image(PLANES[0], KITS))
    with pytest.raises(DataError, match="expected"):
        axial_volume(image(PLANES, KITS)).restore(PLANES[1:])


def test_the_height_of_a_tilted_plane_is_that_of_its_middle():
    affine = tilted(20, KITS)
    volume = axial_volume(image(PLANES, affine))
    middle = 100 * np.cos(np.radians(20)) + 20 * np.sin(np.radians(20))
    middle -= 0.7 * 2 * np.sin(np.radians(20))  # of rows 0..4
    step = 5 * np.cos(np.radians(20))
    assert [volume.position_mm(plane) for plane in (0, 1)] == pytest.approx([middle, middle - step])


def sheared(degrees, affine=KITS):
    """As a gantry tilt leaves it: each plane is shifted along its rows' direction."""
    made = affine.copy()
    made[1, 0] += 5 * np.tan(np.radians(degrees))
    return made


def test_shear_is_refused_above_a_degree_and_measured_by_plane_distance_below(tmp_path):
    for degrees in (1.1, 25):
        with pytest.raises(DataError, match=rf"sheared by {degrees:.1f} degrees.*resample"):
            axial_volume(image(PLANES, sheared(degrees)))
        path = save(tmp_path / "s.nii.gz", (4, 5, 6), sheared(degrees))
        for command in (read_image, load_case_of, lambda path: slice_items([item_of(path)])):
            with pytest.raises(DataError, match=r"s\.nii\.gz: its axes are sheared"):
                command(path)
    affine = sheared(0.9)
    volume = axial_volume(image(PLANES, affine))
    assert volume.spacing_mm == pytest.approx((5.0, 0.7, 0.8), rel=1e-9)
    assert np.prod(volume.spacing_mm) == pytest.approx(abs(np.linalg.det(affine[:3, :3])), rel=1e-9)
    assert shear_degrees(affine) == pytest.approx(0.9, abs=1e-4)
    assert shear_degrees(tilted(25, KITS)) < 1e-3


def load_case_of(path):
    return load_case(item_of(path))


def test_oblique_scans_are_taken_and_their_angle_is_told(tmp_path):
    path = save(tmp_path / "o.nii", affine=tilted(12, AFFINE))
    with pytest.warns(DataWarning, match=r"case 'c': .*o\.nii: planes are tilted by 12\.0 degrees"):
        assert len(slice_items([item_of(path)])) == 3
    assert "tilted by 12.0 degrees" in load_case(item_of(path), spatial_dims=3).remarks[0]


@pytest.mark.parametrize("side", [0.0008, 300.0])
def test_sizes_of_another_unit_are_told_before_slicing(tmp_path, side):
    path = save(tmp_path / "u.nii", affine=np.diag([side, side, 5.0, 1.0]))
    with pytest.warns(DataWarning, match=rf"voxels of 5 x {side:g} x {side:g} mm.*another unit"):
        slice_items([item_of(path)])
    assert any("another unit" in remark for remark in load_case(item_of(path)).remarks)


def test_grids_are_one_within_a_tenth_of_a_voxel():
    moved, turned = KITS.copy(), KITS.copy()
    moved[2, 3] += 0.45  # 0.09 of a plane's 5 mm
    assert same_grid(moved, KITS, (4, 5, 6))
    assert voxels_apart(moved, KITS, (4, 5, 6)) == pytest.approx(0.09)
    moved[2, 3] += 0.1
    assert not same_grid(moved, KITS, (4, 5, 6))
    turned[:3, :3] *= 1.001  # 1/1000 of a step, of a large grid more than a tenth in all
    assert same_grid(turned, KITS, (4, 5, 6))
    assert not same_grid(turned, KITS, (4, 512, 512))
    assert not same_grid(KITS @ np.diag([-1, 1, 1, 1]), KITS, (1, 5, 6))
    assert same_grid(None, KITS, (4, 5, 6))


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
    monkeypatch.setattr(check, "read_image", lambda *_, **__: pytest.fail("voxels were read"))
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
    read, reads, cache = check.read_image, [], VolumeCache()
    kept = []

    def watched(path, **settings):
        gc.collect()
        kept.append([reference() is not None for reference in alive])
        reads.append(path)
        return read(path, **settings)

    alive = []
    monkeypatch.setattr(check, "read_image", watched)
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
    cases = find_cases(folder, layout=KitsLayout())
    assert [item["case"] for item in cases] == sorted(path.name for path in folder.glob("case_*"))
    for case in cases:
        stored = np.asarray(nib.load(case["image"]).dataobj)  # KiTS stores plane, row, column
        items = slice_items([case])
        assert len(items) == len(stored)
        volumes = VolumeCache()
        for item in items:
            image = load_case(item, volumes=volumes).image
            np.testing.assert_array_equal(image[0], stored[item["plane"]])


def test_the_extent_is_kept_within_half_a_pixel():
    assert resampled_shape((512, 796), (0.44, 0.44), 0.78) == (289, 449)
    assert resampled_shape((512, 512), (0.7804, 0.78), 0.78) == (512, 512)
    assert resampled_shape((3, 3), (0.1, 0.1), 9) == (1, 1)


def test_only_rounding_is_no_other_spacing():
    assert resampled_shape((512, 512), (0.79, 0.7806), 0.78) == (519, 512)


def test_a_grid_beyond_what_any_file_may_hold_is_refused():
    message = (
        r"24 x 20 x 6 pixels of 8000 x 8000 x 8000 mm would become 16000 x 13333 x 4000 of 12 x 12 "
        r"x 12 mm, expected at most 2048 million; mend the pixel size"
    )
    with pytest.raises(DataError, match=message):
        resampled_shape((24, 20, 6), (8000,) * 3, (12,) * 3)
    with pytest.raises(DataError, match="mend the pixel size"):
        resampled_shape((512, 512), (800, 800), 0.78)
    assert resampled_shape((512, 512, 1000), (0.8, 0.8, 1), (1, 1, 1)) == (410, 410, 1000)


def test_pixels_between_the_new_ones_count_where_planes_shrink():
    stripes = torch.tensor([1.0, 0, 0, 0]).repeat(8).expand(1, 1, 32, 32)
    fewer = resize_image(stripes, (8, 8))
    np.testing.assert_allclose(fewer[..., 1:-1], 0.25, atol=0.05)


def test_halving_averages_and_ramps_stay_ramps():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    # antialiased weights reach beyond the two pixels, but keep the mean
    assert resize_image(image, (2, 2)).mean() == pytest.approx(7.5)
    ramp = torch.arange(40.0).expand(1, 1, 40, 40)
    finer = resize_image(ramp, (40, 80))[0, 0, 0]
    np.testing.assert_allclose(finer[4:-4].diff(), 0.5, atol=1e-5)
    assert resize_image(image, (4, 4)) is image


@pytest.mark.parametrize("shape", [(11, 14, 5), (11, 14, 8), (5, 4, 8), (7, 9, 3), (9, 4, 5)])
def test_volumes_are_resized_trilinearly(shape):
    volumes = torch.rand(2, 3, 9, 7, 5, generator=torch.Generator().manual_seed(0))
    for stored in (volumes, volumes.transpose(2, 4)):
        expected = torch.nn.functional.interpolate(stored, shape, mode="trilinear")
        torch.testing.assert_close(resize_image(stored, shape), expected, atol=1e-6, rtol=0)


def test_labels_take_the_nearest_pixel():
    label = torch.tensor([[[[0, 1], [2, 3]]]], dtype=torch.uint8)
    finer = resize_label(label, (4, 4))[0, 0]
    np.testing.assert_array_equal(finer, np.kron([[0, 1], [2, 3]], np.ones((2, 2))))
    assert finer.dtype == torch.uint8
    np.testing.assert_array_equal(resize_label(finer[None, None], (2, 2)), label)
    for old, new in ((32, 227), (216, 169), (36, 111), (5, 3), (7, 500)):  # some with exact halves
        nearest = [(2 * place + 1) * old // (2 * new) for place in range(new)]
        row = torch.arange(old)[None, None, None]
        assert resize_label(row, (1, new)).flatten().tolist() == nearest


def test_image_and_label_stay_on_top_of_each_other():
    """A disc resampled both ways keeps its middle and its area."""
    rows, columns = np.mgrid[:101, :101]
    disc = ((rows - 40) ** 2 + (columns - 55) ** 2 <= 20**2).astype(np.float32)
    shape = (67, 67)
    image = resize_image(torch.from_numpy(disc)[None, None], shape)[0, 0].numpy()
    label = resize_label(torch.from_numpy(disc)[None, None], shape)[0, 0].numpy()
    for plane in (image, label):
        middle = (np.argwhere(plane > 0.5).mean(axis=0) + 0.5) * 101 / 67 - 0.5
        np.testing.assert_allclose(middle, (40, 55), atol=0.2)
        assert plane.sum() * (101 / 67) ** 2 == pytest.approx(disc.sum(), rel=0.03)


def test_stored_planes_keep_their_type():
    plane = np.array([[-1000, 3000], [40, 41]], np.int16)
    assert resize_stored(plane, (2, 2)) is plane
    finer = resize_stored(plane, (6, 6))
    assert finer.dtype == np.int16
    assert (finer.min(), finer.max()) == (-1000, 3000)
    assert resize_stored(plane / np.float64(2), (4, 4)).dtype == np.float64
