"""The code that a bundle runs, taken along under a name of its own.

A package must run where only MONAI and the listed packages are, and two of them in one process must
not exchange their code. So the modules that the configurations name, and what these import, are
copied into the bundle under a name that tells the bundle and the content, and every import and
`_target_` is written anew, by its place in the syntax and never as text.
"""

import ast
import hashlib
import keyword
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import metaseg_monai
from metaseg_monai.bundle.overrides import flatten
from metaseg_monai.bundle.trust import import_in
from metaseg_monai.errors import ConfigError
from metaseg_monai.training.weights import NAME, retargeted

SOURCES = Path(metaseg_monai.__file__).resolve().parent
TOP = "__init__.py"  # written anew: the front door has no place in a bundle
DIGITS = 8  # of the digest in a name
DISTRIBUTIONS = {"PIL": "pillow", "skimage": "scikit-image", "ignite": "pytorch-ignite"}
KNOWN = ("monai", "torch", "numpy")  # each has a version of its own in metadata.json


class Code(NamedTuple):
    """Modules under a name of their own.

    Attributes:
        name: of the package that they are in.
        files: content by path, from the folder that holds the package.
        needs: distributions of others that they import.
    """

    name: str
    files: dict[str, bytes]
    needs: frozenset[str]


def vendored(configs: Iterable[Any], bundle: str, name: str | None = None) -> Code:
    """Take along what configurations need of this package.

    Args:
        configs: contents of configurations, with names of this package.
        bundle: its name, which begins that of the code.
        name: of the code, where it has one already.

    Raises:
        ConfigError: a configuration names a part that there is none of.
    """
    modules = _closure(name for config in configs for name, _ in _named(config))
    sources = {place: _module(place).text for place in modules}
    beside = {place.removesuffix(".py") + ".json" for place in modules}  # what a module reads
    tables = {place: SOURCES / place for place in beside if SOURCES.joinpath(place).is_file()}
    sources |= {place: path.read_text(encoding="utf-8") for place, path in tables.items()}
    trees = {place: _module(place).tree for place in modules}
    needs = {top for place in modules for top in _module(place).needs}
    sources[TOP] = (
        f'"""Parts of metaseg_monai {metaseg_monai.__version__} (Apache-2.0), under a name of '
        'their own: what this bundle runs."""\n\n'
        f'__version__ = "{metaseg_monai.__version__}"\n'
    )
    if name is None:
        digest = hashlib.sha256()
        for place, text in sorted(sources.items()):
            digest.update(f"{place}\n{text}\n".encode())
        name = f"{_identifier(bundle)}_code_{digest.hexdigest()[:DIGITS]}"
    files = {
        f"{name}/{place}": (
            text if place in tables else _renamed_source(text, name, trees.get(place))
        ).encode()
        for place, text in sorted(sources.items())
    }
    distributions = {DISTRIBUTIONS.get(top, top) for top in needs} - set(KNOWN)
    return Code(name, files, frozenset(distributions))


