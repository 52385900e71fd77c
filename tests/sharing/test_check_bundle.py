"""The rules of the model zoo, a line each, for any bundle."""

import json
import shutil
import sys

import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.files import write_json
from metaseg_monai.sharing.check_bundle import check_bundle, zoo_rules
from metaseg_monai.sharing.package import package


def told(folder):
    return {rule.rule: rule for rule in zoo_rules(folder, run=False)}


@pytest.fixture
def copied(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "zoo")


def failing(folder):
    return {rule.rule for rule in told(folder).values() if rule.verdict == "fail"}


def test_rules_that_are_kept_and_broken(copied):
    assert failing(copied) == {"models/model.pt is there"}
    (copied / "LICENSE").unlink()
    assert "LICENSE is there" in failing(copied)
    (copied / "models").mkdir()
    with (copied / "models/model.pt").open("wb") as file:
        file.truncate(26 * 10**6)
    large = "files above 25 MB are in large_files"
    assert told(copied)[large].why == "models/model.pt"
    (copied / "large_files.yml").write_text('large_files:\n- path: "models/model.pt"\n')
    assert large not in failing(copied)
    (copied / "docs/README.md").write_text("see /home/anna/data for the images")
    rule = told(copied)["no path of somebody's machine"]
    assert (rule.verdict, rule.why) == ("fail", "docs/README.md: /home/anna")


def test_versions_are_exact_and_in_the_changelog(copied):
    file = copied / "configs/metadata.json"
    metadata = json.loads(file.read_text())
    metadata["required_packages_version"]["scipy"] = ">=1.15"
    write_json(file, {**metadata, "version": "9.9.9"})
    rules = told(copied)
    assert rules["versions of packages are exact"].why == "scipy '>=1.15'"
    assert rules["version is in changelog"].verdict == "fail"


def test_a_bundle_that_is_not_trusted_is_not_run(copied):
    file = copied / "configs/inference.json"
    mark = copied.parent / "ran"
    config = json.loads(file.read_text())
    write_json(file, {**config, "classes": f"$open({str(mark)!r}, 'w') and 2"})
    read = check_bundle(copied, zoo=True)
    skipped = [rule for rule in read.rules if rule.verdict == "not checked"]
    assert len(skipped) == 5
    assert all("--trust True" in rule.why for rule in skipped)
    assert not mark.exists()
    assert read.verdict == "findings"


def test_an_archive_is_unpacked_first(tmp_path, copied):
    archive = shutil.make_archive(str(tmp_path / "zoo"), "zip", copied)
    with pytest.raises(ConfigError, match=r"zoo.zip is an archive; unpack it"):
        check_bundle(archive)


def test_a_schema_that_is_not_there_is_refused(copied):
    with pytest.raises(ConfigError, match="no such file"):
        check_bundle(copied, zoo=True, schema=copied / "none.json")


@pytest.mark.slow
def test_the_calls_are_told_when_they_fail(bundle, tmp_path):
    """Metadata that is not that of the network, and a schema that metadata.json breaks."""
    root = shutil.copytree(bundle, tmp_path / "bundles" / bundle.name)
    few = {"train": 6, "val": 6, "test": 6, "size": 32}
    file = root / "configs/simulate.json"
    write_json(file, {**json.loads(file.read_text()), **few})
    made = package(root, tmp_path, verify="no")
    shutil.unpack_archive(made.archive, tmp_path)
    folder = tmp_path / bundle.name
    file = folder / "configs/metadata.json"
    metadata = json.loads(file.read_text())
    metadata["network_data_format"]["outputs"]["pred"]["num_channels"] = 5
    write_json(file, metadata)
    schema = tmp_path / "schema.json"
    write_json(schema, {"type": "object", "required": ["nothing"]})
    read = check_bundle(folder, zoo=True, schema=schema)
    rules = {rule.rule.partition("(")[2].rstrip(")"): rule for rule in read.rules}
    assert "doesn't match: `5`" in rules["verify_net_in_out"].why
    assert "'nothing' is a required property" in rules["verify_metadata"].why
    assert rules["check_properties"].verdict == "pass"
    assert rules["ckpt_export"].verdict == "not checked"
    assert "SHA256SUMS" in str(read)
    assert not [name for name in sys.modules if "_code_" in name]  # in a process of their own
