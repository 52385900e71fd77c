"""A table as Markdown, HTML, LaTeX or CSV: pure functions from a table to text."""

import html
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

import pandas as pd

from metaseg_monai.errors import ConfigError

# A table of results and what is shown of it: rounded text, its spread and its rank.

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
MISSING = "-"


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of numbers or text, with how they are to be read.

    Columns may have two levels (a pandas MultiIndex), the upper of which is drawn as a heading
    over its columns.

    Attributes:
        name: stem of its file, and its label in LaTeX.
        title: what the table shows, without a full stop.
        note: one or two sentences of how to read it.
        values: numbers or text; NaN and None are shown as "-". Integers are shown as they are.
        spread: half width or standard deviation of each value, of the same shape; NaN where none.
        best: whether high or low is best; the best of each column is bold, the second underlined.
        digits: decimals of numbers that are not integers.
        first: heading of the column of row names.
        unranked: names of rows that take no part in the ranking.

    Raises:
        ConfigError: name unfit for a file, a row or column twice, a spread of another shape, or an
            unranked row that is not there.
    """

    name: str
    title: str
    note: str
    values: pd.DataFrame
    spread: pd.DataFrame | None = None
    best: Literal["high", "low"] | None = None
    digits: int = 3
    first: str = ""
    unranked: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                f"Table name {self.name!r} is to be a file's: use letters, digits, '.', '_', '-'."
            )
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
        if strangers := set(self.unranked) - {str(row) for row in self.values.index}:
            raise ConfigError(
                f"Table {self.name} has no row {', '.join(sorted(strangers))} to leave unranked; "
                f"its rows are {', '.join(map(str, self.values.index))}."
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
    sign = 1.0 if table.best == "high" else -1.0
    shown = [
        None
        if value is None or isinstance(value, str) or name in table.unranked
        else sign * float(text)
        for name, value, text in zip(table.rows, values, texts, strict=True)
    ]
    known = [value for value in shown if value is not None]
    if len(set(known)) < 2:
        return [0] * len(shown)
    places = [0 if value is None else 1 + sum(other > value for other in known) for value in shown]
    return [place if place <= 2 else 0 for place in places]


def _known(value: Any) -> float | int | str | None:
    """A plain number or text; None where there is no value."""
    if isinstance(value, bool) or type(value).__name__ == "bool":
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return None if math.isnan(value) else float(value)
    return None if value is None or value is pd.NA or value is pd.NaT else str(value)


def _text(value: float | int | str | None, digits: int) -> str:
    if value is None:
        return MISSING
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text  # no "-0.000"


MINUS = "\u2212"
PLUS_MINUS = "\u00b1"
WIDE = 6  # more columns than these put their spread under the value
WIDER = 12  # more than these are printed in small letters, so that paper holds them
LONG = 32  # letters; longer text in a cell may go on in a second line
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after the end of a row it would open an argument
    PLUS_MINUS: r"$\pm$",
    MINUS: "$-$",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}


def to_markdown(table: Table) -> str:
    """Return title, grid and note; two levels of columns are joined by a space."""
    heads = [escape_markdown(name) for name in (table.first, *map(" ".join, table.heads))]
    columns = _columns(table)
    rule = ["---", *("---:" if _numeric(column) else "---" for column in columns)]
    rows = [
        [escape_markdown(name), *(_markdown_cell(cell) for cell in row)]
        for name, row in zip(table.rows, cells(table), strict=True)
    ]
    grid = "\n".join("| " + " | ".join(row) + " |" for row in [heads, rule, *rows])
    parts = [f"**{escape_markdown(table.title)}**", grid, escape_markdown(_reading(table))]
    return "\n\n".join(part for part in parts if part)


def to_html(table: Table) -> str:
    """Return a ``figure`` with caption, table in a box that scrolls, and note."""
    columns = _columns(table)
    kinds = [_kind(column, starts) for column, starts in zip(columns, _starts(table), strict=True)]
    names = [name for name, most in (("wide", WIDE), ("wider", WIDER)) if len(columns) > most]
    width = f' class="{" ".join(names)}"' if names else ""
    body = "\n".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(
            f"<td{kind}>{_html_cell(cell)}</td>" for kind, cell in zip(kinds, row, strict=True)
        )
        + "</tr>"
        for name, row in zip(table.rows, cells(table), strict=True)
    )
    title = html.escape(table.title)
    note = html.escape(_reading(table))
    return (
        f'<figure class="table" id="table-{html.escape(table.name)}">\n'
        f"<figcaption>{title}</figcaption>\n"
        f'<div class="scroll" role="region" aria-label="{title}" tabindex="0">'
        f"<table{width}>\n<thead>\n{_html_head(table, kinds)}\n</thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table></div>\n"
        + (f'<p class="note">{note}</p>\n' if note else "")
        + "</figure>"
    )


def to_latex(table: Table) -> str:
    r"""Return a floating ``table`` for the package booktabs, with caption and label."""
    columns = _columns(table)
    caption = f"{table.title}. {_reading(table)}".strip()
    head = [escape_latex(names[-1]) for names in table.heads]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\label{{tab:{table.name}}}",
        rf"\begin{{tabular}}{{l{''.join('r' if _numeric(column) else 'l' for column in columns)}}}",
        r"\toprule",
    ]
    first = escape_latex(table.first)
    if _levels(table) > 1:
        lines += _latex_groups(table)
    lines += [" & ".join([first, *head]) + r" \\", r"\midrule"]
    for name, row in zip(table.rows, cells(table), strict=True):
        lines.append(" & ".join([escape_latex(name), *map(_latex_cell, row)]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def to_csv(table: Table) -> str:
    """Return plain numbers of nine digits; spreads in columns ``<name> spread`` beside theirs."""
    columns: dict[str, pd.Series] = {}
    for place, names in enumerate(table.heads):
        columns[" ".join(names)] = table.values.iloc[:, place]
        if table.spread is not None and table.spread.iloc[:, place].notna().any():
            columns[" ".join(names) + " spread"] = table.spread.iloc[:, place]
    plain = pd.DataFrame(columns, index=table.values.index).rename_axis(table.first or "row")
    return plain.to_csv(float_format="%.9g", lineterminator="\n")


def escape_markdown(text: str) -> str:
    r"""Escape what Markdown, or HTML within it, would read as a sign.

    >>> escape_markdown("a_b | c < 5 %")
    'a\\_b \\| c &lt; 5 %'
    """
    return re.sub(r"([\\`*_|\[\]~$])", r"\\\1", html.escape(text, quote=False)).replace("\n", " ")


def escape_latex(text: str) -> str:
    r"""Escape the characters that are commands in LaTeX.

    >>> escape_latex("5 % of mesh_square & more")
    '5 \\% of mesh\\_square \\& more'
    """
    return "".join(LATEX.get(sign, sign) for sign in text)


def _reading(table: Table) -> str:
    return " ".join(part for part in (table.note.strip(), legend(table)) if part)


def _columns(table: Table) -> list[list[Cell]]:
    """The cells by column; empty columns where the table has no rows."""
    shown = cells(table)
    return [[row[place] for row in shown] for place in range(len(table.heads))]


def _numeric(column: list[Cell]) -> bool:
    return all(cell.number for cell in column)


def _kind(column: list[Cell], starts: bool) -> str:
    """Attribute of a column's cells: text or long text, and whether a group starts there."""
    names = ["start"] if starts else []
    if not _numeric(column):
        names.append("long" if any(len(cell.text) > LONG for cell in column) else "text")
    return f' class="{" ".join(names)}"' if names else ""


