"""What the README promises in code and links, and the files that all pages name."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = ("README.md", "CONTRIBUTING.md", "docs/*.md", "bundles/*/docs/*.md")
NAMED = re.compile(r"(?<![\w./$-])(?:tests|scripts|bundles|docs)/[\w./*<>{}$-]*[\w/*>}]")
NO_FILE = re.compile(
    r"[*<>{}$]|/[A-Z]+$|^bundles/(\w+/data|mine/)"
)  # pattern, placeholder, made by training or by a reader


def test_the_python_examples_run(monkeypatch):
    monkeypatch.chdir(ROOT)
    _, *blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)  # the first trains
    names: dict = {}
    for block, size in zip(blocks, (120, 96), strict=True):
        exec(block, names)
        assert names["logits"].shape == (1, 2, size, size)
    assert names["network"].overhead() in README


def test_every_relative_link_exists():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) >= 5
    assert [link for link in links if not (ROOT / link).exists()] == []


def named_files(text):
    return [path for path in NAMED.findall(text) if not NO_FILE.search(path)]


def test_files_that_pages_name_exist():
    pages = [page for pattern in PAGES for page in sorted(ROOT.glob(pattern))]
    named = [(page, path) for page in pages for path in named_files(page.read_text("utf-8"))]
    assert len({page for page, _ in named}) > len(list(ROOT.glob("bundles/*/docs/README.md")))
    missing = [f"{page.name}: {path}" for page, path in named if not (ROOT / path).exists()]
    assert missing == []


def test_placeholders_and_what_training_makes_are_no_files():
    text = "`tests/a.py`, scripts/b.sh. bundles/<name>/configs/c.json bundles/_shared/*.json "
    text += (
        "docs/d.md) runs/tests/e bundles/f/configs/FILE bundles/g/data_pilot $B/tests/h (tests/i)"
    )
    assert named_files(text) == ["tests/a.py", "scripts/b.sh", "docs/d.md", "tests/i"]
