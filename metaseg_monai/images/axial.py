"""A volume as axial slices: found by its affine, never by the index of an axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.affines import apply_affine
from nibabel.orientations import (
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)

from metaseg_monai.errors import DataError
from metaseg_monai.images.image import Image
from metaseg_monai.images.nifti import nifti_shape
from metaseg_monai.images.read import FORMAT_OF_SUFFIX, image_suffix, read_header, read_image

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


# Volumes as items of axial planes, so that a 2D network takes them as it takes stored slices.


def slice_items(items: Sequence[Mapping[str, Any]], spatial_dims: int = 2) -> list[dict[str, Any]]:
    """Make one item of each axial plane of a volume; other items stay as they are.

    Only headers are read. A plane keeps the `image` (and `label`) path of its volume, its group
    and metadata; its `case` becomes ``<case>_<plane>`` with four digits, and it has `volume` (the
    case), `plane` (0 is the uppermost), `planes` (how many) and `spacing_mm` (z, y, x).

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
    return len(nifti_shape(Path(path))) == 3


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


class VolumeCache:
    """The last volume read in each role, seen as axial planes, so that its file is read once.

    Copies, also those in worker processes, start empty.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[str, AxialVolume]] = {}

    def holds(self, role: str, path: str | Path) -> bool:
        """Whether `read` would not touch the disk."""
        last = self._last.get(role)
        return last is not None and last[0] == str(path)

    def read(self, role: str, path: str | Path) -> AxialVolume:
        """The volume of a path; the one before it in that role is let go first.

        Args:
            role: "image" or "label", of each of which one volume is kept.
            path: a file that `read_image` takes.

        Raises:
            DataError: as `read_image` and `axial_volume`.
        """
        last = self._last.get(role)
        if last is not None and last[0] == str(path):
            return last[1]
        del last
        self._last.pop(role, None)
        volume = axial_volume(read_image(path, spatial_dims=3, palette="indices"))
        self._last[role] = (str(path), volume)
        return volume

    def __reduce__(self) -> tuple[type["VolumeCache"], tuple[()]]:
        return VolumeCache, ()


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
