"""Our cases in nnU-Net's form, and its masks in a study's report."""

import json
import os
import shutil
import subprocess
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
from metaseg_monai.reporting.runs import read_results, read_single_runs
from metaseg_monai.sharing.nnunet import RECORD, SPENT
from metaseg_monai.sharing.study import study
from metaseg_monai.simulate import generate_synthetic_shapes
from tests.conftest import bind_results
from tests.sharing.test_nnunet import PYTHON, nnunet_environment

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))
beside, equal = (import_module(one) for one in ("beside_nnunet", "equal_cpu"))
PROTOCOL = Path(__file__).resolve().parents[1] / "docs" / "examples" / "equal_cpu" / "protocol.json"


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
    record = check_results(output)
    assert record["weights_sha256"] == file_sha256(weights)
    assert record["table_sha256"] == file_sha256(root / "table.csv")
    assert record["images"] == "unknown"  # as nothing beside the masks tells whose they are
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


def test_masks_of_our_prediction_are_those_of_the_weights_that_they_name(data):
    root, _ = data
    raw = written(root)
    masks, weights = predicted(raw)
    call = {"data": str(raw), "predictions": str(masks), "checkpoint": str(weights)}
    for digests in ({"0": "other"}, {"0": file_sha256(weights), "1": "other"}):
        (masks / RECORD).write_text(json.dumps({"checkpoints_sha256": digests}))
        with pytest.raises(DataError, match="names other weights than"):
            beside.back(**call, output=str(root / "out"))
    (masks / RECORD).write_text(json.dumps({"checkpoints_sha256": {"0": file_sha256(weights)}}))
    beside.back(**call, output=str(root / "out"))
    assert check_results(root / "out")["images"] == "unseen"


def test_a_changed_label_is_refused(data):
    root, rows = data
    raw = written(root)
    masks, weights = predicted(raw)
    label = root / rows[2]["label"]
    shutil.copy(root / rows[2]["image"], label)
    with pytest.raises(DataError, match="label of it, has changed since"):
        beside.back(str(raw), str(masks), str(weights), str(root / "out"))


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
    sides = spacing[["spacing_z_mm", "spacing_y_mm", "spacing_x_mm"]].astype(float)
    assert list(sides) == [5, 2, 1]
    (mask,) = (raw / "labelsTs").iterdir()  # of the same shape, turned left and right
    turned = nib.Nifti1Image(np.asarray(nib.load(mask).dataobj), np.diag([-1, 2, 5, 1.0]))
    (root / "turned").mkdir()
    nib.save(turned, root / "turned" / mask.name)
    with pytest.raises(DataError, match="its affine is not that of the label"):
        beside.back(str(raw), str(root / "turned"), str(weights), str(root / "other"))


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
    folders, files = [], []
    for fold in range(3):
        folders.append(shutil.copytree(masks, root / f"masks{fold}"))
        files.append(root / "nn" / f"fold_{fold}" / weights.name)
        files[-1].parent.mkdir()
        files[-1].write_text(f"weights of {fold}")

    def score(folders, files, output="refused", **settings):
        given = [[str(one) for one in several] for several in (folders, files)]
        return beside.back(str(raw), *given, str(root / output), **settings)

    with pytest.raises(ConfigError, match="the same folder of masks stands for several folds"):
        score([masks] * 3, files)
    with pytest.raises(ConfigError, match="the same checkpoint stands for several folds"):
        score(folders, files[:1] * 3)
    with pytest.raises(ConfigError, match=r"fold_2.*does not lie in fold_0"):
        score(folders[::-1], files[::-1])
    told = {"1": file_sha256(files[0])}  # predicted by the weights of fold 1, they say
    (folders[0] / RECORD).write_text(json.dumps({"checkpoints_sha256": told}))
    with pytest.raises(DataError, match="names other weights than"):
        score(folders, files)
    (folders[0] / RECORD).unlink()
    assert not (root / "refused").exists()
    score(folders[::-1], files[::-1], "moved", force=True)
    score(folders, files, "out")
    counts = read_counts(root / "out" / "counts.csv")
    assert list(counts["case"]) == ["images_0", "images_1", "images_2"]
    assert set(counts["split"]) == {"test"}


