"""Three convolutions and a gate: one level of Unet3 (thesis 3.3)."""

from typing import Optional

from monai.networks.layers.factories import Conv, Norm
from torch import Tensor, nn

# TorchScript reads the annotations, and knows only Optional[...]:
# ruff: noqa: UP045


class GatedTriple(nn.Module):
    """Three times convolution, batch normalisation and ReLU, then a gate.

    Args:
        in_channels: channels of the input.
        channels: C, channels of each convolution.
        gate: the module called with the features (B, C, *S) and `meta`. It must apply the last
            of the three ReLU (`rectify=True`), which costs less there.
        spatial_dims: 2 or 3.

    >>> import torch
    >>> from metaseg_monai.networks import SqueezeExcite
    >>> level = GatedTriple(1, 8, SqueezeExcite(8, rectify=True))
    >>> level(torch.rand(2, 1, 9, 7)).shape
    torch.Size([2, 8, 9, 7])
    """

    def __init__(
        self, in_channels: int, channels: int, gate: nn.Module, spatial_dims: int = 2
    ) -> None:
        super().__init__()
        convolution, normalisation = Conv[Conv.CONV, spatial_dims], Norm[Norm.BATCH, spatial_dims]
        self.convolutions = nn.Sequential(
            convolution(in_channels, channels, kernel_size=3, padding=1),
            normalisation(channels),
            nn.ReLU(inplace=True),
            convolution(channels, channels, kernel_size=3, padding=1),
            normalisation(channels),
            nn.ReLU(inplace=True),
            convolution(channels, channels, kernel_size=3, padding=1),
            normalisation(channels),
        )
        self.gate = gate

    def forward(self, x: Tensor, meta: Optional[Tensor] = None) -> Tensor:
        """Return gate(features of x, meta) (B, C, *S) for x (B, in_channels, *S)."""
        return self.gate(self.convolutions(x), meta)
