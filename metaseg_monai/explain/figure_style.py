"""What all figures, of the gates and of a study's report, have in common: type, size and file."""

import io
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

WIDTH = 7.4  # inches; 1110 pixels, so that 9 point is about 13 pixels on a page 800 pixels wide
DPI = 150
INK, SOFT = "#222222", "#6b6b6b"
STYLE: Any = {
    "font.size": 9,
    "font.family": "DejaVu Sans",
    "text.color": INK,
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
