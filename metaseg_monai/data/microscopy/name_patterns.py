"""The patterns of file names that give metadata, and what a name gives by them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metaseg_monai.data.microscopy.cases import OWN_COLUMNS, composed, relative, safe_name
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
SAME_FIELD = ("channel", "ch", "wavelength", "plane", "z", "timepoint", "time", "t")
MOST_ROWS = 32  # of a plate of 1536 wells


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
    match = pattern.fullmatch(composed(name))
    return tuple(match[group] or "" for group in pattern.groupindex) if match else None


def natural_order(values: Sequence[str]) -> list[tuple[int, str]]:
    """A key that puts 2 before 10."""
    return [(int(value) if value.isdecimal() else -1, value) for value in values]


def well_name(row: str, column: str) -> str:
    """The usual name of a well of up to 32 rows, such as B03; "" beyond.

    >>> well_name("02", "03"), well_name("27", "1"), well_name("32", "48"), well_name("33", "1")
    ('B03', 'AA01', 'AF48', '')
    """
    if not (row.isdecimal() and column.isdecimal() and 1 <= int(row) <= MOST_ROWS):
        return ""
    rounds, letter = divmod(int(row) - 1, 26)
    return f"{'A' * rounds}{chr(ord('A') + letter)}{int(column):02d}"


def group_columns(names: Sequence[str]) -> tuple[str, ...] | None:
    """The columns that make the group where none are named; None where every image is its own.

    Plate and well where the names tell a well, else all that do not merely tell channels, planes
    and times of one field apart.

    >>> group_columns(["plate", "well", "field"]), group_columns(["line", "field", "channel"])
    (('plate', 'well'), ('line', 'field'))
    >>> group_columns(["line", "number"]), group_columns(["time"])
    (None, ())
    """
    if "well" in names:
        return tuple(name for name in ("plate", "well") if name in names)
    others = tuple(name for name in names if name not in SAME_FIELD)
    return others if len(others) < len(names) else None


def group_value(columns: Mapping[str, str], names: Sequence[str] | None) -> str:
    """The group by the values of `group_columns`, of which some may be missing; "" by none."""
    if names is None:
        return ""
    return safe_name(*(columns[name] for name in names)) if names else "all"


def _compiled(setting: str, text: str) -> re.Pattern[str]:
    try:
        pattern = re.compile(composed(text))
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
