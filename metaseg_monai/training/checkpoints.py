"""How a file is written so that a crash leaves the old one or the new one, never half of one."""

import io
import json
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metaseg_monai.errors import CheckpointError, ConfigError
from metaseg_monai.files import replacing

_PLAIN = (int, float, bool, str, bytes, type(None))


def replace_file(path: str | Path, content: bytes | memoryview) -> None:
    """Write a file whole or not at all, and on the disk when this returns.

    Args:
        path: the file; its folder is made where missing.
        content: all of it.

    Raises:
        CheckpointError: It cannot be written, e.g. on a full disk; an older file is intact.
    """
    try:
        with replacing(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise CheckpointError(
            f"Cannot write {path}: {error.strerror or error}. What was there before is intact. "
            "Free space on the disk, or choose another output folder, and resume."
        ) from error


def write_checkpoint(path: str | Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that a kill at any moment leaves a loadable file.

    Args:
        path: the file; its folder is made where missing.
        state: nested dicts, lists and tuples of tensors, numbers, text and None.

    Raises:
        CheckpointError: The state holds something else, which could not be read back safely; or
            the file cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_checkpoint(Path(folder) / "checkpoint.pt", {"iteration": 3})
        ...     read_checkpoint(Path(folder) / "checkpoint.pt")
        {'iteration': 3}
    """
    _check_plain(state, "state")
    content = io.BytesIO()  # in memory first: a failed write to disk is then a plain OSError
    torch.save(state, content)
    replace_file(path, content.getbuffer())


def _check_plain(value: Any, place: str) -> None:
    kind = type(value)
    if kind in (dict, OrderedDict):
        for key, inner in value.items():
            _check_plain(key, f"a key of {place}")
            _check_plain(inner, f"{place}[{key!r}]")
    elif kind in (list, tuple):
        for index, inner in enumerate(value):
            _check_plain(inner, f"{place}[{index}]")
    elif kind not in (*_PLAIN, Tensor, nn.Parameter):
        raise CheckpointError(
            f"{place} is {kind.__module__}.{kind.__qualname__}; a checkpoint holds tensors, plain "
            "numbers, text, lists and dicts only, so that loading one never runs foreign code. "
            "Convert it in state_dict()."
        )


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU, running no code that it might hold.

    Every byte is checked against the file's checksums: PyTorch by itself loads altered weights
    from a damaged file without a word.

    Args:
        path: a file by `write_checkpoint`.

    Raises:
        CheckpointError: The file cannot be read, is damaged, or holds more than plain data.
    """
    advice = "Delete it and start anew, or put back a copy."
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is None:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors and plain values, which could run code when loaded; "
            "it was not loaded. Ask for a file of weights alone."
        ) from error
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no checkpoint at {path}.") from error
    except Exception as error:
        # A damaged file fails anywhere in the reader.
        raise CheckpointError(f"Cannot read {path}: {error}. {advice}") from error
    if damaged is not None:
        raise CheckpointError(f"{path} is damaged (checksum of {damaged}). {advice}")
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds {type(state).__name__}, not a checkpoint. {advice}")
    return state


# Settings: plain values, and in what two sets of them differ, in words.

_SHOWN = 80  # characters of a value in a message


def plain(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return settings as JSON would give them back.

    Args:
        values: of a run, as the configuration has them.
        name: what they are, for the message.

    Raises:
        ConfigError: One is no plain value.
    """
    try:
        copied: dict[str, Any] = json.loads(json.dumps(dict(values)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be plain values, as in JSON: {error}.") from error
    return copied


def differences(stored: Any, current: Any, place: str = "") -> list[str]:
    """Return one line per difference between plain values; empty where they agree.

    Text that holds a JSON object, such as a metadata schema, is compared by content. Items of a
    list are known by their "name" or the class in their "_target_", where these differ.

    Args:
        stored: as in a checkpoint.
        current: as of this run.
        place: name of the values.

    Example:
        >>> differences({"epochs": 100, "seed": 0}, {"epochs": 50, "seed": 0})
        ['epochs: 100 in the checkpoint, 50 now']
    """
    are_lists = isinstance(stored, list) and isinstance(current, list)
    stored, current = _opened(stored), _opened(current)
    if isinstance(stored, dict) and isinstance(current, dict):
        lines = []
        for key in dict.fromkeys([*stored, *current]):
            inner = f"{place}.{key}" if place else str(key)
            if key not in stored:
                lines.append(f"{inner}: none in the checkpoint, {_short(current[key])} now")
            elif key not in current:
                lines.append(f"{inner}: {_short(stored[key])} in the checkpoint, none now")
            else:
                lines += differences(stored[key], current[key], inner)
        if are_lists and not lines and list(stored) != list(current):
            return [f"{place}: order {_short(list(stored))} is now {_short(list(current))}"]
        return lines
    if stored == current and isinstance(stored, bool) == isinstance(current, bool):
        return []
    return [f"{place}: {_short(stored)} in the checkpoint, {_short(current)} now"]


def _opened(value: Any) -> Any:
    """Return the dict in a JSON text or in a list of named items; other values as they are."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        named = {_name_of(item): item for item in value}
        unique = len(named) == len(value) and None not in named
        return named if unique else dict(enumerate(value))
    return value


def _name_of(item: Any) -> str | None:
    if not isinstance(item, Mapping):
        return None
    name = item.get("name", str(item.get("_target_", "")).rpartition(".")[2])
    return name if isinstance(name, str) and name else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
