"""A report over finished runs, computed from their files alone: HTML, Markdown, PNG, CSV, JSON."""

import base64
import html
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation import figures
from metaseg_monai.evaluation.counts import read_counts
from metaseg_monai.evaluation.samples import read_samples
from metaseg_monai.evaluation.scores import average_f1, mode_matrix, summarise
from metaseg_monai.files import replacing

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>
body {{ font: 16px/1.55 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2.5rem auto;
       padding: 0 1.2rem; }}
h1 {{ font-size: 1.7rem; margin-bottom: .3rem; }}
h2 {{ font-size: 1.2rem; margin-top: 2.4rem; padding-bottom: .3rem;
     border-bottom: 1px solid #ddd; }}
.found {{ background: #f3f7fa; border-left: 4px solid #1b7fbd; padding: .8rem 1.1rem; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }}
th, td {{ padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #eee; }}
thead th {{ border-bottom: 2px solid #999; }}
th:first-child, td:first-child {{ text-align: left; }}
img {{ max-width: 100%; height: auto; }}
.note {{ color: #666; font-size: .88rem; }}
</style></head><body>
{body}
</body></html>
"""


def write_report(runs: Mapping[str, Path], output: Path, title: str) -> Path:
    """Write ``report.html`` and everything in it as single files.

    Args:
        runs: folder of each variant's run (``counts.csv``, and if present ``log.csv`` and
            ``samples.npz``), by variant.
        output: folder for ``report.html``, ``report.md``, ``summary.json``, ``tables/*.csv`` and
            ``figures/*.png``.
        title: heading of the report.

    Returns:
        Path of the HTML report.

    Raises:
        DataError: if there are no runs, or a run has no counts.
    """
    if not runs:
        raise DataError("There is no run to report: give folders that hold a counts.csv.")
    counts = {name: read_counts(folder / "counts.csv") for name, folder in runs.items()}
    _check_comparable(counts)
    scores = score_table(counts)
    matrices = {
        name: mode_matrix(table) for name, table in counts.items() if table["mode"].nunique() > 1
    }
    pictures = _pictures(runs, matrices)
    found = describe(counts)
    summary = {"variants": {name: summarise(table) for name, table in counts.items()}}

    _write(output / "summary.json", _json(summary))
    _write(output / "tables" / "f1.csv", scores.to_csv(float_format="%.6f", lineterminator="\n"))
    for name, matrix in matrices.items():
        text = matrix.to_csv(float_format="%.6f", lineterminator="\n")
        _write(output / "tables" / f"modes_{name}.csv", text)
    for name, (_, png) in pictures.items():
        with replacing(output / "figures" / f"{name}.png") as part:
            part.write_bytes(png)
    _write(output / "report.md", _markdown(title, found, scores, matrices, pictures))
    _write(output / "report.html", _page(title, found, scores, matrices, pictures))
    return output / "report.html"


def _check_comparable(counts: Mapping[str, pd.DataFrame]) -> None:
    """Refuse runs that cannot stand in one table."""
    first, cases = "", None
    for name, table in counts.items():
        normal = table[table["mode"] == "normal"]
        if normal.empty:
            raise DataError(f"{name} has no counts of mode normal; evaluate it with that mode too.")
        tested = set(zip(normal["split"], normal["case"], normal["domain"], strict=True))
        if cases is not None and tested != cases:
            raise DataError(
                f"{first} and {name} were tested on different cases; evaluate both on the same "
                "split of the same table, or report them apart."
            )
        first, cases = name, tested


def _json(summary: Any) -> str:
    """JSON in which a score that does not exist is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [plain(inner) for inner in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return json.dumps(plain(summary), indent=2, allow_nan=False) + "\n"


def score_table(counts: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """F1 of each variant (rows): combined, average over domains, and each domain."""
    rows = {}
    for name, table in counts.items():
        normal = table[table["mode"] == "normal"]
        matrix = mode_matrix(normal)["normal"]
        rows[name] = {
            "combined": matrix.loc["combined"],
            "average": average_f1(normal),
            **matrix.drop("combined").to_dict(),
        }
    return pd.DataFrame(rows).T.rename_axis("variant")


def describe(counts: Mapping[str, pd.DataFrame]) -> str:
    """Say in words what the table shows, without a claim that its size cannot carry."""
    combined = score_table(counts)["combined"]
    first = next(iter(counts.values()))
    split = " and ".join(sorted(set(first["split"]))) or "given"
    sentences = [
        f"On {first['case'].nunique()} cases of the {split} split the pooled F1 is "
        + ", ".join(f"{value:.3f} with {name}" for name, value in combined.items())
        + "."
    ]
    for name, table in counts.items():
        pooled = mode_matrix(table).loc["combined"]
        if "shuffle" in pooled:
            sentences.append(
                f"Given foreign labels, {name} goes from {pooled['normal']:.3f} to "
                f"{pooled['shuffle']:.3f}."
            )
    sentences.append(
        "One training run for each row: differences between rows have no interval here and are "
        "not a test."
    )
    return " ".join(sentences)


def _pictures(
    runs: Mapping[str, Path], matrices: Mapping[str, pd.DataFrame]
) -> dict[str, tuple[str, bytes]]:
    """Return caption and PNG of each figure that the runs' files allow."""
    logs = {n: pd.read_csv(f / "log.csv") for n, f in runs.items() if (f / "log.csv").is_file()}
    samples = {
        name: read_samples(folder / "samples.npz")
        for name, folder in runs.items()
        if (folder / "samples.npz").is_file()
    }
    pictures: dict[str, tuple[str, bytes]] = {}
    if samples:
        caption = "Predictions. White: right, blue: missed, red: false."
        pictures["predictions"] = (caption, figures.prediction_grid(samples))
        labels = figures.label_grid(samples)
        if labels:
            pictures["labels"] = ("One image, asked for each label in turn.", labels)
    for name, matrix in matrices.items():
        caption = f"Test modes of {name}: rows are the true domain, columns the metadata given."
        pictures[f"modes_{name}"] = (caption, figures.mode_heatmap(matrix, name))
    if logs:
        pictures["learning_curves"] = ("Learning curves.", figures.learning_curves(logs))
    return pictures


def _ranked(column: pd.Series) -> list[tuple[str, int]]:
    """Format a column with each value's rank: 0 is best, 1 second, 2 the rest; ties share it."""
    rounded = [float(value) for value in column.round(3)]
    better = [sum(other > value for other in rounded) for value in rounded]
    return [
        ("-", 2) if math.isnan(value) else (f"{value:.3f}", min(place, 2))
        for value, place in zip(rounded, better, strict=True)
    ]


def _cells(table: pd.DataFrame, marks: tuple[str, str, str], rank: bool) -> list[list[str]]:
    columns = [
        [marks[place if rank and len(table) > 1 else 2].format(text) for text, place in _ranked(c)]
        for _, c in table.items()
    ]
    return [
        [str(name), *row] for name, row in zip(table.index, zip(*columns, strict=True), strict=True)
    ]


def _markdown_table(table: pd.DataFrame, rank: bool) -> str:
    head = [_markdown_name(name) for name in (table.index.name or "", *table.columns)]
    rows = [
        [_markdown_name(name), *cells]
        for name, *cells in _cells(table, ("**{}**", "<u>{}</u>", "{}"), rank)
    ]
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *rows])


def _markdown_name(name: Any) -> str:
    return html.escape(str(name), quote=False).replace("|", "\\|")


def _html_table(table: pd.DataFrame, rank: bool) -> str:
    head = "".join(f"<th>{html.escape(str(c))}</th>" for c in (table.index.name or "", *table))
    rows = [
        [html.escape(name), *cells]
        for name, *cells in _cells(table, ("<b>{}</b>", "<u>{}</u>", "{}"), rank)
    ]
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody>'
        "</table></div>"
    )


def _markdown(
    title: str,
    found: str,
    scores: pd.DataFrame,
    matrices: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, tuple[str, bytes]],
) -> str:
    parts = [f"# {title}", found, "## F1 of each domain", _markdown_table(scores, rank=True)]
    for name, matrix in matrices.items():
        parts += [f"## Test modes: {name}", _markdown_table(matrix, rank=False)]
    for name, (caption, _) in pictures.items():
        parts += [f"![{caption}](figures/{name}.png)", caption]
    return "\n\n".join(parts) + "\n"


def _page(
    title: str,
    found: str,
    scores: pd.DataFrame,
    matrices: Mapping[str, pd.DataFrame],
    pictures: Mapping[str, tuple[str, bytes]],
) -> str:
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="found">{html.escape(found)}</p>',
        "<h2>F1 of each domain</h2>",
        _html_table(scores, rank=True),
        '<p class="note">Pixel F1. combined: counts pooled over all cases; '
        "average: unweighted mean of the domains. Best in bold, second underlined.</p>",
    ]
    for name, (caption, png) in pictures.items():
        if (
            name in ("predictions", "learning_curves")
            or name == f"modes_{next(iter(matrices), '')}"
        ):
            heading = {"predictions": "Pictures", "learning_curves": "Training"}
            body.append(f"<h2>{heading.get(name, 'Test modes')}</h2>")
        data = base64.b64encode(png).decode()
        text = html.escape(caption)
        body.append(f'<p><img alt="{text}" src="data:image/png;base64,{data}"></p>')
        body.append(f'<p class="note">{text}</p>')
    if matrices:
        body.append("<h2>Test modes as numbers</h2>")
    for name, matrix in matrices.items():
        body += [f"<h3>{html.escape(name)}</h3>", _html_table(matrix, rank=False)]
    return PAGE.format(title=html.escape(title), body="\n".join(body))


def _write(path: Path, text: str) -> None:
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