def scored(folder, scores, write_csv):
    """A folder with the counts of one pixel more or less; (true, found, both) of each case."""
    folder.mkdir(parents=True)
    rows = []
    for case, (true, found, both) in scores.items():
        cells = {"case": case, "group": case[0], "split": "test", "mode": "normal"}
        cells |= {"domain": "all", "class": 1, "tp": both, "fp": found - both}
        rows.append({**cells, "fn": true - both, "tn": 100})
    write_csv(folder / "counts.csv", rows)
    return str(bind_results(folder))


def test_verdict_is_about_cases_with_foreground_and_tells_false_ones(tmp_path, write_csv):
    truth = {f"{group}{number}": 20 for group in "abcdefgh" for number in range(2)} | {"z0": 0}
    good = {case: (true, true, true) for case, true in truth.items()}
    bad = {case: (true, true + 4, true) for case, true in truth.items()}
    folds = [dict(list(good.items())[:9]), dict(list(good.items())[9:])]
    ours = [scored(tmp_path / f"o{k}", one, write_csv) for k, one in enumerate(folds)]
    theirs = scored(tmp_path / "t", bad, write_csv)
    found = beside.differences(ours, [theirs], 0.01)
    assert (found["verdict"], found["cases"], found["groups"]) == ("no worse", 16, 8)
    assert found["difference"] == pytest.approx(1 - 40 / 44)
    assert (found["empty"], found["empty_with_false_positives"]) == (1, [0, 1])
    assert "worse. Dice 0.909 and 1.000" in beside.compare(theirs, ",".join(ours), margin=0.01)
    assert beside.differences(ours, ours, 0.01)["verdict"] == "no worse"
    with pytest.raises(DataError, match="stands twice"):
        beside.differences([ours[0], ours[0]], [theirs])
    with pytest.raises(DataError, match="other cases, or other labels"):
        beside.differences(ours[:1], [theirs])
    for images in ("trained on", "chosen by"):
        bind_results(Path(theirs), images=images)
        with pytest.raises(DataError, match=f"its weights were {images}, so its scores are no"):
            beside.differences(ours, [theirs])
    with (Path(ours[0]) / "counts.csv").open("a") as counts:
        counts.write("\n")
    with pytest.raises(DataError, match=r"counts\.csv has changed since the evaluation"):
        beside.differences(ours, ours)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not PYTHON, reason="METASEG_NNUNET_PYTHON names no Python with nnunetv2")
