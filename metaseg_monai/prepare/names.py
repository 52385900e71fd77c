"""Metadata from file names: a regular expression whose named groups become columns."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metaseg_monai.errors import DataError
from metaseg_monai.prepare.folder import PrepareOptions, prepare_found
from metaseg_monai.prepare.found import (
    OWN_COLUMNS,
    FoundCase,
    FoundFolder,
    composed,
    is_image,
    listed,
    relative,
    safe_name,
    source_folder,
    visible_files,
)
from metaseg_monai.prepare.lab_table import split_of
from metaseg_monai.prepare.masks import mask_rule, refuse_without_masks
from metaseg_monai.prepare.problems import Prepared, Problem

# The patterns of file names that give metadata, and what a name gives by them.

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


def prepare_names(
    source: str | Path,
    output: str | Path,
    pattern: str,
    mask_pattern: str | None = None,
    join: Sequence[str] = (),
    labels: str = "classes",
    classes: int = 2,
    threshold: float | None = None,
    options: PrepareOptions | None = None,
) -> Prepared:
    r"""Prepare a folder whose file names give the metadata.

    Args:
        source: the folder; images may lie in folders of it.
        output: see `prepare_found`.
        pattern: regular expression with named groups, such as
            `(?P<plate>.+)_(?P<well>[A-P]\d\d)\.tif`, that fits all of a name; or "metaxpress" or
            "opera". Groups named `group` and `split` give these; without a group, and where the
            options name none, see `group_columns`.
        mask_pattern: the same for masks; a mask belongs to the images that agree in all of its
            named groups. None for a folder without masks, to predict on.
        join: named groups that tell the planes of one image apart; they become its channels in
            the order of these values.
        labels: what pixel values of the masks mean, see `mask_rule`.
        classes: see `mask_rule`.
        threshold: see `mask_rule`.
        options: those of all layouts.

    Raises:
        DataError: settings of masks without `mask_pattern`; see `mask_rule`, `compile_patterns`,
            `find_names` and `prepare_found`.
    """
    options = options or PrepareOptions()
    patterns = compile_patterns(pattern, mask_pattern, join)
    rule = mask_rule(labels, classes, threshold)
    if patterns.mask is None:
        refuse_without_masks(labels, classes, threshold)
    settings = {
        "layout": "names",
        "pattern": pattern,
        "mask_pattern": mask_pattern,
        "join": list(join),
        "labels": labels,
        "classes": classes,
        "threshold": threshold,
    }
    found = find_names(source, patterns, options.group)
    return prepare_found(found, output, rule if patterns.mask else None, options, settings)


def find_names(source: str | Path, patterns: NamePatterns, group: Sequence[str]) -> FoundFolder:
    """Find the images and masks that fit the patterns.

    Args:
        source: the folder.
        patterns: of the names.
        group: columns that make the group, where they are named.

    Raises:
        DataError: no image or no mask fits, or two give the same values.
    """
    root = source_folder(source, "a folder of images")
    images: dict[tuple[str, ...], Path] = {}
    masks: dict[tuple[str, ...], Path] = {}
    others = []
    for path in visible_files(root):
        mask = name_values(path, root, patterns.mask) if patterns.mask else None
        image = None if mask else name_values(path, root, patterns.image)
        values, known = (mask, masks) if mask else (image, images)
        if values is None or not is_image(path):
            others.append(relative(path, root))
        elif known.setdefault(values, path) is not path:
            raise DataError(
                f"{relative(path, root)} and {relative(known[values], root)} give the same values "
                f"{values}; name a further group in the pattern, or remove the copy"
            )
    for setting, found in (("pattern", images), ("mask_pattern", masks)):
        if not found and (setting == "pattern" or patterns.mask):
            raise DataError(
                f"{setting}: fits none of {len(images) + len(others)} files in {root}, such as "
                f"{listed(others or [relative(p, root) for p in images.values()])}; mend it"
            )
    apart = [name for name in patterns.image.groupindex if name not in patterns.join]
    if {"row", "column"} <= set(apart):
        apart.append("well")
    by = None if group or "group" in apart else group_columns(apart)
    cases, problems, used = _cases(root, patterns, images, masks, by)
    remarks = []
    if by is not None:
        told = f"{' and '.join(by)} make the groups" if by else "all images are one group"
        remarks.append(f"no group is named: {told}; name others with --group")
    if others:
        remarks.append(f"{len(others)} files that do not fit: {listed(others)}")
    left = [relative(path, root) for values, path in masks.items() if values not in used]
    if left:
        remarks.append(f"{len(left)} masks without image: {listed(left)}")
    return FoundFolder(root, tuple(cases), tuple(problems), tuple(remarks))


def _cases(
    root: Path,
    patterns: NamePatterns,
    images: Mapping[tuple[str, ...], Path],
    masks: Mapping[tuple[str, ...], Path],
    by: Sequence[str] | None,
) -> tuple[list[FoundCase], list[Problem], set[tuple[str, ...]]]:
    """The cases, what is wrong with others, and the masks that belong to an image."""
    names = list(patterns.image.groupindex)
    apart = [names.index(name) for name in names if name not in patterns.join]
    joined = [names.index(name) for name in patterns.join]
    of_key: dict[tuple[str, ...], dict[tuple[str, ...], Path]] = defaultdict(dict)
    for values, path in images.items():
        planes = of_key[tuple(values[index] for index in apart)]
        planes[tuple(values[index] for index in joined)] = path
    expected = sorted({plane for planes in of_key.values() for plane in planes}, key=natural_order)
    cases, problems, used = [], [], set()
    for key, planes in of_key.items():
        columns = {names[i]: value for i, value in zip(apart, key, strict=True)}
        case = safe_name(*key) if any(key) else safe_name(next(iter(planes.values())).stem)
        for index, name in enumerate(patterns.join):
            columns[name] = ";".join(plane[index] for plane in sorted(planes, key=natural_order))
        if {"row", "column"} <= columns.keys() and "well" not in columns:
            columns["well"] = well_name(columns["row"], columns["column"])
        first = relative(next(iter(planes.values())), root)
        wanted = tuple(columns[name] for name in patterns.mask.groupindex) if patterns.mask else ()
        used.add(wanted)
        lacking = [plane for plane in expected if plane not in planes]
        if lacking:
            told = f"no plane {listed('_'.join(plane) for plane in lacking)}"
            problems.append(Problem(case, first, told, "get it, or join less"))
            continue
        if patterns.mask and wanted not in masks:
            told = f"no mask with {dict(zip(patterns.mask.groupindex, wanted, strict=True))}"
            problems.append(Problem(case, first, told, "get it"))
            continue
        given = split_of(columns, None, case)
        if isinstance(given, Problem):
            problems.append(given)
            continue
        metadata = {name: text for name, text in columns.items() if name not in OWN_COLUMNS}
        cases.append(
            FoundCase(
                case,
                tuple(planes[plane] for plane in expected),
                (masks[wanted],) if patterns.mask else (),
                metadata,
                tuple("_".join(plane) for plane in expected),
                columns.get("group", "") or group_value(columns, by),
                given,
            )
        )
    return cases, problems, used
