"""A further configuration of a bundle reaches every command that takes one, and is merged last."""

import shutil
from pathlib import Path

import pytest

from metaseg_monai.cli.commands import run


class StopError(Exception):
    """In place of running a bundle."""


@pytest.fixture
def merged(monkeypatch, tmp_path):
    """The files that a command line would merge."""
    (tmp_path / "images").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    seen = []

    def record(bundle, configs, *_, **__):
        seen.append(list(configs))
        raise StopError

    for name in ("run_bundle", "running"):
        monkeypatch.setattr(f"metaseg_monai.sharing.run.{name}", record)
    monkeypatch.setattr("metaseg_monai.sharing.run.resolve_bundle", lambda *_: BUNDLE)

    def call(*arguments):
        with pytest.raises(StopError):
            run(arguments)
        return seen.pop()

    return call


BUNDLE = Path(__file__).resolve().parents[2] / "bundles" / "seven_lines_nuclei_segmentation"


@pytest.mark.parametrize(
    ("command", "configs"),
    [
        ("train b", ["train.json"]),
        ("evaluate b", ["train.json", "evaluate.json"]),
        ("explain b --output_dir out", ["train.json", "evaluate.json", "explain.json"]),
        ("predict b images masks", ["inference.json"]),
    ],
)
def test_commands_merge_it_last(merged, command, configs):
    words = command.split()
    assert merged(*words) == configs
    assert merged(*words, "--configuration", "pilot") == [*configs, "pilot"]
    both = ["pilot", "paper_size"]
    assert merged(*words, "--configuration", "pilot,paper_size") == [*configs, *both]


def test_a_study_takes_its_bundle_from_the_folder_that_is_named(bundle, tmp_path, monkeypatch):
    seen = []
    # the folder that all tests share may hold data that others of them made, of other settings
    ignored = shutil.ignore_patterns("data")
    bundle = Path(shutil.copytree(bundle, tmp_path / "there" / bundle.name, ignore=ignored))

    def record(study, *_):
        seen.append(study.bundle)
        raise StopError

    monkeypatch.setattr("metaseg_monai.sharing.study.run_study", record)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StopError):
        run(["study", bundle.name, "--bundles", str(bundle.parent), "--output", "out"])
    assert seen == [str(bundle)]
