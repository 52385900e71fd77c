"""What a configuration would run, read without running it.

Allowed are listed parts and expressions of them. Whatever else is in a configuration is a finding,
whether or not it means harm: a list can be read to its end, a program cannot.
"""

import ast
import configparser
import difflib
import importlib.util
import inspect
import json
import math
import re
import site
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigExpression
from monai.bundle.reference_resolver import ReferenceResolver
from monai.bundle.utils import merge_kv

from metaseg_monai.bundle.listed import (
    ARGUMENTS,
    CALLED_ONLY,
    CONSTANT,
    CUDNN,
    GUARDED,
    LISTED,
    MODULES,
    MODULES_OF_OURS,
    NAMES_OF_CLASSES,
    READER,
    USED,
    WALKED,
    WITH_GUARDED,
    WORDS,
    WORDS_OF_OURS,
)
from metaseg_monai.errors import ConfigError
from metaseg_monai.training.weights import target_of

WHY = {
    "call": "is not on the list of parts that a configuration may use",
    "module": "is not on the list of modules that a configuration may import",
    "pickle": "can read a pickle, which runs whatever was put into it",
    "download": "fetches something from elsewhere, which may be code",
    "compiler": "compiles or loads machine code",
    "own code": "is Python that the bundle brings along, which nobody has read",
    "file": "takes in another file, or writes one, beside the configurations that are read here",
    "unreadable": "cannot be read for certain without running it",
    "logging": "is evaluated when the log is set up",
    "program": "is a program; what it computes was not compared with the weights",
    "package": "would be installed, and is no version of a package that bundles are known to need",
    "unknown": "is no file that a package has; nobody has read it",
}
KINDS = (  # of what is not listed, by what its name holds
    ("pickle", ("pickle", "joblib", "dill", "marshal", "shelve", "torch.load", "numpy.load")),
    ("download", ("hub", "download", "urllib", "requests", "http", "pretrained", "ftplib")),
    ("compiler", ("cpp_extension", "compile", "ctypes", "cffi", "numba", "torch.ops", "load_libr")),
)
REFS = "__local_refs"
FETCHES = re.compile("pretrain|weights|download|checkpoint|ckpt|url")  # arguments of networks
IMPORTING = ("imports", "initialize", "run", "finalize")  # ids of lists with imports
STAGES = ("train", "evaluate")  # on which other configurations of a bundle are merged
METADATA = "configs/metadata.json"
ROUNDS = 4  # of macros that name macros
LARGEST = 1_000_000  # values of a configuration with its macros in place
YAML = (".yaml", ".yml")
SUFFIXES = (".json", *YAML)
PYTHON = (".py", ".pyc", ".pyo", ".pyd", ".so", ".pth", ".egg", ".whl")
NO_CONFIGURATION = ("schema", "columns", "facts")  # MONAI never reads these
SHOWN = 160  # characters of a finding's text in messages


class Finding(NamedTuple):
    """Something in a bundle that is not on the list, or cannot be read.

    Attributes:
        file: relative to the bundle, or where a setting was given.
        id: of the value, such as "train#dataset#data".
        kind: call | module | pickle | download | compiler | own code | file | unreadable | logging
            | program | package | unknown.
        text: the value.
        why: what is said against it.
    """

    file: str
    id: str
    kind: str
    text: str
    why: str

    def __str__(self) -> str:
        place = f"{self.file}, {self.id}" if self.id else self.file
        text = "" if self.text == self.file else f": {self.text}"
        told = f"{place}{text}  ({self.kind}: {self.why})"
        return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in told)


