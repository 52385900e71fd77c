import numpy as np
import pytest

from metaseg_monai.prepare.kits_case import TumourMeasures, measure_tumour


def ball(shape, centre, radius_mm, spacing):
    axes = [(np.arange(n) - c) * s for n, c, s in zip(shape, centre, spacing, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius_mm**2


@pytest.mark.parametrize("spacing", [(3.0, 0.8, 0.8), (1.0, 0.5, 1.5)])
def test_diameter_of_a_ball(spacing):
    planes = np.zeros((40, 120, 100), np.uint8)
    planes[ball(planes.shape, (20, 50, 50), 19, spacing)] = 2
    measures = measure_tumour(planes, spacing)
    assert measures.components == 1
    assert measures.diameter_mm == pytest.approx(38, abs=max(spacing[1:]))


def test_diameter_is_within_one_plane_and_one_lesion():
    planes = np.zeros((9, 40, 40), np.uint8)
    planes[1:8, 4, 4] = 2  # long across the planes, a pixel within them
    planes[2, 20, 20:30] = 2
    planes[2, 25, 4:9] = 2
    assert measure_tumour(planes, (10.0, 1.0, 7.0)) == TumourMeasures(3, 70.0)


def test_diagonal_extent_by_hand():
    planes = np.zeros((1, 20, 20), np.uint8)
    planes[0, 3:7, 5:8] = 2  # edge middles (2.5, 5) and (6.5, 7): 4 rows of 2 mm, 2 columns of 1
    found = measure_tumour(planes, (9.0, 2.0, 1.0)).diameter_mm
    assert found == pytest.approx(np.hypot(8, 2))


def test_lesions_that_touch_by_a_corner_are_one_and_specks_none():
    planes = np.zeros((4, 30, 30), np.uint8)
    planes[1, 3:8, 3:8] = 2
    planes[2, 8:13, 8:13] = 2
    planes[0, 25, 25] = 2
    assert measure_tumour(planes, (3.0, 1.0, 1.0)).components == 1
    assert measure_tumour(planes, (70.0, 1.0, 1.0)).components == 2
    assert measure_tumour(planes * 0 + 1, (3.0, 1.0, 1.0)) == TumourMeasures(0, 0.0)
