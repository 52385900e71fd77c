"""From the cases of any source to a folder with a table that training reads."""

import multiprocessing
import os
import shutil
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import tifffile
import torch
from tqdm import tqdm

from metaseg_monai.errors import DataError, Problem
from metaseg_monai.files import PREFIX, check_settings, new_folder, writable, write_json
from metaseg_monai.images.geometry import same_grid
from metaseg_monai.images.identity import image_digest
from metaseg_monai.images.image import Image, convert_channels, image_suffix
from metaseg_monai.images.read import as_plane, read_header, read_image
from metaseg_monai.images.tiff import Resolution, tiff_resolution
from metaseg_monai.naming import safe_name
from metaseg_monai.prepare.found import (
    OWN_COLUMNS,
    FoundCase,
    FoundFolder,
    alike,
    is_image,
    listed,
    relative,
    without_namesakes,
)
from metaseg_monai.prepare.masks import MaskRule, Masks
from metaseg_monai.prepare.ome import with_ome
from metaseg_monai.prepare.splits import Shares, with_groups, with_splits
from metaseg_monai.rows import write_problems, write_table
from metaseg_monai.tables.columns import SPLITS
from metaseg_monai.tables.licenses import STATEMENT, data_license, save_license, statement
from metaseg_monai.tables.table import CLASSES, save_class_names

Result = TypeVar("Result")
SETTINGS_FILE = "prepared.json"
RECORDS = ".cases"  # of cases that are done, where a folder grows case by case
TARGETS = "targets"
WRITTEN = (
    *("images", "labels", "instances", TARGETS, "table.csv", "problems.csv"),
    *(CLASSES, SETTINGS_FILE, STATEMENT),
)
TARGET, MASK = "channel", "mask"  # columns of rows whose label is an image
PREVIEW_ROWS = 5
MOST_VALUES = 12
SHOWN_PROBLEMS = 10


class Prepared(NamedTuple):
    """What a preparation made.

    Attributes:
        table: table.csv (of KiTS labels alone slices.csv); None without any case.
        summary: what the folder holds, in words.
        problems: one line a problem; these cases are not in the table.
        folder: that was made; None in a dry run.
    """

    table: Path | None
    summary: str
    problems: list[str]
    folder: Path | None = None

    def __str__(self) -> str:
        return self.summary

    @property
    def refusal(self) -> str | None:
        """With what a command ends that could prepare no case at all."""
        if not self.problems or self.table is not None or self.folder is None:
            return None
        return (
            f"{self.folder}: no case could be prepared, {len(self.problems)} problems, all in its "
            "problems.csv; mend them and give the same command again"
        )


@dataclass(frozen=True)
class PrepareOptions:
    """What all layouts have in common.

    Attributes:
        group: columns whose values make the group, such as ("plate", "well").
        shares: of the groups in train, val and test, see `with_splits`.
        seed: of the division into splits.
        grey: colours become one channel by the luma of ITU-R BT.601, rounded to the data type.
        axes: of TIFF files that name others or none, see `read_image`; they are then written with
            these names, their pixels unchanged.
        ome: OME metadata become columns, see `read_ome`.
        dry_run: read no pixels and write nothing.

    Raises:
        DataError: a value is of another type.
    """

    group: Sequence[str] = ()
    shares: Shares = (0.7, 0.15, 0.15)
    seed: int = 0
    grey: bool = False
    axes: str | None = None
    ome: bool = False
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name, share in zip(SPLITS, self.shares, strict=True):
            if isinstance(share, bool) or not isinstance(share, int | float):
                raise DataError(f"{name}={share!r}: expected a part such as 0.7, or a whole number")
        if not (self.axes is None or isinstance(self.axes, str)):
            raise DataError(f"axes={self.axes!r}: expected letters, such as CYX")
        if isinstance(self.group, str) or not all(isinstance(name, str) for name in self.group):
            raise DataError(f"group={self.group!r}: expected names of columns")
        for name in ("grey", "ome", "dry_run"):
            if not isinstance(getattr(self, name), bool):
                raise DataError(f"{name}={getattr(self, name)!r}: expected True or False")


