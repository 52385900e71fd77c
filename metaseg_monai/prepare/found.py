"""What a folder of microscopy images holds, before any pixel is read."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metaseg_monai.errors import DataError
from metaseg_monai.images.read import FORMAT_OF_SUFFIX, image_suffix
from metaseg_monai.prepare.problems import Problem

SHOWN = 5
OWN_COLUMNS = ("image", "label", "instances", "group", "split")  # the table's, never a lab's


@dataclass(frozen=True)
class FoundCase:
    """The files of one case and what is known of it.

    Attributes:
        case: its name, which becomes the name of its files.
        images: one file, or one a plane in the order of the channels to be.
        masks: the files of its mask, as the mask's rule wants them; empty where there are none.
        columns: metadata as text by column.
        planes: a name for every image of several.
        group: what stays in one split; "" until it is decided.
        split: train, val or test; "" where it is to be drawn.
    """

    case: str
    images: tuple[Path, ...]
    masks: tuple[Path, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    planes: tuple[str, ...] = ()
    group: str = ""
    split: str = ""


@dataclass(frozen=True)
class FoundFolder:
    """The cases of a source.

    Attributes:
        root: folder that messages name files relative to.
        cases: those that have all their files.
        problems: why others have not.
        remarks: what is allowed but seldom meant, in words.
    """

    root: Path
    cases: tuple[FoundCase, ...]
    problems: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = ()


def source_folder(source: str | Path, expected: str) -> Path:
    """The source as a path.

    Args:
        source: the folder.
        expected: what it should hold, for the message.

    Raises:
        DataError: there is no such folder.
    """
    folder = Path(source)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected {expected}")
    return folder


def visible_files(folder: Path) -> list[Path]:
    """All files below a folder in the order of their paths, without hidden ones."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted(
        path
        for path in files
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def is_image(path: Path) -> bool:
    """Whether the name is that of an image that can be read."""
    return image_suffix(path) in FORMAT_OF_SUFFIX


def without_suffix(name: str) -> str:
    """A path as text without the suffix of an image.

    >>> without_suffix("a/b.nii.gz"), without_suffix("c.d.tif")
    ('a/b', 'c.d')
    """
    return name[: len(name) - len(image_suffix(name))]


def relative(path: Path, root: Path) -> str:
    """A path below a folder, with slashes."""
    return path.relative_to(root).as_posix()


def composed(text: str) -> str:
    """Text in the one form in which it is compared: accents in one character with their letter.

    Some systems store file names with accents of their own (NFD), tables and keyboards seldom do.

    >>> composed("Zu\u0308rich") == "Z\u00fcrich"
    True
    """
    return unicodedata.normalize("NFC", text)


def safe_name(*parts: str) -> str:
    """Text that can name a file on every system.

    >>> safe_name("plate 1", "B/02")
    'plate-1_B-02'
    """
    name = "_".join(re.sub(r"[^\w.+-]+", "-", composed(part)) for part in parts if part)
    return name.strip(".") or "case"


def listed(names: Iterable[str]) -> str:
    """The first names, and how many more there are.

    >>> listed("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def problem_of(case: FoundCase, path: Path, root: Path, error: DataError) -> Problem:
    """The problem of a case, at the file that the message begins with.

    Args:
        case: the case.
        path: the file where the message names none of the case.
        root: folder that files are named relative to.
        error: what was found.
    """
    named = [file for file in (*case.images, *case.masks) if str(error).startswith(f"{file}:")]
    file = named[0] if named else path
    return Problem.of_error(case.case, relative(file, root), file, error)


def without_namesakes(
    cases: Sequence[FoundCase], root: Path
) -> tuple[list[FoundCase], list[Problem]]:
    """Leave out cases of equal names, which are equal files where case does not count."""
    of_name: dict[str, list[FoundCase]] = defaultdict(list)
    for case in cases:
        of_name[case.case.casefold()].append(case)
    problems = []
    for same in of_name.values():
        for case in same if len(same) > 1 else []:
            others = (relative(c.images[0], root) for c in same if c is not case)
            file = relative(case.images[0], root)
            found = f"gives the same case as {listed(others)}"
            problems.append(Problem(case.case, file, found, "rename one, or remove the copy"))
    return [case for case in cases if len(of_name[case.case.casefold()]) == 1], problems
