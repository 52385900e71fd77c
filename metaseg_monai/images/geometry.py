"""Where pixels lie in the body: volumes as axial planes, and grids of other pixel sizes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from nibabel.affines import apply_affine
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from torch import Tensor

from metaseg_monai.errors import DataError
from metaseg_monai.images.image import FORMAT_OF_SUFFIX, LARGEST_BYTES, Image, image_suffix
from metaseg_monai.images.nifti import nifti_attributes
from metaseg_monai.images.read import read_header

AXES = ("I", "P", "L")  # planes toward the feet, rows toward the back, columns toward the left
LARGEST_TILT_DEGREES = 30.0
LARGEST_PIXELS = LARGEST_BYTES // 4  # as float32
SAME_SPACING = 1e-3  # relative


@dataclass(frozen=True)
class AxialVolume:
    """A volume seen plane by plane, as a radiologist does, however its file stores it.

    Attributes:
        planes: (D, H, W), a view of the stored array: plane 0 is the uppermost, rows run toward
            the patient's back, columns toward the patient's left. KiTS files lie so already.
        affine: (4, 4), index of `planes` to mm (R, A, S).
        orientation: of the stored array, as nibabel's ``io_orientation``.
    """

    planes: np.ndarray
    affine: np.ndarray
    orientation: np.ndarray

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of planes, rows and columns in mm (z, y, x)."""
        sides = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))
        return float(sides[0]), float(sides[1]), float(sides[2])

    def position_mm(self, plane: int) -> float:
        """Height of the middle of a plane in mm, larger toward the head."""
        rows, columns = self.planes.shape[1:]
        middle = (plane, (rows - 1) / 2, (columns - 1) / 2)
        return float(apply_affine(self.affine, middle)[2])

    def restore(self, planes: np.ndarray) -> np.ndarray:
        """Bring an array like `planes` back into the stored order of axes.

        Args:
            planes: (D, H, W) of any data type, a mask for instance.

        Raises:
            DataError: another shape.
        """
        if planes.shape != self.planes.shape:
            raise DataError(f"planes of shape {planes.shape}, expected {self.planes.shape}")
        back = ornt_transform(axcodes2ornt(AXES), self.orientation)
        return np.asarray(apply_orientation(planes, back))


def axial_volume(image: Image) -> AxialVolume:
    """See an image of three axes as axial planes.

    Args:
        image: one channel (1, H, W, D) with an affine, from `read_image`.

    Raises:
        DataError: it has more channels or fewer axes, no affine, or is tilted by more than 30
            degrees, so that no stored axis is the body's long one.

    >>> affine = np.diag([0.8, 0.8, 5.0, 1.0])  # stored R, A, S
    >>> image = Image(np.zeros((1, 6, 4, 3)), {"path": "a.nii", "affine": affine})
    >>> volume = axial_volume(image)
    >>> volume.planes.shape, volume.spacing_mm, volume.position_mm(0)
    ((3, 4, 6), (5.0, 0.8, 0.8), 10.0)
    """
    path, affine = image.attributes["path"], image.attributes["affine"]
    if image.array.ndim != 4 or image.array.shape[0] != 1:
        raise DataError(
            f"{path}: shape {image.array.shape} (channels first); expected one channel and three "
            "axes, a volume"
        )
    if affine is None:
        raise DataError(
            f"{path}: has no affine (of a NIfTI file, sform_code and qform_code are 0), so its "
            "axial axis is unknown; save it as NIfTI with its true affine"
        )
    directions = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    tilt = float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0).min(), 0, 1))))
    stored = io_orientation(affine)
    if tilt > LARGEST_TILT_DEGREES or np.isnan(stored).any():
        raise DataError(
            f"{path}: its axes are tilted by {tilt:.0f} degrees against the body's; resample it "
            "to straight axes first"
        )
    turn = ornt_transform(stored, axcodes2ornt(AXES))
    array = image.array[0]
    planes = np.asarray(apply_orientation(array, turn))
    return AxialVolume(planes, affine @ inv_ornt_aff(turn, array.shape), stored)


def volume_header(path: str | Path) -> tuple[AxialVolume, dict[str, Any]]:
    """How a volume's planes lie, and its attributes, without its voxels.

    Returns:
        The view, whose planes have the right shape but hold only zeros (and take no memory), and
        the attributes for `write_mask`.

    Raises:
        DataError: as `axial_volume`, or the header is damaged.
    """
    attributes = read_header(path)
    nothing = np.broadcast_to(np.uint8(0), (1, *attributes["spatial_shape"]))
    return axial_volume(Image(nothing, attributes)), attributes


def is_volume_file(path: object) -> bool:
    """Whether a path is a NIfTI file of three axes (only its header is read) or a DICOM folder.

    Raises:
        DataError: the header is damaged.
    """
    if not isinstance(path, (str, Path)):
        return False
    if Path(path).is_dir():
        return True
    if FORMAT_OF_SUFFIX.get(image_suffix(path)) != "nifti":
        return False
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; check the path in the table or command")
    return len(nifti_attributes(Path(path))["spatial_shape"]) == 3


