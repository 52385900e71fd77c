"""Refuse a misspelt override instead of ignoring it, as ``monai.bundle run`` does (MONAI 1.6.1)."""

import difflib
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent
from monai.bundle.utils import merge_kv

from metaseg_monai.errors import ConfigError
from metaseg_monai.training.weights import target_of

# arguments and settings that a bundle may set and a user unset
OFF_BY_NULL = ("spacing_mm", "margin_px", "objects_by", "dtype")
SIZES = ("roi_size", "spatial_size")  # pixels along each axis
NULL = "null"  # messages and files write None so; the command line passes it as text
TRUTH = {"true": True, "false": False}
REFERENCE = re.compile(r"[@%](\w+(?:(?:#|::)\w+)*)")
CASES = 'a component under "cases", see docs/bundles.md'
SHORT = {"out_of_range": "schema#out_of_range"}  # settings that have a name of their own
# What settings of former bundles have become.
MOVED = {
    "pad_size": "train#augmentation#0#spatial_size",
    "window_size": "window_inferer#roi_size",
    "lr_cycles": "lr_scheduler#cycles",
    "lr_decay": "lr_scheduler#decay",
    "checkpoint_interval": "train#checkpoint#every",
    "channel_conversion": "preprocessing#0#channels",
    "precision": "train#inferer#dtype and validate#inferer#dtype",
    "val_crop": "CenterSpatialCropd in validate#preprocessing",
    "mirror": "RandFlipd in train#augmentation",
    "rotate_degrees": "RandRotated in train#augmentation",
    "intensity_by": "ScaleIntensityBy in preprocessing",
    "flat_field": "FlatFieldd in preprocessing",
    "clean_up": "a setting of evaluate and predict",
    **dict.fromkeys(("balance", "homogeneous"), "EpochDraw under train#dataloader#draw"),
    "equal_steps": "fill_epoch under train#dataset#data, see docs/bundles.md",
    "schema_fields": "schema_file, a JSON file",
    **dict.fromkeys(("only", "train_only", "share", "empty_share", "data_seed"), CASES),
}


def check_overrides(
    config: Sequence[str | Path] | Mapping[str, Any], overrides: Mapping[str, Any]
) -> dict[str, Any]:
    """Accept only overrides that change something in the configuration.

    An override is accepted if it is an id of the configuration, if an expression or reference
    names it (also one in another override), or if it adds an argument that the ``_target_`` of its
    parent takes. Components within it may have no argument that their target does not take.

    Args:
        config: what `load_config` gives, or the files that are merged, in order.
        overrides: ``{id: value}`` such as ``{"epochs": 2, "train#trainer#max_epochs": 2}``.

    Returns:
        The overrides, with ``"true"`` and ``"false"`` as truth values where the default is one, and
        ``"null"``, as the command line passes it, as None.

    Raises:
        ConfigError: naming every unknown id with its nearest neighbours, and every value whose
            type is not that of the default.
    """
    overrides = {SHORT.get(name, name): value for name, value in overrides.items()}
    merged = config if isinstance(config, Mapping) else load_config(config)
    ids = dict(flatten(merged))
    given = {key.lstrip("+").replace("::", "#"): value for key, value in overrides.items()}
    accepted = ids.keys() | names_in([*ids.values(), *(value for _, value in flatten(given))])
    problems = []
    for key, name in zip(overrides, given, strict=True):
        parent = name.rpartition("#")[0]
        arguments = _arguments(given.get(parent, ids.get(parent)))
        if name not in accepted and not _takes(arguments, name.rpartition("#")[2]):
            problems.append(f"{key!r} ({_suggest(name, ids, sorted(accepted), arguments)})")
    for name, value in flatten(given):
        arguments = _arguments(value)
        for inner in value if arguments else ():
            if not inner.startswith("_") and not _takes(arguments, inner):
                near = difflib.get_close_matches(inner, arguments, n=1) or arguments
                told = f"{value['_target_']} takes {', '.join(near)}"
                problems.append(f"{name}#{inner!r} ({told})")
    if problems:
        raise ConfigError(f"Nothing in the configuration uses the override {'; '.join(problems)}.")
    return {
        key: _typed(key, ids.get(name), value)
        for (key, value), name in zip(overrides.items(), given, strict=True)
    }


def load_config(config_files: Sequence[str | Path]) -> dict[str, Any]:
    """Read and merge configuration files without running anything in them.

    The ids of a single file stay as written, such as "train#augmentation". Among several, what one
    changes within an id that those before it have not, such as "table#path" behind inference.json,
    concerns another workflow and is left out.

    Raises:
        ConfigError: for a missing or broken file.
    """
    if len(config_files) == 1:
        return read_config(config_files[0])
    parser = ConfigParser({})
    for file in config_files:
        for key, value in read_config(file).items():
            if "#" not in key or key.lstrip("+").partition("#")[0] in parser:
                merge_kv(parser, key, value)
    config: dict[str, Any] = parser.get()
    return config


