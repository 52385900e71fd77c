"""What the configuration that runs says of itself: its folder, and itself as it was changed.

MONAI gives a configuration no way to its own folder or text, so both are found once, on the stack.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.bundle.config_item import ConfigExpression
from monai.utils import ensure_tuple

from metaseg_monai.bundle.overrides import meant
from metaseg_monai.errors import ConfigError, as_refusal
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.tables.licenses import data_license
from metaseg_monai.tables.table import CaseTable, given_rows

REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")
# Where things lie, and what is told by its content instead: no part of what a run is.
PLACES = {
    *(
        "bundle_root",
        "dataset_dir",
        "output_dir",
        "results_dir",
        "ckpt_path",
        "schema_file",
        "columns_file",
    ),
    *("device", "resume", "schema", "table", "encode", "_meta_"),
}
PATHS = ("dataset_dir", "output_dir", "ckpt_path", "schema_file", "columns_file")
RUN = (
    *("variant", "seed", "network", "loss", "optimizer", "lr_scheduler", "prepare_batch"),
    *("train#dataset", "train#dataloader", "train#inferer", "validate#preprocessing"),
)
OF_SOME = ("adversary",)  # likewise, of those trainings that have it
TESTED = (
    "items",
    "guidance",
    "draws",
    "mirror",
    "validate#dataset",
    "validate#inferer",
    "validate#handlers",
)
PLAIN = (str, int, float, bool, type(None))


def own_root() -> str:
    """Return the folder of the bundle whose configuration is being read.

    For ``"bundle_root": "$bundle.own_root()"``: it works from any working directory, and two copies
    of a bundle in one process each get their own folder. MONAI's `run`, `load`, `create_workflow`,
    `ckpt_export` and `verify_net_in_out` say which files they read, and so does MONAI Deploy. A
    bare `ConfigParser` does not, and the working directory may be another copy: then the folder
    must be given.

    Raises:
        ConfigError: the files that are read are not known, or are those of no bundle; or a path
            that was given held a ``#``, which MONAI has made something else of.
    """
    parser, configs = _running()
    for name in PATHS:
        value = None if parser is None else parser.get(name)
        if isinstance(value, str) and value[:1] != "$" and "::" in value:
            raise ConfigError(
                f"{name} is {value}: monai.bundle reads # in a path as ::. Use the commands of "
                "python -m metaseg_monai, which do not, or a path without # and ::."
            )
    if configs is not None and (configs / "metadata.json").is_file():
        return str(configs.resolve().parent)
    why = "a bare ConfigParser does not tell which files it has read"
    if configs is not None:
        why = f"{configs} holds no metadata.json"
    raise ConfigError(
        f"The folder of this bundle is not known: {why}. Give it: --bundle_root DIR on the command "
        'line, bundle_root="DIR" or parser["bundle_root"] = "DIR" in Python.'
    )


def effective(*names: str) -> dict[str, Any]:
    """Return what parts of the running configuration say, as merged and overridden.

    A reference to a plain value is replaced by that value; components that are referred to are
    returned beside those asked for. Folders, files and the device are left out, so that the same
    run elsewhere says the same; metadata schema and table are known by their content.

    Args:
        names: ids, such as "network_def" or "train#augmentation".

    Returns:
        ``{id: plain values}``.
    """
    parser, _ = _running()
    if parser is None:
        raise ConfigError("effective() tells of the configuration that calls it; none is running.")
    found: dict[str, Any] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop(0).replace("::", "#")
        if name not in found and name.partition("#")[0] not in PLACES:
            found[name] = _substituted(parser, parser.get(name), waiting)
    return json.loads(json.dumps(found))


def given(roi_size: Sequence[int]) -> list[dict[str, Any]] | None:
    """The cases that an application has put in the place of the bundle's own.

    MONAI Label sets ``train#dataset#data`` and ``validate#dataset#data`` to lists of image and
    label, of which `read_table` makes the table of this training, so that none is looked for.

    Args:
        roi_size: of the training; where it has two axes, volumes are taken as axial planes.

    Returns:
        Rows of a table; None where there are no such lists.

    Raises:
        DataError: a case has no image or no label that is there.
    """
    parser, _ = _running()
    lists = {
        split: [] if parser is None else parser.get(f"{stage}#dataset#data")
        for split, stage in (("train", "train"), ("val", "validate"))
    }
    if not isinstance(lists["train"], list) or not lists["train"]:
        return None
    of_split = {split: items for split, items in lists.items() if isinstance(items, list)}
    return given_rows(of_split, len(roi_size))


def facts(cases: CaseTable | None = None) -> dict[str, Any]:
    """Return what weights must tell of the network that ran (contract 27).

    `network`, `preprocessing` and `window` are components as they are made: references and
    expressions stand as the component or plain value that they come to, where they come to one.
    `BestWeights` adds their defaults; `variant` is that of the network, where it has one;
    `unknown_trained` is whether training drops metadata; `refers_to` holds further components that
    these name.

    Args:
        cases: whose classes are trained; `class_names` are those that the data set tells, by
            number, never those of the bundle's metadata.json, which was written for other data.

    Raises:
        ConfigError: a class has a name and the network no such class.
    """
    parser, _ = _running()
    known = effective("network_def", "preprocessing")
    network, preprocessing = (
        _made(parser, known[name], known, name) for name in ("network_def", "preprocessing")
    )
    named_still = json.dumps([network, preprocessing])
    known = {
        name: part
        for name, part in known.items()
        if name not in ("network_def", "preprocessing") and f"@{name}" in named_still
    }
    names = {} if cases is None else dict(cases.class_names)
    classes = parser.get("classes") if parser else None
    if isinstance(classes, int) and (beyond := [one for one in names if one >= classes]):
        named = ", ".join(f"{number}={name}" for number, name in names.items())
        raise ConfigError(
            f"class_names ({named}) name class {beyond[0]}, the network has {classes} with 0; "
            "set classes, or class_names to those that are trained"
        )
    dropped = parser.get("metadata_dropout", 0) if parser else 0
    shares = dropped.values() if isinstance(dropped, dict) else [dropped]
    told = {
        "variant": network.get("variant") if isinstance(network, dict) else None,
        "network": network,
        "preprocessing": preprocessing,
        "refers_to": known,
        "window": effective("window_inferer")["window_inferer"],
        "class_names": {str(number): name for number, name in names.items()},
        "unknown_trained": any(isinstance(one, float | int) and one > 0 for one in shares),
    }
    if cases is not None:
        told["data"] = data_license(*dict.fromkeys((cases.path.parent, cases.folder)))
    return {key: value for key, value in told.items() if value}


def _made(parser: ConfigParser | None, value: Any, known: Mapping[str, Any], place: str) -> Any:
    """The value with components in place of references, and what expressions come to."""
    if isinstance(value, dict):
        return {key: _made(parser, one, known, f"{place}#{key}") for key, one in value.items()}
    if isinstance(value, list):
        return [_made(parser, one, known, f"{place}#{at}") for at, one in enumerate(value)]
    if not isinstance(value, str) or value[:1] not in ("@", "$"):
        return value
    if value[1:] in known and value[1:].partition("#")[0] != place.partition("#")[0]:
        return _made(parser, known[value[1:]], known, value[1:])
    try:
        content = parser.get_parsed_content(place) if parser is not None else value
    except Exception:  # what it names is not there yet, or has no value by itself
        return value
    parts = content if isinstance(content, list | tuple) else [content]
    return content if all(isinstance(one, PLAIN) for one in parts) else value


def settings(cases: CaseTable, schema: MetadataSchema) -> dict[str, Any]:
    """Return what makes a training the run it is, so that it is resumed under the same only.

    Args:
        cases: that it is trained and validated on, known by their digest.
        schema: of their metadata, likewise.
    """
    parser, _ = _running()
    more = [name for name in OF_SOME if parser is not None and name in parser.config]
    return {**effective(*RUN, *more), "cases": cases.digest, "schema": schema.digest}


def testing() -> dict[str, Any]:
    """Return what decides the results of an evaluation beside weights, table and test modes."""
    return _without_modes(effective(*TESTED))


def _without_modes(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_modes(inner) for key, inner in value.items() if key != "modes"}
    return [_without_modes(inner) for inner in value] if isinstance(value, list) else value


def _running() -> tuple[ConfigParser | None, Path | None]:
    """The innermost parser on the stack, and the folder of the files that it has read, if known."""
    parser = None
    for names in _locals():
        if parser is None and isinstance(names.get("self"), ConfigParser):
            parser = names["self"]
        elif parser is not None:
            for value in list(names.values()):
                if isinstance(value, ConfigWorkflow) and value.parser is parser:
                    return parser, Path(value.config_root_path)
            if names.get("parser") is parser and "config_file_" in names:  # monai.bundle
                return parser, Path(ensure_tuple(names["config_file_"])[0]).parent
            place = names.get("bundle_path", getattr(names.get("self"), "bundle_path", None))
            if names.get("parser") is parser and isinstance(place, Path):  # MONAI Deploy
                return parser, place / "configs"
    return parser, None


def _locals() -> Iterator[dict[str, Any]]:
    frame = inspect.currentframe()
    while frame is not None:
        yield frame.f_locals
        frame = frame.f_back


def _substituted(parser: ConfigParser, value: Any, waiting: list[str]) -> Any:
    """The value with plain values in place of references; ids of other things go to `waiting`."""
    if isinstance(value, dict):
        return {key: _substituted(parser, inner, waiting) for key, inner in value.items()}
    if isinstance(value, list):
        return [_substituted(parser, inner, waiting) for inner in value]
    is_plain, plainly = meant(value)
    if is_plain:
        return plainly
    if not isinstance(value, str) or value[:1] not in ("@", "$"):
        return value

    def look_up(name: str) -> tuple[bool, Any]:
        """Whether an id stands for a plain value, and which."""
        if re.split("#|::", name)[0] in PLACES:
            return False, None
        target = parser.get(name)
        is_plain, plainly = meant(target)
        if is_plain:
            return True, plainly
        if isinstance(target, str):
            target = _substituted(parser, target, waiting)
        parts = target if isinstance(target, list) else [target]
        plain = all(isinstance(one, PLAIN) and str(one)[:1] not in ("@", "$") for one in parts)
        if not plain:
            waiting.append(name)
        return plain, target

    if value.startswith("@"):
        plain, target = look_up(value[1:])
        return target if plain else value.replace("::", "#")

    def put(match: re.Match[str]) -> str:
        plain, target = look_up(match[1])
        return repr(target) if plain else match[0].replace("::", "#")

    return _evaluated(REFERENCE.sub(put, value))


def _evaluated(text: str) -> Any:
    """The plain value of an expression that refers to nothing, such as "$0.1 > 0"."""
    if "@" in text or "import " in text:
        return text
    try:
        value = ConfigExpression(text).evaluate()
    except RuntimeError:  # it calls what the configuration imports
        return text
    return value if isinstance(value, PLAIN) else text


# MONAI's own program prints a trace of a hundred lines; what was refused is said once more behind.


def _refusal_last(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    sys.__excepthook__(kind, error, trace)
    if refusal := as_refusal(error):
        sys.stderr.write(f"error: {refusal}\n")


_program = getattr(sys.modules["__main__"], "__spec__", None)
if _program is not None and _program.name.startswith("monai.bundle"):
    sys.excepthook = _refusal_last