def test_from_a_table_through_the_real_nnunet_to_the_row_of_a_study(tmp_path, bundle, tiny):
    shapes = tmp_path / "shapes"
    generate_synthetic_shapes(output=shapes, train=6, val=2, test=4, size=32)
    (shapes / "generated.json").unlink()
    schema = bundle / "configs" / "schema.json"
    settings = {name: one for name, one in tiny.items() if name != "table#path"}
    planned = {
        "name": "s",
        "bundle": str(bundle),
        "settings": {**settings, "dataset_dir": str(shapes), "modes": ["normal"]},
        "conditions": ["none"],
        "seeds": [5],
        "elsewhere": ["nnU-Net 2D"],
        "protocol": {"comparisons": [["none", "nnU-Net 2D"]]},
    }
    (tmp_path / "study.json").write_text(json.dumps(planned))
    runs = tmp_path / "runs"
    study(str(tmp_path / "study.json"), output=runs, workers=1, threads=1)

    beside.to(str(shapes), str(tmp_path / "nn"), "Dataset501_Shapes", str(schema))
    raw = tmp_path / "nn" / "nnUNet_raw" / "Dataset501_Shapes"
    environment = nnunet_environment(tmp_path, tmp_path / "nn")
    environment |= {"METASEG_EPOCHS": "1", "METASEG_ITERATIONS": "2", "METASEG_SEED": "0"}

    def call(*words, workers="0"):
        own = {**environment, "nnUNet_n_proc_DA": workers}
        done = subprocess.run([*map(str, words)], env=own, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    plans = ("-p", "Small")
    prepare = ("nnUNetv2_plan_and_preprocess", "-d", 501, "-c", "2d", "-np", 1, "-npfp", 1)
    prepare += ("-gpu_memory_target", 0.1, "-overwrite_plans_name", "Small")
    call(*prepare, workers="1")
    trainer = ("-tr", "nnUNetTrainerShort", "-device", "cpu")
    call("nnUNetv2_train", 501, "2d", 0, *plans, *trainer)
    images, masks = raw / "imagesTs", tmp_path / "masks"
    predict = ("nnUNetv2_predict", "-d", 501, "-c", "2d", "-f", 0, "-i", images, "-o", masks)
    call(*predict, *plans, *trainer, "-npp", 1, "-nps", 1)
    model = tmp_path / "nn" / "nnUNet_results" / raw.name / "nnUNetTrainerShort__Small__2d/fold_0"
    spent = json.loads((model / SPENT).read_text())
    assert (spent["steps"], spent["threads"], spent["seed"]) == (2, 1, 0)
    assert spent["cpu_seconds"] > 0

    row = runs / "elsewhere" / "nnU-Net 2D"
    beside.back(str(raw), str(masks), str(model / "checkpoint_final.pth"), str(row))
    results = read_results(runs)
    assert results.conditions == ["none", "nnU-Net 2D"]
    from metaseg_monai import report

    report(runs)
    page = (runs / "report.md").read_text()
    assert "nnU-Net 2D" in page
    assert "none - nnU-Net 2D" in page


needs_unix = pytest.mark.skipif(os.name == "nt", reason="CPU time of commands, by wait4 of Unix")


@needs_unix
def test_a_command_tells_its_cpu_time_or_what_it_said_last(tmp_path):
    work = (
        "import os; n = sum(i * i for i in range(3_000_000)); print(os.environ['OMP_NUM_THREADS'])"
    )
    spent = equal.call([sys.executable, "-c", work], tmp_path / "a.log")
    assert 0 < spent.cpu_seconds < 60
    assert (tmp_path / "a.log").read_text() == "1\n"
    idle = equal.call([sys.executable, "-c", "import time; time.sleep(1)"], tmp_path / "b.log")
    assert idle.cpu_seconds < 0.9 < idle.wall_seconds
    with pytest.raises(ConfigError, match=r"c\.log: ended with status 3:\nwhy"):
        equal.call([sys.executable, "-c", "print('why'); exit(3)"], tmp_path / "c.log")


@needs_unix
def test_a_command_that_starts_while_all_are_ended_is_ended_too(tmp_path, monkeypatch):
    begin = subprocess.Popen

    def started(*words, **settings):
        process = begin(*words, **settings)
        equal.ENDED.set()
        equal.end_all()  # as the signal does, which knows nothing of it yet
        return process

    monkeypatch.setattr(equal, "ENDED", type(equal.ENDED)())
    monkeypatch.setattr(equal.subprocess, "Popen", started)
    with pytest.raises(ConfigError, match="ended with status -15"):
        equal.call([sys.executable, "-c", "import time; time.sleep(20)"], tmp_path / "a.log")


@pytest.mark.parametrize(("planned", "best"), [(0.3, "planned"), (None, "narrow")])
def test_form_is_chosen_on_the_first_fold_alone(tmp_path, monkeypatch, planned, best):
    dice = {("planned", 0): planned, ("narrow", 0): 0.2}
    trained, done = [], []
    made = equal.Compared(
        "lgg_mri", json.loads(PROTOCOL.read_text()), tmp_path, tmp_path, tmp_path, False
    )

    def training(*one):
        trained.append(one)
        return {"validation_dice": dice.get(one, 0.9)}

    monkeypatch.setattr(made, "_plan", dict)
    monkeypatch.setattr(made, "_trained", training)
    monkeypatch.setattr(made, "_predict", lambda *one: done.append(one))
    monkeypatch.setattr(made, "_back", done.append)
    made.theirs()
    assert set(trained) == {("planned", 0), ("narrow", 0), (best, 1), (best, 2)}
    assert done == [(best, 0), (best, 1), (best, 2), best]
    told = {"form": best, "validation_dice": {"planned": planned, "narrow": 0.2}}
    assert json.loads((tmp_path / "chosen.json").read_text()) == told


def equal_run(tmp_path, chosen, ours, theirs, write_csv):
    """What a finished run of one data set leaves, with these CPU seconds a fold."""
    protocol = {"folds": 2, "margin": 0.01, "cpu_minutes": 20, "data": {"set": {}}}
    (tmp_path / "protocol.json").write_text(json.dumps({"protocol": protocol, "dry_run": False}))
    home, cases = tmp_path / "set", {}
    for fold in range(2):
        part = dict.fromkeys(["abcd", "efgh"][fold], (20, 20, 20))
        cases |= part
        scored(home / "ours" / f"fold{fold}", part, write_csv)
        told = json.dumps({"cpu_seconds": ours})
        (home / "ours" / f"fold{fold}.train.json").write_text(told)
        told = json.dumps({"spent": {"cpu_seconds": theirs}})
        (home / f"{chosen}{fold}.train.json").write_text(told)
    scored(home / "back", cases, write_csv)
    (home / "chosen.json").write_text(json.dumps({"form": chosen}))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (1230, 1300, "set: no worse. Dice 1.000 and 1.000"),
        (1100, 1300, "set: no verdict (a run took 18.3 of 20 CPU-minutes)"),
        (1500, 1300, "set: no verdict (ours took more CPU time)"),
    ],
)
def test_no_verdict_without_equal_time(tmp_path, write_csv, ours, theirs, told):
    assert equal.compare(equal_run(tmp_path, "narrow", ours, theirs, write_csv)).startswith(told)


