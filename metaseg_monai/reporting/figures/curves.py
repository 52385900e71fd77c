"""Curves of a network: scores under wrong metadata, how far it can be believed, its training."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    PercentFormatter,
)

from metaseg_monai.errors import DataError
from metaseg_monai.explain.figure_style import (
    INK,
    SOFT,
    STYLE,
    WIDTH,
    Look,
    folded,
    legend_text,
    looks,
    panels,
    png,
)
from metaseg_monai.metrics.scores import F1, Score
from metaseg_monai.reporting.figures.values import axis_of, number_ticks

TOGETHER = 4  # more curves than this get a panel each


def robustness_curves(
    curves: Mapping[str, pd.DataFrame], xlabel: str = "cases with wrong metadata", score: Score = F1
) -> bytes:
    """Score against the share of cases with wrong or missing metadata.

    Args:
        curves: `reporting.scores.share_curve` of every training, numbered in a column ``seed``, by
            condition; each is drawn thinly, and their mean.
        xlabel: what the share is a share of.
        score: of the curves.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _curves(curves, "share", score)
        axes.set(xlim=(0, 1), xlabel=xlabel)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        return png(figure)


def perturbation_curves(curves: Mapping[str, pd.DataFrame], score: Score = F1) -> bytes:
    """Score against the factor by which continuous metadata is wrong, on a logarithmic axis.

    Args:
        curves: `reporting.scores.perturbation_curve`, as in `robustness_curves`.
        score: of the curves.
    """
    with mpl.rc_context(STYLE):
        figure, axes = _curves(curves, "factor", score)
        axes.axvline(1, color=SOFT, lw=0.9, ls=(0, (4, 3)), zorder=0.9)
        axes.set(xscale="log", xlabel="metadata multiplied by")
        factors = sorted({float(f) for curve in curves.values() for f in curve["factor"]})
        number_ticks(axes, factors)
        if len(factors) > 9:
            axes.tick_params(axis="x", rotation=45)
        return png(figure)


