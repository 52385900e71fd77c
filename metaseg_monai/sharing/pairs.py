"""Which predicted mask belongs to which label."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from metaseg_monai.data.image_paths import absolute
from metaseg_monai.data.kits.find import CASE_FOLDERS, IMAGE_NAMES, LABEL_NAMES, find_kits
from metaseg_monai.data.readers import image_suffix
from metaseg_monai.errors import DataError

SUFFIXES = (".nii", ".nii.gz")
FILE_NAMES = (*IMAGE_NAMES, *LABEL_NAMES)  # of one case, which its folder names
IMAGE_ENDING = "_imaging"
SHOWN = 5


class Pair(NamedTuple):
    """Files of one case."""

    case: str
    pred: Path
    label: Path


class Pairs(NamedTuple):
    """Pairs in the order of their names, and the labels that have no prediction."""

    pairs: list[Pair]
    unpredicted: list[str]


def find_pairs(predictions: str | Path, labels: str | Path) -> Pairs:
    """Pair NIfTI masks by the names of their cases.

    A file ``case_00000.nii.gz`` or ``case_00000_imaging.nii.gz`` is of the case case_00000; one
    that is named as in a KiTS download (imaging, aggregated_MAJ_seg, segmentation) is of the case
    that names its folder. Folders are searched two levels deep. Links go by their own names.

    Args:
        predictions: folder of masks, or one mask.
        labels: folder of labels, a KiTS download (the aggregated_MAJ_seg, else the segmentation of
            each case), or, with one mask, its label.

    Raises:
        DataError: nothing is there, two files are of one case, or a prediction has no label.
    """
    found = _masks(Path(predictions), "predictions")
    known = _labels(Path(labels))
    if Path(predictions).is_file() and Path(labels).is_file():
        (pred,), ((case, label),) = found.values(), known.items()
        return Pairs([Pair(case, pred, label)], [])
    strangers = sorted(set(found) - set(known))
    if strangers:
        raise DataError(
            f"{_shown(strangers)}: predicted, but without a label in {labels}, which has "
            f"{_shown(sorted(known))}; name labels and predictions alike, or remove what is no "
            f"prediction from {predictions}"
        )
    pairs = [Pair(case, found[case], known[case]) for case in sorted(found)]
    return Pairs(pairs, sorted(set(known) - set(found)))


def _labels(source: Path) -> dict[str, Path]:
    inside = (path for name in CASE_FOLDERS for path in (source / name).glob("case_*"))
    if source.is_dir() and any(path.is_dir() for path in inside):
        cases = find_kits(source, labels_only=True).cases
        if cases:
            return {case.case: case.label for case in cases}
    known = [source / name for name in LABEL_NAMES if (source / name).is_file()]
    if known:  # the folder of one case, with its scan beside the label
        return {absolute(source).name: known[0]}
    return _masks(source, "labels")


def _masks(source: Path, what: str) -> dict[str, Path]:
    """The NIfTI files of a folder by the names of their cases."""
    if not source.exists():
        raise DataError(f"{source}: no such file or folder; check the path of the {what}")
    paths = [source] if source.is_file() else sorted([*source.glob("*"), *source.glob("*/*")])
    files = [
        path
        for path in paths
        if path.is_file() and image_suffix(path) in SUFFIXES and not path.name.startswith(".")
    ]
    if not files:
        raise DataError(
            f"{source}: no NIfTI masks; expected {what} as case_00000.nii.gz or "
            "case_00000/segmentation.nii.gz"
        )
    named: dict[str, Path] = {}
    for path in files:
        case = _case_of(path)
        if case in named:
            raise DataError(f"{case}: both {named[case]} and {path} are its {what}; keep one")
        named[case] = path
    return named


def _case_of(path: Path) -> str:
    if path.name in FILE_NAMES:
        return absolute(path).parent.name
    return path.name[: -len(image_suffix(path))].removesuffix(IMAGE_ENDING)


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
