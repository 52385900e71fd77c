"""NucleiLupiUnet: fluorescence of nuclei, told by a segmentation that only training knows."""

from collections.abc import Sequence
from typing import Literal

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.networks.dense_unet import (
    DenseBlock,
    DenseTrunk,
    ScaledTanh,
    ShuffledUp,
    check_dense,
)
from metaseg_monai.networks.gates import HiddenFrom, Start
from metaseg_monai.networks.unet3 import GatesAtPlaces, check_axes, check_sizes, gate_places
from metaseg_monai.networks.variants import MECHANISMS, base_variant, meta_input_of

CLASSES = 2  # background and nucleus
LAST_LAYERS, LAST_GROWTH = 2, 2  # of the block that sees no segmentation (report 3.1)


class NucleiLupiUnet(DenseTrunk):
    """The nuclei model of the adipocyte report (3, figure 3): one encoder and two decoders.

    The segmentation decoder, without skips, learns the mask of the nuclei, which is privileged: a
    teacher's hint that training alone has (Vapnik and Izmailov 2015). What it has found before
    each step up is multiplied into the regression decoder, which gives the fluorescence. A small
    dense block that sees none of it ends this one. In training the fluorescence is also given at
    the lower levels, by 1x1 convolutions, for the loss-weight modules (`losses.LupiLoss`). With
    its defaults it has 1,602,166 parameters, which the report calls 1.6 million.

    Args:
        schema: as all that follows as of `DenseUnetGenerator`.
        variant: "none" is the report's.
        in_channels: planes of the stack.
        channels: of the first convolution.
        levels: how often the image is halved.
        growth: channels that each layer of a dense block adds.
        layers: of a dense block.
        dropout: part of the values that training sets to 0 behind each convolution.
        reduction: r of the gates' hidden width, round(C / r).
        places: which of `gate_places`, and of the segmentation decoder's "segmentation4" and so
            on, get a gate; None for all. A mechanism stands in `gate_places` only.
        spatial_dims: 2 or 3.
        attention: "product" with the segmentation decoder's features (report 3), or "sum" with
            them (the team's code).
        hidden_from: as of `Unet3`.
        shift: as of `Unet3`.
        start: "neutral" or "paper".
        meta_features: without a schema: M.
        unknown_trained: as of `Unet3`.

    Raises:
        ConfigError: a setting is unknown, out of range, or does not go with another.

    >>> network = NucleiLupiUnet(channels=8, levels=2).eval()
    >>> fluorescence, logits = network.parts(network(torch.rand(2, 7, 33, 47)))
    >>> fluorescence.shape, logits.shape
    (torch.Size([2, 1, 33, 47]), torch.Size([2, 2, 33, 47]))
    >>> [tuple(one.shape[1:]) for one in network.train()(torch.rand(2, 7, 33, 47))]
    [(3, 33, 47), (1, 17, 24)]
    """

    def __init__(
        self,
        schema: MetadataSchema | None = None,
        variant: str = "none",
        in_channels: int = 7,
        channels: int = 32,
        levels: int = 4,
        growth: int = 12,
        layers: int = 4,
        dropout: float = 0.2,
        reduction: float = 4,
        places: Sequence[str] | None = None,
        spatial_dims: int = 2,
        *,
        attention: Literal["product", "sum"] = "product",
        hidden_from: HiddenFrom = "channels",
        shift: bool = False,
        start: Start = "neutral",
        meta_features: int | None = None,
        unknown_trained: bool = False,
    ) -> None:
        check_sizes(spatial_dims, in_channels, 1, channels, levels)
        check_dense(growth, layers, dropout)
        if attention not in ("product", "sum"):
            raise ConfigError(f"attention must be 'product' or 'sum', got {attention!r}")
        meta_input = meta_input_of(variant, schema, meta_features, unknown_trained)
        names = gate_places(levels)
        down, up = names[: levels + 1], names[levels + 1 :]
        segmenting = [f"segmentation{level}" for level in range(levels, 0, -1)]
        gates = GatesAtPlaces(
            *(variant, meta_input.meta_features),
            names if base_variant(variant) in MECHANISMS else (*down, *segmenting, *up),
            places,
            reduction=reduction,
            hidden_from=hidden_from,
            shift=shift,
            start=start,
        )
        sizes = (in_channels, channels, levels, growth, layers, dropout, spatial_dims)
        super().__init__(variant, meta_input, gates, *sizes)
        self.attention = attention
        pointwise = Conv[Conv.CONV, spatial_dims]

        def blocks(inputs: Sequence[int], places: Sequence[str]) -> list[DenseBlock]:
            return [
                DenseBlock(
                    *(width, growth, layers, dropout),
                    keeps_input=place == places[-1],
                    spatial_dims=spatial_dims,
                ).gated(gates, place)
                for width, place in zip(inputs, places, strict=True)
            ]

        def ups() -> nn.ModuleList:
            return nn.ModuleList(ShuffledUp(self.new, spatial_dims) for _ in range(levels))

        segmentation = blocks([self.new] * levels, segmenting)
        self.segmentation_up = ups()
        self.segmentation = nn.ModuleList(segmentation)
        self.segmentation_head = pointwise(segmentation[-1].out_channels, CLASSES, kernel_size=1)
        decoder = blocks([self.new + width for width in self.widths[::-1]], up)
        self.up = ups()
        self.decoder = nn.ModuleList(decoder)
        self.scale_heads = nn.ModuleList(
            pointwise(self.new, 1, kernel_size=1) for _ in range(levels - 1)
        )
        self.last = DenseBlock(
            decoder[-1].out_channels, LAST_GROWTH, LAST_LAYERS, dropout, True, spatial_dims
        )
        self.head = nn.Sequential(pointwise(self.last.out_channels, 1, kernel_size=1), ScaledTanh())

    def forward(self, image: Tensor, meta: Tensor | None = None) -> Tensor | list[Tensor]:
        """Return fluorescence and logits of the mask side by side, (B, 3, *S); see `parts`.

        In training these and, from the finest, the fluorescence at each lower level (B, 1, ...),
        whose values no tanh bounds.

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
        s = x
        scales: list[Tensor] = []
        for up, block, s_up, s_block in zip(
            self.up, self.decoder, self.segmentation_up, self.segmentation, strict=True
        ):
            skip = skips.pop()
            attended = x * s if self.attention == "product" else x + s
            x = block(torch.cat([up(attended, skip), skip], dim=1), meta)
            s = s_block(s_up(s, skip), meta)
            scales.append(x)
        joined = torch.cat([self.head(self.last(x)), self.segmentation_head(s)], dim=1)
        if not self.training:
            return joined
        answers: list[Tensor] = []
        for number, head in enumerate(self.scale_heads):
            answers.append(head(scales[number]))
        answers.append(joined)
        return answers[::-1]

    @staticmethod
    def parts(pred: Tensor) -> tuple[Tensor, Tensor]:
        """Split an answer (B, 3, *S) into fluorescence (B, 1, *S) and logits (B, 2, *S)."""
        return pred[:, :1], pred[:, 1:]
