"""Synthetic shapes: how each is drawn, and the files."""

import numpy as np
import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.images import read_image
from metaseg_monai.metadata import Categorical, MetadataSchema
from metaseg_monai.simulate.shapes import (
    SHAPES,
    Placement,
    balanced_tasks,
    draw_image,
    draw_placements,
    generate_synthetic_shapes,
    shape_target,
)
from metaseg_monai.tables import check_table, read_table

FEW = {"train": 12, "val": 6, "test": 6, "size": 32}


def test_table_and_files_pass_the_deep_check(tmp_path):
    when = {"provenance": "acquisition", "availability": "acquisition"}
    schema = MetadataSchema([Categorical(name="task", values=tuple(SHAPES), **when)])
    table = generate_synthetic_shapes(tmp_path / "x", **FEW)
    assert table == tmp_path / "x" / "table.csv"
    problems, warnings, summary, _ = check_table(table, schema)
    assert problems == []
    assert warnings == []
    assert "32x32 (24)" in summary
    items = read_table(table, schema).items("train")
    assert len(items) == 12
    assert {sum(item["metadata"]["task"] == name for item in items) for name in SHAPES} == {2}
    image, label = read_image(items[0]["image"]).array, read_image(items[0]["label"]).array
    assert image.dtype == label.dtype == np.uint8
    assert np.unique(image).tolist() == [0, 255]
    assert np.unique(label).tolist() == [0, 1]


def test_same_seed_same_bytes_other_seed_others(tmp_path, contents):
    for name, seed in (("a", 4), ("b", 4), ("c", 5)):
        generate_synthetic_shapes(tmp_path / name, **FEW, seed=seed)
    a, b, c = (contents(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    images = [name for name in a if name.startswith("images/")]
    assert not any(a[name] == c[name] for name in images)
    assert len({a[name] for name in images}) == len(images) == 24


def test_more_images_keep_the_first(tmp_path, contents):
    generate_synthetic_shapes(tmp_path / "a", train=6, val=0, test=0, size=32)
    generate_synthetic_shapes(tmp_path / "b", train=9, val=0, test=0, size=32)
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    images = [name for name in a if name.startswith("images/")]
    assert all(a[name] == b[name] for name in images)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"size": 31}, "size=31.*at least 32"),
        ({"train": -1}, "train=-1"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"overlap": 2}, "overlap=2: expected a number from 0 to 1"),
        ({"overlap": True}, "overlap=True"),
        ({"train": 0, "val": 0, "test": 0}, "all 0"),
    ],
)
def test_wrong_settings_write_nothing(tmp_path, setting, message):
    with pytest.raises(ConfigError, match=message):
        generate_synthetic_shapes(tmp_path / "x", **{**FEW, **setting})
    assert list(tmp_path.iterdir()) == []


def drawn(name, size, side=12, centre=(6, 6)):
    return shape_target(name, Placement(*centre, size), side)


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
    not_corner = abs(rows) + abs(columns) < 4.05
    np.testing.assert_array_equal(drawn("disc", 3.0), (radius < 3) & not_corner)
    np.testing.assert_array_equal(drawn("ring", 3.0), (radius < 3) & (radius >= 2.1))
    assert drawn("disc", 1.9).sum() == 13  # the smallest is no square
    assert drawn("disc", 2.9).sum() == 21


def test_cross_is_two_bars_of_two_pixels():
    cross = drawn("cross", 6.0)
    assert cross.sum() == 2 * 6 * 2 - 4
    assert cross[5:7, 3:9].all()
    assert cross[3:9, 5:7].all()
    assert drawn("cross", 2.4).sum() == 2 * 4 * 2 - 4  # the smallest is no square


@pytest.mark.parametrize("centre", [(6, 6), (5, 6)])
def test_mesh_square_shows_odd_pixels_and_asks_for_the_box(centre):
    placement = Placement(*centre, 5.0)
    target = shape_target("mesh_square", placement, 12)
    seen = draw_image({"mesh_square": placement}, 12)
    row, column = centre
    assert target.sum() == 25
    assert target[row - 2 : row + 3, column - 2 : column + 3].all()
    offsets = {(r - row, c - column) for r, c in zip(*np.nonzero(seen), strict=True)}
    assert offsets == {(r, c) for r in (-2, 0, 2) for c in (-2, 0, 2)}


def test_the_extent_of_a_mesh_square_can_be_seen():
    for size in np.linspace(2, 8, 25):
        placement = Placement(6, 6, size)
        target = np.argwhere(shape_target("mesh_square", placement, 12))
        seen = np.argwhere(draw_image({"mesh_square": placement}, 12))
        np.testing.assert_array_equal(target.min(0), seen.min(0))
        np.testing.assert_array_equal(target.max(0), seen.max(0))


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


def test_overlap_is_limited_as_asked():
    def largest_share(seed, overlap):
        placements = draw_placements(np.random.default_rng(seed), 64, overlap)
        masks = [shape_target(name, placements[name], 64) for name in SHAPES]
        pairs = [(a, b) for i, a in enumerate(masks) for b in masks[:i]]
        return max((a & b).sum() / min(a.sum(), b.sum()) for a, b in pairs)

    assert max(largest_share(seed, 0.1) for seed in range(200)) <= 0.1
    assert max(largest_share(seed, 1.0) for seed in range(200)) > 0.9


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
