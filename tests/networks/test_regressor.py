import pytest
import torch

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks.regressor import ImageRegressor


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
