"""Text stays the text that was typed, where fire would make numbers, tuples and True of it."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from fire import decorators
from fire.decorators import SetParseFn

from metaseg_monai.errors import ConfigError

Commands = TypeVar("Commands", bound=type)

# fire 0.7 lists its own attribute on a command as a group of commands in --help, unless private
decorators.FIRE_METADATA = "_fire_metadata"


def as_typed(*settings: str) -> Callable[[Commands], Commands]:
    """Decorate a class of commands, so that a folder may be called 2024 or 1e3.

    Arguments annotated as text are taken as typed; None is still None where it is allowed.

    Args:
        settings: overrides, taken by ``**overrides``, that are text too.

    >>> @as_typed()
    ... class Commands:
    ...     def show(self, folder: str, size: int = 3) -> str:
    ...         return f"{folder!r} {size!r}"
    >>> import fire
    >>> _ = fire.Fire(Commands(), ["show", "1e3", "--size", "1e3"])
    '1e3' 1000.0
    """

    def decorate(commands: Commands) -> Commands:
        for command in vars(commands).values():
            if not inspect.isfunction(command) or command.__name__.startswith("_"):
                continue
            given = inspect.signature(command).parameters
            for name, argument in given.items():
                if argument.annotation in (str, str | None):
                    SetParseFn(partial(_typed, argument), name)(command)
            if any(argument.kind is argument.VAR_KEYWORD for argument in given.values()):
                for name in set(settings) - set(given):
                    SetParseFn(partial(_typed_setting, name), name)(command)
        return commands

    return decorate


def _typed(argument: inspect.Parameter, text: str) -> str | None:
    if argument.default is argument.empty and not text.strip():
        raise ConfigError(f"--{argument.name} is empty; is a variable of the shell not set?")
    return None if text == "None" and argument.annotation is not str else text


def _typed_setting(name: str, text: str) -> str | None:
    if text in ("True", "False"):  # what fire makes of an option without a value
        raise ConfigError(f"--{name} has no value; give a path (./{text} where that is its name)")
    if not text.strip():
        raise ConfigError(f"--{name} is empty; is a variable of the shell not set?")
    return None if text == "None" else text
