"""Pixel size, magnification and channels, as a TIFF and its OME metadata tell them."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import tifffile

from metaseg_monai.errors import DataError, Problem
from metaseg_monai.images.image import FORMAT_OF_SUFFIX, image_suffix
from metaseg_monai.images.tiff import SQUARE, length_um, parse_ome, positive, tiff_pixel_um
from metaseg_monai.prepare.found import FoundCase

OME_COLUMNS = ("pixel_um", "magnification", "channel")


def with_ome(cases: Sequence[FoundCase], root: Path) -> tuple[list[FoundCase], list[Problem]]:
    """Add the columns of OME metadata; a cell of the same name stays, and numbers must agree.

    A magnification may be written as 20x.

    Returns:
        The cases with all of `OME_COLUMNS`, and the problems of those whose metadata cannot be
        read or differ from their cells.
    """
    added, problems = [], []
    for case in cases:
        try:
            told = read_ome(case.images)
        except DataError as error:
            problems.append(case.problem_of(root, error))
            continue
        cells = {name: case.columns.get(name, "") for name in OME_COLUMNS}
        differing = [
            f"{name} is {cells[name]!r}, its OME metadata have {told[name]}"
            for name in ("pixel_um", "magnification")
            if cells[name] and told[name] and not _same_number(cells[name], told[name])
        ]
        if differing:
            problems.append(case.problem(root, differing[0], "mend the one or the other"))
        else:
            columns = {name: cells[name] or told[name] for name in OME_COLUMNS}
            added.append(replace(case, columns={**case.columns, **columns}))
    return added, problems


def _same_number(cell: str, value: str) -> bool:
    try:
        number = float(re.sub(r"\s*[xX\u00d7]$", "", cell))
    except ValueError:
        return False
    return abs(number - float(value)) <= 1e-3 * abs(float(value))


def read_ome(paths: Sequence[Path]) -> dict[str, str]:
    """What the metadata of an image's files tell, of OME or the pixel size of ImageJ, as columns.

    Args:
        paths: the image's one file, or its planes.

    Returns:
        `pixel_um`, the side of a pixel in micrometres; `magnification`, the nominal one of the
        objective; `channel`, the names of the channels joined by ";". "" for what is not told.

    Raises:
        DataError: metadata are no XML, declare entities, give pixels that are not square or a
            size that is none, or planes differ.
    """
    told = [_read_file(path) for path in paths]
    for name in ("pixel_um", "magnification"):
        values = sorted({one[name] for one in told})
        if len(values) > 1:
            raise DataError(
                f"{paths[0]}: {name} differs between planes of one image ({values}); save them "
                "with the same metadata"
            )
    return {**told[0], "channel": ";".join(one["channel"] for one in told if one["channel"])}


def _read_file(path: Path) -> dict[str, str]:
    text = None
    if FORMAT_OF_SUFFIX.get(image_suffix(path)) == "tiff":
        try:
            with tifffile.TiffFile(path) as file:
                text = file.ome_metadata if file.is_ome else None
        except Exception as error:  # damaged headers fail anywhere inside the library
            raise DataError(f"{path}: its header cannot be read ({error}); copy it anew") from error
        if text is None:  # not of OME, but perhaps of ImageJ
            side = tiff_pixel_um(path, told=True)
            return {**dict.fromkeys(OME_COLUMNS, ""), "pixel_um": f"{side:.6g}" if side else ""}
    return dict.fromkeys(OME_COLUMNS, "") if text is None else ome_columns(text, str(path))


def ome_columns(text: str, where: str) -> dict[str, str]:
    """The columns of an OME-XML text, as `read_ome`, which raises the same of the file `where`."""
    root = parse_ome(text, where)
    images = root.findall("{*}Image")
    if len(images) != 1:
        raise DataError(
            f"{where}: OME metadata of {len(images)} images, expected one; save each as a file of "
            "its own"
        )
    pixels = images[0].find("{*}Pixels")
    if pixels is None:
        raise DataError(f"{where}: OME metadata without Pixels; save the file anew, or leave ome")
    sides = [length_um(pixels, f"PhysicalSize{axis}", where) for axis in "XY"]
    known = [side for side in sides if side is not None]
    if len(known) == 2 and abs(known[0] - known[1]) > SQUARE * max(known):
        raise DataError(
            f"{where}: pixels of {known[0]:g} x {known[1]:g} micrometres, expected squares; "
            "resample the image, or mend PhysicalSizeX and PhysicalSizeY"
        )
    names = [channel.get("Name") or "" for channel in pixels.iterfind("{*}Channel")]
    return {
        "pixel_um": f"{known[0]:.6g}" if known else "",
        "magnification": _magnification(root, images[0], where),
        "channel": ";".join(name.replace(";", ",") for name in names) if any(names) else "",
    }


def _magnification(root: ET.Element, image: ET.Element, where: str) -> str:
    """The nominal magnification of the objective the image names, or of the only one."""
    objectives, name = list(root.iterfind(".//{*}Objective")), "NominalMagnification"
    used = image.find("{*}ObjectiveSettings")
    if used is not None:
        objectives = [one for one in objectives if one.get("ID") == used.get("ID")]
    text = objectives[0].get(name) if len(objectives) == 1 else None
    return "" if text is None else f"{positive(text, name, where):.6g}"
