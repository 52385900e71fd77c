"""Which of the processes of a distributed run this one is, and what they share."""

from typing import Any, TypeVar

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


def rank() -> int:
    """Return the number of this process; 0 where the run is not distributed."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes; 1 where the run is not distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gather(value: T) -> list[T]:
    """Return `value` of every process, in rank order; all processes must call it together."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def bare_network(network: nn.Module) -> nn.Module:
    """Return the network inside a DistributedDataParallel wrapper, or the network itself."""
    return network.module if isinstance(network, DistributedDataParallel) else network
