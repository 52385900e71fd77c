"""KiTS19, KiTS21 and KiTS23: from a download to slices and a table, or to whole volumes."""

from metaseg_monai.data.kits.clinical import read_clinical
from metaseg_monai.data.kits.prepare import Prepared, prepare_kits21
from metaseg_monai.data.kits.volumes import kits_volumes

__all__ = ["Prepared", "kits_volumes", "prepare_kits21", "read_clinical"]
