"""Reading TIFF: axes by name, exact data types, nothing left out in silence."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.images.image import Image, Palette, faults_as_errors, image_attributes

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
) -> Image:
    """Read the one image of a TIFF file as (C, H, W), or as (C, H, W, D) where that is asked for.

    Args:
        path: the file.
        spatial_dims: 2 (as None) or 3; with 3 the pages become the last axis D.
        axes: overrides the axes that the file names, one letter for each axis of its array:
            C or S channels, Z depth, Y rows, X columns.
        palette: "colours" looks palette indices up (images), "indices" keeps them (labels).

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
        _check_segments(path, file)
        page = series.keyframe
        array = _true_values(path, series.asarray(), page)
        stored_axes = series.axes
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and palette == "colours":
            array = np.moveaxis(np.asarray(page.colormap)[:, array], 0, -1)
            stored_axes += "S"
    array = _channel_first(path, array, stored_axes, axes, spatial_dims or 2)
    attributes = image_attributes(str(path), "tiff", axes or stored_axes, array.shape[1:])
    return Image(array, attributes)


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


def _true_values(path: Path, array: np.ndarray, page: Any) -> np.ndarray:
    """Undo min-is-white, so that larger numbers are brighter; refuse what is ambiguous."""
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
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
    if page.photometric not in accepted:
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
    except DataError as error:
        if "imagecodecs" not in str(error):
            raise
        raise DataError(f"{error}, or install imagecodecs") from error
    finally:
        logger.removeHandler(complaints)
    if complaints.messages:
        raise DataError(
            f"{path}: damaged TIFF ({'; '.join(complaints.messages)}); copy or save it anew"
        )
