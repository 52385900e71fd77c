"""Reading OME-Zarr: plates, wells and images in folders of chunks; pixels need the extra [zarr]."""

import importlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metaseg_monai.errors import ConfigError, DataError, DataWarning
from metaseg_monai.files import ZARR, read_json
from metaseg_monai.images.image import Image, check_announced, faults_as_errors, image_attributes

AXES = "tczyx"  # of versions that name none
MM = {"micrometer": 1e-3, "millimeter": 1.0, "nanometer": 1e-6, "meter": 1e3, "centimeter": 10.0}


def is_zarr(path: str | Path) -> bool:
    """Whether a folder is a group or an array of Zarr, by the files in it.

    >>> is_zarr("nowhere")
    False
    """
    return any((Path(path) / name).is_file() for name in ZARR)


def zarr_images(path: str | Path) -> list[Path]:
    """The folders of the images in a plate, a collection of images, or an image, as it tells them.

    Only the files that describe them are read. Labels within are none.

    Raises:
        DataError: the description is damaged, or there is no image.
    """
    path = Path(path)
    with faults_as_errors(path, "OME-Zarr"):
        if found := list(_images(path)):
            return found
    raise DataError(f"{path}: no image of OME-Zarr in it; give a plate or an image")


def _images(path: Path) -> Iterator[Path]:
    told = _described(path)
    if "multiscales" in told:
        yield path
    elif "plate" in told:
        for well in told["plate"]["wells"]:
            yield from _images(path / str(well["path"]))
    elif "well" in told:
        yield from (path / str(image["path"]) for image in told["well"]["images"])
    else:  # as bioformats2raw lays several images out
        inside = [one for one in path.iterdir() if one.name.isdigit() and is_zarr(one)]
        for image in sorted(inside, key=lambda one: int(one.name)):
            yield from _images(image)


def plate_and_well(path: str | Path) -> tuple[str, str] | None:
    """Of which plate (without ".zarr") and well (as B/03) an image is; None for none.

    Raises:
        DataError: the description of a folder above it is damaged.
    """
    path = Path(path)
    for above in list(path.parents)[:4]:
        if is_zarr(above) and "plate" in _described(above):
            well = path.parent.relative_to(above).as_posix()
            return above.name.removesuffix(".zarr"), well
    return None


def read_ome_zarr(path: str | Path, spatial_dims: int | None = None) -> Image:
    """Read the largest resolution of an image as (C, H, W), or a stack as (C, H, W, D).

    Args:
        path: its folder, such as plate.zarr/B/03/0.
        spatial_dims: 3 keeps the axis z also where it has one plane.

    Raises:
        ConfigError: zarr is not installed.
        DataError: it is damaged, has several time points, or chunks cannot be decoded.

    Warns:
        DataWarning: chunks are not there, which Zarr takes as its fill value: meant, or lost.
    """
    path = Path(path)
    try:
        zarr = importlib.import_module("zarr")
    except ImportError as error:
        raise ConfigError(
            'Reading OME-Zarr needs zarr: pip install "metaseg-monai[zarr]", or export the images '
            "as OME-TIFF."
        ) from error
    level = _level(path)
    with faults_as_errors(path, "OME-Zarr"):
        array = zarr.open_array(str(level.path), mode="r")
        there, expected = int(array.nchunks_initialized), int(array.nchunks)
        values = np.asarray(array[...])
    if there < expected:
        told = f"{expected - there} of {expected} chunks are not there, and are taken as empty"
        warnings.warn(f"{path}: {told}; copy it anew if they are lost", DataWarning, stacklevel=2)
    ordered = _ordered(values, level.axes, keep=spatial_dims == 3)
    return Image(ordered, _attributes(path, level, ordered.shape[1:]))


def zarr_attributes(path: str | Path) -> dict[str, Any]:
    """The attributes that `read_ome_zarr` gives; only what describes the image is read.

    Raises:
        DataError: it is no image of OME-Zarr, or damaged.
    """
    path = Path(path)
    level = _level(path)
    nothing = np.broadcast_to(np.uint8(0), level.shape)
    return _attributes(path, level, _ordered(nothing, level.axes).shape[1:])


class _Level(NamedTuple):
    """The largest resolution: its array, names and sizes of its axes, and mm by name."""

    path: Path
    axes: str
    shape: tuple[int, ...]
    spacing_mm: Mapping[str, float]


def _level(path: Path) -> _Level:
    with faults_as_errors(path, "OME-Zarr"):
        told = _described(path)
        if "multiscales" not in told:
            raise DataError(f"{path}: no image of OME-Zarr; give the folder of a plate or an image")
        image = told["multiscales"][0]
        first = image["datasets"][0]
        named = image.get("axes", list(AXES))
        axes = "".join(one if isinstance(one, str) else one["name"] for one in named)
        units = [one.get("unit") if isinstance(one, dict) else None for one in named]
        array = path / str(first["path"])
        header = array / "zarr.json"
        header = header if header.is_file() else array / ".zarray"
        known = json.loads(header.read_text(encoding="utf-8"))
        shape = tuple(int(size) for size in known["shape"])
        if len(shape) != len(axes) or not set("yx") <= set(axes) <= set(AXES):
            raise DataError(
                f"{path}: axes {axes!r} for {shape}, expected y and x and of {AXES!r}; save it anew"
            )
        kind = known.get("dtype", known.get("data_type", "float64"))
        kind = np.dtype(kind) if isinstance(kind, str) else np.dtype(float)
        check_announced(path, math.prod(shape) * kind.itemsize, 0, shape, compressed=False)
        scales = [one["scale"] for one in _scalings(image, first)]
        scale = np.prod(scales, axis=0) if scales else np.ones(len(axes))
        spacing = {
            axis: float(size) * MM[unit]
            for axis, size, unit in zip(axes, scale, units, strict=True)
            if scales and unit in MM
        }
        return _Level(array, axes, shape, spacing)


def _scalings(image: Mapping[str, Any], level: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for part in (level, image):
        for one in part.get("coordinateTransformations", ()):
            if one.get("type") == "scale":
                yield one


def _described(path: Path) -> dict[str, Any]:
    """What a folder says of itself: in version 0.5 in zarr.json, before in .zattrs."""
    with faults_as_errors(path, "OME-Zarr"):
        if (path / "zarr.json").is_file():
            told = read_json(path / "zarr.json").get("attributes", {})
            return dict(told.get("ome", told))
        return dict(read_json(path / ".zattrs")) if (path / ".zattrs").is_file() else {}


def _ordered(values: np.ndarray, axes: str, keep: bool = False) -> np.ndarray:
    """An array of named axes as (C, H, W) or (C, H, W, D)."""
    sizes = dict(zip(axes, values.shape, strict=True))
    if sizes.get("t", 1) > 1:
        raise DataError(f"{sizes['t']} time points, expected one; save each as an image of its own")
    for name in AXES:
        if name not in axes:
            values, axes = values[None], name + axes
    values = values.transpose([axes.index(name) for name in "tcyxz"])[0]
    return values if keep or values.shape[-1] > 1 else values[..., 0]


def _attributes(path: Path, level: _Level, shape: tuple[int, ...]) -> dict[str, Any]:
    order = "yxz"[: len(shape)]
    spacing = tuple(level.spacing_mm.get(axis, math.nan) for axis in order)
    known = None if any(map(math.isnan, spacing)) else spacing
    return image_attributes(str(path), "ome-zarr", level.axes.upper(), shape, spacing_mm=known)
