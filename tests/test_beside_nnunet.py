"""Our cases in nnU-Net's form, and its masks in a study's report."""

import json
import sys
from importlib import import_module
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import tifffile

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation import read_cases, read_counts
from metaseg_monai.evaluation.provenance import check_results
from metaseg_monai.files import file_sha256
from metaseg_monai.reporting.runs import read_single_runs

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
beside = import_module("scripts.beside_nnunet")


@pytest.fixture
def data(folder, write_csv, task_schema):
    """The table of three images, with one for validation, and where nnU-Net's data go."""
    root, rows = folder
    rows[1]["split"] = "val"
    write_csv(root / "table.csv", rows)
    task_schema.save(root / "schema.json")
    return root, rows


def written(root, **settings):
    call = {"table": str(root), "output": str(root / "nn"), "name": "Dataset501_A"}
    beside.to(**call, schema=str(root / "schema.json"), **settings)
    return root / "nn" / "nnUNet_raw" / "Dataset501_A"


def predicted(raw, where="Ts", shift=0):
    """Masks as nnU-Net writes them: the labels, moved down."""
    masks = raw.parents[1] / "masks"
    masks.mkdir()
    for file in (raw / f"labels{where}").iterdir():
        tifffile.imwrite(masks / file.name, np.roll(tifffile.imread(file), shift, 0))
    (masks.parent / "checkpoint_final.pth").write_text("weights")
    return masks, masks.parent / "checkpoint_final.pth"


def test_same_rows_and_split(data):
    root, rows = data
    raw = written(root)
    names = {
        kind: sorted(one.name for one in (raw / kind).iterdir())
        for kind in ("imagesTr", "imagesTs", "labelsTs")
    }
    assert names["imagesTr"] == ["0_images-0_0000.tif", "1_images-1_0000.tif"]
    assert names["imagesTs"] == ["2_images-2_0000.tif"]
    assert names["labelsTs"] == ["2_images-2.tif"]
    image = tifffile.imread(raw / "imagesTs" / "2_images-2_0000.tif")
    assert np.array_equal(image, tifffile.imread(root / rows[2]["image"]))
    described = json.loads((raw / "dataset.json").read_text())
    assert described["labels"] == {"background": 0, "class1": 1}
    assert (described["numTraining"], described["file_ending"]) == (2, ".tif")
    prepared = root / "nn" / "nnUNet_preprocessed" / raw.name
    splits = json.loads((prepared / "splits_final.json").read_text())
    assert splits == [{"train": ["0_images-0"], "val": ["1_images-1"]}]
    table = (raw / "metadata.csv").read_text()
    assert table == "case_id,task\n0_images-0,disc\n1_images-1,ring\n2_images-2,disc\n"


def test_masks_become_a_condition_bound_to_their_weights(data):
    root, _ = data
    raw = written(root)
    masks, weights = predicted(raw, shift=1)
    output = root / "runs" / "nnU-Net 2D"
    told = beside.back(str(raw), str(masks), str(weights), str(output), domain="task")
    assert told.startswith("case mean F1 0.750")
    counts = read_counts(output / "counts.csv")
    row = counts.iloc[0].to_dict()
    assert (row["case"], row["group"], row["domain"]) == ("images_2", "patient2", "disc")
    assert (row["tp"], row["fp"], row["fn"], row["tn"]) == (12, 4, 4, 580)
    assert list(read_cases(output / "cases.csv")["task"]) == ["disc", "ring", "disc"]
    assert check_results(output)["weights_sha256"] == file_sha256(weights)
    assert read_single_runs(output.parent).conditions == ["nnU-Net 2D"]
    assert "+0.000" in beside.compare(str(output), str(output))


