import numpy as np
import pytest

from metaseg_monai.data.shapes import (
    SHAPES,
    Placement,
    balanced_tasks,
    draw_image,
    draw_placements,
    shape_target,
)
from metaseg_monai.errors import DataError


def drawn(name, size, side=12, centre=(6, 6)):
    return shape_target(name, Placement(*centre, size), side)


def test_names_in_the_order_of_the_thesis():
    assert [shape.thesis_name for shape in SHAPES.values()] == [
        "TRIANG",
        "CIRCLE",
        "FCIRCL",
        "MSQUAR",
        "SQUARE",
        "CROSS",
    ]


def test_square_by_hand():
    expected = np.zeros((12, 12), bool)
    expected[4:8, 4:8] = True
    np.testing.assert_array_equal(drawn("square", 4.0), expected)


def test_triangle_is_the_lower_left_half():
    box = drawn("triangle", 4.0)[4:8, 4:8]
    np.testing.assert_array_equal(box, np.tril(np.ones((4, 4), bool)))
    assert drawn("triangle", 4.0).sum() == 10


def test_disc_and_ring_by_their_radii():
    rows, columns = np.indices((12, 12)) - 6
    radius = np.sqrt(rows**2 + columns**2)
    np.testing.assert_array_equal(drawn("disc", 3.0), radius < 3)
    np.testing.assert_array_equal(drawn("ring", 3.0), (radius < 3) & (radius >= 2.1))


def test_cross_is_two_bars_of_two_pixels():
    cross = drawn("cross", 6.0)
    assert cross.sum() == 2 * 6 * 2 - 4
    assert cross[5:7, 3:9].all()
    assert cross[3:9, 5:7].all()


def test_smallest_cross_is_no_square():
    assert drawn("cross", 2.4).sum() == 2 * 4 * 2 - 4


def test_mesh_square_shows_odd_pixels_and_asks_for_the_box():
    placement = Placement(6, 6, 4.0)
    target = shape_target("mesh_square", placement, 12)
    seen = draw_image({"mesh_square": placement}, 12)
    assert target.sum() == 16
    assert set(zip(*np.nonzero(seen), strict=True)) == {(5, 5), (5, 7), (7, 5), (7, 7)}


def test_image_is_the_union_of_what_is_seen():
    placements = draw_placements(np.random.default_rng(3), 64)
    image = draw_image(placements, 64)
    assert list(placements) == list(SHAPES)
    union = np.zeros((64, 64), bool)
    for name in SHAPES:
        target = shape_target(name, placements[name], 64)
        union |= target
        if name != "mesh_square":
            assert image[target].all()
    assert not image[~union].any()


@pytest.mark.parametrize("side", [32, 33, 64])
def test_every_mask_is_inside_and_not_empty(side):
    for seed in range(300):
        placements = draw_placements(np.random.default_rng(seed), side)
        larger = {
            name: Placement(row + 5, column + 5, size)
            for name, (row, column, size) in placements.items()
        }
        for name in SHAPES:
            target = shape_target(name, placements[name], side)
            whole = shape_target(name, larger[name], side + 10)
            assert target.sum() == whole.sum() > 0, (name, seed)
            assert draw_image({name: placements[name]}, side).any(), (name, seed)


def test_places_and_sizes_stay_in_the_rules():
    for seed in range(200):
        for name, (row, column, size) in draw_placements(np.random.default_rng(seed), 100).items():
            assert 10 <= row < 90
            assert 10 <= column < 90
            assert 6 <= size / SHAPES[name].zoom <= 12


def test_tasks_are_balanced_and_shuffled():
    tasks = balanced_tasks(np.random.default_rng(0), 60)
    assert {tasks.count(name) for name in SHAPES} == {10}
    assert tasks != list(SHAPES) * 10
    assert max(balanced_tasks(np.random.default_rng(0), 8).count(name) for name in SHAPES) == 2
    with pytest.raises(DataError, match="-1 images"):
        balanced_tasks(np.random.default_rng(0), -1)
