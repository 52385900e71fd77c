"""Errors whose message names the case, field or file, what was expected, and the next step."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any


class MetasegError(Exception):
    """Anything a user can mend; the command line prints its message without a traceback."""


class MetadataError(MetasegError, ValueError):
    """A metadata value, field, schema or encoded vector is not what was declared."""


class DataError(MetasegError, ValueError):
    """A table, image or label cannot be used as it is."""


class ConfigError(MetasegError, ValueError):
    """A setting, override or bundle is wrong."""


class CheckpointError(MetasegError, RuntimeError):
    """A checkpoint or a set of weights is missing, damaged or belongs to another model."""


class TrainingError(MetasegError, RuntimeError):
    """Training cannot go on, for instance after a loss that is not finite."""


class DataWarning(UserWarning):
    """Something about an image that is allowed but seldom meant, such as one constant value."""


def listing(names: Iterable[Any], most: int = 30, word: Callable[[Any], str] = repr) -> str:
    """Names for a message, the first `most` of them, each as `word` gives it.

    >>> listing(["disc", "ring", "cross"], most=2)
    "'disc', 'ring' and 1 more"
    """
    quoted = [word(name) for name in names]
    rest = len(quoted) - most
    return ", ".join(quoted[:most]) + (f" and {rest} more" if rest > 0 else "")


def did_you_mean(name: object, allowed: Iterable[str]) -> str:
    """The next step for a name that is not among the allowed ones.

    >>> did_you_mean("dsic", ["disc", "ring"])
    "did you mean 'disc'?"
    """
    close = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f"did you mean {close[0]!r}?" if close else "use one of these names"
