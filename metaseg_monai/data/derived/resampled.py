"""An image or label file written anew with more or fewer pixels."""

from pathlib import Path
from typing import Literal

import numpy as np
import tifffile
import torch

from metaseg_monai.data.planes import resampled_shape, resize_label, resize_stored
from metaseg_monai.data.readers import read_image
from metaseg_monai.files import replacing

Size = Literal["whole", "crop"]


def resample_file(path: Path, made: Path, scale: float, image: bool, size: Size) -> None:
    """Write an image, or a label, with `scale` pixels in place of one.

    Args:
        path: a 2D image or label that `read_image` takes.
        made: TIFF to write.
        scale: pixels of the new image for one of the old, along each axis.
        image: True interpolates linearly; False takes the nearest pixel, for labels.
        size: "whole", or "crop" for the middle of an enlarged image, as large as its source.

    Raises:
        DataError: the file cannot be read as a 2D image.
    """
    planes = read_image(path, 2, palette="colours" if image else "indices").array
    if planes.dtype == bool:
        planes = planes.astype(np.uint8)
    shape = resampled_shape(planes.shape[1:], (scale, scale), 1.0)
    if image:
        resized = np.stack([resize_stored(plane, shape) for plane in planes])
    else:  # through int64, because torch takes no rows of 16-bit numbers without a sign
        numbers = torch.from_numpy(planes if planes.dtype.kind == "f" else planes.astype(np.int64))
        resized = resize_label(numbers[None], shape)[0].numpy().astype(planes.dtype)
    if size == "crop" and scale > 1:
        (row, column), (height, width) = _middle(shape, planes.shape[1:]), planes.shape[1:]
        resized = resized[:, row : row + height, column : column + width]
    with replacing(made) as part:
        grey, axes = len(resized) == 1, "YX" if len(resized) == 1 else "CYX"
        tifffile.imwrite(
            part,
            resized[0] if grey else resized,
            photometric="minisblack",
            compression="zlib",
            metadata={"axes": axes},
        )


def _middle(shape: tuple[int, int], of: tuple[int, ...]) -> tuple[int, int]:
    return (shape[0] - of[0]) // 2, (shape[1] - of[1]) // 2
