"""A table as Markdown, HTML, LaTeX or CSV: pure functions from a table to text."""

import html
import re
from collections.abc import Callable
from itertools import groupby

import pandas as pd

from metaseg_monai.study.report.tables import Cell, Table, cells, legend

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