def read_bundle(folder: Path) -> list[Finding]:
    """Read a bundle as it lies there: each configuration, and what they may be merged to.

    Raises:
        ConfigError: there is no folder, or no configuration in it, or it is YAML without PyYAML.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.suffix.lower() in SUFFIXES]
    files = [path for path in files if path.parent.name == "configs"]
    if not files:
        raise ConfigError(f"{folder} is no bundle: it has no configs/ with a configuration.")
    of_yaml = [path for path in files if path.suffix.lower() in YAML]
    if of_yaml and importlib.util.find_spec("yaml") is None:
        raise ConfigError(f"{of_yaml[0]}: is YAML, which needs PyYAML; pip install pyyaml")
    python = [path for path in sorted(folder.rglob("*")) if path.suffix in PYTHON]
    found = [*_own_code(folder, python), *_read_logging(folder)]
    contents, meta = {}, {}
    for file in files:
        name = _relative(file, folder)
        content, unread = _loaded(file, name)
        found += unread
        if unread:
            continue
        if name == METADATA:  # as MONAI merges it
            meta = {name: {ConfigParser.meta_key: content}}
        else:
            contents[name] = content
            found += [Finding(name, *one) for one in _walls(content)]
    stages = [name for stage in STAGES for name in contents if Path(name).stem == stage]
    merged = [(*stages[:count], name) for count in range(len(stages) + 1) for name in contents]
    for names in (group for group in merged if len(set(group)) == len(group)):
        alone = len(names) == 1
        is_data = alone and Path(names[0]).stem.startswith(NO_CONFIGURATION)
        group = {name: contents[name] for name in names} | ({} if is_data else meta)
        known = [] if is_data or not alone else list(contents.values())
        found += read_contents(group, is_data, known)
    found += read_contents(meta)
    return list({one[1:4]: one for one in reversed(found)}.values())[::-1]


def read_beside(folder: Path) -> list[Finding]:
    """Read what a workflow of a bundle would run beside its merged configuration."""
    folders = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    python = [path for one in folders for path in one.iterdir() if path.suffix in PYTHON]
    found = [*_own_code(folder, sorted(python)), *_read_logging(folder)]
    for file in sorted((folder / "configs").glob("simulate*.json")):
        name = _relative(file, folder)
        content, unread = _loaded(file, name)
        found += unread or read_contents({name: content})
    return found


def _loaded(file: Path, name: str) -> tuple[Any, list[Finding]]:
    """What a configuration holds, or why it cannot be read."""
    try:
        return ConfigParser.load_config_file(str(file)) if file.is_file() else {}, []
    except Exception as error:  # yaml has its own
        return None, [Finding(name, "", "unreadable", f"{error}"[:SHOWN], WHY["unreadable"])]


def _own_code(folder: Path, python: Sequence[Path]) -> list[Finding]:
    names = [_relative(path, folder) for path in python]
    return [Finding(name, "", "own code", name, WHY["own code"]) for name in names]


def read_contents(
    contents: Mapping[str, Any], data: bool = False, known: Sequence[Any] = ()
) -> list[Finding]:
    """Read configurations that are merged in their order, as far as they can be.

    Args:
        contents: of configurations, by the name of the file.
        data: whether it is a file of a schema, column map or facts, which MONAI does not read.
        known: configurations of which they use what is imported.
    """
    parser = ConfigParser({})
    for content in contents.values():
        for name, value in content.items() if isinstance(content, Mapping) else ():
            key, value = str(name), deepcopy(value)
            if key[:1] == "+" and key[1:] not in parser:
                key = key[1:]  # as MONAI does, with a warning
            try:
                merge_kv(parser, key, value)
            except (KeyError, ValueError, IndexError, TypeError, RecursionError):
                with suppress(KeyError, ValueError, IndexError, TypeError, RecursionError):
                    parser.set(value, key)  # of a file that changes what another has
    return read_parser(parser, contents, data=data, alone=True, known=known)


def read_parser(
    parser: ConfigParser,
    contents: Mapping[str, Any],
    own: "Own | None" = None,
    data: bool = False,
    alone: bool = False,
    known: Sequence[Any] = (),
) -> list[Finding]:
    """Read the very configuration that a parser holds and is to run, and tell what is not listed.

    Its macros and relative ids are put in place, so that it says the same when it runs.

    Args:
        parser: with everything merged.
        contents: what was merged, by the name of the file or what else a finding is to name.
        own: the user's own part in it; None where there is none.
        data: see `read_contents`.
        alone: whether it is part of a configuration, in which macros may name what it has not.
        known: see `read_contents`.
    """
    problems = [] if data else list(_settled(parser, alone))
    try:
        tree = list(_flat(parser.get()))
        imported = [one for content in known for one in _flat(content)]
        reading = _Reading(tree, own or Own(), data, imported)
        problems += list(reading.problems(tree))
    except RecursionError:
        problems.append(("", "unreadable", "", "is too deep to be read"))
    if not problems:
        return []
    origins = {name: list(_flat(content)) for name, content in contents.items()}

    def origin(place: str, text: str) -> tuple[str, str]:
        """The last file that says so there, or else anywhere, and how it is written there."""
        for at in (place, None):
            for name in reversed(origins):
                for key, one in origins[name]:
                    if at in (None, key) and normal(_text(one)) == text:
                        return name, _text(one)
        return " + ".join(contents), text

    found = []
    for place, kind, text, why in problems:
        file, written = origin(place, normal(text))
        found.append(Finding(file, place.replace("::", "#"), kind, written, why))
    return found


def _settled(parser: ConfigParser, alone: bool) -> Iterator[tuple[str, str, str, str]]:
    """Put what macros and relative ids name in their place; tell those for which that fails."""
    for _ in range(ROUNDS):
        macros = [(name, one) for name, one in _flat(parser.get()) if str(one)[:1] == "%"]
        macros = [(name, one) for name, one in macros if isinstance(one, str)]
        for name, text in macros:
            if path := ConfigParser.split_path_id(text[1:])[0]:
                why = f"takes in the file {path}, which is not read here"
                yield name, "file", text, why
                return
        if macros and _size(parser) > LARGEST:
            yield macros[0][0], "unreadable", macros[0][1], "macros that grow without end"
            return
        try:
            parser.resolve_macro_and_relative_ids()
        except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            is_missing = isinstance(error, KeyError | IndexError)
            if not (alone and is_missing):
                text = next((one for _, one in macros), "")
                yield "", "unreadable", text, f"refers to what is not there ({error})"[:SHOWN]
            return
        if not macros:
            return
    yield macros[0][0], "unreadable", macros[0][1], "macros of macros without an end"


def _size(parser: ConfigParser) -> float:
    """How many values a configuration holds once each macro is what it names; inf without end."""
    sizes: dict[str, float] = {}  # of what macros name; inf while it is counted

    def size(value: Any, place: str) -> float:
        if isinstance(value, Mapping | list):
            children = value.items() if isinstance(value, Mapping) else enumerate(value)
            return 1 + sum(size(one, f"{place}::{key}".strip(":")) for key, one in children)
        if isinstance(value, str) and value[:1] == "%":
            with suppress(ValueError):  # of an id outside, which resolving it tells
                value = ConfigParser.resolve_relative_ids(place, value)
            name = value[1:].strip(":")
            if name not in sizes and name in parser:
                sizes[name] = math.inf
                sizes[name] = size(parser.get(name), name)
            return sizes.get(name, 1)
        return 1

    try:
        return size(parser.get(), "")
    except RecursionError:
        return math.inf


def _walls(content: Any) -> Iterator[tuple[str, str, str, str]]:
    """What in one file changes lists of others, whose end is known only where they are merged."""
    for name, value in content.items() if isinstance(content, Mapping) else ():
        key = ReferenceResolver.normalize_id(str(name))
        if key[:1] == "+" and isinstance(value, list) and key != "+imports":
            yield key, "unreadable", _text(value), "adds to a list of another file"


def refuse_untrusted(findings: Sequence[Finding], trust: bool, what: str) -> str | None:
    """Refuse what has findings, unless it is trusted; then return what would run.

    Args:
        findings: of it.
        trust: whether the user has said so.
        what: such as "the bundle in x".

    Raises:
        ConfigError: listing the findings.
    """
    if not findings:
        return None
    told = "".join(f"\n  {finding}" for finding in findings)
    if trust:
        return f"{what} is trusted, and runs:{told}"
    raise ConfigError(
        f"{what} would run what is not on the list of harmless parts:{told}\n"
        "Nothing of it was run. If you know who wrote it and what it does: --trust True."
    )


class Own(NamedTuple):
    """The user's own part in a configuration.

    Attributes:
        texts: values that are the user's, as `normal` makes them, in which modules may be named
            that are installed nowhere; those that a model's folder records only where it was
            trained, see `birth_of`.
        typed: those in which also networks and losses of installed packages may be named: all but
            those that are recorded in a model's folder.
        strangers: folders whose Python is not the user's.
        model: the folder of a trained model that may be from elsewhere.
    """

    texts: frozenset[str] = frozenset()
    typed: frozenset[str] = frozenset()
    strangers: tuple[Path, ...] = ()
    model: Path | None = None

    def has(self, text: Any, target: str) -> bool:
        """Whether a value is the user's, and what it names is the user's own Python."""
        if text is None or normal(text) not in self.texts or not _is_own(target):
            return False
        place = _place_of(target)
        if any(place.is_relative_to(folder.resolve()) for folder in self.strangers):
            return False
        return self.model is None or normal(text) in self.typed or was_trained_here(self.model)


REWRITING = ".rewriting"  # while weights that were trained here get a further fact
BORN = "born"  # of a training's record: `birth_of` its weights
RECORD = "training.json"


def birth_of(weights: Path) -> int:
    """When the system gave a file its place, in ns, which no archive and no copy brings along.

    So a record that tells it was written where the weights were, and not with a download: Python
    of the working directory that it names is the user's own.
    """
    return weights.stat().st_ctime_ns


def was_trained_here(model: Path) -> bool:
    """Whether the record in a model's folder was written where its weights were."""
    try:
        record = json.loads((model / RECORD).read_text(encoding="utf-8"))
        marker = model / REWRITING
        born = [birth_of(model / "model.pt"), *([birth_of(marker)] if marker.exists() else [])]
        return bool(record[BORN] in born)
    except (OSError, ValueError, LookupError, TypeError):
        return False


