"""The campaign of scripts/fault_campaign.py judges rightly, and damages what it says."""

import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from metaseg_monai.cli.commands import COMMANDS, check_flags, find, load

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))
from fault_damages import damages_of
from fault_verdicts import Ended, judge, same
from fault_world import JOBS, MADE, TARGETS, write_cells

TARGET = {one.kind: one for one in TARGETS}


def judged(kind, before, path, damage="x", told="x: y", code=0, text="", apart=("out/a: differs",)):
    came, unharmed = Ended(code, text, 1.0), Ended(0, "fine", 1.0)
    return judge(TARGET[kind], "check x", damage, told, before, path, came, unharmed, apart)


def test_every_command_of_the_campaign_is_one():
    commands = [*MADE, *(c for t in TARGETS for c in t.commands), *(j.command for j in JOBS)]
    for command in commands:
        target, words, rest = find(shlex.split(command), COMMANDS)
        check_flags(load(target), rest, " ".join(words))


def test_every_kind_of_file_can_be_damaged_in_many_ways(tmp_path):
    write_cells(tmp_path / "whole")
    for name in ("images/cell00_strip.tif", "images/cell07_plain.nii", "images/cell05_grey.png",
                 "table.csv", "schema.json"):  # fmt: skip
        done = set()
        for number, damage in enumerate(damages_of(tmp_path / "whole" / name)):
            path = tmp_path / "world" / f"{number}-{Path(name).stem}" / name
            path.parent.mkdir(parents=True)
            path.write_bytes((tmp_path / "whole" / name).read_bytes())
            assert damage(np.random.default_rng(number), path, tmp_path / "whole")
            if not same(tmp_path / "whole" / name, path):
                done.add(damage.__name__)
        assert len(done) >= 15, (name, done)


def test_exit_status_alone_is_not_believed(tmp_path):
    path = tmp_path / "cell01.tif"
    path.write_bytes(b"")
    assert judged("image", path, path, code=2, text="error: x/cell01.tif: is empty") == "told"
    assert judged("image", path, path, code=2, text="error: something is wrong") == "unnamed"
    assert judged("image", path, path, code=2, text="fine") == "unnamed"
    assert judged("image", path, path, code=1, text="cell01.tif") == "unforeseen"
    trace = "Traceback (most recent call last):\n cell01.tif"
    assert judged("image", path, path, code=2, text=trace) == "traceback"
    assert judged("image", path, path, code=-9) == "crash"
    assert judged("image", path, path, code=124) == "hang"
    assert judged("image", path, path) == "silent"
    assert judged("image", path, path, apart=()) == "harmless"
    assert judged("image", path, path, text="cell01.tif: left out") == "remark"


@pytest.mark.parametrize(
    ("kind", "old", "new", "verdict"),
    [
        ("image", np.uint8([[1, 2]]), np.uint8([[1, 3]]), "undetectable: other pixels"),
        ("image", np.uint8([[1, 2]]), np.uint8([[1], [2]]), "silent"),
        ("image", np.uint8([[1, 2]]), np.float32([[1, 2.5]]), "undetectable: other pixels"),
        ("label", np.uint8([[0, 1]]), np.uint8([[1, 0]]), "undetectable: other pixels"),
        ("label", np.uint8([[0, 1]]), np.uint8([[0, 255]]), "silent"),
        ("samples.npz", np.uint8([[0, 1]]), np.uint8([[1, 0]]), "silent"),
    ],
)
def test_only_pixels_without_a_checksum_are_beyond_detection(tmp_path, kind, old, new, verdict):
    for name, array in (("old.tif", old), ("new.tif", new)):
        tifffile.imwrite(tmp_path / name, array)
    assert judged(kind, tmp_path / "old.tif", tmp_path / "new.tif") == verdict


@pytest.mark.parametrize(
    ("new", "verdict"),
    [
        ("a,n\nx,1\ny,3\n", "undetectable: a cell with another legal value"),
        ("a,n\ny,1\ny,2\n", "undetectable: a cell with another legal value"),
        ("a,n\nx,1\n", "undetectable: a row deleted"),
        ("a,n\nx,nan\ny,2\n", "silent"),
        ("a,n\nx,-1\ny,2\n", "silent"),
        ("a,n\nz,1\ny,2\n", "silent"),
        ("a,m\nx,1\ny,2\n", "silent"),
        ("a,n\nx,1\ny,2\ny,2\n", "silent"),
    ],
)
def test_only_legal_cells_and_lost_rows_of_a_table_are_beyond_detection(tmp_path, new, verdict):
    old, path = tmp_path / "old.csv", tmp_path / "new.csv"
    old.write_text("a,n\nx,1\ny,2\n")
    path.write_text(new)
    assert judged("table.csv", old, path) == verdict
