"""Gates: blocks that re-weight channels by what the image holds and by what its metadata say.

Every gate turns features x (B, C, *S) and metadata (B, M) into x * scale + shift, with one scale
and one shift for each image and channel. A gate is told by what it reads, the image, the metadata
or both, and by its excitation, which makes scale and shift of that. It works in 2D and 3D alike.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks.fused import fused_gate, fusible
from metaseg_monai.networks.meta_input import required_meta


class ChannelGate(nn.Module):
    """What all gates share: squeeze, then `excite` (left to each gate), then scale and shift.

    In eager mode it runs as one autograd node (`networks.fused`), which has no second derivatives;
    `gate.fused = False` takes plain operations, as TorchScript, tracing and compiling always do.

    Args:
        meta_features: M, the entries of the metadata; 0 for a gate that reads none.
        only_scales: `excite` never gives a shift, and its scale is always above 0, as a sigmoid
            is: a ReLU before the gate can then be undone, which saves a copy of the features.

    Raises:
        ConfigError: `meta_features` does not go with `reads_meta`.
    """

    reads_image: ClassVar[bool]  # `excite` gets the mean of the features
    reads_meta: ClassVar[bool]  # `excite` gets the metadata

    def __init__(self, meta_features: int = 0, *, only_scales: bool = False) -> None:
        super().__init__()
        if self.reads_meta != (meta_features > 0):
            wanted = "1 or more, the width of the metadata schema" if self.reads_meta else "0"
            raise ConfigError(
                f"{type(self).__name__} has reads_meta={self.reads_meta}: meta_features must be "
                f"{wanted}, got {meta_features}"
            )
        self.meta_features = meta_features
        self.squeezes = self.reads_image
        self.only_scales = only_scales
        self.fused = True

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return scale (B, C), and shift (B, C) or None.

        Args:
            z: mean of the features over the pixels (B, C); (B, 0) for a gate that does not read
                the image.
            meta: encoded metadata (B, M); (B, 0) for a gate that does not read them.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, meta: Tensor | None = None, rectify: bool = False) -> Tensor:
        """Return x * scale + shift (B, C, *S).

        Args:
            x: features (B, C, *S).
            meta: encoded metadata (B, M); None for a gate without metadata.
            rectify: take relu(x) for x, which costs less here than before the gate. As with
                `ReLU(inplace=True)`, x is overwritten.

        Raises:
            ValueError: x has no spatial axis, or the batch or width of `meta` is wrong.
        """
        if x.dim() < 3:
            raise ValueError(f"expected features (B, C, *S), got {x.dim()} axes in all")
        entries = required_meta(meta, x.shape[0], self.meta_features).to(x.dtype)
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            fuse = self.fused and fusible(x)
            if fuse:
                return self._fused(x, entries, rectify)
        if rectify:
            x = F.relu(x)
        space = list(range(2, x.dim()))
        z = x.mean(space) if self.squeezes else x.new_empty((x.shape[0], 0))
        scale, shift = self.excite(z, entries)
        y = x * _over_space(scale.to(x.dtype), len(space))
        return y if shift is None else y + _over_space(shift.to(x.dtype), len(space))

    @torch.jit.unused
    def _fused(self, x: Tensor, meta: Tensor, rectify: bool) -> Tensor:
        if rectify and not self.only_scales:
            x = F.relu(x, inplace=True)
        weights = tuple(self.parameters())
        return fused_gate(
            x, meta, self.excite, weights, self.squeezes, rectify and self.only_scales
        )


def _over_space(values: Tensor, axes: int) -> Tensor:
    """Append spatial axes of length 1 to values (B, C)."""
    for _ in range(axes):
        values = values.unsqueeze(-1)
    return values


class NoGate(nn.Module):
    """The place of a gate left empty."""

    def forward(self, x: Tensor, meta: Tensor | None = None, rectify: bool = False) -> Tensor:
        """Return x (B, C, *S), or relu(x) in its place; `meta` is for the gates elsewhere."""
        return F.relu(x, inplace=True) if rectify else x


def hidden_width(inputs: int, reduction: float) -> int:
    """Return round(inputs / reduction), halves to the even neighbour.

    The paper (2.1) has inputs = C and reduction 4; the thesis (4.1) reduction 2, and for SME
    inputs = C + M; it also tried 1, 1.5 and 1.8 (4.5).

    Raises:
        ConfigError: `reduction` is not positive, or leaves no hidden neuron.

    >>> hidden_width(64, 4), hidden_width(64 + 6, 2), hidden_width(64, 1.5)
    (16, 35, 43)
    """
    width = round(inputs / reduction) if reduction > 0 else 0
    if width < 1:
        raise ConfigError(
            f"reduction={reduction} of {inputs} inputs leaves {width} hidden neurons: "
            f"choose a reduction above 0 and at most {inputs}"
        )
    return width


class Excitation(nn.Module):
    """s = sigmoid(W2 relu(W1 d)), and with `shift` the second half of W2's outputs as b.

    The scale alone is the block of Squeeze-and-Excitation (Hu et al. 2018, thesis equation 2.1).
    x * s + b is what the paper's public code does, and DAFT (Wolf et al. 2022) before it.
    """

    def __init__(self, inputs: int, hidden: int, channels: int, shift: bool) -> None:
        super().__init__()
        self.shift = shift
        self.reduce = nn.Linear(inputs, hidden)
        self.expand = nn.Linear(hidden, 2 * channels if shift else channels)

    def forward(self, descriptor: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return s (B, C) in (0, 1), and b (B, C) or None, for a descriptor (B, D)."""
        logits = self.expand(torch.relu(self.reduce(descriptor)))
        if self.shift:
            s, b = logits.chunk(2, dim=1)
            return torch.sigmoid(s), b
        return torch.sigmoid(logits), None


