"""In what two sets of settings differ, in words."""

import json
from collections.abc import Mapping
from typing import Any

_SHOWN = 80  # characters of a value in a message


def differences(stored: Any, current: Any, place: str = "") -> list[str]:
    """Return one line per difference between plain values; empty where they agree.

    Text that holds a JSON object, such as a metadata schema, is compared by content. Items of a
    list are known by their "name" where they have one.

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
    if isinstance(value, list) and value and all(_is_named(item) for item in value):
        named = {item["name"]: item for item in value}
        return named if len(named) == len(value) else value
    return value


def _is_named(item: Any) -> bool:
    return isinstance(item, Mapping) and isinstance(item.get("name"), str)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
