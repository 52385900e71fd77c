"""What tells the rows of one image apart, where no schema says it."""

from pathlib import Path

from metaseg_monai.data.columns import ColumnMap
from metaseg_monai.data.rows import read_lines
from metaseg_monai.metadata import Categorical, MetadataSchema

ROW = "row"


def schema_of_repeats(
    table: Path, columns: ColumnMap
) -> tuple[MetadataSchema | None, dict[str, str]]:
    """Find the column, such as task, whose values differ between the rows of each image.

    Of several the one with the fewest values is taken, and of these the first.

    Args:
        table: the table's file.
        columns: of the table.

    Returns:
        A schema of that column as its only field, and the field's place in a column map
        (`ColumnMap.metadata`). None and {} where no image has several rows, or no column tells
        them apart; `read_table` then refuses them as repeated.

    Raises:
        DataError: the table is no readable CSV file.
    """
    _, lines, _ = read_lines(table)
    rows = [cells for _, cells in lines if cells.get(columns.image) not in columns.exclude]
    images = [cells.get(columns.image, "").strip() for cells in rows]
    if len(set(images)) == len(images):
        return None, {}
    values = {name: [_said(cells[name]) for cells in rows] for name in rows[0]}
    telling = [
        name for name, cells in values.items()
        if len(set(zip(images, cells, strict=True))) == len(images)
    ]  # fmt: skip
    if not telling:
        return None, {}
    column = min(telling, key=lambda name: len(set(values[name])))
    field = Categorical(
        name=ROW, values=tuple(sorted({*values[column]} - {""})), missing="unknown",
        provenance="acquisition", availability="acquisition",
    )  # fmt: skip
    return MetadataSchema([field]), {ROW: column}


def _said(cell: str) -> str:
    return "" if Categorical.is_missing(cell) else cell.strip()
