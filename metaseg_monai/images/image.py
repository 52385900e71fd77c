"""What reading one image gives, the format that its name tells, and the conversion of channels."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from metaseg_monai.errors import DataError, one_line
from metaseg_monai.files import ZARR

Channels = Literal["stored", "grey", "rgb"]
Palette = Literal["colours", "indices"]
Meaning = Literal["stored", "shown"]

FORMAT_OF_SUFFIX: Mapping[str, str] = {
    ".tif": "tiff",
    ".tiff": "tiff",
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".nii": "nifti",
    ".nii.gz": "nifti",
}
LARGEST_BYTES = 8 << 30  # a CT of 1,000 slices as float64 has 2 GiB
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode "L"


class Image(NamedTuple):
    """An image as its file stores it.

    Attributes:
        array: (C, H, W) or (C, H, W, D) in the file's own data type and row order, turned upright
            where an orientation tag asks for it; a TIFF stack's pages lie along D.
        attributes: what the file says beside the pixels: `path` (str; of a DICOM series its
            folder), `format` ("tiff", "png", "jpeg", "nifti", "dicom" or
            "ome-zarr"), `axes` (the file's own,
            e.g. "YXS"), `spatial_shape` (tuple of int), `affine` (4 x 4 float64, voxel to mm, or
            None), `spacing_mm` (one float per spatial axis, or None), `header` (the NIfTI header,
            or None); and, where it is so, what makes a label's values doubtful: `lossy` (the name
            of a compression that changes values), `inverted` (the largest value of a min-is-white
            file, whose array is what it shows), `colours` ((N, 4) uint8, red, green, blue and alpha
            of each index of a palette), `transparent` (a grey value that is not shown). Where a tag
            turned the pixels, `orientation` is its value (2 to 8); `spatial_shape` is upright.
    """

    array: np.ndarray
    attributes: dict[str, Any]


@contextmanager
def faults_as_errors(path: str | Path, what: str, hint: str = "copy it anew") -> Iterator[None]:
    """Name the file, whatever fails inside a library that a damaged one makes fail anywhere."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{path}: cannot be read as {what} ({error}); {hint}") from error


def image_attributes(
    path: str,
    file_format: str,
    axes: str,
    spatial_shape: tuple[int, ...],
    affine: np.ndarray | None = None,
    spacing_mm: tuple[float, ...] | None = None,
    header: Any = None,
    **doubtful: Any,
) -> dict[str, Any]:
    """The attributes of an `Image`, complete for every format."""
    return {
        **doubtful,
        "path": path,
        "format": file_format,
        "axes": axes,
        "spatial_shape": spatial_shape,
        "affine": affine,
        "spacing_mm": spacing_mm,
        "header": header,
    }


def image_suffix(path: str | Path) -> str:
    """The suffix that decides how a file is read, in lower case; ".nii.gz" is one suffix.

    >>> image_suffix("a/b.NII.gz"), image_suffix("c.d.tif")
    ('.nii.gz', '.tif')
    """
    name = Path(path).name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def image_format(path: str | Path) -> str:
    """One of "tiff", "png", "jpeg" or "nifti" by the file's name; of folders "ome-zarr" or "dicom".

    Raises:
        DataError: it is none of these.

    >>> image_format("a/b.nii.gz")
    'nifti'
    """
    file_format = FORMAT_OF_SUFFIX.get(image_suffix(path))
    if Path(path).is_dir():
        zarr = any((Path(path) / name).is_file() for name in ZARR)
        file_format = "ome-zarr" if zarr else "dicom"
    if file_format is None:
        suffix = Path(path).suffix.lower()
        raise DataError(
            f"{path}: unsupported file type; expected {', '.join(FORMAT_OF_SUFFIX)}, or the folder "
            f"of a DICOM series; {ADVICE.get(suffix, 'convert it')}"
        )
    return file_format


MISSING = "no such file"


def unusable(path: Path) -> tuple[str, str] | None:
    """Why a path is not that of a file or folder that can be read, and what to do; else None."""
    if one_line(str(path)) != str(path):
        return "has a line break in its name", "rename it"
    if path.is_file() or path.is_dir():
        return None
    if path.exists():
        return "is no regular file (but a FIFO or device)", "put the image in its place"
    if path.is_symlink():
        return "is a link that leads to no file", "mend the link, or copy the image here"
    return MISSING, "check the path in the table or command"


def check_usable(path: Path) -> None:
    """Refuse a path that cannot be read, before it is opened: a FIFO would wait for ever."""
    if why := unusable(path):
        raise DataError(f"{one_line(str(path))}: {'; '.join(why)}")


