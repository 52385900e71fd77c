import numpy as np
import pytest
import torch
from monai.inferers import SimpleInferer

from metaseg_monai.errors import ConfigError
from metaseg_monai.explain import GateFeatures, RecordGates, read_features
from metaseg_monai.inferers import SlidingWindowMetadataInferer
from metaseg_monai.networks import SqueezeExcite


def ramp():
    return torch.arange(16.0).reshape(1, 1, 4, 4) / 15


def cases(*names):
    """Each case under two labels that differ little in channel 0, much in 1, not in 2."""
    labels = {"normal": [9.0, 9.0, 9.0], "fixed:a": [1.0, 1.0, 5.0], "fixed:b": [1.25, 3.0, 5.0]}
    return [
        (name, mode, "x", ramp(), torch.tensor([values]))
        for mode, values in labels.items()
        for name in names
    ]


def test_channels_that_metadata_change_most_are_kept(tmp_path, echo, evaluate):
    recorder = RecordGates(SimpleInferer())
    measure = GateFeatures(recorder, channels=2)
    for _ in range(2):  # a second evaluation forgets the first
        evaluate(echo, recorder, {tmp_path / "f.npz": measure}, cases("one", "two"))
    (maps,) = read_features(tmp_path / "f.npz")
    assert (maps.case, maps.domain, maps.gate, maps.windows) == ("one", "x", "echo", 1)
    assert maps.channels == [1, 0]  # the change: 2 * (2 image) + 4, against 0.25 image + 0.5
    assert list(maps.after) == ["normal", "fixed:a", "fixed:b"]
    image = ramp()[0, 0].numpy()
    np.testing.assert_allclose(maps.before["fixed:b"], [2 * image, image], atol=1e-3)
    np.testing.assert_allclose(maps.after["fixed:b"][0], 3 * 2 * image + 6, atol=0.01)
    assert maps.after["normal"].dtype == np.float16
    assert (maps.image.min(), maps.image.max()) == (0, 1)


def test_with_one_value_the_most_active_channels_are_kept(tmp_path, echo, evaluate):
    recorder = RecordGates(SimpleInferer())
    measure = GateFeatures(recorder, cases=2, channels=1)
    image, meta = torch.ones(1, 1, 4, 4), torch.tensor([[0.0, -2.0, 1.0]])
    given = [(name, "normal", "x", image, meta) for name in ("one", "two", "three")]
    evaluate(echo, recorder, {tmp_path / "f.npz": measure}, given)
    found = read_features(tmp_path / "f.npz")
    assert [maps.case for maps in found] == ["one", "two"]
    assert found[0].channels == [1]  # |2 * -2 - 4| = 8 against 3 * 1 + 2 = 5


def test_of_a_large_image_the_first_window_is_kept_and_said_so(tmp_path, echo, evaluate):
    windows = SlidingWindowMetadataInferer([4, 4], sw_batch_size=1, overlap=0)
    recorder = RecordGates(windows, gate="echo")
    measure = GateFeatures(recorder)
    image = torch.cat([ramp(), torch.zeros(1, 1, 4, 8)], dim=3)
    evaluate(
        echo,
        recorder,
        {tmp_path / "f.npz": measure},
        [("one", "normal", "x", image, torch.ones(1, 3))],
    )
    (maps,) = read_features(tmp_path / "f.npz")
    assert maps.windows == 3
    assert maps.before["normal"].shape == (3, 4, 4)
    np.testing.assert_allclose(maps.before["normal"][2], ramp()[0, 0], atol=1e-3)


def test_of_a_volume_the_middle_plane_is_kept(tmp_path, evaluate):
    gate = SqueezeExcite(1, 1)
    recorder = RecordGates(SimpleInferer())
    measure = GateFeatures(recorder)
    volume = torch.arange(3.0).expand(1, 1, 2, 2, 3)
    evaluate(gate, recorder, {tmp_path / "f.npz": measure}, [("one", "normal", "x", volume, None)])
    (maps,) = read_features(tmp_path / "f.npz")
    assert maps.before["normal"].tolist() == [[[1, 1], [1, 1]]]


def test_a_gate_that_is_not_there_is_refused(echo):
    recorder = RecordGates(SimpleInferer(), gate="decoder1")
    with pytest.raises(ConfigError, match=r"no gate 'decoder1', its gates are echo"):
        recorder(ramp(), echo, torch.ones(1, 3))


@pytest.mark.parametrize("number", [{"cases": 0}, {"channels": 0}])
def test_numbers_below_one_are_refused(number):
    with pytest.raises(ConfigError, match="must be 1 or more"):
        GateFeatures(RecordGates(SimpleInferer()), **number)
