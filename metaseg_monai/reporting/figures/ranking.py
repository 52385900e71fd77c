"""Which condition is better, and by how much: ranks, differences, agreement of volumes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from metaseg_monai.explain.figure_style import INK, SOFT, STYLE, WIDTH, Look, looks, panels, png
from metaseg_monai.metrics.agreement import Limits
from metaseg_monai.metrics.scores import F1, Score
from metaseg_monai.reporting.figures.values import axis_of
from metaseg_monai.reporting.tables import signed

LEAST = 0.01  # to both sides of a difference of 0, so that a trifle does not look large
BETTER, WORSE, UNCLEAR = "#1b7fbd", "#d9632a", "#8a8f94"


class DifferenceRow(NamedTuple):
    """One line of a forest plot.

    ``mean``, ``low`` and ``high`` are a difference of F1 and its 95 % interval over cases or
    groups, ``seeds`` the mean difference of each training seed, ``p`` the p-value adjusted for the
    family of tests (None where none was made), ``group`` the subgroup under whose heading it
    stands.
    ``found`` tells whether it is marked; None leaves that to ``p``.
    """

    name: str
    mean: float
    low: float
    high: float
    seeds: Sequence[float] = ()
    p: float | None = None
    group: str = ""
    found: bool | None = None


def ranking(errors: Mapping[str, Sequence[float]], title: str, score: Score = F1) -> bytes:
    """Mean error of each condition as a bar, best on top, one dot a seed (thesis figure 4.8).

    Args:
        errors: F1 error (1 - F1, 0..1) of each training seed, by condition, or a score that is an
            error; NaN is left out, and a condition without any score stands last. The mean of
            ``se`` is drawn through all bars.
        title: heading, which should name the aggregate and the data.
        score: that the errors are of.

    Returns:
        PNG; the axis starts at 0, because the length of a bar is read as its value.
    """
    known = {name: [float(e) for e in seeds if np.isfinite(e)] for name, seeds in errors.items()}
    means = {name: float(np.mean(seeds)) if seeds else np.nan for name, seeds in known.items()}
    order = sorted(means, key=lambda name: (np.isnan(means[name]), means[name]))
    style = looks(errors)
    highest = max(max(seeds) for seeds in known.values() if seeds)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.9 + 0.31 * len(order)), layout="constrained")
        axes = figure.add_subplot()
        for place, name in enumerate(order):
            look, seeds = style[name], known[name]
            edge = "white" if look.hatch else look.colour
            axes.barh(place, means[name], 0.66, color=look.colour, hatch=look.hatch, ec=edge, lw=0)
            axes.plot(seeds, _spread(place, len(seeds)), "o", color="white", mec=INK, mew=0.8, ms=4)
            right = max([means[name], *seeds]) if seeds else 0.0
            text = f"{means[name]:.3f}" if seeds else "no score"
            axes.annotate(
                text, (right, place), (6, 0), textcoords="offset points", va="center", color=INK
            )
        if known.get("se"):
            axes.axvline(means["se"], color=INK, lw=0.9, ls=(0, (4, 3)), zorder=0.9)
        axes.set_yticks(range(len(order)), order)
        axes.set(ylim=(len(order) - 0.4, -0.6), xlim=(0, highest * 1.12 or 1.0))
        of_error = score.best == "low"
        what = axis_of(score) if of_error else f"{score.name} error (1 - F1, lower is better)"
        axes.set_xlabel(f"{what}; bar: mean, dot: one training")
        axes.set_title(title)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return png(figure)


def differences(rows: Sequence[DifferenceRow], level: float, over: str, score: Score = F1) -> bytes:
    """Forest plot: each difference with its interval, its seeds and its adjusted p-value.

    Args:
        rows: lines in the order in which they are shown, within each group.
        level: an adjusted p below it is marked by a star and a filled square.
        over: what the intervals are drawn over.
        score: that differs.

    Returns:
        PNG. Blue: significantly better, orange: significantly worse, grey: cannot tell.
    """
    lines: list[DifferenceRow | str] = []
    for group in dict.fromkeys(row.group for row in rows):
        lines += [group] if group else []
        lines += [row for row in rows if row.group == group]
    shown = [x for row in rows for x in (row.mean, row.low, row.high, *row.seeds) if np.isfinite(x)]
    low, high = min([-LEAST, *shown]), max([LEAST, *shown])
    margin = 0.06 * (high - low)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 1.05 + 0.3 * len(lines)), layout="constrained")
        axes = figure.add_subplot()
        axes.axvline(0, color=INK, lw=0.9, zorder=1)
        for place, line in enumerate(lines):
            if isinstance(line, str):
                continue
            clear = line.p is not None and line.p < level if line.found is None else line.found
            is_better = (line.mean > 0) == (score.best == "high")
            colour = UNCLEAR if not clear else BETTER if is_better else WORSE
            axes.plot([line.low, line.high], [place, place], color=colour, lw=2.2, zorder=2)
            axes.plot(
                line.mean, place, "s", ms=7, mec=colour, mew=1.5, color=colour if clear else "white"
            )
            axes.plot(line.seeds, [place + 0.3] * len(line.seeds), "o", ms=2.8, color=SOFT, mew=0)
            axes.annotate(
                _numbers(line, clear),
                (1.01, place),
                xycoords=("axes fraction", "data"),
                va="center",
                family="DejaVu Sans Mono",
                size=8,
                color=INK if np.isfinite(line.mean) else SOFT,
            )
        axes.set_yticks(range(len(lines)), [x if isinstance(x, str) else x.name for x in lines])
        for label, line in zip(axes.get_yticklabels(), lines, strict=True):
            label.set_fontweight("bold" if isinstance(line, str) else "normal")
        axes.set(ylim=(len(lines) - 0.3, -0.7), xlim=(low - margin, high + margin))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        side = "right" if score.best == "high" else "left"
        axes.set_xlabel(f"difference of {score.name} ({side} of 0: the first is better)")
        figure.supxlabel(
            f"square and line: mean and 95 % interval over {over}; dots: trainings"
            + (";\n" if len(over) > len("cases") else "; ")
            + (
                f"filled and *: found, over {over.partition(' ')[0]} and over trainings"
                if any(row.found is not None for row in rows)
                else f"filled and *: adjusted p < {level:g}"
            ),
            size=8,
            color=SOFT,
        )
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        return png(figure)


def _numbers(row: DifferenceRow, clear: bool) -> str:
    if not np.isfinite(row.mean):
        return "no score"
    text = signed(row.mean)
    if np.isfinite([row.low, row.high]).all():
        text += f" [{signed(row.low)}, {signed(row.high)}]"
    if row.p is None or not np.isfinite(row.p):
        return text
    p = "p<0.001" if row.p < 0.001 else f"p={row.p:.3f}"
    return f"{text} {p}{' *' if clear else '  '}"


def _spread(place: float, count: int) -> np.ndarray:
    """Heights of the dots of one bar, a little apart so that equal seeds stay visible."""
    return place + (np.linspace(-0.17, 0.17, count) if count > 1 else np.zeros(count))


# Predicted against true volumes: differences over means (Bland and Altman 1986).


class Panel(NamedTuple):
    """Volumes of one condition in ml, one a case, and the lines through their differences."""

    true_ml: np.ndarray
    pred_ml: np.ndarray
    limits: Limits


def agreement(conditions: Mapping[str, Panel]) -> bytes:
    """Bland-Altman plot: predicted minus true volume over the mean of both, a panel a condition.

    Returns:
        PNG; solid line: bias, dashed: limits of agreement; bars on the right: 95 % intervals.
    """
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
