"""Files that are either whole or absent, written beside their place; and what a file holds."""

import glob
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".part-"
CHUNK_BYTES = 1 << 20


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
    part = path.with_name(f"{PREFIX}{uuid.uuid4().hex}-{path.name}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
        _sync_folder(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sweep_temporaries(path: str | Path) -> list[Path]:
    """Delete what killed processes left half-written for this file; return what was deleted."""
    path = Path(path)
    stale = sorted(path.parent.glob(f"{PREFIX}*-{glob.escape(path.name)}"))
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
