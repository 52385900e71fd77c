"""The pilot's two failed controls: what is added to the middle, and what is drawn."""

import pytest
import torch
import torch.nn.functional as F

from metaseg_monai.networks import MetaImage, Unet3, WeightNoise


@pytest.mark.parametrize("dims", [2, 3])
def test_the_noise_of_each_image_is_added_to_its_weights(dims):
    layer = {2: torch.nn.Conv2d, 3: torch.nn.Conv3d}[dims](4, 5, 3, padding=1)
    control = WeightNoise(layer, meta_features=3)
    x, meta = torch.randn(2, 4, *(6, 5, 4)[:dims]), torch.tensor([[0.0, 1, 0], [0.5, 0, 2]])
    convolve = {2: F.conv2d, 3: F.conv3d}[dims]
    noise = control.noise.weight
    for row in range(2):
        added = sum(m * n for m, n in zip(meta[row], noise, strict=True))
        expected = convolve(x[[row]], layer.weight + added, layer.bias, padding=1)
        found = control(x[[row]], layer(x[[row]]), meta[[row]])
        torch.testing.assert_close(found, expected)
    assert noise.shape[1:] == layer.weight.shape[1:]
    assert noise.abs().max() <= layer.weight[0].numel() ** -0.5


def test_the_noise_stands_in_the_middle_does_not_learn_and_is_stored():
    networks = [Unet3(variant="weight-noise", meta_features=2, channels=64) for _ in range(2)]
    for network in networks:
        found = {name: w for name, w in network.state_dict().items() if "noise" in name}
        assert list(found) == ["middle.mechanism.noise.weight"]
        assert found["middle.mechanism.noise.weight"].shape == (2, 64, 3, 3)  # thesis 4.1
        assert not any("noise" in name for name, _ in network.named_parameters())
    one, other = (network.state_dict()["middle.mechanism.noise.weight"] for network in networks)
    assert torch.equal(one, other)
    changed = WeightNoise(torch.nn.Conv2d(64, 64, 3), 2, seed=1)
    assert not torch.equal(changed.noise.weight, one)


@pytest.mark.parametrize(("entries", "cells"), [(2, 8), (64, 8), (70, 9)])
def test_every_entry_is_drawn_and_zeros_are_black(entries, cells):
    control = MetaImage(torch.nn.Conv2d(1, 4, 3, padding=1), entries)
    x = torch.zeros(entries, 1, 3 * cells, 2 * cells)
    picture = control.drawn(torch.eye(entries), x)
    assert set(picture.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(picture.sum(dim=0), torch.ones(1, 3 * cells, 2 * cells))
    assert (picture.flatten(1).sum(dim=1) > 0).all()
    assert control.drawn(torch.zeros(1, entries), x[:1]).count_nonzero() == 0


def test_the_picture_is_a_second_channel_of_the_image():
    network = Unet3(variant="meta-image", meta_features=2, channels=4, levels=2).eval()
    wide = Unet3(variant="none", in_channels=2, channels=4, levels=2).eval()
    control = network.encoder[0].mechanism
    state = {name: w for name, w in network.state_dict().items() if "mechanism" not in name}
    first = "encoder.0.convolutions.0.weight"
    state[first] = torch.cat([state[first], control.v.weight], dim=1)
    wide.load_state_dict(state)
    image, meta = torch.rand(3, 1, 17, 20), torch.eye(2)[[0, 1, 1]]
    both = torch.cat([image, control.drawn(meta, image)], dim=1)
    torch.testing.assert_close(network(image, meta), wide(both))


def test_a_signal_has_the_cells_in_a_row():
    control = MetaImage(torch.nn.Conv1d(1, 4, 3, padding=1), 3)
    x = torch.rand(3, 1, 64)
    assert torch.equal(control.drawn(torch.eye(3), x)[:, 0], torch.eye(3)[:, control.entry])
    assert control(x, torch.rand(3, 4, 64), torch.eye(3)).shape == (3, 4, 64)
