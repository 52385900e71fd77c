import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaseg_monai.errors import MetadataError
from metaseg_monai.metadata import Continuous, Vector

KNOWN = {"provenance": "label-derived", "availability": "pre-operative"}


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
        ("mm", -1, "correct the value, or the range"),
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


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"range": (5, 5)}, "lowest value first"),
        ({"range": (0, 5), "scale": "log"}, "above 0 for scale log"),
        ({"range": (0, math.inf)}, "finite"),
        ({"unit": ""}, "unit: "),
        ({"scale": "log10"}, "scale: .*'log2', got 'log10'|scale: .*'log2'"),
    ],
)
def test_wrong_settings(settings, reason):
    with pytest.raises(MetadataError, match=reason):
        tumour_size(**settings)


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


@pytest.mark.parametrize("entries", [0, -1, (), ("a", "a")])
def test_a_vector_needs_distinct_entries(entries):
    with pytest.raises(MetadataError, match=r"entries: (expected at least one|the names are not)"):
        Vector(name="v", entries=entries, **KNOWN)
