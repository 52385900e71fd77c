import itertools

import nibabel as nib
import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.images.axial import axial_volume
from metaseg_monai.images.image import Image

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
    np.testing.assert_array_equal(volume.planes, PLANES)
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


def test_a_tilted_volume_is_refused_a_little_tilt_is_not():
    def tilted(degrees):
        angle = np.radians(degrees)
        turn = np.eye(4)
        turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        return image(PLANES, turn @ KITS)

    assert axial_volume(tilted(10)).planes.shape == PLANES.shape
    with pytest.raises(DataError, match="tilted by 40 degrees"):
        axial_volume(tilted(40))


@pytest.mark.parametrize(
    ("array", "affine", "message"),
    [
        (PLANES, None, "no affine"),
        (PLANES[0], KITS, "expected one channel and three axes"),
    ],
)
def test_what_is_no_volume_is_refused(array, affine, message):
    with pytest.raises(DataError, match=message):
        axial_volume(image(array, affine))


def test_the_height_of_a_tilted_plane_is_that_of_its_middle():
    tilted = KITS.copy()
    tilted[2] = [-5, 0.3, 0.2, 100]
    volume = axial_volume(image(PLANES, tilted))
    middle = 100 + 0.3 * 2 + 0.2 * 2.5  # of rows 0..4 and columns 0..5
    assert [volume.position_mm(plane) for plane in (0, 1)] == pytest.approx([middle, middle - 5])


def test_a_mask_of_another_shape_is_not_restored():
    with pytest.raises(DataError, match="expected"):
        axial_volume(image(PLANES, KITS)).restore(PLANES[1:])
