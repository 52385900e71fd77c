"""From what an explained run left in its folder to figures, each as PNG bytes, and a table."""

import textwrap
from pathlib import Path
from typing import Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metaseg_monai.evaluation.provenance import add_results, check_results
from metaseg_monai.explain.activations import (
    Activations,
    Part,
    by_value,
    compared_modes,
    difference,
    most_different,
    read_activations,
)
from metaseg_monai.explain.features import FeatureMaps, read_features
from metaseg_monai.explain.figure_style import SOFT, STYLE, WIDTH, legend_text, png
from metaseg_monai.files import replacing
from metaseg_monai.naming import file_name
from metaseg_monai.rows import frame_csv

ONE, OTHER = "#1b7fbd", "#d1495b"
LETTERS = 84  # of 10 point that fit into the width of a figure
CHANNELS = 8  # shown of the feature maps (thesis figures B.4 and B.5 show all)


def draw(folder: str | Path) -> list[Path]:
    """Write the figures and ``gates.csv`` of a run whose gates were recorded.

    Args:
        folder: of the run, with ``explain/activations.npz`` and ``features.npz``.

    Returns:
        The files written into ``explain`` inside the folder: ``gates.csv``, ``scale.png``,
        ``shift.png`` where gates shift, ``difference.png`` of the two metadata values that differ
        most where there are two, with ``gate_<name>.png`` of the gate whose features were kept and
        of the one that differs most, and ``features_<case>_before.png`` and ``..._after.png`` for
        each kept case.

    Raises:
        DataError: the folder has no recorded gates, or those of other weights.
    """
    folder = Path(folder) / "explain"
    activations = read_activations(folder / "activations.npz")
    features = read_features(folder / "features.npz")
    record = check_results(folder)
    pictures = {"scale": gate_activations(activations)}
    if activations.shift:
        pictures["shift"] = gate_activations(activations, "shift")
    if pair := most_different(activations):
        pictures["difference"] = gate_differences(activations, *pair)
        gaps = difference(activations, *pair)
        largest = max(gaps, key=lambda gate: float(gaps[gate].mean()))
        for gate in dict.fromkeys([features[0].gate, largest]):
            pictures[f"gate_{file_name(gate)}"] = single_gate(activations, gate, *pair)
    for maps in features:
        pictures[f"features_{file_name(maps.case)}_before"] = feature_maps(maps, "before")
        pictures[f"features_{file_name(maps.case)}_after"] = feature_maps(maps, "after")
    written = [folder / "gates.csv"]
    with replacing(written[0]) as part:
        part.write_bytes(frame_csv(gate_table(activations)).encode())
    for name, content in pictures.items():
        written.append(folder / f"{name}.png")
        with replacing(written[-1]) as part:
            part.write_bytes(content)
    add_results(folder, record, written)
    return written


def gate_table(activations: Activations) -> pd.DataFrame:
    """List the activations: gate, channel, mode, domain, cases, scale, and shift or nothing."""
    tables = []
    for gate, scale in activations.scale.items():
        shift = activations.shift.get(gate)
        for channel in range(scale.shape[1]):
            table = activations.rows.assign(gate=gate, channel=channel, scale=scale[:, channel])
            tables.append(table.assign(shift=None if shift is None else shift[:, channel]))
    columns = ["gate", "channel", "mode", "domain", "cases", "scale", "shift"]
    return pd.concat(tables, ignore_index=True)[columns]


def gate_activations(activations: Activations, part: Part = "scale") -> bytes:
    """Heat map of every gate, one strip each: rows are metadata values, columns channels.

    Args:
        activations: of one network.
        part: "scale" or "shift"; the first is drawn from 0 to 1 where it stays there, as after a
            sigmoid, the second around 0.
    """
    tables = by_value(activations, part)
    strips = [table.to_numpy() for table in tables.values()]
    low, high = min(strip.min() for strip in strips), max(strip.max() for strip in strips)
    colours = "viridis"
    if part == "scale" and low >= 0 and high <= 1:
        low, high = 0, 1
    if part == "shift":
        high = max(abs(low), abs(high))
        low, colours = -high, "RdBu_r"
    rows = len(next(iter(tables.values())))
    columns = 2 if len(tables) > 5 else 1
    lines = -(-len(tables) // columns)
    size = (WIDTH, lines * (0.12 * rows + 0.36) + 0.35)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False)
        places = list(grid.T.flat)  # down the first column, then down the second
        for axes, (gate, table) in zip(places, tables.items(), strict=False):
            values = table.to_numpy()
            picture = axes.imshow(
                values, vmin=low, vmax=high, cmap=colours, aspect="auto", interpolation="nearest"
            )
            _bare(axes)
            _channel_axis(axes, values.shape[1], size=6.5)
            axes.tick_params(axis="x", pad=1)
            axes.set_yticks(range(rows), list(table.index) if axes in grid[:, 0] else [""] * rows)
            axes.tick_params(axis="y", labelsize=6.5)
            axes.set_title(gate, size=8, pad=2)
        for spare in places[len(tables) :]:
            spare.remove()
        figure.colorbar(picture, ax=places[: len(tables)], fraction=0.03, aspect=40)
        of = "metadata value" if _is_steered(activations) else "domain of the images"
        cases = activations.rows.groupby("mode")["cases"].sum().max()
        figure.suptitle(f"{part.capitalize()} of every channel by {of}, {cases} cases", size=10)
        return png(figure)


