"""Who draws in which annotation style: equal shares, seeded, one style for an image or a group."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from metaseg_monai.data.cases import image_files
from metaseg_monai.errors import ConfigError

Item = dict[str, Any]


def share_styles(
    items: Sequence[Item], styles: Sequence[str], seed: int, balance: str | None, unit: str
) -> dict[tuple[str, ...], str]:
    """Give every image a style, so that each style has its share of the rows.

    In an order drawn by the seed, each unit takes the style that has the fewest rows so far among
    the units with its value of `balance`, then in all. Shares differ by a unit at most.

    Args:
        items: rows of a table.
        styles: names.
        seed: draws the order.
        balance: column within whose values the shares are equal, or None.
        unit: "group" gives all images of a group one style, "image" the rows of an image.

    Returns:
        {files of an image: its style}.

    Raises:
        ConfigError: the column is not in the table, or there is no such unit.
    """
    if unit not in ("group", "image"):
        raise ConfigError(f"unit={unit!r}: expected group or image")
    if balance is not None and any(balance not in item["columns"] for item in items):
        known = ", ".join(items[0]["columns"])
        raise ConfigError(f"balance={balance!r}: no such column; the table has {known}")
    unit_of: dict[tuple[str, ...], str] = {}
    members: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        own = item["group"] if unit == "group" else "\n".join(image_files(item))
        members[unit_of.setdefault(image_files(item), own)].append(item)
    units = list(members)
    drawn: dict[str, str] = {}
    taken: Counter[tuple[str, str]] = Counter()
    in_all: Counter[str] = Counter()
    for place in np.random.default_rng(seed).permutation(len(units)):
        rows = members[units[place]]
        value = "\n".join(sorted({row["columns"][balance] for row in rows})) if balance else ""
        fewest = min((taken[value, name], in_all[name], at) for at, name in enumerate(styles))
        style = styles[fewest[2]]
        drawn[units[place]] = style
        taken[value, style] += len(rows)
        in_all[style] += len(rows)
    return {files: drawn[name] for files, name in unit_of.items()}
