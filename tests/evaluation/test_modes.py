import numpy as np
import pytest

from metaseg_monai.errors import DataError, MetadataError
from metaseg_monai.evaluation.modes import evaluation_items, expand_modes, read_predicted
from metaseg_monai.metadata import (
    Categorical,
    Continuous,
    MetadataSchema,
    MetadataWarning,
    MultiLabel,
    Ordinal,
)
from metaseg_monai.rows import write_table

KNOWN = {"provenance": "acquisition", "availability": "acquisition"}
LINE = Categorical(name="line", values=("HeLa", "MDCK", "A549"), **KNOWN)
SIZE = Continuous(name="size", unit="mm", range=(0, 100), missing="unknown", **KNOWN)
TWO = Categorical(name="line", values=("HeLa", "MDCK"), **KNOWN)
TAGS = MultiLabel(name="tags", values=("a", "b", "c"), **KNOWN)
HELA = {"line": "HeLa"}


def cross_modes(cases, modes, schema, **options):
    return evaluation_items(cases, schema, None, modes, **options)


def items(*raws):
    return [{"case": f"c{i}", "metadata": raw} for i, raw in enumerate(raws)]


def vectors(schema, mode, *raws, **options):
    return np.stack([item["meta"] for item in cross_modes(items(*raws), [mode], schema, **options)])


def test_normal_leaves_encoding_to_the_transform():
    (item,) = cross_modes(items(HELA), "normal", MetadataSchema([LINE]))
    assert item["mode"] == "normal"
    assert "meta" not in item


def test_every_item_appears_once_per_mode_and_the_originals_stay():
    cases = items(HELA, {"line": "MDCK"})
    crossed = cross_modes(cases, ["normal", "zeros"], MetadataSchema([LINE]))
    assert [(i["case"], i["mode"]) for i in crossed] == [
        ("c0", "normal"), ("c1", "normal"), ("c0", "zeros"), ("c1", "zeros"),
    ]  # fmt: skip
    assert "mode" not in cases[0]


@pytest.mark.parametrize(
    ("fields", "mode", "raw", "expected"),
    [
        ([LINE], "shuffle", HELA, [0, 1, 0]),  # the texts' cycle
        ([LINE], "shuffle", {"line": "MDCK"}, [0, 0, 1]),
        ([LINE], "shuffle", {"line": "A549"}, [1, 0, 0]),
        ([LINE], "shuffle", {"line": {"HeLa": 0.25, "A549": 0.75}}, [0.75, 0.25, 0]),
        ([TAGS], "shuffle", {"tags": "a;b"}, [0, 1, 1]),
        ([TAGS], "shuffle", {"tags": ["a", "b"]}, [0, 1, 1]),
        ([TWO], "inverse", HELA, [0, 1]),
        ([LINE], "zeros", HELA, [0, 0, 0]),
        ([LINE], "ones", HELA, [1, 1, 1]),
        ([SIZE], "missing", {"size": 5}, [0, 1]),
        ([LINE, SIZE], "fixed:MDCK", {**HELA, "size": 50}, [0, 1, 0, 0.5, 0]),  # one field only
        ([LINE, SIZE], "fixed:size=20", {**HELA, "size": 50}, [1, 0, 0, 0.2, 0]),
        ([SIZE], "perturb:1.5", {"size": 40}, [0.6, 0]),
        ([SIZE], "perturb:1.5", {"size": None}, [0, 1]),  # missing ones stay missing
    ],
)
def test_what_a_mode_makes_of_a_case(fields, mode, raw, expected):
    got = vectors(MetadataSchema(fields), mode, raw)
    np.testing.assert_array_equal(got, np.array([expected], np.float32))


@pytest.mark.parametrize(
    ("fields", "mode", "raw", "message"),
    [
        ([LINE], "inverse", HELA, "two labels"),
        ([LINE], "missing", HELA, "line"),  # has no entry for unknown
        ([LINE], "perturb:2", HELA, "continuous"),
        ([SIZE], "fixed:size=500", {"size": 10}, "from 0 to 100, got '500'"),  # beyond the range
        ([SIZE], "shuffle", {"size": 10}, "at least two cases"),
    ],
)
def test_modes_that_a_schema_or_a_single_case_does_not_allow(fields, mode, raw, message):
    with pytest.raises(MetadataError, match=message):
        vectors(MetadataSchema(fields), mode, raw)


def test_a_perturbed_value_beyond_the_range_is_flagged():
    with pytest.warns(MetadataWarning, match="size"):  # an error else
        got = vectors(MetadataSchema([SIZE]), "perturb:2", {"size": 90})
    np.testing.assert_allclose(got, [[1.8, 0]])


def test_shuffle_takes_the_mapping_of_the_facts():
    mapping = {"line": {"HeLa": "A549", "MDCK": "HeLa", "A549": "MDCK"}}
    got = vectors(MetadataSchema([LINE]), "shuffle", HELA, shuffle=mapping)
    np.testing.assert_array_equal(got, [[0, 0, 1]])
    del mapping["line"]["A549"]
    with pytest.raises(MetadataError, match="A549"):
        vectors(MetadataSchema([LINE]), "shuffle", HELA, shuffle=mapping)