class _Reading:
    """A tree that is read: the names that it imports, and the ids that hold imports."""

    def __init__(
        self,
        tree: Sequence[tuple[str, Any]],
        own: Own,
        data: bool,
        imported: Sequence[tuple[str, Any]],
    ) -> None:
        self.own, self.data = own, data
        self.names = {name: {name} for name in ("monai", "torch", "numpy")} | {"np": {"numpy"}}
        self.imports: set[str] = set()  # ids at which, or below which, a module stands
        self.values: dict[str, list[Any]] = {}
        self.text: Any = None  # that is being read
        for name, value in tree:
            self.values.setdefault(name, []).append(value)
        for name, value in (*imported, *tree):
            if isinstance(value, str) and value[:1] == "$":
                self._import(name, value)

    def _import(self, name: str, value: str) -> None:
        statement = import_in(value)
        if statement is None:
            return
        parts = name.split("::")
        self.imports |= {"::".join(parts[:count]) for count in range(1, len(parts) + 1)}
        alias = statement.names[0]
        module = getattr(statement, "module", None)
        target = f"{module}.{alias.name}" if isinstance(statement, ast.ImportFrom) else alias.name
        self.names.setdefault(alias.asname or alias.name, set()).add(target)

    def problems(self, tree: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
        """Place, kind, text and why of each problem."""
        for name, value in tree:
            self.text = value if isinstance(value, str) else None
            key = re.sub(r"(::\d+)+$", "", name).rpartition("::")[2]
            for kind, why in self._problems(name, key, value):
                yield name, kind, _text(value), why

    def _problems(self, place: str, key: str, value: Any) -> Iterator[tuple[str, str]]:
        if key == "_target_":
            yield from self._target(value)
            return
        if isinstance(value, Mapping) and "_target_" in value:
            yield from self._installed(value)
        if key == "_mode_" and not self.data:
            targets = self.values.get(f"{place.rpartition('::')[0]}::_target_", [])
            if value != "default" and (value != "callable" or not targets):
                yield "call", f"_mode_ {value!r} does more than make the part"
            elif value == "callable" and any(map(_is_guarded, targets)):
                yield "call", "a part whose arguments may be code, and are not in sight"
        if key in ARGUMENTS:
            yield from self._argument(key, value)
        if not isinstance(value, str) or value[:1] not in ("$", "@", "%"):
            return
        if value[0] == "$":
            if not (self.data and re.fullmatch(r"\$[\w.,%-]*", value)):
                yield from self._expression(place, value)
        elif not self.data and value[0] == "@":
            try:
                text = ConfigParser.resolve_relative_ids(place, value)
            except ValueError:
                yield "unreadable", "refers to something outside the configuration"
            else:
                yield from self._reference(text[1:])

    def _reference(self, name: str) -> Iterator[tuple[str, str]]:
        """A reference gives what was read elsewhere, but for a module, and for everything."""
        plain = name.strip(":")
        if not plain and ":" not in name:
            yield "unreadable", "refers to the whole configuration"
        elif plain in self.imports:
            yield "module", "refers to an imported module as if it were a value"
        elif any(part.startswith("__") for part in plain.split("::")):
            yield "unreadable", "refers to what no configuration may name"

    def _target(self, value: Any) -> Iterator[tuple[str, str]]:
        if not isinstance(value, str) or value[:1] in "$@%":
            yield "unreadable", "the part is only known when the configuration runs"
        elif not (_is_component(value) or self.is_own(value) or self._network(value)):
            yield _kind_of(value), f"{value} {WHY['call']}{_near(value)}"

    def _network(self, target: str) -> Any:
        """The network or loss of an installed package that the user has named, if it is one."""
        is_typed = normal(target) in self.own.typed and not _is_component(target)
        return _network_of(target) if is_typed else None

    def _installed(self, part: Mapping[Any, Any]) -> Iterator[tuple[str, str]]:
        """What such a network would fetch, which its author may do unless told otherwise."""
        self.text = target = part["_target_"]
        if not isinstance(target, str) or (network := self._network(target)) is None:
            return
        defaults = {
            name: one.default for name, one in inspect.signature(network).parameters.items()
        }
        for name, value in {**defaults, **part}.items():
            if FETCHES.search(str(name)) and not (name in ARGUMENTS and name in part):
                for one in self._looked_up(value, False):
                    is_plain = isinstance(one, list | int | float) and one is not True
                    if one is not None and one is not inspect.Parameter.empty and not is_plain:
                        yield "download", f"{name}={one!r} {WHY['download']}; set it to null"

    def _argument(self, key: str, value: Any) -> Iterator[tuple[str, str]]:
        kind, allowed = ARGUMENTS[key]
        names = key in NAMES_OF_CLASSES
        for one in self._looked_up(value, names):
            is_part = isinstance(one, Mapping) and "_target_" in one  # which is read by itself
            is_reader = names and (is_part or re.fullmatch(READER, str(one)))
            if not (is_reader or any(type(one) is type(good) and one == good for good in allowed)):
                yield kind, f"{key}={one!r} {WHY[kind]}"

    def _looked_up(self, value: Any, lists: bool, depth: int = 5) -> list[Any]:
        """The plain values that a reference may stand for; `lists`: or each that a list holds."""
        if isinstance(value, list) and lists:
            return [found for one in value for found in self._looked_up(one, lists, depth)]
        if isinstance(value, str) and value[:1] == "@" and depth:
            found = self.values.get(ReferenceResolver.normalize_id(value[1:]))
            if found:
                return [one for each in found for one in self._looked_up(each, lists, depth - 1)]
        return [value]

    def _expression(self, place: str, value: str) -> Iterator[tuple[str, str]]:
        statement = import_in(value)
        if statement is not None:
            yield from self._imported(statement)
            if "::" in place and place.partition("::")[0] not in IMPORTING:
                yield "module", "an import elsewhere than under imports"
            if ast.unparse(statement).split() != value[1:].split():
                yield "unreadable", "an import with something behind it"
            return
        try:
            tree = ast.parse(_as_evaluated(place, value), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError, KeyError) as error:
            yield "unreadable", f"is no expression that can be read ({type(error).__name__})"
            return
        expression = _Expression(self)
        try:
            expression.read(tree.body, frozenset())
        except RecursionError:
            yield "unreadable", "is too deep to be read"
        yield from dict.fromkeys(expression.problems)

    def _imported(self, statement: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, str]]:
        alias = statement.names[0]
        target = alias.name
        if isinstance(statement, ast.ImportFrom):
            target = f"{statement.module}.{alias.name}"
            if statement.level or alias.name == "*":
                yield "module", f"{ast.unparse(statement)} {WHY['module']}"
                return
        name = alias.asname or alias.name
        if name.startswith("__") or name in _builtins():
            yield "module", f"gives {target} the name {name}, which stands for something else"
        if not _is_module(target) and not _is_listed(target) and not self.is_own(target):
            yield _kind_of(target, "module"), f"{target} {WHY['module']}"

    def is_own(self, target: str) -> bool:
        """Whether something is the user's own, where that is allowed."""
        return self.own.has(self.text, target)


