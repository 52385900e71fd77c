"""Which files and folders below a source are images to predict on, and which only look so."""

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from metaseg_monai.data.cases import DataWarning
from metaseg_monai.data.dicom.series import is_dicom_folder, is_single_plane
from metaseg_monai.data.kits.find import CLINICAL_NAMES, IMAGE_NAMES
from metaseg_monai.data.readers import FORMAT_OF_SUFFIX, image_suffix
from metaseg_monai.errors import DataError
from metaseg_monai.metadata.fields import listing

# What KiTS19, KiTS21 and KiTS23 keep in a case's folder beside its image, all made from labels.
KITS_LABEL_FILES = re.compile(r"(aggregated_(AND|MAJ|OR)_seg|segmentation)\.nii(\.gz)?")
KITS_LABEL_FOLDERS = ("raw", "segmentations", "instances")


def absolute(path: str | Path) -> Path:
    """The path from the root, without following links, whose names are what the user sees.

    Links are followed only where ``..`` demands it.

    >>> absolute("/data/case_00000").as_posix()[-16:]
    '/data/case_00000'
    """
    parts = Path(path).absolute().parts
    up = max((index for index, part in enumerate(parts) if part == ".."), default=-1)
    return Path(*parts[: up + 1]).resolve().joinpath(*parts[up + 1 :])


def kits_images(source: Path) -> list[Path]:
    """The images of a folder of KiTS cases, or of one case; empty where it is no such source.

    Args:
        source: a folder, or a file ``imaging.nii.gz``; absolute.

    Warns:
        DataWarning: other images lie there too, and are left out; names them.
    """
    if source.is_file():
        return [source] if source.name in IMAGE_NAMES else []
    one = [source / name for name in IMAGE_NAMES if (source / name).is_file()]
    found = [path for path in _walk(source) if _may_be_image(path)]
    images = one[:1] or [
        path for path in found if path.name in IMAGE_NAMES and path.parent.name.startswith("case_")
    ]
    folders = {image.parent for image in images}
    left_out = [
        path.relative_to(source).as_posix()
        for path in found
        if images and path not in images and not _belongs_to_case(path, folders)
    ]
    if left_out:
        warnings.warn(
            f"{source}: taken as {'a KiTS case' if one else 'a folder of KiTS cases'}, so "
            f"{len(left_out)} image(s) that are no {'' if one else 'case_*/'}{IMAGE_NAMES[0]} are "
            f"left out: {listing(left_out)}; predict on them apart, from a folder of their own",
            DataWarning,
            stacklevel=2,
        )
    return images


def clinical_beside(source: Path, image: Path) -> Path | None:
    """The clinical table (kits.json, kits23.json ...) of a KiTS case, the nearest there is.

    It is looked for beside the case's folder (also where the source is that case), then in the
    folders above it up to the source. Another case of the source may have another table.
    """
    beside = image.parent.parent
    folders = [beside]
    if source.is_dir():
        folders += [folder for folder in beside.parents if folder.is_relative_to(source)]
    tables = [folder / name for folder in folders for name in CLINICAL_NAMES]
    return next((table for table in tables if table.is_file()), None)


def all_images(source: Path, table: str) -> list[Path]:
    """Every image in a folder at any depth, in the order of the paths, or the image itself.

    Hidden files are left out, and segmentations of KiTS beside an ``imaging.nii.gz``. A folder of
    DICOM files is one image.

    Args:
        source: absolute.
        table: name of the table that was not found, for the message.

    Raises:
        DataError: there are none.

    Warns:
        DataWarning: DICOM series of one plane, such as localisers, are left out; names them.
    """
    if source.is_file() or is_dicom_folder(source):
        return [source]
    images = [path for path in _walk(source) if _may_be_image(path) and not _is_label(path)]
    single = [path for path in images if path.is_dir() and is_single_plane(path)]
    images = [path for path in images if path not in single]
    told = listing(path.relative_to(source).as_posix() for path in single)
    if not images:
        raise DataError(
            f"{source}: neither the table {table} nor images "
            f"({', '.join(FORMAT_OF_SUFFIX)}, DICOM); check the folder"
            + (
                f"; the DICOM series {told} have one plane each and are no volumes"
                if single
                else ""
            )
        )
    if single:
        warnings.warn(
            f"{source}: {len(single)} DICOM series of one plane (a localiser?) left out: {told}",
            DataWarning,
            stacklevel=2,
        )
    return images


def _walk(folder: Path) -> Iterator[Path]:
    """All files and folders below, hidden ones apart; linked folders too, but never in a circle."""
    paths = []
    for at, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        here = Path(at)
        folders[:] = [
            name for name in folders if not name.startswith(".") and not _leads_back(here / name)
        ]
        paths += [here / name for name in (*folders, *files) if not name.startswith(".")]
    return iter(sorted(paths))


def _raise(error: OSError) -> None:
    """Not to pass silently over folders that cannot be listed, as `os.walk` does."""
    raise error


def _leads_back(path: Path) -> bool:
    """Whether a link leads to a folder on the way to it."""
    return path.is_symlink() and path.resolve() in {above.resolve() for above in path.parents}


def _may_be_image(path: Path) -> bool:
    if path.is_dir():
        return is_dicom_folder(path)
    return image_suffix(path) in FORMAT_OF_SUFFIX and path.is_file()


def _is_label(path: Path) -> bool:
    """Whether it is the segmentation of a KiTS case, whatever its folder is called."""
    beside = (path.with_name(name) for name in IMAGE_NAMES)
    named = KITS_LABEL_FILES.fullmatch(path.name) is not None
    return named and any(image.is_file() for image in beside)


def _belongs_to_case(path: Path, folders: set[Path]) -> bool:
    """Whether a KiTS download has that file in the folder of a case."""
    if path.parent in folders:
        return path.name in IMAGE_NAMES or KITS_LABEL_FILES.fullmatch(path.name) is not None
    return any(
        above.name in KITS_LABEL_FOLDERS
        and (above.parent in folders or above.parent.name.startswith("case_"))
        for above in (path, *path.parents)
    )
