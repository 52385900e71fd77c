"""Networks whose gates read metadata, and the blocks they are made of."""

from metaseg_monai.networks.convolution import GatedTriple
from metaseg_monai.networks.excite import (
    ALL_VARIANTS,
    METADATA_VARIANTS,
    VARIANTS,
    FeatureWiseLinearModulation,
    IvadomedFeatureWiseLinearModulation,
    MetadataExcite,
    SqueezeExcite,
    SqueezeMetadataExcite,
    gate_of_variant,
)
from metaseg_monai.networks.gates import ChannelGate, NoGate
from metaseg_monai.networks.meta_input import MetaInput
from metaseg_monai.networks.unet3 import Unet3, chosen_places, gate_places

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
    "Unet3",
    "chosen_places",
    "gate_of_variant",
    "gate_places",
]
