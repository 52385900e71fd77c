"""Folders of data that are made: once, complete or not at all, and known by their settings."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from metaseg_monai.errors import ConfigError, DataError
from metaseg_monai.files import FolderFilledError, check_settings, new_folder, read_lines
from metaseg_monai.metadata.fields import Categorical, said
from metaseg_monai.metadata.schema import MetadataSchema
from metaseg_monai.tables.check import image_files
from metaseg_monai.tables.columns import ColumnMap
from metaseg_monai.tables.table import GENERATED, CaseTable, find_table, read_table, refuse

SETTINGS_FILE = GENERATED
Settings = dict[str, Any]

logger = logging.getLogger(__name__)


def write_generated(
    output: Path, settings: Settings, write: Callable[[Path], object], once: bool = False
) -> None:
    """Make a folder of generated data.

    Processes that do so at once end with the same data, those of the first to finish.

    Args:
        output: folder to make; it may exist if it is empty.
        settings: what decides its content; kept in the folder.
        write: fills a given folder.
        once: leave a folder that was made with these settings as it is.

    Raises:
        DataError: the folder holds files, or was made with other settings.
    """
    output = output.resolve()  # "." has no name
    record = output / SETTINGS_FILE
    if not _is_empty_folder(output) and output.exists() and not (once and record.is_file()):
        raise DataError(f"{output}: not empty; give another folder, or remove it first")
    if not record.is_file():
        try:
            _write_folder(output, settings, write)
        except FolderFilledError:
            if not once:
                raise
            logger.info("%s was filled by another process; using that", output)
    check_settings(record, settings)


def ensure_generated(
    folder: Path, default: Path, generate: Callable[[], object], command: str
) -> None:
    """Fill an empty default folder of a bundle once, saying so (contract 16).

    Args:
        folder: folder that training reads.
        default: the bundle's own folder for generated data.
        generate: fills it, or refuses one that was filled with other settings.
        command: makes such data, for messages.

    Raises:
        DataError: another folder is missing or empty, or the default folder holds data generated
            with other settings.
    """
    is_default = folder.resolve() == default.resolve()
    empty = not folder.exists() or _is_empty_folder(folder)
    if empty and not is_default:
        raise DataError(
            f"{folder}: missing or empty; expected a folder with a table. Make one with "
            f"`{command}`, or check the path (dataset_dir)"
        )
    if empty:
        logger.warning("%s is empty: generating data there, once", folder)
    if is_default and (empty or (folder / SETTINGS_FILE).is_file()):  # else it is the user's
        generate()


def _is_empty_folder(path: Path) -> bool:
    try:
        return not any(path.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # another process may just replace it
        return False


def _write_folder(output: Path, settings: Settings, write: Callable[[Path], object]) -> None:
    with new_folder(output) as partial:
        write(partial)
        (partial / SETTINGS_FILE).write_text(json.dumps(settings) + "\n", encoding="utf-8")


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
