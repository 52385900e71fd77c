"""PPUnet: Unet3 with skips between encoder levels and pyramid pooling behind the middle."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.layers.factories import Conv, Norm, Pool
from torch import Tensor, nn

from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.networks.gates import HiddenFrom, Start
from metaseg_monai.networks.loading import refuse_strange_weights
from metaseg_monai.networks.unet3 import (
    GatedTriple,
    GatesAtPlaces,
    check_axes,
    check_sizes,
    gate_places,
)
from metaseg_monai.networks.variants import (
    MECHANISMS,
    base_variant,
    meta_input_of,
    without_effect,
)

SCALES = (2, 3, 4, 6, 8)  # five, as in the thesis, which does not tell them; repeated beyond five


class PPUnet(nn.Module):
    """The larger network of the thesis (3.3, figure 3.3), gated by image and metadata.

    The thesis tells its parts (the trunk of `Unet3`, a pyramid of five pooled scales, skips from
    encoder level to encoder level) and its size, 2.10 million parameters and 2.25 million with SE
    gates, but not how they are joined. This is one wiring of that size, and claims no more: with
    its defaults and variant "none" it has 2,109,442 parameters, with "se" and `reduction=2`
    2,258,434. In it

    - an encoder level, and the middle, take the max-pooled outputs of the two levels before;
    - behind the middle its mean over grids of 2, 3, 4, 6 and 8 cells an axis goes through a
      convolution each; the five branches, behind a gate that weighs them, and the middle itself
      make what the decoder begins with;
    - a decoder level takes, beside what comes from below and the skip, its own branch, the
      deepest that of the coarsest grid.

    The grids are laid over the **whole picture that the network is given**, and so each answer
    depends on all of it: an image in windows is answered otherwise than at once, and windows at
    inference should be like the crops of the training. Any image size from 1 up works and is kept.

    Args:
        schema: the metadata's schema; as all that follows as of `Unet3`.
        variant: see `Unet3`.
        in_channels: channels of the image.
        out_channels: K, the classes, background included.
        channels: C, the filters of every convolution.
        levels: how often the image is halved, and how many branches the pyramid has.
        reduction: r of the gates' hidden width; the pyramid's gate has levels * C channels.
        places: which of `gate_places` and "pyramid" get a gate; None for all. A mechanism of
            `metaseg_monai.networks.MECHANISMS` stands in levels only.
        spatial_dims: 2 or 3.
        hidden_from: "channels" or "inputs".
        shift: se, me and sme give x * s + b.
        start: "paper" or "neutral".
        meta_features: without a schema: M.
        unknown_trained: with a schema: training drops metadata.

    Raises:
        ConfigError: a setting is unknown, out of range, or does not go with another.

    >>> network = PPUnet(variant="sme", meta_features=3, channels=8, levels=2)
    >>> network(torch.rand(2, 1, 33, 47), torch.eye(2, 3)).shape
    torch.Size([2, 2, 33, 47])
    """

    def __init__(
        self,
        schema: MetadataSchema | None = None,
        variant: str = "sme",
        in_channels: int = 1,
        out_channels: int = 2,
        channels: int = 64,
        levels: int = 5,
        reduction: float = 4,
        places: Sequence[str] | None = None,
        spatial_dims: int = 2,
        *,
        hidden_from: HiddenFrom = "channels",
        shift: bool = False,
        start: Start = "paper",
        meta_features: int | None = None,
        unknown_trained: bool = False,
    ) -> None:
        super().__init__()
        refuse_strange_weights(self)
        check_sizes(spatial_dims, in_channels, out_channels, channels, levels)
        self.variant = variant
        self.spatial_dims = spatial_dims
        self.meta_input = meta_input_of(variant, schema, meta_features, unknown_trained)
        self.meta_features = self.meta_input.meta_features  # M; 0: reads no metadata
        names = gate_places(levels)
        down, up = names[: levels + 1], names[levels + 1 :]
        gates = GatesAtPlaces(
            *(variant, self.meta_features),
            names if base_variant(variant) in MECHANISMS else (*down, "pyramid", *up),
            places,
            reduction=reduction,
            hidden_from=hidden_from,
            shift=shift,
            start=start,
        )

        def level(place: str, inputs: int) -> GatedTriple:
            return gates.level(place, inputs, channels, spatial_dims)

        widths = [in_channels, channels, *[2 * channels] * (levels - 1)]
        self.encoder = nn.ModuleList(map(level, names[:levels], widths))
        self.pool = Pool[Pool.MAX, spatial_dims](kernel_size=2, ceil_mode=True)
        self.middle = level("middle", widths[levels])
        scales = sorted(SCALES[number % len(SCALES)] for number in range(levels))
        self.pyramid = PyramidPooling(
            channels, scales, gates.gate_at("pyramid", levels * channels), spatial_dims
        )
        self.decoder = nn.ModuleList(level(name, 3 * channels) for name in up)
        self.head = Conv[Conv.CONV, spatial_dims](channels, out_channels, kernel_size=1)

    @staticmethod
    def without_effect(arguments: Mapping[str, Any]) -> set[str]:
        """Which of these arguments do nothing, so that weights are not told by them."""
        return without_effect(arguments["variant"])

    def forward(self, image: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return the logits (B, K, *S).

        Args:
            image: images (B, in_channels, *S).
            meta: encoded metadata (B, M); None for a network without metadata, or for the
                unknown vector where the network has one.

        Raises:
            ValueError: the number of axes of `image`, or the batch or width of `meta`, is wrong.
        """
        check_axes(image, self.spatial_dims)
        meta = self.meta_input(meta, image)
        inputs = [image]
        skips: list[Tensor] = []
        for number, level in enumerate(self.encoder):
            skips.append(level(torch.cat(inputs, dim=1), meta))
            before = [self.pool(inputs[0])] if number > 0 else []
            inputs = [self.pool(skips[-1])] + before  # noqa: RUF005 TorchScript unpacks no lists
        x, branches = self.pyramid(self.middle(torch.cat(inputs, dim=1), meta), meta)
        for number, level in enumerate(self.decoder):
            skip = skips.pop()
            below = [F.interpolate(one, size=skip.shape[2:]) for one in (x, branches[number])]
            x = level(torch.cat([below[0], skip, below[1]], dim=1), meta)
        return self.head(x)


