"""Mechanisms beyond channel gates: other ways in which metadata steer a layer of a network.

A mechanism stands behind a layer. It is called with the layer's input x, its output y and the
metadata, and gives what is used in the place of y. Each works in 2D and 3D, for images of one
batch that have different metadata, and in exports.
"""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks.gates import FeatureWiseLinearModulation, Start
from metaseg_monai.networks.meta_input import required_meta

CONVOLUTIONS = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
)
HIDDEN = 16  # neurons between the metadata and the weights of a mechanism


class Mechanism(nn.Module):
    """What all mechanisms share: the layers they stand behind, and that each reads metadata.

    Args:
        meta_features: M, the entries of the metadata.

    Raises:
        ConfigError: `meta_features` is below 1.
    """

    reads_meta: ClassVar[bool] = True
    meta_layer: ClassVar[str] = ""  # as of `ChannelGate`
    behind: ClassVar[Literal["convolution", "normalisation", "image"]]  # "image": the convolutions
    # that are given the image itself
    outer: ClassVar[bool] = False  # meant for few layers: in a Unet3 the first and last level's
    middle: ClassVar[bool] = False  # meant for the middle level of a Unet3
    neutral: ClassVar[bool] = True  # can start as if it were not there

    def __init__(self, meta_features: int) -> None:
        super().__init__()
        if meta_features < 1:
            raise ConfigError(
                f"{type(self).__name__} reads metadata: meta_features must be 1 or more, the "
                f"width of the metadata schema, got {meta_features}"
            )
        self.meta_features = meta_features

    def forward(self, x: Tensor, y: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return what takes the place of y (B, C, *S).

        Args:
            x: the layer's input (B, D, *T).
            y: the layer's output (B, C, *S).
            meta: encoded metadata (B, M).

        Raises:
            ValueError: the batch or width of `meta` is wrong.
        """
        raise NotImplementedError


class NoMechanism(nn.Module):
    """The place of a mechanism left empty."""

    def forward(self, x: Tensor, y: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return y (B, C, *S)."""
        return y


class AdaptiveNorm(Mechanism):
    """y * (1 + gamma) + beta behind a normalisation, (gamma, beta) = W2 relu(W1 m).

    The normalisation's own scale and shift then depend on the metadata, as in conditional
    normalisation (Dumoulin et al. 2017). gamma and beta are 0 at first.

    Args:
        channels: C, the channels that are normalised.
        meta_features: M, the entries of the metadata.
        reduction: r; the hidden layer has round(C / r) neurons.

    Raises:
        ConfigError: a setting is out of range.

    >>> norm = nn.InstanceNorm2d(8)
    >>> x = torch.rand(2, 8, 9, 7)
    >>> AdaptiveNorm(8, meta_features=2)(x, norm(x), torch.eye(2)).equal(norm(x))
    True
    """

    behind = "normalisation"

    def __init__(self, channels: int, meta_features: int, reduction: float = 4) -> None:
        super().__init__(meta_features)
        self.modulation = FeatureWiseLinearModulation(
            channels, meta_features, reduction, start="neutral"
        )

    def forward(self, x: Tensor, y: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return y * (1 + gamma) + beta (B, C, *S)."""
        return self.modulation(y, meta)


class LowRank(Mechanism):
    """(W + B diag(g(m)) A) * x: a convolution plus one of low rank, weighted by the metadata.

    A has the geometry of W and `rank` filters, B is 1x1 and 0 at first, so that a trained network
    starts as it was (LoRA, Hu et al. 2022); g is a network of two layers.

    Args:
        layer: the convolution W, also a transposed one.
        meta_features: M, the entries of the metadata.
        rank: of B diag(g) A.

    Raises:
        ConfigError: a setting is out of range, or `layer` is no convolution.

    >>> layer = nn.Conv2d(3, 8, 3, stride=2)
    >>> x = torch.rand(2, 3, 9, 7)
    >>> LowRank(layer, meta_features=2)(x, layer(x), torch.eye(2)).equal(layer(x))
    True
    """

    behind = "convolution"
    meta_layer = "g.0"

    def __init__(self, layer: nn.Module, meta_features: int, rank: int = 4) -> None:
        super().__init__(meta_features)
        if rank < 1:
            raise ConfigError(f"rank must be 1 or more, got {rank}")
        w = convolution(layer)
        pointwise = CONVOLUTIONS[w.weight.dim() - 3]
        self.a = like(w, w.in_channels, rank)
        self.b = pointwise(rank, w.out_channels, kernel_size=1, bias=False)
        nn.init.zeros_(self.b.weight)
        self.g = nn.Sequential(nn.Linear(meta_features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, rank))

    def forward(self, x: Tensor, y: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return y + B (g(m) * A x) (B, C, *S)."""
        g = self.g(required_meta(meta, x.shape[0], self.meta_features).to(x.dtype))
        ax = self.a(x)
        return y + self.b(ax * over_space(g, ax))


class HyperKernel(Mechanism):
    """(W + K(m)) * x: a hypernetwork makes the kernels K(m) = sum_j h_j(m) K_j of a convolution.

    h is a network of two layers with outputs in (-1, 1), made for continuous metadata (Ha et al.
    2017); the K_j are 0 at first. sum_j h_j (K_j * x) is one convolution of `kernels` times the
    input channels, so that images of one batch may have different kernels, also in exports.

    Args:
        layer: the convolution W, also a transposed one.
        meta_features: M, the entries of the metadata.
        kernels: J, how many kernels K_j are mixed.

    Raises:
        ConfigError: a setting is out of range, or `layer` is no convolution.

    >>> layer = nn.Conv3d(3, 8, 3, padding=1)
    >>> x = torch.rand(2, 3, 9, 7, 5)
    >>> HyperKernel(layer, meta_features=2)(x, layer(x), torch.eye(2)).equal(layer(x))
    True
    """

    behind = "convolution"
    meta_layer = "h.0"
    outer = True

    def __init__(self, layer: nn.Module, meta_features: int, kernels: int = 4) -> None:
        super().__init__(meta_features)
        if kernels < 1:
            raise ConfigError(f"kernels must be 1 or more, got {kernels}")
        w = convolution(layer)
        self.kernels = like(w, kernels * w.in_channels, w.out_channels)
        nn.init.zeros_(self.kernels.weight)
        self.h = nn.Sequential(
            nn.Linear(meta_features, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, kernels), nn.Tanh()
        )

    def forward(self, x: Tensor, y: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return y + K(m) * x (B, C, *S)."""
        h = self.h(required_meta(meta, x.shape[0], self.meta_features).to(x.dtype))
        x = x.unsqueeze(1)
        return y + self.kernels((x * over_space(h, x)).flatten(1, 2))


class ConstantChannels(Mechanism):
    """The metadata as constant channels beside the image: everybody's first idea, a baseline.

    W * x + V * (m at every pixel) is what a first convolution with M more input channels gives.
    Behind it an instance normalisation takes out a constant again, so that the metadata reach the
    network by what differs at the image's edge only.

    Args:
        layer: the convolution W that is given the image.
        meta_features: M, the entries of the metadata.
        start: "paper" for V as every convolution starts, "neutral" for V = 0.

    Raises:
        ConfigError: a setting is out of range, or `layer` is no convolution.

    >>> layer = nn.Conv2d(1, 8, 3, padding=1)
    >>> x = torch.rand(2, 1, 9, 7)
    >>> ConstantChannels(layer, meta_features=2)(x, layer(x), torch.eye(2)).shape
    torch.Size([2, 8, 9, 7])
    """

    behind = "image"

    def __init__(self, layer: nn.Module, meta_features: int, *, start: Start = "paper") -> None:
        super().__init__(meta_features)
        if start not in ("paper", "neutral"):
            raise ConfigError(f"start must be 'paper' or 'neutral', got {start!r}")
        w = convolution(layer)
        self.v = like(w, meta_features, w.out_channels)
        if start == "neutral":
            nn.init.zeros_(self.v.weight)

    def forward(self, x: Tensor, y: Tensor, meta: Tensor | None = None) -> Tensor:
        """Return y + V * (m at every pixel of x) (B, C, *S)."""
        entries = required_meta(meta, x.shape[0], self.meta_features).to(x.dtype)
        return y + self.v(torch.zeros_like(x[:, :1]) + over_space(entries, x))


def over_space(values: Tensor, x: Tensor) -> Tensor:
    """Append axes of length 1 to values (B, N) until they are as many as those of x."""
    for _ in range(x.dim() - values.dim()):
        values = values.unsqueeze(-1)
    return values


def convolution(layer: nn.Module) -> _ConvNd:
    """The layer, if it is a convolution.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(layer, _ConvNd):
        raise ConfigError(f"expected a convolution to act on, got {type(layer).__name__}")
    return layer


def like(layer: _ConvNd, inputs: int, outputs: int) -> _ConvNd:
    """A convolution without bias and groups, of the geometry of another."""
    made: type[Any] = next(kind for kind in CONVOLUTIONS if isinstance(layer, kind))
    settings = {
        "kernel_size": layer.kernel_size,
        "stride": layer.stride,
        "padding": layer.padding,
        "dilation": layer.dilation,
        "padding_mode": layer.padding_mode,
    }
    if isinstance(layer, _ConvTransposeNd):
        settings["output_padding"] = layer.output_padding
    convolution: _ConvNd = made(inputs, outputs, bias=False, **settings)
    return convolution
