"""The script that measures what gates cost, on networks of a few channels."""

import ast
import csv
import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from metaseg_monai.errors import ConfigError, MetasegError
from metaseg_monai.networks import DynamicUnet3

ROOT = Path(__file__).parents[1]
SMALL = {"size": 16, "channels": 16, "levels": 2, "repetitions": 1}
ONE = {"dtypes": "float32", "steps": "inference"}


@pytest.fixture(scope="module")
def script():
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location("benchmark", ROOT / "scripts" / "benchmark.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark"] = module  # where a dataclass looks for its module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["benchmark"]


def test_rows_tell_the_cost_of_each_variant(script, tmp_path, capsys):
    script.benchmark("unet3,dynunet-2d", "sme,dynamic", output=str(tmp_path / "cost.csv"), **SMALL)
    with (tmp_path / "cost.csv").open() as file:
        rows = list(csv.DictReader(file))
    settings = {(row["network"], row["variant"], row["dtype"], row["step"]) for row in rows}
    measured = [("unet3", "sme"), ("unet3", "dynamic"), ("dynunet-2d", "sme")]
    assert settings == {
        (*one, dtype, step) for one in measured for dtype in script.DTYPES for step in script.STEPS
    }
    for row in rows:
        assert float(row["ratio"]) > 0
        assert int(row["threads"]) >= 1
        assert row["layout"] == "channels_last"
        added = int(row["parameters"]) - int(row["parameters_bare"])
        assert float(row["added_percent"]) == pytest.approx(
            100 * added / int(row["parameters_bare"])
        )
        assert (added == 0) == (int(row["frozen"]) > 0) == (row["variant"] == "dynamic")
    printed = capsys.readouterr().out
    assert "| unet3 | 1x1x16x16 channels_last, cpu, " in printed
    assert "|  |  | sme | all (5) |" in printed  # beside the line of the bare network
    assert "|  |  | sme | encoder (4) |" in printed
    assert "Left out: dynunet-2d, dynamic: " in printed


def test_at_names_a_group_or_places(script, capsys):
    def measured(**settings):
        script.benchmark(**{**SMALL, **ONE, **settings})
        return capsys.readouterr().out

    printed = measured(networks="unet3,dynunet-2d", variants="se,constant-channel", at="decoder")
    assert printed.count("| se | decoder (2) |") == 1
    assert printed.count("| se | decoder (3) |") == 1
    assert printed.count("| constant-channel | image (1) |") == 2
    assert "| se | named (1) |" in measured(networks="unet3", variants="se", at="middle")
    places = measured(networks="dynunet-2d", variants="se", at=("bottleneck", "upsamples.1"))
    assert "| se | named (2) |" in places
    with pytest.raises(ConfigError, match=r"nothing to measure.*got 'bottom'"):
        measured(networks="unet3", variants="se", at="bottom")


def test_dynunet_is_that_of_the_bundles(script):
    file = json.loads((ROOT / "bundles" / "_shared" / "dynunet.json").read_text())
    sizes = file["network_def"]["network"]
    assert script.DynUNet.__name__ == sizes["_target_"]
    network = script.NETWORKS["dynunet-2d"].build(script.NETWORKS["dynunet-2d"], "none")
    assert list(network.filters) == sizes["filters"]
    assert list(network.strides) == sizes["strides"]
    assert list(network.kernel_size) == sizes["kernel_size"]
    assert list(network.upsample_kernel_size) == sizes["upsample_kernel_size"]


@pytest.mark.parametrize("name", ["unet3", "ppunet"])
def test_every_variant_goes_with_the_texts_networks(script, name):
    variants = (*script.TABLE, *(script.OF_UNET3 if name == "unet3" else ()))
    subject = replace(script.NETWORKS[name], variants=variants, size=16, channels=4, levels=2)
    rows, left_out = script.measure(name, subject, ["float32"], ["inference"], repetitions=1)
    assert [row.variant for row in rows] == list(variants)
    assert left_out == []


@pytest.mark.parametrize("name", ["segresnet-2d", "basicunet-2d", "segresnet-3d"])
def test_every_gate_goes_with_conditioned_networks(script, name):
    subject = replace(script.NETWORKS[name], variants=[*script.TABLE], start="paper", channels=16)
    subject = replace(subject, size=32 if name == "basicunet-2d" else 16, batch=2)
    rows, left_out = script.measure(name, subject, ["float32"], ["inference"], repetitions=1)
    assert len(rows) + len(left_out) == len(script.TABLE)
    assert {"se", "me", "sme", "film", "weight-noise"} <= {row.variant for row in rows}


def test_a_frozen_generator_learns_nothing_and_a_joint_one_does(script):
    subject = replace(script.NETWORKS["unet3"], channels=4, levels=2)
    frozen, joint = (subject.build(subject, name) for name in ("dynamic", "dynamic-joint"))
    assert isinstance(frozen, DynamicUnet3)
    counts = [sum(one.numel() for one in net.parameters()) for net in (frozen, joint)]
    assert counts[0] < counts[1]


def test_steps_take_turns_and_warm_ups_do_not_count(script):
    order = []
    runs = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = script.interleaved(runs, 3, "cpu")
    assert [len(times) for times in seconds.values()] == [3, 3, 3]
    assert order[3 * script.WARM_UPS :] == [*"abc", *"bca", *"cab"]


