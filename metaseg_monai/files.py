"""Files that are either whole or absent, written beside their place; and what a file holds."""

import glob
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import stat
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from metaseg_monai.errors import ConfigError, DataError, system_refusal
from metaseg_monai.naming import MOST_BYTES, shortened
from metaseg_monai.owners import owned

logger = logging.getLogger(__name__)

PREFIX = ".part-"
RANDOM_BYTES = 64  # of a name that is taken by nobody else, before the one to be
CHUNK_BYTES = 1 << 20
SHOWN_CHARACTERS = 80  # of a value in a message
ZARR = (".zattrs", ".zgroup", ".zarray", "zarr.json")  # one of which each folder of Zarr has
MOST_TEXT = 64 << 20  # bytes of a file that is read as a whole
MOST_TABLE = 1 << 30  # and of a table


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; move it there when the block ends well.

    The temporary file is flushed to the disk before the move, and removed if the block raises, so
    that an old file survives a full disk or a kill. Its name keeps the suffix, by which libraries
    choose the format.

    Args:
        path: the file to write; its folder is made where it is missing.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with replacing(folder / "a.txt") as part:
    ...     _ = part.write_text("whole")
    >>> [file.name for file in folder.iterdir()]
    ['a.txt']
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{PREFIX}{uuid.uuid4().hex}-{_tail(path.name)}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: str | Path, content: Any, indent: int | None = 2, **settings: Any) -> None:
    """Write plain values as JSON, whole or not at all; settings as of `json.dumps`."""
    with replacing(path) as part:
        text = json.dumps(content, indent=indent, **settings)
        part.write_text(text + "\n", encoding="utf-8", newline="\n")


def read_json(path: str | Path) -> Any:
    """What a file of JSON holds.

    Raises:
        ValueError: it is no JSON, no regular file, or too large.
        OSError: it cannot be read.
    """
    return json.loads(text_file(path).read_text(encoding="utf-8"))


def _tail(name: str) -> str:
    """What the name of something half-written has of the name to be: all, unless too long."""
    return shortened(name, MOST_BYTES - RANDOM_BYTES)


def sweep_temporaries(path: str | Path) -> list[Path]:
    """Delete what killed processes left half-written for this file; return what was deleted."""
    path = Path(path)
    stale = sorted(path.parent.glob(f"{PREFIX}*-{glob.escape(_tail(path.name))}"))
    for part in stale:
        part.unlink(missing_ok=True)
    return stale


def sweep_parts(paths: Iterable[Path]) -> None:
    """Delete what killed processes left half-written for these files, and nothing else."""
    tails: dict[Path, set[str]] = {}
    for path in paths:
        tails.setdefault(path.parent, set()).add(_tail(path.name))
    for folder, names in tails.items():
        for part in folder.glob(f"{PREFIX}*"):
            name = part.name
            while name.startswith(PREFIX):  # what is written whole inside of another such block
                name = name[len(PREFIX) + len(uuid.uuid4().hex) + 1 :]
            if name in names:
                part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make a renaming in the folder survive a power cut, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_sha256(path: str | Path) -> str:
    """The SHA-256 of a file's content, as ``sha256sum`` prints it.

    Raises:
        OSError: the file cannot be read.
    """
    digest = hashlib.sha256()
    with Path(path).open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def content_sha256(path: str | Path) -> str | list[str] | None:
    """The content of a file, or of all files of a folder (a series); None where there is none.

    Of a folder of Zarr also those of the folders in it, with their names.
    """
    path = Path(path)
    try:
        if any((path / name).is_file() for name in ZARR):
            files = sorted(file for file in path.rglob("*") if file.is_file())
            return [f"{file_sha256(file)}  {file.relative_to(path).as_posix()}" for file in files]
        if path.is_dir():
            return [file_sha256(file) for file in sorted(path.iterdir()) if file.is_file()]
        return file_sha256(path) if path.is_file() else None
    except OSError:
        return None


# What the system does not let us read, told by its name instead of a traceback.


def text_file(path: str | Path, most: int = MOST_TEXT) -> Path:
    """The path of a file of text that can be read as a whole.

    Raises:
        ValueError: it is a device or pipe, which may have no end, or larger than `most` bytes.
        OSError: there is none.
    """
    found = Path(path).stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise ValueError("it is no regular file")
    if found.st_size > most:
        raise ValueError(
            f"it has {found.st_size >> 20} MB, more than such a file may have ({most >> 20})"
        )
    return Path(path)


