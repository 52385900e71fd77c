"""Reading one KiTS case and checking all of it before anything is made of it."""

from dataclasses import dataclass

import numpy as np

from metaseg_monai.data.axial import AxialVolume, axial_volume
from metaseg_monai.data.image import Image
from metaseg_monai.data.kits.find import KitsCase, Problem
from metaseg_monai.data.kits.phases import repeated_after
from metaseg_monai.data.kits.same import equal_planes, sample_digest, whole_digest
from metaseg_monai.data.readers import read_image, same_affine
from metaseg_monai.errors import DataError

CLASSES = ("background", "kidney", "tumour", "cyst")
LARGEST_EXTENT_MM = 1200.0  # a trunk; more is several scans in one file
SLAB = 16  # rows or columns copied at a time: few enough for the processor's cache
WHOLE_WITHIN = 1e-3
CHUNK = 1 << 20  # voxels looked at together


@dataclass(frozen=True)
class CaseVolumes:
    """A case whose image and label fit each other.

    Attributes:
        image: CT values; None where only the label was read.
        label: uint8 classes 0..3 on the same grid.
        content: digest of some of the voxels, see `sample_digest`; of equal ones `whole_content`
            decides.
        stored_shape: as the label's file has it.
        remarks: what is allowed but seldom meant, in words.
    """

    image: AxialVolume | None
    label: AxialVolume
    content: str
    stored_shape: tuple[int, ...]
    remarks: tuple[str, ...]


def read_case(case: KitsCase) -> tuple[CaseVolumes | None, list[Problem]]:
    """Read the files of a case to their end and check them against each other.

    Files must be sound NIfTI volumes (see `read_nifti`). The image's values must be finite and
    fit int16, the label's whole numbers from 0 to 3, its shape and affine those of the image.

    Returns:
        The volumes, or None where there are problems, and the problems, all that can be told.
    """
    problems: list[Problem] = []
    label = _read(case, "label", problems)
    image = None if case.image is None else _read(case, "image", problems)
    planes = {}
    for kind, read in (("label", label), ("image", image)):
        if read is None:
            continue
        check = _label_problem if kind == "label" else _image_problem
        wrong = check(read.array)
        if wrong is not None:
            problems.append(Problem(case.case, _file(case, kind), *wrong))
        try:
            planes[kind] = axial_volume(read)
        except DataError as error:
            path = read.attributes["path"]
            problems.append(Problem.of_error(case.case, _file(case, kind), path, error))
    if label is not None and image is not None:
        problems += _misfits(case, image, label)
    if problems or label is None:
        return None, problems
    classes = planes["label"]
    whole = AxialVolume(_as_classes(classes.planes), classes.affine, classes.orientation)
    ct = planes.get("image")
    remarks = _extent_remarks(whole) + _phase_remarks(whole, ct)
    if ct is not None and image is not None:
        remarks += _ct_remarks(ct.planes, image.array.ravel(order="K"))
    content = sample_digest(whole.planes if ct is None else ct.planes, sparse=ct is None)
    return CaseVolumes(ct, whole, content, label.array.shape[1:], tuple(remarks)), []


def whole_content(case: KitsCase) -> str:
    """Digest of all voxels of a case's image, or of its label where only that is read.

    Raises:
        DataError: the file can no longer be read.
    """
    return whole_digest(axial_volume(read_image(case.image or case.label, 3)).planes)


def _file(case: KitsCase, kind: str) -> str:
    path = case.label if kind == "label" or case.image is None else case.image
    return f"{case.case}/{path.name}"


def _read(case: KitsCase, kind: str, problems: list[Problem]) -> Image | None:
    path = case.label if kind == "label" or case.image is None else case.image
    try:
        return read_image(path, 3)
    except DataError as error:
        problems.append(Problem.of_error(case.case, _file(case, kind), path, error))
        return None


