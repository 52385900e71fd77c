"""A report as one HTML file that loads nothing: no network, no script, pictures within."""

import base64
import html
from collections.abc import Sequence

from metaseg_monai.study.report.document import (
    Details,
    Figure,
    Lead,
    Part,
    Section,
    anchors,
    code_spans,
    figures_of,
    paragraphs,
    tables_of,
)
from metaseg_monai.study.report.page_style import CSS
from metaseg_monai.study.report.render import to_html
from metaseg_monai.study.report.tables import Table

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