class SqueezeExcite(ChannelGate):
    """SE: x * sigmoid(W2 relu(W1 z)) with z the mean of x over the pixels (Hu et al. 2018).

    Args:
        channels: C, the channels of the features.
        reduction: r; the hidden layer has round(C / r) neurons. 4 in the paper (2.1), 2 in the
            thesis (4.1).
        shift: x * s + b instead of x * s.

    Raises:
        ConfigError: `reduction` is out of range.

    >>> SqueezeExcite(64)(torch.rand(2, 64, 9, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    reads_image = True
    reads_meta = False

    def __init__(self, channels: int, reduction: float = 4, *, shift: bool = False) -> None:
        super().__init__(only_scales=not shift)
        self.excitation = Excitation(channels, hidden_width(channels, reduction), channels, shift)

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Excite by z (B, C)."""
        return self.excitation(z)


class MetadataExcite(ChannelGate):
    """ME: x * sigmoid(W2 relu(W1 m)), metadata in the place of the squeeze (paper 2.1).

    Args:
        channels: C, the channels of the features.
        meta_features: M, the entries of the metadata.
        reduction: r; the hidden layer has round(C / r) neurons, as in SE (thesis 4.1, variant 5).
        shift: x * s + b instead of x * s.

    Raises:
        ConfigError: `meta_features` or `reduction` is out of range.

    >>> MetadataExcite(64, meta_features=7)(torch.rand(2, 64, 9, 7), torch.eye(2, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    reads_image = False
    reads_meta = True

    def __init__(
        self, channels: int, meta_features: int, reduction: float = 4, *, shift: bool = False
    ) -> None:
        super().__init__(meta_features, only_scales=not shift)
        hidden = hidden_width(channels, reduction)
        self.excitation = Excitation(meta_features, hidden, channels, shift)

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Excite by metadata (B, M)."""
        return self.excitation(meta)