class PyramidPooling(nn.Module):
    """Features beside their means over grids of several scales (He et al. 2015, Zhao et al. 2017).

    The gate is called with all branches side by side before their ReLU, `meta` and rectify=True.

    Args:
        channels: C, of the features, of each branch and of what comes out.
        scales: cells an axis of each branch's grid.
        gate: over len(scales) * C channels.
        spatial_dims: 2 or 3.

    >>> from metaseg_monai.networks.gates import NoGate
    >>> pyramid = PyramidPooling(4, [2, 3], NoGate())
    >>> fused, branches = pyramid(torch.rand(2, 4, 9, 7))
    >>> fused.shape, len(branches), branches[0].shape
    (torch.Size([2, 4, 9, 7]), 2, torch.Size([2, 4, 9, 7]))
    """

    def __init__(
        self, channels: int, scales: Sequence[int], gate: nn.Module, spatial_dims: int = 2
    ) -> None:
        super().__init__()
        convolution, normalisation = Conv[Conv.CONV, spatial_dims], Norm[Norm.BATCH, spatial_dims]
        self.branches = nn.ModuleList(
            nn.Sequential(
                GridMean(scale),
                convolution(channels, channels, kernel_size=3, padding=1),
                normalisation(channels),
            )
            for scale in scales
        )
        self.gate = gate
        self.fuse = nn.Sequential(
            convolution((len(scales) + 1) * channels, channels, kernel_size=3, padding=1),
            normalisation(channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor, meta: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """Return the fused features (B, C, *S), and the gated branches, each (B, C, *S).

        Args:
            x: features (B, C, *S).
            meta: encoded metadata (B, M), or None, as the gate takes them.
        """
        branches = [F.interpolate(branch(x), size=x.shape[2:]) for branch in self.branches]
        gated = self.gate(torch.cat(branches, dim=1), meta, True)
        fused = self.fuse(torch.cat([x, gated], dim=1))
        return fused, gated.chunk(len(self.branches), dim=1)


class GridMean(nn.Module):
    """The mean of x over the cells of a grid, a pixel on an edge counting by its share in each.

    As adaptive pooling where the cells divide the size, and exported to ONNX for any size.

    >>> GridMean(2)(torch.tensor([[[[1.0, 2.0, 6.0]]]]))  # 1 and half of 2, half of 2 and 6
    tensor([[[[1.3333, 4.6667],
              [1.3333, 4.6667]]]])
    """

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, x: Tensor) -> Tensor:
        """Return the means (B, C, cells, ...) of x (B, C, *S)."""
        last = x.dim() - 1
        for axis in range(2, x.dim()):
            size = x.shape[axis]
            pixel = torch.arange(size, device=x.device, dtype=torch.float32)
            start = torch.arange(self.cells, device=x.device, dtype=torch.float32) * size
            start = (start / self.cells).unsqueeze(1)
            end = start + torch.full_like(start, size) / self.cells
            shares = torch.minimum(end, pixel + 1) - torch.maximum(start, pixel)
            shares = shares.clamp(min=0) / (end - start)
            turned = x.transpose(axis, last)
            x = torch.matmul(turned, shares.t().to(x.dtype)).transpose(axis, last)
        return x