class _Expression:
    """One expression: every node of its tree is on the list, or is told."""

    def __init__(self, reading: _Reading) -> None:
        self.reading = reading
        self.problems: list[tuple[str, str]] = []

    def tell(self, kind: str, why: str) -> None:
        self.problems.append((kind, why))

    def read(self, node: ast.AST | None, bound: frozenset[str]) -> None:
        """Read a node; `bound` are the names of lambdas and comprehensions around it."""
        if node is None or isinstance(node, ast.Constant):
            return
        if isinstance(node, ast.Name | ast.Attribute):
            self._named(node, bound)
        elif isinstance(node, ast.Call):
            self._call(node, bound)
        elif isinstance(node, ast.Lambda):
            given = node.args
            for default in (*given.defaults, *given.kw_defaults):
                self.read(default, bound)
            every = (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg)
            self.read(node.body, bound | {one.arg for one in every if one is not None})
        elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
            self._comprehension(node, bound)
        elif isinstance(node, ast.Subscript):
            if _reference_of(node) is not None:
                for kind, why in self.reading._reference(str(_reference_of(node))):
                    self.tell(kind, why)
                return
            self.read(node.value, bound)
            self.read(node.slice, bound)
        elif isinstance(node, ast.BinOp):
            if isinstance(node.op, ast.Pow) and not _is_small(node.right):
                self.tell("unreadable", "a power that may take for ever")
            if _length(node) > LARGEST:
                self.tell("unreadable", "a repetition that may take all memory")
            self.read(node.left, bound)
            self.read(node.right, bound)
        elif isinstance(
            node,
            ast.UnaryOp
            | ast.BoolOp
            | ast.Compare
            | ast.IfExp
            | ast.Tuple
            | ast.List
            | ast.Set
            | ast.Dict
            | ast.Slice
            | ast.Starred
            | ast.JoinedStr
            | ast.FormattedValue,
        ):
            for child in ast.iter_child_nodes(node):
                if not isinstance(child, ast.boolop | ast.unaryop | ast.cmpop | ast.expr_context):
                    self.read(child, bound)
        else:
            self.tell("unreadable", f"{type(node).__name__} is no part of a configuration")

    def _comprehension(self, node: Any, bound: frozenset[str]) -> None:
        for one in node.generators:
            self.read(one.iter, bound)
            stored = [each.id for each in ast.walk(one.target) if isinstance(each, ast.Name)]
            for each in ast.walk(one.target):
                if not isinstance(each, ast.Name | ast.Tuple | ast.List | ast.Starred | ast.Store):
                    self.tell("unreadable", "a comprehension that writes into something")
            bound = bound | set(stored)
            for condition in one.ifs:
                self.read(condition, bound)
        parts = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        for part in parts:
            self.read(part, bound)

    def _named(self, node: ast.Name | ast.Attribute, bound: frozenset[str]) -> None:
        """A name, or a walk into a module, that stands for a value."""
        paths = self._paths(node, bound)
        if paths is None:
            if isinstance(node, ast.Attribute):
                self._attribute(node, bound)
                if node.attr in CALLED_ONLY:
                    self.tell("call", f".{node.attr} needs its arguments in sight")
            elif node.id not in bound:
                self.tell("unreadable", f"{node.id} is no name that is known here")
            return
        self._judge(paths)

    def _judge(self, paths: Sequence[str], call: ast.Call | None = None) -> None:
        """Whether what a path leads to may be called so, or be a value where it is not called."""
        for path in paths:
            if not (path in GUARDED or _is_guarded(path)):
                if not _is_listed(path) and not self.reading.is_own(path):
                    self.tell(_kind_of(path), f"{path} {WHY['call']}")
            elif call is None:
                self.tell(_kind_of(path), f"{path} may only be called, with its arguments in sight")
            else:
                self._guarded(path, call)

    def _attribute(self, node: ast.Attribute, bound: frozenset[str]) -> None:
        ours = node.attr in WORDS_OF_OURS.split() and _reference_of(node.value) is not None
        if node.attr not in _words() and not ours:
            self.tell("call", f".{node.attr} {WHY['call']}")
        self.read(node.value, bound)

    def _paths(self, node: ast.AST, bound: frozenset[str]) -> list[str] | None:
        """The dotted paths that a name or a walk may be; None where it starts at a value."""
        rest: list[str] = []
        while isinstance(node, ast.Attribute):
            rest.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id in bound:
            return None
        starts = set(self.reading.names.get(node.id, ()))
        if node.id in _builtins():
            starts.add(f"builtins.{node.id}")
        return sorted(".".join([start, *rest]) for start in starts) if starts else None

    def _call(self, node: ast.Call, bound: frozenset[str]) -> None:
        function = node.func
        for keyword in node.keywords:
            if keyword.arg in ARGUMENTS:
                value = keyword.value
                plain = value.value if isinstance(value, ast.Constant) else ast.unparse(value)
                for kind, why in self.reading._argument(keyword.arg, plain):
                    self.tell(kind, why)
            self.read(keyword.value, bound)
        for argument in node.args:
            if not (_is_setattr(function, bound) and argument is node.args[0]):  # see `_setattr`
                self.read(argument, bound)
        is_named = isinstance(function, ast.Name | ast.Attribute)
        paths = self._paths(function, bound) if is_named else None
        if paths == ["builtins.range"] and max(map(_number, node.args), default=0) > LARGEST:
            self.tell("unreadable", "a range that may take for ever")
        if paths is not None:
            self._judge(paths, node)
        elif _is_format(function) or (isinstance(function, ast.Name) and function.id in bound):
            pass
        elif isinstance(function, ast.Attribute):
            count = CALLED_ONLY.get(function.attr, len(node.args))
            is_starred = any(isinstance(one, ast.Starred) for one in node.args) or node.keywords
            if function.attr in CALLED_ONLY and (is_starred or len(node.args) != count):
                self.tell("call", f".{function.attr} takes {count} arguments in a configuration")
            self._attribute(function, bound)
        elif _reference_of(function) is not None:
            self.read(function, bound)
        elif isinstance(function, ast.Name):
            self.tell("call", f"{function.id} {WHY['call']}")
        else:
            self.tell("unreadable", "calls what an expression gives")
            self.read(function, bound)

    def _guarded(self, path: str, node: ast.Call) -> None:
        hidden = any(keyword.arg is None for keyword in node.keywords)
        hidden |= any(isinstance(one, ast.Starred) for one in node.args)
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        plain = {name: one.value for name, one in given.items() if isinstance(one, ast.Constant)}
        if hidden:
            self.tell("unreadable", f"{path} with arguments that are not in sight")
        elif _is_guarded(path):
            if node.args:
                self.tell("call", f"{path} needs each argument by its name")
        elif path == "torch.load" and (plain.get("weights_only") is not True or len(node.args) > 2):
            self.tell("pickle", f"{path} without weights_only=True {WHY['pickle']}")
        elif path == "numpy.load" and (len(node.args) > 1 or set(given) - {"allow_pickle"}):
            self.tell("pickle", f"{path} with more than a file {WHY['pickle']}")
        elif path == "builtins.setattr":
            self._setattr(node)
        elif path == "builtins.open":
            modes = [*node.args[1:2], *([given["mode"]] if "mode" in given else [])]
            plainly = [one.value for one in modes if isinstance(one, ast.Constant)]
            read = len(plainly) == len(modes) and set(plainly) <= {"r", "rb", "rt"}
            if not read or len(node.args) > 2 or set(given) - {"mode", "encoding", "newline"}:
                self.tell("file", "opens a file for more than reading")

    def _setattr(self, node: ast.Call) -> None:
        plain = [one.value if isinstance(one, ast.Constant) else None for one in node.args]
        target = ast.unparse(node.args[0]) if node.args else ""
        is_torch = self.reading.names.get("torch") == {"torch"}
        is_flag = len(plain) == 3 and plain[1] in CUDNN and isinstance(plain[2], bool)
        if not (is_flag and is_torch and target == "torch.backends.cudnn") or node.keywords:
            self.tell("call", f"setattr {WHY['call']}, but for flags of torch.backends.cudnn")


