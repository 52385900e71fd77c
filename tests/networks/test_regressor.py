import pytest
import torch

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks.regressor import ImageRegressor, image_statistics


@pytest.mark.parametrize(("dims", "size"), [(2, (32, 32)), (2, (45, 71)), (3, (9, 17, 8))])
def test_one_number_an_image_of_any_size_and_a_gradient_for_every_weight(dims, size):
    network = ImageRegressor(2, channels=(4, 6, 8), spatial_dims=dims)
    image = torch.rand(3, 2, *size)
    torch.nn.init.normal_(network.head[-1].weight)
    answer = network(image)
    assert answer.shape == (3, 1)
    answer.square().sum().backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name
    assert network.convolutions[0].conv.weight.grad.abs().sum() > 0


def test_it_is_small_and_starts_in_the_middle_of_the_range():
    network = ImageRegressor()
    assert sum(weight.numel() for weight in network.parameters()) == 108_497
    assert network(torch.rand(2, 1, 64, 64)).tolist() == [[0.5], [0.5]]


def test_the_head_sees_the_mean_and_the_maximum_of_every_channel():
    network = ImageRegressor(channels=(4,))
    network.convolutions = network.head = torch.nn.Identity()
    image = torch.zeros(1, 1, 4, 4)
    image[..., 1, 2] = 8
    assert network(image).tolist() == [[0.5, 8]]


def test_the_answer_keeps_its_digits_under_autocast():
    network = ImageRegressor(channels=(4, 8)).eval()
    torch.nn.init.normal_(network.head[-1].weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = network(torch.rand(8, 1, 16, 16))
    assert answer.dtype == torch.float32
    assert not torch.equal(answer, answer.bfloat16().float())


def test_one_image_of_one_last_pixel_cannot_train():
    network = ImageRegressor(channels=(4, 8, 8))
    assert network(torch.rand(2, 1, 8, 8)).shape == (2, 1)
    assert network(torch.rand(1, 1, 8, 9)).shape == (1, 1)
    with pytest.raises(ValueError, match=r"one image of \(8, 8\) leaves one pixel.*batch_size"):
        network(torch.rand(1, 1, 8, 8))
    assert network.eval()(torch.rand(1, 1, 8, 8)).shape == (1, 1)


def test_wrong_images_and_settings_are_refused():
    network = ImageRegressor(channels=(4, 8, 8))
    for wrong in [(2, 3, 16, 16), (2, 1, 16, 7), (2, 1, 16)]:
        with pytest.raises(ValueError, match="8 pixels or more"):
            network(torch.rand(wrong))
    for settings in [{"channels": ()}, {"channels": (4, 0)}, {"hidden": 0}, {"spatial_dims": 4}]:
        with pytest.raises(ConfigError, match="must be"):
            ImageRegressor(**settings)


def test_statistics_tell_texture_whatever_lies_where():
    """Of noise of two grains the bands differ; moved or turned pixels change nothing."""
    generator = torch.Generator().manual_seed(0)
    fine = torch.rand(1, 1, 64, 64, generator=generator)
    coarse = torch.nn.functional.avg_pool2d(fine, 4, 1, 2)[..., :64, :64]
    told = image_statistics(torch.cat([fine, coarse]), (1, 2, 4))
    contrast = told[:, 9::4]  # logarithm of the spread of each band
    assert contrast[0, 0] > contrast[0, 1] > contrast[0, 2]
    assert (contrast[0] - contrast[1])[0] > 1 > (contrast[0] - contrast[1])[2] + 0.5
    turned = image_statistics(fine.rot90(1, (2, 3)), (1, 2, 4))
    torch.testing.assert_close(turned, told[:1], atol=1e-4, rtol=1e-4)
    bright = image_statistics(2 * fine + 1, (1, 2, 4))
    torch.testing.assert_close(bright[:, 0], 2 * told[:1, 0] + 1)
    flat = image_statistics(torch.ones(1, 2, 9, 9), (1,))
    assert torch.isfinite(flat).all()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("channels", [(), (4, 8)], ids=["alone", "beside convolutions"])
def test_statistics_are_learned_by_the_linear_layers(dims, channels):
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand(16, 1, *[16] * dims, generator=generator)
    names = torch.arange(16) % 2
    images = torch.stack([one if name else one.roll(1, 1) / 2 + one / 2 for one, name in
                          zip(noise, names, strict=True)])  # fmt: skip
    torch.manual_seed(0)
    network = ImageRegressor(1, channels, 8, dims, outputs=2, scales=(1, 2))
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(images), names).backward()
        optimizer.step()
    told = image_statistics(images, (1, 2)).shape[1]  # they stand behind the convolutions
    assert (network.head[0].weight.grad[:, -told:].abs().amax(0) > 0).sum() > told / 2
    assert (network.eval()(images).argmax(1) == names).all()
    assert network(images[:1]).shape == (1, 2)
    network.train()
    assert torch.isfinite(network(images[:1])).all()  # one image alone


def test_scales_that_do_not_rise_are_refused():
    with pytest.raises(ConfigError, match=r"scales must rise from above 0, got \[2, 1\]"):
        ImageRegressor(scales=(2, 1))
