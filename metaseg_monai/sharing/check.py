"""The deep check of a table as one text for a person."""

from pathlib import Path
from typing import Any

from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.tables.check import check_table
from metaseg_monai.tables.table import refuse


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
    refuse(Path(table), found.problems)
    warnings = [f"warning: {text}" for text in found.warnings]
    return "\n".join([found.summary, *warnings, "no problems found"])
