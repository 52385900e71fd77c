"""Metadata from file names: a regular expression whose named groups become columns."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from metaseg_monai.data.kits.find import Problem
from metaseg_monai.data.kits.prepare import Prepared
from metaseg_monai.data.microscopy.cases import (
    OWN_COLUMNS,
    FoundCase,
    FoundFolder,
    is_image,
    listed,
    relative,
    safe_name,
    source_folder,
    visible_files,
)
from metaseg_monai.data.microscopy.lab_table import split_of
from metaseg_monai.data.microscopy.mask_settings import mask_rule, refuse_without_masks
from metaseg_monai.data.microscopy.name_patterns import (
    NamePatterns,
    compile_patterns,
    group_columns,
    group_value,
    name_values,
    natural_order,
    well_name,
)
from metaseg_monai.data.microscopy.prepare import PrepareOptions, prepare_found
from metaseg_monai.errors import DataError


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
