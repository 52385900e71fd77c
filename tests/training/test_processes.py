from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from torch.nn.parallel import DistributedDataParallel

from metaseg_monai.errors import DataError
from metaseg_monai.owners import owned
from metaseg_monai.training import processes


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that `end_processes` waited, each with whether the group was there still."""
    seen = []

    def pause(seconds):
        seen.append((seconds, dist.is_initialized()))

    monkeypatch.setattr(processes.time, "sleep", pause)
    return seen


@pytest.fixture
def group(tmp_path):
    """A distributed run of one process."""
    dist.init_process_group("gloo", f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def test_the_run_ends_and_leaves_no_group(group):
    network = DistributedDataParallel(torch.nn.Linear(3, 1))
    network(torch.ones(2, 3)).sum().backward()
    processes.end_processes()
    assert not dist.is_initialized()
    assert (processes.rank(), processes.world_size()) == (0, 1)
    assert processes.bare_network(network) is network.module


def test_the_threads_of_gloo_get_their_moment_before_the_end(group, pauses):
    processes.end_processes()
    assert pauses == [(processes.GLOO_PAUSE, True)]


def test_other_backends_do_not_wait(group, pauses, monkeypatch):
    monkeypatch.setattr(dist, "get_backend", lambda: "nccl")
    processes.end_processes()
    assert pauses == []
    assert not dist.is_initialized()


def test_outside_of_a_distributed_run_nothing_happens(pauses):
    processes.end_processes()
    processes.end_processes()
    assert pauses == []


def test_a_run_owns_its_folder_until_it_ends_however_it_does(tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def late():
        with ThreadPoolExecutor(1) as pool, suppress(DataError):
            pool.submit(owned(folder, "comes late").__enter__).result()
            return False
        return True

    seen = []
    for fails in (False, True):
        engine = Engine(lambda engine, batch, fails=fails: seen.append(late()) or 1 / (not fails))
        monkeypatch.setattr(engine.logger, "disabled", True)  # shared by all engines
        processes.own_while_running(engine, folder, "is training here")
        engine.add_event_handler(Events.COMPLETED, lambda: seen.append(late()))  # writes last
        with suppress(ZeroDivisionError):
            engine.run([0])
        assert list(tmp_path.iterdir()) == []
    assert seen == [True, True, True]
