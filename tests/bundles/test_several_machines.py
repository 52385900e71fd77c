"""A training on two machines, both of them this one: what it learns, and how it ends."""

import os
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # six starts of torch, twice each

NETWORK = "synthetic_shapes_segmentation"
SGD = "{'_target_': 'torch.optim.SGD', 'params': '$@network.parameters()', 'lr': 1.0}"
CONSTANT = "{'_target_': 'torch.optim.lr_scheduler.ConstantLR', 'optimizer': '@optimizer'}"
PLAIN = {  # whose steps do not depend on how many images a process has: no batch statistics
    "optimizer": SGD, "lr_scheduler": CONSTANT, "epochs": 1,
    "train#inferer": "{'_target_': 'SimpleInferer'}",
}  # fmt: skip


@pytest.fixture(scope="module")
def shapes(copy_bundle):
    bundle = copy_bundle(NETWORK)
    bundle.settings["table#path"] |= {"train": 8, "val": 4, "test": 2}
    bundle.run(bundle.command("training", "train", output_dir=bundle.elsewhere / "first"))
    return bundle


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def two_machines(bundle, folder, *configs, **settings):
    """Start torchrun twice, as on two machines; what each says goes to a file."""
    command = bundle.command(
        "training", "train", *configs, "multi_gpu_train", output_dir=folder / "run", **settings
    )
    meeting = ("--rdzv_backend", "c10d", "--rdzv_endpoint", f"127.0.0.1:{free_port()}")
    launcher = ("--nnodes", "2", "--nproc_per_node", "1", "--rdzv_id", "it", *meeting)
    folder.mkdir(exist_ok=True)
    started = []
    for machine in range(2):
        words = ["-m", "torch.distributed.run", *launcher, "--node_rank", str(machine), *command]
        with (folder / f"{machine}.txt").open("w") as said:
            one = subprocess.Popen(
                [sys.executable, *words],
                cwd=bundle.elsewhere,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        started.append(one)
    return started


def ended(machines, folder, seconds=400):
    until = time.monotonic() + seconds
    try:
        return [one.wait(max(1, until - time.monotonic())) for one in machines]
    except subprocess.TimeoutExpired:
        for one in machines:
            one.kill()
        pytest.fail(f"not ended in {seconds} s: {(folder / '0.txt').read_text()[-2000:]}")


def trained(folder):
    stored = torch.load(folder / "run" / "checkpoint.pt", weights_only=True)
    return stored["objects"]["network"]


def test_two_machines_take_the_steps_of_one(shapes, tmp_path):
    alone = tmp_path / "alone"
    command = shapes.command(
        "training", "train", "segresnet", output_dir=alone / "run", batch_size=8, **PLAIN
    )
    shapes.run(command)
    both = tmp_path / "both"
    machines = two_machines(shapes, both, "segresnet", batch_size=4, **PLAIN)
    assert ended(machines, both) == [0, 0], (both / "0.txt").read_text()[-3000:]
    # one step of rate 1: weights differ as gradients do
    torch.testing.assert_close(trained(alone), trained(both), rtol=0, atol=1e-6)
    losses = [pd.read_csv(one / "run" / "log.csv")["train_loss"][0] for one in (alone, both)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def children(process):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True)
    return [int(one) for one in found.stdout.split()]


def test_a_dying_process_ends_all_by_name_and_the_run_resumes_to_the_same_weights(shapes, tmp_path):
    settings = {"batch_size": 4, "epochs": 12, "train#checkpoint#every": 1}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert ended(two_machines(shapes, whole, **settings), whole) == [0, 0]
    machines = two_machines(shapes, killed, **settings)
    log, until = killed / "run" / "log.csv", time.monotonic() + 300
    while not log.exists() and time.monotonic() < until:
        time.sleep(0.01)
    (worker,) = children(machines[1].pid)
    os.kill(worker, signal.SIGKILL)
    died = time.monotonic()
    assert all(status > 0 for status in ended(machines, killed, 60))
    assert time.monotonic() - died < 60
    said = [(killed / f"{machine}.txt").read_text() for machine in range(2)]
    dead = [text for text in said if f"exitcode  : -9 (pid: {worker})" in text]
    (other,) = [text for text in said if text not in dead]
    assert len(dead) == 1
    assert "ends, as another one of this run has ended before" in other
    assert len(pd.read_csv(log)) < settings["epochs"]
    assert ended(two_machines(shapes, killed, resume=True, **settings), killed) == [0, 0]
    torch.testing.assert_close(trained(whole), trained(killed), rtol=0, atol=0)
