"""Simulated microscopy of cell lines, with every data set of the texts as a recipe."""

from metaseg_monai.data.cells.lines import CUES, LINES, SEVEN_LINES
from metaseg_monai.data.cells.plan import RECIPES
from metaseg_monai.data.cells.write import cells_table, generate_cells

__all__ = ["CUES", "LINES", "RECIPES", "SEVEN_LINES", "cells_table", "generate_cells"]
