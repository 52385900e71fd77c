"""The flat configurations of a bundle, composed of what all share and what is its own.

``bundles/_shared`` holds configurations that run as they are; ``configs/facts.json`` of a bundle
says what it has otherwise: ids and their values, which full sizes it has, and what its
metadata.json tells. Where it has a `recipe`, settings of `strong_augmentation`, its train.json
holds the strong recipe, which elsewhere is a delta alone. Where its `target` is an image, no mask,
`image_target.json` changes the stages: what is read, learned, measured and written; recipe and
networks of MONAI's are then no deltas of it. inference.json of the shared folder holds
only what training has not; what it refers to comes from train.json, so that the wiring is written
once. Schema, simulator, further configurations and pages of a bundle are its own.
"""

import copy
import json
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from metaseg_monai.bundle.overrides import as_data, flatten, names_in, unused_in
from metaseg_monai.errors import ConfigError
from metaseg_monai.files import INSTALLED, read_json
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.transforms import falsified_by, strong_augmentation

WIDTH = 250  # of a line, which holds one component
STAGES = ("train", "evaluate", "explain", "estimate", "multi_gpu_train", "inference")
DELTAS = ("segresnet", "dynunet", "segresnet_ds", "dynunet_ds")  # for every bundle
LOGITS = {"type": "logits", "format": "segmentation"}
Config = dict[str, Any]


def shared_folder() -> Path:
    """The configurations that all bundles share: of the package, in a checkout of the repository.

    Raises:
        ConfigError: they are not there.
    """
    checkout = Path(__file__).resolve().parents[2] / "bundles"
    for folder in (INSTALLED / "_shared", checkout / "_shared"):
        if (folder / "train.json").is_file():
            return folder
    raise ConfigError(
        f"{INSTALLED / '_shared'}: the shared configurations are missing; install the package anew"
    )


def shared_training() -> Config:
    """The shared training with the strong recipe, as new bundles have it.

    Raises:
        ConfigError: the shared configurations are not there.
    """
    train = _read(shared_folder() / "train.json")
    _put_in(train, _read(shared_folder() / "recipe.json"))
    return train


def compose(bundle: Path, shared: Path | None = None) -> dict[str, str]:
    """Return the text of every composed file of a bundle by its path inside the bundle.

    Args:
        bundle: folder that holds ``configs/facts.json`` and ``configs/schema.json``.
        shared: folder of the shared configurations; by default that of the package, or of the
            repository.

    Raises:
        ConfigError: a fact that changes nothing, or a text that metadata.json lacks.
        OSError, ValueError: a file is missing, or no JSON.
    """
    shared = shared_folder() if shared is None else shared
    facts = _read(bundle / "configs" / "facts.json")
    configs = {stage: _read(shared / f"{stage}.json") for stage in STAGES}
    recipe = _read(shared / "recipe.json")
    of_images = facts.get("target") == "image"
    changed = _read(shared / "image_target.json") if of_images else {}
    of_parts = changed.get("inference_parts", {})  # of what it takes from train.json
    for stage, names in changed.get("without", {}).items():
        for name in names:
            del configs[stage][name]
    configs["train"] = _with_parts(configs["train"], changed.get("train", {}))
    for stage in ("evaluate", "inference"):  # whose ids stand as they are
        configs[stage] |= changed.get(stage, {})
    if "recipe" in facts:
        configs["recipe"] = recipe
        _put_in(configs["train"], recipe)
    for name, value in facts["settings"].items():
        top, inner, _ = name.partition("#")
        among = [configs["train"]] if inner else configs.values()  # deltas have parts of their own
        having = [config for config in among if top in config]
        if not having:
            raise ConfigError(f"{bundle.name}: nothing uses the fact {name}")
        for config in having:
            ConfigParser(config).set(copy.deepcopy(value), name)
    if "recipe" in facts:  # which has no use of what its parts took the place of
        sizes = facts.get("sizes", {})
        deltas = [_read(shared / f"{name}.json") for name in (*DELTAS, *sizes)] + [*sizes.values()]
        used = {name for config in (*configs.values(), *deltas) for name in _named(config)}
        for name in unused_in(configs["train"], used):
            del configs["train"][name]
    schema = MetadataSchema.load(bundle / "configs" / "schema.json")
    train, inference = configs["train"], configs["inference"]
    shown = dict.fromkeys(schema.names, "unknown")  # what an application lets its user set
    inference["displayable_configs"] = {**shown, **inference["displayable_configs"]}
    given = copy.deepcopy(train)
    _put_in(given, of_parts)
    configs["inference"] = _ordered(_referred(inference, given), train)
    if not of_images:
        configs |= {name: _read(shared / f"{name}.json") for name in DELTAS}
    wrong = falsified_by(schema, _class_names(facts["metadata"]))
    changes = strong_augmentation(
        len(train["roi_size"]),
        train["roi_size"],
        scaling=not wrong["scaling"],
        mirror=() if wrong["mirroring"] else None,
        **facts.get("recipe", {}),
    )
    if not of_images:
        configs["recipe"] = recipe
    recipe["train#augmentation"] += changes
    if "recipe" in facts:
        train["train"]["augmentation"] += copy.deepcopy(changes)
    for name, own in facts.get("sizes", {}).items():
        configs[name] = _read(shared / f"{name}.json") | own
    texts = {f"configs/{name}.json": format_config(config) for name, config in configs.items()}
    metadata = _metadata(bundle.name, facts["metadata"], configs["train"], schema, shared)
    texts["configs/metadata.json"] = format_config(metadata)
    return {
        **{name: f"{text}\n" for name, text in texts.items()},
        "configs/logging.conf": (shared / "logging.conf").read_text(encoding="utf-8"),
        "LICENSE": _license(shared).read_text(encoding="utf-8"),
    }


