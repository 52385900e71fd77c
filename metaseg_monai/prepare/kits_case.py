"""One KiTS case: all of it is checked before its axial slices and their rows are made."""

import hashlib
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import tifffile
import torch
from nibabel.orientations import ornt2axcodes
from scipy import ndimage
from scipy.spatial.distance import pdist
from skimage.measure import find_contours

from metaseg_monai.errors import DataError, Problem
from metaseg_monai.images.geometry import (
    AxialVolume,
    axial_volume,
    implausible,
    resampled_shape,
    resize_label,
    resize_stored,
    same_grid,
    voxels_apart,
)
from metaseg_monai.images.identity import pixel_digest
from metaseg_monai.images.image import WHOLE_WITHIN, Image
from metaseg_monai.images.read import read_image, read_label
from metaseg_monai.prepare.found import FoundCase, alike
from metaseg_monai.prepare.kits_source import SIZE

SliceRule = Literal["mass", "kidney", "all"]
Spacing = float | Literal["native"]

CLASSES = ("background", "kidney", "tumour", "cyst")
NAMED = tuple(enumerate(CLASSES))[1:]
TUMOUR = 2
FIRST_COLUMNS = ("image", "label", SIZE, "group", "split", "volume", "plane", "planes")
LARGEST_EXTENT_MM = 1200.0  # a trunk; more is several scans in one file
SMALLEST_MM3 = 65.0  # a ball of 5 mm, the smallest size of the range; less is a speck
BLOCK = 32  # planes brought into their own order at a time
SLAB = 16  # rows or columns copied at a time: few enough for the processor's cache
SAMPLE_STEP = 16  # pixels between those that are compared first


@dataclass(frozen=True)
class CaseVolumes:
    """A case whose image and label fit each other.

    Attributes:
        image: CT values; None where only the label was read.
        label: uint8 classes 0..3 on the same grid.
        content: digest of some voxels, by which copies are suspected; "" of an empty label.
        stored_shape: as the label's file has it.
        remarks: what is allowed but seldom meant, in words.
    """

    image: AxialVolume | None
    label: AxialVolume
    content: str
    stored_shape: tuple[int, ...]
    remarks: tuple[str, ...]


def source_files(case: FoundCase) -> dict[str, Path]:
    """Every file of a case by its path within the folder of cases."""
    return {f"{case.case}/{path.name}": path for path in (*case.images, *case.masks)}


def read_case(case: FoundCase) -> tuple[CaseVolumes | None, list[Problem]]:
    """Read the files of a case to their end and check them against each other.

    Files must be sound NIfTI volumes (see `read_nifti`). The image's values must be finite and
    fit int16, the label's whole numbers from 0 to 3, its shape and affine those of the image.

    Returns:
        The volumes, or None where there are problems, and the problems, all that can be told.
    """
    problems: list[Problem] = []
    read: dict[str, Image] = {}
    planes: dict[str, AxialVolume] = {}
    of_kind = {"label": case.masks, "image": case.images}
    names = {kind: f"{case.case}/{path.name}" for kind, paths in of_kind.items() for path in paths}
    for kind, paths in of_kind.items():
        for path in paths:
            try:
                read[kind] = (read_label if kind == "label" else read_image)(path, 3)
                wrong = (_label_problem if kind == "label" else _image_problem)(read[kind].array)
                if wrong is not None:
                    problems.append(Problem(case.case, names[kind], *wrong))
                planes[kind] = axial_volume(read[kind])
                told = implausible(planes[kind].planes.shape, planes[kind].spacing_mm)
                if told is not None:
                    step = "mend the header (pixdim, affine, xyzt_units), or leave the case out"
                    problems.append(Problem(case.case, names[kind], told, step))
            except DataError as error:
                problems.append(Problem.of_error(case.case, names[kind], path, error))
    if len(read) == 2 and (misfit := _misfit(read["image"], read["label"])):
        step = "resample the label onto the image's grid"
        problems.append(Problem(case.case, names["label"], misfit, step))
    if problems:
        return None, problems
    stored, ct = planes["label"], planes.get("image")
    classes = gathered(stored.planes.astype(np.uint8, order="K"))
    label = AxialVolume(classes, stored.affine, stored.orientation)
    remarks = [*label.remarks, *_phase_remarks(label, ct)]
    filled = classes[classes.any(axis=(1, 2))]
    content = pixel_digest(filled) if len(filled) else ""
    if ct is not None:
        remarks += _ct_remarks(ct.planes, read["image"].array.ravel(order="K"))
        content = pixel_digest(ct.planes[:, ::SAMPLE_STEP, ::SAMPLE_STEP])
    return CaseVolumes(ct, label, content, read["label"].array.shape[1:], tuple(remarks)), []