def test_protocol_deals_each_group_to_one_fold(tmp_path, write_csv):
    rows = [
        {
            "image": f"{n}.png",
            "label": f"l{n}.png",
            "patient": f"p{n // 2}",
            "site": "ab"[n % 4 > 1],
        }
        for n in range(24)
    ]
    (tmp_path / "lgg_mri").mkdir()
    write_csv(tmp_path / "lgg_mri" / "manifest.csv", rows)
    protocol = json.loads(PROTOCOL.read_text())
    made = equal.Compared("lgg_mri", protocol, tmp_path / "out", tmp_path, tmp_path, False)
    assert made._table() == {"cases": 24, "groups": 12, "cases_of_folds": [8, 8, 8]}
    table = (tmp_path / "out" / "data" / "table.csv").read_text().splitlines()[1:]
    folds = {}
    for line in table:
        cells = line.split(",")
        folds.setdefault(cells[2], set()).add(cells[-1])
    assert len(folds) == 12
    assert all(len(one) == 1 for one in folds.values())
    again = equal.Compared("lgg_mri", protocol, tmp_path / "again", tmp_path, tmp_path, False)
    again._table()
    assert (tmp_path / "again/data/table.csv").read_text().splitlines()[1:] == table


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.timeout(3600)
@pytest.mark.skipif(not PYTHON, reason="METASEG_NNUNET_PYTHON names no Python with nnunetv2")
def test_dry_run_of_the_protocol(tmp_path):
    places = {"output": str(tmp_path / "out"), "nnunet": str(Path(PYTHON).parents[1])}
    told = equal.run(str(PROTOCOL), **places, dry_run=True)
    assert told.count("a dry run") == 2
    assert equal.run(str(PROTOCOL), **places, dry_run=True) == told  # all of it is there
    with pytest.raises(ConfigError, match="runs of another protocol"):
        equal.run(str(PROTOCOL), **places)
