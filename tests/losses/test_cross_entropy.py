import math

import pytest
import torch
from monai.data import MetaTensor

from metaseg_monai.errors import DataError
from metaseg_monai.losses import PixelCrossEntropy

PRED = torch.zeros(2, 3, 4, 5)


def test_by_hand():
    pred = torch.tensor([[[[0.0, 2.0]], [[0.0, 1.0]]]])  # two pixels, two classes
    label = torch.tensor([[[[1, 0]]]])
    expected = (math.log(2) + math.log(1 + math.exp(-1))) / 2
    assert PixelCrossEntropy()(pred, label).item() == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6)])
def test_any_label_type_in_2d_and_3d(dtype, shape):
    pred = torch.randn(2, 3, *shape, requires_grad=True)
    label = torch.randint(0, 3, (2, 1, *shape))
    loss = PixelCrossEntropy()(pred, label.to(dtype))
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(pred, label[:, 0]))
    loss.backward()
    assert pred.grad.abs().sum() > 0


def test_half_logits_are_taken_in_float32():
    pred = torch.randn(2, 3, 64, 64).bfloat16()
    label = torch.randint(0, 3, (2, 1, 64, 64))
    loss = PixelCrossEntropy()(pred, label)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, PixelCrossEntropy()(pred.float(), label))


def test_meta_tensors_give_a_plain_loss():
    label = torch.ones(2, 1, 4, 5)
    loss = PixelCrossEntropy()(MetaTensor(PRED), MetaTensor(label))
    assert type(loss) is torch.Tensor
    assert loss.item() == pytest.approx(math.log(3))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_values_that_are_no_classes_are_listed(dtype):
    label = torch.zeros(2, 1, 4, 5, dtype=dtype)
    label[0, 0, 0, 0], label[1, 0, 1, 1], label[1, 0, 2, 2] = 255, -1, 3
    with pytest.raises(DataError, match="holds -1, 3, 255, but the classes are 0 to 2"):
        PixelCrossEntropy()(PRED, label)


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf")])
def test_fractions_and_non_numbers_are_refused(value):
    label = torch.zeros(2, 1, 4, 5)
    label[0, 0, 3, 3] = value
    with pytest.raises(DataError, match=f"holds {value:g}, but"):
        PixelCrossEntropy()(PRED, label)


def test_a_long_list_is_cut():
    label = torch.arange(40.0).view(2, 1, 4, 5)
    with pytest.raises(DataError, match="holds 3, 4, 5, 6, 7, 8, 9, 10 and 29 more"):
        PixelCrossEntropy()(PRED, label)


@pytest.mark.parametrize("shape", [(2, 4, 5), (1, 1, 4, 5), (2, 1, 4, 4), (2, 3, 4, 5)])
def test_shapes_that_do_not_fit_are_refused(shape):
    with pytest.raises(ValueError, match=r"expected a label of shape \(2, 1, 4, 5\)"):
        PixelCrossEntropy()(PRED, torch.zeros(shape))


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="K >= 2"):
        PixelCrossEntropy()(PRED[:, :1], torch.zeros(2, 1, 4, 5))
