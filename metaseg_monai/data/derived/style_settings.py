"""What is asked of annotation styles, checked before anything is read or written."""

import math
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from metaseg_monai.data.columns import ColumnMap
from metaseg_monai.data.table import CaseTable
from metaseg_monai.errors import ConfigError

INSTANCES = "instances"  # column with the file of object numbers of a row
EXAMPLE = "as {'exact': 0, 'fine': 2, 'coarse': 3.5}"


def check_tolerances(tolerances: object) -> tuple[dict[str, float], str]:
    """Give the tolerances in pixels by style, and the style that is exact.

    Raises:
        ConfigError: they are no mapping of names to numbers from 0, a name cannot be in that of
            a file, or not exactly one is 0.
    """
    if not isinstance(tolerances, Mapping):
        raise ConfigError(
            f"tolerances={tolerances!r}: expected the tolerance in pixels of each style, {EXAMPLE}"
        )
    for name, tolerance in tolerances.items():
        if not (isinstance(name, str) and re.fullmatch(r"[\w-]+", name)):
            raise ConfigError(
                f"tolerances: {name!r} cannot name files; use letters, digits, - and _"
            )
        if not _is_number(tolerance) or tolerance < 0:
            raise ConfigError(
                f"tolerances: {name!r} is {tolerance!r}, expected a number of pixels from 0, "
                f"{EXAMPLE}"
            )
    exact = [name for name, tolerance in tolerances.items() if tolerance == 0]
    if len(exact) != 1:
        raise ConfigError(
            f"tolerances={dict(tolerances)}: expected one style of tolerance 0, that of the "
            f"validation and test masks, {EXAMPLE}"
        )
    return dict(tolerances), exact[0]


def check_numbers(seed: object, reference_diameter_px: object) -> None:
    """Refuse a seed that is no whole number from 0, or a diameter that is no number above 0.

    Raises:
        ConfigError: so.
    """
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ConfigError(f"seed={seed!r}: expected a whole number, 0 or more")
    diameter = reference_diameter_px
    if diameter is not None and not (_is_number(diameter) and diameter > 0):
        raise ConfigError(
            f"reference_diameter_px is {diameter!r}: expected the median diameter of a nucleus in "
            "pixels, a number above 0; leave it out to take the tolerances as they are"
        )


def _is_number(value: Any) -> TypeGuard[float]:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


def check_map(columns: ColumnMap) -> None:
    """Refuse a column map whose labels are not one drawing each.

    Raises:
        ConfigError: there are no labels, or a metadata field decides what a label's values mean.
    """
    if columns.label is None:
        raise ConfigError("column map: label is null; styles need a column of label files")
    if isinstance(columns.label_values, dict):
        raise ConfigError(
            "column map: label_values that a metadata field decides give one label several masks; "
            "save each mask as a label of its own first"
        )


def check_column(table: CaseTable, column: str, columns: ColumnMap) -> None:
    """Refuse a name for the new column that would replace what the table says.

    Raises:
        ConfigError: the column has a meaning of its own, or tells rows apart.
    """
    own = [columns.image, columns.label, columns.group, columns.split, columns.case, INSTANCES]
    if not isinstance(column, str) or not column.strip() or column in own:
        raise ConfigError(f"column={column!r}: expected a new column's name, such as style")
    values = {item["columns"].get(column) for item in table.rows}
    if len(values) > 1:
        told = ", ".join(sorted(map(str, values)))
        raise ConfigError(
            f"{table.path}: its column {column!r} already tells rows apart ({told}); give the "
            "styles another column (column, or --column on the command line)"
        )
