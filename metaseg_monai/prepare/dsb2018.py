"""The layout of the Data Science Bowl 2018, stage 1: a folder an image, a file an object."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from metaseg_monai.errors import DataError, Problem
from metaseg_monai.images.image import Meaning
from metaseg_monai.naming import safe_name
from metaseg_monai.prepare.found import (
    FoundCase,
    FoundFolder,
    find_lab_table,
    is_image,
    masks_of,
    read_lab_table,
    relative,
    source_folder,
    visible_files,
)
from metaseg_monai.prepare.masks import Overlap, object_files
from metaseg_monai.prepare.pipeline import Prepared, PrepareOptions, prepare_found


def prepare_dsb2018(
    source: str | Path,
    output: str | Path,
    metadata: str | Path | None = None,
    key: str | None = None,
    split: str | None = None,
    overlap: Overlap = "refuse",
    mask_values: Meaning | None = None,
    group: Sequence[str] = (),
    train: float = 0.7,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    grey: bool = False,
    dry_run: bool = False,
) -> Prepared:
    """Prepare stage1_train of the Data Science Bowl 2018 (Kaggle; BBBC038).

    The files of the objects become one label and one uint16 TIFF of object numbers.

    Example:
        python -m metaseg_monai prepare dsb2018 --source stage1_train --output nuclei --grey

    Args:
        source: stage1_train, with <id>/images/<id>.png and <id>/masks/*.png, or its parent.
        output: new or empty folder, or one made by the same command, which is made anew.
        metadata: CSV file with a row an image, for columns, groups and splits.
        key: its column that names the images, by id or file name.
        split: its column of train, val and test; by default split, else a seeded draw.
        overlap: pixels of several objects: refuse, or smaller (they go to the smaller one).
        mask_values: stored or shown, which of both counts where a mask's numbers and what a
            viewer shows of them disagree (min-is-white, palettes); such masks are refused without.
        group: columns whose cases stay in one split; by default the table's column group.
        train: part of the groups, or a number of groups; so val and test.
        val: see train.
        test: see train.
        seed: of the draw.
        grey: turn colours into one channel (luma, ITU-R BT.601).
        dry_run: show the first rows and the counts, and write nothing.

    Raises:
        DataError: there is no image in this layout; see `read_lab_table` and `prepare_found`.
    """
    options = PrepareOptions(group, (train, val, test), seed, grey, dry_run=dry_run)
    if overlap not in get_args(Overlap):
        raise DataError(f"overlap={overlap!r}: expected one of {', '.join(get_args(Overlap))}")
    rule = partial(object_files, overlap=overlap, values=mask_values)
    given = source_folder(source, "the folder stage1_train")
    root = given / "stage1_train" if (given / "stage1_train").is_dir() else given
    folders = [path for path in sorted(root.iterdir()) if (path / "images").is_dir()]
    if not folders:
        raise DataError(f"{root}: no folder <id>/images/; name the folder stage1_train")
    metadata_file = None if metadata is None else find_lab_table(given, metadata)
    names = [f"{folder.name}.png" for folder in folders]  # a table may name images by their files
    table = read_lab_table(metadata_file, key, split, options.group, names)

    def found() -> Iterator[FoundCase | Problem | str]:
        yield from table.told
        for folder, name in zip(folders, names, strict=True):
            images = [path for path in visible_files(folder / "images") if is_image(path)]
            masks = masks_of(visible_files(folder / "masks"))
            case = FoundCase(safe_name(folder.name), tuple(images), tuple(masks))
            if len(images) == 1 and masks:
                yield from table.described(case, name)
            else:
                told = f"{len(images)} images and {len(masks)} masks, expected one image and a mask"
                step = "get them, or leave its folder out"
                yield Problem(case.case, relative(folder, root), f"{told} an object", step)

    settings = {
        "layout": "dsb2018",
        "metadata": None if metadata is None else str(metadata),
        "key": key,
        "split": split,
        "overlap": overlap,
        "mask_values": mask_values,
    }
    cases = FoundFolder.of(root, found())
    return prepare_found(cases, output, rule, options, settings, "nucleus", "dsb2018")
