"""Where pixels lie in the body: whether grids are one, volumes as axial planes, other sizes."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

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

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.images.image import LARGEST_BYTES, Image

Axis = Literal["axial", "coronal", "sagittal"]
AXES = {  # where planes, rows and columns go, as a radiologist sees them
    "axial": ("I", "P", "L"),
    "coronal": ("P", "I", "L"),
    "sagittal": ("L", "I", "P"),
}
LARGEST_TILT_DEGREES, TOLD_TILT_DEGREES = 30.0, 1.0
LARGEST_SHEAR_DEGREES, SEEN_SHEAR_DEGREES = 1.0, 0.01  # below the latter it is rounding
SAME_PLACE_VOXELS = 0.1
PLAUSIBLE_MM = (0.02, 20.0)  # sides of a voxel of CT and MR
LARGEST_EXTENT_MM = 2500.0  # a person lying down, and the table
LARGEST_PIXELS = LARGEST_BYTES // 4  # as float32
SAME_SPACING = 1e-3  # relative


# What an affine says: distances, right angles, and whether two grids are one.


def plane_distances_mm(affine: np.ndarray) -> np.ndarray:
    """From one plane of voxels to the next along each of three axes.

    Of a sheared grid that is less than a step along the axis itself.

    Args:
        affine: (4, 4) or (3, 3), index to mm.

    >>> plane_distances_mm(np.array([[2.0, 0, 0], [0, 2, 3], [0, 0, 4]])).round(3).tolist()
    [2.0, 1.6, 4.0]
    """
    return np.asarray(1 / np.linalg.norm(np.linalg.inv(affine[:3, :3]), axis=1))


def shear_degrees(affine: np.ndarray) -> float:
    """The largest angle between an axis and the normal of the plane of the two others."""
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(plane_distances_mm(affine) / sides, 0, 1).min())))


def check_straight(where: str, affine: np.ndarray) -> None:
    """Refuse a grid of three axes that is none, or has no right angles.

    Raises:
        DataError: the affine is not finite or flat, or sheared by more than one degree.
    """
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (
        abs(np.linalg.det(affine[:3, :3])) > 1e-6 * sides.prod()
    ):
        raise DataError(f"{where}: the affine {affine.tolist()} is no grid; mend the header")
    shear = shear_degrees(affine)
    if shear > LARGEST_SHEAR_DEGREES:
        raise DataError(
            f"{where}: its axes are sheared by {shear:.1f} degrees, as with a tilted gantry, at "
            f"most {LARGEST_SHEAR_DEGREES:g} is accepted, as distances would be wrong; resample "
            "image and label to right angles (for instance dcm2niix from the DICOM series, or "
            "nibabel.processing.resample_to_output)"
        )


def voxels_apart(one: np.ndarray, other: np.ndarray, shape: Sequence[int]) -> float:
    """How far the corners of two grids are apart, in voxels of the other along any axis.

    Args:
        one: (4, 4), index to mm.
        other: the same of the other grid.
        shape: voxels along each axis, of both.
    """
    sizes = (*shape, 1, 1)[:3]  # an axis of one voxel has a direction, too
    ends = np.array(list(itertools.product(*((0, max(size - 1, 1)) for size in sizes))))
    moved = apply_affine(np.linalg.inv(other), apply_affine(one, ends))
    return float(np.abs(moved - ends).max())


def same_grid(one: np.ndarray | None, other: np.ndarray | None, shape: Sequence[int]) -> bool:
    """Whether corners differ by at most 0.1 voxel (contract 25); one that is unknown agrees."""
    return one is None or other is None or voxels_apart(one, other, shape) <= SAME_PLACE_VOXELS


def implausible(shape: Sequence[int], spacing_mm: Sequence[float]) -> str | None:
    """What is seldom true of a volume's size, in words; None where nothing is.

    >>> implausible((512, 512, 90), (0.8, 0.8, 3.0))
    >>> implausible((512, 512, 90), (800.0, 800.0, 3000.0))
    'voxels of 800 x 800 x 3000 mm, 409600 x 409600 x 270000 mm in all: another unit of length?'
    """
    extents = [size * side for size, side in zip(shape, spacing_mm, strict=True)]
    low, high = PLAUSIBLE_MM
    if low <= min(spacing_mm) <= max(spacing_mm) <= high and max(extents) <= LARGEST_EXTENT_MM:
        return None
    sides, sums = (" x ".join(f"{side:.6g}" for side in all_) for all_ in (spacing_mm, extents))
    return f"voxels of {sides} mm, {sums} mm in all: another unit of length?"


# A volume as a stack of axial planes.


@dataclass(frozen=True)
class AxialVolume:
    """A volume seen plane by plane, as a radiologist does, however its file stores it.

    Attributes:
        planes: (D, H, W), a view of the stored array: plane 0 is the uppermost, rows run toward
            the patient's back, columns toward the patient's left. KiTS files lie so already. Of
            other planes than axial ones see `AXES`.
        affine: (4, 4), index of `planes` to mm (R, A, S).
        orientation: of the stored array, as nibabel's ``io_orientation``.
        axis: that the planes are across.
    """

    planes: np.ndarray
    affine: np.ndarray
    orientation: np.ndarray
    axis: Axis = "axial"

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of planes, of rows within them and of columns, in mm (z, y, x).

        Their product is the volume of a voxel, also of a slightly sheared grid.
        """
        sides = np.linalg.norm(self.affine[:3, :3], axis=0)
        if shear_degrees(self.affine) > SEEN_SHEAR_DEGREES:
            sides = np.abs(np.diag(np.linalg.qr(self.affine[:3, 2::-1])[1]))[::-1]
        return float(sides[0]), float(sides[1]), float(sides[2])

    @property
    def tilt_degrees(self) -> float:
        """The largest angle between an axis and that of the body it is taken for."""
        directions = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(np.degrees(np.arccos(np.clip(np.abs(directions).max(axis=0).min(), 0, 1))))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is allowed but seldom meant of the place and size of its voxels, in words."""
        told = implausible(self.planes.shape, self.spacing_mm)
        tilt = self.tilt_degrees
        oblique = (
            f"planes are tilted by {tilt:.1f} degrees against the body's, and taken as they are"
        )
        return (*([told] if told else []), *([oblique] if tilt > TOLD_TILT_DEGREES else []))

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
        back = ornt_transform(axcodes2ornt(AXES[self.axis]), self.orientation)
        return np.asarray(apply_orientation(planes, back))


def axial_volume(image: Image, axis: Axis = "axial") -> AxialVolume:
    """See an image of three axes as axial planes, or as coronal or sagittal ones.

    Args:
        image: one channel (1, H, W, D) with an affine, from `read_image`.
        axis: of the planes.

    Raises:
        ConfigError: no such axis.
        DataError: it has more channels or fewer axes, no affine, is sheared by more than a
            degree, or tilted by more than 30, so that no stored axis is the body's long one.

    >>> affine = np.diag([0.8, 0.8, 5.0, 1.0])  # stored R, A, S
    >>> image = Image(np.zeros((1, 6, 4, 3)), {"path": "a.nii", "affine": affine})
    >>> volume = axial_volume(image)
    >>> volume.planes.shape, volume.spacing_mm, volume.position_mm(0)
    ((3, 4, 6), (5.0, 0.8, 0.8), 10.0)
    """
    if axis not in AXES:
        raise ConfigError(f"axis={axis!r}: expected one of {', '.join(get_args(Axis))}")
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
    check_straight(path, affine)
    stored = io_orientation(affine)
    turn = ornt_transform(stored, axcodes2ornt(AXES[axis]))
    array = image.array[0]
    planes = np.asarray(apply_orientation(array, turn))
    volume = AxialVolume(planes, affine @ inv_ornt_aff(turn, array.shape), stored, axis)
    if volume.tilt_degrees > LARGEST_TILT_DEGREES:
        raise DataError(
            f"{path}: its axes are tilted by {volume.tilt_degrees:.0f} degrees against the body's; "
            "resample it to straight axes first"
        )
    return volume


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
        return _resize_volumes(image, shape)
    shrinks = any(new < old for new, old in zip(shape, image.shape[2:], strict=True))
    return F.interpolate(
        image, tuple(shape), mode="bilinear", align_corners=False, antialias=shrinks
    )


def _resize_volumes(volumes: Tensor, shape: Sequence[int]) -> Tensor:
    """Resize volumes (B, C, H, W, D) trilinearly, along the depth where the planes are small.

    As planes whose channels lie beside each other in memory that takes a quarter of the time of
    torch's own "trilinear" on a CPU, and gives the same to a rounding.
    """
    *planes, depth = shape
    grows = math.prod(planes) > math.prod(volumes.shape[2:4])
    if grows:
        volumes = _resize_last(volumes, depth)
    if [*volumes.shape[2:4]] != planes:
        stack = volumes.flatten(0, 1).movedim(-1, 1)  # (B * C, D, H, W)
        stack = F.interpolate(stack, planes, mode="bilinear", align_corners=False)
        volumes = stack.movedim(1, -1).unflatten(0, volumes.shape[:2])
    return volumes if grows else _resize_last(volumes, depth)


def _resize_last(values: Tensor, size: int) -> Tensor:
    """Resize the last axis linearly."""
    if values.shape[-1] == size:
        return values
    lines = values.reshape(1, -1, values.shape[-1])
    lines = F.interpolate(lines, size, mode="linear", align_corners=False)
    return lines.reshape(*values.shape[:-1], size)


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
