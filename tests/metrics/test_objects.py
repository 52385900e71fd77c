"""From class scores to objects, from objects to matches with true ones, and their measures."""

import itertools
import math
import time

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from skimage.feature import peak_local_max
from skimage.measure import regionprops_table
from skimage.segmentation import watershed

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metrics.objects import (
    BAND,
    ObjectSettings,
    as_object_settings,
    match_objects,
    match_pairs,
    measure_objects,
    object_f1,
    overlaps,
    split_objects,
    without_small,
)
from metaseg_monai.transforms import postprocessing
from metaseg_monai.transforms.postprocessing import class_map, find_objects

WATERSHED = ObjectSettings(method="watershed", min_distance_px=4)


def picture(*rows):
    return np.array([[int(pixel) for pixel in row] for row in rows])


def discs(*centres, radius=6, shape=(24, 40)):
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return np.any([np.hypot(rows - y, columns - x) <= radius for y, x in centres], axis=0)


def logits_of(classes, count=2):
    one_hot = torch.nn.functional.one_hot(torch.as_tensor(classes).long(), count)
    return one_hot.movedim(-1, 0).float()


def test_pixels_that_touch_by_edge_or_corner_are_one_object():
    labels, count = split_objects(picture("1100", "0010", "1000") > 0, ObjectSettings())
    assert count == 2
    np.testing.assert_array_equal(labels, picture("1100", "0010", "2000"))
    assert labels.dtype == np.int32


def test_an_empty_mask_and_a_full_one():
    for settings in (ObjectSettings(), WATERSHED):
        assert split_objects(np.zeros((9, 9), bool), settings)[1] == 0
        labels, count = split_objects(np.ones((9, 9), bool), settings)
        assert count == 1
        assert (labels == 1).all()


def test_small_objects_are_left_out_and_the_others_numbered_without_gaps():
    mask = picture("1011", "0000", "1110") > 0
    for smallest, expected in (
        (1, picture("1022", "0000", "3330")),
        (2, picture("0011", "0000", "2220")),
        (3, picture("0000", "0000", "1110")),
        (4, picture("0000", "0000", "0000")),
    ):
        labels, count = split_objects(mask, ObjectSettings(smallest_px=smallest))
        np.testing.assert_array_equal(labels, expected)
        assert count == expected.max()


def test_the_watershed_cuts_touching_discs_where_they_meet():
    mask = discs((12, 10), (12, 20))
    assert split_objects(mask, ObjectSettings())[1] == 1
    labels, count = split_objects(mask, WATERSHED)
    assert count == 2
    np.testing.assert_array_equal(labels > 0, mask)
    left, right = labels[12, 10], labels[12, 20]
    assert (labels[:, :15][mask[:, :15]] == left).all()
    assert (labels[:, 16:][mask[:, 16:]] == right).all()


def test_peaks_nearer_than_the_distance_are_not_cut():
    mask = discs((12, 10), (12, 20))
    far = ObjectSettings(method="watershed", min_distance_px=15)
    assert split_objects(mask, far)[1] == 1


def test_cutting_in_boxes_is_cutting_the_whole_image():
    rng = np.random.default_rng(0)
    mask = discs(*rng.integers(0, 120, (60, 2)), radius=7, shape=(120, 120))
    labels, count = split_objects(mask, WATERSHED)
    distance = ndimage.distance_transform_edt(mask)
    parts, components = ndimage.label(mask, np.ones((3, 3)))
    found = 0
    for part in range(1, components + 1):
        own = parts == part
        peaks = peak_local_max(distance * own, min_distance=4, exclude_border=False)
        markers = np.zeros(mask.shape, int)
        markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        whole = watershed(-distance * own, markers, np.ones((3, 3)), mask=own)
        pairs = {*zip(whole[own].tolist(), labels[own].tolist(), strict=True)}
        assert len(pairs) == whole.max()  # each piece is one object, and the other way round
        assert len({piece for piece, _ in pairs}) == whole.max()
        found += whole.max()
    assert count == found > components


