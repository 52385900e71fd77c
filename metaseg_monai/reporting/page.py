"""What a report is made of: a lead, sections, and in them text, tables and figures."""

import base64
import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from metaseg_monai.errors import ConfigError
from metaseg_monai.reporting.tables import NAME, Table, escape_markdown, to_html, to_markdown

PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Figure:
    """A picture with its caption.

    Attributes:
        name: stem of its file.
        caption: what it shows and how to read it.
        png: the file's content.
        alt: what one must know who cannot see it; the caption where empty.

    Raises:
        ConfigError: name unfit for a file, or bytes that are no PNG.
    """

    name: str
    caption: str
    png: bytes = field(repr=False)
    alt: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ConfigError(
                f"Figure name {self.name!r} is to be a file's: use letters, digits, '.', '_', '-'."
            )
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
    """

    question: str = ""
    found: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


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
            raise ConfigError(f"Two parts of the report are named {part.name}; rename one.")
    return found


# The look of the report's page: system fonts, one column of text, a list of contents beside it.

CSS = """
:root {
  --ink: #1c2126; --soft: #5c6670; --line: #dfe3e7; --faint: #f5f7f9;
  --accent: #14648f; --accent-faint: #eef5fa;
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; -webkit-text-size-adjust: 100%; }
body {
  margin: 0; color: var(--ink); background: #fff;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: lining-nums;
}
.page { max-width: 57rem; margin: 0 auto; padding: 2.6rem 1.25rem 4rem; }
h1 { font-size: 1.95rem; line-height: 1.2; letter-spacing: -.01em; margin: 0; }
h2 {
  font-size: 1.32rem; line-height: 1.3; margin: 2.6rem 0 .5rem; padding-top: 1.2rem;
  border-top: 1px solid var(--line); scroll-margin-top: .5rem;
}
p { margin: .55rem 0; max-width: 46rem; text-wrap: pretty; }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: .18em; }
code {
  font: .86em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
  background: var(--faint); border-radius: 3px; padding: .1em .3em; overflow-wrap: anywhere;
}
.question { font-size: 1.12rem; line-height: 1.5; color: var(--soft); margin: .7rem 0 0; }

.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem 1.6rem;
  margin: 1.6rem 0 0; padding: .9rem 0; border: solid var(--line); border-width: 1px 0;
}
.facts div { min-width: 0; }
.facts dt { font-size: .8rem; line-height: 1.4; color: var(--soft); }
.facts dd { margin: 0; font-size: .95rem; line-height: 1.4; font-weight: 600;
  overflow-wrap: anywhere; }
.facts code { background: none; padding: 0; font: inherit; }

.found {
  margin: 1.6rem 0 0; padding: 1.15rem 1.4rem 1.25rem; background: var(--accent-faint);
  border-left: 4px solid var(--accent); border-radius: 0 6px 6px 0;
}
.found h2 { font-size: 1.1rem; margin: 0 0 .5rem; padding: 0; border: 0; }
.found dl { margin: 0; display: grid; grid-template-columns: 7.5rem 1fr; gap: .55rem 1.2rem; }
.found dt { font-weight: 600; color: var(--accent); }
.found dd { margin: 0; min-width: 0; }
.found p { margin: 0 0 .5rem; }
.found p:last-child { margin-bottom: 0; }

nav { margin: 1.6rem 0 0; font-size: .92rem; line-height: 1.45; }
nav strong { font-size: .8rem; font-weight: 400; color: var(--soft); }
nav ol { list-style: none; margin: .3rem 0 0; padding: 0; columns: 16rem auto; }
nav li { padding: .17rem 0; break-inside: avoid; }
nav a { text-decoration: none; }
nav a:hover { text-decoration: underline; }

figure { margin: 1.7rem 0 2rem; }
figure.picture img { display: block; max-width: 100%; height: auto; }
figure.picture figcaption { margin-top: .6rem; font-size: .9rem; line-height: 1.5;
  color: var(--soft); max-width: 46rem; text-wrap: pretty; }
