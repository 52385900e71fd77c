import json
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaseg_monai.errors import MetadataError
from metaseg_monai.evaluation.per_case import PLACE, SPACING
from metaseg_monai.metadata import Continuous, MetadataSchema, MetadataWarning


def field(kind, name, **settings):
    when = {"provenance": "acquisition", "availability": "acquisition"}
    return {"kind": kind, "name": name, **when, **settings}


def every_kind(missing="error", **settings):
    size = {"unit": "mm", "range": (1, 161), "out_of_range": "flag", **settings}
    told = [
        field("categorical", "task", values=("disc", "ring")),
        field("multilabel", "stain", values=("DAPI", "actin")),
        field("ordinal", "grade", values=("I", "II", "III")),
        field("continuous", "size", **size),
        field("vector", "texture", entries=2),
    ]
    return MetadataSchema([{"missing": missing, **one} for one in told])


RAW = {"task": "ring", "stain": ["actin"], "grade": "II", "size": 41.0, "texture": [3.0, 4.0]}


def test_three_magnifications_and_six_lines_are_nine_entries():
    schema = MetadataSchema(
        [
            field("categorical", "magnification", values=("10x", "20x", "40x")),
            field("categorical", "line", values=tuple("ABCDEF")),
        ]
    )
    assert schema.width == len(schema.entry_names) == 9
    assert schema.slices == {"magnification": slice(0, 3), "line": slice(3, 9)}
    vector = schema.encode({"line": "B", "magnification": "40x"})
    assert vector.tolist() == [0, 0, 1, 0, 1, 0, 0, 0, 0]
    assert schema.entry_names[4] == "line=B"


def test_fields_are_concatenated_in_order():
    vector = every_kind().encode(RAW)
    assert vector.tolist() == [0, 1, 0, 1, 1, 1, 0, 0.25, 3, 4]
    assert vector.dtype == np.float32
    assert every_kind().decode(vector) == RAW


def test_left_out_fields_are_unknown_where_the_policy_is():
    schema = every_kind(missing="unknown")
    assert np.array_equal(schema.encode({}), schema.unknown())
    assert schema.decode(schema.unknown()) == dict.fromkeys(schema.names)
    assert schema.unknown().sum() == 5
    assert schema.knows_unknown
    some = schema.unknown(["grade"])
    assert some.nonzero()[0].tolist() == [schema.slices["grade"].stop - 1]


def test_unknown_needs_the_policy():
    with pytest.raises(MetadataError, match="'task' has no code for a missing value"):
        every_kind().unknown()
    assert not every_kind().knows_unknown
    with pytest.raises(MetadataError, match=r"'taks' is no field.*did you mean 'task'"):
        every_kind("unknown").unknown(["taks"])


def test_all_problems_of_a_case_in_one_message():
    raw = {**RAW, "task": "dsic", "size": "41 mm", "taks": "disc"}
    problems = every_kind().problems(raw, case="img_7")
    assert len(problems) == 3
    assert all(problem.startswith("case 'img_7', ") for problem in problems)
    with pytest.raises(MetadataError) as caught:
        every_kind().encode(raw, case="img_7")
    assert str(caught.value) == "\n".join(problems)
    assert "'taks' is no field" in problems[0]
    assert "'disc', 'ring', got 'dsic'; use one of these names" in problems[1]
    assert every_kind().problems(RAW) == []


def test_a_missing_key_names_field_and_case():
    raw = {name: value for name, value in RAW.items() if name != "grade"}
    with pytest.raises(MetadataError, match=r"case 'img_7', field 'grade'.*got nothing"):
        every_kind().encode(raw, case="img_7")


def test_raw_metadata_is_a_mapping():
    with pytest.raises(MetadataError, match="case 'a', metadata: expected values by field name"):
        every_kind().encode("disc", case="a")


