"""A file answers a question that somebody outside it asks; one that a single other file imports is
a section of that file, and the number of those may not grow.
"""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "metaseg_monai"
AT_MOST, FILES = 18, 188
SUBJECTS = ("networks", "losses", "prepare", "simulate")  # a file a network, loss or data set


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path):
    """What a file imports, by dotted name: modules, and modules with one of their names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def asked_by_one_file_at_most(root):
    files = {module_of(path): path for path in sorted((root / "metaseg_monai").rglob("*.py"))}
    rooms = {name: path for name, path in files.items() if path.name == "__init__.py"}
    passed_on = {  # by a room's __init__, and the file behind
        f"{room}.{name.rpartition('.')[2]}": name.rpartition(".")[0]
        for room, path in rooms.items()
        for name in imports_of(path)
        if name not in files and name.rpartition(".")[0] in files
    }
    askers = defaultdict(set)
    for module, path in files.items():
        if path.name != "__init__.py":
            for name in imports_of(path):
                askers[passed_on.get(name, name)].add(module)
    doors = [*(root / "bundles").rglob("*.json"), PACKAGE / "napari.yaml", PACKAGE / "__init__.py"]
    doors += PACKAGE.glob("cli/*")
    named = "".join(path.read_text(encoding="utf-8") for path in doors if path.is_file())
    for module, path in files.items():
        names = [module, *(name for name, behind in passed_on.items() if behind == module)]
        own = module.split(".")[1:2]
        if path.name in ("__init__.py", "__main__.py") or own[0] in SUBJECTS:
            continue
        if len(askers[module] - {module}) <= 1 and not any(name in named for name in names):
            yield module


def test_files_that_nobody_asks_do_not_grow():
    found = list(asked_by_one_file_at_most(ROOT))
    assert len(found) <= AT_MOST, f"make one a section of its only user: {', '.join(found)}"
    files = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "networks"]
    assert len(files) <= FILES  # beside the networks, each of which is a subject of its own
