"""What a preparation found and wrote, in words."""

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence

from metaseg_monai.data.columns import SPLITS
from metaseg_monai.data.kits.find import Problem
from metaseg_monai.data.microscopy.cases import OWN_COLUMNS, listed

PREVIEW_ROWS = 5
MOST_VALUES = 12
SHOWN_PROBLEMS = 10


def counts(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """One line a split: cases, groups, and how often each value of a column occurs.

    Columns of more than 12 values in all are told by their number of values.
    """
    lines = []
    for split in SPLITS:
        of_split = [row for row in rows if row["split"] == split]
        if not of_split:
            continue
        told = [f"{len(of_split)} cases", f"{len({row['group'] for row in of_split})} groups"]
        for name in rows[0]:
            if name not in OWN_COLUMNS:
                told.append(f"{name}: {_values([row[name] for row in of_split])}")
        lines.append(f"  {split}: {'; '.join(told)}")
    return lines


def empty_splits(rows: Sequence[Mapping[str, str]], shares: Sequence[float]) -> list[str]:
    """A warning where a split that was to have cases has none.

    Args:
        rows: as they stand in table.csv.
        shares: of train, val and test.
    """
    found = {row["split"] for row in rows}
    lacking = [
        split
        for split, share in zip(SPLITS, shares, strict=True)
        if share > 0 and split not in found
    ]
    if not rows or not lacking:
        return []
    groups = len({row["group"] for row in rows})
    return [
        f"WARNING: no case in {' and '.join(lacking)}: {len(rows)} cases are {groups} "
        f"group{'' if groups == 1 else 's'}; mend the split column, or name columns that divide "
        "them further with --group"
    ]


def preview(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The first rows as they stand in table.csv."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows[:PREVIEW_ROWS])
    more = len(rows) - PREVIEW_ROWS
    return [*stream.getvalue().splitlines(), *([f"... and {more} more rows"] if more > 0 else [])]


def told_problems(problems: Sequence[Problem]) -> list[str]:
    """The first problems, one line each, and how many more there are."""
    lines = [f"  problem: {problem}" for problem in problems[:SHOWN_PROBLEMS]]
    more = len(problems) - SHOWN_PROBLEMS
    return [*lines, *([f"  and {more} more problems"] if more > 0 else [])]


def told_remarks(remarks: Mapping[str, Sequence[str]]) -> list[str]:
    """Remarks with the cases that they are about."""
    return [
        f"  {remark}: {len(cases)} case{'' if len(cases) == 1 else 's'} ({listed(cases)})"
        for remark, cases in remarks.items()
    ]


def _values(cells: Sequence[str]) -> str:
    found = Counter(cell or "missing" for cell in cells)
    if len(found) > MOST_VALUES:
        return f"{len(found)} values"
    return ", ".join(f"{value} {count}" for value, count in sorted(found.items()))
