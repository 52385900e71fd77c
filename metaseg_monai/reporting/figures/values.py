"""What a network draws, and how well, over the value that is given or asked for.

Curves, and scores of every domain under every test mode as a map, by which domains are alike.
"""

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from scipy.cluster import hierarchy

from metaseg_monai.explain.figure_style import (
    INK,
    SOFT,
    STYLE,
    WIDTH,
    Look,
    folded,
    ink_on,
    legend_text,
    looks,
    mode_labels,
    png,
)
from metaseg_monai.metrics.scores import F1, Score

LETTER = 0.08  # inches, the width of a digit
BEYOND = "#f3efe6"  # ground of the values that no training case had
BRANCHES = 0.6  # inches, height of a tree


class Response(NamedTuple):
    """What is drawn of one class.

    ``curves``: by condition a table of `reporting.response.response_curve`; ``flat``: mean area by
    condition that reads no metadata; ``true``: mean area of the labels.
    """

    curves: Mapping[str, pd.DataFrame]
    flat: Mapping[str, float]
    true: float


def response_curves(
    classes: Mapping[str, Response],
    xlabel: str,
    unit: str,
    trained: tuple[float, float] | None,
    log: bool,
    what: str,
) -> bytes:
    """Predicted area (volume) over the given value: one panel a class, one line a condition.

    Args:
        classes: what is drawn, by the name of its class.
        xlabel: name and unit of the value.
        unit: of the areas.
        trained: lowest and highest value of the training cases; beyond them the ground is shaded
            and points are hollow.
        log: draw the values on a logarithmic axis.
        what: is predicted, as the axis says.
    """
    names = list(dict.fromkeys(n for one in classes.values() for n in (*one.curves, *one.flat)))
    style = looks(names)
    columns = min(3, len(classes))
    rows = -(-len(classes) // columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.75 + 2.5 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, sharex=True, squeeze=False)
        for spare in grid.flat[len(classes) :]:
            spare.remove()
        for (name, response), axes in zip(classes.items(), grid.flat, strict=False):
            _draw_response(axes, response, style, trained)
            axes.set_title(name)
            axes.xaxis.set_tick_params(labelbottom=True)
            if log:
                axes.set_xscale("log")
            values = sorted({float(v) for c in response.curves.values() for v in c["value"]})
            inches = (WIDTH - 0.4) / columns - 0.4  # beside labels of the other axis
            number_ticks(axes, ticks_apart(values, log, inches))
        for axes in grid[-1] if rows == 1 else grid.flat[len(classes) - columns : len(classes)]:
            axes.set_xlabel(xlabel)
        figure.supylabel(f"predicted {what} ({unit})", size=9)
        figure.legend(
            handles=_key(names, classes, style, trained, what),
            loc="outside lower center",
            ncols=3,
        )
        return png(figure)


def _draw_response(
    axes: Axes, response: Response, style: Mapping[str, Look], trained: tuple[float, float] | None
) -> None:
    values = [float(v) for curve in response.curves.values() for v in curve["value"]]
    if trained is not None and values:
        for start, end in ((min(values), trained[0]), (trained[1], max(values))):
            if end > start:
                axes.axvspan(start, end, color=BEYOND, lw=0, zorder=0)
    for name, curve in response.curves.items():
        look = style[name]
        axes.fill_between(
            curve["value"], curve["low"], curve["high"], color=look.colour, alpha=0.14, lw=0
        )
        axes.plot(curve["value"], curve["mean"], look.line, color=look.colour, lw=1.8)
        low, high = trained or (-np.inf, np.inf)
        inside = curve["value"].between(low, high)
        for part, fill in ((curve[inside], look.colour), (curve[~inside], "white")):
            axes.plot(part["value"], part["mean"], look.marker, color=look.colour, mfc=fill, ms=4.5)
    for name, area in response.flat.items():
        axes.axhline(area, color=style[name].colour, lw=1.3, ls=style[name].line, zorder=1.5)
    if np.isfinite(response.true):
        axes.axhline(response.true, color=INK, lw=1, ls=(0, (1, 1.6)), zorder=1.5)
    shown = [*response.flat.values(), response.true]
    shown += [float(v) for c in response.curves.values() for v in (*c["mean"], *c["high"])]
    axes.set_ylim(0, 1.08 * max((v for v in shown if np.isfinite(v)), default=0.0) or 1.0)
    axes.grid()


def _key(
    names: Sequence[str],
    classes: Mapping[str, Response],
    style: Mapping[str, Look],
    trained: tuple[float, float] | None,
    what: str,
) -> list[Line2D]:
    flat = {name for one in classes.values() for name in one.flat}
    handles = [
        key(f"{name} (no metadata)", style[name], lw=1.6, marker="")
        if name in flat
        else key(name, style[name], lw=1.6)
        for name in names
    ]
    handles.append(Line2D([], [], color=INK, lw=1, ls=(0, (1, 1.6)), label=f"{what} of the labels"))
    if trained is not None:
        handles.append(hollow_key("beyond training values", ms=4.5))
    return handles


def key(name: str, look: Look, **others: Any) -> Line2D:
    """The entry of a condition in a legend."""
    of_look = {"color": look.colour, "ls": look.line, "marker": look.marker, "ms": 4.5}
    return Line2D([], [], label=legend_text(name), **{**of_look, **others})


def hollow_key(what: str, ms: float = 5) -> Line2D:
    """The entry of values that were not trained in a legend."""
    return Line2D([], [], marker="o", ls="", mfc="white", mec=SOFT, ms=ms, label=what)


def number_ticks(axes: Axes, values: Sequence[float]) -> None:
    """Ticks of the horizontal axis at some numbers and nowhere else."""
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def ticks_apart(values: Sequence[float], log: bool, inches: float) -> list[float]:
    """Every value, or every second, third, ..., so that labels stand apart; both ends are kept.

    >>> ticks_apart([10, 14, 20, 28, 40, 57, 80, 113, 160], True, 2.0)
    [10, 20, 40, 80, 160]
    """
    places = np.log(values) if log else np.asarray(values, dtype=float)
    places = (places - places[0]) / (np.ptp(places) or 1.0) * inches
    half = [LETTER * len(f"{value:g}") / 2 for value in values]
    last, kept = len(values) - 1, [0]
    for step in range(1, len(values)):
        kept = [*range(0, last, step), last]
        if len(kept) > 2 and last - kept[-2] < step:  # the last step is shorter
            del kept[-2]
        if all(places[b] - places[a] >= half[a] + half[b] + LETTER for a, b in pairwise(kept)):
            break
    return [values[place] for place in kept]


# A score over the true value of a number, values that no training case had drawn hollow.

DODGE = 0.035  # of the axis, over which the bars of all conditions are spread beside each other


def value_curves(
    curves: Mapping[str, pd.DataFrame],
    unseen: Collection[float],
    xlabel: str,
    ylabel: str,
) -> bytes:
    """Score over the value, one line a condition, with its interval as a bar.

    Args:
        curves: by condition ``mean, low, high`` by value, ascending; an end that is NaN is not
            drawn.
        unseen: values to be drawn hollow.
        xlabel: name and unit of the value; its axis is logarithmic where all values are above 0.
        ylabel: name of the score.
    """
    values = sorted({float(value) for curve in curves.values() for value in curve.index})
    style, log = looks(curves), values[0] > 0
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        axes = figure.add_subplot()
        if log:
            axes.set_xscale("log", base=2)
        for number, (name, curve) in enumerate(curves.items()):
            look = style[name]
            beside = DODGE * ((number + 0.5) / len(curves) - 0.5)
            places = _moved(curve.index.to_numpy(float), beside, values, log)
            axes.plot(places, curve["mean"], look.line, color=look.colour, lw=1.4)
            axes.vlines(places, curve["low"], curve["high"], color=look.colour, lw=1, alpha=0.7)
            hollow = curve.index.isin(list(unseen))
            for part, fill in ((~hollow, look.colour), (hollow, "white")):
                axes.plot(
                    places[part], curve["mean"][part], look.marker, color=look.colour, mfc=fill,
                    ms=5,
                )  # fmt: skip
        number_ticks(axes, ticks_apart(values, log, WIDTH - 1))
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid()
        handles = [key(name, style[name], ms=5, lw=1.4) for name in curves]
        handles.append(hollow_key("not in training"))
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        return png(figure)


def _moved(places: np.ndarray, beside: float, values: list[float], log: bool) -> np.ndarray:
    """Places moved aside by a share of the axis."""
    if log:
        return np.asarray(places * (values[-1] / values[0]) ** beside)
    return np.asarray(places + (values[-1] - values[0]) * beside)


# How large and how sure the masks are for each label that is asked for.

HEADS = {
    "area": "predicted area / area of the labels",
    "inside": "mean probability inside the labels",
}
LINE = 0.15  # inches for each condition of a label


def requested_labels(
    conditions: Mapping[str, pd.DataFrame], asked: Sequence[str], title: str
) -> bytes:
    """One point with its interval for each condition and label; one panel a quantity.

    Args:
        conditions: by condition the rows of one class, by label: columns (quantity, "mean"),
            (quantity, "low") and (quantity, "high"), the quantities those of
            `reporting.response.by_group`. One that was only asked with the own value is drawn
            there alone, and its mean as a level line.
        asked: labels from top to bottom.
        title: heading, which may be empty.
    """
    known = {name: table.reindex(list(asked)) for name, table in conditions.items()}
    drawn = [q for q in HEADS if any(t[q, "mean"].notna().any() for t in known.values())]
    style = looks(known)
    height = max(0.42, LINE * (len(known) + 1)) * len(asked)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.2 + height), layout="constrained")
        panels = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
        for axes, quantity in zip(panels, drawn, strict=True):
            for place in range(1, len(asked), 2):
                axes.axhspan(place - 0.5, place + 0.5, color="#f5f5f5", lw=0, zorder=0)
            if quantity == "area":
                axes.axvline(1, color=INK, lw=1, ls=(0, (1, 1.6)), zorder=1)
            for number, (name, table) in enumerate(known.items()):
                shift = (number - (len(known) - 1) / 2) * 0.8 / len(known)
                _draw(axes, table, quantity, shift, style[name])
            axes.set_xlabel(HEADS[quantity])
            axes.set_yticks(range(len(asked)), asked)
            axes.set_ylim(len(asked) - 0.5, -0.5)
            axes.locator_params(axis="x", nbins=6)
            axes.grid(axis="x")
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        if title:
            figure.suptitle(title, size=10, x=0.01, ha="left")
        figure.legend(handles=_key_requested(known, style), loc="outside lower center", ncols=5)
        return png(figure)


