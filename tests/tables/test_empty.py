import pytest

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.tables import CaseTable, limit_empty

COLUMNS = ["tumour_mm2", "cyst_mm2"]


def table(train, val=(0.0, 5.0)):
    """Areas of training and validation slices."""
    areas = [("train", area) for area in train] + [("val", area) for area in val]
    return CaseTable(
        "table.csv",
        tuple(
            {
                "case": f"{split}{number}",
                "split": split,
                "columns": {"tumour_mm2": str(area), "cyst_mm2": "0"},
            }
            for number, (split, area) in enumerate(areas)
        ),
    )


def kept(made):
    areas = [float(row["columns"]["tumour_mm2"]) for row in made.rows if row["split"] == "train"]
    return len(areas), sum(area == 0 for area in areas)


def test_the_share_of_empty_training_slices():
    whole = table([0.0] * 90 + [7.0] * 10)
    assert kept(limit_empty(whole, 0.5, COLUMNS)) == (20, 10)
    assert kept(limit_empty(whole, 0.0, COLUMNS)) == (10, 0)
    assert kept(limit_empty(whole, 0.95, COLUMNS)) == (100, 90)  # all there are
    assert limit_empty(whole, None, []) is whole


def test_validation_stays_whole_and_the_draw_follows_its_seed():
    whole = table([0.0] * 90 + [7.0] * 10)
    first, again, other = (limit_empty(whole, 0.5, COLUMNS, seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert [row for row in first.rows if row["split"] == "val"] == list(whole.rows[-2:])


def test_refusals():
    whole = table([0.0, 3.0])
    for share in (1.0, -0.1, True):
        with pytest.raises(ConfigError, match="empty_share"):
            limit_empty(whole, share, COLUMNS)
    with pytest.raises(ConfigError, match="areas"):
        limit_empty(whole, 0.5, ["liver_mm2"])
    with pytest.raises(ConfigError, match="any column"):
        limit_empty(whole, 0.5, [])
    with pytest.raises(DataError, match="no training slice"):
        limit_empty(table([0.0, 0.0]), 0.5, COLUMNS)


def test_a_share_that_the_table_cannot_give_is_told_or_refused(caplog):
    limit_empty(table([0.0] * 10 + [7.0] * 10), 0.8, COLUMNS)
    assert "only 10 training slices are empty, which is a share of 0.50" in caplog.text
    with pytest.raises(ConfigError, match=r"empty_share=0.3: table.csv .*--slice-rule all"):
        limit_empty(table([3.0, 7.0]), 0.3, COLUMNS)
    assert kept(limit_empty(table([3.0, 7.0]), 0.0, COLUMNS)) == (2, 0)
