"""Integer and text results stay what they were: hashes of what the command line writes.

Nothing here depends on processor, torch or threads; what does is compared by scripts/goldens.py,
on one machine. Inputs are those of its scenarios.
"""

import hashlib
import importlib.util
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import tifffile

from metaseg_monai.cli.commands import main

INPUTS = Path(__file__).resolve().parents[1] / "scripts" / "goldens_inputs.py"
KEPT = ("table.csv", "slices.csv", "cases.csv", "problems.csv", "report.md", "tables/*.tex",
        "labels/*", "objects/*", "*/aggregated_MAJ_seg.nii.gz")  # fmt: skip
SCENARIOS = {
    "shapes": ["generate synthetic-shapes --train 6 --val 6 --test 6 --size 32 --output out"],
    "phantoms": ["generate kits21-phantom --matrix 40 --cases 2 --output out"],
    "kits21": [
        "generate kits21-phantom --matrix 40 --cases 13 --output phantoms",
        "@damage_phantoms",
        "! prepare kits21 --source phantoms --output out --labels_only --spacing native",
    ],
    "cells": ["@write_lab", "! prepare cells --source lab --output out --group plate,well"],
    "opera": [
        "@write_plates",
        "prepare names --source opera --output out --pattern opera --join channel",
    ],
    "dsb2018": ["@write_bowl", "prepare dsb2018 --source stage1_train --output out "
                "--overlap smaller"],
    "magnified": ["@write_table", "prepare magnify --source cells --output out --targets 15,64"],
    "report": ["@counts", "report runs --output out --title Goldens"],
}  # fmt: skip
HASHES = {
    "shapes": "9d033d75d140e62e",
    "phantoms": "ced30ea906caf731",
    "kits21": "c50050cb38533688",
    "cells": "ef4dc2f1c823849d",
    "opera": "359a313af17472b2",
    "dsb2018": "082d46c124684331",
    "magnified": "db5aeb99ffb6f347",
    "report": "2deac222284f0805",
}


def counts(work, bind):
    """Two evaluated models, three domains in six groups, two of four modes of one of them."""
    rows = []
    for model, modes in (("se", ["normal"]), ("me", ["normal", "shuffle"])):
        for mode in modes:
            for case in range(18):
                hit = 50 + 7 * (model == "me") - 30 * (mode == "shuffle") - case
                place = {"case": f"c{case:02d}", "group": f"g{case // 3}", "split": "test"}
                place |= {"mode": mode, "domain": "abc"[case % 3], "class": 1}
                rows.append({**place, "tp": hit, "fp": case, "fn": 80 - hit, "tn": 400})
        (work / "runs" / model).mkdir(parents=True)
        pd.DataFrame(rows).to_csv(work / "runs" / model / "counts.csv", index=False)
        bind(work / "runs" / model, modes=modes)
        rows.clear()


def listed(folder):
    """A line for each kept file: its name and the digest of its text, or of its voxels."""
    lines = []
    for path in sorted({p for pattern in KEPT for p in folder.glob(pattern) if p.is_file()}):
        content = path.read_bytes()
        if path.suffix in (".tif", ".gz"):
            read = tifffile.imread if path.suffix == ".tif" else lambda p: nib.load(p).dataobj
            array = np.asanyarray(read(path))
            content = f"{array.dtype} {array.shape}".encode() + array.tobytes()
        lines.append(f"{path.relative_to(folder).as_posix()} {hashlib.sha256(content).hexdigest()}")
    return lines


@pytest.mark.parametrize("name", SCENARIOS)
def test_results_are_those_of_before(name, tmp_path, monkeypatch, bind):
    spec = importlib.util.spec_from_file_location("goldens_inputs", INPUTS)
    inputs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(inputs)
    monkeypatch.chdir(tmp_path)
    for step in SCENARIOS[name]:
        if step.startswith("@"):
            if step == "@counts":
                counts(tmp_path, bind)
            else:
                getattr(inputs, step[1:])(tmp_path)
            continue
        words = shlex.split(step.removeprefix("! "))
        monkeypatch.setattr("sys.argv", ["metaseg_monai", *words])
        if step.startswith("! "):
            with pytest.raises(SystemExit, match="3"):
                main()
        else:
            main()
    lines = listed(tmp_path / "out")
    assert lines
    found = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    assert found == HASHES[name], (
        "\n".join(lines) + f'\nThese are the files of "{name}". If they are meant to have changed, '
        f'say so in the commit, and set HASHES["{name}"] = "{found}" in {__file__}; '
        "else `git stash` and this test show what they were."
    )
