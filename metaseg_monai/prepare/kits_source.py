"""What a KiTS19, KiTS21 or KiTS23 download holds: cases, their files, and the clinical table."""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from metaseg_monai.errors import DataError, DataWarning, Problem, listing, system_refusal
from metaseg_monai.files import readable, text_file
from metaseg_monai.metadata.fields import read_number
from metaseg_monai.prepare.found import FoundCase, FoundFolder, source_folder
from metaseg_monai.tables.clinical import CENSORED, Adapt, ClinicalTable
from metaseg_monai.tables.clinical import read_clinical as read_any_clinical
from metaseg_monai.tables.clinical import scan_clinical as scan_any_clinical
from metaseg_monai.tables.find import image_paths

CLASS_NAMES = {0: "background", 1: "kidney", 2: "tumour", 3: "cyst"}
CASE_FOLDERS = (
    ".",
    "data",  # KiTS19: kits19/data
    "dataset",  # KiTS23: kits23/dataset
    "kits21/data",  # KiTS21: its repository holds a folder of the same name
    "kits19/data",
    "kits23/dataset",
)
CLINICAL_NAMES = ("kits.json", "kits23.json", "kits21.json", "kits19.json")
IMAGE_NAMES = ("imaging.nii.gz", "imaging.nii")
LABEL_NAMES = (
    "aggregated_MAJ_seg.nii.gz",  # KiTS21, majority of its annotators
    "aggregated_MAJ_seg.nii",
    "segmentation.nii.gz",  # KiTS19 and KiTS23
    "segmentation.nii",
)
# What a case's folder has beside its image, all made from labels.
LABEL_FILES = re.compile(r"(aggregated_(AND|MAJ|OR)_seg|segmentation)\.nii(\.gz)?")
LABEL_FOLDERS = ("raw", "segmentations", "instances")

SizeSource = Literal["radiographic", "pathologic"]
SIZE = "tumour_size_mm"
MM_PER_CM = 10
SIZE_RANGE_MM = (5.0, 250.0)
FURTHEST_FROM_LABEL = 4  # times; annotators and radiologists differ by a third (KiTS)
SAME_NAME: Mapping[str, str] = {"bmi": "body_mass_index"}  # KiTS23 -> KiTS19 and KiTS21


def find_kits(
    source: str | Path, label_name: str | None = None, labels_only: bool = False
) -> FoundFolder:
    """Find the cases of a KiTS folder.

    Args:
        source: folder with `case_*` folders, or the repository of KiTS19, KiTS21 or KiTS23.
        label_name: file name of the label in every case, with or without ".nii.gz"; by default
            aggregated_MAJ_seg, else segmentation.
        labels_only: cases need no image, and get none.

    Returns:
        The cases, each with its image, its label as mask and its name as group; problems are
        cases that lack a file or whose folder cannot be read.

    Raises:
        DataError: there is no such folder, it cannot be read, no case is in it, or cases are in
            several of its folders.
    """
    source = source_folder(source, "the folder of a KiTS download")
    if label_name is not None and (not label_name.strip() or Path(label_name).name != label_name):
        raise DataError(
            f"label_name={label_name!r}: expected a file name, such as {LABEL_NAMES[0]}"
        )
    with readable(source):
        folders = {(source / name).resolve(): source / name for name in CASE_FOLDERS}
        held = {path: sorted(path.glob("case_*")) for path in folders.values()}
        held = {path: [one for one in cases if one.is_dir()] for path, cases in held.items()}
    holding = {folder: cases for folder, cases in held.items() if cases}
    if len(holding) != 1:
        looked = ", ".join(str(source / name) for name in CASE_FOLDERS)
        found = ", ".join(map(str, holding))
        raise DataError(
            f"{source}: cases in several folders ({found}); name one of them"
            if holding
            else f"{source}: no folders case_* (looked in {looked}); name the folder that holds "
            "case_00000, case_00001, ..."
        )
    ((root, cases),) = holding.items()
    found_cases = (one for case in cases for one in _case(case, label_name, labels_only))
    return FoundFolder.of(root, found_cases)