def reliability(curves: Mapping[str, pd.DataFrame], title: str = "") -> bytes:
    """Reliability diagram: predicted probability against how often it is right (Guo et al. 2017).

    Args:
        curves: one row a bin: ``pixels``, ``confidence`` (mean probability of the class in 0..1)
            and ``frequency`` (share of the pixels that are of the class), by domain or condition.
        title: heading.

    Returns:
        PNG; the legend gives the expected calibration error, the mean distance from the diagonal
        over all pixels. More than four curves get a panel each.
    """
    style, apart = looks(curves), len(curves) > TOGETHER
    names = {name: f"{name}  ECE {_error(curve):.3f}" for name, curve in curves.items()}
    with mpl.rc_context(STYLE):
        rows = -(-len(curves) // 4)
        letters = max(map(len, names.values()))
        size = (WIDTH, 0.7 + 1.95 * rows) if apart else (4.3 + 0.08 * letters, 3.7)
        figure = Figure(figsize=size, layout="constrained")
        places = panels(figure, len(curves)) if apart else [figure.add_subplot()] * len(curves)
        for axes in dict.fromkeys(places):
            axes.plot([0, 1], [0, 1], color=SOFT, lw=0.9, ls=(0, (4, 3)), zorder=1)
            axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
            if apart:
                axes.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            axes.grid()
        for (name, curve), axes in zip(curves.items(), places, strict=True):
            _draw_bins(axes, curve, style[name], names[name])
            if apart:
                axes.set_title(names[name].replace("  ", "\n"), size=8.5)
        figure.supxlabel("predicted probability  (larger dot: more pixels)", size=9)
        figure.supylabel("observed frequency", size=9)
        if not apart:
            figure.legend(loc="outside right upper")
        if title:
            figure.suptitle(title, x=0.01, ha="left", size=10)
        return png(figure)


def _curves(curves: Mapping[str, pd.DataFrame], column: str, score: Score) -> tuple[Figure, Axes]:
    """Draw one line a condition over a column, from 0 up so that a drop keeps its proportion."""
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    axes = figure.add_subplot()
    style = looks(curves)
    top = 0.0
    for name, curve in curves.items():
        look = style[name]
        for _, of_seed in curve.groupby("seed"):
            axes.plot(of_seed[column], of_seed["f1"], look.line, color=look.colour, lw=0.6)
        mean = curve.groupby(column)["f1"].mean()
        every = max(1, len(mean) // 5)
        axes.plot(
            mean.index,
            mean,
            look.line,
            color=look.colour,
            lw=2,
            marker=look.marker,
            ms=5,
            markevery=every,
            label=legend_text(name),
            clip_on=False,
        )
        top = max(top, float(np.nanmax(curve["f1"], initial=0.0)))
    highest = min(1.0, 1.1 * top) if score.best == "high" else 1.1 * top
    axes.set(ylabel=axis_of(score), ylim=(0, highest or 1.0))
    axes.grid()
    figure.legend(loc="outside right upper")
    return figure, axes


def _draw_bins(axes: Axes, curve: pd.DataFrame, look: Look, label: str) -> None:
    """Line and dots of one curve; the area of a dot grows with the digits of its pixel count."""
    filled = curve[curve["pixels"] > 0].sort_values("confidence")
    share = filled["pixels"] / max(1, filled["pixels"].sum())
    area = 8 + 9 * np.clip(4 + np.log10(share), 0, 4)
    axes.plot(
        filled["confidence"],
        filled["frequency"],
        look.line,
        color=look.colour,
        lw=1.5,
        label=legend_text(label),
    )
    axes.scatter(
        filled["confidence"], filled["frequency"], area, color=look.colour, ec=INK, lw=0.4, zorder=3
    )


def _error(curve: pd.DataFrame) -> float:
    filled = curve[curve["pixels"] > 0]
    if filled.empty:
        return float("nan")
    gap = (filled["frequency"] - filled["confidence"]).abs()
    return float((gap * filled["pixels"]).sum() / filled["pixels"].sum())


# How training went: losses of every condition and seed, and the learning rate, over epochs.


def learning_curves(logs: Mapping[str, Sequence[pd.DataFrame]]) -> bytes:
    """Training (dashed) and validation loss (solid), one thin line a seed (thesis figure 4.12).

    Args:
        logs: ``log.csv`` of each training seed (columns epoch, train_loss, val_loss; val_loss may
            be empty in epochs without validation), by condition.

    Returns:
        PNG; up to four conditions share one panel, more get a panel each on the same axes, but
        for the epochs where one training is more than twice as long as another.

    Raises:
        DataError: there is no loss.
    """
    every = pd.concat([log for of_name in logs.values() for log in of_name])
    values = every[["train_loss", "val_loss"]].to_numpy(float)
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        raise DataError("There is no loss to draw; train a run first, its log.csv holds the loss.")
    style, apart = looks(logs), len(logs) > TOGETHER
    rows = -(-len(logs) // 4) if apart else 1
    lengths = [max(log["epoch"].max() for log in of_name) for of_name in logs.values()]
    alike = max(lengths) <= 2 * min(lengths)
    with mpl.rc_context(STYLE):
        height = 1.0 + (1.55 if alike else 1.75) * rows if apart else 3.4
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        if apart:
            places = panels(figure, len(logs), share_x=alike)
        else:
            places = [figure.add_subplot()] * len(logs)
        for (name, of_name), axes in zip(logs.items(), places, strict=True):
            for log in of_name:
                _draw_log(axes, log, style[name])
            if apart:
                axes.set_title(folded(name, 20), size=9)
        for axes in dict.fromkeys(places):
            _log_axis(axes, float(values.min()), float(values.max()))
            axes.xaxis.set_major_locator(
                MaxNLocator(4 if apart else 8, integer=True, steps=[1, 2, 5, 10])
            )
            axes.grid()
        handles = [
            Line2D([], [], color=SOFT, ls="--", lw=1.2, label="training"),
            Line2D([], [], color=SOFT, lw=1.6, label="validation"),
        ]
        if not apart:
            handles += [
                Line2D([], [], color=style[n].colour, lw=2.4, label=legend_text(n)) for n in logs
            ]
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
        figure.supxlabel("epoch", size=9)
        figure.supylabel("loss (logarithmic)", size=9)
        return png(figure)


def learning_rate(log: pd.DataFrame) -> bytes:
    """Learning rate over epochs (thesis figure 3.5).

    Args:
        log: ``log.csv`` of one run, columns epoch and lr.

    Raises:
        DataError: the column lr is empty.
    """
    known = log.dropna(subset="lr")
    if known.empty:
        raise DataError("The log of the run has no learning rate; its column lr is empty.")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(known["epoch"], known["lr"], color="#1b7fbd", lw=1.8)
        axes.set(xlabel="epoch", ylabel="learning rate", ylim=(0, 1.08 * known["lr"].max() or 1.0))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=False)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
        axes.grid()
        return png(figure)


def _draw_log(axes: Axes, log: pd.DataFrame, look: Look) -> None:
    axes.plot(
        log["epoch"], _positive(log["train_loss"]), "--", color=look.colour, lw=0.8, alpha=0.7
    )
    seen = log.dropna(subset="val_loss")
    axes.plot(
        seen["epoch"],
        _positive(seen["val_loss"]),
        "-",
        color=look.colour,
        lw=1.2,
        marker="." if len(seen) < 30 else "",
        ms=4,
    )


def _positive(losses: pd.Series) -> pd.Series:
    """A logarithmic axis has no place for 0, which a loss in half precision can reach."""
    return losses.where(losses > 0)


def _log_axis(axes: Axes, low: float, high: float) -> None:
    """Logarithmic axis with plain numbers, also where the losses span less than a decade."""
    axes.set_yscale("log")
    axes.set_ylim(low / 1.15, high * 1.15)
    subs = (1.0,) if high / low > 2000 else (1.0, 2.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subs) if high / low > 5 else MaxNLocator(5))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
