"""Folders of generated data: made once, complete or not at all, and known by their settings."""

import json
import logging
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from metaseg_monai.errors import DataError
from metaseg_monai.files import folder_beside, remove_leftovers

SETTINGS_FILE = "generated.json"
Settings = dict[str, Any]

logger = logging.getLogger(__name__)


def write_generated(output: Path, settings: Settings, write: Callable[[Path], None]) -> None:
    """Make a folder of generated data.

    Args:
        output: folder to make; it may exist if it is empty.
        settings: what decides its content; kept in the folder.
        write: fills a given folder.

    Raises:
        DataError: the folder holds files.
    """
    output = output.resolve()  # "." has no name
    if output.exists() and not _is_empty_folder(output):
        raise DataError(f"{output}: not empty; give another folder, or remove it first")
    if not _write_folder(output, settings, write):
        raise DataError(f"{output}: another process filled it meanwhile; use that, or another one")


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
        if not _write_folder(folder, settings, write):
            logger.info("%s was filled by another process; using that", folder)
    if is_default:
        _check_settings(folder, settings)


def _is_empty_folder(path: Path) -> bool:
    try:
        return not any(path.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # another process may just replace it
        return False


def _check_settings(folder: Path, asked: Settings) -> None:
    """Refuse generated data that are not those asked for; a folder made by hand passes."""
    record = folder / SETTINGS_FILE
    if record.is_file():
        try:
            made = json.loads(record.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(
                f"{record}: damaged ({error}); remove {folder} to make it anew"
            ) from error
        if made != asked:
            raise DataError(
                f"{folder}: was generated with {made}, asked for {asked}; give another "
                "dataset_dir, or remove the folder to generate it anew"
            )


def _write_folder(output: Path, settings: Settings, write: Callable[[Path], None]) -> bool:
    """Write everything beside `output`, then rename; False where another was there first."""
    output = output.resolve()
    for path in remove_leftovers(output).removed:
        logger.warning("%s: was left half-written by a run that was killed; removed", path)
    partial = folder_beside(output)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise DataError(f"{output}: cannot be made ({error}); give another folder") from error
    try:
        write(partial)
        (partial / SETTINGS_FILE).write_text(json.dumps(settings) + "\n", encoding="utf-8")
        return _put_in_place(partial, output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _put_in_place(partial: Path, output: Path) -> bool:
    if output == Path.cwd() and _is_empty_folder(output):
        # Renaming would leave the user's shell in a folder that is gone. What is in it goes over
        # one by one, so the folder counts as filled (not empty) from the first on.
        for path in sorted(partial.iterdir()):
            path.rename(output / path.name)
        return True
    try:
        partial.rename(output)  # onto an empty folder too, in one step, except on Windows
    except OSError:
        if output.exists() and not _is_empty_folder(output):
            return False
        with suppress(OSError):
            output.rmdir()
        partial.rename(output)
    return True
