"""What a file says of its image, read without its pixels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import PIL.Image
import tifffile

from metaseg_monai.data.dicom.series import dicom_attributes
from metaseg_monai.data.nifti import nifti_shape
from metaseg_monai.data.nifti_header import header_affine
from metaseg_monai.data.readable import readable
from metaseg_monai.data.readers import FORMAT_OF_SUFFIX, image_suffix
from metaseg_monai.errors import DataError


def image_format(path: str | Path) -> str:
    """One of "tiff", "png", "jpeg" or "nifti" by the file's name, or "dicom" for a folder.

    Raises:
        DataError: it is none of these.

    >>> image_format("a/b.nii.gz")
    'nifti'
    """
    file_format = "dicom" if Path(path).is_dir() else FORMAT_OF_SUFFIX.get(image_suffix(path))
    if file_format is None:
        raise DataError(
            f"{path}: unsupported file type; expected {', '.join(FORMAT_OF_SUFFIX)}; convert it"
        )
    return file_format


def read_header(path: str | Path | Sequence[str | Path]) -> dict[str, Any]:
    """As much of `Image.attributes` as `write_mask` needs for a mask of this image.

    Args:
        path: an image that can be read, or several whose channels are stacked (the first decides).

    Returns:
        `path`, `format`, `affine`, `header`, and `spatial_shape` except for stacks of TIFF pages,
        whose number of axes is the reader's choice.

    Raises:
        DataError: the file is missing, may not be read, is no image, or its header is damaged.
        ConfigError: it is a DICOM series, and pydicom is not installed.
    """
    file = Path(path if isinstance(path, (str, Path)) else path[0])
    file_format = image_format(file)
    if file_format == "dicom":
        return dicom_attributes(file)
    attributes: dict[str, Any] = {"path": str(file), "format": file_format}
    attributes |= {"affine": None, "header": None}
    shape: tuple[int, ...] | None
    try:
        with readable(file):
            if file_format == "nifti":
                shape = nifti_shape(file)
                header = nib.load(file).header
                attributes |= {"affine": header_affine(header), "header": header}
            elif file_format == "tiff":
                with tifffile.TiffFile(file) as tiff:
                    page = tiff.series[0].keyframe
                    stack = set(tiff.series[0].axes) - set("YXSC")
                    shape = None if stack else (page.imagelength, page.imagewidth)
            else:
                with PIL.Image.open(file) as picture:
                    shape = (picture.height, picture.width)
    except DataError:
        raise
    except Exception as error:  # damaged headers fail anywhere inside three libraries
        raise DataError(f"{file}: its header cannot be read ({error}); copy it anew") from error
    return attributes if shape is None else {**attributes, "spatial_shape": shape}
