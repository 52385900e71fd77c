"""The numbers of tables: by training, by case, by test mode, and how alike domains are."""

import numpy as np
import pandas as pd
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.metrics.scores import COUNT_COLUMNS, pooled_f1
from metaseg_monai.reporting.scores import (
    case_table,
    class_table,
    cluster,
    domain_similarity,
    experts_elsewhere,
    perturbation_curve,
    reliance,
    share_curve,
)


def table(*rows):
    """Rows of (case, mode, class, tp, fp, fn)."""
    filled = [(c, c, "test", m, "x", k, tp, fp, fn, 100) for c, m, k, tp, fp, fn in rows]
    return pd.DataFrame(filled, columns=COUNT_COLUMNS)


def test_empty_targets_are_cases_not_classes_or_trainings(results_of, made):
    one, two = (
        made(table(*((case, "normal", *rest) for case, *rest in rows)))
        for rows in (
            [
                ("a", 1, 5, 0, 0), ("a", 2, 0, 4, 0),  # holds the first class: no empty target
                ("b", 1, 0, 0, 0), ("b", 2, 0, 0, 0), ("c", 1, 0, 3, 0), ("c", 2, 0, 0, 0),
                ("d", 1, 0, 0, 0), ("d", 2, 0, 0, 0),
            ],
            [
                ("a", 1, 5, 0, 0), ("a", 2, 0, 4, 0), ("b", 1, 0, 0, 0), ("b", 2, 0, 1, 0),
                ("c", 1, 0, 3, 0), ("c", 2, 0, 2, 0), ("d", 1, 0, 0, 0), ("d", 2, 0, 0, 0),
            ],
        )
    )  # fmt: skip
    row = case_table(results_of(se=[one, two])).loc["se"]
    assert row["empty targets"] == 3
    assert row["with false pixels"] == 2  # b in the second training, c in both
    assert row["empty, over all seeds"] == 3


def test_two_classes_of_one_name_keep_their_columns(results_of, made):
    results = results_of(se=[made(table(("a", "normal", 1, 5, 1, 0), ("a", "normal", 2, 5, 0, 0)))])
    named = class_table(results, {1: "mass", 2: "mass"})
    assert list(named.mean.columns) == ["class 1", "class 2"]
    assert list(class_table(results, {2: "mass"}).mean.columns) == ["class 1", "mass"]


def test_experts_are_tested_on_all_domains(tmp_path, results_of, made):
    rows = [("a", "normal", 1, 8, 2, 2), ("b", "normal", 1, 5, 5, 5)]
    tested = table(*rows).assign(domain=["x", "y"])
    for domain in "xy":
        (tmp_path / domain).mkdir()
        tested.to_csv(tmp_path / domain / "counts.csv", index=False)
    folders = {domain: tmp_path / domain for domain in "xy"}
    values = experts_elsewhere(results_of(experts=[made(tested, folders)]), "experts").mean
    assert values.loc["x"].tolist() == [0.8, 0.8]
    assert values.loc["y"].tolist() == [0.5, 0.5]


NORMAL = (("a", "normal", 1, 90, 10, 10), ("b", "normal", 1, 10, 0, 0))
SHUFFLE = (("a", "shuffle", 1, 20, 60, 80), ("b", "shuffle", 1, 0, 20, 10))


def test_half_wrong_by_hand():
    curve = share_curve(table(*NORMAL, *SHUFFLE), "shuffle").set_index("share")
    # halves of the pooled counts: tp (100 + 20) / 2, fp (10 + 80) / 2, fn (10 + 90) / 2
    by_hand = [200 / 220, 120 / (120 + 45 + 50), 40 / 210]
    assert curve.loc[[0, 0.5, 1], "f1"].tolist() == pytest.approx(by_hand)
    assert set(curve["mode"]) == {"shuffle"}
    # the mean over all ways to swap one case of two
    swaps = pd.concat([table(NORMAL[0], SHUFFLE[1]), table(SHUFFLE[0], NORMAL[1])])
    assert curve.loc[0.5, "f1"] == pytest.approx(pooled_f1(swaps))


def test_several_classes_are_averaged_after_mixing():
    counts = table(
        ("a", "normal", 1, 10, 0, 0),
        ("a", "normal", 2, 10, 0, 0),
        ("a", "shuffle", 1, 0, 10, 10),
        ("a", "shuffle", 2, 10, 0, 0),
    )
    curve = share_curve(counts, "shuffle").set_index("share")
    assert curve.loc[0.5, "f1"] == pytest.approx((0.5 + 1) / 2)


