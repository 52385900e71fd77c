"""Folders of data that are made: once, complete or not at all, and known by their settings."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import tifffile

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import FolderFilledError, check_settings, new_folder
from metaseg_monai.metadata.fields import Categorical, said
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.owners import owned
from metaseg_monai.rows import read_lines
from metaseg_monai.tables.check import image_files
from metaseg_monai.tables.columns import ColumnMap
from metaseg_monai.tables.licenses import Statement, save_license, statement
from metaseg_monai.tables.table import (
    CLASSES,
    GENERATED,
    CaseTable,
    find_table,
    read_table,
    refuse,
    save_class_names,
)

logger = logging.getLogger(__name__)


def write_generated(
    output: Path,
    settings: Mapping[str, Any],
    write: Callable[[Path], object],
    once: bool = False,
    class_names: Mapping[int, str] | None = None,
    licenses: Sequence[Statement] | None = None,
) -> None:
    """Make a folder of generated data.

    With `once`, processes that do so at once end with the same data, those of the first.

    Args:
        output: folder to make; it may exist if it is empty.
        settings: what decides its content; kept in the folder.
        write: fills a given folder.
        once: leave a folder that was made with these settings as it is.
        class_names: of the labels, kept beside the table.
        licenses: of the data that these are made of; None where they are drawn from a seed.

    Raises:
        DataError: the folder holds files, or was made with other settings.
    """
    output = output.resolve()  # "." has no name
    record, filled = output / GENERATED, False
    with suppress(FileNotFoundError, NotADirectoryError):  # another process may just replace it
        filled = output.is_file() or any(output.iterdir())
    if filled and not (once and record.is_file()):
        raise DataError(f"{output}: not empty; give another folder, or remove it first")
    with owned(output, "is generating data here", wait=once):
        if not record.is_file():
            try:
                with new_folder(output) as folder:
                    write(folder)
                    save_license(folder, [statement("generated")] if licenses is None else licenses)
                    if class_names:
                        save_class_names(class_names, folder / CLASSES)
                    (folder / GENERATED).write_text(json.dumps(settings) + "\n", encoding="utf-8")
            except FolderFilledError:  # by a rank of the same run, or where there are no locks
                if not once:
                    raise
                logger.info("%s was filled by another process; using that", output)
    check_settings(record, settings)


def write_tiff(path: Path, array: np.ndarray, pixel_um: float | None = None) -> None:
    """Write plain TIFF; its resolution tags tell the pixel size, in centimetres as TIFF does."""
    tifffile.imwrite(
        path,
        array,
        photometric="minisblack",
        compression="zlib",
        metadata=None,
        resolution=(1e4 / pixel_um, 1e4 / pixel_um) if pixel_um else None,
        resolutionunit="CENTIMETER" if pixel_um else None,
    )


def require(*conditions: tuple[bool, str]) -> None:
    """Refuse settings at the door: pairs of what must hold, and what is told where it does not.

    Raises:
        ConfigError: the first that does not hold.
    """
    for holds, message in conditions:
        if not holds:
            raise ConfigError(message)


def is_whole(value: object, least: int = 0) -> bool:
    """Whether a setting is a whole number, `least` or more; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def require_whole(**settings: tuple[object, int]) -> None:
    """Refuse settings, given as name=(value, least), that are no whole numbers from the least.

    Raises:
        ConfigError: the first that is none.
    """
    for name, (value, least) in settings.items():
        require(
            (is_whole(value, least), f"{name}={value!r}: expected a whole number, {least} or more")
        )


# What is made of a table's files: its rows, whatever a schema would make of them.

INSTANCES = "instances"  # column with the file of object numbers of a row


class Stored(NamedTuple):
    """A row whose files are made anew; paths are relative to the table's folder.

    Attributes:
        case: its name.
        group: what stays in one split.
        split: train, val or test.
        images: file of the image, or one a plane.
        label: file of the label, or None.
        instances: file of object numbers, or None.
        cells: every cell as text.
    """

    case: str
    group: str
    split: str
    images: tuple[str, ...]
    label: str | None
    instances: str | None
    cells: dict[str, str]

    @property
    def files(self) -> list[str]:
        """All files of the row."""
        return [path for path in (*self.images, self.label, self.instances) if path]


def read_stored(source: str | Path, columns: ColumnMap) -> tuple[CaseTable, list[Stored]]:
    """Read a table without what needs a schema: files are made anew whatever they mean.

    Args:
        source: the table, or the folder that holds it.
        columns: of the table; every line is one row, whatever `rows_per` says.

    Raises:
        DataError: the table has problems, no training rows, or object numbers outside its folder.
    """
    schema, place = _schema_of_repeats(find_table(source, columns), columns)
    plain: dict[str, Any] = {"metadata": place, "factors": {}, "rows_per": None}
    if isinstance(columns.label_values, dict):
        plain["label_values"] = []
    table = read_table(source, schema, columns.model_copy(update=plain))
    home = table.path.parent.resolve()
    rows, problems = [], []
    for item in table.rows:
        label = item.get("label") and Path(item["label"]).relative_to(home).as_posix()
        images = tuple(Path(file).relative_to(home).as_posix() for file in image_files(item))
        cell = item["columns"].get(INSTANCES, "").strip()
        if Path(cell).is_absolute() or ".." in Path(cell).parts:
            problems.append(
                f"case {item['case']!r}: column {INSTANCES!r}: {cell!r} leaves the table's folder; "
                "expected a path relative to the table, without '..'"
            )
        elif cell and not (home / cell).is_file():
            problems.append(f"case {item['case']!r}: no such file {cell!r} beside the table")
        own = (item["case"], item["group"], item["split"], images, label, cell or None)
        rows.append(Stored(*own, item["columns"]))
    refuse(table.path, problems)
    if "train" not in table.splits:
        raise DataError(f"{table.path}: no row of the split 'train', from which all is made")
    return table, rows


def _schema_of_repeats(
    table: Path, columns: ColumnMap
) -> tuple[MetadataSchema | None, dict[str, str]]:
    """The column, such as task, that tells the rows of an image apart, as a schema and its map.

    Of several that with the fewest values, and of these the first; (None, {}) where no image has
    several rows, or no column tells them apart: `read_table` then refuses them as repeated.
    """
    lines = [cells for _, cells in read_lines(table)[1]]
    rows = pd.DataFrame([one for one in lines if one.get(columns.image) not in columns.exclude])
    if columns.image not in rows or not rows[columns.image].duplicated().any():
        return None, {}
    rows = rows.map(said)
    others = rows.columns.drop(columns.image)
    telling = [name for name in others if not rows.duplicated([columns.image, name]).any()]
    if not telling:
        return None, {}
    column = min(telling, key=lambda name: rows[name].nunique())
    field = Categorical(
        name="row", values=tuple(sorted({*rows[column]} - {""})), missing="unknown",
        provenance="acquisition", availability="acquisition",
    )  # fmt: skip
    return MetadataSchema([field]), {"row": column}
