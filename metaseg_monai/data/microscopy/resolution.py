"""The size of the pixels that a TIFF tells, kept where its pixels are written anew."""

from pathlib import Path
from typing import Any, NamedTuple

import tifffile

from metaseg_monai.data.microscopy.ome import MICROMETRES, ome_sides_um
from metaseg_monai.data.readers import FORMAT_OF_SUFFIX, image_suffix

UM_PER_CM = 1e4
TAGS = ("XResolution", "YResolution", "ResolutionUnit")
IMAGEJ_UNITS = {
    **dict.fromkeys(("micron", "microns", "micrometer", "micrometre", "\\u00b5m"), 1.0),
    **MICROMETRES,
}


class Resolution(NamedTuple):
    """What the tags XResolution, YResolution and ResolutionUnit are to hold.

    Attributes:
        per_unit: pixels per unit along x and y, as numbers or (numerator, denominator).
        unit: 1 none, 2 inch, 3 centimetre.
    """

    per_unit: tuple[Any, Any]
    unit: int


def tiff_resolution(path: Path) -> Resolution | None:
    """The resolution by which a TIFF without its other metadata tells the same size of a pixel.

    Sizes of OME metadata and of ImageJ's units become pixels per centimetre; other tags stay.

    Args:
        path: a readable image; None comes back for one that is no TIFF or tells nothing.

    Raises:
        DataError: its OME metadata cannot be understood.
    """
    if FORMAT_OF_SUFFIX.get(image_suffix(path)) != "tiff":
        return None
    with tifffile.TiffFile(path) as file:
        ome = file.ome_metadata if file.is_ome else None
        imagej = (file.imagej_metadata or {}).get("unit")
        tags = file.pages.first.tags
        stored = [tags[name].value if name in tags else None for name in TAGS]
    sides = None if ome is None else ome_sides_um(ome, str(path))
    if sides is not None:
        return Resolution((UM_PER_CM / sides[0], UM_PER_CM / sides[1]), tifffile.RESUNIT.CENTIMETER)
    x, y, unit = stored
    if not (x and y and x[0] and y[0] and x[1] and y[1]):
        return None
    micrometres = IMAGEJ_UNITS.get(str(imagej).lower(), IMAGEJ_UNITS.get(str(imagej)))
    if imagej and micrometres:
        per_cm = [UM_PER_CM / micrometres * one / per for one, per in (x, y)]
        return Resolution((per_cm[0], per_cm[1]), tifffile.RESUNIT.CENTIMETER)
    # the TIFF standard's default unit is the inch; ImageJ's unknown units are none of the tag's
    return Resolution((x, y), tifffile.RESUNIT.NONE if imagej else int(unit or 2))