class SqueezeMetadataExcite(ChannelGate):
    """SME: x * sigmoid(W2 relu(W1 [z, m])), metadata beside the squeeze (paper 2.1).

    Args:
        channels: C, the channels of the features.
        meta_features: M, the entries of the metadata.
        reduction: r of the hidden width.
        hidden_from: "channels" for round(C / r) hidden neurons (paper 2.1, r = 4), "inputs" for
            round((C + M) / r) (thesis 4.1, r = 2).
        shift: x * s + b instead of x * s; this is DAFT (Wolf et al. 2022).

    Raises:
        ConfigError: `meta_features`, `reduction` or `hidden_from` is out of range.

    >>> SqueezeMetadataExcite(64, meta_features=7)(torch.rand(2, 64, 9, 7), torch.eye(2, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    reads_image = True
    reads_meta = True

    def __init__(
        self,
        channels: int,
        meta_features: int,
        reduction: float = 4,
        *,
        hidden_from: Literal["channels", "inputs"] = "channels",
        shift: bool = False,
    ) -> None:
        super().__init__(meta_features, only_scales=not shift)
        if hidden_from not in ("channels", "inputs"):
            raise ConfigError(f"hidden_from must be 'channels' or 'inputs', got {hidden_from!r}")
        inputs = channels + meta_features
        hidden = hidden_width(inputs if hidden_from == "inputs" else channels, reduction)
        self.excitation = Excitation(inputs, hidden, channels, shift)

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Excite by z (B, C) and metadata (B, M) side by side."""
        return self.excitation(torch.cat([z, meta], dim=1))


class FeatureWiseLinearModulation(ChannelGate):
    """FiLM: x * (1 + gamma) + beta with (gamma, beta) = W2 relu(W1 m) (Perez et al. 2018).

    Args:
        channels: C, the channels of the features.
        meta_features: M, the entries of the metadata.
        reduction: r; the hidden layer has round(C / r) neurons, as in ME.

    Raises:
        ConfigError: `meta_features` or `reduction` is out of range.

    >>> gate = FeatureWiseLinearModulation(64, meta_features=7)
    >>> gate(torch.rand(2, 64, 9, 7), torch.eye(2, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    reads_image = False
    reads_meta = True

    def __init__(self, channels: int, meta_features: int, reduction: float = 4) -> None:
        super().__init__(meta_features)
        hidden = hidden_width(channels, reduction)
        self.modulation = nn.ModuleDict(
            {"hidden": nn.Linear(meta_features, hidden), "film": nn.Linear(hidden, 2 * channels)}
        )

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return 1 + gamma and beta, both (B, C) and unbounded, for metadata (B, M)."""
        hidden = torch.relu(self.modulation["hidden"](meta))
        gamma, beta = self.modulation["film"](hidden).chunk(2, dim=1)
        return 1 + gamma, beta


class IvadomedFeatureWiseLinearModulation(ChannelGate):
    """FiLM as ivadomed builds it: x * gamma + beta, both in (0, 1) (Lemay et al. 2021).

    (gamma, beta) = sigmoid(W3 sigmoid(W2 sigmoid(W1 m))) with hidden widths 64 and 16. The paper's
    FiLM rows (3.1, tables 1 and 2) are this gate.

    Args:
        channels: C, the channels of the features.
        meta_features: M, the entries of the metadata.

    Raises:
        ConfigError: `meta_features` is out of range.

    >>> gate = IvadomedFeatureWiseLinearModulation(64, meta_features=7)
    >>> gate(torch.rand(2, 64, 9, 7), torch.eye(2, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    reads_image = False
    reads_meta = True

    def __init__(self, channels: int, meta_features: int) -> None:
        super().__init__(meta_features)
        self.modulation = nn.ModuleDict(
            {
                "first": nn.Linear(meta_features, 64),
                "second": nn.Linear(64, 16),
                "film": nn.Linear(16, 2 * channels),
            }
        )

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return gamma and beta, both (B, C), for metadata (B, M)."""
        hidden = torch.sigmoid(self.modulation["first"](meta))
        hidden = torch.sigmoid(self.modulation["second"](hidden))
        gamma, beta = torch.sigmoid(self.modulation["film"](hidden)).chunk(2, dim=1)
        return gamma, beta
