"""The commands: which function each of them is. Name, help and arguments are the function's own."""

import ast
import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import fire

from metaseg_monai.cli.flags import as_command, check_flags, did_you_mean
from metaseg_monai.errors import ConfigError, DataError, MetasegError

Tree = Mapping[str, "str | Mapping[str, str]"]

PROGRAM = "metaseg_monai"
HELP = ("--help", "-h")
COMMANDS: Tree = {
    "demo": "metaseg_monai.sharing.study:demo",
    "train": "metaseg_monai.sharing.run:train",
    "evaluate": "metaseg_monai.sharing.run:evaluate",
    "predict": "metaseg_monai.sharing.run:predict",
    "report": "metaseg_monai.sharing.study:report",
    "study": "metaseg_monai.sharing.study:study",
    "explain": "metaseg_monai.sharing.run:explain",
    "estimate": "metaseg_monai.sharing.run:estimate",
    "check": "metaseg_monai.sharing.check:check",
    "fit-schema": "metaseg_monai.metadata.fit:fit_schema",
    "score": "metaseg_monai.sharing.score:score",
    "generate": {
        "synthetic-shapes": "metaseg_monai.simulate.shapes:generate_synthetic_shapes",
        "kits21-phantom": "metaseg_monai.simulate.phantoms:generate_phantoms",
        "cells": "metaseg_monai.simulate.cells.write:generate_cells",
    },
    "prepare": {
        "kits21": "metaseg_monai.prepare.kits:prepare_kits21",
        "cells": "metaseg_monai.prepare.cells:prepare_cells",
        "names": "metaseg_monai.prepare.names:prepare_names",
        "dsb2018": "metaseg_monai.prepare.dsb2018:prepare_dsb2018",
        "cracks": "metaseg_monai.prepare.cracks:prepare_cracks",
        "magnify": "metaseg_monai.simulate.magnify:magnify_table",
        "styles": "metaseg_monai.simulate.styles:prepare_styles",
    },
}


def main() -> None:
    """Run one command; what a user can mend is one line on stderr and exit status 2."""
    try:
        run(sys.argv[1:])
    except MetasegError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nStopped; no file is half-written. A training goes on from its last finished epoch "
            "with the same command and --resume True; demo and study go on by themselves.\n"
        )
        sys.exit(130)


def run(arguments: Sequence[str], commands: Tree = COMMANDS) -> None:
    """Find the command that the first words name, check its options, call it, print its result.

    Args:
        arguments: words of the command line; ``--help`` may stand anywhere among them.
        commands: functions, as ``module:name``, by the names of commands; or groups of them.

    Raises:
        ConfigError: no such command or option, or a value that cannot be one.
        DataError: a preparation left out cases; the others are prepared.
    """
    found, words, rest = find(arguments, commands)
    if isinstance(found, str):
        call(load(found), words, rest)
    else:
        sys.stdout.write(overview(found, words) + "\n")


def call(function: Callable[..., Any], words: Sequence[str], arguments: Sequence[str]) -> None:
    """Check the options of a command, call it, and print its result or its help.

    Args:
        function: the command.
        words: its name, and before it that of its group.
        arguments: of the command line, behind the name.

    Raises:
        ConfigError: no such option, or a value that cannot be one.
        DataError: a preparation left out cases; the others are prepared.
    """
    rest = help_last(arguments)
    if rest == list(arguments):  # nobody asked for help
        check_flags(function, rest, " ".join(words))
    tree: Any = as_command(function, rest)
    for word in reversed(words):
        tree = {word: tree}
    result = fire.Fire(tree, [*words, *rest], name=PROGRAM, serialize=_text)
    if refusal := getattr(result, "refusal", None):
        raise DataError(refusal)


def find(arguments: Sequence[str], commands: Tree) -> tuple[Any, list[str], list[str]]:
    """Return the function or group that the first words name, these words, and the others."""
    found: Any = commands
    words: list[str] = []
    rest = list(arguments)
    while rest and rest[0] not in ("--", *HELP) and not isinstance(found, str):
        word = rest.pop(0)
        name = word.replace("_", "-")
        if name not in found:
            place = f" of {' '.join(words)}" if words else ""
            close = did_you_mean(word, found, "is one of " + ", ".join(sorted(found)))
            raise ConfigError(f"{word!r} is no command{place}; {close}")
        found = found[name]
        words.append(name)
    return found, words, rest


def help_last(arguments: Sequence[str]) -> list[str]:
    """Keep fire from handing ``--help`` to a command as one of its overrides."""
    rest = [argument for argument in arguments if argument not in HELP]
    if len(rest) == len(arguments):
        return rest
    return [*(rest[:-1] if rest[-1:] == ["--"] else rest), "--", "--help"]


def overview(commands: Tree, words: Sequence[str] = ()) -> str:
    """The commands of a group with the first line of each one's help, read without importing it."""
    lines = [f"python -m {' '.join([PROGRAM, *words])} COMMAND --help shows arguments and example."]
    for name, found in commands.items():
        told = ", ".join(found) if not isinstance(found, str) else _first_line(found)
        lines.append(f"  {name:<17}{told}")
    return "\n".join(lines)


def load(target: str) -> Callable[..., Any]:
    """Import the function that ``module:name`` names."""
    module, _, name = target.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _first_line(target: str) -> str:
    module, _, name = target.partition(":")
    root = Path(__file__).parents[1]
    file = root.joinpath(*module.split(".")[1:]).with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    made = next(n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)
    return (ast.get_docstring(made) or "").partition("\n")[0]


def _text(result: object) -> str:
    return "\n".join(map(str, result)) if isinstance(result, list) else str(result)
