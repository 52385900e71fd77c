"""Scores of one volume: for each region overlap, surfaces, volume and lesions, by KiTS' rules.

A region is a set of classes, so that regions may contain each other: kidney and masses, masses,
tumour. Region names, classes and tolerances of `KITS_REGIONS` are those of the KiTS challenge.

A volume of which only some planes were evaluated (a table of the slices with a mass) is scored on
these planes, at their true distances: the planes between are neither right nor wrong and make no
surface, a lesion that reaches beyond them counts once on each side, and ``complete`` is 0.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metrics.surfaces import cut_runs, surface_scores

# Which lesions were found, and which were invented.

FOUND_SHARE = 0.1
TOUCHING = np.ones((3, 3, 3), dtype=bool)  # by faces, edges or corners: 26 neighbours


class Lesions(NamedTuple):
    """Connected parts of the label, how many of them were found, and predicted parts off all."""

    lesions: int
    found: int
    false: int


def count_lesions(pred: np.ndarray, label: np.ndarray, found_share: float = FOUND_SHARE) -> Lesions:
    """Count lesions, connected over 26 neighbours.

    A lesion is found if at least `found_share` of its voxels are predicted; a predicted part is
    false if none of its voxels is labelled. So one predicted part may find several lesions.

    Args:
        pred: (D, H, W) bool.
        label: (D, H, W) bool.
        found_share: above 0, at most 1.

    >>> label = np.array([[[1, 0, 1, 1, 0, 0]]], dtype=bool)
    >>> count_lesions(np.array([[[0, 0, 1, 0, 0, 1]]], dtype=bool), label)
    Lesions(lesions=2, found=1, false=1)
    """
    covered = _covered_shares(label, pred)
    touched = _covered_shares(pred, label)
    found = int((covered >= found_share).sum())
    return Lesions(len(covered), found, int((touched == 0).sum()))


def _covered_shares(mask: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Share of the voxels of each connected part of `mask` that `by` covers."""
    parts, number = ndimage.label(mask, TOUCHING)
    sizes = np.bincount(parts[mask], minlength=number + 1)[1:]
    return np.bincount(parts[mask & by], minlength=number + 1)[1:] / sizes


KITS_REGIONS: Mapping[str, Mapping[str, Any]] = {  # tolerances of the challenge's own code
    "kidney_and_masses": {
        "classes": ["kidney", "tumour", "cyst"],
        "tolerance_mm": 1.0330772532390826,
    },
    "masses": {"classes": ["tumour", "cyst"], "tolerance_mm": 1.1328796488598762},
    "tumour": {"classes": ["tumour"], "tolerance_mm": 1.1498198361434828},
}
TOLERANCE_MM = 1.0  # of a class that is scored alone, because nobody named regions
LARGEST_CLASS = 255


class Region(NamedTuple):
    """Classes that are scored as one, and the tolerance of their surface Dice in mm."""

    name: str
    classes: tuple[int, ...]
    tolerance_mm: float


class VolumeScore(NamedTuple):
    """Scores of one region of one volume.

    Attributes:
        region: its name.
        complete: 1 if every plane of the volume was evaluated, else 0.
        planes: evaluated planes.
        dice: 1 if prediction and label are empty, 0 if one is.
        surface_dice: the same rule.
        hd95_mm: NaN if prediction or label is empty. So a mean leaves out the volumes where
            nothing was found: read it with their number, beside Dice.
        true_mm3: volume of the label.
        pred_mm3: volume of the prediction.
        false_mm3: volume of the prediction on planes whose label has none of the region.
        lesions: connected parts of the label (26 neighbours).
        lesions_found: those of which a share was predicted.
        lesions_false: connected parts of the prediction without any labelled voxel.
    """

    region: str
    complete: int
    planes: int
    dice: float
    surface_dice: float
    hd95_mm: float
    true_mm3: float
    pred_mm3: float
    false_mm3: float
    lesions: int
    lesions_found: int
    lesions_false: int


def make_regions(
    regions: Mapping[str, Mapping[str, Any]], class_names: Mapping[int, str] | None = None
) -> list[Region]:
    """Check regions as a configuration writes them.

    Args:
        regions: ``{name: {"classes": [...], "tolerance_mm": ...}}``, classes by number or name.
        class_names: of the data, by number.

    Raises:
        ConfigError: no regions, other keys, classes that are not whole numbers of 1 to 255 or
            names of some, each once, or a tolerance below 0.

    >>> make_regions({"tumour": {"classes": [2], "tolerance_mm": 1.1498}})
    [Region(name='tumour', classes=(2,), tolerance_mm=1.1498)]
    """
    numbers = {name: number for number, name in (class_names or {}).items()}
    if not regions:
        raise ConfigError("regions is empty; name at least one, see KITS_REGIONS")
    made = []
    for name, setting in regions.items():
        if not isinstance(setting, Mapping) or set(setting) != {"classes", "tolerance_mm"}:
            raise ConfigError(
                f"region {name!r} is {setting!r}; expected "
                '{"classes": [1, 2], "tolerance_mm": 1.0}'
            )
        classes, tolerance = setting["classes"], setting["tolerance_mm"]
        if isinstance(classes, list | tuple):
            classes = [numbers.get(one, one) if isinstance(one, str) else one for one in classes]
            if strange := [one for one in classes if isinstance(one, str)]:
                known = ", ".join(f"{number}={one}" for one, number in numbers.items())
                raise ConfigError(
                    f"region {name!r}: no class is named {strange[0]!r}; the classes are "
                    f"{known or 'without names: give class_names, as 1=kidney,2=liver'}"
                )
        if not _are_classes(classes):
            raise ConfigError(
                f"region {name!r}: classes {classes!r}; expected whole numbers from 1 (0 is the "
                f"background) to {LARGEST_CLASS}, each once"
            )
        if type(tolerance) not in (int, float) or not 0 <= tolerance < math.inf:
            raise ConfigError(f"region {name!r}: tolerance_mm {tolerance!r}; expected mm, from 0")
        made.append(Region(str(name), tuple(classes), float(tolerance)))
    return made


