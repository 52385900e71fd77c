"""The adipocyte challenge, and what is named like it: brightfield planes and their fluorescence."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import regionprops
from skimage.segmentation import watershed

from metaseg_monai.errors import DataError, Problem
from metaseg_monai.files import write_json
from metaseg_monai.images.read import read_image, read_label
from metaseg_monai.naming import safe_name
from metaseg_monai.prepare.found import (
    SPLIT_NAMES,
    FoundCase,
    FoundFolder,
    is_image,
    listed,
    relative,
    source_folder,
    visible_files,
)
from metaseg_monai.prepare.masks import MOST_OBJECTS, Masks
from metaseg_monai.prepare.pipeline import TARGET, Prepared, PrepareOptions, prepare_found
from metaseg_monai.prepare.splits import seeded_splits
from metaseg_monai.rows import read_lines, write_table

# <plate>_<well>_T<time>F<field>L<line>A<action>Z<plane>C<channel>.tif
NAME = re.compile(
    r"(?P<plate>.+)_(?P<well>[A-Z]{1,2}\d{2})_(?P<place>T\d+F(?P<field>\d+)L\d+)A\d+"
    r"Z(?P<plane>\d+)C(?P<channel>\d+)\.tiff?",
    re.IGNORECASE,
)
FOLDER = re.compile(r"(\d+(?:\.\d+)?)x(?:[_ -].*)?", re.IGNORECASE)  # 20x_images
STAINS: Mapping[int, str] = {1: "nuclei", 2: "lipids", 3: "cytoplasm"}
BRIGHTFIELD = 4
FINAL: Mapping[float, int] = {20: 3, 40: 4, 60: 6}  # test fields of the last training (report 6)
Ranges = Literal["measured", "report"]
# Lowest and highest values of the challenge's images (report, table 1): planes, then stains. The
# team's own statistics have 19,280 for the fifth plane at 20x.
REPORTED: Mapping[str, Mapping[str, list[list[float]]]] = {
    "20": {
        "planes": [
            [205, 13522],
            [183, 14515],
            [123, 18461],
            [109, 19788],
            [134, 19200],
            [144, 17543],
            [183, 15875],
        ],
        "nuclei": [[0, 24835]],
        "lipids": [[0, 3467]],
        "cytoplasm": [[45, 65535]],
    },
    "40": {
        "planes": [
            [1, 5900],
            [4, 5547],
            [7, 5151],
            [1, 4703],
            [13, 4362],
            [4, 4888],
            [23, 4794],
        ],
        "nuclei": [[0, 17794]],
        "lipids": [[0, 2633]],
        "cytoplasm": [[30, 32504]],
    },
    "60": {
        "planes": [
            [0, 4796],
            [0, 4359],
            [0, 4166],
            [0, 4414],
            [0, 4417],
            [0, 4793],
            [11, 4225],
        ],
        "nuclei": [[0, 15169]],
        "lipids": [[0, 5328]],
        "cytoplasm": [[23, 11177]],
    },
}
NUCLEI, INTENSITY, INTENSITY_LABELS = "nuclei.csv", "intensity.json", "intensity_labels.json"
BOX = ("x0", "y0", "x1", "y1")


def prepare_adipocyte(
    source: str | Path,
    output: str | Path,
    hold_out: Sequence[str] = (),
    final: bool = False,
    boxes: str | Path | None = None,
    ranges: Ranges = "measured",
    camera_pixel_um: float = 8.0,
    train: float = 0.7,
    val: float = 0.15,
    test: float = 0.15,
    seed: int = 0,
    dry_run: bool = False,
) -> Prepared:
    r"""Prepare the adipocyte challenge: a row for each field and stain, its planes joined.

    Files are named <plate>_<well>_T0001F001L01A04Z01C04.tif, in folders such as 20x_images; C04 are
    the planes of brightfield, C01 nuclei, C02 lipids, C03 cytoplasm. Others that are named so, with
    other planes or without some stain, are taken too.

    The table's label is the fluorescence, its column channel the stain; mask and instances are
    nuclei found in C01 (see `nuclei_mask`). Beside it stand nuclei.csv with the centre of each
    nucleus, for crops, intensity.json with the lowest and highest value of each plane at each
    magnification, and intensity_labels.json likewise of each stain.

    Example:
        python -m metaseg_monai prepare adipocyte --source astra_data --output adipocyte \
