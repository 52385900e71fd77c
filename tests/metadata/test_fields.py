"""What each kind of field takes, its code by hand, and what it refuses."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaseg_monai.errors import MetadataError
from metaseg_monai.metadata import (
    Categorical,
    Continuous,
    MultiLabel,
    Ordinal,
    Vector,
)

KNOWN = {"provenance": "acquisition", "availability": "acquisition"}
LINES = ("HeLa", "MDCK", "A549", "HT1080", "HepG2", "MCF7", "NIH3T3")
LINE = Categorical(name="line", values=LINES, **KNOWN)
TASK = MultiLabel(name="task", values=("nuclei", "anomalies"), **KNOWN)


def test_seven_lines_of_the_thesis():
    assert np.array_equal(np.stack([LINE.encode(value) for value in LINES]), np.eye(7))
    assert LINE.encode("HeLa").dtype == np.float32
    assert LINE.entry_names[3] == "line=HT1080"


def test_four_combinations_of_two_labels():
    subsets = {(): [0, 0], ("anomalies",): [0, 1], ("nuclei",): [1, 0], TASK.values: [1, 1]}
    for subset, code in subsets.items():
        assert TASK.encode(subset).tolist() == code
        assert TASK.decode(np.float32(code)) == list(subset)


@pytest.mark.parametrize("code", [[0, 0], [1, 1], [2, -1]])
def test_a_test_mode_is_no_category(code):
    task = Categorical(name="task", values=("nuclei", "anomalies"), **KNOWN)
    with pytest.raises(MetadataError, match=r"'task'.*decode only vectors made by encode"):
        task.decode(np.float32(code))


def test_fractions_mix_domains():
    code = LINE.encode({"MDCK": 0.3, "MCF7": "0.7"})
    assert code.tolist() == pytest.approx([0, 0.3, 0, 0, 0, 0.7, 0])
    assert LINE.decode(code) == pytest.approx({"MDCK": 0.3, "MCF7": 0.7})
    assert LINE.encode({"HeLa": 1}).tolist() == LINE.encode("HeLa").tolist()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"MDCK": 0.3, "HeLa": 0.3}, "sum to 0.6"),
        ({"MDCK": 1.5, "HeLa": -0.5}, "fraction of 'HeLa'"),
        ({"MDCK": float("nan"), "HeLa": 1}, "fraction of 'MDCK'"),
        ({}, "sum to 0"),
        ({"MDKC": 1}, "'MDCK'.*; use one of these names"),
        ({"m d-c.k": 1}, "did you mean 'MDCK'"),
        ("Hela", "'HeLa', 'MDCK'.*got 'Hela'.*did you mean 'HeLa'"),
        (3, "as text"),
        (["HeLa"], "as text"),
    ],
)
def test_wrong_categories(value, reason):
    with pytest.raises(MetadataError, match=f"field 'line'.*{reason}"):
        LINE.encode(value)


def test_what_a_value_may_be_short_for_is_proposed_where_it_is_plain():
    sex = Categorical(name="sex", values=("F", "M"), **KNOWN)
    with pytest.raises(MetadataError, match="got 'male'; did you mean 'M'"):
        sex.encode("male")
    phase = Categorical(name="phase", values=("arterial", "artefact"), **KNOWN)
    with pytest.raises(MetadataError, match="got 'art'; use one of these names"):
        phase.encode("art")


def test_a_misspelt_category_is_not_missing():
    line = Categorical(name="line", values=LINES, missing="unknown", **KNOWN)
    with pytest.raises(MetadataError, match=r"\(or 'unknown'\).*use one of these names"):
        line.encode("MDKC")


WORDS = ("", "  ", "unknown", "NaN", "NA", "n/a", "NULL", "None", "-", ".")


@pytest.mark.parametrize("value", [None, *WORDS, float("nan"), np.float32("nan")])
def test_missing(value):
    told = {"name": "line", "values": ("a", "b"), **KNOWN}
    assert Categorical(**told, missing="unknown").encode(value).tolist() == [0, 0, 1]
    with pytest.raises(MetadataError, match=r"field 'line'.*got nothing.*missing='unknown'"):
        Categorical(**told).encode(value)


def test_a_declared_name_is_no_word_for_missing():
    stain = Categorical(name="stain", values=("none", "DAPI"), missing="unknown", **KNOWN)
    assert stain.encode("none").tolist() == [1, 0, 0]
    assert stain.encode("None").tolist() == [0, 0, 1]


def test_unknown_entry_comes_last_and_decodes_to_none():
    line = Categorical(name="line", values=("a", "b"), missing="unknown", **KNOWN)
    assert line.entry_names == ("line=a", "line=b", "line=unknown")
    assert line.encode("b").tolist() == [0, 1, 0]
    assert line.decode(line.unknown()) is None
    with pytest.raises(MetadataError, match="expected the code of"):
        line.decode(np.float32([1, 0, 1]))


def test_ordinal_is_a_thermometer():
    grade = Ordinal(name="grade", values=("I", "II", "III"), **KNOWN)
    codes = [grade.encode(value) for value in grade.values]
    assert np.stack(codes).tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]
    assert [grade.decode(code) for code in codes] == ["I", "II", "III"]
    assert grade.entry_names == ("grade>=I", "grade>=II", "grade>=III")
    for code in set(itertools.product([0, 0.5, 1], repeat=3)) - {tuple(c) for c in codes}:
        with pytest.raises(MetadataError, match="expected the code of one of 'I', 'II', 'III'"):
            grade.decode(np.float32(code))


def test_labels_in_a_cell():
    stain = MultiLabel(name="stain", values=("DAPI", "actin", "tubulin"), separator="|", **KNOWN)
    assert stain.encode("tubulin| DAPI").tolist() == [1, 0, 1]
    assert stain.encode({"actin"}).tolist() == [0, 1, 0]
    with pytest.raises(MetadataError, match=r"joined by '\|'.*use one of these names"):
        stain.encode("DAPY|actin")
    with pytest.raises(MetadataError, match="give a list of names"):
        stain.encode(4)
    with pytest.raises(MetadataError, match="expected the code"):
        stain.decode(np.float32([0.5, 0, 0]))


def tumour_size(**settings):
    return Continuous(**{"name": "size", "unit": "mm", "range": (1, 161), **KNOWN, **settings})


def test_linear_by_hand():
    assert tumour_size().encode(41).tolist() == [0.25]
    assert tumour_size().entry_names == ("size",)


def test_magnification_is_log2():
    magnification = tumour_size(unit="x", range=(5, 40), scale="log2")
    codes = [magnification.encode(value)[0] for value in (5, 10, 20, 40)]
    assert codes == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert magnification.decode(np.float32([1 / 3])) == pytest.approx(10)


@pytest.mark.parametrize(
    "value", ["41", "41.0", " 41 ", "4.1e1", 41.0, np.int64(41), np.float32(41)]
)
def test_plain_numbers(value):
    assert tumour_size().encode(value).tolist() == [0.25]


@pytest.mark.parametrize("policy", ["error", "unknown"])
@pytest.mark.parametrize(
    "value", ["41 mm", "nano", ">=90", True, math.inf, "inf", "4,1", "1_0", [41], 10**400]
)
def test_what_is_no_plain_number(value, policy):
    with pytest.raises(MetadataError, match=r"'size'.*plain number in mm from 1 to 161, got"):
        tumour_size(missing=policy, out_of_range="flag").encode(value)


def test_missing_size():
    assert tumour_size(missing="unknown").encode(None).tolist() == [0, 1]
    assert tumour_size(missing="unknown").encode(1).tolist() == [0, 0]
    with pytest.raises(MetadataError, match="got nothing"):
        tumour_size().encode(math.nan)


@pytest.mark.parametrize(
    ("unit", "value", "doubt"),
    [
        ("mm", 0.4, r"is it in cm\? In mm 4 would be inside"),
        ("cm", 900, r"is it in mm\? In cm 90 would be inside"),
        ("mm", 90000, r"is it in um\? In mm 90 would be inside"),
        ("s", 900, r"is it in another unit\? In s 90 would be inside"),
        ("years", 900, "beyond what was trained; use it as it is"),  # in no other unit
        ("mm", -1, "beyond what was trained; .*--out_of_range flag.*--margin"),
    ],
)
def test_out_of_range_is_refused_or_flagged_but_never_clamped(unit, value, doubt):
    with pytest.raises(MetadataError, match=f"'size'.*from 1 to 161, got {value}.*{doubt}"):
        tumour_size(unit=unit).encode(value)
    lenient = tumour_size(unit=unit, out_of_range="flag")
    assert lenient.encode(value)[0] == pytest.approx((value - 1) / 160)
    (flag,) = lenient.flags(value)
    assert f"got {value}" in flag


def test_no_flag_inside_the_range_and_none_where_it_is_an_error():
    assert tumour_size(out_of_range="flag").flags(161) == []
    assert tumour_size(out_of_range="flag").flags(None) == []
    assert tumour_size().flags(162) == []


def test_a_logarithm_refuses_zero_even_when_flagging():
    with pytest.raises(MetadataError, match="scale log needs a value above 0"):
        tumour_size(scale="log", out_of_range="flag").encode(0)


def test_a_code_too_large_for_float32_is_refused():
    with pytest.raises(MetadataError, match="cannot be stored"):
        tumour_size(out_of_range="flag").encode(1e300)


@given(st.floats(1, 161), st.sampled_from(["linear", "log", "log2"]))
def test_round_trip(value, scale):
    field = tumour_size(scale=scale)
    assert 0 <= field.encode(value)[0] <= 1
    assert field.decode(field.encode(value)) == pytest.approx(value, rel=1e-5)


def test_vector():
    texture = Vector(name="texture", entries=("contrast", "entropy"), missing="unknown", **KNOWN)
    assert texture.entry_names == ("texture[contrast]", "texture[entropy]", "texture=unknown")
    assert texture.encode("0.5; -2").tolist() == [0.5, -2, 0]
    assert texture.encode(np.array([0.5, -2])).tolist() == [0.5, -2, 0]
    assert texture.encode(None).tolist() == [0, 0, 1]
    assert texture.decode(texture.encode((0.5, -2))) == [0.5, -2]
    assert Vector(name="v", entries=2, **KNOWN).entry_names == ("v[0]", "v[1]")


@pytest.mark.parametrize("value", [[1], [1, 2, 3], [1, None], [1, 1e39], "1", 1.0, np.ones((2, 1))])
def test_wrong_vectors(value):
    with pytest.raises(MetadataError, match=r"'v': expected 2 plain numbers.*got"):
        Vector(name="v", entries=2, **KNOWN).encode(value)


@pytest.mark.parametrize(
    ("kind", "settings", "reason"),
    [
        (Categorical, {"values": ("a", "a")}, "values: the values are not distinct"),
        (Categorical, {"values": ()}, "values: .*at least 1"),
        (Categorical, {"values": ("a", "unknown")}, "'unknown' stands for a missing value"),
        (Categorical, {"values": ("a", " b")}, "begins or ends with a space"),
        (Categorical, {"values": "disc"}, "values: .*tuple"),
        (Categorical, {"values": ("a",), "vales": 1}, "vales: Extra inputs"),
        (Categorical, {"values": ("a",), "missing": "zero"}, "missing: .*'unknown', got 'zero'"),
        (Categorical, {"values": ("a",), "name": "a=b"}, "name: "),
        (Categorical, {"values": ("a",), "availability": "later"}, ".*'post-operative'"),
        (MultiLabel, {"values": ("a;b",)}, "'a;b' contains the separator"),
        (Continuous, {"unit": "mm", "range": (5, 5)}, "lowest value first"),
        (Continuous, {"unit": "mm", "range": (0, 5), "scale": "log"}, "above 0 for scale log"),
        (Continuous, {"unit": "mm", "range": (0, math.inf)}, "finite"),
        (Continuous, {"unit": "", "range": (0, 5)}, "unit: "),
        (Continuous, {"unit": "x", "range": (1, 5), "scale": "log10"}, "scale: .*'log2'"),
        (Vector, {"entries": 0}, "entries: expected at least one"),
        (Vector, {"entries": -1}, "entries: expected at least one"),
        (Vector, {"entries": ()}, "entries: expected at least one"),
        (Vector, {"entries": ("a", "a")}, "entries: the names are not distinct"),
    ],
)
def test_wrong_settings(kind, settings, reason):
    with pytest.raises(MetadataError, match=reason):
        kind(**{"name": "field", **KNOWN, **settings})


def test_provenance_and_availability_are_never_guessed():
    with pytest.raises(MetadataError, match="'task': provenance: Field required; availability: Fi"):
        Categorical(name="task", values=("a",))


def test_a_vector_carries_a_code_between_two_levels():
    """15x, for networks that were told 10x, 20x and 40x (the proposal, section 3.2)."""
    told, levels, way = {"name": "magnification", **KNOWN}, ("10", "20", "40"), math.log2(15 / 10)
    one_hot, steps = Categorical(values=levels, **told), Ordinal(values=levels, **told)
    shares = Vector(entries=levels, **told)
    mixed = one_hot.encode({"10": 1 - way, "20": way})
    assert mixed == pytest.approx([0.415, 0.585, 0], abs=1e-3)
    assert shares.encode("0.415037;0.584963;0") == pytest.approx(mixed, abs=1e-6)
    assert shares.encode("0;1;0").tolist() == one_hot.encode("20").tolist()
    assert shares.encode("1;1;0").tolist() == steps.encode("20").tolist()


# Values that are known as a distribution only.

PHASE = Categorical(name="phase", values=("arterial", "venous", "late"), **KNOWN)
OPEN = Categorical(name="phase", values=("arterial", "venous"), missing="unknown", **KNOWN)
SIZE = Continuous(name="size_mm", unit="mm", range=(0, 100), **KNOWN)
ZOOM = Continuous(name="zoom", unit="x", range=(10, 40), scale="log2", **KNOWN)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("arterial:0.7|venous:0.3", [0.7, 0.3, 0]),
        (" late : 5e-1 | arterial: .5 ", [0.5, 0, 0.5]),
        ("venous:1", [0, 1, 0]),
        ("venous:0.2|venous:0.8", [0, 1, 0]),
        ("arterial:0.3333333|venous:0.3333333|late:0.3333333", [1 / 3] * 3),
    ],
)
def test_a_text_may_mix_values(text, code):
    assert PHASE.encode(text).tolist() == pytest.approx(code, abs=1e-6)
    assert PHASE.span(text).tolist() == [PHASE.encode(text).tolist()] * 2
    assert PHASE.softness(text) == (None if 1 in code else "mixed")
    assert PHASE.softness("venous") is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("arterial:0.7|venous:0.2", "sum to 0.9: make the sum 1"),
        ("arterial:0.7|venous:0.300002", "sum to 1.000002"),
        ("arterial:0.7|venuos:0.3", "use one of these names"),
        ("arterial:0.7|Venous:0.3", "did you mean 'venous'"),
        ("arterial:0.7|:0.3", "expected one of"),
        ("arterial:1.3|venous:-0.3", "fraction of 'venous' is to be a number >= 0"),
        ("arterial:much|venous:0.3", "fraction of 'arterial' is to be a number"),
        ("arterial:0.7|unknown:0.3", "no code for a missing value"),
        ("arterial|venous", "expected one of"),
        ("0.7 arterial, 0.3 venous", "expected one of"),
        ("arterial:0.7|venous:nan", "fraction of 'venous'"),
    ],
)
def test_wrong_mixtures_are_refused(text, reason):
    with pytest.raises(MetadataError, match=f"field 'phase'.*{reason}"):
        PHASE.encode(text)


def test_unknown_may_have_a_share_where_the_policy_has_it():
    assert OPEN.encode("arterial:0.75|unknown:0.25").tolist() == [0.75, 0, 0.25]
    assert OPEN.needs_unknown("arterial:0.75|unknown:0.25")
    assert not OPEN.needs_unknown("arterial:0.75|venous:0.25")
    assert OPEN.needs_unknown("NA")
    assert OPEN.encode("unknown:1").tolist() == OPEN.unknown().tolist()


def test_declared_names_are_those_names_whatever_is_in_them():
    names = ("a:0.5|b:0.5", "a", "b", "a|b", "3..4", "c:1", "x:0.5|a")
    odd = Categorical(name="odd", values=names, **KNOWN)
    for place, name in enumerate(names):
        assert odd.encode(name).tolist() == [float(one == place) for one in range(len(names))]
        assert odd.softness(name) is None
    for first, other in itertools.permutations(names, 2):
        code = odd.encode(f"{first}:0.25|{other}:0.75")
        assert code[names.index(first)] == 0.25
        assert code[names.index(other)] == 0.75


def test_a_thermometer_gives_the_probability_of_each_step():
    grade = Ordinal(name="grade", values=("I", "II", "III"), **KNOWN)
    assert grade.encode("I:0.5|III:0.5").tolist() == [1, 0.5, 0.5]
    assert grade.encode({"II": 0.25, "III": 0.75}).tolist() == [1, 1, 0.75]
    assert grade.softness("I:0.5|III:0.5") == "mixed"


def test_ranges_have_two_ends_and_no_single_code():
    assert SIZE.span("20..40").tolist() == np.float32([[0.2], [0.4]]).tolist()
    assert SIZE.span(" 2e1 .. 4e1 ").tolist() == SIZE.span("20..40").tolist()
    assert ZOOM.span("10..20").tolist() == [[0], [0.5]]  # evenly on the field's own scale
    assert SIZE.softness("20..40") == "drawn"
    with pytest.raises(MetadataError, match="a range has no single code"):
        SIZE.encode("20..40")
    for one in ("30..30", 30, "30"):  # no range
        assert SIZE.encode(one).tolist() == SIZE.encode(30).tolist()
        assert SIZE.softness(one) is None
    assert SIZE.times("20..40", 1.5) == "30..60"


@pytest.mark.parametrize(
    ("field", "text", "reason"),
    [
        (SIZE, "40..20", "lower end first: 20..40"),
        (SIZE, "20..400", "from 0 to 100, got 400.*is it in another unit"),
        (SIZE, "-5..20", "from 0 to 100, got -5"),
        (SIZE, "20..", "write the number alone, in mm, or a range as low..high"),
        (SIZE, "20...40", "lower end first"),
        (SIZE, "20-40", "or a range"),
        (SIZE, "unknown..40", "or a range"),
        (SIZE, "20:0.5|40:0.5", "or a range"),
        (PHASE, "20..40", "expected one of"),
    ],
)
def test_wrong_ranges_are_refused(field, text, reason):
    with pytest.raises(MetadataError, match=f"field '{field.name}'.*({reason})"):
        field.span(text)


def test_ranges_beyond_the_schema_are_flagged_by_policy():
    loose = SIZE.model_copy(update={"out_of_range": "flag"})
    assert loose.span("20..120").tolist() == np.float32([[0.2], [1.2]]).tolist()
    assert "expected a plain number in mm from 0 to 100" in loose.flags("20..120")[0]
    assert not loose.flags("20..40")
    signed = Continuous(name="t", unit="C", range=(-10, 10), **KNOWN)
    assert signed.span("-5..5").tolist() == [[0.25], [0.75]]
