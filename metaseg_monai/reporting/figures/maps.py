"""Tables shown as colours: scores under each test mode, and the similarity of domains."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from scipy.cluster import hierarchy

from metaseg_monai.explain.figure_style import INK, SOFT, STYLE, folded, ink_on, mode_labels, png

BRANCHES = 0.6  # inches, height of a tree


def mode_heatmap(matrix: pd.DataFrame, title: str, units: Mapping[str, str]) -> bytes:
    """Scores of each domain under each test mode, with their numbers (thesis table 4.13).

    Args:
        matrix: rows ``combined`` and the domains, columns the modes (`evaluation.mode_matrix`),
            values 0..1; NaN stays blank.
        title: heading.
        units: of the fields that are fixed to numbers.

    Returns:
        PNG; a frame marks each domain under its own label.
    """
    modes, rows = [str(mode) for mode in matrix.columns], [str(row) for row in matrix.index]
    fixed = [mode.startswith("fixed:") for mode in modes]
    with mpl.rc_context(STYLE):
        labels = mode_labels(modes)
        left = 0.4 + 0.075 * max(map(len, rows))
        across = max(0.9 + 0.54 * len(modes), 3.4, 0.085 * len(title))
        width = min(left + across, 8.4)
        figure = Figure(figsize=(width, 1.75 + 0.34 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        picture = _heat(axes, matrix)
        axes.set_xticks(range(len(modes)), [folded(label, 13) for label in labels])
        _turn_labels(axes, rotate=len(modes) > 5 or max(map(len, labels)) > 9)
        axes.set_yticks(range(len(rows)), rows)
        if rows[0] == "combined" and len(rows) > 1:
            axes.axhline(0.5, color="white", lw=5)
            axes.get_yticklabels()[0].set_fontweight("bold")
        if any(fixed) and not all(fixed):
            axes.axvline(fixed.index(True) - 0.5, color="white", lw=5)
        for column, label in enumerate(labels):
            for row, name in enumerate(rows):
                if fixed[column] and name in (label, label.rpartition("=")[2]):
                    axes.add_patch(_frame(row, column))
        heading = _fixed_field(modes, units)
        if heading:
            _head_group(axes, heading, fixed)
        axes.set_title(title, pad=21 if heading else 8)
        axes.set_xlabel("metadata given to the network", color=SOFT)
        figure.colorbar(picture, ax=axes, label="pooled F1", fraction=0.03, pad=0.02, aspect=30)
        return png(figure)


def similarity_map(similarity: pd.DataFrame, linkage: np.ndarray, title: str) -> bytes:
    """Similarity of domains as a heat map, ordered and headed by the tree of a clustering.

    Args:
        similarity: symmetric table of `reporting.scores.domain_similarity`.
        linkage: of `reporting.scores.cluster`.
        title: heading.
    """
    tree = hierarchy.dendrogram(linkage, no_plot=True)
    table = similarity.iloc[tree["leaves"], tree["leaves"]]
    names = [str(name) for name in table.index]
    with mpl.rc_context(STYLE):
        longest, cells = 0.075 * max(map(len, names)), max(1.5, 0.36 * len(names))
        across = max(3.2, 1.0 + 0.5 * len(names), 0.4 + 0.085 * len(title))
        size = (longest + across, 0.8 + 0.6 * longest + cells + BRANCHES)
        figure = Figure(figsize=size, layout="constrained")
        above, axes = figure.subplots(2, 1, sharex=True, height_ratios=[BRANCHES, cells])
        _tree(above, tree)
        above.set_title(title)
        picture = _heat(axes, table)
        axes.set_xticks(range(len(names)), names)
        _turn_labels(axes, rotate=len(names) > 4 or longest > 0.7)
        axes.set_yticks(range(len(names)), names)
        figure.colorbar(picture, ax=axes, label="similarity", fraction=0.04, pad=0.02, aspect=30)
        return png(figure)


def _fixed_field(modes: list[str], units: Mapping[str, str]) -> str:
    """Name and unit of the only field that modes fix, which their labels do not tell; else ""."""
    fields = {m.partition(":")[2].partition("=")[0] for m in modes if m.startswith("fixed:")}
    if len(fields) != 1 or not any("=" in mode for mode in modes):
        return ""
    (field,) = fields
    return f"{field} ({units[field]})" if field in units else field


def _head_group(axes: Axes, heading: str, fixed: list[bool]) -> None:
    """Write what the fixed values are of above their columns, which stand together."""
    first, count = fixed.index(True), sum(fixed)
    fits = 0.075 * len(heading) < 0.54 * count
    axes.annotate(
        heading,
        (first + (count - 1) / 2 if fits else first + count - 0.5, -0.5),
        (0, 4),
        textcoords="offset points",
        ha="center" if fits else "right",
        color=SOFT,
        in_layout=False,
    )


def _tree(axes: Axes, tree: Mapping[str, Any]) -> None:
    """The tree over its columns; scipy puts the leaves at 5, 15, 25, ..."""
    for x, height in zip(tree["icoord"], tree["dcoord"], strict=True):
        axes.plot((np.array(x) - 5) / 10, height, color=SOFT, lw=1.2, clip_on=False)
    axes.set_ylim(0, max(1e-6, 1.05 * float(np.max(tree["dcoord"]))))
    axes.set_axis_off()


def _heat(axes: Axes, table: pd.DataFrame) -> AxesImage:
    """Colours of a table of values in 0..1 with each value written in its cell."""
    values = table.to_numpy(float)
    colours = mpl.colormaps["YlGnBu"]
    picture = axes.imshow(values, vmin=0, vmax=1, cmap=colours, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            ink = ink_on(colours(float(np.clip(value, 0, 1))))
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, size=8.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return picture


def _turn_labels(axes: Axes, rotate: bool) -> None:
    if rotate:
        for label in axes.get_xticklabels():
            label.set(rotation=35, ha="right", rotation_mode="anchor")


def _frame(row: int, column: int) -> Rectangle:
    return Rectangle(
        (column - 0.46, row - 0.43), 0.92, 0.86, fill=False, ec=INK, lw=1.3, clip_on=False
    )