def normal(text: str) -> str:
    """A value as MONAI's parser holds it, which writes ids in it in one way."""
    name: str = ReferenceResolver.normalize_id(text)
    return name


def _text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every id below a configuration with its value; ids in keys are taken apart."""
    if isinstance(value, Mapping):
        children: Any = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    else:
        return
    for key, child in children:
        text = ReferenceResolver.normalize_id(str(key)).lstrip("+")
        name = f"{prefix}::{text}" if prefix else text
        yield name, child
        yield from _flat(child, name)


def import_in(value: Any) -> ast.Import | ast.ImportFrom | None:
    """The import that MONAI takes a value of a configuration for, by its first statement."""
    if not isinstance(value, str) or value[:1] != "$" or "import" not in value:
        return None
    try:
        statements = ast.parse(value[1:]).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    first = statements[0] if statements else None
    return first if isinstance(first, ast.Import | ast.ImportFrom) else None


class _Everything(dict[str, Any]):
    """Holds every id, so that MONAI's own code puts references into an expression."""

    def __contains__(self, key: object) -> bool:
        return True


def _as_evaluated(place: str, value: str) -> str:
    """The text that MONAI gives to `eval`, with references in it."""
    text = ConfigParser.resolve_relative_ids(place, value)
    if not ConfigExpression.is_expression(text):
        raise ValueError("no expression")
    found: str = ReferenceResolver.update_refs_pattern(text, _Everything())
    return found[1:].lstrip(" \t")


