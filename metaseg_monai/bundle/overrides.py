"""Refuse a misspelt override instead of ignoring it, as ``monai.bundle run`` does (MONAI 1.6.1)."""

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.config_item import ComponentLocator, ConfigComponent

from metaseg_monai.errors import ConfigError

# numbers and lists that a bundle may set and a user unset
OFF_BY_NULL = ("spacing_mm", "empty_share", "margin_px", "val_crop", "objects_by")
NULL = "null"  # messages and files write None so; the command line passes it as text
TRUTH = {"true": True, "false": False}
REFERENCE = re.compile(r"[@%](\w+(?:(?:#|::)\w+)*)")


def check_overrides(
    config_files: Sequence[str | Path], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Accept only overrides that change something in the configuration.

    An override is accepted if it is an id of the configuration, if an expression or reference
    names it, or if it adds an argument that the ``_target_`` of its parent takes.

    Args:
        config_files: the files that are merged, in order.
        overrides: ``{id: value}`` such as ``{"epochs": 2, "train#trainer#max_epochs": 2}``.

    Returns:
        The overrides, with ``"true"`` and ``"false"`` as truth values where the default is one, and
        ``"null"``, as the command line passes it, as None.

    Raises:
        ConfigError: naming every unknown id with its nearest neighbours, and every value whose
            type is not that of the default.
    """
    config = load_config(config_files)
    ids = dict(_flatten(config))
    named = {
        match.replace("::", "#")
        for value in ids.values()
        if isinstance(value, str)
        for match in REFERENCE.findall(value)
    }
    accepted = ids.keys() | named
    problems = []
    for key in overrides:
        name = key.replace("::", "#")
        arguments = _parent_arguments(ids, name)
        if name not in accepted and name.rpartition("#")[2] not in arguments:
            problems.append(f"{key!r} ({_suggest(name, sorted(accepted), arguments)})")
    if problems:
        raise ConfigError(
            f"Nothing in {', '.join(Path(file).name for file in config_files)} uses the override "
            f"{'; '.join(problems)}."
        )
    return {
        key: _typed(key, ids.get(key.replace("::", "#")), value) for key, value in overrides.items()
    }


def load_config(config_files: Sequence[str | Path]) -> dict[str, Any]:
    """Read and merge configuration files without running anything in them.

    Raises:
        ConfigError: for a missing or broken file.
    """
    for file in config_files:
        if not Path(file).is_file():
            raise ConfigError(f"There is no configuration file {file}.")
    try:
        return ConfigParser.load_config_files([str(file) for file in config_files])
    except ValueError as error:
        raise ConfigError(
            f"Cannot read {', '.join(map(str, config_files))}: {error}. Mend the JSON."
        ) from error


SIZES = ("roi_size", "window_size", "pad_size")  # pixels along each axis


def _typed(key: str, default: Any, value: Any) -> Any:
    """Return a value of the default's type, or refuse; expressions and references pass."""
    if isinstance(value, tuple):  # fire reads 1,2 as one
        value = list(value)
    is_text = isinstance(default, str) and not _is_reference(default)
    if isinstance(value, str) and value.lower() in TRUTH and not is_text:
        value = TRUTH[value.lower()]
    if value == NULL:
        value = None
    if default is None or _is_reference(value) or _is_reference(default):
        return value
    if value is None and (is_text or key in OFF_BY_NULL):
        return value
    if type(default) is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(default, list) and default and type(default[0]) is type(value) is int:
        value = [value] * len(default)
    kinds: dict[type, Any] = {bool: bool, int: int, float: (int, float), list: list, str: str}
    kind = kinds.get(type(default))
    is_truth = isinstance(value, bool)
    if kind and (not isinstance(value, kind) or is_truth != isinstance(default, bool)):
        raise ConfigError(
            f"The override {key!r} is {value!r}, but the setting is a {type(default).__name__} "
            f"such as {default!r}."
        )
    if key in SIZES and [type(size) for size in value] != [int] * len(default):
        raise ConfigError(
            f"The override {key!r} is {value!r}; expected {len(default)} whole numbers, one per "
            f"axis, such as {default!r}."
        )
    return value


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and value[:1] in "$@%"


def _flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every id of a nested configuration with its value."""
    if prefix:
        yield prefix, value
    if isinstance(value, Mapping):
        children: Any = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    else:
        return
    for key, child in children:
        yield from _flatten(child, f"{prefix}#{key}" if prefix else str(key))


def _parent_arguments(ids: Mapping[str, Any], name: str) -> list[str]:
    """Return the arguments that the component holding this id takes; [] if it is none."""
    parent = ids.get(name.rpartition("#")[0])
    if not isinstance(parent, Mapping) or not ConfigComponent.is_instantiable(parent):
        return []
    module = ConfigComponent(dict(parent), locator=ComponentLocator()).resolve_module_name()
    target = locate(module) if isinstance(module, str) else module
    return list(inspect.signature(target).parameters) if callable(target) else []


def _suggest(name: str, ids: Sequence[str], arguments: Sequence[str]) -> str:
    last = name.rpartition("#")[2]
    same_end = [known for known in ids if known.rpartition("#")[2] == last]
    near = difflib.get_close_matches(last, arguments, n=2, cutoff=0.6)
    near += difflib.get_close_matches(name, ids, n=3, cutoff=0.6)
    found = list(dict.fromkeys([*same_end[:2], *near]))[:3]
    if found:
        return "did you mean " + " or ".join(found) + "?"
    return "see the top of configs/train.json for the settings"