PICTURES, SLIDES = (".webp", ".bmp", ".gif"), (".czi", ".lif", ".nd2", ".svs")  # not read here
ADVICE: Mapping[str, str] = {
    **dict.fromkeys(
        (".hdr", ".img"),
        "it is one half of a pair: join header and voxels into one .nii (nibabel: "
        'nib.save(nib.load("scan.hdr"), "scan.nii.gz"))',
    ),
    **dict.fromkeys((".dcm", ".ima"), "give the folder of the series"),
    **dict.fromkeys((".xlsx", ".xls", ".ods"), "of a workbook, save the sheet as CSV UTF-8"),
    **dict.fromkeys(PICTURES, "save it as PNG"),
    **dict.fromkeys(SLIDES, "export it as OME-TIFF"),
}
# How files begin, and the suffix that tells it.
CONTENTS: Mapping[bytes, str] = {
    b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"II*\0": ".tif", b"MM\0*": ".tif",
    b"II+\0": ".tif", b"MM\0+": ".tif", b"\x1f\x8b": ".gz", b"PK\3\4": ".zip or .xlsx",
    b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp", b"%PDF": ".pdf",
}  # fmt: skip


def check_content(path: Path, file_format: str) -> None:
    """Name the true format of a file that begins as another one.

    Raises:
        DataError: it is empty, or begins as a file of another suffix does.
    """
    with path.open("rb") as stream:
        start = stream.read(8)
    if not start:
        raise DataError(f"{path}: is empty (0 bytes); copy it anew")
    found = next((suffix for mark, suffix in CONTENTS.items() if start.startswith(mark)), None)
    if found is not None and FORMAT_OF_SUFFIX.get(found) != file_format:
        raise DataError(
            f"{path}: is no {file_format.upper()}, but begins as a file {found} does; name it by "
            "its true format"
        )


# How pixels are to be turned to stand upright (EXIF orientation, tag 274 of TIFF): an exchange of
# rows and columns first, then rows and columns reversed.
TURNS: Mapping[int, tuple[bool, bool, bool]] = {
    1: (False, False, False), 2: (False, False, True), 3: (False, True, True),
    4: (False, True, False), 5: (True, False, False), 6: (True, False, True),
    7: (True, True, True), 8: (True, True, False),
}  # fmt: skip
ORIENTATION = 274


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels (C, H, W, ...) as their orientation tag asks, as every viewer does.

    >>> upright(np.array([[[1, 2, 3]]]), 6).tolist()
    [[[1], [2], [3]]]
    """
    exchanged, rows, columns = TURNS[orientation]
    turned = array.swapaxes(1, 2) if exchanged else array
    return np.ascontiguousarray(turned[:, :: -1 if rows else 1, :: -1 if columns else 1])


def as_stored(mask: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels (H, W, ...) that stand upright back to the frame of their file."""
    exchanged, rows, columns = TURNS[orientation]
    back = mask[:: -1 if rows else 1, :: -1 if columns else 1]
    return np.ascontiguousarray(back.swapaxes(0, 1) if exchanged else back)


def known_orientation(tag: object) -> int:
    """The orientation that a tag names; 1, upright, for none and for what is no orientation."""
    return tag if isinstance(tag, int) and tag in TURNS else 1


BOMB_BYTES, BOMB_RATIO = 512 << 20, 500  # CT compresses about 3 times, its labels about 200 times
MASK_BYTES = 2 << 30  # of a mask, which may be all but empty: gzip makes that 1,000 times smaller


def check_announced(
    path: str | Path,
    needed: int,
    size: int,
    shape: Sequence[int],
    compressed: bool = True,
    mask: bool = False,
    bits: int = 8,
) -> None:
    """Refuse from the header what no memory holds, or no scan compresses to.

    Args:
        path: for messages.
        needed: bytes that the pixels take in memory, as the header announces.
        size: bytes of the file or files.
        shape: that the header announces, for messages.
        compressed: whether it may announce more than the file has.
        mask: whether it is read as a label.
        bits: that the file, uncompressed, has for each byte in memory.

    Raises:
        DataError: names both sizes.
    """
    if needed > LARGEST_BYTES:
        raise DataError(
            f"{path}: the header announces {needed >> 20} MiB for {tuple(shape)}; at most "
            f"{LARGEST_BYTES >> 20} are read: mend the header, or split the image"
        )
    most, stored = MASK_BYTES if mask else BOMB_BYTES, needed * bits // 8
    if compressed and stored > most and stored > BOMB_RATIO * size:
        raise DataError(
            f"{path}: {size} bytes announce {stored >> 20} MiB, more than {BOMB_RATIO} times "
            f"as much, which no {'mask of that size' if mask else 'scan'} does; if it is meant, "
            "save it uncompressed"
        )


WHOLE_WITHIN = 1e-3
LARGEST_SCALE = 0.1  # of a header, by which stored numbers may miss whole ones by half of it
BLOCK = 1 << 22  # pixels looked at together, so that little memory is taken


def blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Views of an array (C, H, ...) that together are all of it, some rows each."""
    if array.ndim == 1:
        array = array[None]
    for rows in row_blocks(array.shape):
        yield array[:, rows]


def whole_numbers(array: np.ndarray, where: str, scale: float = 0.0) -> np.ndarray:
    """A label's values as whole numbers, which they are within 1e-3 (contract 25).

    Args:
        array: (C, H, ...) as stored; whole numbers come back as they are.
        where: the file, for messages.
        scale: of a NIfTI header, by which stored whole numbers are multiplied: what nibabel has
            rounded to the nearest multiple is whole within half of it.

    Raises:
        DataError: a value is not finite or not whole, or all are 0 only by rounding.
    """
    if array.dtype.kind in "iu":
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    within = WHOLE_WITHIN + 1e-6  # 1.001 as float32 is a little more
    within = max(within, 0.501 * abs(scale)) if abs(scale) <= LARGEST_SCALE else within
    ends = []
    for part in blocks(array):
        with np.errstate(invalid="ignore"):
            broken = part[~(np.abs(part - np.rint(part)) <= within)]
        if broken.size:
            raise DataError(
                f"{where}: label value {float(broken[0]):g}, expected whole numbers; save it anew"
            )
        ends += [float(part.min()), float(part.max())]
    low, high = min(ends, default=0.0), max(ends, default=0.0)
    if 0 < high < 0.5:
        raise DataError(
            f"{where}: label values up to {high:g}, which is none but 0 as a whole number; save "
            "it with whole numbers"
        )
    numbers = np.empty_like(array, np.uint8 if low >= -0.5 and high < 255.5 else np.int64)
    for part, source in zip(blocks(numbers), blocks(array), strict=True):
        part[...] = np.rint(source)
    return numbers


def value_counts(array: np.ndarray) -> dict[Any, int]:
    """How often each value of an array (C, H, ...) occurs, by value from the lowest."""
    counts: Counter[Any] = Counter()
    for part in blocks(array):
        values, times = np.unique(part, return_counts=True)
        counts.update(dict(zip(values.tolist(), times.tolist(), strict=True)))
    return dict(sorted(counts.items()))


def refuse_values_beyond(
    counts: Mapping[float, int], classes: int, path: object, step: str
) -> None:
    """Refuse a label, of `value_counts`, that has values beside the classes 0 to classes - 1.

    Raises:
        DataError: names the values, their share and the next step.
    """
    outside = [value for value in counts if not 0 <= value < classes]
    if outside:
        found = ", ".join(f"{value:g} ({counts[value]} px)" for value in outside[:5])
        share = sum(counts[value] for value in outside) / sum(counts.values())
        raise DataError(
            f"{path}: label values {found}, expected 0..{classes - 1}: {share:.1%} of its pixels; "
            f"{step}"
        )


def without_alpha(array: np.ndarray, kind: np.dtype[Any] | None = None) -> np.ndarray:
    """The channels (C, *S) without a fully opaque alpha, which unsigned pixels may have.

    Args:
        array: (C, *S).
        kind: of its values as they were stored; that of the array by default.
    """
    kind = array.dtype if kind is None else kind
    has_alpha = len(array) in (2, 4) and kind.kind == "u"
    return array[:-1] if has_alpha and np.all(array[-1] == np.iinfo(kind).max) else array


def convert_channels(array: np.ndarray, channels: Channels) -> np.ndarray:
    """Give an image the channels a network expects; never guessed, always asked for.

    Args:
        array: (C, *S).
        channels: "stored" leaves the array as it is; "grey" gives (1, *S) float32, by the luma
            of ITU-R BT.601 from three channels; "rgb" gives (3, *S), by repetition from one
            channel. A fully opaque alpha channel is left out by "grey" and "rgb".

    Raises:
        DataError: the channels at hand do not determine the asked ones.

    >>> convert_channels(np.full((3, 2, 2), 7, np.uint8), "grey").shape
    (1, 2, 2)
    >>> convert_channels(np.zeros((6, 2, 2)), "rgb")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.DataError: 6 channels cannot become "rgb" ...
    """
    if channels not in get_args(Channels):
        raise DataError(f"channels={channels!r}: expected one of {', '.join(get_args(Channels))}")
    if channels == "stored":
        return array
    colours = without_alpha(array)
    count = colours.shape[0]
    if count not in (1, 3):
        raise DataError(
            f'{array.shape[0]} channels cannot become "{channels}" (that needs one or three, and '
            'beside them at most an alpha channel that is opaque everywhere); use channels="stored"'
        )
    if channels == "rgb":
        return colours if count == 3 else np.repeat(colours, 3, axis=0)
    if count == 1:
        return colours.astype(np.float32)
    grey = np.empty((1, *colours.shape[1:]), np.float32)
    for rows in row_blocks(colours.shape):  # so that large images take little memory
        red, green, blue = colours[:, rows].astype(np.float64)
        grey[0, rows] = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
    return grey


def row_blocks(shape: Sequence[int], pixels: int = BLOCK) -> Iterator[slice]:
    """Slices of the second axis of (C, H, ...) that together are all of it.

    Args:
        shape: of the array or tensor.
        pixels: about as many values have a block.

    >>> list(row_blocks((1, 5, 4), pixels=8))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    rows = max(1, pixels * shape[1] // max(1, math.prod(shape)))
    for start in range(0, shape[1], rows):
        yield slice(start, min(start + rows, shape[1]))