def test_centimetres_are_flagged_with_case_field_and_value():
    told = r"case 'img_7', field 'size'.*1 to 161, got 0.4.*; is it in cm\?"
    with pytest.warns(MetadataWarning, match=told):
        vector = every_kind().encode({**RAW, "size": 0.4}, case="img_7")
    assert vector[7] == pytest.approx(-0.6 / 160)
    assert len(every_kind().flags({**RAW, "size": 0.4})) == 1
    assert every_kind().flags(RAW) == []
    with pytest.raises(MetadataError, match=told):
        every_kind(out_of_range="error").encode({**RAW, "size": 0.4}, case="img_7")


RAWS = st.fixed_dictionaries(
    {
        "task": st.sampled_from([None, "disc", "ring", {"disc": 0.1, "ring": 0.9}]),
        "stain": st.none() | st.lists(st.sampled_from(["DAPI", "actin"]), unique=True),
        "grade": st.sampled_from([None, "I", "II", "III"]),
        "size": st.none() | st.floats(1, 161),
        "texture": st.none() | st.lists(st.floats(-9, 9, width=32), min_size=2, max_size=2),
    }
)


@given(RAWS)
def test_encode_inverts_decode(raw):
    schema = every_kind("unknown")
    vector = schema.encode(raw)
    assert vector.shape == (schema.width,)
    np.testing.assert_allclose(schema.encode(schema.decode(vector)), vector, atol=1e-6)


@pytest.mark.parametrize("vector", [np.zeros(9), np.zeros((1, 10)), np.full(10, np.nan)])
def test_decode_checks_the_vector(vector):
    with pytest.raises(MetadataError, match="meta: expected 10 finite entries"):
        every_kind().decode(vector)


def test_json_round_trip(tmp_path):
    schema = every_kind("unknown", range=(0.1, 1 / 3))
    path = tmp_path / "deep" / "schema.json"
    schema.save(path)
    assert MetadataSchema.load(path) == schema
    assert MetadataSchema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema
    assert MetadataSchema(schema.to_dict()["fields"]) == schema
    assert pickle.loads(pickle.dumps(schema)) == schema
    assert [entry.name for entry in path.parent.iterdir()] == ["schema.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[]", r'expected \{"fields"'),
        ('{"fields": {}}', r'expected \{"fields"'),
        ('{"fields": [], "feilds": []}', r'expected \{"fields"'),
        ('{"fields": [{"kind": "categoric", "name": "a"}]}', "field 1: .*'categoric'.*'ordinal'"),
        ('{"fields": [{"name": "a"}]}', "field 1: .*'kind'"),
        ('{"fields": [3]}', "field 1: "),
        (
            '{"fields": [{"kind": "vector", "name": "a", "entries": 2, "provenance": "acquisition",'
            ' "availability": "now"}]}',
            "field 1: field 'a': availability: .*got 'now'",
        ),
    ],
)
def test_a_broken_file_names_itself_and_the_field(tmp_path, content, reason):
    path = tmp_path / "schema.json"
    path.write_text(content)
    with pytest.raises(MetadataError, match=f"schema.json: not a metadata schema: .*{reason}"):
        MetadataSchema.load(path)


def test_an_absent_file_names_itself(tmp_path):
    with pytest.raises(MetadataError, match=r"absent.json: .*fit-schema"):
        MetadataSchema.load(tmp_path / "absent.json")


def test_field_names_are_distinct():
    task = field("categorical", "task", values=("a",))
    with pytest.raises(MetadataError, match="'task' more than once"):
        MetadataSchema([task, task])


def test_the_digest_tells_settings_and_their_order():
    schema = every_kind()
    assert schema.digest == every_kind().digest
    assert schema.digest != every_kind(range=(1, 100)).digest
    assert schema.digest != MetadataSchema(schema.fields[::-1]).digest
    assert schema.digest != MetadataSchema(schema.fields[1:]).digest


