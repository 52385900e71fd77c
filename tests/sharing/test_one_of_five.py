"""One bad item among five, in every command of many: the other four are done, it is told."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import tifffile

from metaseg_monai import evaluate, predict, train
from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.predicted import predicted_masks
from metaseg_monai.metadata.fields import MetadataWarning
from metaseg_monai.rows import read_lines
from metaseg_monai.sharing.run import explain

QUICK = {
    "epochs": 2, "batch_size": 2, "val_batch_size": 2, "roi_size": [16, 16], "variant": "me",
    "train#augmentation#0#spatial_size": [16, 16], "network_def#channels": 4,
    "network_def#levels": 2,
}  # fmt: skip
WHEN = {"missing": "error", "provenance": "acquisition", "availability": "acquisition"}
FIELDS = [
    {"kind": "categorical", "name": "task", "values": ["disc", "ring"], **WHEN},
    {"kind": "continuous", "name": "size_mm", "unit": "mm", "range": [1, 50], **WHEN},
]
SPLITS = ("train", "train", "val", "val", *["test"] * 5)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(array, np.diag([1, 2, 3, 1.0])), path)
    elif path.suffix == ".png":
        PIL.Image.fromarray(array).save(path)
    else:
        tifffile.imwrite(path, array, photometric="minisblack")
    return path


def picture(seed, shape=(16, 18)):
    return np.random.default_rng(seed).integers(0, 200, shape, np.uint8)


def write_rows(folder, rows):
    with (folder / "table.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def trained(bundle, tmp_path_factory):
    """A model, and the rows of its table, of which five are to be tested."""
    root = tmp_path_factory.mktemp("trained")
    rows = []
    for number, split in enumerate(SPLITS):
        label = np.zeros((16, 18), np.uint8)
        label[2:9, 3:9] = 1
        row = {"image": f"images/{number}.tif", "label": f"labels/{number}.tif"}
        save(root / "data" / row["image"], picture(number))
        save(root / "data" / row["label"], label)
        told = {"task": ("disc", "ring")[number % 2], "size_mm": str(number + 1)}
        rows.append({**row, **told, "group": f"p{number}", "split": split})
    write_rows(root / "data", rows)
    (root / "schema.json").write_text(json.dumps({"fields": FIELDS}))
    given = {"dataset_dir": str(root / "data"), "schema_file": str(root / "schema.json")}
    train(bundle, root / "runs/me", **given, **QUICK)
    return root, rows


@pytest.fixture
def model(trained, tmp_path):
    """Copies of the model's runs and of its data, to be spoilt."""
    root, rows = trained
    for name in ("runs", "data"):
        shutil.copytree(root / name, tmp_path / name)
    return tmp_path / "runs/me", tmp_path / "data", [dict(row) for row in rows]


def listed(folder):
    return [cells for _, cells in read_lines(Path(folder) / "problems.csv")[1]]


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ({"task": "dics"}, "use one of these names"),
        ({"size_mm": "400"}, "from 1 to 50"),
        ({"size_mm": "4 mm", "task": ""}, "size_mm"),
        ({"label": "labels/none.tif"}, "no such file"),
        ({"image": "images/5.tif", "task": "ring", "size_mm": "6"}, "as row 7"),
    ],
)
def test_a_faulty_row_leaves_out_its_case_alone(model, cells, told):
    folder, data, rows = model
    rows[6].update(cells)  # row 8
    write_rows(data, rows)
    tested = evaluate(folder, modes=["normal"], dataset_dir=str(data))
    assert tested.counts["case"].nunique() == 4
    assert tested.scores.loc["normal", "left_out"] == 1
    (row,) = listed(folder)
    assert told in f"{row['problem']}; {row['next_step']}"
    assert "row 8" in row["next_step"]
    assert list(json.loads((folder / "evaluation.json").read_text())["left_out"]) == [row["case"]]


def test_what_cannot_be_read_is_left_out_where_masks_are_cleaned_too(model, tmp_path):
    folder, data, _ = model
    cleaned = {"clean_up": {"object_px": 4}}
    (data / "images/6.tif").write_bytes(b"no image")
    tested = evaluate(folder, modes=["normal"], dataset_dir=str(data), val_batch_size=1, **cleaned)
    assert tested.counts["case"].nunique() == 4
    for number in range(4):
        save(tmp_path / f"new/{number}.tif", picture(20 + number))
    (tmp_path / "new/4.tif").write_bytes(b"no image")
    meta = {"task": "disc", "size_mm": "5"}
    made = predict(folder, tmp_path / "new", tmp_path / "out", meta, **cleaned)
    assert [problem.case for problem in made.problems] == ["4"]
    assert len(list(made.folder.glob("*.tif"))) == 4


def test_values_given_for_all_rows_of_a_table_are_told(model, tmp_path):
    folder, data, _ = model
    with pytest.warns(MetadataWarning, match=r"task=ring is given for all rows, 5 of which say"):
        predict(folder, data, tmp_path / "out", {"task": "ring"})


