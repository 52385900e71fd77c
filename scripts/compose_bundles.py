"""Write the flat configurations of every bundle from what all share and what is its own.

``bundles/_shared`` holds configurations that run as they are; ``configs/facts.json`` of a bundle
says what it has otherwise: ids and their values, which full sizes it has, and what its
metadata.json tells. inference.json of the shared folder holds only what training has not; what it
refers to comes from train.json, so that the wiring is written once. Schema, simulator, further
configurations and pages of a bundle are its own.
"""

import copy
import json
import sys
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from metaseg_monai.bundle.overrides import flatten, names_in
from metaseg_monai.cli.commands import run_script
from metaseg_monai.metadata import MetadataSchema
from metaseg_monai.transforms import falsified_by, strong_augmentation

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
SHARED = BUNDLES / "_shared"
WIDTH = 250  # of a line, which holds one component
STAGES = ("train", "evaluate", "explain", "estimate", "multi_gpu_train", "inference")
DELTAS = ("segresnet", "dynunet", "segresnet_ds", "dynunet_ds", "recipe")  # for every bundle
COPIES = {"configs/logging.conf": SHARED / "logging.conf", "LICENSE": BUNDLES.parent / "LICENSE"}
Config = dict[str, Any]


def compose(bundle: Path) -> dict[str, str]:
    """Return the text of every composed file of a bundle by its path inside the bundle.

    Args:
        bundle: folder that holds ``configs/facts.json`` and ``configs/schema.json``.

    Raises:
        SystemExit: a fact that changes nothing, or a text that metadata.json lacks.
    """
    facts = _read(bundle / "configs" / "facts.json")
    configs = {stage: _read(SHARED / f"{stage}.json") for stage in STAGES}
    for name, value in facts["settings"].items():
        top, inner, _ = name.partition("#")
        among = [configs["train"]] if inner else configs.values()  # deltas have parts of their own
        having = [config for config in among if top in config]
        if not having:
            raise SystemExit(f"{bundle.name}: nothing uses the fact {name}")
        for config in having:
            ConfigParser(config).set(copy.deepcopy(value), name)
    schema = MetadataSchema.load(bundle / "configs" / "schema.json")
    train, inference = configs["train"], configs["inference"]
    shown = dict.fromkeys(schema.names, "unknown")  # what an application lets its user set
    inference["displayable_configs"] = {**shown, **inference["displayable_configs"]}
    configs["inference"] = _ordered(_referred(inference, train), train)
    configs |= {name: _read(SHARED / f"{name}.json") for name in DELTAS}
    wrong = falsified_by(schema)
    configs["recipe"]["train#augmentation"] += strong_augmentation(
        len(train["roi_size"]),
        train["roi_size"],
        scaling=not wrong["scaling"],
        mirror=() if wrong["mirroring"] else None,
    )
    for name, own in facts.get("sizes", {}).items():
        configs[name] = _read(SHARED / f"{name}.json") | own
    texts = {f"configs/{name}.json": format_config(config) for name, config in configs.items()}
    metadata = _metadata(bundle.name, facts["metadata"], configs["train"], schema)
    texts["configs/metadata.json"] = format_config(metadata)
    return {
        **{name: f"{text}\n" for name, text in texts.items()},
        **{name: source.read_text(encoding="utf-8") for name, source in COPIES.items()},
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


def _metadata(name: str, told: Config, train: Config, schema: MetadataSchema) -> Config:
    """Fill metadata.json, with the channels that the data and the schema define."""
    channels, classes = train["in_channels"], train["classes"]
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
        "channel_def": {str(i): entry for i, entry in enumerate(schema.entry_names)},
    }
    names = [part.strip() for part in told["pred_classes"].split(",")]
    if len(names) != classes:
        raise SystemExit(f"{name}: pred_classes names {len(names)}, the network has {classes}")
    pred = {
        "type": "logits",
        "format": "segmentation",
        "num_channels": classes,
        "spatial_shape": shape,
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": {str(i): n.removeprefix(f"channel {i} ") for i, n in enumerate(names)},
    }
    metadata = _read(SHARED / "metadata.json") | told
    if empty := [key for key, value in metadata.items() if value is None]:
        raise SystemExit(f"{name}: facts.json, metadata lacks {', '.join(empty)}")
    data_format = {"inputs": {"image": image, "meta": meta}, "outputs": {"pred": pred}}
    return {**metadata, "network_data_format": data_format}


def _read(path: Path) -> Config:
    content: Config = json.loads(path.read_text(encoding="utf-8"))
    return content


def main(check: bool = False) -> None:
    """Write the composed files of all bundles, or with --check only compare them.

    Example:
        python scripts/compose_bundles.py
        python scripts/compose_bundles.py --check

    Args:
        check: change nothing; exit with 1 and name the files that are not fresh.
    """
    stale = []
    for facts in sorted(BUNDLES.glob("*/configs/facts.json")):
        bundle = facts.parents[1]
        for name, text in compose(bundle).items():
            path = bundle / name
            if path.is_file() and path.read_text(encoding="utf-8") == text:
                continue
            stale.append(str(path.relative_to(BUNDLES.parent)))
            if not check:
                path.write_text(text, encoding="utf-8")
    verb = "not fresh, run python scripts/compose_bundles.py:" if check else "written:"
    print(f"{verb} {', '.join(stale)}" if stale else "all bundle files are fresh")
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    run_script(main)
