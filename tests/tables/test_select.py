from pathlib import Path

import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.tables import fill_epoch, select_cases
from metaseg_monai.tables.table import CaseTable


def table(**counts):
    """Rows of field "line": so many training rows of each value, and one of val and test."""
    rows = []
    for value, count in counts.items():
        for split, repeats in (("train", count), ("val", 1), ("test", 1)):
            rows += [
                {"case": f"{split}_{value}{i}", "split": split, "metadata": {"line": value}}
                for i in range(repeats)
            ]
    return CaseTable(Path("table.csv"), tuple(rows))


def names(selected, split):
    return [row["case"] for row in selected.rows if row["split"] == split]


def test_only_some_domains_in_the_given_splits():
    expert = select_cases(table(a=2, b=3), only={"line": ["a"]}, splits=("train", "val"))
    assert names(expert, "train") == ["train_a0", "train_a1"]
    assert names(expert, "val") == ["val_a0"]
    assert names(expert, "test") == ["test_a0", "test_b0"]
    fewer = select_cases(table(a=2, b=3, c=1), only={"line": ["a", "b"]})
    assert names(fewer, "test") == ["test_a0", "test_b0"]


def test_nothing_asked_for_changes_nothing():
    whole = table(a=2, b=3)
    assert select_cases(whole, only={}, share={}).digest == whole.digest


def test_a_rare_domain_is_thinned_in_training_alone():
    whole = table(a=4, b=40)
    thin = select_cases(whole, share={"line": {"b": 0.1}})
    assert sum(name.startswith("train_b") for name in names(thin, "train")) == 4
    assert sum(name.startswith("train_a") for name in names(thin, "train")) == 4
    assert names(thin, "val") == names(whole, "val")
    assert len(names(select_cases(whole, share={"line": {"b": 0.026}}), "train")) == 4 + 2


def test_thinning_is_drawn_by_its_seed_and_nested():
    def kept(part, seed):
        return set(
            names(select_cases(table(b=40), share={"line": {"b": part}}, seed=seed), "train")
        )

    assert kept(0.2, 0) == kept(0.2, 0)
    assert kept(0.2, 0) != kept(0.2, 1)
    assert kept(0.1, 0) < kept(0.2, 0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"only": {"line": ["z"]}}, "its values are a, b"),
        ({"only": {"lines": ["a"]}}, "fields: line"),
        ({"only": {"line": "a"}}, "expected values"),
        ({"only": {"line": []}}, "expected values"),
        ({"share": {"line": {"z": 0.5}}}, "its values are a, b"),
        ({"share": {"line": {"a": 0}}}, "above 0"),
        ({"share": {"line": {"a": 2}}}, "at most 1"),
        ({"share": {"line": {"a": "half"}}}, "'half'"),
    ],
)
def test_refusals(settings, reason):
    with pytest.raises(ConfigError, match=reason):
        select_cases(table(a=2, b=3), **settings)


def test_a_split_that_would_be_empty():
    rows = table(a=2, b=2).rows
    no_val = CaseTable(Path("t.csv"), tuple(r for r in rows if r["case"] != "val_a0"))
    with pytest.raises(DataError, match="leaves no case in val"):
        select_cases(no_val, only={"line": ["a"]})


def test_an_epoch_is_filled_in_order():
    items = [{"case": "a"}, {"case": "b"}]
    assert [item["case"] for item in fill_epoch(items, 5)] == list("ababa")
    assert fill_epoch(items, None) == items
    with pytest.raises(ConfigError, match="leave out"):
        fill_epoch(items, 1)
