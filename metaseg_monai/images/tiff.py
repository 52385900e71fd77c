"""Reading TIFF: axes by name, exact data types, nothing left out in silence; size of pixels."""

import logging
import math
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL.TiffImagePlugin import TiffImageFile

from metaseg_monai.errors import DataError
from metaseg_monai.images.image import (
    FORMAT_OF_SUFFIX,
    ORIENTATION,
    TURNS,
    Image,
    Palette,
    check_announced,
    faults_as_errors,
    image_attributes,
    image_suffix,
    known_orientation,
    upright,
)
from metaseg_monai.images.lazy import LARGE_PIXELS

# Compressions that change values, or may; JPEG 2000, XL and XR also have exact forms.
LOSSY: Mapping[int, str] = {
    **dict.fromkeys((6, 7, 33007, 34892), "JPEG"),
    **dict.fromkeys((33003, 33004, 33005, 34712), "JPEG 2000"),
    **{22610: "JPEG XR", 34887: "LERC", 34927: "WebP", 50001: "WebP"},
    **dict.fromkeys((34934, 50002, 52546), "JPEG XL"),
}
UNNAMED_PAGES = "QI"  # tifffile's letters for pages whose meaning the file does not tell
NEXT_STEP = (
    "read the pages as slices of a volume with spatial_dims=3, or name the axes, for instance "
    'axes="CYX" for pages that are channels, or save one file a plane and join the paths by ";"'
)


