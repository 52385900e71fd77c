"""Data that are made: cells, adipocytes, CT phantoms, shapes, other magnifications and styles."""

from metaseg_monai.simulate.adipocyte import generate_adipocyte
from metaseg_monai.simulate.cells.culture import SEVEN_LINES
from metaseg_monai.simulate.cells.write import generate_cells
from metaseg_monai.simulate.magnify import magnify_table
from metaseg_monai.simulate.phantoms import generate_phantom_slices, generate_phantoms
from metaseg_monai.simulate.shapes import generate_synthetic_shapes
from metaseg_monai.simulate.styles import prepare_styles

__all__ = [
    "SEVEN_LINES",
    "generate_adipocyte",
    "generate_cells",
    "generate_phantom_slices",
    "generate_phantoms",
    "generate_synthetic_shapes",
    "magnify_table",
    "prepare_styles",
]
