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
    meta_layer: ClassVar[str] = ""  # the linear layer whose last inputs these are, if it can grow

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
            # what follows without `rectify` may work in place, which autograd forbids on the view
            # that a subclass such as MetaTensor makes of the node's output
            fuse = self.fused and fusible(x) and (rectify or type(x) is Tensor)
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


HiddenFrom = Literal["channels", "inputs"]


def check_flags(**flags: object) -> None:
    """Refuse what is neither True nor False; the text "no" would count as True.

    Raises:
        ConfigError: naming the argument.
    """
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ConfigError(f"{name} must be true or false, got {flag!r}")


def hidden_width(
    channels: int, reduction: float, inputs: int = 0, hidden_from: str = "channels"
) -> int:
    """Return round(C / r), or with `hidden_from` "inputs" round(inputs / r); halves to even.

    The paper (2.1) has C / r with reduction 4; the thesis (4.1) reduction 2, and for SME
    inputs = C + M; it also tried 1, 1.5 and 1.8 (4.5).

    Raises:
        ConfigError: `reduction` is not positive, or leaves no hidden neuron; `hidden_from` is
            neither.

    >>> hidden_width(64, 4), hidden_width(64, 2, 64 + 6, "inputs"), hidden_width(64, 1.5)
    (16, 35, 43)
    """
    if hidden_from not in ("channels", "inputs"):
        raise ConfigError(f"hidden_from must be 'channels' or 'inputs', got {hidden_from!r}")
    reduced = inputs if hidden_from == "inputs" else channels
    width = round(reduced / reduction) if reduction > 0 else 0
    if width < 1:
        raise ConfigError(
            f"reduction={reduction} of {reduced} inputs leaves {width} hidden neurons: "
            f"choose a reduction above 0 and at most {reduced}"
        )
    return width


Start = Literal["paper", "neutral"]


def last_layer(inputs: int, channels: int, shift: bool, start: str) -> nn.Linear:
    """Return the layer that gives the logits of `scale_and_shift`; zeros for a neutral start.

    Raises:
        ConfigError: `shift` is no flag, or `start` is neither "paper" nor "neutral".
    """
    check_flags(shift=shift)
    if start not in ("paper", "neutral"):
        raise ConfigError(f"start must be 'paper' or 'neutral', got {start!r}")
    layer = nn.Linear(inputs, 2 * channels if shift else channels)
    if start == "neutral":
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer


def scale_and_shift(logits: Tensor, shift: bool, neutral: bool) -> tuple[Tensor, Tensor | None]:
    """Return the scale (B, C) for logits h (B, C), or (B, 2 C) whose other half is the shift.

    The scale is sigmoid(h), or 2 * sigmoid(2 h) = 1 + tanh(h) in (0, 2) for gates that start
    neutral: exactly 1 at h = 0.
    """
    b: Tensor | None = None
    if shift:
        logits, b = logits.chunk(2, dim=1)
    return 2 * torch.sigmoid(2 * logits) if neutral else torch.sigmoid(logits), b


