import numpy as np
import pytest

from metaseg_monai.errors import DataError, MetadataError
from metaseg_monai.evaluation.modes import evaluation_items, expand_modes, read_predicted
from metaseg_monai.files import write_table
from metaseg_monai.metadata import (
    Categorical,
    Continuous,
    MetadataSchema,
    MetadataWarning,
    MultiLabel,
    Ordinal,
)

KNOWN = {"provenance": "acquisition", "availability": "acquisition"}
LINE = Categorical(name="line", values=("HeLa", "MDCK", "A549"), **KNOWN)
SIZE = Continuous(name="size", unit="mm", range=(0, 100), missing="unknown", **KNOWN)


def cross_modes(cases, modes, schema, **options):
    return evaluation_items(cases, schema, None, modes, **options)


def items(*raws):
    return [{"case": f"c{i}", "metadata": raw} for i, raw in enumerate(raws)]


def vectors(schema, mode, *raws, **options):
    return np.stack([item["meta"] for item in cross_modes(items(*raws), [mode], schema, **options)])


def test_normal_leaves_encoding_to_the_transform():
    (item,) = cross_modes(items({"line": "HeLa"}), "normal", MetadataSchema([LINE]))
    assert item["mode"] == "normal"
    assert "meta" not in item


def test_every_item_appears_once_per_mode_and_the_originals_stay():
    cases = items({"line": "HeLa"}, {"line": "MDCK"})
    crossed = cross_modes(cases, ["normal", "zeros"], MetadataSchema([LINE]))
    assert [(i["case"], i["mode"]) for i in crossed] == [
        ("c0", "normal"), ("c1", "normal"), ("c0", "zeros"), ("c1", "zeros"),
    ]  # fmt: skip
    assert "mode" not in cases[0]


def test_shuffle_is_the_texts_cycle():
    got = vectors(MetadataSchema([LINE]), "shuffle", *({"line": v} for v in LINE.values))
    np.testing.assert_array_equal(got, [[0, 1, 0], [0, 0, 1], [1, 0, 0]])


def test_shuffle_takes_the_mapping_of_the_facts():
    mapping = {"line": {"HeLa": "A549", "MDCK": "HeLa", "A549": "MDCK"}}
    got = vectors(MetadataSchema([LINE]), "shuffle", {"line": "HeLa"}, shuffle=mapping)
    np.testing.assert_array_equal(got, [[0, 0, 1]])


def test_shuffle_maps_mixtures_and_several_labels():
    got = vectors(MetadataSchema([LINE]), "shuffle", {"line": {"HeLa": 0.25, "A549": 0.75}})
    np.testing.assert_array_equal(got, [[0.75, 0.25, 0]])
    tags = MetadataSchema([MultiLabel(name="tags", values=("a", "b", "c"), **KNOWN)])
    np.testing.assert_array_equal(vectors(tags, "shuffle", {"tags": "a;b"}), [[0, 1, 1]])


def test_shuffle_gives_every_case_another_ones_size_and_repeats_by_seed():
    raws = [{"size": value} for value in (10, 20, 30, 40, 50)]
    schema = MetadataSchema([SIZE])
    got = vectors(schema, "shuffle", *raws, seed=3)[:, 0]
    assert sorted(got.round(2)) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert (got.round(2) != np.array([0.1, 0.2, 0.3, 0.4, 0.5])).all()
    np.testing.assert_array_equal(got, vectors(schema, "shuffle", *raws, seed=3)[:, 0])
    with pytest.raises(MetadataError, match="at least two cases"):
        vectors(schema, "shuffle", {"size": 10})


def test_shuffle_refuses_a_mapping_that_forgets_a_label():
    with pytest.raises(MetadataError, match="A549"):
        vectors(
            MetadataSchema([LINE]),
            "shuffle",
            {"line": "HeLa"},
            shuffle={"line": {"HeLa": "MDCK", "MDCK": "HeLa"}},
        )


def test_inverse_swaps_two_labels_and_refuses_three():
    two = MetadataSchema([Categorical(name="line", values=("HeLa", "MDCK"), **KNOWN)])
    np.testing.assert_array_equal(vectors(two, "inverse", {"line": "HeLa"}), [[0, 1]])
    with pytest.raises(MetadataError, match="two labels"):
        vectors(MetadataSchema([LINE]), "inverse", {"line": "HeLa"})


@pytest.mark.parametrize(("mode", "value"), [("zeros", 0), ("ones", 1)])
def test_constant_vectors(mode, value):
    np.testing.assert_array_equal(
        vectors(MetadataSchema([LINE]), mode, {"line": "HeLa"}), [[value] * 3]
    )


