import itertools

import numpy as np
import pytest

from metaseg_monai.errors import MetadataError
from metaseg_monai.metadata import Categorical, MultiLabel, Ordinal

KNOWN = {"provenance": "acquisition", "availability": "acquisition"}
LINES = ("HeLa", "MDCK", "A549", "HT1080", "HepG2", "MCF7", "NIH3T3")


def test_seven_lines_of_the_thesis():
    line = Categorical(name="line", values=LINES, **KNOWN)
    assert np.array_equal(np.stack([line.encode(value) for value in LINES]), np.eye(7))
    assert line.encode("HeLa").dtype == np.float32
    assert line.entry_names[3] == "line=HT1080"


def test_four_combinations_of_two_labels():
    task = MultiLabel(name="task", values=("nuclei", "anomalies"), **KNOWN)
    subsets = {(): [0, 0], ("anomalies",): [0, 1], ("nuclei",): [1, 0], task.values: [1, 1]}
    for subset, code in subsets.items():
        assert task.encode(subset).tolist() == code
        assert task.decode(np.float32(code)) == list(subset)


@pytest.mark.parametrize("code", [[0, 0], [1, 1], [2, -1]])
def test_a_test_mode_is_no_category(code):
    task = Categorical(name="task", values=("nuclei", "anomalies"), **KNOWN)
    with pytest.raises(MetadataError, match=r"'task'.*decode only vectors made by encode"):
        task.decode(np.float32(code))


def test_fractions_mix_domains():
    line = Categorical(name="line", values=LINES, **KNOWN)
    code = line.encode({"MDCK": 0.3, "MCF7": "0.7"})
    assert code.tolist() == pytest.approx([0, 0.3, 0, 0, 0, 0.7, 0])
    assert line.decode(code) == pytest.approx({"MDCK": 0.3, "MCF7": 0.7})
    assert line.encode({"HeLa": 1}).tolist() == line.encode("HeLa").tolist()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"MDCK": 0.3, "HeLa": 0.3}, "sum to 0.6"),
        ({"MDCK": 1.5, "HeLa": -0.5}, "fraction of 'HeLa'"),
        ({"MDCK": float("nan"), "HeLa": 1}, "fraction of 'MDCK'"),
        ({}, "sum to 0"),
        ({"MDKC": 1}, "did you mean 'MDCK'"),
        ("Hela", "'HeLa', 'MDCK'.*got 'Hela'.*did you mean 'HeLa'"),
        (3, "as text"),
        (["HeLa"], "as text"),
    ],
)
def test_wrong_categories(value, reason):
    line = Categorical(name="line", values=LINES, **KNOWN)
    with pytest.raises(MetadataError, match=f"field 'line'.*{reason}"):
        line.encode(value)


def test_a_misspelt_category_is_not_missing():
    line = Categorical(name="line", values=LINES, missing="unknown", **KNOWN)
    with pytest.raises(MetadataError, match=r"\(or 'unknown'\).*did you mean 'MDCK'"):
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
    with pytest.raises(MetadataError, match=r"joined by '\|'.*did you mean 'DAPI'"):
        stain.encode("DAPY|actin")
    with pytest.raises(MetadataError, match="give a list of names"):
        stain.encode(4)
    with pytest.raises(MetadataError, match="expected the code"):
        stain.decode(np.float32([0.5, 0, 0]))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"values": ("a", "a")}, "values: the values are not distinct"),
        ({"values": ()}, "values: .*at least 1"),
        ({"values": ("a", "unknown")}, "'unknown' stands for a missing value"),
        ({"values": ("a", " b")}, "begins or ends with a space"),
        ({"values": "disc"}, "values: .*tuple"),
        ({"values": ("a",), "vales": 1}, "vales: Extra inputs"),
        ({"values": ("a",), "missing": "zero"}, "missing: .*'error' or 'unknown', got 'zero'"),
        ({"values": ("a",), "name": "a=b"}, "name: "),
        ({"values": ("a",), "availability": "later"}, "availability: .*'post-operative'"),
    ],
)
def test_wrong_settings(settings, reason):
    with pytest.raises(MetadataError, match=reason):
        Categorical(**{"name": "task", **KNOWN, **settings})


def test_provenance_and_availability_are_never_guessed():
    with pytest.raises(MetadataError, match="'task': provenance: Field required; availability: Fi"):
        Categorical(name="task", values=("a",))


def test_a_label_cannot_contain_the_separator():
    with pytest.raises(MetadataError, match="'a;b' contains the separator"):
        MultiLabel(name="stain", values=("a;b",), **KNOWN)
