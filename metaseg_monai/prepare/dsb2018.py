"""The layout of the Data Science Bowl 2018, stage 1: a folder an image, a file an object."""

from collections.abc import Sequence
from pathlib import Path

from metaseg_monai.errors import DataError
from metaseg_monai.prepare.folder import PrepareOptions, prepare_found
from metaseg_monai.prepare.found import (
    FoundCase,
    FoundFolder,
    is_image,
    relative,
    safe_name,
    source_folder,
    visible_files,
)
from metaseg_monai.prepare.lab_table import (
    as_columns,
    find_lab_table,
    group_of,
    rows_of_images,
    split_of,
)
from metaseg_monai.prepare.masks import ObjectFiles, Overlap
from metaseg_monai.prepare.problems import Prepared, Problem


def prepare_dsb2018(
    source: str | Path,
    output: str | Path,
    metadata: str | Path | None = None,
    key: str | None = None,
    split: str | None = None,
    overlap: Overlap = "refuse",
    options: PrepareOptions | None = None,
) -> Prepared:
    """Prepare stage1_train: its objects become a label and a uint16 TIFF of object numbers.

    Args:
        source: stage1_train, or the folder that holds it.
        output: see `prepare_found`.
        metadata: CSV file with a row an image, for columns, groups and splits; without it there
            are neither `key` nor `split`.
        key: its column that names the images, by id or file name, see `rows_of_images`.
        split: its column of the split; by default `split`, and a seeded draw where there is none.
        overlap: what becomes of pixels that several objects claim, see `ObjectFiles`.
        options: those of all layouts.

    Raises:
        DataError: there is no image in this layout, or see `prepare_found`.
    """
    options = options or PrepareOptions()
    rule = ObjectFiles(overlap)
    found = find_dsb2018(source, metadata, key, split, options.group)
    settings = {
        "layout": "dsb2018",
        "metadata": None if metadata is None else str(metadata),
        "key": key,
        "split": split,
        "overlap": overlap,
    }
    return prepare_found(found, output, rule, options, settings)


def find_dsb2018(
    source: str | Path,
    metadata: str | Path | None,
    key: str | None,
    split: str | None,
    group: Sequence[str],
) -> FoundFolder:
    """Find the images of such a folder with their objects; see `prepare_dsb2018`.

    Raises:
        DataError: there is none, or see `rows_of_images`.
    """
    given = source_folder(source, "the folder stage1_train")
    root = given / "stage1_train" if (given / "stage1_train").is_dir() else given
    folders = [path for path in sorted(root.iterdir()) if (path / "images").is_dir()]
    if not folders:
        raise DataError(f"{root}: no folder <id>/images/; name the folder stage1_train")
    names = [path.name for path in folders]
    table = None if metadata is None else find_lab_table(given, metadata)
    # with a suffix, as a table may name the image by its file
    told_rows = rows_of_images(table, key, split, group, [f"{name}.png" for name in names])
    rows = {name.removesuffix(".png"): cells for name, cells in told_rows.cells.items()}
    problems = told_rows.problems
    cases = []
    for folder in folders:
        case = safe_name(folder.name)
        images = [path for path in visible_files(folder / "images") if is_image(path)]
        masks = [path for path in visible_files(folder / "masks") if is_image(path)]
        if len(images) != 1 or not masks:
            told = f"{len(images)} images and {len(masks)} masks, expected one image and a mask"
            step = "get them, or leave its folder out"
            problems.append(Problem(case, relative(folder, root), f"{told} an object", step))
        elif folder.name in rows:
            given_split = split_of(rows[folder.name], split, case)
            if isinstance(given_split, Problem):
                problems.append(given_split)
                continue
            cells = rows[folder.name]
            columns, own = as_columns(cells), group_of(cells)
            cases.append(
                FoundCase(case, (images[0],), tuple(masks), columns, group=own, split=given_split)
            )
    return FoundFolder(root, tuple(cases), tuple(problems), tuple(told_rows.remarks))