@contextmanager
def readable(path: str | Path) -> Iterator[None]:
    """Name the file or folder that cannot be opened or listed.

    Faults of a file's content, which some libraries also raise as OSError, pass.

    Args:
        path: to name where the system names none.

    Raises:
        DataError: permissions, the disk or the network keep a file or folder from being read.

    >>> with readable("scans"):
    ...     raise PermissionError(13, "Permission denied", "scans/a.nii")
    Traceback (most recent call last):
    ...
    metaseg_monai.errors.DataError: scans/a.nii: Permission denied; check its permissions and \
those of its folder, or use another place
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise system_refusal(error, error.filename or path) from error


@contextmanager
def writable(path: str | Path, more: str = "") -> Iterator[None]:
    """Name the file or folder that cannot be written.

    Args:
        path: to name, whatever file in it or beside it the system names.
        more: said behind the next step.

    Raises:
        DataError: permissions, a full disk or the network keep it from being written.
    """
    try:
        yield
    except OSError as error:
        raise system_refusal(error, path, more) from error


def absolute(path: str | Path) -> Path:
    """The path from the root, without following links, whose names are what the user sees.

    Links are followed only where ``..`` demands it.

    >>> absolute("/data/case_00000").as_posix()[-16:]
    '/data/case_00000'
    """
    parts = Path(path).absolute().parts
    up = max((index for index, part in enumerate(parts) if part == ".."), default=-1)
    return Path(*parts[: up + 1]).resolve().joinpath(*parts[up + 1 :])


INSTALLED = Path(__file__).resolve().parent / "bundles"  # put there when the package is built


def written_at(path: str | Path) -> Path:
    """Return where something of a bundle is written: at its path, absolute.

    Of a bundle that was installed with the package it is below the working directory, in a folder
    of the bundle's name.

    >>> written_at(INSTALLED / "shapes" / "data").relative_to(Path.cwd()).as_posix()
    'shapes/data'
    """
    place = Path(path).resolve()
    return Path.cwd() / place.relative_to(INSTALLED) if INSTALLED in place.parents else place


# Folders that are whole or not there: written beside their place, whatever killed writers left.

PARTIAL, OLD = "partial", "old"
ABANDONED_S = 24 * 3600  # a writer of whom nothing else is known writes a file more often


class FolderFilledError(DataError):
    """Somebody else has filled a folder that was to be made."""


@contextmanager
def new_folder(output: str | Path, replace: bool = False) -> Iterator[Path]:
    """Give an empty folder beside `output` to fill; it takes its place when the block ends well.

    If the block raises or the process is killed, `output` is as it was. What killed writers left
    beside it is removed first, and told. A folder in which somebody stands stays the same one.

    Args:
        output: the folder to be, which may exist if it is empty.
        replace: put the new folder in the place of an old one, which is removed last.

    Raises:
        FolderFilledError: there are files in `output`, perhaps since the beginning of the block.
        DataError: no folder can be made there, or another process owns it.
        OSError: it cannot be put in its place.

    >>> import tempfile
    >>> output = Path(tempfile.mkdtemp()) / "cells"
    >>> with new_folder(output) as part:
    ...     _ = (part / "table.csv").write_text("image")
    >>> [file.name for file in output.iterdir()], [path.name for path in output.parent.iterdir()]
    (['table.csv'], ['cells'])
    """
    output = Path(output).resolve()  # "." has no name to write beside
    if output.exists() and not output.is_dir():
        raise DataError(f"{output}: is a file; name a folder, which is made")
    with owned(output, "is filling this folder"):
        if not replace and _holds_files(output):
            raise FolderFilledError(
                f"{output}: is filled already; give another folder, or empty it"
            )
        removed, kept = remove_leftovers(output)
        for path in removed:
            logger.warning("%s: was left half-written by a run that was killed; removed", path)
        for path in kept:
            told = "left by a killed run, if none writes it just now; then remove it"
            logger.warning("%s: %s", path, told)
        partial = folder_beside(output)
        with writable(output):
            partial.mkdir(parents=True)
        try:
            yield partial
            _put(partial, output, replace)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _put(partial: Path, output: Path, replace: bool) -> None:
    filled = f"{output}: another process filled it meanwhile; use that, or give another folder"
    if not replace and _holds_files(output):
        raise FolderFilledError(filled)
    old = folder_beside(output, OLD)
    if output in (Path.cwd(), *Path.cwd().parents):  # a shell there would stand in a lost folder
        old.mkdir()
        moves = [(path, old / path.name) for path in output.iterdir()]
        _move([*moves, *((path, output / path.name) for path in sorted(partial.iterdir()))])
    elif replace and output.exists():
        _move([(output, old), (partial, output)])
    else:
        with suppress(OSError):
            output.rmdir()  # Windows renames onto no folder, not even an empty one
        try:
            partial.rename(output)
        except OSError as error:
            if _holds_files(output):
                raise FolderFilledError(filled) from error
            raise
    shutil.rmtree(old, ignore_errors=True)


def _holds_files(folder: Path) -> bool:
    try:
        return any(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):  # another process may just replace it
        return False


def _move(moves: Sequence[tuple[Path, Path]]) -> None:
    """Rename one after the other, or nothing."""
    done: list[tuple[Path, Path]] = []
    try:
        for path, target in moves:
            path.rename(target)
            done.append((path, target))
    except OSError:
        for path, target in reversed(done):
            target.rename(path)
        raise


# What a new run would replace is kept: moved aside, whole.

PREVIOUS, MOVING = "previous", "moving"


def numbered(place: Path) -> Path:
    """The first of ``place-1``, ``place-2`` ... that is not there."""
    numbers = (place.with_name(f"{place.name}-{number}") for number in count(1))
    return next(path for path in numbers if not path.exists())


def set_aside(folder: Path, names: Iterable[str], what: str) -> Path | None:
    """Move files and folders of `folder` into a new ``previous/<what>-<number>`` inside it.

    They come there under that name when all of them were moved. Of a call that was killed nothing
    is lost: the next one goes on with it.

    Args:
        folder: where they are.
        names: relative to it; those that are not there are passed over.
        what: they are, such as "run".

    Returns:
        Where they are now; None where there was nothing to move.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "log.csv").write_text("epoch")
    >>> set_aside(folder, ["log.csv", "model.pt"], "run").relative_to(folder).as_posix()
    'previous/run-1'
    """
    kept = folder / PREVIOUS
    moving = kept / f".{MOVING}-{what}"
    found = [name for name in dict.fromkeys(names) if (folder / name).exists()]
    if any((moving / name).exists() for name in found):  # written anew since that call was killed
        moving.rename(numbered(kept / what))
    if not found and not moving.is_dir():
        return None
    for name in found:
        (moving / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).rename(moving / name)
    target = numbered(kept / what)
    moving.rename(target)
    return target


def check_settings(record: Path, settings: Mapping[str, Any], free: Sequence[str] = ()) -> None:
    """Refuse a folder that was made with other settings; one without a record of them passes.

    Args:
        record: JSON file in the folder.
        settings: that are asked for, as JSON can hold them.
        free: names of those that may differ.

    Raises:
        DataError: the record is damaged, or settings differ; names these.
    """
    if not record.is_file():
        return
    try:
        made = json.loads(record.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(
            f"{record}: damaged ({error}); give another folder, or remove {record.parent} first"
        ) from error
    asked = json.loads(json.dumps(settings))
    made = made if isinstance(made, dict) else {}
    names = [name for name in {**made, **asked} if made.get(name) != asked.get(name)]
    if names := [name for name in names if name not in free]:
        was, now = (
            ", ".join(f"{name}={one.get(name)!r:.200}" for name in names) for one in (made, asked)
        )
        raise DataError(
            f"{record.parent}: was made with {was}, asked for {now}; give another folder, or "
            "remove it first"
        )


def plain(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return settings as JSON would give them back; ConfigError, with their name, if it cannot."""
    try:
        copied: dict[str, Any] = json.loads(json.dumps(dict(values)))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} must be plain values, as in JSON: {error}.") from error
    return copied


