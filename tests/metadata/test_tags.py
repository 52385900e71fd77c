"""What elements of DICOM say of fields: ages, units, words, patterns, several values."""

import pytest

from metaseg_monai.errors import MetadataError
from metaseg_monai.metadata import Categorical, Continuous, MetadataSchema, MultiLabel, Vector
from metaseg_monai.metadata.tags import value_of_tag

WHEN = {"provenance": "acquisition", "availability": "acquisition"}
KERNEL = {
    "name": "kernel", "values": ("soft", "sharp"), "tag": "ConvolutionKernel",
    "tag_values": {"B30f": "soft", "b[12]?f": "soft", "b*f": "sharp", "none": "soft",
                   "A\\b": "soft"},
    **WHEN,
}  # fmt: skip


def number(tag, unit, low=0, high=1000):
    return Continuous(name="it", unit=unit, range=(low, high), tag=tag, **WHEN)


@pytest.mark.parametrize(
    ("unit", "text", "value"),
    [
        ("years", "045Y", 45.0),
        ("years", "006M", 0.5),
        ("months", "045Y", 540.0),
        ("days", "003W", 21.0),
        ("weeks", "014D", 2.0),
        ("years", "000D", 0.0),
        ("years", "", None),
        ("years", "N/A", None),
    ],
)
def test_ages_come_in_the_unit_of_the_field(unit, text, value):
    assert value_of_tag(number("PatientAge", unit), [text]) == pytest.approx(value)


@pytest.mark.parametrize("text", ["45", "45 years", "-45Y", "045X", "1234Y", "045y"])
def test_odd_ages_are_no_value(text):
    with pytest.raises(MetadataError, match=r"PatientAge is .*, expected an age such as 045Y"):
        value_of_tag(number("PatientAge", "years"), [text])


@pytest.mark.parametrize(
    ("tag", "unit", "texts", "value"),
    [
        ("SliceThickness", "mm", ["2.50"], 2.5),
        ("SliceThickness", "um", ["2.5"], 2500.0),
        ("PatientSize", "cm", ["1.82"], 182.0),
        ("KVP", "kV", ["120"], 120.0),
        ("PixelSpacing", "mm", ["0.7", "0.70"], 0.7),
        ("EchoTime", "s", ["1e2"], 0.1),
        ("EchoTime", "ms", ["unknown"], None),
    ],
)
def test_numbers_come_in_the_unit_of_the_field(tag, unit, texts, value):
    assert value_of_tag(number(tag, unit), texts) == pytest.approx(value)


@pytest.mark.parametrize("texts", [["2.5 mm"], ["2,5"], ["nan5"], ["0.7", "0.8"], ["0.7", ""]])
def test_odd_numbers_are_no_value(texts):
    with pytest.raises(MetadataError, match="expected one plain number in mm"):
        value_of_tag(number("PixelSpacing", "mm"), texts)


@pytest.mark.parametrize(
    ("texts", "value"),
    [
        (["b30F"], "soft"),
        (["B20f"], "soft"),  # the first pattern that fits
        (["B70f"], "sharp"),
        (["Sharp"], "sharp"),
        (["NONE"], "soft"),  # a declared word says something
        (["n/a"], None),
        (["B70f", "3"], "sharp"),
        (["a", "b"], "soft"),  # declared as a whole
        (["", "B30f"], "soft"),
    ],
)
def test_words_are_looked_up_whole_then_by_patterns(texts, value):
    assert value_of_tag(Categorical(**KERNEL), texts) == value


@pytest.mark.parametrize("texts", [["FC13"], ["B30f", "B70f"], ["x", "y"]])
def test_odd_words_are_no_value(texts):
    with pytest.raises(MetadataError, match=r"ConvolutionKernel is .*, expected one of 'soft'"):
        value_of_tag(Categorical(**KERNEL), texts)


def test_several_values_of_labels_and_vectors():
    labels = MultiLabel(name="type", values=("axial", "primary"), tag="ImageType",
                        tag_values={"*": "axial", "PRIMARY": "primary"}, **WHEN)  # fmt: skip
    assert value_of_tag(labels, ["ORIGINAL", "PRIMARY", ""]) == ["axial", "primary"]
    assert value_of_tag(labels, ["", ""]) is None
    vector = Vector(name="spacing", entries=2, tag="PixelSpacing", **WHEN)
    assert value_of_tag(vector, ["0.7", "0.8"]) == [0.7, 0.8]
    with pytest.raises(MetadataError, match="expected 2 plain numbers"):
        value_of_tag(vector, ["0.7"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tag": "PatientID"}, "PatientID tells who somebody is"),
        ({"tag_values": {"a": "softt"}}, "'a' means 'softt', no value; use one of these names"),
        ({"tag": None}, "say which element has these words"),
        ({"tag": "0018,1210"}, "tag: String should match pattern"),
    ],
)
def test_wrong_tags_are_refused_with_the_schema(settings, message):
    with pytest.raises(MetadataError, match=message):
        MetadataSchema([{"kind": "categorical", **KERNEL, **settings}])


@pytest.mark.parametrize(
    ("tag", "unit", "message"),
    [
        ("SliceThickness", "kg", "is in mm, which cannot be converted to 'kg'"),
        ("SliceLocation", "mm", "no DICOM element whose unit is known here"),
    ],
)
def test_units_that_do_not_fit_are_refused_with_the_schema(tag, unit, message):
    with pytest.raises(MetadataError, match=message):
        MetadataSchema([number(tag, unit)])


def test_a_tag_is_kept_by_the_file_and_changes_no_weights(tmp_path):
    with_tag = MetadataSchema([Categorical(**KERNEL)])
    with_tag.save(tmp_path / "schema.json")
    assert MetadataSchema.load(tmp_path / "schema.json") == with_tag
    plain = {name: value for name, value in KERNEL.items() if not name.startswith("tag")}
    without = MetadataSchema([Categorical(**plain)])
    assert with_tag.digest == without.digest
    assert "tag" not in str(without)
