"""The two ways of giving metadata to a network that failed in the thesis' pilot (4.1)."""

from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks.gates import Start
from metaseg_monai.networks.mechanisms import Mechanism, convolution, like, over_space
from metaseg_monai.networks.meta_input import required_meta

CELLS = 8  # an axis of the picture of the metadata


class WeightNoise(Mechanism):
    """(W + sum_i m_i N_i) * x: for each entry of the metadata one fixed random tensor N_i.

    N_i is of the inputs by the kernel, 64 x 3 x 3 in the thesis, and is added to the weights of
    every filter, in training and test. It does not learn, and is stored with the weights. The
    network of the thesis learned to do without: its scores did not react to foreign metadata.

    Args:
        layer: the convolution W; in `Unet3` the last one of the middle.
        meta_features: M, the entries of the metadata.
        seed: of the noise, drawn evenly in the range in which convolutions start.

    Raises:
        ConfigError: `meta_features` is out of range, or `layer` is no convolution.

    >>> layer = nn.Conv2d(3, 8, 3, padding=1)
    >>> x = torch.rand(2, 3, 9, 7)
    >>> noise = WeightNoise(layer, meta_features=2)
    >>> noise(x, layer(x), torch.eye(2)).shape
    torch.Size([2, 8, 9, 7])
    >>> noise(x, layer(x), torch.zeros(2, 2)).equal(layer(x))
    True
    """

    behind = "convolution"
    middle = True
    neutral = False

    def __init__(self, layer: nn.Module, meta_features: int, seed: int = 0) -> None:
        super().__init__(meta_features)
        w = convolution(layer)
        self.noise = like(w, w.in_channels, meta_features)
        draw = torch.Generator().manual_seed(seed)
        values = 2 * torch.rand(self.noise.weight.shape, generator=draw) - 1
        del self.noise.weight  # a buffer instead of a parameter: it does not learn
        self.noise.register_buffer("weight", values * w.weight[0].numel() ** -0.5)

    def forward(self, x: Tensor, y: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return y + (sum_i m_i N_i) * x (B, C, *S)."""
        entries = required_meta(meta, x.shape[0], self.meta_features)
        noise = self.noise(x)
        return y + (noise * over_space(entries.to(noise.dtype), noise)).sum(dim=1, keepdim=True)


class MetaImage(Mechanism):
    """W * x + V * p: the metadata as a picture p in a second channel beside the image.

    The picture has 8 x 8 cells (more for more than 64 entries), each as bright as one entry of the
    metadata, which is drawn once and stored with the weights, so that it looks like a QR code.
    Zeros are a black picture, with which the network of the thesis did better than with the right
    one. A window is given the whole picture.

    Args:
        layer: the convolution W that is given the image.
        meta_features: M, the entries of the metadata.
        start: "paper" for V as every convolution starts, "neutral" for V = 0.
        seed: which entry is drawn in which cell.

    Raises:
        ConfigError: a setting is out of range, or `layer` is no convolution.

    >>> layer = nn.Conv2d(1, 8, 3, padding=1)
    >>> x = torch.rand(2, 1, 9, 7)
    >>> picture = MetaImage(layer, meta_features=2)
    >>> picture(x, layer(x), torch.eye(2)).shape, picture.drawn(torch.eye(2), x).shape
    (torch.Size([2, 8, 9, 7]), torch.Size([2, 1, 9, 7]))
    """

    behind = "image"
    entry: Tensor  # in each cell

    def __init__(
        self, layer: nn.Module, meta_features: int, *, start: Start = "paper", seed: int = 0
    ) -> None:
        super().__init__(meta_features)
        if start not in ("paper", "neutral"):
            raise ConfigError(f"start must be 'paper' or 'neutral', got {start!r}")
        w = convolution(layer)
        self.v = like(w, 1, w.out_channels)
        if start == "neutral":
            nn.init.zeros_(self.v.weight)
        self.cells = max(CELLS, ceil(meta_features**0.5))
        draw = torch.Generator().manual_seed(seed)
        entry = torch.randperm(self.cells**2, generator=draw) % meta_features
        self.register_buffer("entry", entry)

    def drawn(self, meta: Tensor, x: Tensor) -> Tensor:
        """Return the pictures (B, 1, *S) of metadata (B, M) for images x (B, C, *S)."""
        picture = meta.index_select(1, self.entry).view(-1, 1, self.cells, self.cells)
        if x.dim() == 3:  # a signal has its cells in a row
            picture = picture.flatten(2)
        if x.dim() == 5:  # every plane has the same
            picture = picture.unsqueeze(-1)
        return F.interpolate(picture, size=x.shape[2:], mode="nearest")

    def forward(self, x: Tensor, y: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return y + V * p (B, C, *S)."""
        entries = required_meta(meta, x.shape[0], self.meta_features)
        return y + self.v(self.drawn(entries.to(x.dtype), x))
