"""SE, ME and SME: channels re-weighted by the image, by its metadata, or by both (paper 2.1)."""

from typing import Literal, Optional

import torch
from torch import Tensor

from metaseg_monai.blocks.excitation import Excitation, hidden_width
from metaseg_monai.blocks.gates import ChannelGate
from metaseg_monai.errors import ConfigError

# TorchScript reads the annotations, and knows only Optional[...]:
# ruff: noqa: UP045


class SqueezeExcite(ChannelGate):
    """SE: x * sigmoid(W2 relu(W1 z)) with z the mean of x over the pixels (Hu et al. 2018).

    Args:
        channels: C, the channels of the features.
        reduction: r; the hidden layer has round(C / r) neurons. 4 in the paper (2.1), 2 in the
            thesis (4.1).
        shift: x * s + b instead of x * s.
        spatial_dims: 2 or 3.
        rectify: apply the preceding ReLU as part of the gate, overwriting its input.
        fused: one autograd node in eager mode, without second derivatives.

    Raises:
        ConfigError: a size or `reduction` is out of range.

    >>> SqueezeExcite(64)(torch.rand(2, 64, 9, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    def __init__(
        self,
        channels: int,
        reduction: float = 4,
        *,
        shift: bool = False,
        spatial_dims: int = 2,
        rectify: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__(
            meta_features=0,
            needs_meta=False,
            squeezes=True,
            shifts=shift,
            spatial_dims=spatial_dims,
            rectify=rectify,
            fused=fused,
        )
        self.excitation = Excitation(channels, hidden_width(channels, reduction), channels, shift)

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Optional[Tensor]]:
        """Excite by z (B, C)."""
        return self.excitation(z)


class MetadataExcite(ChannelGate):
    """ME: x * sigmoid(W2 relu(W1 m)), metadata in the place of the squeeze (paper 2.1).

    Args:
        channels: C, the channels of the features.
        meta_features: M, the entries of the metadata.
        reduction: r; the hidden layer has round(C / r) neurons, as in SE (thesis 4.1, variant 5).
        shift: x * s + b instead of x * s.
        spatial_dims: 2 or 3.
        rectify: apply the preceding ReLU as part of the gate, overwriting its input.
        fused: one autograd node in eager mode, without second derivatives.

    Raises:
        ConfigError: a size or `reduction` is out of range.

    >>> MetadataExcite(64, meta_features=7)(torch.rand(2, 64, 9, 7), torch.eye(2, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    def __init__(
        self,
        channels: int,
        meta_features: int,
        reduction: float = 4,
        *,
        shift: bool = False,
        spatial_dims: int = 2,
        rectify: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__(
            meta_features=meta_features,
            needs_meta=True,
            squeezes=False,
            shifts=shift,
            spatial_dims=spatial_dims,
            rectify=rectify,
            fused=fused,
        )
        hidden = hidden_width(channels, reduction)
        self.excitation = Excitation(meta_features, hidden, channels, shift)

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Optional[Tensor]]:
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
        spatial_dims: 2 or 3.
        rectify: apply the preceding ReLU as part of the gate, overwriting its input.
        fused: one autograd node in eager mode, without second derivatives.

    Raises:
        ConfigError: a size, `reduction` or `hidden_from` is out of range.

    >>> SqueezeMetadataExcite(64, meta_features=7)(torch.rand(2, 64, 9, 7), torch.eye(2, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    def __init__(
        self,
        channels: int,
        meta_features: int,
        reduction: float = 4,
        *,
        hidden_from: Literal["channels", "inputs"] = "channels",
        shift: bool = False,
        spatial_dims: int = 2,
        rectify: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__(
            meta_features=meta_features,
            needs_meta=True,
            squeezes=True,
            shifts=shift,
            spatial_dims=spatial_dims,
            rectify=rectify,
            fused=fused,
        )
        if hidden_from not in ("channels", "inputs"):
            raise ConfigError(f"hidden_from must be 'channels' or 'inputs', got {hidden_from!r}")
        inputs = channels + meta_features
        hidden = hidden_width(inputs if hidden_from == "inputs" else channels, reduction)
        self.excitation = Excitation(inputs, hidden, channels, shift)

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Optional[Tensor]]:
        """Excite by z (B, C) and metadata (B, M) side by side."""
        return self.excitation(torch.cat([z, meta], dim=1))
