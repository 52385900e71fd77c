"""A volume as axial slices: found by its affine, never by the index of an axis."""

from dataclasses import dataclass

import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from metaseg_monai.data.image import Image
from metaseg_monai.errors import DataError

AXES = ("I", "P", "L")  # planes toward the feet, rows toward the back, columns toward the left
LARGEST_TILT_DEGREES = 30.0


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
    wanted = axcodes2ornt(AXES)
    turn = ornt_transform(stored, wanted)
    array = image.array[0]
    planes = np.asarray(apply_orientation(array, turn))
    straight = affine @ inv_ornt_aff(turn, array.shape)
    return AxialVolume(planes, straight, stored)
