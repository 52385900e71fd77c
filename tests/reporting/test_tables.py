import io

import numpy as np
import pandas as pd
import pytest

from metaseg_monai.errors import ConfigError
from metaseg_monai.reporting.page import Lead, Section, page, to_latex, to_markdown
from metaseg_monai.reporting.tables import Table, cells, legend, to_csv

ROWS = ["none", "se", "me", "experts"]


def table(values, rows=ROWS, columns=None, **settings):
    frame = pd.DataFrame(values, index=rows, columns=columns)
    return Table("f1", "F1", "Pixel F1.", frame, **settings)


def to_html(shown):
    return page("A", Lead(), [Section("S", "", [shown])])


def ranks(shown):
    return [[cell.rank for cell in row] for row in cells(shown)]


def texts(shown):
    return [[cell.text for cell in row] for row in cells(shown)]


def test_ranks_within_each_column_and_shows_missing_values_as_hyphens():
    shown = table({"a": [0.1, 0.3, 0.2, np.nan], "b": [0.4, 0.2, 0.3, 0.9]}, best="high")
    assert ranks(shown) == [[0, 2], [1, 0], [2, 0], [0, 1]]
    assert texts(shown)[3] == ["-", "0.900"]


@pytest.mark.parametrize(("best", "rank"), [("low", [0, 0, 1, 2]), (None, [0] * 4)])
def test_the_best_is_low_or_nothing_is(best, rank):
    assert ranks(table({"error": [0.4, 0.3, 0.1, 0.2]}, best=best)) == [[one] for one in rank]


def test_values_that_look_alike_share_their_rank_and_two_bests_leave_no_second():
    shown = table({"a": [0.8521, 0.8519, 0.84, 0.83], "b": [0.9, 0.8, 0.7999, 0.1]}, best="high")
    assert ranks(shown) == [[1, 1], [1, 2], [0, 2], [0, 0]]


@pytest.mark.parametrize(
    "column",
    [[0.5, 0.5, 0.5, np.nan], [1, 2, 3, 4], ["a", "b", "c", "d"], [0.5, np.nan, np.nan, np.nan]],
)
def test_ranks_nothing_among_equals_counts_and_text(column):
    shown = table({"a": column}, best="high")
    assert ranks(shown) == [[0]] * 4
    assert legend(shown) == ""


def test_shows_digits_integers_and_no_negative_zero():
    shown = table({"f1": [0.12345, -0.00004, -0.2, 1.0], "n": [504, 3, 0, 1]}, digits=2)
    assert texts(shown) == [["0.12", "504"], ["0.00", "3"], ["-0.20", "0"], ["1.00", "1"]]


def test_a_spread_stands_behind_its_value_and_not_behind_a_missing_one():
    spread = pd.DataFrame({"a": [0.01, np.nan, 0.03, 0.04]}, index=ROWS)
    shown = table({"a": [0.9, 0.8, 0.7, np.nan]}, spread=spread, best="high")
    assert r"se & \underline{0.800} \\" in to_latex(shown)
    assert [row[0].spread for row in cells(shown)] == ["0.010", "", "0.030", ""]
    assert "| none | **0.900** \u00b1 0.010 |" in to_markdown(shown)
    assert "| se | <u>0.800</u> |" in to_markdown(shown)
    assert '<b>0.900</b> <span class="spread">\u00b1&nbsp;0.010</span>' in to_html(shown)
    assert r"none & \textbf{0.900} $\pm$ 0.010 \\" in to_latex(shown)


def test_refuses_what_cannot_be_drawn():
    values = {"a": [0.1, 0.2]}
    with pytest.raises(ConfigError, match="the row 'se' twice"):
        table(values, rows=["se", "se"])
    with pytest.raises(ConfigError, match="the column 'a' twice"):
        table([[0.1, 0.2]], rows=["se"], columns=["a", "a"])
    with pytest.raises(ConfigError, match="the spread must have the rows and columns"):
        table(values, rows=["se", "me"], spread=pd.DataFrame({"b": [0, 0]}, index=["se", "me"]))


