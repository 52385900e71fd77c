"""How many micrometres a pixel measures: from the table or the image's file, never guessed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tifffile

from metaseg_monai.data.cases import image_files
from metaseg_monai.data.headers import image_format
from metaseg_monai.data.microscopy.ome import ome_sides_um
from metaseg_monai.data.microscopy.resolution import IMAGEJ_UNITS, UM_PER_CM
from metaseg_monai.errors import DataError
from metaseg_monai.metadata.quantities import read_number

COLUMN = "pixel_um"
SCREEN_UM = 40.0  # larger pixels, as of 72 to 600 dpi, are those of a screen or printer
SQUARE = 1e-3  # relative


def pixel_size_um(item: Mapping[str, Any]) -> float | None:
    """The side of an image's square pixels in micrometres; None where it is unknown.

    The table's column `pixel_um` comes first, then what a TIFF says of itself: its OME metadata,
    its ImageJ unit, or a resolution per centimetre. A resolution per inch is that of a screen or
    printer and tells nothing; pixels that are not square have no one size.

    Args:
        item: of a table or folder, with `image`.

    Raises:
        DataError: the column holds no number above 0, or the file cannot be read.
    """
    told = str(item.get("columns", {}).get(COLUMN, "")).strip()
    if told:
        number = read_number(told)
        if number is None or number <= 0:
            raise DataError(
                f"case {item.get('case', '?')!r}: {COLUMN} is {told!r}; expected micrometres "
                "above 0, or an empty cell where the size is unknown"
            )
        return number
    file = image_files(item)[0]
    return tiff_pixel_um(file) if image_format(file) == "tiff" else None


def tiff_pixel_um(path: str | Path) -> float | None:
    """The side of a TIFF's square pixels in micrometres; None where it does not tell.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with tifffile.TiffFile(path) as file:
            sides = _of_ome(file.ome_metadata or "", path) if file.is_ome else _of_tags(file)
    except Exception as error:  # damaged headers fail anywhere inside tifffile
        raise DataError(f"{path}: its header cannot be read ({error}); copy it anew") from error
    if sides is None or not all(side > 0 for side in sides):
        return None
    return sides[1] if abs(sides[0] / sides[1] - 1) < SQUARE else None


def _of_ome(text: str, path: str | Path) -> tuple[float, float] | None:
    try:
        return ome_sides_um(text, str(path))
    except DataError:  # metadata that cannot be understood tell nothing; the pixels are read
        return None


def _of_tags(file: Any) -> tuple[float, float] | None:
    tags = file.pages[0].tags
    if "XResolution" not in tags or "YResolution" not in tags:
        return None
    per_unit = [tags[f"{axis}Resolution"].value for axis in "YX"]
    if any(0 in pair for pair in per_unit):
        return None
    imagej = str((file.imagej_metadata or {}).get("unit", "")).lower()
    if imagej:
        unit = IMAGEJ_UNITS.get(imagej)
    else:
        stored = tags["ResolutionUnit"].value if "ResolutionUnit" in tags else None
        unit = UM_PER_CM if stored == tifffile.RESUNIT.CENTIMETER else None
    if unit is None:
        return None
    y, x = (unit * denominator / numerator for numerator, denominator in per_unit)
    return (y, x) if imagej or max(y, x) < SCREEN_UM else None