def test_perturbation_is_sorted_with_normal_at_one():
    counts = table(
        *NORMAL,
        ("a", "perturb:2", 1, 50, 0, 50),
        ("b", "perturb:2", 1, 0, 0, 10),
        ("a", "perturb:0.5", 1, 100, 0, 0),
        ("b", "perturb:0.5", 1, 10, 0, 0),
    )
    curve = perturbation_curve(counts)
    assert list(curve["factor"]) == [0.5, 1, 2]
    assert list(curve["f1"]) == pytest.approx([1, 200 / 220, 100 / 160])


def test_reliance_holds_only_the_modes_that_were_run():
    lost = reliance(table(*NORMAL, *SHUFFLE))
    assert lost == {"normal - shuffle": pytest.approx(200 / 220 - 40 / 210)}
    assert reliance(table(*NORMAL)) == {}


def test_absent_modes_and_other_cases_are_refused():
    with pytest.raises(DataError, match=r"no mode shuffle \(they have normal\)"):
        share_curve(table(*NORMAL), "shuffle")
    with pytest.raises(DataError, match="no mode normal"):
        reliance(table(*SHUFFLE))
    with pytest.raises(DataError, match="Mode shuffle was counted on other cases"):
        share_curve(table(*NORMAL, SHUFFLE[0]), "shuffle")


# thesis, table 4.11
HETEROGENEOUS = pd.DataFrame(
    [[0.842, 0.752, 0.772, 0.098], [0.893, 0.893, 0.808, 0.011],
     [0.803, 0.681, 0.803, 0.000], [0.890, 0.542, 0.393, 0.890]],
    index=["combined", "HeLa", "HepG2", "CRACK"],
    columns=["normal", "fixed:HeLa", "fixed:HepG2", "fixed:CRACK"],
)  # fmt: skip


def test_each_direction_is_a_share_of_the_own_score():
    share = domain_similarity(HETEROGENEOUS, symmetric=False)
    assert list(share.index) == list(share.columns) == ["HeLa", "HepG2", "CRACK"]
    assert share.loc["CRACK", "HeLa"] == pytest.approx(0.542 / 0.890)
    assert share.loc["HeLa", "CRACK"] == pytest.approx(0.011 / 0.893)
    assert list(np.diag(share)) == [1, 1, 1]


@pytest.mark.parametrize(
    ("own", "apart", "both"),
    [
        (0.5, {"a": 0.5, "b": 1}, 0.75),  # a score above the own one counts as one
        (0.0, {"a": np.nan, "b": 0.5}, 0.5),  # without an own score the other direction counts
    ],
)
def test_both_directions_are_averaged(own, apart, both):
    scores = {"fixed:a": {"a": own, "b": 1.2 * own or 0.3}, "fixed:b": {"a": own / 2, "b": 0.6}}
    share = domain_similarity(pd.DataFrame(scores), symmetric=False)
    found = {"a": share.loc["a", "b"], "b": share.loc["b", "a"]}
    assert found == pytest.approx(apart, nan_ok=True)
    assert domain_similarity(pd.DataFrame(scores)).loc["a", "b"] == both


def test_only_labels_of_the_domains_own_field_count():
    table = HETEROGENEOUS.rename(columns=lambda mode: mode.replace("fixed:", "fixed:line="))
    table["fixed:stain=DAPI"] = 0.123
    pd.testing.assert_frame_equal(domain_similarity(table), domain_similarity(HETEROGENEOUS))


def test_domains_without_a_label_are_left_out_and_of_one_or_of_two_fields_nothing_is_said():
    assert list(domain_similarity(HETEROGENEOUS.drop(columns="fixed:HepG2"))) == ["HeLa", "CRACK"]
    assert domain_similarity(HETEROGENEOUS[["normal", "fixed:HeLa"]]) is None
    assert domain_similarity(HETEROGENEOUS[["normal"]]) is None
    scores = {f"fixed:{field}={label}": {"yes": 1, "no": 1}
              for field in ("stain", "flash") for label in ("yes", "no")}  # fmt: skip
    assert domain_similarity(pd.DataFrame(scores)) is None


def test_like_domains_join_first_and_an_unknown_one_is_far():
    linkage = cluster(domain_similarity(HETEROGENEOUS))
    assert set(linkage[0, :2]) == {0, 1}  # HeLa and HepG2
    assert linkage[0, 2] == pytest.approx(1 - (0.808 / 0.893 + 0.681 / 0.803) / 2)
    table = pd.DataFrame([[1, 0.75], [0.75, 1]], index=["a", "b"], columns=["a", "b"])
    assert cluster(table)[0, 2] == 0.25
    assert cluster(table.replace(0.75, np.nan))[0, 2] == 1
