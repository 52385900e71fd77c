"""Networks whose gates read metadata, and the blocks they are made of."""

from metaseg_monai.networks.authors import authors_unet3
from metaseg_monai.networks.condition import Conditioned, condition
from metaseg_monai.networks.controls import MetaImage, WeightNoise
from metaseg_monai.networks.dense_unet import DenseUnetGenerator
from metaseg_monai.networks.dynamic import DynamicUnet3
from metaseg_monai.networks.gates import (
    ChannelGate,
    FeatureWiseLinearModulation,
    IvadomedFeatureWiseLinearModulation,
    MetadataExcite,
    SqueezeExcite,
    SqueezeMetadataExcite,
)
from metaseg_monai.networks.grow import grow
from metaseg_monai.networks.mechanisms import (
    AdaptiveNorm,
    ConstantChannels,
    HyperKernel,
    LowRank,
    Mechanism,
)
from metaseg_monai.networks.multi_head import MultiHeadUnet3
from metaseg_monai.networks.nuclei_lupi import NucleiLupiUnet
from metaseg_monai.networks.patch_discriminator import PatchDiscriminator
from metaseg_monai.networks.ppunet import PPUnet
from metaseg_monai.networks.regressor import ImageRegressor
from metaseg_monai.networks.unet3 import Unet3
from metaseg_monai.networks.variants import (
    ALL_VARIANTS,
    GATES,
    MECHANISMS,
    METADATA_VARIANTS,
    TABLE,
    VARIANTS,
    reads_metadata,
)
from metaseg_monai.networks.wirings import (
    MetadataExciteDirect,
    SqueezeExciteMetadataLate,
    SqueezeManyMetadataExcite,
    SqueezeMetadataExciteDeep,
)

__all__ = [
    "ALL_VARIANTS",
    "GATES",
    "MECHANISMS",
    "METADATA_VARIANTS",
    "TABLE",
    "VARIANTS",
    "AdaptiveNorm",
    "ChannelGate",
    "Conditioned",
    "ConstantChannels",
    "DenseUnetGenerator",
    "DynamicUnet3",
    "FeatureWiseLinearModulation",
    "HyperKernel",
    "ImageRegressor",
    "IvadomedFeatureWiseLinearModulation",
    "LowRank",
    "Mechanism",
    "MetaImage",
    "MetadataExcite",
    "MetadataExciteDirect",
    "MultiHeadUnet3",
    "NucleiLupiUnet",
    "PPUnet",
    "PatchDiscriminator",
    "SqueezeExcite",
    "SqueezeExciteMetadataLate",
    "SqueezeManyMetadataExcite",
    "SqueezeMetadataExcite",
    "SqueezeMetadataExciteDeep",
    "Unet3",
    "WeightNoise",
    "authors_unet3",
    "condition",
    "grow",
    "reads_metadata",
]
