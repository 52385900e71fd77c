"""Where bundles lie on disk: at a path, by name below a folder, or installed with the package."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import metaseg_monai.files as files
from metaseg_monai.errors import ConfigError

WORKFLOWS = {"train", "evaluate", "explain", "estimate", "inference", "multi_gpu_train"}
NO_CONFIGURATION = ("facts", "metadata", "schema", "columns", "simulate")


def resolve_bundle(bundle: str | Path, bundles: str | Path | None = None) -> Path:
    """Return the folder of a bundle.

    Args:
        bundle: its path, or its name in one of the folders below, the first that has it.
        bundles: folder of bundles; by default ./bundles, then those installed with the package.

    Raises:
        ConfigError: if there is no such bundle; the message lists those that there are.
    """
    folders = [Path("bundles"), *_shipped()] if bundles is None else [Path(bundles)]
    for place in (Path(bundle), *(folder / bundle for folder in folders)):
        if _is_bundle(place):
            return place.resolve()
    known = "; ".join(
        f"in {folder}: {', '.join(names)}"
        for folder in folders
        if (names := sorted(path.name for path in folder.glob("*") if _is_bundle(path)))
    )
    looked = ", ".join(map(str, folders))
    raise ConfigError(
        f"There is no bundle at {str(bundle)!r} (no configs/train.json). Bundles "
        f"{known or f'in {looked}: none; name their folder with --bundles'}."
    )


def configuration_file(bundle: Path, name: str) -> Path:
    """Return the file of a configuration: that of the bundle by its name, any other by its path.

    Args:
        bundle: folder of the bundle.
        name: such as "train", "pilot.json" or "somewhere/mine.json".

    Raises:
        ConfigError: there is no such file, or one of that name here and one in the bundle.
    """
    own = bundle / "configs" / f"{name.removesuffix('.json')}.json"
    found = [own] if Path(name).name == name and own.is_file() else []
    if name.endswith(".json") and Path(name).is_file():
        found.append(Path(name).resolve())
    if len(set(found)) > 1:
        raise ConfigError(
            f"--configuration {name} could be {found[0]} or {found[1]}; write "
            f"{name.removesuffix('.json')} for the first, ./{name} for the second."
        )
    if found:
        return found[0]
    names = {path.stem for path in (bundle / "configs").glob("*.json")} - WORKFLOWS
    known = ", ".join(n for n in sorted(names) if not n.startswith(NO_CONFIGURATION)) or "none"
    raise ConfigError(f"{name}: no such configuration or file; {bundle.name} has {known}")


def with_files_of(bundle: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of a study in which a schema or column map of the bundle's is its path.

    Args:
        bundle: folder of the bundle.
        settings: such as ``{"schema_file": "schema_texts.json"}``; a file of that name in the
            working directory goes before.
    """
    found = dict(settings)
    for name in {"schema_file", "columns_file"} & settings.keys():
        given = settings[name]
        if isinstance(given, str) and not Path(given).is_file():
            own = bundle / "configs" / given
            found[name] = str(own) if own.is_file() else given
    return found


def _shipped() -> list[Path]:
    """The bundles of the package; in a checkout those of the repository."""
    checkout = Path(__file__).resolve().parents[2] / "bundles"
    return [folder for folder in (files.INSTALLED, checkout) if folder.is_dir()][:1]


def _is_bundle(folder: Path) -> bool:
    return (folder / "configs" / "train.json").is_file()
