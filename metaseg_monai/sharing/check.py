"""The deep check of a table as one text for a person."""

from typing import Any

from metaseg_monai.data import check_table
from metaseg_monai.errors import DataError
from metaseg_monai.metadata import MetadataSchema

MOST = 30


def check(table: str, schema: str, columns: str | None, classes: int, channels: Any) -> str:
    """Read every file of a table and return its summary and warnings.

    Args:
        table: table.csv or its folder.
        schema: JSON file of the metadata schema.
        columns: JSON file of a column map, or None.
        classes: number of label classes with the background.
        channels: stored | grey | rgb.

    Raises:
        DataError: listing the problems, if there are any.
    """
    found = check_table(table, MetadataSchema.load(schema), columns, classes, channels)
    if found.problems:
        rest = len(found.problems) - MOST
        lines = [*found.problems[:MOST], *([f"and {rest} more"] if rest > 0 else [])]
        raise DataError(f"{table} has {len(found.problems)} problem(s):\n  " + "\n  ".join(lines))
    warnings = [f"warning: {text}" for text in found.warnings]
    return "\n".join([found.summary, *warnings, "no problems found"])
