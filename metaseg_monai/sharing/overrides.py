"""Refuse a misspelt override instead of ignoring it, as ``monai.bundle run`` does (MONAI 1.6.1)."""

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.config_item import ComponentLocator, ConfigComponent

from metaseg_monai.errors import ConfigError

REFERENCE = re.compile(r"[@%](\w+(?:(?:#|::)\w+)*)")


def check_overrides(config_files: Sequence[str | Path], overrides: Mapping[str, Any]) -> None:
    """Accept only overrides that change something in the configuration.

    An override is accepted if it is an id of the configuration, if an expression or reference
    names it, or if it adds an argument that the ``_target_`` of its parent takes.

    Args:
        config_files: the files that are merged, in order.
        overrides: ``{id: value}`` such as ``{"epochs": 2, "train#trainer#max_epochs": 2}``.

    Raises:
        ConfigError: naming every unknown id with its nearest neighbours.
    """
    config = load_config(config_files)
    ids = dict(_flatten(config))
    named = {
        match.replace("::", "#")
        for value in ids.values()
        if isinstance(value, str)
        for match in REFERENCE.findall(value)
    }
    workflow = set(inspect.signature(ConfigWorkflow.__init__).parameters) - {"self", "properties"}
    accepted = ids.keys() | named | workflow
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