def _reference_of(node: ast.AST) -> str | None:
    """The id, where a node is a reference as `_as_evaluated` has put it there."""
    if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
        index = node.slice
        if node.value.id == REFS and isinstance(index, ast.Constant):
            return str(index.value)
    return None


def _is_setattr(function: ast.AST, bound: frozenset[str]) -> bool:
    """Whether a call sets an attribute, of which `_Expression` looks at the first argument."""
    return isinstance(function, ast.Name) and function.id == "setattr" and not {"setattr"} & bound


def _is_format(function: ast.AST) -> bool:
    """Whether a call formats values by a text that walks into none of them."""
    if not isinstance(function, ast.Attribute) or function.attr != "format":
        return False
    text = function.value.value if isinstance(function.value, ast.Constant) else None
    return isinstance(text, str) and not set("{}") & set(re.sub(r"\{\w*(:[^{}]*)?\}", "", text))


def _is_small(node: ast.AST) -> bool:
    value = node.operand if isinstance(node, ast.UnaryOp) else node
    if isinstance(value, ast.BinOp):
        return False
    return not isinstance(value, ast.Constant) or (
        isinstance(value.value, int | float) and value.value <= 64
    )


def _number(node: ast.AST) -> float:
    """How large constants make a number, or a bound of it; what else is in it counts as 1."""
    if isinstance(node, ast.UnaryOp):
        return _number(node.operand)
    try:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            return abs(float(node.value))
        if not isinstance(node, ast.BinOp):
            return 1.0
        left, right = _number(node.left), _number(node.right)
        if isinstance(node.op, ast.Add | ast.Sub):
            return left + right
        if isinstance(node.op, ast.Mult):
            return left * right
        if isinstance(node.op, ast.Pow | ast.LShift):
            return float((left if isinstance(node.op, ast.Pow) else 2 * left) ** right)
        return left
    except OverflowError:
        return math.inf


