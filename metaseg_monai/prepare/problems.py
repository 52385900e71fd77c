"""Where a KiTS19, KiTS21 or KiTS23 download holds its cases and its clinical table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

# Where a KiTS19, KiTS21 or KiTS23 download holds its cases and its clinical table.


@dataclass(frozen=True)
class Problem:
    """Why a case was left out.

    Attributes:
        case: name of the case.
        file: what is wrong, relative to the folder of cases ("" if it is no file).
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
        """The problem that an error of the readers tells; it ends with its next step."""
        problem, _, next_step = str(error).removeprefix(f"{path}: ").rpartition("; ")
        return cls(case, file, problem or next_step, next_step if problem else "copy it anew")


def problem_rows(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Problems as rows of problems.csv."""
    return [
        {"case": p.case, "file": p.file, "problem": p.problem, "next step": p.next_step}
        for p in problems
    ]


# From a KiTS folder to a prepared one: all cases, resumable, every problem told.


class Prepared(NamedTuple):
    """What `prepare_kits21` made.

    Attributes:
        table: table.csv; slices.csv where only labels were asked for; None without any slice.
        summary: what the folder holds, in words.
        problems: one line a problem; these cases are not in the table.
    """

    table: Path | None
    summary: str
    problems: list[str]
