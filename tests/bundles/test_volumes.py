"""Slices of whole volumes: trained on, tested and predicted by any bundle, volumes coming back."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import metaseg_monai as mm
from metaseg_monai.bundle.trust import was_trained_here
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation import read_counts
from metaseg_monai.evaluation.per_case import read_cases
from metaseg_monai.evaluation.provenance import check_results
from metaseg_monai.evaluation.volume_table import read_volumes
from metaseg_monai.sharing.run import clean_up
from metaseg_monai.training.weights import write_fact

FEW = {"network_def#channels": 4, "network_def#levels": 2, "epochs": 2, "metadata_dropout": 0.1}
BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
SHAPE = (20, 24, 5)  # as stored: to the right, to the front, to the head


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    """Six volumes in a folder of scans, and the table of them in another folder."""
    folder = tmp_path_factory.mktemp("cohort")
    (folder / "scans").mkdir()
    (folder / "study").mkdir()
    rows = []
    for number, split in enumerate(["train"] * 3 + ["val", "test", "test"]):
        drawn = np.random.default_rng(number)
        voxels = drawn.normal(0, 5, SHAPE)
        label = np.zeros(SHAPE, np.uint8)
        at = drawn.integers(4, 10)
        label[at : at + 7, at : at + 8, 1:4] = 1
        for kind, array in (("ct", voxels + 80 * label), ("mask", label)):
            image = nib.Nifti1Image(array.astype(np.int16), np.diag([1.0, 1.0, 4.0, 1.0]))
            nib.save(image, folder / "scans" / f"{number}_{kind}.nii.gz")
        files = {kind: f"{number}_{kind}.nii.gz" for kind in ("ct", "mask")}
        size = "" if number == 1 else str(10 + number)
        rows.append({**files, "group": f"p{number}", "split": split, "size": size})
    with (folder / "study" / "table.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (folder / "study" / "root.json").write_text(json.dumps({"table.csv": "../scans"}))
    columns = {"image": "ct", "label": "mask"}
    columns["metadata"] = {"tumour_size_mm": "size"}
    (folder / "columns.json").write_text(json.dumps(columns))
    return folder


def settings_of(cohort, axis):
    return {
        "dataset_dir": cohort / "study",
        "columns_file": cohort / "columns.json",
        "cases": {"_target_": "metaseg_monai.tables.slices", "table": "@table", "axis": axis},
        "preprocessing#0#axis": axis,
        "preprocessing#1#spacing_mm": 1.0,
        "classes": 2,
        "roi_size": [16, 16],
        **FEW,
    }


@pytest.mark.parametrize("axis", ["axial", "sagittal"])
def test_volumes_in_volumes_out(cohort, tmp_path, axis):
    model = mm.train(
        "kits21_tumour_slices_segmentation", tmp_path / "model", **settings_of(cohort, axis)
    ).folder
    region = {"tumour": {"classes": [1], "tolerance_mm": 1.0}}
    tested = mm.evaluate(model, modes=["normal", "missing"], regions=region)
    counts = read_counts(model / "counts.csv")
    assert set(counts["case"]) == {"4_ct", "5_ct"}
    voxels = np.prod(SHAPE) * (1 if axis == "axial" else 4)  # planes of 1 mm by 1 mm
    assert (counts[["tp", "fp", "fn", "tn"]].sum(axis=1) == voxels).all()
    assert tested.scores.loc["normal", "cases"] == 2
    volumes = read_volumes(model / "volumes.csv")
    assert set(volumes["volume"]) == {"4_ct", "5_ct"}
    assert (volumes["complete"] == 1).all()
    cases = read_cases(model / "cases.csv")
    assert list(cases["case"]) == [f"{number}_ct" for number in range(6)]
    assert (cases["plane"] == "").all()
    known = cases.loc[cases["case"] == "4_ct", ["spacing_z_mm", "spacing_y_mm", "spacing_x_mm"]]
    assert known.iloc[0].tolist() == pytest.approx([4, 1, 1] if axis == "axial" else [1, 1, 1])
    mm.report(tmp_path, tmp_path / "report")

    scan = cohort / "scans" / "4_ct.nii.gz"
    unknown = "tumour_size_mm=unknown"
    done = mm.predict(model, scan, tmp_path / "masks", unknown, save_probabilities=True)
    (path,) = done.masks
    mask, image = nib.load(path), nib.load(scan)
    assert mask.shape == SHAPE
    assert np.allclose(mask.affine, image.affine)
    soft = np.load(path.with_name("4_ct_probabilities.npz"))["probabilities"]
    assert soft.shape == (2, *SHAPE)
    assert np.allclose(soft.sum(0, dtype=float), 1, atol=2e-3)
    clear = abs(soft[1].astype(float) - soft[0]) > 2e-3
    assert np.array_equal(soft.argmax(0)[clear], np.asarray(mask.dataobj)[clear])


def test_workers_load_planes_and_give_the_same_weights(cohort, tmp_path):
    settings = settings_of(cohort, "axial")
    weights = [
        mm.train(
            "kits21_tumour_slices_segmentation",
            tmp_path / str(workers),
            **settings,
            **{"train#dataloader#num_workers": workers},
        ).folder
        for workers in (0, 2)
    ]
    one, other = (torch.load(path / "model.pt", weights_only=True) for path in weights)
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_two_processes_train_on_planes(cohort, tmp_path):
    bundle = BUNDLES / "kits21_tumour_slices_segmentation"
    configs = [str(bundle / "configs" / f"{one}.json") for one in ("train", "multi_gpu_train")]
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words += ["-m", "monai.bundle", "run", "training", "--config_file", str(configs)]
    for name, value in {**settings_of(cohort, "axial"), "output_dir": tmp_path / "model"}.items():
        words += [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
    done = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    record = json.loads((tmp_path / "model" / "model.json").read_text())
    assert record["trained_on"]["images"] == 4  # volumes, of train and val
    assert record["intensity"]["images"] == 15  # planes
    assert (tmp_path / "model" / "log.csv").read_text().count("\n") == 3


def test_planes_across_another_axis_are_refused(cohort, tmp_path):
    settings = {**settings_of(cohort, "coronal"), "preprocessing#0#axis": "axial"}
    with pytest.raises(DataError, match=r"coronal planes of .* takes axial ones"):
        mm.train("kits21_tumour_slices_segmentation", tmp_path / "model", **settings)


def test_an_ensemble_of_folders_is_the_mean_of_its_members(cohort, tmp_path):
    models = [
        mm.train(
            "kits21_tumour_slices_segmentation",
            tmp_path / f"seed{seed}",
            **settings_of(cohort, "axial"),
            seed=seed,
        ).folder
        for seed in (0, 1)
    ]
    asked = (cohort / "scans" / "4_ct.nii.gz", tmp_path / "masks", "tumour_size_mm=unknown")
    done = mm.predict(",".join(map(str, models)), *asked, mirror=[1])
    assert nib.load(done.masks[0]).shape == SHAPE
    comment = (tmp_path / "masks" / "predicted.sha256").read_text().splitlines()[0]
    told = json.loads(comment.removeprefix("# "))
    assert len(told["members"]) == 2
    assert told["weights_sha256"] not in told["members"]
    again = mm.predict(models[::-1], *asked, mirror=[1])  # whichever comes first: nothing to do
    assert again.masks == done.masks
    with pytest.raises(ConfigError, match="one of them twice"):
        mm.predict([models[0], models[0]], *asked)
    with pytest.raises(ConfigError, match=r"nowhere holds no model\.pt"):
        mm.predict([models[0], tmp_path / "nowhere"], *asked)


def test_a_clean_up_is_chosen_on_validation_volumes_and_applied(cohort, tmp_path):
    model = mm.train(
        "kits21_tumour_slices_segmentation",
        tmp_path / "model",
        **settings_of(cohort, "axial"),
    ).folder
    mm.evaluate(model, modes=["normal"])
    told = clean_up(model)
    record = json.loads((model / "model.json").read_text())
    chosen = record["clean_up"]
    assert chosen["cases"] == 1
    assert "1 validation cases, mean case F1" in told
    assert was_trained_here(model)
    voxels = np.prod(SHAPE)
    write_fact(model / "model.pt", "clean_up", {**chosen, "rules": {"threshold": 0.001}})
    mm.evaluate(model, modes=["normal"])  # every voxel is foreground
    counts = read_counts(model / "counts.csv")
    assert (counts["tp"] + counts["fp"] == voxels).all()
    evaluation = json.loads((model / "evaluation.json").read_text())
    assert evaluation["clean_up"] == {"threshold": 0.001}
    scan, unknown = cohort / "scans" / "4_ct.nii.gz", "tumour_size_mm=unknown"
    asked = {"save_probabilities": True}
    (mask,) = mm.predict(model, scan, tmp_path / "masks", unknown, **asked).masks
    assert np.asarray(nib.load(mask).dataobj).all()
    assert '"threshold": 0.001' in (tmp_path / "masks" / "predicted.sha256").read_text()
    soft = np.load(mask.with_name("4_ct_probabilities.npz"))["probabilities"]
    (plain,) = mm.predict(model, scan, tmp_path / "plain", unknown, clean_up={}, **asked).masks
    assert not np.asarray(nib.load(plain).dataobj).all()
    same = np.load(plain.with_name("4_ct_probabilities.npz"))["probabilities"]
    assert np.array_equal(soft, same)  # they are those before
    rules = {"threshold": 0.001, "object_px": {"1": int(voxels) + 1}}  # more than any object has
    write_fact(model / "model.pt", "clean_up", {**chosen, "rules": rules})
    (mask,) = mm.predict(model, scan, tmp_path / "masks", unknown).masks
    assert not np.asarray(nib.load(mask).dataobj).any()
    rules["object_px"]["1"] -= 1
    write_fact(model / "model.pt", "clean_up", {**chosen, "rules": rules})
    (mask,) = mm.predict(model, scan, tmp_path / "masks", unknown).masks
    assert np.asarray(nib.load(mask).dataobj).all()  # the volume is one object, no plane is
    assert clean_up(model, off=True).endswith("are not cleaned")
    (again,) = mm.predict(model, scan, tmp_path / "masks", unknown, **asked).masks
    assert np.array_equal(nib.load(again).dataobj, nib.load(plain).dataobj)


def test_an_ensemble_is_evaluated_and_bound_to_all_of_its_weights(cohort, tmp_path):
    models = [
        mm.train(
            "kits21_tumour_slices_segmentation",
            tmp_path / f"seed{seed}",
            **settings_of(cohort, "axial"),
            seed=seed,
        ).folder
        for seed in (0, 1)
    ]
    both, home = ",".join(map(str, models)), tmp_path / "ensemble"
    with pytest.raises(ConfigError, match="several models without --output_dir"):
        mm.evaluate(both)
    with pytest.raises(ConfigError, match="holds a model of its own"):
        mm.evaluate(both, output_dir=models[1])
    tested = mm.evaluate(both, output_dir=home, modes=["normal"])
    assert tested.folder == home
    assert set(read_counts(home / "counts.csv")["case"]) == {"4_ct", "5_ct"}
    record = json.loads((home / "evaluation.json").read_text())
    own = [json.loads((one / "model.json").read_text())["weights_sha256"] for one in models]
    assert [one["folder"] for one in record["members"]] == ["../seed0", "../seed1"]
    assert [one["weights_sha256"] for one in record["members"]] == own
    assert record["weights_sha256"] not in own
    assert record["images"] == "unseen"
    again = mm.evaluate(home, modes=["missing"])  # by its folder; adds a mode
    assert list(again.scores.index) == ["normal", "missing"]
    scan, unknown = cohort / "scans" / "4_ct.nii.gz", "tumour_size_mm=unknown"
    done = mm.predict(home, scan, meta=unknown)
    assert done.folder == home / "masks"
    assert record["weights_sha256"] in (home / "masks" / "predicted.sha256").read_text()
    mm.report(tmp_path, tmp_path / "report")

    write_fact(models[0] / "model.pt", "clean_up", {"rules": {"threshold": 0.001}})
    assert check_results(home)  # the weights are the same
    plain = mm.evaluate(home, modes=["normal"])  # and a member's clean-up is not the ensemble's
    assert plain.scores.loc["normal"].equals(again.scores.loc["normal"])
    shutil.copy2(models[1] / "model.pt", models[0] / "model.pt")
    with pytest.raises(DataError, match="holds other weights than the member of the ensemble"):
        check_results(home)
    with pytest.raises(ConfigError, match="has other weights than the ensemble that was"):
        mm.predict(home, scan, meta=unknown)
