"""FiLM: channels scaled and shifted by metadata alone, in its own form and in ivadomed's."""

from typing import Optional

from torch import Tensor

from metaseg_monai.blocks.excitation import IvadomedModulation, Modulation, hidden_width
from metaseg_monai.blocks.gates import ChannelGate

# TorchScript reads the annotations, and knows only Optional[...]:
# ruff: noqa: UP045


class FeatureWiseLinearModulation(ChannelGate):
    """FiLM: x * (1 + gamma) + beta with (gamma, beta) = W2 relu(W1 m) (Perez et al. 2018).

    Args:
        channels: C, the channels of the features.
        meta_features: M, the entries of the metadata.
        reduction: r; the hidden layer has round(C / r) neurons, as in ME.
        spatial_dims: 2 or 3.
        rectify: apply the preceding ReLU as part of the gate, overwriting its input.
        fused: one autograd node in eager mode, without second derivatives.

    Raises:
        ConfigError: a size is out of range.

    >>> import torch
    >>> gate = FeatureWiseLinearModulation(64, meta_features=7)
    >>> gate(torch.rand(2, 64, 9, 7), torch.eye(2, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    def __init__(
        self,
        channels: int,
        meta_features: int,
        reduction: float = 4,
        *,
        spatial_dims: int = 2,
        rectify: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__(
            meta_features=meta_features,
            needs_meta=True,
            squeezes=False,
            shifts=True,
            spatial_dims=spatial_dims,
            rectify=rectify,
            fused=fused,
        )
        self.modulation = Modulation(meta_features, hidden_width(channels, reduction), channels)

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Optional[Tensor]]:
        """Return 1 + gamma and beta, both (B, C), for metadata (B, M)."""
        return self.modulation(meta)


class IvadomedFeatureWiseLinearModulation(ChannelGate):
    """FiLM as ivadomed builds it: x * gamma + beta, both in (0, 1) (Lemay et al. 2021).

    The paper's FiLM rows (tables 1 and 2) are this gate.

    Args:
        channels: C, the channels of the features.
        meta_features: M, the entries of the metadata.
        spatial_dims: 2 or 3.
        rectify: apply the preceding ReLU as part of the gate, overwriting its input.
        fused: one autograd node in eager mode, without second derivatives.

    Raises:
        ConfigError: a size is out of range.

    >>> import torch
    >>> gate = IvadomedFeatureWiseLinearModulation(64, meta_features=7)
    >>> gate(torch.rand(2, 64, 9, 7), torch.eye(2, 7)).shape
    torch.Size([2, 64, 9, 7])
    """

    def __init__(
        self,
        channels: int,
        meta_features: int,
        *,
        spatial_dims: int = 2,
        rectify: bool = False,
        fused: bool = True,
    ) -> None:
        super().__init__(
            meta_features=meta_features,
            needs_meta=True,
            squeezes=False,
            shifts=True,
            spatial_dims=spatial_dims,
            rectify=rectify,
            fused=fused,
        )
        self.modulation = IvadomedModulation(meta_features, channels)

    def excite(self, z: Tensor, meta: Tensor) -> tuple[Tensor, Optional[Tensor]]:
        """Return gamma and beta, both (B, C), for metadata (B, M)."""
        return self.modulation(meta)