def prepare_found(
    found: FoundFolder,
    output: str | Path,
    rule: MaskRule | None,
    options: PrepareOptions,
    settings: Mapping[str, Any],
    foreground: str = "",
    data: str = "",
    more: Mapping[str, Callable[[Path], object]] | None = None,
) -> Prepared:
    """Check, divide and write the cases of a source; problems leave out their cases only.

    Writes images/, labels/, instances/ where objects have numbers, table.csv, prepared.json (the
    settings and the source) and, where there are any, problems.csv: all of them or nothing. Files
    are copied byte for byte, unless an option converts them. Cases with the same pixels in
    different splits are problems, in the same split they are told.

    Args:
        found: the cases.
        output: new or empty folder, or one prepared from the same source with the same settings,
            which is made anew.
        rule: how masks are read; None for a folder without masks.
        options: see `PrepareOptions`.
        settings: of the layout, kept with the options.
        foreground: what class 1 is, where the data set tells, for classes.json.
        data: the data set's key in the table of licences, where the source has no license.json.
        more: further files by their names, each written by a function of the folder, whose table
            and images are there.

    Returns:
        The table (None in a dry run or without any case), the summary and the problems.

    Raises:
        DataError: there is no case, an option is wrong, the output lies in the source or cannot be
            taken or written, or all masks become empty by a threshold.
    """
    output, root = Path(output), found.root
    kept = {"source": str(root.resolve()), **settings, **asdict(options)}
    del kept["dry_run"]
    if root.resolve() in (output.resolve(), *output.resolve().parents):
        raise DataError(f"{output}: lies in the source {root}; give a folder outside of it")
    own = (*WRITTEN, *(more or {}))
    check_output(output, kept, own)
    cases, problems, remarks = _divided(found, options)
    if not cases and not problems:
        raise DataError(f"{root}: no case in this layout; check the folder and the options")
    notes: Mapping[str, list[str]] = {}
    if options.dry_run:
        rows = _rows([(case, *_planned(case, root, rule)) for case in cases])
        head = f"dry run: {len(rows)} cases, {len(problems)} problems; nothing is written to"
        told = [f"{head} {output}, and pixels were not read", *_preview(rows)]
    else:
        with writable(output), new_folder(output, replace=True) as folder:
            rows, notes, found_later = _write(cases, root, rule, options, folder)
            problems = sorted([*problems, *found_later], key=lambda one: (one.case, one.file))
            write_problems(folder, problems)
            write_json(folder / SETTINGS_FILE, kept, indent=1)
            save_license(folder, data_license(root) or ([statement(data)] if data else []))
            if foreground:
                save_class_names({0: "background", 1: foreground}, folder / CLASSES)
            for name, write in (more or {}).items() if rows else ():
                write(folder / name)
            check_output(output, kept, own)  # it may have been filled meanwhile
        told = [f"{output}: {len(rows)} cases prepared, {len(problems)} problems"]
    if rule is not None:  # images without masks are predicted on: they need no splits
        remarks += _empty_splits(rows, options.shares)
    told += [*_counts(rows), *(f"  {remark}" for remark in remarks)]
    told += [
        f"  {note}: {len(names)} case{'' if len(names) == 1 else 's'} ({listed(names)})"
        for note, names in notes.items()
    ]
    told += shown([f"  problem: {problem}" for problem in problems], SHOWN_PROBLEMS, " problems")
    table = output / "table.csv" if rows and not options.dry_run else None
    made = None if options.dry_run else output
    return Prepared(table, "\n".join(told), [str(problem) for problem in problems], made)


