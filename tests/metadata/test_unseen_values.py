"""What each kind of field does with 15x and 64x, of which it was told 10x, 20x and 40x.

The proposal's question (section 3.2): 15 lies between the values of the training cases, 64 beyond.
"""

import json
import math

import numpy as np
import pytest

from metaseg_monai.errors import MetadataError
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.metadata.fields import MetadataWarning

LEVELS = ["10", "20", "40"]
WHEN = {"provenance": "acquisition", "availability": "acquisition"}
BETWEEN = math.log2(15 / 10)  # 0.585 of the way from 10 to 20


def schema(**settings):
    """A schema of one field, as its JSON file gives it."""
    content = {"fields": [{"name": "magnification", **WHEN, **settings}]}
    return MetadataSchema.from_dict(json.loads(json.dumps(content)))


def code(of, value):
    return of.encode({"magnification": value}, case="c7").tolist()


ONE_HOT = schema(kind="categorical", values=LEVELS)
THERMOMETER = schema(kind="ordinal", values=LEVELS)
SHARES = schema(kind="vector", entries=LEVELS)
LOG = {"kind": "continuous", "unit": "x", "range": [10, 40], "scale": "log2"}


@pytest.mark.parametrize("of", [ONE_HOT, THERMOMETER])
@pytest.mark.parametrize("value", ["15", "64"])
def test_names_know_no_other_value_and_say_which_they_know(of, value):
    with pytest.raises(
        MetadataError, match=rf"case 'c7', .*'magnification'.*'10', '20', '40', got '{value}'"
    ):
        code(of, value)


def test_a_name_can_only_be_asked_as_its_nearest():
    assert code(ONE_HOT, "20") == [0, 1, 0]
    assert code(THERMOMETER, "20") == [1, 1, 0]


def test_a_one_hot_takes_fractions_in_code_and_as_a_vector_in_a_table():
    mixed = code(ONE_HOT, {"10": 1 - BETWEEN, "20": BETWEEN})
    assert mixed == pytest.approx([0.415, 0.585, 0], abs=1e-3)
    assert code(SHARES, "0.415037;0.584963;0") == pytest.approx(mixed, abs=1e-6)
    for level in LEVELS:  # trained with shares, a network sees what it saw with one-hot codes
        stored = ";".join(str(int(level == one)) for one in LEVELS)
        assert code(SHARES, stored) == code(ONE_HOT, level)


def test_a_thermometer_between_two_steps_is_a_vector_in_a_table():
    assert code(SHARES, "1;0.584963;0") == pytest.approx([1, BETWEEN, 0])
    assert code(SHARES, "1;1;0") == code(THERMOMETER, "20")
    with pytest.raises(MetadataError, match="magnification"):
        THERMOMETER.decode(np.float32([1, 0.585, 0]))  # no step has such a code


@pytest.mark.parametrize("out_of_range", ["error", "flag"])
def test_a_number_lies_between_those_it_was_trained_with(out_of_range):
    of = schema(**LOG, out_of_range=out_of_range)
    assert [code(of, level)[0] for level in LEVELS] == [0, 0.5, 1]
    assert code(of, "15") == pytest.approx([BETWEEN / 2])
    assert of.flags({"magnification": "15"}) == []


def test_a_number_beyond_is_refused_or_goes_on_with_a_warning():
    with pytest.raises(MetadataError, match=r"case 'c7'.*from 10 to 40, got '64'"):
        code(schema(**LOG), "64")
    with pytest.warns(MetadataWarning, match=r"case 'c7'.*from 10 to 40, got '64'"):
        beyond = code(schema(**LOG, out_of_range="flag"), "64")
    assert beyond == pytest.approx([math.log2(64 / 10) / 2])  # 1.339, not clamped to 1


def test_a_wider_range_knows_64_without_a_flag_but_never_saw_it():
    of = schema(**{**LOG, "range": [10, 64]})
    assert code(of, "64") == [1]
    assert code(of, "40") == pytest.approx([2 / math.log2(6.4)])
