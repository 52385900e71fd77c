"""A report as Markdown, with its figures as files beside it."""

import html
from collections.abc import Mapping, Sequence

from metaseg_monai.study.report.document import (
    Details,
    Figure,
    Lead,
    Part,
    Section,
    code_spans,
    figures_of,
    paragraphs,
    tables_of,
)
from metaseg_monai.study.report.render import escape_markdown, to_markdown
from metaseg_monai.study.report.tables import Table


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
    parts = [f"# {escape_markdown(title)}", _text(lead.question)]
    if lead.found:
        parts += ["## What was found", *_found(lead.found)]
    if lead.facts:
        facts = [f"- {escape_markdown(name)}: {_inline(text)}" for name, text in lead.facts.items()]
        parts.append("\n".join(facts))
    for section in sections:
        parts += [f"## {escape_markdown(section.title)}", _text(section.intro)]
        parts += _parts(section.parts, figures)
    return "\n\n".join(part for part in parts if part) + "\n"


def _found(found: Mapping[str, str]) -> list[str]:
    return [f"**{escape_markdown(name)}.** {_text(text)}" for name, text in found.items()]


def _parts(parts: Sequence[Part], figures: str) -> list[str]:
    return [text for part in parts for text in _part(part, figures)]


def _part(part: Part, figures: str) -> list[str]:
    if isinstance(part, Table):
        return [to_markdown(part)]
    if isinstance(part, Figure):
        alt = escape_markdown(part.alt or part.caption)
        return [f"![{alt}]({figures}/{part.name}.png)", _inline(part.caption)]
    if isinstance(part, Details):
        summary = html.escape(part.summary, quote=False)
        opening = f"<details><summary>{summary}</summary>"
        return [opening, *_parts(part.parts, figures), "</details>"]
    return [_text(part)]


def _text(text: str) -> str:
    return "\n\n".join(_inline(part) for part in paragraphs(text))


def _inline(text: str) -> str:
    return "".join(
        f"`{piece}`" if code else escape_markdown(piece) for piece, code in code_spans(text)
    )
