"""A folder as a laboratory has it: images, masks of the same names, and a metadata table."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from metaseg_monai.errors import DataError, Problem
from metaseg_monai.images.image import Meaning
from metaseg_monai.naming import composed, safe_name
from metaseg_monai.prepare.found import (
    FoundCase,
    FoundFolder,
    find_lab_table,
    is_image,
    listed,
    masks_of,
    read_lab_table,
    relative,
    source_folder,
    visible_files,
    without_suffix,
)
from metaseg_monai.prepare.masks import Labels, mask_rule
from metaseg_monai.prepare.pipeline import Prepared, PrepareOptions, prepare_found


def prepare_cells(
    source: str | Path,
    output: str | Path,
    metadata: str | Path | None = None,
    key: str | None = None,
    images: str = "images",
    masks: str = "masks",
    mask_suffix: str = "",
    labels: Labels = "classes",
    classes: int = 2,
    threshold: float | None = None,
    mask_values: Meaning | None = None,
    group: Sequence[str] = (),
    split: str | None = None,
    train: float = 0.7,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    grey: bool = False,
    axes: str | None = None,
    ome: bool = False,
    dry_run: bool = False,
) -> Prepared:
    """Prepare images/, masks/ and a metadata table, whose columns become columns.

    Every case is checked; one with a problem is left out and told, the others are prepared.
    Files are copied byte for byte, unless a conversion is asked for.

    Example:
        python -m metaseg_monai prepare cells --source seven_lines --output cells \
--group plate,well --labels binary --dry_run

    Args:
        source: folder with images/, masks/ (same names) and one CSV file.
        output: new or empty folder, or one made by the same command, which is made anew.
        metadata: the CSV file, where it is not the only one of the source.
        key: its column that names the images, as path, file name or name without suffix.
        images: folder of the images.
        masks: folder of the masks; that of the images, if mask_suffix tells them apart.
        mask_suffix: what a mask's name has behind its image's, such as _mask.
        labels: classes (values are the classes 0, 1, ...), binary (0 and one other value,
            such as 255) or instances (every object has a number).
        classes: number of classes with the background.
        threshold: grey values above it are foreground; takes the place of labels.
        mask_values: stored or shown, which of both counts where a mask's numbers and what a
            viewer shows of them disagree (min-is-white, palettes); such masks are refused without.
        group: columns whose cases stay in one split, such as plate,well; by default the
            table's column group, where it has one.
        split: column of train, val and test; by default split, else a seeded draw.
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
        DataError: a folder is missing or has no image, images and masks in one folder are not
            told apart, there is no metadata table and OME metadata do not replace it; or see
            `mask_rule`, `read_lab_table` and `prepare_found`.
    """
    options = PrepareOptions(group, (train, val, test), seed, grey, axes, ome, dry_run)
    rule = mask_rule(labels, classes, threshold, mask_values)
    root = source_folder(source, f"a folder with {images}/, {masks}/ and a metadata table (CSV)")
    image_files, mask_files = _images_and_masks(root, root / images, root / masks, mask_suffix)
    of_image = {relative(path, root / images): path for path in image_files if is_image(path)}
    if not of_image:
        raise DataError(f"{root / images}: no image (TIFF, PNG, JPEG, NIfTI); check --images")
    metadata_file = find_lab_table(root, metadata)
    if metadata_file is None and not options.ome:
        raise DataError(
            f"{root}: no CSV file with the metadata of the images; put one there, name it with "
            "--metadata, or take them from the images with --ome"
        )
    table = read_lab_table(metadata_file, key, split, options.group, list(of_image))
    of_mask: dict[str, list[Path]] = defaultdict(list)
    for path in mask_files:
        of_mask[composed(without_suffix(relative(path, root / masks)))].append(path)

    def found() -> Iterator[FoundCase | Problem | str]:
        yield from table.told
        for name, path in of_image.items():
            stem = composed(without_suffix(name))
            of_stem = masks_of(of_mask.pop(stem + composed(mask_suffix), []))
            case = FoundCase(safe_name(*stem.split("/")), (path,), tuple(of_stem))
            if len(of_stem) == 1:
                yield from table.described(case, name)
            else:
                several = "several masks: " + listed(file.name for file in of_stem)
                step = f"expected one named {stem}{mask_suffix} in {masks}/ (see --mask_suffix)"
                yield case.problem(root, several if of_stem else "no mask", step)
        others = [relative(path, root) for path in image_files if not is_image(path)]
        if others:
            yield f"{len(others)} files of other types: {listed(others)}"
        if lonely := [stem for stem, paths in of_mask.items() if masks_of(paths)]:
            yield f"{len(lonely)} masks without image: {listed(lonely)}"

    settings = {
        "layout": "cells",
        "metadata": None if metadata is None else str(metadata),
        "key": key,
        "folders": [images, masks],
        "mask_suffix": mask_suffix,
        "labels": labels,
        "classes": classes,
        "threshold": threshold,
        "mask_values": mask_values,
        "split": split,
    }
    return prepare_found(FoundFolder.of(root, found()), output, rule, options, settings)


def _images_and_masks(
    root: Path, images: Path, masks: Path, mask_suffix: str
) -> tuple[list[Path], list[Path]]:
    """The files of both folders, which the suffix tells apart where the folders are one."""
    for folder in (images, masks):
        if not folder.is_dir():
            raise DataError(
                f"{folder}: no such folder; {root} has "
                f"{listed(p.name for p in sorted(root.iterdir()) if p.is_dir()) or 'none'}: name "
                "them with --images and --masks"
            )
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