def test_no_pixel_is_lost_across_a_corner():
    mask = discs((12, 10), (12, 21), radius=5)
    mask[5, 5] = mask[6, 6] = mask[7, 7] = True
    labels, _ = split_objects(mask, WATERSHED)
    np.testing.assert_array_equal(labels > 0, mask)


def test_classes_have_objects_of_their_own():
    classes = picture("1102", "0002", "3300", "0030")
    found = find_objects(logits_of(classes, 4), ObjectSettings())
    np.testing.assert_array_equal(found.labels, classes)
    assert found.classes.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(found.of_class(3), (classes == 3).astype(int))
    np.testing.assert_array_equal(found.labels, classes)  # of_class left it alone
    touching = find_objects(logits_of(picture("1122"), 3), ObjectSettings())
    assert touching.classes.tolist() == [1, 2]


def test_classes_found_in_blocks_are_those_of_argmax(monkeypatch):
    torch.manual_seed(0)
    for shape in ((3, 11, 7), (3, 5, 4, 3)):
        logits = torch.randn(shape).round()  # with ties, where the first class wins
        for pixels in (1, 7, 15, 70, 1000):
            monkeypatch.setattr(postprocessing, "PIXELS_AT_ONCE", pixels)
            assert (class_map(logits) == logits.argmax(0).numpy()).all()


