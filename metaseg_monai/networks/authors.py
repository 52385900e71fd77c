"""The U-Net of the authors' public code, which differs from the one that the texts describe."""

from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.networks.gates import SqueezeExcite
from metaseg_monai.networks.unet3 import Unet3, check_sizes
from metaseg_monai.networks.variants import base_variant, meta_input_of


def authors_unet3(
    schema: MetadataSchema | None = None,
    variant: str = "sme",
    in_channels: int = 1,
    out_channels: int = 2,
    channels: int = 64,
    levels: int = 5,
    spatial_dims: int = 2,
    *,
    meta_features: int | None = None,
    unknown_trained: bool = False,
) -> Unet3:
    """Return `Unet3` as github.com/akvilonBrown/sme-metadata has it, beside paper and thesis.

    There transposed convolutions lead up, the gates give x * s + b, as DAFT does (Wolf et al.
    2022), their hidden width is half of what they read, rounded down (of the channels in ME), and
    the middle's SE gate has a quarter. With metadata of 7 entries it has 1,453,250 parameters
    naked, 1,519,506 with "se", 1,502,530 with "me", 1,531,658 with "sme" and 1,494,258 with
    "film-ivadomed", the FiLM of that code, as counted there.

    Args:
        schema: the metadata's schema; as all that follows as of `Unet3`.
        variant: "none", "se", "me", "sme", "film-ivadomed", or a dummy of these.
        in_channels: channels of the image.
        out_channels: K, the classes, background included.
        channels: C, the filters of every convolution.
        levels: how often the image is halved.
        spatial_dims: 2 or 3.
        meta_features: without a schema: M.
        unknown_trained: with a schema: training drops metadata.

    Raises:
        ConfigError: a setting is unknown, out of range, or does not go with another.

    >>> sum(weight.numel() for weight in authors_unet3(variant="me", meta_features=7).parameters())
    1502530
    """
    check_sizes(spatial_dims, in_channels, out_channels, channels, levels)
    base = base_variant(variant)
    width = meta_input_of(variant, schema, meta_features, unknown_trained).meta_features
    inputs = channels + width if base == "sme" else channels
    network = Unet3(
        schema,
        variant,
        in_channels,
        out_channels,
        channels,
        levels,
        reduction=inputs / max(1, inputs // 2),
        spatial_dims=spatial_dims,
        hidden_from="inputs",
        shift=base in ("se", "me", "sme"),
        meta_features=meta_features,
        unknown_trained=unknown_trained,
        upsampling="transposed",
    )
    if base == "se":
        network.middle.gate = SqueezeExcite(channels, reduction=4, shift=True)
    return network