def test_a_description_changes_nothing_but_equality():
    task = field("categorical", "task", values=("a", "b"))
    schema = MetadataSchema([task])
    told = MetadataSchema([{**task, "description": "what is drawn"}])
    assert schema.digest == told.digest
    assert schema.settings == told.settings
    assert schema != told
    assert hash(schema) == hash(MetadataSchema([task]))


def test_availability():
    def known(availability):
        return MetadataSchema([field("vector", "score", entries=1, availability=availability)])

    known("pre-operative").check_availability()
    known("post-operative").check_availability("post-operative")
    known("post-operative").check_availability(force=True)
    with pytest.raises(MetadataError, match=r"known only later: 'score' \(post-operative\)"):
        known("post-operative").check_availability()
    with pytest.raises(MetadataError, match=r"'score' \(pre-operative\)"):
        known("pre-operative").check_availability("acquisition")
    with pytest.raises(MetadataError, match="did you mean 'pre-operative'"):
        known("pre-operative").check_availability("preoperative")


def test_the_policy_out_of_range_can_be_given_without_another_schema(tmp_path):
    settings = {"provenance": "clinical prior", "availability": "pre-operative"}
    size = Continuous(name="size", unit="mm", range=(0, 100), missing="unknown", **settings)
    MetadataSchema([size]).save(tmp_path / "schema.json")
    told = (
        "; beyond what was trained; .*--out_of_range flag.*fit-schema --margin 0.2.*empty for unk"
    )
    with pytest.raises(MetadataError, match=told):
        MetadataSchema.load(tmp_path / "schema.json").encode({"size": "-50"})
    flagged = MetadataSchema.load(tmp_path / "schema.json", out_of_range="flag")
    with pytest.warns(
        MetadataWarning, match="'150', .* as it is, beyond what was trained; .*--out"
    ):
        assert flagged.encode({"size": "150"}).tolist() == [1.5, 0.0]
    with pytest.raises(MetadataError, match="expected error or flag"):
        MetadataSchema.load(tmp_path / "schema.json", out_of_range="clamp")


@pytest.mark.parametrize(
    ("kind", "values", "given", "read"),
    [
        ("categorical", ("Siemens", "GE"), " SIEMENS", "Siemens"),
        ("categorical", ("F", "M", "f"), "f", "f"),
        ("categorical", ("Aa", "aa"), "AA", "AA"),  # which of them?
        ("categorical", ("3", "6"), "3.0", "3"),
        ("categorical", ("female", "M"), "f", "f"),
        ("categorical", ("None", "GE"), "none", "none"),  # nothing is said
        ("ordinal", ("I", "II"), "ii", "II"),
        ("multilabel", ("DAPI", "actin"), "dapi;Actin;x", "DAPI;actin;x"),
        ("multilabel", ("DAPI", "actin"), ["dapi"], ["dapi"]),
    ],
)
def test_another_writing_of_a_value_is_read_as_declared(kind, values, given, read):
    schema = MetadataSchema([field(kind, "a", values=values), field("vector", "b", entries=2)])
    joined = Counter()
    raw = {"a": given, "b": np.ones(2), "c": "x"}
    assert schema.as_declared(raw, joined)["a"] == read
    assert schema.as_declared(raw, Counter()).keys() == raw.keys()
    told = [] if read == given else [("a", str(given), read)]
    assert list(joined) == told
    assert len(schema.told_as(joined)) == len(told)


def scanners(**settings):
    return MetadataSchema(
        [
            field("categorical", "scanner", values=("GE", "Siemens"), missing="unknown"),
            field("ordinal", "grade", values=("I", "II"), missing="unknown"),
            field("multilabel", "stain", values=("DAPI", "actin"), missing="unknown"),
            field("categorical", "phase", values=("arterial", "venous"), **settings),
        ]
    )


