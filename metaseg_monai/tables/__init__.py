"""Tables of cases: rows, columns, splits, and the items made of them."""

from metaseg_monai.errors import DataWarning
from metaseg_monai.tables.check import LoadedCase, TableCheck, check_table, load_case
from metaseg_monai.tables.clinical import read_clinical
from metaseg_monai.tables.columns import SPLITS, ColumnMap
from metaseg_monai.tables.find import each_value, find_cases
from metaseg_monai.tables.select import (
    around_objects,
    fill_epoch,
    fold_cases,
    limit_empty,
    select_cases,
    slices,
)
from metaseg_monai.tables.table import CaseTable, read_table

__all__ = [
    "SPLITS",
    "CaseTable",
    "ColumnMap",
    "DataWarning",
    "LoadedCase",
    "TableCheck",
    "around_objects",
    "check_table",
    "each_value",
    "fill_epoch",
    "find_cases",
    "fold_cases",
    "limit_empty",
    "load_case",
    "read_clinical",
    "read_table",
    "select_cases",
    "slices",
]
