"""Variants: which gate a name of the paper stands for. A new gate is a line and its names."""

import inspect
from typing import Any

from metaseg_monai.errors import ConfigError, did_you_mean, listing
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.networks.gates import (
    ChannelGate,
    FeatureWiseLinearModulation,
    IvadomedFeatureWiseLinearModulation,
    MetadataExcite,
    SqueezeExcite,
    SqueezeMetadataExcite,
)
from metaseg_monai.networks.meta_input import MetaInput

GATES: dict[str, type[ChannelGate]] = {
    "se": SqueezeExcite,
    "me": MetadataExcite,
    "sme": SqueezeMetadataExcite,
    "film": FeatureWiseLinearModulation,
    "film-ivadomed": IvadomedFeatureWiseLinearModulation,
}

VARIANTS = ("none", *GATES)
METADATA_VARIANTS = ("me", "sme", "film", "film-ivadomed")
ALL_VARIANTS = (  # a dummy is trained and tested with zeros for metadata
    *("none", "se", "me", "me-dummy", "sme", "sme-dummy"),
    *("film", "film-dummy", "film-ivadomed", "film-ivadomed-dummy"),
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
        raise ConfigError(
            f"variant: expected one of {listing(VARIANTS)}, got {variant!r}; "
            f"{did_you_mean(variant, VARIANTS)}"
        )
    return variant.removesuffix("-dummy")


def without_effect(variant: str) -> set[str]:
    """The settings of gates that do nothing in a variant, whose gate has none of that name.

    >>> sorted(without_effect("film-ivadomed"))
    ['hidden_from', 'reduction', 'shift']
    """
    if variant not in ALL_VARIANTS:  # of other weights, or not yet known
        return set()
    gate = GATES.get(base_variant(variant))
    known = inspect.signature(gate).parameters if gate else {}
    return {"reduction", "hidden_from", "shift"} - set(known)


def gate_of_variant(
    variant: str,
    channels: int,
    meta_features: int = 0,
    *,
    reduction: float = 4,
    hidden_from: str = "channels",
    shift: bool = False,
) -> ChannelGate:
    """Return the gate of any variant but "none", with those of the settings that it has.

    Raises:
        ConfigError: `shift` is wanted of a gate without it, or a setting is out of range.

    >>> type(gate_of_variant("me", 64, meta_features=7)).__name__
    'MetadataExcite'
    """
    known = {name: inspect.signature(gate).parameters for name, gate in GATES.items()}
    if shift and "shift" not in known[variant]:
        shifting = ", ".join(name for name in GATES if "shift" in known[name])
        raise ConfigError(f"shift is a choice of {shifting} only, not of variant {variant!r}")
    settings: dict[str, Any] = {
        "channels": channels,
        "meta_features": meta_features,
        "reduction": reduction,
        "hidden_from": hidden_from,
        "shift": shift,
    }
    return GATES[variant](**{n: v for n, v in settings.items() if n in known[variant]})


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
            f"variant {base!r} is steered by metadata: give the schema, or its width as "
            f"meta_features, which must be 1 or more, got {door.meta_features}"
        )
    return door
