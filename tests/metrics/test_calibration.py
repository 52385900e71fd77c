import math

import pandas as pd
import pytest
import torch

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.calibration import (
    bin_probabilities,
    calibration_errors,
    expected_calibration_error,
    foreground_calibration_error,
    reliability,
)


def logits_of(*p):
    """Logits (1, 2, N) of a foreground probability for each pixel."""
    p = torch.tensor(p, dtype=torch.float64)
    return torch.stack([(1 - p).log(), p.log()])[None]


def bins_of(*rows):
    """A table of (domain, bin, pixels, confidence, positives)."""
    return pd.DataFrame(rows, columns=["domain", "bin", "pixels", "confidence", "positives"])


def test_bins_of_one_image_by_hand():
    cells = bin_probabilities(
        logits_of(0.0, 0.1, 0.2, 0.3, 0.6, 0.9, 1.0), torch.tensor([[0, 1, 0, 1, 0, 1, 1]]), bins=4
    )
    expected = torch.tensor([[3, 0.3, 1, 0.1], [1, 0.3, 1, 0.3], [1, 0.6, 0, 0], [2, 1.9, 2, 1.9]])
    torch.testing.assert_close(cells[0, 0], expected.double())


def test_a_probability_on_an_edge_is_in_the_upper_bin():
    cells = bin_probabilities(logits_of(0.5, 0.5), torch.tensor([[1, 0]]), bins=2)
    torch.testing.assert_close(cells[0, 0], torch.tensor([[0, 0, 0, 0], [2, 1, 1, 0.5]]).double())


def test_images_and_classes_are_kept_apart():
    logits = torch.randn(3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    label = torch.arange(3 * 30).view(3, 5, 6) % 4
    cells = bin_probabilities(logits, label, bins=5)
    p = logits.softmax(1)
    for image in range(3):
        for number in (1, 2, 3):
            of_class, truth = p[image, number], label[image] == number
            for place in range(5):
                inside = (of_class >= place / 5) & (of_class < (place + 1) / 5)
                by_loop = [inside.sum(), of_class[inside].double().sum(), (inside & truth).sum()]
                by_loop.append(of_class[inside & truth].double().sum())
                assert cells[image, number - 1, place].tolist() == pytest.approx(
                    [float(value) for value in by_loop]
                )


def test_half_precision_is_binned_after_a_float32_softmax():
    logits = logits_of(0.05, 0.35, 0.95).bfloat16()
    label = torch.tensor([[0, 1, 1]])
    torch.testing.assert_close(
        bin_probabilities(logits, label), bin_probabilities(logits.float(), label), rtol=0, atol=0
    )


def test_logits_that_do_not_fit_the_target_are_refused():
    with pytest.raises(DataError, match="do not fit"):
        bin_probabilities(torch.zeros(1, 2, 4), torch.zeros(1, 5))


def test_reliability_adds_cases_before_it_divides():
    bins = reliability(bins_of(("x", 9, 10, 9.0, 9), ("x", 9, 30, 29.0, 15), ("y", 0, 60, 1.5, 3)))
    assert bins.to_numpy().tolist() == [
        [0, 60, pytest.approx(0.025), pytest.approx(0.05)],
        [9, 40, pytest.approx(0.95), pytest.approx(0.6)],
    ]


def test_errors_by_hand():
    table = bins_of(("x", 0, 60, 1.5, 3), ("x", 5, 10, 5.5, 5), ("x", 9, 30, 28.5, 18))
    # |0.05 - 0.025| * 60, |0.5 - 0.55| * 10, |0.6 - 0.95| * 30
    assert expected_calibration_error(table) == pytest.approx((1.5 + 0.5 + 10.5) / 100)
    assert foreground_calibration_error(table) == pytest.approx((0.5 + 10.5) / 40)


def test_sure_background_makes_the_error_small_but_not_that_of_the_foreground():
    few = bins_of(("x", 0, 10, 0, 0), ("x", 9, 10, 9.5, 5))
    many = bins_of(("x", 0, 990, 0, 0), ("x", 9, 10, 9.5, 5))
    assert expected_calibration_error(few) == pytest.approx(0.225)
    assert expected_calibration_error(many) == pytest.approx(0.0045)
    assert foreground_calibration_error(few) == pytest.approx(0.45)
    assert foreground_calibration_error(many) == pytest.approx(0.45)


def test_right_probabilities_have_no_error_and_none_beyond_the_first_bin_is_unknown():
    table = bins_of(("x", 0, 20, 1.0, 1), ("y", 0, 10, 0.5, 1))
    assert expected_calibration_error(table[:1]) == 0
    assert math.isnan(foreground_calibration_error(table))


def test_errors_of_each_domain_stand_in_table_order():
    table = bins_of(("y", 9, 10, 9.5, 5), ("x", 0, 90, 0.9, 0), ("x", 9, 10, 9.5, 9))
    errors = calibration_errors(table)
    assert list(errors.index) == ["y", "x"]
    assert errors.loc["y"].tolist() == pytest.approx([10, 0.45, 0.45])
    assert errors.loc["x"].tolist() == pytest.approx([100, (0.9 + 0.5) / 100, 0.05])
