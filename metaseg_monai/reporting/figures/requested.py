"""How large and how sure the masks are for each label that is asked for."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from metaseg_monai.errors import DataError
from metaseg_monai.explain.figure_style import INK, STYLE, WIDTH, png
from metaseg_monai.reporting.figures.style import Look, looks

HEADS = {
    "area": "predicted area / area of the labels",
    "inside": "mean probability inside the labels",
}
LINE = 0.15  # inches for each condition of a label


def requested_labels(
    conditions: Mapping[str, pd.DataFrame], asked: Sequence[str], title: str = ""
) -> bytes:
    """One point with its interval for each condition and label; one panel a quantity.

    Args:
        conditions: by condition the rows of one class of `reporting.response`'s
            `summarise_requested`, by label. One that was only asked with the own value is drawn
            there alone, and its mean as a level line.
        asked: labels from top to bottom.
        title: heading.

    Raises:
        DataError: no condition was asked for any label.
    """
    known = {name: table.reindex(list(asked)) for name, table in conditions.items()}
    drawn = [q for q in HEADS if any(t[q, "mean"].notna().any() for t in known.values())]
    if not drawn or not asked:
        raise DataError("No label was asked for; evaluate with modes normal and fixed:*.")
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
        figure.legend(handles=_key(known, style), loc="outside lower center", ncols=5)
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


def _key(known: Mapping[str, pd.DataFrame], style: Mapping[str, Look]) -> list[Line2D]:
    return [
        Line2D(
            [],
            [],
            color=style[name].colour,
            marker=style[name].marker,
            mfc="white" if style[name].hatch else style[name].colour,
            ls=style[name].line if len(table["area", "mean"].dropna()) == 1 else "",
            ms=4.5,
            lw=0.9,
            label=name,
        )
        for name, table in known.items()
    ]
