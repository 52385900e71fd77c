import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from metaseg_monai import reporting
from metaseg_monai.errors import ConfigError
from metaseg_monai.reporting.page import (
    Details,
    Figure,
    Lead,
    Section,
    figures_of,
    markdown_page,
    page,
    tables_of,
)
from metaseg_monai.reporting.tables import Table

VOID = {"meta", "link", "img", "wbr", "br"}


def png(width=6, height=4):
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, format="PNG")
    return buffer.getvalue()


def scores(name="f1"):
    return Table(name, "F1 < 1", "Higher is better.", pd.DataFrame({"a": [0.5]}, index=["se"]))


LEAD = Lead(
    "Does it help?",
    {"Found": "SME & ME gain.\n\nThe dummy does not.", "Not shown": "Other clinics."},
    {"Bundle": "seven_lines", "Version": "`a_b`"},
)
SECTIONS = [
    Section("Scores", "Run `study <x>`.", [scores(), Figure("curves", "Loss _a_.", png())]),
    Section("Runs", "", [Details("All", ["One & two.", scores("runs"), Figure("b", "B", png())])]),
]


class Reader(HTMLParser):
    """Checks that tags close in order and collects attributes by tag."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.setdefault(tag, []).append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_loads_nothing():
    text = page("A & B", LEAD, SECTIONS)
    seen = Reader(text).seen
    assert "script" not in seen
    assert [link["href"] for link in seen["link"]] == ["data:,"]
    assert all(image["src"].startswith("data:image/png;base64,") for image in seen["img"])
    assert not re.search(r"https?://|url\(|@import", text)


def test_every_entry_of_the_contents_leads_to_its_section():
    seen = Reader(page("A", LEAD, [*SECTIONS, Section("Scores", "", [])])).seen
    targets = [link["href"].removeprefix("#") for link in seen["a"]]
    ids = [attrs["id"] for tag in seen.values() for attrs in tag if "id" in attrs]
    assert targets[-3:] == ["section-scores", "section-runs", "section-scores-2"]
    assert targets[:-3] == ["verdict"] * bool(LEAD.verdict) + ["what-was-found"]
    assert set(targets) < set(ids)
    assert len(ids) == len(set(ids))


def test_a_picture_has_its_bytes_its_size_and_a_text_for_who_cannot_see_it():
    picture = Figure("b", "A red bar.", png(60, 40))
    (image,) = Reader(page("A", Lead(), [Section("S", "", [picture])])).seen["img"]
    assert base64.b64decode(image["src"].partition(",")[2]) == picture.png
    assert (image["width"], image["height"], image["alt"]) == ("60", "40", "A red bar.")


def test_the_lead_stands_before_the_sections_with_all_its_paragraphs():
    text = page("A", LEAD, SECTIONS)
    places = [
        text.index(part)
        for part in ("<p>SME &amp; ME gain.</p>", "<p>The dummy does not.</p>", "Other clinics.")
    ]
    assert places == sorted(places)
    assert places[-1] < text.index("seven_<wbr>lines") < text.index('id="section-scores"')


def test_text_is_escaped_and_code_is_marked():
    text = page("A <i>", Lead(), [Section("S", "Run `study <x>` & wait.", [])])
    assert "<title>A &lt;i&gt;</title>" in text
    assert "<p>Run <code>study &lt;x&gt;</code> &amp; wait.</p>" in text


def test_details_hold_their_parts():
    text = page("A", Lead(), SECTIONS)
    inner = re.search(r"<details><summary>All</summary>(.*?)</details>", text, re.S).group(1)
    assert "<p>One &amp; two.</p>" in inner
    assert 'id="table-runs"' in inner


def test_markdown_has_the_same_content_and_links_its_figures():
    text = markdown_page("A_b", LEAD, SECTIONS)
    lines = text.splitlines()
    assert lines[0] == "# A\\_b"
    assert "**Found.** SME &amp; ME gain." in lines
    assert "- Bundle: seven\\_lines" in lines
    assert "Run `study <x>`." in lines
    assert "![Loss \\_a\\_.](figures/curves.png)" in lines
    assert "<details><summary>All</summary>" in lines
    assert "| se | 0.500 |" in lines
    assert lines.index("</details>") > lines.index("![B](figures/b.png)")


def test_names_are_collected_in_reading_order_also_from_details():
    assert list(tables_of(SECTIONS)) == ["f1", "runs"]
    assert list(figures_of(SECTIONS)) == ["curves", "b"]


def test_any_name_becomes_that_of_a_file_and_two_parts_of_one_file_are_refused():
    two = [scores("modes_my run"), Figure("../größe (mm)", "", png())]
    assert [part.name for part in two] == ["modes_my_run-0499ef43", "_groe__mm_-9c02a479"]
    alike = [scores(name) for name in ("my run", "my_run", "my-run", "my  run", "m\u00fd run")]
    assert len(tables_of([Section("S", "", alike)])) == len(alike)
    long = Figure("e\u0301" * 200, "", png()), Figure("e\u0301" * 201, "", png())
    assert len({one.name for one in long}) == 2
    assert max(len(one.name) for one in long) <= 250
    twice = [Section("S", "", [two[0], Details("more", [scores("modes_my run")])])]
    told = "named modes_my_run-0499ef43, which would be one file; rename a run or field whose name"
    with pytest.raises(ConfigError, match=told):
        tables_of(twice)


def test_refuses_a_figure_that_is_no_png():
    with pytest.raises(ConfigError, match="Figure curves is not a PNG"):
        Figure("curves", "", b"\xff\xd8 jpeg")


def test_words_of_a_wide_table_may_go_on_in_a_second_line():
    css = (Path(reporting.__file__).parent / "templates/page.css").read_text(encoding="utf-8")
    rules = css[: css.index("@media")]
    assert ".wide thead th, .wide td.text { white-space: normal; }" in rules


def test_no_text_becomes_markup_wherever_it_stands():
    told = "<i>x</i>"
    table = Table("t", told, told, pd.DataFrame({told: [told]}, index=[told]), first=told)
    parts = [told, table, Figure("f", told, png()), Details(told, [told])]
    text = page(told, Lead(told, {told: told}, {told: told}), [Section(told, told, parts)])
    assert told not in text
    assert text.count("&lt;i&gt;x&lt;/i&gt;") >= 15
