"""The one door through which values reach MONAI's parser: checked, and unread where they are data.

A misspelt override is refused instead of ignored, as ``monai.bundle run`` does (MONAI 1.6.1).
"""

import ast
import difflib
import inspect
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent
from monai.bundle.properties import InferProperties, TrainProperties
from monai.bundle.utils import merge_kv

from metaseg_monai.errors import ConfigError
from metaseg_monai.files import text_file
from metaseg_monai.metadata.fields import read_number
from metaseg_monai.training.weights import target_of

# arguments and settings that a bundle may set and a user unset
OFF_BY_NULL = ("spacing_mm", "margin_px", "objects_by", "dtype")
# Settings, and arguments of components, that hold what is in a table or a schema: never read.
VALUES = {
    *("balance", "class_names", "clean_up", "displayable_configs", "domain", "estimate_field"),
    *("explain_gate", "homogeneous", "metadata", "modes", "objects", "objects_by", "only"),
    *(
        "prediction_form",
        "regions",
        "segments",
        "share",
        "shuffle",
        "split",
        "tolerance",
        "variant",
    ),
}
BY_FIELD = VALUES | {"metadata_dropout"}  # what is in these may have the name of any field
PLACE = re.compile(r"\w+_(dir|file|path)|bundle_root|predicted_metadata")
SIZES = ("roi_size", "spatial_size")  # pixels along each axis
LARGEST = 1 << 20  # of these
COUNTS = ("epochs", "max_epochs", "batch_size", "val_batch_size", "sw_batch_size", "val_interval")
SHARE = re.compile(r"\w+_share")
STEPS = ("preprocessing", "augmentation", "postprocessing")  # lists of components
PLAIN = (str, int, float, Path, Mapping, list, type(None))
NULL = "null"  # messages and files write None so; the command line passes it as text
TRUTH = {"true": True, "false": False}
REFERENCE = re.compile(r"[@%](\w+(?:(?:#|::)\w+)*)")
CASES = 'a component under "cases", see docs/bundles.md'
# Settings that have a name of their own.
SHORT = {"out_of_range": "schema#out_of_range", "mask_values": "table#mask_values"}
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


