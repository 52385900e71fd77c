"""Excitations: small networks that turn a descriptor (B, D) into a scale and shift per channel."""

from typing import Optional

import torch
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError

# TorchScript reads the annotations, and knows only Optional[...]:
# ruff: noqa: UP045


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

    Args:
        inputs: D, the width of the descriptor.
        hidden: width of the hidden layer.
        channels: C, the channels to excite.
        shift: also give b; W2 then has 2C outputs.
    """

    def __init__(self, inputs: int, hidden: int, channels: int, shift: bool) -> None:
        super().__init__()
        self.shift = shift
        self.reduce = nn.Linear(inputs, hidden)
        self.expand = nn.Linear(hidden, 2 * channels if shift else channels)

    def forward(self, descriptor: Tensor) -> tuple[Tensor, Optional[Tensor]]:
        """Return s (B, C) in (0, 1), and b (B, C) or None, for a descriptor (B, D)."""
        logits = self.expand(torch.relu(self.reduce(descriptor)))
        if self.shift:
            s, b = logits.chunk(2, dim=1)
            return torch.sigmoid(s), b
        return torch.sigmoid(logits), None


class Modulation(nn.Module):
    """(1 + gamma, beta) = (1, 0) + W2 relu(W1 m), unbounded (FiLM, Perez et al. 2018).

    Args:
        inputs: M, the width of the metadata.
        hidden: width of the hidden layer.
        channels: C, the channels to modulate.
    """

    def __init__(self, inputs: int, hidden: int, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden)
        self.film = nn.Linear(hidden, 2 * channels)

    def forward(self, meta: Tensor) -> tuple[Tensor, Optional[Tensor]]:
        """Return 1 + gamma and beta, both (B, C), for metadata (B, M)."""
        gamma, beta = self.film(torch.relu(self.hidden(meta))).chunk(2, dim=1)
        return 1 + gamma, beta


class IvadomedModulation(nn.Module):
    """(gamma, beta) = sigmoid(W3 sigmoid(W2 sigmoid(W1 m))), both in (0, 1).

    The widths 64 and 16 are those of ivadomed (Lemay et al. 2021), the paper's FiLM (3.1).

    Args:
        inputs: M, the width of the metadata.
        channels: C, the channels to modulate.
    """

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, 64)
        self.second = nn.Linear(64, 16)
        self.film = nn.Linear(16, 2 * channels)

    def forward(self, meta: Tensor) -> tuple[Tensor, Optional[Tensor]]:
        """Return gamma and beta, both (B, C), for metadata (B, M)."""
        hidden = torch.sigmoid(self.second(torch.sigmoid(self.first(meta))))
        gamma, beta = torch.sigmoid(self.film(hidden)).chunk(2, dim=1)
        return gamma, beta
