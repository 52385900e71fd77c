"""Files that are either whole or absent, written beside their place; and what a file holds."""

import csv
import errno
import glob
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import stat
import threading
import time
import uuid
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metaseg_monai.errors import ConfigError, DataError, Problem
from metaseg_monai.naming import MOST_BYTES, composed, shortened

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

PREFIX = ".part-"
RANDOM_BYTES = 64  # of a name that is taken by nobody else, before the one to be
CHUNK_BYTES = 1 << 20
SHOWN_CHARACTERS = 80  # of a value in a message
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # some disks of clusters
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


def _tail(name: str) -> str:
    """What the name of something half-written has of the name to be: all, unless too long."""
    return shortened(name, MOST_BYTES - RANDOM_BYTES)


def write_table(rows: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Write rows as a UTF-8 CSV table, columns in the order of the first row, each by `as_cell`.

    Args:
        rows: one mapping a row, all with the same keys.
        path: file to write; its folder is made where it is missing.

    Returns:
        The path.

    Raises:
        DataError: there are no rows, or one has other columns than the first.
    """
    path = Path(path)
    if not rows:
        raise DataError(f"{path}: no rows to write")
    columns = list(rows[0])
    for number, row in enumerate(rows, start=2):
        if set(row) != set(columns):
            raise DataError(f"{path}: row {number} has the columns {list(row)}, not {columns}")
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(map(as_cell, columns))
        writer.writerows([as_cell(row[name]) for name in columns] for row in rows)
    return path


# A spreadsheet runs a cell that begins so, and takes what follows an apostrophe as text.
_FORMULA = re.compile(r"'*[=+\-@\t\r\uff0b\uff0d\uff1d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")


def as_cell(value: Any) -> Any:
    """A value as it stands in every CSV file of ours: text is never a spreadsheet's formula.

    Text that begins as a formula gets an apostrophe; numbers stay numbers. `of_cell` takes it away.

    >>> [as_cell(value) for value in ("=1+1", "@a", "-3.2", -3.2, "-b", "a=b", "'=")]
    ["'=1+1", "'@a", '-3.2', -3.2, "'-b", 'a=b', "''="]
    """
    plain = not isinstance(value, str) or not _FORMULA.match(value) or _NUMBER.fullmatch(value)
    return value if plain else f"'{value}"


def of_cell(value: Any) -> Any:
    """The value that `as_cell` wrote.

    >>> [of_cell(as_cell(value)) for value in ("=1+1", "-3.2", "'=", "it's")]
    ['=1+1', '-3.2', "'=", "it's"]
    """
    quoted = isinstance(value, str) and value.startswith("'") and _FORMULA.match(value)
    return value[1:] if quoted and not _NUMBER.fullmatch(value[1:]) else value


def frame_csv(frame: "pd.DataFrame", index: bool = False, **settings: Any) -> str:
    """A frame as CSV, each cell by `as_cell`; settings as of `DataFrame.to_csv`."""
    frame = frame.copy()
    for name in frame.columns[[kind.kind not in "biufcmM" for kind in frame.dtypes]]:
        frame[name] = frame[name].map(as_cell)
    frame = frame.rename(columns=as_cell, index=as_cell if index else None)
    settings = {"lineterminator": "\n", **settings}
    return frame.to_csv(index=index, **settings)


PROBLEMS = "problems.csv"


def write_problems(folder: str | Path, problems: Sequence[Problem]) -> list[Path]:
    """Write ``problems.csv`` into a folder of results; without problems, remove an earlier one.

    Args:
        folder: of the results.
        problems: one a row, with the columns case, file, problem, next_step.

    Returns:
        The file, if there is one.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(folder) / PROBLEMS
    if problems:
        return [write_table([problem._asdict() for problem in problems], path)]
    with suppress(FileNotFoundError):
        with path.open(encoding="utf-8", errors="replace") as stream:
            ours = stream.readline().strip() == ",".join(Problem._fields)
        if ours:
            path.unlink()
    return []


NO_CSV: Mapping[bytes, str] = {
    b"PK\3\4": "a workbook of Excel or LibreOffice",
    b"\xd0\xcf\x11\xe0": "a workbook of an old Excel",
    b"\xff\xfe": "text in UTF-16",
    b"\xfe\xff": "text in UTF-16",
    b"\x1f\x8b": "compressed (gzip)",
}


def read_lines(path: str | Path) -> tuple[list[str], list[tuple[int, dict[str, str]]], list[str]]:
    """Read a CSV file as text, cell by cell, exactly; rows without any text are no rows.

    What `as_cell` put before a formula is taken away.

    Args:
        path: the table, UTF-8, comma-separated, one header line.

    Returns:
        The header, the rows as (number, {column: cell}), and problems of rows whose number of
        cells is not the header's.

    Raises:
        DataError: the file may not be read, is no regular file or larger than 1 GB, is not UTF-8,
            empty, without rows, or repeats a column.
    """
    path = Path(path)
    try:
        with readable(path), text_file(path, MOST_TABLE).open("rb") as start:
            mark = start.read(4)
    except ValueError as error:
        raise DataError(f"{path}: {error}; give a table as a CSV file") from error
    if found := next((what for begin, what in NO_CSV.items() if mark.startswith(begin)), None):
        raise DataError(
            f'{path}: is {found}, expected CSV as text in UTF-8; save the sheet as "CSV UTF-8 '
            '(comma delimited)"'
        )
    try:
        with readable(path), path.open(encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.reader(stream, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not readable as UTF-8 CSV ({error}); save it anew") from error
    if not lines:
        raise DataError(f"{path}: empty; expected a header line and one row a case")
    lines = [[of_cell(cell) for cell in line] for line in lines]
    header = [composed(name.strip()) for name in lines[0]]
    if len(header) == 1 and re.search(r"[;\t]", header[0]):
        raise DataError(f"{path}: separated by semicolons or tabs; save it comma-separated")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: columns {twice} appear more than once; rename or remove them")
    rows, problems = [], []
    for number, cells in enumerate(lines[1:], start=2):
        if not any(map(str.strip, cells)):  # Excel leaves such rows below a table
            continue
        if len(cells) == len(header):
            rows.append((number, dict(zip(header, cells, strict=True))))
        else:
            problems.append(f"row {number}: {len(cells)} cells, the header has {len(header)}")
    if not rows and not problems:
        raise DataError(f"{path}: a header without rows; expected one row a case")
    return header, rows, problems


def sweep_temporaries(path: str | Path) -> list[Path]:
    """Delete what killed processes left half-written for this file; return what was deleted."""
    path = Path(path)
    stale = sorted(path.parent.glob(f"{PREFIX}*-{glob.escape(_tail(path.name))}"))
    for part in stale:
        part.unlink(missing_ok=True)
    return stale


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
    metaseg_monai.errors.DataError: scans/a.nii: cannot be read (Permission denied); check its \
permissions and those of its folder, or copy it to where you may read it
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        what = "permissions and those of its folder, or copy it to where you may read it"
        if not isinstance(error, PermissionError):
            what = "disk and path"
        raise DataError(
            f"{error.filename or path}: cannot be read ({error.strerror}); check its {what}"
        ) from error


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
    with owned(output, "is filling this folder"):
        removed, kept = remove_leftovers(output)
        for path in removed:
            logger.warning("%s: was left half-written by a run that was killed; removed", path)
        for path in kept:
            told = "left by a killed run, if none writes it just now; then remove it"
            logger.warning("%s: %s", path, told)
        partial = folder_beside(output)
        try:
            partial.mkdir(parents=True)
        except OSError as error:
            raise DataError(f"{output}: cannot be made ({error}); give another folder") from error
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


# One process owns an output folder; all others are refused, and told who it is.


@dataclass
class _Owner:
    """A thread of this process, how often it owns the folder, and what ends that."""

    thread: int
    times: int
    lock: ExitStack


_owned: dict[Path, _Owner] = {}


@contextmanager
def owned(folder: str | Path, doing: str, wait: bool = False) -> Iterator[None]:
    """Own an output folder until the block or the process ends, however it does.

    Whatever the folder is called (links, "..", another working directory), it has one owner. What
    the owning thread calls in turn is its own. The lock lies beside the folder, in the folder where
    it may not lie there, and is removed at the end. Where neither can be written, or the disk has
    no locks, nothing is locked; ranks of a distributed run but the first leave it to that one.

    Args:
        folder: of the results, which need not exist.
        doing: what the owner does, for the message to others, such as "is preparing this folder".
        wait: until the folder is free, instead of refusing.

    Raises:
        DataError: another process or thread owns it; names it.

    >>> import tempfile
    >>> output = Path(tempfile.mkdtemp()) / "run"
    >>> with owned(output, "trains here"), owned(output.parent / "other" / ".." / "run", "tests"):
    ...     [path.suffix for path in sorted(output.parent.iterdir())]
    ['.json', '.lock']
    >>> list(output.parent.iterdir())
    []
    """
    place, own = _resolved(folder), threading.get_ident()
    while (owner := _owned.get(place)) is not None and owner.thread != own:
        if not wait:
            raise DataError(f"{folder}: another thread of {_self()} is at work there; {OTHERWISE}")
        time.sleep(0.05)
    if owner is None:
        with ExitStack() as stack:
            if not _is_further_rank():
                _lock(place, folder, doing, wait, stack)
            owner = _owned[place] = _Owner(own, 0, stack.pop_all())
    owner.times += 1
    try:
        yield
    finally:  # in whatever order the blocks end
        owner.times -= 1
        if not owner.times:
            del _owned[place]
            owner.lock.close()


OTHERWISE = "wait until it ends, or give another folder"


def _resolved(folder: str | Path) -> Path:
    with readable(folder):
        try:
            return Path(folder).resolve()
        except RuntimeError as error:  # Python below 3.13 on links in a circle
            raise DataError(f"{folder}: its links lead in a circle; give another folder") from error


def _is_further_rank() -> bool:
    """Whether torchrun started this process beside a first one, whose refusal ends both."""
    return os.environ.get("RANK", "0") != "0" and "MASTER_PORT" in os.environ


def _self() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def _lock(place: Path, folder: str | Path, doing: str, wait: bool, stack: ExitStack) -> None:
    """Lock a folder until the stack is closed; see `owned`."""
    name = f".owner-{hashlib.sha256(os.fsencode(place.name)).hexdigest()[:12]}.lock"
    for parent in (place.parent, place) if place.name else (place,):
        missing = [above for above in (parent, *parent.parents) if not above.exists()]
        try:
            parent.mkdir(parents=True, exist_ok=True)
            stack.callback(_remove_empty, missing)
            if (lock := _acquired(parent / name, wait=False)) is None:
                waits = wait and (parent / name).exists()
                if waits:
                    told = _holder(parent / name)
                    logger.warning("%s: %s; this process waits until it ends", folder, told)
                lock = _acquired(parent / name, waits)
            if lock is None and not (parent / name).exists():
                continue  # where no file can be made, as in /proc, which looks as if it were held
            if lock is None:
                raise DataError(f"{folder}: {_holder(parent / name)}; {OTHERWISE}")
        except OSError as error:
            if error.errno in WITHOUT_LOCKS:
                return
            continue  # who may write neither place will say so, when it comes to that
        stack.callback(_release, lock, parent / name)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        record = {"process": _self(), "doing": doing, "since": since}
        with suppress(OSError):  # a full disk keeps nobody from owning a folder
            (parent / name).with_suffix(".json").write_text(json.dumps(record), encoding="utf-8")
        return


def _acquired(path: Path, wait: bool) -> Any:
    """A lock that is held on the file which has this name now; None where another holds it."""
    from filelock import FileLock, Timeout  # 60 ms, and few need a lock

    while True:
        lock = FileLock(path)
        try:
            lock.acquire(blocking=wait)
        except Timeout:
            return None
        held = lock._context.lock_file_fd
        try:  # an owner that has just ended may have removed the file that was waited for
            if held is None or os.fstat(held).st_ino == path.stat().st_ino:
                return lock
        except FileNotFoundError:
            pass
        lock.release()


def _release(lock: Any, path: Path) -> None:
    with suppress(OSError):  # the folder may be gone, or replaced
        path.with_suffix(".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
    lock.release()


def _holder(path: Path) -> str:
    for _ in range(20):  # it may just be writing who it is
        try:
            known = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            return f"{known['process']} {known['doing']} since {known['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            time.sleep(0.05)
    return "another process owns this folder"


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders that were made for a lock alone, the innermost first."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


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