def check_output(
    output: Path,
    settings: Mapping[str, Any],
    own: Collection[str] | None = None,
    free: Sequence[str] = (),
) -> None:
    """Refuse a folder that holds anything but what the same command wrote, and leave it so.

    Args:
        output: the folder to make.
        settings: see `check_settings`, and `free`.
        own: names of all that may be in it; None allows files beside a record of settings.
        free: names of settings that may differ.

    Raises:
        DataError: it is a file, or holds other files or what other settings made.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise DataError(f"{output}: a file, expected a new or empty folder; give another")
    half = (RECORDS, PREFIX)  # what a killed preparation may have left
    names = sorted(path.name for path in output.iterdir() if not path.name.startswith(half))
    foreign = [name for name in names if own and name not in own]
    if foreign or (names and SETTINGS_FILE not in names):
        raise DataError(
            f"{output}: holds {', '.join((foreign or names)[:5])}; give a new or empty folder, or "
            "one made by this very command"
        )
    check_settings(output / SETTINGS_FILE, settings, free)


def each_case(
    write: Callable[[FoundCase], Result], cases: Sequence[FoundCase], workers: int = 1
) -> Iterator[Result]:
    """Write the cases, and show how far it is.

    Args:
        write: writes one case; of a module, where several processes are to call it.
        cases: all of them.
        workers: processes; with 1, and for a single case, none is started, and the order is kept.

    Raises:
        DataError: a worker was killed.
    """
    with tqdm(total=len(cases), desc="prepare", unit="case", disable=None) as bar:
        if min(workers, len(cases)) <= 1:
            for case in cases:
                yield write(case)
                bar.update()
            return
        # never a fork of this process, whose threads it would lack
        ways = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in ways else "spawn")
        if "forkserver" in ways:
            context.set_forkserver_preload([write.__module__])  # imported once for all
        with ProcessPoolExecutor(min(workers, len(cases)), context, _begin_worker) as pool:
            try:
                for future in as_completed([pool.submit(write, case) for case in cases]):
                    yield future.result()
                    bar.update()
            except BrokenProcessPool as error:
                raise DataError(
                    "a worker was killed, perhaps for want of memory; give the same command "
                    "again, with fewer workers: finished cases are kept"
                ) from error
            finally:
                pool.shutdown(cancel_futures=True)


def _begin_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)  # there are as many cases at once as processes
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()


def _divided(
    found: FoundFolder, options: PrepareOptions
) -> tuple[list[FoundCase], list[Problem], list[str]]:
    """The cases with all columns, groups and splits, the problems of others, and remarks."""
    cases, namesakes = without_namesakes(found.cases, found.root)
    problems = [*found.problems, *namesakes]
    if options.ome:
        cases, more = with_ome(cases, found.root)
        problems += more
    cases, more = with_groups(cases, options.group)
    problems += more
    cases, more, remarks = with_splits(cases, options.shares, options.seed)
    if cases and all(case.group == case.case for case in cases):
        remarks.append(
            "every image is its own group: where several show one well, patient or photograph, "
            "name what tells it, so that it stays in one split"
        )
    return cases, problems + more, [*found.remarks, *remarks]


def _rows(
    files: Sequence[tuple[FoundCase, Mapping[str, str], Mapping[str, str]]],
) -> list[dict[str, str]]:
    """Rows of table.csv, with the columns of all cases, one for each of a case's targets."""
    names = dict.fromkeys(name for case, *_ in files for name in case.columns)
    rows = []
    for case, of_case, targets in files:
        known = {name: case.columns.get(name, "") for name in names}
        known |= {name: of_case[name] for name in ("instances",) if name in of_case}
        known |= {"group": case.group, "split": case.split}
        image = {name: of_case[name] for name in ("image", "label") if name in of_case}
        if not targets:
            rows.append(image | known)
        mask = {MASK: image.pop("label")} if targets and "label" in image else {}
        rows += [
            image | {"label": file, TARGET: target} | mask | known
            for target, file in targets.items()
        ]
    return rows


def _planned(
    case: FoundCase, root: Path, rule: MaskRule | None
) -> tuple[dict[str, str], dict[str, str]]:
    """The source files of a case, and those of its targets, as a dry run shows them."""
    files = {"image": ";".join(relative(path, root) for path in case.images)}
    if rule is not None:
        more = f" and {len(case.masks) - 1} more" if len(case.masks) > 1 else ""
        files["label"] = relative(case.masks[0], root) + more
    return files, {name: relative(path, root) for name, path in case.targets.items()}


# Writing the files of the cases.


class WrittenCase(NamedTuple):
    """What was written of a case.

    Attributes:
        found: the case.
        files: path relative to the folder by column: `image` (planes joined by ";"), `label`,
            `instances`.
        targets: paths likewise, by what they show.
        content: see `image_digest`; an image without contrast is like any other.
        grey: see `Masks`.
        notes: what is told of it, beginning with its type of pixels.
    """

    found: FoundCase
    files: dict[str, str]
    targets: dict[str, str]
    content: str
    grey: tuple[float, float] | None
    notes: tuple[str, ...]


