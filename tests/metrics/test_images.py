"""Scores of images against sums made by hand."""

import math

import numpy as np
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.images import agreement, correlation, score_image, texture_of


def test_every_score_of_a_small_image_by_hand():
    label = np.array([[1, 2], [3, 6]], np.uint16)
    pred = np.array([[2, 2], [3, 2]], np.uint16)
    scores = score_image(pred, label)
    assert scores.absolute_error == (1 + 0 + 0 + 4) / 4
    assert scores.label_median == 2.5
    assert scores.medmae == pytest.approx(1.25 / 2.5)
    assert scores.psnr == pytest.approx(10 * math.log10(5**2 / (17 / 4)))  # range 5, errors 1, 4
    x, y = [-0.25, -0.25, 0.75, -0.25], [-2, -1, 0, 3]  # about the means 2.25 and 3
    by_hand = sum(a * b for a, b in zip(x, y, strict=True)) / math.sqrt(
        sum(a * a for a in x) * sum(b * b for b in y)
    )
    assert scores.pearson == pytest.approx(by_hand)
    assert (scores.label_mean, scores.pred_mean) == (3, 2.25)
    assert math.isnan(scores.ssim)  # smaller than its window
    # steps of the label: down 2, 4, across 1, 3; of the prediction: down 1, 0, across 0, 1
    assert scores.sharpness == pytest.approx((0.5 + 0.5) / (3 + 2))


def test_the_structural_similarity_of_one_window_by_hand():
    y = np.arange(49.0).reshape(7, 7)
    x = y[::-1] * 0.5
    c1, c2 = (0.01 * 48) ** 2, (0.03 * 48) ** 2
    of_both = np.cov(x.ravel(), y.ravel())  # unbiased, as the reference has it
    luminance = (2 * x.mean() * y.mean() + c1) / (x.mean() ** 2 + y.mean() ** 2 + c1)
    contrast = (2 * of_both[0, 1] + c2) / (of_both[0, 0] + of_both[1, 1] + c2)
    assert score_image(x, y).ssim == pytest.approx(luminance * contrast)


def test_what_does_not_exist_is_nan():
    label = np.zeros((8, 8), np.uint16)
    label[0, 0] = 9
    assert math.isnan(score_image(label + 1, label).medmae)  # a median of 0
    same = score_image(label, label)
    assert math.isnan(same.psnr)
    assert same.ssim == pytest.approx(1)
    assert same.pearson == pytest.approx(1)
    assert same.sharpness == 1
    assert score_image(np.full((8, 8), 3), label).sharpness == 0
    even = score_image(label, np.full((8, 8), 3))
    assert all(math.isnan(one) for one in (even.psnr, even.ssim, even.pearson, even.sharpness))
    assert even.medmae == pytest.approx((63 * 3 + 6) / 64 / 3)
    assert math.isnan(score_image(np.full((8, 8), 3), label).pearson)
    with pytest.raises(DataError, match=r"\(8, 8\) and target \(8, 7\) differ"):
        score_image(label, label[:, 1:])


def test_texture_of_objects_at_two_scales_by_hand():
    objects = np.zeros((6, 12), int)
    objects[1:5, 1:5] = 1
    objects[2, 8] = 2  # has no pair
    image = np.zeros((6, 12))
    image[:, 1:5:2] = 310  # columns 1 and 3 bright, 2 and 4 dark: a step is 31 greys
    found = texture_of(objects, image, (0, 310), (1, 3))
    # along rows 12 pairs of neighbours differ, along columns 12 do not, on diagonals 18 differ
    assert found[0, 0] == pytest.approx(31**2 * 30 / 42)
    # 3 apart: 4 pairs along rows differ, 4 along columns do not, the diagonals are 2 apart: 8 alike
    assert found[0, 1] == pytest.approx(31**2 * 4 / 16)
    assert np.isnan(found[1]).all()
    assert texture_of(np.zeros((6, 12), int), image, (0, 1)).shape == (0, 2)
    scaled = texture_of(objects, 7 * image + 100, (100, 7 * 310 + 100), (1,))
    assert scaled[0, 0] == pytest.approx(found[0, 0])


def test_features_of_real_and_generated_objects_agree_as_told():
    one = agreement(
        np.array([1.0, 2, 3, 4]), np.array([2.0, 3, 4, 5]), (np.array([1.0, 2, 4]), np.arange(3.0))
    )
    assert (one.real, one.generated) == (2.5, 3.5)
    assert one.relative_error == pytest.approx(0.4)
    assert one.ks == pytest.approx(0.25)
    assert one.correlation == pytest.approx(9 / math.sqrt(84))  # 3 / sqrt(14 / 3 * 2)
    none = agreement(np.array([np.nan]), np.array([2.0]), (np.arange(2.0), np.arange(2.0)))
    assert all(math.isnan(v) for v in (none.real, none.relative_error, none.ks, none.correlation))


def test_correlation_leaves_out_what_is_missing():
    x = np.array([1.0, np.nan, 2, 3, 4])
    assert correlation(x, -2 * x) == pytest.approx(-1)
    assert math.isnan(correlation(x, np.ones(5)))
    assert math.isnan(correlation(np.arange(2.0), np.arange(2.0)))
