"""One look for all figures: type, size and file; a colour for each condition that never changes."""

import colorsys
import io
import re
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from PIL import Image

WIDTH = 7.4  # inches; 1110 pixels, so that 9 point is about 13 pixels on a page 800 pixels wide
DPI = 150
INK, SOFT = "#222222", "#6b6b6b"
STYLE: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "text.color": INK,
    "text.parse_math": False,  # a category may hold $
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9a9a9a",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
    "xtick.color": "#9a9a9a",
    "ytick.color": "#9a9a9a",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "figure.facecolor": "white",
    "hatch.linewidth": 0.6,
}


def png(figure: Figure) -> bytes:
    """Draw a figure at 150 dots an inch; the same figure gives the same bytes.

    A narrow figure gets a white margin on its right, so that letters have one size on a page that
    shows all figures equally wide.
    """
    figure.set_dpi(DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    page = Image.new("RGB", (max(picture.width, round(WIDTH * DPI)), picture.height), "white")
    page.paste(picture)
    buffer = io.BytesIO()
    page.save(buffer, format="PNG", dpi=(DPI, DPI), optimize=True)
    return buffer.getvalue()


CONDITIONS = {
    "none": "#7d8288",
    "se": "#1b7fbd",
    "me": "#d1495b",
    "sme": "#2e9e6b",
    "sme-duplicated": "#8fa31e",
    "sme-deep": "#1c5c45",
    "sme-late": "#0d9ba8",
    "me-direct": "#e07b39",
    "film": "#8a5cc2",
    "film-ivadomed": "#c25aa8",
    "adaptive-norm": "#3b3f8f",
    "low-rank": "#c98a1b",
    "hyper": "#a3324f",
    "constant-channel": "#5a6b7d",
    "dynamic": "#b0742f",
    "multi-head": "#4f6fb0",
    "weight-noise": "#6e5a7d",
    "meta-image": "#55803c",
    "experts": "#7a4a21",
}
# for domains and ablations, which have no colour of their own: told apart by order and marker
PALETTE = (
    "#1b7fbd", "#d1495b", "#2e9e6b", "#8a5cc2", "#c98a1b", "#0d9ba8",
    "#7a4a21", "#c25aa8", "#5a6b7d", "#8fa31e", "#e07b39", "#3b3f8f",
)  # fmt: skip
MARKERS = "osD^vPX<>ph*"


class Look(NamedTuple):
    """How a condition is drawn: colour, fill pattern, line style and marker."""

    colour: str
    hatch: str
    line: str
    marker: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Give each condition or domain its look.

    A variant keeps its colour in every figure. Its dummy is lighter, hatched and dashed, and so is
    any other form of it (``experts-steps``, ``sme-r4``). Other names take in turn the colours of
    the palette that no variant among the names has.

    >>> looks(["sme", "sme-dummy"])["sme"].colour
    '#2e9e6b'
    """
    found: dict[str, Look] = {}
    distinct = list(dict.fromkeys(names))
    taken = {CONDITIONS[known] for name in distinct if (known := _variant_of(name))}
    free = cycle(colour for colour in PALETTE if colour not in taken)
    for number, name in enumerate(distinct):
        marker = MARKERS[number % len(MARKERS)]
        known = _variant_of(name)
        if known == name:
            found[name] = Look(CONDITIONS[name], "", "-", marker)
        elif known is not None:
            found[name] = Look(lighter(CONDITIONS[known]), "////", "--", marker)
        else:
            found[name] = Look(next(free), "", "-", marker)
    return found


def lighter(colour: str, share: float = 0.45) -> str:
    """Mix a colour with white, keeping its hue.

    >>> lighter("#000000", 0.5)
    '#808080'
    """
    hue, light, saturation = colorsys.rgb_to_hls(*to_rgb(colour))
    return to_hex(colorsys.hls_to_rgb(hue, light + (1 - light) * share, saturation))


def ink_on(colour: Any) -> str:
    """Black or white, whichever reads better on a colour (relative luminance, WCAG 2)."""
    channels = np.array(to_rgb(colour))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return INK if float(linear @ [0.2126, 0.7152, 0.0722]) > 0.28 else "white"


def mode_labels(modes: Sequence[str]) -> list[str]:
    """Name test modes in few letters: a fixed label by its value, the field only if there are more.

    >>> mode_labels(["shuffle", "fixed:line=HeLa", "fixed:line=MCF7"])
    ['shuffle', 'HeLa', 'MCF7']
    >>> mode_labels(["fixed:line=HeLa", "fixed:stain=DAPI"])
    ['line=HeLa', 'stain=DAPI']
    """
    fields = {mode.partition("=")[0] for mode in modes if mode.startswith("fixed:")}
    if len(fields) == 1 and any("=" in mode for mode in modes):
        return [mode.partition("=")[2] or mode for mode in modes]
    return [mode.removeprefix("fixed:") for mode in modes]


def folded(name: str, width: int = 11) -> str:
    r"""Break a name into lines of at most about `width` letters, at its hyphens and underscores.

    >>> folded("film-ivadomed-dummy", 9)
    'film-\nivadomed-\ndummy'
    """
    lines = [""]
    for piece in re.findall(r"[^-_= ]*[-_= ]|[^-_= ]+", name):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.strip() for line in lines)


def legend_text(name: str) -> str:
    r"""A name as a legend shows it; one that begins with "_" matplotlib would leave out.

    >>> legend_text("_t_"), legend_text("t")
    ('\u200b_t_', 't')
    """
    return f"\u200b{name}" if name.startswith("_") else name


def panels(figure: Figure, count: int, most: int = 4, share_x: bool = True) -> list[Axes]:
    """Small multiples that share their axes: at most `most` side by side, rows evenly filled."""
    rows = -(-count // most)
    columns = -(-count // rows)
    grid = figure.subplots(rows, columns, sharex=share_x, sharey=True, squeeze=False)
    places = list(grid.flat)
    for spare in places[count:]:
        spare.remove()
    for above in places[max(0, count - columns) : count]:
        above.xaxis.set_tick_params(labelbottom=True)
    return places[:count]


def _variant_of(name: str) -> str | None:
    """The longest known variant that a name is, or starts with before a separator."""
    fitting = [
        known
        for known in CONDITIONS
        if name == known or re.match(rf"{re.escape(known)}[-_ :/(]", name)
    ]
    return max(fitting, key=len, default=None)
