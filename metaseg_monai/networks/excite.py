"""SE, ME and SME: channels re-weighted by the image, by its metadata, or by both (paper 2.1)."""

import difflib
from typing import Literal, Optional

import torch
from torch import Tensor

from metaseg_monai.errors import ConfigError
from metaseg_monai.networks.excitation import (
    Excitation,
    IvadomedModulation,
    Modulation,
    hidden_width,
)
from metaseg_monai.networks.gates import ChannelGate

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


# FiLM: channels scaled and shifted by metadata alone, in its own form and in ivadomed's.

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


# Which gate a variant of contract and paper stands for.

VARIANTS = ("none", "se", "me", "sme", "film", "film-ivadomed")
METADATA_VARIANTS = ("me", "sme", "film", "film-ivadomed")
ALL_VARIANTS = tuple(
    name
    for variant in VARIANTS
    for name in (variant, f"{variant}-dummy")
    if name == variant or variant in METADATA_VARIANTS
)


def check_variant(variant: str, meta_features: int, shift: bool) -> None:
    """Refuse a variant that does not exist, or that does not go with the other settings.

    Args:
        variant: one of `VARIANTS`.
        meta_features: M, the entries of the metadata; 0 for "none" and "se", else at least 1.
        shift: whether the gate adds a shift; only "se", "me" and "sme" have the choice.

    Raises:
        ConfigError: the message says which setting to change.

    >>> check_variant("smee", meta_features=7, shift=False)
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.ConfigError: unknown variant 'smee', did you mean 'sme'? The variants \
are none, se, me, sme, film, film-ivadomed
    """
    if variant not in VARIANTS:
        near = difflib.get_close_matches(str(variant), VARIANTS, n=1)
        hint = f", did you mean {near[0]!r}?" if near else "."
        raise ConfigError(
            f"unknown variant {variant!r}{hint} The variants are {', '.join(VARIANTS)}"
        )
    if variant not in METADATA_VARIANTS and meta_features != 0:
        raise ConfigError(
            f"variant {variant!r} takes no metadata: meta_features must be 0, got "
            f"{meta_features}; set it to 0 or choose one of {', '.join(METADATA_VARIANTS)}"
        )
    if variant in METADATA_VARIANTS and meta_features < 1:
        raise ConfigError(
            f"variant {variant!r} is steered by metadata: meta_features must be 1 or more, got "
            f"{meta_features}; give the schema, or its width"
        )
    if shift and variant not in ("se", "me", "sme"):
        raise ConfigError(f"shift is a choice of se, me and sme only, not of variant {variant!r}")


def gate_of_variant(
    variant: str,
    channels: int,
    meta_features: int = 0,
    *,
    reduction: float = 4,
    hidden_from: Literal["channels", "inputs"] = "channels",
    shift: bool = False,
    spatial_dims: int = 2,
    rectify: bool = False,
    fused: bool = True,
) -> ChannelGate:
    """Return the gate of any variant but "none".

    Args:
        variant: one of `VARIANTS` except "none".
        channels: C, the channels of the features.
        meta_features: M, the entries of the metadata.
        reduction: r of the hidden width; "film-ivadomed" has its own fixed widths.
        hidden_from: the hidden width of SME (see `SqueezeMetadataExcite`); the other gates have
            round(C / r) either way, as in the authors' code.
        shift: x * s + b instead of x * s.
        spatial_dims: 2 or 3.
        rectify: apply the preceding ReLU as part of the gate, overwriting its input.
        fused: one autograd node in eager mode, without second derivatives.

    Raises:
        ConfigError: the settings do not go together.

    >>> type(gate_of_variant("me", 64, meta_features=7)).__name__
    'MetadataExcite'
    """
    check_variant(variant, meta_features, shift)
    if variant == "se":
        return SqueezeExcite(
            channels,
            reduction,
            shift=shift,
            spatial_dims=spatial_dims,
            rectify=rectify,
            fused=fused,
        )
    if variant == "me":
        return MetadataExcite(
            channels,
            meta_features,
            reduction,
            shift=shift,
            spatial_dims=spatial_dims,
            rectify=rectify,
            fused=fused,
        )
    if variant == "sme":
        return SqueezeMetadataExcite(
            channels,
            meta_features,
            reduction,
            hidden_from=hidden_from,
            shift=shift,
            spatial_dims=spatial_dims,
            rectify=rectify,
            fused=fused,
        )
    if variant == "film":
        return FeatureWiseLinearModulation(
            channels,
            meta_features,
            reduction,
            spatial_dims=spatial_dims,
            rectify=rectify,
            fused=fused,
        )
    if variant == "film-ivadomed":
        return IvadomedFeatureWiseLinearModulation(
            channels, meta_features, spatial_dims=spatial_dims, rectify=rectify, fused=fused
        )
    raise ConfigError("variant 'none' has no gate: leave the place empty (NoGate)")