figure.table figcaption { font-weight: 600; margin-bottom: .5rem; }
.note { color: var(--soft); font-size: .88rem; line-height: 1.5; margin: .55rem 0 0; }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table {
  border-collapse: collapse; font-size: .9rem; line-height: 1.4;
  font-variant-numeric: tabular-nums lining-nums;
}
th, td { padding: .36rem .8rem; text-align: right; vertical-align: baseline;
  white-space: nowrap; border-bottom: 1px solid #eceff1; }
th { font-weight: 500; }
thead th { color: var(--soft); font-size: .94em; border-bottom: 0; vertical-align: bottom; }
thead tr:last-child th, thead th[rowspan] { border-bottom: 1.5px solid #8b959e; }
thead th[colspan] { text-align: center; color: var(--ink);
  border-bottom: 1px solid var(--line); }
th:first-child[scope=row], thead tr:first-child th:first-child {
  text-align: left; position: sticky; left: 0; background: #fff;
}
tbody tr:last-child > * { border-bottom: 1.5px solid #8b959e; }
tbody tr:hover > * { background: var(--faint); }
td b { font-weight: 700; }
td u { text-decoration-thickness: 1px; text-underline-offset: .2em; }
th.text, td.text { text-align: left; }
th.long, td.long { text-align: left; white-space: normal; min-width: 14rem; }
.spread { color: var(--soft); font-size: .88em; }
th.start, td.start { border-left: 1px solid var(--line); }
.wide th, .wide td { padding-left: .4rem; padding-right: .4rem; }
.wide .spread { display: block; line-height: 1.25; }
.wide td { line-height: 1.3; }
.wide thead th, .wide td.text { white-space: normal; }
.wide td.long { min-width: 10rem; }
.wider { font-size: .84rem; }

details { margin: 1.1rem 0; border: 1px solid var(--line); border-radius: 6px; }
details > summary { cursor: pointer; padding: .55rem .95rem; font-weight: 500;
  color: var(--accent); }
details[open] > summary { border-bottom: 1px solid var(--line); }
details > div { padding: .3rem .95rem .6rem; }
details figure { margin: 1rem 0 1.2rem; }

@media (min-width: 72rem) {
  .page { max-width: 74rem; display: grid; grid-template-columns: 12rem minmax(0, 1fr);
    column-gap: 3.2rem; padding: 3.2rem 2rem 5rem; }
  .page > * { grid-column: 2; }
  .page > nav { grid-column: 1; grid-row: 1 / span 200; margin-top: .4rem; }
  nav > div { position: sticky; top: 2rem; max-height: calc(100vh - 4rem); overflow-y: auto; }
  nav ol { columns: auto; border-left: 2px solid var(--line); }
  nav li { padding: .24rem 0 .24rem .8rem; }
}
@media (max-width: 34rem) {
  .page { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  h2 { font-size: 1.2rem; margin-top: 2.6rem; }
  .facts { grid-template-columns: 1fr 1fr; gap: .7rem 1rem; }
  .found { padding: 1rem; }
  .found dl { display: block; }
  .found dd + dt { margin-top: .8rem; }
  th, td { padding: .34rem .55rem; }
  .spread { display: block; line-height: 1.25; }
}
@media print {
  @page { margin: 16mm 15mm; }
  html { font-size: 10pt; }
  body { font-size: 1rem; }
  .page { display: block; max-width: none; padding: 0; }
  nav { display: none; }
  a { color: inherit; text-decoration: none; }
  p, figure.picture figcaption { max-width: none; }
  h2 { margin-top: 1.8rem; break-after: avoid; }
  .found, figure.picture, tr { break-inside: avoid; }
  .found { border: 1px solid #8b959e; border-left-width: 4px; background: none; }
  figcaption { break-after: avoid; }
  .scroll { overflow: visible; }
  table { font-size: 8pt; }
  th, td, .wide th, .wide td { padding: .15rem .3rem; }
  .wide { font-size: 7pt; }
  .wider { font-size: 5.5pt; }
  .wider th, .wider td { padding: .1rem .15rem; }
  th:first-child { position: static !important; }
  figure.picture img { max-height: 220mm; }
  details::details-content { display: block; content-visibility: visible; block-size: auto; }
}
"""


# A report as one HTML file that loads nothing: no network, no script, pictures within.

HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<div class="page">
"""
FOOT = "</div>\n</body>\n</html>\n"


def page(title: str, lead: Lead, sections: Sequence[Section]) -> str:
    """Write a report as a page that reads on a phone, on a desk and on paper.

    Args:
        title: heading of the page.
        lead: question, findings and facts, which stand on top.
        sections: in reading order; the list of contents names them.

    Returns:
        The file's text.

    Raises:
        ConfigError: two tables or two figures of one name.

    >>> text = page("Seven lines", Lead(found={"Found": "SME is better."}), [])
    >>> "<h1>Seven lines</h1>" in text, "<script" in text
    (True, False)
    """
    tables_of(sections)  # refuses names that are there twice; the page addresses tables by name
    figures_of(sections)
    names = anchors([section.title for section in sections])
    parts = [
        HEAD.format(title=html.escape(title), style=CSS),
        _top(title, lead),
        _contents(sections, names),
        *(_section(section, name) for section, name in zip(sections, names, strict=True)),
    ]
    return "\n".join(part for part in parts if part) + "\n" + FOOT


def _top(title: str, lead: Lead) -> str:
    parts = [f"<h1>{html.escape(title)}</h1>"]
    if lead.question:
        parts.append(f'<p class="question">{_inline(lead.question)}</p>')
    if lead.found:
        rows = "\n".join(
            f"<dt>{html.escape(name)}</dt><dd>{_text(text)}</dd>"
            for name, text in lead.found.items()
        )
        parts.append(
            '<section class="found" aria-labelledby="what-was-found">'
            f'<h2 id="what-was-found">What was found</h2>\n<dl>\n{rows}\n</dl></section>'
        )
    if lead.facts:
        facts = "\n".join(
            f"<div><dt>{html.escape(name)}</dt><dd>{_breakable(_inline(value))}</dd></div>"
            for name, value in lead.facts.items()
        )
        parts.append(f'<dl class="facts">\n{facts}\n</dl>')
    return "<header>\n" + "\n".join(parts) + "\n</header>"


def _contents(sections: Sequence[Section], names: Sequence[str]) -> str:
    if len(sections) < 2:
        return ""
    links = "\n".join(
        f'<li><a href="#section-{name}">{html.escape(section.title)}</a></li>'
        for section, name in zip(sections, names, strict=True)
    )
    return (
        '<nav aria-label="Contents"><div><strong>Contents</strong>\n'
        f"<ol>\n{links}\n</ol></div></nav>"
    )


def _section(section: Section, name: str) -> str:
    return (
        f'<section aria-labelledby="section-{name}">\n'
        f'<h2 id="section-{name}">{html.escape(section.title)}</h2>\n'
        f"{_text(section.intro)}\n{_parts(section.parts)}\n</section>"
    )


def _parts(parts: Sequence[Part]) -> str:
    return "\n".join(_part(part) for part in parts)


def _part(part: Part) -> str:
    if isinstance(part, Table):
        return to_html(part)
    if isinstance(part, Figure):
        return _picture(part)
    if isinstance(part, Details):
        summary = html.escape(part.summary)
        return (
            f"<details><summary>{summary}</summary>\n<div>\n{_parts(part.parts)}\n</div></details>"
        )
    return _text(part)


def _picture(figure: Figure) -> str:
    width, height = figure.size
    data = base64.b64encode(figure.png).decode()
    alt = html.escape(figure.alt or figure.caption)
    return (
        f'<figure class="picture" id="figure-{html.escape(figure.name)}">\n'
        f'<img alt="{alt}" width="{width}" height="{height}" src="data:image/png;base64,{data}">\n'
        f"<figcaption>{_inline(figure.caption)}</figcaption>\n</figure>"
    )


def _text(text: str) -> str:
    return "\n".join(f"<p>{_inline(part)}</p>" for part in paragraphs(text))


def _inline(text: str) -> str:
    return "".join(
        f"<code>{html.escape(piece)}</code>" if code else html.escape(piece)
        for piece, code in code_spans(text)
    )


def _breakable(text: str) -> str:
    """Let the name of a bundle, which has no spaces, end its line at an underscore."""
    return text.replace("_", "_<wbr>")


# A report as Markdown, with its figures as files beside it.


def markdown_page(
    title: str, lead: Lead, sections: Sequence[Section], figures: str = "figures"
) -> str:
    """Write the content of `page` as Markdown.

    Args:
        title: heading.
        lead: question, findings and facts, which stand on top.
        sections: in reading order.
        figures: folder of ``<name>.png``, as seen from the file.

    Returns:
        The file's text.

    Raises:
        ConfigError: two tables or two figures of one name.

    >>> print(markdown_page("Seven lines", Lead(facts={"Seeds": "3"}), []), end="")
    # Seven lines
    <BLANKLINE>
    - Seeds: 3
    """
    tables_of(sections)
    figures_of(sections)
    parts = [f"# {escape_markdown(title)}", _text_markdown_page(lead.question)]
    if lead.found:
        parts += ["## What was found", *_found(lead.found)]
    if lead.facts:
        facts = [
            f"- {escape_markdown(name)}: {_inline_markdown_page(text)}"
            for name, text in lead.facts.items()
        ]
        parts.append("\n".join(facts))
    for section in sections:
        parts += [f"## {escape_markdown(section.title)}", _text_markdown_page(section.intro)]
        parts += _parts_markdown_page(section.parts, figures)
    return "\n\n".join(part for part in parts if part) + "\n"


def _found(found: Mapping[str, str]) -> list[str]:
    return [
        f"**{escape_markdown(name)}.** {_text_markdown_page(text)}" for name, text in found.items()
    ]


def _parts_markdown_page(parts: Sequence[Part], figures: str) -> list[str]:
    return [text for part in parts for text in _part_markdown_page(part, figures)]


def _part_markdown_page(part: Part, figures: str) -> list[str]:
    if isinstance(part, Table):
        return [to_markdown(part)]
    if isinstance(part, Figure):
        alt = escape_markdown(part.alt or part.caption)
        return [f"![{alt}]({figures}/{part.name}.png)", _inline_markdown_page(part.caption)]
    if isinstance(part, Details):
        summary = html.escape(part.summary, quote=False)
        opening = f"<details><summary>{summary}</summary>"
        return [opening, *_parts_markdown_page(part.parts, figures), "</details>"]
    return [_text_markdown_page(part)]


def _text_markdown_page(text: str) -> str:
    return "\n\n".join(_inline_markdown_page(part) for part in paragraphs(text))


def _inline_markdown_page(text: str) -> str:
    return "".join(
        f"`{piece}`" if code else escape_markdown(piece) for piece, code in code_spans(text)
    )
