"""How many slices without the target a network is trained on."""

import logging
from dataclasses import replace
from math import floor
from typing import Any

import numpy as np

from metaseg_monai.data.table import CaseTable
from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.metadata.quantities import read_number

logger = logging.getLogger(__name__)


def limit_empty(
    table: CaseTable, share: float | None, columns: list[str] | tuple[str, ...], seed: int = 0
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
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise ConfigError(f"empty_share={share!r}: expected a number from 0, below 1, or null")
    training = [number for number, row in enumerate(table.rows) if row.get("split") == "train"]
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
    order = np.random.default_rng(seed).permutation(len(empty))
    dropped = {empty[place] for place in order[wanted:]}
    kept = tuple(row for number, row in enumerate(table.rows) if number not in dropped)
    return replace(table, rows=kept)


def _is_empty(row: dict[str, Any], columns: list[str] | tuple[str, ...]) -> bool:
    areas = [read_number(row.get("columns", {}).get(name, "")) for name in columns]
    if not areas or any(area is None for area in areas):
        raise ConfigError(
            f"case {row['case']!r}: no area in {', '.join(columns) or 'any column'}; set "
            "empty_columns to columns of the table that hold areas, or empty_share to null"
        )
    return not any(areas)
