"""A prepared folder: complete or not at all, and made anew only by the command that made it."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from metaseg_monai.data.partial import OLD, folder_beside, remove_leftovers
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
        made = made if isinstance(made, dict) else {}
        names = [name for name in {**made, **asked} if made.get(name) != asked.get(name)]
        if names:
            was, now = ({name: one.get(name) for name in names} for one in (made, asked))
            raise DataError(
                f"{output}: was prepared with {was}, asked for {now}; give another folder, or "
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
    output = output.resolve()  # "." has no name to write beside
    partial = folder_beside(output)
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


def sweep_leftovers(output: Path) -> list[str]:
    """Remove what killed runs left beside a folder; tell what may belong to a run that goes on.

    Args:
        output: the folder that they wrote.

    Returns:
        In words, what was removed or stays.
    """
    removed, kept = remove_leftovers(output.resolve())
    may_be_left = "was left by a run that was ended, if none writes it just now; remove it"
    return [f"removed {path}, left by a run that was ended" for path in removed] + [
        f"{path} {may_be_left}" for path in kept
    ]


def _put(partial: Path, output: Path) -> None:
    """Put the new folder in the place of an old one, which is removed last."""
    old = folder_beside(output, OLD)
    if output in (Path.cwd(), *Path.cwd().parents):
        _fill(partial, output, old)
    else:
        if output.exists():
            output.rename(old)
        try:
            partial.rename(output)
        except OSError:
            if old.exists():
                old.rename(output)
            raise
    shutil.rmtree(old, ignore_errors=True)


def _fill(partial: Path, output: Path, old: Path) -> None:
    """Exchange the content of a folder that someone stands in, and would lose by a new one."""
    old.mkdir()
    moves = [(path, old / path.name) for path in output.iterdir()]
    moves += [(path, output / path.name) for path in partial.iterdir()]
    done: list[tuple[Path, Path]] = []
    try:
        for path, target in moves:
            path.rename(target)
            done.append((path, target))
    except OSError:
        for path, target in reversed(done):
            target.rename(path)
        raise
