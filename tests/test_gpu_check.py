"""The check for whoever has a GPU: its dry run on the CPU, and what a part that fails leaves."""

import json
import os
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import torch

from metaseg_monai.errors import ConfigError, MetasegError

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.fixture(scope="module")
def script():
    """The script, as a module that a process of its own can import, too."""
    sys.path.insert(0, str(SCRIPTS))
    yield import_module("gpu_check")
    sys.path.remove(str(SCRIPTS))
    for name in ("gpu_check", "benchmark"):
        sys.modules.pop(name, None)


@pytest.fixture
def settings(script):
    return script.Settings("cpu", 16, 2, 0, False, True)


def test_a_dry_run_measures_every_part(tmp_path):
    command = [sys.executable, str(SCRIPTS / "gpu_check.py"), "--device", "cpu", "--size", "64"]
    command += ["--quick", "True", "--workers", "1", "--output", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert "A dry run" in done.stdout
    text = (tmp_path / "gpu_check.md").read_text()
    assert text in done.stdout
    for told in (
        f"| versions | Python {sys.version.split()[0]} | PyTorch {torch.__version__}",
        "| all_reduce, gloo | one process, ",
        "| DistributedDataParallel, gloo | ",
        "| a training resumed | shapes, 2 epochs, bfloat16, on cpu | bit-equal |",
        "images on the device | ",
        "read by 1 workers | ",
    ):
        assert told in text
    parts = json.loads((tmp_path / "gpu_check.json").read_text())["parts"]
    assert all(part["error"] is None and part["findings"] for part in parts.values())
    rates = [one for one in parts["throughput"]["findings"] if "network" in one]
    assert {(one["network"], one["variant"], one["loading"]) for one in rates} == {
        (network, variant, loading)
        for network, variant in [
            *(("unet3", variant) for variant in ("none", "se", "sme")),
            ("dynunet-2d", "sme"),
        ]
        for loading in (False, True)
    }
    assert all(one["images_per_second"] > 0 for one in rates)
    costs = {(one["network"], one["variant"]) for one in parts["overhead"]["findings"]}
    assert costs >= {("unet3", "se"), ("unet3", "sme"), ("dynunet-2d", "sme")}


def one(**more):
    return {"what": "a thing", "setting": "here", "result": "found", **more}


def fails(settings):
    yield one()
    raise RuntimeError("CUDA error: device-side assert triggered\nand much more")


def hangs(settings):
    yield one()
    time.sleep(60)


def dies(settings):
    yield one()
    os._exit(3)


@pytest.mark.parametrize(
    ("part", "seconds", "error"),
    [
        (fails, 25, "RuntimeError: CUDA error: device-side assert triggered"),
        (hangs, 5, "not ready after 5 s"),
        (dies, 25, "the process ended with 3"),
    ],
)
def test_what_a_part_found_before_it_failed_is_kept(script, settings, part, seconds, error):
    found = script.run_part(part, seconds, settings)
    assert found["findings"] == [one()]
    assert found["error"] == error
    assert found["seconds"] < 30


def test_a_part_runs_in_a_process_begun_anew_as_with_a_gpu(script, settings, monkeypatch):
    monkeypatch.setattr(script.multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    found = script.run_part(script.machine, 120, settings)
    assert found["error"] is None
    assert [finding["what"] for finding in found["findings"]] == ["device", "versions", "cuDNN"]


def test_a_failing_part_is_named_and_takes_no_other_along(script, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(script, "PARTS", {"first": (fails, 9), "second": (lambda _: [one()], 9)})
    with pytest.raises(SystemExit, match="gpu_check: failed: first"):
        script.gpu_check("cpu", parts="first,second", output=str(tmp_path))
    parts = json.loads((tmp_path / "gpu_check.json").read_text())["parts"]
    assert parts["second"]["findings"] == [one()]
    text = (tmp_path / "gpu_check.md").read_text()
    assert text.count("| a thing | here | found |") == 2
    assert "- first failed: RuntimeError: CUDA error" in text


def test_a_training_with_reading_takes_steps_on_what_was_read(script, settings, monkeypatch):
    read = {
        "image": torch.full((2, 1, 16, 16), 0.5),
        "label": torch.zeros(2, 1, 16, 16, dtype=torch.long),
        "meta": torch.eye(2, 3),
    }
    taken = []

    def step(inputs, label):
        taken.append((*inputs, label))

    monkeypatch.setattr(script, "training", lambda network, dtype: step)
    monkeypatch.setattr(script, "_repeated", lambda run, *_: run() or 1.0)
    list(script._trained("unet3", "sme", 3, lambda batch_size: [read], settings))
    for ours, theirs in zip(taken[-1], (read["image"], read["meta"], read["label"]), strict=True):
        assert torch.equal(ours, theirs)


def test_throughput_is_told_as_a_share_of_the_best_matrix_product(script, settings):
    products = [one(teraflops=value) for value in (200.0, 400.0)]
    told = {"matmul": products, "throughput": [one(teraflops=100.0), one()]}
    parts = {name: {"findings": those, "error": None} for name, those in told.items()}
    text = script.report(settings, parts)
    assert text.count("found (25 % of the matrix product) |") == 1
    assert text.count("| found |") == 3


def test_all_parts_together_take_less_than_eight_minutes(script):
    assert sum(seconds for _, seconds in script.PARTS.values()) < 480


def test_batches_are_halved_until_they_fit(script):
    tried = []

    def make(batch):
        tried.append(batch)
        if batch > 2:
            raise torch.cuda.OutOfMemoryError
        return "made"

    assert script._fitting(8, make) == ("made", 2)
    assert tried == [8, 4, 2]


def test_the_distance_of_two_states_is_0_for_the_same_bits_only(script):
    state = {"network": {"w": torch.ones(2)}, "optimizer": {"state": {0: {"step": torch.ones(1)}}}}
    assert script._apart(*[dict(script._tensors(state))] * 2) == 0
    other = {**state, "network": {"w": torch.tensor([1.0, 1.5])}}
    assert script._apart(dict(script._tensors(state)), dict(script._tensors(other))) == 0.5
    with pytest.raises(RuntimeError, match="other tensors"):
        script._apart(dict(script._tensors(state)), {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"device": "tpu"}, "device must be cpu or cuda, got 'tpu'"),
        ({"size": 0}, "size must be 1 or more, got 0"),
        ({"parts": "gpu"}, "unknown gpu: choose of machine, "),
    ],
)
def test_refusals_name_the_setting(script, given, message):
    with pytest.raises(ConfigError, match=message):
        script.gpu_check(**{"device": "cpu", **given})


def test_a_folder_that_cannot_be_written_is_refused_before_it_measures(
    script, monkeypatch, tmp_path
):
    monkeypatch.setattr(script, "run_part", lambda *given: pytest.fail("it measured"))
    (tmp_path / "file").touch()
    with pytest.raises(MetasegError, match="file"):
        script.gpu_check(device="cpu", output=str(tmp_path / "file" / "out"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_without_a_gpu_the_dry_run_is_named(script):
    with pytest.raises(ConfigError, match="--device cpu --size 64 --quick True"):
        script.gpu_check()
