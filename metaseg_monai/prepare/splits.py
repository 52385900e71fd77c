"""Which patient is in which split: by a seed, or by lists that were published."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from metaseg_monai.errors import DataError
from metaseg_monai.prepare.found import FoundCase, listed
from metaseg_monai.prepare.problems import Problem
from metaseg_monai.tables.columns import SPLITS
from metaseg_monai.tables.lines import read_lines

CASE_COLUMNS = ("case", "case_id", "volume", "group")


def divide(
    cases: Sequence[str],
    lists: str | Path | None,
    shares: tuple[float, float, float],
    seed: int,
) -> dict[str, str]:
    """Divide the cases of a folder by official lists, or by chance where there are none.

    Args:
        cases: names of all cases of the folder.
        lists: see `read_splits`; None draws by `seeded_splits`.
        shares: of train, val and test.
        seed: of the draw.

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


def seeded_splits(
    cases: Sequence[str], shares: tuple[float, float, float], seed: int
) -> dict[str, str]:
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
    order = sorted(cases, key=lambda case: hashlib.sha256(f"{seed}:{case}".encode()).digest())
    least = 1 if len(order) >= len(SPLITS) else 0
    val, test = (max(least, round(len(order) * share)) if share else 0 for share in shares[1:])
    if val + test >= len(order) > 0:
        val, test = 0, 0
    names = ["val"] * val + ["test"] * test + ["train"] * (len(order) - val - test)
    return dict(sorted(zip(order, names, strict=True)))


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
        for case, split in _entries(path):
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
    if path.is_dir():
        for split in SPLITS:
            file = path / f"{split}.txt"
            if file.is_file():
                for line in file.read_text(encoding="utf-8").split():
                    yield _case(line), split
    elif path.suffix.lower() == ".csv":
        header, lines, problems = read_lines(path)
        column = next((name for name in CASE_COLUMNS if name in header), None)
        if column is None or "split" not in header or problems:
            raise DataError(
                f"{path}: expected a column case and a column split, got {', '.join(header)}"
                f"{'; ' + problems[0] if problems else ''}"
            )
        for _, cells in lines:
            yield _case(cells[column]), cells["split"].strip()
    else:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, Mapping):
            raise DataError(
                f"{path}: expected {{split: [cases]}} or {{case: split}}; of several folds, save "
                "the one you mean"
            )
        for key, value in content.items():
            if isinstance(value, list):
                yield from ((_case(str(case)), str(key)) for case in value)
            else:
                yield _case(str(key)), str(value)


def _case(name: str) -> str:
    """A case by its name or its number."""
    name = name.strip()
    return f"case_{int(name):05d}" if re.fullmatch(r"\d+", name) else name


# Which cases belong together, and in which split they are.

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
