"""A folder as a laboratory has it: images, masks of the same names, and a metadata table."""

from collections import defaultdict
from pathlib import Path

from metaseg_monai.data.kits.find import Problem
from metaseg_monai.data.kits.prepare import Prepared
from metaseg_monai.data.microscopy.cases import (
    FoundCase,
    FoundFolder,
    is_image,
    listed,
    relative,
    safe_name,
    source_folder,
    visible_files,
    without_suffix,
)
from metaseg_monai.data.microscopy.lab_table import (
    as_columns,
    find_lab_table,
    rows_of_images,
    split_of,
)
from metaseg_monai.data.microscopy.masks import mask_rule
from metaseg_monai.data.microscopy.prepare import PrepareOptions, prepare_found
from metaseg_monai.errors import DataError


def prepare_cells(
    source: str | Path,
    output: str | Path,
    metadata: str | Path | None = None,
    key: str | None = None,
    images: str = "images",
    masks: str = "masks",
    mask_suffix: str = "",
    labels: str = "classes",
    classes: int = 2,
    threshold: float | None = None,
    split: str | None = None,
    options: PrepareOptions | None = None,
) -> Prepared:
    """Prepare images/, masks/ and a metadata table, as the Seven Cell Lines would be held.

    Args:
        source: the folder.
        output: see `prepare_found`.
        metadata: CSV file, all of whose columns become columns; by default the one in `source`.
        key: its column that names the images, see `rows_of_images`.
        images: folder of the images in `source`, "." for itself.
        masks: folder of the masks.
        mask_suffix: what a mask's name has behind its image's, such as "_mask".
        labels: what pixel values of the masks mean, see `mask_rule`.
        classes: see `mask_rule`.
        threshold: see `mask_rule`.
        split: column of the split; by default `split`, and a seeded draw where there is none.
        options: those of all layouts; the table's column `group` counts where none is named.

    Raises:
        DataError: see `find_cells` and `prepare_found`.
    """
    options = options or PrepareOptions()
    rule = mask_rule(labels, classes, threshold)
    found = find_cells(source, metadata, key, images, masks, mask_suffix, split, options.ome)
    settings = {
        "layout": "cells",
        "metadata": None if metadata is None else str(metadata),
        "key": key,
        "folders": [images, masks],
        "mask_suffix": mask_suffix,
        "labels": labels,
        "classes": classes,
        "threshold": threshold,
        "split": split,
    }
    return prepare_found(found, output, rule, options, settings)


def find_cells(
    source: str | Path,
    metadata: str | Path | None,
    key: str | None,
    images: str,
    masks: str,
    mask_suffix: str,
    split: str | None,
    ome: bool,
) -> FoundFolder:
    """Find the images of such a folder with their masks and rows; see `prepare_cells`.

    Raises:
        DataError: a folder is missing or has no image, or there is no metadata table and `ome`
            does not replace it.
    """
    root = source_folder(source, f"a folder with {images}/, {masks}/ and a metadata table (CSV)")
    folders = [root / images, root / masks]
    for folder in folders:
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder; {root} has "
                f"{listed(p.name for p in sorted(root.iterdir()) if p.is_dir()) or 'none'}: name "
                "them with --images and --masks"
            )
    files = [path for path in visible_files(folders[0]) if folders[1] not in path.parents]
    of_image = {relative(path, folders[0]): path for path in files if is_image(path)}
    if not of_image:
        raise DataError(f"{folders[0]}: no image (TIFF, PNG, JPEG, NIfTI); check --images")
    table = find_lab_table(root, metadata)
    if table is None and not ome:
        raise DataError(
            f"{root}: no CSV file with the metadata of the images; put one there, name it with "
            "--metadata, or take them from the images with --ome"
        )
    rows: dict[str, dict[str, str]] = {name: {} for name in of_image}
    problems: list[Problem] = []
    if table is not None:
        rows, problems = rows_of_images(table, key, list(of_image))
        if split is not None and split not in next(iter(rows.values())):
            raise DataError(f"{table}: no column {split!r}; name the split's with --split")
    of_mask: dict[str, list[Path]] = defaultdict(list)
    for path in visible_files(folders[1]):
        if is_image(path):
            of_mask[without_suffix(relative(path, folders[1]))].append(path)
    cases = []
    for name, path in of_image.items():
        stem = without_suffix(name)
        found = of_mask.pop(stem + mask_suffix, [])
        case, file = safe_name(*stem.split("/")), relative(path, root)
        if len(found) != 1:
            told = "several masks: " + listed(f.name for f in found) if found else "no mask"
            step = f"expected one named {stem}{mask_suffix} in {masks}/ (see --mask_suffix)"
            problems.append(Problem(case, file, told, step))
        elif name in rows:
            given = split_of(rows[name], split, case)
            if isinstance(given, Problem):
                problems.append(given)
                continue
            group = rows[name].get("group", "").strip()
            columns = as_columns(rows[name])
            cases.append(FoundCase(case, (path,), (found[0],), columns, group=group, split=given))
    remarks = []
    others = [relative(path, root) for path in files if not is_image(path)]
    if others:
        remarks.append(f"{len(others)} files of other types: {listed(others)}")
    if of_mask:
        remarks.append(f"{len(of_mask)} masks without image: {listed(of_mask)}")
    return FoundFolder(root, tuple(cases), tuple(problems), tuple(remarks))
