import itertools
import time

import numpy as np
import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metrics.objects import (
    BAND,
    THRESHOLDS,
    match_objects,
    match_pairs,
    object_f1,
    overlaps,
    without_small,
)


def row(text):
    return np.array([[int(pixel) for pixel in text]])


def test_identical_objects_all_match_whatever_their_numbers():
    match = match_objects(row("1102220333"), row("3301110222"))
    assert (match.true, match.pred, match.splits, match.merges) == (3, 3, 0, 0)
    assert match.found == (3,) * 10
    assert match.matched_iou == 1


def test_the_threshold_itself_counts():
    # 9 of 10 pixels, and 1 of 2
    match = match_objects(row("1111111111022"), row("1111111110020"))
    assert match.found == (2, 1, 1, 1, 1, 1, 1, 1, 1, 0)
    assert match.matched_iou == pytest.approx((0.9 + 0.5) / 2)


def test_each_object_is_matched_once_even_between_exact_halves():
    halves = match_objects(row("1111"), row("1122"))
    assert (halves.found[0], halves.splits, halves.merges) == (1, 1, 0)
    joined = match_objects(row("1122"), row("1111"))
    assert (joined.found[0], joined.splits, joined.merges) == (1, 0, 1)


def test_splits_and_merges_need_more_than_half_of_the_part():
    # predicted 2 lies with one of two pixels in the true object: not more than half
    assert match_objects(row("11110"), row("11122")).splits == 0
    assert match_objects(row("111110"), row("111222")).splits == 1
    # two true objects and a third that is only half inside
    merged = match_objects(row("112233"), row("111110"))
    assert (merged.merges, merged.splits) == (1, 0)
    assert match_objects(row("1122"), row("0110")).merges == 0


def test_a_wrong_place_is_false_and_missed():
    match = match_objects(row("1100000"), row("0000011"))
    assert (match.found[0], match.true, match.pred) == (0, 1, 1)
    assert np.isnan(match.matched_iou)


def test_true_objects_below_the_smallest_size_are_ignored_and_what_stands_for_them():
    # objects of 4, 2 and 1 pixels, all predicted as they are
    perfect = match_objects(row("1111022030"), row("1111022030"), smallest_px=4)
    assert perfect[:4] == (1, 1, (1,) * 10, 1)
    assert perfect.ignored == 2
    # the same, as a prediction that leaves small objects out makes them
    left_out = match_objects(row("1111022030"), row("1111000000"), smallest_px=4)
    assert left_out == perfect
    assert match_objects(row("1111022030"), row("1111000000")).found[0] == 1
    assert match_objects(row("1111022030"), row("1111000000")).true == 3
    # an IoU of a half, where no more than half of the predicted pixels lies in the small one
    half = match_objects(row("1111000220000"), row("1111000222200"), smallest_px=4)
    assert (half.true, half.pred, half.found[0]) == (1, 1, 1)
    # most of it lies in two small ones together, at an IoU below a half with either
    across = match_objects(row("1111022330"), row("1111022222"), smallest_px=4)
    assert (across.true, across.pred, across.merges, across.ignored) == (1, 1, 0, 2)
    # less than half of it lies in a small one: it is false
    false = match_objects(row("1111220000"), row("1111022200"), smallest_px=4)
    assert (false.true, false.pred, false.found[0]) == (1, 2, 1)
    # one that finds a larger object stays, though a small one lies in it
    joined = match_objects(row("1111220"), row("1111110"), smallest_px=4)
    assert (joined.true, joined.pred, joined.found[0], joined.merges) == (1, 1, 1, 0)


def test_small_objects_between_others_leave_the_numbers_of_the_others_right():
    true = row("1022203333044440")
    match = match_objects(true, row("2011103333044440"), smallest_px=3)
    assert (match.true, match.pred, match.found, match.ignored) == (3, 3, (3,) * 10, 1)
    pairs = without_small(overlaps(true, true), 4)
    assert pairs.true_px.tolist() == pairs.pred_px.tolist() == [4, 4]
    assert pairs.true.tolist() == pairs.pred.tolist() == [0, 1]
    nothing = match_objects(true, true, smallest_px=9)
    assert (nothing.true, nothing.pred, nothing.ignored) == (0, 0, 4)
    assert np.isnan(nothing.matched_iou)


