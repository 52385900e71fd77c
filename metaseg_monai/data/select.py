"""Which cases of a table an experiment uses: some domains only, or fewer of a rare one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import Any

import numpy as np

from metaseg_monai.data.table import CaseTable
from metaseg_monai.errors import ConfigError, DataError

Item = dict[str, Any]


def select_cases(
    table: CaseTable,
    only: Mapping[str, Sequence[str]] | None = None,
    share: Mapping[str, Mapping[str, float]] | None = None,
    seed: int = 0,
    splits: Sequence[str] = ("train", "val", "test"),
) -> CaseTable:
    """Return the table with the rows of some metadata values only, and with thinned values.

    Args:
        table: the whole table.
        only: ``{field: values}``; rows of `splits` with another value are left out. An expert is a
            network trained on one value (thesis 3.3).
        share: ``{field: {value: part}}``; of the training rows with that value this part, between
            0 and 1, is kept, rounded up (thesis 4.3: an under-represented domain).
        seed: draws which rows `share` keeps. A smaller part is contained in a larger one.
        splits: the splits in which `only` counts; those it leaves whole.

    Raises:
        ConfigError: a field or value that no row has, or a part outside of 0..1.
        DataError: a split that had rows has none left.

    >>> rows = [{"split": "train", "metadata": {"task": name}} for name in "aabb"]
    >>> table = CaseTable(path="table.csv", rows=tuple(rows))
    >>> [row["metadata"]["task"] for row in select_cases(table, share={"task": {"b": 0.5}}).rows]
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
            dropped = _dropped(rows, field, str(value), part, seed)
            rows = [row for number, row in enumerate(rows) if number not in dropped]
    selected = replace(table, rows=tuple(rows))
    emptied = [split for split in table.splits if split not in selected.splits]
    if emptied:
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


def _dropped(rows: Sequence[Item], field: str, value: str, part: float, seed: int) -> set[int]:
    """Return the row numbers that thinning leaves out."""
    if isinstance(part, bool) or not isinstance(part, int | float) or not 0 < part <= 1:
        raise ConfigError(f"share of {field}={value} is {part!r}; expected above 0, at most 1.")
    found = [
        number
        for number, row in enumerate(rows)
        if row.get("split") == "train" and _value(row, field) == value
    ]
    order = np.random.default_rng(seed).permutation(len(found))
    return {found[place] for place in order[ceil(part * len(found)) :]}
