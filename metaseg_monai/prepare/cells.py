"""A folder as a laboratory has it: images, masks of the same names, and a metadata table."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from metaseg_monai.errors import DataError
from metaseg_monai.prepare.folder import PrepareOptions, prepare_found
from metaseg_monai.prepare.found import (
    FoundCase,
    FoundFolder,
    composed,
    is_image,
    listed,
    relative,
    safe_name,
    source_folder,
    visible_files,
    without_suffix,
)
from metaseg_monai.prepare.lab_table import (
    as_columns,
    find_lab_table,
    group_of,
    rows_of_images,
    split_of,
)
from metaseg_monai.prepare.masks import mask_rule
from metaseg_monai.prepare.problems import Prepared, Problem


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
        masks: folder of the masks; it may be that of the images where masks have a suffix.
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
    found = find_cells(
        source, metadata, key, images, masks, mask_suffix, split, options.group, options.ome
    )
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
    group: Sequence[str],
    ome: bool,
) -> FoundFolder:
    """Find the images of such a folder with their masks and rows; see `prepare_cells`.

    Raises:
        DataError: a folder is missing or has no image, images and masks in one folder are not
            told apart, there is no metadata table and `ome` does not replace it, or see
            `rows_of_images`.
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
    files, mask_files = _images_and_masks(folders[0], folders[1], mask_suffix)
    of_image = {relative(path, folders[0]): path for path in files if is_image(path)}
    if not of_image:
        raise DataError(f"{folders[0]}: no image (TIFF, PNG, JPEG, NIfTI); check --images")
    table = find_lab_table(root, metadata)
    if table is None and not ome:
        raise DataError(
            f"{root}: no CSV file with the metadata of the images; put one there, name it with "
            "--metadata, or take them from the images with --ome"
        )
    rows, problems, remarks = rows_of_images(table, key, split, group, list(of_image))
    of_mask: dict[str, list[Path]] = defaultdict(list)
    for path in mask_files:
        if is_image(path):
            of_mask[composed(without_suffix(relative(path, folders[1])))].append(path)
    cases = []
    for name, path in of_image.items():
        stem = composed(without_suffix(name))
        found = of_mask.pop(stem + composed(mask_suffix), [])
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
            columns, own = as_columns(rows[name]), group_of(rows[name])
            cases.append(FoundCase(case, (path,), (found[0],), columns, group=own, split=given))
    others = [relative(path, root) for path in files if not is_image(path)]
    if others:
        remarks.append(f"{len(others)} files of other types: {listed(others)}")
    if of_mask:
        remarks.append(f"{len(of_mask)} masks without image: {listed(of_mask)}")
    return FoundFolder(root, tuple(cases), tuple(problems), tuple(remarks))


def _images_and_masks(images: Path, masks: Path, mask_suffix: str) -> tuple[list[Path], list[Path]]:
    """The files of both folders, which the suffix tells apart where the folders are one."""
    files = visible_files(images)
    if images.resolve() != masks.resolve():
        return [path for path in files if masks not in path.parents], visible_files(masks)
    if not mask_suffix:
        raise DataError(
            f"{images}: images and masks in one folder; say with --mask_suffix what the name of a "
            "mask has behind its image's, such as _mask"
        )
    ending = composed(mask_suffix)
    of_masks = [path for path in files if composed(without_suffix(path.name)).endswith(ending)]
    return [path for path in files if path not in set(of_masks)], of_masks
