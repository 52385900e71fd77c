"""Predicted against true volumes: differences over means (Bland and Altman 1986)."""

from collections.abc import Mapping
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaseg_monai.errors import DataError
from metaseg_monai.explain.figure_style import INK, STYLE, WIDTH, png
from metaseg_monai.metrics.agreement import Limits
from metaseg_monai.reporting.figures.style import Look, looks, panels


class Panel(NamedTuple):
    """Volumes of one condition in ml, one a case, and the lines through their differences."""

    true_ml: np.ndarray
    pred_ml: np.ndarray
    limits: Limits


def agreement(conditions: Mapping[str, Panel], title: str = "") -> bytes:
    """Bland-Altman plot: predicted minus true volume over the mean of both, a panel a condition.

    Args:
        conditions: what is drawn, by condition.
        title: heading.

    Returns:
        PNG; solid line: bias, dashed: limits of agreement; bars on the right: 95 % intervals.

    Raises:
        DataError: there is no condition.
    """
    if not conditions:
        raise DataError("There is no volume to draw; evaluate a table of volumes.")
    style = looks(conditions)
    with mpl.rc_context(STYLE):
        columns = min(3, len(conditions))
        rows = -(-len(conditions) // columns)
        size = (WIDTH if columns > 1 else 4.6, 0.8 + 2.35 * rows)
        figure = Figure(figsize=size, layout="constrained")
        for (name, panel), axes in zip(
            conditions.items(), panels(figure, len(conditions), 3), strict=True
        ):
            _draw(axes, panel, style[name])
            axes.set_title(name)
        figure.supxlabel("mean of true and predicted volume (ml)", size=9)
        figure.supylabel("predicted minus true (ml)", size=9)
        if title:
            figure.suptitle(title, x=0.01, ha="left", size=10)
        return png(figure)


def _draw(axes: Axes, panel: Panel, look: Look) -> None:
    difference = panel.pred_ml - panel.true_ml
    axes.axhline(0, color=INK, lw=0.8, zorder=1)
    limits, dashed = panel.limits, (0, (4, 3))
    for value, low, high, line in (
        (limits.bias, limits.bias_low, limits.bias_high, "-"),
        (limits.lower, limits.lower_low, limits.lower_high, dashed),
        (limits.upper, limits.upper_low, limits.upper_high, dashed),
    ):
        if not np.isfinite(value):
            continue
        axes.axhline(value, color=look.colour, lw=1.4, ls=line, zorder=2)
        edge = axes.get_yaxis_transform()  # across: share of the panel, up: ml
        if np.isfinite([low, high]).all():
            axes.plot(
                [0.975, 0.975], [low, high], "_-", color=INK, lw=1.1, ms=6, mew=1.1, transform=edge
            )
        above = (line == "-" and value > 0) or value == limits.upper
        axes.annotate(
            f"{value:+.1f}",
            (0.955, value),
            (0, 3 if above else -3),
            xycoords=edge,
            textcoords="offset points",
            ha="right",
            va="bottom" if above else "top",
            size=8,
            color=INK,
            bbox={"fc": "white", "ec": "none", "alpha": 0.85, "pad": 0.6},  # over the zero line
            zorder=4,
        )
    axes.plot(
        (panel.pred_ml + panel.true_ml) / 2, difference, look.marker, color=look.colour,
        mec="white", mew=0.5, ms=5, zorder=3,
    )  # fmt: skip
    axes.margins(x=0.12, y=0.12)  # room for the intervals and the numbers
    axes.grid()
