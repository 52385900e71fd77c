"""Which cases belong together, and in which split they are."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from metaseg_monai.data.columns import SPLITS
from metaseg_monai.data.kits.find import Problem
from metaseg_monai.data.kits.splits import seeded_splits
from metaseg_monai.data.microscopy.cases import FoundCase, listed
from metaseg_monai.errors import DataError

Shares = tuple[float, float, float]


def with_groups(
    cases: Sequence[FoundCase], columns: Sequence[str]
) -> tuple[list[FoundCase], list[Problem]]:
    """Give every case its group.

    Args:
        cases: whose `group` may be decided already.
        columns: whose values make the group, joined by "_" (plate and well), of which "group" is
            what a case has already; where there are none, a case without group is its own.

    Returns:
        The cases, and the problems of those that lack a value.

    Raises:
        DataError: no case has such a column.
    """
    known = list(dict.fromkeys(name for case in cases for name in case.columns))
    if any(case.group for case in cases):
        known.append("group")
    strangers = [name for name in columns if name not in known]
    if strangers and cases:
        raise DataError(
            f"group={','.join(columns)}: no column {', '.join(strangers)}; the images have "
            f"{', '.join(known) or 'no columns'}"
        )
    grouped, problems = [], []
    for case in cases:
        values = {**case.columns, "group": case.group}
        parts = [values.get(name, "") for name in columns]
        if "" in parts:
            empty = ", ".join(name for name, part in zip(columns, parts, strict=True) if not part)
            told = f"no value of {empty}, which makes the group"
            problems.append(Problem(case.case, "", told, "fill it in"))
        else:
            grouped.append(replace(case, group="_".join(parts) or case.group or case.case))
    return grouped, problems


def with_splits(
    cases: Sequence[FoundCase], shares: Shares, seed: int
) -> tuple[list[FoundCase], list[Problem], list[str]]:
    """Give every case its split: its own, or by chance with all of its group.

    Args:
        cases: with groups; an empty split is to be drawn.
        shares: of the groups in train, val and test: parts that sum to 1, or three whole numbers
            of groups that sum to more, beyond which groups are left out.
        seed: of the draw.

    Returns:
        The cases that have a split, the problems of groups that have several, and remarks.

    Raises:
        DataError: shares or seed are wrong, or there are fewer groups than asked for.
    """
    given: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        given[case.group].add(case.split)
    problems = []
    for case in cases:
        if len(given[case.group]) > 1:
            told = ", ".join(sorted(split or "none" for split in given[case.group]))
            problem = f"its group {case.group!r} is in several splits: {told}"
            problems.append(Problem(case.case, "", problem, "keep a group in one split"))
    right = [case for case in cases if len(given[case.group]) == 1]
    drawn = _drawn(sorted({case.group for case in right if not case.split}), shares, seed)
    split = [replace(case, split=case.split or drawn.get(case.group, "")) for case in right]
    left_out = [case.case for case in split if not case.split]
    remarks = []
    if left_out:
        remarks.append(f"{len(left_out)} cases beyond the numbers asked for: {listed(left_out)}")
    return [case for case in split if case.split], problems, remarks


def check_shares(train: object, val: object, test: object) -> Shares:
    """The shares as they came, if they are numbers.

    Raises:
        DataError: one is no number.
    """
    shares = []
    for name, share in zip(SPLITS, (train, val, test), strict=True):
        if isinstance(share, bool) or not isinstance(share, int | float):
            raise DataError(f"{name}={share!r}: expected a part such as 0.7, or a whole number")
        shares.append(share)
    return (shares[0], shares[1], shares[2])


def _drawn(groups: Sequence[str], shares: Shares, seed: int) -> dict[str, str]:
    if not groups:
        return {}
    total = sum(shares)
    if not all(isinstance(share, int) and share >= 0 for share in shares) or total <= 1:
        return seeded_splits(groups, shares, seed)
    if total > len(groups):
        raise DataError(
            f"train, val and test {shares}: {total} asked for, but there are {len(groups)} groups; "
            "ask for fewer, or give parts that sum to 1"
        )
    order = sorted(groups, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    names = [split for split, count in zip(SPLITS, shares, strict=True) for _ in range(int(count))]
    return dict(zip(order, names, strict=False))
