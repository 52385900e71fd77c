"""Which cases stay together, and in which split: as published, as a table says, or by a seed."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from metaseg_monai.errors import ConfigError, DataError, Problem, listing
from metaseg_monai.files import read_json, text_file
from metaseg_monai.naming import composed
from metaseg_monai.prepare.found import FoundCase, listed
from metaseg_monai.rows import read_lines
from metaseg_monai.tables.columns import SPLITS
from metaseg_monai.tables.select import chosen_by

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


SHARES: Shares = (0.7, 0.15, 0.15)
WITH_VAL = (0.85, 0.15)


class GroupSplits(NamedTuple):
    """The splits of a user's own table.

    Attributes:
        of_group: {group: (split, fold as text, empty where it has none)}.
        told: {"split" or "fold": (value, reason)}.
    """

    of_group: dict[str, tuple[str, str]]
    told: dict[str, tuple[str, str]]


class OwnSplits(NamedTuple):
    """What a user's own table says of its splits.

    Attributes:
        file: of the table, for messages.
        groups: of every row; rows of one stay in one split.
        group: what makes them, in words.
        alike: {column: cells of all rows}, by which splits are made alike, as far as there are
            groups enough.
        column: of its splits; None where it has none.
        splits: of every row, if there is such a column.
        fold_column: of its folds; None where it has none.
        folds: the cells of it.
        joined: why groups of several names are one, in words.
    """

    file: Path
    groups: Sequence[str]
    group: str
    alike: Mapping[str, Sequence[str]]
    column: str | None = None
    splits: Sequence[str] = ()
    fold_column: str | None = None
    folds: Sequence[str] = ()
    joined: Sequence[str] = ()

    def told(self) -> str:
        """Which groups were joined, for a message."""
        return f" ({listing(self.joined, 3, str)})" if self.joined else ""

    def more_groups(self) -> str:
        """What makes more groups, as a next step."""
        if not self.joined:
            return "name a finer --group, or add cases"
        return (
            "such rows stay together by any --group: leave a file that many rows share out of "
            "--image, remove copies, mend names that mean several, or add cases"
        )


def split_groups(own: OwnSplits, folds: int | None, keep_test: bool, seed: int) -> GroupSplits:
    """Give every group its split: the table's own, or drawn, or folds.

    Args:
        own: what the table says.
        folds: number of folds to draw instead; None for the table's own, or fixed splits.
        keep_test: whether the table's own test set stays one beside folds that are drawn.
        seed: of what is drawn.

    Raises:
        ConfigError: a column divides a group, or says what is no split or fold; or `folds` is out
            of its range.
        DataError: there are too few groups.
    """
    groups = list(dict.fromkeys(own.groups))
    split_of = _of_groups(own, own.column or "", own.splits)
    if folds is not None:
        fixed = {one for one in groups if keep_test and split_of.get(one) == "test"}
        return _in_folds(own, [one for one in groups if one not in fixed], fixed, folds, seed)
    if own.fold_column is not None:
        return _as_folds(own, groups, split_of, own.fold_column)
    if split_of:
        return _as_split(own, split_of, seed)
    if len(groups) < len(SPLITS):
        raise DataError(
            f"{own.file}: {len(groups)} group(s) by {own.group}{own.told()}; train, val and test "
            f"need three at least: {own.more_groups()}"
        )
    drawn, why = _drawn_alike(own, groups, SHARES, seed)
    told = _counted([SPLITS[part] for part in drawn.values()])
    return GroupSplits({g: (SPLITS[part], "") for g, part in drawn.items()}, {"split": (told, why)})


def _drawn_alike(
    own: OwnSplits, groups: Sequence[str], shares: Sequence[float], seed: int
) -> tuple[dict[str, int], str]:
    """Deal groups out, alike in the columns that leave groups enough for all parts; and why so."""
    of_group: dict[str, list[int]] = {group: [] for group in groups}
    for row, group in enumerate(own.groups):
        if group in of_group:
            of_group[group].append(row)
    strata: dict[str, tuple[str, ...]] = dict.fromkeys(groups, ())
    names: list[str] = []
    for name in sorted(own.alike, key=lambda one: len(set(own.alike[one]))):
        cells = own.alike[name]
        finer = {
            group: (*stratum, "; ".join(sorted({cells[row] for row in of_group[group]})))
            for group, stratum in strata.items()
        }
        if len(groups) >= len(shares) * len(set(finer.values())):
            strata, names = finer, [*names, name]
    why = f"groups dealt out alike in {listing(names, 5, str)}" if names else "by chance"
    order = {
        one: str(n) for n, one in enumerate(_shuffled(sorted(map(repr, {*strata.values()})), seed))
    }
    return dealt({g: (order[repr(one)],) for g, one in strata.items()}, shares, seed), (
        f"{why}, seed {seed}"
    )


def _counted(splits: Sequence[str]) -> str:
    counts = Counter(splits)
    return ", ".join(f"{one} {counts[one]}" for one in SPLITS if counts[one]) + " groups"


def _in_folds(
    own: OwnSplits, free: Sequence[str], fixed: set[str], folds: int, seed: int
) -> GroupSplits:
    """Deal groups out to folds; the split is that of the first one."""
    if len(free) < 3:
        raise DataError(
            f"{own.file}: {len(free)} group(s) by {own.group}{own.told()}; folds need three at "
            f"least: {own.more_groups()}"
        )
    if not 2 <= folds <= len(free):
        raise ConfigError(
            f"folds={folds}: expected 2 to {len(free)}, the number of groups{own.told()}; give "
            f"--folds {min(5, len(free))}"
        )
    fold_of, why = _drawn_alike(own, free, [1 / folds] * folds, seed)
    told = "every case is tested once"
    if fixed:
        told = f"{len(fixed)} groups of the table's test stay a test set of their own"
    for column in filter(None, (None if fixed else own.column, own.fold_column)):
        told += f"; the table's column {column!r} is not used"
        told += " (--split names it)" if column == own.column else ""
    found = dict.fromkeys(fixed, ("test", ""))
    found |= _first_fold({group: str(fold) for group, fold in fold_of.items()}, "0")
    return GroupSplits(found, {"fold": (f"{folds} folds", f"{why}; {told}")})


def _first_fold(fold_of: Mapping[str, str], first: str) -> dict[str, tuple[str, str]]:
    """The splits of the first fold, as `fold_cases` makes them: its cases are test."""
    rest = [group for group, fold in fold_of.items() if fold != first]
    val = chosen_by(rest, int(first))
    return {
        group: ("test" if fold == first else "val" if group in val else "train", fold)
        for group, fold in fold_of.items()
    }


def _as_folds(
    own: OwnSplits, groups: Sequence[str], split_of: Mapping[str, str], column: str
) -> GroupSplits:
    """The folds of the table itself."""
    right = all(one == "" or (one.isascii() and one.isdecimal()) for one in own.folds)
    splits = own.splits or ["test"] * len(own.folds)
    untested = any(split != "test" for one, split in zip(own.folds, splits, strict=True) if not one)
    if not right or len({*own.folds} - {""}) < 2 or untested:
        raise ConfigError(
            f"{own.file}: column {column!r}: {listing(sorted({*own.folds}), 5)}, expected 0, 1, "
            "..., or nothing for cases of the split test; mend it, or have folds drawn: --folds 5, "
            "or splits: --split new"
        )
    known = _of_groups(own, column, [one and str(int(one)) for one in own.folds])
    numbers = {one for one in known.values() if one}
    told = {"fold": (f"{len(numbers)} folds", f"as in the table's column {column!r}")}
    if split_of:
        told["split"] = ("as in the table", "`--fold` makes others")
        return GroupSplits({group: (split_of[group], known[group]) for group in groups}, told)
    found = {group: ("test", "") for group in groups if not known[group]}
    tested = {group: fold for group, fold in known.items() if fold}
    return GroupSplits(found | _first_fold(tested, min(numbers, key=int)), told)


def _as_split(own: OwnSplits, split_of: dict[str, str], seed: int) -> GroupSplits:
    """The splits of the table itself; without val some groups of train become it."""
    why = f"the table's column {own.column!r}, which keeps groups together"
    training = [group for group, one in split_of.items() if one == "train"]
    if "val" not in split_of.values() and len(training) > 1:
        val, alike = _drawn_alike(own, training, WITH_VAL, seed)
        split_of = split_of | {group: ("train", "val")[part] for group, part in val.items()}
        why += f"; it has no val, which is part of train: {alike}"
    present = set(split_of.values())
    if not {"train", "val"} <= present:
        raise ConfigError(
            f"{own.file}: column {own.column!r} has {', '.join(sorted(present))}, and train and "
            "val are needed; mend it, or have splits drawn: --split new"
        )
    if "test" not in present:
        why += "; there is no test: evaluate --split val"
    told = _counted([*split_of.values()])
    return GroupSplits({g: (one, "") for g, one in split_of.items()}, {"split": (told, why)})


def _of_groups(own: OwnSplits, column: str, of_row: Sequence[str]) -> dict[str, str]:
    """What a column says of each group; refused where it divides one."""
    told: dict[str, set[str]] = defaultdict(set)
    for group, one in zip(own.groups, of_row, strict=False):
        told[group].add(one)
    if divided := [group for group, one in told.items() if len(one) > 1]:
        finer = "name another --group, mend the column"
        if own.joined:
            finer = "put rows that stay together in one split, remove copies"
        raise ConfigError(
            f"{own.file}: column {column!r} divides {len(divided)} groups of {own.group!r}"
            f"{own.told()}, as {divided[0]!r} ({', '.join(sorted(told[divided[0]]))}): a patient "
            "in several would be tested by what it was trained on; "
            f"{finer}, or have it drawn: --split new, or --folds 5"
        )
    return {group: next(iter(one)) for group, one in told.items()}


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
