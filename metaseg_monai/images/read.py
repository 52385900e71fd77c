"""The one reading path for image and label files of every format."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from metaseg_monai.errors import DataError, DataWarning, Problem, typed
from metaseg_monai.files import readable
from metaseg_monai.images.dicom import dicom_attributes, read_dicom_series
from metaseg_monai.images.geometry import AxialVolume, Axis, axial_volume, same_grid
from metaseg_monai.images.image import (
    FORMAT_OF_SUFFIX,
    LUMA,
    TURNS,
    Image,
    Meaning,
    Palette,
    check_content,
    check_usable,
    faults_as_errors,
    image_format,
    image_suffix,
    value_counts,
    whole_numbers,
)
from metaseg_monai.images.nifti import nifti_attributes, read_nifti
from metaseg_monai.images.ome_zarr import read_ome_zarr, zarr_attributes
from metaseg_monai.images.raster import raster_header, read_jpeg, read_png
from metaseg_monai.images.tiff import page_orientation, read_tiff


@typed
def read_image(
    path: str | Path | Sequence[str | Path],
    spatial_dims: int | None = None,
    axes: str | None = None,
    palette: Palette = "colours",
    lazily: bool = False,
) -> Image:
    """Read a TIFF, PNG, JPEG or NIfTI file, DICOM series or OME-Zarr, as stored, in its data type.

    Args:
        path: one file, or several whose channels are stacked in the given order (planes); a
            folder is read as one DICOM series, which needs the extra [dicom], or an image of
            OME-Zarr (its largest resolution), which needs [zarr].
        spatial_dims: 2 or 3, to which the file must fit; None takes a NIfTI file's own, 3 for a
            DICOM series and 2 for the others. Only with 3 do the pages of a TIFF become the axis
            D.
        axes: overrides the axes a TIFF file names, e.g. "CYX" for pages that are channels.
        palette: "colours" looks palette indices up (images), "indices" keeps them (labels).
        lazily: of one file; see `read_tiff`.

    Returns:
        The array (C, H, W) or (C, H, W, D) and its attributes; see `Image`.

    Raises:
        DataError: a file is missing, of an unsupported format or damaged, does not fit
            `spatial_dims` or `axes`, or planes differ in shape, data type or affine.
        ConfigError: a DICOM series or OME-Zarr is given, and pydicom or zarr is not installed.
    """
    if spatial_dims not in (None, 2, 3):
        raise DataError(f"spatial_dims={spatial_dims!r}: expected 2, 3 or None")
    if isinstance(path, (str, Path)):
        return _read_file(Path(path), spatial_dims, axes, palette, lazily)
    planes = [_read_file(Path(plane), spatial_dims, axes, palette) for plane in path]
    return _stack_planes(planes)


def read_label(
    path: str | Path | Sequence[str | Path],
    spatial_dims: int | None = None,
    values: Meaning | None = None,
    grey: bool = False,
) -> Image:
    """Read the whole numbers of a label, and refuse what can be read in two ways.

    Two ways are: the numbers stored, and what a viewer shows of them, where these disagree on what
    is background. They do in min-is-white files (TIFF's photometric 0, DICOM's MONOCHROME1), and in
    palettes whose index 0 is not the darkest of those used, and dark, that show two indices alike,
    or another index not at all. Values of a lossy compression (JPEG) are not those that were meant.

    Args:
        path: see `read_image`.
        spatial_dims: see `read_image`.
        values: "stored" or "shown", which of both is meant where they disagree.
        grey: whether values become classes by a threshold only, so that any number will do, also
            of a lossy compression; of a palette it is of the colours.

    Returns:
        The image, whose array (C, *S) holds whole numbers unless `grey`; its attribute `twofold`
        tells why it can be read in two ways, and as what it was; None for others.

    Raises:
        DataError: a file cannot be read, can be read in two ways and `values` does not say how, or
            holds values that are not whole within 1e-3; tells the share of pixels either way.
    """
    array, told = read_image(path, spatial_dims, palette="indices")
    where = told["path"]
    if "lossy" in told and not grey:
        half = 0.5 * (np.iinfo(array.dtype).max if array.dtype.kind in "iu" else float(array.max()))
        raise DataError(
            f"{where}: its compression ({told['lossy']}) changes values, so that its edges can be "
            f"read in two ways: {_share(array != 0)} of its pixels are not 0, "
            f"{_share(array > half)} are above {half:g}; save the original mask as PNG or "
            f"uncompressed TIFF, or name a threshold (prepare: --threshold {half:g})"
        )
    twofold = _twofold(array, told)
    if twofold is not None and values is None:
        raise DataError(
            f"{where}: {twofold}; save it so that both agree, or say which is meant: "
            "--mask_values stored, or shown"
            + (" (tifffile writes Boolean masks so: stored)" if told.get("inverted") == 1 else "")
        )
    colours = told.get("colours")
    if "inverted" in told and values == "stored" and told["format"] == "tiff":
        array = np.asarray(told["inverted"] - array, dtype=array.dtype)
    elif colours is not None and values != "stored" and (grey or twofold is not None):
        shown = colours[:, :3] if (colours[array.ravel(), 3] == 255).all() else colours
        array = np.moveaxis(shown[array[0]], -1, 0)
    if not grey:
        header = told["header"]
        scale = 0.0 if header is None else float(np.nan_to_num(header["scl_slope"]))
        array = whole_numbers(array, where, 0.0 if scale == 1 else scale)
    read_so = twofold and f"{twofold}; taken as {values}"
    return Image(array, {**told, "twofold": read_so})


DARK = 128  # of 255; the background of a mask is shown darker than that


def _twofold(array: np.ndarray, told: Mapping[str, Any]) -> str | None:
    """Why a label can be read in two ways, with the share of foreground either way."""
    colours, clear = told.get("colours"), told.get("transparent")
    if "inverted" in told:
        largest = array.max() if told["format"] == "dicom" else told["inverted"]
        stored, shown = array != largest, array != 0
        if told["format"] == "dicom":
            stored, shown = shown, stored
        what = "is stored min-is-white, so that its numbers and what is shown are opposites"
    elif clear and (array == clear).any():
        stored, shown = array != 0, (array != 0) & (array != clear)
        what = f"its value {clear} is transparent, so that it is not shown"
    elif colours is not None:
        used = np.array(list(value_counts(array)))
        others, luma = used[used != 0], colours[:, :3] @ np.array(LUMA)
        hidden = (colours[others, 3] == 0).any()
        alike = len(np.unique(colours[used], axis=0)) < len(used)
        if luma[0] < DARK and (luma[others] > luma[0]).all() and not hidden and not alike:
            return None
        stored, shown = array != 0, ((luma > 0) & (colours[:, 3] > 0))[array]
        what = "its palette shows other than its indices say (0 is background, and dark)"
    else:
        return None
    return (
        f"{what}, which is ambiguous: {_share(stored)} of its pixels are foreground by the "
        f"numbers, {_share(shown)} by what is shown"
    )


def _share(chosen: np.ndarray) -> str:
    return f"{np.count_nonzero(chosen) / max(1, chosen.size):.1%}"


def as_plane(image: Image) -> Image:
    """An image of two axes; a NIfTI volume (H, W, 1) as its one axial plane.

    Returns:
        The plane (C, H, W), with the attributes of its file; of a volume also `plane` (0).

    Raises:
        DataError: it is a volume of several planes, or lies in none; see `axial_volume`.
    """
    if image.array.ndim == 3:
        return image
    if image.array.shape[3] > 1:
        raise DataError(
            f"{image.attributes['path']}: a volume {image.array.shape[1:]}, expected a plane; "
            "save its slices as files of their own"
        )
    return Image(axial_volume(image).planes, {**image.attributes, "plane": 0})


def check_numbered(image: Image) -> None:
    """Refuse object numbers that are rather a binary mask: one alone, the largest of its type.

    Raises:
        DataError: names the file and its share of foreground.
    """
    array, kind = image.array, image.array.dtype
    values = [value for value in value_counts(array) if value] if kind.kind in "iu" else []
    if values and values == [np.iinfo(kind).max]:
        raise DataError(
            f"{image.attributes['path']}: one object with the number {values[0]} in "
            f"{_share(array != 0)} of its pixels, which is how binary masks are stored; number the "
            "objects from 1, or take it as a binary mask (prepare: --labels binary)"
        )


def _read_file(
    path: Path,
    spatial_dims: int | None,
    axes: str | None,
    palette: Palette,
    lazily: bool = False,
) -> Image:
    with readable(path):
        file_format = image_format(path)
    if axes is not None and file_format != "tiff":
        raise DataError(f"{path}: axes={axes!r} can be named for TIFF files only; leave it out")
    check_usable(path)
    try:
        if file_format in ("tiff", "png", "jpeg"):
            check_content(path, file_format)
        if file_format == "tiff":
            image = read_tiff(path, spatial_dims, axes, palette, lazily)
        elif file_format == "png":
            image = read_png(path, palette)
        elif file_format == "jpeg":
            image = read_jpeg(path)
        elif file_format == "dicom":
            image = read_dicom_series(path)
        elif file_format == "ome-zarr":
            image = read_ome_zarr(path, spatial_dims)
        else:
            image = read_nifti(path, mask=palette == "indices")
    except (OSError, MemoryError) as error:
        raise DataError(f"{path}: cannot be read ({error or 'too large for memory'})") from error
    found = len(image.array.shape) - 1
    if spatial_dims not in (None, found):
        raise DataError(
            f"{path}: has {found} spatial axes {image.array.shape[1:]}, expected {spatial_dims}; "
            f"set spatial_dims={found}, or slice or stack the files first"
        )
    if image.array.dtype.kind not in "buif" or 0 in image.array.shape:
        raise DataError(
            f"{path}: {image.array.dtype} pixels of shape {image.array.shape}; expected numbers, "
            "at least one; save it anew"
        )
    return image


def _stack_planes(planes: list[Image]) -> Image:
    if not planes:
        raise DataError("no image path given; expected at least one plane")
    first = planes[0]
    for plane in planes[1:]:
        for what, expected, came in (
            ("spatial shape", first.array.shape[1:], plane.array.shape[1:]),
            ("data type", first.array.dtype, plane.array.dtype),
        ):
            if expected != came:
                raise DataError(
                    f"{plane.attributes['path']}: {what} {came} differs from {expected} of "
                    f"{first.attributes['path']}; planes of one image must agree"
                )
        one, other = first.attributes["affine"], plane.attributes["affine"]
        if not same_grid(one, other, first.array.shape[1:]):
            raise DataError(
                f"{plane.attributes['path']}: its affine differs from that of "
                f"{first.attributes['path']}; planes of one image must agree: resample first"
            )
    return Image(np.concatenate([plane.array for plane in planes]), first.attributes)


def read_header(path: str | Path | Sequence[str | Path], mask: bool = False) -> dict[str, Any]:
    """As much of `Image.attributes` as `write_mask` needs for a mask of this image.

    Args:
        path: an image that can be read, or several whose channels are stacked (the first decides).
        mask: whether it is a label, which may be all but empty, and then larger.

    Returns:
        `path`, `format`, `affine`, `header`, `orientation` where a tag turns it, and
        `spatial_shape` except for stacks of TIFF pages, whose number of axes is the reader's
        choice.

    Raises:
        DataError: the file is missing, may not be read, is no image, or its header is damaged.
        ConfigError: it is a DICOM series, and pydicom is not installed.
    """
    file = Path(path if isinstance(path, (str, Path)) else path[0])
    file_format = image_format(file)
    check_usable(file)
    if file_format == "dicom":
        return dicom_attributes(file)
    if file_format == "ome-zarr":
        return zarr_attributes(file)
    if file_format == "nifti":
        return nifti_attributes(file, mask)
    shape: tuple[int, ...] | None
    with faults_as_errors(file, "an image"), readable(file):
        if file_format == "tiff":
            with tifffile.TiffFile(file) as tiff:
                page = tiff.series[0].keyframe
                stack = set(tiff.series[0].axes) - set("YXSC")
                shape = None if stack else (page.imagelength, page.imagewidth)
                orientation = page_orientation(page)
                shape = shape[::-1] if shape and TURNS[orientation][0] else shape
        else:
            shape, orientation = raster_header(file, file_format, mask)
    attributes: dict[str, Any] = {"path": str(file), "format": file_format}
    attributes |= {"affine": None, "header": None}
    attributes |= {} if orientation == 1 else {"orientation": orientation}
    return attributes if shape is None else {**attributes, "spatial_shape": shape}


# Volumes whose planes are read one by one.


def volume_header(path: str | Path, axis: Axis = "axial") -> tuple[AxialVolume, dict[str, Any]]:
    """How a volume's planes across an axis lie, and its attributes, without its voxels.

    Returns:
        The view, whose planes have the right shape but hold only zeros (and take no memory), and
        the attributes for `write_mask`.

    Raises:
        DataError: as `axial_volume`, or the header is damaged.
    """
    attributes = read_header(path)
    nothing = np.broadcast_to(np.uint8(0), (1, *attributes["spatial_shape"]))
    return axial_volume(Image(nothing, attributes), axis), attributes


def is_volume_file(path: object) -> bool:
    """Whether a path is a NIfTI file of three axes (only its header is read) or a DICOM folder.

    Raises:
        DataError: the header is damaged.
    """
    if not isinstance(path, (str, Path)):
        return False
    if Path(path).is_dir():
        return image_format(path) == "dicom"
    if FORMAT_OF_SUFFIX.get(image_suffix(path)) != "nifti":
        return False
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; check the path in the table or command")
    return len(nifti_attributes(Path(path))["spatial_shape"]) == 3


def volumes_of(items: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The volume of each case that is a plane read from a volume's file, as `slice_items` makes it.

    A slice with a file of its own is a case by itself, also where its volume is known.

    Args:
        items: with `case` and `image`; planes with `volume` and `plane`.
    """
    found: dict[str, str] = {}
    are_volumes: dict[str, bool] = {}
    for item in items:
        image = item.get("image")
        if "plane" in item and "volume" in item and isinstance(image, str):
            if image not in are_volumes:
                are_volumes[image] = is_volume_file(image)
            if are_volumes[image]:
                found[str(item["case"])] = str(item["volume"])
    return found


