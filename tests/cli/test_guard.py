"""Whatever ends a command is one line and an exit status; the trace is for --debug."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import DynUNet
from monai.transforms import Compose, SpatialPadd

from metaseg_monai.bundle import run_bundle
from metaseg_monai.cli import commands
from metaseg_monai.errors import (
    EXTRAS,
    CheckpointError,
    ConfigError,
    DataError,
    DataWarning,
    Problem,
    as_refusal,
)
from metaseg_monai.metadata import MetadataWarning
from metaseg_monai.rows import write_problems
from metaseg_monai.training import read_checkpoint

COMMAND = [sys.executable, "-m", "metaseg_monai"]


@pytest.fixture
def ends(monkeypatch, capsys):
    """Run a command that does what a function does; return status, stdout, stderr."""

    def call(function, *arguments):
        monkeypatch.setattr(commands, "load", lambda target: function)
        monkeypatch.setattr(sys, "argv", ["metaseg_monai", *(arguments or ("check",))])
        try:
            commands.main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def raising(ends):
    """Run a command that raises."""

    def call(error, *arguments):
        def function():
            raise error

        status, _, err = ends(function, *arguments)
        return status, err

    return call


KINDS = {
    "no room": OSError(errno.ENOSPC, "No space left on device", "/x/a.pt"),
    "permission": PermissionError(errno.EACCES, "Permission denied", "/x/a.pt"),
    "a folder": IsADirectoryError(errno.EISDIR, "Is a directory", "/x/a.pt"),
    "too many files": OSError(errno.EMFILE, "Too many open files", "/x/a.pt"),
    "read-only": OSError(errno.EROFS, "Read-only file system", "/x/a.pt"),
    "too long": OSError(errno.ENAMETOOLONG, "File name too long", "/x/a.pt"),
    "a limit": OSError(errno.EFBIG, "File too large", "/x/a.pt"),
    "a circle": OSError(errno.ELOOP, "Too many levels of symbolic links", "/x/a.pt"),
}


@pytest.mark.parametrize("error", KINDS.values(), ids=list(KINDS))
def test_what_the_system_refuses_names_the_file_and_a_next_step(raising, error):
    status, err = raising(error)
    assert status == 2
    assert err.startswith(f"error: /x/a.pt: {error.strerror}; ")
    assert err.count("\n") == 1
    assert "delete" not in err


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryError(), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "smaller batches or windows"),
        (RuntimeError("Found no NVIDIA driver on your system."), "give --device cpu"),
        (RuntimeError("Expected one of cpu, cuda device type at start: gpu"), "--device cpu"),
        (ModuleNotFoundError("No module named 'pydicom'", name="pydicom"), "metaseg-monai[dicom]"),
        (ModuleNotFoundError("No module named 'mine'", name="mine"), "install or mend mine"),
        (UnicodeEncodeError("utf-8", "a\udcff.png", 1, 2, "surrogates not allowed"), "rename it"),
    ],
)
def test_memory_device_and_modules_are_told(raising, error, told):
    status, err = raising(error)
    assert (status, err.count("\n")) == (2, 1)
    assert told in err


def test_a_damaged_file_is_named_although_the_error_does_not(ends, tmp_path):
    deep, cut, latin = (tmp_path / name for name in ("deep.json", "cut.json", "latin.json"))
    deep.write_text("[" * 100_000)
    cut.write_text('{"a": ')
    latin.write_bytes(b"\xff\xfe{}")
    for path in (deep, cut, latin):

        def function(path=path):
            return json.loads(path.read_text(encoding="utf-8"))

        status, _, err = ends(function)
        assert (status, err.count("\n")) == (2, 1)
        assert f"error: {path}: " in err


@pytest.mark.parametrize("debug", [["--debug"], ["--debug", "True"], ["--debug=1"]])
@pytest.mark.parametrize("before", [True, False])
def test_only_debug_shows_the_trace(raising, debug, before):
    status, err = raising(ZeroDivisionError("by zero"))
    assert status == 1
    assert err == "unforeseen: ZeroDivisionError: by zero; --debug True shows the trace\n"
    for error in (ZeroDivisionError("by zero"), DataError("no such case; mend it")):
        words = [*debug, "check"] if before else ["check", *debug]
        _, err = raising(error, *words)
        assert "Traceback" in err
    assert err.endswith("error: no such case; mend it\n")
    assert "Traceback" not in raising(ZeroDivisionError(), "check", "--debug", "False")[1]


def test_the_error_of_a_loading_process_is_one_line(raising):
    inner = "metaseg_monai.errors.DataError: case 'a': cut short; copy it anew"
    told = f"Caught DataError in DataLoader worker process 0.\nTraceback (most\n{inner}\n"
    assert raising(DataError(told)) == (2, "error: case 'a': cut short; copy it anew\n")


def test_a_batch_with_problems_ends_with_three_and_one_of_nothing_else_with_two(ends, tmp_path):
    found = [Problem("a", "a.png", "cut short", "copy it anew")]

    def some():
        write_problems(tmp_path, found)
        return SimpleNamespace(problems=found, folder=tmp_path)

    status, _, err = ends(some)
    assert status == 3
    assert err.startswith("problem: a: a.png: cut short; copy it anew\n")
    assert str(tmp_path / "problems.csv") in err
    assert ends(lambda: SimpleNamespace(problems=[]))[0] == 0
    assert ends(lambda: SimpleNamespace(problems=lambda row: ["none"]))[0] == 0
    status, _, err = ends(lambda: SimpleNamespace(problems=found, refusal="nothing; mend it"))
    assert (status, err) == (2, "error: nothing; mend it\n")


def test_a_reader_who_has_enough_is_no_fault():
    done = subprocess.run(
        f"{' '.join(COMMAND)} --help | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_the_output_is_told():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*COMMAND, "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2


def test_a_terminal_that_knows_no_umlauts_is_no_fault():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = subprocess.run(
        [*COMMAND, "Präparat"],
        capture_output=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_polite_kill_is_a_stop(ends):
    status, _, err = ends(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert status == 130
    assert "Stopped" in err


@pytest.mark.parametrize("name", ["metadata.json", "logging.conf", "inference.json", "train.json"])
@pytest.mark.parametrize("content", [b"[", b"[]", b"\xff\x00", b"[" * 60_000, b""])
def test_damaged_files_of_a_bundle_are_named(tmp_path, name, content):
    source = Path(__file__).parents[2] / "bundles" / "synthetic_shapes_segmentation" / "configs"
    bundle = tmp_path / "bundle"
    shutil.copytree(source, bundle / "configs")
    (bundle / "configs" / name).write_bytes(content)
    workflow = "train.json" if name == "train.json" else "inference.json"
    with pytest.raises(ConfigError, match=name.replace(".", r"\.")):
        run_bundle(bundle, [workflow], {})


def test_a_part_that_cannot_be_made_is_named_with_the_cause(tmp_path):
    parser = ConfigParser({"train": {"part": {"_target_": "torch.nn.Dropout", "p": 7}}})
    with pytest.raises(RuntimeError) as raised:
        parser.get_parsed_content("train#part")
    told = str(as_refusal(raised.value))
    assert told.startswith("train#part cannot be made by torch.nn.Dropout (ValueError: dropout pro")


@pytest.mark.parametrize("text", ["$1 / 0", "$[1][2]", "$len(3)", "$abs(nothing)"])
def test_an_expression_that_cannot_be_computed_is_named(text):
    parser = ConfigParser({"train": {"size": [0, text]}})
    with pytest.raises(RuntimeError) as raised:
        parser.get_parsed_content("train")
    told = str(as_refusal(raised.value))
    assert told.startswith("train#size#1 cannot be computed (")


@pytest.mark.parametrize("size", [(20, 20), (16, 16), (24, 8)])
def test_a_window_that_a_network_cannot_halve_names_its_setting(size):
    strides = [1, 2, 2, 2, 2]
    network = DynUNet(
        2, 1, 2, kernel_size=[3] * 5, strides=strides, upsample_kernel_size=strides[1:],
        filters=[2] * 5,
    )  # fmt: skip
    with pytest.raises((RuntimeError, ValueError)) as raised:
        network(torch.zeros(1, 1, *size))
    told = as_refusal(raised.value)
    assert isinstance(told, ConfigError)
    assert "of this size (" in str(told)
    assert "give roi_size, and window_inferer#roi_size, multiples" in str(told)


def test_a_size_of_other_axes_than_the_image_names_its_setting():
    with pytest.raises(RuntimeError) as raised:
        Compose([SpatialPadd("image", (32, 32, 32))])({"image": torch.zeros(1, 20, 20)})
    told = as_refusal(raised.value)
    assert isinstance(told, ConfigError)
    assert "images have 2 axes, and a size has 3 numbers; give roi_size" in str(told)


def test_a_file_that_may_not_be_read_is_never_to_be_deleted(tmp_path):
    (tmp_path / "model.pt").mkdir()
    with pytest.raises(CheckpointError, match=r"model\.pt: Is a directory; it is a folder") as told:
        read_checkpoint(tmp_path / "model.pt")
    assert "elete" not in str(told.value)


def test_extras_that_are_named_exist():
    known = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    for extra in set(EXTRAS.values()):
        assert f"\n{extra} = [" in known


def test_remarks_on_data_are_one_line_each_once_and_not_filtered(ends):
    def function():
        for case in ("a", "b", "a"):
            warnings.warn(f"case {case}:\nis tilted", DataWarning, stacklevel=1)
        warnings.warn("no size", MetadataWarning, stacklevel=1)

    before = warnings.showwarning
    warnings.simplefilter("ignore")
    status, _, err = ends(function)
    assert (status, err) == (
        0, "warning: case a: is tilted\nwarning: case b: is tilted\nwarning: no size\n"
    )  # fmt: skip
    assert warnings.showwarning is before


def test_remarks_of_a_loading_process_are_not_told_again(ends):
    def remark():
        warnings.warn("case a is tilted", DataWarning, stacklevel=1)

    def function():
        process = multiprocessing.get_context("fork").Process(target=remark)
        process.start()
        process.join()
        remark()
        warnings.warn("no size", DataWarning, stacklevel=1)

    status, _, err = ends(function)
    assert (status, err) == (0, "warning: no size\n")
