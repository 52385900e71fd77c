"""DenseUnetGenerator: a U-Net of dense blocks that gives an image in the place of logits."""

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, cast

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv, Norm, Pad, Pool
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.networks.gates import HiddenFrom, NoGate, Start
from metaseg_monai.networks.loading import refuse_strange_weights
from metaseg_monai.networks.mechanisms import NoMechanism
from metaseg_monai.networks.meta_input import MetaInput
from metaseg_monai.networks.unet3 import (
    GatesAtPlaces,
    check_axes,
    check_sizes,
    cut,
    gate_places,
)
from metaseg_monai.networks.variants import meta_input_of, without_effect


class DenseLayer(nn.Module):
    """Batch normalisation, ReLU, convolution 3x3 and dropout; a mechanism may stand inside.

    Args:
        in_channels: of x.
        growth: channels that the layer adds.
        dropout: part of the values that training sets to 0.
        spatial_dims: 2 or 3.
    """

    def __init__(self, in_channels: int, growth: int, dropout: float, spatial_dims: int) -> None:
        super().__init__()
        self.norm = Norm[Norm.BATCH, spatial_dims](in_channels)
        self.conv = Conv[Conv.CONV, spatial_dims](in_channels, growth, kernel_size=3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.mechanism: nn.Module = NoMechanism()
        self.behind = ""  # the layer that the mechanism stands behind

    def steer(self, behind: str, made: Callable[[int, nn.Module], nn.Module]) -> None:
        """Put a mechanism behind the "normalisation" or the "convolution"."""
        layer, channels = (
            (self.norm, self.norm.num_features)
            if behind == "normalisation"
            else (self.conv, self.conv.out_channels)
        )
        self.behind, self.mechanism = behind, made(channels, layer)

    def forward(self, x: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return the new features (B, growth, *S) of x (B, in_channels, *S)."""
        y = self.norm(x)
        if self.behind == "normalisation":
            y = self.mechanism(x, y, meta)
        y = F.relu(y)  # whose input is let go before the convolution: large tiles take less memory
        z = self.conv(y)
        if self.behind == "convolution":
            z = self.mechanism(y, z, meta)
        return self.dropout(z)


class DenseBlock(nn.Module):
    """Layers that each take all features before them, then a gate (Huang et al. 2018).

    The gate stands behind the block. Where a batch normalisation follows, as in the encoder, the
    scales of a batch of one and the same metadata are taken out again in training, so give batches
    of mixed metadata.

    Args:
        in_channels: of x.
        growth: channels that each layer adds.
        layers: how many.
        dropout: as of `DenseLayer`.
        keeps_input: x stands before the new features in what comes out.
        spatial_dims: 2 or 3.

    Attributes:
        out_channels: of what comes out.

    >>> DenseBlock(8, 3, layers=4, dropout=0.0, keeps_input=True)(torch.rand(2, 8, 9, 7)).shape
    torch.Size([2, 20, 9, 7])
    """

    def __init__(
        self,
        in_channels: int,
        growth: int,
        layers: int,
        dropout: float,
        keeps_input: bool,
        spatial_dims: int = 2,
    ) -> None:
        super().__init__()
        self.keeps_input = keeps_input
        self.out_channels = layers * growth + in_channels * keeps_input
        self.layers = nn.ModuleList(
            DenseLayer(in_channels + number * growth, growth, dropout, spatial_dims)
            for number in range(layers)
        )
        self.gate: nn.Module = NoGate()

    def gated(self, gates: GatesAtPlaces, place: str) -> "DenseBlock":
        """Put the gate of a place behind the block, or its mechanism into the last layer."""
        self.gate = gates.gate_at(place, self.out_channels)
        mechanism, last = gates.mechanism, cast(DenseLayer, self.layers[-1])
        if place in gates.places and mechanism is not None and mechanism.behind != "image":
            last.steer(mechanism.behind, gates.made)
        return self

    def forward(self, x: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return the features (B, out_channels, *S) of x (B, in_channels, *S)."""
        new: list[Tensor] = []
        inputs = x
        for layer in self.layers:
            new.append(layer(inputs, meta))
            inputs = torch.cat([x] + new, dim=1)  # noqa: RUF005 TorchScript unpacks no lists
        return self.gate(inputs if self.keeps_input else torch.cat(new, dim=1), meta)


class TransitionDown(nn.Module):
    """Batch normalisation, ReLU, convolution 1x1, dropout and max pooling by 2."""

    def __init__(self, channels: int, dropout: float, spatial_dims: int = 2) -> None:
        super().__init__()
        self.norm = Norm[Norm.BATCH, spatial_dims](channels)
        self.conv = Conv[Conv.CONV, spatial_dims](channels, channels, kernel_size=1)
        self.dropout = nn.Dropout(dropout)
        self.pool = Pool[Pool.MAX, spatial_dims](kernel_size=2, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return x (B, C, *S) halved."""
        return self.pool(self.dropout(self.conv(F.relu(self.norm(x)))))


class ShuffledUp(nn.Module):
    """Up-sampling without checkerboards: convolution, ReLU, pixel shuffle, blur.

    The convolution starts with the same filter and bias for every pixel of a 2 x 2 patch (ICNR,
    Aitken et al. 2017), so that the shuffle first repeats pixels; the mean over 2 x 2 pixels, of
    which those outside repeat the border's, then joins them smoothly (Sugawara et al. 2018).
    MONAI's `SubpixelUpsample` blurs zeros into the border, and starts with a bias that differs
    within a patch, which is a checkerboard.

    >>> up = ShuffledUp(4)
    >>> up(torch.rand(2, 4, 5, 3), torch.rand(2, 1, 9, 6)).shape
    torch.Size([2, 4, 9, 6])
    """

    def __init__(self, channels: int, spatial_dims: int = 2) -> None:
        super().__init__()
        patch = 2**spatial_dims
        self.conv = Conv[Conv.CONV, spatial_dims](
            channels, patch * channels, kernel_size=3, padding=1
        )
        with torch.no_grad():
            for values in (self.conv.weight, self.conv.bias):
                values.copy_(values[::patch].repeat_interleave(patch, dim=0))
        self.pad = Pad[Pad.REPLICATIONPAD, spatial_dims]((1, 0) * spatial_dims)
        self.blur = Pool[Pool.AVG, spatial_dims](kernel_size=2, stride=1)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return x (B, C, ...), of half its size, in the size of skip (B, any, *S)."""
        return cut(self.blur(self.pad(_shuffled(F.relu(self.conv(x))))), skip)


def _shuffled(x: Tensor) -> Tensor:
    """Return x (B, C * 2**dims, *S) as (B, C, *2S), a patch of each pixel."""
    if x.dim() == 4:
        return F.pixel_shuffle(x, 2)
    batch, channels, depth, height, width = x.shape
    patches = x.reshape(batch, channels // 8, 2, 2, 2, depth, height, width)
    pixels = patches.permute(0, 1, 5, 2, 6, 3, 7, 4)
    return pixels.reshape(batch, channels // 8, 2 * depth, 2 * height, 2 * width)


class ScaledTanh(nn.Module):
    """(tanh(x) + 1) / 2 (report, equation 2), as the sigmoid of 2 x, which is the same.

    Fluorescence is dark: scaled to [0, 1] its medians are 0.005 to 0.1. Of a tanh near -1 half
    precision keeps steps of 0.002, and no gradient once it has been rounded to -1.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return values in [0, 1], of float32 at least."""
        return torch.sigmoid(2 * x.to(torch.promote_types(x.dtype, torch.float32)))


class DenseTrunk(nn.Module):
    """The way down that the networks of the report share, and the door of metadata: abstract.

    Args:
        variant: as all that follows as of `DenseUnetGenerator`.
        meta_input: the door of the metadata.
        gates: that stand at the blocks.
        in_channels: channels of the image.
        channels: of the first convolution.
        levels: how often the image is halved.
        growth: channels that each layer of a dense block adds.
        layers: of a dense block.
        dropout: as of `DenseLayer`.
        spatial_dims: 2 or 3.

    Attributes:
        widths: channels of the skips, from the first level.
        new: channels that a dense block adds.
    """

    def __init__(
        self,
        variant: str,
        meta_input: MetaInput,
        gates: GatesAtPlaces,
        in_channels: int,
        channels: int,
        levels: int,
        growth: int,
        layers: int,
        dropout: float,
        spatial_dims: int,
    ) -> None:
        super().__init__()
        refuse_strange_weights(self)
        self.variant = variant
        self.spatial_dims = spatial_dims
        self.meta_input = meta_input
        self.meta_features = meta_input.meta_features  # M; 0: reads no metadata
        self.new = layers * growth
        self.widths = [channels + level * self.new for level in range(1, levels + 1)]
        names = gate_places(levels)
        dense = (growth, layers, dropout)
        self.first = Conv[Conv.CONV, spatial_dims](in_channels, channels, kernel_size=3, padding=1)
        self.first_mechanism: nn.Module = NoMechanism()
        if gates.mechanism is not None and gates.mechanism.behind == "image":
            self.first_mechanism = gates.made(channels, self.first)
        self.encoder = nn.ModuleList(
            DenseBlock(width - self.new, *dense, True, spatial_dims).gated(gates, name)
            for width, name in zip(self.widths, names, strict=False)
        )
        self.down = nn.ModuleList(
            TransitionDown(width, dropout, spatial_dims) for width in self.widths
        )
        middle = DenseBlock(self.widths[-1], *dense, False, spatial_dims)
        self.middle = middle.gated(gates, "middle")

    def features(self, image: Tensor, meta: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """Return the features of the deepest level, and the skips from the first level."""
        x = self.first_mechanism(image, self.first(image), meta)
        skips: list[Tensor] = []
        for block, down in zip(self.encoder, self.down, strict=True):
            skips.append(block(x, meta))
            x = down(skips[-1])
        return self.middle(x, meta), skips

    @staticmethod
    def without_effect(arguments: Mapping[str, Any]) -> set[str]:
        """Which of these arguments do nothing, so that weights are not told by them."""
        return without_effect(arguments["variant"])


def check_dense(growth: int, layers: int, dropout: float) -> None:
    """Refuse dense blocks that there cannot be.

    Raises:
        ConfigError: naming the size.
    """
    for name, size in {"growth": growth, "layers": layers}.items():
        if isinstance(size, bool) or not isinstance(size, Integral) or size < 1:
            raise ConfigError(f"{name} must be a whole number from 1, got {size!r}")
    if isinstance(dropout, bool) or not isinstance(dropout, Real) or not 0 <= dropout < 1:
        raise ConfigError(f"dropout must be a part from 0 to below 1, got {dropout!r}")


class DenseUnetGenerator(DenseTrunk):
    """The generator of the adipocyte report (3): brightfield planes to a fluorescence image.

    A dense U-Net (Jegou et al. 2017): dense blocks and halvings lead down, `ShuffledUp`, the skip
    and a dense block of the new features alone lead up, of which the last keeps its input; a 1x1
    convolution and `ScaledTanh` give an image in [0, 1]. Any image size from 1 up works and is
    kept. With its defaults it has 1,230,913 parameters, which the report calls 1.2 million.

    One network serves several magnifications, or several stains, whose names its metadata tell: by
    `variant` here, or by `condition`. The report has none of it: it trained one for each.

    Args:
        schema: the metadata's schema; not used by "none" and "se".
        variant: as of `Unet3`; "none" is the report's. Of a block's layers mechanisms steer the
            last one, "constant-channel" and "meta-image" the image's very first.
        in_channels: planes of the stack.
        out_channels: images that come out.
        channels: of the first convolution.
        levels: how often the image is halved.
        growth: channels that each layer of a dense block adds.
        layers: of a dense block.
        dropout: part of the values that training sets to 0 behind each convolution.
        reduction: r of the gates' hidden width, round(C / r).
        places: which of `gate_places` get a gate; None for all.
        spatial_dims: 2 or 3.
        hidden_from: as of `Unet3`.
        shift: as of `Unet3`.
        start: "neutral", where gates first change nothing, or "paper".
        meta_features: without a schema: M.
        unknown_trained: as of `Unet3`.

    Raises:
        ConfigError: a setting is unknown, out of range, or does not go with another.

    >>> network = DenseUnetGenerator(variant="sme", meta_features=3, channels=8, levels=2)
    >>> network(torch.rand(2, 7, 33, 47), torch.eye(2, 3)).shape
    torch.Size([2, 1, 33, 47])
    """

    def __init__(
        self,
        schema: MetadataSchema | None = None,
        variant: str = "none",
        in_channels: int = 7,
        out_channels: int = 1,
        channels: int = 48,
        levels: int = 4,
        growth: int = 12,
        layers: int = 4,
        dropout: float = 0.2,
        reduction: float = 4,
        places: Sequence[str] | None = None,
        spatial_dims: int = 2,
        *,
        hidden_from: HiddenFrom = "channels",
        shift: bool = False,
        start: Start = "neutral",
        meta_features: int | None = None,
        unknown_trained: bool = False,
    ) -> None:
        check_sizes(spatial_dims, in_channels, out_channels, channels, levels)
        check_dense(growth, layers, dropout)
        meta_input = meta_input_of(variant, schema, meta_features, unknown_trained)
        names = gate_places(levels)
        gates = GatesAtPlaces(
            *(variant, meta_input.meta_features, names, places),
            reduction=reduction,
            hidden_from=hidden_from,
            shift=shift,
            start=start,
        )
        sizes = (in_channels, channels, levels, growth, layers, dropout, spatial_dims)
        super().__init__(variant, meta_input, gates, *sizes)
        self.up = nn.ModuleList(ShuffledUp(self.new, spatial_dims) for _ in range(levels))
        decoder = [
            DenseBlock(
                *(self.new + width, growth, layers, dropout),
                keeps_input=name == names[-1],
                spatial_dims=spatial_dims,
            ).gated(gates, name)
            for width, name in zip(self.widths[::-1], names[levels + 1 :], strict=True)
        ]
        self.decoder = nn.ModuleList(decoder)
        self.head = nn.Sequential(
            Conv[Conv.CONV, spatial_dims](decoder[-1].out_channels, out_channels, kernel_size=1),
            ScaledTanh(),
        )

    def forward(self, image: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return images (B, out_channels, *S) of values in [0, 1].

        Args:
            image: stacks of planes (B, in_channels, *S), in [0, 1].
            meta: encoded metadata (B, M); None for a network without metadata, or for the
                unknown vector where the network has one.

        Raises:
            ValueError: the number of axes of `image`, or the batch or width of `meta`, is wrong.
        """
        check_axes(image, self.spatial_dims)
        meta = self.meta_input(meta, image)
        x, skips = self.features(image, meta)
        for up, block in zip(self.up, self.decoder, strict=True):
            skip = skips.pop()
            x = block(torch.cat([up(x, skip), skip], dim=1), meta)
        return self.head(x)
