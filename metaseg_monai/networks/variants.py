"""Variants: which gate or mechanism a name stands for. A new one is a line of `TABLE`."""

import inspect
from typing import Any

from torch import nn

from metaseg_monai.errors import ConfigError, did_you_mean, listing
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.networks.controls import MetaImage, WeightNoise
from metaseg_monai.networks.gates import (
    ChannelGate,
    FeatureWiseLinearModulation,
    IvadomedFeatureWiseLinearModulation,
    MetadataExcite,
    SqueezeExcite,
    SqueezeMetadataExcite,
    check_flags,
)
from metaseg_monai.networks.mechanisms import (
    AdaptiveNorm,
    ConstantChannels,
    HyperKernel,
    LowRank,
    Mechanism,
)
from metaseg_monai.networks.meta_input import MetaInput
from metaseg_monai.networks.wirings import (
    MetadataExciteDirect,
    SqueezeExciteMetadataLate,
    SqueezeManyMetadataExcite,
    SqueezeMetadataExciteDeep,
)

TABLE: dict[str, type[ChannelGate] | type[Mechanism]] = {
    "se": SqueezeExcite,
    "me": MetadataExcite,
    "sme": SqueezeMetadataExcite,
    "sme-duplicated": SqueezeManyMetadataExcite,
    "sme-deep": SqueezeMetadataExciteDeep,
    "sme-late": SqueezeExciteMetadataLate,
    "me-direct": MetadataExciteDirect,
    "film": FeatureWiseLinearModulation,
    "film-ivadomed": IvadomedFeatureWiseLinearModulation,
    "adaptive-norm": AdaptiveNorm,
    "low-rank": LowRank,
    "hyper": HyperKernel,
    "constant-channel": ConstantChannels,
    "weight-noise": WeightNoise,
    "meta-image": MetaImage,
}

OTHERS = {  # variants that are no gate or mechanism, but the network that is named
    "dynamic": "DynamicUnet3",
    "multi-head": "MultiHeadUnet3",
}

GATES = {name: made for name, made in TABLE.items() if issubclass(made, ChannelGate)}
MECHANISMS = {name: made for name, made in TABLE.items() if issubclass(made, Mechanism)}
EXPLAINED = tuple(  # whose gates, of channels and by metadata, can be shown
    name
    for name, made in TABLE.items()
    if made.reads_meta and (name in GATES or issubclass(made, AdaptiveNorm))
)
VARIANTS = ("none", *TABLE)  # of `Unet3`
METADATA_VARIANTS = (*(name for name, made in TABLE.items() if made.reads_meta), *OTHERS)
ALL_VARIANTS = tuple(  # a dummy is trained and tested with zeros for metadata, which are no head
    name
    for variant in (*VARIANTS, *OTHERS)
    for name in (variant, f"{variant}-dummy")
    if name == variant or (variant in METADATA_VARIANTS and variant != "multi-head")
)


def reads_metadata(variant: str) -> bool:
    """Whether the networks of a variant, dummies included, read metadata.

    Raises:
        ConfigError: there is no such variant.

    >>> reads_metadata("sme-dummy"), reads_metadata("se")
    (True, False)
    """
    return base_variant(variant) in METADATA_VARIANTS


def base_variant(variant: str) -> str:
    """The variant whose network a variant has: that of a dummy is the one without "-dummy".

    Raises:
        ConfigError: there is no such variant.

    >>> base_variant("sme-dummy")
    'sme'
    """
    if variant not in ALL_VARIANTS:
        known = (*VARIANTS, *OTHERS)
        raise ConfigError(
            f"variant: expected one of {listing(known)}, got {variant!r}; "
            f"{did_you_mean(variant, known, told=True)}"
        )
    return variant.removesuffix("-dummy")


def without_effect(variant: str) -> set[str]:
    """The settings of gates that do nothing in a variant, whose gate has none of that name.

    >>> sorted(without_effect("film-ivadomed"))
    ['hidden_from', 'reduction', 'shift', 'start']
    """
    if variant not in ALL_VARIANTS:  # of other weights, or not yet known
        return set()
    made = TABLE.get(base_variant(variant))
    known = inspect.signature(made).parameters if made else {}
    return {"reduction", "hidden_from", "shift", "start"} - set(known)


def gate_of_variant(
    variant: str,
    channels: int,
    meta_features: int = 0,
    *,
    reduction: float = 4,
    hidden_from: str = "channels",
    shift: bool = False,
    start: str = "paper",
    layer: nn.Module | None = None,
) -> ChannelGate | Mechanism:
    """Return the gate or mechanism of any variant but "none", with those settings that it has.

    Args:
        variant: a name of `TABLE`.
        channels: C, the channels that are gated.
        meta_features: M, the entries of the metadata; 0 for a gate that reads none.
        reduction: r of the hidden width.
        hidden_from: "channels" or "inputs", of which the hidden width is a part.
        shift: x * s + b instead of x * s.
        start: "paper", or "neutral" for a gate that first changes nothing. Mechanisms with a
            layer that is 0 at first, which are neutral always, have no such choice.
        layer: what a mechanism stands behind.

    Raises:
        ConfigError: `shift` or a neutral start is wanted of a gate without it, or a setting is
            out of range.

    >>> type(gate_of_variant("me", 64, meta_features=7)).__name__
    'MetadataExcite'
    """
    if variant in OTHERS:
        raise ConfigError(
            f"variant {variant!r} is no gate but a network, metaseg_monai.networks."
            f"{OTHERS[variant]}: take that (network_def#_target_), or another variant"
        )
    check_flags(shift=shift)  # also of a gate that has none
    known = {name: inspect.signature(made).parameters for name, made in TABLE.items()}
    if shift and "shift" not in known[variant]:
        shifting = ", ".join(name for name in TABLE if "shift" in known[name])
        raise ConfigError(f"shift is a choice of {shifting} only, not of variant {variant!r}")
    never = [name for name in GATES if "start" not in known[name]]
    never += [name for name, made in MECHANISMS.items() if not made.neutral]
    if start == "neutral" and variant in never:
        raise ConfigError(
            f"variant {variant!r} has no neutral start: it always changes something; set "
            f"start='paper', or choose one of {', '.join(n for n in GATES if n not in never)}"
        )
    settings: dict[str, Any] = {
        "channels": channels,
        "meta_features": meta_features,
        "reduction": reduction,
        "hidden_from": hidden_from,
        "shift": shift,
        "start": start,
        "layer": layer,
    }
    return TABLE[variant](**{n: v for n, v in settings.items() if n in known[variant]})


def meta_input_of(
    variant: str,
    schema: MetadataSchema | None = None,
    meta_features: int | None = None,
    unknown_trained: bool = False,
) -> MetaInput:
    """Return the `MetaInput` of a network of any variant, dummies included.

    That of one that reads no metadata lets none in; a dummy never knows unknown.

    Raises:
        ConfigError: the variant is unknown, or the settings do not go together.
    """
    base = base_variant(variant)
    reads = base in METADATA_VARIANTS
    trained = unknown_trained and reads and base == variant
    door = MetaInput(schema if reads else None, meta_features, trained)
    if not reads and door.meta_features != 0:
        raise ConfigError(
            f"variant {base!r} takes no metadata: meta_features must be 0, got {meta_features}; "
            f"set it to 0 or choose one of {', '.join(METADATA_VARIANTS)}"
        )
    if reads and door.meta_features < 1:
        raise ConfigError(
            f"variant {base!r} is steered by metadata: give the schema, of a field or more, or its "
            f"width as meta_features, which must be 1 or more, got {door.meta_features}; without "
            "metadata choose none or se"
        )
    return door