--hold_out B03

    Args:
        source: folder with 20x_images, 40x_images and 60x_images, or some of them.
        output: new or empty folder, or one made by the same command, which is made anew.
        hold_out: wells that are the test split, such as B03 in the report; the others are divided
            by train and val.
        final: the report's last training: 3, 4 and 6 random fields at 20x, 40x and 60x are the test
            split, though their wells are trained on.
        boxes: CSV file with the columns image (one of a field's planes, or all joined by ;), x0,
            y0, x1, y1 and split, of which each row is a case, a part of a field. Those of one field
            and split are a group, which is not apart from the field's other parts.
        ranges: measured in all images, as the report does, or report for the values it prints.
        camera_pixel_um: side of a pixel of the camera; divided by the magnification it is that of
            the image, by which nuclei are told by their size.
        train: part of the wells, or a number of wells; so val and test.
        val: see train.
        test: see train.
        seed: of the draw.
        dry_run: show the first rows and the counts, and write nothing.

    Raises:
        DataError: a setting is wrong, no file is named so, or see `prepare_found`.
    """
    held = tuple(hold_out)
    if isinstance(hold_out, str) or (held and final) or (boxes and (held or final)):
        raise DataError(
            f"hold_out={hold_out!r}, final={final}, boxes={boxes}: give one of them, hold_out as "
            "names of wells, such as B03"
        )
    if ranges not in ("measured", "report"):
        raise DataError(f"ranges={ranges!r}: expected measured or report")
    if isinstance(camera_pixel_um, bool) or not 0.1 <= camera_pixel_um <= 100:
        raise DataError(f"camera_pixel_um={camera_pixel_um!r}: expected micrometres, such as 8")
    shares = (train, val, test)
    if held or final:  # have their test split already
        if any(isinstance(share, float) for share in shares) and train + val > 1:
            raise DataError(f"train={train}, val={val}: expected parts whose sum is at most 1")
        whole = all(isinstance(share, int) for share in shares) and train + val > 1
        rest = 1 if whole else train + val
        shares = (train / rest, val / rest, 0) if rest else shares
        shares = (train, val, 0) if whole else shares
    options = PrepareOptions(shares=shares, seed=seed, dry_run=dry_run)
    root = source_folder(source, "a folder with 20x_images and so on").absolute()
    found, stained = _fields(root, camera_pixel_um)
    if held or final:
        found = _held_out(found, held, seed)
    if boxes is not None:
        found = _in_boxes(found, root, Path(boxes))
    settings = {
        "layout": "adipocyte",
        "hold_out": list(held),
        "final": final,
        "boxes": None if boxes is None else str(boxes),
        "ranges": ranges,
        "camera_pixel_um": camera_pixel_um,
    }
    rule = partial(nuclei_mask, camera_pixel_um=camera_pixel_um) if 1 in stained else None
    more: dict[str, Callable[[Path], object]] = {
        NUCLEI: write_centres,
        INTENSITY: partial(write_ranges, of="planes", ranges=ranges),
        INTENSITY_LABELS: partial(write_ranges, of="stains", ranges=ranges),
    }
    if rule is None:
        del more[NUCLEI]
    return prepare_found(found, output, rule, options, settings, more=more)


class _Named(NamedTuple):
    """What the name and folder of a file tell."""

    magnification: str
    plate: str
    well: str
    place: str
    field: int
    plane: int
    channel: int


def _named(path: Path, root: Path) -> _Named | None:
    told = NAME.fullmatch(path.name)
    magnification = magnification_of(path, root)
    if told is None or magnification is None:
        return None
    plate, well, place = told["plate"], told["well"].upper(), told["place"].upper()
    numbers = (int(told["field"]), int(told["plane"]), int(told["channel"]))
    return _Named(magnification, plate, well, place, *numbers)


def magnification_of(path: Path, root: Path) -> str | None:
    """The magnification that the nearest folder above a file tells, as 20 of 20x_images."""
    for folder in path.relative_to(root.parent).parts[-2::-1]:
        if (told := FOLDER.fullmatch(folder)) and float(told[1]) > 0:
            return f"{float(told[1]):g}"
    return None


def _fields(root: Path, camera_pixel_um: float) -> tuple[FoundFolder, set[int]]:
    """The fields of a source, and the numbers of all stains that some field has."""
    of_field: dict[tuple[str, str, str, str, int], dict[tuple[int, int], list[Path]]] = defaultdict(
        lambda: defaultdict(list)
    )
    others, unknown = [], []
    for path in visible_files(root):
        named = _named(path, root)
        if named is not None and is_image(path):
            of_field[named[:5]][named.channel, named.plane].append(path)
        elif NAME.fullmatch(path.name):
            unknown.append(relative(path, root))
        else:
            others.append(relative(path, root))
    if not of_field:
        told = "is named <plate>_<well>_T0001F001L01A04Z01C04.tif in a folder such as 20x_images"
        raise DataError(f"{root}: no image {told}; it has {listed([*unknown, *others]) or 'none'}")
    held = Counter(key for files in of_field.values() for key in files)
    keys = set(held)
    # what most fields have is what each must have
    planes = sorted(
        plane
        for (channel, plane), fields in held.items()
        if channel == BRIGHTFIELD and 2 * fields >= len(of_field)
    )
    stained = {channel for channel, _ in keys if channel in STAINS}
    strange = sorted({channel for channel, _ in keys} - {*STAINS, BRIGHTFIELD})
    if not planes or not stained:
        lacking = "stain (C01 to C03)" if planes else "plane of brightfield (C04) that most have"
        raise DataError(f"{root}: no {lacking} among {len(of_field)} fields; get them")

    def found() -> Iterator[FoundCase | Problem | str]:
        for (magnification, plate, well, place, field), files in of_field.items():
            name = safe_name(f"{magnification}x", plate, well, place)
            first = next(iter(files.values()))[0]
            twice = [paths for paths in files.values() if len(paths) > 1]
            wanted = [(BRIGHTFIELD, plane) for plane in planes]
            targets = {
                stain: [paths for (channel, _), paths in files.items() if channel == stain]
                for stain in sorted(stained)
            }
            lacking = [f"Z{plane:02d}C{channel:02d}" for channel, plane in wanted
                       if (channel, plane) not in files]  # fmt: skip
            lacking += [f"C{stain:02d}" for stain, paths in targets.items() if not paths]
            more = [
                f"Z{plane:02d}" for channel, plane in files
                if channel == BRIGHTFIELD and plane not in planes
            ]  # fmt: skip
            several = [f"C{stain:02d}" for stain, paths in targets.items() if len(paths) > 1]
            if twice or lacking or several or more:
                told = f"no {', '.join(lacking)}, which other fields have"
                step = "get it, or leave the field out"
                if more:
                    told = f"plane {', '.join(more)}, which most fields have not" + (
                        f", and no {', '.join(lacking)}" if lacking else ""
                    )
                    step = "name it as they do, or leave the field out"
                if twice or several:
                    which = [relative(path, root) for paths in twice for path in paths]
                    told = f"several files of {listed(which or several)}, expected one"
                    step = "remove what is not to be read"
                yield Problem(name, relative(first, root), told, step)
                continue
            found_in = {stain: paths[0][0] for stain, paths in targets.items()}
            pixel_um = camera_pixel_um / float(magnification)
            yield FoundCase(
                name,
                tuple(files[key][0] for key in wanted),
                (found_in[1],) if 1 in found_in else (),
                {
                    "magnification": magnification,
                    "plate": plate,
                    "well": well,
                    "field": str(field),
                    "pixel_um": f"{pixel_um:.6g}",
                },
                planes=tuple(f"Z{plane:02d}" for plane in planes),
                group=safe_name(plate, well),
                targets={STAINS[stain]: path for stain, path in found_in.items()},
            )
        told = ", ".join(STAINS[stain] for stain in sorted(stained))
        yield f"{len(planes)} planes, {told}; pixels of {camera_pixel_um:g} um on the camera"
        if strange:
            channels = ", ".join(f"C{one:02d}" for one in strange)
            yield f"files of {channels}, which no stain is known of, are left out"
        if unknown:
            told = f"{len(unknown)} files in no folder such as 20x_images: {listed(unknown)}"
            yield Problem("", "", told, "name the folder by its magnification")
        if others:
            yield f"{len(others)} files that are named otherwise: {listed(others)}"

    return FoundFolder.of(root, found()), stained


def _held_out(found: FoundFolder, wells: Sequence[str], seed: int) -> FoundFolder:
    """The fields with those of wells, or else some of each magnification, as test split."""
    if wells:
        known = sorted({case.columns["well"] for case in found.cases})
        if strangers := [well for well in wells if well not in known]:
            raise DataError(
                f"hold_out={','.join(wells)}: no well {', '.join(strangers)}; there are "
                f"{', '.join(known)}"
            )
        cases = [
            replace(case, split="test") if case.columns["well"] in wells else case
            for case in found.cases
        ]
        return replace(found, cases=tuple(cases))
    cases, told = [], []
    for magnification in dict.fromkeys(case.columns["magnification"] for case in found.cases):
        of_one = [case for case in found.cases if case.columns["magnification"] == magnification]
        wanted = FINAL.get(float(magnification), 0)
        if not 0 < wanted < len(of_one):
            raise DataError(
                f"final: {len(of_one)} fields at {magnification}x, expected more than "
                f"{wanted or 'those of 20x, 40x or 60x'}; give hold_out, or shares"
            )
        part = wanted / len(of_one)
        drawn = seeded_splits([case.case for case in of_one], (1 - part, 0.0, part), seed)
        cases += [
            replace(case, group=case.case, split="test" if drawn[case.case] == "test" else "")
            for case in of_one
        ]
        told.append(f"{wanted} at {magnification}x")
    remark = f"test fields ({', '.join(told)}) are of wells that are trained on (report 6)"
    return replace(found, cases=tuple(cases), remarks=(*found.remarks, remark))


def _in_boxes(found: FoundFolder, root: Path, boxes: Path) -> FoundFolder:
    """The parts of the fields that a table names, each with its split."""
    file = boxes if boxes.is_file() else root / boxes
    if not file.is_file():
        raise DataError(f"{boxes}: no such table, here or in {root}; check boxes")
    header, lines, broken = read_lines(file)
    if lacking := [name for name in ("image", *BOX, "split") if name not in header]:
        raise DataError(
            f"{file}: no column {', '.join(lacking)}; it has {', '.join(header)}: name them so"
        )
    of_plane = {relative(path, root): case for case in found.cases for path in case.images}
    cases: list[FoundCase] = []
    rows: list[int] = []
    problems = [Problem("", file.name, text, "mend the row") for text in broken]
    for number, cells in lines:
        planes = [part.strip() for part in cells["image"].split(";")]
        case = of_plane.get(planes[0])
        corners = [cells[name].strip() for name in BOX]
        split = SPLIT_NAMES.get(cells["split"].strip().lower(), "")
        if case is None or not all(map(str.isdecimal, corners)) or not split:
            told = f"no field with the plane {planes[0]!r}" if case is None else (
                f"box {corners} and split {cells['split']!r}: expected whole pixels, and one of "
                f"{', '.join(SPLIT_NAMES)}"
            )  # fmt: skip
            problems.append(Problem("", file.name, f"row {number}: {told}", "mend the row"))
            continue
        left, top, right, bottom = map(int, corners)
        box = (top, left, bottom, right)
        if again := [
            row for row, other in zip(rows, cases, strict=True)
            if other.images == case.images and _not_apart(box, split, other)
        ]:  # fmt: skip
            told = (
                f"row {number}: its box has the corner of that of row {again[0]}, or shares pixels "
                "with it across splits"
            )
            problems.append(Problem("", file.name, told, "move one of both, or leave it out"))
            continue
        rows.append(number)
        cases.append(
            replace(
                case,
                case=safe_name(case.case, f"y{top}x{left}"),
                group=safe_name(case.group, f"F{case.columns['field']}", split),
                split=split,
                box=box,
            )
        )
    remark = "parts of one field are in several splits: their test tells of no other field"
    several = len({case.images for case in cases}) < len({(c.images, c.split) for c in cases})
    remarks = (*found.remarks, *([remark] if several else []))
    return FoundFolder(root, tuple(cases), (*found.problems, *problems), remarks)


def _not_apart(box: tuple[int, int, int, int], split: str, other: FoundCase) -> bool:
    """Whether pixels of a box (top, left, bottom, right) stand in another split, or its name."""
    if other.box is None or box[:2] == other.box[:2]:
        return True
    (top, left, bottom, right), (above, before, below, behind) = box, other.box
    overlap = top < below and above < bottom and left < behind and before < right
    return overlap and split != other.split


# Nuclei in their fluorescence.

SMOOTH_UM = 0.6
LEAST_NUCLEUS_UM = 7.0  # diameter of a disc of the area; smaller ones are debris
LEAST_CONTRAST = 6.0  # of the threshold over the background, in its spread


def nuclei_mask(paths: Sequence[Path], camera_pixel_um: float) -> Masks:
    """Find nuclei in their fluorescence: smoothed, Otsu's threshold, touching ones divided.

    The report took the masks of the challenge's CellProfiler pipeline, which has no place here.
    These are likewise of the fluorescence alone, and so no hand-drawn truth.

    Args:
        paths: the file of the fluorescence, in a folder that tells the magnification.
        camera_pixel_um: see `prepare_adipocyte`.

    Raises:
        DataError: the file cannot be read, or holds more objects than 16 bits can number.
    """
    path = paths[0].absolute()
    magnification = magnification_of(path, Path(path.anchor))
    array = read_image(path).array
    if len(array) != 1:
        raise DataError(f"{paths[0]}: {len(array)} channels, expected one; save it as grey")
    if magnification is None:
        raise DataError(
            f"{paths[0]}: in no folder that tells the magnification; name it as 20x_images"
        )
    objects = find_nuclei(array[0], camera_pixel_um / float(magnification))
    if objects.max() > MOST_OBJECTS:
        raise DataError(
            f"{paths[0]}: {objects.max()} nuclei, at most {MOST_OBJECTS}; check its pixels"
        )
    label = (objects > 0).astype(np.uint8)
    return Masks(label, objects=objects.astype(np.uint16))


def find_nuclei(fluorescence: np.ndarray, pixel_um: float) -> np.ndarray:
    """Number the nuclei in an image (H, W) of their fluorescence; 0 is background.

    >>> picture = np.zeros((64, 64)); picture[8:28, 8:28] = 100; picture[40:60, 30:50] = 60
    >>> int(find_nuclei(picture, pixel_um=0.5).max())
    2
    """
    smooth = gaussian(fluorescence.astype(np.float32), SMOOTH_UM / pixel_um)
    background = float(np.median(smooth))
    spread = 1.4826 * float(np.median(np.abs(smooth - background)))
    if smooth.min() == smooth.max():
        return np.zeros(smooth.shape, np.int32)
    threshold = float(threshold_otsu(smooth))
    if threshold - background < LEAST_CONTRAST * spread:  # noise alone
        return np.zeros(smooth.shape, np.int32)
    radius_px = LEAST_NUCLEUS_UM / 2 / pixel_um
    mask = ndimage.binary_fill_holes(smooth > threshold)
    depth = gaussian(ndimage.distance_transform_edt(mask), 0.25 * radius_px)
    peaks = peak_local_max(
        depth, min_distance=max(1, round(1.2 * radius_px)), labels=ndimage.label(mask)[0],
        exclude_border=False,
    )  # fmt: skip
    seeds = np.zeros(mask.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    objects = watershed(-depth, seeds, mask=mask)
    areas = np.bincount(objects.ravel())
    kept = np.flatnonzero(areas[1:] >= np.pi * radius_px**2) + 1
    numbers = np.zeros(len(areas), np.int32)
    numbers[kept] = np.arange(1, len(kept) + 1)
    return numbers[objects]


# What stands beside the table, made of what is in it.


def write_centres(path: Path) -> None:
    """Write nuclei.csv beside a table: each nucleus of its object files with centre and area.

    Columns: image (as in the table), instances, number, y_px, x_px (from 0, of the first pixel's
    middle), area_px, group and split.
    """
    rows = []
    for cells in _once(path.parent, "instances"):
        objects = read_label(path.parent / cells["instances"]).array[0]
        for one in regionprops(objects.astype(np.int32)):
            row = {name: cells[name] for name in ("image", "instances")}
            y, x = one.centroid
            row |= {"number": str(one.label), "y_px": f"{y:.2f}", "x_px": f"{x:.2f}"}
            row |= {"area_px": str(int(one.area)), "group": cells["group"], "split": cells["split"]}
            rows.append(row)
    if rows:
        write_table(rows, path)


def write_ranges(path: Path, of: Literal["planes", "stains"], ranges: Ranges = "measured") -> None:
    """Write the lowest and highest values beside a table, as `IntensityStatistics` reads them.

    Args:
        path: the file to write.
        of: the planes of images by magnification, or labels by magnification and stain.
        ranges: see `prepare_adipocyte`.

    Raises:
        DataError: the report has no range of a magnification, or for as many planes.
    """
    by = ["magnification"] if of == "planes" else ["magnification", TARGET]
    column = "image" if of == "planes" else "label"
    found: dict[str, np.ndarray] = {}
    counts: dict[str, int] = defaultdict(int)
    for cells in _once(path.parent, column):
        name = "/".join(cells[one] for one in by)
        files = [path.parent / file for file in cells[column].split(";")]
        pixels = [channel for file in files for channel in read_image(file).array]
        own = np.array([[one.min(), one.max()] for one in pixels], dtype=float)
        last = found.get(name, own)
        found[name] = np.stack(
            [np.minimum(last[:, 0], own[:, 0]), np.maximum(last[:, 1], own[:, 1])], axis=1
        )
        counts[name] += 1
    values = {name: one.tolist() for name, one in found.items()}
    if ranges == "report":
        values = {name: _reported(name, len(one)) for name, one in values.items()}
    write_json(
        path,
        {"by": "/".join(by), "percentiles": [0, 100], "ranges": values, "images": dict(counts)},
        indent=1,
    )


def _reported(name: str, channels: int) -> list[list[float]]:
    magnification, _, stain = name.partition("/")
    known = REPORTED.get(magnification, {}).get(stain or "planes", [])
    if len(known) != channels:
        raise DataError(
            f"ranges=report: {channels} channels of {name}x, but the report has {len(known)}; "
            "give ranges=measured"
        )
    return known


def _once(folder: Path, column: str) -> list[dict[str, str]]:
    """The rows of a folder's table, of those with the same file the first."""
    rows = {cells[column]: cells for _, cells in reversed(read_lines(folder / "table.csv")[1])}
    return [rows[file] for file in sorted(rows) if file]