def _write(
    cases: Sequence[FoundCase],
    root: Path,
    rule: MaskRule | None,
    options: PrepareOptions,
    folder: Path,
) -> tuple[list[dict[str, str]], dict[str, list[str]], list[Problem]]:
    """Write the files and the table; return its rows, notes with their cases, and problems."""
    written, problems = [], []
    for case in tqdm(cases, desc="prepare", unit="case", disable=None):
        try:
            written.append(_write_case(case, rule, options, folder))
        except DataError as error:
            problems.append(case.problem_of(root, error))
    grey = [one.grey for one in written if one.grey is not None]
    above, peak = max(grey, default=(0, 0))
    if 0 < peak <= above:
        raise DataError(
            f"threshold={above:g}: all {len(grey)} masks become empty, as their largest "
            f"value is {peak:g}; give a threshold below it"
        )
    copies = [same for same in alike(written, lambda one: one.content) if _in_splits(same) > 1]
    for same in copies:  # which of them is right is unknown
        problems += _copies(same, root)
        for one in same:
            _remove(one, folder)
    left_out = {one.found.case for same in copies for one in same}
    written = [one for one in written if one.found.case not in left_out]
    notes: dict[str, list[str]] = defaultdict(list)
    for one in written:
        for note in one.notes:
            notes[note].append(one.found.case)
    for same in alike(written, lambda one: one.content):
        notes["the same pixels within one split"] += [one.found.case for one in same]
    rows = _rows([(one.found, one.files, one.targets) for one in written])
    if rows:
        write_table(rows, folder / "table.csv")
    return rows, notes, problems


def _in_splits(same: Sequence[WrittenCase]) -> int:
    return len({one.found.split for one in same})


def _copies(same: Sequence[WrittenCase], root: Path) -> Iterator[Problem]:
    """The problem of each of several cases with the same pixels, of which some are in a split."""
    found = [one.found for one in same]
    for split in dict.fromkeys(case.split for case in found):
        others = listed(f"{case.case} ({case.split})" for case in found if case.split != split)
        told = f"in {split} with the same pixels as {others}"
        for case in found:
            if case.split == split:
                yield case.problem(root, told, "keep one of them, or give them one group")


def _remove(one: WrittenCase, folder: Path) -> None:
    joined = [*one.files.values(), *one.targets.values()]
    paths = [folder / path for files in joined for path in files.split(";")]
    for path in paths:
        path.unlink()
    if len(one.found.images) > 1:  # the folder of its planes
        paths[0].parent.rmdir()


def _write_case(
    case: FoundCase, rule: MaskRule | None, options: PrepareOptions, folder: Path
) -> WrittenCase:
    """Read all files of a case, check them against each other, and write them."""
    planes = [_read(path, options.axes) for path in case.images]
    first = planes[0]
    if len(planes) > 1 and (wide := [plane for plane in planes if len(plane.array) != 1]):
        raise DataError(
            f"{wide[0].attributes['path']}: {len(wide[0].array)} channels, expected one, as it is "
            f"one of {len(planes)} planes of an image; save it as grey, a file a plane"
        )
    targets = {name: _read_target(path, first) for name, path in case.targets.items()}
    for plane in planes[1:]:
        one, other = first.array, plane.array
        if (one.shape[1:], one.dtype) != (other.shape[1:], other.dtype):
            raise DataError(
                f"{plane.attributes['path']}: {other.dtype} {other.shape[1:]} differs from "
                f"{one.dtype} {one.shape[1:]} of {first.attributes['path']}; planes of one image "
                "must agree"
            )
    masks = None if rule is None else _read_masks(case, rule, first)
    if case.box is not None:
        planes = [_cut(plane, case.box) for plane in planes]
        first = planes[0]
        targets = {name: _cut(target, case.box) for name, target in targets.items()}
        masks = masks and _cut_masks(masks, case.box)
    converted = [_converted(plane, options) for plane in planes]  # all, before one is written
    remarks = [] if masks is None else list(masks.remarks)
    names = [f"images/{case.case}"]
    if len(planes) > 1:  # a folder of the case's name with a file a plane
        names = [f"images/{case.case}/{safe_name(plane)}" for plane in case.planes]
    images = [
        _write_image(path, array, folder / name, remarks)
        for path, array, name in zip(case.images, converted, names, strict=True)
    ]
    files = {"image": ";".join(relative(path, folder) for path in images)}
    if masks is not None:
        files |= _write_masks(case, masks, folder)
    shown_by: dict[str, str] = {}
    for name, target in targets.items():
        path = case.targets[name]
        made = folder / TARGETS / safe_name(name) / case.case
        written = _write_image(path, _converted(target, options), made, remarks)
        shown_by[name] = relative(written, folder)
        if target.array.min() == target.array.max():
            remarks.append(f"every pixel of {name} is {target.array.min():g}: without contrast")
    low = min(plane.array.min() for plane in planes)
    flat = bool(low == max(plane.array.max() for plane in planes))
    if flat:
        remarks.append(f"every pixel is {low:g}: an image without contrast")
    masked = [path for path in case.masks[:1] if rule is not None and is_image(path)]
    for what, turned in (
        ("image", any("orientation" in plane.attributes for plane in planes)),
        ("mask", any("orientation" in read_header(path, mask=True) for path in masked)),
    ):
        if turned:
            remarks.append(f"{what} turned upright as its orientation tag says (EXIF, TIFF 274)")
    if masks is not None and not masks.label.any():
        remarks.append("masks without foreground")
    if masks is not None and 2 * np.count_nonzero(masks.label) > masks.label.size:
        remarks.append("masks with more foreground than background (inverted?)")
    count = sum(
        len(plane.array if made is None else made)
        for plane, made in zip(planes, converted, strict=True)
    )
    kind = f"{first.array.dtype} with {count} channel{'' if count == 1 else 's'}"
    whole = np.concatenate([plane.array for plane in planes]) if len(planes) > 1 else first.array
    digest = image_digest(Image(whole, first.attributes))
    told = (kind, *remarks)
    return WrittenCase(case, files, shown_by, digest, masks and masks.grey, told)