def test_one_or_both_empty():
    empty, full = row("0000"), row("0110")
    for true, pred in ((empty, full), (full, empty), (empty, empty)):
        match = match_objects(true, pred)
        assert (match.true, match.pred) == (int(true.max()), int(pred.max()))
        assert match.found == (0,) * 10
    assert object_f1(0, 1, 0) == object_f1(0, 0, 1) == 0
    assert np.isnan(object_f1(0, 0, 0))
    assert object_f1(2, 3, 4) == 2 / (2 + 0.5 * 2 + 0.5 * 1)


def random_objects(rng, shape=(3, 14), count=6):
    labels = np.zeros(shape, int)
    for number in range(1, count + 1):
        y, x = rng.integers(0, shape[0]), rng.integers(0, shape[1] - 2)
        labels[y : y + 2, x : x + rng.integers(2, 6)] = number
    return np.unique(labels, return_inverse=True)[1].reshape(shape)


@pytest.mark.parametrize("seed", range(30))
def test_low_thresholds_give_the_best_of_all_matchings(seed):
    rng = np.random.default_rng(seed)
    true, pred = random_objects(rng), random_objects(rng)
    pairs = overlaps(true, pred)
    iou = np.zeros((len(pairs.true_px), len(pairs.pred_px)))
    for t, p in itertools.product(range(len(iou)), range(iou.shape[1])):
        one, other = true == t + 1, pred == p + 1
        iou[t, p] = (one & other).sum() / (one | other).sum()
    np.testing.assert_allclose(iou[pairs.true, pairs.pred], pairs.iou)
    assert np.count_nonzero(iou) == len(pairs.iou)
    if len(iou) > iou.shape[1]:
        iou = iou.T
    for threshold in (0.05, 0.2, 0.4, 0.5):
        best = max(
            (sum(good), sum(value for value in values if value >= threshold))
            for order in itertools.permutations(range(iou.shape[1]), len(iou))
            for values in [[iou[place, at] for place, at in enumerate(order)]]
            for good in [[value >= threshold for value in values]]
        )
        chosen = match_pairs(pairs, threshold)
        assert len(set(pairs.true[chosen])) == len(set(pairs.pred[chosen])) == len(chosen)
        assert (len(chosen), pairs.iou[chosen].sum()) == pytest.approx(best)


def test_more_pairs_win_over_a_better_one():
    # the middle pair has the highest overlap, but leaves two objects alone
    pairs = overlaps(row("1111122222"), row("1122222222"))
    assert pairs.iou.tolist() == pytest.approx([2 / 5, 3 / 10, 5 / 8])
    assert len(match_pairs(pairs, 0.3)) == 2
    pairs = overlaps(row("1111222200"), row("0111111333"))
    assert sorted(match_pairs(pairs, 0.1).tolist()) == [0, 2]


def test_objects_across_bands_of_rows_are_whole():
    true = np.zeros((2 * BAND + 5, 4), np.int32)
    true[BAND - 3 : BAND + 3] = 1
    true[-2:, 1] = 2
    pairs = overlaps(true, np.roll(true, 1, axis=0))
    assert pairs.true_px.tolist() == [24, 2]
    assert pairs.shared_px.tolist() == [20, 1]


def test_two_thousand_objects_take_no_dense_table():
    grid = np.arange(1, 2026).reshape(45, 45).repeat(24, 0).repeat(24, 1).astype(np.int32)
    started = time.perf_counter()
    match = match_objects(grid, np.roll(grid, 2, axis=1))
    assert time.perf_counter() - started < 2
    assert (match.true, match.found[0]) == (2025, 2025)


def test_shapes_and_thresholds_are_checked():
    with pytest.raises(DataError, match=r"shape \(1, 4\), predicted ones of \(1, 3\)"):
        match_objects(row("0110"), row("011"))
    pairs = overlaps(row("11"), row("11"))
    for threshold in (0, 1.1):
        with pytest.raises(ConfigError, match="expected an IoU above 0"):
            match_pairs(pairs, threshold)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_counts_are_those_of_stardist(seed):
    matching = pytest.importorskip("stardist.matching")
    rng = np.random.default_rng(seed)
    true, pred = random_objects(rng, (60, 60), 40), random_objects(rng, (60, 60), 40)
    found = [matching.matching(true, pred, thresh=threshold).tp for threshold in THRESHOLDS]
    assert match_objects(true, pred).found == tuple(found)
