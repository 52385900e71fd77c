"""What a study takes of a table: some domains, fewer of a rare one, fewer empty slices."""

from pathlib import Path

import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.simulate.cells.plan import A3
from metaseg_monai.tables import (
    SPLITS,
    CaseTable,
    fill_epoch,
    fold_cases,
    limit_empty,
    select_cases,
)

AREAS = ["tumour_mm2", "cyst_mm2"]


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


def slices(train, val=(0.0, 5.0)):
    """Areas of training and validation slices."""
    areas = [("train", area) for area in train] + [("val", area) for area in val]
    rows = (
        {"case": f"{split}{n}", "split": split, "columns": {"tumour_mm2": str(a), "cyst_mm2": "0"}}
        for n, (split, a) in enumerate(areas)
    )
    return CaseTable(Path("table.csv"), tuple(rows))


def kept(made):
    """How many training slices there are, and how many of them are empty."""
    areas = [float(row["columns"]["tumour_mm2"]) for row in made.rows if row["split"] == "train"]
    return len(areas), sum(area == 0 for area in areas)


OWN = {"of": "own"}


def test_only_some_domains_in_the_given_splits():
    expert = select_cases(table(a=2, b=3), only={"line": ["a"]}, splits=("train", "val"))
    assert names(expert, "train") == ["train_a0", "train_a1"]
    assert names(expert, "val") == ["val_a0"]
    assert names(expert, "test") == ["test_a0", "test_b0"]
    fewer = select_cases(table(a=2, b=3, c=1), only={"line": ["a", "b"]})
    assert names(fewer, "test") == ["test_a0", "test_b0"]
    assert select_cases(fewer, only={}, share={}).digest == fewer.digest


def test_a_rare_domain_is_thinned_in_training_alone():
    whole = table(a=4, b=40)
    thin = select_cases(whole, share={"line": {"b": OWN | {"part": 0.1}}})
    assert sum(name.startswith("train_b") for name in names(thin, "train")) == 4
    assert sum(name.startswith("train_a") for name in names(thin, "train")) == 4
    assert names(thin, "val") == names(whole, "val")
    assert (
        len(names(select_cases(whole, share={"line": {"b": OWN | {"part": 0.04}}}), "train"))
        == 4 + 2
    )


@pytest.mark.parametrize(("part", "count", "thesis"), [(0.2, 174, "10%"), (0.073, 64, "2.5%")])
def test_the_rare_40x_of_the_thesis(part, count, thesis):
    """Section 4.3 with table A.3: 20 % of 40x's own images, then about 60, 2.5 % of the whole."""
    sizes = {name: splits["train"] for name, splits in A3.items()}
    assert (sizes, sum(sizes.values())) == ({"10": 843, "20": 862, "40": 872}, 2577)
    for share in (OWN | {"part": part}, {"count": count}):
        left = select_cases(table(**sizes), share={"line": {"40": share}})
        assert sum(name.startswith("train_40") for name in names(left, "train")) == count
    whole = 2577 if thesis == "2.5%" else len(names(left, "train"))
    assert count / whole == pytest.approx(float(thesis[:-1]) / 100, abs=0.01)
    studies = Path(__file__).resolve().parents[2] / "bundles"
    for file, field in (
        ("magnification_nuclei_segmentation/studies/rare.json", '"40": '),
        ("synthetic_shapes_segmentation/studies/rare_domain.json", '"cross": '),
    ):
        assert f'{field}{{"of": "own", "part": {part}}}' in (studies / file).read_text()


def test_thinning_is_drawn_by_its_seed_and_nested():
    def drawn(part, seed):
        thin = select_cases(table(b=40), share={"line": {"b": OWN | {"part": part}}}, seed=seed)
        return set(names(thin, "train"))

    assert drawn(0.2, 0) == drawn(0.2, 0)
    assert drawn(0.2, 0) != drawn(0.2, 1)
    assert drawn(0.1, 0) < drawn(0.2, 0)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"only": {"line": ["z"]}}, "its values are a, b"),
        ({"only": {"lines": ["a"]}}, "fields: line"),
        ({"only": {"line": "a"}}, "expected values"),
        ({"only": {"line": []}}, "expected values"),
        ({"share": {"line": {"z": OWN | {"part": 0.5}}}}, "its values are a, b"),
        ({"share": {"line": {"a": OWN | {"part": 0}}}}, "above 0"),
        ({"share": {"line": {"a": OWN | {"part": 2}}}}, "at most 1"),
        ({"share": {"line": {"a": OWN | {"part": "half"}}}}, "'half'"),
        ({"share": {"line": {"a": 0.1}}}, '0.1; expected {"of": "own"'),  # of what?
        ({"share": {"line": {"a": {"of": "all", "part": 0.1}}}}, "'all'"),
        ({"share": {"line": {"a": {"count": 3}}}}, "at most 2"),
        ({"share": {"line": {"a": {"count": 0}}}}, "'count': 0"),
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


