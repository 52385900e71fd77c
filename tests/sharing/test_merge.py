"""One folder of scans, predicted by shards that never meet, are killed, and find damaged scans."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.bundle import ConfigParser

from metaseg_monai import sharing
from metaseg_monai.cli.commands import run
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation.shards import Shard, slurm_shard
from metaseg_monai.owners import owned
from metaseg_monai.sharing.merge import merge
from metaseg_monai.sharing.run import predict
from metaseg_monai.training import write_weights

BUNDLE = Path(__file__).resolve().parents[2] / "bundles/kits21_tumour_slices_segmentation"
META = "tumour_size_mm=41"
SETTINGS = {
    "network_def#channels": 4,
    "network_def#levels": 2,
    "preprocessing#1#spacing_mm": 1.5,
}

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A copy of the bundle, with random weights of a small network."""
    bundle = tmp_path_factory.mktemp("model") / "bundle"
    shutil.copytree(BUNDLE, bundle, ignore=shutil.ignore_patterns("data", "models", "eval"))
    parser = ConfigParser()
    parser.read_config(bundle / "configs" / "inference.json")
    parser.update({"bundle_root": str(bundle), **SETTINGS})
    weights = parser.get_parsed_content("weights")
    write_weights(weights.path, weights.network, weights.facts)
    return bundle


