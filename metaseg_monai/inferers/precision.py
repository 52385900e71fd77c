"""In which number format and memory layout a network runs.

MONAI's own mixed precision is for CUDA only; this one serves CPU and GPU alike.
"""

from typing import Any

import torch
from monai.inferers import Inferer
from torch import Tensor, nn

from metaseg_monai.errors import ConfigError
from metaseg_monai.inferers.sliding import map_tensors


class AutocastInferer(Inferer):
    """Run another inferer's network in bfloat16 and give its logits in float32.

    Only the network runs under autocast: windows are blended and losses computed in float32. On the
    CPU volumes are trained in float32: of features of 2 x 2 x 2 PyTorch 2.13's bfloat16 gives
    gradients of a convolution that hold whatever was in memory, up to 1e35.

    Args:
        inferer: the inferer to wrap, e.g. MONAI's SimpleInferer for training.
        dtype: "bfloat16", or None for the network's own format. (float16 would need scaled
            losses and is not offered.)

    Raises:
        ConfigError: `dtype` is another one.

    Example:
        >>> from monai.inferers import SimpleInferer
        >>> network = nn.Conv2d(1, 2, 3)
        >>> AutocastInferer(SimpleInferer())(torch.ones(1, 1, 8, 8), network).dtype
        torch.float32
    """

    def __init__(self, inferer: Inferer, dtype: str | None = "bfloat16") -> None:
        super().__init__()
        if dtype not in ("bfloat16", None):
            raise ConfigError(f"dtype must be bfloat16 or None (off), got {dtype!r}.")
        self.inferer = inferer
        self.dtype = dtype

    def __call__(self, inputs: Tensor, network: Any, meta: Tensor | None = None) -> Any:
        """Return the wrapped inferer's output (B, K, *S) in float32.

        Args:
            inputs: images (B, C, *S).
            network: called by the wrapped inferer.
            meta: encoded metadata (B, M), or None where the network takes none.
        """

        def in_bfloat16(images: Tensor, **metadata: Tensor) -> Any:
            on = images.device.type != "cpu" or images.ndim < 5 or not torch.is_grad_enabled()
            with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=on):
                pred = network(images, **metadata)
            return map_tensors(lambda one: one.float() if one.is_floating_point() else one, pred)

        metadata = {} if meta is None else {"meta": meta}
        return self.inferer(inputs, in_bfloat16 if self.dtype else network, **metadata)


def channels_last(network: nn.Module) -> nn.Module:
    """Lay a network's weights out with the channels last, faster for most convolutions.

    Args:
        network: any network of planes or volumes; changed in place and returned.
    """
    axes = {parameter.dim() for parameter in network.parameters()}
    if axes >= {4, 5}:
        return network  # each format is for one of them
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    for number in axes & formats.keys():
        network.to(memory_format=formats[number])  # type: ignore[call-overload]
    return network
