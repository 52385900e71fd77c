"""The command line: which function each command is; name, help and arguments are its own.

What fire would swallow is refused before it runs: misspelt options, missing values; text stays as
typed, where fire would make numbers of a folder called 2024 or 1e3.
"""

import ast
import difflib
import hashlib
import importlib
import inspect
import io
import logging
import mmap
import os
import re
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import fire
from fire import decorators
from fire.decorators import SetParseFn
from fire.parser import DefaultParseValue

from metaseg_monai.errors import (
    DONE,
    REFUSED,
    STOPPED,
    UNFORESEEN,
    WITH_PROBLEMS,
    ConfigError,
    DataError,
    DataWarning,
    MetasegError,
    as_refusal,
    root_cause,
)
from metaseg_monai.rows import PROBLEMS

Parameters = Mapping[str, inspect.Parameter]

FLAG = re.compile("--|-[a-zA-Z]")  # as fire tells them from values such as -3
YES_OR_NO = ("True", "False", "1", "0")
PATH_SETTING = re.compile(r"\w+_(dir|file|path)")  # overrides that are text
NUMBERS = {int, float, type(None)}
SHOWN, SHOWN_PROBLEMS = 500, 10  # letters of an error, problems of a batch
TOLD = 1 << 16  # places for remarks; one that another takes is told twice
SECTIONS = ("Returns:", "Raises:", ">>> ")  # of a docstring, for those who call from Python

# fire 0.7 lists its own attribute on a command as a group of commands in --help, unless private
decorators.FIRE_METADATA = "_fire_metadata"
Tree = Mapping[str, "str | Mapping[str, str]"]

PROGRAM = "metaseg_monai"
HELP = ("--help", "-h")
ASK_FIRE = ["--", "--help"]  # alone: beside other words fire runs them, or misses one of them
COMMANDS: Tree = {
    "demo": "metaseg_monai.sharing.study:demo",
    "train": "metaseg_monai.sharing.run:train",
    "evaluate": "metaseg_monai.sharing.run:evaluate",
    "predict": "metaseg_monai.sharing.run:predict",
    "merge": "metaseg_monai.sharing.merge:merge",
    "report": "metaseg_monai.sharing.study:report",
    "study": "metaseg_monai.sharing.study:study",
    "clean-up": "metaseg_monai.sharing.run:clean_up",
    "conformal": "metaseg_monai.sharing.run:conformal",
    "explain": "metaseg_monai.sharing.run:explain",
    "estimate": "metaseg_monai.sharing.run:estimate",
    "new-bundle": "metaseg_monai.sharing.new_bundle:new_bundle",
    "check": "metaseg_monai.sharing.check:check",
    "package": "metaseg_monai.sharing.package:package",
    "unpack": "metaseg_monai.sharing.unpack:unpack",
    "check-bundle": "metaseg_monai.sharing.check_bundle:check_bundle",
    "fit-schema": "metaseg_monai.metadata.fit:fit_schema",
    "score": "metaseg_monai.sharing.score:score",
    "grow": "metaseg_monai.sharing.grow:grow",
    "card": "metaseg_monai.sharing.card:card",
    "push": "metaseg_monai.sharing.hub:push",
    "export": "metaseg_monai.sharing.export:export",
    "whatif": "metaseg_monai.sharing.whatif:whatif",
    "explore": "metaseg_monai.sharing.explore:explore",
    "generate": {
        "synthetic-shapes": "metaseg_monai.simulate.shapes:generate_synthetic_shapes",
        "kits21-phantom": "metaseg_monai.simulate.phantoms:generate_phantoms",
        "cells": "metaseg_monai.simulate.cells.write:generate_cells",
        "adipocyte": "metaseg_monai.simulate.adipocyte:generate_adipocyte",
    },
    "prepare": {
        "kits21": "metaseg_monai.prepare.kits:prepare_kits21",
        "cells": "metaseg_monai.prepare.cells:prepare_cells",
        "names": "metaseg_monai.prepare.names:prepare_names",
        "dsb2018": "metaseg_monai.prepare.dsb2018:prepare_dsb2018",
        "cracks": "metaseg_monai.prepare.cracks:prepare_cracks",
        "adipocyte": "metaseg_monai.prepare.adipocyte:prepare_adipocyte",
        "magnify": "metaseg_monai.simulate.magnify:magnify_table",
        "styles": "metaseg_monai.simulate.styles:prepare_styles",
    },
}