def differences(stored: Any, current: Any, place: str = "") -> list[str]:
    """Return one line per difference between plain values; empty where they agree.

    Items of a list are known by their "name" or the class in their "_target_", where these differ.

    Example:
        >>> differences({"epochs": 100, "seed": 0}, {"epochs": 50, "seed": 0})
        ['epochs: 100 in the checkpoint, 50 now']
    """
    are_lists = isinstance(stored, list) and isinstance(current, list)
    stored, current = _opened(stored), _opened(current)
    if isinstance(stored, dict) and isinstance(current, dict):
        lines = []
        for key in dict.fromkeys([*stored, *current]):
            inner = f"{place}.{key}" if place else str(key)
            if key not in stored:
                lines.append(f"{inner}: none in the checkpoint, {_short(current[key])} now")
            elif key not in current:
                lines.append(f"{inner}: {_short(stored[key])} in the checkpoint, none now")
            else:
                lines += differences(stored[key], current[key], inner)
        if are_lists and not lines and list(stored) != list(current):
            return [f"{place}: order {_short(list(stored))} is now {_short(list(current))}"]
        return lines
    if stored == current and isinstance(stored, bool) == isinstance(current, bool):
        return []
    return [f"{place}: {_short(stored)} in the checkpoint, {_short(current)} now"]