def scans(folder, count, damaged=()):
    """Small volumes, some of which are cut short."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        voxels = random.integers(-79, 304, (16, 12, 3)).astype(np.int16)
        path = folder / f"scan_{number:03d}.nii.gz"
        nib.save(nib.Nifti1Image(voxels, np.diag([1.5, 1.5, 4, 1])), path)
        if number in damaged:
            path.write_bytes(path.read_bytes()[:-9])
    return folder


def voxels_of(folder):
    return {path.name: np.asarray(nib.load(path).dataobj) for path in folder.glob("*.nii.gz")}


def part(bundle, source, output, shard, **more):
    return predict(bundle, source, output, META, shard=shard, **SETTINGS, **more)


def test_four_shards_make_what_one_prediction_makes(bundle, tmp_path):
    source = scans(tmp_path / "scans", 24, damaged=(5, 6))
    whole = predict(bundle, source, tmp_path / "whole", META, **SETTINGS)
    output = tmp_path / "masks"
    for number in (2, 0, 3, 1):
        made = part(bundle, source, output, f"{number}/4")
        assert [path.name for path in made.masks] == [
            f"scan_{n:03d}.nii.gz" for n in range(number, 24, 4) if n not in (5, 6)
        ]
        assert len(made.problems) == (number in (1, 2))
    assert not (output / "predicted.sha256").exists()
    merged = merge(output)
    assert list(merged.cases["case"]) == list(whole.cases["case"])
    assert [one.case for one in merged.problems] == ["scan_005", "scan_006"]
    assert sorted(one[:2] for one in merged.problems) == sorted(one[:2] for one in whole.problems)
    alone, together = voxels_of(tmp_path / "whole"), voxels_of(output)
    assert alone.keys() == together.keys()
    for name, mask in alone.items():
        np.testing.assert_array_equal(together[name], mask)
    names = [
        [line[66:] for line in (folder / "predicted.sha256").read_text().split("\n")[1::2]]
        for folder in (output, tmp_path / "whole")
    ]
    assert names[0] == names[1]
    again = merge(output)
    assert list(again.cases["mask"]) == list(merged.cases["mask"])


def test_masks_without_foreground_are_told_of_all_shards(bundle, tmp_path):
    source, output = scans(tmp_path / "scans", 3), tmp_path / "masks"
    nothing = {"clean_up": {"object_px": 10**9}}
    for number in range(2):
        made = part(bundle, source, output, f"{number}/2", **nothing)
        assert list(made.empty) == list(made.cases["case"])
    merged = merge(output)
    assert list(merged.empty) == ["scan_000", "scan_001", "scan_002"]
    assert str(merged).endswith("no foreground in 3 of 3 masks: scan_000, scan_001, scan_002")


def test_what_is_missing_is_named_with_its_command(bundle, tmp_path, monkeypatch):
    source, output = scans(tmp_path / "scans", 5), tmp_path / "masks"
    with pytest.raises(DataError, match="holds nothing that shards predicted"):
        merge(output)
    assert not output.exists()
    part(bundle, source, output, "0/3")
    (output / "scan_003.nii.gz").unlink()
    with pytest.raises(DataError) as refused:
        merge(output)
    told = str(refused.value).split("\n")
    lacks = "1 case(s) have no mask, or lack what was written beside it (scan_003): "
    assert f"{lacks}python -m metaseg_monai predict" in told[1]
    assert "2 case(s) were not begun (scan_001, scan_004)" in told[2]
    assert told[3].endswith("--shard 2/3")
    assert not (output / "predicted.sha256").exists()
    called = []
    monkeypatch.setattr(sharing.run, "running", lambda *given, **_: called.append(given) or 1 / 0)
    words = told[1].split(": python -m metaseg_monai ")[1]
    with pytest.raises(ZeroDivisionError):
        run(shlex.split(words))
    _, _, given, *_ = called[0]
    assert given["shard"]["part"] == "0/3"
    assert given["metadata"] == {"tumour_size_mm": "41"}
    assert {name: given[name] for name in SETTINGS} == SETTINGS


@pytest.mark.parametrize("meta", [META + "," + "x" * 300, "sizes.csv"])
def test_the_command_of_a_shard_does_not_depend_on_what_lies_around(
    bundle, tmp_path, monkeypatch, meta
):
    scans(tmp_path / "scans", 1)
    (tmp_path / "sizes.csv").touch()
    (tmp_path / "paper_size").mkdir()
    called = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sharing.run, "running", lambda *given, **_: called.append(given) or 1 / 0)
    monkeypatch.setattr(sharing.run, "parse_metadata", lambda text: {"long": text})
    with pytest.raises(ZeroDivisionError):
        predict(bundle, "scans", "masks", meta, "paper_size", shard="0/2", ckpt_path="m.pt")
    words = shlex.split(called[0][2]["shard"]["command"])
    told = dict(zip(words[5::2], words[6::2], strict=True))
    assert words[3:5] == ["predict", str(bundle)]
    assert told["--meta"] == (meta if "=" in meta else str(tmp_path / "sizes.csv"))
    assert told["--configuration"] == "paper_size"
    places = told["--source"], told["--output"]
    assert places == (str(tmp_path / "scans"), str(tmp_path / "masks"))
    assert told["--ckpt_path"] == str(tmp_path / "m.pt")


def test_probabilities_belong_to_their_masks(bundle, tmp_path):
    source, output = scans(tmp_path / "scans", 2), tmp_path / "masks"
    soft = {"save_probabilities": True}
    for shard in ("0/2", "1/2"):
        part(bundle, source, output, shard, **soft)
    lost = output / "scan_001_probabilities.npz"
    lost.unlink()
    with pytest.raises(DataError, match=r"lack what was written beside it \(scan_001\).*1/2"):
        merge(output)
    part(bundle, source, output, "1/2", **soft)
    assert lost.is_file()
    merge(output)
    shutil.rmtree(output / "shards")
    assert (output / "predicted.sha256").read_text().count("_probabilities.npz\n") == 2
    lost.write_bytes(b"cut short")
    with pytest.raises(DataError, match=r"1 file.* changed since .*_probabilities"):
        predict(bundle, source, output, META, **SETTINGS, **soft)
    lost.unlink()
    assert len(predict(bundle, source, output, META, **SETTINGS, **soft).cases) == 2
    assert lost.is_file()


def test_probabilities_of_other_settings_go_with_their_masks(bundle, tmp_path):
    source, output = scans(tmp_path / "scans", 2), tmp_path / "masks"
    predict(bundle, source, output, META, **SETTINGS, save_probabilities=True)
    assert len([*output.glob("*_probabilities.npz")]) == 2
    predict(bundle, source, output, "tumour_size_mm=20", **SETTINGS)
    assert not [*output.glob("*_probabilities.npz")]
    assert "npz" not in (output / "predicted.sha256").read_text()


def test_masks_of_other_weights_or_settings_are_no_part_of_it(bundle, tmp_path):
    source, output = scans(tmp_path / "scans", 4), tmp_path / "masks"
    part(bundle, source, output, "0/2")
    predict(bundle, source, output, "tumour_size_mm=20", shard="1/2", **SETTINGS)
    with pytest.raises(DataError, match=r"2 case.* with other metadata than .*--shard 0/2"):
        merge(output)
    part(bundle, source, output, "1/2")
    merge(output)
    part(bundle, source, output, "0/2", **{"displayable_configs#threshold": 0.25})
    with pytest.raises(DataError, match=r"with other settings than .*--shard 1/2"):
        merge(output)
    (source / "scan_0005.nii.gz").write_bytes((source / "scan_000.nii.gz").read_bytes())
    part(bundle, source, output, "0/2")
    with pytest.raises(DataError, match=r"with other cases in the source than .*--shard 1/2"):
        merge(output)


def test_other_numbers_of_shards_and_a_whole_prediction_go_on(bundle, tmp_path, capfd):
    source, output = scans(tmp_path / "scans", 6), tmp_path / "masks"
    part(bundle, source, output, "0/2")
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("*.nii.gz")}
    for number in range(3):
        part(bundle, source, output, f"{number}/3")
    assert {name: (output / name).stat().st_mtime_ns for name in before} == before
    assert len(merge(output).cases) == 6
    shutil.rmtree(output)
    part(bundle, source, output, "1/2")
    capfd.readouterr()
    assert len(predict(bundle, source, output, META, **SETTINGS).cases) == 6
    assert "3 of 6 are predicted already" in capfd.readouterr().out
    assert not (output / "shards").exists()
    assert (output / "predicted.sha256").read_text().count("scan_00") == 12


def test_a_mask_that_was_cut_since_is_told_with_the_way_out(bundle, tmp_path):
    source, output = scans(tmp_path / "scans", 3), tmp_path / "masks"
    for number in range(2):
        part(bundle, source, output, f"{number}/2")
    mask = output / "scan_001.nii.gz"
    mask.write_bytes(mask.read_bytes()[:40])
    told = r"1 file\(s\) were changed since they were predicted \(scan_001.nii.gz\): move them away"
    with pytest.raises(DataError, match=rf"{told} or delete them, then: python .*--shard 1/2"):
        merge(output)
    with pytest.raises(
        DataError, match=r"changed since .*'scan_001.nii.gz'; choose another output, or move"
    ):
        part(bundle, source, output, "1/2")
    mask.unlink()
    part(bundle, source, output, "1/2")
    assert len(merge(output).cases) == 3


def test_a_shard_may_be_empty_or_of_damaged_scans_alone(bundle, tmp_path):
    source, output = scans(tmp_path / "scans", 2, damaged=(1,)), tmp_path / "masks"
    made = [part(bundle, source, output, f"{number}/3") for number in range(3)]
    assert [len(one.cases) for one in made] == [1, 0, 0]
    assert [len(one.problems) for one in made] == [0, 1, 0]
    assert [one.case for one in merge(output).problems] == ["scan_001"]


@pytest.mark.parametrize("shard", ["1/1", "16/16", "-1/4", "a/b", "3", ""])
def test_what_is_no_part_is_refused(bundle, tmp_path, shard):
    source = scans(tmp_path / "scans", 1)
    with pytest.raises(ConfigError, match=r"expected i/n, part i of n"):
        part(bundle, source, tmp_path / "out", shard)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("of", [1, 2, 3, 7, 40])
def test_shards_are_disjoint_and_complete(of):
    items = [
        {"case": f"c{n}_{p}", "volume": f"c{n}", "plane": p} for n in range(17) for p in (0, 1)
    ]
    items += [{"case": f"photo{n}"} for n in range(6)]
    for item in items:
        item["image"] = np.zeros((1, 2, 2))
    found = [item["case"] for n in range(of) for item in Shard(f"{n}/{of}", "out").own(items)]
    assert sorted(found) == sorted(item["case"] for item in items)
    for n in range(of):
        volumes = [
            item["volume"] for item in Shard(f"{n}/{of}", "out").own(items) if "volume" in item
        ]
        assert all(volumes.count(one) == 2 for one in volumes)


def test_a_task_of_a_slurm_array_is_a_shard(bundle, tmp_path, monkeypatch):
    source = scans(tmp_path / "scans", 3)
    for name, value in (("ID", "7"), ("MIN", "5"), ("COUNT", "3")):
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    made = predict(bundle, source, tmp_path / "masks", META, **SETTINGS)
    assert made.shard == "2/3"
    assert list(made.cases["case"]) == ["scan_002"]
    assert predict(bundle, source, tmp_path / "all", META, shard="0/1", **SETTINGS).shard is None
    assert slurm_shard({}) is None
    told = {"SLURM_ARRAY_TASK_ID": "4", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "2"}
    with pytest.raises(ConfigError, match="none of 2 consecutive"):
        slurm_shard(told)


def test_whole_and_part_do_not_write_at_the_same_time(bundle, tmp_path, monkeypatch):
    source, output = scans(tmp_path / "scans", 2), tmp_path / "masks"
    part(bundle, source, output, "0/2")
    code = (
        "import sys, time; from metaseg_monai.owners import owned\n"
        "with owned(sys.argv[1], 'predicts here'): print('held', flush=True); time.sleep(60)"
    )

    def holding(folder):
        words = [sys.executable, "-c", code, str(folder)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()
        return process

    for held, shards in ((output / "shards/0-of-2", (None, "0/3")), (output, ("1/2",))):
        process = holding(held)
        try:
            for shard in shards:
                with pytest.raises(DataError, match="predicts here"):
                    part(bundle, source, output, shard)
            with pytest.raises(DataError, match="predicts here"):
                merge(output)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
    part(bundle, source, output, "1/2")  # the lock of a killed process holds nobody
    with owned(output / "shards/0-of-2", "is a test"):
        pass
    assert len(merge(output).cases) == 2


def test_a_killed_shard_goes_on(bundle, tmp_path):
    source, output = scans(tmp_path / "scans", 8), tmp_path / "masks"
    words = [sys.executable, "-m", "metaseg_monai", "predict", str(bundle), "--source", str(source)]
    words += ["--output", str(output), "--meta", META, "--shard", "1/2"]
    words += [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(output.glob("scan*")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    part_name = f".part-{'0' * 32}-scan_"
    for name in (f"{part_name}003.nii.gz", f".part-{'1' * 32}-{part_name}003.nii.gz"):
        (output / name).write_bytes(b"half")
    (output / f"{part_name}002.nii.gz").write_bytes(b"another's")
    done = {path.name: path.stat().st_mtime_ns for path in output.glob("scan*")}
    assert 0 < len(done) <= 4
    assert len(part(bundle, source, output, "1/2").cases) == 4
    assert {name: (output / name).stat().st_mtime_ns for name in done} == done
    assert [path.name for path in output.glob(".part-*")] == [f"{part_name}002.nii.gz"]
    first, *others = sorted(path.name for path in output.glob("scan*"))  # killed beside a whole one
    (output / first).unlink()
    (output / f".part-{'2' * 32}-{others[-1]}").write_bytes(b"half")
    part(bundle, source, output, "1/2")
    assert [path.name for path in output.glob(".part-*")] == [f"{part_name}002.nii.gz"]
    part(bundle, source, output, "0/2")
    assert len(merge(output).cases) == 8
    assert not list(output.glob(".part-*"))
    note = json.loads((output / "shards/1-of-2/shard.json").read_text())
    assert note["done"] is True
    assert note["command"].startswith("python -m metaseg_monai predict ")
