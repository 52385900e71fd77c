"""Reading PNG and JPEG: exact values, checksums verified, one frame."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from metaseg_monai.errors import DataError
from metaseg_monai.images.image import (
    ORIENTATION,
    TURNS,
    Image,
    Palette,
    check_announced,
    faults_as_errors,
    image_attributes,
    known_orientation,
    row_blocks,
    upright,
)

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, COLOURS_WITH_16_BIT = 0, (2, 4, 6)  # colour types of the PNG specification, 11.2.1
CHANNELS_OF_MODE = {"1": 1, "L": 1, "I;16": 1, "LA": 2, "RGB": 3, "RGBA": 4}


def read_png(path: Path, palette: Palette = "colours") -> Image:
    """Read a PNG as (C, H, W): uint8, or uint16 for 16-bit grey; 1, 2 and 4 bit as stored.

    Every chunk's checksum is compared (Pillow leaves out that of the pixels).

    Args:
        path: the file.
        palette: "colours" looks palette indices up (images), "indices" keeps them (labels), and
            makes a colour that is not shown transparent.

    Raises:
        DataError: the file is damaged or truncated, animated, or 16-bit colour, which Pillow
            would reduce to 8 bit.
    """
    bits, colour_type, frames, exif = _check_png(path, palette == "indices")
    if frames > 1:
        raise DataError(f"{path}: an animation of {frames} frames; save the one frame meant")
    if bits == 16 and colour_type in COLOURS_WITH_16_BIT:
        raise DataError(
            f"{path}: a 16-bit colour PNG cannot be read exactly; save it as 16-bit RGB TIFF"
        )
    with faults_as_errors(path, "PNG"), PngImageFile(path) as file:
        mode, array = file.mode, _pixels(file)
        doubtful = {**_doubtful(file), **_turn(file, exif)}
        if mode == "P" and palette == "colours":
            mode = "RGBA" if "transparency" in file.info else "RGB"
            array = _pixels(file.convert(mode))
        elif mode == "RGB" and palette == "indices" and "transparency" in file.info:
            mode, array = "RGBA", _pixels(file.convert("RGBA"))
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif colour_type == GREY and bits < 8:
        array = array // (255 // ((1 << bits) - 1))  # Pillow stretches 2 and 4 bit to 0..255
    return _as_image(path, array, mode if mode != "P" else "L", "png", **doubtful)


def _pixels(file: PIL.Image.Image) -> np.ndarray:
    """The pixels (C, H, W), taken by rows: at once they would be held three times over."""
    file.load()
    first = np.array(file.crop((0, 0, 1, 1)))
    array = np.empty((*first.shape[2:], file.height, file.width), first.dtype)
    for rows in row_blocks((1, file.height, file.width)):
        part = np.array(file.crop((0, rows.start, file.width, rows.stop)))
        array[..., rows, :] = np.moveaxis(part, -1, 0) if part.ndim == 3 else part
    return array if array.ndim == 3 else array[None]


def _doubtful(file: PngImageFile) -> dict[str, Any]:
    """What makes a label's values doubtful, see `Image`."""
    clear = file.info.get("transparency")
    if file.mode == "P":
        ramp = PIL.Image.fromarray(np.arange(256, dtype=np.uint8)[None])
        ramp.putpalette(file.getpalette() or [])
        if clear is not None:
            ramp.info["transparency"] = clear
        return {"colours": np.array(ramp.convert("RGBA"))[0]}
    return {"transparent": clear} if isinstance(clear, int) else {}


def read_jpeg(path: Path) -> Image:
    """Read a JPEG as (C, H, W) uint8, turned upright as its EXIF orientation asks.

    Raises:
        DataError: the file is damaged or truncated, neither grey nor RGB, or announces more pixels
            than are read from any file, or than any picture compresses to.
    """
    with faults_as_errors(path, "JPEG"), JpegImageFile(path) as file:
        shape = (file.height, file.width)
        needed = file.height * file.width * len(file.getbands())
        check_announced(path, needed, path.stat().st_size, shape)
        mode, array = file.mode, _pixels(file)
        turn = _turn(file)
    return _as_image(path, array, mode, "jpeg", lossy="JPEG", **turn)


def raster_header(path: Path, file_format: str, mask: bool = False) -> tuple[tuple[int, int], int]:
    """Rows and columns of a PNG or JPEG as they stand upright, and its orientation.

    Pixels stay unread.
    """
    exif = _check_png(path, mask)[-1] if file_format == "png" else b""
    with (PngImageFile if file_format == "png" else JpegImageFile)(path) as file:
        orientation = _turn(file, exif).get("orientation", 1)
        rows, columns = file.height, file.width
    return ((columns, rows) if TURNS[orientation][0] else (rows, columns)), orientation


def _turn(file: PIL.Image.Image, exif: bytes = b"") -> dict[str, int]:
    """The orientation of a picture that is not upright, see `Image`."""
    found = PIL.Image.Exif()
    if exif:
        found.load(b"Exif\0\0" + exif)
    else:
        found = PIL.Image.Image.getexif(file)  # that of PngImageFile would read all pixels
    orientation = known_orientation(found.get(ORIENTATION))
    return {} if orientation == 1 else {"orientation": orientation}


def _as_image(path: Path, array: np.ndarray, mode: str, file_format: str, **doubtful: Any) -> Image:
    if mode not in CHANNELS_OF_MODE:
        raise DataError(f"{path}: pixels are stored as {mode}; expected grey or RGB; convert it")
    axes = "YX" if len(array) == 1 else "YXS"
    array = upright(array, doubtful.get("orientation", 1))
    attributes = image_attributes(str(path), file_format, axes, array.shape[1:], **doubtful)
    return Image(array, attributes)


def _check_png(path: Path, mask: bool = False) -> tuple[int, int, int, bytes]:
    """Verify every chunk's CRC and the announced size; bit depth, colour type, frames, EXIF."""
    data = path.read_bytes()
    if data[:8] != PNG_SIGNATURE:
        raise DataError(f"{path}: does not begin as a PNG does; name the file by its true format")
    bits, colour_type, frames, kind, exif = 0, 0, 1, b"", b""
    position = 8
    while kind != b"IEND":
        if position + 12 > len(data):
            raise DataError(f"{path}: truncated PNG (no end chunk); copy or save it anew")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        body = data[position + 4 : end]
        if end + 4 > len(data) or zlib.crc32(body) != struct.unpack_from(">I", data, end)[0]:
            raise DataError(
                f"{path}: damaged PNG (chunk {kind!r} fails its checksum); copy or save it anew"
            )
        if kind == b"IHDR":
            columns, rows, bits, colour_type = struct.unpack_from(">IIBB", body, 4)
            bands = {2: 3, 4: 2, 6: 4}.get(colour_type, 1)
            needed = rows * columns * bands * (2 if bits == 16 else 1)
            shape = (rows, columns)
            check_announced(path, needed, len(data), shape, mask=mask, bits=min(bits, 8))
        elif kind == b"acTL":
            frames = struct.unpack_from(">I", body, 4)[0]
        elif kind == b"eXIf":
            exif = body[4:]
        position = end + 4
    return bits, colour_type, frames, exif