def _case(folder: Path, label_name: str | None, labels_only: bool) -> Sequence[FoundCase | Problem]:
    """The case of a folder, or what it lacks."""
    labels: Sequence[str] = LABEL_NAMES
    if label_name is not None:
        named = label_name.endswith((".nii", ".nii.gz"))
        labels = (label_name,) if named else (f"{label_name}.nii.gz", f"{label_name}.nii")
    case, lacking = folder.name, []
    try:
        image = next((folder / name for name in IMAGE_NAMES if (folder / name).is_file()), None)
        label = next((folder / name for name in labels if (folder / name).is_file()), None)
    except OSError as error:
        return [Problem.of_error(case, f"{case}/", folder, system_refusal(error, folder))]
    if image is None and not labels_only:
        lacking.append((IMAGE_NAMES[0], "get it, or ask for labels only"))
    if label is None:
        expected = label_name or f"{LABEL_NAMES[0]} or {LABEL_NAMES[2]}"
        lacking.append((expected, "get it, or name another label"))
    if lacking or label is None:
        return [Problem(case, f"{case}/{name}", "no such file", step) for name, step in lacking]
    images = () if labels_only or image is None else (image,)
    return [FoundCase(case, images, (label,), group=case)]


def find_clinical(source: str | Path, cases: Path) -> Path | None:
    """The clinical table beside the folder of cases, or above it within the source, if there is."""
    bases = [cases, *(base for base in cases.parents if base.is_relative_to(source))]
    tables = [base / name for base in bases for name in CLINICAL_NAMES]
    return next((table for table in tables if table.is_file()), None)


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
        lines = text_file(path).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no list of checksums ({error}); give another file") from error
    for number, line in enumerate(lines, start=1):
        found = re.fullmatch(r"\\?([0-9a-fA-F]{64})[ \t]+\*?(\S.*)", line.strip())
        if found is not None:
            name, digest = "/".join(PurePosixPath(found[2]).parts[-2:]), found[1].lower()
            if digests.setdefault(name, digest) != digest:
                raise DataError(
                    f"{path}: line {number}: another SHA-256 of {name}; keep the right one"
                )
        elif line.strip():
            raise DataError(
                f"{path}: line {number}: expected a SHA-256 and a path, as sha256sum writes"
            )
    return digests


# The clinical table, and whether a tumour's size in it can be right.


def read_clinical(path: str | Path, size: SizeSource = "radiographic") -> dict[str, dict[str, str]]:
    """Read kits.json of KiTS19, KiTS21 or KiTS23, or a CSV file with a column `case_id`.

    As `metaseg_monai.tables.read_clinical`; `bmi` becomes `body_mass_index`.

    `tumour_size_mm` is the radiographic size (of the largest lesion, measured before surgery) or
    the pathologic size (measured on the specimen, after surgery), given there in cm, or a column
    of this name in mm; "" in the cases without one. A file with neither column gives rows without
    `tumour_size_mm`. Its range is left to the schema, or to `size_problem`.

    Args:
        path: `.json`, a list of objects with a `case_id` each, or `.csv`.
        size: the measurement that becomes `tumour_size_mm`.

    Returns:
        {case: {column: text}}, all cases with the same columns, first `tumour_size_mm` where the
        file has a size.

    Raises:
        DataError: the file is missing or no such table, repeats a column, a case or a key, or
            holds values that are no text, number, true, false or null; names the cases.
    """
    return _size_first(read_any_clinical(path, _adapt(size), SAME_NAME))


def scan_clinical(path: str | Path, size: SizeSource = "radiographic") -> ClinicalTable:
    """Read a clinical table as `read_clinical`; a wrong row is told and the others are kept.

    Raises:
        DataError: the file is missing or no such table.
    """
    table = scan_any_clinical(path, _adapt(size), SAME_NAME)
    return table._replace(rows=_size_first(table.rows))


