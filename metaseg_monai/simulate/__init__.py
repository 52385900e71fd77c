"""Data that are made: cells, CT phantoms, shapes, other magnifications and styles."""

from metaseg_monai.simulate.cells.culture import CUES, LINES, SEVEN_LINES
from metaseg_monai.simulate.cells.plan import RECIPES
from metaseg_monai.simulate.cells.write import cells_table, generate_cells
from metaseg_monai.simulate.magnify import magnify_table
from metaseg_monai.simulate.phantoms import (
    generate_phantom_slices,
    generate_phantoms,
    phantom_table,
)
from metaseg_monai.simulate.shapes import SHAPES, generate_synthetic_shapes, synthetic_table
from metaseg_monai.simulate.styles import prepare_styles

__all__ = [
    "CUES",
    "LINES",
    "RECIPES",
    "SEVEN_LINES",
    "SHAPES",
    "cells_table",
    "generate_cells",
    "generate_phantom_slices",
    "generate_phantoms",
    "generate_synthetic_shapes",
    "magnify_table",
    "phantom_table",
    "prepare_styles",
    "synthetic_table",
]
