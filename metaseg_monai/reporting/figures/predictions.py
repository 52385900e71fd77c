"""Pictures of predictions: conditions on one image, one image under every label or value."""

from collections.abc import Collection, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from skimage.segmentation import find_boundaries

from metaseg_monai.evaluation.image_scores import ImageSample
from metaseg_monai.evaluation.samples import Sample
from metaseg_monai.explain.figure_style import (
    INK,
    SOFT,
    STYLE,
    WIDTH,
    folded,
    legend_text,
    mode_labels,
    png,
)
from metaseg_monai.reporting.figures.values import hollow_key

# white, blue and orange differ in lightness as well, so that they stay apart without colour vision
HIT, MISSED, FALSE = (0.95, 0.95, 0.95), (0.16, 0.47, 0.86), (0.98, 0.45, 0.14)
WIDEST, GAP = 1.6, 0.05  # inches: a panel, and what lies between two
KEYS = 6  # side by side in a legend
Panel = np.ndarray | None
Colour = str | tuple[float, float, float]


def prediction_grid(
    samples: Mapping[str, Sequence[Sample]], rows: int, classes: Mapping[int, str]
) -> bytes:
    """One row a case: image, target and the prediction of each condition with true metadata.

    Rows are named by their domain, or by their case where there is only one domain.

    Args:
        samples: samples of each condition; the cases are those of the first one, and a condition
            that lacks a case or its prediction leaves the place empty.
        rows: most cases; where there are more, every domain has its turn.
        classes: names of the classes; "class 1" where not known.

    Returns:
        PNG with hits white, missed pixels blue and false ones orange. A pixel that was given the
        wrong one of several classes counts as missed. A target of several classes is coloured.
    """
    known = {name: {one.case: one for one in some} for name, some in samples.items()}
    lines: list[list[Panel]] = []
    chosen = _spread_over_domains(next(iter(samples.values())), rows)
    numbers = _classes([one.label for one in chosen])
    several = len(numbers) > 1 or max(numbers, default=1) > 1
    for sample in chosen:
        target = coloured(sample.label) if several else sample.label > 0
        line: list[Panel] = [sample.image, target]
        for of_name in known.values():
            line.append(_overlaid(of_name.get(sample.case)))
        lines.append(line)
    domains = len({one.domain for one in chosen}) > 1
    names = [one.domain if domains else one.case for one in chosen]
    key: dict[str, Colour] = {
        classes.get(n, f"class {n}"): _of_class(n) for n in numbers if several
    }
    key |= {
        "hit": HIT,
        "missed or of another class" if several else "missed": MISSED,
        "false": FALSE,
    }
    return _grid(lines, ["image", "target", *samples], names, key)


def label_grid(shown: Mapping[str, Sample]) -> bytes:
    """The same image under every fixed label: one row a condition that takes metadata.

    Args:
        shown: a sample of each condition, with modes ``fixed:<label>``.
    """
    every = dict.fromkeys(mode for one in shown.values() for mode in one.preds)
    modes = [mode for mode in every if mode.startswith("fixed:")]
    lines: list[list[Panel]] = [
        [one.image, *(one.preds[mode] > 0 if mode in one.preds else None for mode in modes)]
        for one in shown.values()
    ]
    return _grid(lines, ["image", *mode_labels(modes)], list(shown))