def _size_first(rows: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The size of the tumour, which perhaps not the first case has, before all other columns."""
    return {case: {SIZE: row[SIZE], **row} if SIZE in row else row for case, row in rows.items()}


def _adapt(size: SizeSource) -> Adapt:
    """What becomes of an entry beside columns of text: its size in mm."""
    if size not in get_args(SizeSource):
        raise DataError(f"size={size!r}: expected one of {', '.join(get_args(SizeSource))}")

    def adapt(row: dict[str, str], entry: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
        problems = [
            f"{name} = {entry[name]!r:.60}: expected one number, or null"
            for name in (SIZE, *(f"{one}_size" for one in get_args(SizeSource)))
            if isinstance(entry.get(name), Mapping)
        ]
        try:
            if SIZE in row or f"{size}_size" in row:
                given = row.pop(SIZE, "")
                row = {SIZE: _size_mm(row, f"{size}_size", given), **row}
        except DataError as error:
            problems.append(str(error))
        return row, problems

    return adapt


def _size_mm(row: Mapping[str, str], column: str, given: str) -> str:
    """The tumour's size: from a column in cm, or as given in mm where there is no such column."""
    if given and row.get(column):
        raise DataError(f"both {SIZE} and {column} are given; keep one of them")
    text, factor = (given, 1) if given else (row.get(column, ""), MM_PER_CM)
    if not text:
        return ""
    name, unit = (SIZE, "mm") if given else (column, "cm")
    value = read_number(text)
    if value is None or value <= 0:
        raise DataError(
            f"{name} {text!r} is no size; expected a positive number of {unit}, or null"
        )
    if row.get(name + CENSORED):
        raise DataError(f"{name} is only a bound ({text}); expected a number, or null")
    return f"{value * factor:.8g}"  # 4.1 cm is 41 mm, not 41.00000000000001


def check_columns(path: Path, table: ClinicalTable, names: Sequence[str], size: SizeSource) -> None:
    """Raise DataError where a table lacks a column, which would be missing in every case."""
    columns = next(iter(table.rows.values()), dict.fromkeys(names))
    lacking = [name for name in names if name not in columns]
    if lacking:
        known = f" ({SIZE} is made of {size}_size in cm)" if SIZE in lacking else ""
        raise DataError(
            f"{path}: no column {', '.join(lacking)}{known}, but {', '.join(columns)}; add it, "
            "empty where the value is unknown"
        )


def size_problem(size_mm: str) -> str | None:
    """What is wrong with a `tumour_size_mm` as a size of a kidney tumour; None if nothing.

    >>> size_problem("41"), size_problem("")
    (None, None)
    >>> size_problem("410")
    'tumour_size_mm 410 is outside 5 to 250; the table gives cm, so look for a size given in mm'
    """
    low, high = SIZE_RANGE_MM
    if not size_mm or low <= float(size_mm) <= high:
        return None
    return (
        f"{SIZE} {size_mm} is outside {low:g} to {high:g}; the table gives cm, so look for a size "
        "given in mm"
    )


def size_remark(row: Mapping[str, str], size: SizeSource, label_mm: str) -> str | None:
    """What is odd about a `tumour_size_mm` beside the diameter in its label; None if nothing.

    >>> size_remark({"tumour_size_mm": "41"}, "radiographic", "38")
    """
    size_mm = row.get(SIZE, "")
    if not size_mm or not label_mm:
        return None
    if 1 / FURTHEST_FROM_LABEL <= float(size_mm) / float(label_mm) <= FURTHEST_FROM_LABEL:
        return None
    column = f"{size}_size" if row.get(f"{size}_size") else SIZE
    return (
        f"{column} {row[column]} is read as {size_mm} mm, but the label's tumour is "
        f"{float(label_mm):.3g} mm across: is it in cm, and of this case?"
    )


class KitsLayout:
    """Folders ``case_*/imaging.nii.gz`` at any depth, one such folder, or one such file.

    Only these images are taken, not the labels beside them; each folder names its case. Its row is
    that of the kits.json (kits23.json, ...) nearest to it, see `read_clinical`.
    """

    def find(self, source: Path, problems: list[Problem] | None = None) -> dict[Path, str]:
        """The images of a source and their cases; empty where it is no KiTS download.

        Args:
            source: a folder, or a file ``imaging.nii.gz``; absolute.
            problems: see `image_paths`; of a KiTS download only.

        Warns:
            DataWarning: other images lie there too, and are left out; names them.
        """
        if source.is_file():
            return {source: source.parent.name} if source.name in IMAGE_NAMES else {}
        one = [source / name for name in IMAGE_NAMES if (source / name).is_file()]
        wrong: list[Problem] = []
        found = image_paths(source, None if problems is None else wrong)
        images = one[:1] or [
            path
            for path in found
            if path.name in IMAGE_NAMES and path.parent.name.startswith("case_")
        ]
        if problems is not None and images:
            problems += wrong
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
        return find_clinical(source, image.parent.parent)

    def read_metadata(self, path: Path) -> ClinicalTable:
        """A clinical table with the radiographic size as `tumour_size_mm`, in mm."""
        return scan_clinical(path)


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
