"""OME metadata of images as columns of their cases."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from metaseg_monai.data.kits.find import Problem
from metaseg_monai.data.microscopy.cases import FoundCase, problem_of, relative
from metaseg_monai.data.microscopy.ome import OME_COLUMNS, read_ome
from metaseg_monai.errors import DataError


def with_ome(cases: Sequence[FoundCase], root: Path) -> tuple[list[FoundCase], list[Problem]]:
    """Add the columns of OME metadata; a cell of the same name stays, and numbers must agree.

    A magnification may be written as 20x.

    Args:
        cases: with the columns of a table or of names.
        root: folder that messages name files relative to.

    Returns:
        The cases with all of `OME_COLUMNS`, and the problems of those whose metadata cannot be
        read or differ from their cells.
    """
    added, problems = [], []
    for case in cases:
        try:
            told = read_ome(case.images)
        except DataError as error:
            problems.append(problem_of(case, case.images[0], root, error))
            continue
        columns = dict(case.columns)
        for name in OME_COLUMNS:
            cell, value = columns.get(name, ""), told[name]
            columns[name] = cell or value
            number = re.sub(r"\s*[xX\u00d7]$", "", cell) if name == "magnification" else cell
            if cell and value and name != "channel" and not _same_number(number, value):
                found = f"{name} is {cell!r}, its OME metadata have {value}"
                file = relative(case.images[0], root)
                problems.append(Problem(case.case, file, found, "mend the one or the other"))
                break
        else:
            added.append(replace(case, columns=columns))
    return added, problems


def _same_number(one: str, other: str) -> bool:
    try:
        return abs(float(one) - float(other)) <= 1e-3 * abs(float(other))
    except ValueError:
        return False
