"""From a folder of images or a table to a folder of masks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaseg_monai.bundle.locate import resolve_bundle
from metaseg_monai.bundle.run import run_bundle
from metaseg_monai.errors import DataError
from metaseg_monai.sharing.arguments import metadata_source


def predict(
    bundle: str, source: str, output: str, meta: str | None, overrides: Mapping[str, Any]
) -> Path:
    """Run a bundle's ``inference.json``.

    Args:
        bundle: name or folder of the bundle.
        source: folder of images, an image, or a table.
        output: folder for the masks.
        meta: ``field=value,field=value`` for all images, where the value may be ``unknown``, or a
            file with a row for each case (kits.json, JSON or CSV); None where a table or the
            source's own kits.json gives it.
        overrides: further settings.

    Returns:
        The folder of the masks.

    Raises:
        DataError: if the source does not exist, or the masks would lie among the images.
        ConfigError: if ``meta`` is neither field=value nor a file.
    """
    if not Path(source).exists():
        raise DataError(f"There is no image, folder or table at {source}.")
    if Path(source).is_dir() and Path(output).resolve().is_relative_to(Path(source).resolve()):
        raise DataError(
            f"--output {output} lies in the folder of the images ({source}), where masks would "
            "replace images or be taken for them; choose a folder elsewhere."
        )
    settings = {
        "dataset_dir": str(Path(source).resolve()),
        "output_dir": str(Path(output).resolve()),
        "metadata": metadata_source(meta) if meta is not None else None,
        **overrides,
    }
    run_bundle(resolve_bundle(bundle), ["inference.json"], settings)
    return Path(output)
