"""A prepared folder: complete or not at all, and made anew only by the command that made it."""

import json
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from metaseg_monai.errors import DataError

SETTINGS_FILE = "prepared.json"
WRITTEN = ("images", "labels", "instances", "table.csv", "problems.csv", SETTINGS_FILE)
Made = TypeVar("Made")


def check_output(output: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a folder that holds anything but what the same command wrote.

    Args:
        output: new or empty folder, or one prepared with the same settings.
        settings: what decides its content, as JSON can hold it.

    Raises:
        DataError: the folder holds other files, or was prepared with other settings.
    """
    if not output.exists():
        return
    if not output.is_dir():
        raise DataError(f"{output}: a file, expected a new or empty folder; give another")
    names = sorted(path.name for path in output.iterdir())
    foreign = [name for name in names if name not in WRITTEN]
    record = output / SETTINGS_FILE
    if foreign or (names and not record.is_file()):
        raise DataError(
            f"{output}: holds {', '.join((foreign or names)[:5])}; give a new or empty folder, or "
            "one made by this very command, which is then made anew"
        )
    if names:
        try:
            made = json.loads(record.read_text(encoding="utf-8"))
        except ValueError as error:
            raise DataError(f"{record}: damaged ({error}); give another folder") from error
        asked = json.loads(json.dumps(settings))
        if made != asked:
            raise DataError(
                f"{output}: was prepared with {made}, asked for {asked}; give another folder, or "
                "remove it first"
            )


def write_folder(output: Path, settings: Mapping[str, Any], write: Callable[[Path], Made]) -> Made:
    """Write everything beside `output`, then put it in its place.

    Args:
        output: folder to make; see `check_output`.
        settings: kept in it.
        write: fills a given folder.

    Returns:
        What `write` returned.

    Raises:
        DataError: the folder cannot be written; what was there before is as it was.
    """
    partial = output.with_name(f".partial-{uuid.uuid4().hex}-{output.name}")
    try:
        partial.mkdir(parents=True)
        made = write(partial)
        text = json.dumps(settings, indent=1) + "\n"
        (partial / SETTINGS_FILE).write_text(text, encoding="utf-8")
        check_output(output, settings)  # it may have been filled meanwhile
        _put(partial, output)
    except OSError as error:
        raise DataError(
            f"{output}: cannot be written ({error}); mend that and give the command again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


def _put(partial: Path, output: Path) -> None:
    """Put the new folder in the place of an old one, which is removed last."""
    old = output.with_name(f".old-{uuid.uuid4().hex}-{output.name}")
    if output.exists():
        output.rename(old)
    try:
        partial.rename(output)
    except OSError:
        if old.exists():
            old.rename(output)
        raise
    shutil.rmtree(old, ignore_errors=True)
