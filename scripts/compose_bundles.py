"""Write the flat configuration of every bundle from its facts and the shared mechanism.

``bundles/_shared`` holds what all bundles do, ``bundles/<name>/configs/facts.json`` what is true of
one of them. What ships is flat and works alone; this script makes it, and ``--check`` tells whether
the files on disk are the ones it would write.

Example:
    python scripts/compose_bundles.py
    python scripts/compose_bundles.py --check
"""

import json
import sys
from pathlib import Path
from string import Template
from typing import Any

import fire

from metaseg_monai.metadata import MetadataSchema

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
SHARED = BUNDLES / "_shared"
WIDTH = 160
Config = dict[str, Any]


def compose(bundle: Path) -> dict[str, str]:
    """Return the text of every generated file of a bundle by its path inside the bundle.

    Args:
        bundle: folder that holds ``configs/facts.json``.

    Raises:
        SystemExit: if a fact changes nothing, or a setting that must be a fact is missing.
    """
    facts = _read(bundle / "configs" / "facts.json")
    fields = facts["schema"]["fields"]
    settings = {"name": facts["name"], "schema_fields": fields, **facts["settings"]}
    common = _read(SHARED / "common.json")
    configs = {
        "train.json": common | _read(SHARED / "train.json"),
        "inference.json": common | _read(SHARED / "inference.json"),
        "evaluate.json": _read(SHARED / "evaluate.json"),
        "explain.json": _read(SHARED / "explain.json"),
        "estimate.json": _read(SHARED / "estimate.json"),
        "multi_gpu_train.json": _read(SHARED / "multi_gpu_train.json"),
    }
    unused = [key for key in settings if not any(key in config for config in configs.values())]
    if unused:
        raise SystemExit(f"{bundle.name}: nothing uses the fact {', '.join(unused)}")
    files = {
        f"configs/{name}": _settings_first({k: settings.get(k, v) for k, v in config.items()})
        for name, config in configs.items()
    }
    for name, delta in facts.get("deltas", {}).items():
        _check_delta(bundle, name, delta, configs["train.json"] | configs["evaluate.json"])
        files[f"configs/{name}.json"] = delta
    files["configs/schema.json"] = facts["schema"]
    files["configs/metadata.json"] = _metadata(facts, files["configs/train.json"])
    texts = {name: format_config(config) + "\n" for name, config in files.items()}
    texts["configs/logging.conf"] = (SHARED / "logging.conf").read_text(encoding="utf-8")
    if "readme" in facts:
        page = Template((SHARED / "microscopy.md").read_text(encoding="utf-8"))
        texts["docs/README.md"] = page.substitute(facts["readme"], name=facts["name"])
        texts["docs/data_license.txt"] = (SHARED / "data_license.txt").read_text(encoding="utf-8")
    texts["LICENSE"] = (BUNDLES.parent / "LICENSE").read_text(encoding="utf-8")
    return texts


def _check_delta(bundle: Path, name: str, delta: Config, known: Config) -> None:
    """Refuse a configuration to be merged last that names an id which the others have not."""
    unknown = [key for key in delta if key.partition("#")[0] not in known]
    if unknown:
        raise SystemExit(f"{bundle.name}: nothing uses {', '.join(unknown)} of {name}.json")


def format_config(value: Any, indent: int = 0) -> str:
    """Write JSON with one component per line where it fits, so that a config can be read."""
    compact = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value:
        return compact
    if indent and len(compact) + indent <= WIDTH:
        return compact
    pad = " " * (indent + 4)
    if isinstance(value, dict):
        inner = [f"{json.dumps(k)}: {format_config(v, indent + 4)}" for k, v in value.items()]
        opening, closing = "{}"
    else:
        inner = [format_config(v, indent + 4) for v in value]
        opening, closing = "[]"
    return f"{opening}\n{pad}" + f",\n{pad}".join(inner) + f"\n{' ' * indent}{closing}"


def _metadata(facts: Config, train: Config) -> Config:
    """Fill metadata.json, with the channels that the data and the schema define."""
    schema = MetadataSchema.from_dict(facts["schema"])
    image = {
        "type": "image",
        "format": "magnitude",
        "modality": "n/a",
        "num_channels": train["in_channels"],
        "spatial_shape": train["roi_size"],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": True,
        "channel_def": {str(i): f"image channel {i}" for i in range(train["in_channels"])},
    }
    meta = {
        "type": "vector",
        "format": "metadata",
        "num_channels": schema.width,
        "spatial_shape": [],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {str(i): name for i, name in enumerate(schema.entry_names)},
    }
    pred = {
        "type": "logits",
        "format": "segmentation",
        "num_channels": train["classes"],
        "spatial_shape": train["roi_size"],
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": True,
        "channel_def": _classes(facts["metadata"]["pred_classes"], train["classes"]),
    }
    data_format = {"inputs": {"image": image, "meta": meta}, "outputs": {"pred": pred}}
    metadata = _read(SHARED / "metadata.json") | {"name": facts["name"]} | facts["metadata"]
    empty = [key for key, value in metadata.items() if value is None]
    if empty:
        raise SystemExit(f"{facts['name']}: facts.json, metadata lacks {', '.join(empty)}")
    return {**metadata, "network_data_format": data_format}


def _settings_first(config: Config) -> Config:
    """Order the ids: where things lie, plain settings that a user may change, then components."""
    places = ("imports", "name", "bundle_root", "dataset_dir", "output_dir")
    stages = ("initialize", "run", "finalize")
    plain = [k for k, v in config.items() if k not in places + stages and not _is_component(v)]
    order = [key for key in places if key in config] + plain
    return {key: config[key] for key in [*order, *(k for k in config if k not in order)]}


def _is_component(value: Any) -> bool:
    text = json.dumps(value)
    return '"_target_"' in text or '"$' in text or '"@' in text or '"%' in text


def _classes(described: str, classes: int) -> dict[str, str]:
    names = [part.strip() for part in described.split(",")]
    if len(names) != classes:
        raise SystemExit(f"pred_classes names {len(names)} classes, the network has {classes}")
    return {str(i): name.removeprefix(f"channel {i} ") for i, name in enumerate(names)}


def _read(path: Path) -> Config:
    content: Config = json.loads(path.read_text(encoding="utf-8"))
    return content


def main(check: bool = False) -> None:
    """Write the generated files of all bundles, or with --check only compare them.

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
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    verb = "not fresh, run python scripts/compose_bundles.py:" if check else "written:"
    print(f"{verb} {', '.join(stale)}" if stale else "all bundle files are fresh")
    if check and stale:
        sys.exit(1)


if __name__ == "__main__":
    fire.Fire(main)
