"""Polygons of objects: holes, neighbours, borders, and tiny objects."""

import numpy as np
import pytest
from skimage.measure import label as components

from metaseg_monai.simulate import polygons
from metaseg_monai.simulate.polygons import polygonise


def disc(shape, centre, radius):
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


def overlap(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_a_tolerance_of_zero_changes_nothing_and_gives_a_copy():
    labels = np.random.default_rng(0).integers(0, 4, (20, 30)).astype(np.int32)
    drawn = polygonise(labels, 0)
    assert np.array_equal(drawn, labels)
    assert drawn is not labels
    assert drawn.dtype == np.int32
    assert not polygonise(np.zeros((5, 7), np.uint8), 2.0).any()


def test_a_tiny_tolerance_draws_every_pixel_again():
    labels = np.random.default_rng(1).integers(0, 4, (25, 31)).astype(np.uint8)
    assert np.array_equal(polygonise(labels, 1e-6), labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64])
def test_type_and_numbers_are_kept_even_far_apart(dtype):
    labels = np.zeros((60, 60), dtype)
    labels[disc(labels.shape, (15, 15), 10)] = 3
    labels[disc(labels.shape, (42, 42), 12)] = 200
    drawn = polygonise(labels, 2.0)
    assert drawn.dtype == dtype
    assert set(np.unique(drawn)) == {0, 3, 200}
    assert overlap(drawn == 200, labels == 200) > 0.9


def test_a_dented_side_is_drawn_straight():
    labels = np.zeros((30, 30), np.uint8)
    labels[5:25, 5:25] = 1
    labels[5:6, 14:16] = 0  # a dent one pixel deep
    labels[9, 25] = 1  # a bump one pixel high
    drawn = polygonise(labels, 1.6)
    assert drawn[5, 14:16].tolist() == [1, 1]
    assert drawn[9, 25] == 0
    assert drawn[8:22, 8:22].all()


def test_a_larger_tolerance_is_a_coarser_mask():
    labels = disc((90, 90), (45, 45), 32).astype(np.uint8)
    scores = [overlap(polygonise(labels, t) > 0, labels > 0) for t in (0.0, 2.0, 3.5, 12.0)]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) == 4


def test_every_vertex_of_the_outline_stays_within_the_tolerance():
    labels = disc((90, 90), (45, 45), 32).astype(np.uint8)
    changed = polygonise(labels, 3.5) != labels
    rows, columns = np.nonzero(changed)
    depth = np.abs(np.hypot(rows - 45, columns - 45) - 32)
    assert changed.any()
    assert depth.max() <= 3.5 + 1


def test_a_hole_stays_a_hole_and_an_island_in_it_an_island():
    labels = np.zeros((100, 100), np.uint8)
    labels[disc(labels.shape, (50, 50), 40)] = 5
    labels[disc(labels.shape, (50, 50), 25)] = 0
    labels[disc(labels.shape, (50, 50), 10)] = 5
    drawn = polygonise(labels, 2.5)
    assert drawn[50, 50] == 5
    assert drawn[50, 68] == 0
    assert drawn[50, 82] == 5
    assert components(drawn).max() == 2
    assert components(drawn == 0, connectivity=1).max() == 2
    assert not np.array_equal(drawn, labels)


def test_a_hole_of_one_pixel_is_kept():
    labels = np.zeros((40, 40), np.uint8)
    labels[5:35, 5:35] = 1
    labels[20, 20] = 0
    drawn = polygonise(labels, 3.5)
    assert drawn[20, 20] == 0
    assert drawn[19, 20] == drawn[20, 19] == 1


def test_touching_objects_keep_their_sides_of_the_seam():
    labels = np.zeros((50, 80), np.uint16)
    labels[disc(labels.shape, (25, 28), 18)] = 2
    labels[disc(labels.shape, (25, 54), 18)] = 1
    drawn = polygonise(labels, 3.5)
    assert not ((labels == 1) & (drawn == 2) & (polygonise(labels * (labels == 1), 3.5) == 1)).any()
    union = (polygonise(labels * (labels == 1), 3.5) + polygonise(labels * (labels == 2), 3.5)) > 0
    assert np.array_equal(drawn > 0, union)
    assert overlap(drawn == 1, labels == 1) > 0.9
    assert overlap(drawn == 2, labels == 2) > 0.9


