"""Metadata from file names: a regular expression whose named groups become columns."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from metaseg_monai.errors import DataError, Problem
from metaseg_monai.images.image import Meaning
from metaseg_monai.naming import safe_name
from metaseg_monai.prepare.found import (
    OWN_COLUMNS,
    SHOWN,
    FoundCase,
    FoundFolder,
    compiled,
    described,
    groups_of,
    is_image,
    listed,
    masks_of,
    relative,
    source_folder,
    visible_files,
)
from metaseg_monai.prepare.masks import Labels, mask_rule
from metaseg_monai.prepare.pipeline import Prepared, PrepareOptions, prepare_found

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
DEFAULT_MASKS = {"labels": "classes", "classes": 2, "threshold": None, "mask_values": None}
ALLOWED_OWN = ("group", "split")  # of the table's own columns, those a name may give
SAME_FIELD = ("channel", "ch", "wavelength", "plane", "z", "timepoint", "time", "t")
MOST_ROWS = 32  # of a plate of 1536 wells


def prepare_names(
    source: str | Path,
    output: str | Path,
    pattern: str,
    mask_pattern: str | None = None,
    join: Sequence[str] = (),
    labels: Labels = "classes",
    classes: int = 2,
    threshold: float | None = None,
    mask_values: Meaning | None = None,
    group: Sequence[str] = (),
    train: float = 0.7,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    grey: bool = False,
    axes: str | None = None,
    ome: bool = False,
    dry_run: bool = False,
) -> Prepared:
    r"""Prepare a folder whose file names give the metadata, by a regular expression.

    Example:
        python -m metaseg_monai prepare names --source plate7 --output cells \
