"""What a source folder holds before any pixel is read: cases, and problems of others."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from metaseg_monai.errors import DataError
from metaseg_monai.images.image import FORMAT_OF_SUFFIX, image_suffix

Item = TypeVar("Item")
OWN_COLUMNS = ("image", "label", "instances", "group", "split")  # the table's, never a lab's


@dataclass(frozen=True)
class Problem:
    """Why a case is left out.

    Attributes:
        case: its name.
        file: what is wrong, relative to the source ("" if it is no file).
        problem: what was found and what was expected.
        next_step: what to do.
    """

    case: str
    file: str
    problem: str
    next_step: str

    def __str__(self) -> str:
        where = f"{self.file}: " if self.file else ""
        return f"{self.case}: {where}{self.problem}; {self.next_step}"

    @classmethod
    def of_error(cls, case: str, file: str, path: str | Path, error: Exception) -> "Problem":
        """The problem that an error of the readers tells of `path`; it ends with its next step."""
        problem, _, next_step = str(error).removeprefix(f"{path}: ").rpartition("; ")
        return cls(case, file, problem or next_step, next_step if problem else "copy it anew")

    @property
    def row(self) -> dict[str, str]:
        """The row of problems.csv."""
        told = {"case": self.case, "file": self.file, "problem": self.problem}
        return {**told, "next step": self.next_step}


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

    def problem(self, root: Path, problem: str, next_step: str) -> Problem:
        """A problem of its first image."""
        return Problem(self.case, relative(self.images[0], root), problem, next_step)

    def problem_of(self, root: Path, error: DataError) -> Problem:
        """The problem that an error tells, at the file with which its message begins."""
        told = [file for file in (*self.images, *self.masks) if str(error).startswith(f"{file}:")]
        file = told[0] if told else self.images[0]
        return Problem.of_error(self.case, relative(file, root), file, error)


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
    cases: tuple[FoundCase, ...] = ()
    problems: tuple[Problem, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """All cases, those with problems too."""
        return sorted({c.case for c in self.cases} | {p.case for p in self.problems})

    @classmethod
    def of(cls, root: Path, found: Iterable[FoundCase | Problem | str]) -> "FoundFolder":
        """Cases, problems and remarks as a layout comes upon them."""
        told = list(found)
        return cls(
            root,
            tuple(one for one in told if isinstance(one, FoundCase)),
            tuple(one for one in told if isinstance(one, Problem)),
            tuple(one for one in told if isinstance(one, str)),
        )


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
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
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


def listed(names: Iterable[str], shown: int = 5) -> str:
    """The first names, and how many more there are.

    >>> listed("abcdefg")
    'a, b, c, d, e and 2 more'
    """
    names = list(names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def alike(items: Iterable[Item], *keys: Callable[[Item], Hashable]) -> list[list[Item]]:
    """Items that are alike in every key, each with the others like it.

    Args:
        items: to compare.
        keys: the cheapest first: a later one is asked only where all earlier ones agree. An item
            whose key is "" is like no other.

    >>> alike(["a", "A", "b", "aa"], len, str.casefold)
    [['a', 'A']]
    """
    groups = [list(items)]
    for key in keys:
        parts = []
        for group in groups:
            of_key: dict[Hashable, list[Item]] = defaultdict(list)
            for item in group:
                of_key[key(item)].append(item)
            parts += [same for value, same in of_key.items() if len(same) > 1 and value != ""]
        groups = parts
    return groups


def without_namesakes(
    cases: Sequence[FoundCase], root: Path
) -> tuple[list[FoundCase], list[Problem]]:
    """Leave out cases of equal names, which are equal files where case does not count."""
    namesakes = alike(cases, lambda case: case.case.casefold())
    problems = [
        case.problem(
            root,
            "gives the same case as "
            + listed(relative(other.images[0], root) for other in same if other is not case),
            "rename one, or remove the copy",
        )
        for same in namesakes
        for case in same
    ]
    left_out = {id(case) for same in namesakes for case in same}
    return [case for case in cases if id(case) not in left_out], problems