def format_config(value: Any, indent: int = 0) -> str:
    """Write JSON with one component a line where it fits, so that a config can be read."""
    compact = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value:
        return compact
    is_list = isinstance(value, list) and '"_target_"' in compact
    if indent and len(compact) + indent <= WIDTH and not is_list:
        return compact
    pad = " " * (indent + 4)
    if isinstance(value, dict):
        inner = [f"{json.dumps(k)}: {format_config(v, indent + 4)}" for k, v in value.items()]
        opening, closing = "{}"
    else:
        inner = [format_config(v, indent + 4) for v in value]
        opening, closing = "[]"
    return f"{opening}\n{pad}" + f",\n{pad}".join(inner) + f"\n{' ' * indent}{closing}"


def _put_in(config: Config, changes: Config) -> None:
    for name, value in changes.items():
        ConfigParser(config).set(copy.deepcopy(value), name)


def _with_parts(config: Config, changes: Config) -> Config:
    """A training that is changed; what is new in it stands before the preprocessing."""
    new = {name: None for name in changes if "#" not in name and name not in config}
    found: Config = {}
    for name, value in config.items():
        found |= {**new, name: value} if name == "preprocessing" else {name: value}
    _put_in(found, changes)
    return found


def _referred(own: Config, source: Config) -> Config:
    """A configuration with what it refers to and has not, and what that refers to."""
    found = dict(own)
    while wanted := [name for name in _named(found) if name in source and name not in found]:
        found |= {name: source[name] for name in wanted}
    return found


def _named(config: Config) -> set[str]:
    return {name.partition("#")[0] for name in names_in([part for _, part in flatten(config)])}


def _ordered(config: Config, like: Config) -> Config:
    """The ids in the order of another configuration; settings that it has not come before its."""
    order = list(like)

    def place(name: str) -> int:
        if name in like:
            return order.index(name)
        return order.index("initialize" if '"_target_"' in json.dumps(config[name]) else "variant")

    return dict(sorted(config.items(), key=lambda item: (place(item[0]), item[0] in like)))


def _metadata(
    name: str, told: Config, train: Config, schema: MetadataSchema, shared: Path
) -> Config:
    """Fill metadata.json, with the channels that the data and the schema define."""
    of_images = train.get("target") == "image"
    channels, classes = train["in_channels"], 1 if of_images else train["classes"]
    shape = train["roi_size"]
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "n/a",
        "num_channels": channels,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": True,
        "channel_def": {str(i): f"image channel {i}" for i in range(channels)},
    }
    meta = {
        "type": "vector",
        "format": "metadata",
        "num_channels": schema.width,
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {str(i): as_data(entry) for i, entry in enumerate(schema.entry_names)},
    }
    names = _class_names(told)
    if len(names) != classes:
        raise ConfigError(f"{name}: pred_classes names {len(names)}, the network has {classes}")
    pred = {
        **({"type": "image", "format": "magnitude"} if of_images else LOGITS),
        "num_channels": classes,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [0, 1] if of_images else [],
        "is_patch_data": True,
        "channel_def": {str(i): as_data(name) for i, name in enumerate(names)},
    }
    metadata = _read(shared / "metadata.json") | as_data(told)
    if empty := [key for key, value in metadata.items() if value is None]:
        raise ConfigError(f"{name}: facts.json, metadata lacks {', '.join(empty)}")
    inputs = {"image": image, "meta": meta} if schema.fields else {"image": image}
    data_format = {"inputs": inputs, "outputs": {"pred": pred}}
    return {**metadata, "network_data_format": data_format}


def _class_names(told: Config) -> list[str]:
    """The classes as metadata.json tells them: "channel 0 background, channel 1 kidney"."""
    parts = [part.strip() for part in told["pred_classes"].split(",")]
    return [name.removeprefix(f"channel {number} ") for number, name in enumerate(parts)]


def _license(shared: Path) -> Path:
    """In the package beside the shared configurations, in the repository at its top."""
    own = shared / "LICENSE"
    return own if own.is_file() else shared.parents[1] / "LICENSE"


def _read(path: Path) -> Config:
    content: Config = read_json(path)
    return content