def test_large_images_are_taken_in_bands():
    classes = np.zeros((2 * BAND + 7, 5), int)
    classes[BAND - 2 : BAND + 2, 1:3] = 1
    classes[-3:, 2] = 2
    classes[0, 0] = 1
    logits = logits_of(classes, 3).to(torch.bfloat16)
    np.testing.assert_array_equal(class_map(logits), classes)
    found = find_objects(logits, ObjectSettings(smallest_px=2))
    assert found.classes.tolist() == [1, 2]
    assert (found.labels == 1).sum() == 8
    assert (found.labels == 2).sum() == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "wateshed"}, "method is 'wateshed'; expected one of components, watershed"),
        ({"smallest_px": 0}, "smallest_px is 0"),
        ({"min_distance_px": 2.5}, "min_distance_px is 2.5"),
        ({"smallest_px": True}, "smallest_px is True"),
        ({"smallest": 3}, "unknown key 'smallest'; expected method, smallest_px"),
        ({"smallest": 3, 3: 3}, "unknown key '3', 'smallest'"),
        (["watershed"], "expected settings of method"),
        (30, r"objects is 30; .*, as \{.*\}, or null"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        as_object_settings(settings)


def test_volumes_and_single_channels_are_refused():
    for shape in ((2, 3, 4, 5), (1, 4, 5)):
        with pytest.raises(DataError, match="class scores of shape"):
            find_objects(torch.zeros(shape), ObjectSettings())


def row(text):
    return np.array([[int(pixel) for pixel in text]])


@pytest.mark.parametrize(
    ("true", "pred", "smallest_px", "counted"),  # true, pred, found at 0.5, splits, merges, ignored
    [
        ("1102220333", "3301110222", 1, (3, 3, 3, 0, 0, 0)),  # whatever their numbers
        ("1100000", "0000011", 1, (1, 1, 0, 0, 0, 0)),  # a wrong place is false and missed
        ("1111", "1122", 1, (1, 2, 1, 1, 0, 0)),  # of exact halves one is matched
        ("1122", "1111", 1, (2, 1, 1, 0, 1, 0)),
        ("11110", "11122", 1, (1, 2, 1, 0, 0, 0)),  # a half of predicted 2 lies inside: no split
        ("111110", "111222", 1, (1, 2, 1, 1, 0, 0)),  # and here more than half
        ("112233", "111110", 1, (3, 1, 0, 0, 1, 0)),  # two true ones, and half of a third
        ("1122", "0110", 1, (2, 1, 0, 0, 0, 0)),
        ("0000", "0110", 1, (0, 1, 0, 0, 0, 0)),
        ("0110", "0000", 1, (1, 0, 0, 0, 0, 0)),
        ("0000", "0000", 1, (0, 0, 0, 0, 0, 0)),
        # small true objects are ignored, predicted or left out, and what stands for them
        ("1111022030", "1111000000", 1, (3, 1, 1, 0, 0, 0)),
        ("1111022030", "1111022030", 4, (1, 1, 1, 0, 0, 2)),
        ("1111022030", "1111000000", 4, (1, 1, 1, 0, 0, 2)),
        ("1111000220000", "1111000222200", 4, (1, 1, 1, 0, 0, 1)),  # by an IoU of a half
        ("1111022330", "1111022222", 4, (1, 1, 1, 0, 0, 2)),  # most of it in two small ones
        ("1111220000", "1111022200", 4, (1, 2, 1, 0, 0, 1)),  # less than half in one: false
        ("1111220", "1111110", 4, (1, 1, 1, 0, 0, 1)),  # it finds a larger one, so it stays
        ("1022203333044440", "2011103333044440", 3, (3, 3, 3, 0, 0, 1)),  # between others
        ("1022203333044440", "1022203333044440", 9, (0, 0, 0, 0, 0, 4)),
    ],
)
def test_what_is_found_split_merged_and_ignored(true, pred, smallest_px, counted):
    match = match_objects(row(true), row(pred), smallest_px)
    found = match.found[0]
    assert (match.true, match.pred, found, match.splits, match.merges, match.ignored) == counted
    assert math.isnan(match.matched_iou) == (found == 0)


def test_the_threshold_itself_counts():
    # 9 of 10 pixels, and 1 of 2
    match = match_objects(row("1111111111022"), row("1111111110020"))
    assert match.found == (2, 1, 1, 1, 1, 1, 1, 1, 1, 0)
    assert match.matched_iou == pytest.approx((0.9 + 0.5) / 2)
    left_out = match_objects(row("1111022030"), row("1111000000"), smallest_px=4)
    assert left_out.found == (1,) * 10


def test_small_objects_leave_the_numbers_of_the_others_right():
    true = row("1022203333044440")
    pairs = without_small(overlaps(true, true), 4)
    assert pairs.true_px.tolist() == pairs.pred_px.tolist() == [4, 4]
    assert pairs.true.tolist() == pairs.pred.tolist() == [0, 1]


def test_f1_of_objects():
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
def test_the_pairs_that_match_are_a_best_matching(seed):
    rng = np.random.default_rng(seed)
    true, pred = random_objects(rng), random_objects(rng)
    pairs = overlaps(true, pred)
    iou = np.zeros((len(pairs.true_px), len(pairs.pred_px)))
    for t, p in itertools.product(range(len(iou)), range(iou.shape[1])):
        one, other = true == t + 1, pred == p + 1
        iou[t, p] = (one & other).sum() / (one | other).sum()
    np.testing.assert_allclose(iou[pairs.true, pairs.pred], pairs.iou)
    assert np.count_nonzero(iou) == len(pairs.iou)
    for threshold in (0.5, 0.7):
        gain = np.where(iou >= threshold, 100 + iou, 0)  # as many as possible, then the best
        best = linear_sum_assignment(gain, maximize=True)
        chosen = match_pairs(pairs, threshold)
        assert len(set(pairs.true[chosen])) == len(set(pairs.pred[chosen])) == len(chosen)
        assert pairs.iou[chosen].sum() == pytest.approx(sum(gain[best]) % 100)


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


def test_objects_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"shape \(1, 4\), predicted ones of \(1, 3\)"):
        match_objects(row("0110"), row("011"))


