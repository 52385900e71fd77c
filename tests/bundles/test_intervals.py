"""Intervals of areas by the front door: calibrated, kept with the weights, used and tested."""

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest

from metaseg_monai.bundle.trust import was_trained_here
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.evaluation import read_coverage
from metaseg_monai.sharing import run
from metaseg_monai.sharing.merge import merge
from metaseg_monai.sharing.study import report
from metaseg_monai.training.weights import read_weights, write_fact

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        # MONAI 1.6.1 and Ignite 0.5.5 themselves, while they read or run a bundle
        "ignore::DeprecationWarning",
        "ignore::FutureWarning",
        "ignore:parsing config_file:UserWarning",
    ),
]


@pytest.fixture(scope="module")
def model(copy_bundle, tmp_path_factory):
    """A model of shapes whose table has a split for calibration, and a folder of test images."""
    bundle = copy_bundle("synthetic_shapes_segmentation")
    folder = tmp_path_factory.mktemp("runs") / "model"
    settings = {**bundle.settings, "epochs": 6}
    settings["table#path"] = {**settings["table#path"], "val": 12, "test": 42}
    run.train(bundle.root, output_dir=folder, variant="me", **settings)
    file = bundle.root / "data" / "table.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    apart = table.index[table["split"] == "test"][:30]
    table.loc[apart, "split"] = "calibration"
    table.to_csv(file, index=False)
    images = tmp_path_factory.mktemp("source") / "images"
    images.mkdir()
    for name in table.loc[table["split"] == "test", "image"][:4]:
        shutil.copy(bundle.root / "data" / name, images)
    # at 0.5 so short a training finds nothing
    run.conformal(folder, split="calibration", found=0.7)
    threshold = read_weights(folder / "model.pt")[1]["conformal"]["modes"]["normal"]["all"][
        "threshold"
    ]
    with run.rewriting(folder):
        write_fact(folder / "model.pt", "clean_up", {"rules": {"threshold": threshold}})
    run.conformal(folder, off=True)
    return folder, images, threshold


def test_areas_are_calibrated_used_and_tested(model, tmp_path):
    folder, images, threshold = model
    before = read_weights(folder / "model.pt")[1]
    told = run.conformal(folder, split="calibration", by="task", found=0.8)
    fact = read_weights(folder / "model.pt")[1]["conformal"]
    assert {**read_weights(folder / "model.pt")[1], "conformal": None} == {
        **before,
        "conformal": None,
    }
    assert was_trained_here(folder)
    assert json.loads((folder / "model.json").read_text())["conformal"] == fact
    assert (fact["cases"], fact["groups"], fact["split"]) == (30, 30, "calibration")
    every = fact["modes"]["normal"]["all"]
    assert every["bounds"]["1"] > 0
    assert 0 < every["threshold"] <= threshold  # more is to be found
    assert fact["settings"]["clean_up"] == {"threshold": threshold}
    assert "sw_batch_size" not in fact["settings"]["window"]
    assert all(one["pooled"] for one in fact["modes"]["normal"].values())  # 5 of each are few
    assert fact["modes"]["missing"].keys() == {"all"}
    assert "30 cases in 30 groups of the split calibration, by task" in told
    assert "disc: too few groups of its own, as all" in told

    done = run.predict(folder, images, tmp_path / "masks", meta="task=disc")
    table = pd.read_csv(tmp_path / "masks" / "predictions.csv")
    assert table["case"].tolist() == done.cases["case"].tolist()
    assert (table["area"] > 0).all()
    assert (table["area_low"] <= table["area"]).all()
    assert (table["area"] <= table["area_high"]).all()
    assert set(table["interval_of"]) == {"all"}
    assert set(table["calibration_cases"]) == {30}
    assert set(table["unit"]) == {"px"}
    written = (tmp_path / "masks" / "predictions.csv").read_bytes()
    run.predict(folder, images, tmp_path / "unknown", meta="task=unknown")
    other = pd.read_csv(tmp_path / "unknown" / "predictions.csv")
    for one, mode in ((table, "normal"), (other, "missing")):
        bound = math.exp(fact["modes"][mode]["all"]["bounds"]["1"])
        assert one["area_low"].tolist() == pytest.approx(
            [max(0, (area + 1) / bound - 1) for area in one["area"]]
        )
        assert one["area_high"].tolist() == pytest.approx(
            [min(32 * 32, (area + 1) * bound - 1) for area in one["area"]]
        )
    run.predict(folder, images, tmp_path / "soft", meta="task=disc:0.5|ring:0.5")
    soft = pd.read_csv(tmp_path / "soft" / "predictions.csv")
    assert soft["area_low"].isna().all()  # no calibration case was told so

    for part in ("0/2", "1/2"):
        run.predict(folder, images, tmp_path / "shards", meta="task=disc", shard=part)
    assert not (tmp_path / "shards" / "predictions.csv").exists()
    merge(tmp_path / "shards")
    assert (tmp_path / "shards" / "predictions.csv").read_bytes() == written

    run.evaluate(folder, modes=["normal", "missing", "shuffle"])
    rows = read_coverage(folder / "conformal.csv")
    assert set(rows["mode"]) == {"normal", "missing"}
    assert len(rows) == 2 * 12
    inside = rows["low"].le(rows["true"]) & ~rows["high"].lt(rows["true"])
    assert inside.mean() > 0.6
    assert "conformal.csv" in json.loads((folder / "evaluation.json").read_text())["files"]

    # another calibration makes masks anew, that they may be told with it; the same one does not
    run.predict(folder, images, tmp_path / "masks", meta="task=disc")
    assert (tmp_path / "masks" / "predictions.csv").read_bytes() == written
    run.conformal(folder, split="calibration", level=0.5)
    run.predict(folder, images, tmp_path / "masks", meta="task=disc")
    narrow = pd.read_csv(tmp_path / "masks" / "predictions.csv")
    assert (narrow["area_low"] > table["area_low"]).all()


