"""Networks whose gates read metadata, and the blocks they are made of."""

from metaseg_monai.networks.gates import (
    ChannelGate,
    FeatureWiseLinearModulation,
    IvadomedFeatureWiseLinearModulation,
    MetadataExcite,
    NoGate,
    SqueezeExcite,
    SqueezeMetadataExcite,
)
from metaseg_monai.networks.meta_input import MetaInput
from metaseg_monai.networks.regressor import ImageRegressor
from metaseg_monai.networks.unet3 import Unet3, chosen_places, gate_places
from metaseg_monai.networks.variants import (
    ALL_VARIANTS,
    GATES,
    METADATA_VARIANTS,
    VARIANTS,
    base_variant,
    gate_of_variant,
    meta_input_of,
    reads_metadata,
)

__all__ = [
    "ALL_VARIANTS",
    "GATES",
    "METADATA_VARIANTS",
    "VARIANTS",
    "ChannelGate",
    "FeatureWiseLinearModulation",
    "ImageRegressor",
    "IvadomedFeatureWiseLinearModulation",
    "MetaInput",
    "MetadataExcite",
    "NoGate",
    "SqueezeExcite",
    "SqueezeMetadataExcite",
    "Unet3",
    "base_variant",
    "chosen_places",
    "gate_of_variant",
    "gate_places",
    "meta_input_of",
    "reads_metadata",
]
