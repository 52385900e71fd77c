"""The forms a network's output may take: a tensor, a sequence of them, or a mapping of them."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from metaseg_monai.errors import ConfigError


def map_tensors(function: Callable[[Tensor], Tensor], output: Any) -> Any:
    """Apply `function` to each tensor of a network's output and keep the output's form.

    Args:
        function: what to do with one tensor.
        output: a tensor, a list or tuple of them, or a dict of them.

    Raises:
        ConfigError: The output has another form.

    Example:
        >>> import torch
        >>> map_tensors(torch.neg, {"pred": torch.tensor([1.0])})
        {'pred': tensor([-1.])}
    """
    if isinstance(output, Tensor):
        return function(output)
    if isinstance(output, Mapping):
        return {key: map_tensors(function, value) for key, value in output.items()}
    if isinstance(output, (list, tuple)):
        return tuple(map_tensors(function, value) for value in output)
    raise ConfigError(
        f"The network returned {type(output).__name__}; expected a tensor, or a list, tuple or "
        "dict of tensors. Change the network's forward()."
    )


def each_tensor(output: Any) -> Iterator[Tensor]:
    """Yield each tensor of a network's output; see `map_tensors` for the forms."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from each_tensor(value)
    elif isinstance(output, (list, tuple)):
        for value in output:
            yield from each_tensor(value)