def gate_differences(activations: Activations, first: str, second: str) -> bytes:
    """Absolute difference of the scales under two metadata values, all gates (thesis figure B.6).

    Args:
        activations: of one network.
        first: a metadata value, in the index of `by_value`.
        second: another.
    """
    found = difference(activations, first, second)
    widest = max(len(values) for values in found.values())
    matrix = np.full((len(found), widest), np.nan)  # blank where a gate has fewer channels
    for row, values in enumerate(found.values()):
        matrix[row, : len(values)] = values
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.24 * len(found) + 1.5), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(5, 1), sharey=True)
        picture = left.imshow(
            matrix, vmin=0, cmap="magma_r", aspect="auto", interpolation="nearest"
        )
        _bare(left)
        left.set_yticks(range(len(found)), list(found))
        _channel_axis(left, widest)
        left.set_xlabel("channel")
        left.set_title("|difference| of every channel")
        figure.suptitle(_fitting(f"All gates: {_gap_title(activations, first, second)}"), size=10)
        figure.colorbar(picture, ax=left, fraction=0.04, pad=0.02, label="|difference|")
        right.barh(range(len(found)), np.nanmean(matrix, axis=1), color=SOFT, height=0.6)
        right.set_title("mean")
        right.tick_params(axis="y", length=0, labelleft=False)
        right.xaxis.set_major_locator(mpl.ticker.MaxNLocator(2))
        right.spines["left"].set_visible(False)
        return png(figure)


def single_gate(activations: Activations, gate: str, first: str, second: str) -> bytes:
    """Scales of one gate under two metadata values, and their difference (thesis figure 4.13).

    Args:
        activations: of one network.
        gate: name of the gate.
        first: a metadata value.
        second: another.
    """
    gap = difference(activations, first, second)[gate]
    table = by_value(activations)[gate]
    channels = np.arange(len(gap))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        values = [table.loc[name].to_numpy() for name in (first, second)]
        above.vlines(channels, *values, color="#c9c9c9", lw=2, zorder=1)
        told = legend_text(first), legend_text(second)
        above.plot(channels, values[0], "o", mfc="none", color=ONE, ms=6, label=told[0])
        above.plot(channels, values[1], "o", color=OTHER, ms=3, label=told[1])
        above.set_ylabel("scale")
        title = f"Gate {gate}: {_gap_title(activations, first, second)}"
        figure.suptitle(_fitting(title), size=10, x=0.01, ha="left")
        beside = len(first + second) < LETTERS - 12  # with their markers
        handles = above.get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=2 if beside else 1)
        below.bar(channels, gap, color=SOFT, width=0.7)
        _channel_axis(below, len(gap))
        below.set(xlabel="channel", ylabel="|difference|", xlim=(-1, len(gap)))
        return png(figure)


def feature_maps(maps: FeatureMaps, side: Literal["before", "after"]) -> bytes:
    """The image, and the channels that metadata change most: a row for each metadata value.

    Every channel has one range of greys for all its rows, so that rows can be compared.

    Args:
        maps: of one case.
        side: of the gate.
    """
    of_modes = getattr(maps, side)
    modes = compared_modes(list(of_modes))
    shown = maps.channels[:CHANNELS]
    high, wide = maps.image.shape
    names = [mode.removeprefix("fixed:") for mode in modes]
    cell = (WIDTH - 0.08 * max(map(len, names)) - 0.1) / (len(shown) + 1)
    size = (WIDTH, (cell * high / wide + 0.03) * len(modes) + 0.5)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        figure.get_layout_engine().set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)  # type: ignore[union-attr, call-arg]
        grid = figure.subplots(len(modes), len(shown) + 1, squeeze=False)
        for line, mode, name in zip(grid, modes, names, strict=True):
            line[0].imshow(maps.image.astype(float), cmap="gray", vmin=0, vmax=1)
            line[0].set_ylabel(name, rotation=0, ha="right", va="center")
            for place, axes in enumerate(line[1:]):
                every = np.stack([of_modes[one][place] for one in modes]).astype(float)
                top = max(np.quantile(every, 0.995), every.min() + 1e-6)
                panel = of_modes[mode][place].astype(float)
                axes.imshow(panel, cmap="gray", vmin=every.min(), vmax=top)
        for axes in grid.flat:
            axes.set(xticks=[], yticks=[])
            _bare(axes)
        for axes, head in zip(grid[0], ("image", *map(str, shown)), strict=True):
            axes.set_title(head, size=8, loc="center", pad=2)
        cut = f", first of {maps.windows} windows" if maps.windows > 1 else ""
        where = f"{'behind' if side == 'after' else 'before'} gate {maps.gate}"
        case = maps.case if len(maps.case) <= 40 else f"{maps.case[:39]}…"
        figure.suptitle(f"Channels {where}, case {case} ({maps.domain}){cut}", size=10)
        return png(figure)


def _is_steered(activations: Activations) -> bool:
    return activations.rows["mode"].nunique() > 1


def _gap_title(activations: Activations, first: str, second: str) -> str:
    if _is_steered(activations):
        field, equals, value = second.partition("=")
        other = value if equals and first.startswith(f"{field}=") else second
        return f"scale under {first} and {other}, same images"
    return f"scale on images of {first} and of {second}"


def _fitting(title: str) -> str:
    """A title in as many lines as the width of a figure asks for."""
    return textwrap.fill(title, LETTERS, break_long_words=False)


def _bare(axes: Axes) -> None:
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _channel_axis(axes: Axes, channels: int, size: float = 9) -> None:
    step = 2
    while channels > 8 * step:
        step *= 2
    axes.set_xticks(range(0, channels, step))
    axes.tick_params(axis="x", labelsize=size)
