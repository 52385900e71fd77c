"""What a report is made of (a lead, sections, text, tables, figures), and the files it becomes.

How they look is written in ``templates``. A page loads nothing: no network, no script.
"""

import base64
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from metaseg_monai.errors import ConfigError
from metaseg_monai.naming import file_name
from metaseg_monai.reporting.tables import Table, grid

MINUS = "\u2212"
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # after the end of a row it would open an argument
    "\u00b1": r"$\pm$",
    MINUS: "$-$",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
}
TEMPLATES = Path(__file__).with_name("templates")
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Figure:
    """A picture with its caption.

    Attributes:
        name: stem of its file, see `file_name`.
        caption: what it shows and how to read it.
        png: the file's content.

    Raises:
        ConfigError: bytes that are no PNG.
    """

    name: str
    caption: str
    png: bytes = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", file_name(self.name))
        if not self.png.startswith(PNG) or len(self.png) < 24:
            raise ConfigError(f"Figure {self.name} is not a PNG; draw it again as one.")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels, from the file's header."""
        return int.from_bytes(self.png[16:20], "big"), int.from_bytes(self.png[20:24], "big")


@dataclass(frozen=True)
class Details:
    """Parts that are folded away under a line of summary."""

    summary: str
    parts: Sequence["Part"]


@dataclass(frozen=True)
class Section:
    """A heading with an introduction of one or two sentences, which may be empty, and parts."""

    title: str
    intro: str
    parts: Sequence["Part"]


@dataclass(frozen=True)
class Lead:
    """What stands on top of a report.

    Attributes:
        question: what was asked, in one sentence.
        found: paragraphs by their short heading, such as "Found", "How sure", "Not shown". A
            blank line within one starts a new paragraph.
        facts: short values by their name, such as bundle, cases, seeds, dates.
        verdict: the table that answers the question, above what was found.
    """

    question: str = ""
    found: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    verdict: Sequence["Part"] = ()


Part = Table | Figure | Details | str
"""A part of a section; text is plain, with `code` between backticks."""

Named = TypeVar("Named", Figure, Table)


def figures_of(sections: Sequence[Section]) -> dict[str, Figure]:
    """All figures by name, also folded ones, in reading order.

    Raises:
        ConfigError: two different figures of one name, which would be one file.
    """
    return _by_name(part for part in _walk(sections) if isinstance(part, Figure))


def tables_of(sections: Sequence[Section]) -> dict[str, Table]:
    """All tables by name, also folded ones, in reading order.

    Raises:
        ConfigError: two different tables of one name, which would be one file.
    """
    return _by_name(part for part in _walk(sections) if isinstance(part, Table))


def anchors(titles: Sequence[str]) -> list[str]:
    """Give each heading an address within its page.

    >>> anchors(["F1 of each domain", "Seeds", "Seeds"])
    ['f1-of-each-domain', 'seeds', 'seeds-2']
    """
    found: list[str] = []
    for title in titles:
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
        name, number = stem, 1
        while name in found:
            number += 1
            name = f"{stem}-{number}"
        found.append(name)
    return found


def paragraphs(text: str) -> list[str]:
    """Split text at blank lines and join the lines of each paragraph."""
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def code_spans(text: str) -> list[tuple[str, bool]]:
    """Split a paragraph into plain text and code, each with whether it is code.

    >>> code_spans("run `a_b` now")
    [('run ', False), ('a_b', True), (' now', False)]
    """
    pieces = re.split(r"`([^`]+)`", text)
    return [(piece, place % 2 == 1) for place, piece in enumerate(pieces) if piece]


def page(title: str, lead: Lead, sections: Sequence[Section]) -> str:
    """Write a report as a page that reads on a phone, on a desk and on paper.

    Args:
        title: heading of the page.
        lead: question, findings and facts, which stand on top.
        sections: in reading order; the list of contents names them.

    >>> text = page("Seven lines", Lead(found={"Found": "SME is better."}), [])
    >>> "<h1>Seven lines</h1>" in text, "<script" in text
    (True, False)
    """
    css = (TEMPLATES / "page.css").read_text(encoding="utf-8")
    addressed = _addressed(sections)
    return _render("page.html", css=css, title=title, lead=lead, sections=addressed)


def markdown_page(title: str, lead: Lead, sections: Sequence[Section]) -> str:
    """Write the content of `page` as Markdown, with ``figures/<name>.png`` beside it.

    Args:
        title: heading.
        lead: question, findings and facts, which stand on top.
        sections: in reading order.

    >>> print(markdown_page("Seven lines", Lead(facts={"Seeds": "3"}), []), end="")
    # Seven lines
    <BLANKLINE>
    - Seeds: 3
    """
    addressed = _addressed(sections)
    return _render("page.md", title=title, lead=lead, sections=addressed)


def to_markdown(table: Table) -> str:
    """Return title, grid and note; two levels of columns are joined by a space."""
    nothing = {"title": "", "lead": Lead(), "sections": []}
    module: Any = _environment().get_template("page.md").make_module(nothing)
    return str(module.table(grid(table))).strip("\n")


def to_latex(table: Table) -> str:
    r"""Return a floating ``table`` for the package booktabs, with caption and label."""
    return _render("table.tex", grid=grid(table))


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


def _addressed(sections: Sequence[Section]) -> list[tuple[str, Section]]:
    return list(zip(anchors([section.title for section in sections]), sections, strict=True))


@cache
def _environment() -> Environment:
    # each format has its own signs, so each template escapes what it prints
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {
        "base64": lambda data: base64.b64encode(data).decode(),
        "e": html.escape,
        "grid": grid,
        "md": escape_markdown,
        "minus": _minus,
        "paragraphs": paragraphs,
        "spans": code_spans,
        "tex": escape_latex,
    }
    return made


def _render(name: str, **content: Any) -> str:
    return _environment().get_template(name).render(**content)


def _minus(text: str, sign: str = MINUS) -> str:
    """Numbers, also those within text, with a true minus; the hyphen of a missing value stays."""
    return re.sub(r"(?<![\w.)-])-(?=[\d.])", lambda _: sign, text)


def _walk(sections: Sequence[Section | Details]) -> Iterator[Part]:
    for section in sections:
        for part in section.parts:
            yield part
            if isinstance(part, Details):
                yield from _walk([part])


def _by_name(parts: Iterator[Named]) -> dict[str, Named]:
    found: dict[str, Named] = {}
    for part in parts:
        if found.setdefault(part.name, part) is not part:
            raise ConfigError(
                f"Two parts of the report are named {part.name}, which would be one file; rename a "
                "run or field whose name differs from another's in signs only, as spaces and '_'."
            )
    return found
