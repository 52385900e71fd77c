import numpy as np
import pytest

from metaseg_monai.errors import DataError, MetadataError
from metaseg_monai.evaluation import cross_modes, evaluation_items, expand_modes
from metaseg_monai.evaluation.modes import read_predicted
from metaseg_monai.files import write_table
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema, MetadataWarning

KNOWN = {"provenance": "acquisition", "availability": "acquisition"}
LINE = Categorical(name="line", values=("HeLa", "MDCK"), **KNOWN)
SIZE = Continuous(name="size", unit="mm", range=(0, 100), missing="unknown", **KNOWN)
SCHEMA = MetadataSchema([LINE, SIZE])


def item(case, group, size, volume=""):
    raw = {"line": "MDCK", "size": size}
    made = {"case": case, "group": group, "split": "test", "metadata": raw}
    return {**made, "volume": volume} if volume else made


ITEMS = [item("a0", "a", 10), item("a1", "a", 10), item("b0", "b", None)]


def row(group, predicted, **changed):
    return {
        "group": group, "volume": "", "split": "test", "field": "size", "unit": "mm",
        "predicted": predicted, "true": "", "clipped": 0, "slices": 1, **changed,
    }  # fmt: skip


def test_the_estimate_of_the_group_replaces_the_value_and_nothing_else(tmp_path):
    path = write_table([row("b", 70.0), row("a", 30)], tmp_path / "predicted.csv")
    crossed = evaluation_items(ITEMS, SCHEMA, "line", ["normal", "predicted"], predicted=path)
    of_mode = [each for each in crossed if each["mode"] == "predicted"]
    meta = np.stack([each["meta"] for each in of_mode])
    np.testing.assert_allclose(meta, [[0, 1, 0.3, 0], [0, 1, 0.3, 0], [0, 1, 0.7, 0]])
    assert [each["case"] for each in of_mode] == ["a0", "a1", "b0"]
    assert [each["metadata"]["size"] for each in crossed] == [10, 10, None] * 2
    assert "meta" not in crossed[0]


def test_volumes_are_told_apart_and_numbers_as_names_stay_text(tmp_path):
    rows = [row("007", 20, volume="1"), row("007", 40, volume="01")]
    path = write_table(rows, tmp_path / "predicted.csv")
    items = [item("x", "007", 1, "01"), item("y", "007", 1, "1")]
    crossed = cross_modes(items, ["predicted"], SCHEMA, predicted=path)
    assert [float(each["meta"][2]) for each in crossed] == pytest.approx([0.4, 0.2])


def test_a_value_beyond_the_range_is_flagged_not_refused(tmp_path):
    path = write_table([row("a", 130.0)], tmp_path / "predicted.csv")
    with pytest.warns(MetadataWarning, match="size"):
        crossed = cross_modes(ITEMS[:1], ["predicted"], SCHEMA, predicted=path)
    assert float(crossed[0]["meta"][2]) == pytest.approx(1.3)


def test_without_estimates_the_command_is_named():
    assert expand_modes(["predicted"], SCHEMA) == ["predicted"]
    with pytest.raises(MetadataError, match=r"metaseg_monai estimate .*--predicted_metadata"):
        cross_modes(ITEMS, ["predicted"], SCHEMA)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("a", 1.0)], "no estimate for group 'b'"),
        ([row("a", 1.0), row("b", 1.0, volume="v")], "no estimate for group 'b'"),
        ([row("a", 1.0), row("b", 1.0, split="train")], "'b' was in the split 'train'"),
        ([row("a", 1.0), row("b", 1.0), row("b", 2.0)], "'b' stands there twice"),
        ([row("a", 1.0), row("b", "")], "column 'predicted' must hold plain numbers"),
        ([row("a", 1.0), row("b", "x")], "column 'predicted' must hold plain numbers"),
        ([row("a", 1.0), row("b", "inf")], "column 'predicted' must hold plain numbers"),
        ([row("a", 1.0), row("b", 1.0, true="x")], "column 'true' must hold plain numbers"),
        ([row("a", 1.0), row("b", 1.0, field="age")], "one field, got age, size"),
        ([{"group": "a"}], "lacks volume"),
    ],
)
def test_estimates_of_other_cases_are_refused(tmp_path, rows, message):
    path = write_table(rows, tmp_path / "predicted.csv")
    with pytest.raises(DataError, match=message):
        cross_modes(ITEMS, ["predicted"], SCHEMA, predicted=path)


@pytest.mark.parametrize("changed", [{"field": "age"}, {"field": "line"}, {"unit": "cm"}])
def test_estimates_of_another_field_or_unit_are_refused(tmp_path, changed):
    path = write_table([row("a", 1.0, **changed), row("b", 1.0, **changed)], tmp_path / "p.csv")
    with pytest.raises(MetadataError, match=r"no continuous field of the schema \(line, size\)"):
        cross_modes(ITEMS, ["predicted"], SCHEMA, predicted=path)


def test_a_missing_or_empty_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="metaseg_monai estimate"):
        read_predicted(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="no table of estimates"):
        read_predicted(tmp_path / "empty.csv")


def test_shuffle_gives_all_slices_of_a_group_the_size_of_another_group():
    sizes = {"a": 10, "b": 20, "c": None}
    items = [item(f"{group}{n}", group, sizes[group]) for group in "abc" for n in range(4)]
    for seed in range(5):
        crossed = cross_modes(items, ["shuffle"], SCHEMA, seed=seed)
        given = {(each["group"], *each["meta"][2:].round(3).tolist()) for each in crossed}
        assert len(given) == 3
        own = {"a": (0.1, 0), "b": (0.2, 0), "c": (0, 1)}
        assert all((size, unknown) != pytest.approx(own[g]) for g, size, unknown in given)


def test_shuffle_moves_single_items_where_a_group_has_several_values():
    items = [item("a0", "a", 10), item("a1", "a", 20), item("b0", "b", 30)]
    crossed = cross_modes(items, ["shuffle"], SCHEMA, seed=1)
    given = [round(float(each["meta"][2]), 3) for each in crossed]
    assert sorted(given) == [0.1, 0.2, 0.3]
    assert all(new != old for new, old in zip(given, [0.1, 0.2, 0.3], strict=True))
