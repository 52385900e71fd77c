"""Which images are one and the same: by their pixels, whatever file, format or type holds them."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from threading import Lock

import numpy as np
from tqdm import tqdm

from metaseg_monai.errors import DataError
from metaseg_monai.images.geometry import axial_volume
from metaseg_monai.images.image import Image, row_blocks
from metaseg_monai.images.read import read_image

BLOCK = 8  # planes, or rows, that are converted at a time
READERS = min(8, os.cpu_count() or 1)  # of files at a time; decompression lets others work
LARGE_BYTES = 1 << 26  # files of an image that is read by itself
_alone = Lock()


def pixel_digest(array: np.ndarray) -> str:
    """SHA-256 of an array's shape and its values as float32, in whichever type and byte order.

    >>> pixel_digest(np.array([[1, 2]], ">u2")) == pixel_digest(np.array([[1, 2.0]]))
    True
    """
    digest = hashlib.sha256(str(array.shape).encode())
    for start in range(0, len(array), BLOCK):
        digest.update(_as_float32(array[start : start + BLOCK]).tobytes())
    return digest.hexdigest()


def _as_float32(block: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return block.astype("<f4") + np.float32(0)  # no -0


def image_digest(image: Image) -> str:
    """What tells an image from every other: the digest of its pixels, "" without any contrast.

    Three equal colours are one grey, an opaque alpha channel is none, a volume is the same in
    every order of its axes, and one of a single plane is that plane.

    Args:
        image: of `read_image`; or its pixels converted, with the type they had as `stored`.
    """
    array = image.array
    kind = np.dtype(image.attributes.get("stored", array.dtype))
    if len(array.shape) == 4 and array.shape[-1] == 1:
        array = array[..., 0]
    elif len(array.shape) == 4 and image.attributes.get("affine") is not None and len(array) == 1:
        with suppress(DataError):  # of a grid that is none, which others refuse
            array = axial_volume(image).planes[None]
    channels, *space = map(int, array.shape)
    digests = [hashlib.sha256(str(tuple(space)).encode()) for _ in range(channels)]
    opaque, grey, ends = channels in (2, 4) and kind.kind == "u", True, []
    for rows in row_blocks(array.shape):
        block = array[(slice(0, channels), rows, *(slice(0, size) for size in space[1:]))]
        ends += [block.min(), block.max()]
        opaque = opaque and bool((block[-1] == np.iinfo(kind).max).all())
        grey = grey and all(np.array_equal(block[0], other) for other in block[1:3])
        for digest, channel in zip(digests, _as_float32(block), strict=True):
            digest.update(channel.tobytes())
    if np.min(ends) == np.max(ends):
        return ""
    told = [digest.hexdigest() for digest in digests[: channels - opaque]]
    told = told[:1] if len(told) == 3 and grey else told
    return told[0] if len(told) == 1 else hashlib.sha256(";".join(told).encode()).hexdigest()


def file_digests(
    images: Sequence[Sequence[str | Path]], strict: bool = True, shown: str | None = None
) -> list[str]:
    """`image_digest` of images, each of one file or of one a plane, in their order.

    Args:
        images: files of each.
        strict: refuse an image that cannot be read; else its digest is "".
        shown: what the progress bar says; None shows none.

    Raises:
        DataError: one cannot be read.
    """

    def digest(files: Sequence[str | Path]) -> str:
        try:
            return _file_digest(files)
        except DataError:
            if strict:
                raise
            return ""

    with ThreadPoolExecutor(READERS) as pool:
        made = pool.map(digest, images)
        bar = tqdm(made, shown, len(images), unit="file", disable=True if shown is None else None)
        return list(bar)


def _file_digest(files: Sequence[str | Path]) -> str:
    given, size = files[0] if len(files) == 1 else files, 0
    with suppress(OSError):  # which reading tells
        size = sum(map(os.path.getsize, files))
    with _alone if size > LARGE_BYTES else nullcontext():
        try:
            image = read_image(given, lazily=True)
        except DataError:
            image = read_image(given, spatial_dims=3)  # pages of a TIFF that are no channels
        return image_digest(image)