def test_masks_that_are_none_are_refused(data):
    root, _ = data
    raw = written(root)
    masks, weights = predicted(raw)
    call = {"data": str(raw), "checkpoint": str(weights), "output": str(root / "out")}
    with pytest.raises(ConfigError, match="2 folders of masks and 1 checkpoints for 1 splits"):
        beside.back(predictions=f"{masks},{masks}", **call)
    tifffile.imwrite(masks / "2_images-2.tif", np.zeros((4, 4), np.uint8))
    with pytest.raises(DataError, match="shape"):
        beside.back(predictions=str(masks), **call)
    tifffile.imwrite(masks / "2_images-2.tif", np.full((20, 30), 7, np.uint8))
    with pytest.raises(DataError, match="value 7, expected classes 0 to 1"):
        beside.back(predictions=str(masks), **call)
    (masks / "2_images-2.tif").unlink()
    with pytest.raises(DataError, match="no mask"):
        beside.back(predictions=str(masks), **call)
    with pytest.raises(DataError, match="was not written by this script"):
        beside.back(predictions=str(masks), **{**call, "data": str(root)})
    assert not (root / "out").exists()


def test_a_changed_table_is_refused(data, write_csv):
    root, rows = data
    raw = written(root)
    masks, weights = predicted(raw)
    write_csv(root / "table.csv", [{**row, "task": "ring"} for row in rows])
    with pytest.raises(DataError, match="has changed since"):
        beside.back(str(raw), str(masks), str(weights), str(root / "out"))


def test_a_table_without_validation_cases_is_refused(folder, task_schema):
    root, _ = folder
    task_schema.save(root / "schema.json")
    with pytest.raises(DataError, match="splits train and val"):
        written(root)
    with pytest.raises(ConfigError, match="three digits"):
        beside.to(str(root), str(root / "nn"), "Mine", str(root / "schema.json"))
    assert not (root / "nn").exists()


def test_volumes_become_nifti(data, write_csv):
    root, rows = data
    affine = np.diag([1, 2, 5, 1.0])
    for number, row in enumerate(rows):
        row["image"], row["label"] = f"images/{number}.nii.gz", f"labels/{number}.nii.gz"
        voxels = np.random.default_rng(number).integers(-9, 99, (6, 5, 4)).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, affine), root / row["image"])
        label = (voxels > 40).astype(np.uint8)
        nib.save(nib.Nifti1Image(label, affine), root / row["label"])
    write_csv(root / "table.csv", rows)
    raw = written(root, spatial_dims=3, channel_names="CT")
    (image,) = (raw / "imagesTs").iterdir()
    assert np.array_equal(nib.load(image).affine, affine)
    stored = nib.load(root / rows[2]["image"])
    assert np.array_equal(nib.load(image).get_fdata(), stored.get_fdata())
    assert json.loads((raw / "dataset.json").read_text())["channel_names"] == {"0": "CT"}
    weights = root / "w.pth"
    weights.touch()
    beside.back(str(raw), str(raw / "labelsTs"), str(weights), str(root / "out"))
    assert (read_counts(root / "out" / "counts.csv")["fp"] == 0).all()
    spacing = read_cases(root / "out" / "cases.csv").iloc[2]
    assert list(spacing[["spacing_z_mm", "spacing_y_mm", "spacing_x_mm"]].astype(float))


def test_each_fold_is_tested_by_weights_of_its_own(data, write_csv):
    root, rows = data
    write_csv(root / "table.csv", [{**row, "fold": number} for number, row in enumerate(rows)])
    raw = written(root, folds=3)
    assert len(list((raw / "imagesTr").iterdir())) == 3
    assert not (raw / "imagesTs").exists()
    assert [one.name for one in (raw / "imagesFold1").iterdir()] == ["1_images-1_0000.tif"]
    splits = json.loads(
        (root / "nn/nnUNet_preprocessed" / raw.name / "splits_final.json").read_text()
    )
    assert [len(one["train"]) for one in splits] == [1, 1, 1]
    assert all(f"{fold}_images-{fold}" not in str(one) for fold, one in enumerate(splits))
    masks, weights = predicted(raw, "Tr")
    three = ",".join([str(masks)] * 3), ",".join([str(weights)] * 3)
    beside.back(str(raw), *three, str(root / "out"))
    counts = read_counts(root / "out" / "counts.csv")
    assert list(counts["case"]) == ["images_0", "images_1", "images_2"]
    assert set(counts["split"]) == {"test"}
