"""From a data set as it is published to a folder with table.csv."""

from metaseg_monai.prepare.adipocyte import prepare_adipocyte
from metaseg_monai.prepare.cells import prepare_cells
from metaseg_monai.prepare.cracks import prepare_cracks
from metaseg_monai.prepare.dsb2018 import prepare_dsb2018
from metaseg_monai.prepare.kits import kits_volumes, prepare_kits21
from metaseg_monai.prepare.kits_source import KitsLayout, read_clinical
from metaseg_monai.prepare.names import prepare_names
from metaseg_monai.prepare.pipeline import Prepared

__all__ = [
    "KitsLayout",
    "Prepared",
    "kits_volumes",
    "prepare_adipocyte",
    "prepare_cells",
    "prepare_cracks",
    "prepare_dsb2018",
    "prepare_kits21",
    "prepare_names",
    "read_clinical",
]