def test_masks_made_in_another_way_are_refused(model, tmp_path):
    folder, images, threshold = model
    run.conformal(folder, split="calibration")
    asked = (folder, images, tmp_path / "masks", "task=disc")
    for settings, name in (
        ({"clean_up": {"object_px": 9}}, r'clean_up {"threshold": .*}, and now it is'),
        ({"clean_up": {}}, r"and now it is {}"),
        ({"guidance": 0.5}, "guidance null, and now it is 0.5"),
        ({"mirror": [1]}, "mirror null"),
        ({"window_inferer#overlap": 0.5}, "window .*0.25.*0.5"),
        ({"displayable_configs#threshold": 0.3}, "threshold 0.5, and now it is 0.3"),
    ):
        with pytest.raises(ConfigError, match=f"{name}.*--conformal False"):
            run.predict(*asked, **settings)
        assert not (tmp_path / "masks").exists()
    run.predict(*asked, guidance=0.5, conformal=False)
    assert not (tmp_path / "masks" / "predictions.csv").exists()
    before = {"rules": {"threshold": threshold}}
    chosen = {"rules": {**before["rules"], "object_px": {"1": 4}}}
    write_fact(folder / "model.pt", "clean_up", chosen)  # chosen later
    with pytest.raises(ConfigError, match="calibrate again"):
        run.predict(*asked)
    write_fact(folder / "model.pt", "clean_up", before)
    assert run.conformal(folder, off=True).endswith("have no intervals")
    with pytest.raises(ConfigError, match="holds no intervals of areas"):
        run.predict(*asked, conformal=True)


def test_only_cases_that_were_set_apart_calibrate(model):
    folder, *_ = model
    for split, why in (("train", "trained on"), ("test", "of the test")):
        with pytest.raises(DataError, match=f"--split {split}: its cases are {why}"):
            run.conformal(folder, split=split)
    with pytest.raises(DataError, match="no rows of the split 'mine'"):
        run.conformal(folder, split="mine")
    with pytest.raises(ConfigError, match=r"--by size: expected a field .*\('task'\)"):
        run.conformal(folder, by="size")
    with pytest.raises(ConfigError, match="takes no --guidance"):
        run.conformal(folder, guidance=1)
    with pytest.raises(ConfigError, match="share above 0 and below 1"):
        run.conformal(folder, level=90)
    assert "conformal" not in read_weights(folder / "model.pt")[1]
    assert run.conformal(folder).startswith("12 cases in 12 groups of the split val, by task")
    # a training case that a table calls one of the calibration
    bundle = Path(json.loads((folder / "training.json").read_text())["bundle"])
    file = bundle / "data" / "table.csv"
    text = file.read_text()
    file.write_text(text.replace(",train", ",calibration", 2))
    with pytest.raises(DataError, match="was train case"):
        run.conformal(folder, split="calibration")
    file.write_text(text)


def test_a_prediction_tells_whether_metadata_fit(model, tmp_path):
    folder, images, _ = model
    run.conformal(folder, split="calibration")
    record = json.loads((folder / "training.json").read_text())
    bundle, given = record["bundle"], record["settings"]["table#path"]
    small = {"table#path": given} | {
        "epochs": 1,
        "roi_size": [32, 32],
        "train#augmentation#0#spatial_size": [36, 36],
    }
    told = run.estimate(
        bundle, tmp_path / "task", estimate_field="task", estimate_channels=[4, 4], **small
    )
    assert "task, estimated from the image" in told
    fact = read_weights(tmp_path / "task" / "estimate.pt")[1]["alarm"]
    assert (fact["split"], fact["cases"]) == ("calibration", 30)
    run.predict(folder, images, tmp_path / "masks", meta="task=disc", alarm_dir=tmp_path / "task")
    table = pd.read_csv(tmp_path / "masks" / "predictions.csv")
    assert table["meta_p"].between(1 / 31 - 1e-6, 1).all()
    assert table["area_high"].notna().all()
    run.evaluate(
        folder,
        modes=["normal", "missing", "shuffle", "soft", "guided:0.5", "guided:0.5:shuffle"],
        predicted_metadata=tmp_path / "task" / "predicted.csv",
    )
    shutil.copytree(tmp_path / "task", folder.parent / "task")
    page = report(folder.parent).html.read_text()
    assert "Is this mask to be believed?" in page
    assert "When the table is wrong: " in page
    assert "images" in page