class Excitation(nn.Module):
    """s = sigmoid(W2 relu(W1 d)), and with `shift` the second half of W2's outputs as b.

    The scale alone is the block of Squeeze-and-Excitation (Hu et al. 2018, thesis equation 2.1).
    x * s + b is what the paper's public code does, and DAFT (Wolf et al. 2022) before it.
    """

    def __init__(
        self, inputs: int, hidden: int, channels: int, shift: bool = False, start: str = "paper"
    ) -> None:
        super().__init__()
        self.shift = shift
        self.neutral = start == "neutral"
        self.reduce = nn.Linear(inputs, hidden)
        self.expand = last_layer(hidden, channels, shift, start)

    def forward(self, descriptor: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return s (B, C), and b (B, C) or None, for a descriptor (B, D)."""
        logits = self.expand(torch.relu(self.reduce(descriptor)))
        return scale_and_shift(logits, self.shift, self.neutral)


class SqueezeExcite(ChannelGate):
    """SE: x * sigmoid(W2 relu(W1 z)) with z the mean of x over the pixels (Hu et al. 2018).

    Args:
        channels: C, the channels of the features.
        reduction: r; the hidden layer has round(C / r) neurons. 4 in the paper (2.1), 2 in the
            thesis (4.1).
        shift: x * s + b instead of x * s.
        start: "paper", or "neutral" for a gate that first changes nothing (`scale_and_shift`).

    Raises:
        ConfigError: `reduction` or `start` is out of range.

    >>> SqueezeExcite(64)(torch.rand(2, 64, 9, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    reads_image = True
    reads_meta = False

    def __init__(
        self,
        channels: int,
        reduction: float = 4,
        *,
        shift: bool = False,
        start: Start = "paper",
    ) -> None:
        super().__init__(only_scales=not shift)
        hidden = hidden_width(channels, reduction)
        self.excitation = Excitation(channels, hidden, channels, shift, start)

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
        start: "paper", or "neutral" for a gate that first changes nothing (`scale_and_shift`).

    Raises:
        ConfigError: `meta_features`, `reduction` or `start` is out of range.

    >>> MetadataExcite(64, meta_features=7)(torch.rand(2, 64, 9, 7), torch.eye(2, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    reads_image = False
    reads_meta = True
    meta_layer = "excitation.reduce"

    def __init__(
        self,
        channels: int,
        meta_features: int,
        reduction: float = 4,
        *,
        shift: bool = False,
        start: Start = "paper",
    ) -> None:
        super().__init__(meta_features, only_scales=not shift)
        hidden = hidden_width(channels, reduction)
        self.excitation = Excitation(meta_features, hidden, channels, shift, start)

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
        start: "paper", or "neutral" for a gate that first changes nothing (`scale_and_shift`).

    Raises:
        ConfigError: `meta_features`, `reduction`, `hidden_from` or `start` is out of range.

    >>> SqueezeMetadataExcite(64, meta_features=7)(torch.rand(2, 64, 9, 7), torch.eye(2, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    reads_image = True
    reads_meta = True
    meta_layer = "excitation.reduce"

    def __init__(
        self,
        channels: int,
        meta_features: int,
        reduction: float = 4,
        *,
        hidden_from: HiddenFrom = "channels",
        shift: bool = False,
        start: Start = "paper",
    ) -> None:
        super().__init__(meta_features, only_scales=not shift)
        inputs = channels + meta_features
        hidden = hidden_width(channels, reduction, inputs, hidden_from)
        self.excitation = Excitation(inputs, hidden, channels, shift, start)

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Excite by z (B, C) and metadata (B, M) side by side."""
        return self.excitation(torch.cat([z, meta], dim=1))


class FeatureWiseLinearModulation(ChannelGate):
    """FiLM: x * (1 + gamma) + beta with (gamma, beta) = W2 relu(W1 m) (Perez et al. 2018).

    Args:
        channels: C, the channels of the features.
        meta_features: M, the entries of the metadata.
        reduction: r; the hidden layer has round(C / r) neurons, as in ME.
        start: "paper", or "neutral" for gamma = beta = 0 at first.

    Raises:
        ConfigError: `meta_features`, `reduction` or `start` is out of range.

    >>> gate = FeatureWiseLinearModulation(64, meta_features=7)
    >>> gate(torch.rand(2, 64, 9, 7), torch.eye(2, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    reads_image = False
    reads_meta = True
    meta_layer = "modulation.hidden"

    def __init__(
        self, channels: int, meta_features: int, reduction: float = 4, *, start: Start = "paper"
    ) -> None:
        super().__init__(meta_features)
        hidden = hidden_width(channels, reduction)
        self.modulation = nn.ModuleDict(
            {
                "hidden": nn.Linear(meta_features, hidden),
                "film": last_layer(hidden, 2 * channels, False, start),
            }
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
    meta_layer = "modulation.first"

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