def main() -> None:
    """Run one command; whatever ends it is one line on stderr and an exit status (contract 26)."""
    logging.raiseExceptions = False  # nor are the log's own faults anybody's business
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a terminal cannot show is no fault
            stream.reconfigure(errors="backslashreplace")
    is_main = threading.current_thread() is threading.main_thread() and "RANK" not in os.environ
    before = signal.signal(signal.SIGTERM, _stop) if is_main else None
    debug = False
    try:
        arguments, debug = split_debug(sys.argv[1:])
        with _remarks():
            status = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has had enough, such as head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(STOPPED)
    except KeyboardInterrupt:
        sys.stderr.write(
            "\nStopped; no file is half-written. A training goes on from its last finished epoch "
            "with the same command and --resume True; demo and study go on by themselves.\n"
        )
        sys.exit(STOPPED)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if refusal := as_refusal(error):
            sys.stderr.write(f"error: {refusal}\n")
            sys.exit(REFUSED)
        cause = root_cause(error)
        told = " ".join(str(cause).split())
        sys.stderr.write(
            f"unforeseen: {type(cause).__name__}: {told[:SHOWN]}; --debug True shows the trace\n"
        )
        sys.exit(UNFORESEEN)
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, before)
    if status:
        sys.exit(status)


@contextmanager
def _remarks() -> Iterator[None]:
    """Tell what the library remarks on data as one line on stderr, once, whatever filters say.

    What was told is kept in memory that the loading processes, which are copies, share.
    """
    told = mmap.mmap(-1, TOLD * 8)

    def show(message: Any, category: type[Warning], *place: Any, **others: Any) -> None:
        text = " ".join(str(message).split())
        if not issubclass(category, DataWarning):
            before(message, category, *place, **others)
            return
        digest = hashlib.sha256(text.encode()).digest()
        start = int.from_bytes(digest[-4:], "big") % TOLD * 8
        if told[start : start + 8] != digest[:8]:
            told[start : start + 8] = digest[:8]
            sys.stderr.write(f"warning: {text}\n")

    with warnings.catch_warnings():
        before, warnings.showwarning = warnings.showwarning, show
        warnings.simplefilter("always", DataWarning)
        yield


def _stop(number: int, frame: Any) -> None:
    """End as by Ctrl-C, so that nothing is left half-written; a copy of this process just ends."""
    signal.signal(number, signal.SIG_DFL)
    raise KeyboardInterrupt


def split_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """Take --debug from the words of a command line, wherever it stands.

    >>> split_debug(["check", "--debug", "True", "a.csv"]), split_debug(["--debug", "check"])
    ((['check', 'a.csv'], True), (['check'], True))
    """
    rest, debug = list(arguments), False
    for form in ("--debug=True", "--debug=1", "--debug=False", "--debug=0", "--debug"):
        while form in rest:
            place = rest.index(form)
            value = rest[place + 1 : place + 2] if form == "--debug" else [form.partition("=")[2]]
            is_given = value and value[0] in YES_OR_NO
            del rest[place : place + (2 if form == "--debug" and is_given else 1)]
            debug = not is_given or value[0] in ("True", "1")
    return rest, debug


