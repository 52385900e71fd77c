"""Cases with the pixels of other cases, and what else is told of the cases that were written."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from metaseg_monai.data.kits.find import Problem
from metaseg_monai.data.microscopy.cases import relative
from metaseg_monai.data.microscopy.write_case import WrittenCase


def without_copies(
    written: Sequence[WrittenCase], folder: Path, root: Path, problems: list[Problem]
) -> list[WrittenCase]:
    """Leave out cases with the pixels of a case in another split: which is right is unknown."""
    kept = []
    of_content = _by_content(written)
    for one in written:
        same = of_content.get(one.content, [one])
        others = [o.found for o in same if o.found.split != one.found.split]
        if not others:
            kept.append(one)
            continue
        told = ", ".join(f"{other.case} ({other.split})" for other in others)
        problem = f"in {one.found.split} with the same pixels as {told}"
        file = relative(one.found.images[0], root)
        step = "keep one of them, or give them one group"
        problems.append(Problem(one.found.case, file, problem, step))
        for path in one.paths:
            (folder / path).unlink()
        if len(one.found.images) > 1:  # the folder of its planes
            (folder / one.paths[0]).parent.rmdir()
    return kept


def _by_content(written: Sequence[WrittenCase]) -> dict[str, list[WrittenCase]]:
    of_content: dict[str, list[WrittenCase]] = defaultdict(list)
    for one in written:
        if one.content:
            of_content[one.content].append(one)
    return of_content


def notes_on(written: Sequence[WrittenCase]) -> dict[str, list[str]]:
    """What is told of the cases, by remark."""
    notes: dict[str, list[str]] = defaultdict(list)
    for one in written:
        notes[one.pixels].append(one.found.case)
        for remark in one.remarks:
            notes[remark].append(one.found.case)
        if one.empty:
            notes["masks without foreground"].append(one.found.case)
    for same in _by_content(written).values():
        if len(same) > 1:
            notes["the same pixels within one split"] += [one.found.case for one in same]
    return notes