def _draw(axes: Axes, table: pd.DataFrame, quantity: str, shift: float, look: Look) -> None:
    mean = table[quantity, "mean"].to_numpy(float)
    places = np.arange(len(mean)) + shift
    low, high = table[quantity, "low"], table[quantity, "high"]
    axes.hlines(places, low, high, color=look.colour, lw=1.6, zorder=2)
    fill = "white" if look.hatch else look.colour
    axes.plot(mean, places, look.marker, color=look.colour, mfc=fill, ms=4.5, zorder=3)
    if np.isfinite(mean).sum() == 1:  # reads no metadata
        axes.axvline(mean[np.isfinite(mean)][0], color=look.colour, lw=0.9, ls=look.line, zorder=1)


def _key_requested(known: Mapping[str, pd.DataFrame], style: Mapping[str, Look]) -> list[Line2D]:
    return [
        key(
            name,
            style[name],
            mfc="white" if style[name].hatch else style[name].colour,
            ls=style[name].line if len(table["area", "mean"].dropna()) == 1 else "",
            lw=0.9,
        )
        for name, table in known.items()
    ]


def axis_of(score: Score) -> str:
    """What an axis of pooled scores is called."""
    return f"{score.kind.lower()} {score.name}" + " (lower is better)" * (score.best == "low")


