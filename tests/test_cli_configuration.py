"""A further configuration of a bundle reaches every command that takes one, and is merged last."""

import pytest

from metaseg_monai.cli import Commands
from metaseg_monai.sharing import predict


@pytest.fixture
def run(monkeypatch):
    """What `run_bundle` is called with, in place of running it."""
    seen = []

    def record(bundle, configs, overrides):
        seen.append(list(configs))

    monkeypatch.setattr("metaseg_monai.bundle.run_bundle", record)
    monkeypatch.setattr(predict, "run_bundle", record)
    monkeypatch.setattr("metaseg_monai.explain.draw", lambda folder: [])
    return seen


@pytest.mark.parametrize(
    ("command", "arguments", "configs"),
    [
        ("train", {}, ["train.json"]),
        ("evaluate", {}, ["train.json", "evaluate.json"]),
        ("explain", {"output_dir": "out"}, ["train.json", "evaluate.json", "explain.json"]),
    ],
)
def test_commands_merge_it_last(run, command, arguments, configs):
    act = getattr(Commands(), command)
    act("seven_lines_nuclei_segmentation", **arguments)
    act("seven_lines_nuclei_segmentation", configuration="pilot", **arguments)
    act("seven_lines_nuclei_segmentation", configuration=("pilot", "full_size"), **arguments)
    assert run == [configs, [*configs, "pilot.json"], [*configs, "pilot.json", "full_size.json"]]


def test_predict_merges_it_last(run, tmp_path):
    (tmp_path / "images").mkdir()
    Commands().predict(
        "seven_lines_nuclei_segmentation",
        str(tmp_path / "images"),
        str(tmp_path / "masks"),
        configuration="pilot",
    )
    assert run == [["inference.json", "pilot.json"]]
