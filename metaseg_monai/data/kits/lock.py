"""One process at a time in a prepared folder."""

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from metaseg_monai.errors import DataError

try:
    import fcntl
except ImportError:  # Windows has no such locks; there one must take care oneself
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
WITHOUT_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)  # some disks of clusters


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep a folder for this process; it is free again when the process ends, however it does.

    Args:
        folder: made where it is missing.

    Raises:
        DataError: another process has it, or it cannot be made.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = None if fcntl is None else _locked(path)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error}); give another folder") from error
    if stream is None:
        yield
        return
    with stream:
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {platform.node()}")
        stream.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def _locked(path: Path) -> TextIO:
    """Open the file of the lock and lock it; the system frees what a killed process had."""
    while True:
        stream = path.open("a+", encoding="utf-8")
        try:
            if _lock(stream, path):
                return stream
        except BaseException:
            stream.close()
            raise
        stream.close()


def _lock(stream: TextIO, path: Path) -> bool:
    """Lock; False where the file was removed by a process that ended just before."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.seek(0)
        holder = stream.read() or "another process"
        raise DataError(
            f"{path.parent}: {holder} is preparing this folder; wait until it ends, or give "
            "another folder"
        ) from error
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False
