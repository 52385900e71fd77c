"""A score over the true value of a number, values that no training case had drawn hollow."""

from collections.abc import Collection, Mapping

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from metaseg_monai.errors import DataError
from metaseg_monai.explain.figure_style import SOFT, STYLE, WIDTH, png
from metaseg_monai.reporting.figures.style import looks
from metaseg_monai.reporting.figures.sweep import ticks_apart

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

    Raises:
        DataError: there is nothing to draw.
    """
    values = sorted({float(value) for curve in curves.values() for value in curve.index})
    if not values:
        raise DataError("There is no score to draw; no tested case has a known value.")
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
        axes.xaxis.set_major_locator(FixedLocator(ticks_apart(values, log, WIDTH - 1)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.grid()
        handles = [
            Line2D([], [], color=style[n].colour, ls=style[n].line, marker=style[n].marker,
                   ms=5, lw=1.4, label=n)
            for n in curves
        ]  # fmt: skip
        handles.append(
            Line2D([], [], marker="o", ls="", mfc="white", mec=SOFT, ms=5, label="not in training")
        )
        figure.legend(handles=handles, loc="outside lower center", ncols=4)
        return png(figure)


def _moved(places: np.ndarray, beside: float, values: list[float], log: bool) -> np.ndarray:
    """Places moved aside by a share of the axis."""
    if log:
        return np.asarray(places * (values[-1] / values[0]) ** beside)
    return np.asarray(places + (values[-1] - values[0]) * beside)
