"""Splits by a seed and by official lists."""

import json

import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.prepare.splits import OwnSplits, read_splits, seeded_splits, split_groups

CASES = [f"case_{n:05d}" for n in range(100)]
SHARES = (0.7, 0.15, 0.15)


def test_shares_seed_and_steadiness():
    splits = seeded_splits(CASES, SHARES, 0)
    assert list(splits) == CASES
    assert [list(splits.values()).count(s) for s in ("train", "val", "test")] == [70, 15, 15]
    assert splits == seeded_splits(CASES[::-1], SHARES, 0)
    assert splits != seeded_splits(CASES, SHARES, 1)
    fewer = seeded_splits(CASES[:-1], SHARES, 0)
    assert sum(fewer[case] != splits[case] for case in fewer) <= 3


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, [1, 0, 0]), (2, [2, 0, 0])])
def test_few_cases(count, expected):
    values = list(seeded_splits(CASES[:count], SHARES, 0).values())
    assert not count or [values.count(s) for s in ("train", "val", "test")] == expected
    three = list(seeded_splits(CASES[:3], SHARES, 0).values())
    assert sorted(three) == ["test", "train", "val"]
    assert set(seeded_splits(CASES[:3], (1.0, 0.0, 0.0), 0).values()) == {"train"}


@pytest.mark.parametrize("shares", [(0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (0, 0.5, 0.5)])
def test_wrong_shares_are_refused(shares):
    with pytest.raises(DataError, match="sum to 1"):
        seeded_splits(CASES, shares, 0)
    with pytest.raises(DataError, match="seed='a'"):
        seeded_splits(CASES, SHARES, "a")


def test_lists_in_every_form(tmp_path):
    expected = {"case_00000": "train", "case_00007": "val", "case_00300": "test"}
    (tmp_path / "lists").mkdir()
    for split, case in (("train", "case_00000"), ("val", "7"), ("test", "00300")):
        (tmp_path / "lists" / f"{split}.txt").write_text(f"{case}\n")
    (tmp_path / "a.json").write_text('{"train": ["case_00000"], "val": [7], "test": ["300"]}')
    (tmp_path / "b.json").write_text(json.dumps(expected))
    (tmp_path / "c.csv").write_text("case_id,split\ncase_00000,train\n7,val\n300,test\n")
    for name in ("lists", "a.json", "b.json", "c.csv"):
        assert read_splits(tmp_path / name) == expected, name


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"train": [1], "val": ["case_00001"]}', "case_00001 is in train and in val"),
        ("a.csv", "case,split\n1,train\n1,test\n", "case_00001 is in train and in test"),
        ("a.json", '{"case_00001": "training"}', "split 'training', expected one of train"),
        ("a.json", "[]", "of several folds, save the one you mean"),
        ("a.json", "{}", "names no case"),
        ("a.json", "{", "no lists of splits"),
        ("a.csv", "case,fold\n1,2\n", "expected a column case and a column split, got case, fold"),
    ],
)
def test_wrong_lists_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_splits(tmp_path / name)
    with pytest.raises(DataError, match="no lists"):
        read_splits(tmp_path / "missing.json")
    with pytest.raises(DataError, match="names no case"):
        read_splits(tmp_path)


def test_seeds_differ_whatever_groups_are_made_alike_by(tmp_path):
    groups = [f"p{n}" for n in range(20)]
    alike = {"code": [str(n) for n in range(20)], "kind": [*"ab" * 10]}
    made = [
        split_groups(OwnSplits(tmp_path, groups, "patient", given), None, False, seed)
        for given in (alike, {"kind": alike["kind"]}, {"code": alike["code"]})
        for seed in (0, 1, 2)
    ]
    assert len({str(sorted(one.of_group.items())) for one in made[:3]}) == 3
    assert len({str(sorted(one.of_group.items())) for one in made[6:]}) == 3
    assert "alike in kind, seed 0" in made[0].told["split"][1]  # one group of a code is too few
    assert made[0] == made[3]
    for one in made:
        counts = [list(one.of_group.values()).count((s, "")) for s in ("train", "val", "test")]
        assert counts == [14, 3, 3]
    trained = [g for g, (split, _) in made[0].of_group.items() if split == "train"]
    assert sum(int(one[1:]) % 2 for one in trained) == 7  # as many of either kind
