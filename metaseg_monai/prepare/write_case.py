"""Cases with the pixels of other cases, and what else is told of the cases that were written."""

import hashlib
import shutil
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile

from metaseg_monai.errors import DataError
from metaseg_monai.images.image import Image, convert_channels
from metaseg_monai.images.read import image_suffix, read_image, same_affine
from metaseg_monai.prepare.found import FoundCase, relative, safe_name
from metaseg_monai.prepare.masks import MaskRule, Masks
from metaseg_monai.prepare.ome import Resolution, tiff_resolution
from metaseg_monai.prepare.problems import Problem

# Checking one case and writing its files: bytes as they are, unless a conversion is asked for.


@dataclass(frozen=True)
class WrittenCase:
    """What was written of a case.

    Attributes:
        found: the case.
        files: path relative to the folder by column: `image` (planes joined by ";"), `label`,
            `instances`.
        content: SHA-256 of the image's pixels; "" of an image without contrast, which is like
            any other.
        pixels: data type and channels of the image as it was written, in words.
        empty: whether its label is background everywhere.
        peak: the largest grey value of its mask where a threshold decides, else None.
        remarks: what is allowed but seldom meant, in words.
    """

    found: FoundCase
    files: dict[str, str]
    content: str
    pixels: str
    empty: bool
    peak: float | None
    remarks: tuple[str, ...]

    @property
    def paths(self) -> list[str]:
        """Every file, relative to the folder."""
        return [path for joined in self.files.values() for path in joined.split(";") if path]


def write_case(
    case: FoundCase, rule: MaskRule | None, output: Path, grey: bool, axes: str | None
) -> WrittenCase:
    """Read all files of a case, check them against each other, and write them.

    Args:
        case: what to write.
        rule: of the mask; None where the folder has no masks.
        output: folder to write into.
        grey: turn colours into one channel by the luma of ITU-R BT.601, rounded to the image's
            data type.
        axes: the axes of TIFF files, where the file names others or none; see `read_image`. The
            file is then written with these names, its pixels unchanged. A TIFF that is written
            anew keeps its resolution, see `tiff_resolution`.

    Raises:
        DataError: a file cannot be read, or image and label do not fit each other.
    """
    planes = [_read(path, axes) for path in case.images]
    _check_planes(planes)
    shape = planes[0].array.shape[1:]
    masks = None if rule is None else rule.read(case.masks)
    if masks is not None:
        _check_shape(case.masks[0], masks, shape)
        _check_grid(case.masks[0], masks, planes[0])
    converted = [_converted(plane, grey, axes) for plane in planes]  # all, before one is written
    remarks = [] if masks is None else list(masks.remarks)
    images = [
        _write_image(path, array, output / name, remarks)
        for path, array, name in zip(case.images, converted, _image_names(case), strict=True)
    ]
    files = {"image": ";".join(path.relative_to(output).as_posix() for path in images)}
    if masks is not None:
        files |= _write_masks(case, masks, output)
    low = min(plane.array.min() for plane in planes)
    flat = bool(low == max(plane.array.max() for plane in planes))
    if flat:
        remarks.append(f"every pixel is {low:g}: an image without contrast")
    channels = sum(
        len(plane.array if made is None else made)
        for plane, made in zip(planes, converted, strict=True)
    )
    return WrittenCase(
        case,
        files,
        "" if flat else _content(planes),
        f"{planes[0].array.dtype} with {channels} channel{'' if channels == 1 else 's'}",
        masks is not None and not masks.label.any(),
        None if masks is None else masks.peak,
        tuple(remarks),
    )


def _read(path: Path, axes: str | None) -> Image:
    is_tiff = image_suffix(path) in (".tif", ".tiff")
    image = read_image(path, 2, axes if is_tiff else None)
    if is_tiff:
        _refuse_file_set(path)
    broken = int(image.array.size - np.count_nonzero(np.isfinite(image.array)))
    if broken:
        raise DataError(
            f"{path}: {broken} of {image.array.size} pixels are not finite numbers; mend the image"
        )
    return image


def _refuse_file_set(path: Path) -> None:
    """A file whose pixels lie in other files too cannot be copied by itself."""
    with tifffile.TiffFile(path) as file:
        if file.series[0].is_multifile:
            raise DataError(
                f"{path}: one of several files of an OME-TIFF set; save each image with all its "
                "planes in a file of its own"
            )


def _check_planes(planes: Sequence[Image]) -> None:
    first = planes[0]
    for plane in planes[1:]:
        one, other = first.array, plane.array
        if (one.shape[1:], one.dtype) != (other.shape[1:], other.dtype):
            raise DataError(
                f"{plane.attributes['path']}: {other.dtype} {other.shape[1:]} differs from "
                f"{one.dtype} {one.shape[1:]} of {first.attributes['path']}; planes of one image "
                "must agree"
            )


def _check_shape(path: Path, masks: Masks, shape: tuple[int, ...]) -> None:
    if masks.label.shape != shape:
        raise DataError(
            f"{path}: label of shape {masks.label.shape}, expected {shape} (rows, columns) as its "
            "image; save it on the image's grid"
        )


