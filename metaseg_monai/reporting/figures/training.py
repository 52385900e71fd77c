"""How training went: losses of every condition and seed, and the learning rate, over epochs."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from metaseg_monai.errors import DataError
from metaseg_monai.explain.figure_style import SOFT, STYLE, WIDTH, png
from metaseg_monai.reporting.figures.style import Look, folded, looks, panels

TOGETHER = 4  # more conditions than this get a panel each


def learning_curves(logs: Mapping[str, Sequence[pd.DataFrame]]) -> bytes:
    """Training (dashed) and validation loss (solid), one thin line a seed (thesis figure 4.12).

    Args:
        logs: ``log.csv`` of each training seed (columns epoch, train_loss, val_loss; val_loss may
            be empty in epochs without validation), by condition.

    Returns:
        PNG; up to four conditions share one panel, more get a panel each on the same axes.

    Raises:
        DataError: if there is no log, or a log lacks a column or every loss.
    """
    losses = [
        log[column].to_numpy(float)
        for name, of_name in logs.items()
        for log in of_name
        for column in _checked(log, name, "epoch", "train_loss", "val_loss")[1:]
    ]
    values = np.concatenate([*losses, np.empty(0)])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        raise DataError("There is no loss to draw; train a run first, its log.csv holds the loss.")
    style, apart = looks(logs), len(logs) > TOGETHER
    rows = -(-len(logs) // 4) if apart else 1
    with mpl.rc_context(STYLE):
        height = 1.0 + 1.55 * rows if apart else 3.4
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        places = panels(figure, len(logs)) if apart else [figure.add_subplot()] * len(logs)
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
            handles += [Line2D([], [], color=style[n].colour, lw=2.4, label=n) for n in logs]
        figure.legend(handles=handles, loc="outside upper left", ncols=len(handles))
        figure.supxlabel("epoch", size=9)
        figure.supylabel("loss (logarithmic)", size=9)
        return png(figure)


def learning_rate(log: pd.DataFrame) -> bytes:
    """Learning rate over epochs (thesis figure 3.5).

    Args:
        log: ``log.csv`` of one run, columns epoch and lr.

    Raises:
        DataError: if a column is absent or empty.
    """
    _checked(log, "the run", "epoch", "lr")
    known = log.dropna(subset="lr")
    if known.empty:
        raise DataError("The log of the run has no learning rate; its column lr is empty.")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(known["epoch"], known["lr"], color="#1b7fbd", lw=1.8)
        axes.set(xlabel="epoch", ylabel="learning rate", ylim=(0, 1.08 * known["lr"].max() or 1.0))
        axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
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


def _checked(log: pd.DataFrame, name: str, *columns: str) -> tuple[str, ...]:
    absent = [column for column in columns if column not in log]
    if absent:
        raise DataError(
            f"The log of {name} has no column {', '.join(absent)}; its columns are "
            f"{', '.join(map(str, log))}."
        )
    return columns
