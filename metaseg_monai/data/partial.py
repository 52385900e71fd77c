"""Where a folder is written before it is whole, and what a killed writer left of one there."""

import glob
import os
import platform
import re
import shutil
import time
import uuid
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PARTIAL, OLD = "partial", "old"
ABANDONED_S = 24 * 3600  # a writer of whom nothing else is known writes a file more often


class Leftovers(NamedTuple):
    """Folders that writers left beside their output.

    Attributes:
        removed: those of writers that ended.
        kept: those of writers that may go on, and what `output` held before where it is missing.
    """

    removed: list[Path]
    kept: list[Path]


def folder_beside(output: Path, kind: str = PARTIAL) -> Path:
    """Name a new folder beside `output` that tells its writer.

    Args:
        output: the folder to be, with a name (not ".").
        kind: `PARTIAL` for what is to become `output`, `OLD` for what it was before.
    """
    writer = f"{_machine()}.{os.getpid()}"
    return output.with_name(f".{kind}-{writer}-{uuid.uuid4().hex}-{output.name}")


def remove_leftovers(output: Path) -> Leftovers:
    """Remove what killed runs left beside `output`; folders of other outputs stay.

    A folder goes if its writer was a process of this machine that ended, or if nothing in it
    changed for a day.

    Args:
        output: the folder that they wrote, with a name (not ".").
    """
    form = r"\.(?P<kind>partial|old)-(?:(?P<machine>[0-9a-f]{8})\.(?P<process>\d+)-)?[0-9a-f]{32}-"
    leftovers = Leftovers([], [])
    for path in sorted(output.parent.glob(".*-" + glob.escape(output.name))):
        found = re.fullmatch(form + re.escape(output.name), path.name)
        if found is None or not path.is_dir():
            continue
        only_copy = found["kind"] == OLD and not output.exists()
        if not only_copy and (_has_ended(found) or _is_abandoned(path)):
            shutil.rmtree(path, ignore_errors=True)
            leftovers.removed.append(path)
        else:
            leftovers.kept.append(path)
    return leftovers


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
