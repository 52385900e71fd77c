"""Networks whose gates read metadata, and the blocks they are made of."""

from metaseg_monai.networks.gates import (
    ChannelGate,
    FeatureWiseLinearModulation,
    IvadomedFeatureWiseLinearModulation,
    MetadataExcite,
    SqueezeExcite,
    SqueezeMetadataExcite,
)
from metaseg_monai.networks.regressor import ImageRegressor
from metaseg_monai.networks.unet3 import Unet3
from metaseg_monai.networks.variants import (
    ALL_VARIANTS,
    GATES,
    METADATA_VARIANTS,
    VARIANTS,
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
    "MetadataExcite",
    "SqueezeExcite",
    "SqueezeMetadataExcite",
    "Unet3",
    "reads_metadata",
]