def _read(path: Path, axes: str | None) -> Image:
    is_tiff = image_suffix(path) in (".tif", ".tiff")
    image = as_plane(read_image(path, axes=axes if is_tiff else None))
    if is_tiff:
        with tifffile.TiffFile(path) as file:
            if file.series[0].is_multifile:  # a copy would lack the pixels of the others
                raise DataError(
                    f"{path}: one of several files of an OME-TIFF set; save each image with all "
                    "its planes in a file of its own"
                )
    broken = int(image.array.size - np.count_nonzero(np.isfinite(image.array)))
    if broken:
        raise DataError(
            f"{path}: {broken} of {image.array.size} pixels are not finite numbers; mend the image"
        )
    return image


def _read_target(path: Path, image: Image) -> Image:
    """An image of one channel that is to be predicted, on the grid of the image."""
    target = _read(path, None)
    if target.array.shape != (1, *image.array.shape[1:]):
        raise DataError(
            f"{path}: {len(target.array)} channels of {target.array.shape[1:]}, expected one of "
            f"{image.array.shape[1:]} as {image.attributes['path']}; save it on the image's grid"
        )
    return target


CUT = "box"  # in the attributes of an image of which a part was taken


def _cut(image: Image, box: tuple[int, int, int, int]) -> Image:
    """The part of an image in a box."""
    top, left, bottom, right = box
    height, width = image.array.shape[1:]
    if not (0 <= top < bottom <= height and 0 <= left < right <= width):
        raise DataError(
            f"{image.attributes['path']}: a box of rows {top} to {bottom} and columns {left} to "
            f"{right} does not lie in its {height} x {width} pixels; mend the box"
        )
    return Image(image.array[:, top:bottom, left:right], {**image.attributes, CUT: box})


def _cut_masks(masks: Masks, box: tuple[int, int, int, int]) -> Masks:
    part = (slice(box[0], box[2]), slice(box[1], box[3]))
    objects = None if masks.objects is None else masks.objects[part]
    return masks._replace(label=masks.label[part], objects=objects, copied=None)


def _read_masks(case: FoundCase, rule: MaskRule, image: Image) -> Masks:
    masks, shape, path = rule(case.masks), image.array.shape[1:], case.masks[0]
    told = read_header(path, mask=True) if is_image(path) else {"affine": None}
    grid: Any = told.get("spatial_shape", shape)
    if ("plane" in image.attributes) != (len(grid) == 3):
        raise DataError(
            f"{path}: image and label are not both planes, or both volumes of one plane (H, W, 1), "
            "so how one lies on the other is unknown; save both in one form"
        )
    if masks.label.shape != shape:
        raise DataError(
            f"{path}: label of shape {masks.label.shape}, expected {shape} (rows, columns) as its "
            "image; save it on the image's grid"
        )
    if not same_grid(told["affine"], image.attributes["affine"], grid):
        raise DataError(f"{path}: its affine differs from its image's; resample the label")
    return masks


