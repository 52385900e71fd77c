"""CT phantoms: abdomens drawn from a seed, scanned, and cut into slices."""

from metaseg_monai.data.phantoms.scans import generate_phantoms
from metaseg_monai.data.phantoms.table import phantom_table

__all__ = ["generate_phantoms", "phantom_table"]
