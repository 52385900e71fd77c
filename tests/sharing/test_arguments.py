import numpy as np
import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.sharing.run import metadata_source, parse_metadata


def test_values_or_a_file(tmp_path, monkeypatch):
    assert metadata_source("tumour_size_mm=unknown") == {"tumour_size_mm": "unknown"}
    parts = {"disc": np.float32(0.5), "ring": 0.5}
    assert metadata_source({"task": parts, "size_mm": np.int64(7)}) == {
        "task": {"disc": 0.5, "ring": 0.5},
        "size_mm": "7",
    }
    assert metadata_source("path=a.json") == {"path": "a.json"}
    (tmp_path / "kits.json").write_text("[]")
    monkeypatch.chdir(tmp_path)
    assert metadata_source("kits.json") == str(tmp_path / "kits.json")


@pytest.mark.parametrize(
    ("text", "message"), [("none.json", "no such file"), ("41", "field=value"), ("a=1,a=2", "once")]
)
def test_what_is_neither_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        metadata_source(text)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (41, r"--meta 41 names no field; .*--meta field=value"),
        (4.1, r"--meta 4\.1 names no field"),
        (True, "--meta has no value; write --meta field=value"),
        ("", "--meta has no value"),
        (("a", "b"), "names no field"),
        (np.array(["a", "b"]), "names no field"),
        ("unknown", "--meta unknown names no field; .*--meta field=unknown"),
    ],
)
def test_what_the_command_line_makes_of_other_values_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        metadata_source(given)


def test_each_field_once():
    assert parse_metadata("line=HeLa, size_mm=41") == {"line": "HeLa", "size_mm": "41"}
