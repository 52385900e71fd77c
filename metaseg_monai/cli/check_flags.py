"""Misspelt commands and options are refused before anything runs; fire complains afterwards."""

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence

from metaseg_monai.errors import ConfigError

Parameters = Mapping[str, inspect.Parameter]

FLAG = re.compile("--|-[a-zA-Z]")  # as fire tells them from values such as -3
YES_OR_NO = ("True", "False", "1", "0")


def check_flags(commands: object, arguments: Sequence[str]) -> None:
    """Refuse what fire would not consume, before it runs the command.

    Words name the command; flags are ``--name value``, ``--name=value``, ``-n`` for the only name
    with that letter, ``--name`` and ``--noname`` for those that are on or off, with dashes for
    underscores as one likes. Commands with ``**overrides`` take any flag, and check it themselves.

    Args:
        commands: the object whose members are the commands, or groups of them.
        arguments: of the command line; what follows ``--`` is fire's own.

    Raises:
        ConfigError: no such command or option, an option without its value or with one that it
            cannot have, or more values than the command takes.
    """
    given = list(arguments)
    if "--" in given:
        given = given[: len(given) - 1 - given[::-1].index("--")]
    named: list[str] = []
    while given and not callable(commands):
        known = [name for name in dir(commands) if not name.startswith("_")]
        word = given.pop(0)
        if word.replace("-", "_") not in known:
            names = [name.replace("_", "-") for name in known]
            close = _did_you_mean(word, names, "is one of " + ", ".join(names))
            place = f" of {' '.join(named)}" if named else ""
            raise ConfigError(f"{word!r} is no command{place}; {close}")
        commands = getattr(commands, word.replace("-", "_"))
        named.append(word)
    if callable(commands):
        _check_arguments(inspect.signature(commands).parameters, given, " ".join(named))


def _check_arguments(parameters: Parameters, given: Sequence[str], command: str) -> None:
    """Walk through the arguments as fire does."""
    takes_any = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    own = {name: one for name, one in parameters.items() if one.kind is not one.VAR_KEYWORD}
    if "-" in given:  # fire would go on with what the command returns
        raise ConfigError(f"{command}: '-' alone is no argument; leave it out")
    named: set[str] = set()
    values: list[str] = []
    rest = list(given)
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
    free = [name for name in own if name not in named]
    if len(values) > len(free):
        raise ConfigError(
            f"{command}: {values[len(free)]!r} is one value too many; give options as --name value "
            f"({command} --help shows them)"
        )
    for name, text in zip(free, values, strict=False):
        _check_value(f"--{name}", own[name], text)


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
    close = _did_you_mean(
        key, [*own, *on_or_off], f"the options are --{', --'.join(own)}", before="--"
    )
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


def _did_you_mean(name: str, known: Iterable[str], otherwise: str, before: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {before}{close[0]}?" if close else otherwise