def test_a_pixel_that_two_claim_goes_to_its_owner_a_gap_to_the_smaller_object():
    random = np.random.default_rng(3)
    labels = np.zeros((40, 120), np.uint8)
    for column in range(5, 115):
        seam = 22 + random.integers(-1, 2)
        labels[5:seam, column] = 1
        labels[seam + random.integers(0, 2) : 36, column] = 2
    claims = [polygonise(np.where(labels == n, labels, 0), 4.0) > 0 for n in (1, 2)]
    contested = claims[0] & claims[1]
    drawn = polygonise(labels, 4.0)
    assert (labels == 1).sum() > (labels == 2).sum()
    assert (contested & (labels == 0)).any()
    assert (contested & (labels == 1)).any()
    assert (contested & (labels == 2)).any()
    assert (drawn[contested & (labels == 0)] == 2).all()
    assert (drawn[contested & (labels == 1)] == 1).all()
    assert (drawn[contested & (labels == 2)] == 2).all()


def test_an_object_at_the_border_is_closed_along_it():
    labels = np.zeros((40, 40), np.uint8)
    labels[disc(labels.shape, (0, 20), 15)] = 1
    drawn = polygonise(labels, 2.0)
    assert drawn[0, 8:33].all()
    assert overlap(drawn > 0, labels > 0) > 0.9
    assert polygonise(np.ones((9, 9), np.uint8), 0.3)[4, 4] == 1


def test_an_image_that_is_one_object_keeps_it():
    drawn = polygonise(np.full((30, 30), 6, np.uint8), 0.6)
    assert np.array_equal(drawn, np.full((30, 30), 6))


@pytest.mark.parametrize("tolerance", [0.5, 2.0, 3.5, 50.0])
def test_no_object_vanishes(tolerance):
    labels = np.zeros((40, 40), np.uint16)
    labels[3, 3] = 1
    labels[10, 5:9] = 2
    labels[20:22, 20:23] = 3
    labels[0, 39] = 300
    labels[30, 5] = labels[31, 6] = labels[32, 7] = 5  # joined at their corners
    drawn = polygonise(labels, tolerance)
    assert set(np.unique(drawn)) == {0, 1, 2, 3, 5, 300}
    assert drawn[3, 3] == 1
    if tolerance > 5:
        assert np.array_equal(drawn, labels)


@pytest.mark.parametrize(
    "outline",
    [
        [[5.0, 5.0], [5.0, 9.0], [5.0, 5.0]],  # a line through pixels
        [[5.4, 5.4], [5.4, 5.6], [5.6, 5.6], [5.4, 5.4]],  # between pixels
        [[0.6, 0.6], [0.6, 3.4], [3.4, 0.6], [0.6, 0.6]],  # beside the object
    ],
    ids=["line", "sliver", "beside"],
)
def test_an_outline_without_a_pixel_of_its_own_is_left_as_it_is(monkeypatch, outline):
    monkeypatch.setattr(polygons, "approximate_polygon", lambda ring, tolerance: np.array(outline))
    labels = np.zeros((12, 12), np.uint8)
    labels[0:12, 11] = labels[11, 0:12] = 3  # an angle, whose box is the image
    assert np.array_equal(polygonise(labels, 2.0), labels)


@pytest.mark.parametrize(
    "outline",
    [[[5.0, 5.0], [5.0, 9.0], [5.0, 5.0]], [[5.4, 5.4], [5.4, 5.6], [5.6, 5.6], [5.4, 5.4]]],
    ids=["line", "sliver"],
)
def test_a_hole_whose_outline_holds_no_pixel_is_left_as_it_is(monkeypatch, outline):
    small = np.array(outline)
    monkeypatch.setattr(
        polygons, "approximate_polygon", lambda ring, _: small if len(ring) < 12 else ring
    )
    labels = np.ones((12, 12), np.uint8)
    labels[5, 5] = 0
    assert np.array_equal(polygonise(labels, 2.0), labels)
