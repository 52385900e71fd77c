"""Which cases stay together, and in which split: as published, as a table says, or by a seed."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from metaseg_monai.errors import DataError, Problem
from metaseg_monai.files import read_json, text_file
from metaseg_monai.naming import composed
from metaseg_monai.prepare.found import FoundCase, listed
from metaseg_monai.rows import read_lines
from metaseg_monai.tables.columns import SPLITS

CASE_COLUMNS = ("case", "case_id", "volume", "group")
Shares = tuple[float, float, float]


def seeded_splits(cases: Sequence[str], shares: Shares, seed: int) -> dict[str, str]:
    """Divide cases by chance; one case more or less moves few of the others.

    Cases are ordered by a hash of seed and name. Of three cases or more every split with a share
    above 0 gets one at least.

    Args:
        cases: names; a KiTS case is a patient.
        shares: of train, val and test; they sum to 1.
        seed: of the order.

    Returns:
        {case: split}

    Raises:
        DataError: shares are below 0 or do not sum to 1, train has none, or the seed is no whole
            number.

    >>> splits = seeded_splits([f"case_{n:05d}" for n in range(20)], (0.7, 0.15, 0.15), seed=0)
    >>> [list(splits.values()).count(split) for split in SPLITS]
    [14, 3, 3]
    """
    right = all(isinstance(share, int | float) and 0 <= share <= 1 for share in shares)
    if not right or abs(sum(shares) - 1) > 1e-6 or not shares[0]:
        raise DataError(
            f"shares of train, val and test {shares}: expected numbers from 0 that sum to 1, "
            "with some for train"
        )
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise DataError(f"seed={seed!r}: expected a whole number")
    least = 1 if len(cases) >= len(SPLITS) else 0
    val, test = (max(least, round(len(cases) * share)) if share else 0 for share in shares[1:])
    if val + test >= len(cases):
        val, test = 0, 0
    names = ["val"] * val + ["test"] * test + ["train"] * (len(cases) - val - test)
    return dict(sorted(zip(_shuffled(cases, seed), names, strict=True)))


def _shuffled(names: Sequence[str], seed: int) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())


def dealt(
    strata: Mapping[str, tuple[str, ...]], shares: Sequence[float], seed: int
) -> dict[str, int]:
    """Deal groups out to parts, those of one stratum as evenly as the shares allow.

    Groups are taken stratum by stratum, in it by a hash of seed and name, and each goes to the part
    that lacks most of its share so far. Of as many groups as parts every part gets one at least.

    Args:
        strata: {group: values that groups of one stratum have alike}.
        shares: of the parts; they sum to 1.
        seed: of the order.

    Returns:
        {group: number of its part, from 0}

    >>> list(dealt({"a": ("x",), "b": ("x",), "c": ("y",), "d": ("y",)}, (0.5, 0.5), 0).values())
    [0, 1, 0, 1]
    """
    place = {name: at for at, name in enumerate(_shuffled([*strata], seed))}
    parts: dict[str, int] = {}
    counts = [0] * len(shares)
    for number, group in enumerate(sorted(strata, key=lambda one: (strata[one], place[one])), 1):
        lacking = [share * number - count for share, count in zip(shares, counts, strict=True)]
        parts[group] = lacking.index(max(lacking))
        counts[parts[group]] += 1
    for empty in (at for at, count in enumerate(counts) if not count):
        largest = counts.index(max(counts))
        if counts[largest] > 1:
            moved = next(group for group in reversed(parts) if parts[group] == largest)
            parts[moved], counts[largest], counts[empty] = empty, counts[largest] - 1, 1
    return parts


def divide(
    cases: Sequence[str], lists: str | Path | None, shares: Shares, seed: int
) -> dict[str, str]:
    """Divide the cases of a folder by official lists, or by chance where there are none.

    Returns:
        {case: split}; with lists, of the cases that they name, in the folder or not.

    Raises:
        DataError: as `read_splits` and `seeded_splits`, or the lists name no case of the folder.
    """
    if lists is None:
        return seeded_splits(cases, shares, seed)
    split_of = read_splits(lists)
    if not set(cases) & set(split_of):
        raise DataError(
            f"{lists}: names no case of the source, but {len(split_of)} others such as "
            f"{next(iter(split_of))}; the source has {len(cases)} such as {cases[0]}: give the "
            "lists of this source"
        )
    return split_of


def read_splits(path: str | Path) -> dict[str, str]:
    """Read official lists of cases.

    Args:
        path: a folder with train.txt, val.txt or test.txt (one case a line); a JSON file, either
            {"train": [cases], ...} or {case: split}; or a CSV file with the columns case (or
            case_id) and split. A case may be given by its number.

    Returns:
        {case: split}

    Raises:
        DataError: the file is missing or none of these, a case is in two splits, or a split is
            none of train, val and test.
    """
    path = Path(path)
    splits: dict[str, str] = {}
    try:
        for name, split in _entries(path):
            case = composed(name.strip())
            case = f"case_{int(case):05d}" if re.fullmatch(r"\d+", case) else case
            if split not in SPLITS:
                raise DataError(
                    f"{path}: {case}: split {split!r}, expected one of {', '.join(SPLITS)}"
                )
            if splits.setdefault(case, split) != split:
                raise DataError(
                    f"{path}: {case} is in {splits[case]} and in {split}; keep it in one split"
                )
    except DataError:
        raise
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no lists of splits ({error}); mend the file") from error
    if not splits:
        raise DataError(
            f"{path}: names no case; expected train.txt, val.txt and test.txt in a folder, or a "
            "JSON or CSV file of case and split"
        )
    return splits


def _entries(path: Path) -> Iterator[tuple[str, str]]:
    """Names of cases as they are given, and their splits."""
    if path.is_dir():
        for split in SPLITS:
            if (path / f"{split}.txt").is_file():
                names = text_file(path / f"{split}.txt").read_text(encoding="utf-8").split()
                yield from ((name, split) for name in names)
    elif path.suffix.lower() == ".csv":
        header, lines, problems = read_lines(path)
        column = next((name for name in CASE_COLUMNS if name in header), None)
        if column is None or "split" not in header or problems:
            raise DataError(
                f"{path}: expected a column case and a column split, got {', '.join(header)}"
                f"{'; ' + problems[0] if problems else ''}"
            )
        yield from ((cells[column], cells["split"].strip()) for _, cells in lines)
    else:
        content = read_json(path)
        if not isinstance(content, Mapping):
            raise DataError(
                f"{path}: expected {{split: [cases]}} or {{case: split}}; of several folds, save "
                "the one you mean"
            )
        for key, value in content.items():
            if isinstance(value, list):
                yield from ((str(case), key) for case in value)
            else:
                yield key, str(value)


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
        parts = {name: {**case.columns, "group": case.group}.get(name, "") for name in columns}
        empty = ", ".join(name for name, part in parts.items() if not part)
        if empty:
            told = f"no value of {empty}, which makes the group"
            problems.append(Problem(case.case, "", told, "fill it in"))
        else:
            group = "_".join(parts.values()) or case.group or case.case
            grouped.append(replace(case, group=group))
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
    problems = [
        Problem(
            case.case,
            "",
            f"its group {case.group!r} is in several splits: "
            + ", ".join(sorted(split or "none" for split in given[case.group])),
            "keep a group in one split",
        )
        for case in cases
        if len(given[case.group]) > 1
    ]
    drawn = _drawn(sorted(group for group, splits in given.items() if splits == {""}), shares, seed)
    split = [
        replace(case, split=case.split or drawn.get(case.group, ""))
        for case in cases
        if len(given[case.group]) == 1
    ]
    left_out = [case.case for case in split if not case.split]
    told = f"{len(left_out)} cases beyond the numbers asked for: {listed(left_out)}"
    return [case for case in split if case.split], problems, [told] if left_out else []


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
    names = [split for split, count in zip(SPLITS, shares, strict=True) for _ in range(int(count))]
    return dict(zip(_shuffled(groups, seed), names, strict=False))
