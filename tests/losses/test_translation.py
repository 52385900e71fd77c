"""The losses of the adipocyte report, by hand."""

from math import log

import pytest
import torch
from monai.data import MetaTensor

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.losses import (
    GradientLoss,
    LogSquaredLoss,
    LupiLoss,
    MedianMeanAbsoluteLoss,
    RelativisticAverageLeastSquares,
    ScorePool,
    WeightedSum,
)
from metaseg_monai.networks import NucleiLupiUnet


def image(*rows):
    return torch.tensor([[rows]])


def test_the_log_squared_loss_is_that_of_the_ratios():
    x, y = image([0.5, 0.1], [0.25, 1.0]), image([0.5, 0.2], [1.0, 0.5])
    expected = (0 + log(2) ** 2 + log(4) ** 2 + log(2) ** 2) / 4
    assert float(LogSquaredLoss()(x, y)) == pytest.approx(expected, rel=1e-5)


def test_the_log_squared_loss_of_black_is_finite_and_so_is_its_gradient():
    x = image([0.0, 0.0, 0.5]).requires_grad_()
    loss = LogSquaredLoss()(x, image([0.0, 0.5, 0.0]))
    expected = 2 * log((0.5 + 1e-8) / 1e-8) ** 2 / 3
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert torch.isfinite(x.grad).all()
    logits = torch.tensor([[[-80.0, -9.0, 0.0, 9.0]]]).requires_grad_()
    LogSquaredLoss()((torch.tanh(logits) + 1) / 2, torch.full((1, 1, 4), 0.5)).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().max() < 100


def test_the_log_squared_loss_refuses_what_has_no_logarithm():
    ones = torch.ones(1, 1, 2)
    with pytest.raises(ValueError, match=r"answers down to -0.5, .* let it end with ScaledTanh"):
        LogSquaredLoss()(-0.5 * ones, ones)
    with pytest.raises(DataError, match=r"values down to -0.5, .* scale labels to \[0, 1\]"):
        LogSquaredLoss()(ones, -0.5 * ones)


def test_the_median_is_that_of_each_image_and_channel():
    y = torch.tensor([[[0.1, 0.2, 0.9], [0.4, 0.4, 0.4]], [[0.5, 0.8, 0.8], [0.2, 0.2, 0.3]]])
    x = y + 0.06
    expected = 0.06 * (1 / 0.2 + 1 / 0.4 + 1 / 0.8 + 1 / 0.2) / 4
    assert float(MedianMeanAbsoluteLoss()(x, y)) == pytest.approx(expected, rel=1e-5)


def test_a_median_of_0_is_guarded():
    x = image([0.5, 0.0, 0.0]).requires_grad_()
    loss = MedianMeanAbsoluteLoss(floor=0.01)(x, torch.zeros(1, 1, 1, 3))
    assert float(loss.detach()) == pytest.approx(0.5 / 3 / 0.01)
    loss.backward()
    assert torch.isfinite(x.grad).all()


def test_errors_are_weighted_pixel_by_pixel():
    x, y = image([0.5, 0.7, 0.5]), image([0.4, 0.4, 0.9])
    weight = image([1.0, 2.0, 1.0])
    expected = (0.1 + 2 * 0.3 + 0.4) / 3 / 0.4
    assert float(MedianMeanAbsoluteLoss()(x, y, weight)) == pytest.approx(expected, rel=1e-5)


def test_gradients_are_compared_along_each_axis():
    x, y = image([0.0, 0.4], [0.0, 0.4]), image([0.0, 0.1], [0.5, 0.1])
    # along rows 0.4, 0.4 against 0.1, -0.4; along columns 0, 0 against 0.5, 0
    assert float(GradientLoss()(x, y)) == pytest.approx((0.3 + 0.8) / 2 + 0.5 / 2)
    assert float(GradientLoss(absolute=True)(x, y)) == pytest.approx((0.3 + 0.0) / 2 + 0.5 / 2)
    assert float(GradientLoss()(x + 0.3, x)) == pytest.approx(0, abs=1e-7)
    assert float(GradientLoss()(image([0.2]), image([0.7]))) == 0  # no pixel beside it