def whole_content(case: FoundCase) -> str:
    """Digest of all voxels of a case's image, or of its label where only that is read.

    Raises:
        DataError: the file can no longer be read.
    """
    image = read_image(case.images[0], 3) if case.images else read_label(case.masks[0], 3)
    return pixel_digest(axial_volume(image).planes)


def _label_problem(array: np.ndarray) -> tuple[str, str] | None:
    stored = array.ravel(order="K")  # as it lies in memory: no copy
    expected = "0 background, 1 kidney, 2 tumour, 3 cyst"
    save = "save the label anew with these classes"
    low, high = float(stored.min()), float(stored.max())
    if low < 0 or high >= len(CLASSES):
        value = low if low < 0 else high
        count = int(np.count_nonzero(stored == stored.dtype.type(value)))
        return f"label value {value:g} ({count} voxels), expected {expected}", save
    return None


def _image_problem(array: np.ndarray) -> tuple[str, str] | None:
    stored = array.ravel(order="K")
    low, high = float(stored.min()), float(stored.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        broken = int(stored.size - np.count_nonzero(np.isfinite(stored)))
        return f"{broken} of {stored.size} voxels are not finite numbers", "mend the image"
    limits = np.iinfo(np.int16)
    if low < limits.min or high > limits.max:
        found = f"values {low:g} to {high:g} do not fit int16, in which slices are written"
        return found, "give Hounsfield units"
    return None


def _misfit(image: Image, label: Image) -> str | None:
    """Why the label does not lie on the image's grid."""
    one, other = image.array.shape[1:], label.array.shape[1:]
    if one != other:
        return f"label of shape {other}, expected {one} as its image"
    here, there = image.attributes["affine"], label.attributes["affine"]
    if here is not None and there is not None and not same_grid(there, here, one):
        apart = voxels_apart(there, here, one)
        return f"the label's affine differs from its image's, by up to {apart:.3g} voxels"
    return None


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


# What is allowed but seldom meant.


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
    if stored.dtype.kind == "f" and any(
        np.abs(part - np.rint(part)).max() > WHOLE_WITHIN
        for part in np.array_split(stored, stored.size // (1 << 20) + 1)
    ):
        remarks.append("values that are no whole numbers; slices hold them rounded")
    return remarks


def equal_planes(planes: np.ndarray) -> list[tuple[int, int]]:
    """Planes that are equal to the bit, each with the first like it; constant ones are not told."""
    sample = np.ascontiguousarray(planes[:, ::SAMPLE_STEP, ::SAMPLE_STEP])
    groups = alike(
        range(len(planes)),
        lambda plane: sample[plane].tobytes(),
        lambda plane: hashlib.sha256(planes[plane].tobytes()).digest(),
    )
    pairs = [(same[0], other) for same in groups if np.ptp(planes[same[0]]) for other in same[1:]]
    return sorted(pairs, key=lambda pair: pair[1])


def _phase_remarks(label: AxialVolume, image: AxialVolume | None) -> list[str]:
    """Whether the volumes may be several scans of one patient."""
    remarks = []
    extent = len(label.planes) * label.spacing_mm[0]
    if extent > LARGEST_EXTENT_MM:
        remarks.append(
            f"{len(label.planes)} planes over {extent:.0f} mm: several contrast phases appended? "
            "Their slices show the same patient more than once"
        )
    for kind, volume in (("image", image), ("label", label)):
        found = volume and repeated_after(volume.planes, volume.spacing_mm[0])
        if found:
            remarks.append(
                f"from plane {found[0]} on, the {kind} changes as from plane 0 on (correlation "
                f"{found[1]:.2f}): several contrast phases appended, or like organs above each "
                "other? Slices of several phases show the same patient more than once"
            )
            break
    return remarks


PLANES_MM = 4.0  # distance of the planes looked at
PIXELS, POOLED = 128, 4  # pixels a side that are looked at, and a side of those averaged
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

    Returns:
        The distance in planes and the correlation at it, or None where no part is repeated.
    """
    step = max(1, int(PLANES_MM // plane_mm))
    length = max(1, round(CHANGE_MM / (step * plane_mm)))
    first = math.ceil(FEWEST_MM / (step * plane_mm))
    last = int(LARGEST_SHARE * (len(planes[::step]) - length))
    if first > last:
        return None
    side = max(1, min(planes.shape[1:]) // PIXELS)
    shown = planes[::step, ::side, ::side].astype(np.float32)
    if np.ptp(shown) > WINDOW_HU:
        top = np.percentile(shown[:, ::POOLED, ::POOLED], TOP_PERCENTILE)
        np.clip(shown, top - WINDOW_HU, top, out=shown)
    count, rows, columns = len(shown), shown.shape[1] // POOLED, shown.shape[2] // POOLED
    blocks = shown[:, : rows * POOLED, : columns * POOLED]
    blocks = blocks.reshape(count, rows, POOLED, columns, POOLED).mean(axis=(2, 4))
    change = blocks.reshape(count, -1)[length:] - blocks.reshape(count, -1)[:-length]
    products = change @ change.T
    energy = np.diag(products)
    best, likeness = 0, 0.0
    for offset in range(first, last + 1):
        norm = math.sqrt(float(energy[:-offset].sum()) * float(energy[offset:].sum()))
        like = float(np.trace(products, offset)) / norm if norm > 0 else 0.0
        best, likeness = (offset, like) if like > likeness else (best, likeness)
    return (best * step, likeness) if likeness >= LIKENESS else None


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
    inside = ndimage.find_objects(planes, TUMOUR)[-1]
    if inside is None:
        return TumourMeasures(0, 0.0)
    labels, _ = ndimage.label(planes[inside] == TUMOUR, np.ones((3, 3, 3)))
    volumes = np.bincount(labels.ravel())[1:] * float(np.prod(spacing_mm))
    lesions = np.flatnonzero(volumes >= SMALLEST_MM3) + 1
    parts = ndimage.find_objects(labels)
    cuts = (cut for lesion in lesions for cut in labels[parts[lesion - 1]] == lesion)
    diameters = (_feret(cut, spacing_mm[1:]) for cut in cuts if cut.any())
    return TumourMeasures(len(lesions), max(diameters, default=0.0))


def _feret(cut: np.ndarray, spacing_mm: tuple[float, ...]) -> float:
    """The largest distance between the middles of outer pixel edges."""
    outline = np.concatenate(find_contours(np.pad(cut, 1).astype(float), 0.5))
    return float(pdist(outline * spacing_mm).max())


def case_row(
    case: str, volumes: CaseVolumes, pixels: np.ndarray, slices: Sequence[object]
) -> dict[str, Any]:
    """The row of cases.csv: what the volumes are, and what each class and the tumour measure."""
    label = volumes.label
    tumour = measure_tumour(label.planes, label.spacing_mm)
    spacing = zip("zyx", label.spacing_mm, strict=True)
    present = pixels > 0
    planes = {
        **{name: present[:, k] for k, name in NAMED},
        "tumour_and_cyst": present[:, 2] & present[:, 3],
        "mass": present[:, 2:].any(axis=1),
        "kidney_or_mass": present[:, 1:].any(axis=1),
    }
    mm3 = pixels.sum(axis=0) * float(np.prod(label.spacing_mm))
    return {
        "case": case,
        "shape": "x".join(map(str, volumes.stored_shape)),
        "orientation": "".join(ornt2axcodes(label.orientation)),
        **{f"spacing_{axis}_mm": number(side) for axis, side in spacing},
        "planes": len(pixels),
        "slices": len(slices),
        **{f"planes_{name}": int(shown.sum()) for name, shown in planes.items()},
        **{f"{name}_mm3": number(mm3[k]) for k, name in NAMED},
        "tumour_components": tumour.components,
        "tumour_diameter_mm": number(tumour.diameter_mm) if tumour.components else "",
    }


# The slices and their rows.


def class_pixels(planes: np.ndarray) -> np.ndarray:
    """Pixels of every class in every plane: (D, 4) int64, of (D, H, W) classes 0..3, uint8."""
    counts = np.zeros((len(planes), len(CLASSES)), dtype=np.int64)
    counts[:, 0] = planes[0].size
    for plane in np.flatnonzero(planes.any(axis=(1, 2))):
        counts[plane] = np.bincount(planes[plane].ravel(), minlength=len(CLASSES))
    return counts


def chosen_planes(pixels: np.ndarray, rule: SliceRule) -> np.ndarray:
    """The planes that a rule keeps.

    Args:
        pixels: (D, 4) from `class_pixels`.
        rule: "mass", those with tumour or cyst (the paper's 10,346 slices of KiTS21); "kidney",
            those with kidney, tumour or cyst (a few planes show a mass alone); "all".

    >>> pixels = np.array([[9, 0, 0, 0], [5, 4, 0, 0], [5, 3, 1, 0], [7, 0, 0, 2]])
    >>> [chosen_planes(pixels, rule).tolist() for rule in ("mass", "kidney", "all")]
    [[2, 3], [1, 2, 3], [0, 1, 2, 3]]
    """
    first = {"mass": 2, "kidney": 1, "all": 0}[rule]
    return np.flatnonzero(pixels[:, first:].any(axis=1))


def write_slices(
    case: str,
    volumes: CaseVolumes,
    pixels: np.ndarray,
    folder: str | Path,
    rule: SliceRule = "mass",
    spacing: Spacing = 0.78,
) -> list[dict[str, Any]]:
    """Write the slices of one case as uncompressed TIFF files.

    Images are int16 in images/, labels uint8 in labels/, both named <case>_<plane>.tif and with
    square pixels of `spacing` mm, the image resampled linearly and the label by its nearest pixel.

    Returns:
        One row a slice, in the order of planes, for `table_row`; where there is only a label,
        `image` and `image_sha256` are left out.
    """
    label, folder = volumes.label, Path(folder)
    shape = (label.planes.shape[1], label.planes.shape[2])
    z, y, x = label.spacing_mm
    new = shape if spacing == "native" else resampled_shape(shape, (y, x), float(spacing))
    chosen = chosen_planes(pixels, rule).tolist()
    kinds = {"label": (_resized_label(label.planes[plane], new) for plane in chosen)}
    if volumes.image is not None:
        first, last = (chosen[0], chosen[-1]) if chosen else (0, -1)
        values = gathered(volumes.image.planes[first : last + 1])
        kinds = {"image": (_resized_image(values[n - first], new) for n in chosen), **kinds}
    name = f"{case}_{{:04d}}.tif".format
    sha256: dict[tuple[str, int], str] = {}
    for kind, planes in kinds.items() if chosen else ():
        (folder / f"{kind}s").mkdir(parents=True, exist_ok=True)
        for plane, stored in zip(chosen, planes, strict=True):
            sha256[kind, plane] = _write_tiff(folder / f"{kind}s" / name(plane), stored)
    return [
        {
            **{kind: f"{kind}s/{name(plane)}" for kind in kinds},
            "volume": case,
            "plane": plane,
            "planes": len(label.planes),
            "position_mm": number(label.position_mm(plane)),
            "spacing_z_mm": number(z),
            "spacing_y_mm": number(y * shape[0] / new[0]),
            "spacing_x_mm": number(x * shape[1] / new[1]),
            **{f"{name_}_mm2": number(pixels[plane, k] * (y * x)) for k, name_ in NAMED},
            **{f"{kind}_sha256": sha256[kind, plane] for kind in kinds},
        }
        for plane in chosen
    ]


def table_row(row: Mapping[str, Any], clinical: Mapping[str, str], split: str) -> dict[str, Any]:
    """A row of table.csv, columns in the order of the contract.

    Clinical columns that the table has already, such as `split`, become `clinical_<name>`.
    """
    own = {SIZE: clinical.get(SIZE, ""), "group": row["volume"], "split": split}
    whole = {**row, **own}
    ordered = {name: whole[name] for name in FIRST_COLUMNS if name in whole} | dict(row)
    reserved = {*ordered, *FIRST_COLUMNS, "image_sha256"}
    for name, text in clinical.items():
        if name != SIZE:
            ordered[f"clinical_{name}" if name in reserved else name] = text
    return ordered


def number(value: float) -> str:
    """A number as text, to six places, without trailing zeros.

    >>> number(0.5), number(3.0), number(-1e-9)
    ('0.5', '3', '0')
    """
    text = f"{value:.6f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _resized_image(plane: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    resized = resize_stored(plane if plane.dtype.kind == "f" else plane.astype(np.int16), shape)
    return (np.rint(resized) if resized.dtype.kind == "f" else resized).astype("<i2")


def _resized_label(plane: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    if plane.shape == shape:
        return plane
    return resize_label(torch.from_numpy(plane)[None, None], shape)[0, 0].numpy()


def _write_tiff(path: Path, plane: np.ndarray) -> str:
    """Write a plane (H, W) uncompressed; return the file's SHA-256."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, plane, photometric="minisblack", metadata=None, byteorder="<")
    path.write_bytes(stream.getvalue())
    return hashlib.sha256(stream.getvalue()).hexdigest()
