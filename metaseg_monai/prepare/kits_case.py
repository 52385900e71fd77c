"""Reading one KiTS case and checking all of it before anything is made of it."""

import hashlib
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial.distance import pdist

from metaseg_monai.errors import DataError
from metaseg_monai.images.geometry import AxialVolume, axial_volume
from metaseg_monai.images.image import Image
from metaseg_monai.images.read import read_image, same_affine
from metaseg_monai.prepare.found import Problem
from metaseg_monai.prepare.kits_find import KitsCase

# Whether a volume shows the same anatomy twice: contrast phases appended to one another.

PLANES_MM = 4.0  # distance of the planes looked at
PIXELS, BLOCK = 128, 4  # pixels a side that are looked at, and a side of those averaged
TOP_PERCENTILE, WINDOW_HU = 99.5, 500.0  # from bone down to fat; air and metal would hide the rest
CHANGE_MM = 12.0  # what changes over this length tells the anatomy, not the outline of the body
FEWEST_MM = 60.0  # from one phase to the next; less is a vertebra that is like another
LARGEST_SHARE = 2 / 3  # of the volume: a third at least must lie above the same anatomy
# Of 640 phantoms, the labels of 200, 12 real labels and a real CT no single scan reaches 0.2. Of
# scans given twice, with other noise, contrast, breathing and range, none falls below 0.47.
LIKENESS = 0.4


