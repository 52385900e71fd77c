"""Folders of generated data: made once, complete or not at all, and known by their settings."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from metaseg_monai.errors import DataError
from metaseg_monai.files import FolderFilledError, check_settings, new_folder
from metaseg_monai.tables.table import GENERATED

SETTINGS_FILE = GENERATED
Settings = dict[str, Any]

logger = logging.getLogger(__name__)


def write_generated(
    output: Path, settings: Settings, write: Callable[[Path], None], once: bool = False
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
    folder: Path, default: Path, settings: Settings, write: Callable[[Path], None], command: str
) -> None:
    """Fill an empty default folder of a bundle once, saying so (contract 16).

    Processes that do so at once end with the same data, those of the first to finish.

    Args:
        folder: folder that training reads.
        default: the bundle's own folder for generated data.
        settings: what decides the content.
        write: fills a given folder.
        command: makes such data, for messages.

    Raises:
        DataError: another folder is missing or empty, or the default folder holds data generated
            with other settings.
    """
    is_default = folder.resolve() == default.resolve()
    if not folder.exists() or _is_empty_folder(folder):  # files in it are the user's
        if not is_default:
            raise DataError(
                f"{folder}: missing or empty; expected a folder with a table. Make one with "
                f"`{command}`, or check the path (dataset_dir)"
            )
        logger.warning("%s is empty: generating data there, once", folder)
        try:
            _write_folder(folder, settings, write)
        except FolderFilledError:
            logger.info("%s was filled by another process; using that", folder)
    if is_default:  # a folder made by hand has no settings
        check_settings(folder / SETTINGS_FILE, settings)


def _is_empty_folder(path: Path) -> bool:
    try:
        return not any(path.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # another process may just replace it
        return False


def _write_folder(output: Path, settings: Settings, write: Callable[[Path], None]) -> None:
    with new_folder(output) as partial:
        write(partial)
        (partial / SETTINGS_FILE).write_text(json.dumps(settings) + "\n", encoding="utf-8")