def mode_heatmap(
    matrix: pd.DataFrame, title: str, units: Mapping[str, str], score: Score = F1
) -> bytes:
    """Scores of each domain under each test mode, with their numbers (thesis table 4.13).

    Args:
        matrix: rows ``combined`` and the domains, columns the modes (`metrics.scores.mode_matrix`),
            values 0..1, of an error from 0 on; NaN stays blank.
        title: heading.
        units: of the fields that are fixed to numbers.
        score: whose matrix it is.

    Returns:
        PNG, the better the darker; a frame marks each domain under its own label.
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
        picture = _heat(axes, matrix, score)
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
        figure.colorbar(picture, ax=axes, label=axis_of(score), fraction=0.03, pad=0.02, aspect=30)
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


def _heat(axes: Axes, table: pd.DataFrame, score: Score = F1) -> AxesImage:
    """Colours of a table of values in 0..1, or of errors, with each value written in its cell."""
    values = table.to_numpy(float)
    colours = mpl.colormaps["YlGnBu" if score.best == "high" else "YlGnBu_r"]
    highest = 1.0 if score.best == "high" else float(np.nanmax(values, initial=0.0)) or 1.0
    picture = axes.imshow(values, vmin=0, vmax=highest, cmap=colours, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            ink = ink_on(colours(float(np.clip(value / highest, 0, 1))))
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
