"""From tables and image files to items and arrays."""

from metaseg_monai.data.cases import DataWarning, LoadedCase, load_case
from metaseg_monai.data.cells import cells_table, generate_cells
from metaseg_monai.data.check import TableCheck, check_table
from metaseg_monai.data.columns import SPLITS, ColumnMap
from metaseg_monai.data.empty import limit_empty
from metaseg_monai.data.find import find_cases
from metaseg_monai.data.image import Image, convert_channels
from metaseg_monai.data.kits import kits_volumes, prepare_kits21
from metaseg_monai.data.phantoms import generate_phantoms, phantom_table
from metaseg_monai.data.readers import TiffReader, read_image
from metaseg_monai.data.select import fill_epoch, select_cases
from metaseg_monai.data.shapes import SHAPES
from metaseg_monai.data.slices import slice_items
from metaseg_monai.data.synthetic import generate_synthetic_shapes, synthetic_table
from metaseg_monai.data.table import CaseTable, read_table
from metaseg_monai.data.writers import mask_suffix, write_mask, write_table

__all__ = [
    "SHAPES",
    "SPLITS",
    "CaseTable",
    "ColumnMap",
    "DataWarning",
    "Image",
    "LoadedCase",
    "TableCheck",
    "TiffReader",
    "cells_table",
    "check_table",
    "convert_channels",
    "fill_epoch",
    "find_cases",
    "generate_cells",
    "generate_phantoms",
    "generate_synthetic_shapes",
    "kits_volumes",
    "limit_empty",
    "load_case",
    "mask_suffix",
    "phantom_table",
    "prepare_kits21",
    "read_image",
    "read_table",
    "select_cases",
    "slice_items",
    "synthetic_table",
    "write_mask",
    "write_table",
]