def translation_grid(samples: Sequence[ImageSample]) -> bytes:
    """One row a case and channel: planes, real and generated image, difference, outlines.

    Of more than three planes the first, the middle and the last are shown.

    Args:
        samples: with planes of one number.

    Returns:
        PNG. Difference: generated less real, orange where too bright, blue where too dark, half of
        the real image's scale being the full colour. Outlines: blue of objects of the real image,
        orange of the generated one, white where both are.
    """
    lines: list[list[Panel]] = []
    count = max(len(one.planes) for one in samples)
    chosen = sorted({0, count // 2, count - 1})
    for one in samples:
        drawn = None if one.objects is None else outlines(one.real, *one.objects)
        planes: list[Panel] = [one.planes[p] if p < len(one.planes) else None for p in chosen]
        lines.append([*planes, one.real, one.generated, difference(one), drawn])
    heads = [f"plane {place + 1}" for place in chosen]
    names = [f"{one.channel} {one.domain}" for one in samples]
    return _grid(lines, [*heads, "real", "generated", "difference", "objects"], names)


def difference(sample: ImageSample) -> np.ndarray:
    """Colours (H, W, 3) of how a generated image differs from the real one, black where not."""
    gap = 2 * (sample.generated.astype(float) - sample.real.astype(float))[..., None]
    return np.asarray(gap.clip(0, 1) * FALSE + (-gap).clip(0, 1) * MISSED)


def outlines(picture: np.ndarray, real: np.ndarray, generated: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3) of a picture (H, W) in 0..1 with the outlines of both kinds of objects."""
    drawn = np.repeat(0.7 * picture.astype(float)[..., None], 3, axis=2)
    one, other = (find_boundaries(objects, mode="inner") for objects in (real, generated))
    for where, colour in ((one, MISSED), (other, FALSE), (one & other, HIT)):
        drawn[where] = colour
    return drawn


def coloured(label: np.ndarray) -> np.ndarray:
    """Colours (H, W, 3) in 0..1 of classes (H, W), of which 0 is black."""
    picture = np.zeros((*label.shape, 3))
    for number in _classes([label]):
        picture[label == number] = to_rgb(_of_class(number))
    return picture


def overlay(pred: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Colour a prediction by what is right in it.

    Args:
        pred: predicted classes (H, W).
        label: true classes (H, W).

    Returns:
        Colours (H, W, 3) in 0..1: hits white, missed pixels blue, false ones orange.
    """
    picture = np.zeros((*pred.shape, 3))
    picture[(pred > 0) & (pred == label)] = HIT
    picture[(label > 0) & (pred != label)] = MISSED
    picture[(pred > 0) & (label == 0)] = FALSE
    return picture


def _overlaid(sample: Sample | None) -> Panel:
    if sample is None or "normal" not in sample.preds:
        return None
    return overlay(sample.preds["normal"], sample.label)


def _spread_over_domains(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most `most` samples in their order: the first of every domain, then the second, ..."""
    seen: dict[str, int] = {}
    turns = []
    for place, sample in enumerate(samples):
        seen[sample.domain] = seen.get(sample.domain, 0) + 1
        turns.append((seen[sample.domain], place))
    return [samples[place] for place in sorted(place for _, place in sorted(turns)[:most])]


def _grid(
    lines: Sequence[Sequence[Panel]],
    heads: Sequence[str],
    names: Sequence[str],
    key: Mapping[str, Colour] | None = None,
) -> bytes:
    """Draw panels in columns of one width, each row as high as its first panel asks for."""
    labels = [folded(name, 14) for name in names]
    beside = 0.085 * max(len(line) for label in labels for line in label.split("\n")) + 0.15
    side = float(np.clip((WIDTH - beside) / len(heads), 0.52, WIDEST))
    turned = side < 0.75
    # a turned head leans over the panels on its right, the last ones over the edge of the picture
    over = max(0.055 * len(head) - side * place for place, head in enumerate(reversed(heads)))
    margin = max(0.0, over) if turned else 0.0
    above = 0.05 * max(map(len, heads)) + 0.2 if turned else 0.36
    below = 0.1 + 0.3 * -(-len(key or ()) // KEYS)
    heights = [(side - GAP) * _aspect(line) + GAP for line in lines]
    used = beside + side * len(heads) + margin
    size = (max(used, WIDTH), above + sum(heights) + below)
    left = beside + (size[0] - used) / 2
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size)
        top = size[1] - above
        for place, (line, label, height) in enumerate(zip(lines, labels, heights, strict=True)):
            top -= height
            for column, (panel, head) in enumerate(zip(line, heads, strict=True)):
                corner = (left + column * side, top)
                axes = figure.add_axes(_box(corner, side, height, size))
                _draw_panel(axes, panel)
                if column == 0:
                    axes.set_ylabel(label, rotation=0, ha="right", va="center", labelpad=6)
                if place == 0:
                    _draw_head(axes, head, side, turned)
        if key:
            handles = [
                Patch(fc=colour, ec=SOFT, lw=0.6, label=legend_text(name))
                for name, colour in key.items()
            ]
            figure.legend(handles=handles, loc="lower center", ncols=min(KEYS, len(handles)))
        return png(figure)


def _aspect(line: Sequence[Panel]) -> float:
    """Height of a row's first picture by its width, within what a page bears."""
    shape = next((panel.shape for panel in line if panel is not None), (1, 1))
    return float(np.clip(shape[0] / shape[1], 0.3, 1.5))


def _box(
    corner: tuple[float, float], width: float, height: float, size: tuple[float, float]
) -> tuple[float, float, float, float]:
    """Place of a panel, given in inches, in shares of the picture, with a gap around it."""
    x, y = corner[0] + GAP / 2, corner[1] + GAP / 2
    return x / size[0], y / size[1], (width - GAP) / size[0], (height - GAP) / size[1]


def _draw_panel(axes: Axes, panel: Panel) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if panel is None:
        axes.text(0.5, 0.5, "none", ha="center", va="center", color=SOFT, size=8)
    else:
        axes.imshow(panel.astype(float), cmap="gray", vmin=0, vmax=1)


def _draw_head(axes: Axes, head: str, side: float, turned: bool) -> None:
    if not turned:
        axes.set_title(folded(head, max(6, int(side * 12))), size=9, loc="center")
        return
    axes.annotate(
        head,
        (0.3, 1),
        (0, 3),
        xycoords="axes fraction",
        textcoords="offset points",
        rotation=40,
        rotation_mode="anchor",
        size=8,
    )


# Contours of predictions on the same images under several values of a field, side by side.

CLASSES = ("#9dff57", "#c79bff", "#ff4f79", "#35d0ff", "#ffb000")  # readable on a grey image
MARGIN = 0.12  # of the side of what is shown of an image, around all contours
SMALLEST = 24  # pixels of the side of what is shown
HOLLOW = "\u25cb"
ABOVE, BELOW = 0.25, 0.35  # inches


def montage(
    samples: Sequence[Sample],
    modes: Mapping[str, str],
    titles: Sequence[str],
    classes: Mapping[int, str],
    beyond: Collection[str],
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
    """
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
            Line2D(
                [], [], color=_of_class(n), lw=1.6, label=legend_text(classes.get(n, f"class {n}"))
            )
            for n in shown
        ]
        handles.append(Line2D([], [], color=SOFT, lw=1.1, ls=(0, (2, 1.4)), label="label"))
        if beyond:
            handles.append(hollow_key("beyond training values"))
        figure.legend(handles=handles, loc="lower center", ncols=len(handles))
        return png(figure)


def _window(sample: Sample, modes: Sequence[str]) -> tuple[slice, slice]:
    """The square of the image, or all, that holds the label and predictions, with a margin."""
    shown = sample.label > 0
    for mode in modes:
        if mode in sample.preds:
            shown = shown | (sample.preds[mode] > 0)
    rows, columns = np.nonzero(shown)
    if not len(rows):
        return slice(None), slice(None)
    longest = max(np.ptp(rows), np.ptp(columns)) + 1
    if longest > min(sample.label.shape):  # of a long picture, as planes side by side are
        return slice(None), slice(None)
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
