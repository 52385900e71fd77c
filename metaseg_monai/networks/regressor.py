"""A small network that reads a number, or one of several names, off an image of any size."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError


class ImageRegressor(nn.Module):
    """Strided convolutions, then mean and maximum over the image, then two linear layers.

    Batch normalisation, not that of an instance, which would take out of the features how much of
    the image an object fills. The mean is over the whole frame: give training and prediction
    frames of about one size. It starts as the constant 0.5, the middle of a field's range. With
    its defaults it has 108,497 parameters; MONAI's `Regressor` would be tied to one image size.

    Args:
        in_channels: channels of the image.
        channels: filters of each convolution; each halves the image.
        hidden: width between the linear layers.
        spatial_dims: 2 or 3.
        outputs: 1 for a number; K for the logits of K names, which start alike.

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
    ) -> None:
        super().__init__()
        widths = [in_channels, *channels]
        if len(widths) < 2 or min(*widths, hidden, outputs) < 1:
            raise ConfigError(
                "in_channels, hidden, outputs and every entry of channels must be 1 or more, at "
                f"least one of channels; got {in_channels}, {hidden}, {outputs} and "
                f"{list(channels)}"
            )
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
        last = nn.Linear(hidden, outputs)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, 0.5 if outputs == 1 else 0.0)
        self.head = nn.Sequential(nn.Linear(2 * widths[-1], hidden), nn.ReLU(), last)

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
        if self.training and len(image) == 1 and max(image.shape[2:]) <= self.smallest:
            raise ValueError(
                f"one image of {tuple(image.shape[2:])} leaves one pixel, of which nothing can be "
                "normalised in training; take larger images (roi_size), fewer channels entries, or "
                "a batch_size that leaves no rest of one"
            )
        features = self.convolutions(image).flatten(start_dim=2)
        # bfloat16 would leave the answer 8 bits, so that autocast ends here
        with torch.autocast(image.device.type, enabled=False):
            features = features.float()
            return self.head(torch.cat([features.mean(dim=2), features.amax(dim=2)], dim=1))