def repeated_after(planes: np.ndarray, plane_mm: float) -> tuple[int, float] | None:
    """After how many planes the same anatomy comes again.

    How planes change toward the feet is compared with how they change further down: organs begin
    and end in one order, so that a single scan is like itself at no distance.

    Args:
        planes: (D, H, W) of a CT or of a label.
        plane_mm: distance of planes.

    Returns:
        The distance in planes and the correlation at it, or None where no part is repeated.
    """
    step = max(1, int(PLANES_MM // plane_mm))
    distance_mm = step * plane_mm
    length = max(1, round(CHANGE_MM / distance_mm))
    first = math.ceil(FEWEST_MM / distance_mm)
    last = int(LARGEST_SHARE * (len(planes[::step]) - length))
    if first > last:
        return None
    rows = _coarse(planes[::step])
    change = rows[length:] - rows[:-length]
    products = change @ change.T
    energy = np.diag(products)
    alike = {}
    for offset in range(first, last + 1):
        norm = math.sqrt(float(energy[:-offset].sum()) * float(energy[offset:].sum()))
        alike[offset] = float(np.trace(products, offset)) / norm if norm > 0 else 0.0
    best = max(alike, key=lambda offset: alike[offset])
    return (best * step, alike[best]) if alike[best] >= LIKENESS else None


def _coarse(planes: np.ndarray) -> np.ndarray:
    """Planes (D, H, W) as rows (D, P) of averages over blocks, of soft tissue and bone alone."""
    side = max(1, min(planes.shape[1:]) // PIXELS)
    shown = planes[:, ::side, ::side].astype(np.float32)
    if np.ptp(shown) > WINDOW_HU:
        top = np.percentile(shown[:, ::BLOCK, ::BLOCK], TOP_PERCENTILE)
        np.clip(shown, top - WINDOW_HU, top, out=shown)
    count, rows, columns = len(shown), shown.shape[1] // BLOCK, shown.shape[2] // BLOCK
    blocks = shown[:, : rows * BLOCK, : columns * BLOCK]
    blocks = blocks.reshape(count, rows, BLOCK, columns, BLOCK)
    return np.asarray(blocks.mean(axis=(2, 4)).reshape(count, rows * columns))


# Which planes, and which whole volumes, are equal: by a coarse sample first, then wholly.

SAMPLE_STEP = 16  # pixels between those compared first
BLOCK_SAME = 32  # planes brought into their own order at a time


def sample_digest(planes: np.ndarray, sparse: bool) -> str:
    """Digest of the shape and of a coarse sample of every plane, or of all planes with structure.

    Equal digests are a suspicion only: images without noise may differ between the samples.

    Args:
        planes: (D, H, W) of any numbers; the digest is that of their values as float32.
        sparse: look at all of the planes that are not 0 everywhere, of a label.

    Returns:
        The digest; "" for a label without any structure, which is like any other.
    """
    if sparse:
        filled = np.flatnonzero(planes.any(axis=(1, 2)))
        if not len(filled):
            return ""
        shown = planes[filled]
    else:
        shown = planes[:, ::SAMPLE_STEP, ::SAMPLE_STEP]
    digest = hashlib.sha256(str(planes.shape).encode())
    digest.update(np.ascontiguousarray(shown).astype("<f4").tobytes())
    return digest.hexdigest()


def whole_digest(planes: np.ndarray) -> str:
    """Digest of all values (D, H, W) as float32, the same however memory or a file holds them."""
    digest = hashlib.sha256(str(planes.shape).encode())
    for start in range(0, len(planes), BLOCK_SAME):
        digest.update(planes[start : start + BLOCK_SAME].astype("<f4").tobytes())
    return digest.hexdigest()


def equal_planes(planes: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of planes (D, H, W) that are equal to the bit, each with its first like; no constant.

    A coarse sample of every plane is compared first, so that few planes are looked at wholly.
    """
    sample = np.ascontiguousarray(planes[:, ::SAMPLE_STEP, ::SAMPLE_STEP])
    of_sample: dict[bytes, list[int]] = defaultdict(list)
    for plane, pixels in enumerate(sample):
        of_sample[pixels.tobytes()].append(plane)
    pairs = []
    for alike in of_sample.values():
        first: dict[bytes, int] = {}
        for plane in alike if len(alike) > 1 else []:
            digest = hashlib.sha256(planes[plane].tobytes()).digest()
            like = first.setdefault(digest, plane)
            if like != plane and planes[plane].min() != planes[plane].max():
                pairs.append((like, plane))
    return sorted(pairs, key=lambda pair: pair[1])


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


# What a label volume says about the tumour by itself: lesions, and the largest diameter.

TUMOUR = 2
SMALLEST_MM3 = 65.0  # a ball of 5 mm, the smallest size of the range; less is a speck


class TumourMeasures(NamedTuple):
    """Of one label volume.

    Attributes:
        components: lesions of at least 65 mm3 that do not touch each other, not even by a corner.
        diameter_mm: the largest distance of two edge points within one axial plane of one
            lesion (the largest Feret diameter, as a radiologist measures); 0 without a lesion.
    """

    components: int
    diameter_mm: float


def measure_tumour(planes: np.ndarray, spacing_mm: tuple[float, float, float]) -> TumourMeasures:
    """Count the tumour's lesions and measure the largest one across.

    Args:
        planes: (D, H, W) classes, of which 2 is tumour.
        spacing_mm: (z, y, x).

    >>> planes = np.zeros((3, 20, 20), np.uint8)
    >>> planes[1, 2, 2:6] = 2  # 4 pixels of 3 mm in a row
    >>> measure_tumour(planes, (5.0, 3.0, 3.0))
    TumourMeasures(components=1, diameter_mm=12.0)
    """
    tumour = planes == TUMOUR
    for axis in range(3):  # crop: a tumour is a small part of its volume
        others = tuple(other for other in range(3) if other != axis)
        filled = np.flatnonzero(tumour.any(axis=others))
        if not len(filled):
            return TumourMeasures(0, 0.0)
        tumour = tumour[(slice(None),) * axis + (slice(filled[0], filled[-1] + 1),)]
    labels, _ = ndimage.label(tumour, np.ones((3, 3, 3)))
    volumes = np.bincount(labels.ravel())[1:] * float(np.prod(spacing_mm))
    lesions = np.flatnonzero(volumes >= SMALLEST_MM3) + 1
    largest = 0.0
    y, x = spacing_mm[1:]
    parts = ndimage.find_objects(labels)
    cuts = [(plane, lesion) for lesion in lesions for plane in labels[parts[lesion - 1]] == lesion]
    for cut, _ in sorted(cuts, key=lambda pair: -_diagonal(pair[0].shape, y, x)):
        if _diagonal(cut.shape, y, x) > largest and cut.any():
            largest = max(largest, _feret(cut, y, x))
    return TumourMeasures(len(lesions), largest)


def _diagonal(shape: tuple[int, ...], y: float, x: float) -> float:
    return float(np.hypot(shape[0] * y, shape[1] * x))


def _feret(cut: np.ndarray, y: float, x: float) -> float:
    """The largest distance between the middles of outer pixel edges; only row ends can be it."""
    rows = np.flatnonzero(cut.any(axis=1))
    left = cut[rows].argmax(axis=1)
    right = cut.shape[1] - 1 - cut[rows][:, ::-1].argmax(axis=1)
    points = np.concatenate(
        [
            np.stack([rows + dy, ends + dx], axis=1)
            for ends in (left, right)
            for dy, dx in ((-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5))
        ]
    )
    return float(pdist(points * (y, x)).max())