def slice_items(
    items: Sequence[Mapping[str, Any]],
    spatial_dims: int = 2,
    problems: list[Problem] | None = None,
    axis: Axis = "axial",
    at_least_one: bool = True,
) -> list[dict[str, Any]]:
    """Make one item of each plane of a volume; other items stay as they are.

    A 2D network takes them as it takes stored slices. Only headers are read. A plane keeps the
    `image` (and `label`) path of its volume, its group and metadata; its `case` becomes
    ``<case>_<plane>`` with four digits, and it has `volume` (the case), `plane` (0 is the
    uppermost), `planes` (how many), `spacing_mm` (of planes, rows and columns) and, where the
    planes are not axial, `axis`.

    Args:
        items: as `find_cases` or `read_table` give them.
        spatial_dims: of the network; for 3 volumes stay whole.
        problems: gets the volumes that cannot be read, which are left out, unless all are.
        axis: that the planes are across.
        at_least_one: refuse where all volumes are left out.

    Raises:
        ConfigError: no such axis.
        DataError: a volume is damaged, sheared, tilted, or one of several channels, or two items
            would have one name; names the case.

    Warns:
        DataWarning: a volume is of a size that is seldom true, or oblique; names the case.

    >>> slice_items([{"image": "slice.tif", "case": "slice"}])
    [{'image': 'slice.tif', 'case': 'slice'}]
    """
    if spatial_dims == 3:
        return [dict(item) for item in items]
    made: list[dict[str, Any]] = []
    broken: list[Problem] = []
    for item in items:
        try:
            made += _planes_of(item, axis) if _is_whole_volume(item) else [dict(item)]
        except DataError as error:
            if problems is None or (at_least_one and len(broken) + 1 == len(items)):
                raise
            broken.append(Problem.of_error(item["case"], item["image"], item["image"], error))
    if problems is not None:
        problems += broken
    of_name: dict[str, dict[str, Any]] = {}
    for item in made:
        other = of_name.setdefault(item["case"], item)
        if other is not item and ("volume" in item or "volume" in other):
            raise DataError(
                f"two slices have the name {item['case']!r} ({other['image']}, {item['image']}); "
                "rename a file"
            )
    return made


def _is_whole_volume(item: Mapping[str, Any]) -> bool:
    image = item["image"]
    if isinstance(image, (list, tuple)):
        if any(is_volume_file(channel) for channel in image):
            raise DataError(
                f"case {item['case']!r}: a volume of {len(image)} channels ({', '.join(image)}) "
                "cannot be cut into slices; expected one file a volume"
            )
        return False
    return "plane" not in item and is_volume_file(image)


def _planes_of(item: Mapping[str, Any], axis: Axis) -> list[dict[str, Any]]:
    case = item["case"]
    try:
        volume, _ = volume_header(item["image"], axis)
    except DataError as error:
        raise DataError(f"case {case!r}: {error}") from error
    for remark in volume.remarks:
        warnings.warn(f"case {case!r}: {item['image']}: {remark}", DataWarning, stacklevel=3)
    planes = len(volume.planes)
    return [
        {
            **item,
            "case": f"{case}_{plane:04d}",
            "metadata": dict(item.get("metadata", {})),
            "volume": case,
            "plane": plane,
            "planes": planes,
            "spacing_mm": volume.spacing_mm,
            **({} if axis == "axial" else {"axis": axis}),
        }
        for plane in range(planes)
    ]