def test_shuffle_gives_every_case_another_ones_size_and_repeats_by_seed():
    raws = [{"size": value} for value in (10, 20, 30, 40, 50)]
    schema = MetadataSchema([SIZE])
    got = vectors(schema, "shuffle", *raws, seed=3)[:, 0]
    assert sorted(got.round(2)) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert (got.round(2) != np.array([0.1, 0.2, 0.3, 0.4, 0.5])).all()
    np.testing.assert_array_equal(got, vectors(schema, "shuffle", *raws, seed=3)[:, 0])


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
    may = MetadataSchema([LINE.model_copy(update={"missing": "unknown"})])
    missing = items(*({"line": one} for one in ("", "n/a", "unknown", None)))
    assert {one["domain"] for one in evaluation_items(missing, may, "line")} == {"unknown"}
    with pytest.raises(MetadataError, match="lines"):
        evaluation_items([], schema, "lines")


def test_shuffle_is_left_out_and_told_where_a_case_is_alone(caplog):
    schema = MetadataSchema([SIZE])
    made = evaluation_items(items({"size": 10}), schema, None, ["normal", "shuffle"])
    assert [item["mode"] for item in made] == ["normal"]
    assert "Mode 'shuffle' is left out: Mode 'shuffle' of field 'size' needs" in caplog.text


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


BOTH = MetadataSchema([TWO, SIZE])


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
    with pytest.raises(MetadataError, match=r"no field of the schema \(line, size\)"):
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


def test_distributions_are_changed_as_their_values_are():
    known = {"provenance": "acquisition", "availability": "acquisition", "missing": "unknown"}
    schema = MetadataSchema(
        [
            Categorical(name="line", values=("HeLa", "MDCK"), **known),
            Continuous(name="size_mm", unit="mm", range=(0, 100), **known),
        ]
    )
    raw = {"line": "HeLa:0.25|MDCK:0.75", "size_mm": "20..40"}
    items = [
        {"case": name, "group": name, "metadata": {**raw, "size_mm": size}}
        for name, size in (("a", "20..40"), ("b", "50"))
    ]
    found = {
        (item["mode"], item["case"]): item["meta"]
        for item in evaluation_items(
            items, schema, None, ["shuffle", "perturb:1.5", "fixed:line=HeLa"]
        )
    }
    swapped = found["shuffle", "b"]  # the other's range, and the labels exchanged
    assert (
        swapped.tolist() == np.float32([[0.75, 0.25, 0, 0.2, 0], [0.75, 0.25, 0, 0.4, 0]]).tolist()
    )
    assert found["perturb:1.5", "a"].tolist() == schema.span({**raw, "size_mm": "30..60"}).tolist()
    assert found["fixed:line=HeLa", "b"].tolist() == [1, 0, 0, 0.5, 0]


def test_guidance_of_a_mode_stands_in_a_third_row():
    schema = MetadataSchema([LINE])
    true, wrong = (
        vectors(schema, mode, HELA, {"line": "MDCK"}) for mode in ("guided:0.5", "guided:2:shuffle")
    )
    assert true[:, :2].tolist() == [[[1, 0, 0]] * 2, [[0, 1, 0]] * 2]
    assert wrong[:, :2].tolist() == [[[0, 1, 0]] * 2, [[0, 0, 1]] * 2]
    assert (set(true[:, 2].ravel()), set(wrong[:, 2].ravel())) == ({0.5}, {2.0})
    for mode in ("guided:3", "guided:much", "guided:1:zeros", "guided:"):
        with pytest.raises(MetadataError, match="guided"):
            cross_modes(items(HELA), [mode], schema)
    with pytest.raises(MetadataError, match="c0 has a range"):
        cross_modes(items({"size": "5..20"}), ["guided:0.5"], MetadataSchema([SIZE]))
    crossed = cross_modes(items(HELA), ["normal", "guided:0.5"], schema, unknown=False)
    assert [one["mode"] for one in crossed] == ["normal"]  # the network knows no unknown


def test_soft_metadata_are_what_an_estimate_is_sure_of(tmp_path):
    names = {"group": "a", "volume": "", "split": "test", "field": "line", "unit": ""}
    told = {"predicted": "MDCK", "true": "HeLa", "clipped": 0, "slices": 1}
    soft = "HeLa:0.25|MDCK:0.75"
    path = write_table([{**names, **told, "soft": soft}], tmp_path / "predicted.csv")
    cases = [{"case": "a0", "group": "a", "split": "test", "metadata": HELA}]
    found = cross_modes(cases, ["predicted", "soft"], MetadataSchema([LINE]), predicted=path)
    assert [one["meta"].tolist() for one in found] == [[0, 1, 0], [0.25, 0.75, 0]]
    path = write_table([{**names, **told, "soft": ""}], tmp_path / "old.csv")
    with pytest.raises(MetadataError, match="says nothing of how sure"):
        cross_modes(cases, ["soft"], MetadataSchema([LINE]), predicted=path)
