"""Which sizes of images a network takes, tried without computing anything."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

LARGE = 1024  # pixels along each axis, which every network halves evenly
MORE = 3  # multiples above the given size that are tried


class Sizes(NamedTuple):
    """Sizes of images that a network takes.

    Attributes:
        factors: by how much it shrinks an image along each axis, at its deepest level.
        following: the next size from the given one on that it takes, a multiple of `factors`.
    """

    factors: tuple[int, ...]
    following: tuple[int, ...]


def sizes_of(
    network: nn.Module,
    image: Tensor,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
) -> Sizes | None:
    """Find the next size that a network takes, as it stands (training or not).

    Only shapes are computed: tensors without memory go through it.

    Args:
        network: as it is called, network(image, *args, **kwargs); it stays as it was.
        image: (B, C, *S).
        args: further tensors (B, ...).
        kwargs: likewise.

    Returns:
        None where that cannot be found out, as of a network of one size alone.

    >>> from monai.networks.nets import DynUNet
    >>> network = DynUNet(
    ...     2, 1, 2, kernel_size=[3] * 4, strides=[1, 2, 2, 2], upsample_kernel_size=[2] * 3,
    ...     filters=[2] * 4,
    ... )
    >>> sizes_of(network, torch.zeros(1, 1, 20, 8))
    Sizes(factors=(8, 8), following=(24, 8))
    """
    state = {  # by modules: PyTorch would not put back those of one that has two names
        f"{place}.{name}" if place else name: one.detach().to("meta")
        for place, module in network.named_modules()
        for name, one in (*module._parameters.items(), *module._buffers.items())
        if one is not None
    }
    others = [_shape_of(one) for one in args], {k: _shape_of(v) for k, v in (kwargs or {}).items()}
    axes = image.dim() - 2
    seen: list[Sequence[int]] = []

    def takes(size: Sequence[int]) -> bool:
        probe = torch.empty(*image.shape[:2], *size, dtype=image.dtype, device="meta")
        try:
            with torch.no_grad():
                functional_call(network, state, (probe, *others[0]), others[1], tie_weights=False)
        except Exception:  # whatever a network says of a size
            return False
        return True

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == axes + 2 and min(output.shape[2:]) > 1:
            seen.append(output.shape[2:])

    hooks = [module.register_forward_hook(watch) for module in network.modules()]
    try:
        known = takes([LARGE] * axes) and bool(seen)
    finally:
        for hook in hooks:
            hook.remove()
    if not known:
        return None
    factors = tuple(LARGE // min(size[axis] for size in seen) for axis in range(axes))
    given = [-(-side // by) for side, by in zip(image.shape[2:], factors, strict=True)]
    for more in range(MORE):
        size = tuple((count + more) * by for count, by in zip(given, factors, strict=True))
        if takes(size):
            return Sizes(factors, size)
    return None


def _shape_of(value: Any) -> Any:
    return value.detach().to("meta") if isinstance(value, Tensor) else value