def _label_problem(array: np.ndarray) -> tuple[str, str] | None:
    stored = array.ravel(order="K")  # as it lies in memory: no copy
    expected = "0 background, 1 kidney, 2 tumour, 3 cyst"
    save = "save the label anew with these classes"
    low, high = float(stored.min()), float(stored.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        return f"label with values that are not finite, expected {expected}", save
    if stored.dtype.kind == "f" and np.any(stored % 1):
        value = float(stored[np.flatnonzero(stored % 1)[0]])
        return f"label value {value:g}, expected whole numbers: {expected}", save
    if low < 0 or high >= len(CLASSES):
        value = low if low < 0 else high
        count = int(np.count_nonzero(stored == stored.dtype.type(value)))
        return f"label value {value:g} ({count} voxels), expected {expected}", save
    return None


def _image_problem(array: np.ndarray) -> tuple[str, str] | None:
    stored = array.ravel(order="K")
    low, high = float(stored.min()), float(stored.max())  # NaN anywhere gives NaN
    if not (np.isfinite(low) and np.isfinite(high)):
        broken = int(stored.size - np.count_nonzero(np.isfinite(stored)))
        return f"{broken} of {stored.size} voxels are not finite numbers", "mend the image"
    limits = np.iinfo(np.int16)
    if low < limits.min or high > limits.max:
        return (
            f"values {low:g} to {high:g} do not fit int16, in which slices are written",
            "give Hounsfield units",
        )
    return None


def _misfits(case: KitsCase, image: Image, label: Image) -> list[Problem]:
    """Whether the label lies on the image's grid."""
    one, other = image.array.shape[1:], label.array.shape[1:]
    step = "resample the label onto the image's grid"
    file = _file(case, "label")
    if one != other:
        found = f"label of shape {other}, expected {one} as its image"
        return [Problem(case.case, file, found, step)]
    if not same_affine(image.attributes["affine"], label.attributes["affine"]):
        apart = np.abs(image.attributes["affine"] - label.attributes["affine"]).max()
        found = f"the label's affine differs from its image's, by up to {apart:.4g}"
        return [Problem(case.case, file, found, step)]
    return []


def _as_classes(planes: np.ndarray) -> np.ndarray:
    """The classes as uint8 in C order, as they are looked at plane by plane and more than once."""
    classes = np.zeros(planes.shape, np.uint8)
    filled = np.flatnonzero(planes.any(axis=(1, 2)))
    if len(filled):
        part = slice(filled[0], filled[-1] + 1)
        classes[part] = gathered(planes[part])
    return classes


def gathered(planes: np.ndarray) -> np.ndarray:
    """Planes (D, H, W) in C order, copied where they are not.

    KiTS files hold the neighbours of a plane far apart in memory; going slab by slab along the
    axis of the longest steps takes a third of the time of numpy's own order.
    """
    if planes.flags.c_contiguous:
        return planes
    copy = np.empty(planes.shape, planes.dtype)
    axis = 1 if abs(planes.strides[1]) > abs(planes.strides[2]) else 2
    for at in range(0, planes.shape[axis], SLAB):
        slab = (slice(None),) * axis + (slice(at, at + SLAB),)
        copy[slab] = planes[slab]
    return copy


def _extent_remarks(volume: AxialVolume) -> list[str]:
    extent = len(volume.planes) * volume.spacing_mm[0]
    if extent <= LARGEST_EXTENT_MM:
        return []
    return [
        f"{len(volume.planes)} planes over {extent:.0f} mm: several contrast phases appended? "
        "Their slices show the same patient more than once"
    ]


def _phase_remarks(label: AxialVolume, image: AxialVolume | None) -> list[str]:
    """Whether the image, or else the label, shows the patient more than once."""
    for kind, volume in (("image", image), ("label", label)):
        if volume is None:
            continue
        found = repeated_after(volume.planes, volume.spacing_mm[0])
        if found is not None:
            offset, likeness = found
            return [
                f"from plane {offset} on, the {kind} changes as from plane 0 on (correlation "
                f"{likeness:.2f}): several contrast phases appended, or like organs above each "
                "other? Slices of several phases show the same patient more than once"
            ]
    return []


def _ct_remarks(planes: np.ndarray, stored: np.ndarray) -> list[str]:
    """What looks wrong with a CT but may be meant; `stored`: its voxels as memory holds them."""
    remarks = []
    low, high = float(stored.min()), float(stored.max())
    if low == high:
        return [f"every voxel is {low:g}: an image without contrast"]
    if low >= 0:
        remarks.append(f"values {low:g} to {high:g}, none below 0: no Hounsfield units, or clipped")
    twins = equal_planes(planes)
    if twins:
        one, other = twins[0]
        more = f" and {len(twins) - 1} more pairs" if len(twins) > 1 else ""
        remarks.append(
            f"planes {one} and {other}{more} are equal to the bit: several contrast phases "
            "appended, or planes repeated?"
        )
    if stored.dtype.kind == "f" and _far_from_whole(stored):
        remarks.append("values that are no whole numbers; slices hold them rounded")
    return remarks


def _far_from_whole(stored: np.ndarray) -> bool:
    parts = (stored[at : at + CHUNK] for at in range(0, stored.size, CHUNK))
    return any(np.abs(part - np.rint(part)).max() > WHOLE_WITHIN for part in parts)
