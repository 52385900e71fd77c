"""What the README promises in code and links."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs(monkeypatch):
    monkeypatch.chdir(ROOT)
    _, block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)  # the first trains
    names: dict = {}
    exec(block, names)
    assert names["logits"].shape == (1, 2, 120, 120)


def test_every_relative_link_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).exists()] == []