def read_tiff(
    path: Path,
    spatial_dims: int | None = None,
    axes: str | None = None,
    palette: Palette = "colours",
    lazily: bool = False,
) -> Image:
    """Read the one image of a TIFF file as (C, H, W), or as (C, H, W, D) where that is asked for.

    Args:
        path: the file.
        spatial_dims: 2 (as None) or 3; with 3 the pages become the last axis D.
        axes: overrides the axes that the file names, one letter for each axis of its array:
            C or S channels, Z depth, Y rows, X columns.
        palette: "colours" looks palette indices up (images), "indices" keeps them (labels).
        lazily: leave the pixels of a large plane in the file where its tiles or strips can be read
            one by one: the array is a `TiffPixels` then.

    Raises:
        DataError: the file is damaged or truncated, holds several images or axes beyond those
            asked for, or stores its pixels in a form that cannot be read exactly.
    """
    with _heard(path), tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            raise DataError(
                f"{path}: holds {len(file.series)} separate images, expected one; "
                "save each as a file of its own"
            )
        series = file.series[0]
        needed, mask = int(series.nbytes), palette == "indices"
        page = series.keyframe
        bits = min(8, page.bitspersample // series.dtype.itemsize)
        check_announced(path, needed, path.stat().st_size, series.shape, mask=mask, bits=bits)
        _check_segments(path, file)
        if lazily and axes is None and _in_parts(series):
            pixels: Any = TiffPixels(path, page)
            return Image(pixels, image_attributes(str(path), "tiff", series.axes, pixels.shape[1:]))
        array = _decoded(path, series)
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and array.dtype.kind == "b":
            array = array.astype(np.uint8)
        doubtful = _doubtful(page, array)
        array = _true_values(path, array, page, palette)
        stored_axes = series.axes
        if "colours" in doubtful and palette == "colours":
            array = np.moveaxis(np.asarray(page.colormap)[:, array], 0, -1)
            stored_axes += "S"
        orientation = page_orientation(page)
    array = _channel_first(path, array, stored_axes, axes, spatial_dims or 2)
    if orientation != 1:
        array, doubtful["orientation"] = upright(array, orientation), orientation
    attributes = image_attributes(
        str(path), "tiff", axes or stored_axes, array.shape[1:], **doubtful
    )
    return Image(array, attributes)


class TiffPixels:
    """The pixels (C, H, W) of a page, of which those asked for are read, as of an array.

    The segments (tiles or strips) that the last part lay in are kept, for the next one.
    """

    def __init__(self, path: Path, page: Any) -> None:
        self.path = path
        rows, columns = page.imagelength, page.imagewidth
        self.shape = (page.samplesperpixel, rows, columns)
        self.dtype = page.dtype.newbyteorder("=")
        self.separate = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        self.across = -(-columns // page.tilewidth) if page.is_tiled else 1  # segments
        self.tall = page.tilelength if page.is_tiled else min(page.rowsperstrip, rows)
        self._kept: dict[int, np.ndarray] = {}

    def __getitem__(self, place: tuple[slice, slice, slice]) -> np.ndarray:
        """Read a part.

        Raises:
            DataError: it cannot be read.
        """
        channels, rows, columns = place
        first, last = rows.start // self.tall, (rows.stop - 1) // self.tall
        self._kept = {n: kept for n, kept in self._kept.items() if first <= n <= last}
        missing = [n for n in range(first, last + 1) if n not in self._kept]
        if missing:
            self._kept.update(self._read(missing))
        parts = []
        for n in range(first, last + 1):
            start, stop = max(rows.start, n * self.tall), min(rows.stop, (n + 1) * self.tall)
            here = slice(start - n * self.tall, stop - n * self.tall)
            parts.append(self._kept[n][channels, here, columns])
        return np.concatenate(parts, axis=1)

    def _read(self, bands: list[int]) -> dict[int, np.ndarray]:
        """The rows (C, rows, W) of some bands of segments."""
        found = {}
        with _heard(self.path), tifffile.TiffFile(self.path) as file:
            page = file.series[0].keyframe
            down = -(-self.shape[1] // self.tall)
            for band in bands:
                height = min(self.tall, self.shape[1] - band * self.tall)
                rows = np.empty((self.shape[0], height, self.shape[2]), self.dtype)
                for plane in range(self.shape[0] if self.separate else 1):
                    start = (plane * down + band) * self.across
                    for index in range(start, start + self.across):
                        file.filehandle.seek(page.dataoffsets[index])
                        raw = file.filehandle.read(page.databytecounts[index])
                        pixels, (_, _, _, left, _), _ = page.decode(raw, index)
                        part = np.moveaxis(pixels[0], -1, 0)[:, :height, : self.shape[2] - left]
                        where = slice(plane, plane + 1) if self.separate else slice(None)
                        rows[where, :, left : left + part.shape[2]] = part
                found[band] = rows
        return found


def _in_parts(series: Any) -> bool:
    """Whether a series is a large plane, as it is to be taken, that can be read part by part."""
    page = series.keyframe
    plain = page.photometric in (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.RGB)
    whole = page.dtype is not None and page.dtype.kind in "uif" and page.imagedepth == 1
    if not (plain and whole and page_orientation(page) == 1 and page.compression not in LOSSY):
        return False
    if len(series.pages) > 1 or page.imagelength * page.imagewidth <= LARGE_PIXELS:
        return False
    if series.axes not in ("YX", "YXS", "SYX") or math.prod(page.chunked) == 1:
        return False
    try:
        series.parent.filehandle.seek(page.dataoffsets[0])
        page.decode(series.parent.filehandle.read(page.databytecounts[0]), 0)
    except Exception:  # without a decoder (imagecodecs), or damaged: reading all of it tells
        return False
    return True


def page_orientation(page: Any) -> int:
    """The orientation of a page, 1 where it is upright, see `Image`."""
    tag = page.tags.get(ORIENTATION)
    return known_orientation(None if tag is None else int(tag.value))


# Pixels that Pillow's libtiff decodes exactly, by type and samples: the modes that hold them.
EXACT: Mapping[tuple[str, int], tuple[str, ...]] = {
    ("b1", 1): ("1",),
    ("u1", 1): ("L", "P"),
    ("u1", 3): ("RGB", "YCbCr"),
    ("u2", 1): ("I;16", "I;16B", "I;16L"),
    ("f4", 1): ("F",),
}


PILLOWS = (2, 3, 4, 5, 7)  # compressions that it decodes: fax, LZW, JPEG


def _decoded(path: Path, series: Any) -> np.ndarray:
    """The pixels of a series; by Pillow where tifffile alone has no decoder (LZW, JPEG, fax).

    Raises:
        DataError: neither can decode them exactly; names the extra that can.
    """
    try:
        return np.asarray(series.asarray())
    except Exception as error:
        if "imagecodecs" not in str(error):
            raise
    page = series.keyframe
    kind = page.dtype.newbyteorder("=").str.lstrip("<>|=")
    modes = EXACT.get((kind, page.samplesperpixel), ())
    white = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    frames = [one.index for one in series.pages]
    simple = all(isinstance(number, int) for number in frames) and page.planarconfig == 1
    pixels = []
    if page.compression in PILLOWS and modes and simple and not (white and kind == "u2"):
        with TiffImageFile(path) as file:
            for number in frames:
                file.seek(number)
                if file.mode in modes:
                    picture = file.convert("RGB") if file.mode == "YCbCr" else file
                    pixels.append(np.array(picture).astype(page.dtype.newbyteorder("=")))
    if not pixels or len(pixels) != len(frames):
        name = getattr(page.compression, "name", page.compression)
        raise DataError(
            f"{path}: {page.dtype} pixels compressed as {name}, which needs imagecodecs: pip "
            'install "metaseg-monai[tiff]", or save it with zip (deflate) compression'
        )
    stacked = np.stack(pixels) if len(pixels) > 1 else pixels[0]
    stored = stacked.reshape(series.shape)
    if white:  # Pillow gives what is shown
        return ~stored if kind == "b1" else 255 - stored
    return stored


def _doubtful(page: Any, array: np.ndarray) -> dict[str, Any]:
    """What makes a label's values doubtful, see `Image`."""
    told: dict[str, Any] = {}
    if page.compression in LOSSY:
        told["lossy"] = LOSSY[page.compression]
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and array.dtype.kind in "bu":
        told["inverted"] = (1 << page.bitspersample) - 1
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        colours = np.asarray(page.colormap)
        shown = (colours >> 8 if colours.max(initial=0) > 255 else colours).astype(np.uint8)
        told["colours"] = np.vstack([shown, np.full_like(shown[:1], 255)]).T
    return told


def _channel_first(
    path: Path, array: np.ndarray, stored: str, named: str | None, spatial_dims: int
) -> np.ndarray:
    """Order the axes as (C, Y, X) or (C, Y, X, Z), refusing what has no place there."""
    if named is not None and len(named) != array.ndim:
        raise DataError(
            f"{path}: axes={named!r} names {len(named)} axes, but the file has {array.ndim}: "
            f"{stored} {array.shape}"
        )
    axes = named or stored
    if spatial_dims == 3 and "Z" not in axes:
        axes = axes.translate(str.maketrans(UNNAMED_PAGES, "Z" * len(UNNAMED_PAGES)))
    spatial = "YXZ"[:spatial_dims]
    for letter in [
        letter
        for letter, size in zip(axes, array.shape, strict=True)
        if size == 1 and letter not in spatial
    ]:
        array = array.squeeze(axes.index(letter))
        axes = axes.replace(letter, "", 1)
    channel = [letter for letter in axes if letter in "CS"]
    if len(channel) > 1 or sorted(axes) != sorted([*channel, *spatial]):
        raise DataError(
            f"{path}: found the axes {stored} {array.shape}, expected a {spatial_dims}D image: "
            f"{', '.join(sorted(spatial))} and at most one channel axis; {NEXT_STEP}"
        )
    array = array.transpose([axes.index(letter) for letter in [*channel, *spatial]])
    return np.ascontiguousarray(array if channel else array[None])


def _true_values(path: Path, array: np.ndarray, page: Any, palette: Palette) -> np.ndarray:
    """Undo min-is-white, so that larger numbers are brighter; refuse what is ambiguous."""
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        if array.dtype.kind == "b" and palette == "indices":  # a label, whose reader asks
            return ~array
        if array.dtype.kind != "u":
            raise DataError(
                f"{path}: min-is-white with {array.dtype} pixels of {page.bitspersample} bit; "
                "which value is foreground is ambiguous; save it as 8 or 16 bit min-is-black"
            )
        return np.asarray((1 << page.bitspersample) - 1 - array, dtype=array.dtype)
    accepted = (
        tifffile.PHOTOMETRIC.MINISBLACK,
        tifffile.PHOTOMETRIC.RGB,
        tifffile.PHOTOMETRIC.PALETTE,
        tifffile.PHOTOMETRIC.MASK,
    )
    decoded = page.photometric == tifffile.PHOTOMETRIC.YCBCR and LOSSY.get(page.compression)
    if page.photometric not in accepted and decoded != "JPEG":
        raise DataError(
            f"{path}: pixels are stored as {getattr(page.photometric, 'name', page.photometric)}; "
            "expected grey, RGB or a palette; convert the file to RGB"
        )
    return array


def _check_segments(path: Path, file: tifffile.TiffFile) -> None:
    """Refuse pages that point past the file's end or at nothing (tifffile fills those with 0)."""
    size = path.stat().st_size
    for number, page in enumerate(file.pages):
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            if count == 0 or offset + count > size:
                raise DataError(
                    f"{path}: page {number} misses pixel data (truncated file?); copy it anew"
                )


class _Complaints(logging.Handler):
    """Collects what tifffile only logs about a damaged file, in this thread."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.messages: list[str] = []
        self.thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self.thread:
            self.messages.append(record.getMessage())


@contextmanager
def _heard(path: Path) -> Iterator[None]:
    """Turn every failure inside, and every error that tifffile logs, into a DataError."""
    complaints = _Complaints()
    logger = logging.getLogger("tifffile")
    logger.addHandler(complaints)
    try:
        with faults_as_errors(path, "TIFF", "copy or save it anew"):
            yield
    finally:
        logger.removeHandler(complaints)
    if complaints.messages:
        raise DataError(
            f"{path}: damaged TIFF ({'; '.join(complaints.messages)}); copy or save it anew"
        )


# How large the pixels are, as a TIFF tells of itself.

MOST_CHARACTERS = 50_000_000  # of OME metadata
SCREEN_UM = 40.0  # larger pixels, as of 72 to 600 dpi, are those of a screen or printer
SQUARE = 0.01  # relative
# Units of length of the OME schema 2016-06; "pixel" and "reference frame" are no length.
MICROMETRES: Mapping[str, float] = {
    "m": 1e6, "cm": 1e4, "mm": 1e3, "\u00b5m": 1.0, "\u03bcm": 1.0, "um": 1.0, "nm": 1e-3,
    "pm": 1e-6, "\u00c5": 1e-4, "in": 25_400.0,
}  # fmt: skip
UM_PER_CM = 1e4
TAGS = ("XResolution", "YResolution", "ResolutionUnit")
IMAGEJ_UNITS: Mapping[str, float] = {
    **MICROMETRES,
    "\u00e5": 1e-4,  # it is looked up in small letters
    **dict.fromkeys(("micron", "microns", "micrometer", "micrometers", "micrometre"), 1.0),
    **dict.fromkeys(("micrometres", "\\u00b5m", "\\u03bcm"), 1.0),
    **{"nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6},
    **dict.fromkeys(("inch", "inches"), 25_400.0),
}


def tiff_pixel_um(path: str | Path, told: bool = False) -> float | None:
    """The side of a TIFF's square pixels in micrometres; None where it does not tell.

    OME metadata tell it, else the resolution with ImageJ's unit, else that per centimetre.

    Args:
        path: the file.
        told: whether OME metadata that cannot be understood, and pixels that are no squares, are
            refused; they tell nothing otherwise.

    Raises:
        DataError: the file cannot be read; see `told`.
    """
    try:
        with tifffile.TiffFile(path) as file:
            text = (file.ome_metadata or "") if file.is_ome else None
            sides = _of_tags(file) if text is None else None
    except Exception as error:  # damaged headers fail anywhere inside tifffile
        raise DataError(f"{path}: its header cannot be read ({error}); copy it anew") from error
    if text is not None:
        try:
            sides = ome_sides_um(text, str(path))
        except DataError:
            if told:
                raise
    if sides is None or not all(side > 0 for side in sides):
        return None
    if abs(sides[0] - sides[1]) <= SQUARE * max(sides):
        return sides[0]
    if told:
        raise DataError(
            f"{path}: pixels of {sides[0]:g} x {sides[1]:g} micrometres, expected squares; "
            "resample the image, or mend the sizes of its pixels"
        )
    return None


def _of_tags(file: Any) -> tuple[float, float] | None:
    tags = file.pages[0].tags
    if "XResolution" not in tags or "YResolution" not in tags:
        return None
    per_unit = [tags[f"{axis}Resolution"].value for axis in "XY"]
    if any(0 in pair for pair in per_unit):
        return None
    imagej = str((file.imagej_metadata or {}).get("unit") or "")
    if imagej:
        unit = imagej_unit_um(imagej)
    else:
        stored = tags["ResolutionUnit"].value if "ResolutionUnit" in tags else None
        unit = UM_PER_CM if stored == tifffile.RESUNIT.CENTIMETER else None
    if unit is None:
        return None
    x, y = (unit * denominator / numerator for numerator, denominator in per_unit)
    # ImageJ takes over what a screen or printer says, in inch or centimetre
    own = bool(imagej) and unit < UM_PER_CM
    return (x, y) if own or max(y, x) < SCREEN_UM else None


def imagej_unit_um(unit: str) -> float | None:
    """ImageJ's unit of length in micrometres; None for pixels and what is none.

    >>> imagej_unit_um("micron"), imagej_unit_um("cm"), imagej_unit_um("pixel")
    (1.0, 10000.0, None)
    """
    return IMAGEJ_UNITS.get(unit.strip().strip('"').lower())


def ome_sides_um(text: str, where: str) -> tuple[float, float] | None:
    """The sides (x, y) of a pixel in micrometres; None where they are not both told.

    Args:
        text: OME-XML of one image.
        where: the file, for messages.

    Raises:
        DataError: metadata are no XML, declare entities, or give a size that is none.
    """
    pixels = parse_ome(text, where).find("{*}Image/{*}Pixels")
    if pixels is None:
        return None
    x, y = (length_um(pixels, f"PhysicalSize{axis}", where) for axis in "XY")
    return None if x is None or y is None else (x, y)


def parse_ome(text: str, where: str) -> ET.Element:
    """The root of OME metadata, without entities that could make a parser run away."""
    upper = text[:MOST_CHARACTERS].upper()
    if len(text) > MOST_CHARACTERS or "<!DOCTYPE" in upper or "<!ENTITY" in upper:
        raise DataError(
            f"{where}: OME metadata with a document type or entities, or beyond {MOST_CHARACTERS} "
            "characters; save the file anew without"
        )
    try:
        return ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        raise DataError(f"{where}: OME metadata are no XML ({error}); save it anew") from error


def length_um(pixels: ET.Element, name: str, where: str) -> float | None:
    """A length of the Pixels in micrometres; None where it is not told."""
    text, unit = pixels.get(name), pixels.get(f"{name}Unit", "\u00b5m")
    if text is None or unit in ("pixel", "reference frame"):
        return None
    if unit not in MICROMETRES:
        raise DataError(
            f"{where}: {name}Unit {unit!r}, expected one of {', '.join(MICROMETRES)}; mend it"
        )
    return positive(text, name, where) * MICROMETRES[unit]


def positive(text: str, name: str, where: str) -> float:
    """A number above 0 of OME metadata."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise DataError(f"{where}: {name}={text!r}, expected a number above 0; mend the metadata")
    return value


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
        x, y, unit = (tags[name].value if name in tags else None for name in TAGS)
        exchanged = TURNS[page_orientation(file.pages.first)][0]
    sides = None if ome is None else ome_sides_um(ome, str(path))
    if sides is not None:
        per_cm = [UM_PER_CM / side for side in sides]
        return Resolution((per_cm[0], per_cm[1]), tifffile.RESUNIT.CENTIMETER)
    if exchanged:  # pixels are written upright
        x, y = y, x
    if not (x and y and x[0] and y[0] and x[1] and y[1]):
        return None
    micrometres = imagej_unit_um(str(imagej or ""))
    if imagej and micrometres:
        per_cm = [UM_PER_CM / micrometres * one / per for one, per in (x, y)]
        return Resolution((per_cm[0], per_cm[1]), tifffile.RESUNIT.CENTIMETER)
    # the TIFF standard's default unit is the inch; ImageJ's unknown units are none of the tag's
    return Resolution((x, y), tifffile.RESUNIT.NONE if imagej else int(unit or 2))