def test_the_share_of_empty_training_slices():
    whole = slices([0.0] * 90 + [7.0] * 10)
    assert kept(limit_empty(whole, 0.5, AREAS)) == (20, 10)
    assert kept(limit_empty(whole, 0.0, AREAS)) == (10, 0)
    assert kept(limit_empty(whole, 0.95, AREAS)) == (100, 90)  # all there are
    assert limit_empty(whole, None, []) is whole
    first, again, other = (limit_empty(whole, 0.5, AREAS, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert [row for row in first.rows if row["split"] == "val"] == list(whole.rows[-2:])


@pytest.mark.parametrize(
    ("areas", "share", "columns", "error", "told"),
    [
        *(([0.0, 3.0], share, AREAS, ConfigError, "empty_share") for share in (1.0, -0.1, True)),
        ([0.0, 3.0], 0.5, ["liver_mm2"], ConfigError, "areas"),
        ([0.0, 3.0], 0.5, [], ConfigError, "any column"),
        ([0.0, 0.0], 0.5, AREAS, DataError, "no training slice"),
        ([3.0, 7.0], 0.3, AREAS, ConfigError, "empty_share=0.3: table.csv .*--slice-rule all"),
    ],
)
def test_a_share_that_the_table_cannot_give_is_refused(areas, share, columns, error, told):
    with pytest.raises(error, match=told):
        limit_empty(slices(areas), share, columns)


def test_fewer_empty_slices_than_asked_for_are_told(caplog):
    limit_empty(slices([0.0] * 10 + [7.0] * 10), 0.8, AREAS)
    assert "only 10 training slices are empty, which is a share of 0.50" in caplog.text
    assert kept(limit_empty(slices([3.0, 7.0]), 0.0, AREAS)) == (2, 0)


def folded(cells, splits="train", per_group=2):
    """A table of groups in folds, two cases each."""
    splits = [splits] * len(cells) if isinstance(splits, str) else splits
    rows = [
        {"case": f"g{n}_{k}", "group": f"g{n}", "split": split, "columns": {"fold": cell}}
        for n, (cell, split) in enumerate(zip(cells, splits, strict=True))
        for k in range(per_group)
    ]
    return CaseTable(path="table.csv", rows=tuple(rows))


def test_over_all_folds_each_case_is_tested_once_and_groups_stay_together():
    table = folded(["0", "1", "2", "3", "4"] * 4 + [""], ["train"] * 20 + ["test"])
    tested = []
    for fold in range(5):
        rows = fold_cases(table, fold, validation=0.2).rows
        of_group = {split: {r["group"] for r in rows if r["split"] == split} for split in SPLITS}
        assert [len(of_group[split]) for split in SPLITS] == [13, 3, 4]
        assert len(set.union(*of_group.values())) == 20
        tested += [row["case"] for row in rows if row["split"] == "test"]
        assert fold_cases(table, fold, validation=0.2).rows == rows
        assert fold_cases(table, fold, validation=0.2, seed=1).rows != rows
    assert sorted(tested) == sorted(row["case"] for row in table.rows if row["group"] != "g20")
    assert [row["split"] for row in table.rows[:2]] == ["train", "train"]  # left as it was


def test_two_groups_outside_a_fold_give_one_of_each():
    rows = fold_cases(folded(["0", "1", "1"]), 0, validation=0.9).rows
    assert sorted(row["split"] for row in rows[::2]) == ["test", "train", "val"]
    with pytest.raises(DataError, match=r"1 group.* outside of fold 0"):
        fold_cases(folded(["0", "1"]), 0)


@pytest.mark.parametrize(
    ("cells", "fold", "kind", "message"),
    [
        (["0", "1", "x"], 0, DataError, r"g2_0.*fold 'x', expected 0, 1"),
        (["0", "1", ""], 0, DataError, "'g2_0' has no fold, and is no fixed test case"),
        (["0", "1", "2"], 3, ConfigError, "fold=3: table.csv has the folds 0, 1, 2"),
        (["0", "1", "2"], True, ConfigError, "fold=True"),
        (["0", "0", "0"], 0, ConfigError, "two folds or more"),
    ],
)
def test_folds_that_are_none_are_refused(cells, fold, kind, message):
    with pytest.raises(kind, match=message):
        fold_cases(folded(cells), fold)


def test_a_group_in_two_folds_and_a_table_without_folds_are_refused():
    table = folded(["0", "1", "2"])
    table.rows[1]["columns"] = {"fold": "1"}
    with pytest.raises(DataError, match=r"'g0' is in several folds: 0 \(case g0_0\), 1"):
        fold_cases(table, 0)
    table.rows[0]["columns"] = {}
    with pytest.raises(ConfigError, match=r"no column 'fold'.*new-bundle --folds"):
        fold_cases(table, 0)
    with pytest.raises(ConfigError, match="validation=1"):
        fold_cases(table, 0, validation=1)
