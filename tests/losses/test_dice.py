"""Dice + cross-entropy behind the library's door, and at every depth of a network."""

import pytest
import torch
from monai.data import MetaTensor
from monai.losses import DiceCELoss
from monai.networks.nets import DynUNet, SegResNetDS

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.losses import (
    DeepSupervision,
    DiceCrossEntropy,
    HeadsCrossEntropy,
    PixelCrossEntropy,
)
from metaseg_monai.networks import condition


def draw(classes=3, size=(2, 8, 8), seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, *size[1:], generator=generator)
    return logits, torch.randint(classes, (2, 1, *size[1:]), generator=generator)


@pytest.mark.parametrize(("batch", "background"), [(True, False), (False, False), (True, True)])
def test_it_is_monais_sum_on_labels_of_any_type(batch, background):
    logits, label = draw()
    loss = DiceCrossEntropy(batch=batch, background=background)
    theirs = DiceCELoss(include_background=background, to_onehot_y=True, softmax=True, batch=batch)(
        logits, label
    )
    for given in (label, label.float(), label.to(torch.uint8), MetaTensor(label)):
        torch.testing.assert_close(loss(logits, given), theirs)
    torch.testing.assert_close(
        loss(logits.bfloat16(), label), loss(logits.bfloat16().float(), label)
    )


def test_ignored_pixels_count_in_neither_part():
    logits, label = draw()
    left = DiceCrossEntropy(ignored=255)(logits[..., :4], label[..., :4])
    label[..., 4:] = 255
    logits.requires_grad_()
    loss = DiceCrossEntropy(ignored=255)(logits, label)
    torch.testing.assert_close(loss, left)
    loss.backward()
    assert not logits.grad[..., 4:].any()
    assert logits.grad[..., :4].any()
    with pytest.raises(DataError, match="the label holds 255"):
        DiceCrossEntropy()(logits, label)
    assert torch.isfinite(DiceCrossEntropy(ignored=255)(logits, torch.full_like(label, 255)))
    with pytest.raises(ConfigError, match="whole number"):
        DiceCrossEntropy(ignored="255")


def test_depths_weigh_half_of_the_one_above_and_one_answer_is_the_loss_itself():
    fine, label = draw(2)
    coarse, _ = draw(2, (2, 4, 4), seed=1)
    one = DiceCrossEntropy()
    small = torch.nn.functional.interpolate(label.float(), size=(4, 4), mode="nearest-exact")
    expected = (one(fine, label) + 0.5 * one(coarse, small)) / 1.5
    torch.testing.assert_close(DeepSupervision(one)([fine, coarse], label), expected)
    torch.testing.assert_close(DeepSupervision(one)(fine, label), one(fine, label))
    stacked = torch.stack([fine, fine.flip(0), fine * 2], dim=1)
    expected = (4 * one(fine, label) + 2 * one(fine.flip(0), label) + one(fine * 2, label)) / 7
    torch.testing.assert_close(DeepSupervision(one)(stacked, label), expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_deep_supervision_of_conditioned_networks_reaches_every_head_and_gate(dims):
    three = [3, 3, 3]
    networks = (
        DynUNet(dims, 1, 2, three, [1, 2, 2], [2, 2], filters=[4, 8, 8], deep_supervision=True),
        SegResNetDS(dims, init_filters=8, out_channels=2, blocks_down=(1, 1, 1), dsdepth=2),
    )
    size = [16] * dims
    for bare in networks:
        network = condition(bare, variant="sme", meta_features=3)
        image, label = torch.rand(2, 1, *size), torch.ones(2, 1, *size)
        with pytest.raises(ConfigError, match="DeepSupervision"):
            PixelCrossEntropy()(network.train()(image, torch.eye(2, 3)), label)
        loss = DeepSupervision(DiceCrossEntropy())
        loss(network(image, torch.eye(2, 3)), label).backward()
        silent = [name for name, one in network.named_parameters() if one.grad is None]
        assert not silent
        assert network.eval()(image, torch.eye(2, 3)).shape == (2, 2, *size)


def test_heads_take_another_loss():
    logits, label = draw(2)
    valid = torch.tensor([[True, False], [False, False]])
    pair = torch.cat([label, label], dim=1)
    found = HeadsCrossEntropy(DiceCrossEntropy())(torch.cat([logits, logits], dim=1), (pair, valid))
    torch.testing.assert_close(found, DiceCrossEntropy()(logits[:1], label[:1]))
