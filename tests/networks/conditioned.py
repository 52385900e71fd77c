"""Networks of MONAI, small, by what `condition` is tried on."""

from monai.networks import nets
from torch import nn

U = {"channels": (4, 8, 8, 16), "strides": (2, 2, 2)}
DYN = {"kernel_size": [3] * 3, "strides": [1, 2, 2], "upsample_kernel_size": [2] * 2}
NEXT = {"blocks_down": (1, 1, 1), "blocks_up": (1, 1, 1), "blocks_bottleneck": 1}
IO = {"in_channels": 1, "out_channels": 2}


def without_dropout(network):
    """Let a network be trained twice alike."""
    for module in network.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return network


# name: network of a number of axes
NETWORKS = {
    "BasicUNet": lambda d: nets.BasicUNet(d, **IO, features=(8, 8, 8, 8, 8, 8)),
    "UNet": lambda d: nets.UNet(d, **IO, **U),
    "UNet residual": lambda d: nets.UNet(d, **IO, **U, num_res_units=2),
    "DynUNet": lambda d: nets.DynUNet(d, **IO, **DYN, filters=[8, 8, 8]),
    "DynUNet deep": lambda d: nets.DynUNet(
        d, **IO, **DYN, filters=[8, 8, 8], deep_supervision=True, deep_supr_num=1
    ),
    "DynUNet residual": lambda d: nets.DynUNet(d, **IO, **DYN, filters=[8, 8, 8], res_block=True),
    "SegResNet": lambda d: nets.SegResNet(
        d, init_filters=16, **IO, blocks_down=(1, 1, 1), blocks_up=(1, 1)
    ),
    "SegResNetDS": lambda d: nets.SegResNetDS(d, 8, **IO, blocks_down=(1, 1, 1), dsdepth=2),
    "AttentionUnet": lambda d: nets.AttentionUnet(d, **IO, **U),
    "FlexibleUNet": lambda d: nets.FlexibleUNet(
        **IO, backbone="resnet10", spatial_dims=d, decoder_channels=(16, 16, 8, 8, 8)
    ),
    "UNETR": lambda d: nets.UNETR(
        **IO, img_size=32, feature_size=8, hidden_size=24, mlp_dim=24, num_heads=4, spatial_dims=d
    ),
    "SwinUNETR": lambda d: nets.SwinUNETR(
        **IO, feature_size=12, spatial_dims=d, depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2)
    ),
    "MedNeXt": lambda d: nets.MedNeXt(d, 8, **IO, **NEXT, kernel_size=3),
    "MedNeXt deep": lambda d: nets.MedNeXt(
        d, 8, **IO, **NEXT, kernel_size=3, use_residual_connection=True, deep_supervision=True
    ),
    "VNet": lambda d: without_dropout(nets.VNet(d, **IO)),
    "HighResNet": lambda d: nets.HighResNet(d, **IO),
}
NEEDS_EINOPS = ("UNETR", "SwinUNETR")