def as_data(value: Any) -> Any:
    r"""Return a value so that MONAI's parser gives just this value, whatever is in it.

    Text that MONAI would read, with ``$``, ``@`` or ``%`` at its beginning or ``#`` anywhere,
    becomes an expression of itself in which these are escaped; so does a mapping with such keys.

    >>> as_data({"output_dir": "run#1", "epochs": 2})
    {'output_dir': "$'run\\x231'", 'epochs': 2}
    """
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        return f"${literal(value)}" if _is_read(value) else value
    if isinstance(value, Mapping):
        if any(not isinstance(key, str) or _is_read(key) or key[:1] in "_" for key in value):
            return f"${literal(dict(value))}"
        return {key: as_data(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_data(inner) for inner in value]
    return value


def literal(value: Any) -> str:
    """The value as Python writes it, in which MONAI's parser finds nothing to read."""
    text = repr(value).replace("::", r"\x3a\x3a")
    for character in "#@$%":
        text = text.replace(character, f"\\x{ord(character):x}")
    return text


def meant(value: Any) -> tuple[bool, Any]:
    """Whether a value is the expression of plain values, as `as_data` makes them, and of which.

    >>> meant(as_data("$b")), meant("$1 + 1")
    ((True, '$b'), (False, None))
    """
    if isinstance(value, str) and value[:1] == "$":
        try:
            return True, ast.literal_eval(value[1:].strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            pass
    return False, None


def read_back(value: Any) -> Any:
    """What a value means that `as_data` has made, or may have made."""
    is_plain, plainly = meant(value)
    if is_plain:
        return plainly
    if isinstance(value, Mapping):
        return {key: read_back(inner) for key, inner in value.items()}
    return [read_back(inner) for inner in value] if isinstance(value, list) else value


def _is_read(text: str) -> bool:
    return text[:1] in ("$", "@", "%") or "#" in text or "::" in text


def entered(name: str, value: Any, default: Any = None, written: bool = False) -> Any:
    """Return what MONAI's parser is given for a setting: data as data, all else as it is.

    Names, metadata and modes are data wherever they are given; paths and other text where a user
    types them. In a file that is written in MONAI's language, or recorded in it, ``$``, ``@`` and
    ``%`` at the beginning of other values keep their meaning. So does an argument that is the
    setting of its own name, ``"variant": "@variant"``, as bundles hand them on.

    Args:
        name: id of the setting.
        value: as it was given.
        default: of the bundle.
        written: whether the value stands in such a file.
    """
    if _is_data(name, default, written) and not _is_handed_on(name, value):
        return value if written and meant(value)[0] else _entered_data(value, written)
    if isinstance(value, Mapping):
        defaults = default if isinstance(default, Mapping) else {}
        return {
            key: entered(f"{name}#{key}", inner, defaults.get(key), written)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [entered(f"{name}#{place}", one, None, written) for place, one in enumerate(value)]
    if isinstance(value, str) and value[:1] in ("$", "@", "%"):
        return value
    return as_data(value)


def _is_data(name: str, default: Any, written: bool) -> bool:
    last = name.rpartition("#")[2]
    if last in VALUES or name.partition("#")[0] in VALUES:
        return True
    return not written and bool(PLACE.fullmatch(last) or _is_text(default))


def _is_handed_on(name: str, value: Any) -> bool:
    """Whether an argument is the setting of its own name: "variant": "@variant" of a component."""
    first, _, inner = name.partition("#")
    return bool(inner) and first not in VALUES and value == f"@{inner.rpartition('#')[2]}"


def _entered_data(value: Any, written: bool) -> Any:
    """Data of which some may have been entered before."""
    if written and isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        if not any(_is_read(key) or key[:1] in "_" for key in value):
            return {key: _entered_data(inner, written) for key, inner in value.items()}
    elif written and isinstance(value, list):
        return [_entered_data(inner, written) for inner in value]
    return value if written and meant(value)[0] else as_data(value)


def _is_text(default: Any) -> bool:
    """Whether a default is text, or holds some, and no reference, expression or component."""
    inner = [value for _, value in flatten(default, "x")]
    texts = [value for value in inner if isinstance(value, str)]
    parts = [value for value in inner if isinstance(value, Mapping) and "_target_" in value]
    return bool(texts) and not parts and not any(map(_is_reference, texts))


FOLD = "metaseg_monai.tables.fold_cases"


def in_fold(cases: Any, fold: int) -> dict[str, Any]:
    """The setting `cases` of a bundle on one fold of the table, before all else is selected.

    Where it draws a fold already, as to set the share of the validation, that one is exchanged.

    Args:
        cases: the setting as it is, a component on a table, or a reference to it.
        fold: that is tested.

    >>> in_fold("@table", 1)
    {'_target_': 'metaseg_monai.tables.fold_cases', 'table': '@table', 'fold': 1}
    >>> in_fold({"_target_": FOLD, "table": "@table", "fold": 2, "seed": 7}, 1)
    {'_target_': 'metaseg_monai.tables.fold_cases', 'table': '@table', 'fold': 1, 'seed': 7}
    """
    if isinstance(cases, Mapping) and cases.get("_target_") == FOLD:
        return {**cases, "fold": fold}
    if not isinstance(cases, Mapping):
        return {"_target_": FOLD, "table": cases, "fold": fold}
    return {**cases, "table": in_fold(cases.get("table", "@table"), fold)}


def fold_of(cases: Any) -> int | None:
    """The fold that a setting `cases` tests; None where it knows none.

    >>> fold_of(in_fold({"_target_": "metaseg_monai.tables.select_cases"}, 1))
    1
    """
    if not isinstance(cases, Mapping):
        return None
    own = cases.get("fold") if cases.get("_target_") == FOLD else None
    return own if isinstance(own, int) else fold_of(cases.get("table"))


def across_folds(cases: Any) -> Any:
    """The setting `cases` of a fold on the fixed test set, which no fold has trained on.

    >>> across_folds(in_fold("@table", 1))["fold"]
    """
    if not isinstance(cases, Mapping):
        return cases
    own = {"fold": None} if cases.get("_target_") == FOLD else {}
    return {**cases, "table": across_folds(cases.get("table")), **own}


def check_overrides(
    config: Sequence[str | Path] | Mapping[str, Any],
    overrides: Mapping[str, Any],
    written: bool | Collection[str] = (),
) -> dict[str, Any]:
    """Accept only overrides that change something in the configuration.

    An override is accepted if it is an id of the configuration, if an expression or reference
    names it (also one in another override), or if it adds an argument that the ``_target_`` of its
    parent takes. Components within it may have no argument that their target does not take.

    Args:
        config: what `load_config` gives, or the files that are merged, in order.
        overrides: ``{id: value}`` such as ``{"epochs": 2, "train#trainer#max_epochs": 2}``.
        written: the names of those that are in MONAI's language (see `entered`); True for all.

    Returns:
        The overrides as MONAI's parser is to be given them, with ``"true"`` and ``"false"`` as
        truth values where the default is one, and
        ``"null"``, as the command line passes it, as None.

    Raises:
        ConfigError: naming every unknown id with its nearest neighbours, and every value whose
            type is not that of the default.
    """
    overrides = {key: unwrapped(value) for key, value in overrides.items()}
    overrides = {SHORT.get(name, name): value for name, value in overrides.items()}
    merged = config if isinstance(config, Mapping) else load_config(config)
    ids = dict(flatten(merged))
    in_monai = {SHORT.get(name, name) for name in (overrides if written is True else written or ())}
    given: dict[str, Any] = {}
    for key, override in overrides.items():
        name = key.lstrip("+").replace("::", "#")
        value = entered(name, override, ids.get(name), key in in_monai)
        if key.startswith("+") and isinstance(value, Mapping):  # merged into what is there
            given |= {f"{name}#{inner}": one for inner, one in value.items()}
        else:
            given[name] = value
    accepted = ids.keys() | names_in([*ids.values(), *(value for _, value in flatten(given))])
    problems = []
    for name in given:
        parent = name.rpartition("#")[0]
        component = given.get(parent, ids.get(parent))
        if isinstance(component, Mapping) and f"{parent}#_target_" in given:
            component = {**component, "_target_": given[f"{parent}#_target_"]}
        arguments = arguments_of(component)
        if name not in accepted and not _takes(arguments, name.rpartition("#")[2]):
            problems.append(f"{name!r} ({_suggest(name, ids, sorted(accepted), arguments)})")
    for name, value in flatten(given):
        arguments = arguments_of(value)
        for inner in value if arguments else ():
            if not inner.startswith("_") and not _takes(arguments, inner):
                near = difflib.get_close_matches(inner, arguments, n=1) or arguments
                told = f"{value['_target_']} takes {', '.join(near)}"
                problems.append(f"{name}#{inner!r} ({told})")
    if problems:
        raise ConfigError(f"Nothing in the configuration uses the override {'; '.join(problems)}.")
    _refuse_no_component(ids, given)
    _refuse_lost(ids, given)
    _refuse_unfinished(given)
    return to_parser(merged, overrides, in_monai)


# What MONAI reads by itself, and our commands in whatever bundle, though nothing refers to it.
READ = {
    *("imports", "initialize", "run", "finalize", "composed"),
    *(str(one["id"]).partition("::")[0] for one in {**TrainProperties, **InferProperties}.values()),
    *("classes", "in_channels", "metadata_dropout", "pretrained_file", "target"),
    # shared by all bundles, whether their networks, recipes and labels have a use of them or not
    *("sample_cases", "estimate_channels", "estimate_scales"),
}


def _top(key: str) -> str:
    return key.lstrip("+").partition("#")[0]


def unused_in(config: Mapping[str, Any], used: Collection[str]) -> list[str]:
    """The keys of a configuration that nothing reads: no reference, MONAI or command of ours.

    Args:
        config: as it is written.
        used: as of `refuse_unused`.
    """
    names = READ | {_top(one) for one in used}

    def runs(value: Any) -> bool:
        return any(_is_reference(one) for one in (value if isinstance(value, list) else [value]))

    return [
        key
        for key, value in config.items()
        if _top(key) not in names and not key.startswith("_") and not runs(value)
    ]


def refuse_unused(own: Mapping[str, Mapping[str, Any]], used: Collection[str]) -> None:
    """Refuse what stands in a bundle's own configurations and nothing there uses.

    An expression may be run by its name alone, and a name that begins with ``_`` is a remark.

    Args:
        own: what `read_config` gives, by file.
        used: ids that references name, in whatever configuration of the bundle.

    Raises:
        ConfigError: naming every such key with its nearest neighbours.
    """
    names = READ | {one.partition("#")[0] for one in used}
    known = sorted(names & {key for config in own.values() for key in config})
    problems = [
        f"{file}: {key!r} ({_suggest(_top(key), {}, known, ())})"
        for file, config in own.items()
        for key in unused_in(config, used)
    ]
    if problems:
        raise ConfigError(
            f"Nothing in the configuration uses {'; '.join(problems)}. Correct the name, or remove "
            "it."
        )


def to_parser(
    config: Mapping[str, Any], overrides: Mapping[str, Any], written: Collection[str] = ()
) -> dict[str, Any]:
    """Return overrides as MONAI's parser is to be given them; nothing that they name is imported.

    Args:
        config: what `load_config` gives.
        overrides: ``{id: value}``.
        written: the names of those that are in MONAI's language.

    Raises:
        ConfigError: a value is not of the default's type, or there is no place for it.
    """
    ids = dict(flatten(config))
    in_monai = {SHORT.get(name, name) for name in written}
    checked = {}
    for key, value in ((SHORT.get(key, key), unwrapped(one)) for key, one in overrides.items()):
        name, is_written = key.lstrip("+").replace("::", "#"), key in in_monai
        default = ids.get(name)
        is_data = not is_written and _is_data(name, default, is_written)
        checked[key] = entered(name, _typed(key, default, value, is_data), default, is_written)
    _refuse_without_place(ids, checked)
    return checked


def _refuse_without_place(ids: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse overrides of what is inside of nothing, of a value, or behind the end of a list."""
    wholes = {**ids, **dict(flatten(given))}
    for key in given:
        name = key.lstrip("+").replace("::", "#")
        parent, _, last = name.rpartition("#")
        whole = wholes.get(parent)
        is_list = isinstance(whole, list) and last.isdecimal() and int(last) < len(whole)
        if parent and not is_list and not isinstance(whole, Mapping):
            near = difflib.get_close_matches(name, list(ids), n=2, cutoff=0.6)
            told = f"did you mean {' or '.join(near)}?" if near else f"{parent} has no such part"
            raise ConfigError(f"Nothing in the configuration uses the override {name!r} ({told}).")


def _refuse_no_component(ids: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse what stands in a component's place and names no class."""
    for name, value in given.items():
        before = ids.get(name)
        if not isinstance(before, Mapping) or "_target_" not in before:
            continue
        is_mapping = isinstance(value, Mapping)
        has_class = is_mapping and ("_target_" in value or f"{name}#_target_" in given)
        if value is None or (is_mapping and not has_class):
            raise ConfigError(
                f"{name!r} is a component: give it a class in '_target_', such as "
                f"{before['_target_']}, with its arguments; got {value!r}."
            )


def _refuse_lost(ids: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse what replaces a whole of which parts are still used."""
    for name, value in given.items():
        before = ids.get(name)
        if not (isinstance(before, Mapping) and isinstance(value, Mapping)):
            continue
        others = [one for key, one in ids.items() if not isinstance(one, Mapping | list)]
        inside = {f"{name}#{key}": one for key, one in flatten(value)}
        used = names_in([*others, *inside.values()])
        lost = [key for key in ids if key.startswith(f"{name}#") and key in used]
        lost = [key for key in lost if key not in inside and key not in given]
        if lost:
            parts = ", ".join(key.removeprefix(f"{name}#") for key in lost[:3])
            raise ConfigError(
                f"{name!r} is replaced as a whole, and has no {parts} any more, which is used. "
                f"Give parts of it alone, such as {f'{name}#{next(iter(value), parts)}'!r}."
            )


def _refuse_unfinished(given: Mapping[str, Any]) -> None:
    """Refuse components without an argument that their target needs."""
    for name, value in flatten(given):
        if not isinstance(value, Mapping) or value.get("_mode_") == "callable":
            continue
        missing = [one for one in arguments_of(value, needed=True) if one not in value]
        if missing and not any(key.startswith(f"{name}#") for key in given):
            raise ConfigError(f"{name}: {value['_target_']} needs {', '.join(missing)}; add it.")


def unwrapped(value: Any) -> Any:
    """The plain number or list that an array of NumPy or PyTorch holds; other values as they are.

    >>> import numpy as np
    >>> unwrapped(np.int64(3)), unwrapped((np.uint8(0), 32)), unwrapped("3")
    (3, [0, 32], '3')
    """
    if isinstance(value, list | tuple):
        return [unwrapped(one) for one in value]
    if isinstance(value, dict):
        return {key: unwrapped(one) for key, one in value.items()}
    return value.tolist() if hasattr(value, "dtype") and hasattr(value, "tolist") else value


def load_config(config_files: Sequence[str | Path], bundle: Path | None = None) -> dict[str, Any]:
    """Read and merge configuration files without running anything in them.

    The ids of a single file stay as written, such as "train#augmentation". Among several, what one
    changes within an id that those before it have not, such as "table#path" behind inference.json,
    concerns another workflow and is left out. What files beside those of the bundle give is
    `entered`.

    Raises:
        ConfigError: for a missing or broken file.
    """
    if len(config_files) == 1:
        return read_config(config_files[0])
    parser = ConfigParser({})
    for file in config_files:
        is_own = bundle is None or Path(file).parent == bundle / "configs"
        for key, given in read_config(file).items():
            value = given if is_own else entered(key.lstrip("+"), given, written=True)
            if "#" not in key or key.lstrip("+").partition("#")[0] in parser:
                merge_kv(parser, key, value)
    config: dict[str, Any] = parser.get()
    return config


def read_config(file: str | Path) -> dict[str, Any]:
    """Read one configuration file.

    Raises:
        ConfigError: it is missing or broken, steps of the processing are no components, or a size,
            number or share is none.
    """
    if not Path(file).is_file():
        raise ConfigError(f"There is no configuration file {file}.")
    try:
        content: dict[str, Any] = ConfigParser.load_config_file(str(text_file(file)))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"Cannot read {file}: {error}. Mend the JSON.") from error
    if not isinstance(content, dict):
        raise ConfigError(f'{file}: expected {{"id": value, ...}}, got a {type(content).__name__}')
    content = {key.replace("::", "#"): value for key, value in content.items()}
    for name, value in flatten(content):
        _check_value(f"{file}: {name}", name, value)
    return content


def _check_value(place: str, name: str, value: Any) -> None:
    """Refuse what is no list of steps, size, number or share where the setting's name says one."""
    *parents, last = name.replace("::", "#").split("#")
    if BY_FIELD.intersection(parents):
        return
    if last in STEPS:
        _check_steps(place, value)
    if _is_reference(value):
        return
    expected = None
    if last in SIZES and _is_beyond(value):
        expected = f"at most {LARGEST} pixels along an axis"
    elif last in SIZES and not _are_sizes(value):
        expected = "whole numbers, one per axis, such as [64, 64]"
    elif last in COUNTS and (type(value) is not int or value < 1):
        expected = "a whole number from 1"
    elif SHARE.fullmatch(last) and not _is_share(value):
        expected = "a share from 0 to 1"
    if expected is not None:
        raise ConfigError(f"{place} is {value!r:.80}; expected {expected}.")


def _check_steps(place: str, value: Any) -> None:
    """Accept a list of components and references, a component, or a reference."""
    steps = value if isinstance(value, list) else [value]
    if not all(_is_reference(one) or isinstance(one, Mapping) for one in steps):
        raise ConfigError(
            f"{place} is {value!r:.80}; expected a list of components such as "
            '[{"_target_": "metaseg_monai.transforms.LoadCased"}]'
        )


def _are_sizes(sizes: Any) -> bool:
    numbers = sizes if isinstance(sizes, list) else [sizes]
    return bool(numbers) and all(type(one) is int or _is_reference(one) for one in numbers)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and 0 <= value <= 1


def _is_beyond(sizes: Any) -> bool:
    numbers = sizes if isinstance(sizes, list) else [sizes]
    return any(isinstance(one, int | float) and one > LARGEST for one in numbers)


def _typed(key: str, default: Any, value: Any, is_data: bool = False) -> Any:
    """Return a value of the default's type, or refuse; expressions and references pass."""
    last = key.replace("::", "#").rpartition("#")[2]
    if isinstance(value, tuple):  # fire reads 1,2 as one
        value = list(value)
    is_text = isinstance(default, str) and not _is_reference(default)
    if PLACE.fullmatch(last) and isinstance(value, bool | int | float):
        raise ConfigError(f"The override {key!r} is {value!r}; expected a path.")
    if not isinstance(value, PLAIN):
        raise ConfigError(
            f"The override {key!r} is an object of Python ({type(value).__name__}); expected plain "
            'values, for a component such as {"_target_": "torch.nn.L1Loss"}.'
        )
    is_component = isinstance(default, Mapping) and "_target_" in default
    if is_component and isinstance(value, bool | int | float):
        raise ConfigError(
            f"The override {key!r} is {value!r}, but the setting is a component such as "
            f'{{"_target_": "{default["_target_"]}"}}.'
        )
    if last == "device" and not _is_reference(value):
        _check_device(value)
    if isinstance(value, str) and value.lower() in TRUTH and not is_text:
        value = TRUTH[value.lower()]
    if value == NULL:
        value = None
    if type(default) is int and isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is not None or last in STEPS:
        _check_value(f"The override {key!r}", key, value)
    if default is None or (_is_reference(value) and not is_data) or _is_reference(default):
        return value
    if value is None and (is_text or last in OFF_BY_NULL):
        return value
    if isinstance(default, list) and default and type(default[0]) is type(value) is int:
        value = [value] * len(default)
    if isinstance(default, list) and default and type(default[0]) is type(value) is str:
        value = [value]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_text and is_number and read_number(default) is not None:
        value = str(value)  # fire reads the text 60 as a number
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


def _check_device(value: Any) -> None:
    try:
        torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"The device is {value!r}; expected cpu, cuda, cuda:1 or mps.") from error


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


def arguments_of(component: Any, needed: bool = False) -> list[str]:
    """The arguments that a component's target takes, or needs; [] where it is no component."""
    if not isinstance(component, Mapping) or not ConfigComponent.is_instantiable(component):
        return []
    target = target_of(component["_target_"])
    if not callable(target):
        return []
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # of what is written in C
        return []
    if needed:
        named = [one for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)]
        return [one.name for one in named if one.default is one.empty]
    return [str(one) if one.kind is one.VAR_KEYWORD else one.name for one in parameters]


def _takes(arguments: Sequence[str], name: str) -> bool:
    """Whether a target takes an argument; one with ``**`` takes any that is no misspelt name.

    >>> _takes(["mode", "**kwargs"], "value"), _takes(["mode", "**kwargs"], "modee")
    (True, False)
    """
    if any(argument.startswith("**") for argument in arguments):
        near = difflib.get_close_matches(name, arguments, n=1, cutoff=0.8)
        return name in arguments or not near
    return name in arguments


def _suggest(
    name: str, ids: Mapping[str, Any], accepted: Sequence[str], arguments: Sequence[str]
) -> str:
    if name in MOVED:
        return f"it is now {MOVED[name]}"
    if name.partition("#")[0] == "table":
        return "data are generated by configs/simulate.json, or a simulator under table#path"
    last = name.rpartition("#")[2]
    same_end = [known for known in accepted if known.rpartition("#")[2] == last]
    same_end += [f"{known}#{last}" for known, part in ids.items() if last in arguments_of(part)]
    near = difflib.get_close_matches(last, arguments, n=2, cutoff=0.6)
    near += difflib.get_close_matches(name, accepted, n=3, cutoff=0.6)
    found = list(dict.fromkeys([*same_end[:2], *near]))[:3]
    if found:
        return "did you mean " + " or ".join(found) + "?"
    return "see the top of configs/train.json for the settings"