MASK = np.zeros((20, 30), np.uint8)
MASK[0:4, 3:8] = 1  # at the border: 20 pixels
MASK[8:14, 10:14] = 1  # 24 pixels
MASK[15:18, 20:28] = 1  # 24 pixels
IMAGE = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100


def objects_of(mask, count=2):
    return find_objects(logits_of(mask, count), ObjectSettings())


def test_every_object_is_measured_as_scikit_image_does_at_once():
    found = objects_of(MASK)
    table = measure_objects(found, IMAGE[None], None)
    names = {
        "label": "object", "centroid-0": "centroid_y_px", "centroid-1": "centroid_x_px",
        "area": "area_px", "equivalent_diameter_area": "diameter_px", "perimeter": "perimeter_px",
        "axis_major_length": "major_axis_px", "axis_minor_length": "minor_axis_px",
        "eccentricity": "eccentricity", "solidity": "solidity", "intensity_mean": "mean_intensity",
        "intensity_min": "min_intensity", "intensity_max": "max_intensity",
    }  # fmt: skip
    known = [name.partition("-")[0] for name in names]
    expected = pd.DataFrame(regionprops_table(found.labels, IMAGE, [*dict.fromkeys(known)]))
    pd.testing.assert_frame_equal(
        table[list(names.values())], expected.rename(columns=names)[list(names.values())],
        check_dtype=False, atol=1e-4,
    )  # fmt: skip
    inside = IMAGE[MASK.astype(bool) & (np.indices(MASK.shape)[0] < 4)]
    assert table.loc[0, "sd_intensity"] == pytest.approx(inside.std(), abs=1e-4)
    assert table["touches_border"].tolist() == [1, 0, 0]
    assert table["class"].tolist() == [1, 1, 1]
    assert table["area_um2"].isna().all()


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("at", ["start", "end"])
def test_all_four_borders_touch(side, at):
    mask = np.zeros((9, 9), np.uint8)
    place = [4, 4]
    place[side] = 0 if at == "start" else 8
    mask[tuple(place)] = 1
    mask[2, 2] = 1
    table = measure_objects(objects_of(mask), mask[None], None)
    borders = dict(zip(table["area_px"].index, table["touches_border"], strict=True))
    assert sorted(borders.values()) == [0, 1]


def test_micrometres_where_the_pixel_size_is_known():
    row = measure_objects(objects_of(MASK), IMAGE[None], 0.5).iloc[1]
    assert (row["centroid_y_px"], row["centroid_y_um"]) == (10.5, 5.25)
    assert (row["area_px"], row["area_um2"]) == (24, 6)
    assert row["diameter_px"] == pytest.approx(2 * math.sqrt(24 / math.pi), abs=1e-4)
    assert row["diameter_um"] == pytest.approx(math.sqrt(24 / math.pi), abs=1e-4)


def test_single_pixels_and_lines_have_shapes_without_warnings():
    mask = np.zeros((9, 9), np.uint8)
    mask[1, 1] = mask[3, 2:6] = 1
    np.fill_diagonal(mask[5:, 5:], 1)
    table = measure_objects(objects_of(mask), mask[None], 1.0)
    assert table["area_px"].tolist() == [1, 4, 4]
    assert table["solidity"].tolist() == [1, 1, 1]


def test_channels_are_numbered_and_empty_images_have_the_same_columns():
    image = np.stack([IMAGE, IMAGE // 2, IMAGE // 4])
    table = measure_objects(objects_of(MASK), image, 0.5)
    assert table["mean_intensity_2"].tolist() == pytest.approx(table["mean_intensity_1"] / 2)
    empty = measure_objects(objects_of(0 * MASK), image, 0.5)
    assert empty.columns.tolist() == table.columns.tolist()
    assert len(empty) == 0
    with pytest.raises(DataError, match=r"shape \(19, 30\), its objects \(20, 30\)"):
        measure_objects(objects_of(MASK), IMAGE[None, 1:], None)
