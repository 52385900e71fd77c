import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metrics.objects import (
    BAND,
    ObjectSettings,
    as_object_settings,
    class_map,
    find_objects,
    split_objects,
)

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


def test_the_probability_cuts_what_the_distance_does_not():
    mask = np.zeros((20, 40), bool)
    mask[5:15, 4:36] = True
    logits = logits_of(mask) * 40  # so sure that every probability is 1
    columns = torch.arange(40)
    for centre in (9, 24):
        logits[1, 5:15] += 8 * torch.exp(-(((columns - centre) / 5.0) ** 2))
    settings = ObjectSettings(method="watershed", landscape="probability", min_distance_px=6)
    objects = find_objects(logits, settings)
    assert objects.classes.tolist() == [1, 1]
    assert objects.labels[10, 9] != objects.labels[10, 24]
    np.testing.assert_array_equal(objects.labels > 0, mask)
    edge = np.flatnonzero(np.diff(objects.labels[10, 5:35])) + 5
    assert edge.tolist() in ([16], [15])  # the lowest column between both


def test_classes_have_objects_of_their_own():
    classes = picture("1102", "0002", "3300", "0030")
    objects = find_objects(logits_of(classes, 4), ObjectSettings())
    np.testing.assert_array_equal(objects.labels, classes)
    assert objects.classes.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(objects.of_class(3), (classes == 3).astype(int))
    np.testing.assert_array_equal(objects.labels, classes)  # of_class left it alone
    touching = find_objects(logits_of(picture("1122"), 3), ObjectSettings())
    assert touching.classes.tolist() == [1, 2]


def test_large_images_are_taken_in_bands():
    classes = np.zeros((2 * BAND + 7, 5), int)
    classes[BAND - 2 : BAND + 2, 1:3] = 1
    classes[-3:, 2] = 2
    classes[0, 0] = 1
    logits = logits_of(classes, 3).to(torch.bfloat16)
    np.testing.assert_array_equal(class_map(logits), classes)
    objects = find_objects(logits, ObjectSettings(smallest_px=2))
    assert objects.classes.tolist() == [1, 2]
    assert (objects.labels == 1).sum() == 8
    assert (objects.labels == 2).sum() == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "wateshed"}, "method is 'wateshed'; expected one of components, watershed"),
        ({"landscape": "height"}, "landscape is 'height'"),
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