def test_what_is_left_out_goes_with_the_fault(model):
    folder, data, rows = model
    for place, size in ((4, "none"), (6, "0")):
        rows[place]["size_mm"] = size
    write_rows(data, rows)
    partly = evaluate(folder, modes=["normal"], dataset_dir=str(data))
    assert partly.scores.loc["normal", ["left_out", "cases"]].tolist() == [2, 3]
    rows[4]["size_mm"] = rows[6]["size_mm"] = "5"
    write_rows(data, rows)
    whole = evaluate(folder, modes=["normal"], dataset_dir=str(data))
    assert whole.scores.loc["normal", "left_out"] == 0
    assert not (folder / "problems.csv").exists()


def test_what_is_wrong_with_the_whole_table_or_all_its_rows_is_refused(model, capsys, bundle):
    folder, data, rows = model
    rows[1]["size_mm"] = "x"  # of the training
    write_rows(data, rows)
    assert evaluate(folder, modes=["normal"], dataset_dir=str(data)).problems == []
    assert "left aside, as it is not of test" in capsys.readouterr().out
    given = {"dataset_dir": str(data), "schema_file": str(folder / "schema.json")}
    with pytest.raises(DataError, match=r"row 3 .*size_mm"):
        train(bundle, folder.parent / "other", **given, **QUICK)
    rows[6]["group"] = "p1"
    write_rows(data, rows)
    with pytest.raises(DataError, match="'p1' is in several splits"):
        evaluate(folder, modes=["normal"], dataset_dir=str(data))
    for row in rows:
        row["size_mm"] = "x"
    write_rows(data, rows)
    with pytest.raises(DataError, match="10 problems"):
        evaluate(folder, modes=["normal"], dataset_dir=str(data))


def test_copies_of_training_images_are_told_in_whatever_file_they_are(model, tmp_path, capsys):
    folder, data, _ = model
    source, meta = tmp_path / "new", {"task": "disc", "size_mm": "5"}
    trained, chosen = (tifffile.imread(data / f"images/{number}.tif") for number in (1, 3))
    save(source / "copy.png", trained)
    scan = nib.Nifti1Image(np.stack([picture(70), chosen]).T, np.diag([-1.0, -1.0, 3.0, 1.0]))
    nib.save(scan, source / "scan.nii.gz")
    save(source / "new.tif", picture(80))
    save(source / "9.tif", np.rot90(trained).copy())
    for _ in range(2):  # what is not predicted again is still known
        made = predict(folder, source, tmp_path / "masks", meta)
        known = {name: one.trained for name, one in predicted_masks(made.folder).items()}
        assert known == {"copy.png": "train", "scan.nii.gz": "val", "new.tif": "", "9.tif": ""}
        assert sorted(made.trained) == ["copy", "scan"]
        assert "no test, as they were in the training: 2 (copy, scan)" in str(made)
    told = "no test, as these masks are of images of the training: copy is images_1, scan is images"
    assert told in capsys.readouterr().out
    (folder / "trained_on.csv").unlink()
    predict(folder, source, tmp_path / "other", meta)
    assert {one.trained for one in predicted_masks(tmp_path / "other").values()} == {None}


def test_objects_and_gates_are_made_of_the_others(model, tmp_path):
    folder, data, _ = model
    for number in range(4):
        save(tmp_path / f"new/{number}.tif", picture(20 + number))
    save(tmp_path / "new/v.nii", np.stack([picture(30), picture(31)], -1))
    meta, form = {"task": "disc", "size_mm": "5"}, {"prediction_form": "labels"}
    for _ in range(2):
        made = predict(folder, tmp_path / "new", tmp_path / "out", meta, **form)
        assert [problem.case for problem in made.problems] == ["v"]
        assert len(list(made.folder.glob("*_objects.tif"))) == 4
        none = [file for file in made.masks if not tifffile.imread(file).any()]
        assert [f"{case}_objects.tif" for case in made.empty] == [file.name for file in none]
    nothing = {"smallest_px": 10**6}
    made = predict(folder, tmp_path / "new", tmp_path / "no", meta, **form, objects=nothing)
    assert list(made.empty) == ["0", "1", "2", "3"]
    assert "no foreground in 4 of 4 masks: 0, 1, 2, 3" in str(made)
    (data / "labels/6.tif").unlink()
    (data / "labels/6.tif").mkdir()
    drawn = explain(folder, dataset_dir=str(data))
    assert drawn
    assert [row["problem"] for row in listed(drawn.folder)] == [
        "column 'label': 'labels/6.tif' is a folder"
    ]
    assert len(drawn.problems) == 1


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_wrong_row_of_the_metadata_file_leaves_out_its_case_alone(model, tmp_path, kind):
    folder, _, _ = model
    for number in range(5):
        save(tmp_path / f"new/{number}.png", picture(20 + number))
    rows = [{"case_id": str(n), "task": "ring", "size_mm": "7"} for n in (0, 1, 2, 3, 3, 4)]
    rows[1]["size_mm"] = "7 cm"
    if kind == "csv":
        lines = [",".join(row.values()) for row in rows]
        (tmp_path / "meta.csv").write_text("\n".join(["case_id,task,size_mm", *lines]))
    else:
        (tmp_path / "meta.json").write_text(json.dumps(rows))
    made = predict(folder, tmp_path / "new", tmp_path / "out", tmp_path / f"meta.{kind}")
    assert list(made.cases["case"]) == ["0", "2", "4"]
    told = {row["case"]: f"{row['problem']}; {row['next_step']}" for row in listed(made.folder)}
    assert "write the number alone" in told["1"]
    assert "more than once" in told["3"]
