"""The other wirings of the thesis (4.1, figure 4.1): four more ways for metadata into a gate.

Number 1 of the figure is `SqueezeMetadataExcite`, number 5 is `MetadataExcite`.
"""

import torch
from torch import Tensor, nn

from metaseg_monai.networks.gates import (
    ChannelGate,
    Excitation,
    HiddenFrom,
    Start,
    hidden_width,
    last_layer,
    scale_and_shift,
)

COPIES = 20  # thesis 4.1: "20 additional duplicated meta-inputs"


class SqueezeManyMetadataExcite(ChannelGate):
    """x * sigmoid(W2 relu(W1 [z, m, ..., m])) with m 20 times (figure 4.1, 2).

    Args:
        channels: C, the channels of the features.
        meta_features: M, the entries of the metadata.
        reduction: r of the hidden width.
        hidden_from: "channels" for round(C / r) hidden neurons, "inputs" for
            round((C + 20 M) / r).
        shift: x * s + b instead of x * s.
        start: "paper", or "neutral" for a gate that first changes nothing.

    Raises:
        ConfigError: a setting is out of range.

    >>> gate = SqueezeManyMetadataExcite(64, meta_features=2)
    >>> gate.excitation.reduce
    Linear(in_features=104, out_features=16, bias=True)
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
        self.copies = COPIES
        inputs = channels + COPIES * meta_features
        hidden = hidden_width(channels, reduction, inputs, hidden_from)
        self.excitation = Excitation(inputs, hidden, channels, shift, start)

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Excite by z (B, C) and metadata (B, M), 20 times side by side."""
        return self.excitation(torch.cat([z, meta.repeat(1, self.copies)], dim=1))


class SqueezeMetadataExciteDeep(ChannelGate):
    """x * sigmoid(W3 relu(W2 relu(W1 [z, m]))): one more hidden layer (figure 4.1, 3).

    Args:
        channels: C, the channels of the features.
        meta_features: M, the entries of the metadata.
        reduction: r of the width of both hidden layers.
        hidden_from: "channels" for round(C / r) hidden neurons, "inputs" for round((C + M) / r).
        shift: x * s + b instead of x * s.
        start: "paper", or "neutral" for a gate that first changes nothing.

    Raises:
        ConfigError: a setting is out of range.

    >>> SqueezeMetadataExciteDeep(64, 2)(torch.rand(2, 64, 9, 7), torch.eye(2)).shape
    torch.Size([2, 64, 9, 7])
    """

    reads_image = True
    reads_meta = True
    meta_layer = "first"

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
        self.first = nn.Linear(inputs, hidden)
        self.excitation = Excitation(hidden, hidden, channels, shift, start)

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Excite by z (B, C) and metadata (B, M) side by side, by way of two hidden layers."""
        return self.excitation(torch.relu(self.first(torch.cat([z, meta], dim=1))))


class SqueezeExciteMetadataLate(ChannelGate):
    """x * sigmoid(W2 [relu(W1 z), m]): metadata beside the hidden layer (figure 4.1, 4).

    Args:
        channels: C, the channels of the features.
        meta_features: M, the entries of the metadata.
        reduction: r; the hidden layer has round(C / r) neurons, as in SE: its inputs are z alone.
        shift: x * s + b instead of x * s.
        start: "paper", or "neutral" for a gate that first changes nothing.

    Raises:
        ConfigError: a setting is out of range.

    >>> SqueezeExciteMetadataLate(64, 2)(torch.rand(2, 64, 9, 7), torch.eye(2)).shape
    torch.Size([2, 64, 9, 7])
    """

    reads_image = True
    reads_meta = True
    meta_layer = "expand"

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
        self.shift = shift
        self.neutral = start == "neutral"
        self.reduce = nn.Linear(channels, hidden)
        self.expand = last_layer(hidden + meta_features, channels, shift, start)

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Excite by z (B, C), and by metadata (B, M) beside what became of it."""
        logits = self.expand(torch.cat([torch.relu(self.reduce(z)), meta], dim=1))
        return scale_and_shift(logits, self.shift, self.neutral)


class MetadataExciteDirect(ChannelGate):
    """x * sigmoid(W m): metadata alone, without a hidden layer (figure 4.1, 6).

    Args:
        channels: C, the channels of the features.
        meta_features: M, the entries of the metadata.
        shift: x * s + b instead of x * s.
        start: "paper", or "neutral" for a gate that first changes nothing.

    Raises:
        ConfigError: a setting is out of range.

    >>> MetadataExciteDirect(64, meta_features=2).expand
    Linear(in_features=2, out_features=64, bias=True)
    """

    reads_image = False
    reads_meta = True
    meta_layer = "expand"

    def __init__(
        self,
        channels: int,
        meta_features: int,
        *,
        shift: bool = False,
        start: Start = "paper",
    ) -> None:
        super().__init__(meta_features, only_scales=not shift)
        self.shift = shift
        self.neutral = start == "neutral"
        self.expand = last_layer(meta_features, channels, shift, start)

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Tensor | None]:
        """Excite by metadata (B, M)."""
        return scale_and_shift(self.expand(meta), self.shift, self.neutral)
