"""The deep check of a table as one text for a person."""

from pathlib import Path
from typing import Literal

from metaseg_monai.images.image import Channels
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.tables.check import check_table
from metaseg_monai.tables.table import refuse


def check(
    table: str | Path,
    schema_file: str | Path,
    columns_file: str | Path | None = None,
    classes: int = 2,
    channel_conversion: Channels = "stored",
    out_of_range: Literal["error", "flag"] | None = None,
) -> str:
    """Read every file of a table and report all problems before any training.

    Example:
        python -m metaseg_monai check shapes/table.csv --schema_file schema.json

    Args:
        table: table.csv or the folder that holds it.
        schema_file: JSON file of the metadata fields.
        columns_file: JSON file of a column map, for tables with other column names.
        classes: number of label classes with the background.
        channel_conversion: stored | grey | rgb, as in training.
        out_of_range: error | flag, instead of what the schema says, as in training.

    Returns:
        A summary, and the warnings.

    Raises:
        DataError: listing the problems, if there are any.
    """
    schema = MetadataSchema.load(schema_file, out_of_range)
    found = check_table(table, schema, columns_file, classes, channel_conversion)
    refuse(Path(table), found.problems)
    warnings = [f"warning: {text}" for text in found.warnings]
    return "\n".join([found.summary, *warnings, "no problems found"])
