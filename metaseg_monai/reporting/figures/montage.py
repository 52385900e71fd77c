"""Contours of predictions on the same images under several values of a field, side by side."""

from collections.abc import Collection, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from metaseg_monai.errors import DataError
from metaseg_monai.evaluation.samples import Sample
from metaseg_monai.explain.figure_style import INK, SOFT, STYLE, WIDTH, png

CLASSES = ("#ffb000", "#ff4f79", "#35d0ff", "#9dff57", "#c79bff")  # readable on a grey image
MARGIN = 0.12  # of the side of what is shown of an image, around all contours
SMALLEST = 24  # pixels of the side of what is shown
HOLLOW = "\u25cb"
ABOVE, BELOW = 0.25, 0.35  # inches


def montage(
    samples: Sequence[Sample],
    modes: Mapping[str, str],
    titles: Sequence[str],
    classes: Mapping[int, str] | None = None,
    beyond: Collection[str] = (),
) -> bytes:
    """Contours on the same image under several values: rows are cases, columns values.

    Args:
        samples: cases, with the predictions of `modes`.
        modes: test mode by the heading of its column.
        titles: what is written beside each case.
        classes: names of the classes; "class 1" where not known.
        beyond: headings of the values that no training case had; they are grey, with a hollow dot.

    Returns:
        PNG; prediction in one colour a class, label dashed in white. Only the surroundings of the
        contours are shown.

    Raises:
        DataError: there is no sample or no mode.
    """
    if not samples or not modes:
        raise DataError("There is no stored prediction to draw; the run has an empty samples.npz.")
    names = 0.075 * max(len(line) for title in titles for line in title.split("\n"))  # inches
    side = float(np.clip((WIDTH - names) / len(modes), 0.7, 1.5))
    width, height = side * len(modes) + names, side * len(samples) + ABOVE + BELOW
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        places = {"left": names / width, "right": 1, "top": 1 - ABOVE / height}
        grid = figure.subplots(
            len(samples),
            len(modes),
            squeeze=False,
            gridspec_kw={**places, "bottom": BELOW / height, "wspace": 0.04, "hspace": 0.04},
        )
        for sample, title, row in zip(samples, titles, grid, strict=True):
            window = _window(sample, list(modes.values()))
            for mode, axes in zip(modes.values(), row, strict=True):
                axes.set(xticks=[], yticks=[])
                axes.spines[:].set_visible(False)
                _draw_contours(axes, sample, mode, window)
            row[0].set_ylabel(title, rotation=0, ha="right", va="center", labelpad=6, size=8)
        for head, axes in zip(modes, grid[0], strict=True):
            guessed = head in beyond
            text, colour = (f"{HOLLOW} {head}", SOFT) if guessed else (head, INK)
            axes.set_title(text, size=8, loc="center", color=colour)
        shown = _classes([a for s in samples for a in (s.label, *map(s.preds.get, modes.values()))])
        handles = [
            Line2D([], [], color=_of_class(n), lw=1.6, label=(classes or {}).get(n, f"class {n}"))
            for n in shown
        ]
        handles.append(Line2D([], [], color=SOFT, lw=1.1, ls=(0, (2, 1.4)), label="label"))
        if beyond:
            handles.append(
                Line2D([], [], marker="o", ls="", mfc="white", mec=SOFT, ms=5,
                       label="beyond training values")
            )  # fmt: skip
        figure.legend(handles=handles, loc="lower center", ncols=len(handles))
        return png(figure)


def _window(sample: Sample, modes: Sequence[str]) -> tuple[slice, slice]:
    """The square of the image that holds the label and all predictions, with a margin."""
    shown = sample.label > 0
    for mode in modes:
        if mode in sample.preds:
            shown = shown | (sample.preds[mode] > 0)
    rows, columns = np.nonzero(shown)
    if not len(rows):
        return slice(None), slice(None)
    longest = max(np.ptp(rows), np.ptp(columns)) + 1
    side = max(SMALLEST, int(np.ceil(longest * (1 + 2 * MARGIN))))
    side = min(side, *sample.label.shape)
    window = []
    for of, length in ((rows, sample.label.shape[0]), (columns, sample.label.shape[1])):
        start = int(np.clip((of.min() + of.max() + 1 - side) // 2, 0, length - side))
        window.append(slice(start, start + side))
    return window[0], window[1]


def _draw_contours(axes: Axes, sample: Sample, mode: str, window: tuple[slice, slice]) -> None:
    axes.imshow(sample.image[window].astype(float), cmap="gray", vmin=0, vmax=1)
    if mode not in sample.preds:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color=SOFT, size=8)
        return
    label, pred = sample.label[window], sample.preds[mode][window]
    for number in _classes([pred]):
        _outline(axes, pred == number, _of_class(number), "solid", 1.3)
    for number in _classes([label]):
        _outline(axes, label == number, "white", "dashed", 0.8)


def _outline(axes: Axes, mask: np.ndarray, colour: str, line: str, width: float) -> None:
    padded = np.pad(mask.astype(float), 1)  # so that a contour closes at the edge
    rows, columns = np.arange(-1, mask.shape[0] + 1), np.arange(-1, mask.shape[1] + 1)
    axes.contour(columns, rows, padded, [0.5], colors=[colour], linestyles=line, linewidths=width)


def _of_class(number: int) -> str:
    return CLASSES[(number - 1) % len(CLASSES)]


def _classes(masks: Sequence[np.ndarray | None]) -> list[int]:
    """The foreground classes of any mask, ascending."""
    return sorted({int(n) for mask in masks if mask is not None for n in np.unique(mask) if n})