def _length(node: ast.AST) -> float:
    """How long constants make a text or list, or a bound of it; 0 where it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        return len(node.value)
    if isinstance(node, ast.List | ast.Tuple):
        return len(node.elts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _length(node.left) + _length(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        left, right = _length(node.left), _length(node.right)
        return left * _number(node.right) if left else right * _number(node.left)
    return 0


@cache
def _builtins() -> frozenset[str]:
    return frozenset(dir(__import__("builtins")))


def _is_guarded(target: object) -> bool:
    """Whether one of a component's arguments may be code."""
    if not isinstance(target, str):
        return False
    return bool(WITH_GUARDED.fullmatch(target if "." in target else f"monai.x.{target}"))


@cache
def _words() -> frozenset[str]:
    return frozenset(WORDS.split())


@cache
def _components() -> dict[str, frozenset[str]]:
    return {module: frozenset(names.split()) for module, names in LISTED.items()}


@cache
def _used() -> frozenset[str]:
    return frozenset(f"{module}.{name}" for module, names in USED.items() for name in names.split())


def _is_component(target: str) -> bool:
    """Whether a `_target_` is listed, by its path or, of MONAI's own, by its name alone."""
    module, _, name = target.rpartition(".")
    if not module:
        rooms = [room for room in LISTED if room.startswith("monai.")]
        return any(_has(room, name) for room in rooms)
    return any(
        _has(room, target.removeprefix(f"{room}."))
        or (module.startswith(f"{room}.") and _is_walk(module, room) and _has(room, name))
        for room in LISTED
        if target.startswith(f"{room}.")
    )


