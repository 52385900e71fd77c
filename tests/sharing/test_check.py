"""What `check` passes can be trained, with the bundle, the batch and the crop that are set."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile

from metaseg_monai import evaluate, predict, train
from metaseg_monai.errors import (
    ConfigError,
    DataError,
    MetasegError,
    TrainingError,
)
from metaseg_monai.sharing.check import check

BUNDLES = Path(__file__).resolve().parents[2] / "bundles"
SHAPES = "synthetic_shapes_segmentation"
QUICK = {
    "epochs": 2, "batch_size": 2, "val_batch_size": 2, "roi_size": [16, 16], "variant": "none",
    "train#augmentation#0#spatial_size": [16, 16],
}  # fmt: skip
FIELD = {"kind": "categorical", "name": "task", "values": ["a", "b"], "missing": "unknown",
         "provenance": "acquisition", "availability": "acquisition"}  # fmt: skip

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def save(path, array, kind):
    file = path.with_name(f"{path.name}.{kind}")
    if kind == "png":
        PIL.Image.fromarray(array).save(file)
    elif kind == "tif":
        tifffile.imwrite(file, array, photometric="minisblack")
    else:
        nib.save(nib.Nifti1Image(array, np.diag([1, 2, 3, 1.0])), file)
    return file.name


def a_table(folder, write_csv, shapes, kind="tif", splits=("train", "train", "val", "val")):
    """A table of random images of these shapes, one a row, with a square each."""
    folder.mkdir()
    rows = []
    for number, split in enumerate(splits):
        shape = shapes[number % len(shapes)]
        image = np.random.default_rng(number).integers(0, 200, shape, np.uint8)
        label = np.zeros(shape[:2] + shape[2:3] * (kind == "nii"), np.uint8)
        label[1:3, 1:4] = 1
        rows.append(
            {
                "image": save(folder / f"i{number}", image, kind),
                "label": save(folder / f"l{number}", label, kind),
                "task": "ab"[number % 2],
                "group": f"g{number}",
                "split": split,
            }
        )
    write_csv(folder / "table.csv", rows)
    (folder / "schema.json").write_text(json.dumps({"fields": [FIELD]}))
    return {"dataset_dir": str(folder), "schema_file": str(folder / "schema.json")}


CASES = {
    # shapes, kind, settings, what is told; None trains
    "planes of one file": ([(20, 24)], "tif", {}, None),
    "planes as volumes of one": ([(20, 24, 1)], "nii", {}, None),
    "a plane smaller than the crop": ([(7, 9)], "png", {}, None),
    "odd sizes": ([(17, 33)], "tif", {"roi_size": [9, 15]}, None),
    "several sizes": ([(20, 24), (24, 20)], "tif", {"val_batch_size": 1}, None),
    "several sizes in a batch": ([(20, 24), (24, 20)], "tif", {}, "differ in the shape of 'image'"),
    "colours": ([(20, 24, 3)], "png", {}, "3 channels in .*the network takes 1"),
    "volumes": ([(12, 14, 5)], "nii", {}, "a volume of 14x12x5"),
    "a crop of one pixel": (
        [(20, 24)],
        "tif",
        {"roi_size": [4, 4], "batch_size": 1},
        "larger crop",
    ),
    "a crop that is one pixel at the deepest level": (
        [(20, 24)],
        "tif",
        {"configuration": "dynunet", "roi_size": [8, 8]},
        r"^roi_size: .*8x8: it halves them 3 times, .*one pixel.*\[16, 16\]",
    ),
    "a crop that does not divide": (
        [(20, 24)],
        "tif",
        {"configuration": "segresnet", "roi_size": [20, 16]},
        r"^roi_size: .*20x16.*\[24, 16\]",
    ),
    "too few steps": ([(20, 24)], "tif", {"epochs": 1, "batch_size": 8}, "1 cycles do not fit"),
}


@pytest.mark.parametrize("name", CASES)
def test_check_and_training_agree(tmp_path, write_csv, name):
    shapes, kind, settings, told = CASES[name]
    files = a_table(tmp_path / "d", write_csv, shapes, kind)
    settings = {**QUICK, **settings}
    try:
        found = check(
            files["dataset_dir"], files["schema_file"], bundle=SHAPES, bundles=BUNDLES, **settings
        )
    except MetasegError as error:
        if told is None:
            raise
        refusal = str(error)
    else:
        refusal = None
        assert "can be trained on it with these settings" in found
    assert (refusal is None) == (told is None)
    if told is None:
        made = train(SHAPES, tmp_path / "run", bundles=BUNDLES, **files, **settings)
        assert len(made.log) == settings["epochs"]
        return
    with pytest.raises(MetasegError, match=told):
        train(SHAPES, tmp_path / "run", bundles=BUNDLES, **files, **settings)
    assert not (tmp_path / "run" / "model.pt").exists()


def test_the_last_batch_counts_in_three_dimensions_too(tmp_path, write_csv):
    splits = ("train",) * 3 + ("val",)
    files = a_table(tmp_path / "d", write_csv, [(9, 8, 7)], "nii", splits)
    mine = {
        "network_def#spatial_dims": 3,
        "preprocessing#0#spatial_dims": 3,
        "window_inferer#roi_size": [4, 4, 4],
        "train#augmentation#0": {"_target_": "Identityd", "keys": "image"},
        "train#augmentation#1#roi_size": [4, 4, 4],
    }
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    given = {name: value for name, value in QUICK.items() if "#" not in name}
    where = {"bundle": SHAPES, "bundles": BUNDLES, "configuration": str(tmp_path / "mine.json")}
    with pytest.raises(MetasegError, match="larger crop or batch"):
        check(files["dataset_dir"], files["schema_file"], **where, **given)
    told = "A batch of 1 with images of 4x4x4.*3 training cases in batches of 2.*larger crop or bat"
    with pytest.raises(TrainingError, match=told):
        train(**where, output_dir=tmp_path / "run", **files, **given)
    given["batch_size"], mine["network_def#levels"] = 3, 1
    mine |= {"train#augmentation#1#roi_size": [8, 8, 7], "window_inferer#roi_size": [8, 8, 7]}
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    found = check(files["dataset_dir"], files["schema_file"], **where, **given)
    assert "can be trained" in found
    assert "three dimensions" not in found  # it has them
    alone = {"_target_": "DataLoader", "dataset": "@validate#dataset"}
    (tmp_path / "mine.json").write_text(json.dumps({**mine, "validate#dataloader": alone}))
    assert "can be trained" in check(files["dataset_dir"], files["schema_file"], **where, **given)
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    assert "need a network of three" in check(files["dataset_dir"], files["schema_file"])
    assert len(train(**where, output_dir=tmp_path / "run", **files, **given).log) == 2


def test_a_plane_as_a_volume_of_one_is_predicted_as_it_is_trained(tmp_path, write_csv):
    files = a_table(tmp_path / "d", write_csv, [(20, 24, 1)], "nii")
    train(SHAPES, tmp_path / "run", bundles=BUNDLES, **files, **QUICK)
    masks = predict(tmp_path / "run", tmp_path / "d", tmp_path / "masks", bundles=BUNDLES).masks
    assert {nib.load(mask).shape for mask in masks} == {(20, 24, 1)}


def test_settings_need_a_bundle_and_splits_a_second(tmp_path, write_csv):
    files = a_table(tmp_path / "d", write_csv, [(20, 24)], splits=("train", "train"))
    with pytest.raises(ConfigError, match=r"--roi_size: set in a training; name its bundle"):
        check(files["dataset_dir"], files["schema_file"], roi_size=[4, 4])
    with pytest.raises(DataError, match="no rows of the split 'val', without which nothing is tr"):
        check(files["dataset_dir"], files["schema_file"])
    files = a_table(tmp_path / "e", write_csv, [(20, 24)])
    table = tmp_path / "e" / "table.csv"
    rows = [line.split(",") for line in table.read_text().splitlines()]
    task, split = (rows[0].index(name) for name in ("task", "split"))
    for row in rows[1:]:
        row[task] = "other" if row[split] == "val" else row[task]
    table.write_text("\n".join(",".join(row) for row in rows))
    with pytest.raises(DataError, match="other") as error:
        check(files["dataset_dir"], files["schema_file"])
    assert "no rows of the split" not in str(error.value)


@pytest.mark.filterwarnings("ignore:masks that can be read in two ways are taken as stored")
def test_boolean_masks_of_tifffile_go_through_check_training_and_evaluation(tmp_path, write_csv):
    files = a_table(tmp_path / "d", write_csv, [(20, 24)], splits=("train", "train", "val", "test"))
    for number in range(4):
        tifffile.imwrite(tmp_path / f"d/l{number}.tif", np.eye(20, 24) > 0)
    named = files["dataset_dir"], files["schema_file"]
    with pytest.raises(MetasegError, match="4 problems"):
        check(*named)
    assert "is tried with --bundle NAME" in check(*named, mask_values="stored")
    where = {"bundles": BUNDLES, "mask_values": "stored"}
    assert "taken as stored" in check(*named, bundle=SHAPES, **where, **QUICK)
    run = train(SHAPES, tmp_path / "run", **files, **where, **QUICK)
    counts = evaluate(run.folder, bundles=BUNDLES, modes=["normal"]).counts
    assert counts[["tp", "fn"]].to_numpy().sum() == 20
    found = predict(run.folder, tmp_path / "d", tmp_path / "masks", bundles=BUNDLES)
    assert not found.problems