def test_losses_are_added_with_their_weights():
    x, y = image([0.5, 0.8]), image([0.5, 0.5])
    loss = WeightedSum([GradientLoss(), MedianMeanAbsoluteLoss(), LogSquaredLoss()], [10, 1, 0])
    assert float(loss(x, y)) == pytest.approx(10 * 0.3 + 0.15 / 0.5, rel=1e-5)
    with pytest.raises(ConfigError, match="a weight for each loss, got 1 for 2"):
        WeightedSum([GradientLoss(), GradientLoss()], [1])
    with pytest.raises(ConfigError, match="weights must be a number from 0, got -1"):
        WeightedSum([GradientLoss()], [-1])


def test_relativistic_scores_are_held_against_the_mean_of_the_other_kind():
    real, fake = torch.tensor([[3.0], [1.0]]), torch.tensor([[0.0], [0.0], [3.0]])
    # means 2 and 1: r - 1 = 2, 0; f - 2 = -2, -2, 1
    of_d = ((1 + 1) / 2 + (1 + 1 + 4) / 3) / 2
    of_g = ((9 + 1) / 2 + (9 + 9 + 0) / 3) / 2
    assert float(RelativisticAverageLeastSquares("discriminator")(real, fake)) == of_d
    assert float(RelativisticAverageLeastSquares("generator")(real, fake)) == of_g
    with pytest.raises(ConfigError, match="of must be 'discriminator' or 'generator', got 'both'"):
        RelativisticAverageLeastSquares("both")


def test_the_discriminators_loss_is_0_where_scores_are_one_apart():
    real, fake = torch.full((2, 1, 3, 3), 0.7), torch.full((2, 1, 3, 3), -0.3)
    assert float(RelativisticAverageLeastSquares("discriminator")(real, fake)) < 1e-12
    assert float(RelativisticAverageLeastSquares("generator")(fake, real)) < 1e-12


def test_with_a_pool_the_means_are_those_of_the_last_images():
    pool = ScorePool(size=3)
    of_d = RelativisticAverageLeastSquares("discriminator", pool)
    of_g = RelativisticAverageLeastSquares("generator", pool)
    real, fake = torch.tensor([[1.0], [3.0]]), torch.tensor([[0.0], [2.0]]).requires_grad_()
    alone = RelativisticAverageLeastSquares("generator")
    assert float(of_g(real, fake).detach()) == float(alone(real, fake).detach())  # it is empty
    of_d(real, fake)
    of_d(real + 4, fake + 4)  # of the four the first has gone
    means = [float(one) for one in pool.means()]
    assert means == pytest.approx([(3 + 5 + 7) / 3, (2 + 4 + 6) / 3])
    # real - 4 is -3 and -1, fake - 5 is -5 and -3
    loss = of_g(real, fake)
    assert float(loss.detach()) == pytest.approx(((4 + 0) / 2 + (36 + 16) / 2) / 2)
    loss.backward()
    assert fake.grad.flatten().tolist() == [-3.0, -2.0]  # 2 (f - mean - 1) / 2 / 2: no mean's
    assert len(pool) == 3  # the generator's loss adds nothing
    other = ScorePool(size=3)
    other.load_state_dict(pool.state_dict())
    assert torch.equal(other.scores, pool.scores)
    with pytest.raises(ConfigError, match="size must be a whole number from 1, got 0"):
        ScorePool(0)


class ByHand:
    """Two by two pixels of which one is misclassified: logits, mask, and one lower level."""

    fluorescence = image([0.2, 0.4], [0.4, 0.8])
    mask = image([0, 1], [0, 1])
    given = image([0.3, 0.4], [0.2, 0.8])
    logits = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]], [[0.0, 2.0], [3.0, 2.0]]]])
    joined = torch.cat([given, logits], dim=1)
    label = torch.cat([fluorescence, mask], dim=1)
    lower = image([0.65])
    # cross-entropies log(1 + exp(-margin)), of the third pixel the wrong way
    entropies = (log(1 + 2.718281828**-m) for m in (1, 2, -3, 2))
    of_pixels = tuple(entropies)


