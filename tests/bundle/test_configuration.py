"""What a running configuration says of itself: its folder, and itself as it was changed."""

import json
import re
import subprocess
import sys

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow

from metaseg_monai.bundle import effective
from metaseg_monai.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")
CONFIG = {
    "imports": ["$import metaseg_monai.bundle as bundle"],
    "bundle_root": "$bundle.own_root()",
    "size": 4,
    "dropout": 0.1,
    "window": {"_target_": "pathlib.PurePath"},
    "network_def": {
        "_target_": "torch.nn.Conv2d",
        **{"in_channels": "@size", "out_channels": "$2 * @size", "kernel_size": [3, 3]},
        "bias": "$@dropout > 0",
    },
    "network": "$@network_def.to('cpu')",
    "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()"},
    "told": "$bundle.effective('optimizer', 'size')",
    "run": ["$print(@bundle_root, @told)"],
}


@pytest.fixture
def copies(tmp_path):
    """Two copies of one bundle."""
    folders = [tmp_path / name / "same" for name in ("a", "b")]
    for folder in folders:
        (folder / "configs").mkdir(parents=True)
        (folder / "configs" / "train.json").write_text(json.dumps(CONFIG))
        (folder / "configs" / "metadata.json").write_text('{"name": "Same"}')
    return folders


def file_of(folder):
    return str(folder / "configs" / "train.json")


def test_each_copy_of_a_bundle_has_its_own_folder(copies, monkeypatch):
    monkeypatch.chdir(copies[0])  # a bundle, and not always the one that is meant
    for folder in (*copies, *reversed(copies)):
        workflow = ConfigWorkflow(file_of(folder), logging_file=False)
        workflow.initialize()
        workflow.run()
        assert workflow.bundle_root == str(folder)
        created = create_workflow(config_file=file_of(folder), workflow_type="train")
        assert created.parser.get_parsed_content("bundle_root") == str(folder)


def test_a_bare_parser_is_told_its_folder_and_takes_no_other_copy(copies, monkeypatch):
    monkeypatch.chdir(copies[0])
    parser = ConfigParser()
    parser.read_config(file_of(copies[1]))
    with pytest.raises(RuntimeError) as unknown:
        parser.get_parsed_content("bundle_root")
    cause = unknown.value.__cause__
    assert isinstance(cause, ConfigError)
    assert re.search(r"not tell which files it has read.* parser\[.bundle_root.\] =", str(cause))
    parser["bundle_root"] = str(copies[1])
    assert parser.get_parsed_content("bundle_root") == str(copies[1])
    (copies[1] / "configs" / "metadata.json").unlink()
    workflow = ConfigWorkflow(file_of(copies[1]), logging_file=False)
    with pytest.raises(RuntimeError) as none:
        workflow.parser.get_parsed_content("bundle_root")
    assert "configs holds no metadata.json" in str(none.value.__cause__)


def test_what_runs_is_told_as_merged_and_overridden():
    parser = ConfigParser({**CONFIG, "bundle_root": "b"})
    parser.update({"size": 8, "network_def#dilation": 2})
    told = parser.get_parsed_content("told")
    assert told == {
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()"},
        "size": 8,
        "network": "$@network_def.to('cpu')",
        "network_def": {
            "_target_": "torch.nn.Conv2d",
            **{"in_channels": 8, "out_channels": 16, "kernel_size": [3, 3]},
            **{"bias": True, "dilation": 2},
        },
    }


def test_places_are_no_part_of_what_runs():
    parser = ConfigParser({**CONFIG, "bundle_root": "b", "window": {"root": "$@bundle_root + 'x'"}})
    parser["told"] = "$bundle.effective('window', 'device')"
    assert parser.get_parsed_content("told") == {"window": {"root": "$@bundle_root + 'x'"}}
    with pytest.raises(ConfigError, match="none is running"):
        effective("size")


def test_a_process_of_torchrun_tells_it_too(copies, tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1"]
    command = [*launcher, "-m", "monai.bundle", "run", "--config_file", file_of(copies[1])]
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert f"{copies[1]} {{'optimizer'" in done.stdout, done.stderr[-2000:]


def test_facts_are_of_what_was_made_not_of_its_names():
    parser = ConfigParser(
        {
            "imports": CONFIG["imports"],
            "my_net": {
                "_target_": "torch.nn.Conv2d",
                **{"in_channels": "$@wide.name.__len__()", "out_channels": 2, "kernel_size": 1},
            },
            "wide": "$__import__('pathlib').PurePath('abc')",
            "network_def": "@my_net",
            "preprocessing": ["@scale"],
            "scale": {"_target_": "ScaleIntensity", "maxv": "$len([1, 2])"},
            "window_inferer": {"_target_": "SimpleInferer"},
            "told": "$bundle.facts()",
        }
    )
    told = parser.get_parsed_content("told")
    made = {"in_channels": 3, "out_channels": 2, "kernel_size": 1}
    assert told["network"] == {"_target_": "torch.nn.Conv2d", **made}
    assert told["preprocessing"] == [{"_target_": "ScaleIntensity", "maxv": 2}]
    assert "@" not in json.dumps(told)
