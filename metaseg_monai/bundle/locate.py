"""Where a bundle lies on disk."""

import json
import sys
from pathlib import Path

from metaseg_monai.errors import ConfigError


def find_bundle_root(name: str) -> str:
    """Find the folder of the bundle that is being run, for its own configuration files.

    ``monai.bundle`` puts the folder of the running bundle on `sys.path`; that entry is used, so
    that a bundle works from any working directory. A bundle under ``./bundles`` or the working
    directory itself are the next places looked at.

    Args:
        name: the ``name`` in the bundle's ``configs/metadata.json``.

    Raises:
        ConfigError: if it is in none of these places.
    """
    places = [*map(Path, sys.path[:5]), Path.cwd(), Path.cwd() / "bundles" / name]
    for place in places:
        if bundle_name(place) == name:
            return str(place.resolve())
    raise ConfigError(
        f"The folder of bundle {name!r} is not known here; pass --bundle_root <its folder> "
        "(bundle_root=... in Python)."
    )


def resolve_bundle(bundle: str) -> Path:
    """Return the folder of a bundle given as a path or as a name under ``./bundles``.

    Raises:
        ConfigError: if there is no such bundle; the message lists those under ``./bundles``.
    """
    for place in (Path(bundle), Path("bundles") / bundle):
        if (place / "configs" / "train.json").is_file():
            return place.resolve()
    known = sorted(path.parents[1].name for path in Path("bundles").glob("*/configs/train.json"))
    raise ConfigError(
        f"There is no bundle at {bundle!r} (no configs/train.json). "
        f"Bundles in ./bundles: {', '.join(known) or 'none'}."
    )


def bundle_name(folder: Path) -> str | None:
    """Return the name a bundle's metadata.json gives, or None where there is no bundle."""
    file = folder / "configs" / "metadata.json"
    if not file.is_file():
        return None
    try:
        return str(json.loads(file.read_text(encoding="utf-8")).get("name"))
    except (json.JSONDecodeError, AttributeError) as error:
        raise ConfigError(f"{file} is not valid JSON ({error}); restore it.") from error