def fitting_regions(
    regions: Mapping[str, Mapping[str, Any]], class_names: Mapping[int, str], classes: Sequence[int]
) -> list[Region]:
    """Regions for data whose classes may be others than those that the regions name.

    Args:
        regions: as for `make_regions`.
        class_names: of the data, by number.
        classes: that the data have, without the background.

    Returns:
        The regions, where the data have every class that they name; else each class alone, by its
        name, or as "class 2" where it has none, with a tolerance of 1 mm.

    >>> kits = {"tumour": {"classes": ["tumour"], "tolerance_mm": 1.1498}}
    >>> fitting_regions(kits, {1: "kidney", 2: "liver"}, [1, 2])[1]
    Region(name='liver', classes=(2,), tolerance_mm=1.0)
    """
    named = {one for region in regions.values() for one in region["classes"]}
    if {one for one in named if isinstance(one, str)} <= set(class_names.values()):
        return make_regions(regions, class_names)
    return [Region(class_names.get(one, f"class {one}"), (one,), TOLERANCE_MM) for one in classes]


def score_volume(
    pred: np.ndarray,
    label: np.ndarray,
    spacing_mm: Sequence[float],
    regions: Sequence[Region],
    at: Sequence[int] | None = None,
    count: int | None = None,
    found_share: float = FOUND_SHARE,
) -> list[VolumeScore]:
    """Score every region of one volume.

    Args:
        pred: predicted classes (N, H, W), whole numbers from 0 to 255; N evaluated planes.
        label: true classes (N, H, W).
        spacing_mm: of planes, rows and columns.
        regions: of `make_regions`.
        at: index of each plane in the volume, ascending; None for 0 to N - 1.
        count: planes of the volume; None for N.
        found_share: of a lesion's voxels that must be predicted for it to be found.

    Raises:
        ConfigError: another share.
        DataError: shapes differ, indices do not fit, or the spacing is not three positive numbers.

    >>> label = np.zeros((4, 8, 8), np.uint8)
    >>> label[1:3, 2:6, 2:6] = 2
    >>> tumour = make_regions({"tumour": {"classes": [2], "tolerance_mm": 1.1498}})
    >>> score = score_volume(label, label, (3.0, 0.5, 0.5), tumour)[0]
    >>> score.dice, score.surface_dice, score.hd95_mm, score.true_mm3, score.lesions_found
    (1.0, 1.0, 0.0, 24.0, 1)
    """
    if len(spacing_mm) != 3 or not all(0 < size < math.inf for size in spacing_mm):
        raise DataError(f"spacing {tuple(spacing_mm)}: expected three positive numbers in mm")
    if not 0 < found_share <= 1:
        raise ConfigError(f"found_share is {found_share}; expected above 0 and at most 1, as 0.1")
    # a NIfTI file's planes lie interleaved in memory, which makes every look at a plane slow
    pred, label = np.ascontiguousarray(pred), np.ascontiguousarray(label)
    voxel_mm3 = math.prod(float(size) for size in spacing_mm)
    complete = int(count is None or count == len(pred))
    scores = []
    for region in regions:
        mask, truth = (np.isin(array, region.classes) for array in (pred, label))
        runs = cut_runs(mask, truth, at, count)
        lesions = [count_lesions(run.pred, run.label, found_share) for run in runs]
        scores.append(
            VolumeScore(
                region.name,
                complete,
                len(pred),
                _dice(mask, truth),
                *surface_scores(runs, spacing_mm, region.tolerance_mm),
                float(np.count_nonzero(truth) * voxel_mm3),
                float(np.count_nonzero(mask) * voxel_mm3),
                float(np.count_nonzero(mask[~truth.any((1, 2))]) * voxel_mm3),
                *(sum(numbers) for numbers in zip((0, 0, 0), *lesions, strict=True)),
            )
        )
    return scores


def _dice(pred: np.ndarray, label: np.ndarray) -> float:
    """KiTS' rule, other than that of `f1`: both empty is 1."""
    both = np.count_nonzero(pred) + np.count_nonzero(label)
    return float(2 * np.count_nonzero(pred & label) / both) if both else 1.0


def _are_classes(classes: Any) -> bool:
    return (
        isinstance(classes, list | tuple)
        and all(type(number) is int and 1 <= number <= LARGEST_CLASS for number in classes)
        and len(set(classes)) == len(classes) > 0
    )