def renamed(config: Any, name: str, other: str) -> Any:
    """A configuration that names the parts of another package, of the same modules.

    Raises:
        ConfigError: an expression names them in a way that is not rewritten; in `imports` it is.
    """

    def imported(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: imported(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [imported(inner) for inner in value]
        statement = import_in(value)
        if statement is None:
            return value
        if isinstance(statement, ast.ImportFrom):
            statement.module = _moved(statement.module or "", name, other)
        else:
            for alias in statement.names:
                if alias.asname is None and alias.name.partition(".")[0] == name:
                    raise ConfigError(f"{value!r}: give the module a name: import {name}.x as x")
                alias.name = _moved(alias.name, name, other)
        return f"${ast.unparse(statement)}"

    changed = imported(retargeted(config, name, other))
    for place, value in flatten(changed):
        is_code = isinstance(value, str) and value[:1] == "$" and other != value
        if is_code and re.search(rf"(?<![\w.]){re.escape(name)}\.", value) and name != other:
            raise ConfigError(
                f"{place} is {value!r:.120}: import the module under imports, and name it by that"
            )
    return changed


def code_name(folder: Path) -> str | None:
    """The name of the code that a packaged bundle brings along; None where it brings none."""
    found = [
        path.parent.name
        for path in sorted(folder.glob("*/__init__.py"))
        if re.fullmatch(rf"\w+_code_[0-9a-f]{{{DIGITS}}}", path.parent.name)
    ]
    return found[0] if len(found) == 1 else None


def is_ours(folder: Path, configs: Mapping[str, Any]) -> bool:
    """Whether the code in a bundle is, byte by byte, what this package would put there.

    Args:
        folder: of the bundle.
        configs: contents of its configurations, by name.
    """
    name = code_name(folder)
    if name is None:
        return False
    try:
        back = [renamed(config, name, NAME) for config in configs.values()]
        expected = vendored(back, name.rpartition("_code_")[0], name).files
    except (ConfigError, AttributeError, TypeError, RecursionError):
        return False
    own = folder / name
    if any(path.is_symlink() or not (path.is_file() or path.is_dir()) for path in own.rglob("*")):
        return False
    there = {path.relative_to(folder).as_posix(): path for path in own.rglob("*") if path.is_file()}
    same = there.keys() == expected.keys()
    return same and all(path.read_bytes() == expected[place] for place, path in there.items())


def _identifier(bundle: str) -> str:
    text = re.sub(r"\W", "_", bundle)
    return f"_{text}" if text[:1].isdigit() or keyword.iskeyword(text) else text


def _moved(module: str, name: str, other: str) -> str:
    top, _, rest = module.partition(".")
    return module if top != name else ".".join(filter(None, (other, rest)))


def _named(config: Any) -> Iterator[tuple[str, str]]:
    """Dotted names of this package in a configuration, with the id that has them."""
    for place, value in flatten(config, "config"):
        names: list[str] = []
        if isinstance(value, Mapping) and isinstance(value.get("_target_"), str):
            names = [value["_target_"]]
        elif (statement := import_in(value)) is not None:
            names = _modules_of(statement)
        for name in names:
            if name.partition(".")[0] == NAME:
                yield name, place


def _modules_of(statement: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(statement, ast.Import):
        return [alias.name for alias in statement.names]
    module = statement.module or ""
    return [module, *(f"{module}.{alias.name}" for alias in statement.names)]


def _closure(names: Iterable[str]) -> set[str]:
    """Files, relative to the package, of what dotted names lead to, and of what that imports."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        parts = waiting.pop().split(".")[1:]
        for count in range(1, len(parts) + 1):
            place = _place(parts[:count])
            if place is None:
                if count == 1:
                    raise ConfigError(f"{NAME}.{'.'.join(parts)}: there is no such part; mend it")
                break
            if place in found:
                continue
            found.add(place)
            waiting += _module(place).imports
    return found


def _place(parts: list[str]) -> str | None:
    folder = "/".join(parts)
    for place in (f"{folder}/__init__.py", f"{folder}.py"):
        if SOURCES.joinpath(place).is_file():
            return place
    return None


def _imported(tree: ast.AST) -> Iterator[str]:
    """What a module imports at any place, but for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            for other in node.orelse:
                yield from _imported(other)
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (name for name in _modules_of(node) if not _is_front_door(name))
        yield from _imported(node)


def _is_front_door(name: str) -> bool:
    """Whether a name is one of the package itself, such as its version."""
    parts = name.split(".")
    return parts[0] == NAME and len(parts) == 2 and _place(parts[1:]) is None


class _Module(NamedTuple):
    """A file of this package: what it imports of it, and of others."""

    text: str
    tree: ast.AST
    imports: tuple[str, ...]
    needs: frozenset[str]


@cache
def _module(place: str) -> _Module:
    text = SOURCES.joinpath(place).read_text(encoding="utf-8")
    tree = ast.parse(text)
    names = list(_imported(tree))
    own = tuple(name for name in names if name.startswith(f"{NAME}."))
    others = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    return _Module(text, tree, own, frozenset(others - {NAME, ""}))


def _renamed_source(text: str, name: str, tree: ast.AST | None = None) -> str:
    """A module in which every name that is this package is another; texts and comments stay."""
    lines = text.splitlines(keepends=True)
    for row, column in sorted(_places(tree or ast.parse(text)), reverse=True):
        line = lines[row - 1].encode()
        at = line.index(NAME.encode(), column)  # behind "from", in an import from it
        lines[row - 1] = (line[:at] + name.encode() + line[at + len(NAME) :]).decode()
    return "".join(lines)


def _places(tree: ast.AST) -> Iterator[tuple[int, int]]:
    """Line and byte at which, or behind which, the syntax names this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == NAME:
                    yield alias.lineno, alias.col_offset
        elif isinstance(node, ast.ImportFrom):
            if not node.level and (node.module or "").partition(".")[0] == NAME:
                yield node.lineno, node.col_offset
        elif isinstance(node, ast.Name) and node.id == NAME:
            yield node.lineno, node.col_offset