def _check_grid(path: Path, masks: Masks, image: Image) -> None:
    """The affine of a label that is copied must fit; only NIfTI files have one."""
    if masks.copied is not None and image.attributes["affine"] is not None:
        label = read_image(path, 2, palette="indices")
        if not same_affine(label.attributes["affine"], image.attributes["affine"]):
            raise DataError(f"{path}: its affine differs from its image's; resample the label")


def _image_names(case: FoundCase) -> list[str]:
    """A file of the case's name, or a folder of it with a file a plane."""
    if len(case.images) == 1:
        return [f"images/{case.case}"]
    return [f"images/{case.case}/{safe_name(plane)}" for plane in case.planes]


def _converted(image: Image, grey: bool, axes: str | None) -> np.ndarray | None:
    """The pixels (C, H, W) to write; None where the file is copied."""
    if grey and len(image.array) > 1:
        try:
            luma = convert_channels(image.array, "grey")
        except DataError as error:
            raise DataError(f"{image.attributes['path']}: {error}") from error
        kind = image.array.dtype
        return luma if kind.kind == "f" else np.rint(luma).astype(kind)
    return image.array if axes and image.attributes["format"] == "tiff" else None


def _write_image(path: Path, array: np.ndarray | None, target: Path, remarks: list[str]) -> Path:
    """Copy a file byte for byte, or write the pixels (C, H, W) that take its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if array is None:
        copy = target.with_name(target.name + image_suffix(path))
        shutil.copyfile(path, copy)
        return copy
    made = target.with_name(target.name + ".tif")
    pixels, names = (array[0], "YX") if len(array) == 1 else (array, "CYX")
    try:
        resolution = tiff_resolution(path)
    except DataError:
        resolution = None
        remarks.append("written anew without the size of its pixels: OME metadata are not legible")
    _write_tiff(made, pixels, names, resolution)
    return made


def _write_masks(case: FoundCase, masks: Masks, output: Path) -> dict[str, str]:
    labels = output / "labels"
    labels.mkdir(exist_ok=True)
    if masks.copied is not None:
        label = labels / f"{case.case}{image_suffix(masks.copied)}"
        shutil.copyfile(masks.copied, label)
    else:
        label = labels / f"{case.case}.tif"
        _write_tiff(label, masks.label, "YX")
    files = {"label": label.relative_to(output).as_posix()}
    if masks.objects is not None:
        (output / "instances").mkdir(exist_ok=True)
        _write_tiff(output / "instances" / f"{case.case}.tif", masks.objects, "YX")
        files["instances"] = f"instances/{case.case}.tif"
    return files


def _write_tiff(
    path: Path, pixels: np.ndarray, axes: str, resolution: Resolution | None = None
) -> None:
    tifffile.imwrite(
        path,
        pixels,
        photometric="minisblack",
        compression="zlib",
        metadata={"axes": axes},
        resolution=None if resolution is None else resolution.per_unit,
        resolutionunit=None if resolution is None else resolution.unit,
    )


def _content(planes: Sequence[Image]) -> str:
    digest = hashlib.sha256()
    for plane in planes:
        digest.update(f"{plane.array.dtype} {plane.array.shape}".encode())
        digest.update(plane.array.tobytes())
    return digest.hexdigest()


def without_copies(
    written: Sequence[WrittenCase], folder: Path, root: Path, problems: list[Problem]
) -> list[WrittenCase]:
    """Leave out cases with the pixels of a case in another split: which is right is unknown."""
    kept = []
    of_content = _by_content(written)
    for one in written:
        same = of_content.get(one.content, [one])
        others = [o.found for o in same if o.found.split != one.found.split]
        if not others:
            kept.append(one)
            continue
        told = ", ".join(f"{other.case} ({other.split})" for other in others)
        problem = f"in {one.found.split} with the same pixels as {told}"
        file = relative(one.found.images[0], root)
        step = "keep one of them, or give them one group"
        problems.append(Problem(one.found.case, file, problem, step))
        for path in one.paths:
            (folder / path).unlink()
        if len(one.found.images) > 1:  # the folder of its planes
            (folder / one.paths[0]).parent.rmdir()
    return kept


def _by_content(written: Sequence[WrittenCase]) -> dict[str, list[WrittenCase]]:
    of_content: dict[str, list[WrittenCase]] = defaultdict(list)
    for one in written:
        if one.content:
            of_content[one.content].append(one)
    return of_content


def notes_on(written: Sequence[WrittenCase]) -> dict[str, list[str]]:
    """What is told of the cases, by remark."""
    notes: dict[str, list[str]] = defaultdict(list)
    for one in written:
        notes[one.pixels].append(one.found.case)
        for remark in one.remarks:
            notes[remark].append(one.found.case)
        if one.empty:
            notes["masks without foreground"].append(one.found.case)
    for same in _by_content(written).values():
        if len(same) > 1:
            notes["the same pixels within one split"] += [one.found.case for one in same]
    return notes
