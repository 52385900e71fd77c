"""From a folder of images or a table to a folder of masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metaseg_monai.bundle.locate import resolve_bundle
from metaseg_monai.bundle.run import configs_of, run_bundle
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import readable
from metaseg_monai.metadata.fields import UNKNOWN
from metaseg_monai.tables.find import absolute

# What a command's text arguments mean.

CLINICAL_SUFFIXES = (".json", ".csv")


def names(text: str | Sequence[str]) -> list[str]:
    """Split a comma-separated argument; fire turns ``a,b`` into a tuple already.

    >>> names("se, sme")
    ['se', 'sme']
    """
    parts = text.split(",") if isinstance(text, str) else map(str, text)
    return [part.strip() for part in parts if part.strip()]


def metadata_source(given: object) -> dict[str, str] | str:
    """What ``--meta`` gives: values for all images, or the path of a file with a row a case.

    Args:
        given: text; whatever else the command line made of it is refused.

    Raises:
        ConfigError: the file is missing, or it is neither a file nor field=value.

    >>> metadata_source("tumour_size_mm=41")
    {'tumour_size_mm': '41'}
    """
    text = given.strip() if isinstance(given, str) else ""
    if "=" not in text and Path(text).suffix.lower() not in CLINICAL_SUFFIXES:
        if given is True or given == "":
            came = "--meta has no value"
        else:
            came = f"--meta {given} names no field"
        value = text if text == UNKNOWN else "value"
        raise ConfigError(
            f"{came}; write --meta field={value}, or give a "
            f"{' or '.join(CLINICAL_SUFFIXES)} file with a row a case."
        )
    if "=" in text:
        return parse_metadata(text)
    if not Path(text).is_file():
        raise ConfigError(
            f"--meta {text}: no such file; give field=value, or a file of {CLINICAL_SUFFIXES}."
        )
    return str(Path(text).resolve())


def parse_metadata(text: str) -> dict[str, str]:
    """Split ``field=value,field=value``.

    Raises:
        ConfigError: for a part without ``=`` or a field that is named twice.

    >>> parse_metadata("line=HeLa,size_mm=41")
    {'line': 'HeLa', 'size_mm': '41'}
    """
    values: dict[str, str] = {}
    for part in names(text):
        field, equals, value = part.partition("=")
        if not equals or not field or field in values:
            raise ConfigError(f"--meta {part!r}: write each field once, as field=value.")
        values[field.strip()] = value.strip()
    return values


def predict(
    bundle: str,
    source: str,
    output: str,
    meta: object,
    overrides: Mapping[str, Any],
    configuration: str | Sequence[str] | None = None,
) -> Path:
    """Run a bundle's ``inference.json``.

    Args:
        bundle: name or folder of the bundle.
        source: folder of images, an image, or a table.
        output: folder for the masks, apart from the images. In it only masks as an earlier
            prediction wrote them are replaced.
        meta: ``field=value,field=value`` for all images, where the value may be ``unknown``, or a
            file with a row for each case (kits.json, JSON or CSV); None where a table or the
            source's own kits.json gives it.
        overrides: further settings.
        configuration: further files of the bundle, merged last.

    Returns:
        The folder of the masks.

    Raises:
        DataError: if the source does not exist, the masks would lie among the images, or a file
            that is no earlier mask would be replaced.
        ConfigError: if ``meta`` is neither field=value nor a file.
    """
    with readable(source):
        is_there = Path(source).exists()
    if not is_there:
        raise DataError(f"There is no image, folder or table at {source}.")
    _keep_apart(absolute(source), absolute(output))
    settings = {
        "dataset_dir": str(absolute(source)),
        "output_dir": str(absolute(output)),
        "metadata": metadata_source(meta) if meta is not None else None,
        **overrides,
    }
    run_bundle(resolve_bundle(bundle), configs_of("inference", more=configuration), settings)
    return Path(output)


def _keep_apart(source: Path, output: Path) -> None:
    """Refuse masks among images: an output in the folder of the images, or above the source."""
    for images, masks in ((source, output), (source.resolve(), output.resolve())):
        if images.is_dir() and masks.is_relative_to(images):
            raise DataError(
                f"--output {output} lies in the folder of the images ({source}), where masks would "
                "replace images or be taken for them; choose a folder elsewhere."
            )
        if images.is_relative_to(masks):
            raise DataError(
                f"--output {output} holds the images ({source}), so masks would lie among images, "
                "replace them or be taken for them; choose a folder elsewhere."
            )