def test_ratios_are_of_pairs_over_the_bare_network(script):
    found = script._times([0.2, 0.6, 0.3], [0.1, 0.2, 0.2])
    assert found["ratio"] == pytest.approx(2.0)  # of 2, 3 and 1.5
    assert (found["first_quartile"], found["third_quartile"]) == pytest.approx((1.5, 3.0))
    assert (found["milliseconds"], found["milliseconds_bare"]) == pytest.approx((300, 200))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_learns_and_an_inference_does_not_in_the_type_that_is_told(script, dtype):
    subject = replace(script.NETWORKS["unet3"], channels=4, levels=2)
    network = subject.build(subject, "sme")
    types = []
    network.register_forward_hook(lambda *given: types.append((given[-1].dtype, network.training)))
    image, label = torch.rand(1, 1, 16, 16), torch.ones(1, 1, 16, 16)
    inputs, before = (image, torch.eye(1, 7)), network.head.weight.clone()
    script.inference(network, dtype)(inputs, label)
    assert torch.equal(network.head.weight, before)
    script.training(network, dtype)(inputs, label)
    assert not torch.equal(network.head.weight, before)
    assert types == [(getattr(torch, dtype), False), (getattr(torch, dtype), True)]


def test_each_row_times_its_own_step_and_settings(script, monkeypatch):
    taken = []
    for step in script.STEPS:
        made = getattr(script, step)

        def told(network, dtype, step=step, made=made):
            gates = [one for one in network.modules() if isinstance(one, script.ChannelGate)]
            if gates:
                taken.append((step, dtype, gates[0].fused, gates[0].excitation.neutral))
            return made(network, dtype)

        monkeypatch.setattr(script, step, told)
    script.benchmark("unet3", "se", start="neutral", fused=False, **SMALL)
    assert taken == [(step, dtype, False, True) for dtype in script.DTYPES for step in script.STEPS]
    taken.clear()
    script.benchmark("unet3", "se", **ONE, **SMALL)
    assert taken == [("inference", "float32", True, False)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"networks": "unet4"}, "unknown unet4: choose of unet3, "),
        ({"variants": "sm"}, "unknown sm: choose of se, "),
        ({"networks": "ppunet", "variants": "dynamic"}, "nothing to measure; ppunet, dynamic: "),
        ({"start": "zero"}, "start must be neutral or paper, got 'zero'"),
        ({"repetitions": 0}, "repetitions must be 1 or more, got 0"),
        ({"size": 4}, "unet3 does not run on 1x1x4x4: "),
    ],
)
def test_refusals_name_the_setting(script, settings, message):
    with pytest.raises(ConfigError, match=message):
        script.benchmark(**{**SMALL, "networks": "unet3", "variants": "se", **settings})


def test_a_file_that_cannot_be_written_is_refused_before_it_measures(script, monkeypatch, tmp_path):
    monkeypatch.setattr(script, "measure", lambda *given: pytest.fail("it measured"))
    (tmp_path / "file").touch()
    with pytest.raises(MetasegError, match="file"):
        script.benchmark(**SMALL, networks="unet3", output=str(tmp_path / "file" / "cost.csv"))
    with pytest.raises(MetasegError, match="is a folder"):
        script.benchmark(**SMALL, networks="unet3", output=str(tmp_path))


def test_a_script_refuses_a_misspelt_flag_and_shows_its_help(tmp_path):
    def run(flag):
        command = [sys.executable, str(ROOT / "scripts" / "growth.py"), flag]
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=60
        )

    refused, helped = run("--outptu"), run("--help")
    assert refused.returncode == 2
    assert re.fullmatch(r"error: growth.py: no option --outptu; .*--output.*\n", refused.stderr)
    assert helped.returncode == 0
    assert "python scripts/growth.py" in helped.stdout + helped.stderr


def test_every_script_has_that_door_and_an_example():
    for file in sorted((ROOT / "scripts").glob("*.py")):
        text = file.read_text()
        if '"__main__"' in text and file.name != "goldens_server.py":  # started by goldens.py
            (given,) = re.findall(r"^    run_script\(([\w, ]+)\)$", text, re.M)
            made = {one.name: one for one in ast.parse(text).body if hasattr(one, "name")}
            for name in given.split(", "):
                assert f"python scripts/{file.name}" in ast.get_docstring(made[name]), file.name


def test_memory_is_that_of_weights_state_and_what_is_kept_for_the_backward_pass(script):
    network = torch.nn.Conv2d(1, 2, 3, padding=1)
    weights, kept = 4 * (18 + 2) * 4, 2 * 64 * 4  # with gradients and moments; the image
    held = script.held(network, (torch.rand(2, 1, 8, 8),), "float32")
    assert held * 2**20 == weights + kept


def test_memory_grows_by_what_a_network_makes_of_metadata(script):
    subject = replace(script.NETWORKS["unet3"], channels=16, levels=2, size=16)
    image, meta = torch.rand(1, 1, 16, 16), torch.eye(1, 7)
    held = {}
    for name in ("none", "dynamic", "dynamic-joint"):
        network = subject.build(subject, name)
        held[name] = script.held(network, script.inputs_of(network, image, meta), "float32")
    assert held["none"] < held["dynamic"] < held["dynamic-joint"]


def test_loading_is_timed_beside_the_network(bundle, tiny, tmp_path, capsys):
    path = ROOT / "scripts" / "benchmark_loading.py"
    spec = importlib.util.spec_from_file_location("benchmark_loading", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = {**tiny, "dataset_dir": str(tmp_path / "data")}
    module.benchmark(str(bundle), **{**settings, "epochs": 2})
    told = re.findall(
        r"epoch (\d): a step: data ([\d.]+) ms, network ([\d.]+) ms; waits for data ([\d.]+)%",
        capsys.readouterr().out,
    )
    assert [epoch for epoch, *_ in told] == ["1", "2"]
    for _, data, network, share in told:
        assert float(data) > 0
        assert float(network) > 0
        assert float(share) == pytest.approx(
            100 * float(data) / (float(data) + float(network)), abs=1
        )
    with pytest.raises(ConfigError, match="give 2 or more"):
        module.benchmark(str(bundle), **{**settings, "epochs": 1})
