"""Where bundles and their configurations are found, and what several of one name mean."""

import json

import pytest

from metaseg_monai import files
from metaseg_monai.bundle import resolve_bundle, run_bundle
from metaseg_monai.bundle.run import configuration_file
from metaseg_monai.errors import ConfigError


@pytest.fixture
def make(tmp_path):
    """A bundle that says where it is and what it has been given."""

    def bundle(place, **config):
        configs = tmp_path / place / "configs"
        configs.mkdir(parents=True)
        told = {
            "imports": ["$import metaseg_monai.bundle as bundle"],
            "bundle_root": "$bundle.own_root()",
            "dataset_dir": "$@bundle_root + '/data'",
            "size": 1,
            "seen": "$(@bundle_root, @dataset_dir, @size)",
            "run": ["@seen"],
        }
        (configs / "train.json").write_text(json.dumps(told | config))
        (configs / "metadata.json").write_text(json.dumps({"name": "A name for people"}))
        (configs / "logging.conf").write_text(LOGGING)
        return tmp_path / place

    return bundle


LOGGING = """[loggers]\nkeys=root\n[handlers]\nkeys=none\n[formatters]\nkeys=
[logger_root]\nlevel=WARNING\nhandlers=none
[handler_none]\nclass=NullHandler\nargs=()
"""


def test_a_bundle_is_found_by_its_path_or_its_name(make, tmp_path, monkeypatch):
    here, there = make("bundles/shapes"), make("elsewhere/cells")
    monkeypatch.chdir(tmp_path)
    assert resolve_bundle("bundles/shapes") == resolve_bundle("shapes") == here
    assert resolve_bundle("cells", bundles="elsewhere") == there
    with pytest.raises(ConfigError, match=r"no bundle at 'cells'.*in bundles: shapes"):
        resolve_bundle("cells")
    with pytest.raises(ConfigError, match=r"in empty: none; name their folder with --bundles"):
        resolve_bundle("cells", bundles="empty")


def test_installed_bundles_write_into_a_folder_of_their_name(make, tmp_path, monkeypatch):
    installed = make("site/bundles/shapes")
    monkeypatch.setattr(files, "INSTALLED", installed.parent)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert resolve_bundle("shapes") == installed
    workflow = run_bundle(installed, ["train"], {})
    root, data, _ = workflow.parser.get_parsed_content("seen")
    assert root == str(installed)
    pilot = '{"dataset_dir": "$@bundle_root + \'/data_pilot\'"}'
    (installed / "configs" / "pilot.json").write_text(pilot)
    workflow = run_bundle(installed, ["train", "pilot"], {})
    assert workflow.parser.get_parsed_content("seen")[1].endswith("work/shapes/data_pilot")
    assert data == str(tmp_path / "work" / "shapes" / "data")


def test_a_configuration_is_the_bundles_own_or_any_file(make, tmp_path, monkeypatch):
    bundle = make("bundles/shapes")
    own = bundle / "configs" / "pilot.json"
    own.write_text('{"size": 2}')
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.json").write_text('{"size": 3}')
    assert configuration_file(bundle, "pilot") == configuration_file(bundle, "pilot.json") == own
    assert configuration_file(bundle, "mine.json") == tmp_path / "mine.json"
    with pytest.raises(ConfigError, match=r"mine: no such configuration or file; shapes has pilot"):
        configuration_file(bundle, "mine")
    (tmp_path / "pilot.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"could be .*write pilot for the first, ./pilot.json"):
        configuration_file(bundle, "pilot.json")
    assert configuration_file(bundle, "./pilot.json") == tmp_path / "pilot.json"


def test_what_a_file_from_elsewhere_changes_is_checked_and_merged_last(make, tmp_path):
    bundle, mine = make("bundles/shapes"), tmp_path / "mine.json"
    mine.write_text('{"size": "@twice", "twice": 7}')
    workflow = run_bundle(bundle, ["train", str(mine)], {})
    assert workflow.parser.get_parsed_content("seen")[2] == 7
    mine.write_text('{"sise": 7}')
    with pytest.raises(ConfigError, match=r"'sise' \(did you mean size"):
        run_bundle(bundle, ["train", str(mine)], {})
