"""Uneven illumination taken out of microscopy images."""

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform
from monai.utils import convert_to_dst_type
from scipy.ndimage import gaussian_filter

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images.read import read_image

ESTIMATE = "estimate"


class FlatFieldd(MapTransform):
    """Divide the image of an item by its illumination; each channel keeps its mean.

    The illumination is either a reference, an image of an empty field taken with the same optics,
    or an estimate: the image itself after a Gaussian so wide that objects vanish in it. Where a
    large part of the image is object, the estimate takes some of the object for illumination, so
    a reference is better. Pixels may become brighter than the sensor's range: scale by percentiles
    afterwards, or set `intensity_clip`.

    Args:
        reference: path of the reference image, whose planes are as large as those of the images
            and which has one channel or as many as they; or "estimate".
        sigma_px: standard deviation of the Gaussian of the estimate, in pixels; several times the
            largest object. Not used with a reference.
        image_key: key of the image (C, H, W).

    Raises:
        ConfigError: `sigma_px` is not above 0.
        DataError: the reference cannot be read or has a pixel that is not above 0. When called:
            image and reference differ in shape, or the estimate is not above 0 somewhere; names
            case and file.
    """

    def __init__(
        self, reference: str | Path, sigma_px: float = 100.0, image_key: str = "image"
    ) -> None:
        super().__init__(image_key)
        if not 0 < sigma_px < float("inf"):
            raise ConfigError(
                f"sigma_px={sigma_px!r}: expected pixels above 0, several times an object's size"
            )
        self.image_key = image_key
        self.sigma_px = sigma_px
        self.path = None if reference == ESTIMATE else Path(reference)
        self.reference = None if self.path is None else _read_reference(self.path)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the image (C, H, W) divided by its illumination."""
        image = data[self.image_key]
        pixels = np.asarray(image, dtype=np.float64)
        light = self._illumination(pixels, data)
        flat = pixels / light
        means = flat.mean(axis=(1, 2), keepdims=True)
        # A channel whose mean is 0 is black, or has it from pixels below 0: it stays as it is.
        factor = np.divide(
            pixels.mean(axis=(1, 2), keepdims=True), means, out=np.ones_like(means), where=means > 0
        )
        corrected = torch.as_tensor(flat * factor, dtype=torch.float32)
        return {**data, self.image_key: convert_to_dst_type(corrected, torch.as_tensor(image))[0]}

    def _illumination(self, pixels: np.ndarray, data: Mapping[Hashable, Any]) -> np.ndarray:
        where = f"case {data.get('case', '?')!r} ({_file_of(data[self.image_key])})"
        if pixels.ndim != 3:
            raise DataError(f"{where}: shape {pixels.shape}, expected a plane (C, H, W)")
        if self.reference is not None:
            fits = self.reference.shape[1:] == pixels.shape[1:]
            if not fits or len(self.reference) not in (1, len(pixels)):
                raise DataError(
                    f"{where}: shape {pixels.shape}, but the reference {self.path} has "
                    f"{self.reference.shape}; take a reference of the same camera and binning, and "
                    "correct before resampling and cropping"
                )
            return self.reference
        light = gaussian_filter(pixels, (0, self.sigma_px, self.sigma_px), mode="nearest")
        if light.min() <= 0:
            raise DataError(
                f"{where}: black over an area wider than sigma_px={self.sigma_px:g}, so its "
                "illumination cannot be estimated; raise sigma_px, give a reference, or crop it"
            )
        return np.asarray(light)


def _read_reference(path: Path) -> np.ndarray:
    """The reference (C, H, W); its scale does not matter, as images keep their mean."""
    reference: np.ndarray = read_image(path, spatial_dims=2).array.astype(np.float64)
    dark = int(reference.size - np.count_nonzero(reference > 0))
    if dark or not np.isfinite(reference).all():
        raise DataError(
            f"{path}: {dark} of {reference.size} pixels of the flat-field reference are not above "
            "0 (or not finite), and an image cannot be divided by them; take the reference anew "
            "or replace dead pixels by their neighbours"
        )
    return reference


def _file_of(image: Any) -> str:
    meta = getattr(image, "meta", {})
    return str(meta.get("filename_or_obj", "no file"))