def _opened(value: Any) -> Any:
    """Return a list of named items as a dict; other values as they are."""
    if isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        named = {_name_of(item): item for item in value}
        unique = len(named) == len(value) and None not in named
        return named if unique else dict(enumerate(value))
    return value


def _name_of(item: Any) -> str | None:
    if not isinstance(item, Mapping):
        return item if isinstance(item, str) else None
    name = item.get("name", str(item.get("_target_", "")).rpartition(".")[2])
    return name if isinstance(name, str) and name else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def folder_beside(output: Path, kind: str = PARTIAL) -> Path:
    """Name a new folder beside `output` that tells its writer.

    Args:
        output: the folder to be, with a name (not ".").
        kind: `PARTIAL` for what is to become `output`, `OLD` for what it was before.
    """
    writer = f"{_machine()}.{os.getpid()}"
    return output.with_name(f".{kind}-{writer}-{uuid.uuid4().hex}-{_tail(output.name)}")


def remove_leftovers(output: Path) -> tuple[list[Path], list[Path]]:
    """Remove what killed runs left beside `output`; folders of other outputs stay.

    A folder goes if its writer was a process of this machine that ended, or if nothing in it
    changed for a day.

    Args:
        output: the folder that they wrote, with a name (not ".").

    Returns:
        The folders that were removed; and those of writers that may go on, with what `output`
        held before where it is missing.
    """
    form = r"\.(?P<kind>partial|old)-(?:(?P<machine>[0-9a-f]{8})\.(?P<process>\d+)-)?[0-9a-f]{32}-"
    removed: list[Path] = []
    kept: list[Path] = []
    tail = _tail(output.name)
    for path in sorted(output.parent.glob(".*-" + glob.escape(tail))):
        found = re.fullmatch(form + re.escape(tail), path.name)
        if found is None or not path.is_dir():
            continue
        only_copy = found["kind"] == OLD and not output.exists()
        if not only_copy and (_has_ended(found) or _is_abandoned(path)):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path)
        else:
            kept.append(path)
    return removed, kept


def _has_ended(found: re.Match[str]) -> bool:
    return found["machine"] == _machine() and not _is_alive(int(found["process"]))


def _is_abandoned(path: Path) -> bool:
    try:  # the time of change tells a folder that was moved, too
        told = [one.stat() for one in (path, *path.rglob("*"))]
    except OSError:  # its writer has just renamed it
        return False
    changed = max(max(one.st_mtime, one.st_ctime) for one in told)
    return time.time() - changed > ABANDONED_S


def _machine() -> str:
    """Tells apart what shares a disk, but not its numbers of processes: machines and containers."""
    told = [platform.node()]
    with suppress(OSError):  # Linux only; elsewhere the name must do
        told.append(str(Path("/proc/self/ns/pid").stat().st_ino))
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
    return f"{zlib.crc32(' '.join(told).encode()):08x}"


def _is_alive(process: int) -> bool:
    """Whether the process runs; True where nobody can tell."""
    if os.name != "posix":  # elsewhere, signal 0 is no question
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        pass
    return True