def test_missing_needs_a_schema_that_knows_unknown():
    np.testing.assert_array_equal(vectors(MetadataSchema([SIZE]), "missing", {"size": 5}), [[0, 1]])
    with pytest.raises(MetadataError, match="line"):
        vectors(MetadataSchema([LINE]), "missing", {"line": "HeLa"})


def test_fixed_changes_one_field_only():
    schema = MetadataSchema([LINE, SIZE])
    got = vectors(schema, "fixed:MDCK", {"line": "HeLa", "size": 50})
    np.testing.assert_allclose(got, [[0, 1, 0, 0.5, 0]])
    got = vectors(schema, "fixed:size=20", {"line": "HeLa", "size": 50})
    np.testing.assert_allclose(got, [[1, 0, 0, 0.2, 0]])


def test_perturb_scales_sizes_and_leaves_missing_ones_missing():
    schema = MetadataSchema([SIZE])
    got = vectors(schema, "perturb:1.5", {"size": 40}, {"size": None})
    np.testing.assert_allclose(got, [[0.6, 0], [0, 1]])
    with pytest.warns(MetadataWarning, match="size"):  # beyond the range, which is an error else
        np.testing.assert_allclose(vectors(schema, "perturb:2", {"size": 90}), [[1.8, 0]])
    with pytest.raises(MetadataError, match="continuous"):
        vectors(MetadataSchema([LINE]), "perturb:2", {"line": "HeLa"})


def test_expand_lists_every_label_and_names_the_field_where_it_must():
    assert expand_modes(["fixed:*", "ones", "ones"], MetadataSchema([LINE])) == [
        "fixed:HeLa", "fixed:MDCK", "fixed:A549", "ones",
    ]  # fmt: skip
    grade = Ordinal(name="grade", values=("I", "II"), **KNOWN)
    assert "fixed:grade=II" in expand_modes(["fixed:*"], MetadataSchema([LINE, grade]))


@pytest.mark.parametrize("mode", ["shufle", "fixed", "fixed:Hela", "perturb:-1", "perturb:x"])
def test_unknown_modes_are_refused(mode):
    with pytest.raises(MetadataError, match=mode.partition(":")[0]):
        expand_modes([mode], MetadataSchema([LINE]))


def test_domain_is_the_true_label_in_every_mode():
    schema = MetadataSchema([LINE])
    crossed = evaluation_items(items({"line": "MDCK"}), schema, "line", ["normal", "fixed:HeLa"])
    assert [item["domain"] for item in crossed] == ["MDCK", "MDCK"]
    assert evaluation_items(items({"line": "MDCK"}), schema, None)[0]["domain"] == "all"
    with pytest.raises(MetadataError, match="lines"):
        evaluation_items([], schema, "lines")


def test_missing_is_not_tested_on_a_network_that_never_saw_an_unknown(caplog):
    schema, cases = MetadataSchema([SIZE]), items({"size": 10}, {"size": 20})
    modes = ["normal", "missing", "zeros"]
    with caplog.at_level("WARNING"):
        known = evaluation_items(cases, schema, None, modes)
    assert [item["mode"] for item in known] == [mode for mode in modes for _ in cases]
    assert not caplog.messages
    with caplog.at_level("WARNING"):
        left = evaluation_items(cases, schema, None, modes, unknown=False)
    assert {item["mode"] for item in left} == {"normal", "zeros"}
    assert "missing is left out" in caplog.text
    assert "metadata_dropout" in caplog.text
    caplog.clear()
    evaluation_items(cases, schema, None, ["normal", "zeros"], unknown=False)
    assert not caplog.messages
    with pytest.raises(MetadataError, match="metadata_dropout"):
        evaluation_items(cases, schema, None, ["missing"], unknown=False)


def test_a_requested_value_beyond_the_range_is_refused():
    with pytest.raises(MetadataError, match="size"):
        vectors(MetadataSchema([SIZE]), "fixed:size=500", {"size": 10})


BOTH = MetadataSchema([Categorical(name="line", values=("HeLa", "MDCK"), **KNOWN), SIZE])


def sized(case, group, size, volume=""):
    raw = {"line": "MDCK", "size": size}
    made = {"case": case, "group": group, "split": "test", "metadata": raw}
    return {**made, "volume": volume} if volume else made


ITEMS = [sized("a0", "a", 10), sized("a1", "a", 10), sized("b0", "b", None)]


def row(group, predicted, **changed):
    return {
        "group": group, "volume": "", "split": "test", "field": "size", "unit": "mm",
        "predicted": predicted, "true": "", "clipped": 0, "slices": 1, **changed,
    }  # fmt: skip