def run(arguments: Sequence[str], commands: Tree = COMMANDS) -> int:
    """Find the command that the first words name, check its options, call it, print its result.

    Args:
        arguments: words of the command line; ``--help`` may stand anywhere among them.
        commands: functions, as ``module:name``, by the names of commands; or groups of them.

    Returns:
        The exit status: 0, or 3 where the result tells of problems.

    Raises:
        ConfigError: no such command or option, or a value that cannot be one.
        DataError: nothing at all was done, as the result tells.
    """
    found, words, rest = find(arguments, commands)
    if isinstance(found, str):
        return call(load(found), words, rest)
    sys.stdout.write(overview(found, words) + "\n")
    return DONE


def run_script(*functions: Callable[..., Any]) -> None:
    """Be the command line of a script whose command is this function; of several, the one named.

    Its flags are checked before it runs, and what it refuses ends in one line and status 2.
    """
    arguments, script = sys.argv[1:], Path(sys.argv[0]).name
    named = {one.__name__: one for one in functions}
    word = arguments[0] if len(functions) > 1 and arguments and arguments[0] in named else None
    try:
        if asks_help(arguments):
            arguments = [*([word] if word else []), *ASK_FIRE]
        else:
            if len(functions) > 1 and word is None:
                raise ConfigError(f"{script}: expected one of {', '.join(named)} first; --help")
            asked, rest = (named[word], arguments[1:]) if word else (functions[0], arguments)
            check_flags(asked, rest, f"{script} {word}" if word else script)
        fire.Fire(named if len(functions) > 1 else functions[0], command=arguments)
    except MetasegError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(REFUSED)


def call(function: Callable[..., Any], words: Sequence[str], arguments: Sequence[str]) -> int:
    """Check the options of a command, call it, and print its result or its help.

    A result with `problems` (lines, or `metaseg_monai.errors.Problem`) is told of on stderr, and
    with `refusal` (text) is none.

    Args:
        function: the command.
        words: its name, and before it that of its group.
        arguments: of the command line, behind the name.

    Returns:
        The exit status: 0, or 3 where the result tells of problems.

    Raises:
        ConfigError: no such option, or a value that cannot be one.
        DataError: nothing at all was done, as the result tells.
    """
    rest = ASK_FIRE if asks_help(arguments) else list(arguments)
    if rest != ASK_FIRE:
        check_flags(function, rest, " ".join(words))
    tree: Any = as_command(function, rest)
    for word in reversed(words):
        tree = {word: tree}
    result = fire.Fire(tree, [*words, *rest], name=PROGRAM, serialize=_text)
    if refusal := getattr(result, "refusal", None):
        raise DataError(refusal)
    problems = getattr(result, "problems", None)
    if not problems or not isinstance(problems, list | tuple):  # a schema has a method of the name
        return DONE
    sys.stdout.flush()
    printed = _text(result)
    told = [f"problem: {one}" for one in problems[:SHOWN_PROBLEMS] if str(one) not in printed]
    folder = getattr(result, "problems_in", None) or result.folder
    file = getattr(result, "problems_file", None) or (folder and folder / PROBLEMS)
    if not told and not (file and file.is_file()):
        return WITH_PROBLEMS  # all is said, and nothing was to be made
    where = f"all in {file}" if file else "nothing was written"
    told.append(f"done with {len(problems)} problem(s), {where}; what they name was left out")
    sys.stderr.write("\n".join(told) + "\n")
    return WITH_PROBLEMS


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
            close = _did_you_mean(word, found, "is one of " + ", ".join(sorted(found)))
            raise ConfigError(f"{word!r} is no command{place}; {close}")
        found = found[name]
        words.append(name)
    return found, words, rest


def asks_help(arguments: Sequence[str]) -> bool:
    """Whether help is asked for, anywhere among the words."""
    return any(word in HELP for word in arguments)


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


