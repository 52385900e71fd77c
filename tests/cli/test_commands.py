"""The commands as a user types them; heavy work has its own tests in tests/bundles."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from metaseg_monai.cli.commands import main

BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "synthetic_shapes_segmentation"
MAKING = ["generate synthetic-shapes", "generate kits21-phantom", "generate cells"]
MAKING += ["generate adipocyte", "prepare adipocyte"]
MAKING += [
    f"prepare {name}"
    for name in ("kits21", "cells", "dsb2018", "cracks", "names", "magnify", "styles")
]
COMMANDS = [
    "demo",
    "check",
    "fit-schema",
    "train",
    "evaluate",
    "explain",
    "estimate",
    "score",
    "predict",
    "study",
    "report",
]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def forget_closed_streams():
    """Loggers that MONAI set up in an earlier test write to that test's captured stream."""
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        for handler in list(getattr(logger, "handlers", [])):
            if getattr(getattr(handler, "stream", None), "closed", False):
                logger.removeHandler(handler)


@pytest.fixture
def metaseg(monkeypatch, capsys):
    """Run a command in this process; return exit status, stdout, stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["metaseg_monai", *map(str, arguments)])
        forget_closed_streams()
        try:
            main()
            status = 0
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.fixture
def refused(metaseg):
    """Run a command that must fail with one clear message."""

    def call(*arguments):
        status, _, err = metaseg(*arguments)
        assert status == 2
        assert "Traceback" not in err
        return err[err.rindex("error: ") :]

    return call


@pytest.fixture
def bundle(tmp_path):
    """A copy of the bundle, so that nothing is written into the repository."""
    ignored = shutil.ignore_patterns("data", "models", "eval")
    return shutil.copytree(BUNDLE, tmp_path / BUNDLE.name, ignore=ignored)


NETWORK = ["--roi_size", "[32,32]", "--network_def#channels", "4", "--network_def#levels", "2"]


@pytest.fixture
def small(tiny):
    """The words that shrink the bundle to seconds."""
    return [part for key, value in tiny.items() for part in (f"--{key}", json.dumps(value))]


def test_help_needs_nothing_heavy():
    heavy = "{'torch', 'monai', 'numpy', 'pandas', 'matplotlib'}"
    code = f"import sys, metaseg_monai.__main__; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("command", [*COMMANDS, *MAKING])
def test_every_command_has_help_with_an_example(metaseg, command):
    status, out, err = metaseg(*command.split(), "--help")
    assert status == 0
    assert f"python -m metaseg_monai {command}" in out + err


def test_help_loses_nothing_behind_a_colon(metaseg):
    _, out, err = metaseg("predict", "--help")
    assert "phase=arterial:0.7|venous:0.3, or a range as size_mm=20..40), or a JSON" in out + err
    assert "runs/fold0,runs/fold1: the mean of their probabilities" in out + err


def test_generate_then_check(metaseg, tmp_path):
    sizes = ["--train", 12, "--val", 6, "--test", 6, "--size", 32]
    status, out, _ = metaseg("generate", "synthetic-shapes", "--output", tmp_path / "d", *sizes)
    assert status == 0
    assert out.strip() == str(tmp_path / "d" / "table.csv")
    schema = BUNDLE / "configs" / "schema.json"
    status, out, _ = metaseg("check", tmp_path / "d", "--schema_file", schema)
    assert status == 0
    assert "no problems found" in out


def test_check_reports_every_problem(metaseg, refused, tmp_path):
    sizes = ["--train", 6, "--val", 0, "--test", 0, "--size", 32]
    metaseg("generate", "synthetic-shapes", "--output", tmp_path / "d", *sizes)
    table = tmp_path / "d" / "table.csv"
    table.write_text(table.read_text().replace("disc", "disk").replace("ring", "rings"))
    message = refused("check", table, "--schema_file", BUNDLE / "configs" / "schema.json")
    assert "2 problems" in message
    assert "'disc'" in message
    assert "'ring'" in message
    table.write_text(table.read_text().replace("disk", "disc").replace("rings", "ring"))
    message = refused("check", table, "--schema_file", BUNDLE / "configs" / "schema.json")
    assert "no rows of the split 'val', without which nothing is trained" in message


def test_misspelt_override_is_refused_before_anything_runs(refused, bundle):
    assert "did you mean epochs" in refused("train", bundle, "--epoch", 1)
    for inside_of_nothing in ("epochs#x", "preprocessing#99#x", "preprocessing#x#y", "trian#x"):
        told = refused("train", bundle, f"--{inside_of_nothing}", 1)
        assert f"Nothing in the configuration uses the override {inside_of_nothing!r}" in told
    assert not (bundle / "data").exists()


def test_unknown_bundle_lists_the_known(refused, monkeypatch):
    monkeypatch.chdir(BUNDLE.parents[1])
    assert BUNDLE.name in refused("train", "synthetic_shape")


def test_a_refusal_inside_a_workflow_is_one_message(refused, bundle, tmp_path):
    message = refused("train", bundle, "--dataset_dir", tmp_path / "nothing")
    assert "nothing" in message
    assert "metaseg_monai prepare`, or `generate`" in message


def test_predict_needs_weights_and_metadata(refused, bundle, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", 255 * np.eye(40, dtype=np.uint8))
    arguments = ["predict", bundle, tmp_path / "a.tif", tmp_path / "out"]
    assert "run training" in refused(*arguments, "--meta", "task=disc")
    known = bundle / "configs" / "schema_texts.json"  # in which nothing may be missing
    assert "--meta" in refused(*arguments, "--schema_file", known)
    assert "disc" in refused(*arguments, "--meta", "task=disk")
    assert "field=value" in refused(*arguments, "--meta", "disc")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["evaluate", "explain"])
def test_weights_are_asked_for_before_data_are_made(refused, bundle, tmp_path, command):
    assert "run training" in refused(command, bundle, "--output_dir", tmp_path / "run")
    assert not (bundle / "data").exists()


def test_train_evaluate_predict_report(metaseg, bundle, tmp_path, small):
    run = tmp_path / "runs" / "sme"
    assert metaseg("train", bundle, "--output_dir", run, *small)[0] == 0
    assert metaseg("evaluate", bundle, "--output_dir", run, *small)[0] == 0
    status, out, _ = metaseg("report", tmp_path / "runs")
    assert status == 0
    assert out.strip() == f"report: {tmp_path / 'runs' / 'report.html'}"
    assert "Nothing was fixed before" in (tmp_path / "runs" / "report.md").read_text()
    status, out, _ = metaseg("explain", bundle, "--output_dir", run, *small)
    assert status == 0
    assert (run / "explain" / "gates.csv").is_file()
    metaseg("report", tmp_path / "runs")
    assert (tmp_path / "runs" / "figures" / "gates_sme_scale.png").is_file()

    folder = tmp_path / "images"
    folder.mkdir()
    tifffile.imwrite(
        folder / "a.tif", 255 * np.eye(20, 30, dtype=np.uint8)
    )  # smaller than the window
    settings = ["--ckpt_path", run / "model.pt", *NETWORK]
    inside = metaseg("predict", bundle, folder, folder / "masks", "--meta", "task=disc", *settings)
    assert inside[0] == 2
    assert "lies in the folder of the images" in inside[2]
    status, _, err = metaseg(
        "predict", bundle, folder, tmp_path / "out", "--meta", "task=disc", *settings
    )
    assert status == 0, err
    assert tifffile.imread(tmp_path / "out" / "a.tif").shape == (20, 30)


def test_weights_of_another_variant_are_refused(metaseg, refused, bundle, tmp_path, small):
    assert metaseg("train", bundle, "--output_dir", tmp_path / "r", *small)[0] == 0
    arguments = ["evaluate", bundle, "--output_dir", tmp_path / "r", "--variant", "me", *small]
    message = refused(*arguments)
    assert "variant" in message
    assert "sme" in message


def test_a_dummy_is_tested_with_zeros_only(metaseg, bundle, tmp_path, small):
    run = ["--variant", "sme-dummy", "--output_dir", tmp_path / "r", *small]
    assert metaseg("train", bundle, *run)[0] == 0
    assert metaseg("evaluate", bundle, *run)[0] == 0
    assert set(pd.read_csv(tmp_path / "r" / "counts.csv")["mode"]) == {"normal"}


def test_a_network_without_metadata_predicts_without_metadata(metaseg, bundle, tmp_path, small):
    tifffile.imwrite(tmp_path / "a.tif", 255 * np.eye(40, dtype=np.uint8))
    run = tmp_path / "r"
    assert metaseg("train", bundle, "--variant", "se", "--output_dir", run, *small)[0] == 0
    settings = ["--variant", "se", "--ckpt_path", run / "model.pt"]
    settings += NETWORK
    assert metaseg("predict", bundle, tmp_path / "a.tif", tmp_path / "out", *settings)[0] == 0
    assert (tmp_path / "out" / "a.tif").is_file()


def test_a_run_goes_on_only_under_its_settings(metaseg, refused, bundle, tmp_path, small):
    run = ["--output_dir", tmp_path / "r", *small]
    assert metaseg("train", bundle, *run)[0] == 0
    for name, value in [
        ("intensity_range", "[0,300]"),
        ("train#augmentation#0#spatial_size", "[40,40]"),
        ("seed", 1),
    ]:
        message = refused("train", bundle, *run, f"--{name}", value, "--resume", "true")
        assert name.rpartition("#")[2] in message
    scaled = refused("evaluate", bundle, *run, "--intensity_range", "[0,300]")
    assert "intensity_range" in scaled


def test_unknown_metadata_needs_a_network_trained_for_it(metaseg, refused, bundle, tmp_path, small):
    tifffile.imwrite(tmp_path / "a.tif", 255 * np.eye(40, dtype=np.uint8))
    image = ["predict", bundle, tmp_path / "a.tif", tmp_path / "out", *NETWORK]
    image += ["--meta", "task=unknown"]
    never, often = tmp_path / "never", tmp_path / "often"
    assert metaseg("train", bundle, "--output_dir", often, *small)[0] == 0
    assert metaseg(*image, "--ckpt_path", often / "model.pt")[0] == 0
    without = ["--metadata_dropout", 0.0]
    assert metaseg("train", bundle, "--output_dir", never, *without, *small)[0] == 0
    message = refused(*image, "--ckpt_path", never / "model.pt", *without)
    assert "trained without metadata dropout" in message
    assert "unknown_trained" in refused(*image, "--ckpt_path", never / "model.pt")


def test_images_that_do_not_fit_are_refused_by_name(metaseg, refused, bundle, tmp_path, small):
    assert metaseg("train", bundle, "--output_dir", tmp_path / "r", *small)[0] == 0
    settings = ["--ckpt_path", tmp_path / "r" / "model.pt", "--meta", "task=disc"]
    settings += NETWORK
    colours = np.eye(40, dtype=np.uint8)[..., None] * np.array([255, 200, 150], np.uint8)
    tifffile.imwrite(tmp_path / "rgb.tif", colours, photometric="rgb")
    message = refused("predict", bundle, tmp_path / "rgb.tif", tmp_path / "out", *settings)
    assert "rgb: " in message
    grey = ["--preprocessing#0#channels", "grey"]
    assert f"save the image with 1, or use a network trained with {' '.join(grey)} or" in message
    assert metaseg("train", bundle, "--output_dir", tmp_path / "grey", *grey, *small)[0] == 0
    able = ["--ckpt_path", tmp_path / "grey" / "model.pt", *settings[2:], *grey]
    status, _, told = metaseg("predict", bundle, tmp_path / "rgb.tif", tmp_path / "out", *able)
    assert status == 0, told
    tifffile.imwrite(tmp_path / "deep.tif", np.eye(40, dtype=np.uint16) * 4000)
    message = refused("predict", bundle, tmp_path / "deep.tif", tmp_path / "out", *settings)
    assert "deep: " in message
    assert "intensity_range" in message


def test_a_new_run_moves_the_former_aside_with_all_that_was_made_of_it(
    metaseg, refused, bundle, tmp_path, small
):
    folder = tmp_path / "r"
    run = ["--output_dir", folder, *small]
    assert "no checkpoint" in refused("train", bundle, *run, "--resume", "true")
    assert metaseg("train", bundle, *run)[0] == 0
    assert metaseg("evaluate", folder, "--modes", "normal")[0] == 0
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert metaseg("train", bundle, *run, "--seed", 5)[0] == 0
    kept = folder / "previous" / "run-1"
    assert {path.name: path.read_bytes() for path in kept.iterdir()} == first
    assert not (folder / "counts.csv").exists()
    assert (folder / "model.pt").read_bytes() != first["model.pt"]
    (folder / "counts.csv").write_bytes(first["counts.csv"])
    assert f"evaluate {folder}" in refused("report", tmp_path)
    assert metaseg("report", folder / "previous")[0] == 0
    (folder / "model.pt").unlink()
    message = refused("train", bundle, *run, "--seed", 5, "--resume", "true")
    assert "are gone" in message


def test_masks_never_replace_images(metaseg, refused, bundle, tmp_path, small):
    assert metaseg("train", bundle, "--output_dir", tmp_path / "r", *small)[0] == 0
    for name in ("a", "b"):
        tifffile.imwrite(tmp_path / f"{name}.tif", 255 * np.eye(40, dtype=np.uint8))
    before = (tmp_path / "a.tif").read_bytes()
    table = tmp_path / "table.csv"
    table.write_text("image,task,id\na.tif,disc,b\nb.tif,disc,a\n")
    (tmp_path / "columns.json").write_text(json.dumps({"case": "id"}))
    arguments = ["--columns_file", tmp_path / "columns.json"]
    arguments += ["--ckpt_path", tmp_path / "r" / "model.pt"]
    arguments += NETWORK
    assert "would lie among images" in refused("predict", bundle, table, tmp_path, *arguments)
    assert (tmp_path / "a.tif").read_bytes() == before


def test_a_training_that_never_validates_is_refused(refused, bundle, tmp_path, small):
    arguments = ["--val_interval", 5, "--output_dir", tmp_path / "r", *small]
    assert "val_interval" in refused("train", bundle, *arguments)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--variants", "se,smee"], "smee"),
        (["--variants", "se", "--seeds", "some"], "--seeds some"),
        (["--variants", "se", "--epoch", 2], "did you mean epochs"),
        (["--variants", "se", "--workers", 0], "--workers 0"),
        (["--variants", "se", "--workers", 1.5], "--workers 1.5"),
        (["--variants", "se", "--cluster_settings", "{'nodes': 1}"], "--cluster_settings needs"),
    ],
)
def test_study_refuses_before_training(refused, bundle, tmp_path, arguments, reason, small):
    said = refused("study", bundle, *arguments, "--output", tmp_path / "o", *small)
    assert reason in said
    assert not (tmp_path / "o" / "se").exists()


def test_study_without_its_arguments(refused, tmp_path):
    assert "no bundle at '5'" in refused("study", 5, "--output", tmp_path / "o")
    (tmp_path / "file").touch()
    (tmp_path / "s.json").write_text("{}")
    assert "no study" in refused("study", tmp_path / "s.json", "--output", tmp_path / "o")
    assert "--output has no value" in refused("study", tmp_path / "s.json", "--output")


def test_a_report_where_nothing_can_be_written(refused, bundle, metaseg, tmp_path, small):
    run = tmp_path / "runs" / "sme"
    metaseg("train", bundle, "--output_dir", run, *small)
    metaseg("evaluate", bundle, "--output_dir", run, *small)
    (tmp_path / "file").touch()
    said = refused("report", tmp_path / "runs", "--output", tmp_path / "file" / "x")
    assert "mend the path" in said


def test_a_study_file_names_its_conditions_itself(refused, tmp_path):
    (tmp_path / "s.json").write_text('{"name": "s", "bundle": "b", "conditions": ["se"]}')
    assert "leave --variants out" in refused("study", tmp_path / "s.json", "--variants", "se")


def test_report_without_runs(refused, tmp_path):
    assert "counts.csv" in refused("report", tmp_path)


def test_phantoms_are_prepared_and_a_damaged_case_is_told(metaseg, tmp_path):
    volumes, slices = tmp_path / "volumes", tmp_path / "slices"
    generate = ["generate", "kits21-phantom", "--output", volumes, "--cases", 3, "--matrix", 32]
    assert metaseg(*generate)[0] == 0
    damaged = volumes / "case_00001" / "imaging.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-3])
    prepare = ["prepare", "kits21", "--source", volumes, "--spacing", "native", "--seed", 4]
    status, _, message = metaseg(*prepare, "--output", slices, "--slice-rule", "all")
    assert status == 3
    assert "problems.csv" in message
    table = pd.read_csv(slices / "table.csv")
    assert set(table["volume"]) == {"case_00000", "case_00002"}
    assert (
        table.groupby("volume")["plane"].count() == table.groupby("volume")["planes"].max()
    ).all()
    assert json.loads((slices / "prepared.json").read_text())["seed"] == 4
    labels = tmp_path / "scored"
    status, out, _ = metaseg(
        "score", volumes / "case_00002/aggregated_MAJ_seg.nii.gz", volumes / "case_00002", labels
    )
    assert status == 0
    assert "tumour" in out
    assert (pd.read_csv(labels / "volumes.csv")["dice"] == 1).all()


def test_an_unknown_configuration_names_those_there_are(refused):
    told = refused("train", "seven_lines_nuclei_segmentation", "--configuration", "pilto")
    assert "pilto" in told
    assert "pilot" in told


def test_cells_are_generated(metaseg, tmp_path):
    given = ["--recipe", "styles", "--train", 6, "--val", 3, "--test", 3, "--size", 32]
    assert metaseg("generate", "cells", "--output", tmp_path / "cells", *given)[0] == 0
    table = pd.read_csv(tmp_path / "cells" / "table.csv")
    assert set(table["style"]) == {"exact", "fine", "coarse"}
