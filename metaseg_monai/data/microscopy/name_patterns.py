"""The patterns of file names that give metadata, and what a name gives by them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metaseg_monai.data.microscopy.cases import OWN_COLUMNS, relative
from metaseg_monai.errors import DataError

PRESETS: Mapping[str, str] = {
    # MetaXpress: TimePoint_1/ZStep_1/plate_A01_s1_w1<identifier>.tif; no thumbnails
    "metaxpress": (
        r"(?:[^/]+/)*?(?:TimePoint_(?P<timepoint>\d+)/)?(?:ZStep_(?P<plane>\d+)/)?"
        r"(?:(?P<plate>[^/]+)_)?(?P<well>[A-Z]{1,2}\d{2})(?:_s(?P<field>\d+))?"
        r"(?:_w(?P<channel>\d+))?(?:[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})?\.(?i:tiff?)"
    ),
    # Opera Phenix, Harmony: plate__date/Images/r01c01f01p01-ch1sk1fk1fl1.tiff
    "opera": (
        r"(?:[^/]+/)*?(?:(?P<plate>[^/]+)/Images/)?r(?P<row>\d+)c(?P<column>\d+)f(?P<field>\d+)"
        r"p(?P<plane>\d+)-ch(?P<channel>\d+)sk(?P<timepoint>\d+)(?:fk\d+)?(?:fl\d+)?\.(?i:tiff?)"
    ),
}
ALLOWED_OWN = ("group", "split")  # of the table's own columns, those a name may give


@dataclass(frozen=True)
class NamePatterns:
    """What file names tell.

    Attributes:
        image: of the path of an image relative to the source, or of its name alone where the
            pattern has no "/".
        mask: the same of masks; None for a folder without.
        join: named groups of `image` that tell the planes of one image apart.
    """

    image: re.Pattern[str]
    mask: re.Pattern[str] | None = None
    join: tuple[str, ...] = ()


def compile_patterns(
    pattern: str, mask_pattern: str | None = None, join: Sequence[str] = ()
) -> NamePatterns:
    """Check the patterns of `prepare_names`.

    Raises:
        DataError: one is no regular expression, has no named groups or such as the table has
            itself, or masks or planes are told by groups that images have not.
    """
    image = _compiled("pattern", PRESETS.get(pattern, pattern))
    mask = None if mask_pattern is None else _compiled("mask_pattern", mask_pattern)
    apart = [name for name in image.groupindex if name not in join]
    for setting, names, known in (
        ("join", join, list(image.groupindex)),
        ("mask_pattern", mask.groupindex if mask else (), apart),
    ):
        strangers = [name for name in names if name not in known]
        if strangers:
            raise DataError(
                f"{setting}: {', '.join(strangers)} is no named group of the pattern that could "
                f"serve here; those are {', '.join(known) or 'none'}"
            )
    if not apart:
        raise DataError("join: all named groups; leave out those that tell images apart")
    return NamePatterns(image, mask, tuple(join))


def name_values(path: Path, root: Path, pattern: re.Pattern[str]) -> tuple[str, ...] | None:
    """The values of the named groups, in their order; None where the name does not fit."""
    name = relative(path, root) if "/" in pattern.pattern else path.name
    match = pattern.fullmatch(name)
    return tuple(match[group] or "" for group in pattern.groupindex) if match else None


def natural_order(values: Sequence[str]) -> list[tuple[int, str]]:
    """A key that puts 2 before 10."""
    return [(int(value) if value.isdecimal() else -1, value) for value in values]


def well_name(row: str, column: str) -> str:
    """The usual name of a well of up to 26 rows, such as B03; "" beyond."""
    if not (row.isdecimal() and column.isdecimal() and 1 <= int(row) <= 26):
        return ""
    return f"{chr(ord('A') + int(row) - 1)}{int(column):02d}"


def _compiled(setting: str, text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise DataError(f"{setting}={text!r}: no regular expression ({error}); mend it") from error
    own = [name for name in pattern.groupindex if name in OWN_COLUMNS and name not in ALLOWED_OWN]
    if own or not pattern.groupindex:
        found = f"the group {', '.join(own)} is a column of its own" if own else "no named group"
        raise DataError(
            f"{setting}={text!r}: {found}; name the parts of the name that are metadata, as in "
            f"(?P<well>[A-P]\\d\\d), or give one of {', '.join(PRESETS)}"
        )
    return pattern