def read_config(file: str | Path) -> dict[str, Any]:
    """Read one configuration file.

    Raises:
        ConfigError: it is missing or broken.
    """
    if not Path(file).is_file():
        raise ConfigError(f"There is no configuration file {file}.")
    try:
        content: dict[str, Any] = ConfigParser.load_config_file(str(file))
    except ValueError as error:
        raise ConfigError(f"Cannot read {file}: {error}. Mend the JSON.") from error
    if not isinstance(content, dict):
        raise ConfigError(f'{file}: expected {{"id": value, ...}}, got a {type(content).__name__}')
    return {key.replace("::", "#"): value for key, value in content.items()}


def _typed(key: str, default: Any, value: Any) -> Any:
    """Return a value of the default's type, or refuse; expressions and references pass."""
    last = key.replace("::", "#").rpartition("#")[2]
    if isinstance(value, tuple):  # fire reads 1,2 as one
        value = list(value)
    is_text = isinstance(default, str) and not _is_reference(default)
    if isinstance(value, str) and value.lower() in TRUTH and not is_text:
        value = TRUTH[value.lower()]
    if value == NULL:
        value = None
    if default is None or _is_reference(value) or _is_reference(default):
        return value
    if value is None and (is_text or last in OFF_BY_NULL):
        return value
    if type(default) is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(default, list) and default and type(default[0]) is type(value) is int:
        value = [value] * len(default)
    if isinstance(default, list) and default and type(default[0]) is type(value) is str:
        value = [value]
    kinds: dict[type, Any] = {bool: bool, int: int, float: (int, float), list: list, str: str}
    kind = kinds.get(type(default))
    is_truth = isinstance(value, bool)
    if kind and (not isinstance(value, kind) or is_truth != isinstance(default, bool)):
        raise ConfigError(
            f"The override {key!r} is {value!r}, but the setting is a {type(default).__name__} "
            f"such as {default!r}."
        )
    if last in SIZES and [type(size) for size in value] != [int] * len(default):
        raise ConfigError(
            f"The override {key!r} is {value!r}; expected {len(default)} whole numbers, one per "
            f"axis, such as {default!r}."
        )
    return value


def _is_reference(value: Any) -> bool:
    return isinstance(value, str) and value[:1] in "$@%"


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every id of a nested configuration with its value.

    >>> dict(flatten({"a": {"b": [1]}}))
    {'a': {'b': [1]}, 'a#b': [1], 'a#b#0': 1}
    """
    if prefix:
        yield prefix, value
    if isinstance(value, Mapping):
        children: Any = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    else:
        return
    for key, child in children:
        yield from flatten(child, f"{prefix}#{key}" if prefix else str(key))


def names_in(values: Sequence[Any]) -> set[str]:
    """The ids that references and expressions among some values name.

    >>> sorted(names_in(["@a#b", "$@c + 1", 3]))
    ['a#b', 'c']
    """
    texts = [value for value in values if isinstance(value, str)]
    return {match.replace("::", "#") for text in texts for match in REFERENCE.findall(text)}


def _arguments(component: Any) -> list[str]:
    """The arguments that a component's target takes; [] where it is no component."""
    if not isinstance(component, Mapping) or not ConfigComponent.is_instantiable(component):
        return []
    target = target_of(component["_target_"])
    if not callable(target):
        return []
    parameters = inspect.signature(target).parameters.values()
    return [str(one) if one.kind is one.VAR_KEYWORD else one.name for one in parameters]


def _takes(arguments: Sequence[str], name: str) -> bool:
    return name in arguments or any(argument.startswith("**") for argument in arguments)


def _suggest(
    name: str, ids: Mapping[str, Any], accepted: Sequence[str], arguments: Sequence[str]
) -> str:
    if name in MOVED:
        return f"it is now {MOVED[name]}"
    if name.partition("#")[0] == "table":
        return "data are generated by configs/simulate.json, or a simulator under table#path"
    last = name.rpartition("#")[2]
    same_end = [known for known in accepted if known.rpartition("#")[2] == last]
    same_end += [f"{known}#{last}" for known, part in ids.items() if last in _arguments(part)]
    near = difflib.get_close_matches(last, arguments, n=2, cutoff=0.6)
    near += difflib.get_close_matches(name, accepted, n=3, cutoff=0.6)
    found = list(dict.fromkeys([*same_end[:2], *near]))[:3]
    if found:
        return "did you mean " + " or ".join(found) + "?"
    return "see the top of configs/train.json for the settings"
