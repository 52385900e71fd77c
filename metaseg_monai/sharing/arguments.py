"""What a command's text arguments mean."""

from collections.abc import Sequence
from pathlib import Path

from metaseg_monai.errors import ConfigError
from metaseg_monai.metadata.fields import UNKNOWN

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
