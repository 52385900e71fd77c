"""Figures of a report: curves, matrices and prediction grids, each returned as PNG bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from metaseg_monai.evaluation.samples import Sample

HIT, MISSED, FALSE = (0.93, 0.93, 0.93), (0.20, 0.55, 0.95), (0.95, 0.35, 0.25)
PALETTE = ("#444444", "#1b7fbd", "#d1495b", "#2e9e6b", "#8a5cc2", "#c98a1b", "#0d9ba8", "#7a6a58")
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "figure.facecolor": "white",
}


def learning_curves(logs: Mapping[str, pd.DataFrame]) -> bytes:
    """Training (dashed) and validation loss (solid) of each variant, logarithmic, over epochs."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.2), layout="constrained")
        axes = figure.add_subplot()
        for (name, log), colour in zip(logs.items(), _colours(len(logs)), strict=True):
            axes.plot(log["epoch"], log["train_loss"], "--", color=colour, lw=1, alpha=0.7)
            seen = log.dropna(subset="val_loss")
            axes.plot(seen["epoch"], seen["val_loss"], ".-", color=colour, lw=1.6, ms=4, label=name)
        axes.set(xlabel="epoch", ylabel="cross-entropy", yscale="log")
        axes.set_title("solid: validation, dashed: training", loc="left")
        figure.legend(loc="outside right upper")
        return _png(figure)


def mode_heatmap(matrix: pd.DataFrame, title: str) -> bytes:
    """Test-mode matrix as a heat map with its numbers (thesis table 4.13)."""
    rows, columns = matrix.shape
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.6 + 0.72 * columns, 1.3 + 0.34 * rows), layout="constrained")
        axes = figure.add_subplot()
        values = matrix.to_numpy(float)
        picture = axes.imshow(values, vmin=0, vmax=1, cmap="YlGnBu", aspect="auto")
        labels = [str(mode).removeprefix("fixed:") for mode in matrix.columns]
        axes.set_xticks(range(columns), labels, rotation=35, ha="right")
        axes.set_yticks(range(rows), list(matrix.index))
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        for row in range(rows):
            for column in range(columns):
                value = values[row, column]
                if not np.isnan(value):
                    colour = "white" if value > 0.6 else "#222222"
                    text = f"{value:.2f}"
                    axes.text(column, row, text, ha="center", va="center", color=colour, size=8)
        axes.set_title(title, loc="left")
        figure.colorbar(picture, ax=axes, label="pooled F1", fraction=0.03)
        return _png(figure)


def prediction_grid(samples: Mapping[str, Sequence[Sample]], mode: str = "normal") -> bytes:
    """One row for each sampled case: image, target, and each variant's prediction.

    Args:
        samples: samples of each variant, of the same cases.
        mode: test mode whose predictions are shown.
    """
    first = next(iter(samples.values()))
    heads = ["image", "target", *samples]
    panels = []
    for sample in first:
        row = [sample.image, sample.label > 0]
        for of_variant in samples.values():
            other = {one.case: one for one in of_variant}[sample.case]
            row.append(overlay(other.preds[mode], other.label))
        panels.append(row)
    return _grid(panels, heads, [sample.domain for sample in first])


def label_grid(samples: Mapping[str, Sequence[Sample]]) -> bytes:
    """The same image under every fixed label: one row for each variant that takes metadata."""
    rows, names, heads = [], [], ["image"]
    for name, of_variant in samples.items():
        sample = of_variant[0]
        fixed = [mode for mode in sample.preds if mode.startswith("fixed:")]
        if fixed:
            heads = ["image", *(f"asked for\n{mode.removeprefix('fixed:')}" for mode in fixed)]
            rows.append([sample.image, *(sample.preds[mode] > 0 for mode in fixed)])
            names.append(name)
    return _grid(rows, heads, names) if rows else b""


def overlay(pred: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Colour a prediction: hits white, missed pixels blue, false ones red; (H, W, 3) in 0..1."""
    picture = np.zeros((*pred.shape, 3))
    picture[(pred > 0) & (pred == label)] = HIT
    picture[(label > 0) & (pred != label)] = MISSED
    picture[(pred > 0) & (label == 0)] = FALSE
    return picture


def _grid(panels: list[list[np.ndarray]], heads: list[str], names: list[str]) -> bytes:
    rows, columns = len(panels), len(heads)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(1.25 * columns + 0.9, 1.25 * rows + 0.4), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for row, name, line in zip(panels, names, grid, strict=True):
            for panel, axes in zip(row, line, strict=True):
                axes.imshow(panel.astype(float), cmap="gray", vmin=0, vmax=1)
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
        for head, axes in zip(heads, grid[0], strict=True):
            axes.set_title(head)
        return _png(figure)


def _colours(count: int) -> list[str]:
    return [PALETTE[index % len(PALETTE)] for index in range(count)]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
