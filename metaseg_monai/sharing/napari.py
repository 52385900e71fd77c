"""Predicted masks and numbered objects as layers of napari, which finds this by napari.yaml."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from metaseg_monai.evaluation.predicted import predicted_masks
from metaseg_monai.images.image import image_suffix
from metaseg_monai.images.read import read_image
from metaseg_monai.images.tiff import tiff_pixel_um
from metaseg_monai.training.weights import MASKS

Layer = tuple[np.ndarray, dict[str, Any], str]


def napari_get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[Layer]] | None:
    """Return a reader for an output of predict or one of its masks; None leaves it to others.

    A file is ours where the list of masks in its folder, or in one above, names it.

    Args:
        path: that the user opened in napari; of several the first is asked.
    """
    first = path[0] if isinstance(path, list) else path
    return read_masks if _masks(Path(first)) else None


def read_masks(path: str | list[str]) -> list[Layer]:
    """Read masks as layers of labels.

    Args:
        path: masks, or folders of predictions, whose masks become a layer each.

    Returns:
        Of each its array in the file's own order of rows, its name and scale (mm or micrometres
        of a pixel where the file tells), and the kind of the layer.

    Raises:
        DataError: a mask cannot be read.
    """
    paths = path if isinstance(path, list) else [path]
    return [_layer(mask) for one in paths for mask in _masks(Path(one))]


def _masks(path: Path) -> list[Path]:
    """The masks that are meant, of the list that lies beside them."""
    for folder in (path, *path.parents) if path.is_dir() else path.parents:
        if (folder / MASKS).is_file():
            named = [folder / name for name in predicted_masks(folder)]
            return [mask for mask in named if mask.is_file() and path in (mask, *mask.parents)]
    return []


def _layer(path: Path) -> Layer:
    image = read_image(path)
    array = image.array[0] if len(image.array) == 1 else image.array
    known: dict[str, Any] = {"name": path.name.partition(".")[0], "metadata": {"file": str(path)}}
    affine = image.attributes.get("affine")
    if affine is not None and array.ndim == len(affine) - 1:
        known["scale"] = np.linalg.norm(np.asarray(affine)[:-1, :-1], axis=0).tolist()
    elif image_suffix(path) in (".tif", ".tiff") and (pixel := tiff_pixel_um(path)):
        known["scale"] = [pixel] * array.ndim
    return np.ascontiguousarray(array), known, "labels"
