"""Files of images in and out: arrays as stored, with spacing and orientation."""

from metaseg_monai.images.image import Image, convert_channels
from metaseg_monai.images.read import read_image, slice_items
from metaseg_monai.images.write import mask_suffix, write_mask

__all__ = [
    "Image",
    "convert_channels",
    "mask_suffix",
    "read_image",
    "slice_items",
    "write_mask",
]
