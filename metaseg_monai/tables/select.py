"""Which cases of a table a study uses: some domains, fewer of a rare one, fewer empty slices."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import floor
from typing import Any

import numpy as np

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metadata.fields import read_number
from metaseg_monai.tables.columns import SPLITS
from metaseg_monai.tables.table import CaseTable

Item = dict[str, Any]

logger = logging.getLogger(__name__)


def select_cases(
    table: CaseTable,
    only: Mapping[str, Sequence[str]] | None = None,
    share: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
    seed: int = 0,
    splits: Sequence[str] = SPLITS,
) -> CaseTable:
    """Return the table with the rows of some metadata values only, and with thinned values.

    Args:
        table: the whole table.
        only: ``{field: values}``; rows of `splits` with another value are left out. An expert is a
            network trained on one value (thesis 3.3).
        share: ``{field: {value: {"of": "own", "part": 0.2}}}`` or ``{"count": 64}``: of the
            training rows with that value this part, above 0 and at most 1, rounded, or this number
            is kept; one at least (thesis 4.3: an under-represented domain). The log tells counts.
        seed: draws which rows `share` keeps. A smaller part is contained in a larger one.
        splits: the splits in which `only` counts; those it leaves whole.

    Raises:
        ConfigError: a field or value that no row has, or a part outside of 0..1.
        DataError: a split that had rows has none left.

    >>> rows = [{"split": "train", "metadata": {"task": name}} for name in "aabb"]
    >>> table = CaseTable(path="table.csv", rows=tuple(rows))
    >>> half = {"of": "own", "part": 0.5}
    >>> [row["metadata"]["task"] for row in select_cases(table, share={"task": {"b": half}}).rows]
    ['a', 'a', 'b']
    """
    rows = list(table.rows)
    for field, values in (only or {}).items():
        _check_values("only", field, values, table)
        kept = {str(value) for value in values}
        rows = [row for row in rows if row.get("split") not in splits or _value(row, field) in kept]
    for field, parts in (share or {}).items():
        _check_values("share", field, parts, table)
        for value, part in parts.items():
            found = [n for n in _training(rows) if _value(rows[n], field) == str(value)]
            kept_rows = _kept(part, len(found), f"{field}={value}")
            rows = _thinned(rows, found, kept_rows, seed)
            logger.info("%s=%s: %d of %d training cases kept", field, value, kept_rows, len(found))
    selected = replace(table, rows=tuple(rows))
    if emptied := [split for split in table.splits if split not in selected.splits]:
        raise DataError(
            f"{table.path}: only={dict(only or {})} leaves no case in {', '.join(emptied)}; "
            "choose values that every split has"
        )
    return selected


def fill_epoch(items: Sequence[Item], length: int | None) -> list[Item]:
    """Repeat items, in their order, until an epoch holds `length` of them; None changes nothing.

    With the length of the joint training set an expert takes as many steps as the network for all
    domains (contract 5).

    Raises:
        ConfigError: `length` is less than the number of items, of which some would be lost.

    >>> fill_epoch([{"case": "a"}, {"case": "b"}], length=3)
    [{'case': 'a'}, {'case': 'b'}, {'case': 'a'}]
    """
    if length is None:
        return list(items)
    if length < len(items):
        raise ConfigError(f"an epoch of {length} cases would leave out some of {len(items)}")
    return [items[number % len(items)] for number in range(length)]


def limit_empty(
    table: CaseTable, share: float | None, columns: Sequence[str], seed: int = 0
) -> CaseTable:
    """Return the table with so many empty training slices that they make up a share of them.

    For networks that must see whole volumes: trained on slices with a tumour only (the paper's
    rule) a network has never met a slice without one, and finds one everywhere.

    Args:
        table: the whole table, with rule "all": empty slices are there to be chosen from.
        share: of the training slices that are to be empty, from 0, below 1; None keeps all.
            Where the table has fewer of them, all are kept, and the log says so.
        columns: of the table, with the area of each target class; a slice is empty where all are 0.
        seed: draws which empty slices are kept; all patients together.

    Raises:
        ConfigError: the share is out of its range, the table has not these columns, or no
            training slice is empty.
        DataError: no training slice holds the target.
    """
    if share is None:
        return table
    if not _is_number(share) or not 0 <= share < 1:
        raise ConfigError(f"empty_share={share!r}: expected a number from 0, below 1, or null")
    training = _training(table.rows)
    empty = [number for number in training if _is_empty(table.rows[number], columns)]
    full = len(training) - len(empty)
    if full == 0:
        raise DataError(f"{table.path}: no training slice has {' or '.join(columns)} above 0")
    wanted = floor(full * share / (1 - share) + 0.5)
    if wanted and not empty:
        raise ConfigError(
            f"empty_share={share}: {table.path} has no training slice without "
            f"{' and '.join(columns)}; prepare with --slice-rule all, or set empty_share to null"
        )
    if wanted > len(empty):
        logger.warning(
            "empty_share=%g: only %d training slices are empty, which is a share of %.2f",
            *(share, len(empty), len(empty) / len(training)),
        )
    return replace(table, rows=tuple(_thinned(table.rows, empty, wanted, seed)))


def _kept(share: Any, own: int, what: str) -> int:
    """How many of a value's own training cases a share keeps."""
    count = share.get("count") if isinstance(share, Mapping) and set(share) == {"count"} else None
    if isinstance(count, int) and not isinstance(count, bool) and 0 < count <= own:
        return count
    is_part = isinstance(share, Mapping) and set(share) == {"of", "part"} and share["of"] == "own"
    if is_part and _is_number(share["part"]) and 0 < share["part"] <= 1:
        return max(1, floor(share["part"] * own + 0.5))
    raise ConfigError(
        f'share of {what} is {share!r}; expected {{"of": "own", "part": 0.2}}, a part above 0 and '
        f'at most 1 of its own {own} training cases, or {{"count": 64}}, at most {own}'
    )


def _training(rows: Sequence[Item]) -> list[int]:
    return [number for number, row in enumerate(rows) if row.get("split") == "train"]


def _thinned(rows: Sequence[Item], found: Sequence[int], kept: int, seed: int) -> list[Item]:
    """The rows without those found, of which some are kept; which ones is drawn."""
    order = np.random.default_rng(seed).permutation(len(found))
    dropped = {found[place] for place in order[kept:]}
    return [row for number, row in enumerate(rows) if number not in dropped]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _value(row: Item, field: str) -> str:
    return str(row["metadata"].get(field))


def _check_values(setting: str, field: str, values: Any, table: CaseTable) -> None:
    known = sorted({_value(row, field) for row in table.rows if field in row["metadata"]})
    unknown = [str(value) for value in values if str(value) not in known]
    if isinstance(values, str) or unknown or not list(values):
        fields = sorted({name for row in table.rows for name in row["metadata"]})
        told = f"its values are {', '.join(known)}" if known else f"fields: {', '.join(fields)}"
        raise ConfigError(
            f"{setting}={{{field!r}: {values!r}}}: expected values of a metadata field of "
            f"{table.path}; {told}."
        )


def _is_empty(row: Item, columns: Sequence[str]) -> bool:
    areas = [read_number(row.get("columns", {}).get(name, "")) for name in columns]
    if not areas or any(area is None for area in areas):
        raise ConfigError(
            f"case {row['case']!r}: no area in {', '.join(columns) or 'any column'}; set "
            "empty_columns to columns of the table that hold areas, or empty_share to null"
        )
    return not any(areas)
