import json

import pytest
import torch

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.estimates import FieldEstimates, decoded, known_items, tell_estimate
from metaseg_monai.evaluation.modes import read_predicted
from metaseg_monai.metadata import Continuous

KNOWN = {"provenance": "acquisition", "availability": "acquisition"}
SIZE = Continuous(name="size", unit="mm", range=(0, 100), missing="unknown", **KNOWN)
LOG = Continuous(name="size", unit="mm", range=(1, 10000), scale="log", **KNOWN)


def item(case, group, split, size, volume=None):
    made = {"case": case, "group": group, "split": split, "metadata": {"size": size}}
    return made if volume is None else {**made, "volume": volume}


ITEMS = [
    item("a0", "a", "train", "10"),
    item("b0", "b", "train", "20"),
    item("c0", "c", "train", "90"),
    item("d0", "d", "val", "30"),
    item("d1", "d", "val", "30"),
    item("d2", "d", "val", ""),
    item("e0", "e", "test", "unknown"),
    item("f0", "f", "test", "40"),
]
CODES = {"a0": 0.1, "b0": 0.4, "c0": 0.7, "d0": 0.3, "d1": 0.9, "d2": 0.34, "e0": -0.2, "f0": 1.5}


@pytest.fixture
def predicted(tmp_path, measured):
    def predict(items=ITEMS, codes=CODES, field=SIZE):
        names = list(codes)
        pairs = [
            ({"case": part}, {"pred": torch.tensor([[codes[case]] for case in part])})
            for part in (names[:3], names[3:])
        ]
        path = measured(FieldEstimates(items, field), tmp_path / "predicted.csv", pairs)
        return read_predicted(path).set_index("group")

    return predict


def test_a_group_gets_the_median_of_its_slices_in_the_unit_of_the_field(predicted):
    table = predicted()
    assert table.index.tolist() == list("abcdef")
    assert table["predicted"].tolist() == pytest.approx([10, 40, 70, 34, 0, 100], rel=1e-6)
    assert table["true"].fillna(-1).tolist() == [10, 20, 90, 30, -1, 40]
    assert table["clipped"].tolist() == [0, 0, 0, 0, 1, 1]
    assert table["slices"].tolist() == [1, 1, 1, 3, 1, 1]
    assert table["split"].tolist() == ["train"] * 3 + ["val"] + ["test"] * 2
    assert set(table["field"]) == {"size"}
    assert set(table["unit"]) == {"mm"}


def test_the_median_is_that_of_the_codes(predicted):
    items = [item("a0", "a", "train", "10"), item("a1", "a", "train", "10")]
    table = predicted(items, {"a0": 0.25, "a1": 0.75}, LOG)
    assert table["predicted"].tolist() == pytest.approx([100])  # not the mean of 10 and 1000


def test_volumes_of_one_group_have_estimates_of_their_own(predicted):
    items = [item("a0", "a", "train", "10", "x"), item("a1", "a", "train", "20", "y")]
    table = predicted(items, {"a0": 0.1, "a1": 0.2})
    assert table["volume"].tolist() == ["x", "y"]
    assert table["predicted"].tolist() == pytest.approx([10, 20])


def test_scores_stand_beside_those_of_the_training_median(tmp_path, predicted):
    predicted()
    scores = json.loads((tmp_path / "estimate_scores.json").read_text())
    assert (scores["field"], scores["unit"], scores["scale"]) == ("size", "mm", "linear")
    assert scores["constant"] == pytest.approx(20)
    train, val, test = (scores["splits"][split] for split in ("train", "val", "test"))
    assert train["network"]["mae"] == pytest.approx((0 + 20 + 20) / 3)
    assert train["network"]["r2"] == pytest.approx(1 - 800 / 3800)
    assert train["constant"]["mae"] == pytest.approx((10 + 0 + 70) / 3)
    assert train["constant"]["spearman"] is None
    assert val["network"] == {"mae": pytest.approx(4), "r2": None, "spearman": None}
    assert [test[key] for key in ("groups", "missing", "clipped")] == [2, 1, 2]
    assert (train["clipped"], val["clipped"]) == (0, 0)
    assert test["network"]["mae"] == pytest.approx(60)
    told = tell_estimate(tmp_path)
    assert "val: mean absolute error 4 (constant 10), R2 -, Spearman -; 1 groups" in told


@pytest.mark.parametrize(("code", "value"), [(0, 1), (1, 10000), (-3, 1), (900, 10000)])
def test_a_code_beyond_the_range_is_clipped_to_exactly_its_ends(code, value):
    assert decoded(float(code), LOG) == (value, code not in (0, 1))


def test_missing_values_are_left_out_of_training():
    known = known_items([each for each in ITEMS if each["split"] == "val"], SIZE)
    assert [each["case"] for each in known] == ["d0", "d1"]
    with pytest.raises(DataError, match="'test' has a value of 'size'"):
        known_items([item("e0", "e", "test", "")], SIZE)


def test_two_values_in_one_group_are_refused():
    items = [item("a0", "a", "train", "10"), item("a1", "a", "train", "11")]
    for call in (known_items, FieldEstimates):
        with pytest.raises(DataError, match=r"Group 'a' has size 10 and 11.*'a1'"):
            call(items, SIZE)


def test_no_training_value_is_refused():
    with pytest.raises(DataError, match="No training case has a value of 'size'"):
        FieldEstimates(ITEMS[3:], SIZE)