def _is_walk(module: str, room: str) -> bool:
    """Whether a path below a room names files of it only, as monai.networks.nets.unet does."""
    parts = module.removeprefix(f"{room}.").split(".")
    return room.startswith("monai.") and all(
        re.fullmatch(r"[a-z][a-z0-9_]*", part) and part not in sys.stdlib_module_names
        for part in parts
    )


def _has(room: str, name: str) -> bool:
    names = _components()[room]
    if name in names:
        return True
    base = re.sub(r"(d|D|Dict)$", "", name)
    return room == "monai.transforms" and base != name and base in names


def _is_listed(path: str) -> bool:
    """Whether an expression may name or call something."""
    if path in _used() or (path.count(".") and _is_component(path)):
        return True
    parts = path.split(".")
    for count in range(2, len(parts)):  # os.environ.get, monai.utils.InterpolateMode.BILINEAR
        if (start := ".".join(parts[:count])) in _used():
            words = _words() - CALLED_ONLY.keys() if start in WALKED else frozenset()
            return all(word in words or CONSTANT.fullmatch(word) for word in parts[count:])
    return False


@cache
def _modules() -> frozenset[str]:
    listed = {*USED, *LISTED, *MODULES.split(), *MODULES_OF_OURS} - {"builtins"}
    return frozenset(listed | {name.rpartition(".")[0] for name in listed} - {""})


def _is_module(path: str) -> bool:
    return path in _modules()


def _kind_of(path: str, otherwise: str = "call") -> str:
    return next((kind for kind, words in KINDS if any(word in path for word in words)), otherwise)


def _near(target: str) -> str:
    """A listed name that is close, as a question."""
    module, _, name = target.rpartition(".")
    rooms = [room for room in LISTED if not module or room == module]
    near = difflib.get_close_matches(name, [n for room in rooms for n in _components()[room]], n=1)
    return f"; did you mean {module + '.' if module else ''}{near[0]}?" if near else ""


@cache
def _is_own(target: str) -> bool:
    """Whether the module of a `_target_` is the user's own: found, and installed nowhere."""
    top = target.partition(".")[0]
    if top in sys.stdlib_module_names or top in ("monai", "torch", "metaseg_monai"):
        return False
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    if spec is None or "." not in target:
        return False
    places = [spec.origin, *(spec.submodule_search_locations or ())]
    paths = [Path(place).resolve() for place in places if place and place != "built-in"]
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = {
        *map(sysconfig.get_path, kinds),
        *site.getsitepackages(),
        site.getusersitepackages(),
    }
    roots = [Path(place).resolve() for place in installed]
    return bool(paths) and not any(path.is_relative_to(root) for path in paths for root in roots)


@cache
def _network_of(target: str) -> Any:
    """The module class of PyTorch, or function of MONAI's for one, that a `_target_` names."""
    top = target.partition(".")[0]
    if _kind_of(target, "") or top in sys.stdlib_module_names or "__" in target:
        return None
    try:
        found = target_of(target)
    except Exception:  # whatever importing it raises; then it is told as not listed
        return None
    if isinstance(found, type):
        return found if issubclass(found, torch.nn.Module) else None
    is_monai = str(getattr(found, "__module__", "")).startswith("monai.networks.nets.")
    return found if is_monai and inspect.isfunction(found) else None


def _place_of(target: str) -> Path:
    """The file or folder that a dotted path leads to, as far as it does."""
    top, *parts = target.split(".")
    spec = importlib.util.find_spec(top)
    places = list((spec and spec.submodule_search_locations) or [])
    place = Path(places[0] if places else (spec and spec.origin) or top).resolve()
    for part in parts:
        below = [place / part, place / f"{part}.py"]
        place = next((path for path in below if path.exists()), place)
    return place.resolve()


def _relative(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _read_logging(folder: Path) -> list[Finding]:
    """What logging.conf evaluates: classes and arguments of handlers, classes of formatters."""
    file = folder / "configs" / "logging.conf"
    name = "configs/logging.conf"
    if not file.is_file():
        return []
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(file.read_text(encoding="utf-8"))
    except (configparser.Error, ValueError, OSError) as error:
        return [Finding(name, "", "unreadable", f"{error}"[:SHOWN], WHY["unreadable"])]
    found = []
    for section in [parser.default_section, *parser.sections()]:
        for key, value in parser[section].items():
            harmless = {
                "class": ("StreamHandler", "NullHandler", "logging.Formatter", "Formatter"),
                "args": ("(sys.stdout,)", "(sys.stderr,)", "()"),
                "kwargs": ("{}",),
            }.get(key)
            if harmless is not None and value.replace(" ", "") not in harmless:
                found.append(Finding(name, f"{section}#{key}", "logging", value, WHY["logging"]))
            if key == "defaults" or "ext://" in value or "cfg://" in value:
                found.append(Finding(name, f"{section}#{key}", "logging", value, WHY["logging"]))
    return found