@pytest.mark.parametrize("render", [to_markdown, to_html, to_latex, to_csv])
def test_a_table_without_rows_keeps_its_head(render):
    assert "seconds" in render(table([], rows=[], columns=["seconds"], best="low"))


AWKWARD = {
    "rows": ["mesh_square", "a|b"],
    "columns": ["p < 0.05", "5 % & more"],
    "first": "x_y",
}


def awkward():
    return table([[0.1, "<b>"], [-0.2, "50 %_"]], **AWKWARD)


def test_markdown_escapes_and_aligns():
    assert to_markdown(awkward()).splitlines() == [
        "**F1**",
        "",
        "| x\\_y | p &lt; 0.05 | 5 % &amp; more |",
        "| --- | ---: | --- |",
        "| mesh\\_square | 0.100 | &lt;b&gt; |",
        "| a\\|b | -0.200 | 50 %\\_ |",
        "",
        "Pixel F1.",
    ]


def test_html_escapes_and_writes_true_minus_signs():
    text = to_html(awkward())
    assert '<th scope="col">p &lt; 0.05</th>' in text
    assert '<td class="text">&lt;b&gt;</td>' in text
    assert "<td>\u22120.200</td>" in text
    assert "<b>" not in text.partition("<body>")[2]


def test_html_leaves_the_hyphens_of_names_and_missing_values():
    text = to_html(table({"a": ["sme-2", "[-0.1, 0.2]", None, "1-2"]}))
    found = ["sme-2", "[\u22120.1, 0.2]", "-", "1-2"]
    assert [f'<td class="text">{cell}</td>' in text for cell in found] == [True] * 4


def test_latex_is_a_booktabs_table_with_caption_and_label():
    assert to_latex(awkward()).splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{F1. Pixel F1.}",
        r"\label{tab:f1}",
        r"\begin{tabular}{lrl}",
        r"\toprule",
        r"x\_y & p \textless{} 0.05 & 5 \% \& more \\",
        r"\midrule",
        r"mesh\_square & 0.100 & \textless{}b\textgreater{} \\",
        r"a\textbar{}b & $-$0.200 & 50 \%\_ \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_csv_keeps_full_numbers_and_puts_spreads_beside_them():
    spread = pd.DataFrame({"a": [0.01, 0.02, 0.03, 0.04], "b": [np.nan] * 4}, index=ROWS)
    values = {"a": [0.123456, 3.5e-56, np.nan, 1.0], "b": ["x", "y", "z", "a,b"]}
    text = to_csv(table(values, spread=spread, best="high", first="condition"))
    read = pd.read_csv(io.StringIO(text), index_col="condition")
    assert list(read.columns) == ["a", "a spread", "b"]
    np.testing.assert_allclose(read["a"], values["a"])
    assert read.loc["experts", "b"] == "a,b"


def test_two_levels_of_columns_become_headings_over_groups():
    columns = pd.MultiIndex.from_tuples([("x", "ours"), ("x", "published"), ("y", "ours")])
    shown = table([[0.1, 0.2, 0.3]], rows=["se"], columns=columns, first="condition")
    assert '<th scope="colgroup" colspan="2">x</th>' in to_html(shown)
    assert "| condition | x ours | x published | y ours |" in to_markdown(shown)
    assert r"\multicolumn{2}{c}{x} & \multicolumn{1}{c}{y} \\" in to_latex(shown)
    assert r"\cmidrule(lr){2-3} \cmidrule(lr){4-4}" in to_latex(shown)
    assert to_csv(shown).splitlines()[0] == "condition,x ours,x published,y ours"


def test_the_note_tells_what_the_marks_mean():
    shown = table({"a": [0.1, 0.2, 0.3, 0.0]}, best="low")
    told = "Pixel F1. Best of each column (lowest) in bold, second underlined."
    assert to_markdown(shown).endswith(told)
    assert f'<p class="note">{told}</p>' in to_html(shown)
