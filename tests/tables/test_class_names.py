"""What classes are called: as the data set or its user says, by number where nobody does."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from metaseg_monai.errors import CheckpointError, ConfigError, DataError
from metaseg_monai.evaluation import VolumeScores
from metaseg_monai.metrics.volumes import KITS_REGIONS
from metaseg_monai.prepare.kits_source import CLASS_NAMES
from metaseg_monai.simulate import generate_cells, generate_synthetic_shapes
from metaseg_monai.tables import read_table, select_cases
from metaseg_monai.tables.table import known_class_names, parse_class_names
from metaseg_monai.training import LoadWeights, write_weights


@pytest.mark.parametrize("given", [None, "", {}])
def test_nothing_is_no_name(given):
    assert parse_class_names(given) == {}


@pytest.mark.parametrize(
    "given", ["kidney", "1=", "-1=x", "1=a,1=b", "1=a,2=a", "a=1", ["kidney"], {"x": "y"}, "1=a,b"]
)
def test_what_is_no_name_of_a_number_is_refused(given):
    with pytest.raises(ConfigError, match=r"class_names is .*1=kidney,2=liver"):
        parse_class_names(given)


def test_names_are_kept_as_typed():
    assert parse_class_names({"2": "$liver", 1: "@niere"}) == {1: "@niere", 2: "$liver"}


@pytest.mark.parametrize(
    ("name", "content", "names"),
    [
        ("classes.json", {"0": "background", "1": "liver"}, {0: "background", 1: "liver"}),
        (
            "dataset.json",
            {"labels": {"0": "background", "1": "liver"}},
            {0: "background", 1: "liver"},
        ),
        ("dataset.json", {"labels": {"background": 0, "liver": 1}}, {0: "background", 1: "liver"}),
        ("dataset.json", {"labels": {"whole": [1, 2], "core": 2}}, {}),
        ("dataset.json", {"name": "of something else"}, {}),
    ],
)
def test_a_data_set_tells_its_classes(folder, name, content, names):
    root, _ = folder
    (root / name).write_text(json.dumps(content))
    table = read_table(root)
    assert table.class_names == names
    assert select_cases(table).class_names == names  # also of what a study takes of it
    assert read_table(root, class_names="1=spleen").class_names == {1: "spleen"}
    own = {"class_names": {"1": "gut"}}
    assert read_table(root, columns=own).class_names == {1: "gut"}


def test_names_of_stored_values_are_none_of_the_classes_that_are_made_of_them(folder):
    root, _ = folder
    (root / "classes.json").write_text('{"1": "cytoplasm", "2": "nucleus"}')
    assert read_table(root, columns={"label_values": [2]}).class_names == {}


def test_a_damaged_file_is_told(folder):
    root, _ = folder
    (root / "classes.json").write_text('{"1": ')
    with pytest.raises(DataError, match=r"classes\.json: no names of classes"):
        read_table(root)


def test_simulated_data_tell_theirs(tmp_path):
    generate_synthetic_shapes(tmp_path / "shapes", train=1, val=0, test=0, size=32)
    assert known_class_names(tmp_path / "shapes")[1] == "the named shape"
    counts = {"train": 1, "val": 1, "test": 1, "size": 128}
    generate_cells(tmp_path / "cells", recipe="anomalies", **counts)
    assert known_class_names(tmp_path / "cells")[1] == "nucleus or anomaly"


def weights(tmp_path, trained):
    """Weights that were trained with some class names."""
    network = nn.Conv2d(1, 2, 1)
    facts = {"schema": None, "unknown_trained": False, "class_names": trained}
    write_weights(tmp_path / "model.pt", network, facts)
    loaded = LoadWeights(tmp_path / "model.pt", network)
    loaded.load()
    return loaded


def test_weights_know_their_classes(tmp_path):
    loaded = weights(tmp_path, {"1": "liver"})
    assert loaded.class_names({}) == loaded.class_names({1: "liver"}) == {1: "liver"}
    assert weights(tmp_path, {}).class_names({1: "liver"}) == {1: "liver"}
    old = weights(tmp_path, ["background", "kidney"])  # of the bundle, whatever the data
    assert old.class_names({}) == {}


def test_weights_of_other_classes_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"Class 1 is liver in the data, and was kidney"):
        weights(tmp_path, {"1": "kidney"}).class_names({1: "liver"})


@pytest.mark.parametrize(
    ("names", "regions"),
    [
        ({}, ["class 1", "class 2", "class 3"]),
        ({1: "kidney", 2: "liver"}, ["kidney", "liver", "class 3"]),
        (CLASS_NAMES, list(KITS_REGIONS)),
    ],
)
def test_volumes_are_scored_by_the_classes_that_the_data_have(names, regions):
    measure = VolumeScores(KITS_REGIONS, SimpleNamespace(class_names=names))
    case = {
        **{"case": "a", "group": "a", "split": "test", "mode": "normal"},
        **{"pred": torch.zeros(4, 5, 5, 2), "label": torch.zeros(1, 5, 5, 2)},
        "spacing_mm": torch.tensor([3.0, 1.0, 1.0]),
    }
    rows = measure(case)
    assert [row["region"] for row in rows] == regions
    assert all(math.isclose(row["dice"], 1) for row in rows)
