import os
import pickle
import random
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from metaseg_monai.errors import CheckpointError
from metaseg_monai.files import differences
from metaseg_monai.training import read_checkpoint, write_checkpoint
from metaseg_monai.training.weights import replace_file

STATE = {"model": {"w": torch.arange(2000.0)}, "iteration": 3, "list": [1, (2.5, None, "a")]}


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "new" / "checkpoint.pt"
    write_checkpoint(path, STATE)
    state = read_checkpoint(path)
    assert torch.equal(state["model"]["w"], STATE["model"]["w"])
    assert (state["iteration"], state["list"]) == (3, [1, (2.5, None, "a")])
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"best": np.float64(0.5)}, r"state\['best'\] is numpy\.float64"),
        ({"a": [1, {"b": Path("x")}]}, r"state\['a'\]\[1\]\['b'\]"),
        ({"a": np.zeros(2)}, "numpy.ndarray"),
    ],
)
def test_what_could_not_be_read_safely_is_not_written(tmp_path, value, place):
    with pytest.raises(CheckpointError, match=place):
        write_checkpoint(tmp_path / "a.pt", value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(4))
def test_every_flipped_bit_is_noticed_or_harmless(tmp_path, seed):
    """PyTorch alone loads most of these without a word, the weights altered."""
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, STATE)
    whole, draw = path.read_bytes(), random.Random(seed)
    refused = 0
    for _ in range(25):
        broken = bytearray(whole)
        broken[draw.randrange(len(broken))] ^= 1 << draw.randrange(8)
        path.write_bytes(broken)
        try:
            state = read_checkpoint(path)
        except CheckpointError as error:
            refused += str(path) in str(error)
        else:
            assert torch.equal(state["model"]["w"], STATE["model"]["w"])
            assert state["iteration"] == 3
    assert refused > 15


@pytest.mark.parametrize("content", [b"", b"PK", b"no checkpoint at all", 0.3, 0.9, 0.999])
def test_a_file_that_is_none_or_truncated_is_named(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*checkpoint\.pt"):
        read_checkpoint(path)
    write_checkpoint(path, STATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * content)] if isinstance(content, float) else content)
    with pytest.raises(CheckpointError, match=r"Cannot read .*checkpoint\.pt"):
        read_checkpoint(path)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_code_in_a_file_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError, match="could run code"):
        read_checkpoint(tmp_path / "evil.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(CheckpointError, match="Cannot read"):
        read_checkpoint(tmp_path / "evil.pkl")
    assert not Path("harmed").exists()


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, STATE)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(CheckpointError, match=r"checkpoint\.pt: .*; raise the limit.*intact"):
            write_checkpoint(path, {"model": torch.zeros(1 << 18)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_death_at_any_step_leaves_the_old_file(tmp_path, monkeypatch, step):
    path = tmp_path / "checkpoint.pt"
    write_checkpoint(path, {"iteration": 1})

    def die(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (Path, "replace")), die)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(path, {"iteration": 2})
    assert read_checkpoint(path) == {"iteration": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="intact"):
        replace_file(tmp_path / "file" / "a", b"")


# In what settings differ


def schema(*fields):
    return {"fields": [{"name": name, "values": list(values)} for name, values in fields]}


def test_equal_settings_have_none():
    assert differences({"a": 1, "b": [1, 2]}, {"b": [1, 2], "a": 1.0}) == []


@pytest.mark.parametrize(
    ("stored", "current", "line"),
    [
        ({"epochs": 100}, {"epochs": 50}, "epochs: 100 in the checkpoint, 50 now"),
        ({"seed": 1}, {}, "seed: 1 in the checkpoint, none now"),
        ({}, {"seed": None}, "seed: none in the checkpoint, None now"),
        ({"a": {"b": [1]}}, {"a": {"b": [2]}}, "a.b: [1] in the checkpoint, [2] now"),
        ({"a": 1}, {"a": True}, "a: 1 in the checkpoint, True now"),
        (
            {"a": ["@b", {"name": "c", "d": 1}]},
            {"a": ["@b", {"name": "c"}]},
            "a.c.d: 1 in the checkpoint, none now",
        ),
        ({"a": [{"b": 1}] * 2}, {"a": [{"b": 1}, {}]}, "a.1.b: 1 in the checkpoint, none now"),
    ],
)
def test_each_difference_is_named(stored, current, line):
    assert differences(stored, current) == [line]


def test_schemas_are_compared_by_field():
    stored = {"schema": schema(("task", ["disc"]), ("organ", ["liver"]))}
    current = {"schema": schema(("task", ["disc", "ring"]), ("organ", ["liver"]))}
    assert differences(stored, current) == [
        "schema.fields.task.values: ['disc'] in the checkpoint, ['disc', 'ring'] now"
    ]


def test_the_order_of_fields_counts():
    stored = {"schema": schema(("task", ["disc"]), ("organ", ["liver"]))}
    current = {"schema": schema(("organ", ["liver"]), ("task", ["disc"]))}
    assert differences(stored, current) == [
        "schema.fields: order ['task', 'organ'] is now ['organ', 'task']"
    ]


def test_long_values_are_shortened():
    (line,) = differences({"a": "x" * 500}, {"a": "y" * 500})
    assert len(line) < 220
