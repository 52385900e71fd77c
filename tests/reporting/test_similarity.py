import numpy as np
import pandas as pd
import pytest

from metaseg_monai.errors import DataError
from metaseg_monai.reporting.scores import cluster, domain_similarity

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


def test_symmetric_similarity_is_the_mean_of_both_directions():
    similarity = domain_similarity(HETEROGENEOUS)
    expected = (0.542 / 0.890 + 0.011 / 0.893) / 2
    assert similarity.loc["CRACK", "HeLa"] == pytest.approx(expected)
    assert similarity.loc["HeLa", "CRACK"] == pytest.approx(expected)


def test_a_score_above_the_own_one_counts_as_one():
    scores = {"fixed:a": {"a": 0.5, "b": 0.9}, "fixed:b": {"a": 0.25, "b": 0.6}}
    share = domain_similarity(pd.DataFrame(scores), symmetric=False)
    assert share.loc["b", "a"] == 1
    assert share.loc["a", "b"] == 0.5


def test_a_domain_without_an_own_score_takes_the_other_direction():
    scores = {"fixed:a": {"a": 0.0, "b": 0.3}, "fixed:b": {"a": 0.0, "b": 0.6}}
    table = pd.DataFrame(scores)
    assert np.isnan(domain_similarity(table, symmetric=False).loc["a", "b"])
    assert domain_similarity(table).loc["a", "b"] == 0.5


def test_only_labels_of_the_domains_own_field_count():
    table = HETEROGENEOUS.rename(columns=lambda mode: mode.replace("fixed:", "fixed:line="))
    table["fixed:stain=DAPI"] = 0.123
    pd.testing.assert_frame_equal(domain_similarity(table), domain_similarity(HETEROGENEOUS))


def test_two_fields_that_both_name_the_domains_are_refused():
    scores = {f"fixed:{field}={label}": {"yes": 1, "no": 1}
              for field in ("stain", "flash") for label in ("yes", "no")}  # fmt: skip
    with pytest.raises(DataError, match="stain, flash have the same labels"):
        domain_similarity(pd.DataFrame(scores))


def test_domains_without_a_label_are_left_out_and_one_domain_is_refused():
    assert list(domain_similarity(HETEROGENEOUS.drop(columns="fixed:HepG2"))) == ["HeLa", "CRACK"]
    with pytest.raises(DataError, match=r"HeLa was\. .*fixed:\*"):
        domain_similarity(HETEROGENEOUS[["normal", "fixed:HeLa"]])
    with pytest.raises(DataError, match="none was"):
        domain_similarity(HETEROGENEOUS[["normal"]])


def test_like_domains_join_first_and_stand_side_by_side():
    order, linkage = cluster(domain_similarity(HETEROGENEOUS))
    assert order in (["CRACK", "HeLa", "HepG2"], ["CRACK", "HepG2", "HeLa"])
    assert set(linkage[0, :2]) == {0, 1}  # HeLa and HepG2
    assert linkage[0, 2] == pytest.approx(1 - (0.808 / 0.893 + 0.681 / 0.803) / 2)


def test_two_domains_join_at_their_distance_and_an_unknown_one_is_far():
    table = pd.DataFrame([[1, 0.75], [0.75, 1]], index=["a", "b"], columns=["a", "b"])
    assert cluster(table)[1][0, 2] == 0.25
    assert cluster(table.replace(0.75, np.nan))[1][0, 2] == 1


def test_clustering_refuses_one_domain_and_two_directions():
    with pytest.raises(DataError, match="at least two domains"):
        cluster(pd.DataFrame([[1.0]], index=["a"], columns=["a"]))
    with pytest.raises(DataError, match="symmetric=True"):
        cluster(domain_similarity(HETEROGENEOUS, symmetric=False))
