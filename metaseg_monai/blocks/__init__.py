"""Blocks of the networks: gates steered by metadata, and the convolutions they stand behind."""

from metaseg_monai.blocks.convolution import GatedTriple
from metaseg_monai.blocks.excite import MetadataExcite, SqueezeExcite, SqueezeMetadataExcite
from metaseg_monai.blocks.film import (
    FeatureWiseLinearModulation,
    IvadomedFeatureWiseLinearModulation,
)
from metaseg_monai.blocks.gates import ChannelGate, NoGate
from metaseg_monai.blocks.meta_input import MetaInput
from metaseg_monai.blocks.variants import (
    ALL_VARIANTS,
    METADATA_VARIANTS,
    VARIANTS,
    gate_of_variant,
)

__all__ = [
    "ALL_VARIANTS",
    "METADATA_VARIANTS",
    "VARIANTS",
    "ChannelGate",
    "FeatureWiseLinearModulation",
    "GatedTriple",
    "IvadomedFeatureWiseLinearModulation",
    "MetaInput",
    "MetadataExcite",
    "NoGate",
    "SqueezeExcite",
    "SqueezeMetadataExcite",
    "gate_of_variant",
]