def test_a_name_that_training_never_had_is_flagged_as_unknown():
    raw = {"scanner": "Canon", "grade": "III", "stain": "actin", "phase": "venous"}
    told = "'scanner': .*got 'Canon'; .*--out_of_range flag.*leave it empty.*\n.*'grade'"
    with pytest.raises(MetadataError, match=told):
        scanners().encode(raw)
    flagged = scanners().with_policy("flag")
    with pytest.warns(MetadataWarning) as heard:
        encoded = flagged.encode(raw, case="p7")
    assert encoded.tolist() == flagged.encode({**raw, "scanner": "", "grade": None}).tolist()
    assert [str(one.message) for one in heard] == [
        "case 'p7', field 'scanner': expected one of 'GE', 'Siemens' (or 'unknown'), got 'Canon', "
        "which is taken as unknown",
        "case 'p7', field 'grade': expected one of 'I', 'II' (or 'unknown'), got 'III', which is "
        "taken as unknown",
    ]
    assert flagged.field("scanner").needs_unknown("Canon")
    assert not flagged.field("scanner").needs_unknown(" GE ")


@pytest.mark.parametrize(
    ("values", "given", "step"),
    [
        (("female", "other"), "male", None),  # the nearest is its opposite
        (("M", "F", "female"), "male", "M"),
        (("I", "II"), "IIIa", None),
        (("ER-", "unclear"), "ER+", None),
        (("I", "II"), "III", None),
        (("Non-Contrast", "contrast"), "non contrast", "Non-Contrast"),
        (("Aa", "aa"), "AA", None),  # two would do
    ],
)
@pytest.mark.parametrize("policy", ["error", "flag"])
def test_a_value_is_suggested_only_where_it_is_the_same(values, given, step, policy):
    one = field("categorical", "sex", values=values, missing="unknown")
    schema = MetadataSchema([one]).with_policy(policy)
    (told,) = [*schema.problems({"sex": given}), *schema.flags({"sex": given})]
    assert repr(values[0]) in told
    assert ("did you mean" in told) == (step is not None)
    assert step is None or f"did you mean {step!r}?" in told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("phase", "portal"),  # whose policy knows no unknown
        ("stain", "actin;Alexa"),  # of which one name is known
        ("scanner", 7),
        ("scanner", "GE:0.5|Canon:0.5"),
    ],
)
def test_what_a_flag_does_not_take_as_unknown(name, value):
    raw = {"phase": "venous", name: value}
    with pytest.raises(MetadataError, match=f"^field {name!r}: expected "):
        scanners().with_policy("flag").encode(raw)


def test_a_flag_needs_a_code_for_unknown_and_is_written_only_where_it_is_set():
    with pytest.raises(MetadataError, match=r"'phase': .*which needs missing='unknown'"):
        scanners(out_of_range="flag")
    flagged = scanners().with_policy("flag")
    assert [one.get("out_of_range") for one in flagged.to_dict()["fields"]] == [
        "flag", "flag", None, None
    ]  # fmt: skip
    assert MetadataSchema.from_dict(flagged.to_dict()) == flagged
    assert flagged.with_policy("error").settings == scanners().settings
    assert "out_of_range" not in str(scanners().settings)
    assert flagged.digest != scanners().digest == flagged.with_policy("error").digest


def test_a_schema_without_fields_has_empty_vectors():
    schema = MetadataSchema([])
    assert schema.encode({}).shape == (0,)
    assert schema.span({}).shape == (2, 0)
    assert schema.encode({}).dtype == np.float32
    assert schema.unknown().shape == (0,)
    with pytest.raises(MetadataError, match="'task' is no field"):
        schema.encode({"task": "disc"})


@pytest.mark.parametrize("name", PLACE + SPACING)
def test_fields_are_not_named_as_results_name_cases(name):
    named = field("categorical", name, values=("a", "b"))
    with pytest.raises(MetadataError, match=f'"{name}_value": "{name}"'):
        MetadataSchema.from_dict({"fields": [named]})