def _converted(image: Image, options: PrepareOptions) -> np.ndarray | None:
    """The pixels (C, H, W) to write; None where the file is copied."""
    if options.grey and len(image.array) > 1:
        try:
            luma = convert_channels(image.array, "grey")
        except DataError as error:
            raise DataError(f"{image.attributes['path']}: {error}") from error
        kind = image.array.dtype
        return luma if kind.kind == "f" else np.rint(luma).astype(kind)
    if CUT in image.attributes:
        return image.array
    if "plane" in image.attributes or (options.axes and image.attributes["format"] == "tiff"):
        return image.array
    return None


def _write_image(path: Path, array: np.ndarray | None, target: Path, remarks: list[str]) -> Path:
    """Copy a file byte for byte, or write the pixels (C, H, W) that take its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if array is None:
        copy = target.with_name(target.name + image_suffix(path))
        shutil.copyfile(path, copy)
        return copy
    try:
        resolution = tiff_resolution(path)
    except DataError:
        resolution = None
        remarks.append("written anew without the size of its pixels: OME metadata are not legible")
    made = target.with_name(f"{target.name}.tif")
    write_tiff(made, array, resolution)
    return made


def _write_masks(case: FoundCase, masks: Masks, folder: Path) -> dict[str, str]:
    for kind in ("labels", *([] if masks.objects is None else ["instances"])):
        (folder / kind).mkdir(exist_ok=True)
    files = {"label": f"labels/{case.case}.tif"}
    if masks.copied is None:
        write_tiff(folder / files["label"], masks.label)
    else:
        files = {"label": f"labels/{case.case}{image_suffix(masks.copied)}"}
        shutil.copyfile(masks.copied, folder / files["label"])
    if masks.objects is not None:
        files["instances"] = f"instances/{case.case}.tif"
        write_tiff(folder / files["instances"], masks.objects)
    return files


def write_tiff(path: Path, pixels: np.ndarray, resolution: Resolution | None = None) -> None:
    """Write pixels (H, W) or (C, H, W), one channel as a plane, with their axes by name."""
    per_unit, unit = resolution or (None, None)
    pixels = pixels[0] if len(pixels) == 1 and pixels.ndim == 3 else pixels
    tifffile.imwrite(
        path,
        pixels,
        photometric="minisblack",
        compression="zlib",
        metadata={"axes": "CYX"[-pixels.ndim :]},
        resolution=per_unit,
        resolutionunit=unit,
    )


# What was found and written, in words.


def shown(lines: Sequence[str], most: int, what: str = "") -> list[str]:
    """The first lines, and how many more there are."""
    more = len(lines) - most
    return [*lines[:most], *([f"  and {more} more{what}"] if more > 0 else [])]


def _preview(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The first rows as they stand in table.csv."""
    text = pd.DataFrame(rows[:PREVIEW_ROWS]).to_csv(index=False, lineterminator="\n")
    more = len(rows) - PREVIEW_ROWS
    return [*text.splitlines(), *([f"... and {more} more rows"] if more > 0 else [])]


def _counts(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """One line a split: cases, groups, and how often each value of a column occurs."""
    table = pd.DataFrame(rows)
    lines = []
    for split in SPLITS if rows else ():
        part = table[table["split"] == split]
        told = [f"{len(part)} cases", f"{part['group'].nunique()} groups"]
        for name in rows[0]:
            if name not in (*OWN_COLUMNS, MASK):
                values = part[name].replace("", "missing").value_counts().sort_index()
                told_values = ", ".join(f"{value} {count}" for value, count in values.items())
                few = len(values) <= MOST_VALUES
                told.append(f"{name}: {told_values if few else f'{len(values)} values'}")
        lines += [f"  {split}: {'; '.join(told)}"] if len(part) else []
    return lines


def _empty_splits(rows: Sequence[Mapping[str, str]], shares: Shares) -> list[str]:
    """A warning where a split that was to have cases has none."""
    found = {row["split"] for row in rows}
    of_split = zip(SPLITS, shares, strict=True)
    lacking = [split for split, share in of_split if share > 0 and split not in found]
    if not rows or not lacking:
        return []
    groups = len({row["group"] for row in rows})
    return [
        f"WARNING: no case in {' and '.join(lacking)}: {len(rows)} cases are {groups} "
        f"group{'' if groups == 1 else 's'}; mend the split column, or name columns that divide "
        "them further with --group"
    ]