def _levels(table: Table) -> int:
    return max((len(names) for names in table.heads), default=1)


def _groups(table: Table) -> list[tuple[str, int]]:
    """Headings of the upper level, each with the number of columns under it."""
    return [(name, len(list(part))) for name, part in groupby(table.heads, key=lambda n: n[0])]


def _starts(table: Table) -> list[bool]:
    """Tell of each column whether a group starts with it."""
    if _levels(table) == 1:
        return [False] * len(table.heads)
    return [place == 0 for _, count in _groups(table) for place in range(count)]


def _markdown_cell(cell: Cell) -> str:
    mark = {1: "**{}**", 2: "<u>{}</u>"}.get(cell.rank, "{}")
    text = mark.format(cell.text if cell.number else escape_markdown(cell.text))
    return f"{text} {PLUS_MINUS} {cell.spread}" if cell.spread else text


def _html_cell(cell: Cell) -> str:
    mark = {1: "<b>{}</b>", 2: "<u>{}</u>"}.get(cell.rank, "{}")
    text = mark.format(_minus(html.escape(cell.text), MINUS))
    if not cell.spread:
        return text
    return f'{text} <span class="spread">{PLUS_MINUS}&nbsp;{cell.spread}</span>'


def _latex_cell(cell: Cell) -> str:
    mark: Callable[[str], str] = {
        1: r"\textbf{{{}}}".format,
        2: r"\underline{{{}}}".format,
    }.get(cell.rank, str)
    text = mark(_minus(escape_latex(cell.text), "$-$"))
    return rf"{text} $\pm$ {cell.spread}" if cell.spread else text


def _minus(text: str, sign: str) -> str:
    """Numbers, also those within text, with a true minus; the hyphen of a missing value stays."""
    return re.sub(r"(?<![\w.)-])-(?=[\d.])", lambda _: sign, text)


def _html_head(table: Table, kinds: list[str]) -> str:
    heads = table.heads
    lower = "".join(
        f'<th scope="col"{kind}>{html.escape(names[-1])}</th>'
        for kind, names in zip(kinds, heads, strict=True)
    )
    first = html.escape(table.first)
    if _levels(table) == 1:
        return f'<tr><th scope="col">{first}</th>{lower}</tr>'
    upper = "".join(
        f'<th scope="colgroup" colspan="{count}">{html.escape(name)}</th>'
        for name, count in _groups(table)
    )
    return f'<tr><th scope="col" rowspan="2">{first}</th>{upper}</tr>\n<tr>{lower}</tr>'


def _latex_groups(table: Table) -> list[str]:
    spans, rules, start = [], [], 2
    for name, count in _groups(table):
        spans.append(rf"\multicolumn{{{count}}}{{c}}{{{escape_latex(name)}}}")
        rules.append(rf"\cmidrule(lr){{{start}-{start + count - 1}}}")
        start += count
    return [" & ".join(["", *spans]) + r" \\", " ".join(rules)]
