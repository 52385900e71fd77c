"""What the model zoo's CI asks of a bundle, replayed offline for every folder in bundles/."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pandas as pd
import pytest
import torch
from monai.bundle import ConfigWorkflow, ckpt_export, create_workflow, load, verify_net_in_out

from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.training import read_weights

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("METASEG_DATA", REPOSITORY / ".." / "shared" / "data"))
RULES = DATA / "monai" / "meta_schema_20240725.rules.json"

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read, run or export a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
)


def vector(bundle):
    schema = MetadataSchema.from_dict(bundle.facts["schema"])
    return torch.eye(1, schema.width)


def quiet(bundle):
    return {
        "meta_file": str(bundle.root / "configs/metadata.json"),
        "logging_file": False,
        "bundle_root": str(bundle.root),
    }


def test_composed_files_are_fresh():
    done = subprocess.run(
        [sys.executable, "scripts/compose_bundles.py", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_of_the_zoo(bundle):
    for name in (
        "LICENSE",
        "configs/metadata.json",
        "configs/train.json",
        "configs/evaluate.json",
        "configs/inference.json",
        "configs/multi_gpu_train.json",
        "configs/logging.conf",
        "docs/README.md",
        "docs/data_license.txt",
    ):
        assert (bundle.root / name).is_file(), name
    metadata = bundle.read("metadata")
    assert metadata["version"] in metadata["changelog"]
    assert metadata["name"] == bundle.facts["name"] == bundle.root.name
    for path in bundle.root.rglob("*"):
        if path.is_file():
            assert path.stat().st_size < 25e6, path
            assert not re.search(r"/(home|root|Users|mnt)/", path.read_text("utf-8")), path


def test_metadata_describes_every_entry(bundle):
    metadata = bundle.read("metadata")
    schema = MetadataSchema.from_dict(bundle.facts["schema"])
    meta = metadata["network_data_format"]["inputs"]["meta"]
    assert meta["num_channels"] == schema.width
    assert tuple(meta["channel_def"].values()) == schema.entry_names


@pytest.mark.real_data
@pytest.mark.skipif(not RULES.is_file(), reason=f"no zoo rules at {RULES} (METASEG_DATA)")
def test_metadata_keeps_the_rules_of_the_zoo(bundle):
    jsonschema.validate(bundle.read("metadata"), json.loads(RULES.read_text()))


@pytest.mark.parametrize(("name", "kind"), [("train", "train"), ("inference", "infer")])
def test_properties(trained, name, kind):
    settings = quiet(trained) | trained.tiny(name)
    workflow = ConfigWorkflow(trained.configs(name), workflow_type=kind, **settings)
    workflow.initialize()
    assert not workflow.check_properties()


@pytest.mark.parametrize("name", ["train", "inference"])
def test_network_fits_metadata(bundle, name):
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(bundle.root / "configs/metadata.json"),
        config_file=bundle.configs(name)[0],
        device="cpu",
        extra_forward_args={"meta": vector(bundle)},
    )


def test_training_leaves_weights_log_and_checkpoint(trained):
    log = pd.read_csv(trained.root / "models/log.csv")
    assert log["epoch"].tolist() == [1, 2]
    assert log[["train_loss", "val_loss"]].notna().all(axis=None)
    facts = read_weights(trained.root / "models/model.pt")[1]
    assert facts["variant"] == trained.read("train")["variant"]
    assert MetadataSchema.from_dict(facts["schema"]).width == vector(trained).numel()


def test_run_without_an_id_trains(bundle, tmp_path):
    bundle.run(bundle.command(None, "train", epochs=1, output_dir=tmp_path))
    assert (tmp_path / "model.pt").is_file()


def test_evaluate_writes_counts_in_every_mode(trained):
    trained.run(trained.command("evaluating", "train", "evaluate"))
    counts = pd.read_csv(trained.root / "models/counts.csv")
    cases = counts["case"].nunique()
    assert cases > 0
    asked = trained.facts["tiny"].get("modes", ["normal", "shuffle", "zeros", "ones"])
    assert set(asked) <= set(counts["mode"])
    assert (counts.groupby(["mode", "class"])["case"].nunique() == cases).all()


def test_inference_writes_a_mask_for_each_case(trained, tmp_path):
    trained.run(trained.command(None, "inference", output_dir=tmp_path))
    masks = [path for path in tmp_path.iterdir() if path.name != "predicted.sha256"]
    assert len(masks) == len(pd.read_csv(trained.root / "data/table.csv"))


def test_inference_without_weights_names_the_training_command(trained, tmp_path):
    command = trained.command(None, "inference", ckpt_path=tmp_path / "none.pt")
    with pytest.raises(AssertionError, match="run training"):
        trained.run(command)


def test_export_keeps_both_inputs(trained, tmp_path):
    tiny = trained.tiny("inference")
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(trained.root / "models/model.pt"),
        meta_file=str(trained.root / "configs/metadata.json"),
        config_file=trained.configs("inference")[0],
        key_in_ckpt="",
        **tiny,
    )
    exported = torch.jit.load(tmp_path / "model.ts")
    eager = loaded(trained).eval()
    image = torch.rand(2, trained.read("train")["in_channels"], 32, 32)
    meta = vector(trained).repeat(2, 1)
    torch.testing.assert_close(exported(image, meta), eager(image, meta))
    assert not torch.allclose(exported(image, meta), exported(image, meta.roll(1, 1)))


def loaded(trained):
    tiny = trained.tiny("inference")
    return load(
        trained.root.name,
        bundle_dir=str(trained.root.parent),
        source="github",
        workflow_type="inference",
        net_override={k: v for k, v in tiny.items() if k in ("channels", "levels")},
    )


def test_load_and_create_workflow_from_elsewhere(trained, monkeypatch):
    monkeypatch.chdir(trained.elsewhere)
    network = loaded(trained)
    stored = torch.load(trained.root / "models/model.pt", weights_only=True)
    torch.testing.assert_close(network.state_dict(), stored, check_device=False)
    workflow = create_workflow(
        config_file=trained.configs("inference")[0], workflow_type="infer", **quiet(trained)
    )
    assert workflow.network_def is not None


def test_two_processes_train_together(bundle, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    command = bundle.command("training", "train", "multi_gpu_train", output_dir=tmp_path)
    bundle.run(command, launcher)
    stored = torch.load(tmp_path / "model.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in stored)
    assert len(pd.read_csv(tmp_path / "log.csv")) == bundle.facts["tiny"]["epochs"]


def test_a_killed_training_resumes_to_the_same_weights(bundle, tmp_path):
    settings = {"epochs": 6, "checkpoint_interval": 1}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    bundle.run(bundle.command("training", "train", output_dir=whole, **settings))
    command = bundle.command("training", "train", output_dir=killed, **settings)
    process = bundle.start(command)
    until = time.monotonic() + 120
    while not (killed / "log.csv").exists() and time.monotonic() < until:
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    with pytest.raises(AssertionError, match="--resume True"):
        bundle.run(command)
    bundle.run([*command, "--resume", "True"])
    for name in ("model.pt", "checkpoint.pt"):
        stored = [torch.load(run / name, weights_only=True) for run in (whole, killed)]
        networks = [one["objects"]["network"] if "objects" in one else one for one in stored]
        torch.testing.assert_close(*networks, rtol=0, atol=0)
