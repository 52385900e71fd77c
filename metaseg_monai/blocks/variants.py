"""Which gate a variant of contract and paper stands for."""

import difflib
from typing import Literal

from metaseg_monai.blocks.excite import MetadataExcite, SqueezeExcite, SqueezeMetadataExcite
from metaseg_monai.blocks.film import (
    FeatureWiseLinearModulation,
    IvadomedFeatureWiseLinearModulation,
)
from metaseg_monai.blocks.gates import ChannelGate
from metaseg_monai.errors import ConfigError

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
        hint = "."
        if str(variant).endswith("-dummy"):
            hint = ": a dummy is a way of training, the network itself is built without '-dummy'."
        elif near := difflib.get_close_matches(str(variant), VARIANTS, n=1):
            hint = f", did you mean {near[0]!r}?"
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
            f"{meta_features}; use the width of the metadata schema"
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
