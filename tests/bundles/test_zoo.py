"""What the model zoo's CI asks of a bundle, with its own calls, for every folder in bundles/."""

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
from monai.bundle import ckpt_export, create_workflow, load, verify_net_in_out

from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.training import read_weights

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("METASEG_DATA", REPOSITORY / ".." / "shared" / "data"))
RULES = DATA / "monai" / "meta_schema_20240725.rules.json"
LINES, KEYS, CONDITIONALS = 110, 40, 2  # of a train.json, at most

pytestmark = pytest.mark.filterwarnings(
    # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read, run or export a bundle
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:parsing config_file:UserWarning",
)


def schema_of(bundle):
    return MetadataSchema.load(bundle.root / "configs/schema.json")


def test_composed_files_are_fresh():
    done = subprocess.run(
        [sys.executable, "scripts/compose_bundles.py", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_training_reads_in_five_minutes(bundle):
    text = (bundle.root / "configs/train.json").read_text()
    assert len(text.splitlines()) <= LINES
    assert len(json.loads(text)) <= KEYS
    assert text.count(" if ") <= CONDITIONALS
    assert "_disabled_" not in text


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
    assert metadata["name"] != bundle.root.name  # a name for people
    for path in bundle.root.rglob("*"):
        if path.is_file():
            assert path.stat().st_size < 25e6, path
            assert not re.search(r"/(home|root|Users|mnt)/", path.read_text("utf-8")), path


def test_all_that_makes_masks_is_given_the_threshold(bundle):
    settings = bundle.read("inference")
    if bundle.predicts_images:
        (step,) = settings["postprocessing"]
        assert (step["scaling"], step["kind"]) == ("@label_scaling", "uint16")
        return
    steps = {
        step["_target_"].rpartition(".")[2]: step.get("threshold")
        for step in (*settings["postprocessing"], *settings["handlers"])
        if isinstance(step, dict)
    }
    for name in ("AsMaskd", "CleanUpPredictions", "SaveObjects"):
        assert steps[name] == "@displayable_configs#threshold"


def test_metadata_describes_every_entry(bundle):
    meta = bundle.read("metadata")["network_data_format"]["inputs"]["meta"]
    assert meta["num_channels"] == schema_of(bundle).width
    assert tuple(meta["channel_def"].values()) == schema_of(bundle).entry_names


@pytest.mark.real_data
@pytest.mark.skipif(not RULES.is_file(), reason=f"no zoo rules at {RULES} (METASEG_DATA)")
def test_metadata_keeps_the_rules_of_the_zoo(bundle):
    jsonschema.validate(bundle.read("metadata"), json.loads(RULES.read_text()))


@pytest.mark.parametrize(("name", "kind"), [("train", "train"), ("inference", "infer")])
def test_properties(trained, name, kind):
    workflow = create_workflow(
        workflow_type=kind,
        bundle_root=str(trained.root),
        config_file=trained.configs(name)[0],
        logging_file=False,
        meta_file=str(trained.root / "configs/metadata.json"),
        **trained.tiny(name),
    )
    assert not workflow.check_properties()
    assert getattr(workflow, "train_dataset_data" if kind == "train" else "dataset_data")


def test_shapes_are_those_of_metadata(bundle):
    root = bundle.root
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(root / "configs/metadata.json"),
        config_file=str(root / "configs/inference.json"),
        bundle_root=str(root),
    )


def test_export_keeps_both_inputs(trained):
    root = trained.root
    ckpt_export(
        net_id="network_def",
        filepath=str(root / "models/verify_model.ts"),
        ckpt_file=str(root / "models/model.pt"),
        meta_file=str(root / "configs/metadata.json"),
        config_file=str(root / "configs/inference.json"),
        bundle_root=str(root),
    )
    exported = torch.jit.load(root / "models/verify_model.ts")
    eager = loaded(trained).eval()
    image = torch.rand(2, trained.read("train")["in_channels"], 32, 32)
    meta = torch.eye(2, schema_of(trained).width)
    torch.testing.assert_close(exported(image, meta), eager(image, meta))
    assert not torch.allclose(exported(image, meta), exported(image, meta.roll(1, 1)))


def loaded(trained):
    return load(trained.root.name, bundle_dir=str(trained.root.parent), source="github")


def test_load_and_create_workflow_from_elsewhere(trained, monkeypatch):
    monkeypatch.chdir(trained.elsewhere)
    stored = torch.load(trained.root / "models/model.pt", weights_only=True)
    torch.testing.assert_close(loaded(trained).state_dict(), stored, check_device=False)
    workflow = create_workflow(config_file=trained.configs("inference")[0], workflow_type="infer")
    assert workflow.network_def is not None
    assert workflow.bundle_root == str(trained.root)


def test_training_leaves_weights_log_and_checkpoint(trained):
    log = pd.read_csv(trained.root / "models/log.csv")
    assert log["epoch"].tolist() == [1, 2]
    assert log[["train_loss", "val_loss"]].notna().all(axis=None)
    facts = read_weights(trained.root / "models/model.pt")[1]
    assert facts["variant"] == trained.read("train")["variant"]
    assert MetadataSchema.from_dict(facts["schema"]) == schema_of(trained)
    network = trained.read("train")["network_def"]
    assert facts["network"]["_target_"] == network["_target_"]
    assert facts["network"]["channels"] == network["channels"]
    pred = trained.read("metadata")["network_data_format"]["outputs"]["pred"]
    classes = pred["channel_def"]
    if trained.predicts_images:
        assert (pred["type"], pred["value_range"]) == ("image", [0, 1])
        assert {"image", "label"} == facts["scaling"].keys()
        return
    assert list(facts["class_names"].values()) == list(classes.values())


def test_evaluate_writes_counts_in_every_mode(trained):
    trained.run(trained.command("evaluating", "train", "evaluate"))
    counts = pd.read_csv(trained.root / "models/counts.csv")
    cases = counts["case"].nunique()
    assert cases > 0
    asked = trained.settings.get("modes", ["normal", "missing", "shuffle", "zeros", "ones"])
    assert set(asked) <= set(counts["mode"])
    assert (counts.groupby(["mode", "class"])["case"].nunique() == cases).all()


def test_inference_writes_a_mask_for_each_case(trained):
    trained.run(["-m", "monai.bundle", "run", "--config_file", *trained.configs("inference")])
    masks = [path for path in (trained.root / "eval").iterdir() if path.name[0] not in "p."]
    assert len(masks) == len(pd.read_csv(trained.root / "data/table.csv"))


def test_inference_without_weights_names_the_training_command(trained, tmp_path):
    command = trained.command(None, "inference", ckpt_path=tmp_path / "none.pt")
    with pytest.raises(AssertionError, match="run training"):
        trained.run(command)


def test_two_processes_train_together(bundle, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    command = bundle.command("training", "train", "multi_gpu_train", output_dir=tmp_path)
    bundle.run(command, launcher)
    stored = torch.load(tmp_path / "model.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in stored)
    assert len(pd.read_csv(tmp_path / "log.csv")) == bundle.settings["epochs"]


def test_a_killed_training_resumes_to_the_same_weights(bundle, tmp_path):
    settings = {"epochs": 6, "train#checkpoint#every": 1}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    bundle.run(bundle.command(None, "train", output_dir=whole, **settings))  # `run` trains
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
