"""Code that a bundle takes along: what it is, and how its names are written anew."""

import ast
import importlib
import sys

import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.sharing.vendored import SOURCES, _renamed_source, renamed, vendored

SOURCE = '''"""Of metaseg_monai.files."""

import metaseg_monai.files as files  # metaseg_monai stays here
from metaseg_monai import naming
from metaseg_monai.errors import (
    DataError,
)

KEY = "metaseg_monai"


def call(one):
    import metaseg_monai

    return metaseg_monai.errors, one.metaseg_monai
'''


def test_names_are_written_anew_and_texts_stay():
    source = _renamed_source(SOURCE, "other_code")
    changed = [
        (before, after)
        for before, after in zip(SOURCE.splitlines(), source.splitlines(), strict=True)
        if before != after
    ]
    assert [after for _, after in changed] == [
        "import other_code.files as files  # metaseg_monai stays here",
        "from other_code import naming",
        "from other_code.errors import (",
        "    import other_code",
        "    return other_code.errors, one.metaseg_monai",
    ]


def test_it_is_complete_and_runs(tmp_path, monkeypatch):
    config = {"schema": {"_target_": "metaseg_monai.metadata.MetadataSchema.load", "path": "x"}}
    code = vendored([config], "a-bundle")
    assert code.name.startswith("a_bundle_code_")
    for place, content in code.files.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(content)
        for node in ast.walk(ast.parse(content)):
            names = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            module = getattr(node, "module", None) if isinstance(node, ast.ImportFrom) else None
            assert "metaseg_monai" not in [n.partition(".")[0] for n in (*names, module or "")]
    inside = {place.partition("/")[2] for place in code.files}
    assert {"__init__.py", "metadata/__init__.py", "metadata/schema.py", "errors.py"} <= inside
    assert not [place for place in inside if place.startswith(("networks", "sharing", "cli"))]
    assert "pydantic" in code.needs
    assert "numpy" not in code.needs  # which has a version of its own
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "metaseg_monai", None)
    module = importlib.import_module(f"{code.name}.metadata")
    assert module.MetadataSchema.__module__ == f"{code.name}.metadata.schema"


def test_a_table_that_a_module_reads_goes_along(tmp_path, monkeypatch):
    config = {"said": {"_target_": "metaseg_monai.tables.licenses.statement", "data": "kits"}}
    code = vendored([config], "b")
    table = f"{code.name}/tables/licenses.json"
    assert code.files[table] == SOURCES.joinpath("tables/licenses.json").read_bytes()
    for place, content in code.files.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "metaseg_monai", None)
    module = importlib.import_module(f"{code.name}.tables.licenses")
    assert module.statement("kits")["license"] == "cc-by-nc-sa-4.0"


def test_other_code_has_another_name(monkeypatch):
    config = {"a": {"_target_": "metaseg_monai.naming.likened"}}
    first = vendored([config], "x").name
    assert vendored([config], "x").name == first
    more = {**config, "b": {"_target_": "metaseg_monai.rows.of_cell"}}
    assert vendored([more], "x").name != first


def test_configurations_are_written_anew_and_back():
    config = {
        "imports": ["$import metaseg_monai.bundle as bundle", "$from metaseg_monai import files"],
        "part": [{"_target_": "metaseg_monai.training.X", "text": "metaseg_monai.training.X"}],
        "root": "$bundle.own_root()",
    }
    other = renamed(config, "metaseg_monai", "y_code_1")
    assert other == {
        "imports": ["$import y_code_1.bundle as bundle", "$from y_code_1 import files"],
        "part": [{"_target_": "y_code_1.training.X", "text": "metaseg_monai.training.X"}],
        "root": "$bundle.own_root()",
    }
    assert renamed(other, "y_code_1", "metaseg_monai") == config


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("$metaseg_monai.files.absolute(@x)", "import the module under imports"),
        ("$import metaseg_monai.files", "give the module a name"),
    ],
)
def test_names_in_expressions_are_refused(value, told):
    with pytest.raises(ConfigError, match=told):
        renamed({"a": value}, "metaseg_monai", "other_code")


def test_a_part_that_there_is_none_of_is_refused():
    with pytest.raises(ConfigError, match=r"metaseg_monai.nothing.X: there is no such part"):
        vendored([{"a": {"_target_": "metaseg_monai.nothing.X"}}], "x")
