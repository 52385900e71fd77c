"""A network is not tested on an image that it was trained on, wherever the image lies now."""

import shutil

import pandas as pd
import pytest
from ignite.engine import Engine

from metaseg_monai.errors import DataError
from metaseg_monai.training import RecordTrained, RefuseTrained


@pytest.fixture
def items(tmp_path):
    """Four cases of one image each, and one of two planes that others have alone."""
    made = []
    for number, split in enumerate(["train", "train", "val", "test"]):
        file = tmp_path / f"{number}.tif"
        file.write_bytes(bytes([number]) * 100)
        made.append({"image": str(file), "case": f"c{number}", "group": f"g{number}"})
        made[-1]["split"] = split
    planes = [str(tmp_path / "0.tif"), str(tmp_path / "3.tif")]
    return [*made, {"image": planes, "case": "c4", "group": "g4", "split": "test"}]


def start(handler):
    engine = Engine(lambda engine, batch: None)
    handler.attach(engine)
    engine.run([0])


def record(tmp_path, items):
    seen = [item for item in items if item["split"] != "test"]
    start(RecordTrained(tmp_path / "run" / "model.pt", seen))


def refuse(tmp_path, items):
    start(RefuseTrained(tmp_path / "run" / "model.pt", items))


def test_an_image_is_one_row(tmp_path, items):
    record(tmp_path, [*items, {**items[0], "case": "c0-task2"}])
    table = pd.read_csv(tmp_path / "run" / "trained_on.csv")
    assert table["split"].tolist() == ["train", "train", "val"]
    assert table["group"].tolist() == ["g0", "g1", "g2"]
    assert table["sha256"].str.len().eq(64).all()


def test_unseen_images_pass_in_silence(tmp_path, items, caplog):
    record(tmp_path, items)
    refuse(tmp_path, items)  # also those of train and val, which somebody tests on purpose
    assert not caplog.records


@pytest.mark.parametrize(("number", "split"), [(1, "train"), (2, "val")])
def test_a_copy_under_another_name_is_refused(tmp_path, items, number, split):
    record(tmp_path, items)
    shutil.copy(items[number]["image"], tmp_path / "copy.tif")
    test = {"image": str(tmp_path / "copy.tif"), "case": "x", "group": "y", "split": "test"}
    with pytest.raises(DataError, match=rf"1 of 3 test .* x \(was {split} case c{number}\)"):
        refuse(tmp_path, [*items, test])


def test_another_image_of_a_group_is_told(tmp_path, items, caplog):
    record(tmp_path, items)
    refuse(tmp_path, [{**items[3], "group": "g1"}])
    assert "1 groups of the test cases have the name of one that was trained on (g1)" in caplog.text


def test_what_is_not_known_is_told(tmp_path, items, caplog):
    refuse(tmp_path, items)
    assert "nobody knows whether the test cases were trained on" in caplog.text


def test_a_damaged_record_and_a_missing_image_are_refused(tmp_path, items):
    record(tmp_path, items)
    with pytest.raises(DataError, match=r"gone\.tif: cannot be read"):
        refuse(tmp_path, [{**items[3], "image": str(tmp_path / "gone.tif")}])
    (tmp_path / "run" / "trained_on.csv").write_text("sha256\n1\n")
    with pytest.raises(DataError, match="damaged, expected the columns sha256"):
        refuse(tmp_path, items)
