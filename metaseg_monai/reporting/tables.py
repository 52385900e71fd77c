"""A table of results and what is shown of it: rounded text, its spread and its rank."""

import math
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from metaseg_monai.errors import ConfigError
from metaseg_monai.naming import file_name
from metaseg_monai.rows import frame_csv

MISSING = "-"
WIDE = 6  # more columns than these put their spread under the value
WIDER = 12  # more than these are printed in small letters, so that paper holds them
LONG = 32  # letters; longer text in a cell may go on in a second line


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers or text, with how they are to be read.

    Columns may have two levels (a pandas MultiIndex), the upper of which is drawn as a heading
    over its columns.

    Attributes:
        name: stem of its file, and its label in LaTeX, see `file_name`.
        title: what the table shows, without a full stop.
        note: one or two sentences of how to read it.
        values: numbers or text; NaN and None are shown as "-". Integers are shown as they are.
        spread: half width or standard deviation of each value, of the same shape; NaN where none.
        best: whether high or low is best; the best of each column is bold, the second underlined.
        digits: decimals of numbers that are not integers.
        first: heading of the column of row names.

    Raises:
        ConfigError: a row or column twice, or a spread of another shape.
    """

    name: str
    title: str
    note: str
    values: pd.DataFrame
    spread: pd.DataFrame | None = None
    best: Literal["high", "low"] | None = None
    digits: int = 3
    first: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", file_name(self.name))
        for axis, labels in (("row", self.values.index), ("column", self.values.columns)):
            if not labels.is_unique:
                twice = labels[labels.duplicated()][0]
                raise ConfigError(f"Table {self.name} has the {axis} {twice!r} twice; rename one.")
        if self.spread is not None and not (
            self.spread.index.equals(self.values.index)
            and self.spread.columns.equals(self.values.columns)
        ):
            raise ConfigError(
                f"Table {self.name}: the spread must have the rows and columns of the values."
            )

    @property
    def heads(self) -> list[tuple[str, ...]]:
        """Names of the columns, from the upper to the lower level."""
        return [
            tuple(str(level) for level in name) if isinstance(name, tuple) else (str(name),)
            for name in self.values.columns
        ]

    @property
    def rows(self) -> list[str]:
        """Names of the rows."""
        return [str(name) for name in self.values.index]


class Cell(NamedTuple):
    """What is shown of a value: its text, the text of its spread, and its rank.

    ``rank`` is 1 for the best of its column, 2 for the second, 0 for the rest. A number's text
    starts with a plain hyphen where it is negative.
    """

    text: str
    spread: str = ""
    rank: int = 0
    number: bool = True


def cells(table: Table) -> list[list[Cell]]:
    """Return the cells of each row.

    Values rank as they are shown, so that two which look alike rank alike; a tie for the best has
    no second. Nothing is ranked in a column of one value, of text, of integers (they are counts,
    which have no best) or where all values look alike.

    >>> values = pd.DataFrame({"F1": [0.9121, 0.9119, 0.85]}, index=["se", "me", "none"])
    >>> [(cell.text, cell.rank) for (cell,) in cells(Table("a", "A", "", values, best="high"))]
    [('0.912', 1), ('0.912', 1), ('0.850', 0)]
    """
    columns = [_column(table, place) for place in range(table.values.shape[1])]
    return [[column[row] for column in columns] for row in range(len(table.values))]


def legend(table: Table) -> str:
    """Say what bold and underlined mean, where a cell of the table is either."""
    if not any(cell.rank for row in cells(table) for cell in row):
        return ""
    which = f" ({'highest' if table.best == 'high' else 'lowest'})"
    return f"Best of each column{which} in bold, second underlined."


class Grid(NamedTuple):
    """A table as templates draw it.

    Attributes:
        table: the table.
        columns: names of each column from the upper to the lower level, and its classes: text,
            long text, and whether a group starts there.
        numeric: whether each column holds numbers only.
        rows: name of each row, and its cells with the classes of their columns.
        groups: headings of the upper level, each with the number of columns under it.
        widths: classes of a table of many columns.
        note: how to read it.
    """

    table: Table
    columns: list[tuple[tuple[str, ...], list[str]]]
    numeric: list[bool]
    rows: list[tuple[str, list[tuple[Cell, list[str]]]]]
    groups: list[tuple[str, int]]
    widths: list[str]
    note: str

    @property
    def spans(self) -> list[tuple[int, int]]:
        """First and last column of each group; the column of row names is 1."""
        ends = accumulate((count for _, count in self.groups), initial=1)
        return [(before + 1, end) for before, end in pairwise(ends)]


def grid(table: Table) -> Grid:
    """Return what templates draw of a table."""
    shown = cells(table)
    columns = [[row[place] for row in shown] for place in range(len(table.heads))]
    numeric = [all(cell.number for cell in column) for column in columns]
    two_levels = any(len(names) > 1 for names in table.heads)
    groups = [(name, len(list(part))) for name, part in groupby(table.heads, key=lambda n: n[0])]
    groups = groups if two_levels else []
    starts = [place == 0 for _, count in groups for place in range(count)]
    kinds = []
    for place, column in enumerate(columns):
        long = any(len(cell.text) > LONG for cell in column)
        kind = [] if numeric[place] else ["long" if long else "text"]
        kinds.append(["start", *kind] if two_levels and starts[place] else kind)
    return Grid(
        table,
        list(zip(table.heads, kinds, strict=True)),
        numeric,
        [
            (name, list(zip(row, kinds, strict=True)))
            for name, row in zip(table.rows, shown, strict=True)
        ],
        groups,
        [name for name, most in (("wide", WIDE), ("wider", WIDER)) if len(columns) > most],
        " ".join(part for part in (table.note.strip(), legend(table)) if part),
    )


def to_csv(table: Table) -> str:
    """Return plain numbers of nine digits; spreads in columns ``<name> spread`` beside theirs."""
    columns: dict[str, pd.Series] = {}
    for place, names in enumerate(table.heads):
        columns[" ".join(names)] = table.values.iloc[:, place]
        if table.spread is not None and table.spread.iloc[:, place].notna().any():
            columns[" ".join(names) + " spread"] = table.spread.iloc[:, place]
    plain = pd.DataFrame(columns, index=table.values.index).rename_axis(table.first or "row")
    return frame_csv(plain, index=True, float_format="%.9g")


def _column(table: Table, place: int) -> list[Cell]:
    values = [_known(value) for value in table.values.iloc[:, place]]
    texts = [_text(value, table.digits) for value in values]
    ranks = [0] * len(values)
    if table.best and any(isinstance(value, float) for value in values):
        ranks = _ranks(table, values, texts)
    if table.spread is None:
        spreads = [""] * len(values)
    else:
        found = [_known(value) for value in table.spread.iloc[:, place]]
        spreads = ["" if value is None else _text(value, table.digits) for value in found]
    return [
        Cell(text, "" if value is None else spread, rank, not isinstance(value, str))
        for value, text, spread, rank in zip(values, texts, spreads, ranks, strict=True)
    ]


def _ranks(table: Table, values: list[Any], texts: list[str]) -> list[int]:
    shown = pd.Series(
        [
            math.nan if value is None or isinstance(value, str) else float(text)
            for value, text in zip(values, texts, strict=True)
        ]
    )
    if shown.nunique() < 2:
        return [0] * len(shown)
    places = shown.rank(method="min", ascending=table.best == "low")
    return [int(place) if place <= 2 else 0 for place in places]


def _known(value: Any) -> float | int | str | None:
    """A plain number or text; None where there is no value."""
    if pd.isna(value):
        return None
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else str(value)


def signed(value: float) -> str:
    """A difference with three digits and its sign, of which 0 has none.

    >>> signed(0.0312), signed(-0.0002)
    ('+0.031', '0.000')
    """
    text = f"{value:+.3f}"
    return text[1:] if float(text) == 0 else text


def _text(value: float | int | str | None, digits: int) -> str:
    if value is None:
        return MISSING
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text  # no "-0.000"
