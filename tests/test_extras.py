"""Tests that need an extra skip in one way, which one variable turns into failures."""

import re
from pathlib import Path

import pytest

from tests import extras


def test_what_is_lacking_skips_or_fails(monkeypatch):
    for required, outcome in ((False, pytest.skip.Exception), (True, pytest.fail.Exception)):
        monkeypatch.setattr(extras, "REQUIRED", required)
        with pytest.raises(outcome, match="no_such_package is not installed"):
            extras.needed("no_such_package")
        mark = extras.needs("no_such_package", "numpy").mark
        assert mark.args == (not required,)
        assert mark.kwargs == {"reason": "not installed: no_such_package"}
    assert extras.needed("json").loads("1") == 1


def test_there_is_no_other_way():
    """But for setuptools, of which a version is needed, and what no package brings."""
    other = re.compile(r"importorskip\((?!\"setuptools\")|skipif\([^)]*(find_spec|is_installed)")
    files = [one for one in Path(__file__).parent.rglob("*.py") if one != Path(__file__)]
    assert not [one.name for one in files if other.search(one.read_text(encoding="utf-8"))]