def slice_items(items: Sequence[Mapping[str, Any]], spatial_dims: int = 2) -> list[dict[str, Any]]:
    """Make one item of each axial plane of a volume; other items stay as they are.

    A 2D network takes them as it takes stored slices. Only headers are read. A plane keeps the
    `image` (and `label`) path of its volume, its group and metadata; its `case` becomes
    ``<case>_<plane>`` with four digits, and it has `volume` (the case), `plane` (0 is the
    uppermost), `planes` (how many) and `spacing_mm` (z, y, x).

    Args:
        items: as `find_cases` or `read_table` give them.
        spatial_dims: of the network; for 3 volumes stay whole.

    Raises:
        DataError: a volume is damaged, tilted, or one of several channels, or two items would
            have one name; names the case.

    >>> slice_items([{"image": "slice.tif", "case": "slice"}])
    [{'image': 'slice.tif', 'case': 'slice'}]
    """
    if spatial_dims == 3:
        return [dict(item) for item in items]
    made: list[dict[str, Any]] = []
    for item in items:
        made += _planes_of(item) if _is_whole_volume(item) else [dict(item)]
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


def _planes_of(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    case = item["case"]
    try:
        volume, _ = volume_header(item["image"])
    except DataError as error:
        raise DataError(f"case {case!r}: {error}") from error
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
        }
        for plane in range(planes)
    ]


# Grids of another pixel size: images linearly, labels by the nearest pixel.


def resampled_shape(
    shape: Sequence[int], spacing_mm: Sequence[float], target_mm: float | Sequence[float]
) -> tuple[int, ...]:
    """Pixels along every axis of the same extent, with steps of other lengths.

    Args:
        shape: pixels along each axis.
        spacing_mm: distance of pixels along each axis.
        target_mm: wanted distances, or one for all axes.

    Raises:
        DataError: there would be more pixels than are read from any file.

    >>> resampled_shape((512, 512), (0.78, 0.78), 1.56), resampled_shape((10, 20), (1, 1), 1)
    ((256, 256), (10, 20))
    """
    targets = [target_mm] * len(shape) if isinstance(target_mm, int | float) else target_mm
    sizes = tuple(
        size
        if abs(step_mm / wanted_mm - 1) < SAME_SPACING
        else max(1, round(size * step_mm / wanted_mm))
        for size, step_mm, wanted_mm in zip(shape, spacing_mm, targets, strict=True)
    )
    if math.prod(sizes) > max(LARGEST_PIXELS, math.prod(shape)):
        old, new, given, wanted = (
            " x ".join(f"{number:g}" for number in numbers)
            for numbers in (shape, sizes, spacing_mm, targets)
        )
        raise DataError(
            f"{old} pixels of {given} mm would become {new} of {wanted} mm, expected at most "
            f"{LARGEST_PIXELS >> 20} million; mend the pixel size of the file, or ask for "
            "larger pixels (spacing_mm)"
        )
    return sizes


def resize_image(image: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize planes or volumes linearly; in planes, averaging where pixels become larger.

    Args:
        image: (B, C, H, W) or (B, C, H, W, D) float32; intensities, or logits on their way back.
        shape: wanted (H, W) or (H, W, D).
    """
    if tuple(image.shape[2:]) == tuple(shape):
        return image
    if len(shape) == 3:
        return F.interpolate(image, tuple(shape), mode="trilinear", align_corners=False)
    shrinks = any(new < old for new, old in zip(shape, image.shape[2:], strict=True))
    return F.interpolate(
        image, tuple(shape), mode="bilinear", align_corners=False, antialias=shrinks
    )


def resize_label(label: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize classes (B, C, H, W) or (B, C, H, W, D), each pixel from its nearest.

    torch's own "nearest-exact" rounds its scale to float32, and takes the neighbour of the nearest
    pixel in 2 % of all pairs of sizes (227 pixels of 32, for instance).
    """
    for axis, (old, new) in enumerate(zip(label.shape[2:], shape, strict=True), start=2):
        if old != new:
            nearest = ((torch.arange(new, device=label.device) + 0.5) * old / new).long()
            label = label.index_select(axis, nearest.clamp(max=old - 1))
    return label


def resize_stored(plane: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Resize one stored plane (H, W) linearly and keep its data type, rounding whole numbers."""
    if plane.shape == tuple(shape):
        return plane
    pixels = torch.from_numpy(np.ascontiguousarray(plane, dtype=np.float32))[None, None]
    resized = resize_image(pixels, shape)[0, 0].numpy()
    if plane.dtype.kind in "iu":
        resized = np.rint(resized)
    return resized.astype(plane.dtype)
