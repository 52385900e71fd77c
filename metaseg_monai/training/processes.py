"""Which of the processes of a distributed run this one is, what it owns, and how it ends."""

import re
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from metaseg_monai.owners import owned

# Gloo's and NCCL's words on a process that is no longer there.
LOST = re.compile("Connection (closed|reset) by peer|remote process exited|gloo.*[Tt]imed out")
GLOO_PAUSE = 0.5  # seconds; 4 to 9 of 75 runs of two processes aborted without it, 0 with it


def rank() -> int:
    """Return the number of this process; 0 where the run is not distributed."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes; 1 where the run is not distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def mean_over_processes(value: float) -> float:
    """Return the mean of a number over all processes, each of which must ask for it.

    >>> mean_over_processes(0.1)
    0.1
    """
    if world_size() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    total = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return float(total) / world_size()


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


def hear_of_errors(engine: Engine, handler: Callable[[Engine, BaseException], None]) -> None:
    """Call a handler with the error that ends a run, and let the error pass on.

    Ignite swallows an error as soon as one handler is attached to it, and a handler that raises it
    again keeps those behind it from being called. Here all are called before it passes.

    A handler may be called twice.

    Example:
        >>> engine = Engine(lambda engine, batch: 1 / 0)
        >>> hear_of_errors(engine, lambda engine, error: print("first:", error))
        >>> hear_of_errors(engine, lambda engine, error: print("second:", error))
        >>> engine.logger.disabled = True
        >>> try:
        ...     engine.run([0])
        ... except ZeroDivisionError:
        ...     print("passed on")
        first: division by zero
        second: division by zero
        first: division by zero
        second: division by zero
        passed on
    """
    if engine.has_event_handler(_pass_on, Events.EXCEPTION_RAISED):
        engine.remove_event_handler(_pass_on, Events.EXCEPTION_RAISED)
    engine.add_event_handler(Events.EXCEPTION_RAISED, handler)
    engine.add_event_handler(Events.EXCEPTION_RAISED, _pass_on)


def _pass_on(engine: Engine, error: BaseException) -> None:
    raise error


def own_while_running(engine: Engine, folder: str | Path, doing: str) -> None:
    """Own the folder of an engine's results from its start to its end, however it ends.

    For runs that no command of ours began, as ``python -m monai.bundle run`` does. Of a distributed
    run, however it was started, the first process owns it for all.

    Args:
        engine: whose handlers write there.
        folder: of the results.
        doing: see `metaseg_monai.owners.owned`.

    Raises:
        DataError: (when it starts) another process owns the folder.
    """
    held = ExitStack()

    def begin() -> None:
        if rank() == 0:
            held.enter_context(owned(folder, doing))
        if not engine.has_event_handler(end, Events.COMPLETED):  # behind all that write there
            engine.add_event_handler(Events.COMPLETED, end)

    def end() -> None:
        held.close()

    def fail(engine: Engine, error: BaseException) -> None:
        if world_size() > 1 and LOST.search(str(error)):
            engine.logger.error(
                "process %d of %d ends, as another one of this run has ended before (torchrun "
                "names its rank, on its own machine). Start all again with --resume True",
                *(rank(), world_size()),
            )
        end()

    engine.add_event_handler(Events.STARTED, begin)
    hear_of_errors(engine, fail)
