"""A small network that reads a number, or one of several names, off an image of any size."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers import gaussian_1d, separable_filtering
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError

QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
QUANTILE_PIXELS = 1 << 20  # of an image's channel, of which quantiles are taken
LEAST = 1e-6  # of a spread
OF_IMAGE, OF_SCALE = len(QUANTILES) + 2, 4


def image_statistics(image: Tensor, scales: Sequence[float]) -> Tensor:
    """What images are like, whatever lies where: brightness, contrast and texture by scale.

    Of each channel quantiles, mean and standard deviation; then, for each band between two Gaussian
    blurs, logarithm of the standard deviation, skewness, logarithm of the kurtosis, and logarithm
    of the mean step between neighbours in the blurred image.

    Args:
        image: images (B, C, *S).
        scales: standard deviations of the blurs in pixels, rising.

    Returns:
        (B, C * (9 + 4 * len(scales))) float32.

    >>> image_statistics(torch.rand(2, 3, 20, 16), (1, 2)).shape
    torch.Size([2, 51])
    """
    image = image.float()
    flat = image.flatten(2)
    some = flat[..., :: -(-flat.shape[2] // QUANTILE_PIXELS)]
    at = torch.tensor(QUANTILES, device=image.device)
    quantiles = [torch.quantile(one, at, dim=1).T.flatten() for one in some]
    found = [torch.stack(quantiles), flat.mean(2), flat.std(2, correction=0)]
    above = image
    for scale in scales:
        kernel = gaussian_1d(torch.tensor(float(scale), device=image.device), normalize=True)
        below = separable_filtering(image, kernel, "replicate")
        band = (above - below).flatten(2)
        band = band - band.mean(2, keepdim=True)
        spread = band.std(2, keepdim=True, correction=0) + LEAST
        band = band / spread
        steps = [below.diff(dim=axis).abs().flatten(2).mean(2) for axis in range(2, image.dim())]
        found += [
            spread[..., 0].log(),
            band.pow(3).mean(2),
            (band.pow(4).mean(2) + LEAST).log(),
            (torch.stack(steps).sum(0) + LEAST).log(),
        ]
        above = below
    return torch.cat(found, dim=1)


class ImageRegressor(nn.Module):
    """Strided convolutions, then mean and maximum over the image, then two linear layers.

    Batch normalisation, not that of an instance, which would take out of the features how much of
    the image an object fills. The mean is over the whole frame: give training and prediction
    frames of about one size. It starts as the constant 0.5, the middle of a field's range. With
    its defaults it has 108,497 parameters; MONAI's `Regressor` would be tied to one image size.

    With `scales`, what `image_statistics` tells of the image goes into the linear layers as well,
    or alone: from a few hundred images these learn a texture that convolutions overfit.

    Args:
        in_channels: channels of the image.
        channels: filters of each convolution; each halves the image. None: statistics alone.
        hidden: width between the linear layers.
        spatial_dims: 2 or 3.
        outputs: 1 for a number; K for the logits of K names, which start alike.
        scales: of `image_statistics`, in pixels, rising; none: convolutions alone.

    Raises:
        ConfigError: a setting is out of range.

    >>> ImageRegressor(channels=(4, 8))(torch.rand(2, 1, 33, 47)).tolist()
    [[0.5], [0.5]]
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (16, 32, 48, 64, 96),
        hidden: int = 32,
        spatial_dims: int = 2,
        outputs: int = 1,
        scales: Sequence[float] = (),
    ) -> None:
        super().__init__()
        widths = [in_channels, *channels]
        if not (channels or scales) or min(*widths, hidden, outputs) < 1:
            raise ConfigError(
                "in_channels, hidden, outputs and every entry of channels must be 1 or more, at "
                f"least one of channels or scales; got {in_channels}, {hidden}, {outputs} and "
                f"{list(channels)}"
            )
        if any(below >= above for below, above in pairwise((0, *scales))):
            raise ConfigError(f"scales must rise from above 0, got {list(scales)}")
        if spatial_dims not in (2, 3):
            raise ConfigError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
        self.in_channels = in_channels
        self.spatial_dims = spatial_dims
        self.smallest = 2 ** len(channels)
        self.convolutions = nn.Sequential(
            *(
                Convolution(spatial_dims, *pair, 2, adn_ordering="NA", act="RELU", norm="BATCH")
                for pair in pairwise(widths)
            )
        )
        self.scales = tuple(map(float, scales))
        told = in_channels * (OF_IMAGE + OF_SCALE * len(self.scales)) if self.scales else 0
        if told:
            self.known = nn.BatchNorm1d(told, affine=False)
        last = nn.Linear(hidden, outputs)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, 0.5 if outputs == 1 else 0.0)
        self.convolves = bool(channels)
        seen = 2 * widths[-1] if self.convolves else 0
        self.head = nn.Sequential(nn.Linear(seen + told, hidden), nn.ReLU(), last)

    def forward(self, image: Tensor) -> Tensor:
        """Return a number an image, or the logits of names: (B, outputs) float32.

        Args:
            image: images (B, in_channels, *S).

        Raises:
            ValueError: the axes or channels are others, or the image is too small to be halved
                once a convolution, or one image in training of which one pixel would be left.
        """
        right = image.dim() == self.spatial_dims + 2 and image.shape[1] == self.in_channels
        if not right or min(image.shape[2:]) < self.smallest:
            raise ValueError(
                f"expected images (B, {self.in_channels}, *S) with {self.spatial_dims} spatial "
                f"axes of {self.smallest} pixels or more, got {tuple(image.shape)}; pad them "
                "(pad_size, roi_size), or give the network fewer channels entries"
            )
        one_pixel = len(image) == 1 and max(image.shape[2:]) <= self.smallest
        if self.training and one_pixel and self.convolves:
            raise ValueError(
                f"one image of {tuple(image.shape[2:])} leaves one pixel, of which nothing can be "
                "normalised in training; take larger images (roi_size), fewer channels entries, or "
                "a batch_size that leaves no rest of one"
            )
        found = list[Tensor]()
        if self.convolves:
            features = self.convolutions(image).flatten(start_dim=2).float()
            found = [features.mean(dim=2), features.amax(dim=2)]
        # bfloat16 would leave the answer 8 bits, so that autocast ends here
        with torch.autocast(image.device.type, enabled=False):
            if self.scales:
                found.append(self._normalised(image_statistics(image, self.scales)))
            return self.head(torch.cat(found, dim=1))

    def _normalised(self, told: Tensor) -> Tensor:
        """Statistics by those of the batch; of a single image by those that were seen before."""
        mean, var = self.known.running_mean, self.known.running_var
        several = self.training and len(told) > 1
        return nn.functional.batch_norm(told, mean, var, training=several)
