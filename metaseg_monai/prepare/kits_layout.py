"""A KiTS download as the source of a prediction: its images, their cases and kits.json."""

import re
import warnings
from pathlib import Path

from metaseg_monai.metadata.fields import listing
from metaseg_monai.prepare.clinical import read_clinical
from metaseg_monai.prepare.kits_find import CLINICAL_NAMES, IMAGE_NAMES
from metaseg_monai.tables.check import DataWarning
from metaseg_monai.tables.find import image_paths

# What KiTS19, KiTS21 and KiTS23 keep in a case's folder beside its image, all made from labels.
LABEL_FILES = re.compile(r"(aggregated_(AND|MAJ|OR)_seg|segmentation)\.nii(\.gz)?")
LABEL_FOLDERS = ("raw", "segmentations", "instances")


class KitsLayout:
    """Folders ``case_*/imaging.nii.gz`` at any depth, one such folder, or one such file.

    Only these images are taken, not the labels beside them; each folder names its case. Its row is
    that of the kits.json (kits23.json, ...) nearest to it, see `read_clinical`.
    """

    def find(self, source: Path) -> dict[Path, str]:
        """The images of a source and their cases; empty where it is no KiTS download.

        Args:
            source: a folder, or a file ``imaging.nii.gz``; absolute.

        Warns:
            DataWarning: other images lie there too, and are left out; names them.
        """
        if source.is_file():
            return {source: source.parent.name} if source.name in IMAGE_NAMES else {}
        one = [source / name for name in IMAGE_NAMES if (source / name).is_file()]
        found = image_paths(source)
        images = one[:1] or [
            path
            for path in found
            if path.name in IMAGE_NAMES and path.parent.name.startswith("case_")
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
                f"{len(left_out)} image(s) that are no {'' if one else 'case_*/'}{IMAGE_NAMES[0]} "
                f"are left out: {listing(left_out)}; predict on them apart, from a folder of "
                "their own",
                DataWarning,
                stacklevel=2,
            )
        return {image: image.parent.name for image in images}

    def is_label(self, path: Path) -> bool:
        """Whether it is the segmentation of a KiTS case, whatever its folder is called."""
        beside = (path.with_name(name) for name in IMAGE_NAMES)
        return _is_label_file(path) and any(image.is_file() for image in beside)

    def metadata_file(self, source: Path, image: Path) -> Path | None:
        """The clinical table of a case, the nearest there is.

        It is looked for beside the case's folder (also where the source is that case), then in the
        folders above it up to the source. Another case of the source may have another table.
        """
        beside = image.parent.parent
        folders = [beside]
        if source.is_dir():
            folders += [folder for folder in beside.parents if folder.is_relative_to(source)]
        tables = [folder / name for folder in folders for name in CLINICAL_NAMES]
        return next((table for table in tables if table.is_file()), None)

    def read_metadata(self, path: Path) -> dict[str, dict[str, str]]:
        """A clinical table with the radiographic size as `tumour_size_mm`, in mm."""
        return read_clinical(path)


def _is_label_file(path: Path) -> bool:
    return LABEL_FILES.fullmatch(path.name) is not None


def _belongs_to_case(path: Path, folders: set[Path]) -> bool:
    """Whether a KiTS download has that file in the folder of a case."""
    if path.parent in folders:
        return path.name in IMAGE_NAMES or _is_label_file(path)
    return any(
        above.name in LABEL_FOLDERS
        and (above.parent in folders or above.parent.name.startswith("case_"))
        for above in (path, *path.parents)
    )
