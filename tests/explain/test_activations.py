import numpy as np
import pandas as pd
import pytest
import torch
from monai.inferers import SimpleInferer

from metaseg_monai.errors import ConfigError
from metaseg_monai.explain import GateActivations, RecordGates, read_activations
from metaseg_monai.explain.activations import Activations, by_value, difference, most_different
from metaseg_monai.inferers import SlidingWindowMetadataInferer
from metaseg_monai.networks import SqueezeExcite

IMAGE = torch.ones(1, 1, 4, 4)


def meta(*values):
    return torch.tensor([values])


def made(rows, scale, shift=None):
    table = pd.DataFrame(rows, columns=["mode", "domain", "cases"])
    return Activations(table, {"g": np.array(scale)}, {} if shift is None else {"g": shift})


def test_means_over_cases_for_each_mode_and_domain(tmp_path, echo, evaluate):
    measure = GateActivations(RecordGates(SimpleInferer()))
    cases = [
        ("1", "normal", "x", IMAGE, meta(1.0, 2.0, 3.0)),
        ("2", "normal", "x", IMAGE, meta(3.0, 2.0, 5.0)),
        ("3", "normal", "y", IMAGE, meta(0.0, 0.0, 1.0)),
        ("1", "zeros", "x", IMAGE, meta(0.0, 0.0, 0.0)),
    ]
    for _ in range(2):  # a second evaluation forgets the first
        evaluate(echo, measure.recorder, {tmp_path / "a.npz": measure}, cases)
    found = read_activations(tmp_path / "a.npz")
    assert found.rows.to_numpy().tolist() == [
        ["normal", "x", 2],
        ["normal", "y", 1],
        ["zeros", "x", 1],
    ]
    assert found.scale["echo"].tolist() == [[2, 2, 4], [0, 0, 1], [0, 0, 0]]
    assert found.shift["echo"].tolist() == [[4, 4, 8], [0, 0, 2], [0, 0, 0]]
    assert found.scale["echo"].dtype == np.float32


def test_windows_of_an_image_are_averaged(tmp_path, evaluate):
    gate = SqueezeExcite(1, 1)
    windows = SlidingWindowMetadataInferer([4, 4], sw_batch_size=2, overlap=0)
    measure = GateActivations(RecordGates(windows))
    image = torch.cat([torch.full((1, 1, 4, 4), value) for value in (0.0, 1.0, 8.0)], dim=3)
    given = [("1", "normal", "x", image, None)]
    evaluate(gate, measure.recorder, {tmp_path / "a.npz": measure}, given)
    with torch.no_grad():
        expected = gate.excitation(torch.tensor([[0.0], [1.0], [8.0]]))[0].mean()
    found = read_activations(tmp_path / "a.npz")
    assert found.scale["gate"] == pytest.approx(float(expected))
    assert found.shift == {}


def test_a_batch_of_several_cases_is_refused(echo):
    with pytest.raises(ConfigError, match="one case at a time, but a batch holds 2"):
        RecordGates(SimpleInferer())(IMAGE.repeat(2, 1, 1, 1), echo, torch.ones(2, 3))


def test_domains_are_averaged_by_their_cases():
    rows = [("normal", "x", 3), ("fixed:a", "x", 3), ("fixed:a", "y", 1), ("fixed:b", "x", 4)]
    table = by_value(made(rows, [[9.0, 9.0], [1.0, 0.0], [5.0, 4.0], [2.5, 1.0]]))["g"]
    assert table.index.tolist() == ["a", "b"]
    assert table.to_numpy().tolist() == [[2.0, 1.0], [2.5, 1.0]]


def test_domains_stand_in_for_values_where_there_is_one_mode():
    table = by_value(made([("normal", "x", 3), ("normal", "y", 1)], [[1.0], [5.0]]))["g"]
    assert table[0].to_dict() == {"x": 1.0, "y": 5.0}


def test_other_modes_are_compared_where_no_label_is_fixed():
    rows = [("normal", "all", 2), ("perturb:0.5", "all", 2)]
    table = by_value(made(rows, [[1.0], [5.0]], np.array([[0.0], [-3.0]])), "shift")["g"]
    assert table[0].to_dict() == {"normal": 0.0, "perturb:0.5": -3.0}


def test_difference_is_absolute():
    found = made([("fixed:a", "x", 1), ("fixed:b", "x", 1)], [[0.5, 0.25], [0.25, 1.0]])
    assert difference(found, "a", "b")["g"].tolist() == [0.25, 0.75]


def test_the_most_different_pair():
    rows = [("fixed:a", "x", 1), ("fixed:b", "x", 1), ("fixed:c", "x", 1)]
    assert most_different(made(rows, [[0.5, 0.5], [0.3, 0.5], [0.1, 0.9]])) == ("a", "c")
    assert most_different(made(rows[:1], [[0.5]])) is None
