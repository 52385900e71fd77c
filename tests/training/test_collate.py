import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch

from metaseg_monai.errors import DataError
from metaseg_monai.training import collate_cases


def item(name, size=4, **more):
    return {
        "case": name,
        "image": MetaTensor(torch.zeros(1, size, size)),
        "label": np.zeros((1, size, size), dtype=np.int64),
        "meta": torch.ones(3),
        **more,
    }


def test_tensors_are_stacked_and_cases_named():
    batch = collate_cases([item("a"), item("b")])
    assert batch["case"] == ["a", "b"]
    assert batch["image"].shape == (2, 1, 4, 4)
    assert batch["label"].dtype == torch.int64
    assert batch["meta"].shape == (2, 3)


def test_samples_of_one_item_become_rows():
    batch = collate_cases([[item("a"), item("a")], [item("b"), item("b")]])
    assert batch["case"] == ["a", "a", "b", "b"]
    assert batch["image"].shape[0] == 4


def test_raw_values_stay_behind_and_the_batch_can_be_taken_apart():
    raw = [
        item("a", metadata={"task": "disc", "size": None}, label_values=[1, 2]),
        item("b", metadata={"task": "ring"}),
    ]
    batch = collate_cases(raw)
    assert set(batch) == {"case", "image", "label", "meta"}
    assert [one["case"] for one in decollate_batch(batch)] == ["a", "b"]
    assert [set(one) for one in decollate_batch(batch)] == [set(batch)] * 2


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_key_missing_in_one_item_is_named(lacking):
    items = [item("a"), item("b")]
    del items[lacking]["meta"]
    with pytest.raises(DataError, match=rf"case {'ab'[lacking]} has none.*'meta'"):
        collate_cases(items)


def test_a_value_that_is_raw_in_one_item_is_named():
    with pytest.raises(DataError, match="case b holds NoneType"):
        collate_cases([item("a"), item("b", meta=None)])


def test_shapes_that_differ_are_named_with_what_to_do():
    with pytest.raises(
        DataError, match=r"'image'.*\(1, 4, 4\) in case a, \(1, 5, 5\) in case c"
    ) as e:
        collate_cases([item("a"), item("b"), item("c", size=5)])
    assert "batch size to 1" in str(e.value)


def test_text_beside_a_tensor_is_refused():
    with pytest.raises(DataError, match=r"'meta'.*\(3,\) in case a, text in case b"):
        collate_cases([item("a"), item("b", meta="disc")])