--pattern '(?P<plate>.+)_(?P<well>[A-P][0-9]{2})_z(?P<plane>[0-9]+)[.]tif' \
--mask_pattern '(?P<plate>.+)_(?P<well>[A-P][0-9]{2})_mask[.]png' --join plane \
--group plate,well --labels binary --dry_run

    Args:
        source: folder of the images, and of folders with images.
        output: new or empty folder, or one made by the same command, which is made anew.
        pattern: regular expression that fits a whole file name, or path where it has a /; its
            named groups become columns, group and split give these. Or metaxpress, or opera
            (Harmony).
        mask_pattern: the same for masks, which belong to the images of equal values; without,
            the table has no labels and serves prediction only.
        join: named groups that tell the planes of one image apart, such as channel; the planes
            become its channels in the order of these values, joined by ; in the column image.
        labels: classes (values are the classes 0, 1, ...), binary (0 and one other value,
            such as 255) or instances (every object has a number).
        classes: number of classes with the background.
        threshold: grey values above it are foreground; takes the place of labels.
        mask_values: stored or shown, which of both counts where a mask's numbers and what a
            viewer shows of them disagree (min-is-white, palettes); such masks are refused without.
        group: named groups whose cases stay in one split; by default plate and well, or all
            but channel, plane and time.
        train: part of the groups, or a number of groups; so val and test.
        val: see train.
        test: see train.
        seed: of the draw.
        grey: turn colours into one channel (luma, ITU-R BT.601).
        axes: of TIFF files that name theirs wrongly, such as CYX for pages that are channels.
        ome: columns pixel_um, magnification and channel from OME-TIFF metadata; pixel_um also
            from ImageJ's.
        dry_run: show the first rows and the counts, and write nothing.

    Raises:
        DataError: a pattern is wrong or fits no file, two files give the same values, settings of
            masks without `mask_pattern`; see `mask_rule` and `prepare_found`.
    """
    options = PrepareOptions(group, (train, val, test), seed, grey, axes, ome, dry_run)
    image, mask = _patterns(pattern, mask_pattern, join)
    rule = mask_rule(labels, classes, threshold, mask_values)
    given = {
        "labels": labels,
        "classes": classes,
        "threshold": threshold,
        "mask_values": mask_values,
    }
    idle = [name for name, default in DEFAULT_MASKS.items() if given[name] != default]
    if mask is None and idle:
        raise DataError(
            f"{', '.join(f'{name}={given[name]!r}' for name in idle)}: there are no masks to read; "
            "name them with --mask_pattern, or leave this out"
        )
    root = source_folder(source, "a folder of images")
    images, masks, others = _fitting(root, image, mask)
    apart = [name for name in image.groupindex if name not in join]
    of_key: dict[tuple[str, ...], dict[tuple[str, ...], Path]] = defaultdict(dict)
    for values, path in images.items():
        value = dict(zip(image.groupindex, values, strict=True))
        planes = of_key[tuple(value[name] for name in apart)]
        planes[tuple(value[name] for name in join)] = path
    expected = sorted({plane for planes in of_key.values() for plane in planes}, key=natural_order)
    names_of_planes = tuple("_".join(plane) for plane in expected)
    has_wells = {"row", "column"} <= set(apart) and "well" not in apart
    columns_apart = [*apart, "well"] if has_wells else apart
    by = None if options.group or "group" in apart else group_columns(columns_apart)

    def found() -> Iterator[FoundCase | Problem | str]:
        lonely = dict(masks)
        for key, planes in of_key.items():
            first = next(iter(planes.values()))
            in_order = sorted(planes, key=natural_order)
            columns = dict(zip(apart, key, strict=True))
            for index, name in enumerate(join):
                columns[name] = ";".join(plane[index] for plane in in_order)
            if has_wells:
                columns["well"] = well_name(columns["row"], columns["column"])
            told = {name: columns[name] for name in mask.groupindex} if mask else {}
            wanted = tuple(told.values())
            lonely.pop(wanted, None)
            case = FoundCase(
                safe_name(*key) if any(key) else safe_name(first.stem),
                tuple(planes[plane] for plane in in_order),
                (masks[wanted],) if wanted in masks else (),
                planes=names_of_planes,
            )
            lacking = len(expected) - len(planes)
            if lacking or (mask and not case.masks):
                absent = ("_".join(plane) for plane in expected if plane not in planes)
                few = list(islice(absent, SHOWN))  # of many planes and cases, not every pair
                told_lack = f"no plane {listed(few, rest=lacking - len(few))}"
                told_lack = told_lack if lacking else f"no mask with {told}"
                step = "get it, or join less" if lacking else "get it"
                yield Problem(case.case, relative(first, root), told_lack, step)
                continue
            full = described(case, columns)
            if isinstance(full, FoundCase) and not full.group and by is not None:
                group = safe_name(*(columns[name] for name in by)) if by else "all"
                full = replace(full, group=group)
            yield full
        if by is not None:
            made = f"{' and '.join(by)} make the groups" if by else "all images are one group"
            yield f"no group is named: {made}; name others with --group"
        if others:
            yield f"{len(others)} files that do not fit: {listed(others)}"
        if lonely:
            left = [relative(path, root) for path in lonely.values()]
            yield f"{len(left)} masks without image: {listed(left)}"

    settings = {
        "layout": "names",
        "pattern": pattern,
        "mask_pattern": mask_pattern,
        "join": list(join),
        **given,
    }
    cases = FoundFolder.of(root, found())
    return prepare_found(cases, output, rule if mask else None, options, settings)


def _patterns(
    pattern: str, mask_pattern: str | None, join: Sequence[str]
) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
    """The patterns of images and of masks, which are told by groups that images have."""
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
    return image, mask


def _compiled(setting: str, text: str) -> re.Pattern[str]:
    pattern = compiled(setting, text)
    own = [name for name in pattern.groupindex if name in OWN_COLUMNS and name not in ALLOWED_OWN]
    if own or not pattern.groupindex:
        found = f"the group {', '.join(own)} is a column of its own" if own else "no named group"
        raise DataError(
            f"{setting}={text!r}: {found}; name the parts of the name that are metadata, as in "
            f"(?P<well>[A-P]\\d\\d), or give one of {', '.join(PRESETS)}"
        )
    return pattern


def name_values(
    setting: str, pattern: re.Pattern[str], paths: Sequence[Path], root: Path
) -> list[tuple[str, ...] | None]:
    """The values of the named groups in each name, in their order; None where it does not fit.

    A pattern with a "/" is of the path relative to the root, another of the name alone.
    """
    names = [relative(path, root) if "/" in pattern.pattern else path.name for path in paths]
    order = [number - 1 for number in pattern.groupindex.values()]
    return [
        None if groups is None else tuple(groups[place] or "" for place in order)
        for groups in groups_of(setting, pattern, names)
    ]


def _fitting(
    root: Path, image: re.Pattern[str], mask: re.Pattern[str] | None
) -> tuple[dict[tuple[str, ...], Path], dict[tuple[str, ...], Path], list[str]]:
    """The images and the masks by their values, and other files."""
    images: dict[tuple[str, ...], Path] = {}
    masks: dict[tuple[str, ...], Path] = {}
    others = []
    files = visible_files(root)
    of_images = name_values("pattern", image, files, root)
    of_masks = name_values("mask_pattern", mask, files, root) if mask else [None] * len(files)
    for path, of_image, of_mask in zip(files, of_images, of_masks, strict=True):
        values, known = (of_mask, masks) if of_mask else (of_image, images)
        if values is None or not masks_of([path]):
            others.append(relative(path, root))
        elif known.setdefault(values, path) is not path and is_image(path):
            if is_image(known[values]):
                raise DataError(
                    f"{relative(path, root)} and {relative(known[values], root)} give the same "
                    f"values {values}; name a further group in the pattern, or remove the copy"
                )
            known[values] = path  # in place of a picture that cannot be read
    for setting, found in (("pattern", images), ("mask_pattern", masks)):
        if not found and (setting == "pattern" or mask):
            raise DataError(
                f"{setting}: fits none of {len(images) + len(others)} files in {root}, such as "
                f"{listed(others or [relative(p, root) for p in images.values()])}; mend it"
            )
    return images, masks, others


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