def check_flags(function: Callable[..., Any], arguments: Sequence[str], command: str) -> None:
    """Refuse what fire would not consume, before it runs the command.

    Flags are ``--name value``, ``--name=value``, ``-n`` for the only name with that letter,
    ``--name`` and ``--noname`` for those that are on or off, with dashes for underscores as one
    likes. Commands with ``**overrides`` take any flag, and check it themselves.

    Args:
        function: the command.
        arguments: of the command line; what follows the last ``--`` is fire's own.
        command: its name, for messages.

    Raises:
        ConfigError: no such option, an option without its value or with one that it cannot have,
            twice the same, or more values than the command takes.
    """
    parameters = inspect.signature(function).parameters
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    takes_several = any(one.kind is one.VAR_POSITIONAL for one in parameters.values())
    variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    own = {name: one for name, one in parameters.items() if one.kind not in variable}
    rest = list(arguments)
    if "--" in rest:
        rest = rest[: len(rest) - 1 - rest[::-1].index("--")]
    if "-" in rest:  # fire would go on with what the command returns
        raise ConfigError(f"{command}: '-' alone is no argument; leave it out")
    named: set[str] = set()
    values: list[str] = []
    while rest:
        argument = rest.pop(0)
        if not FLAG.match(argument):
            values.append(argument)
            continue
        flag, equals, text = argument.partition("=")
        value = text if equals else None
        if not equals and rest and not FLAG.match(rest[0]):
            value = rest.pop(0)
        name = _name_of(flag, own, takes_any, value is None, command)
        meant = name or flag.lstrip("-").replace("-", "_")
        if meant in named:
            raise ConfigError(f"{command}: {flag} is given twice; leave one of them out")
        named.add(meant)
        if name in own:
            _check_value(flag, own[name], value)
    by_name = inspect.Parameter.KEYWORD_ONLY
    free = [name for name in own if name not in named and own[name].kind is not by_name]
    if len(values) > len(free) and not takes_several:
        raise ConfigError(
            f"{command}: {values[len(free)]!r} is one value too many; give options as --name value "
            f"({command} --help shows them)"
        )
    for name, text in zip(free, values, strict=False):
        _check_value(f"--{name}", own[name], text)


def as_command(function: Callable[..., Any], arguments: Sequence[str]) -> Callable[..., Any]:
    """Return the function as fire shall call it: text as typed, numbers checked, help for a shell.

    Arguments annotated as text or path are taken as typed, and ``None`` is None where that is
    allowed; a sequence of text is split at commas; a number must be one; overrides that name a
    folder or a file are text. The docstring keeps what a shell needs: example and arguments.

    Args:
        function: the command.
        arguments: of the command line, for the overrides in them.

    >>> def show(folder: str, size: int = 3) -> str:
    ...     return f"{folder!r} {size!r}"
    >>> import fire
    >>> _ = fire.Fire(as_command(show, []), ["1e3", "--size", "12"])
    '1e3' 12
    """

    @wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    command.__doc__ = shell_help(function)
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters
    for name, parameter in parameters.items():
        kinds = _kinds(hints.get(name))
        if Sequence[str] in kinds:
            SetParseFn(partial(_names, type(None) in kinds), name)(command)
        elif Sequence[float] in kinds:
            SetParseFn(partial(_numbers, name), name)(command)
        elif kinds == {bool}:
            SetParseFn(("True", "1").__contains__, name)(command)
        elif kinds <= NUMBERS:
            SetParseFn(partial(_number, name, kinds), name)(command)
        elif str in kinds and not kinds & {int, float}:
            SetParseFn(partial(_as_typed, parameter, kinds), name)(command)
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        flags = {one.lstrip("-").partition("=")[0].replace("-", "_") for one in arguments}
        for name in sorted(flags - set(parameters)):
            if PATH_SETTING.fullmatch(name):
                SetParseFn(partial(_path_setting, name), name)(command)
    return command


