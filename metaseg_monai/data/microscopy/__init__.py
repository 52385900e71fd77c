"""Microscopy folders of many layouts: found, checked, divided, and written with a table."""

from metaseg_monai.data.microscopy.cells import prepare_cells
from metaseg_monai.data.microscopy.cracks import crack_shares, prepare_cracks
from metaseg_monai.data.microscopy.dsb2018 import prepare_dsb2018
from metaseg_monai.data.microscopy.names import prepare_names
from metaseg_monai.data.microscopy.ome import ome_columns, read_ome
from metaseg_monai.data.microscopy.prepare import PrepareOptions

__all__ = [
    "PrepareOptions",
    "crack_shares",
    "ome_columns",
    "prepare_cells",
    "prepare_cracks",
    "prepare_dsb2018",
    "prepare_names",
    "read_ome",
]