def test_the_nuclei_loss_is_equation_6():
    hand = ByHand
    found = LupiLoss(module_weight=0.1, median_weight=0.5, entropy_weight=1.5, misclassified=3)(
        [hand.joined, hand.lower], hand.label
    )
    a, b, c, d = hand.of_pixels
    entropy = (a + b + c + d) / 4 + (a + b + 3 * c + d) / 4
    # errors .1, 0, .2, 0 by a median of .4
    median = (0.1 + 0.2) / 4 / 0.4 + (0.1 + 3 * 0.2) / 4 / 0.4
    # the mean of the fluorescence, .45, and the weight of the nearest pixel, the last: 1
    module = 0.2 / 0.45
    expected = 0.1 * module + 0.5 * median + 1.5 * entropy
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_modules_weigh_what_the_segmentation_has_wrong():
    hand = ByHand
    loss, target = LupiLoss(median_weight=0, entropy_weight=0, module_weight=1), hand.label
    plain = float(loss([hand.joined, hand.lower], target))
    assert plain == pytest.approx(0.2 / 0.45, rel=1e-5)
    turned = torch.cat([hand.given, hand.logits.flip(1)], dim=1)  # the last pixel is wrong
    assert float(loss([turned, hand.lower], target)) == pytest.approx(2 * plain)
    without = LupiLoss(median_weight=0, entropy_weight=0, module_weight=0)
    assert float(without([turned, hand.lower], target)) == 0


def test_an_answer_of_evaluation_has_no_modules():
    hand, loss = ByHand, LupiLoss()
    target = hand.label
    alone = float(loss(hand.joined, target))
    more = float(loss([hand.joined, hand.lower], target))
    assert more - alone == pytest.approx(0.1 * 0.2 / 0.45, rel=1e-4)


def test_the_nuclei_model_learns_by_its_loss():
    torch.manual_seed(0)
    network = NucleiLupiUnet(in_channels=2, channels=8, levels=2, growth=4, layers=2, dropout=0.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    stack = torch.rand(2, 2, 16, 16)
    mask = (stack[:, :1] > 0.5).long()
    target, loss, losses = torch.cat([0.2 + 0.6 * mask, mask], dim=1), LupiLoss(), []
    for _ in range(15):
        optimizer.zero_grad()
        value = loss(network(stack), target)
        value.backward()
        assert all(torch.isfinite(weight.grad).all() for weight in network.parameters())
        optimizer.step()
        losses.append(float(value.detach()))
    assert losses[-1] < 0.7 * losses[0]


def test_shapes_and_values_that_do_not_fit_are_refused():
    x, y = torch.rand(2, 1, 4, 4), torch.rand(2, 3, 4, 4)
    for loss in (LogSquaredLoss(), MedianMeanAbsoluteLoss(), GradientLoss()):
        with pytest.raises(ValueError, match="labels of one shape, got"):
            loss(x, y)
    with pytest.raises(ValueError, match="two logits side by side"):
        LupiLoss()(x, y[:, :2])
    with pytest.raises(
        ValueError, match=r"fluorescence and mask side by side .* got \(2, 1, 4, 4\)"
    ):
        LupiLoss()(y, x)
    with pytest.raises(DataError, match="the label holds 2, but the classes are 0 to 1"):
        LupiLoss()(y, torch.cat([x, torch.full((2, 1, 4, 4), 2.0)], dim=1))
    with pytest.raises(ConfigError, match="floor must be above 0"):
        MedianMeanAbsoluteLoss(floor=0)
    with pytest.raises(ConfigError, match="absolute must be true or false"):
        GradientLoss(absolute="no")


@pytest.mark.parametrize("loss", [LogSquaredLoss(), MedianMeanAbsoluteLoss(), GradientLoss()])
def test_answers_in_bfloat16_and_meta_tensors_are_taken_in_float32(loss):
    torch.manual_seed(0)
    x, y = torch.rand(1, 1, 8, 8).bfloat16(), torch.rand(1, 1, 8, 8)
    found = loss(MetaTensor(x), MetaTensor(y))
    assert type(found) is torch.Tensor
    assert found.dtype is torch.float32
    assert torch.equal(found, loss(x.float(), y))
