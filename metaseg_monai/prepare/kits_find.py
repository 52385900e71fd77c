"""Where a KiTS19, KiTS21 or KiTS23 download holds its cases and its clinical table."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from metaseg_monai.errors import DataError
from metaseg_monai.prepare.found import Problem

CASE_FOLDERS = (
    ".",
    "data",  # KiTS19: kits19/data
    "dataset",  # KiTS23: kits23/dataset
    "kits21/data",  # KiTS21: its repository holds a folder of the same name
    "kits19/data",
    "kits23/dataset",
)
CHECK_RIGHTS = "check the disk and the rights"
CLINICAL_NAMES = ("kits.json", "kits23.json", "kits21.json", "kits19.json")
IMAGE_NAMES = ("imaging.nii.gz", "imaging.nii")
LABEL_NAMES = (
    "aggregated_MAJ_seg.nii.gz",  # KiTS21, majority of its annotators
    "aggregated_MAJ_seg.nii",
    "segmentation.nii.gz",  # KiTS19 and KiTS23
    "segmentation.nii",
)


@dataclass(frozen=True)
class KitsCase:
    """The files of one case.

    Attributes:
        case: its name, as `case_00000`.
        image: the CT volume; None where only labels are asked for.
        label: the segmentation.
    """

    case: str
    image: Path | None
    label: Path

    @property
    def files(self) -> dict[str, Path]:
        """Every file by its path within the folder of cases."""
        paths = [self.label] if self.image is None else [self.image, self.label]
        return {f"{self.case}/{path.name}": path for path in paths}


@dataclass(frozen=True)
class KitsFolder:
    """What a KiTS folder holds.

    Attributes:
        cases: every case whose files are there, by name.
        problems: cases that lack a file, or whose folder cannot be read.
        clinical: the clinical table within the source, or None.
    """

    cases: tuple[KitsCase, ...]
    problems: tuple[Problem, ...]
    clinical: Path | None

    @property
    def names(self) -> list[str]:
        """All cases, those that lack a file too."""
        return sorted({*(c.case for c in self.cases), *(p.case for p in self.problems)})


def find_kits(
    source: str | Path, label_name: str | None = None, labels_only: bool = False
) -> KitsFolder:
    """Find the cases of a KiTS folder.

    Args:
        source: folder with `case_*` folders, or the repository of KiTS19, KiTS21 or KiTS23.
        label_name: file name of the label in every case, with or without ".nii.gz"; by default
            aggregated_MAJ_seg, else segmentation.
        labels_only: cases need no image.

    Raises:
        DataError: there is no such folder, it cannot be read, no case is in it, or cases are in
            several of its folders.
    """
    source = Path(source)
    if not source.is_dir():
        raise DataError(f"{source}: no such folder; expected the folder of a KiTS download")
    if label_name is not None and (not label_name.strip() or Path(label_name).name != label_name):
        raise DataError(
            f"label_name={label_name!r}: expected a file name, such as {LABEL_NAMES[0]}"
        )
    try:
        holding = {
            (source / name).resolve(): source / name
            for name in CASE_FOLDERS
            if (source / name).is_dir() and _case_folders(source / name)
        }
    except OSError as error:
        raise DataError(f"{source}: {_unreadable(error)}; {CHECK_RIGHTS}") from error
    if len(holding) != 1:
        looked = ", ".join(str(source / name) for name in CASE_FOLDERS)
        found = ", ".join(map(str, holding.values()))
        raise DataError(
            f"{source}: cases in several folders ({found}); name one of them"
            if holding
            else f"{source}: no folders case_* (looked in {looked}); name the folder that holds "
            "case_00000, case_00001, ..."
        )
    (folder,) = holding.values()
    cases, problems = [], []
    for path in _case_folders(folder):
        try:
            image, label = _file_of(path, IMAGE_NAMES), _file_of(path, _label_names(label_name))
        except OSError as error:
            problems.append(
                Problem(path.name, "", f"its folder {_unreadable(error)}", CHECK_RIGHTS)
            )
            continue
        lacking = []
        if image is None and not labels_only:
            lacking.append(_lack(path.name, IMAGE_NAMES[0], "get it, or ask for labels only"))
        if label is None:
            expected = label_name or f"{LABEL_NAMES[0]} or {LABEL_NAMES[2]}"
            lacking.append(_lack(path.name, expected, "get it, or name another label"))
        if label is not None and not lacking:
            cases.append(KitsCase(path.name, None if labels_only else image, label))
        problems += lacking
    return KitsFolder(tuple(cases), tuple(problems), _clinical_table(source, folder))


def _clinical_table(source: Path, folder: Path) -> Path | None:
    """The table beside the cases, where KiTS19, 21 and 23 ship it, or above; never outside."""
    bases = [folder, *(base for base in folder.parents if base.is_relative_to(source))]
    tables = [base / name for base in bases for name in CLINICAL_NAMES]
    return next((table for table in tables if table.is_file()), None)


def _case_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("case_*") if path.is_dir())


def _label_names(label_name: str | None) -> Sequence[str]:
    if label_name is None:
        return LABEL_NAMES
    if label_name.endswith((".nii", ".nii.gz")):
        return [label_name]
    return [f"{label_name}.nii.gz", f"{label_name}.nii"]


def _file_of(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _unreadable(error: OSError) -> str:
    return f"cannot be read ({error.strerror})"


def _lack(case: str, name: str, next_step: str) -> Problem:
    return Problem(case, f"{case}/{name}", "no such file", next_step)


def read_checksums(path: str | Path) -> dict[str, str]:
    """Read a list as `sha256sum` writes it.

    Args:
        path: text file, a line a file: 64 hexadecimal digits and the path.

    Returns:
        {"case/name": digest in lower case}, for files within a folder.

    Raises:
        DataError: the file is missing, has another form, or gives a file two digests.
    """
    path = Path(path)
    digests: dict[str, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no list of checksums ({error}); give another file") from error
    for number, line in enumerate(lines, start=1):
        found = re.fullmatch(r"\\?([0-9a-fA-F]{64})[ \t]+\*?(\S.*)", line.strip())
        if found is None:
            if line.strip():
                raise DataError(
                    f"{path}: line {number}: expected a SHA-256 and a path, as sha256sum writes"
                )
            continue
        name = "/".join(PurePosixPath(found[2]).parts[-2:])
        if digests.setdefault(name, found[1].lower()) != found[1].lower():
            raise DataError(f"{path}: line {number}: another SHA-256 of {name}; keep the right one")
    return digests