def shell_help(function: Callable[..., Any]) -> str:
    """The docstring without what only concerns calls from Python: results, errors, doctests.

    Each argument is one line: fire loses what stands behind a colon in a second one.

    >>> def show(size: int) -> None:
    ...     '''Show it.
    ...
    ...     Args:
    ...         size: of a field, as
    ...             task=disc:0.7|ring:0.3, or less.
    ...     '''
    >>> print(shell_help(show))
    Show it.
    <BLANKLINE>
    Args:
        size: of a field, as task=disc:0.7|ring:0.3, or less.
    """
    kept: list[str] = []
    leave_out, arguments = False, False
    for line in (inspect.getdoc(function) or "").splitlines():
        if line and not line.startswith(" "):
            leave_out, arguments = line.startswith(SECTIONS), line.startswith("Args:")
        if arguments and line.startswith(" " * 8):
            kept[-1] += f" {line.strip()}"
        elif not leave_out:
            kept.append(line)
    return "\n".join(kept).rstrip()


def _name_of(flag: str, own: Parameters, takes_any: bool, no_value: bool, command: str) -> str:
    """The parameter that a flag means; "" for an override."""
    key = flag.lstrip("-").replace("-", "_")
    if key in own:
        return key
    if no_value and key.startswith("no") and key[2:] in own:
        return key[2:]
    if takes_any:
        return ""
    begin = [name for name in own if name[0] == key] if len(key) == 1 else []
    if len(begin) == 1:
        return begin[0]
    if begin:
        raise ConfigError(f"{command}: {flag} could be --{' or --'.join(begin)}; write it in full")
    on_or_off = [f"no{name}" for name, one in own.items() if _is_switch(one)]
    otherwise = f"the options are --{', --'.join(own)}"
    close = _did_you_mean(key, [*own, *on_or_off], otherwise, before="--")
    raise ConfigError(f"{command}: no option {flag}; {close}")


def _check_value(flag: str, parameter: inspect.Parameter, value: str | None) -> None:
    """Refuse a switch that is neither on nor off, and any other option without a value."""
    if _is_switch(parameter):
        if value is not None and value not in YES_OR_NO:
            raise ConfigError(f"{flag} {value}: expected True or False, or {flag} alone for True")
    elif value is None:
        raise ConfigError(f"{flag} has no value; expected --{parameter.name} value")


def _is_switch(parameter: inspect.Parameter) -> bool:
    return isinstance(parameter.default, bool)


def _kinds(hint: Any) -> set[Any]:
    """What an annotation allows; each of the texts of a Literal is text."""
    if get_origin(hint) in (Union, UnionType):
        return set().union(*map(_kinds, get_args(hint)))
    return set(map(type, get_args(hint))) if get_origin(hint) is Literal else {hint}


def _as_typed(parameter: inspect.Parameter, kinds: set[Any], text: str) -> Any:
    if parameter.default is parameter.empty or Path in kinds:
        _not_empty(parameter.name, text)
    if text.startswith("{") and any(get_origin(kind) is Mapping for kind in kinds):
        return DefaultParseValue(text)
    return None if text == "None" and type(None) in kinds else text


def _numbers(name: str, text: str) -> list[float]:
    parts = text.strip("()[]").split(",")
    return [_number(name, {float}, part) or 0 for part in parts if part.strip()]


def _names(may_be_none: bool, text: str) -> list[str] | None:
    if text == "None" and may_be_none:
        return None
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(name: str, kinds: set[Any], text: str) -> int | float | None:
    value = DefaultParseValue(text)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if (value is None and type(None) in kinds) or is_whole:
        return value
    if isinstance(value, float) and (float in kinds or value.is_integer()):
        return value if float in kinds else int(value)
    raise ConfigError(f"--{name} {text}: expected a {'' if float in kinds else 'whole '}number")


def _path_setting(name: str, text: str) -> str | None:
    if text in ("True", "False"):  # what fire makes of an option without a value
        raise ConfigError(f"--{name} has no value; give a path (./{text} where that is its name)")
    _not_empty(name, text)
    return None if text == "None" else text


def _not_empty(name: str, text: str) -> None:
    if not text.strip():
        raise ConfigError(f"--{name} is empty; is a variable of the shell not set?")


def _did_you_mean(name: str, known: Iterable[str], otherwise: str, before: str = "") -> str:
    """The known name that is close, as a question, or what to say where none is."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {before}{close[0]}?" if close else otherwise