def test_the_estimate_of_the_group_replaces_the_value_and_nothing_else(tmp_path):
    path = write_table([row("b", 70.0), row("a", 30)], tmp_path / "predicted.csv")
    crossed = evaluation_items(ITEMS, BOTH, "line", ["normal", "predicted"], predicted=path)
    of_mode = [each for each in crossed if each["mode"] == "predicted"]
    meta = np.stack([each["meta"] for each in of_mode])
    np.testing.assert_allclose(meta, [[0, 1, 0.3, 0], [0, 1, 0.3, 0], [0, 1, 0.7, 0]])
    assert [each["case"] for each in of_mode] == ["a0", "a1", "b0"]
    assert [each["metadata"]["size"] for each in crossed] == [10, 10, None] * 2
    assert "meta" not in crossed[0]


def test_volumes_are_told_apart_and_numbers_as_names_stay_text(tmp_path):
    rows = [row("007", 20, volume="1"), row("007", 40, volume="01")]
    path = write_table(rows, tmp_path / "predicted.csv")
    items = [sized("x", "007", 1, "01"), sized("y", "007", 1, "1")]
    crossed = cross_modes(items, ["predicted"], BOTH, predicted=path)
    assert [float(each["meta"][2]) for each in crossed] == pytest.approx([0.4, 0.2])


def test_a_value_beyond_the_range_is_flagged_not_refused(tmp_path):
    path = write_table([row("a", 130.0)], tmp_path / "predicted.csv")
    with pytest.warns(MetadataWarning, match="size"):
        crossed = cross_modes(ITEMS[:1], ["predicted"], BOTH, predicted=path)
    assert float(crossed[0]["meta"][2]) == pytest.approx(1.3)


def test_without_estimates_the_command_is_named():
    assert expand_modes(["predicted"], BOTH) == ["predicted"]
    with pytest.raises(MetadataError, match=r"metaseg_monai estimate .*--predicted_metadata"):
        cross_modes(ITEMS, ["predicted"], BOTH)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("a", 1.0)], "no estimate for group 'b'"),
        ([row("a", 1.0), row("b", 1.0, volume="v")], "no estimate for group 'b'"),
        ([row("a", 1.0), row("b", 1.0, split="train")], "'b' was in the split 'train'"),
        ([row("a", 1.0), row("b", 1.0), row("b", 2.0)], "group b, volume  stands there twice"),
        ([row("a", 1.0), row("b", "")], "predicted must be numbers"),
        ([row("a", 1.0), row("b", "x")], "predicted must be numbers"),
        ([row("a", 1.0), row("b", "inf")], "predicted must be numbers"),
        ([row("a", 1.0), row("b", 1.0, true="x")], "true must be numbers"),
        ([row("a", 1.0), row("b", 1.0, field="age")], "one field, got age, size"),
        ([{"group": "a"}], "lacks volume"),
    ],
)
def test_estimates_of_other_cases_are_refused(tmp_path, rows, message):
    path = write_table(rows, tmp_path / "predicted.csv")
    with pytest.raises(DataError, match=message):
        cross_modes(ITEMS, ["predicted"], BOTH, predicted=path)


@pytest.mark.parametrize("changed", [{"field": "age"}, {"field": "line"}, {"unit": "cm"}])
def test_estimates_of_another_field_or_unit_are_refused(tmp_path, changed):
    path = write_table([row("a", 1.0, **changed), row("b", 1.0, **changed)], tmp_path / "p.csv")
    with pytest.raises(MetadataError, match=r"no continuous field of the schema \(line, size\)"):
        cross_modes(ITEMS, ["predicted"], BOTH, predicted=path)


def test_a_missing_or_empty_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="metaseg_monai estimate"):
        read_predicted(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(DataError, match="no table of estimates"):
        read_predicted(tmp_path / "empty.csv")


def test_shuffle_gives_all_slices_of_a_group_the_size_of_another_group():
    sizes = {"a": 10, "b": 20, "c": None}
    items = [sized(f"{group}{n}", group, sizes[group]) for group in "abc" for n in range(4)]
    for seed in range(5):
        crossed = cross_modes(items, ["shuffle"], BOTH, seed=seed)
        given = {(each["group"], *each["meta"][2:].round(3).tolist()) for each in crossed}
        assert len(given) == 3
        own = {"a": (0.1, 0), "b": (0.2, 0), "c": (0, 1)}
        assert all((size, unknown) != pytest.approx(own[g]) for g, size, unknown in given)


def test_shuffle_moves_single_items_where_a_group_has_several_values():
    items = [sized("a0", "a", 10), sized("a1", "a", 20), sized("b0", "b", 30)]
    crossed = cross_modes(items, ["shuffle"], BOTH, seed=1)
    given = [round(float(each["meta"][2]), 3) for each in crossed]
    assert sorted(given) == [0.1, 0.2, 0.3]
    assert all(new != old for new, old in zip(given, [0.1, 0.2, 0.3], strict=True))
