"""PatchDiscriminator: is a patch of an image real or generated, seen beside what it is made of."""

from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks.unet3 import check_axes, check_sizes

Field = Literal[70, 142]
WIDEST = 8  # times the filters of the first layer


class _Size(NamedTuple):
    halvings: int
    channels: int


SIZES: Mapping[int, _Size] = {70: _Size(3, 50), 142: _Size(4, 32)}  # pixels of the field


class PatchDiscriminator(nn.Module):
    """A PatchGAN (Isola et al. 2017): a score for each patch, conditional on the input.

    Convolutions 4x4 with batch normalisation and leaky ReLU, of which the first ones halve the
    image. "Four layers", "70 x 70" and "1.7 million parameters" of the adipocyte report (3, 3.2)
    do not fit together: 70 pixels need three halvings, which have 1,694,251 parameters with 50
    filters; four with the 32 filters of the team's code have 1,746,337 and see 142 pixels. The
    report's field is the default.

    It takes the stack and the fluorescence side by side as one image, so that a generated image has
    to fit its stack. For metadata put gates in by `condition(discriminator, schema)`.

    Args:
        in_channels: of the stack and the fluorescence together.
        field: pixels an axis that a score depends on: 70 or 142.
        channels: filters of the first layer; None for the number above.
        spatial_dims: 2 or 3.

    Raises:
        ConfigError: a setting is out of range.

    >>> import torch
    >>> PatchDiscriminator()(torch.rand(2, 8, 96, 128)).shape
    torch.Size([2, 1, 10, 14])
    """

    def __init__(
        self,
        in_channels: int = 8,
        field: Field = 70,
        channels: int | None = None,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        if field not in get_args(Field):
            raise ConfigError(f"field must be 70 or 142 pixels, got {field!r}")
        halvings, filters = SIZES[field]
        filters = filters if channels is None else channels
        check_sizes(spatial_dims, in_channels, 1, filters, halvings)
        self.spatial_dims = spatial_dims
        # pixels of which two convolutions without halving leave one
        self.smallest = 3 * 2**halvings
        convolution, normalisation = Conv[Conv.CONV, spatial_dims], Norm[Norm.BATCH, spatial_dims]
        widths = [filters * min(2**number, WIDEST) for number in range(halvings + 1)]
        self.layers = nn.Sequential()
        for number, width in enumerate(widths):
            stride = 2 if number < halvings else 1
            given = widths[number - 1] if number else in_channels
            layer = convolution(
                given, width, kernel_size=4, stride=stride, padding=1, bias=number == 0
            )
            normalised = [normalisation(width)] if number else []
            self.layers.append(nn.Sequential(layer, *normalised, nn.LeakyReLU(0.2)))
        self.head = convolution(widths[-1], 1, kernel_size=4, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Return a score for each patch (B, 1, *T), higher for real ones; no probability.

        Args:
            image: (B, in_channels, *S), stack and fluorescence side by side.

        Raises:
            ValueError: the number of axes is another, or the image is too small for a patch.
        """
        check_axes(image, self.spatial_dims)
        for size in image.shape[2:]:
            if size < self.smallest:
                raise ValueError(
                    f"expected images of {self.smallest} pixels an axis or more, got "
                    f"{size}: give larger crops (roi_size)"
                )
        return self.head(self.layers(image))
