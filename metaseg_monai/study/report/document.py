"""What a report is made of: a lead, sections, and in them text, tables and figures."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from metaseg_monai.errors import ConfigError
from metaseg_monai.study.report.tables import NAME, Table

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
