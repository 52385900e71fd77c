"""The mean of probabilities of several networks and mirrors, each window with its own metadata."""

import pytest
import torch
from monai.inferers import SimpleInferer
from torch import nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.inferers import EnsembleInferer, SlidingWindowMetadataInferer, SteeredInferer


class Told(nn.Module):
    """Logits that depend on the place, the image and the metadata."""

    def __init__(self, weight, classes=3):
        super().__init__()
        self.weight, self.classes = weight, classes

    def forward(self, image, meta):
        ramp = torch.arange(image.shape[-1], dtype=image.dtype).expand_as(image[:, 0])
        parts = [self.weight * (k + 1) * (image[:, 0] + 0.1 * ramp) for k in range(self.classes)]
        return torch.stack(parts, 1) * meta[:, :1, None, None]


IMAGES = torch.rand(2, 1, 8, 12, generator=torch.Generator().manual_seed(0))
META = torch.tensor([[1.0], [-2.0]])


def test_one_network_without_mirrors_is_the_plain_prediction():
    plain = Told(1.0)(IMAGES, META)
    assert torch.equal(EnsembleInferer(SimpleInferer())(IMAGES, Told(1.0), META), plain)


def test_the_mean_of_the_probabilities_of_three_networks():
    inferer = EnsembleInferer(SimpleInferer())
    inferer.networks = [Told(2.0), Told(-1.0)]
    mean = sum(Told(w)(IMAGES, META).softmax(1) for w in (1.0, 2.0, -1.0)) / 3
    assert torch.allclose(inferer(IMAGES, Told(1.0), META).softmax(1), mean, atol=1e-6)


def test_one_channel_stays_a_logit():
    inferer = EnsembleInferer(SimpleInferer(), mirror=[])
    inferer.networks = [Told(3.0, classes=1)]
    mean = sum(Told(w, classes=1)(IMAGES, META).sigmoid() for w in (1.0, 3.0)) / 2
    found = inferer(IMAGES, Told(1.0, classes=1), META)
    assert found.shape == (2, 1, 8, 12)
    assert torch.allclose(found.sigmoid(), mean, atol=1e-6)


@pytest.mark.parametrize("classes", [1, 3])
def test_of_images_the_values_are_averaged(classes):
    inferer = EnsembleInferer(SimpleInferer(), average="values", mirror=[1])
    inferer.networks = [Told(3.0, classes=classes)]
    mean = sum(
        (Told(w, classes)(IMAGES, META) + Told(w, classes)(IMAGES.flip(3), META).flip(3)) / 4
        for w in (1.0, 3.0)
    )
    assert torch.allclose(inferer(IMAGES, Told(1.0, classes), META), mean, atol=1e-6)
    with pytest.raises(ConfigError, match="expected probabilities or values"):
        EnsembleInferer(SimpleInferer(), average="mean")


@pytest.mark.parametrize(("mirror", "runs"), [([1], 2), ([1, 0], 4)])
def test_mirrors_are_mirrored_back_with_their_metadata(mirror, runs):
    seen = []

    def network(images, meta):
        seen.append(meta)
        return Told(1.0)(images, meta)

    found = EnsembleInferer(SimpleInferer(), mirror=mirror)(IMAGES, network, META)
    axes = [[], [3], [2], [2, 3]] if runs == 4 else [[], [3]]
    mean = sum(Told(1.0)(IMAGES.flip(a), META).flip(a).softmax(1) for a in axes) / runs
    assert torch.allclose(found.softmax(1), mean, atol=1e-6)
    assert len(seen) == runs
    assert all(torch.equal(meta, META) for meta in seen)


def test_it_wraps_windows_and_guidance():
    window = SlidingWindowMetadataInferer(roi_size=(8, 8), overlap=0.5, sw_batch_size=3)
    inferer = EnsembleInferer(SteeredInferer(window, Told(1.0)), mirror=[0])
    inferer.networks = [Told(1.0)]
    wanted = window(IMAGES, Told(1.0), meta=META)  # no row tells the mirror from the image
    assert torch.allclose(inferer(IMAGES, Told(1.0), META).softmax(1), wanted.softmax(1), atol=1e-5)


@pytest.mark.parametrize("mirror", [[0, 0], [3], [-1], ["0"], [True], [0.5]])
def test_axes_that_are_none_are_refused(mirror):
    with pytest.raises(ConfigError, match="expected different axes"):
        EnsembleInferer(SimpleInferer(), mirror=mirror)


def test_planes_have_no_depth_to_mirror():
    with pytest.raises(ConfigError, match="2 axes have no axis 2"):
        EnsembleInferer(SimpleInferer(), mirror=[2])(IMAGES, Told(1.0), META)
