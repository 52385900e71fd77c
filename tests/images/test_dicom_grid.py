import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.images.dicom_grid import PlanePlace, series_grid


def places(positions, orientation=(1, 0, 0, 0, 1, 0), spacing=(0.8, 0.7)):
    return [
        PlanePlace(f"{index}.dcm", f"id{index}", "", (4, 6), spacing, tuple(orientation), position)
        for index, position in enumerate(positions)
    ]


def upward(*heights):
    return [(5.0, 2.0, float(height)) for height in heights]


def test_affine_by_hand():
    """Coronal planes: rows run to the left, columns down, planes from front to back."""
    grid = series_grid("ct", places([(1, 8, 3), (1, 4, 3), (1, 6, 3)], (1, 0, 0, 0, 0, -1)))
    assert grid.order == (1, 2, 0)  # the normal, left x down, points to the back
    assert grid.shape == (6, 4, 3)
    assert grid.spacing_mm == (0.7, 0.8, 2.0)
    expected = [[-0.7, 0, 0, -1], [0, 0, -2, -4], [0, -0.8, 0, 3], [0, 0, 0, 1]]
    np.testing.assert_array_equal(grid.affine, expected)
    assert not np.signbit(grid.affine[grid.affine == 0]).any()


def test_mirrored_rows_order_planes_downward():
    grid = series_grid("ct", places(upward(0, 3, 6), (-1, 0, 0, 0, 1, 0)))
    assert grid.order == (2, 1, 0)
    assert grid.affine[2].tolist() == [0, 0, -3, 6]
    assert np.linalg.det(grid.affine[:3, :3]) > 0


@pytest.mark.parametrize(
    ("heights", "message"),
    [
        (
            (0, 2, 4, 10, 12),
            r"ct: planes are 2 mm apart, but 1 of 4 gaps are not: 6 mm between 2\.dcm at 4 mm and "
            r"3\.dcm at 10 mm; about 2 planes lack",
        ),
        ((0, 2, 4, 6.03, 8), r"2 of 4 gaps are not: 2\.03 mm between 2\.dcm.*equal distances"),
        ((0, 5, 10, 5.005), r"1 planes lie where another one lies, such as 1\.dcm.*3\.dcm.*phases"),
        ((0, 2, 0, 2), "2 planes lie where another one lies"),
        ((0,), r"ct: 1 plane, so the distance of planes is unknown"),
    ],
)
def test_irregular_positions_are_named(heights, message):
    with pytest.raises(DataError, match=message):
        series_grid("ct", places(upward(*heights)))


def test_gaps_within_one_percent_pass():
    grid = series_grid("ct", places(upward(0, 2, 4.018, 6, 8)))
    assert grid.spacing_mm[2] == 2


def test_copies_are_told_from_phases():
    planes = places(upward(0, 2, 4, 4))
    planes[3] = planes[3]._replace(instance="id2")
    with pytest.raises(DataError, match="copies of one image: delete one"):
        series_grid("ct", planes)


def test_gantry_tilt_is_refused_and_measured():
    tilt = np.tan(np.radians(10))
    planes = places([(5.0, 2 + tilt * height, height) for height in (0.0, 2.0, 4.0)])
    with pytest.raises(DataError, match=r"2\.dcm lies 0\.705 mm sideways.*tilt of 10 degrees.*dcm"):
        series_grid("ct", planes)
    series_grid("ct", places([(5.0, 2 + 0.01 * height, height) for height in (0.0, 2.0, 4.0)]))


def test_one_plane_shifted_sideways_is_named():
    with pytest.raises(DataError, match=r"1\.dcm lies 0\.5 mm sideways of 0\.dcm"):
        series_grid("ct", places([(5.0, 2.0, 0.0), (5.5, 2.0, 2.0), (5.0, 2.0, 4.0)]))


@pytest.mark.parametrize(
    "orientation", [(1, 0, 0, 0.01, 1, 0), (1.01, 0, 0, 0, 1, 0), (0, 0, 0, 0, 1, 0)]
)
def test_directions_that_are_no_axes_are_refused(orientation):
    with pytest.raises(DataError, match=r"0\.dcm: ImageOrientationPatient"):
        series_grid("ct", places(upward(0, 1), orientation))


def test_odd_plane_out_is_named_wherever_it_stands():
    planes = places(upward(0, 2, 4))
    planes[0] = planes[0]._replace(orientation=(0, 1, 0, 0, 0, -1))
    with pytest.raises(
        DataError,
        match=r"1 of 3 planes differ in ImageOrientationPatient: 0\.dcm has .*, 1\.dcm has .*local",
    ):
        series_grid("ct", planes)
